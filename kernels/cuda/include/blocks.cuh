// Blocks of elements that share scales: a warp has a block, and finds its scales and its codes.
//
// Defined before this file: the conversions of the 8-bit formats in use, and of random bits.
// GA_BLOCK: elements of a block. GA_NEIGHBOURS: those that a lane has of every part, 32 times as
// many; so each access of a warp is to memory without gaps. Codes of neighbours are in one word.
// GA_SIGNED8, GA_UNSIGNED8: 1 for a format that is in use.
#include "ieee.cuh"

namespace gpuadapt {

constexpr int NEIGHBOURS = GA_NEIGHBOURS, LANE_ELEMENTS = GA_BLOCK / 32;

// The largest of a warp's numbers.
__device__ inline U largest_of(U x) {
#if defined(__CUDACC_RTC__) && __CUDA_ARCH__ >= 800
    return __reduce_max_sync(0xffffffff, x);
#else
#pragma unroll
    for (int half = 16; half > 0; half /= 2) {
        const U other = __shfl_xor_sync(0xffffffff, x, half, 32);
        x = x < other ? other : x;
    }
    return x;
#endif
}

// The larger magnitude, NaN is the largest; the smaller magnitude, if neither is NaN.
#if defined(__CUDACC_RTC__) && __CUDA_ARCH__ >= 800
__device__ inline S larger(S largest, S x) {
    S r;
    asm("{ .reg .f32 a; abs.f32 a, %2; max.NaN.f32 %0, %1, a; }"
        : "=f"(r.value)
        : "f"(largest.value), "f"(x.value));
    return r;
}
__device__ inline S smaller(S least, S x) {
    S r;
    asm("{ .reg .f32 a; abs.f32 a, %2; min.f32 %0, %1, a; }"
        : "=f"(r.value)
        : "f"(least.value), "f"(x.value));
    return r;
}
#else
__device__ inline S larger(S largest, S x) { return real(larger_magnitude(bits(largest), x)); }
__device__ inline S smaller(S least, S x) {
    const U size = bits(x) & 0x7fffffff;
    return size < bits(least) ? real(size) : least;
}
#endif

// The upper halves of two words: that of b above that of a.
__device__ inline U upper_halves(U a, U b) { return (a >> 16) | (b & 0xffff0000); }

// Bits of a where the mask has them, otherwise of b.
__device__ inline U merged(U a, U b, U mask) { return (a & mask) | (b & ~mask); }

// The bits of a number from its code, which is a byte of a word whose others are 0, times a power
// of two; 0 for the code 0. A multiplication leaves the units of logic to other things, and what
// is predicated takes no choice afterwards.
#ifdef __CUDACC_RTC__
__device__ inline U code_bits(U code, U power, U base) {
    asm("{ .reg .pred p; setp.ne.u32 p, %0, 0; @p mad.lo.u32 %0, %0, %1, %2; }"
        : "+r"(code)
        : "r"(power), "r"(base));
    return code;
}
#else
inline U code_bits(U code, U power, U base) { return code == 0 ? 0 : code * power + base; }
#endif

#if GA_SIGNED8
struct signed8 {
    static __device__ U base(S scale) { return signed8_base(scale); }
    static __device__ S scale(U largest) { return signed8_scale(largest); }
    static __device__ S load(U code, U base) { return signed8_load(code, base); }
    static __device__ U store(S x, U base, U random) { return signed8_random(x, base, random); }

    // The number of the k-th code of a word.
    static __device__ S unpacked(U codes, int k, U base) {
        const U sign = codes << (24 - 8 * k) & 0x80000000;
        codes = k < 3 ? codes : codes >> 8;
        k = k < 3 ? k : 2;
        return real(code_bits(codes & (U(0x7f) << 8 * k), U(1) << (20 - 8 * k), base ^ sign));
    }

    // The codes of numbers that have their exponents, without their signs' place between.
    static __device__ U joined(U even, U odd, U base) {
        const U bases = (base >> 16) * 0x10001;
        const U codes = merged((even >> 4) - (bases >> 4), (odd << 4) - (bases << 4), 0x00ff00ff);
        return codes | (merged(even >> 8, odd, 0x00ff00ff) & 0x80808080);
    }
};
#endif

#if GA_UNSIGNED8
struct unsigned8 {
    static __device__ U base(S scale) { return unsigned8_base(scale); }
    static __device__ S scale(U largest) { return unsigned8_scale(largest); }
    static __device__ S load(U code, U base) { return unsigned8_load(code, base); }
    static __device__ U store(S x, U base, U random) { return unsigned8_random(x, base, random); }

    static __device__ S unpacked(U codes, int k, U base) {
        codes = k < 3 ? codes : codes >> 8;
        k = k < 3 ? k : 2;
        return real(code_bits(codes & (U(0xff) << 8 * k), U(1) << (20 - 8 * k), base));
    }

    static __device__ U joined(U even, U odd, U base) {
        const U bases = (base >> 16) * 0x10001;
        return merged((even >> 4) - (bases >> 4), (odd << 4) - (bases << 4), 0x00ff00ff);
    }
};
#endif

// The new numbers that a lane has of a state, and the state's codes.
template <typename Codec>
struct Coded {
    U base;
    S largest = 0.0f, least = 3.4e38f;  // magnitudes
    S numbers[LANE_ELEMENTS];

    __device__ Coded(S scale) : base(Codec::base(scale)) {}
    __device__ S loaded(U code) const { return Codec::load(code, base); }
    __device__ S unpacked(U codes, int k) const { return Codec::unpacked(codes, k, base); }
    __device__ U stored(int q, U random) const { return Codec::store(numbers[q], base, random); }

    __device__ void add(int q, S x) {
        numbers[q] = x;
        largest = larger(largest, x);
        least = smaller(least, x);
    }

    // The scale of the block, of which this lane has so many numbers.
    __device__ S scale(int count) {
        U size = largest_of(bits(largest));
        if (all_representable(size) == U(0)) {
            size = make_representable(count);
        }
        const S scale = Codec::scale(size);
        base = Codec::base(scale);
        return scale;
    }

    // Replaces numbers that 8 bits do not represent; returns the block's largest magnitude.
    __device__ U make_representable(int count) {
        U size = 0;
#pragma unroll
        for (int q = 0; q < count; ++q) {
            size = larger_representable(size, numbers[q]);
        }
        size = block_limit(largest_of(size));
#pragma unroll
        for (int q = 0; q < count; ++q) {
            numbers[q] = representable(numbers[q], size);
        }
        least = 0.0f;
        return size;
    }

    // Whether no number lies below that of the smallest code: then `packed_quickly` will do.
    __device__ bool quick() const { return bits(least) >= base + 0x00100000; }

    // Codes of neighbours, from number `at` on. A number's exponent and the first bits of its
    // fraction, less the base, are its code; random bits are added to the other bits before.
    __device__ U packed_quickly(int at, const U *random, U drawn) const {
        U sum[NEIGHBOURS];
#pragma unroll
        for (int k = 0; k < NEIGHBOURS; ++k) {
            sum[k] = bits(numbers[at + k]) + (random[k] * drawn >> 12);
        }
        return Codec::joined(upper_halves(sum[0], sum[2]), upper_halves(sum[1], sum[3]), base);
    }

    // The same for any numbers.
    __device__ U packed(int at, const U *random, U drawn) const {
        U codes = 0;
#pragma unroll
        for (int k = 0; k < NEIGHBOURS; ++k) {
            codes |= stored(at + k, random[k] * drawn) << 8 * k;
        }
        return codes;
    }
};

}  // namespace gpuadapt
