"""Nested structures: how parameters are named, in what structures gradients come."""

from collections import OrderedDict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest

import gpuadapt as ga

Layer = namedtuple("Layer", "W b")
Other = namedtuple("Other", "b W")


def tree(kind, a, b, c):
    """Three things in the structure that is asked for; arrays or gradients."""
    return {
        "list of tuples": lambda: [(a, b), (c,)],
        "tuple of lists": lambda: ([a, b], [c]),
        "dict of dicts": lambda: {"one": {"W": a, "b": b}, "two": {"W": c}},
        "dict of lists": lambda: {"layers": [a, b], "head": c},
        "list of dicts": lambda: [{"W": a}, {"W": b}, {"W": c}],
        "named tuples": lambda: {"one": Layer(a, b), "two": c},
        "ordered dict": lambda: OrderedDict(z=a, y=b, x=c),
        "empty parts": lambda: [a, (), {"b": b, "none": {}}, [[c]]],
        "generator": lambda: (x for x in (a, b, c)),
        "generators": lambda: [iter([a, b]), (x for x in [c])],
        "values": lambda: {"a": a, "b": b, "c": c}.values(),
        "items": lambda: {"a": a, "b": b, "c": c}.items(),
        "pairs": lambda: zip(["e.0.w", "e.0.b", "e.1.w"], [a, b, c], strict=True),
        "list of pairs": lambda: [("a", a), ("b", (b, c))],
        "proxy": lambda: MappingProxyType({"a": {"b": a, "c": [b]}, "d": c}),
        "one in a list": lambda: [[[a, b, c]]],
        "groups": lambda: [{"params": [(a,)]}, {"params": {"x": {"y": b}}}, {"params": iter([c])}],
    }[kind]()


NAMES = {
    "list of tuples": "0.0 0.1 1.0",
    "tuple of lists": "0.0 0.1 1.0",
    "dict of dicts": "one.W one.b two.W",
    "dict of lists": "layers.0 layers.1 head",
    "list of dicts": "0.W 1.W 2.W",
    "named tuples": "one.W one.b two",
    "ordered dict": "z y x",
    "empty parts": "0 2.b 3.0.0",
    "generator": "0 1 2",
    "generators": "0.0 0.1 1.0",
    "values": "0 1 2",
    "items": "a b c",
    "pairs": "e.0.w e.0.b e.1.w",
    "list of pairs": "a b.0 b.1",
    "proxy": "a.b a.c.0 d",
    "one in a list": "0.0.0 0.0.1 0.0.2",
    "groups": "0.0 x.y 2",
}


def turned(given):
    """Lists as tuples, tuples as lists, dicts the other way round."""
    if isinstance(given, dict):
        return {key: turned(given[key]) for key in reversed(given)}
    if isinstance(given, list):
        return tuple(turned(part) for part in given)
    return [turned(part) for part in given] if isinstance(given, tuple) else given


@pytest.mark.parametrize("kind", NAMES)
def test_gradients_come_in_the_structure_of_the_parameters(kind, backend):
    arrays = [backend.array(np.zeros(n + 1, np.float32)) for n in range(3)]
    optimizer = ga.SGD(tree(kind, *arrays), lr=1.0)
    names = NAMES[kind].split()
    assert list(optimizer.state) == names
    expected = np.zeros(3)

    def step(structure, numbers=(1, 2, 4)):
        grads = [
            None if x is None else backend.array(np.full(n + 1, x, np.float32))
            for n, x in enumerate(numbers)
        ]
        optimizer.step(structure(*grads))
        expected[:] -= [x or 0 for x in numbers]
        for array, x in zip(arrays, expected, strict=True):
            assert (backend.numpy(array) == x).all()

    if kind != "groups":
        step(lambda *g: tree(kind, *g))
        step(lambda *g: tree(kind, *g), (None, 8, None))
        step(lambda *g: turned(tree(kind, *g)))
    else:
        step(lambda a, b, c: [[(a,)], {"x": {"y": b}}, [c]])
    step(lambda *g: dict(zip(names, g, strict=True)))
    step(lambda *g: dict(zip(names[::-1], g[::-1], strict=True)))


