"""`gpuadapt benchmark` and `gpuadapt.testing.benchmark`: what they say, write and refuse."""

import csv
import functools
import io
import json
import math
import os
import re
import statistics
import sys

import ml_dtypes
import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import cli
from gpuadapt.benchmark import (
    candidates,
    checks,
    draws,
    files,
    measure,
    peers,
    plot,
    report,
    threads,
    timing,
    traffic,
    trust,
)
from gpuadapt.benchmark import run as running
from gpuadapt.benchmark.measurement import Table, Work
from gpuadapt.benchmark.subjects import subjects

# Where peers are installed they warn of much that is not ours.
pytestmark = pytest.mark.filterwarnings("default")

FILE = """
import gpuadapt as ga


@ga.rule
def drift(p, g, m, h):
    m = h.beta * m + (1 - h.beta) * g
    return p - h.lr * m, m


@ga.rule
def descent(p, g, h):
    return p - h.lr * g


def undecorated(p, g, h):
    return p - h.lr * g
"""

SPREAD = {"gpuadapt": [1.0, 1.0, 1.0, 1.0, 1.0], "limit": [0.5] * 5}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Runs of one step."""
    quickly = functools.partial(measure.measure, seconds=0.0)
    monkeypatch.setattr(running, "measure", quickly)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("import gpuadapt\n\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def alone(monkeypatch):
    """No other library is installed."""
    for peer in peers.ALL:
        monkeypatch.setattr(peer, "library", lambda: None)


@pytest.fixture
def times(monkeypatch):
    """Sets the times of candidates, and what others used meanwhile; nothing is run for them."""

    def set_times(turns, others=0.0):
        def interleaved(asked, backend, runs, seconds, errors):
            return {
                name: timing.spread(list(turns[name])) | {"calls": 3} for name in turns
                if name in asked
            }  # fmt: skip

        monkeypatch.setattr(measure, "interleaved", interleaved)
        monkeypatch.setattr(trust, "watch_others", lambda: lambda: others)

    return set_times


def run(*arguments):
    return cli.main(["benchmark", *arguments, "--backend", "cpu"])


def words(measurement):
    return [each.partition(":")[0] for each in measurement.warnings]


# The record


def test_the_record_of_a_rule(times):
    times({"gpuadapt": [0.4, 0.1, 0.2, 0.3, 0.5], "limit": [0.2, 0.05, 0.1, 0.15, 0.25]})
    got = ga.testing.benchmark(ga.rules.rmsprop, size=1_000, dtype="float64", lr=0.5)
    assert (got.seconds, got.low, got.high, got.runs, got.calls) == (0.3, 0.2, 0.4, 5, 3)
    assert (got.rule, got.method, got.size, got.dtype) == ("rmsprop", "rmsprop", 1_000, "float64")
    assert (got.backend, got.state_dtype, got.candidate) == ("cpu", None, "gpuadapt")
    assert got.bytes == 1_000 * 8 * 5
    assert got.gigabytes_per_second == pytest.approx(got.bytes / 0.3 / 1e9)
    assert got.share == pytest.approx(0.5) and got.limit_seconds == 0.15 and got.relative == 1
    assert got.threads == threads.available() and got.pool == threads.pool()
    machine = got.machine
    assert {"processor", "cores", "threads", "python", "numpy", "numba", "date"} <= set(machine)
    assert got.version == machine["gpuadapt"] == ga.__version__
    with pytest.raises(AttributeError):
        got.seconds = 0.0
    read = json.loads(json.dumps(got.as_dict()))
    assert read["seconds"] == 0.3 and read["machine"] == machine and read["table"] is None
    text = repr(got)
    for part in (
        "rmsprop, gpuadapt, 1,000 elements, float64, cpu",
        "300.0 ms a step (quartiles 200.0 ms .. 400.0 ms; 5 runs of 3 steps)",
        "50 % of the limit",
        "not to be trusted: spread",
    ):
        assert part in text, part


@pytest.mark.parametrize(("dtype", "state_dtype", "bytes_"), [
    ("float32", None, 28), ("float32", "bfloat16", 20), ("bfloat16", None, 22),
    ("float16", None, 22),
])  # fmt: skip
def test_formats_move_their_bytes_and_the_limit_moves_as_many(dtype, state_dtype, bytes_, times):
    sizes = []
    times({name: [1.0] * 5 for name in ("gpuadapt", "limit")})
    dense = measure.limits.dense
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            measure.limits, "dense", lambda *given: sizes.append(given[1]) or dense(*given)
        )
        got = ga.testing.benchmark(
            ga.rules.adam, size=700, dtype=dtype, state_dtype=state_dtype, runs=5
        )
    assert got.bytes == 700 * bytes_
    assert sizes == [got.bytes // 28]


def test_a_measurement_that_is_one(alone):
    got = ga.testing.benchmark(ga.rules.sgd, size=500, runs=3, threads=1)
    assert 0 < got.low <= got.seconds <= got.high and got.share > 0
    assert got.runs == 3 and words(got)[0] == "runs" and got.threads == 1


def test_the_number_of_threads_is_what_it_was(alone):
    import numba

    before = numba.get_num_threads()
    for asked in (1, threads.most()):
        (subject,) = subjects(["sgd"], {})
        work = Work(200, threads=asked)
        assert measure.measure(subject, work, runs=2, seconds=0.0).measurements[0].threads == asked
        assert numba.get_num_threads() == before


@pytest.mark.parametrize(("given", "said"), [
    ({"size": 0}, "size: got 0"), ({"size": 1.5}, "size: got 1.5"), ({"runs": 1}, "runs: got 1"),
    ({"threads": 0}, "threads: got 0"), ({"threads": True}, "threads: got True"),
    ({"dtype": "int8"}, "dtype: got 'int8', expected one of float32"),
    ({"state_dtype": "4bit"}, "state_dtype: got '4bit'"), ({"rate": 1.0}, "'rate'"),
])  # fmt: skip
def test_what_cannot_be_timed_is_refused(given, said):
    with pytest.raises(ga.HyperparameterError, match=re.escape(said)):
        ga.testing.benchmark(ga.rules.rmsprop, **{"size": 100, **given})


# Trust


@pytest.mark.parametrize(("turns", "others", "expected"), [
    (SPREAD, 0.0, []),
    (SPREAD, None, []),
    (SPREAD | {"gpuadapt": [1.0, 0.9, 1.0, 1.2, 1.0]}, 0.09, []),
    (SPREAD | {"gpuadapt": [1.0, 0.8, 0.9, 1.2, 1.3]}, 0.0, ["spread"]),
    (SPREAD | {"limit": [0.5, 0.4, 0.45, 0.6, 0.7]}, 0.0, ["limit"]),
    (SPREAD, 0.10, ["load"]),
    (SPREAD | {"limit": [1.004] * 5}, 0.0, []),
    (SPREAD | {"limit": [1.2] * 5}, 0.0, ["share"]),
    ({name: each[:4] for name, each in SPREAD.items()}, 0.0, ["runs"]),
    (SPREAD | {"gpuadapt": [1.0, 2.0, 3.0, 4.0, 5.0], "limit": [9.0] * 5}, 0.9,
     ["spread", "load", "share"]),
])  # fmt: skip
def test_what_is_not_to_be_trusted(turns, others, expected, times, alone, capsys):
    times(turns, others)
    assert words(ga.testing.benchmark(ga.rules.sgd, size=100)) == expected
    assert run("sgd", "--sizes", "100") == 0
    out = capsys.readouterr().out
    (line,) = [each for each in out.splitlines() if each.startswith("gpuadapt  ")]
    assert line.endswith(", ".join(expected) or "%")
    for word, meaning in trust.MEANINGS.items():
        assert (f"{word}: {meaning}" in out) == (word in expected)


def test_what_others_use_is_what_is_used_less_what_is_ours(monkeypatch):
    machine, own = iter([(100, 1_000), (180, 1_200)]), iter([50.0, 70.0])
    monkeypatch.setattr(trust, "_processor_time", lambda: next(machine))
    monkeypatch.setattr(trust, "_own_ticks", lambda: next(own))
    assert trust.watch_others()() == pytest.approx((80 - 20) / 200)
    short = iter([(0, 0), (5, trust.TICKS - 1)])
    monkeypatch.setattr(trust, "_processor_time", lambda: next(short))
    monkeypatch.setattr(trust, "_own_ticks", lambda: 0.0)
    assert trust.watch_others()() is None


def test_where_the_system_does_not_count_it_is_the_load(monkeypatch):
    monkeypatch.setattr(trust, "_processor_time", lambda: None)
    monkeypatch.setattr(trust.os, "getloadavg", lambda: (3.0, 9.0, 9.0))
    monkeypatch.setattr(trust.os, "cpu_count", lambda: 4)
    assert trust.watch_others()() == 0.75
    monkeypatch.delattr(trust.os, "getloadavg")
    assert trust.watch_others()() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
def test_linux_counts_processor_time():
    (busy, whole), own = trust._processor_time(), trust._own_ticks()
    assert 0 < busy <= whole and own > 0


# Files


def read_json(text):
    return json.loads(text)


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("by_rows", [False, True])
def test_json_and_csv_have_the_same_records(by_rows, folder, alone, capsys):
    work = ["--rows", "50x4", "--batch", "20"] if by_rows else ["--sizes", "100", "1e3"]
    given = ["adagrad", "own.py:drift", *work, "--runs", "2"]
    assert run(*given, "--json", "new/a.json", "--csv", "a.csv") == 0
    of_json = read_json((folder / "new" / "a.json").read_text())
    of_csv = read_csv((folder / "a.csv").read_text())
    assert len(of_json) == len(of_csv) == (2 if by_rows else 4)
    for one, other in zip(of_json, of_csv, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            assert not isinstance(value, (list, dict))
            kind = type(value)
            assert other[name] == "" if value is None else kind(other[name]) == value
    assert [one["method"] for one in of_json][:: len(of_json) // 2] == ["adagrad", "own.py:drift"]
    figures = {"seconds", "low", "high", "runs", "share", "bytes", "warnings", "threads"}
    machine = {f"machine_{name}" for name in ("processor", "cores", "numba", "gpuadapt", "date")}
    assert figures | machine <= set(of_json[0])
    if by_rows:
        assert (of_json[0]["table_rows"], of_json[0]["table_kind"]) == (50, "Zipf-like")
    assert not list(folder.rglob("*.new"))


@pytest.mark.parametrize(("option", "read"), [("--json", read_json), ("--csv", read_csv)])
def test_a_file_on_the_standard_output_is_all_that_is_there(option, read, alone, capsys):
    assert run("sgd", "--sizes", "100", "--runs", "2", option, "-") == 0
    said = capsys.readouterr()
    (record,) = read(said.out)
    assert record["rule"] == "sgd" and "of limit" in said.err


def test_a_link_stays_and_a_device_is_written(folder):
    """What they lead to is written."""
    real, link = folder / "real.json", folder / "link.json"
    link.symlink_to(real)
    files.write("one", link)
    assert link.is_symlink() and real.read_text() == "one"
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write("two", pipe)
        assert os.read(reader, 9) == b"two" and not pipe.is_file()
    finally:
        os.close(reader)
    assert sorted(each.name for each in folder.iterdir() if each.suffix == ".new") == []


def test_results_are_kept_when_a_later_one_fails(folder, alone, monkeypatch, capsys):
    done = running.measure

    def measure_once(subject, work, *more):
        if work.size > 100:
            raise MemoryError("no 8 TB")
        return done(subject, work, *more)

    monkeypatch.setattr(running, "measure", measure_once)
    assert run("sgd", "--sizes", "100", "200", "--runs", "2", "--json", "a.json") == 2
    assert len(read_json((folder / "a.json").read_text())) == 1
    assert "sgd, 200 elements, float32: there is too little memory" in capsys.readouterr().err


def test_the_picture(folder, alone, capsys):
    given = [
        "own.py:drift",
        "Lion",
        "adam",
        "--sizes",
        "100",
        "300",
        "--state-dtype",
        "none",
        "bfloat16",
    ]
    assert run(*given, "--runs", "2", "--plot", "a.png") == 0
    picture = (folder / "a.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def measured(**changes):
    (subject,) = subjects(["sgd"], {})
    first = measure.measure(subject, Work(100), runs=2, seconds=0.0).measurements[0]
    return measure.Measurement(**{**vars(first), **changes})


def test_lines_of_the_picture_have_the_colours_of_their_names_and_quartiles(alone):
    from matplotlib.figure import Figure

    known = {plot.colour(name) for name in ("gpuadapt", "torch fused", "optax jit")}
    assert len(known) == 3
    ours = [measured(size=size, seconds=2e-6, low=1e-6, high=4e-6, limit_seconds=1e-6)
            for size in (1_000, 2_000)]  # fmt: skip
    theirs = [measured(candidate="torch fused", size=size) for size in (1_000, 2_000)]
    for order in ([*ours, *theirs], [*theirs, *reversed(ours)]):
        axes = Figure().subplots()
        drawn = plot._draw_panel(axes, order)
        assert {name: bars[0].get_color() for name, bars in drawn.items()} == {
            name: plot.COLOURS[name] for name in ("gpuadapt", "torch fused")
        }
        line, _, (bars,) = drawn["gpuadapt"]
        assert line.get_xydata().ravel().tolist() == pytest.approx([1_000, 2, 2_000, 1])
        low, high = bars.get_segments()[0]
        assert (low[1], high[1]) == pytest.approx((1.0, 4.0))
        dashed = [each for each in axes.lines if each.get_linestyle() == "--"]
        assert [[*each.get_ydata()] for each in dashed] == [pytest.approx([1.0, 0.5])]


# Subjects


def test_methods_rules_and_files(folder):
    found = subjects(["Adam", "lion", "own.py:drift", "own.py"], {})
    assert [each.name for each in found] == [
        "Adam", "lion", "own.py:drift", "own.py:drift", "own.py:descent",
    ]  # fmt: skip
    made = [each.make(np.zeros(3, np.float32)) for each in found]
    assert type(made[0]) is ga.Adam and made[0].rule is ga.rules.adam
    assert [each.rule.name for each in made] == ["adam", "lion", "drift", "drift", "descent"]
    group = made[2].param_groups[0]
    assert (group["beta"], group["lr"]) == (0.1, 0.1)


def test_settings_reach_the_method(folder):
    values = {"lr": 0.25, "amsgrad": True, "betas": (0.5, 0.75)}
    (adam,) = subjects(["Adam"], values)
    optimizer = adam.make(np.zeros(3, np.float32))
    assert optimizer.rule is ga.rules.amsgrad and optimizer.param_groups[0]["lr"] == 0.25
    (rule,) = subjects(["adam"], {"betas": (0.5, 0.75)})
    assert rule.make(np.zeros(3)).param_groups[0]["beta1"] == 0.5
    given = cli.benchmark.setting
    assert [given(text) for text in ("lr=1e-3", "nesterov=True", "betas=(0.5, 0.75)", "decay=l2")] \
        == [("lr", 1e-3), ("nesterov", True), ("betas", (0.5, 0.75)), ("decay", "l2")]  # fmt: skip


# Other libraries


@pytest.mark.parametrize("method", candidates.HYPER)
def test_libraries_that_are_here_compute_the_same(method):
    errors = {}
    offered = peers.makers(method, "cpu", errors=errors)
    assert checks.dense(method, offered, np.dtype("float32"), errors) == list(offered)
    by_rows = peers.rows(method, "cpu", errors)
    assert checks.rows(method, by_rows, errors) == [n for n in by_rows if "row-wise" not in n]
    assert not errors
    if peers.torch.library() is not None:
        assert "torch foreach" in offered


def library(step):
    """A library whose candidate is called "thinc", and gives what ``step`` does in SGD's place."""

    def make(start, hyper):
        arrays, gradients = [w.copy() for w in start], []

        def load(given):
            gradients[:] = given

        def one():
            step(arrays[0], gradients[0], hyper["lr"])

        return candidates.Trainer(load, one, lambda: arrays)

    return lambda method, backend: {"thinc": make}


