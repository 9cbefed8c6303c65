// Takes skipped steps along a segment of the history by displacements of the parameter, of which
// one in GA_MAX_INTERVAL is evaluated and the others are interpolated. States are multiplied by
// products of decay factors. The arithmetic along the steps is float64. See catchup/plan.py.
//
// Generated before this file, for arrays of float32 and rows without gaps:
//
//   bool decays(k), by_row(k)      a state's decay factors are not all 1; it has a number for a row
//   Values<N> load<N>(update, row, width, j), store(update, row, width, j, values)
//   store_row_state(update, row, k, T)
//   ZeroGradientStep, Displacement, Apply, DecayOnly (history, mask, step)    rules in a step:
//       step(p, states); displacement(states); apply(p, displacement); decay_only(p)
//
// GA_STATES: states of the rule. GA_DISPLACED, GA_DECAY_ONLY: there is a Displacement and an
// Apply; a DecayOnly. GA_DECAY, GA_RATIO, GA_CORRECTION: columns of the history.

namespace gpuadapt {

// What a row does next: it replays `replayed` steps, or goes through `interpolated` steps by
// displacements, and one more if they are the last ones (`ends`); if there are none of both, the
// decay_only of the segment does not change the parameter.
struct Progress {
    double relative;              // the largest displacement, relative to its parameter
    double covered = 1, nth = 1;  // ratio of displacements so far; number of this interval
    double decay[STATES], decay_after[STATES];  // before and after this interval
    double ratio, correction, sum;              // of displacements at its end; sum of ratios
    long long replayed, interpolated;
    bool ends;

    __device__ Progress() { reset(); }

    __device__ void reset() {
        covered = nth = 1;
        for (int k = 0; k < STATES; ++k) {
            decay[k] = 1;
        }
    }

    __device__ void plan(
        long long step, long long since, long long target, const double *history,
        const double *products, long long mask
    ) {
        replayed = target - step > 1 ? target - step : 1;
        interpolated = 0;
        ends = false;
        if (step == since && target - step <= GA_MAX_REPLAY) {
            return;
        }
#if GA_DISPLACED
        const double to_come = at_step(products, mask, GA_STATES + 1, step + 1);
        if (relative * covered * to_come < GA_STOP) {
            replayed = 0;
            return;
        }
        const long long remaining = target - step;
        replayed = remaining < GA_MAX_INTERVAL ? remaining : GA_MAX_INTERVAL;
        double smallest = 1;
        for (int k = 0; k < STATES; ++k) {
            smallest = decay[k] < smallest ? decay[k] : smallest;
            decay_after[k] = decay[k];
        }
        if (to_come > GA_MAX_REMAINING || smallest < GA_MIN_PRODUCT) {
            return;
        }
        // All remaining steps, or as many as leave more than a few.
        ends = remaining <= GA_MAX_INTERVAL;
        interpolated = remaining - GA_MAX_REPLAY - 1 < GA_MAX_INTERVAL
            ? remaining - GA_MAX_REPLAY - 1
            : GA_MAX_INTERVAL;
        interpolated = ends ? remaining - 1 : interpolated;
        ratio = correction = 1;
        sum = 0;
        for (long long j = 0; j < interpolated; ++j) {
            sum += ratio;
#pragma unroll
            for (int k = 0; k < STATES; ++k) {
                if (decays(k)) {
                    decay_after[k] *= at_step(history, mask, GA_DECAY + k, step + j + 1);
                }
            }
            ratio *= at_step(history, mask, GA_RATIO, step + j + 2);
            correction *= at_step(history, mask, GA_CORRECTION, step + j + 2);
        }
        if (sum < GA_MAX_GROWTH && ratio < GA_MAX_GROWTH && correction < GA_MAX_GROWTH) {
            replayed = 0;
        } else {
            replay();
        }
#else
        replayed = 0;
#endif
    }

    // Replays this interval, since its displacements cannot be interpolated.
    __device__ void replay() {
        replayed = interpolated + ends;
        interpolated = 0;
        ends = false;
    }

