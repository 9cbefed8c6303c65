"""The scalars of a step that kernels read from memory, float64.

[step, scale of the gradients, coefficients of the first rule, of the second, ...]. A GPU compares
the first one with the number of steps that it has taken, and writes nothing if they differ.
"""

RANDOM_PERIOD = 2**32
"""Random bits repeat after so many updates: their keys have 32 bits of the update's number."""

STEP, SCALE, FIRST = 0, 1, 2
"""Indices of the number of steps before this one, of the scale and of the first coefficient."""

SMALLEST_SCALE, LARGEST_SCALE = 2.0**-126, 2.0**127
"""The range of a loss scale: normal float32 numbers."""
