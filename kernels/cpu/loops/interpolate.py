"""A row goes along a segment by displacements: one in `MAX_INTERVAL` is evaluated.

The displacements x of one step and y of the step ``count`` later differ by a common ratio and, for
some elements, by a little more: d = y / ratio - x. In between, the displacement of a step is
(x + f d) r, with the ratio r so far, and f = (c - 1) / (c_end - 1) of the corrections c so far.
Displacement, bound and error are in `gpuadapt.kernels.catchup.plan`.
"""

import numpy as np
from numba import njit

from ..intrinsics import bits, part, real
from .interface import (
    INLINE,
    LINEAR,
    MAX_GROWTH,
    MAX_INTERVAL,
    MAX_REMAINING,
    MAX_REPLAY,
    MIN_PRODUCT,
    NEGLIGIBLE,
    OPTIONS,
    STATES,
    STOP,
    D,
    T,
    U,
    apply_at,
    apply_displacement,
    decay_parameter,
    decay_states,
    decay_states_by,
    decayed_further,
    displacement_at,
    displacement_coefficients,
    factors_of,
    history_of,
    load_apply,
    no_decay,
    parameter_row,
    scratch_of,
    smallest_of_decays,
    state_rows,
    underflows,
)


@njit(**OPTIONS)
def displacements(x, states, coefficients):
    for i in range(x.size):
        x[i] = displacement_at(i, states, coefficients) + T(0)  # no zero with a sign


@njit(**OPTIONS)
def largest_relative(p, x):
    """The largest |displacement| / |parameter|, at most 1; infinite for NaN.

    The bits are compared: LLVM has no vector maximum that treats NaN in this way.
    """
    largest = U(0)
    for i in range(p.size):
        size, whole = np.abs(x[i]), np.abs(p[i])
        relative = size / (size if size > whole else whole)
        relative = T(np.inf) if relative != relative else relative
        relative = T(0) if size == T(0) else relative
        largest = bits(relative) if bits(relative) > largest else largest
    return D(real(largest))


@njit(**OPTIONS)
def changes(p, x, y, d, inverse_ratio, weight, states, coefficients):
    """Compute y and d; d is 0 where its whole effect is negligible.

    Returns 0 if all d are 0, 1 if some are not, 3 if an element changes too much to be
    interpolated, or has a number too small to be trusted.
    """
    kind = U(0)
    for i in range(x.size):
        y[i] = displacement_at(i, states, coefficients) + T(0)
        change = y[i] * inverse_ratio - x[i]
        size, least = np.abs(change), T(NEGLIGIBLE) * np.abs(p[i])
        flat = size * weight <= least
        linear = size <= T(LINEAR) * np.abs(x[i])
        small = (y[i] != T(0)) & (np.abs(y[i]) < T(MIN_PRODUCT)) & (np.abs(x[i]) * weight > least)
        d[i] = T(0) if flat else change
        lost = small | underflows(i, states, coefficients)
        kind |= U(3) if lost | (not (flat | linear)) else U(0) if flat else U(1)
    return kind


@njit(**OPTIONS)
def apply_flat(p, x, scratch, count):
    """Take ``count`` steps by x r, four at a time while an element is in a register."""
    j = 0
    while j + 4 <= count:
        r_a, r_b, r_c, r_d = scratch[0, j], scratch[0, j + 1], scratch[0, j + 2], scratch[0, j + 3]
        a, b = apply_at(scratch, j), apply_at(scratch, j + 1)
        c, e = apply_at(scratch, j + 2), apply_at(scratch, j + 3)
        for i in range(p.size):
            q = apply_displacement(p[i], x[i] * r_a, a)
            q = apply_displacement(q, x[i] * r_b, b)
            q = apply_displacement(q, x[i] * r_c, c)
            p[i] = apply_displacement(q, x[i] * r_d, e)
        j += 4
    while j < count:
        r_a, a = scratch[0, j], apply_at(scratch, j)
        for i in range(p.size):
            p[i] = apply_displacement(p[i], x[i] * r_a, a)
        j += 1