    // Ends the interval. Returns the step of the states in memory.
    __device__ long long advance(long long &step, long long since, long long target) {
        if (interpolated > 0 && !ends) {
            step += interpolated;
            covered *= ratio;
            nth += 1;
            for (int k = 0; k < STATES; ++k) {
                decay[k] = decay_after[k];
            }
            return since;
        }
        step = replayed > 0 ? step + replayed : target;
        reset();
        return step;
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

#if GA_DISPLACED
// The displacements of a step, if states have decayed since they were written.
template <int N>
__device__ inline pack<T, N> displacements(
    const Values<N> &x, const double *decay, long long step, const double *history, long long mask
) {
    T factors[STATES];
#pragma unroll
    for (int q = 0; q < GA_STATES; ++q) {
        factors[q] = narrowed(decay[q]);
    }
    const Displacement displacement(history, mask, step);
    pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        T states[STATES];
#pragma unroll
        for (int q = 0; q < GA_STATES; ++q) {
            states[q] = factors[q] * x.states[q].at[k];
        }
        result.at[k] = displacement(states) + T(0);  // no zero with a sign
    }
    return result;
}

// The displacements d at an interval's begin. Returns how much those at its end, divided by the
// ratio, differ from them; 0 where the sum of the differences is negligible. `lost`: some differ
// too much for linear interpolation, or are too small for float32.
template <int N>
__device__ inline pack<T, N> differences(
    const Values<N> &x, const Progress &go, long long step, bool &lost, const double *history,
    long long mask, pack<T, N> &d
) {
    d = displacements<N>(x, go.decay, step + 1, history, mask);
    const pack<T, N> end =
        displacements<N>(x, go.decay_after, step + 1 + go.interpolated, history, mask);
    const T inverse = narrowed(go.ratio > 0 ? 1 / go.ratio : 0.0);
    const T weight = narrowed(go.sum * (go.nth * go.nth));
    pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const T difference = end.at[k] * inverse - d.at[k], size = abs(difference);
        const T least = T(F(GA_NEGLIGIBLE)) * abs(x.parameter.at[k]);
        const bool negligible = size * weight <= least;
        const bool linear = size <= T(F(GA_LINEAR)) * abs(d.at[k]);
        result.at[k] = negligible ? T(0) : difference;
        lost |= end.at[k] != T(0) && abs(end.at[k]) < T(F(GA_MIN_PRODUCT))
            && abs(d.at[k]) * weight > least;
        lost |= !(negligible || linear);
#pragma unroll
        for (int q = 0; q < GA_STATES; ++q) {
            const T state = abs(narrowed(go.decay_after[q]) * x.states[q].at[k]);
            lost |= state < T(F(GA_SMALLEST_NORMAL)) && state != T(0);
        }
    }
    return result;
}

// Moves the parameter through an interval.
template <int N>
__device__ inline void interpolate(
    Values<N> &x, const Progress &go, long long step, const double *history, long long mask
) {
    pack<T, N> d;
    bool lost = false;
    const pack<T, N> difference = differences<N>(x, go, step, lost, history, mask, d);
    const double scale = go.correction > 1 ? 1 / (go.correction - 1) : 0;
    double ratio = 1, correction = 1;
    for (long long s = step + 1; s <= step + go.interpolated + go.ends; ++s) {
        const T fraction = narrowed((correction - 1) * scale), factor = narrowed(ratio);
        const Apply apply(history, mask, s);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            apply(x.parameter.at[k], (d.at[k] + fraction * difference.at[k]) * factor);
        }
        ratio *= at_step(history, mask, GA_RATIO, s + 1);
        correction *= at_step(history, mask, GA_CORRECTION, s + 1);
    }
}
#endif

// Takes what is planned with N elements. The states are those of the step `since`.
template <int N>
__device__ inline void take(
    Values<N> &x, const Progress &go, long long step, long long since, long long target,
    const double *history, const double *products, long long mask
) {
#if GA_DISPLACED
    if (go.interpolated > 0) {
        interpolate<N>(x, go, step, history, mask);
    }
    if (go.interpolated > 0 && !go.ends) {
        return;
    }
#endif
    const bool whole = go.replayed == 0;
#if GA_DECAY_ONLY
    for (long long s = step + 1; whole && go.interpolated == 0 && s <= target; ++s) {
        const DecayOnly decay_only(history, mask, s);
        for (int k = 0; k < N; ++k) {
            decay_only(x.parameter.at[k]);
        }
    }
#endif
#pragma unroll
    for (int k = 0; (whole || step != since) && k < N; ++k) {
#pragma unroll
        for (int q = 0; q < GA_STATES; ++q) {
            if (decays(q)) {
                x.states[q].at[k] = decayed(
                    x.states[q].at[k], whole ? at_step(products, mask, q, since) : go.decay[q]
                );
            }
        }
    }
    for (long long s = step + 1; s <= step + go.replayed; ++s) {
        const ZeroGradientStep zero_gradient_step(history, mask, s);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            T states[STATES];
#pragma unroll
            for (int q = 0; q < GA_STATES; ++q) {
                states[q] = x.states[q].at[k];
            }
            zero_gradient_step(x.parameter.at[k], states);
#pragma unroll
            for (int q = 0; q < GA_STATES; ++q) {
                x.states[q].at[k] = states[q];
            }
        }
    }
}

