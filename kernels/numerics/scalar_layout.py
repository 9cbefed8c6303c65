"""The scalars of a step that kernels read from memory, float64.

[skip, scale of the gradients, coefficients of the first rule, of the second, ...]. On a GPU the
norm of the gradients is computed there, so that skip and clip factor never come from the host.
"""

SKIP, SCALE, FIRST = 0, 1, 2
"""Indices of skip (0: update), of the scale and of the first coefficient."""

SMALLEST_SCALE, LARGEST_SCALE = 2.0**-126, 2.0**127
"""The range of a loss scale: normal float32 numbers."""
