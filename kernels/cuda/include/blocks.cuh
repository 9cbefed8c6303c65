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

// Four bytes of two words: the k-th one is the byte selector / 16^k % 16 of a (0 to 3) or b (4 to
// 7).
#ifdef __CUDACC_RTC__
__device__ inline U four_bytes(U a, U b, U selector) { return __byte_perm(a, b, selector); }
#else
inline U four_bytes(U a, U b, U selector) {
    U bytes = 0;
    for (int k = 0; k < 4; ++k) {
        const U n = selector >> 4 * k & 7;
        bytes |= ((n < 4 ? a : b) >> 8 * (n % 4) & 0xff) << 8 * k;
    }
    return bytes;
}
#endif

// The codes, in the lower 8 bits of halves, of numbers whose upper halves these are: two in a word.
// No number is below the base, so that the lower one takes nothing from the upper one.
__device__ inline U two_codes(U halves, U base) {
    return (halves >> 4) - ((base >> 16) * 0x10001 >> 4);
}

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

    // What `larger` and `smaller` compare: the magnitude, times 2.
    static __device__ U size(S x) { return bits(x) << 1; }
    static __device__ U magnitude(U size) { return size >> 1; }

    // The codes of numbers, of which `even` has the upper halves of the first and the third one.
    static __device__ U joined(U even, U odd, U base) {
        const U signs = four_bytes(even, odd, 0x7351) & 0x80808080;
        return signs | four_bytes(two_codes(even, base), two_codes(odd, base), 0x6240);
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

    // Of a negative number more than any code's.
    static __device__ U size(S x) { return bits(x); }
    static __device__ U magnitude(U size) { return size; }

    static __device__ U joined(U even, U odd, U base) {
        return four_bytes(two_codes(even, base), two_codes(odd, base), 0x6240);
    }
};
#endif

// Draws the random bits of elements of a block, as `random_bits` does with the keys on its page.
struct RandomBits {
    U first, second;

    __device__ RandomBits(long long begin, U first_key, U second_key)
        : first(first_key), second(second_key) {
        if (const U page = U(begin >> 32)) {
            first = key_on(first, page);
            second = key_on(second, page);
        }
        first += U(begin);
        second ^= second >> 15;  // what `random_bits` does to it for each element
    }

    // Of the i-th element of the block.
    __device__ U of(int i) const {
        U x = first + i;
        x = (x ^ (x >> 16)) * 0x7feb352d;
        return (x ^ (x >> 15) ^ second) * 0x846ca68b;
    }
};

// The new numbers that a lane has of a state, and the state's codes.
template <typename Codec>
struct Coded {
    U base;
    bool quick;  // no number lies below that of the smallest code: `packed_quickly` will do
    S numbers[LANE_ELEMENTS];

    __device__ Coded(S scale) : base(Codec::base(scale)) {}
    __device__ S loaded(U code) const { return Codec::load(code, base); }
    __device__ S unpacked(U codes, int k) const { return Codec::unpacked(codes, k, base); }
    __device__ U stored(int q, U random) const { return Codec::store(numbers[q], base, random); }

    // The scale of the block, of which this lane has so many numbers.
    __device__ S scale(int count) {
        U largest = 0, least = 0xffffffff;  // sizes, as the codec has them
#pragma unroll
        for (int q = 0; q < count; ++q) {
            const U size = Codec::size(numbers[q]);
            largest = largest < size ? size : largest;
            least = size < least ? size : least;
        }
        largest = Codec::magnitude(largest_of(largest));
        const bool usual = all_representable(largest) == U(1);
        if (!usual) {
            largest = make_representable(count);
        }
        const S scale = Codec::scale(largest);
        base = Codec::base(scale);
        quick = usual && Codec::magnitude(least) >= base + 0x00100000;
        return scale;
    }

    // Replaces numbers that 8 bits do not represent; returns the block's largest magnitude.
    __device__ U make_representable(int count) {
        U size = 0;
#pragma unroll
        for (int q = 0; q < count; ++q) {
            size = larger_magnitude(size, numbers[q]);
        }
        size = largest_of(size);
        if (all_representable(size) == U(1)) {  // one is negative, and the codec has no sign
            return size;
        }
        size = 0;
#pragma unroll
        for (int q = 0; q < count; ++q) {
            size = larger_representable(size, numbers[q]);
        }
        size = block_limit(largest_of(size));
#pragma unroll
        for (int q = 0; q < count; ++q) {
            numbers[q] = representable(numbers[q], size);
        }
        return size;
    }

    // Codes of neighbours, from number `at` on. A number's exponent and the first bits of its
    // fraction, less the base, are its code; random bits are added to the other bits before.
    __device__ U packed_quickly(int at, const U *random, U drawn) const {
        U sum[NEIGHBOURS];
#pragma unroll
        for (int k = 0; k < NEIGHBOURS; ++k) {
            sum[k] = bits(numbers[at + k]) + (random[k] * drawn >> 12);
        }
        const U even = four_bytes(sum[0], sum[2], 0x7632), odd = four_bytes(sum[1], sum[3], 0x7632);
        return Codec::joined(even, odd, base);
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
