"""The benchmarks: what they check, what they count, what they write. Not how fast anything is."""

import ctypes
import inspect
import itertools
import json
import sys
import types
from pathlib import Path

import elsewhere
import hostcupy
import ml_dtypes
import numpy as np
import pytest

from gpuadapt.benchmark import candidates, draws, limits, timing, traffic
from gpuadapt.kernels import rules

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import benchmarks.__main__ as command  # noqa: E402
import gpuadapt as ga  # noqa: E402
from benchmarks import (  # noqa: E402
    arithmetic,
    exact,
    goals,
    overhead,
    peers,
    report,
    rows,
    suites,
    torch_loop,
    torch_losses,
    training,
    update,
)

# Where peers are installed they warn of much that is not ours.
pytestmark = pytest.mark.filterwarnings("default")

METHODS = list(candidates.HYPER)
SMALL = 300


def small_case(method, **changes):
    return update.Case(method, (SMALL,), **changes)


@pytest.mark.parametrize("method", METHODS)
def test_a_case_is_checked_timed_and_counted(method):
    result = update.run(small_case(method), "cpu", rounds=3)
    states = len(getattr(rules, method).states)
    assert result["bytes"] == SMALL * 4 * (3 + 2 * states)
    assert {"gpuadapt", "numpy", "limit", "arithmetic"} <= set(result["times"])
    for name, time in result["times"].items():
        assert 0 < time["low"] <= time["median"] <= time["high"]
        assert len(time["turns"]) == 3
        assert ("first" in time) == (name not in report.ROOFS)
    json.dumps(result)


@pytest.mark.parametrize(
    "case",
    [
        update.Case("adam", (30, 1, 500), "three arrays"),
        small_case("adam", dtype="float64"),
        small_case("adam", threads=1),
        update.Case("adam", (60_000,), only=("nobody",)),
    ],
    ids=lambda case: case.name,
)
def test_kinds_of_cases(case):
    result = update.run(case, "cpu", rounds=2)
    assert result["size"] == sum(case.sizes)
    assert result["bytes"] == result["size"] * (56 if case.dtype == "float64" else 28)
    assert ("numpy" in result["times"]) == (not case.only)


def wrong(make, change):
    """A candidate whose result is a little off, or who says another form than it has."""

    def made(start, hyper):
        trainer = make(start, hyper)
        return trainer._replace(**change(trainer))

    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda trainer: {"result": lambda: [w + 1e-5 for w in trainer.result()]},
        lambda trainer: {"form": {"eps_mode": "uncorrected"}},
        lambda trainer: {"step": lambda: None},
    ],
    ids=["result", "form", "no step"],
)
@pytest.mark.parametrize("name", ["gpuadapt", "numpy"])
def test_a_wrong_candidate_is_refused(name, change):
    case, makers = small_case("adam"), peers.makers("adam", "cpu", ("numpy",))
    assert set(update.check(makers, case, "cpu")) == {"gpuadapt", "numpy"}
    makers[name] = wrong(makers[name], change)
    with pytest.raises(AssertionError, match=f"{name}, adam, 300 elements: off by"):
        update.check(makers, case, "cpu")


def test_a_peer_that_is_missing_is_left_out(monkeypatch):
    for peer in peers.ALL:
        if peer is not peers.numpy:
            monkeypatch.setattr(peer, "library", lambda: None)
    versions = peers.versions()
    assert versions.pop("numpy") == np.__version__
    assert set(versions.values()) == {None}
    for method in METHODS:
        assert set(peers.makers(method, "cpu")) == {"gpuadapt", "numpy"}
    assert set(peers.rows("adam", "cpu")) == {"gpuadapt", "numpy"}


@pytest.mark.parametrize("method", METHODS)
def test_expressions_are_checked_on_arrays_like_cupys(method, monkeypatch):
    monkeypatch.setattr(peers.numpy, "namespace", lambda _: elsewhere.module())
    makers = peers.numpy.makers(method, "cuda")
    assert set(update.check(makers, small_case(method), "cuda")) == {"cupy"}


