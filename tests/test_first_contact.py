"""What runs first on a GPU, and how it is read: on the stand-in, and on made-up results."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import DEVICE
from cuda_source import architectures
from formats_table import PARAMETERS, STATES
from test_benchmarks import (
    candidates,
    command,
    draws,
    report,
    rows,
    some_results,
    suites,
    timing,
    update,
)

import gpuadapt as ga
from benchmarks import (
    compiled,
    decisions,
    every_kernel,
    failures,
    host_time,
    launches,
    peers,
    roofs,
    saved,
    tune,
)
from gpuadapt.kernels.cuda import tuning

pytestmark = pytest.mark.filterwarnings("default")

# Cases


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_zeros_among_random_numbers(backend, host):
    draws._normal_cuda.cache_clear()
    for zeros in (0, 30, 100):
        numbers = draws.normal(backend, 3, zeros)(20_000)
        numbers = numbers if backend == "cpu" else numbers.get()
        assert abs((numbers == 0).mean() - zeros / 100) < 0.02
        other = numbers[numbers != 0]
        assert zeros == 100 or (abs(other.std() - 1) < 0.03 and abs(other.mean()) < 0.03)
        # No run of them is longer than chance: warps have both.
        if zeros == 30:
            assert max(map(len, re.findall("1+", "".join("01"[int(x == 0)] for x in numbers)))) < 20
    draws._normal_cuda.cache_clear()


def test_methods_on_a_gpu():
    cases = suites.methods("cuda", False)
    assert {case.method for case in cases} == set(candidates.HYPER)
    assert {case.sizes for case in cases} == {(2**28,)}
    assert len({case.name for case in cases}) == len(cases)
    case = update.Case("adam", (300,), only=("nobody",), zeros=90)
    result = update.run(case, "cpu", rounds=2)
    assert result["name"] == "adam, 300 elements, 90 % zeros" and "gpuadapt" in result["times"]


def test_torchs_fused_step_is_beside_ours_wherever_there_is_one(monkeypatch):
    peer = peers.torch
    if peer.library() is None:
        pytest.skip("torch is not installed")
    monkeypatch.setattr(peer.library().cuda, "is_available", lambda: True)
    for method in candidates.HYPER:
        offered = set(peer.makers(method, "cuda"))
        assert ("torch fused" in offered) == (method in ("adam", "adagrad", "sgd"))
        assert {"torch foreach", "torch single"} <= offered


def test_the_rates_of_memory():
    result = roofs.run(roofs.Case(10_000), "cpu", rounds=2)
    assert set(result["times"]) == {"copy", "read", "write"}
    assert roofs.rate(result, "copy") * result["times"]["copy"]["median"] == pytest.approx(80_000)
    assert roofs.rate(result, "read") * result["times"]["read"]["median"] == pytest.approx(40_000)


def test_the_hosts_time(monkeypatch):
    monkeypatch.setattr(host_time, "COUNTS", (2,))
    steps = {"gpuadapt": lambda: None, "torch fused": lambda: 1 / 0}
    monkeypatch.setattr(host_time.overhead, "small_steps", lambda *_: steps)
    first, second = host_time.entries("cpu", True)
    assert first["name"].endswith("2 arrays of one element, gpuadapt") and first["value"] > 0
    assert second["errors"] == {"torch fused": "ZeroDivisionError: division by zero"}


def test_what_was_measured_is_left_out_and_what_failed_is_not(monkeypatch, tmp_path):
    measured = []

    def run(case, backend, rounds):
        measured.append(case.name)
        if len(measured) == 2:
            raise RuntimeError("no memory")
        return some_results()["dense"][0] | {"name": case.name, "errors": {"torch fused": "none"}}

    monkeypatch.setattr(command.update, "run", run)
    monkeypatch.setattr(
        suites, "methods", lambda *_: [update.Case("adam", (n,)) for n in (1, 2, 3)]
    )
    file = tmp_path / "cpu.json"
    monkeypatch.setattr("sys.argv", ["", "methods", "--missing", "--json", str(file)])
    names = [case.name for case in suites.methods("cpu", True)]
    assert command.main() == 1 and measured == names
    assert command.main() == 0 and measured == [*names, names[1]]
    kept = json.loads(file.read_text())["methods"]
    assert sorted(case["name"] for case in kept) == names
    assert not failures.ours({"methods": kept})


def test_figures_that_were_measured_before_are_replaced(monkeypatch, tmp_path):
    values = iter([[1.0, 2.0], [3.0]])

    def entries(backend, quick):
        for number, value in enumerate(next(values)):
            yield {"name": f"figure {number}", "value": value, "unit": "x"}

    monkeypatch.setitem(command.ENTRIES, "host", entries)
    file = tmp_path / "cpu.json"
    monkeypatch.setattr("sys.argv", ["", "host", "--missing", "--json", str(file)])
    assert command.main() == command.main() == 0
    found = {one["name"]: one["value"] for one in json.loads(file.read_text())["host"]}
    assert found == {"figure 0": 3.0, "figure 1": 2.0}


# Kernels, one at a time


def test_each_kernel_of_a_step_is_timed(device, monkeypatch):
    monkeypatch.setattr(launches, "STEPS", 3)
    few = rows.Case("adam", 300, 8, 400, "hot")
    monkeypatch.setattr(launches.rows, "Case", lambda *_: few)
    monkeypatch.setitem(launches.SIZES, True, 9_000)
    draws._normal_cuda.cache_clear()
    found = {one["name"]: one for one in launches.entries("cuda", True)}
    assert not any("errors" in one for one in found.values()), found
    by_rows, clipped = (
        [name.removeprefix(label) for name in found if name.startswith(label)]
        for label in ("a step by rows: ", "a step with max_norm: ")
    )
    kernels = [name for name in by_rows if name.startswith("gpuadapt")]
    assert kernels[:2] == ["gpuadapt_keys", "gpuadapt_hot_rows"]
    assert "gpuadapt_adam_rows" in kernels and "before gpuadapt_hot_rows" in by_rows
    assert {"gpuadapt_squares", "gpuadapt_judge"} <= set(clipped)
    assert any(re.fullmatch(r"gpuadapt_adam\w*_many", name) for name in clipped)
    for label in ("a step by rows: ", "a step with max_norm: "):
        parts = {name: of["value"] for name, of in found.items() if name.startswith(label)}
        assert parts.pop(f"{label}in all") > 0 and min(parts.values()) >= 0
    optimizer = ga.Adam([device.array(np.ones(3, np.float32))])
    with launches.recorded() as log:
        pass
    optimizer.step([device.array(np.ones(3, np.float32))])
    assert not log  # kernels that are compiled later are not recorded
    draws._normal_cuda.cache_clear()


def test_parts_that_cannot_be_measured_are_entries(device, monkeypatch):
    monkeypatch.setattr(launches, "_by_rows", lambda quick: 1 / 0)
    monkeypatch.setattr(launches, "_clipped", lambda quick: lambda: None)
    failed, *rest = launches.entries("cuda", True)
    assert failed["errors"] == {failures.WHOLE: "ZeroDivisionError: division by zero"}
    assert [one["name"] for one in rest][-1] == "a step with max_norm: in all"


def test_every_kind_of_kernel_takes_a_step(device, monkeypatch):
    upper = lambda of: device.array((of.get().view(np.uint32) >> 16).astype(np.uint16))  # noqa: E731
    monkeypatch.setattr(draws, "as_bfloat16", upper)
    draws._normal_cuda.cache_clear()
    kinds = every_kernel.kinds("cuda", 10_000)
    device.library.RawKernel.launches.clear()
    for take in kinds.values():
        take()
    names = " ".join(device.library.RawKernel.launches)
    for kernel in (r"adam_many", r"adam\w+_many", r"adam\w+_rows", "squares", "row_squares", "keys",
                   "judge", "append", "hot_rows"):  # fmt: skip
        assert re.search(rf"\bgpuadapt_{kernel}\b", names), kernel
    draws._normal_cuda.cache_clear()


@pytest.mark.skipif(not architectures(), reason="there is no NVRTC here")
def test_kernels_are_compiled_without_a_gpu(monkeypatch, tmp_path, capsys):
    few = compiled.families()[:2]
    monkeypatch.setattr(compiled, "families", lambda: few)
    file = tmp_path / "compiled.json"
    monkeypatch.setattr("sys.argv", ["", "--dry", str(file)])
    assert compiled.main() == 0 and not file.exists()
    assert all(re.search(rf"^{of.name}: \d+ registers", capsys.readouterr().out) for of in few[:1])
    monkeypatch.setattr(compiled, "families", lambda: [few[0]._replace(source="#error no")])
    monkeypatch.setattr(compiled, "name_of", lambda source: "none")
    assert compiled.main() == 1 and "FAILED: BackendError" in capsys.readouterr().out


def predicted_registers(family):
    return decisions.Found(Path()).predictions[family]["sm_90"]["registers"]


def test_registers_are_asked_for_once(device, monkeypatch, tmp_path, capsys):
    few, built = compiled.families()[:2], []

    class Kernel(device.library.RawKernel):
        num_regs, local_size_bytes, shared_size_bytes = 40, 8, 0

        def compile(self):
            built.append(self.name)
            if len(built) == 2:
                raise RuntimeError("no memory")

    monkeypatch.setattr(device.library, "RawKernel", Kernel)
    monkeypatch.setattr(compiled, "families", lambda: few)
    monkeypatch.setattr("sys.argv", ["", str(tmp_path / "compiled.json")])
    assert compiled.main() == 1
    said = (
        rf"sgd, float32: 40 registers \(predicted {predicted_registers('sgd, float32')}\), 8 bytes"
    )
    assert re.match(rf"{said} of local memory \(predicted none\)\n", capsys.readouterr().out)
    assert compiled.main() == 0
    assert built == ["gpuadapt_sgd_many", *["gpuadapt_adagrad_many"] * 2]  # which failed at first
    assert set(saved.load(tmp_path / "compiled.json")) == {of.name for of in few}


# The tuner


@pytest.fixture
def small(monkeypatch):
    """Small arrays, a few candidates, and times that are made up: of two chunks one is faster."""
    draws._normal_cuda.cache_clear()
    monkeypatch.setattr(tune, "SIZE", 3_000)
    monkeypatch.setattr(tune, "TABLE", rows.Case("adam", 300, 8, 400))
    monkeypatch.setattr(tuning, "ALLOWED", tuning.ALLOWED | {
        "chunk": (1024, 4096), "threads": (128, 256), "groups": (1,), "access": (16,),
        "streaming": ("none", "all"),
    })  # fmt: skip
    seconds = {"chunk 1024": 0.8, "chunk 1024, streaming all": 0.9, "streaming all": 1.2}

    def interleaved(steps, backend, rounds, errors):
        for step in steps.values():
            step()
        return {name: timing.spread([seconds.get(name, 1.0)] * rounds) for name in steps}

    monkeypatch.setattr(tune, "interleaved", interleaved)
    yield seconds
    draws._normal_cuda.cache_clear()


FAMILY = "elements of 4 bytes"


def chosen(*names):
    return {name: of for of in tune.SUBJECTS if (name := tune.name_of(of)) in names}


def test_what_is_faster_is_written_and_read(small, device, tmp_path, monkeypatch, capsys):
    file = tmp_path / "tuning.json"
    assert tune.tune(chosen(FAMILY, "rows"), file, 600, False) == 0
    out = capsys.readouterr().out
    assert "chunk 1024: 800.000 ms, 1.250x as fast as default" in out
    found = json.loads(file.read_text())
    assert found["devices"] == {DEVICE: {FAMILY: {"chunk": 1024}, "rows": {}}}
    assert found["measured"][DEVICE][FAMILY]["gain"] == pytest.approx(1.25)
    monkeypatch.setenv("GPUADAPT_TUNING", str(file))
    assert tuning.launch(FAMILY) == tuning.Launch(chunk=1024)
    # A second run has nothing to do, unless it is told so.
    assert tune.tune(chosen(FAMILY), file, 600, False) == 0
    assert f"{FAMILY}: in the file already: {{'chunk': 1024}}" in capsys.readouterr().out
    small.update({"chunk 1024": 0.995, "chunk 1024, streaming all": 1.0})
    assert tune.tune(chosen(FAMILY), file, 600, True) == 0  # less than one percent
    assert json.loads(file.read_text())["devices"] == {DEVICE: {FAMILY: {}, "rows": {}}}


def test_each_candidate_has_its_parameters(small, device, monkeypatch, tmp_path):
    used, launch = [], tuning.launch
    monkeypatch.setattr(tuning, "launch", lambda name: used.append(launch(name)) or used[-1])
    monkeypatch.setenv("GPUADAPT_TUNING", "none")
    tune.tune(chosen(FAMILY), tmp_path / "tuning.json", 600, False)
    assert tuning.Launch(chunk=1024) in used and tuning.Launch(chunk=1024, threads=128) in used
    assert tuning.Launch(chunk=1024, streaming="all") in used
    assert tuning.launch(FAMILY) == tuning.Launch()  # what was set before is set again


def test_a_tuner_that_fails_or_has_no_time_goes_on(small, device, tmp_path, monkeypatch, capsys):
    file = tmp_path / "tuning.json"
    assert tune.tune(chosen(FAMILY), file, 0, False) == 0
    assert "no time is left; a second run goes on here" in capsys.readouterr().out
    work = tune._work
    monkeypatch.setattr(tune, "_work", lambda of: 1 / 0 if not of.by_rows else work(of))
    assert tune.tune(chosen(FAMILY, "rows"), file, 600, False) == 1
    assert f"FAILED: {FAMILY}: ZeroDivisionError" in capsys.readouterr().out
    assert list(json.loads(file.read_text())["devices"][DEVICE]) == ["rows"]


def test_a_file_that_gpuadapt_would_not_read_is_put_aside(tmp_path, capsys):
    file = tmp_path / "tuning.json"
    file.write_text('{"version": 0}')
    assert tune.opened(file)["devices"] == {}
    assert "has version 0" in capsys.readouterr().out
    assert (tmp_path / "tuning.json.old").exists() and not file.exists()


@pytest.mark.skipif(not architectures(), reason="there is no NVRTC here")
def test_a_dry_run_compiles_and_writes_nothing(monkeypatch, tmp_path, capsys):
    file = tmp_path / "tuning.json"
    arguments = ["", "--dry", "--family", "rows", "--out", str(file)]
    monkeypatch.setattr("sys.argv", arguments)
    assert tune.main() == 0 and not file.exists()
    out = capsys.readouterr().out
    assert "would time default: compiles for sm_90" in out and "nothing was timed" in out
    monkeypatch.setattr(tune, "_text", lambda *_: "#error none")
    assert tune.main() == 1 and "DOES NOT COMPILE" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["", "--family", "nothing"])
    assert tune.main() == 2 and "no family is called 'nothing'" in capsys.readouterr().err


def test_without_a_gpu_the_tuner_says_what_works(monkeypatch, capsys):
    def none():
        raise ga.errors.BackendError("no GPU")

    monkeypatch.setattr(tune, "check_device", none)
    monkeypatch.setattr("sys.argv", [""])
    assert tune.main() == 2 and "--dry compiles" in capsys.readouterr().err


def test_every_family_has_a_subject():
    names = [tune.name_of(subject) for subject in tune.SUBJECTS]
    assert len(set(names)) == len(names)
    of_formats = {
        tuning.family(tune.formats_of(tune.Subject(kept.element, kept.settings | state)))
        for kept in PARAMETERS
        for state in ({} if name == "float32" else {"state_dtype": name} for name in STATES)
        if kept.element != "float64"  # with states of fewer bits it keeps the defaults
    }
    assert {"rows", "elements of 8 bytes", *of_formats} == set(names)


# Decisions


def measured(**share):
    """Times of candidates for which a copy takes a second."""
    return {name: timing.spread([1 / of] * 5) for name, of in share.items()}


def case(name, moved=1.0, **share):
    names = {key.replace("_", " "): of for key, of in share.items()}
    return {"name": name, "times": measured(**names), "bytes": moved}


@pytest.fixture
def folder(tmp_path):
    """A function that writes what a GPU would have left, as far as it is given."""

    def write(stages=(), **files):
        lines = ["2026-01-01 00:00:00 check: smoke"]
        lines += [
            f"{name:9} exit {code:3d}     3 s  {said:24} {name}.txt" for name, code, said in stages
        ]
        (tmp_path / "summary.txt").write_text("\n".join(lines) + "\n")
        for name, content in files.items():
            saved.save(content, tmp_path / f"{name}.json")
        return tmp_path

    return write


def decided(folder):
    found = decisions.Found(folder)
    return {one.question: one for part in decisions.PARTS for one in part(found)}


ADAM = "adam, 268,435,456 elements"
H100 = {"commit": "abc", "machine": {"devices": ["NVIDIA H100 80GB HBM3"]}}


def test_nothing_measured_is_said_of_everything(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["", str(tmp_path)])
    assert decisions.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no GPU was measured, commit None"
    assert len(lines) > 30 and all("not measured" in line for line in lines[1:])
    assert (tmp_path / "decisions.txt").read_text().splitlines() == lines[1:]


@pytest.mark.parametrize(("share", "met"), [(0.96, True), (0.93, True), (0.9, False)])
def test_float32_beside_a_copy_and_torch(share, met, folder):
    times = case(ADAM, gpuadapt=share, copy=1.0, torch_fused=0.92)
    found = decided(folder(cuda=H100 | {"methods": [times]}))
    assert found[ADAM].met is met and found[ADAM].goal == "93 %"
    assert found[ADAM].measured == f"{100 * share:.0f} % of a copy"
    assert re.fullmatch(r"\d+ %", found[ADAM].predicted)
    beside = found[f"{ADAM}, beside torch fused"]
    assert beside.met is (share >= 0.92) and beside.measured.startswith(f"{share / 0.92:.2f}x")
    assert ("gpu.sh tune" in decisions.line(found[ADAM])) == (not met)
    assert found["sgd, 268,435,456 elements"].measured == decisions.MISSING


def test_zeros_beside_other_gradients(folder):
    plain = case(ADAM, gpuadapt=0.96, copy=1.0)
    slow = case(f"{ADAM}, 90 % zeros", gpuadapt=0.8, copy=1.0)
    same = case(f"{ADAM}, 100 % zeros", gpuadapt=0.48, copy=0.5)
    found = decided(folder(cuda=H100 | {"methods": [plain, slow, same]}))
    assert found[slow["name"]].met is False and found[slow["name"]].measured.startswith("1.20x")
    assert found[same["name"]].met is True


def test_formats_beside_predictions(folder):
    name = f"{ADAM}, all bfloat16, stochastic"
    expected = decisions.Found(folder(cuda=H100)).share("adam, all bfloat16, stochastic")
    for off, met in ((0.0, None), (-0.1, False)):
        times = case(name, gpuadapt=expected + off, copy=1.0, torch_fused=0.5)
        found = decided(folder(cuda=H100 | {"formats": [times]}))[name]
        assert found.met is met and "as fast as torch fused" in found.measured
        assert found.predicted == f"{100 * expected:.0f} %"


def test_memory_and_the_norm(folder):
    memory = {"name": "memory", "bytes": 8e9, "times": measured(copy=1 / 2.9e-3, read=1 / 1.4e-3)}
    squares = {"name": "a step with max_norm: gpuadapt_squares", "value": 4 * 2**28 / 2.7e12}
    found = decided(folder(cuda=H100 | {"roofs": [memory], "launches": [squares]}))
    assert found["memory"].met is False and "copy 2.76 TB/s" in found["memory"].measured
    assert found["norm"].met is True and found["norm"].measured.startswith("94 %")


def test_rows_and_their_parts(folder):
    name = rows.cases(False)[0].name
    times = case(name, gpuadapt=0.6, limit=1.0, torch_SparseAdam=0.05)
    parts = {
        "before gpuadapt_keys": 1e-5, "gpuadapt_keys": 1e-5, "before gpuadapt_hot_rows": 7e-5,
        "gpuadapt_hot_rows": 5e-6, "gpuadapt_adam_rows": 2e-5, "in all": 1.2e-4,
    }  # fmt: skip
    figures = [{"name": f"a step by rows: {k}", "value": v, "unit": "s"} for k, v in parts.items()]
    found = decided(folder(cuda=H100 | {"rows": [times], "launches": figures}))
    assert found[name].met is False and found[name].goal == "70 %"
    assert found[f"{name}, beside torch SparseAdam"].measured == "12.0x as fast"
    assert "check and sort 70 us" in found["parts of a step by rows"].measured
    assert found["the sort's share"].met is False


def test_stages_registers_host_and_tuner(folder):
    stages = [("smoke", 0, "ok"), ("tests", 1, "FAILED"), ("sanitizer", 4, "not installed"),
              ("compile", 124, "STOPPED after its 60 s")]  # fmt: skip
    label = "host time of a step of 1 arrays of one element, "
    figures = [
        {"name": f"{label}gpuadapt", "value": 15e-6},
        {"name": f"{label}gpuadapt captured", "value": 9e-6},
        {"name": "host time of a step of 1,000 arrays", "errors": {"gpuadapt": "none"}},
    ]
    registers = {
        "adam, float32": {"architecture": "sm_90", "registers": 999, "local": 0},
        "sgd, float32": {
            "architecture": "sm_90",
            "registers": predicted_registers("sgd, float32"),
            "local": 16,
        },
        "norm, float32": {"error": "none"},
    }
    tuned = {"measured": {DEVICE: {
        FAMILY: {"parameters": {"chunk": 8192}, "gain": 1.05},
        "rows": {"parameters": {}, "gain": 1.0},
    }}}  # fmt: skip
    found = decided(folder(stages, cuda=H100 | {"host": figures}, compiled=registers, tuning=tuned))
    assert found["smoke"].met is True and found["compile"].met is False
    assert "goes on where it was stopped" in found["compile"].then
    assert found["tests"].met is False and "tests.txt" in decisions.line(found["tests"])
    assert found["sanitizer"].measured == "the tool is not installed"
    assert "2 kernels, 1 with others than predicted" in found["registers"].measured
    assert found["local memory"].met is False and "sgd" in found["local memory"].measured
    one = found["host time of a step of 1 arrays of one element"]
    assert one.met is True and one.measured == "15 us, gpuadapt captured 9 us"
    assert found["host time of a step of 1,000 arrays of one element"].met is None
    assert found[f"tuner, {DEVICE}, {FAMILY}"].measured == "chunk 8192: 1.050x as fast"
    assert found[f"tuner, {DEVICE}, rows"].measured == "the default stays"


def test_every_prediction_that_is_asked_for_is_there():
    found = decisions.Found(Path())
    names = [f"{method}, float32" for method in candidates.HYPER]
    names += [f"adam, {family}" for family in decisions.PREDICTED.values()]
    assert {*names, "adam, float64", "norm, float32"} <= set(found.predictions)
    assert set(decisions.PREDICTED) - {""} <= {of.kept for of in suites.formats("cuda", False)}


def test_the_page_of_a_machine_has_what_was_measured_on_a_gpu():
    memory = {"name": "memory, 4 elements", "backend": "cuda", "bytes": 32, "size": 4}
    times = {"copy": timing.spread([1.0] * 2), "read": timing.spread([0.5] * 2)}
    figure = {"name": "host time of a step", "value": 1e-5, "unit": "s"}
    results = some_results() | {"roofs": [memory | {"times": times}], "host": [figure]}
    results["machine"] |= {"devices": ["A GPU"]}
    text = report.page(results, None)
    assert "## roofs" in text and "memory, 4 elements | 1000.0 ms | 500.0 ms |" in text
    assert "## host\n\n- host time of a step: 10.0 µs" in text and text.startswith("# A GPU")
    assert set(command.ENTRIES) == set(report.FIGURES)
