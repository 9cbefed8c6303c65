"""`benchmarks/gpu.sh` and what it uses, without a GPU: stages, limits, what is installed."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

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
    *"benchmarks methods"*) sleep 30 ;;
    *pytest*) echo "tests/test_x.py::test_y" >>"$GPUADAPT_PASSED/passed.txt" ;;
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
    own = (
        "QUICK",
        "DRY",
        "LIMIT",
        "GPU",
        "MINUTES",
        "GPUADAPT_PASSED",
    )  # this test may run in a stage of the script
    around = {name: value for name, value in os.environ.items() if name not in own}
    # Neither compute-sanitizer nor ncu, wherever this test runs.
    around["PATH"] = os.pathsep.join(
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not any((Path(folder) / name).exists() for name in ("compute-sanitizer", "ncu"))
    )

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
    return {line[0]: int(line[2]) for line in lines if line[1] == "exit"}


def test_a_stage_that_fails_or_takes_too_long_does_not_stop_the_others(script, tmp_path):
    out = tmp_path / "out"
    result, log = script("speed", out, "--quick", "methods", "rows", "host", LIMIT=1, GPU=1)
    assert exits(result) == {"methods": 124, "rows": 0, "host": 0}
    assert result.returncode == 1
    assert "STOPPED after its 1 s" in result.stdout
    assert (out / "summary.txt").read_text().endswith(result.stdout.splitlines()[-1] + "\n")
    assert {file.stem for file in out.iterdir()} == {"summary", "done", *exits(result)}
    assert f"benchmarks rows --quick --backend cuda --missing --json {out}/cuda.json" in log
    assert log.count("wheels.py") == 1  # what is installed stays


def test_a_second_call_goes_on_with_what_is_missing(script, tmp_path):
    out, wheels = tmp_path / "out", tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "commit").write_text("one\n")
    result, _ = script("check", out, GPU=1)
    codes = exits(result)
    assert list(codes) == ["machine", "install", "smoke", "compile", "tests", "sanitizer"]
    assert {name for name, code in codes.items() if code == 0} == {"install", "compile", "tests"}
    assert codes["sanitizer"] == 4 and "not installed" in result.stdout
    result, log = script("check", out, GPU=1)
    assert list(exits(result)) == ["machine", "smoke", "sanitizer"]
    assert "tests has succeeded before" in result.stdout and "wheels.py" not in log
    result, log = script("check", out, "tests", GPU=1)  # a stage that is named runs
    assert list(exits(result)) == ["tests"]
    assert "1 tests have passed before" in (out / "tests.txt").read_text()
    (wheels / "commit").write_text("two\n")  # another commit: everything, with its own wheel
    result, log = script("check", out, "smoke", "tests", GPU=1)
    assert "0 tests have passed before" in (out / "tests.txt").read_text()
    assert log.count("wheels.py") == 1


def test_python_runs_where_the_checkout_does_not_hide_what_is_installed(script, tmp_path):
    result, log = script("check", tmp_path / "out", "tests", "compile", GPU=1)
    assert exits(result) == {"tests": 0, "compile": 0}
    copy = tmp_path / "work" / "copy"
    for line in log.splitlines():
        if "-m pytest" in line or "-m benchmarks" in line:
            assert line.startswith(f"{copy}: ")
    assert (copy / "tests" / "reference.py").exists() and not (copy / "gpuadapt").exists()
    # pytest-xdist is not there, and gpuadapt compare's packages are not.
    (tests,) = (line for line in log.splitlines() if "-m pytest" in line)
    assert " -n " not in tests and "-k gpu" in tests and "tests/test_cli.py" in tests
    assert "-p benchmarks.passed_tests" in tests
    install = f"--no-index --no-deps --no-compile --disable-pip-version-check --target {copy}"
    assert install.replace("/copy", "/site") in log


@pytest.mark.parametrize("dry", ["", "1"])
def test_without_a_gpu_a_stage_fails_and_says_so(script, tmp_path, dry):
    out = tmp_path / "out"
    result, log = script("check", out, "tests", "compile", DRY=dry)
    assert exits(result) == {"tests": 3, "compile": 3}
    assert result.stdout.count("exit   3") == result.stdout.count("NO GPU  ") == 2
    assert ("-k gpu" in log) == ("benchmarks.compiled --dry" in log) == bool(dry)
    result, log = script("tune", out, DRY=dry)
    assert exits(result) == {"tune": 3}
    assert ("benchmarks.tune --dry --minutes 5" in log) == bool(dry)
    result, log = script("suites", out, "dense", "others", DRY=dry)
    assert exits(result) == {"dense": 3, "others": 0}
    assert ("benchmarks dense --backend cpu" in log) == bool(dry)
    assert "--backend cuda" not in log


def test_what_can_be_asked_for(script, tmp_path):
    for wrong in ((), ("nothing",)):
        result, _ = script(*wrong)
        assert result.returncode == 2 and "gpu.sh speed OUT [--quick]" in result.stdout
    result, log = script("speed", tmp_path / "out", "rows", "nothing")
    assert result.returncode == 2 and not log
    assert "speed has no stage that is called nothing: roofs methods" in result.stderr
    result, _ = script("suites", tmp_path / "out")
    assert result.returncode == 2 and "name one of them" in result.stderr
    result, _ = script("tune")
    assert result.returncode == 2 and "tune: name the folder" in result.stderr
    result, log = script("needs")
    assert result.returncode == 0 and log.rstrip().endswith("benchmarks/wheels.py")
    result, log = script("report", tmp_path / "out")
    assert result.returncode == 0 and f"-m benchmarks.decisions {tmp_path}/out" in log


def test_a_piece_takes_less_than_nine_minutes():
    text = SCRIPT.read_text()
    limits = text[text.index("limit_of()") : text.index("commit()")]
    own = int(re.search(r"own=(\d+)\n", limits)[1])
    by_stage = {
        name: int(seconds)
        for names, seconds in re.findall(r"^ +([\w |]+)\) own=(\d+) ;;", limits, re.MULTILINE)
        for name in names.split(" | ")
    }
    pieces = dict(re.findall(r'^(CHECK|SPEED|SUITES)="(.*)"$', text, re.MULTILINE))
    for piece, stages in pieces.items():
        seconds = [by_stage.get(name, own) for name in stages.split()]
        assert (max if piece == "SUITES" else sum)(seconds) < 540, piece
    assert by_stage["tune"] < 540 and set(by_stage) <= {"tune", *" ".join(pieces.values()).split()}


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
    with pytest.raises(FileNotFoundError, match=r"has 0 wheels of gpuadapt.*gpu.sh needs"):
        list(wheels.needed(tmp_path))
    done = subprocess.run([sys.executable, wheels.__file__, tmp_path], capture_output=True)
    assert done.returncode == 1 and b"gpu.sh needs" in done.stderr


def test_what_a_machine_lacks(monkeypatch):
    versions = {"numpy": "2.0", "cupy-cuda13x": "14.1", "torch": None}
    missing = wheels.importlib.metadata.PackageNotFoundError

    def version(name):
        if versions.get(name) is None:
            raise missing(name)
        return versions[name]

    monkeypatch.setattr(wheels.importlib.metadata, "version", version)
    lines = wheels.lacking()
    assert {"numpy 2.0", "cupy 14.1"} <= set(lines)
    assert "torch: missing: it is left out of the comparison" in lines
    assert "pytest: missing, which the command below fetches" in lines
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert lines[-1].endswith(f"needs wheels --python-version {here} numba llvmlite")
    versions.pop("cupy-cuda13x")
    assert wheels.lacking()[-1].endswith("cupy-cuda12x cuda-pathfinder fastrlock")


# What has passed before


def test_tests_that_have_passed_are_left_out(tmp_path):
    """In several processes too; a name that begins like another is not taken for it."""
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_one(): pass\n"
        "def test_one_more(): pass\n"
        "@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_two(x): assert x == 1\n"
    )
    folder = tmp_path / "passed"
    folder.mkdir()
    (folder / "before.txt").write_text("test_some.py::test_one\n")
    command = [sys.executable, "-m", "pytest", "-p", "benchmarks.passed_tests", "-n", "2", "-q"]
    # This test may run in a process of pytest-xdist itself.
    around = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "test_some.py"],
        cwd=tmp_path,
        env=around | {"GPUADAPT_PASSED": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    passed = (folder / "passed.txt").read_text().split()
    assert sorted(passed) == ["test_some.py::test_one_more", "test_some.py::test_two[1]"]


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
    out = capsys.readouterr().out
    assert "Adam, 5: 15 numbers DIFFER" in out
    first = re.search(r"step 1, parameter, element 0: (\w{8}) on the CPU, (\w{8}) on the GPU", out)
    assert int(first[2], 16) - int(first[1], 16) == 1

    def at_times(where, shape, rows, steps=3):
        return [bits + (where == "cuda" and next(times)) for bits in trained(where, shape, rows)]

    times = iter([1, *[0] * 1_000])
    monkeypatch.setattr(smoke, "trained", at_times)
    assert smoke.main() == 1 and "not the second time" in capsys.readouterr().out


def test_the_smoke_test_needs_a_gpu(monkeypatch):
    def none():
        raise ga.errors.BackendError("none")

    monkeypatch.setattr(smoke, "check_device", none)
    with pytest.raises(ga.errors.BackendError):
        smoke.main()
