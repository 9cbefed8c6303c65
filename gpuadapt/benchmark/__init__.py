"""Timing of rules and methods beside the machine's limit and other libraries."""
