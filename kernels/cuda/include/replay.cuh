// Takes skipped steps by the rule itself, each with its own coefficients.
#include "exact_rows.cuh"

namespace gpuadapt {

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

// A warp stays together.
template <int LANES, int N>
__device__ inline void catch_up(
    const Update &update, bool active, long long row, long long width, int *last_step,
    const double *history, const double *, const long long *, long long mask,
    const long long *step_count, int mode
) {
    const long long now = *step_count, last = active ? last_step[row] : now;
    for (long long step = now - largest_in_warp(U(now - last)) + 1; step <= now; ++step) {
        Update then = update;
        then.read([&](int k) { return at_step(history, mask, k, step); });
        then.seed(step);
        update_row<LANES, N>(then, ZeroGradient(), active && step > last, row, width);
        __syncwarp();
    }
    if (active && threadIdx.x % LANES == 0) {
        last_step[row] = int(now + (mode == UPDATE));
    }
}

}  // namespace gpuadapt