@njit(**OPTIONS)
def apply_linear(p, x, d, scratch, count):
    """As `apply_flat`, by (x + f d) r."""
    j = 0
    while j + 4 <= count:
        r_a, r_b, r_c, r_d = scratch[0, j], scratch[0, j + 1], scratch[0, j + 2], scratch[0, j + 3]
        f = MAX_INTERVAL + j
        f_a, f_b, f_c, f_d = scratch[0, f], scratch[0, f + 1], scratch[0, f + 2], scratch[0, f + 3]
        a, b = apply_at(scratch, j), apply_at(scratch, j + 1)
        c, e = apply_at(scratch, j + 2), apply_at(scratch, j + 3)
        for i in range(p.size):
            q = apply_displacement(p[i], (x[i] + f_a * d[i]) * r_a, a)
            q = apply_displacement(q, (x[i] + f_b * d[i]) * r_b, b)
            q = apply_displacement(q, (x[i] + f_c * d[i]) * r_c, c)
            p[i] = apply_displacement(q, (x[i] + f_d * d[i]) * r_d, e)
        j += 4
    while j < count:
        r_a, f_a, a = scratch[0, j], scratch[0, MAX_INTERVAL + j], apply_at(scratch, j)
        for i in range(p.size):
            p[i] = apply_displacement(p[i], (x[i] + f_a * d[i]) * r_a, a)
        j += 1


@njit(**OPTIONS)
def interval(count, column, decays, factors, scratch, corrections):
    """Go ``count`` steps: products, the ratio and the correction at the end, the sum of ratios."""
    ratio, correction, total = 1.0, 1.0, 0.0
    for j in range(count):
        scratch[0, j], corrections[j] = T(ratio), correction
        total += ratio
        at = column + np.uint64(j)
        decays = decayed_further(decays, factors, at)
        ratio *= factors[STATES, at + np.uint64(1)]
        correction *= factors[STATES + 1, at + np.uint64(1)]
    return decays, ratio, correction, total


@njit(**INLINE)
def take_segment(arguments, row, step, target):
    """Go along a segment; returns the step reached and how many steps are to be replayed next."""
    mask = history_of(arguments)[2]
    factors, products = factors_of(arguments)
    scratch, buffers, corrections = scratch_of(arguments)
    p, states = parameter_row(arguments, row), state_rows(arguments, row)
    width = buffers.shape[1]
    x, y, d = part(buffers, 0, 0, width), part(buffers, 1, 0, width), part(buffers, 2, 0, width)
    column, replayed, start = np.uint64(step + 1) & mask, np.int64(0), step
    decays = no_decay()
    displacements(x, states, displacement_coefficients(arguments, decays, column))
    relative, covered, nth = np.inf, 1.0, 1.0
    if target - step > MAX_INTERVAL:  # few segments end within the first interval
        relative = largest_relative(p, x)
    while step < target and not relative * covered * products[STATES + 1, column] < STOP:
        remaining = target - step
        if products[STATES + 1, column] > MAX_REMAINING or smallest_of_decays(decays) < MIN_PRODUCT:
            replayed = min(MAX_INTERVAL, remaining)
            break
        # All remaining steps, or as many as leave more than a few.
        ends = remaining <= MAX_INTERVAL
        count = np.intp(remaining - 1 if ends else min(MAX_INTERVAL, remaining - MAX_REPLAY - 1))
        before = decays
        decays, ratio, correction, total = interval(
            count, column, decays, factors, scratch, corrections
        )
        column = np.uint64(step + 1 + count) & mask
        kind = U(3)
        if total < MAX_GROWTH and ratio < MAX_GROWTH and correction < MAX_GROWTH:
            inverse = 1 / ratio if ratio > 0 else 0.0
            coefficients = displacement_coefficients(arguments, decays, column)
            weight = total * (nth * nth)
            kind = changes(p, x, y, d, T(inverse), T(weight), states, coefficients)
        taken = count
        if ends:
            scratch[0, count], corrections[count] = T(ratio), correction
            taken += 1
        if kind > U(1):
            decays = before
            replayed = np.int64(taken)
            break
        for j in range(taken):
            load_apply(arguments, j, step + 1 + j)
        if kind == U(0):
            apply_flat(p, x, scratch, taken)
        else:
            scale = 1 / (correction - 1) if correction > 1 else 0.0
            for j in range(taken):
                scratch[0, MAX_INTERVAL + j] = T((corrections[j] - 1) * scale)
            apply_linear(p, x, d, scratch, taken)
        x, y = y, x
        covered *= ratio
        nth += 1
        step += taken
    if replayed == 0:
        decay_parameter(arguments, row, step, target)
        decay_states(arguments, row, start)
        return target, np.int64(0)
    if step > start:
        decay_states_by(arguments, row, decays)
    return step, replayed
