"""CUDA C shared by every traversal: exact numbers, the functions of rules, a rule's function.

CuPy appends ``-ftz=true`` to every compilation, after our own options, and the last one
wins: subnormal numbers would become zero on the GPU and not on the CPU. So arithmetic goes
through `number`, whose operators are PTX instructions that round to nearest, keep
subnormals and are never contracted, whatever the flags. Compiled by a host compiler (the
tests do) the operators are the language's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..formats import Conversion, Formats, Named
from ..language.rule import Rule
from ..language.scaling import Scaling, scaling

TYPES = {
    "float32": "float",
    "float64": "double",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
}

OPTIONS = ("--fmad=false",)
"""For what stands outside `number`: nothing may be contracted anywhere."""

PREAMBLE = r"""
namespace gpuadapt {

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
"""

PLACE = r"""
// Element j of a row, in an array of rows without gaps, by their width, or of any others, by
// a layout: the number of dimensions of a row, the stride of rows, then the extent and the
// stride of each dimension, the last one first.
__device__ inline long long place(long long width, long long row, long long j) {
    return row * width + j;
}
__device__ inline long long place(const long long *layout, long long row, long long j) {
    long long at = row * layout[1];
    for (long long d = 0; d < layout[0]; ++d) {
        at += j % layout[2 + 2 * d] * layout[3 + 2 * d];
        j /= layout[2 + 2 * d];
    }
    return at;
}
"""
"""Where an element is; for within the namespace."""


def function(rule: Rule, formats: Formats | None = None) -> str:
    """The rule as a device function that replaces the parameter and the states by new ones.

    With ``formats``, of wider gradients: after the function that scales them.
    """
    wide = scaling(rule, formats) if formats else None
    updated = (rule.parameter, *rule.states)
    arguments = [
        f"T &{name}_" if name in updated else f"T {name}" for name in rule.program.arguments
    ]
    arguments += [f"T {name}" for name in rule.coefficients]
    lines = [
        f"    // {name} = {formula}"
        for name, formula in rule.coefficients.items()
        if name != f"h_{formula}"
    ]
    lines += [f"    T {name} = {name}_;" for name in updated]
    declared = set(rule.program.arguments)
    for target, expression in wide.rest if wide else rule.lines:
        lines.append(f"    {'' if target in declared else 'T '}{target} = {expression};")
        declared.add(target)
    lines += [
        f"    {name}_ = {result};" for name, result in zip(updated, rule.results, strict=True)
    ]
    return (_scaled(wide) if wide else "") + "\n".join(
        [
            "\ntemplate <typename T>",
            f"__device__ inline void {rule.symbol}({', '.join(arguments)}) {{",
            *lines,
            "}",
        ]
    )


def _scaled(wide: Scaling) -> str:
    """What is done to gradients before they are rounded, as a device function."""
    arguments = ", ".join(f"T {name}" for name in (wide.gradient, *wide.coefficients))
    lines, declared = [], {wide.gradient}
    for target, expression in wide.lines:
        lines.append(f"    {'' if target in declared else 'T '}{target} = {expression};")
        declared.add(target)
    head = f"__device__ inline T {wide.symbol}({arguments}) {{"
    return "\n".join(
        ["\ntemplate <typename T>", head, *lines, f"    return {wide.result};", "}", ""]
    )


def codecs(given: Sequence[Conversion]) -> str:
    """Loads and stores as device functions."""
    return "".join(f"\n{conversion.cuda}\n" for conversion in given)


def loads(arguments: Sequence[Named], compute: str, at: Callable[[str], str]) -> list[str]:
    """Lines that make numbers, ``<name>_n``, of elements in memory."""
    lines = []
    for one in arguments:
        elements = [at(array) for array in one.arrays]
        if one.format.block:
            elements[1] = f"{one.name}_base"
        lines.append(f"T {one.name}_n = {one.load(compute, elements)};")
    return lines


def stores(arguments: Sequence[Named], compute: str, at: Callable[[str], str]) -> list[str]:
    """Lines that write ``<name>_n`` to memory."""
    lines = []
    for one in arguments:
        elements = [at(array) for array in one.arrays]
        texts = one.store(compute, elements, f"{one.name}_n")
        for place, text, (_, dtype) in zip(elements, texts, one.format.parts, strict=True):
            value = ".value" if dtype.startswith("float") else ""
            lines.append(f"{place} = {text}{value};")
    return lines


def coefficients(rule: Rule, first: str, ctype: str, wide: Mapping[str, int] | None = None) -> str:
    """Lines that read a rule's coefficients from a step's scalars, rounded.

    And some of them, by name, as they are.
    """
    lines = []
    for k, name in enumerate(rule.coefficients):
        lines.append(f"    gpuadapt::number<{ctype}> {name};")
        lines.append(f"    gpuadapt::ieee::narrow(numbers[{first} + {k}], {name}.value);")
    for name, k in (wide or {}).items():
        lines.append(f"    const gpuadapt::number<double> {name} = numbers[{first} + {k}];")
    return "\n".join(lines)


def built(source: str, name: str) -> Callable[..., None]:
    """The kernel of this name, compiled for the current device."""
    import cupy

    made = cupy.RawKernel(source, name, options=OPTIONS)
    made.compile()  # not at its first launch: then other arrays may have been written already
    result: Callable[..., None] = made
    return result
