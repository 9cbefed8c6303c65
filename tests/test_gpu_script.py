"""`benchmarks/gpu.sh` and what it uses, without a GPU: stages, limits, what is installed."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from test_benchmarks import ROOT

import gpuadapt as ga
from benchmarks import smoke, wheels

SCRIPT = ROOT / "benchmarks" / "gpu.sh"

STUB = """#!/usr/bin/env bash
# In Python's place: what it is asked for, and how that ends.
echo "$PWD: $*" >>"$STUB_LOG"
case "$*" in
    "-c import "*) exit 1 ;; # no package is there
    -) cat >/dev/null; [ -n "${GPU:-}" ] || { echo "NO GPU"; exit 1; } ;;
    *wheels.py*) echo "$WHEELS/gpuadapt-0-py3-none-any.whl" ;;
    *smoke*) exit 1 ;;
    *"benchmarks many"*) sleep 30 ;;
esac
"""


@pytest.fixture
def script(tmp_path):
    """Runs the script with a stub for Python; returns how it ended, and what Python was given."""
    if os.name != "posix" or shutil.which("timeout") is None:
        pytest.skip("the script is for Linux")
    stub, log = tmp_path / "python", tmp_path / "log"
    stub.write_text(STUB)
    stub.chmod(0o755)
    own = ("QUICK", "DRY", "LIMIT", "GPU")  # this test may run in a stage of the script
    around = {name: value for name, value in os.environ.items() if name not in own}

    def run(*arguments, **environment):
        log.write_text("")
        given = {"PYTHON": stub, "STUB_LOG": log, "WORK": tmp_path / "work", **environment}
        given.setdefault("WHEELS", tmp_path / "wheels")
        result = subprocess.run(
            ["bash", str(SCRIPT), *map(str, arguments)],
            env=around | {name: str(value) for name, value in given.items()},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return result, log.read_text()

    return run


def exits(result):
    """Stage to exit code, of the lines that it printed."""
    lines = [line.split() for line in result.stdout.splitlines() if not line.startswith(" ")]
    return {line[0]: int(line[2]) for line in lines}


def test_a_stage_that_fails_or_takes_too_long_does_not_stop_the_others(script, tmp_path):
    out = tmp_path / "out"
    result, log = script(out, "--quick", "smoke", "many", "rows", "others", LIMIT=1, GPU=1)
    assert exits(result) == {"smoke": 1, "many": 124, "rows": 0, "others": 0}
    assert result.returncode == 1
    assert "STOPPED after its 1 s" in result.stdout
    assert (out / "summary.txt").read_text().endswith(result.stdout.splitlines()[-1] + "\n")
    assert {file.stem for file in out.iterdir()} == {"summary", *exits(result)}
    assert f"benchmarks rows --quick --backend cuda --add --json {out}/cuda.json" in log
    assert log.count("wheels.py") == 1  # what is installed stays


def test_python_runs_where_the_checkout_does_not_hide_what_is_installed(script, tmp_path):
    result, log = script(tmp_path / "out", "tests", "rows", GPU=1)
    assert exits(result) == {"tests": 0, "rows": 0}
    copy = tmp_path / "work" / "copy"
    for line in log.splitlines():
        if "-m pytest" in line or "-m benchmarks" in line:
            assert line.startswith(f"{copy}: ")
    assert (copy / "tests" / "reference.py").exists() and not (copy / "gpuadapt").exists()
    # pytest-xdist is not there, and gpuadapt compare's packages are not.
    (tests,) = (line for line in log.splitlines() if "-m pytest" in line)
    assert " -n " not in tests and "-k gpu" in tests and "tests/test_cli.py" in tests
    install = f"--no-index --no-deps --no-compile --disable-pip-version-check --target {copy}"
    assert install.replace("/copy", "/site") in log


@pytest.mark.parametrize("dry", ["", "1"])
def test_without_a_gpu_a_stage_fails_and_says_so(script, tmp_path, dry):
    result, log = script(tmp_path / "out", "tests", "rows", "others", DRY=dry)
    assert exits(result) == {"tests": 3, "rows": 3, "others": 0}
    assert result.stdout.count("exit   3") == result.stdout.count("NO GPU  ") == 2
    assert ("-k gpu" in log) == ("benchmarks rows --backend cpu" in log) == bool(dry)
    assert "--backend cuda" not in log


def test_what_can_be_asked_for(script, tmp_path):
    result, _ = script()
    assert result.returncode == 2 and "gpu.sh OUT [--quick] [STAGE...]" in result.stdout
    result, log = script(tmp_path / "out", "rows", "nothing")
    assert result.returncode == 2 and not log
    assert "no stage is called nothing: machine install smoke" in result.stderr
    result, _ = script("prepare")
    assert result.returncode == 2 and "name the folder" in result.stderr


def test_what_loops_over_backends_is_selected():
    """By `ON_GPU`; pytest's -k has to know it by its name."""
    words = re.search(r'^ON_GPU="(.*)"$', SCRIPT.read_text(), re.MULTILINE)[1].split(" or ")
    assert "gpu" in words
    looping = [
        function.name
        for file in (ROOT / "tests").glob("test_*.py")
        for function in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(function, ast.FunctionDef)
        and any(
            isinstance(loop, ast.For) and "BACKENDS" in ast.unparse(loop.iter)
            for loop in ast.walk(function)
        )
    ]
    assert len(looping) >= len(words) - 1
    for name in looping:
        assert any(word in name for word in words), name


# Wheels


def wheel(folder, name, version, *needs):
    """A file that is a wheel as far as `benchmarks.wheels` looks."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        file.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines))
    return path


def test_the_wheels_that_a_machine_needs(tmp_path):
    kept = [
        wheel(tmp_path, "gpuadapt", "0.1.0", "numpy>=1.26", 'pytest>=999.1; extra == "test"'),
        wheel(tmp_path, "not-there", "1.0"),
        wheel(tmp_path, "pytest", "999.1"),
    ]
    wheel(tmp_path, "numpy", "999.0")
    assert list(wheels.needed(tmp_path)) == kept
    done = subprocess.run(
        [sys.executable, wheels.__file__, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(map(str, kept))


def test_without_gpuadapts_wheel_it_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has 0 wheels of gpuadapt.*gpu.sh prepare"):
        list(wheels.needed(tmp_path))
    done = subprocess.run([sys.executable, wheels.__file__, tmp_path], capture_output=True)
    assert done.returncode == 1 and b"gpu.sh prepare" in done.stderr


# The first thing to run


def test_the_smoke_test_compares_bits(host, monkeypatch, capsys):
    monkeypatch.setattr(smoke, "SHAPES", ((5,), (40, 3)))
    assert smoke.main() == 0
    assert capsys.readouterr().out.count("the same bits") == 3
    trained = smoke.trained
    monkeypatch.setattr(
        smoke, "trained", lambda where, *of: [b + (where == "cuda") for b in trained(where, *of)]
    )
    assert smoke.main() == 1
    assert "Adam, 5: 15 numbers DIFFER" in capsys.readouterr().out


def test_the_smoke_test_needs_a_gpu(monkeypatch):
    def none():
        raise ga.errors.BackendError("none")

    monkeypatch.setattr(smoke, "check_device", none)
    with pytest.raises(ga.errors.BackendError):
        smoke.main()
