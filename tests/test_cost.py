"""The cost of a call is linear in the number of arrays, and small for one.

Calls of Python and C functions are counted: unlike times, they do not vary. The comparison of two
names is such a call here, so that searching a list for each name is counted too.
"""

import copy
import sys
from pathlib import Path

import hostarrays
import hostcupy
import numpy as np
import pytest
from conftest import installed

import gpuadapt as ga
from gpuadapt import run
from gpuadapt.kernels.cpu import multi_tensor

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


SOURCES = Path(ga.__file__).parent.resolve(), Path(multi_tensor.__file__).parents[1].resolve()


def own_calls(function):
    """The functions of gpuadapt that are called, by file and name.

    Comprehensions do not count: from Python 3.12 on they are no functions.
    """
    found = []

    def seen(frame, event, _argument):
        code = frame.f_code
        file = Path(code.co_filename).resolve()
        own = any(file.is_relative_to(folder) for folder in SOURCES)
        if event == "call" and own and not code.co_name.startswith("<"):
            found.append((str(file), code.co_name))

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


def rows(backend):
    values = backend.array(np.ones((3, 4), np.float32))
    return ga.RowGrad(backend.array(np.array([1, 5, 3])), values)


def one(backend):
    return backend.array(np.ones(1000, np.float32))


def thousand(backend):
    return {str(k): backend.array(np.ones(2, np.float32)) for k in range(1000)}


def table(backend):
    return backend.array(np.ones((8, 4), np.float32))


REPEATED = {
    "one array": (one, one, {}, 11, 7),
    "1,000 arrays": (thousand, thousand, {}, 11, 7),
    "rows": (table, rows, {}, 27, 15),
    "exact rows": (table, rows, {"sparse": "exact"}, 37, 17),
    "exact rows, bits": (table, rows, {"sparse": "exact", "exactness": "bits"}, 35, 16),
}
"""Parameters, gradients, settings; the most calls of a repeated step, and files that have them.

One call, `commit`, keeps interrupts from coming between what a step writes and its count; one
looks whether a table still has its memory.
"""


@pytest.mark.parametrize("name", REPEATED)
def test_a_repeated_step_calls_few_functions(name):
    params, grads, settings, calls, files = REPEATED[name]
    with installed("cpu") as backend:
        optimizer, given = ga.Adam(params(backend), **settings), grads(backend)
        for _ in range(2):
            optimizer.step(given)
        found = own_calls(lambda: optimizer.step(given))
    assert len(found) <= calls, found
    assert len({file for file, _ in found}) <= files


FIRST = {"one array": (one, 61), "1,000 arrays": (thousand, 61 + 3 * 999)}
"""Parameters; the most calls of a first step, whose kernels are compiled."""


@pytest.mark.parametrize("name", FIRST)
def test_a_first_step_finds_everything_once(name):
    params, calls = FIRST[name]
    with installed("cpu") as backend:
        for _ in range(2):  # the first one compiles
            optimizer, given = ga.Adam(params(backend)), params(backend)
            found = own_calls(lambda: optimizer.step(given))  # noqa: B023  (called at once)
    assert len(found) <= calls, found


def some(count, groups=0):
    def make(backend):
        arrays = [backend.array(np.ones(2, np.float32)) for _ in range(count)]
        if not groups:
            return arrays
        return [{"params": arrays[k::groups], "lr": 0.1 + k} for k in range(groups)]

    return make


def two_types(backend):
    return [backend.array(np.ones(2, kind)) for kind in (np.float32, np.float64)]


ON_A_GPU = {
    "one array": (one, False, {}, 1, 0, 19),
    "one array, other gradients": (one, True, {}, 1, 0, 19),
    "64 arrays, other gradients": (some(64), True, {}, 1, 0, 22),
    "1,000 arrays": (thousand, False, {}, 1, 0, 20),
    "1,000 arrays, other gradients": (thousand, True, {}, 1, 1, 22),
    "two types": (two_types, True, {}, 2, 0, 25),
    "five groups": (some(10, 5), True, {}, 1, 0, 46),
    "ten groups": (some(10, 10), True, {}, 1, 1, 75),
    "measured": (one, False, {"max_norm": 1.0}, 3, 1, 51),
    "capturable": (one, False, {"capturable": True}, 1, 1, 29),
}
"""Parameters, whether each step has other arrays as gradients, how steps are taken; the launches,
copies to the GPU, and at most so many calls of our functions of a repeated step."""


@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_step_on_a_gpu_is_short(name, monkeypatch):
    """It calls no function for each array, and copies nothing that a launch can take."""
    make, others, how, launches, copies, calls = ON_A_GPU[name]
    copied, copy_one = [], hostarrays.MemoryPointer.copy_from_host_async
    monkeypatch.setattr(
        hostarrays.MemoryPointer,
        "copy_from_host_async",
        lambda *given: (copied.append(given), copy_one(*given)),
    )
    with installed("host") as backend:
        optimizer, given = ga.Adam(make(backend)), [make(backend) for _ in range(4)]
        optimizer.capturable = "capturable" in how
        if type(given[0]) is list and type(given[0][0]) is dict:
            given = [[each["params"] for each in groups] for groups in given]
        options = {key: value for key, value in how.items() if key != "capturable"}
        for k in range(3):
            optimizer.step(given[k * others], **options)
        copied.clear()
        hostcupy.RawKernel.launches.clear()
        found = own_calls(lambda: optimizer.step(given[3 * others], **options))
        assert (len(hostcupy.RawKernel.launches), len(copied)) == (launches, copies)
    assert len(found) <= calls, found


ALTERNATELY = {
    "max_norm": [{"max_norm": 1.0}, {}],
    "an absent gradient": [{"absent": True}, {}],
    "two scales": [{"grad_scale": 2.0}, {"grad_scale": 4.0, "clip_value": 1.0}],
}


@pytest.mark.parametrize("name", ALTERNATELY)
def test_steps_of_two_kinds_in_turns_compile_and_bind_nothing(name, monkeypatch):
    """They have a plan each, and find it again."""
    params = {"a": np.ones(8, np.float32), "b": np.ones((4, 2), np.float32)}
    grads = {key: array / 8 for key, array in params.items()}
    optimizer, twin = ga.Adam(params), ga.Adam({k: v.copy() for k, v in params.items()})

    def step(of, absent=False, **options):
        of.step(grads | {"b": None} if absent else grads, **options)

    for options in 2 * ALTERNATELY[name]:
        step(optimizer, **options)
        step(twin, **options)
    made = []
    monkeypatch.setattr(run, "make_plan", lambda *given: made.append(given))
    for options in 3 * ALTERNATELY[name]:
        step(optimizer, **options)
    monkeypatch.undo()
    for options in 3 * ALTERNATELY[name]:
        step(twin, **options)
        twin = copy.deepcopy(twin)  # a copy has no plans
    assert not made
    for key, array in optimizer.params.items():
        assert np.array_equal(array, twin.params[key])
        for letter, state in optimizer.state[key].items():
            assert np.array_equal(state, twin.state[key][letter])
