"""The CUDA text of rows that make up for missed steps; as the CPU's `missed_text`."""

READ = r"""    if (reading != 0) {
        const long long end = reading == 1 && here ? end_of(keys, i, n, shift) : i;
        for (long long k = i; k < end; ++k) {
            const long long at = keys[k] & ((1ULL << shift) - 1);
            for (long long j = lane; j < width; j += LANES) {
                out[at * width + j] = %(parameter)s[row * width + j];
            }
        }
        return;
    }
"""
"""Every occurrence of a row gets a copy (1), or none does (2)."""

REPLAY = r"""
    // The steps that the row has missed, each with the coefficients that it had. A warp goes
    // through them together.
    const long long done = *now;
    {
        const bool found = here;
        const long long before = here ? last[row] : done;
        U most = U(done - before);
        for (int half = 16; half > 0; half /= 2) {
            const U other = __shfl_xor_sync(0xffffffff, most, half, 32);
            most = other > most ? other : most;
        }
        for (long long past = done - most + 1; past <= done; ++past) {
            const bool here = found && past > before;
            const nothing row_gradient;
%(coefficients)s
%(body)s
            __syncwarp();
        }
        if (found && lane == 0) {
            last[row] = int(done + (reading == 0));
        }
    }
"""

NOTHING = r"""
// The gradient of a row in a step that it has missed.
struct nothing {
    template <int N>
    __device__ pack<%(wide)s, N> at(long long) const {
        pack<%(wide)s, N> zero;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            zero.at[e] = %(wide)s(0);
        }
        return zero;
    }
};
"""

FOLLOW = r"""
    const long long done = *now;
    {
        const long long before = here ? last[row] : done;
        const bool behind = before < done;
%(row_states)s
%(reach)s
        for (long long j = lane * N; behind && j < width; j += LANES * N) {
%(load)s
            catch_up<N>(%(given)s, before, done%(reached)s, history, fading, ring);
%(store)s
        }
        __syncwarp();
        if (here && lane == 0) {
%(fade_rows)s
            last[row] = int(done + (reading == 0));
        }
        __syncwarp();
    }
"""

REACH = r"""
        // The largest motion as a share of its parameter, at most 1.
        double reach = 0;
        for (long long j = lane * N; behind && j < width; j += LANES * N) {
%(load)s
            const pack<T, N> x = motions<N>(%(given)s, before + 1, history, ring);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const T size = abs(x.at[k]), whole = abs(%(parameter)s.at[k]);
                T share = size / (size > whole ? size : whole);
                share = share != share ? narrowed(infinity()) : share;
                share = size == T(0) ? T(0) : share;
                const double own = ieee::widen(share.value);
                reach = own > reach ? own : reach;
            }
        }
#pragma unroll
        for (int half = LANES / 2; half > 0; half /= 2) {
            const double other = __shfl_down_sync(0xffffffff, reach, half, LANES);
            reach = other > reach ? other : reach;
        }
        reach = __shfl_sync(0xffffffff, reach, 0, LANES);
        reach = done - before > %(span)d ? reach : infinity();
"""

HELPERS = r"""
namespace gpuadapt {

__device__ inline double infinity() { return 1e308 * 10; }

__device__ inline T narrowed(double x) {
    T result;
    ieee::narrow(x, result.value);
    return result;
}

// What is remembered of a step: see clock.py.
__device__ inline double at_step(
    const double *history, long long ring, int column, long long step
) {
    return history[column * (ring + 1) + (step & ring)];
}
%s
}  // namespace gpuadapt
"""

