"""Tables of `gpuadapt.torch`: sparse gradients, rows that catch up, limits and formats of rows."""

import copy
import pickle

import pytest
import torch

import gpuadapt as ga
import gpuadapt.torch

ROWS, WIDTH = 50, 16

METHODS = {
    "SGD": {"momentum": 0.9},
    "Adagrad": {},
    "RMSprop": {},
    "Adadelta": {},
    "Adam": {},
    "AdamW": {"lr": 0.01},
    "SparseAdam": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
}
"""Every class, with options by which it has states."""

LAZY = {name: METHODS[name] for name in ("SGD", "Adagrad", "Adam", "AdamW", "NAdam")}
"""Those that differ in how torch counts and keeps states: a kernel takes a while to compile."""


def lookup(kind=torch.nn.Embedding, seed=0):
    torch.manual_seed(seed)
    return kind(ROWS, WIDTH, sparse=True)


def batches(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, ROWS, (3, 4), generator=generator) for _ in range(count)]


def backward(table, ids, sparse=True):
    """The gradient of a loss that depends on the rows; duplicates occur."""
    table.zero_grad()
    table.sparse = sparse
    weight = torch.linspace(-1, 1, WIDTH)
    (table(ids) * weight).sum().backward()


def run(name, sparse, dense_gradients=False, steps=6, **options):
    """Train a table, and return it with its optimizer; rows are read as a user reads them."""
    table = lookup()
    optimizer = getattr(gpuadapt.torch, name)(table.parameters(), sparse=sparse, **options)
    watch = optimizer.watch(table) if sparse == "exact" else None
    for ids in batches(steps):
        backward(table, ids, sparse=not dense_gradients)
        optimizer.step()
    optimizer.flush()
    if watch is not None:
        watch.remove()
    assert optimizer.fallback is None
    return table.weight, optimizer


@pytest.mark.parametrize(("name", "options"), METHODS.items())
def test_exact_rows_are_those_of_dense_steps(name, options):
    weight, optimizer = run(name, "exact", **options)
    dense = lookup()
    reference = getattr(gpuadapt.torch, name if name != "SparseAdam" else "Adam")(
        dense.parameters(), **options
    )
    if name == "SparseAdam":
        weight, optimizer = run("Adam", "exact", **options)
    for ids in batches(6):
        backward(dense, ids, sparse=False)
        reference.step()
    torch.testing.assert_close(weight, dense.weight, rtol=1e-6, atol=1e-7)
    for key, state in reference.state[dense.weight].items():
        torch.testing.assert_close(
            optimizer.state[weight][key], state, rtol=1e-5, atol=1e-7, msg=key
        )


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own Adagrad
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "SparseAdam"])
@pytest.mark.parametrize("kind", [torch.nn.Embedding, torch.nn.EmbeddingBag])
def test_sparse_gradients_are_taken_as_torch_takes_them(name, kind):
    tables = lookup(kind), lookup(kind)
    optimizers = [
        getattr(module, name)(table.parameters())
        for module, table in zip((torch.optim, gpuadapt.torch), tables, strict=True)
    ]
    for ids in batches(5):
        for table, optimizer in zip(tables, optimizers, strict=True):
            backward(table, ids)
            optimizer.step()
    assert optimizers[1].fallback is None
    one, other = (table.weight for table in tables)
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-7)
    for key, state in optimizers[0].state[one].items():
        torch.testing.assert_close(optimizers[1].state[other][key], state, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "options"), LAZY.items())
