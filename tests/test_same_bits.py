"""The bits of every kind of update are those of an earlier version, on both backends.

`same_bits.json` has a digest for each case, traversal and format. All of them are computed with
``GPUADAPT_EVERY_FORMAT=1``; otherwise those whose kernels other tests compile too. After a change
that is meant to change bits, ``python tests/test_same_bits.py`` in that environment writes the
file anew, from the CUDA text on the host, which is compiled sooner than the CPU's kernels.

Gradients are multiples of a power of two and decay rates are small fractions, so that no digest
depends on how a machine computes logarithms or powers.
"""

import hashlib
import json
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, KINDS
from conftest import installed
from formats_table import BY_ROWS, EVERY, PARAMETERS, STATES, always

import gpuadapt as ga

FILE = Path(__file__).with_name("same_bits.json")

EXACT_RATES = {"betas": (0.75, 0.875), "rho": 0.875}
"""Their powers up to the 14th are float64 numbers."""

STEPS = 5


def numbers(name, shape):
    """Multiples of 2^-18 below 4, the same everywhere, with some zeros."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    found = random.integers(-(2**20), 2**20, shape) / 2**18
    return np.where(random.integers(0, 16, shape) == 0, 0.0, found)


def arrays(backend, name, shape, dtype):
    return backend.array(numbers(name, shape).astype(dtype))


def many(backend, optimizer, dtype):
    """Arrays of several sizes, one of them over several chunks."""
    shapes = {"a": 20011, "b": (7, 41), "c": 1}
    params = {n: arrays(backend, n, s, dtype) for n, s in shapes.items()}
    made = optimizer(params)
    for step in range(STEPS):
        made.step({n: arrays(backend, f"{n}{step}", s, dtype) for n, s in shapes.items()})
    return made, params


def asked(backend, optimizer, dtype):
    """Gradients that are unscaled, clipped by norm and by value, and skipped once."""
    params = {"a": arrays(backend, "a", 20011, dtype)}
    made = optimizer(params)
    for step in range(STEPS):
        gradient = numbers(f"a{step}", 20011).astype(dtype)
        gradient[:1] = np.inf if step == 2 else 0
        made.step(
            {"a": backend.array(gradient)},
            grad_scale=2.0, max_norm=100.0, clip_value=0.75, skip_nonfinite=True,
        )  # fmt: skip
    return made, params


def dense(backend, optimizer, dtype):
    """An array with gaps."""
    wide = np.zeros((37, 58), dtype)
    wide[:, ::2] = numbers("w", (37, 29)).astype(dtype)
    params = {"w": backend.array(wide[:, ::2])}
    made = optimizer(params)
    for step in range(STEPS):
        made.step({"w": backend.array(numbers(f"w{step}", (29, 37)).astype(dtype).T)})
    return made, params


def rows(backend, optimizer, dtype, steps=STEPS):
    """A table: rows twice, three hundred times, and not at all."""
    params = {"w": arrays(backend, "w", (60, 24), dtype)}
    made = optimizer(params)
    for step in range(steps):
        count = 700 if step == 3 else 17
        random = np.random.default_rng(step)
        index = random.integers(0, 50, count)
        index[: count // 2 : 1 + (count < 700)] = step % 7
        values = arrays(backend, f"w{step}", (count, 24), dtype)
        made.step({"w": ga.RowGrad(backend.array(index), values)})
    return made, params


def exact(backend, optimizer, dtype):
    """As rows, with long gaps, which the state's snapshot closes."""
    made, params = rows(backend, optimizer, dtype)
    for step in range(90):
        index = backend.array(np.array([step % 3, 50 + step // 40]))
        values = arrays(backend, f"e{step}", (2, 24), dtype)
        made.step({"w": ga.RowGrad(index, values)})
    return made, params


TRAVERSALS = {f.__name__: f for f in (many, asked, dense, rows, exact)}

FEW = {"many": CASES, "asked": KINDS[:4], "dense": CASES, "rows": KINDS, "exact": KINDS[:7]}
"""The cases of every run in float32."""


def plain_keys():
    """(traversal, case, type) of cases in one type."""
    for (traversal, few), case in product(FEW.items(), CASES):
        for dtype in ("float32", "float64"):
            powers = dtype == "float64" and case.name.startswith("nadam")
            wide = KINDS if EVERY or traversal == "many" else ()
            chosen = wide if dtype == "float64" else CASES if EVERY else few
            if case in chosen and not powers:
                yield traversal, case, dtype


def format_keys():
    """(traversal, method, parameter's format, state's type)."""
    for traversal, method in product(TRAVERSALS, (ga.Adam, ga.RMSprop)):
        for parameter, state in product(PARAMETERS, STATES):
            kept = [parameter.element, *parameter.settings.values()][-1], state
            often = method is ga.Adam and (
                (traversal == "many" and always(parameter, state))
                or (traversal == "rows" and kept in BY_ROWS)
            )
            if often or (EVERY and (method is ga.Adam or traversal == "many")):
                yield traversal, method, parameter, state


def digest(backend, made, params):
    """Of parameters and states, in the order of their names."""
    state = made.state_dict()["state"]
    found = hashlib.sha256()
    for name in sorted(params):
        kept = {key: value for key, value in state[name].items() if hasattr(value, "dtype")}
        for key, value in sorted({"": params[name], **kept}.items()):
            array = np.asarray(value) if isinstance(value, np.ndarray) else backend.numpy(value)
            # On a GPU bfloat16 are uint16.
            found.update(f"{name} {key} {array.itemsize} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def of_case(backend, traversal, case, dtype):
    changes = {key: EXACT_RATES[key] for key in EXACT_RATES if key in case.hyper}
    changes |= {"sparse": "exact", "exactness": "close"} if traversal == "exact" else {}
    run = TRAVERSALS[traversal]
    return digest(backend, *run(backend, lambda p: case.optimizer(p, **changes), np.dtype(dtype)))


def of_formats(backend, traversal, method, parameter, state):
    drawn = state != "float32" or "stochastic" in parameter.settings.values()
    settings = {"state_dtype": state, **({"seed": 3} if drawn else {}), **parameter.settings}
    settings |= {"sparse": "exact"} if traversal == "exact" else {}
    run = TRAVERSALS[traversal]
    return digest(backend, *run(backend, lambda p: method(p, **settings), parameter.dtype))


def name_of(key):
    return "/".join(getattr(part, "name", None) or getattr(part, "__name__", part) for part in key)


KEYS = {name_of(key): (of_case, key) for key in plain_keys()}
KEYS |= {name_of(key): (of_formats, key) for key in format_keys()}


@pytest.mark.parametrize("name", KEYS)
def test_the_bits_are_those_of_before(name, backend):
    compute, key = KEYS[name]
    assert compute(backend, *key) == json.loads(FILE.read_text())[name]


if __name__ == "__main__":
    assert EVERY, "set GPUADAPT_EVERY_FORMAT=1"
    with installed("host") as host:
        digests = {name: compute(host, *key) for name, (compute, key) in KEYS.items()}
    FILE.write_text(json.dumps(digests, indent=0, sort_keys=True) + "\n")