def test_numbers_are_rounded_to_bfloat16_where_they_are():
    some = np.random.default_rng(0).standard_normal(1_000).astype(np.float32)
    halves = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0xBF818001], np.uint32)
    values = np.concatenate([some, halves.view(np.float32), [0, -0.0, 1e30]]).astype(np.float32)
    bits = draws.as_bfloat16(elsewhere.Elsewhere(values)).get()
    assert bits.dtype == np.uint16
    assert np.array_equal(bits, values.astype(ml_dtypes.bfloat16).view(np.uint16))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_numbers_are_drawn_on_the_device(host, dtype):
    draws._normal_cuda.cache_clear()
    draw, again = (draws.normal("cuda", 7) for _ in range(2))
    one, two = draw((200, 150), dtype).get(), draw(30_000, dtype).get()
    assert one.shape == (200, 150) and one.dtype == two.dtype == dtype
    assert np.array_equal(again((200, 150), dtype).get(), one)
    assert not np.intersect1d(one, draws.normal("cuda", 8)(30_000, dtype).get()).size > 100
    for numbers in (one.ravel(), two):
        assert abs(numbers.mean()) < 0.03 and abs(numbers.std() - 1) < 0.02
        assert abs((np.abs(numbers) < 1).mean() - 0.6827) < 0.02 and np.abs(numbers).max() < 6
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(one.ravel(), two)[0, 1]) < 0.03
    draws._normal_cuda.cache_clear()


def test_the_kernel_that_draws_compiles():
    from cuda_source import architectures, assemble, compile_ptx

    if not architectures():
        pytest.skip("there is no NVRTC here")
    kernel = types.SimpleNamespace(
        in_params=draws.NORMAL_IN,
        out_params="T x",
        operation=draws.NORMAL_CUDA,
        name="normal",
        preamble="",
    )
    for dtype in ("float32", "float64"):
        text = assemble(kernel, np.dtype(dtype), 1)
        assert ".entry normal" in compile_ptx(text, architectures()[-1], ("--fmad=false",))


def test_turns_are_interleaved_in_changing_order():
    calls = []
    names = "abc"
    candidates = {name: (lambda name=name: calls.append(name)) for name in names}
    times = timing.interleaved(candidates, "cpu", rounds=30, seconds=0.0)
    assert all(time["calls"] == 1 and len(time["turns"]) == 30 for time in times.values())
    timed = calls[6::1][1::2]  # two calls each to find the number, then one untimed, one timed
    rounds = list(itertools.batched(timed, 3)) if hasattr(itertools, "batched") else [
        tuple(timed[k : k + 3]) for k in range(0, len(timed), 3)
    ]  # fmt: skip
    assert len(rounds) == 30
    assert all(sorted(order) == list(names) for order in rounds)
    assert len(set(rounds)) == 6


def test_a_captured_step_is_checked_like_every_candidate(host):
    case = update.Case("adam", (300, 7), "two arrays")
    assert set(update.check(peers.ours.makers("adam", "cuda"), case, "cuda")) == {
        "gpuadapt",
        "gpuadapt captured",
    }


def test_the_arithmetic_roof_updates_every_block():
    """Its threads work on all of their own arrays, whatever the number of threads."""
    import numba

    size = arithmetic.calling.ALONE + 5 * arithmetic.BLOCK
    run = arithmetic.roof(rules.sgd, np.dtype(np.float32), size)
    p = inspect.getclosurevars(run).nonlocals["arrays"][0]
    assert p.size == numba.get_num_threads() * arithmetic.BLOCK
    run()
    blocks = p.reshape(-1, arithmetic.BLOCK)
    assert (blocks == blocks[:, :1]).all() and (p < 1).all()
    turns = (1 - blocks[:, 0]) / 0.5  # p <- p - 0.5 * 1, once for each block of elements
    assert turns.sum() == size // arithmetic.BLOCK
    assert turns.max() - turns.min() <= 1


