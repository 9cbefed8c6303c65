// Updates chunks of contiguous arrays by their gradients, by the threads of a block.
//
// Generated before this file, for a rule and its formats:
//
//   struct Update {
//       (addresses of parameter, states and gradient; the rule's coefficients; random keys)
//       void read(at)                  coefficients: at(k) is the k-th one
//       void seed(key, step)           keys of the random bits of an array in a step
//       void use_page(start)           keys of the random bits of the elements around `start`
//       size_t addresses(start)        addresses of the elements `start`, combined by `|`
//       Elements<N> load<N>(j)         elements j to j + N - 1
//       void apply(Elements<N> &, k, j)          the rule on element j + k; in registers
//       void store(const Elements<N> &, j)
//       void update_block(start, at, block, n)   8-bit formats, by a warp
//   };
//
// The struct of `row_update.cuh` has the same methods for rows of a table.
// GA_BLOCK: elements that share a scale, or 0. GA_THREADS: threads of a block. GA_STREAMING: see
// streaming.cuh.
#include "ieee.cuh"

namespace gpuadapt {

#if GA_BLOCK
// A chunk has whole rows, or lies within one row. `width`: elements of a row.
__device__ inline void update_chunk(
    Update &update, long long start, long long size, long long width
) {
    const long long row_0 = start / width, column_0 = start - row_0 * width;
    const long long block_0 = row_0 * ((width + GA_BLOCK - 1) / GA_BLOCK) + column_0 / GA_BLOCK;
    const bool within = size <= width - column_0;
    // A part of a row is taken for a row. Within a chunk, 32 bits are enough.
    const int n = int(within ? size : width), each = (n + GA_BLOCK - 1) / GA_BLOCK;
    const int blocks = within ? each : int(size) / n * each;
    // A warp has neighbouring blocks, so that there is no division in its loop.
    constexpr int WARPS = GA_THREADS / 32;
    const int own = (blocks + WARPS - 1) / WARPS, q_0 = int(threadIdx.x) / 32 * own;
    const int row = q_0 / each, column = (q_0 - row * each) * GA_BLOCK;
    int at = row * n + column, remaining = n - column;  // in the chunk, of the row
    for (int q = q_0; q < q_0 + own && q < blocks; ++q) {
        const int elements = remaining < GA_BLOCK ? remaining : GA_BLOCK;
        update.update_block(start, at, block_0 + q, elements);
        at += elements;
        remaining = remaining == elements ? n : remaining - elements;
    }
}
#else
// Elements are loaded and stored GA_ELEMENTS at a time if all arrays are aligned to 16 bytes there:
// GA_GROUPS times, then the rule is applied to them.
//
// A chunk of an array begins at a multiple of the greatest size of its chunks. That is a power of
// two up to GA_CHUNK, so no multiple of 2^32 is inside, and the chunk's random bits have the same
// two keys.
__device__ inline void update_chunk(Update &update, long long start, long long size) {
    constexpr int N = GA_ELEMENTS, GROUPS = GA_GROUPS;
    static_assert(GA_CHUNK % N == 0 && (1LL << 32) % GA_CHUNK == 0, "a chunk is on one page");
    update.use_page(start);
    long long j = 0;
    if ((update.addresses(start) & 15) == 0) {
        j = size / N * N;
        constexpr int STEP = GA_THREADS * N;
        for (long long i = (long long)threadIdx.x * N; i < j; i += GROUPS * STEP) {
            typename Update::template Elements<N> x[GROUPS];
#pragma unroll
            for (int q = 0; q < GROUPS; ++q) {
                if (q == 0 || i + q * STEP < j) {
                    x[q] = update.template load<N>(start + i + q * STEP);
                }
            }
#pragma unroll
            for (int q = 0; q < GROUPS; ++q) {
                if (q == 0 || i + q * STEP < j) {
#pragma unroll
                    for (int k = 0; k < N; ++k) {
                        update.apply(x[q], k, start + i + q * STEP);
                    }
                    update.store(x[q], start + i + q * STEP);
                }
            }
        }
    }
#pragma unroll 1
    for (j += threadIdx.x; j < size; j += GA_THREADS) {
        auto x = update.template load<1>(start + j);
        update.apply(x, 0, start + j);
        update.store(x, start + j);
    }
}
#endif

}  // namespace gpuadapt
