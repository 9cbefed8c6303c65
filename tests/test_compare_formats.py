"""`compare --formats`: what is trained, what is measured, and what it leaves."""

import json

import ml_dtypes
import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import cli
from gpuadapt.compare import digits, formats, formats_report
from gpuadapt.hyperparameters import SETTINGS


def only(monkeypatch, *names):
    monkeypatch.setattr(formats, "FORMATS", {name: formats.FORMATS[name] for name in names})


def test_formats_are_settings():
    for name, (kind, settings) in formats.FORMATS.items():
        assert set(settings) <= set(SETTINGS)
        parameters = formats.rounded({"w": np.ones((8, 16), np.float32)}, kind, "cpu")
        ga.Adam(parameters, lr=0.1, **settings)
        assert parameters["w"].dtype.name == kind, name
    assert formats.FORMATS[formats.EXACT] == ("float32", {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("float32", 12),
        ("bfloat16 state", 8),
        ("8-bit state", 6 + 2 * 4 / 64),
        ("bfloat16, nearest", 6),
        ("bfloat16, kahan", 8),
        ("bfloat16, split", 8),
        ("float16, master", 10),
        ("8-bit, bfloat16 stochastic", 4 + 2 * 4 / 64),
    ],
)
def test_bytes_per_parameter(name, expected):
    kind, settings = formats.FORMATS[name]
    tables = {key: np.zeros((30, 64), np.float32) for key in ("centre", "context")}
    parameters = formats.rounded(tables, kind, "cpu")
    optimizer = ga.Adam(parameters, lr=0.1, **settings)
    assert formats.bytes_per_parameter(optimizer, parameters) == expected


def test_the_same_numbers_on_a_gpu(host):
    """There bfloat16 are their bits, read by name or by rows."""
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    arrays = formats.rounded({"w": values}, "bfloat16", "cuda")
    assert arrays["w"].dtype == np.uint16
    assert np.array_equal(formats.Widened(arrays)["w"].get(), expected)
    assert np.array_equal(formats.Widened(arrays["w"])[1:3].get(), expected[1:3])


def test_digits(tmp_path, monkeypatch, capsys):
    """As a user calls it, with less work."""
    names = ("float32", "bfloat16, nearest", "bfloat16, stochastic")
    only(monkeypatch, *names)
    given = ["--task", "digits", "--seeds", "2", "--epochs", "1", "--backend", "cpu"]
    assert cli.main(["compare", "--formats", *given, "--output", str(tmp_path)]) == 0
    printed, log = capsys.readouterr()
    first, *lines = log.splitlines()
    assert first.startswith("formats, digits, 2 seeds, ") and len(lines) == 2 * len(names)
    assert all(": digits: " in line and line.endswith(" has ended") for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["formats.json", "formats.png"]
    picture = (tmp_path / "formats.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    content = json.loads((tmp_path / "formats.json").read_text())
    assert list(content["formats"]) == list(names)
    assert [(run["format"], run["seed"]) for run in content["runs"]] == [
        (name, seed) for name in names for seed in (0, 1)
    ]
    rows = content["summary"]["digits"]
    assert list(content["summary"]) == ["digits"] and [row["format"] for row in rows] == list(names)
    for row in rows:
        own = [run for run in content["runs"] if run["format"] == row["format"]]
        assert row["loss"] == pytest.approx(np.mean([run["loss"] for run in own]))
        assert 0.2 < row["accuracy"] < 1 and row["loss"] < np.log(10)
        assert row["difference"] == pytest.approx(row["loss"] / rows[0]["loss"] - 1)
        assert row["format"] in printed and f"{row['loss']:.4f}" in printed
    assert [row["bytes"] for row in rows] == [12, 6, 6]


def test_words(tmp_path, monkeypatch, capsys):
    only(monkeypatch, "float32", "bfloat16, split")
    monkeypatch.setattr(formats, "STEPS", 20)
    source = tmp_path / "a.txt"
    source.write_text(" ".join(f"word{i % 97}" for i in range(30_000)))
    given = ["--task", "words", "--seeds", "1", "--backend", "cpu", "--corpus", str(source)]
    assert cli.main(["compare", "--formats", *given, "--output", str(tmp_path / "results")]) == 0
    content = json.loads((tmp_path / "results" / "formats.json").read_text())
    exact, split = content["summary"]["words"]
    assert exact["loss"] < 6 * np.log(2) and "accuracy" not in exact
    assert split["bytes"] == 8 and abs(split["difference"]) < 0.01
    assert "bfloat16, split" in capsys.readouterr().out


def test_too_little_text_shows_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, "load", lambda: pytest.fail("trained"))
    (tmp_path / "a.txt").write_text("few words")
    given = ["--corpus", str(tmp_path / "a.txt"), "--output", str(tmp_path), "--backend", "cpu"]
    assert cli.main(["compare", "--formats", *given]) == 2
    assert "too little text" in capsys.readouterr().err


def test_a_format_that_diverges_is_shown(tmp_path):
    losses = {"float32": (0.1, 0.2), "wild": (np.inf, 7e30), "lost": (np.nan, np.nan)}
    runs = [
        formats.Run("words", name, seed, 8.0, loss)
        for name, both in losses.items()
        for seed, loss in enumerate(both)
    ]
    rows = formats_report.summary(runs)
    formats_report.print_table(rows, "words")
    formats_report.draw(tmp_path / "formats.png", {"words": rows})
    assert (tmp_path / "formats.png").stat().st_size > 10_000