@pytest.mark.parametrize(("method", "bytes_"), [("sgd", 12), ("adagrad", 20), ("adam", 28)])
def test_bytes(method, bytes_):
    rule = getattr(rules, method)
    assert traffic.element(rule, np.dtype(np.float32)) == bytes_
    assert traffic.element(rule, np.dtype(np.float64)) == 2 * bytes_
    # With every row touched once there are the row numbers on top.
    assert traffic.rows(rule, np.dtype(np.float32), 16, 10, 10) == 160 * bytes_ + 80


# Rows


@pytest.mark.parametrize("method", ["adam", "adagrad"])
@pytest.mark.parametrize("kind", ["uniform", "Zipf-like", "hot"])
def test_rows(method, kind):
    case = rows.Case(method, 200, 16, 150, kind)
    result = rows.run(case, "cpu", rounds=2)
    assert 0 < result["touched"] < 150
    assert {"gpuadapt", "numpy", "limit"} <= set(result["times"])
    assert ("gpuadapt row-wise" in result["times"]) == (method == "adagrad")


def test_what_the_size_of_a_table_costs():
    case = rows.Case("adam", 4_000, 16, 150, drawn=40)
    assert case.name == "adam, 4,000 x 16, 150 Zipf-like rows of 40"
    numbers = rows.draw(case, np.random.default_rng(0))
    assert not (numbers % 100).any() and numbers.max() < 4_000
    result = rows.run(case, "cpu", rounds=2)
    assert set(result["times"]) == {"gpuadapt", "gpuadapt, small", "limit"}


@pytest.mark.parametrize("drawn", [None, 50])
def test_exact_rows(drawn):
    result = exact.run(exact.Case(2_000, 3, 100, drawn), "cpu", rounds=3)
    beside = {"gpuadapt, small"} if drawn else {"gpuadapt lazy", "gpuadapt dense"}
    assert set(result["times"]) == {"gpuadapt", "gpuadapt read and step", "limit", *beside}
    assert all(len(time["turns"]) == 3 for time in result["times"].values())
    assert 0 < result["touched"] <= 100 and "100 Zipf-like rows" in result["name"]
    assert any("read and step" in line for line in report.lines(result))


def test_exact_rows_that_are_not_are_refused(monkeypatch):
    """With the other rows left alone, as lazy ones are."""
    adam = ga.Adam
    monkeypatch.setattr(ga, "Adam", lambda t, lr, **_: adam(t, lr=lr))
    with pytest.raises(AssertionError, match="not those of dense steps"):
        exact.check("cpu")


def test_how_often_rows_repeat():
    random = np.random.default_rng(0)
    most = []
    for kind in ("uniform", "Zipf-like", "hot"):
        numbers = rows.draw(rows.Case("adam", 1_000, 4, 5_000, kind), random)
        assert numbers.min() >= 0 and numbers.max() < 1_000
        most.append(np.bincount(numbers).max())
    assert most[0] < 30 < 400 < most[1] < 1_200 and 2_300 < most[2] < 2_700


def test_lazy_rows_are_the_dense_method_where_zero_gradients_change_nothing():
    random, hyper = np.random.default_rng(1), candidates.HYPER["adagrad"]
    start = random.standard_normal((9, 4))
    batches = [(random.integers(0, 9, 12), random.standard_normal((12, 4))) for _ in range(4)]
    dense = []
    for numbers, values in batches:
        dense.append(np.zeros((9, 4)))
        for number, value in zip(numbers, values, strict=True):
            dense[-1][number] += value
    lazy = rows.lazily("adagrad", start, batches, hyper, {"eps_mode": "outside"}, rowwise=False)
    assert np.allclose(
        lazy, training.expected("adagrad", start, dense, hyper, {"eps_mode": "outside"}), rtol=1e-12
    )


def test_a_wrong_row_update_is_refused():
    def once(numbers, values):
        """Without duplicates: the last one counts."""
        kept = {int(number): k for k, number in enumerate(numbers)}
        return np.array(list(kept)), values[list(kept.values())]

    right = {"numpy": peers.rows("adagrad", "cpu")["numpy"]}
    assert set(rows.check("adagrad", "cpu", right)) == {"numpy"}
    wrong = {"numpy": lambda w, batches, h: right["numpy"](w, [once(*b) for b in batches], h)}
    with pytest.raises(AssertionError, match="numpy, adagrad: off by"):
        rows.check("adagrad", "cpu", wrong)


