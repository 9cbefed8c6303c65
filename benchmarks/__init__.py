"""Benchmarks: check first, then time; peers and the machine's own limit in the same run."""