def right(w, g, lr):
    w -= np.float32(lr) * g


def twice(w, g, lr):
    w -= np.float32(2 * lr) * g


def none(w, g, lr):
    raise OSError("built for another\n processor")


@pytest.mark.parametrize(("step", "said"), [
    (right, None),
    (twice, r"left out: thinc: ValueError: its result is off by .*: it is another formula"),
    (none, r"left out: thinc: OSError: built for another processor"),
])  # fmt: skip
def test_a_library_is_timed_if_it_computes_the_same(step, said, alone, monkeypatch, capsys):
    monkeypatch.setattr(peers.thinc, "library", lambda: step)
    monkeypatch.setattr(peers.thinc, "makers", library(step))
    monkeypatch.setattr(peers.installed, "version", lambda packages: "9.1")
    assert run("SGD", "--sizes", "100", "--runs", "2") == 0
    output = capsys.readouterr()
    assert (re.search(r"(?m)^thinc  +\d", output.out) is None) == (said is not None)
    assert said is None or re.search(said, output.out)
    assert "Traceback" not in output.err + output.out
    assert "not installed, left out: torch, optax, deepspeed\n" in output.out
    (subject,) = subjects(["SGD"], {})
    result = measure.measure(subject, Work(100), True, runs=2, seconds=0.0)
    others = [one.version for one in result.measurements if one.candidate != "gpuadapt"]
    assert others == ([] if said else ["9.1"])