def rows_on_host(touched, ends, order, values, width, stride, count, tables, size):
    """`limits.ROWS_CUDA`, compiled by g++."""
    kinds = {"int64": "long long", "float32": "float"}
    declared = []
    for parameter in f"{limits.ROWS_IN}, raw float32 tables".split(","):
        *raw, kind, name = parameter.split()
        declared.append(f"{kinds[kind]} {'*' if raw else ''}{name}")
    run = hostcupy._compile(
        f'extern "C" void run(long long size, {", ".join(declared)}) {{\n'
        f"for (long long i = 0; i < size; ++i) {{ {limits.ROWS_CUDA} }}\n}}"
    )
    arrays = [ctypes.c_void_p(array.ctypes.data) for array in (touched, ends, order, values)]
    numbers = [ctypes.c_longlong(number) for number in (width, stride, count)]
    run(ctypes.c_longlong(size), *arrays, *numbers, ctypes.c_void_p(tables.ctypes.data))


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("states", [1, 2])
def test_the_limit_of_rows_touches_what_it_should(backend, states, monkeypatch):
    monkeypatch.setattr(limits, "namespace", lambda _: np)
    monkeypatch.setattr(limits, "_rows_cuda", lambda: rows_on_host)
    batch = np.array([7, 2, 7, 0, 7, 2, *range(10, 30)])
    add = limits.rows(backend, (40, 20), [batch, batch[:2]], states)
    tables = inspect.getclosurevars(add).nonlocals["tables"]
    counts = np.bincount(batch, minlength=40).astype(np.float32)
    add(0)
    first = 1 + counts
    assert np.array_equal(tables[0], np.repeat(first[:, None], 20, 1))
    for state in tables[1:]:
        assert np.array_equal(state, np.repeat(np.where(counts, 1 + first, 1)[:, None], 20, 1))
    add(1)
    assert np.array_equal(tables[0, :, 0], first + np.bincount(batch[:2], minlength=40))
    # Every row of values goes to its own row of the table.
    values = inspect.getclosurevars(add).nonlocals["plans"][0][-1]
    values[:] = np.arange(values.size).reshape(values.shape)
    expected = tables[0].copy()
    np.add.at(expected, batch, values)
    add(0)
    assert np.array_equal(tables[0], expected)


# Overhead


def test_the_kernels_without_exactness_do_nearly_the_same():
    coefficients = [0.9, 0.1, 0.999, 0.001, 1.0, 1.0, 1e-3, 1e-8]
    results = {}
    for name, kernel in overhead.kernels("cpu").items():
        random = np.random.default_rng(3)
        results[name] = [random.random(1_000, np.float32) for _ in range(4)]
        overhead.with_kernel(kernel, "cpu", results[name], coefficients)()
    assert set(results) == {"exact", "fastmath"}
    assert any((a != b).any() for a, b in zip(*results.values(), strict=True))
    for a, b in zip(*results.values(), strict=True):
        assert np.allclose(a, b, rtol=1e-5)


def test_the_cuda_kernel_without_exactness_is_contracted():
    from cuda_source import architectures, compile_ptx

    from gpuadapt.kernels.cuda import compile, multi_tensor
    from gpuadapt.kernels.formats import uniform

    if 90 not in architectures():
        pytest.skip("there is no NVRTC here")
    exact = multi_tensor.source(rules.adam, uniform(rules.adam, np.dtype(np.float32)))
    for source, options, contracted in (
        (exact, compile.OPTIONS, False),
        (overhead.loose(exact), (), True),
    ):
        ptx = compile_ptx(source, 90, options)
        assert ("fma.rn" in ptx) == contracted


def test_the_python_cost_is_measured_for_every_count():
    found = [entry for count in (1, 10) for entry in overhead._python(count, "cpu", 2)]
    ours = [entry for entry in found if entry["name"].endswith("gpuadapt")]
    assert len(ours) == 2
    assert all(entry["unit"] == "s" and 0 < entry["value"] < 1 for entry in ours)


