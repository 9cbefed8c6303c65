"""Memory of large states: what rows touch is what they take; what is used as a whole is huge."""

import copy
import mmap
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from test_processes import python

import gpuadapt as ga
from gpuadapt import arrays, pages
from gpuadapt.optimizer import internals

SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(
    not (pages.SUPPORTED and Path("/proc/self/smaps").exists()), reason="reads Linux's /proc"
)
HUGE = SYSTEM.exists() and "[never]" not in SYSTEM.read_text()

RESIDENT = """
    import os
    import re
    import sys
    import ml_dtypes
    import numpy as np
    import gpuadapt as ga
    from gpuadapt.optimizer import internals
    from gpuadapt import pages

    def status(file, field):
        text = open(f"/proc/self/{file}").read()
        return sum(map(int, re.findall(field + r":\\s+(\\d+)", text))) / 1024

    ROWS = 400_000  # of 64 elements: 102 MB in float32
    rows = np.random.default_rng(0).integers(ROWS, size=500)
    gradient = ga.RowGrad(rows, np.ones((500, 64), np.float32))
"""

FEW = (
    RESIDENT
    + """
    table = np.zeros((ROWS, 64), np.float32)
    table[::16] = 0  # its own pages
    small = ga.Adam({"t": table[:500]})
    small.step({"t": ga.RowGrad(rows % 500, gradient.values)})  # compiles
    optimizer = ga.Adam({"t": table})
    before, huge = status("status", "VmRSS"), status("smaps", "AnonHugePages")
    for _ in range(3):
        optimizer.step({"t": gradient})
    print(status("status", "VmRSS") - before)
    optimizer.step({"t": np.ones_like(table)})
    print(status("smaps", "AnonHugePages") - huge)
    m = optimizer.state["t"]["m"]
    was, child = m[3, 0], os.fork()
    if child == 0:
        m[3] = 7
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert m[3, 0] == was, "a child has memory of its own"
"""
)


def test_few_rows_take_little_memory():
    """500 rows of Adam's two states are 4 MB in small pages, 195 MB in huge ones."""
    few, huge = map(float, python(FEW).split())
    assert few < 30, f"{few:.0f} MB"
    assert huge > 180 or not HUGE, f"{huge:.0f} MB of huge pages after a dense step"


DUE = (
    RESIDENT
    + """
    table, small = np.ones((ROWS, 64), np.float32), np.ones((500, 64), np.float32)
    ga.Adam({"t": small}, sparse="exact").step({"t": ga.RowGrad(rows % 500, gradient.values)})
    optimizer = ga.Adam({"t": table}, sparse="exact")
    before = status("status", "VmRSS")
    for _ in range(500):
        optimizer.step({"t": gradient})
    print(status("status", "VmRSS") - before)
    last = internals(optimizer).parameters["t"].history.last
    assert np.count_nonzero(last) > 100_000, "rows that were due"
"""
)


def test_rows_that_are_due_and_never_had_a_gradient_take_no_memory():
    """A step brings 224 rows up to date: in 500 steps those have 57 MB of Adam's states."""
    few = float(python(DUE))
    assert few < 30, f"{few:.0f} MB"


EVERY = (
    RESIDENT
    + """
    for name, make in {
        "float32": lambda w: ga.Adam(w),
        "bfloat16": lambda w: ga.Adam(w, state_dtype="bfloat16"),
        "8bit": lambda w: ga.Adam(w, state_dtype="8bit"),
        "rowwise": lambda w: ga.Adam(w, rowwise=True),
        "exact": lambda w: ga.Adam(w, sparse="exact"),
        "kahan": lambda w: ga.SGD(w.astype(ml_dtypes.bfloat16), rounding="kahan"),
        "split": lambda w: ga.SGD(w.astype(ml_dtypes.bfloat16), master="split"),
        "initial": lambda w: ga.FTRL(w, initial_accumulator=0.1),
        "gaps": lambda w: ga.Adam(np.zeros((ROWS, 65), np.float32)[:, :64]),
    }.items():
        parameter = internals(make(np.zeros((ROWS, 64), np.float32))).parameters["0"]
        before = status("status", "VmRSS")
        parameter.touch(gradient)
        large = [a for a in parameter.saved_arrays.values() if pages.has_pages([a])]
        for array in large:
            array[rows] = 1
        print(name, len(large), status("status", "VmRSS") - before)
"""
)


def test_every_format_takes_little_memory():
    """The kernels' place is taken by NumPy; of what starts with numbers all of it is resident."""
    found = dict(re.findall(r"(\w+) (\d+ [-.\d]+)", python(EVERY)))
    counts = {
        "float32": 2, "bfloat16": 2, "8bit": 2, "rowwise": 1, "exact": 2, "kahan": 1, "split": 1,
        "initial": 1, "gaps": 2,
    }  # fmt: skip
    for name, count in counts.items():
        number, size = found[name].split()
        assert int(number) == count and float(size) < 20, (name, found[name])


def flags(array):
    """What was asked for the memory of an array: "hg" or "nh", if anything."""
    at, here = array.ctypes.data, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if place := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(place[1], 16) <= at < int(place[2], 16)
        elif here and line.startswith("VmFlags:"):
            return {"hg", "nh"} & set(line.split())
    raise AssertionError


COUNT = 40_000
SHAPE = (COUNT, 64)


