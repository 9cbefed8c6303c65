"""Arrays of torch, JAX and other libraries: parameters, gradients and rows are used in place."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
from array import array
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from conftest import Backend
from hoststreams import Device, Stream

import gpuadapt as ga

torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")

F, BFLOAT16 = np.float32, ml_dtypes.bfloat16
VALUES = np.linspace(-1, 1, 24)
GRADIENTS = [np.cos(np.arange(24) * k) for k in (1.0, 2.0, 3.0)]


class Interface:
    """An object that has nothing but ``__array_interface__``."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.values.__array_interface__


class DLPack:
    """An object that has nothing but what DLPack asks for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class OldDLPack(DLPack):
    """An object that gives capsules without a version, which do not say if one may write."""

    def __dlpack__(self, **_: Any) -> Any:
        return self.values.__dlpack__()


def tensor(values: np.ndarray) -> torch.Tensor:
    """A tensor with memory of its own, of the values' type, shape and strides."""
    if values.dtype == BFLOAT16:
        return tensor(values.view(np.int16)).view(torch.bfloat16)
    made = torch.empty_strided(values.shape, [n // values.itemsize for n in values.strides],
                               dtype=torch.from_numpy(values).dtype)  # fmt: skip
    return made.copy_(torch.from_numpy(values))


def ctypes_array(values: np.ndarray) -> Any:
    return (ctypes.c_float * values.size)(*values.tolist())


def strided(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, 2)[::2]


def columns(values: np.ndarray) -> np.ndarray:
    return np.asfortranarray(values.reshape(4, 6))


def same(values: np.ndarray) -> np.ndarray:
    return values.copy()


class Producer(NamedTuple):
    """How an array of another library is made, and NumPy's of the same type, shape and strides."""

    make: Callable[[np.ndarray], Any]
    dtype: Any = F
    laid_out: Callable[[np.ndarray], np.ndarray] = same
    numbers: Callable[[Any], Any] = np.asarray
    """Reads what is in it, by its own library where that has a way."""


def of_tensor(given: torch.Tensor) -> np.ndarray:
    return given.detach().double().numpy()


PRODUCERS = {
    "torch float16": Producer(tensor, np.float16, numbers=of_tensor),
    "torch bfloat16": Producer(tensor, BFLOAT16, numbers=of_tensor),
    "torch float32": Producer(tensor, numbers=of_tensor),
    "torch float64": Producer(tensor, np.float64, numbers=of_tensor),
    "torch Parameter": Producer(lambda a: torch.nn.Parameter(tensor(a)), numbers=of_tensor),
    "torch requires_grad": Producer(lambda a: tensor(a).requires_grad_(), numbers=of_tensor),
    "torch bfloat16 Parameter": Producer(
        lambda a: torch.nn.Parameter(tensor(a)), BFLOAT16, columns, of_tensor
    ),
    "torch with gaps": Producer(tensor, F, strided, of_tensor),
    "torch bfloat16 with gaps": Producer(tensor, BFLOAT16, strided, of_tensor),
    "torch columns": Producer(tensor, np.float64, columns, of_tensor),
    "torch one number": Producer(tensor, F, lambda a: a[3:4].reshape(()), of_tensor),
    "torch empty": Producer(tensor, F, lambda a: a[:0], of_tensor),
    "memoryview": Producer(lambda a: memoryview(bytearray(a)).cast("f")),
    "memoryview of columns": Producer(lambda a: memoryview(a.copy("K")), np.float64, columns),
    "array.array": Producer(lambda a: array("d", a), np.float64),
    "ctypes": Producer(ctypes_array),
    "__array_interface__": Producer(lambda a: Interface(a.copy())),
    "__array_interface__ with gaps": Producer(lambda a: Interface(strided(a)), F, strided),
    "__dlpack__": Producer(lambda a: DLPack(a.copy()), numbers=lambda one: one.values),
}

READ_ONLY = {
    "jax": Producer(jax.numpy.array),
    "jax bfloat16": Producer(jax.numpy.array, BFLOAT16),
    "memoryview of bytes": Producer(lambda a: memoryview(a.tobytes()).cast("f")),
    "read-only memoryview": Producer(lambda a: memoryview(a.copy()).toreadonly()),
    "read-only interface": Producer(lambda a: Interface(np.frombuffer(a.tobytes(), a.dtype))),
    "unversioned __dlpack__": Producer(lambda a: OldDLPack(a.copy())),
}

EVERY = PRODUCERS | READ_ONLY


def laid_out(producer: Producer, values: np.ndarray) -> np.ndarray:
    return producer.laid_out(values.astype(producer.dtype))


def equal(a: Any, b: Any) -> bool:
    """Are the bits equal?"""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def equal_states(one: ga.Optimizer, other: ga.Optimizer) -> bool:
    return all(
        equal(array, other.state[name][letter])
        for name, states in one.state.items()
        for letter, array in states.items()
    )


@pytest.fixture
def tables() -> tuple[torch.Tensor, np.ndarray]:
    values = np.linspace(-1, 1, 40, dtype=F).reshape(10, 4)
    return tensor(values), values.copy()


@pytest.mark.parametrize("name", PRODUCERS)
def test_parameters_are_updated_in_place_with_numpys_bits(name: str) -> None:
    """Gradients are of the same library. What was passed is what `params` has."""
    producer = PRODUCERS[name]
    values = laid_out(producer, VALUES)
    given, twin = producer.make(values), values.copy("K")
    ours, numpys = ga.Adam({"w": given}, lr=0.1), ga.Adam({"w": twin}, lr=0.1)
    assert ours.params["w"] is given
    for numbers in GRADIENTS:
        gradient = laid_out(producer, numbers)
        ours.step({"w": producer.make(gradient)})
        numpys.step({"w": gradient})
    assert np.array_equal(producer.numbers(given), twin.astype(producer.numbers(given).dtype))
    assert not twin.size or not np.array_equal(twin, values)
    assert equal_states(ours, numpys)
    assert all(type(state) is np.ndarray for state in ours.state["w"].values())


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("container", [lambda one: one, lambda one: [one], lambda one: {"w": one}])
def test_gradients_of_numpy_parameters(name: str, container: Callable[[Any], Any]) -> None:
    """Also several that are added up, after steps of NumPy's own gradients, and with options."""
    producer = EVERY[name]
    ours, numpys = (laid_out(producer, VALUES).astype(np.float64) for _ in range(2))
    one, other = (ga.RMSprop(container(each), lr=0.1) for each in (ours, numpys))
    for numbers, options in zip(GRADIENTS, ({}, {"max_norm": 1.0}, {}), strict=True):
        gradient = laid_out(producer, numbers)
        one.step(container(producer.make(gradient)), **options)
        other.step(container(gradient), **options)
        one.step(container(gradient), stats=["0"] if "0" in one.params else ["w"])
        other.step(container(gradient))
    if ours.shape:
        one.step({next(iter(one.params)): [producer.make(gradient), gradient]})
        other.step({next(iter(one.params)): [gradient, gradient]})
    assert equal(ours, numpys) and equal_states(one, other)
    assert one.last == other.last


@pytest.mark.parametrize("name", READ_ONLY)
def test_what_is_read_only_is_no_parameter(name: str) -> None:
    given = READ_ONLY[name].make(laid_out(READ_ONLY[name], VALUES))
    says = "a copy" if name.startswith("jax") else r"pass a writable array, such as a copy"
    with pytest.raises(ga.ParameterError, match=rf"parameter 'w': got .* read-only.*{says}"):
        ga.Adam({"w": given})
    optimizer = ga.Adam({"w": np.ones((24, 1), F)})
    with pytest.raises(ga.ParameterError, match="read-only"):
        optimizer.grow("w", given)


def integers() -> dict[str, Any]:
    numbers = np.arange(24)
    return {
        "torch": torch.arange(24),
        "torch bool": torch.ones(24, dtype=torch.bool),
        "torch complex": torch.ones(24, dtype=torch.complex64),
        "memoryview": memoryview(bytearray(24)),
        "bytes": bytes(24),
        "array.array": array("i", range(24)),
        "bytearray": bytearray(24),
        "interface": Interface(numbers),
        "dlpack": DLPack(numbers),
        "other byte order": memoryview(VALUES.astype(">f4")),
    }


@pytest.mark.parametrize("name", integers())
def test_wrong_types_are_refused(name: str) -> None:
    given = integers()[name]
    with pytest.raises(ga.ParameterError, match=r"parameter 'w'.*(got dtype|read-only)"):
        ga.Adam({"w": given})
    optimizer = ga.Adam({"w": np.ones(24, F)})
    with pytest.raises(ga.GradientError, match=r"gradient of 'w': got NumPy .* array"):
        optimizer.step({"w": given})
    assert optimizer.step_count == 0


class Own(torch.Tensor):
    """A subclass, which could keep its numbers anywhere."""


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.ones(24)


BAD_PARAMETERS = {
    "subclass": (lambda: torch.ones(24).as_subclass(Own), "a subclass of torch.Tensor.*plain"),
    "meta": (lambda: torch.ones(24, device="meta"), "on device meta"),
    "inference": (inference, r"inference mode.*clone\(\)"),
    "computed": (lambda: torch.ones(24, requires_grad=True) * 2, r"computed.*detach\(\)"),
    "negative bit": (lambda: torch._neg_view(torch.ones(24)), r"negative.*resolve_neg\(\)"),
    "conjugate": (lambda: torch.ones(24, dtype=torch.cfloat).conj(), r"resolve_conj\(\)"),
    "imaginary part": (lambda: torch.ones(24, dtype=torch.cfloat).conj().imag, "negative"),
    "sparse": (lambda: torch.ones(24).to_sparse(), "layout is torch.sparse_coo.*dense"),
    "expanded": (lambda: torch.ones(1).expand(24), "elements share memory"),
    "float8": (lambda: torch.ones(24, dtype=torch.float8_e5m2), "cannot be read as an array"),
    "iterable": (lambda: {1.0}, "got set, expected a NumPy or CuPy array; if arrays are in it"),
    "no array": (object, "got object, expected a NumPy or CuPy array$"),
    "numpy number": (lambda: np.float32(1), "got numpy.float32, expected a NumPy or CuPy array$"),
    "broken": (lambda: SimpleNamespace(__array_interface__=1), "cannot be read as an array"),
}

BAD_GRADIENTS = {
    name: BAD_PARAMETERS[name] for name in ("subclass", "meta", "float8", "broken")
} | {
    "shape": (lambda: torch.ones(5), r"got NumPy float32 array of shape \(5,\)"),
    "sparse rows and columns": (
        lambda: torch.ones(24, 1).to_sparse(), "COO tensor with 2 sparse dimensions, expected one"
    ),
    "sparse of another table": (lambda: torch.ones(23).to_sparse(), r"sparse tensor of shape \(23"),
    "compressed": (lambda: torch.ones(4, 6).to_sparse_csr(), "layout is torch.sparse_csr"),
    "no array": (object, "got object, expected NumPy float32 array"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_refused_parameters(name: str) -> None:
    make, message = BAD_PARAMETERS[name]
    with pytest.raises(ga.ParameterError, match=f"parameter 'a.w': .*{message}"):
        ga.Adam({"a": {"w": make()}})
    optimizer = ga.Adam({"w": np.ones((2, 1), F)})
    with pytest.raises(ga.ParameterError, match=message.split(";")[0]):
        optimizer.add({"v": make()})
    assert list(optimizer.params) == ["w"]


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", BAD_GRADIENTS)
def test_refused_gradients(name: str) -> None:
    make, message = BAD_GRADIENTS[name]
    w, v = torch.ones(24), np.ones(24, F)
    optimizer = ga.Adam({"v": v, "w": w})
    with pytest.raises(ga.GradientError, match=f"gradient of 'w': .*{message}"):
        optimizer.step({"v": v / 2, "w": make()})
    assert optimizer.step_count == 0 and bool((w == 1).all()) and (v == 1).all()


def test_a_negative_bit_is_resolved_in_gradients() -> None:
    """DLPack and a tensor's address show the numbers in memory, which have the other sign."""
    w, twin = torch.ones(24), np.ones(24, F)
    one, other = ga.SGD(w, lr=0.5), ga.SGD(twin, lr=0.5)
    part = torch.complex(torch.ones(24), torch.ones(24)).conj().imag
    assert part.is_neg()
    for gradient in (part, torch._neg_view(torch.full((24,), 3.0))):
        one.step(gradient)
        other.step(gradient.resolve_neg().numpy())
    assert equal(w, twin) and twin[0] == 1 + 0.5 + 1.5


def sparse(rows: list[int], values: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    made = torch.sparse_coo_tensor(
        torch.tensor([rows]), torch.from_numpy(values), shape, check_invariants=True
    )
    assert not made.is_coalesced()
    return made


@pytest.mark.parametrize("settings", [{}, {"sparse": "exact"}, {"rowwise": True}])
def test_sparse_tensors_are_row_gradients(settings: dict[str, Any], tables: Any) -> None:
    """Coalesced or not, alone, in a list or with a dense gradient."""
    table, twin = tables
    one, other = ga.Adam({"t": table}, **settings), ga.Adam({"t": twin}, **settings)
    values = np.sin(np.arange(12, dtype=F)).reshape(3, 4)
    rows = ga.RowGrad(np.array([7, 2, 7]), values)
    for _ in range(2):
        one.step({"t": sparse([7, 2, 7], values, (10, 4))})
        other.step({"t": rows})
        one.step({"t": sparse([7, 2, 7], values, (10, 4)).coalesce()})
        other.step({"t": rows.coalesced()})
    both = [sparse([7, 2, 7], values, (10, 4)), torch.ones(10, 4)]
    one.step({"t": both})
    other.step({"t": [rows, np.ones((10, 4), F)]})
    one.flush(), other.flush()
    assert equal(table, twin) and equal_states(one, other)


def test_autograds_sparse_gradients_are_used_without_a_copy() -> None:
    embedding = torch.nn.Embedding(50, 8, sparse=True)
    twin = embedding.weight.detach().numpy().copy()
    one, other = ga.Adagrad(embedding.named_parameters(), lr=0.1), ga.Adagrad(twin, lr=0.1)
    for k in range(3):
        embedding.zero_grad()
        embedding(torch.tensor([[3, 5], [3, k]])).square().sum().backward()
        gradient = embedding.weight.grad
        assert gradient is not None and gradient.is_sparse
        one.step({"weight": gradient})
        other.step(ga.RowGrad(gradient._indices()[0].numpy(), gradient._values().numpy()))
    assert equal(embedding.weight.detach(), twin)


def replace(w: torch.Tensor) -> None:
    w.data = torch.ones(24)


def other_type(w: torch.Tensor) -> None:
    w.data = w.data.double()


def shorten(w: torch.Tensor) -> None:
    w.data = w.data[:12]


def expand(w: torch.Tensor) -> None:
    w.data = w.data[:1].expand(24)


def negative(w: torch.Tensor) -> None:
    w.data = torch._neg_view(w.data)


def other_storage(w: torch.Tensor) -> None:
    with torch.no_grad():
        w.set_(torch.ones(24))


CHANGES = [replace, other_type, shorten, expand, negative, other_storage]

USES = {
    "step": lambda optimizer: optimizer.step({"v": np.ones(24), "w": torch.ones(24)}),
    "step without its gradient": lambda optimizer: optimizer.step({"v": np.ones(24), "w": None}),
    "read": lambda optimizer: optimizer.read("w", [1]),
    "write": lambda optimizer: optimizer.write("w", np.ones(24)),
    "flush": lambda optimizer: optimizer.flush(),
    "state_dict": lambda optimizer: optimizer.state_dict(),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", USES)
def test_a_tensor_with_other_memory_is_noticed(change: Callable[..., None], name: str) -> None:
    """Before anything is written, there or elsewhere; with its memory back, steps go on."""
    w, v = torch.nn.Parameter(torch.ones(24)), np.ones(24)
    optimizer = ga.Adam({"v": v, "w": w}, sparse="exact")
    for row in (1, 2):  # rows have to catch up
        optimizer.step({"v": v / 2, "w": ga.RowGrad([row], np.ones(1, F))})
    before = torch.from_numpy(w.detach().numpy())
    numbers = before.clone(), v.copy(), optimizer.step_count
    change(w)
    gc.collect()
    shown = w.detach().clone()
    with pytest.raises(ga.ParameterError, match=r"parameter 'w'.*other memory.*copy_\(new\)"):
        USES[name](optimizer)
    assert torch.equal(before, numbers[0]) and torch.equal(w.detach(), shown)
    assert equal(v, numbers[1]) and optimizer.step_count == numbers[2]
    w.data = before
    USES[name](optimizer)


def test_a_tensor_of_another_type_at_the_same_address_is_noticed() -> None:
    w = torch.ones(24, dtype=torch.float16)
    optimizer = ga.Adam(w)
    w.data = w.data.view(torch.bfloat16)
    with pytest.raises(ga.ParameterError, match="other memory"):
        optimizer.step(torch.ones(24))


def test_memory_cannot_be_freed_below_a_parameter() -> None:
    """torch, `array` and `memoryview` refuse it themselves."""
    w, numbers = torch.ones(24), array("f", range(24))
    optimizer = ga.SGD([w, numbers])
    with pytest.raises(RuntimeError, match="not resizable"):
        w.untyped_storage().resize_(0)
    with pytest.raises(BufferError):
        numbers.append(1.0)
    optimizer.step([torch.ones(24), array("f", range(24))])


def stale(w: torch.Tensor) -> Callable[[], None]:
    """The backward of a graph that was made before."""
    loss = w.square().sum()
    return loss.backward


UPDATES = {
    "step": lambda optimizer: optimizer.step({"w": torch.ones(24, 2)}),
    "rows": lambda optimizer: optimizer.step({"w": ga.RowGrad([1], np.ones((1, 2), F))}),
    "write": lambda optimizer: optimizer.write("w", torch.zeros(24, 2)),
    "flush": lambda optimizer: optimizer.flush(),
}

NO_UPDATES = {
    "no gradient": lambda optimizer: optimizer.step({"w": None}),
    "skipped": lambda optimizer: optimizer.step(
        {"w": torch.full((24, 2), torch.inf)}, skip_nonfinite=True
    ),
    "read": lambda optimizer: optimizer.read("w", [1]),
}


@pytest.mark.parametrize("name", UPDATES | NO_UPDATES)
def test_torch_knows_which_tensors_have_been_written_to(name: str) -> None:
    """A graph that has saved the numbers before raises an error, instead of wrong gradients."""
    w = torch.nn.Parameter(torch.ones(24, 2))
    optimizer = ga.Adam({"w": w}, sparse="lazy" if name == "write" else "exact")
    optimizer.step({"w": ga.RowGrad([2], np.ones((1, 2), F))})
    optimizer.step({"w": ga.RowGrad([3], np.ones((1, 2), F))})
    backward = stale(w)
    if name in UPDATES:
        UPDATES[name](optimizer)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            backward()
    else:
        NO_UPDATES[name](optimizer)
        backward()


def together(*things: Any) -> Any:
    return copy.deepcopy(things)


def pickled(*things: Any) -> Any:
    return pickle.loads(pickle.dumps(things))


COPIED = ["torch float32", "torch bfloat16 with gaps", "torch Parameter", "array.array",
          "__array_interface__", "__dlpack__"]  # fmt: skip


@pytest.mark.parametrize("copied", [together, pickled])
@pytest.mark.parametrize("name", COPIED)
def test_copies_go_on_by_themselves(name: str, copied: Callable[..., Any]) -> None:
    producer = PRODUCERS[name]
    given = producer.make(laid_out(producer, VALUES))
    params = {"w": given}
    optimizer = ga.Adam(params, lr=0.1)
    gradients = [producer.make(laid_out(producer, numbers)) for numbers in GRADIENTS]
    optimizer.step({"w": gradients[0]})
    copies, alone = copied(params, optimizer), copied(optimizer)[0]
    assert copies[1].params["w"] is copies[0]["w"] is not given
    assert type(alone.params["w"]) is type(given)
    for one in (optimizer, copies[1], alone):
        one.step({"w": gradients[1]})
    for one in (copies[1], alone):
        assert np.array_equal(producer.numbers(one.params["w"]), producer.numbers(given))
        assert equal_states(one, optimizer)
    snapshot = optimizer.state_dict()
    optimizer.step({"w": gradients[2]})
    alone.load_state_dict(snapshot)
    alone.step({"w": gradients[2]})
    assert np.array_equal(producer.numbers(alone.params["w"]), producer.numbers(given))
    copies[0]["w"] = given
    with pytest.raises(ga.ParameterError, match="another object"):
        copies[1].step({"w": gradients[2]})


@pytest.mark.parametrize("copied", [together, pickled])
def test_a_memoryview_has_no_copy(copied: Callable[..., Any]) -> None:
    optimizer = ga.Adam(memoryview(bytearray(8)).cast("f"))
    with pytest.raises(ga.StateError, match=r"parameter '0'.*memoryview.*state_dict\(\)"):
        copied(optimizer)


def test_a_gradient_that_is_a_parameters_memory_is_refused() -> None:
    w = torch.nn.Parameter(torch.ones(24))
    optimizer = ga.Adam({"w": w, "v": np.ones(12, F)})
    for gradients in ({"w": w, "v": None}, {"w": None, "v": w.detach()[12:]}):
        with pytest.raises(ga.GradientError, match="shares memory with parameter 'w'"):
            optimizer.step(gradients)


def test_a_tensor_grows_by_other_memory() -> None:
    """A table may get more rows in the same tensor, if `grow` is told."""
    table, twin = torch.nn.Parameter(torch.ones(4, 2)), np.ones((4, 2), F)
    one, other = ga.Adam({"t": table}), ga.Adam({"t": twin})
    for optimizer in (one, other):
        optimizer.step({"t": torch.ones(4, 2)})
    table.data = torch.cat([table.data, torch.zeros(3, 2)])
    larger = np.concatenate([twin, np.zeros((3, 2), F)])
    one.grow("t", table)
    other.grow("t", larger)
    for optimizer in (one, other):
        optimizer.step({"t": torch.ones(7, 2)})
    assert equal(table.detach(), larger) and equal_states(one, other)


def test_what_becomes_read_only_is_refused() -> None:
    given = Interface(np.ones(24))
    optimizer = ga.SGD(given)
    given.values.flags.writeable = False
    with pytest.raises(ga.ParameterError, match=r"parameter '0': .*read-only"):
        optimizer.step(np.ones(24))
    assert (given.values == 1).all()


def test_containers_of_tensors_are_watched() -> None:
    """By identity: the comparison of tensors has no truth value."""
    params = {"a": torch.ones(3), "b": [torch.ones(3), torch.ones(2, 2)]}
    optimizer = ga.Adam(params)
    grads = {"a": torch.ones(3), "b": [None, torch.ones(2, 2)]}
    optimizer.step(grads)
    optimizer.step({"b.1": torch.ones(2, 2), "a": None, "b.0": torch.ones(3)})
    params["b"][1] = torch.ones(2, 2)
    with pytest.raises(ga.ParameterError, match=r"parameter 'b.1': .*another object"):
        optimizer.step(grads)
    with pytest.raises(ga.ParameterError, match="share memory"):
        ga.Adam([torch.ones(4).requires_grad_()] * 2)


def test_groups_of_modules() -> None:
    """Parameters as a module gives them: pairs, an iterator, groups, a dict."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(ga.Adam(model.named_parameters()).params) == names
    assert list(ga.Adam(model.parameters()).params) == ["0", "1", "2", "3"]
    assert list(ga.Adam(dict(model.named_parameters())).params) == names
    groups = [{"params": list(layer.parameters()), "lr": 0.1} for layer in model]
    optimizer = ga.SGD(groups)
    model(torch.ones(5, 3)).sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step([[p.grad for p in layer.parameters()] for layer in model])
    for p, old in zip(model.parameters(), before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.detach(), old - torch.tensor(0.1, dtype=torch.float64) * p.grad)


def rows_of(kind: str, rows: list[int]) -> Any:
    match kind:
        case "torch":
            return torch.tensor(rows)
        case "torch int32":
            return torch.tensor(rows, dtype=torch.int32)
        case "jax":
            return jax.numpy.array(rows)
        case "memoryview":
            return memoryview(np.array(rows)).toreadonly()
    return array("q", rows)


@pytest.mark.parametrize("kind", ["torch", "torch int32", "jax", "memoryview", "array.array"])
def test_rows_of_tables(kind: str, tables: Any) -> None:
    """`RowGrad`, its counts and sums, `read`, `write`, `grow` and `add`."""
    table, twin = tables
    one, other = ga.Adam({"t": table}), ga.Adam({"t": twin})
    values = np.arange(12, dtype=F).reshape(3, 4)
    rows = rows_of(kind, [7, 2, 7])
    gradient = ga.RowGrad(rows, torch.from_numpy(values), count=torch.tensor(2))
    plain = ga.RowGrad(np.array([7, 2, 7]), values, count=2)
    assert type(gradient.values) is type(gradient.rows) is np.ndarray and gradient.count == 2
    assert np.shares_memory(gradient.values, values)
    one.step({"t": gradient})
    other.step({"t": plain})
    assert equal(one.read("t", rows), other.read("t", [7, 2, 7]))
    assert equal(gradient + torch.ones(10, 4), plain + np.ones((10, 4), F))
    assert equal(torch.ones(10, 4) + gradient, np.ones((10, 4), F) + plain)
    assert equal(ga.RowGrad.from_dense(torch.eye(4)).values, np.eye(4, dtype=F))
    one.write("t", torch.ones(10, 4, dtype=torch.float64))
    other.write("t", np.ones((10, 4)))
    larger = torch.ones(12, 4)
    one.grow("t", larger)
    other.grow("t", np.ones((12, 4), F))
    one.add({"new": torch.ones(2)})
    other.add({"new": np.ones(2, F)})
    assert one.params["t"] is larger
    for optimizer in (one, other):
        optimizer.step({"t": ga.RowGrad([11, 7], np.ones((2, 4), F)), "new": torch.ones(2)})
    for name, of_numpy in other.params.items():
        assert equal(one.params[name], of_numpy)
    assert equal_states(one, other)


def test_wrong_rows() -> None:
    with pytest.raises(ga.GradientError, match="rows: got NumPy float32 array"):
        ga.RowGrad(torch.ones(2), torch.ones(2, 3))
    with pytest.raises(ga.GradientError, match="values: got NumPy int64 array"):
        ga.RowGrad(torch.tensor([1]), torch.tensor([[1]]))
    with pytest.raises(ga.GradientError, match=r"values: .*layout is torch.sparse_coo"):
        ga.RowGrad(torch.tensor([1]), torch.ones(1, 3).to_sparse())
    with pytest.raises(ga.ParameterError, match="values of '0': got NumPy float32 array of shape"):
        ga.Adam(torch.ones(3)).write("0", torch.ones(4))


def test_jax_traces_are_refused() -> None:
    """Inside a function that JAX compiles there are no numbers yet."""
    optimizer = ga.Adam(np.ones(3, F))

    def inside(x: Any) -> Any:
        optimizer.step(x)
        return x

    with pytest.raises(ga.GradientError, match=r"gradient of '0': .*cannot be read as an array"):
        jax.jit(inside)(jax.numpy.ones(3))


def test_import_leaves_other_libraries_alone() -> None:
    code = "import sys, gpuadapt; assert not {'torch', 'jax', 'cupy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Deviceside:
    """A Numba device array: ``__cuda_array_interface__`` of version 3, and nothing else."""

    def __init__(self, values: np.ndarray, stream: int | None = 7, frozen: bool = False) -> None:
        self.host, self.stream, self.frozen = values.copy("K"), stream, frozen

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = self.host.__array_interface__
        return {name: interface[name] for name in ("shape", "typestr", "strides")} | {
            "data": (interface["data"][0], self.frozen),
            "stream": self.stream,
            "version": 3,
        }


class OnDevice:
    """An array on a GPU that has nothing but what DLPack asks for; a capsule is its host array."""

    def __init__(self, values: np.ndarray) -> None:
        self.host = values.copy("K")
        self.streams: list[int] = []

    def __dlpack__(self, *, stream: int) -> np.ndarray:
        self.streams.append(stream)
        return self.host

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class HostTorch:
    """A stand-in for torch and its tensors on a GPU, with what gpuadapt asks of them."""

    strided, sparse_coo, bfloat16, int16 = "strided", "sparse_coo", "bfloat16", "int16"
    nn = SimpleNamespace(Parameter=SimpleNamespace)
    cuda = SimpleNamespace(current_stream=lambda _: SimpleNamespace(cuda_stream=9))

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.autograd = SimpleNamespace(graph=SimpleNamespace(increment_version=self.told.append))

        class Tensor(OnDevice):
            layout, device, is_cpu, is_cuda, requires_grad, is_leaf = (
                "strided", SimpleNamespace(index=0), False, True, True, True
            )  # fmt: skip
            shape = property(lambda self: self.host.shape)
            dtype = property(lambda self: str(self.host.dtype))

            def false(self) -> bool:
                return False

            is_neg = is_conj = is_inference = false

            def numpy(self) -> np.ndarray:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")

            def detach(self) -> Any:
                return self._sharing(self.host, requires_grad=False)

            def view(self, dtype: str) -> Any:
                assert not self.requires_grad
                return self._sharing(self.host.view(dtype), requires_grad=False)

            def _sharing(self, host: np.ndarray, **changed: Any) -> Any:
                new = copy.copy(self)
                vars(new).update(changed, host=host)
                return new

            def __dlpack__(self, *, stream: int) -> np.ndarray:
                assert not self.requires_grad, "torch exports no tensor that requires a gradient"
                return super().__dlpack__(stream=stream)

        self.Tensor = Tensor


@pytest.fixture
def host_torch(host: Backend, monkeypatch: pytest.MonkeyPatch) -> HostTorch:
    library = HostTorch()
    monkeypatch.setitem(sys.modules, "torch", library)
    Stream.waits.clear()
    return library


@pytest.fixture(params=["numba", "dlpack", "torch"])
def on_gpu(request: pytest.FixtureRequest, host_torch: HostTorch) -> Callable[[np.ndarray], Any]:
    made = {"numba": Deviceside, "dlpack": OnDevice, "torch": host_torch.Tensor}
    make: Callable[[np.ndarray], Any] = made[request.param]
    return make


@pytest.mark.parametrize("order", [same, columns, strided])
def test_arrays_on_a_gpu_have_cupys_bits(on_gpu: Any, host: Backend, order: Any) -> None:
    values = order(VALUES.astype(F))
    given, twin = on_gpu(values), host.array(values)
    one, other = ga.Adam({"w": given}, lr=0.1), ga.Adam({"w": twin}, lr=0.1)
    assert one.params["w"] is given
    for numbers in GRADIENTS:
        one.step({"w": on_gpu(order(numbers.astype(F)))})
        other.step({"w": host.array(order(numbers.astype(F)))})
    assert equal(given.host, twin.get()) and not equal(given.host, values)
    for letter, state in one.state["w"].items():
        assert equal(state.get(), other.state["w"][letter].get())


def test_bfloat16_tensors_on_a_gpu(host_torch: HostTorch, host: Backend) -> None:
    values = VALUES.astype(BFLOAT16)
    given, twin = host_torch.Tensor(values), host.array(values.view(np.uint16))
    one, other = ga.Adam(given, lr=0.1), ga.Adam(twin, lr=0.1)
    gradient = GRADIENTS[0].astype(BFLOAT16)
    one.step(host_torch.Tensor(gradient))
    other.step(host.array(gradient.view(np.uint16)))
    assert equal(given.host.view(np.uint16), twin.get())


def test_rows_on_a_gpu(on_gpu: Any, host: Backend) -> None:
    values = VALUES.astype(F).reshape(6, 4)
    given, twin = on_gpu(values), host.array(values)
    rows, gradient = np.array([3, 1, 3]), np.ones((3, 4), F)
    one, other = ga.Adam({"t": given}), ga.Adam({"t": twin})
    one.step({"t": ga.RowGrad(on_gpu(rows), on_gpu(gradient), count=on_gpu(np.array([2])))})
    count = host.array(np.array([2]))
    other.step({"t": ga.RowGrad(host.array(rows), host.array(gradient), count=count)})
    assert equal(given.host, twin.get())
    assert equal(one.read("t", on_gpu(rows)).get(), twin.get()[rows])


def test_streams_wait_for_each_other(host_torch: HostTorch) -> None:
    """The step waits for the streams that arrays name, and these for the step; not the host."""
    numba, tensor = Deviceside(VALUES), host_torch.Tensor(VALUES)
    optimizer, stream = ga.SGD({"a": numba, "b": tensor}), Stream()
    gradients = {"a": Deviceside(VALUES, stream=8), "b": host_torch.Tensor(VALUES)}
    Stream.waits.clear()
    tensor.streams.clear()
    optimizer.step(gradients, stream=stream)
    ours, waits = stream.ptr, [*dict.fromkeys(Stream.waits)]
    waits.remove((ours, 0))  # where the optimizer was made
    assert waits == [(ours, 7), (ours, 8), (7, ours), (9, ours)]
    # torch is told which stream waits; it does so whenever an array is exported.
    assert set(tensor.streams) == {ours} == set(gradients["b"].streams)
    assert host_torch.told == [tensor]
    Stream.waits.clear()
    same_stream = Stream()
    same_stream.ptr = 7
    optimizer.step({"a": Deviceside(VALUES, stream=None), "b": None}, stream=same_stream)
    assert Stream.waits == [(7, ours)]  # where the step before was
    assert host_torch.told == [tensor]


def test_a_gpu_arrays_memory_that_moves_is_noticed(on_gpu: Any) -> None:
    given = on_gpu(VALUES)
    optimizer = ga.SGD(given)
    before, given.host = given.host, VALUES.copy()
    with pytest.raises(ga.ParameterError, match=r"parameter '0': .*other memory"):
        optimizer.step(on_gpu(VALUES))
    assert equal(before, VALUES) and equal(given.host, VALUES) and optimizer.step_count == 0


def test_refused_on_a_gpu(host: Backend) -> None:
    with pytest.raises(ga.ParameterError, match=r"parameter '0': .*read-only"):
        ga.SGD(Deviceside(VALUES, frozen=True))
    ga.SGD(host.array(VALUES)).step(Deviceside(VALUES, frozen=True))
    with pytest.raises(ga.ParameterError, match="got dtype int64"):
        ga.SGD(Deviceside(np.arange(3)))
    with pytest.raises(ga.GradientError, match=r"got CuPy \(device 0\) float64.*expected NumPy"):
        ga.SGD(VALUES.copy()).step(Deviceside(VALUES))


def test_a_gpus_arrays_need_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ga.BackendError("CuPy has no CUDA device here")

    monkeypatch.setattr("gpuadapt.foreign.check_device", fails)
    for given in (Deviceside(VALUES), OnDevice(VALUES)):
        with pytest.raises(ga.BackendError, match="CuPy"):
            ga.SGD(given)
        with pytest.raises(ga.BackendError, match="CuPy"):
            ga.SGD(VALUES.copy()).step(given)


def test_a_captured_step_reads_other_libraries_gradients(host_torch: HostTorch) -> None:
    given, gradient = host_torch.Tensor(VALUES), host_torch.Tensor(VALUES)
    twin = VALUES.copy()
    optimizer, other = ga.Adam(given, lr=0.1), ga.Adam(twin, lr=0.1)
    optimizer.capturable = True
    stream = Stream()
    optimizer.step(gradient, stream=stream)
    stream.synchronize()  # before the gradient is another one
    other.step(VALUES)
    with stream:
        stream.begin_capture()
        optimizer.step(gradient, stream=stream)
        graph = stream.end_capture()
    for numbers in GRADIENTS:
        gradient.host[...] = numbers
        host_torch.told.clear()
        optimizer.prepare_replay()
        graph.launch()
        Device().synchronize()
        assert host_torch.told == [given]
        other.step(numbers)
    assert equal(given.host, twin)
