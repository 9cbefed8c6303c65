"""What fails in a benchmark: an entry, not the end; and what a run that was stopped leaves."""

import functools
import itertools
import json
import re
import sys
from pathlib import Path

import pytest
from test_benchmarks import (
    arithmetic,
    candidates,
    command,
    goals,
    limits,
    overhead,
    peers,
    report,
    rows,
    small_case,
    some_results,
    suites,
    timing,
    update,
)

from benchmarks import failures
from gpuadapt.benchmark.failures import noted

pytestmark = pytest.mark.filterwarnings("default")


def bad(stage):
    """A maker of a candidate that raises when it is made, checked or timed."""
    right = peers.numpy.makers("adam", "cpu")["numpy"]

    def make(start, hyper):
        if stage == "made":
            raise RuntimeError("no such\n  device")
        trainer, steps = right(start, hyper), itertools.count(1)

        def step():
            # Three steps of the check, one before the timing.
            if stage == "timed" and hyper == candidates.HYPER["adam"] and next(steps) > 4:
                raise RuntimeError("no such device")
            trainer.step()

        off = [lambda: [w + 1 for w in trainer.result()]] * (stage == "checked")
        return trainer._replace(step=step, result=(off or [trainer.result])[0])

    return make


@pytest.fixture
def without_kernels(monkeypatch):
    """Candidates by name for `benchmarks.update`: expressions, so that nothing is compiled."""
    right = peers.numpy.makers("adam", "cpu")["numpy"]
    candidates = {"gpuadapt": right, "numpy": right}
    quickly = functools.partial(timing.interleaved, seconds=0.0)
    monkeypatch.setattr(update, "interleaved", quickly)
    monkeypatch.setattr(limits, "dense", lambda *_: {"limit": lambda: None})
    monkeypatch.setattr(arithmetic, "roof", lambda *_: lambda: None)
    monkeypatch.setattr(peers, "makers", lambda *_, **__: candidates)
    return candidates


@pytest.mark.parametrize("stage", ["made", "checked", "timed"])
@pytest.mark.parametrize("name", ["torch fused", "gpuadapt"])
def test_a_candidate_that_fails_is_an_entry(stage, name, without_kernels, capsys):
    without_kernels[name] = bad(stage)
    result = update.run(small_case("adam"), "cpu", rounds=3)
    assert set(result["times"]) == {"gpuadapt", "numpy", "limit", "arithmetic"} - {name}
    assert all(len(time["turns"]) == 3 for time in result["times"].values())
    why = "AssertionError: .*off by" if stage == "checked" else "RuntimeError: no such device"
    assert set(result["errors"]) == {name} and re.match(why, result["errors"][name])
    assert len(failures.ours({"dense": [result]})) == (name == "gpuadapt")
    assert any(re.search(f"{name} +FAILED: {why}", line) for line in report.lines(result))
    assert re.search(f"- adam, 300 elements, {name}: FAILED: {why}", report.page(
        some_results() | {"dense": [result]}, None))  # fmt: skip
    assert "Traceback" in capsys.readouterr().err
    json.dumps(result)


@pytest.mark.parametrize("roof", ["dense", "arithmetic"])
def test_a_limit_that_fails_is_an_entry(roof, without_kernels, monkeypatch):
    module, name = {"dense": (limits, "dense"), "arithmetic": (arithmetic, "roof")}[roof]
    monkeypatch.setattr(module, name, lambda *_: 1 / 0)
    result = update.run(small_case("adam"), "cpu", rounds=2)
    assert set(result["errors"]) == {{"dense": "limit"}.get(roof, roof)}
    assert "gpuadapt" in result["times"] and failures.ours({"dense": [result]})
    assert "".join(report.lines(result)) and report.table([result], ["numpy"])
    if roof == "dense":
        assert not report.picture({"dense": [result] * 2}, Path("none"))


def test_a_peer_that_fails_to_update_rows_is_an_entry(monkeypatch):
    def fails(*_):
        raise RuntimeError("none here")

    row = peers.numpy.make_rows
    makers = {"gpuadapt": lambda *given: row("adam", *given), "torch SparseAdam": fails}
    monkeypatch.setattr(peers, "rows", lambda *_: makers)
    monkeypatch.setattr(limits, "rows", lambda *_: lambda k: None)
    result = rows.run(rows.Case("adam", 200, 16, 150), "cpu", rounds=2)
    assert set(result["times"]) == {"gpuadapt", "limit"}
    assert result["errors"] == {"torch SparseAdam": "RuntimeError: none here"}


