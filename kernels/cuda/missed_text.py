"""The CUDA text of rows that make up for missed steps; as the CPU's `missed_text`."""

FOLLOW = r"""
template <int LANES, int N>
__device__ inline void catch_up(
    Update &update, bool here, long long row, long long width, int *last, const double *history,
    const double *fading, const long long *ends, long long ring, const long long *now, int reading
) {
    const int lane = threadIdx.x %% LANES;
%(arrays)s
    const long long done = *now;
    {
        // By stretches, and along these from motion to motion; a warp goes through them together.
        // The states in memory are those of the step `since`, the parameter is that of `steps`.
        const bool found = here;
        long long steps = found ? last[row] : done, since = steps;
        going go;
        while (true) {
            U most = U(done - steps);
            for (int half = 16; half > 0; half /= 2) {
                const U other = __shfl_xor_sync(0xffffffff, most, half, 32);
                most = other > most ? other : most;
            }
            if (most == 0) {
                break;
            }
            const bool behind = steps < done;
            const long long ended = ends[since & ring], goal = ended < done ? ended : done;
%(row_states)s
%(reach)s
            if (behind) {
                go.decide(steps, since, goal, history, fading, ring);
            }
%(shape)s
            for (long long j = lane * N; behind && j < width; j += LANES * N) {
%(load)s
                catch_up<N>(%(given)s, go, steps, since, goal, history, fading, ring);
%(store)s
            }
            __syncwarp();
            if (behind && lane == 0) {
%(fade_rows)s
            }
            if (behind) {
                since = go.taken(steps, since, goal);
            }
            __syncwarp();
        }
        if (found && lane == 0) {
            last[row] = int(done + (reading == 0));
        }
        __syncwarp();
    }
}
"""

REACH = r"""
            // The largest motion as a share of its parameter, at most 1.
            const bool asked = behind && steps == since && goal - steps > %(span)d;
            double reach = 0;
            for (long long j = lane * N; asked && j < width; j += LANES * N) {
%(load)s
                const pack<T, N> x = motions<N>(%(given)s, steps + 1, history, ring);
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
            if (behind && steps == since) {
                go.reach = asked ? reach : infinity();
            }
"""

SHAPE = r"""
            // Whether some motions change too much to go straight, or are too small to be trusted.
            double bent = 0;
            for (long long j = lane * N; behind && go.count > 0 && j < width; j += LANES * N) {
%(load)s
                bool lost = false;
                pack<T, N> x;
                changes<N>(%(given)s, go, steps, lost, history, ring, x);
                bent = lost ? 1 : bent;
            }
#pragma unroll
            for (int half = LANES / 2; half > 0; half /= 2) {
                const double other = __shfl_down_sync(0xffffffff, bent, half, LANES);
                bent = other > bent ? other : bent;
            }
            if (__shfl_sync(0xffffffff, bent, 0, LANES) != 0) {
                go.stop();
            }
"""

GOING = r"""
// Where a row is on its way, and what it does next: `again` steps one by one, or `count` steps
// from motion to motion, with one more if they are the `last`; or the stretch ends, where nothing
// moves any more.
struct going {
    double reach, covered = 1, nth = 1;
    double product[%(states)d], later[%(states)d];
    double ratio, lag, together;
    long long again, count;
    bool last;

    __device__ going() { fresh(); }

    __device__ void fresh() {
        covered = nth = 1;
        for (int k = 0; k < %(states)d; ++k) {
            product[k] = 1;
        }
    }

    __device__ void decide(
        long long steps, long long since, long long goal, const double *history,
        const double *fading, long long ring
    ) {
        again = goal - steps > 1 ? goal - steps : 1;
        count = 0;
        last = false;
        if (steps == since && goal - steps <= %(few)d) {
            return;
        }
%(decide)s
    }

    // What `count` steps would lead to is not to be trusted.
    __device__ void stop() {
        again = count + last;
        count = 0;
        last = false;
    }

    // Takes note of what was done. Returns the step that the states in memory are of.
    __device__ long long taken(long long &steps, long long since, long long goal) {
        if (count > 0 && !last) {
            steps += count;
            covered *= ratio;
            nth += 1;
            for (int k = 0; k < %(states)d; ++k) {
                product[k] = later[k];
            }
            return since;
        }
        steps = again > 0 ? steps + again : goal;
        fresh();
        return steps;
    }
};

// What becomes of a state in some steps; see the CPU's.
__device__ inline T faded(T x, double product) {
    if (product >= %(tiny)s) {
        return _normal(x * narrowed(product));
    }
    const number<double> wide = ieee::widen(x.value);
    return _normal(narrowed((wide * number<double>(product)).value));
}
"""

