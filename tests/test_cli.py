"""The command line, as a user calls it."""

import argparse
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import cli, compare, progress
from gpuadapt.cli import arguments, info
from gpuadapt.compare import digits, grid, report, words
from gpuadapt.compare.network import initial, loss_and_gradients
from gpuadapt.output_files import prepared_file


def run(*arguments, cwd=None):
    script = "import sys; from gpuadapt.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_compare_digits(tmp_path):
    given = ("--task", "digits", "--seeds", "2", "--epochs", "3", "--backend", "cpu")
    result = run("compare", *given, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for method in digits.METHODS:
        assert method in result.stdout
    first, *lines = result.stderr.splitlines()
    assert first.startswith("digits, 2 seeds, ")
    assert sum(", seed " in line for line in lines) == 2 * len(digits.METHODS)
    assert "100 %" in lines[-1] and ": grid, " in lines[-1]
    for name in ("curves.png", "grid.png"):
        picture = (tmp_path / "compare-results" / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
        assert name in result.stdout
    content = json.loads((tmp_path / "compare-results" / "results.json").read_text())
    assert {row["method"] for row in content["summary"]} == set(digits.METHODS)
    assert len(content["runs"]) == 2 * len(digits.METHODS)
    assert {trial["method"] for trial in content["grid"]["trials"]} == set(grid.METHODS)
    for row in content["summary"]:
        assert row["accuracy"] > 0.5 and 0 < row["share"] < 1
    for run_ in content["runs"]:
        assert run_["loss"][-1] < run_["loss"][0]
        assert len(run_["steps"]) == len(run_["rates"]) == len(run_["accuracy"])
        assert run_["steps"][-1] == run_["total_steps"]


def test_compare_does_both_tasks(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(compare, "load", lambda path: done.append(path) or "text")
    monkeypatch.setattr(compare, "compare_digits", lambda *given: done.append(given))
    monkeypatch.setattr(compare, "compare_words", lambda *given: done.append(given))
    assert cli.main(["compare", "--backend", "cpu", "--output", str(tmp_path)]) == 0
    assert done == [
        None,
        ("cpu", 3, 40, tmp_path),
        ("cpu", "text", tmp_path, words.STEPS),
    ]


def test_formats_of_one_task_with_its_seeds(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(compare, "compare_formats", lambda *given: done.append(given))
    given = ["--task", "words", "--seeds", "2", "--backend", "cpu", "--output", str(tmp_path)]
    assert cli.main(["compare", "--formats", *given]) == 0
    assert done == [(("words",), "cpu", 2, 40, None, tmp_path)]


def test_every_method_learns_and_every_run_repeats():
    data = digits.load()
    for method in digits.METHODS:
        one, two = (digits.train(method, 0, 10, data, "cpu", lambda n: None) for _ in range(2))
        assert one.accuracy[-1] > 0.9, method
        assert one.loss == two.loss
        assert np.diff(one.rates, axis=1).min() >= 0


def test_gradients_of_the_network():
    """Against differences, in float64."""
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(6, 5)), np.array([0, 1, 2, 2, 1, 0])
    weights = {k: a.astype(float) for k, a in initial(np, 0, 5, 4, 3).items()}
    _, gradients = loss_and_gradients(np, weights, x, labels)
    for name, array in weights.items():
        for index in np.ndindex(array.shape):
            before = array[index]
            ends = []
            for step in (1e-6, -1e-6):
                array[index] = before + step
                ends.append(loss_and_gradients(np, weights, x, labels)[0])
            array[index] = before
            assert abs((ends[0] - ends[1]) / 2e-6 - gradients[name][index]) < 1e-7


def test_colours_cover_the_methods():
    assert set(report.COLOURS) == set(digits.METHODS) == set(words.METHODS)


def test_info():
    result = run("info")
    assert result.returncode == 0, result.stderr
    for key in ("gpuadapt", "numpy", "numba", "threads", "threading layer", "cache", "backends"):
        assert any(line.startswith(key) for line in result.stdout.splitlines()), key


def help_of(*arguments):
    result = run(*arguments)
    assert result.returncode == 0 and not result.stderr
    return result.stdout


def test_a_bare_call_shows_the_commands():
    shown = help_of()
    assert shown == help_of("--help")
    for name, module in cli.COMMANDS.items():
        assert re.search(rf"^ +{name}\s+{module.HELP.split()[0]} ", shown, re.MULTILINE)


def test_version(tmp_path):
    assert help_of("--version") == f"gpuadapt {ga.__version__}\n"
    given = [sys.executable, "-m", "gpuadapt", "--version"]
    result = subprocess.run(given, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == f"gpuadapt {ga.__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_says_what_it_does_and_its_default(name):
    """A flag is off, and what has no default is needed."""
    parser = argparse.ArgumentParser()
    module = cli.COMMANDS[name]
    module.add_arguments(parser)
    assert name in help_of(name, "--help").splitlines()[0]
    for action in parser._actions:
        where = name, action.dest
        assert action.help and len(action.help.split()) >= 3, where
        if action.nargs == 0 or action.required:
            continue
        shown = action.help % {**vars(action), "prog": ""}
        assert re.search(r"\(default: [^)]+\)", shown), where
        if action.default not in (None, argparse.SUPPRESS, []):
            assert f"(default: {action.default}" in shown, where


WRONG = [
    (["train"], "there is no command 'train'; the commands are"),
    (["comprae"], "did you mean compare? there is no command 'comprae'"),
    (["--versoin"], "did you mean --version? there is no option --versoin"),
    (["compare", "--seeds", "0"], "--seeds: invalid positive whole number value: '0'"),
    (["compare", "--epochs", "many"], "--epochs: invalid"),
    (["compare", "--backend", "tpu"], "invalid choice: 'tpu'"),
    (["compare", "--fast"], "gpuadapt compare: there is no option --fast"),
    (["compare", "--formts"], "did you mean --formats? there is no option --formts"),
    (["compare", "--out=x"], "did you mean --output? there is no option --out"),
    (["compare", "digits"], "unexpected argument 'digits'"),
    (["info", "--seeds", "3"], "gpuadapt info: there is no option --seeds"),
    (["compare", "--task", "letters"], "--task: invalid choice: 'letters'"),
    (["compare", "--task", "digits", "--corpus", "x"], "--corpus: not an option of --task digi"),
    (["compare", "--task", "words", "--seeds", "2"], "--seeds: not an option of --task words"),
    (["compare", "--task", "words", "--epochs", "2"], "--epochs: not an option of --task word"),
    (["compare", "--formats", "--task", "words", "--epochs", "2"], "--epochs: not an option"),
    (["compare", "--formats", "--task", "digits", "--corpus", "x"], "--corpus: not an option"),
    (["compare", "--corpus", "/nowhere"], "no such file or folder: /nowhere; --corpus takes"),
]


def refused(status, written, message):
    assert status == 2 and message in written.err and not written.out
    assert written.err.startswith("gpuadapt") and written.err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments_are_one_line_and_status_2(arguments, message, capsys):
    refused(cli.main(arguments), capsys.readouterr(), message)


@pytest.mark.parametrize("formats_too", [[], ["--formats"]])
@pytest.mark.parametrize("package", compare.NEEDS)
def test_a_package_of_the_extra_is_missing(package, formats_too, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    status = cli.main(["compare", "--backend", "cpu", *formats_too])
    message = f"compare needs {compare.NEEDS[package]}: pip install 'gpuadapt[compare]'"
    refused(status, capsys.readouterr(), message)


def not_writable(tmp_path):
    """Folders that cannot be made or written to, whoever the user is."""
    (tmp_path / "file").write_text("")
    yield tmp_path / "file", "file is a file"
    yield tmp_path / "file" / "inside", "file is a file"
    yield Path("/proc/x"), "/proc takes no new folder ("
    yield Path("/sys"), "the folder /sys: "
    yield Path("/dev/null/x"), "/dev/null is a file"


@pytest.mark.parametrize("formats_too", [[], ["--formats"]])
def test_a_folder_that_cannot_be_written(formats_too, tmp_path, monkeypatch, capsys):
    """It shows before the work."""
    monkeypatch.setattr(digits, "load", lambda: pytest.fail("trained"))
    for folder, message in not_writable(tmp_path):
        given = ["--task", "digits", "--backend", "cpu", "--output", str(folder), *formats_too]
        status = cli.main(["compare", *given])
        written = capsys.readouterr()
        refused(status, written, message)
        assert "give another by --output" in written.err


def test_a_file_that_cannot_be_written(tmp_path):
    for folder, message in not_writable(tmp_path):
        with pytest.raises(ga.Error, match=re.escape(message)):
            prepared_file(folder / "x.json", "--json")
    with pytest.raises(ga.Error, match="it is a folder; give another by --json"):
        prepared_file(tmp_path, "--json")
    there = tmp_path / "there.json"
    there.write_text("kept")
    assert prepared_file(there, "--json").read_text() == "kept"
    new = prepared_file(tmp_path / "a" / "b.json", "--json")
    assert new.parent.is_dir() and not new.exists()


def test_an_interrupt_is_one_line(tmp_path):
    # A shell lets what it starts in the background ignore Ctrl-C, and so the tests and this.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from gpuadapt.cli import main; sys.exit(main())"
    )
    given = ["compare", "--task", "digits", "--backend", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *given], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        first = process.stderr.readline()
        assert first.startswith("digits, 3 seeds, ")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "gpuadapt compare: interrupted" and "Traceback" not in rest


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BrokenPipeError(), 141, ""),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_an_output_that_takes_nothing(error, status, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Broken(error))
    assert cli.main(["info"]) == status
    written = capsys.readouterr().err
    assert said in written and written.count("\n") == bool(said)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_is_closed(unbuffered):
    """The interpreter's end says nothing either."""
    script = "import sys; from gpuadapt.cli import main; sys.exit(main(['info']))"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    read, write = os.pipe()
    os.close(read)
    given = [sys.executable, "-c", script]
    result = subprocess.run(given, stdout=write, stderr=subprocess.PIPE, env=environment)
    os.close(write)
    assert result.returncode == 141 and not result.stderr


def test_characters_that_the_output_lacks(monkeypatch):
    monkeypatch.setattr(info, "run", lambda given: print("5 µs ± 1") or 0)
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["info"]) == 0
    assert stream.buffer.getvalue().split() == rb"5 \xb5s \xb1 1".split()
    assert stream.errors == "strict"


def test_progress_in_a_log(monkeypatch, capsys):
    def lines():
        return capsys.readouterr().err.splitlines()

    before = threading.active_count()
    with progress.shown("digits, 3 seeds", 10) as advance:
        assert lines() == ["digits, 3 seeds; in the first steps kernels are compiled"]
        advance(2, "SGD")
        advance(3, "SGD", "5 words/s")
        assert lines() == []
        advance(0, "SGD", ended=True)
        assert re.fullmatch(r"digits: 50 %, \d+ s: SGD has ended", *lines())
        advance(5, "Adam", ended=True)
        assert re.fullmatch(r"digits: 100 %, \d+ s: Adam has ended", *lines())
    assert lines() == [] and threading.active_count() == before


def test_progress_of_long_work(monkeypatch, capsys):
    """What says nothing by itself is seen to go on."""
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    with progress.shown("words", 10) as advance:
        time.sleep(0.4)
        advance(1, "SGD")
        time.sleep(0.4)
        advance(9, "SGD", ended=True)
    _, *lines = (line.split(": ")[2:] for line in capsys.readouterr().err.splitlines()[1:])
    assert {*map(tuple, lines[:-1])} == {("the first run goes on",), ("SGD goes on",)}
    assert lines.count(["SGD goes on"]) > 3 and lines[-1] == ["SGD has ended"]


def test_a_failure_ends_the_progress(capsys):
    before = threading.active_count()
    with contextlib.suppress(KeyError), progress.shown("words", 10):
        raise KeyError
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert threading.active_count() == before


def test_progress_in_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.shown("digits, 3 seeds", 10) as advance:
        advance(2, "SGD", "17 words/s")
    shown = sys.stderr.getvalue()
    assert "SGD" in shown and "17 words/s" in shown and "\x1b" in shown


def test_cuda_asked_for_where_there_is_none(monkeypatch, capsys):
    def none():
        raise ga.BackendError("CuPy has no CUDA device here")

    monkeypatch.setattr(arguments, "check_device", none)
    assert cli.main(["compare", "--backend", "cuda"]) == 2
    said = "--backend cuda: CuPy has no CUDA device here; --backend cpu needs no GPU"
    assert capsys.readouterr().err == f"gpuadapt compare: {said}\n"
    assert arguments.choose_backend("auto") == "cpu"