def test_a_library_that_fails_when_asked_is_an_entry(monkeypatch):
    for peer in (peers.torch, peers.optax, peers.fbgemm):
        monkeypatch.setattr(peer, "library", lambda: None)
    monkeypatch.setattr(peers.numpy, "makers", lambda *_: 1 / 0)
    monkeypatch.setattr(peers.numpy, "row_makers", lambda *_: 1 / 0)
    for ask in (lambda errors: peers.makers("adam", "cpu", errors=errors),
                lambda errors: peers.rows("adam", "cpu", errors)):  # fmt: skip
        errors = {}
        assert "gpuadapt" in ask(errors)
        assert errors == {"numpy": "ZeroDivisionError: division by zero"}
        with pytest.raises(ZeroDivisionError):
            ask(None)


def test_a_library_that_cannot_be_imported_is_left_out_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_peer.py").write_text("raise OSError('built for another driver')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(peers.installed, "broken", {})
    assert peers.installed.load("broken_peer") is None
    assert command.setting()["notes"] == [
        "broken_peer is installed and cannot be imported: OSError: built for another driver"
    ]


def test_what_else_fails_is_an_entry_of_the_suite_overhead(monkeypatch):
    def parts(backend, quick, errors):
        def python():
            yield {"name": "a", "value": 1.0, "unit": "s"}
            with noted(errors, "torch fused"):
                raise RuntimeError("no")

        yield "steps", python()
        yield "clipping", (1 / 0 for _ in "a")
        yield "memory", iter([{"name": "b", "value": 1.0, "unit": "B"}])

    monkeypatch.setattr(overhead, "_parts", parts)
    found = list(overhead.entries("cpu", True))
    assert [report.entry(entry) for entry in found] == [
        "- a: 1000.0 ms",
        "- steps, torch fused: FAILED: RuntimeError: no",
        "- clipping, the whole case: FAILED: ZeroDivisionError: division by zero",
        "- b: 0.0 MiB",
    ]
    (own,) = failures.ours({"overhead": found})
    assert own.startswith("clipping")
    assert goals.verdicts(some_results() | {"overhead": found})


class Stopped(BaseException):
    """As by a signal: nothing that a run notes and survives."""


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    return command.main()


@pytest.fixture
def some_suites(without_kernels, monkeypatch):
    """Suites of one, two and three cases, which compile nothing."""
    for number, name in enumerate(("dense", "many", "formats"), 1):
        cases = [update.Case("adam", (10 * k,)) for k in range(1, number + 1)]
        monkeypatch.setattr(suites, name, lambda *_, cases=cases: cases)
    return without_kernels


def test_results_are_kept_case_by_case(tmp_path, some_suites, monkeypatch):
    file, run, found = tmp_path / "new" / "a.json", update.run, []

    def watched(case, *arguments, **keywords):
        found.append(len(json.loads(file.read_text())["formats"]) if file.exists() else 0)
        if len(found) == 3:
            raise Stopped
        return run(case, *arguments, **keywords)

    monkeypatch.setattr(update, "run", watched)
    with pytest.raises(Stopped):
        run_command(monkeypatch, "formats", "--quick", "--json", file)
    assert found == [0, 1, 2] and list(file.parent.iterdir()) == [file]
    # What is there already is made into a page.
    readme, page = tmp_path / "README.md", tmp_path / "docs" / "torch.md"
    page.parent.mkdir()
    for each in (readme, page):
        each.write_text(f"before {report.BEGIN} old {report.END} after")
    monkeypatch.setattr(report, "RESULTS", file.parent)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    report.main()
    assert "| adam, 20 elements |" in file.with_suffix(".md").read_text()
    assert all(each.read_text().endswith(f"{report.END} after") for each in (readme, page))


def test_a_file_is_replaced_in_one_go(tmp_path):
    file = tmp_path / "a.json"
    command.save({"a": 1}, file)
    with pytest.raises(TypeError):
        command.save({"a": object()}, file)
    assert json.loads(file.read_text()) == {"a": 1}