def test_peak_memory_sees_temporaries_and_finds_none_of_ours():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not count peaks")
    size = 10_000_000
    grown = {
        name: overhead._run(overhead.MEMORY, None, name, str(size))
        for name in ("gpuadapt", "numpy")
    }
    assert grown["gpuadapt"] < size / 10
    assert grown["numpy"] > 4 * size


# Beside torch


@pytest.fixture
def one_short_turn(monkeypatch):
    """One thread, since torch's wait for each other where cores are busy; a call is a turn."""
    monkeypatch.setattr(torch_loop, "THREADS", 1)
    monkeypatch.setattr(torch_loop, "SECONDS", 0.0)
    monkeypatch.setattr(torch_loop, "BUSY", 8)


def test_lists_of_parameters_are_as_large_as_they_say():
    for shapes, tensors, least, most in (
        (torch_loop.resnet(), 62, 11_689_512, 11_689_512),
        (torch_loop.transformer(), 150, 18.5e6, 19.5e6),
        (torch_loop.layers(100, 256, 256, 100), 6, 0.11e6, 0.12e6),
        (torch_loop.layers(*[32] * 202), 402, 0.2e6, 0.22e6),
    ):
        assert len(shapes) == tensors
        assert least <= sum(int(np.prod(shape)) for shape in shapes) <= most


@pytest.mark.parametrize("quick", [True, False])
def test_the_suite_torch_has_cases_of_every_kind(quick, monkeypatch):
    cases = torch_loop.cases(quick)
    assert len({case.name for case in cases}) == len(cases)
    assert {type(case).__module__ for case in cases} == {
        "benchmarks.torch_loop",
        "benchmarks.torch_losses",
    }
    monkeypatch.setattr(peers.torch, "library", lambda: None)
    assert torch_loop.cases(quick) == []


@pytest.mark.parametrize("method", METHODS)
def test_steps_right_after_other_work_of_torchs(method, one_short_turn):
    case = torch_loop.Arrays(method, "six", ((3, 2), (4,), (), (1, 5), (2, 2), (7,)))
    result = torch_loop.run(case, "cpu", rounds=25)
    fused = {"torch fused"} if method in peers.torch.FUSED else set()
    rivals = {"torch foreach", "torch default"} | fused
    assert set(result["times"]) == {"gpuadapt", *rivals} and "errors" not in result
    assert all(len(time["turns"]) == torch_loop.RUNS for time in result["times"].values())
    figures = {f"{method}, six: over {name}'s time" for name in rivals} | {f"{method}, six: a step"}
    assert {figure["name"] for figure in result["figures"]} == figures
    assert all(figure["value"] > 0 for figure in result["figures"])
    assert "".join(report.lines(result)) and json.dumps(result)
    with pytest.raises(ValueError, match="runs on the CPU"):
        torch_loop.run(case, "cuda", rounds=1)


def test_what_a_step_costs_above_the_kernel(one_short_turn):
    case = torch_loop.Arrays("adam", "1,000 x 1", ((1,),) * torch_loop.MANY)
    result = torch_loop.run(case, "cpu", rounds=2)
    above = next(f for f in result["figures"] if "above the kernel" in f["name"])
    medians = {name: time["median"] for name, time in result["times"].items()}
    assert above["value"] == (medians["gpuadapt"] - medians["kernel"]) / torch_loop.MANY > 0
    assert above["name"] in goals.MOST


def test_the_kernel_alone_is_a_step():
    arrays = [[np.full(1, value, np.float32) for value in (1, 2, 0, 0)] for _ in range(3)]
    overhead.adam_alone("cpu", arrays, [0.9, 0.1, 0.999, 0.001, 10.0, 1000.0, 1e-3, 1e-8])()
    assert all(np.isclose(p, 1 - 1e-3) and m > 0 and v > 0 for p, _, m, v in arrays)


