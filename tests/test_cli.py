"""The command line, as a user calls it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import cli, compare
from gpuadapt.cli import arguments
from gpuadapt.compare import digits, grid, report, words
from gpuadapt.compare.network import initial, loss_and_gradients


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["train"], "invalid choice: 'train'"),
        (["compare", "--seeds", "0"], "--seeds: invalid positive whole number value: '0'"),
        (["compare", "--epochs", "many"], "--epochs: invalid"),
        (["compare", "--backend", "tpu"], "invalid choice: 'tpu'"),
        (["compare", "--fast"], "unrecognized arguments: --fast"),
        (["compare", "--output", "/dev/null/x"], "/dev/null"),
        (["compare", "--task", "letters"], "--task: invalid choice: 'letters'"),
        (
            ["compare", "--task", "digits", "--corpus", "x"],
            "--corpus: not an option of --task digi",
        ),
        (["compare", "--task", "words", "--seeds", "2"], "--seeds: not an option of --task words"),
        (["compare", "--task", "words", "--epochs", "2"], "--epochs: not an option of --task word"),
        (["compare", "--formats", "--task", "words", "--epochs", "2"], "--epochs: not an option"),
        (["compare", "--formats", "--task", "digits", "--corpus", "x"], "--corpus: not an option"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_cuda_asked_for_where_there_is_none(monkeypatch, capsys):
    def none():
        raise ga.BackendError("CuPy has no CUDA device here")

    monkeypatch.setattr(arguments, "check_device", none)
    assert cli.main(["compare", "--backend", "cuda"]) == 2
    assert capsys.readouterr().err == "gpuadapt compare: CuPy has no CUDA device here\n"
    assert arguments.choose_backend("auto") == "cpu"