@pytest.mark.parametrize("how", ["candidate", "case"])
def test_a_failure_of_ours_is_said_and_the_run_goes_on(how, tmp_path, some_suites, monkeypatch,
                                                      capsys):  # fmt: skip
    right, file, run = some_suites["gpuadapt"], tmp_path / "a.json", update.run

    def first_fails(start, hyper):
        if how == "candidate" and len(start[0]) == 10:
            raise RuntimeError("not here")
        return right(start, hyper)

    def run_or_fail(case, *arguments, **keywords):
        if how == "case" and case.sizes == (10,):
            raise RuntimeError("not here")
        return run(case, *arguments, **keywords)

    some_suites["gpuadapt"] = first_fails
    monkeypatch.setattr(update, "run", run_or_fail)
    assert run_command(monkeypatch, "formats", "--quick", "--json", file) == 1
    cases = json.loads(file.read_text())["formats"]
    who = {"candidate": "gpuadapt", "case": failures.WHOLE}[how]
    assert [case.get("errors") for case in cases] == [{who: "RuntimeError: not here"}, None, None]
    assert ["gpuadapt" in case["times"] for case in cases] == [False, True, True]
    printed = capsys.readouterr().out
    assert f"FAILED: adam, 10 elements, {who}: RuntimeError: not here" in printed
    results = json.loads(file.read_text())
    page = report.page(results, None)
    assert f"- adam, 10 elements, {who}: FAILED: RuntimeError: not here" in page
    assert "| adam, 30 elements |" in page and "adam, 30 elements" in report.readme(
        [("a", results | {"dense": cases})]
    )
    some_suites |= {"gpuadapt": right, "torch fused": bad("made")}
    monkeypatch.setattr(update, "run", run)
    assert run_command(monkeypatch, "formats", "--quick") == 0


def test_suites_are_added_to_a_file(tmp_path, some_suites, monkeypatch, capsys):
    file = tmp_path / "a.json"
    for suite in ("many", "dense", "many"):
        assert run_command(monkeypatch, suite, "--quick", "--json", file, "--add") == 0
    results = json.loads(file.read_text())
    assert (len(results["many"]), len(results["dense"])) == (2, 1)
    with pytest.raises(SystemExit):
        run_command(monkeypatch, "formats", "--quick", "--add")
    assert "--add needs --json" in capsys.readouterr().err


def test_results_of_another_commit_are_kept_apart(tmp_path, capsys):
    file, now = tmp_path / "a.json", {"commit": "b", "machine": {"cores": 2}, "peers": {}}
    assert command.earlier(file, now) is now
    for number, was in enumerate(({"commit": "a"}, {"machine": {"cores": 1}}), 1):
        command.save(now | was | {"dense": [number]}, file)
        assert command.earlier(file, now) is now and not file.exists()
        assert json.loads((tmp_path / f"a-{number}.json").read_text())["dense"] == [number]
    printed = capsys.readouterr().out
    assert "commit a, and here it is b" in printed and "cores 1, and here it is 2" in printed
    command.save(now | {"dense": [3]}, file)
    assert command.earlier(file, now)["dense"] == [3]


def test_without_a_gpu_the_command_says_so(tmp_path, monkeypatch, capsys):
    from gpuadapt.errors import BackendError

    def none():
        raise BackendError("CuPy has no CUDA device here")

    monkeypatch.setattr(command, "check_device", none)
    file = tmp_path / "a.json"
    with pytest.raises(SystemExit):
        run_command(monkeypatch, "dense", "--backend", "cuda", "--json", file)
    assert "--backend cuda: CuPy has no CUDA device here" in capsys.readouterr().err
    assert not file.exists()


def test_a_file_that_cannot_be_written_shows_before_the_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for path in (Path("/proc/x/a.json"), tmp_path / "file" / "a.json", tmp_path):
        with pytest.raises(SystemExit):
            run_command(monkeypatch, "dense", "--json", path)
        *_, said = capsys.readouterr().err.splitlines()
        assert "cannot be written" in said or "no files can be written" in said
        assert said.endswith("give another by --json")
