"""Timing of rules and methods beside the machine's limit and other libraries."""

RUNS = 15
"""How often each is timed, if nothing else is asked for."""

TYPES = ("float32", "float64", "float16", "bfloat16")
"""Element types of parameters and gradients."""