MOTION = r"""
template <int N>
__device__ inline pack<T, N> motions(
    %(states)s, %(shares)s, long long step, const double *history, long long ring
) {
%(motion_coefficients)s
    pack<T, N> x;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        x.at[k] = T(0);
        %(motion)s
        x.at[k] = x.at[k] + T(0);  // no zero with a sign
    }
    return x;
}

__device__ inline void go(
    T &p, T x, long long step, const double *history, long long ring
) {
%(move_coefficients)s
    %(move)s
}

// The parameter goes along its motions. Returns the first step that it has not gone.
template <int N>
__device__ inline long long along(
    pack<T, N> &p, %(states)s, long long steps, long long now, double reach,
    const double *history, const double *fading, long long ring
) {
    double %(ones)s, total = 1;
    pack<T, N> x = motions<N>(%(given)s, steps, history, ring);
    while (!(reach * total * at_step(fading, ring, %(peak)d, steps) < %(least)s)) {
        const long long until = steps + %(span)d < now ? steps + %(span)d : now;
        const int count = int(until - steps);
        if (count < %(few)d) {
#pragma unroll
            for (int k = 0; k < N; ++k) {
                go(p.at[k], x.at[k], steps, history, ring);
            }
            ++steps;
            if (count == 0) {
                break;
            }
%(fade_once)s
            x = motions<N>(%(given)s, steps, history, ring);
            continue;
        }
        const double %(saved)s;
        double ratio = 1, lag = 1, together = 0;
        for (int j = 0; j < count; ++j) {
            together += ratio;
%(fade)s
            ratio *= at_step(history, ring, %(ratio)d, steps + j + 1);
            lag *= at_step(history, ring, %(lag)d, steps + j + 1);
        }
        const double share = lag != 1 ? 1 / (lag - 1) : 0;
        const pack<T, N> y = motions<N>(%(given)s, until, history, ring);
        const T back = narrowed(1 / ratio), all = narrowed(together);
        pack<T, N> d, z = p;
        bool bent = false;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const T change = y.at[k] * back - x.at[k];
            const bool flat = abs(change) * all <= T(F(%(flat)s)) * abs(p.at[k]);
            const bool straight = abs(change) <= T(F(%(straight)s)) * abs(x.at[k]);
            d.at[k] = flat ? T(0) : straight ? change : narrowed(infinity() - infinity());
            bent |= !flat && !straight;
        }
        double gone = 1, way = 1;
        for (int j = 0; j < count; ++j) {
            const T at = narrowed((way - 1) * share), beside = narrowed(gone);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                go(p.at[k], (x.at[k] + at * d.at[k]) * beside, steps + j, history, ring);
            }
            gone *= at_step(history, ring, %(ratio)d, steps + j + 1);
            way *= at_step(history, ring, %(lag)d, steps + j + 1);
        }
        if (bent) {
            %(restore)s
            for (int j = 0; j < count; ++j) {
                x = motions<N>(%(given)s, steps + j, history, ring);
#pragma unroll
                for (int k = 0; k < N; ++k) {
                    go(z.at[k], x.at[k], steps + j, history, ring);
                }
%(fade)s
            }
#pragma unroll
            for (int k = 0; k < N; ++k) {
                p.at[k] = d.at[k] == d.at[k] ? p.at[k] : z.at[k];
            }
        }
        x = y;
        total *= ratio;
        steps = until;
    }
    return steps;
}
"""

RESTING = r"""
__device__ inline void rest(T &p, long long step, const double *history, long long ring) {
%(coefficients)s
    %(call)s
}
"""

CATCH_UP = r"""
template <int N>
__device__ inline void catch_up(
    %(arguments)s, long long before, long long now%(reach)s,
    const double *history, const double *fading, long long ring
) {
    long long steps = before + 1;
    if (now - steps < %(few)d) {  // one by one, as they would have been
%(copies)s
        for (; steps <= now; ++steps) {
%(coefficients)s
#pragma unroll
            for (int k = 0; k < N; ++k) {
                %(step)s
            }
        }
        return;
    }
%(along)s
#pragma unroll
    for (int k = 0; k < N; ++k) {
%(fades)s
    }
}
"""

FADE_ROW = r"""T %(state)s_f = %(state)s_s;
if (done - before > %(few)d) {
    %(state)s_f = %(state)s_f * narrowed(at_step(fading, ring, %(k)d, before));
} else {
    for (long long step = before + 1; step <= done; ++step) {
        %(state)s_f = %(state)s_f * narrowed(at_step(history, ring, %(column)d, step));
    }
}
%(state)s_[row] = %(state)s_f.value;"""
"""A state with one number for the row, which one lane writes."""