@pytest.mark.parametrize("method", ["adam", "adagrad"])
def test_tables_with_gradients_of_torch(method, one_short_turn):
    result = torch_loop.run(torch_loop.Table(method, 200, 16, 150), "cpu", rounds=2)
    rival = "torch SparseAdam" if method == "adam" else "torch Adagrad"
    assert set(result["times"]) == {"gpuadapt", rival} and "errors" not in result


def test_final_losses_of_a_network_of_few_bits(one_short_turn, monkeypatch):
    some = ("torch float32", "torch bfloat16", "gpuadapt stochastic")  # the others only compile
    every = torch_losses.formats
    monkeypatch.setattr(
        torch_losses, "formats", lambda lr: {name: every(lr)[name] for name in some}
    )
    result = torch_loop.run(torch_losses.Case(3, 1e-3), "cpu", rounds=1)
    figures = {figure["name"]: figure["value"] for figure in result["figures"]}
    assert len(figures) == 2 * len(some) - 1
    assert all(1 < value < 4 for name, value in figures.items() if name.endswith("final loss"))
    assert all(abs(value) < 1 for name, value in figures.items() if name.endswith("above float32"))
    (long, *_), few = torch_losses.cases(quick=False), torch_losses.cases(quick=True)
    assert len(few) == 1 and f"{long.name}: gpuadapt stochastic, above float32" in goals.MOST
    lines = "\n".join(report.lines(result))
    assert "torch bfloat16, final loss: " in lines and "above float32: " in lines
    part = report.in_torch([("here", some_results() | {"torch": [result]})])
    assert "| final loss | 3 steps of Adam with lr 0.001 |" in part
    assert f"| torch float32 | {result['losses']['torch float32']:.4f} (+0.0 %) |" in part
    assert "](../benchmarks/results/here.md)" in part


def test_a_candidate_that_differs_from_torch_is_not_timed(one_short_turn, monkeypatch):
    import gpuadapt.torch

    right = gpuadapt.torch.Adam
    monkeypatch.setattr(gpuadapt.torch, "Adam", lambda p, **h: right(p, **h | {"lr": 0.2}))
    case = torch_loop.Arrays("adam", "one", ((3, 2),))
    result = torch_loop.run(case, "cpu", rounds=2)
    assert "gpuadapt" not in result["times"] and "off by" in result["errors"]["gpuadapt"]
    assert not result["figures"]


def test_every_goal_of_the_suite_torch_has_its_case():
    names = [case.name for case in torch_loop.cases(quick=False)]
    goals_of_torch = [name for name in goals.MOST if not name.startswith(("step of", "clipping"))]
    assert len(goals_of_torch) == 8
    for goal in goals_of_torch:
        assert any(goal.startswith(f"{name}: ") for name in names), goal


def test_figures_are_a_table_with_their_goals():
    names = list(goals.MOST)[-3:]
    figures = [
        {"name": names[0], "value": 1.0, "unit": "s"},
        {"name": names[-1], "value": 0.5, "unit": "%"},
        {"name": "another", "value": 0.25, "unit": ""},
    ]
    case = {"name": "x", "backend": "cpu", "times": {}, "figures": figures}
    results = some_results() | {"torch": [case]}
    text = report.page(results, None)
    assert f"| {names[0]} | 1000.0 ms | 40.0 µs | MISSED |" in text
    assert f"| {names[-1]} | 0.50 % | 1.00 % | met |" in text
    assert "| another | 0.2500 |  |  |" in text
    assert any(line.startswith(f"{names[-1]}: 0.5 %") for line in goals.verdicts(results))


# Suites, report


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [True, False])
def test_every_suite_has_cases(backend, quick):
    for suite in (suites.dense, suites.many, suites.formats):
        cases = suite(backend, quick)
        assert cases and len({case.name for case in cases}) == len(cases)
    assert len(suites.dense(backend, quick)) + len(rows.cases(quick)) > 5


def test_the_transformer_is_about_as_large_as_it_says():
    sizes = suites.transformer()
    assert 280 <= len(sizes) <= 320
    assert 48e6 < sum(sizes) < 52e6