@pytest.mark.parametrize("given", [
    ["own.py:drift"], ["Adam", "--set", "amsgrad=True"], ["Adagrad", "--state-dtype", "bfloat16"],
    ["SGD", "--set", "momentum=0.9"], ["SGD", "--set", "weight_decay=0.1"], ["sgd", "--no-peers"],
])  # fmt: skip
def test_other_work_is_not_timed_by_others(given, folder, monkeypatch, capsys):
    monkeypatch.setattr(measure, "peers", None)
    monkeypatch.setattr(running.peers, "versions", lambda: 1 / 0)
    assert run(*given, "--sizes", "100", "--runs", "2") == 0
    assert "left out" not in capsys.readouterr().out


def test_it_runs_without_other_libraries(alone, capsys):
    assert run("Adam", "--sizes", "100", "--runs", "2", "--threads", "1") == 0
    assert run("Adagrad", "--rows", "30x4", "--batch", "20", "--draw", "hot", "--runs", "2") == 0
    dense, rows = capsys.readouterr().out.split("left out:")[:2]
    assert "threads 1 of" in dense and "elements 30 x 4, 20 hot rows" in rows


# Rows


def test_rows_of_a_table(alone):
    (subject,) = subjects(["Adam"], {})
    work = Work(60, table=Table(30, 2, 40, "uniform"))
    (got,) = measure.measure(subject, work, True, runs=2, seconds=0.0).measurements
    random = np.random.default_rng(0)
    batches = [draws.rows(30, 40, "uniform", random) for _ in range(draws.BATCHES)]
    touched = round(statistics.mean(np.unique(numbers).size for numbers in batches))
    assert got.size == 2 * touched and got.table == work.table
    assert got.bytes == traffic.rows(ga.rules.adam, np.dtype("float32"), 2, 40, touched)
    assert "30 x 2, 40 uniform rows" in repr(got)


