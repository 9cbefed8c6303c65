"""A row catches up step by step, by the rule with a gradient of zero."""

from numba import njit

from .interface import INLINE, history_of, replay_step


@njit(**INLINE)
def catch_up(arguments, row, sums):
    last_step, now = history_of(arguments)[:2]
    step = last_step[row]
    while step < now:
        step += 1
        replay_step(arguments, row, step, sums)
