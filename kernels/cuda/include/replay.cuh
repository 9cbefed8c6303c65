// Takes all skipped steps by the rule itself.

namespace gpuadapt {

template <int LANES, int N>
__device__ inline void catch_up(
    const Update &update, bool active, long long row, long long width, long long *last_step,
    const double *history, const double *, const long long *, long long mask,
    const long long *step_count, int mode
) {
    const long long now = *step_count, last = active ? last_step[row] : now;
    replay<LANES, N>(update, row, width, last, now - last, history, mask);
    if (active && threadIdx.x % LANES == 0) {
        last_step[row] = now + (mode == UPDATE);
    }
}

}  // namespace gpuadapt