def test_lazy_rows_are_those_of_the_plain_optimizer(name, options):
    weight, _ = run(name, "lazy", **options)
    table = lookup().weight.detach().numpy()
    plain = getattr(ga.presets.torch, name)({"0": table}, **options)
    generator = lookup()
    for ids in batches(6):
        backward(generator, ids)
        gradient = generator.weight.grad
        rows, values = gradient._indices()[0].numpy(), gradient._values().numpy()
        plain.step({"0": ga.RowGrad(rows, values)})
    torch.testing.assert_close(weight.detach(), torch.from_numpy(table), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"state_dtype": "8bit"},
        {"state_dtype": "bfloat16"},
        {"rowwise": True},
        {"max_row_norm": 0.5},
        {"max_norm": 0.5},
        {"weight_decay": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("sparse", ["lazy", "exact"])
def test_tables_take_every_format_and_option(options, sparse):
    weight, optimizer = run("Adam", sparse, **options)
    plain, _ = run("Adam", sparse)
    assert weight.isfinite().all()
    assert not torch.equal(weight, plain), "the option changes something"
    copied = copy.deepcopy(optimizer)
    assert copied.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def test_a_lookup_that_is_watched_reads_current_rows():
    table = lookup()
    optimizer = gpuadapt.torch.Adam(table.parameters(), sparse="exact", lr=0.1)
    watch = optimizer.watch(torch.nn.Sequential(table))
    dense = lookup()
    reference = gpuadapt.torch.Adam(dense.parameters(), lr=0.1)
    for ids in batches(5):
        read, wanted = table(ids), dense(ids)
        torch.testing.assert_close(read, wanted, rtol=1e-5, atol=1e-6)
        backward(table, ids)
        backward(dense, ids, sparse=False)
        optimizer.step()
        reference.step()
    saved = table.state_dict()["weight"]
    torch.testing.assert_close(saved, dense.weight.detach(), rtol=1e-5, atol=1e-6)
    watch.remove()
    backward(table, torch.tensor([0]))
    optimizer.step()
    stale = table.weight.detach().clone()
    optimizer.catch_up(table.weight)
    assert not torch.equal(stale, table.weight)


def test_what_has_no_rows_to_catch_up_is_refused():
    table = lookup()
    optimizer = gpuadapt.torch.Adam(table.parameters(), sparse="exact")
    with pytest.raises(ga.ParameterError, match="not among"):
        optimizer.catch_up(torch.zeros(3))
    with pytest.raises(ga.ParameterError, match="no Embedding"):
        optimizer.watch(torch.nn.Linear(2, 2))
    backward(table, torch.tensor([1]))
    optimizer.step()
    with pytest.raises(ga.RowIndexError):
        optimizer.catch_up(table.weight, torch.tensor([ROWS]))


def test_a_table_may_have_sparse_and_dense_gradients_in_turns():
    for sparse in ("lazy", "exact"):
        table, dense = lookup(), lookup()
        optimizer = gpuadapt.torch.Adam(table.parameters(), sparse=sparse)
        reference = gpuadapt.torch.Adam(dense.parameters())
        for number, ids in enumerate(batches(6)):
            backward(table, ids, sparse=number % 2 == 1 and sparse == "exact")
            backward(dense, ids, sparse=False)
            optimizer.step()
            reference.step()
        optimizer.flush()
        torch.testing.assert_close(table.weight, dense.weight, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_has_rows_that_have_caught_up():
    def train(optimizer, table, count, seed):
        for ids in batches(count, seed):
            backward(table, ids)
            optimizer.step()

    table = lookup()
    optimizer = gpuadapt.torch.Adam(table.parameters(), sparse="exact", lr=0.1)
    train(optimizer, table, 4, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    again = lookup()
    with torch.no_grad():
        again.weight.copy_(table.weight)
    other = gpuadapt.torch.Adam(again.parameters(), sparse="exact", lr=0.1)
    other.load_state_dict(saved)
    for each, one in ((optimizer, table), (other, again)):
        train(each, one, 3, 2)
        each.flush()
    assert torch.equal(table.weight, again.weight)


@pytest.mark.parametrize("pickled", [False, True])
def test_a_module_that_is_copied_before_its_optimizer(pickled):
    """Its copy has the rows as they were before the optimizer let them catch up."""
    table = lookup()
    optimizer = gpuadapt.torch.Adam(table.parameters(), sparse="exact", lr=0.1)
    for ids in batches(4):
        backward(table, ids)
        optimizer.step()
    pair = table, optimizer
    other, _ = pickle.loads(pickle.dumps(pair)) if pickled else copy.deepcopy(pair)
    assert torch.equal(other.weight, table.weight)


def test_weights_that_are_loaded_are_not_moved_by_steps_before():
    table = lookup()
    optimizer = gpuadapt.torch.Adam(table.parameters(), sparse="exact", lr=0.1)
    optimizer.watch(table)
    backward(table, torch.tensor([1]))
    optimizer.step()
    backward(table, torch.tensor([2]))
    optimizer.step()  # which row 1 has missed
    loaded = torch.ones(ROWS, WIDTH)
    table.load_state_dict({"weight": loaded})
    optimizer.catch_up(table.weight)
    assert torch.equal(table.weight, loaded)
