// Exact rows: before a row is updated or read, it takes the steps that it has skipped.
//
//   last_step   (rows,) in and out: the last step that each row has taken
//   history, products, ends, step_count, mask   see step_history.cuh
//   mode        what rows catch up for: UPDATE, READ (copies for `out`), or REFRESH
#include "row_update.cuh"

namespace gpuadapt {

constexpr int UPDATE = 0, READ = 1, REFRESH = 2;

// Column c of a step in the history.
__device__ inline double at_step(const double *history, long long mask, int c, long long step) {
    return history[c * (mask + 1) + (step & mask)];
}

__device__ inline double infinity() { return 1e308 * 10; }

__device__ inline T narrowed(double x) {
    T result;
    ieee::narrow(x, result.value);
    return result;
}

// The largest number of a warp.
__device__ inline U largest_in_warp(U x) {
    for (int half = 16; half > 0; half /= 2) {
        const U other = __shfl_xor_sync(0xffffffff, x, half, 32);
        x = other > x ? other : x;
    }
    return x;
}

}  // namespace gpuadapt