def some_results(ours=2.0, limit=1.0, torch=3.0):
    seconds = {"gpuadapt": ours, "limit": limit, "torch fused": torch, "torch foreach": 2 * torch}
    times = {
        name: {"median": value, "low": value, "high": value, "turns": [value] * 3, "calls": 1}
        for name, value in seconds.items()
    }
    cases = [
        {
            "name": f"adam, {size:,} elements",
            "case": "adam",
            "size": size,
            "backend": "cpu",
            "threads": None,
            "bytes": 28 * size,
            "times": times,
        }
        for size in (1_000_000, 50_000_000)
    ]
    machine = {"processor": "A processor", "threads": 2}
    return {
        "date": "2026-01-01",
        "machine": machine,
        "peers": {"torch": "2.0", "thinc": None},
        "notes": ["a note"],
        "dense": cases,
        "overhead": [{"name": "import", "value": 0.1, "unit": "s"}],
    }


def test_goals():
    lines = goals.verdicts(some_results())
    assert lines == [
        "adam, 1,000,000 elements: 1.50x torch fused (goal 1.8x), MISSED",
        "adam, 50,000,000 elements: 1.50x torch fused (goal 1x), met",
        "adam, 50,000,000 elements: 0.50x limit (goal 0.9x), MISSED",
    ]
    assert goals.verdicts({}) == []


def test_goals_of_row_wise_updates():
    results = some_results()
    times = results["dense"][0]["times"]
    case = {
        "name": f"adagrad, {goals.SMALL}",
        "backend": "cpu",
        "times": {
            "gpuadapt": times["gpuadapt"],
            "gpuadapt row-wise": times["limit"],
            "fbgemm": times["torch foreach"],
            "fbgemm row-wise": times["torch fused"],
        },
    }
    assert goals.verdicts({"machine": results["machine"], "rows": [case]}) == [
        f"adagrad, {goals.SMALL}: 1.50x fbgemm (goal 3x), MISSED",
        f"adagrad, {goals.SMALL}: gpuadapt row-wise 3.00x fbgemm row-wise (goal 2x), met",
    ]


def test_a_page_says_all_that_was_measured(tmp_path):
    text = report.page(some_results(), "x.png")
    for part in ("A processor, 2 threads, 2026-01-01", "torch 2.0.", "- a note", "(x.png)"):
        assert part in text
    assert "thinc" not in text
    assert "| adam, 50,000,000 elements | 2000.0 ms | 1 | 50 % | 1.50x | 3.00x |" in text
    assert "- import: 100.0 ms" in text
    pytest.importorskip("matplotlib")
    assert report.picture(some_results(), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert not report.picture({}, tmp_path / "y.png")


def test_the_command(tmp_path, monkeypatch, capsys):
    cases = [small_case("adam"), small_case("adagrad")]
    monkeypatch.setattr(suites, "dense", lambda backend, quick: cases)
    monkeypatch.setattr(rows, "cases", lambda quick: [rows.Case("adagrad", 50, 4, 20)])
    for suite in ("dense", "rows"):
        file = tmp_path / "new" / f"{suite}.json"
        arguments = ["benchmarks", suite, "--quick", "--json", str(file)]
        monkeypatch.setattr(sys, "argv", arguments)
        assert command.main() == 0
        results = json.loads(file.read_text(encoding="utf-8"))
        assert {"date", "commit", "machine", "peers", "notes", suite} == set(results)
        assert report.page(results, None).startswith("# ")
    printed = capsys.readouterr().out
    assert "dense 2/2: adagrad, 300 elements" in printed
    assert f"numpy {np.__version__}" in printed


def committed():
    return {path.stem: json.loads(path.read_text()) for path in report.RESULTS.glob("*.json")}


def test_the_readmes_table_and_the_pages_are_the_measured_ones():
    every = committed()
    assert every
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.readme(sorted(every.items())) in readme
    in_torch = (ROOT / "docs" / "torch.md").read_text(encoding="utf-8")
    assert report.in_torch(sorted(every.items())) in in_torch
    for name, results in every.items():
        image = report.RESULTS / f"{name}.png"
        page = (report.RESULTS / f"{name}.md").read_text(encoding="utf-8")
        assert page == report.page(results, image.name if image.exists() else None)
