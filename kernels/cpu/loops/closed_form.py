"""A row takes its skipped steps by their closed form; see `gpuadapt.kernels.catchup.plan`."""

import numpy as np
from numba import njit

from ..intrinsics import part
from .interface import (
    CORRECTION,
    ERROR,
    FIRST_SUM,
    INLINE,
    LEAST_LEFT_OUT,
    LEAST_U,
    LEFT_OUT,
    MAX_GROWTH,
    MAX_REPLAY,
    MIN_SIZE,
    MOVES,
    OPTIONS,
    REPLAYED,
    SHRINK,
    STATES,
    TERMS,
    T,
    U,
    buffer_of,
    decay_states,
    displacement_at,
    displacement_coefficients,
    history_of,
    inverse_at,
    moments_of,
    parameter_row,
    replay_step,
    state_rows,
)


@njit(**OPTIONS)
def changes(p, change, moments, states, coefficients):
    """Compute the changes of a row; returns True if all of them are as good as float32 allows."""
    drift, correction = T(moments[STATES + SHRINK] - 1), T(moments[STATES + CORRECTION])
    sums = moments[STATES + FIRST_SUM :]
    m_0, m_1, m_2 = T(sums[0]), T(sums[1]), T(sums[2])
    m_3, m_4, m_5 = T(sums[3]), T(sums[4]), T(sums[5])
    left_out = T(max(moments[STATES + LEFT_OUT], LEAST_LEFT_OUT))
    term_left_out = T(max(np.abs(sums[TERMS]), LEAST_LEFT_OUT))
    total, wrong = np.abs(m_0), U(0)
    for i in range(p.size):
        d = displacement_at(i, states, coefficients)
        u = correction / (correction + inverse_at(i, states, ()))
        x = (((((m_5 * u + m_4) * u + m_3) * u + m_2) * u + m_1) * u + m_0) * d + drift * p[i]
        size, whole = np.abs(d), np.abs(p[i])
        square = u * u if u > T(LEAST_U) else T(LEAST_U * LEAST_U)
        error = (square * square * square * term_left_out + left_out) * size
        precise = error <= T(ERROR) * (whole + np.abs(x))
        precise &= (size >= T(MIN_SIZE)) | (size * total <= T(ERROR) * whole)
        wrong |= U(0) if precise else U(1)
        change[i] = x
    return wrong == U(0)


@njit(**INLINE)
def take_closed_form(arguments, row, first):
    """Take all steps of the segment that begins with step ``first``; returns False if it cannot."""
    if MOVES:
        p, moments = parameter_row(arguments, row), moments_of(arguments, first)
        growth = np.abs(moments[STATES + SHRINK])
        for j in range(TERMS):
            growth = max(growth, np.abs(moments[STATES + FIRST_SUM + j]))
        if not growth <= MAX_GROWTH:
            return False
        change = part(buffer_of(arguments), 0, 0, p.size)
        coefficients = displacement_coefficients(arguments, first)
        if not changes(p, change, moments, state_rows(arguments, row), coefficients):
            return False
        for i in range(p.size):
            p[i] += change[i]
    decay_states(arguments, row, first)
    return True


@njit(**INLINE)
def catch_up(arguments, row, sums):
    last_step, now, mask, ends = history_of(arguments)
    step = last_step[row]
    while step < now:
        skipped = min(ends[np.uint64(step + 1) & mask], now) - step
        if skipped > MAX_REPLAY and take_closed_form(arguments, row, step + 1):
            step += skipped
        else:
            for _ in range(max(1, min(skipped, REPLAYED))):
                step += 1
                replay_step(arguments, row, step, sums)
