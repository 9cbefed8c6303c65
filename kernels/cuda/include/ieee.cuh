// Exact numbers and the functions that rules may call.
//
// CuPy appends -ftz=true to every compilation, after our own options, and the last one wins:
// subnormal numbers would become zero on the GPU and not on the CPU. So arithmetic goes through
// `number`, whose operators are PTX instructions that round to nearest, keep subnormals and are
// never contracted, whatever the flags. A host compiler (in tests) takes the language's operators.

namespace gpuadapt {

// clang-format off
#ifdef __CUDACC_RTC__
#define GPUADAPT_UNARY(name, expression, instruction)                                     \
    __device__ inline float name(float a) {                                               \
        float r; asm(instruction ".f32 %0, %1;" : "=f"(r) : "f"(a)); return r;            \
    }                                                                                     \
    __device__ inline double name(double a) {                                             \
        double r; asm(instruction ".f64 %0, %1;" : "=d"(r) : "d"(a)); return r;           \
    }
#define GPUADAPT_BINARY(name, expression, instruction)                                    \
    __device__ inline float name(float a, float b) {                                      \
        float r; asm(instruction ".f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r;\
    }                                                                                     \
    __device__ inline double name(double a, double b) {                                   \
        double r; asm(instruction ".f64 %0, %1, %2;" : "=d"(r) : "d"(a), "d"(b)); return r;\
    }
#define GPUADAPT_COMPARE(name, expression, test)                                          \
    __device__ inline bool name(float a, float b) {                                       \
        int r; asm("{ .reg .pred q; setp." test ".f32 q, %1, %2; selp.s32 %0, 1, 0, q; }" \
                   : "=r"(r) : "f"(a), "f"(b)); return r;                                 \
    }                                                                                     \
    __device__ inline bool name(double a, double b) {                                     \
        int r; asm("{ .reg .pred q; setp." test ".f64 q, %1, %2; selp.s32 %0, 1, 0, q; }" \
                   : "=r"(r) : "d"(a), "d"(b)); return r;                                 \
    }
#else
#define GPUADAPT_UNARY(name, expression, instruction)                                     \
    inline float name(float a) { return expression; }                                     \
    inline double name(double a) { return expression; }
#define GPUADAPT_BINARY(name, expression, instruction)                                    \
    inline float name(float a, float b) { return expression; }                            \
    inline double name(double a, double b) { return expression; }
#define GPUADAPT_COMPARE(name, expression, test)                                          \
    inline bool name(float a, float b) { return expression; }                             \
    inline bool name(double a, double b) { return expression; }
#endif

namespace ieee {
GPUADAPT_UNARY(negate, -a, "neg")
GPUADAPT_UNARY(magnitude, std::fabs(a), "abs")
GPUADAPT_UNARY(root, std::sqrt(a), "sqrt.rn")
GPUADAPT_BINARY(add, a + b, "add.rn")
GPUADAPT_BINARY(subtract, a - b, "sub.rn")
GPUADAPT_BINARY(multiply, a * b, "mul.rn")
GPUADAPT_BINARY(divide, a / b, "div.rn")
GPUADAPT_BINARY(larger, b > a ? b : a, "max")  // a is no NaN; if b is one, the result is a
GPUADAPT_COMPARE(less, a < b, "lt")
GPUADAPT_COMPARE(less_equal, a <= b, "le")
GPUADAPT_COMPARE(greater, a > b, "gt")
GPUADAPT_COMPARE(greater_equal, a >= b, "ge")
GPUADAPT_COMPARE(equal, a == b, "eq")
GPUADAPT_COMPARE(not_equal, a != b, "neu")

#ifdef __CUDACC_RTC__
__device__ inline double widen(float a) {
    double r; asm("cvt.f64.f32 %0, %1;" : "=d"(r) : "f"(a)); return r;
}
__device__ inline void narrow(double a, float &r) {
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(r) : "d"(a));
}
#else
inline double widen(float a) { return a; }
inline void narrow(double a, float &r) { r = float(a); }
#endif
__device__ inline double widen(double a) { return a; }
__device__ inline void narrow(double a, double &r) { r = a; }
}

__device__ inline void convert(float a, double &r) { r = ieee::widen(a); }
__device__ inline void convert(double a, float &r) { ieee::narrow(a, r); }

template <typename F>
struct number {
    F value;
    number() = default;
    __device__ number(F v) : value(v) {}
    template <typename G> explicit __device__ number(number<G> o) { convert(o.value, value); }
    __device__ number operator-() const { return ieee::negate(value); }
    __device__ number operator+(number o) const { return ieee::add(value, o.value); }
    __device__ number operator-(number o) const { return ieee::subtract(value, o.value); }
    __device__ number operator*(number o) const { return ieee::multiply(value, o.value); }
    __device__ number operator/(number o) const { return ieee::divide(value, o.value); }
    __device__ bool operator<(number o) const { return ieee::less(value, o.value); }
    __device__ bool operator<=(number o) const { return ieee::less_equal(value, o.value); }
    __device__ bool operator>(number o) const { return ieee::greater(value, o.value); }
    __device__ bool operator>=(number o) const { return ieee::greater_equal(value, o.value); }
    __device__ bool operator==(number o) const { return ieee::equal(value, o.value); }
    __device__ bool operator!=(number o) const { return ieee::not_equal(value, o.value); }
};

// What one access, or a few of 16 bytes, loads or stores.
template <typename F, int N>
struct alignas(N * sizeof(F) < 16 ? N * sizeof(F) : 16) pack {
    F at[N];
};

// A pointer that has come from a table: the compiler knows only then that it is to global memory.
#ifdef __CUDACC_RTC__
template <typename T> __device__ inline T *in_global(T *p) {
    __builtin_assume(__isGlobal(p));
    return p;
}
#else
template <typename T> inline T *in_global(T *p) { return p; }
#endif

// The words that loads and stores are written in, see formats/conversion.py.
typedef unsigned int U;
typedef number<float> S;
typedef number<double> D;
#ifdef __CUDACC_RTC__
// What the compiler cannot see through: it would make abs.ftz of clearing a sign.
__device__ inline U bits(S x) { U r; asm("mov.b32 %0, %1;" : "=r"(r) : "f"(x.value)); return r; }
__device__ inline S real(U x) { S r; asm("mov.b32 %0, %1;" : "=f"(r.value) : "r"(x)); return r; }
__device__ inline U truncated(S x) {
    U r; asm("cvt.rzi.u32.f32 %0, %1;" : "=r"(r) : "f"(x.value)); return r;
}
#else
union word { float number; U bits; };
inline U bits(S x) { word w; w.number = x.value; return w.bits; }
inline S real(U x) { word w; w.bits = x; return w.number; }
inline U truncated(S x) { return U(x.value); }
#endif

// clang-format on
template <typename T> __device__ inline T sqrt(T x) { return ieee::root(x.value); }
template <typename T> __device__ inline T abs(T x) { return ieee::magnitude(x.value); }
template <typename T> __device__ inline T sq(T x) { return x * x; }
template <typename T> __device__ inline T where(bool c, T a, T b) { return c ? a : b; }
template <typename T> __device__ inline T maximum(T a, T b) {
    return where((a > b) | (a != a), a, b);
}
template <typename T> __device__ inline T minimum(T a, T b) {
    return where((a < b) | (a != a), a, b);
}
template <typename T> __device__ inline T sign(T x) {
    return where(x > T(0), T(1), where(x < T(0), T(-1), x));
}
__device__ inline S smallest(S) { return 1.17549435e-38f; }
__device__ inline D smallest(D) { return 2.2250738585072014e-308; }
template <typename T> __device__ inline T _normal(T x) {
    return where(abs(x) < smallest(x), T(0), x);
}

}  // namespace gpuadapt