// Writes state q, which has one number for the row, after `take`.
template <int N>
__device__ inline void take_row_state(
    Update &update, const Values<N> &x, const Progress &go, int q, long long row, long long step,
    long long since, const double *history, const double *products, long long mask
) {
    const bool whole = go.replayed == 0;
    T state = x.states[q].at[0];
    if (whole || step != since) {
        state = decayed(state, whole ? at_step(products, mask, q, since) : go.decay[q]);
    }
    for (long long s = step + 1; s <= step + go.replayed; ++s) {
        state = _normal(state * narrowed(at_step(history, mask, GA_DECAY + q, s)));
    }
    store_row_state(update, row, q, state);
}

// The largest x of a row, for all its lanes.
template <int LANES>
__device__ inline double largest_of_row(double x) {
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) {
        const double other = __shfl_down_sync(0xffffffff, x, half, LANES);
        x = other > x ? other : x;
    }
    return __shfl_sync(0xffffffff, x, 0, LANES);
}

// Interval by interval; a warp stays together. The states in memory are those of the step `since`,
// the parameter is that of `step`.
template <int LANES, int N>
__device__ inline void catch_up(
    Update &update, bool active, long long row, long long width, int *last_step,
    const double *history, const double *products, const long long *segment_ends, long long mask,
    const long long *step_count, int mode
) {
    const int lane = threadIdx.x % LANES;
    const long long now = *step_count;
    long long step = active ? last_step[row] : now, since = step;
    Progress go;
    while (largest_in_warp(U(now - step)) != 0) {
        const bool behind = step < now;
        const long long end = segment_ends[since & mask], target = end < now ? end : now;
#if GA_DISPLACED
        // The largest displacement relative to its parameter, at most 1.
        const bool measured = behind && step == since && target - step > GA_MAX_INTERVAL;
        double relative = 0;
        for (long long j = lane * N; measured && j < width; j += LANES * N) {
            const Values<N> x = load<N>(update, row, width, j);
            const pack<T, N> d = displacements<N>(x, go.decay, step + 1, history, mask);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const T size = abs(d.at[k]), parameter = abs(x.parameter.at[k]);
                T quotient = size / (size > parameter ? size : parameter);
                quotient = quotient != quotient ? narrowed(infinity()) : quotient;
                quotient = size == T(0) ? T(0) : quotient;
                const double own = ieee::widen(quotient.value);
                relative = own > relative ? own : relative;
            }
        }
        relative = largest_of_row<LANES>(relative);
        if (behind && step == since) {
            go.relative = measured ? relative : infinity();
        }
#endif
        if (behind) {
            go.plan(step, since, target, history, products, mask);
        }
#if GA_DISPLACED
        double lost = 0;
        for (long long j = lane * N; behind && go.interpolated > 0 && j < width; j += LANES * N) {
            const Values<N> x = load<N>(update, row, width, j);
            bool own = false;
            pack<T, N> d;
            differences<N>(x, go, step, own, history, mask, d);
            lost = own ? 1 : lost;
        }
        if (largest_of_row<LANES>(lost) != 0) {
            go.replay();
        }
#endif
        for (long long j = lane * N; behind && j < width; j += LANES * N) {
            Values<N> x = load<N>(update, row, width, j);
            take<N>(x, go, step, since, target, history, products, mask);
            store<N>(update, row, width, j, x);
        }
        __syncwarp();
        if (behind && lane == 0 && (go.interpolated == 0 || go.ends)) {
#pragma unroll
            for (int q = 0; q < GA_STATES; ++q) {
                if (by_row(q) && decays(q)) {
                    const Values<1> x = load<1>(update, row, width, 0);
                    take_row_state<1>(update, x, go, q, row, step, since, history, products, mask);
                }
            }
        }
        if (behind) {
            since = go.advance(step, since, target);
        }
        __syncwarp();
    }
    if (active && lane == 0) {
        last_step[row] = int(now + (mode == UPDATE));
    }
    __syncwarp();
}

}  // namespace gpuadapt