@pytest.mark.parametrize("work", [
    Work(300, backend="cuda"),
    Work(300, "bfloat16", "8bit", backend="cuda"),
    Work(120, backend="cuda", table=Table(30, 4, 20)),
], ids=["dense", "formats", "rows"])  # fmt: skip
def test_on_a_gpu(work, host, times, monkeypatch):
    """With the stand-in for CuPy: the steps are made, and take the times that are given."""
    draws._normal_cuda.cache_clear()
    times(SPREAD)
    monkeypatch.setattr(measure, "copies_of", lambda *_: 2)
    monkeypatch.setattr(measure, "machine", lambda: {"gpuadapt": "1", "devices": ["A"], "cores": 2})
    # The stand-in for CuPy lacks what these need.
    monkeypatch.setattr(measure.limits, "dense", lambda *_: {"limit": lambda: None})
    monkeypatch.setattr(measure.limits, "rows", lambda *_: lambda k: None)
    monkeypatch.setattr(draws, "as_bfloat16", lambda of: host.library.asarray(
        of.get().astype(ml_dtypes.bfloat16).view(np.uint16)))  # fmt: skip
    (subject,) = subjects(["Adam"], {})
    (got,) = measure.measure(subject, work).measurements
    assert got.threads is None and got.pool is None and got.backend == "cuda"
    assert got.bytes > 0 and math.isclose(got.share, 0.5)
    draws._normal_cuda.cache_clear()


