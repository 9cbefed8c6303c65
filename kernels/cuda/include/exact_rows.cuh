// Exact rows: before a row is updated or read, it takes the steps that it has skipped.
//
//   last_step   (rows,) in and out: the last step that each row has taken
//   history, moments, ends, step_count, mask   see step_history.cuh
//   mode        what rows catch up for: UPDATE, READ (copies for `out`), or REFRESH
#include "row_update.cuh"

namespace gpuadapt {

constexpr int UPDATE = 0, READ = 1, REFRESH = 2;

// Column c of a step in the history.
__device__ inline double at_step(const double *history, long long mask, int c, long long step) {
    return history[c * (mask + 1) + (step & mask)];
}

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

// The gradient of a row in a step that it has skipped.
struct ZeroGradient {
    template <int N>
    __device__ pack<W, N> at(long long) const {
        pack<W, N> zero;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            zero.at[e] = W(0);
        }
        return zero;
    }
};

// Takes `count` steps after `step` by the rule, each with its own coefficients. A warp stays
// together; its rows end together, so that all that are up to date then read the same ones.
template <int LANES, int N>
__device__ inline void replay(
    const Update &update, long long row, long long width, long long step, long long count,
    const double *history, long long mask
) {
    for (long long left = largest_in_warp(U(count)); left > 0; --left) {
        const long long past = step + count + 1 - left;
        Update then = update;
        then.read([&](int k) { return at_step(history, mask, k, past); });
        then.seed(past);
        update_row<LANES, N>(then, ZeroGradient(), left <= count, row, width);
        __syncwarp();
    }
}

}  // namespace gpuadapt