DECIDE = r"""
        const double beyond = at_step(fading, ring, %(sum)d, steps + 1);
        if (reach * covered * beyond < %(least)s) {
            again = 0;
            return;
        }
        const long long left = goal - steps;
        again = left < %(span)d ? left : %(span)d;
        double smallest = 1;
        for (int k = 0; k < %(states)d; ++k) {
            smallest = product[k] < smallest ? product[k] : smallest;
            later[k] = product[k];
        }
        if (beyond > %(long)s || smallest < %(faint)s) {
            return;
        }
        // All that are left, or as many as leave more than a few.
        last = left <= %(span)d;
        count = left - %(few)d - 1 < %(span)d ? left - %(few)d - 1 : %(span)d;
        count = last ? left - 1 : count;
        ratio = lag = 1;
        together = 0;
        for (long long j = 0; j < count; ++j) {
            together += ratio;
%(fade)s
            ratio *= at_step(history, ring, %(ratio)d, steps + j + 2);
            lag *= at_step(history, ring, %(lag)d, steps + j + 2);
        }
        if (together < %(vast)s && ratio < %(vast)s && lag < %(vast)s) {
            again = 0;
        } else {
            stop();
        }
"""

SETTLE = r"""
        again = 0;
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

// The motions, and how much more than these they are `count` steps later, beside their first
// part: zero where all of it together is too little to count.
template <int N>
__device__ inline pack<T, N> changes(
    const pack<T, N> &p, %(states)s, const going &go, long long steps, bool &lost,
    const double *history, long long ring, pack<T, N> &x
) {
    x = motions<N>(%(now)s, steps + 1, history, ring);
    const pack<T, N> y = motions<N>(%(later)s, steps + 1 + go.count, history, ring);
    const T back = narrowed(go.ratio > 0 ? 1 / go.ratio : 0.0);
    const T weight = narrowed(go.together * (go.nth * go.nth));
    pack<T, N> d;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const T change = y.at[k] * back - x.at[k], size = abs(change);
        const T least = T(F(%(flat)s)) * abs(p.at[k]);
        const bool flat = size * weight <= least;
        const bool straight = size <= T(F(%(straight)s)) * abs(x.at[k]);
        d.at[k] = flat ? T(0) : change;
        lost |= y.at[k] != T(0) && abs(y.at[k]) < T(F(%(faint)s)) && abs(x.at[k]) * weight > least;
        lost |= !(flat || straight);
%(lost)s
    }
    return d;
}

// The parameter goes along its motions, `count` steps.
template <int N>
__device__ inline void along(
    pack<T, N> &p, %(states)s, const going &go, long long steps,
    const double *history, long long ring
) {
    pack<T, N> x;
    bool lost = false;
    const pack<T, N> d = changes<N>(p, %(given)s, go, steps, lost, history, ring, x);
    const double share = go.lag > 1 ? 1 / (go.lag - 1) : 0;
    double gone = 1, way = 1;
    for (long long step = steps + 1; step <= steps + go.count + go.last; ++step) {
        const T at = narrowed((way - 1) * share), beside = narrowed(gone);
%(move_coefficients)s
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const T motion = (x.at[k] + at * d.at[k]) * beside;
            %(move)s
        }
        gone *= at_step(history, ring, %(ratio)d, step + 1);
        way *= at_step(history, ring, %(lag)d, step + 1);
    }
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
    %(arguments)s, const going &go, long long steps, long long since, long long goal,
    const double *history, const double *fading, long long ring
) {
%(along)s
    const bool whole = go.again == 0;
%(rest)s
#pragma unroll
    for (int k = 0; (whole || steps != since) && k < N; ++k) {
%(fades)s
    }
%(copies)s
    for (long long step = steps + 1; step <= steps + go.again; ++step) {  // one by one
%(coefficients)s
#pragma unroll
        for (int k = 0; k < N; ++k) {
            %(step)s
        }
    }
}
"""

ALONG = r"""    if (go.count > 0) {
        along<N>(%s, go, steps, history, ring);
    }
    if (go.count > 0 && !go.last) {
        return;
    }"""

REST = r"""    for (long long step = steps + 1; whole && go.count == 0 && step <= goal; ++step) {
        for (int k = 0; k < N; ++k) {
            rest(%s.at[k], step, history, ring);
        }
    }"""

FADE = "faded({0}, whole ? at_step(fading, ring, {1}, since) : go.product[{1}])"

FADE_ROW = r"""if (go.count == 0 || go.last) {
    const bool whole = go.again == 0;
    T %(state)s_f = %(state)s_s;
    if (whole || steps != since) {
        %(state)s_f = %(fade)s;
    }
    for (long long step = steps + 1; step <= steps + go.again; ++step) {
        %(state)s_f = _normal(%(state)s_f * narrowed(at_step(history, ring, %(column)d, step)));
    }
    %(state)s_[row] = %(state)s_f.value;
}"""
"""A state with one number for the row, which one lane writes."""