def test_what_stands_for_what():
    """A list for a named tuple, None for a whole part; groups of dicts may come as one."""
    one, two = np.zeros(1), np.zeros(1)
    g = np.ones(1)
    optimizer = ga.SGD({"l": Layer(one, two)}, lr=1.0)
    optimizer.step({"l": [g, 2 * g]})
    optimizer.step({"l": None})
    assert (one[0], two[0]) == (-1, -2)
    with pytest.raises(ga.GradientError, match=r"gradients of 'l': unknown 'l.c', missing 'l.b'"):
        optimizer.step({"l": namedtuple("Layer", "W c")(g, g)})
    optimizer.step({"l": Other(W=g, b=g)})
    assert (one[0], two[0]) == (-2, -3)
    grouped = ga.SGD([{"params": {"a": {"w": one}}}, {"params": {"b": two}}], lr=1.0)
    grouped.step({"a": {"w": g}, "b": None})
    grouped.step([{"a": {"w": g}}, {"b": g}])
    assert (one[0], two[0]) == (-4, -4)


W = np.zeros(2)
RECURSIVE: list = [W]
RECURSIVE.append(RECURSIVE)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a.b": np.zeros(2), "a": {"b": np.zeros(2)}}, "'a.b': two parameters have this name"),
        ([("w", np.zeros(2)), ("w", np.zeros(2))], "'w': two parameters have this name"),
        ({"a": {"b": [3.0]}}, "'a.b.0': got float"),
        ({"a": {1: W}}, "'a.1': names are strings"),
        ([(W, None)], "'0.1': got NoneType"),
        ({W.tobytes()}, r"'0': got set, .* pass them as list\(...\)"),
        (["text"], "'0': got str"),
        (RECURSIVE, "containers are in each other"),
        ([(W, W)], "parameters '0.0' and '0.1' share memory"),
        (iter(()), "params: this tuple_iterator gives no arrays"),
        ({"a": W, "b": (x for x in ())}, "params at 'b': this generator gives no arrays"),
        ({"params": W, "lr": 0.1}, "'lr': got float"),
        ([{"params": W}, {"params": np.zeros(2)}, {"W": np.zeros(2)}], "and 2 is dict"),
        ({"\ud800": W}, "half of a character"),
    ],
)
def test_structures_that_are_refused(params, message):
    with pytest.raises(ga.ParameterError, match=message):
        ga.SGD(params)


G = np.ones(2)


@pytest.mark.parametrize(
    ("kind", "grads", "message"),
    [
        ("dict of dicts", {"one": {"W": G}, "two": {"W": G}}, "of 'one': missing 'one.b'"),
        ("dict of dicts", {"one": {"W": G, "b": G}}, "gradients: missing 'two'"),
        ("dict of dicts", {"one": [G, G], "two": {"W": G}}, "of 'one': got list, expected a dict"),
        ("dict of dicts", {"one.W": G, "one.b": G}, "missing 'two.W'"),
        ("dict of dicts", {"one": G, "two": {"W": G}}, "of 'one': got NumPy"),
        ("dict of dicts", {"one": {"W": G, "b": G}, "two": {"W": 3}}, "gradient of 'two.W': got"),
        ("list of tuples", [(G, G)], "gradients: got 1, expected a list of 2"),
        ("list of tuples", [(G, G), G], "gradients of '1': got NumPy"),
        ("list of tuples", [(G, G), (G, G)], "gradients of '1': got 2, expected a list of 1"),
        ("list of tuples", [("a", G), ("b", G)], "gradients: got 2 with names, expected"),
        ("pairs", {"e.0.w": G}, "missing 'e.0.b', missing 'e.1.w'"),
        ("pairs", [("e.0.w", G)] * 3, "missing 'e.0.b'"),
        ("pairs", [("e.0.w", G), ("e.0.b", G), ("e.1.w", G), ("e.1.w", G)], "occurs twice"),
        ("values", iter(()), "got 0, expected a list of 3"),
        ("dict of dicts", None, "got NoneType"),
    ],
)
def test_gradients_in_another_structure(kind, grads, message):
    arrays = [np.ones(2) for _ in range(3)]
    optimizer = ga.SGD(tree(kind, *arrays))
    with pytest.raises(ga.GradientError, match=message):
        optimizer.step(grads)
    assert all((w == 1).all() for w in arrays) and optimizer.step_count == 0
