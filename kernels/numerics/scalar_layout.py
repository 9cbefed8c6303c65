"""The numbers of a step that kernels read from memory, in float64.

First whether to leave everything as it is, then what gradients are divided by, then the
coefficients of every rule in the step. On a GPU they never have to come from the host: what is
decided there, by the norm of the gradients say, is written there.
"""

SKIP, SCALE, FIRST = 0, 1, 2
"""Places of the verdict (0: go on), of the gradients' scale and of the first coefficient."""

SMALLEST_SCALE, LARGEST_SCALE = 2.0**-126, 2.0**127
"""The range of a loss scale: normal float32 numbers."""