# Errors


@pytest.mark.parametrize(("given", "said"), [
    (["Adm"], r"did you mean Adam\? no method or rule 'Adm'"),
    (["AdaGrad"], r"did you mean Adagrad\?"),
    (["SGD", "--state-dtype", "8bit"], r"SGD, 10,000 elements, float32, states 8bit: .*state_dt"),
    (["owm.py:drift"], r"did you mean .*own\.py\? no file 'owm\.py'"),
    (["own.py:drit"], r"did you mean drift\? own\.py has no 'drit'"),
    (["own.py:undecorated"], r"own\.py: undecorated is no rule but a function: decorate it"),
    (["broken.py:drift"], r"broken\.py:3: ZeroDivisionError: division by zero"),
    (["Adam", "--set", "learning_rate=1"], r"Adam, 10,000 elements, float32: did you mean lr\?"),
    (["Adam", "--set", "lr=-1"], r"lr: got -1"),
    (["Adam", "--sizes", "inf"], r"argument --sizes: invalid whole number .* value: 'inf'"),
    (["Adam", "--sizes", "1e999"], r"argument --sizes: invalid whole number"),
    (["Adam", "--set", "rowwise=True"], r"rowwise: got True, whose bytes are not counted"),
    (["Adam", "--rows", "1000x8", "--set", "sparse=exact"], r"sparse: got 'exact', whose bytes"),
    (["sgd", "--set", "state_dtype=8bit"], r"give --state-dtype instead"),
    (["sgd", "--set", "lr"], r"argument --set: invalid NAME=VALUE value: 'lr'"),
    (["sgd", "--sizes", "many"], r"argument --sizes: invalid whole number \(1000, 1e6\) value"),
    (["sgd", "--sizes", "0"], r"argument --sizes: invalid whole number"),
    (["sgd", "--sizes", "1.5"], r"argument --sizes: invalid whole number"),
    (["sgd", "--rows", "10"], r"argument --rows: invalid ROWSxWIDTH \(1e6x64\) value: '10'"),
    (["sgd", "--rows", "10x2", "--sizes", "9"], r"--sizes has no effect with --rows"),
    (["sgd", "--rows", "10x2", "--state-dtype", "8bit"], r"--state-dtype has no effect with"),
    (["sgd", "--batch", "9"], r"--batch has no effect without --rows"),
    (["sgd", "--draw", "hot"], r"--draw has no effect without --rows"),
    (["sgd", "--dtype", "int8"], r"argument --dtype: invalid choice: 'int8'"),
    (["sgd", "--threads", "9999"], r"threads: got 9999, expected a whole number from 1 to"),
    (["sgd", "--runs", "1"], r"runs: got 1, expected a whole number from 2"),
    (["sgd", "--plot", "-"], r"--plot -: a picture needs a file"),
    (["sgd", "--json", "a", "--csv", "a"], r"--json and --csv are both a"),
    (["sgd", "--json", "own.py/a.json"], r"no files can be written to the folder own\.py"),
    (["sgd", "--plot", "."], r"the file \. cannot be written: it is a folder"),
])  # fmt: skip
def test_errors_are_one_line(given, said, folder, capsys, monkeypatch):
    monkeypatch.setattr(running, "measure", lambda *_: pytest.fail("nothing is measured"))
    assert run(*given) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpuadapt benchmark: ") and error.count("\n") == 1, error
    assert re.search(said, error), error


