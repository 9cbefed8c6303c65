"""The one order in which a row's squares are summed, on every backend."""

SUMS = 32
"""Partial sums, in float64: element j adds to number j modulo this, in order; then the upper
half of them is added to the lower half, until one is left."""
