"""Zeiler's claim, measured: Adadelta's settings matter little, a learning rate matters much."""

import json

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt.compare import compare_digits, digits, grid, report


@pytest.fixture(scope="module")
def trials():
    return grid.train(grid.EPOCHS, digits.load(), "cpu", lambda method, steps: None)


def test_adadelta_does_well_with_all_settings(trials):
    errors = {
        (trial.settings["rho"], trial.settings["eps"]): trial.error
        for trial in trials
        if trial.method == "Adadelta"
    }
    assert set(errors) == {(rho, eps) for rho in grid.RHO for eps in grid.EPS}
    assert len(errors) == 12 and max(errors.values()) < 0.08, errors


@pytest.mark.parametrize("method", ["SGD", "momentum", "Adagrad"])
def test_the_others_do_well_and_not_at_all(trials, method):
    errors = {trial.settings["lr"]: trial.error for trial in trials if trial.method == method}
    assert tuple(errors) == grid.RATES
    assert min(errors.values()) < 0.04 and max(errors.values()) > 0.85, errors


def test_numbers_that_overflow_count_as_guessing():
    data = digits.load()
    zeros = 1 - (data[3] == 0).mean()
    # The caller's settings are neither followed nor changed.
    with np.errstate(over="raise", invalid="raise"):
        before = np.geterr()
        assert grid.final_error(ga.SGD, {"lr": 1e38}, 1, data, "cpu") == zeros
        assert np.geterr() == before


def test_the_summary_says_what_was_tried(trials):
    rows = {row["method"]: row for row in grid.summary(trials)}
    assert set(rows) == set(grid.METHODS) <= set(report.COLOURS)
    assert rows["momentum"]["settings"] == "lr 0.0001 to 10, momentum 0.9"
    assert rows["Adadelta"]["settings"] == "rho 0.9 to 0.99, eps 1e-08 to 0.01"
    assert [row["trials"] for row in rows.values()] == [6, 6, 6, 12]
    for row in rows.values():
        assert row["best"] < row["worst"]


def test_compare_leaves_picture_numbers_and_table(tmp_path, capsys):
    compare_digits("cpu", seeds=1, epochs=1, output=tmp_path)
    picture = (tmp_path / "grid.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    content = json.loads((tmp_path / "results.json").read_text())["grid"]
    assert (content["seed"], content["epochs"], content["steps"]) == (0, 1, 21)
    tried = [(trial["method"], trial["settings"]) for trial in content["trials"]]
    assert tried == grid.SETTINGS
    assert all(0 < trial["error"] < 1 for trial in content["trials"])
    printed = capsys.readouterr().out
    for row in content["summary"]:
        own = [t["error"] for t in content["trials"] if t["method"] == row["method"]]
        assert (row["best"], row["worst"]) == (min(own), max(own))
        assert f"{row['best'] * 100:.1f}" in printed and f"{row['worst'] * 100:.1f}" in printed