def test_threads_of_a_gpu_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(cli.benchmark, "choose_backend", lambda backend: "cuda")
    assert run("sgd", "--threads", "1") == 2
    assert (
        "sgd, 10,000 elements, float32, 1 thread: threads have no effect on a GPU"
        in capsys.readouterr().err
    )


def test_a_picture_needs_matplotlib(capsys, monkeypatch):
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    assert run("sgd", "--plot", "a.png") == 2
    error = capsys.readouterr().err
    assert error.startswith("gpuadapt benchmark: --plot needs matplotlib: pip install")
    assert error.count("\n") == 1


# The table


def test_columns_that_do_not_vary_stand_above(alone, capsys):
    given = ["SGD", "sgd", "--sizes", "100", "200", "--runs", "2", "--no-peers"]
    assert run(*given) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[1].startswith("type float32; threads") and lines[1].endswith("medians of 2 runs")
    assert lines[3].split()[:3] == ["method", "elements", "by"]
    assert [line.split()[:3] for line in lines[4:8]] == [
        ["SGD", "100", "gpuadapt"], ["SGD", "200", "gpuadapt"],
        ["sgd", "100", "gpuadapt"], ["sgd", "200", "gpuadapt"],
    ]  # fmt: skip
    progress = said.err.splitlines()
    assert progress[0].startswith("benchmark, 4 variants, 2 runs each, cpu")
    assert progress[-1].startswith("benchmark: 100 %") and "sgd, 200 elements" in progress[-1]


def test_a_record_for_each_measurement():
    one = measured(warnings=("spread: a", "load: b"))
    assert files.record(one)["warnings"] == "spread: a; load: b"
    assert report.reasons(one) == ["spread", "load"]