def rows_of(count):
    return ga.RowGrad(np.arange(count), np.zeros((count, 64), np.float32))


def test_what_comes_first_decides():
    """Huge pages for dense gradients and for what is loaded, small ones for rows."""
    for name, touch, expected in (
        ("rows", lambda parameter: parameter.touch(rows_of(5)), {"nh"}),
        ("dense", lambda parameter: parameter.touch(np.zeros(SHAPE, np.float32)), {"hg"}),
        ("both", lambda parameter: (parameter.touch(rows_of(5)), parameter.touch(None)), {"hg"}),
        ("loaded", lambda parameter: parameter.recount_call(0), {"hg"}),
    ):
        parameter = internals(ga.Adam(np.zeros(SHAPE, np.float32))).parameters["0"]
        assert [flags(array) for array in parameter.states.values()] == [set(), set()], name
        touch(parameter)
        assert [flags(array) for array in parameter.states.values()] == [expected] * 2, name
    filled = ga.Adagrad(np.zeros(SHAPE, np.float32), initial_accumulator=0.1)
    assert flags(filled.state["0"]["G"]) == {"hg"}


def test_steps_say_what_they_touch(by_numpy):
    """A place asks as long as there is something to decide, and of its own parameters alone."""
    params = {name: np.zeros(SHAPE, np.float32) for name in "ab"}
    optimizer = ga.Adam(params)
    dense = np.ones(SHAPE, np.float32)
    optimizer.step({"a": dense, "b": None})
    assert [flags(optimizer.state[k]["m"]) for k in "ab"] == [{"hg"}, set()]
    optimizer.step({"a": dense, "b": dense})
    (device,) = internals(optimizer).steps.devices()
    assert flags(optimizer.state["b"]["m"]) == {"hg"} and device.paged == []


@pytest.mark.skipif(not HUGE, reason="huge pages are forbidden here")
def test_pages_become_huge_once_most_of_them_are_in_use():
    count, parameter = COUNT, internals(ga.Adam(np.zeros(SHAPE, np.float32))).parameters["0"]
    state = parameter.states["m"]
    assert parameter.touch(rows_of(1)) and pages.fraction_in_use(pages.pages_of(state)) == 0
    assert state.sum() == 0  # reads, does not write
    assert pages.fraction_in_use(pages.pages_of(state)) == 0
    for part in (0.4, 1.0):
        for array in parameter.states.values():
            array[: int(part * count)] = part
        used = pages.fraction_in_use(pages.pages_of(state))
        assert used == pytest.approx(part, abs=0.03)
        steps = sum(parameter.touch(rows_of(count)) for _ in range(12))
        assert (flags(state), steps < 12) == (({"nh"}, False) if part == 0.4 else ({"hg"}, True))
    assert parameter.residence.settled and (state == 1).all()
    text = Path("/proc/self/smaps").read_text()
    assert pages.pages_of(state).huge and "AnonHugePages" in text


def test_memory_goes_with_its_array():
    """Copies and pickles have memory of their own."""
    optimizer = ga.Adam(np.zeros(SHAPE, np.float32))
    state = optimizer.state["0"]["m"]
    state[3] = 5
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        mine = other.state["0"]["m"]
        assert (mine[3] == 5).all() and not np.shares_memory(mine, state)
        ours, theirs = (internals(one).parameters["0"].residence for one in (optimizer, other))
        assert theirs is not ours
        with pytest.raises(ga.GradientError, match="shares memory with state 'm'"):
            other.step(mine)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a,
        lambda a: a.T,
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: a.reshape(8, 20, 64).transpose(2, 0, 1),
        lambda a: a.reshape(8, 20, 1, 64)[:, :, :, 1:],
    ],
)
def test_states_lie_as_those_of_small_arrays(make, monkeypatch):
    array = make(np.zeros((160, 64), np.float32))
    expected = ga.Adam(array).state["0"]["m"]
    monkeypatch.setattr(pages, "LARGE", 1)
    monkeypatch.setattr(arrays.SmallArrayArena, "SMALL", 1)
    got = ga.Adam(array).state["0"]["m"]
    assert pages.pages_of(got) is not None and pages.pages_of(expected) is None
    assert got.shape == expected.shape and got.strides == expected.strides and not got.any()


def test_without_such_advice_memory_is_numpys(monkeypatch):
    monkeypatch.setattr(pages, "SUPPORTED", False)
    optimizer = ga.Adam(np.zeros(SHAPE, np.float32))
    assert pages.pages_of(optimizer.state["0"]["m"]) is None
    assert not internals(optimizer).parameters["0"].touch(rows_of(1))


def test_advice_that_is_refused_is_no_error(monkeypatch):
    """A system may know less than Python's names say."""
    for name in ("MADV_HUGEPAGE", "MADV_NOHUGEPAGE"):
        monkeypatch.setattr(mmap, name, 9999)
    parameter = internals(ga.Adam(np.zeros(SHAPE, np.float32))).parameters["0"]
    parameter.touch(rows_of(1))
    parameter.touch(None)
    assert parameter.residence.settled
    monkeypatch.setattr(pages.os, "open", lambda *_: (_ for _ in ()).throw(OSError()))
    assert pages.fraction_in_use(pages.pages_of(parameter.states["m"])) == 0


def test_memory_that_is_not_there():
    with pytest.raises(MemoryError, match="bytes for a state"):
        pages.zeros(2**62)
