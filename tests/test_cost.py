"""The cost of a call is linear in the number of arrays.

Calls of Python and C functions are counted: unlike times, they do not vary. The comparison of two
names is such a call here, so that searching a list for each name is counted too.
"""

import copy
import sys

import numpy as np
import pytest

import gpuadapt as ga

COUNTS = 1_000, 2_000


class Name(str):
    """A string whose comparisons are calls of Python."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return str.__eq__(self, other)


class Work:
    """What users do with an optimizer of many small arrays, in this order."""

    def __init__(self, count, groups):
        self.arrays = {Name(f"layer.{k}"): np.ones(4, np.float32) for k in range(count)}
        singles = [{"params": {name: array}} for name, array in self.arrays.items()]
        self.params = singles if groups else self.arrays
        # Other strings than the parameters' names, so that no comparison ends at the identity.
        self.grads = {Name(str(name)): np.ones(4, np.float32) for name in self.arrays}
        self.backwards = dict(reversed(self.grads.items()))
        self.some = self.grads | {"layer.7": None}

    def construct(self):
        self.optimizer = ga.Adam(self.params)

    def first_step(self):
        self.optimizer.step(self.grads)

    def step(self):
        self.optimizer.step(self.grads)

    def step_in_another_order(self):
        self.optimizer.step(self.backwards)

    def step_without_one(self):
        self.optimizer.step(self.some)

    def step_with_norm(self):
        self.optimizer.step(self.grads, max_norm=1.0)

    def state_dict(self):
        self.snapshot = self.optimizer.state_dict()

    def load_state_dict(self):
        self.optimizer.load_state_dict(self.snapshot)

    def load_what_fits(self):
        self.optimizer.load_state_dict(self.snapshot, strict=False)

    def read_all(self):
        return [(self.optimizer.state[name], self.optimizer.params[name]) for name in self.arrays]

    def deepcopy(self):
        copy.deepcopy(self.optimizer)

    def add(self):
        self.optimizer.add({"new": np.ones(4, np.float32)})


CALLS = [name for name in vars(Work) if not name.startswith("_")]


def calls_of(function):
    """The number of calls that a function makes."""
    count = 0

    def seen(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("groups", [False, True])
def test_calls_are_linear(groups):
    """Twice as many arrays, in one group or one each, take at most 2.1 times as many calls."""
    first = Work(8, groups)
    for name in CALLS:  # compiles
        getattr(first, name)()
    few, many = (
        {name: calls_of(getattr(work, name)) for name in CALLS}
        for work in (Work(count, groups) for count in COUNTS)
    )
    worse = {name: (few[name], many[name]) for name in CALLS if many[name] > 2.1 * few[name]}
    assert not worse
