// The largest magnitude of a block of elements that share a scale; a warp has a block.
//
// Defined before this file: larger_representable, block_limit and representable, of 8-bit formats.
// GA_LANE_ELEMENTS: elements of a block that a lane has.
#include "ieee.cuh"

namespace gpuadapt {

// The largest of a warp's numbers.
__device__ inline U largest_of(U x) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2) {
        const U other = __shfl_xor_sync(0xffffffff, x, half, 32);
        x = x < other ? other : x;
    }
    return x;
}

// Replaces a lane's elements that 8 bits do not represent; returns the block's largest magnitude.
template <typename T>
__device__ inline U make_representable(T *numbers, int lane, bool whole, int n) {
    constexpr int N = GA_LANE_ELEMENTS;
    U largest = 0;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        if ((whole ? lane * N + k : lane + 32 * k) < n) {
            largest = larger_representable(largest, S(numbers[k]));
        }
    }
    largest = block_limit(largest_of(largest));
#pragma unroll
    for (int k = 0; k < N; ++k) {
        if ((whole ? lane * N + k : lane + 32 * k) < n) {
            numbers[k] = T(representable(S(numbers[k]), largest));
        }
    }
    return largest;
}

}  // namespace gpuadapt
