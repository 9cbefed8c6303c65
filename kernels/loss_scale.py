"""The range of a loss scale, on every backend: normal float32 numbers whose double is one."""

SMALLEST, LARGEST = 2.0**-126, 2.0**127
