// Takes skipped steps by their closed form; the mathematics is in catchup/plan.py.
//
// Generated before this file, for arrays of float32 and rows without gaps:
//
//   bool decays(k), by_row(k)      a state's decay factors are not all 1; it has a number for a row
//   Values<N> load<N>(update, row, width, j), store(update, row, width, j, values)
//   store_row_state(update, row, k, T)
//   Displacement(history, mask, step): displacement(states)
//   inverse(states)                one divided by the powers of the states in the correction
//
// GA_STATES: states of the rule. GA_MOVES: whether skipped steps change the parameter.

namespace gpuadapt {

// What all elements of a row share.
struct Segment {
    const double *moments;
    T drift, correction, left_out, sums[GA_TERMS], term_left_out, total;
    bool usable;

    __device__ Segment(const double *moments) : moments(moments) {
        const double *const m = moments + GA_STATES;
        drift = narrowed(m[GA_SHRINK] - 1);
        correction = narrowed(m[GA_CORRECTION]);
        left_out = narrowed(at_least(m[GA_LEFT_OUT]));
        usable = magnitude(m[GA_SHRINK]) <= GA_MAX_GROWTH;
#pragma unroll
        for (int j = 0; j < GA_TERMS; ++j) {
            sums[j] = narrowed(m[GA_FIRST_SUM + j]);
            usable &= magnitude(m[GA_FIRST_SUM + j]) <= GA_MAX_GROWTH;
        }
        term_left_out = narrowed(at_least(magnitude(m[GA_FIRST_SUM + GA_TERMS])));
        total = abs(sums[0]);
    }

    __device__ static double magnitude(double x) { return x < 0 ? -x : x; }
    __device__ static double at_least(double x) {
        return x > GA_LEAST_LEFT_OUT ? x : GA_LEAST_LEFT_OUT;
    }
};

// A decayed state; a product that float32 does not hold is not rounded.
__device__ inline T decayed(T x, double product) {
    if (product >= GA_SMALLEST_NORMAL) {
        return _normal(x * narrowed(product));
    }
    const number<double> wide = ieee::widen(x.value);
    return _normal(narrowed((wide * number<double>(product)).value));
}

#if GA_MOVES
// The changes of the parameter. `wrong`: some are not as good as float32 allows.
template <int N>
__device__ inline pack<T, N> changes(
    const Values<N> &x, const Segment &segment, const Displacement &displacement, bool &wrong
) {
    pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        T states[STATES];
#pragma unroll
        for (int q = 0; q < GA_STATES; ++q) {
            states[q] = x.states[q].at[k];
        }
        const T d = displacement(states);
        const T u = segment.correction / (segment.correction + inverse(states));
        T sum = segment.sums[GA_TERMS - 1];
#pragma unroll
        for (int j = GA_TERMS - 2; j >= 0; --j) {
            sum = sum * u + segment.sums[j];
        }
        const T change = sum * d + segment.drift * x.parameter.at[k];
        const T size = abs(d), whole = abs(x.parameter.at[k]);
        const T square = u > T(F(GA_LEAST_U)) ? u * u : T(F(GA_LEAST_U * GA_LEAST_U));
        const T error =
            (square * square * square * segment.term_left_out + segment.left_out) * size;
        const bool precise = error <= T(F(GA_ERROR)) * (whole + abs(change));
        const bool matters = !(size * segment.total <= T(F(GA_ERROR)) * whole);
        wrong |= !precise || (matters && !(size >= T(F(GA_MIN_SIZE))));
        result.at[k] = change;
    }
    return result;
}
#endif

// Whether a lane of the row has found something wrong.
template <int LANES>
__device__ inline bool any_of_row(bool wrong) {
    const int first = threadIdx.x % 32 / LANES * LANES;
    const unsigned int row = (LANES == 32 ? 0xffffffffu : (1u << LANES % 32) - 1) << first;
    return (__ballot_sync(0xffffffff, wrong) & row) != 0;
}

// A warp stays together.
template <int LANES, int N>
__device__ inline void catch_up(
    Update &update, bool active, long long row, long long width, long long *last_step,
    const double *history, const double *moments, const long long *ends, long long mask,
    const long long *step_count, int mode
) {
    const int lane = threadIdx.x % LANES;
    const long long now = *step_count;
    long long step = active ? last_step[row] : now;
    while (largest_in_warp(U(now - step)) != 0) {
        const bool behind = step < now;
        const long long first = (step + 1) & mask, end = ends[first] < now ? ends[first] : now;
        const long long skipped = end - step;
        const Segment segment(moments + first * (GA_STATES + GA_FIRST_SUM + GA_TERMS + 1));
        bool whole = behind && skipped > GA_MAX_REPLAY;
#if GA_MOVES
        whole = whole && segment.usable;
        const Displacement displacement(history, mask, step + 1);
        bool wrong = false;
        for (long long j = lane * N; whole && j < width; j += LANES * N) {
            changes<N>(load<N>(update, row, width, j), segment, displacement, wrong);
        }
        whole = !any_of_row<LANES>(wrong) && whole;
#endif
        for (long long j = lane * N; whole && j < width; j += LANES * N) {
            Values<N> x = load<N>(update, row, width, j);
#if GA_MOVES
            bool ignored = false;
            const pack<T, N> change = changes<N>(x, segment, displacement, ignored);
#endif
#pragma unroll
            for (int k = 0; k < N; ++k) {
#if GA_MOVES
                x.parameter.at[k] = x.parameter.at[k] + change.at[k];
#endif
#pragma unroll
                for (int q = 0; q < GA_STATES; ++q) {
                    if (decays(q)) {
                        x.states[q].at[k] = decayed(x.states[q].at[k], segment.moments[q]);
                    }
                }
            }
            store<N>(update, row, width, j, x);
        }
        __syncwarp();  // every lane has loaded the states of the row
        for (int q = 0; whole && lane == 0 && q < GA_STATES; ++q) {
            if (by_row(q) && decays(q)) {
                const T state = load<1>(update, row, width, 0).states[q].at[0];
                store_row_state(update, row, q, decayed(state, segment.moments[q]));
            }
        }
        __syncwarp();
        long long replayed = skipped < GA_REPLAYED ? skipped : GA_REPLAYED;
        replayed = !behind || whole ? 0 : (replayed > 1 ? replayed : 1);
        replay<LANES, N>(update, row, width, step, replayed, history, mask);
        step += !behind ? 0 : (whole ? skipped : replayed);
    }
    if (active && lane == 0) {
        last_step[row] = now + (mode == UPDATE);
    }
    __syncwarp();
}

}  // namespace gpuadapt
