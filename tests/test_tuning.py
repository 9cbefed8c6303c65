"""Launch parameters that were tuned: the file, and that no bit depends on them."""

import json
import re
import warnings

import numpy as np
import pytest
from conftest import DEVICE
from cuda_source import architectures, compile_ptx

import gpuadapt as ga
from gpuadapt.arrays import numpy_dtype
from gpuadapt.kernels.cuda import compile, multi_tensor, tuning
from gpuadapt.optimizer import internals

KINDS = {
    "float32": ("float32", {}),
    "float64": ("float64", {}),
    "bfloat16 stochastic": ("bfloat16", {"rounding": "stochastic"}),
    "all bfloat16 stochastic": (
        "bfloat16",
        {"state_dtype": "bfloat16", "rounding": "stochastic"},
    ),
    "8-bit": ("float32", {"state_dtype": "8bit"}),
}
"""Element type and settings of an optimizer for each family of kernels."""

CANDIDATES = [
    {"chunk": 512},
    {"chunk": 16384, "threads": 512},
    {"threads": 64, "groups": 2},
    {"groups": 4, "access": 8},
    {"streaming": "gradients", "access": 8},
    {"chunk": 1024, "threads": 128, "groups": 2, "streaming": "all"},
]


def written(path, families, device=DEVICE, version=tuning.VERSION):
    path.write_text(json.dumps({"version": version, "devices": {device: families}}))
    return str(path)


def formats_of(kind):
    element, settings = KINDS[kind]
    optimizer = ga.Adam(np.zeros((4, 64), numpy_dtype(element, "cpu")), **settings)
    return internals(optimizer).parameters["0"].formats_for(element)


def trained(backend, kind):
    """Bits of parameters and states after two steps, of whole arrays and of rows."""
    (element, settings), random = KINDS[kind], np.random.default_rng(0)
    dtype = numpy_dtype(element, "cpu")
    sizes = {"long": (5_003,), "rows": (37, 24), "one": (1,)}

    def array(shape):
        values = random.standard_normal(shape).astype(dtype)
        return backend.array(values if element != "bfloat16" else values.view(np.uint16))

    arrays = {name: array(shape) for name, shape in sizes.items()}
    optimizer = ga.Adam(arrays, lr=0.1, **settings)
    for _ in range(2):
        gradients = {name: array(shape) for name, shape in sizes.items()}
        numbers = random.integers(0, 37, 20)
        gradients["rows"] = ga.RowGrad(backend.array(numbers), array((20, 24)))
        optimizer.step(gradients)
    parameters = internals(optimizer).parameters
    found = [backend.numpy(of) for name in sizes for of in parameters[name].operand.arrays]
    return [np.ascontiguousarray(of).view(np.uint8) for of in found]


def tuned_for(kind, change):
    """A file's table: every family that `trained` launches, changed."""
    found = {tuning.family(formats_of(kind)): change}
    threads = min(change.get("threads", 64), 256)
    return found | {tuning.ROWS: {"threads": threads}}


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_depends_on_a_launch_parameter(kind, device, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUADAPT_TUNING", "none")
    right, used = trained(device, kind), []
    build = multi_tensor.kernel.function
    monkeypatch.setattr(
        multi_tensor.kernel, "function", lambda *of: used.append(of[-1]) or build(*of)
    )
    for number, change in enumerate(CANDIDATES):
        path = written(tmp_path / f"{number}.json", tuned_for(kind, change))
        monkeypatch.setenv("GPUADAPT_TUNING", path)
        same = trained(device, kind)
        assert used[-1] == tuning.default("")._replace(**change)
        assert all(np.array_equal(a, b) for a, b in zip(right, same, strict=True)), change


@pytest.mark.skipif(not architectures(), reason="there is no NVRTC here")
@pytest.mark.parametrize("kind", KINDS)
def test_candidates_compile_with_their_accesses(kind):
    formats = formats_of(kind)
    for change in CANDIDATES:
        launch = tuning.default("")._replace(**change)
        text = multi_tensor.source(ga.rules.adam, formats, launch)
        compiled = compile_ptx(text, 90, (*compile.OPTIONS, *tuning.options(launch)))
        hints = {f"{k}s": len(re.findall(rf"\b{k}\.global\.cs", compiled)) for k in ("ld", "st")}
        streamed = 0 if formats.block else tuning.STREAMING.index(launch.streaming)
        assert (hints["lds"] > 0) == (streamed > 0), change
        assert (hints["sts"] > 0) == (streamed > 1), change
        plain = re.findall(r"\b(?:ld|st)\.global\.(?:v\d\.)?[bfu](?:8|16|32|64)\b", compiled)
        assert streamed < 2 or len(plain) < hints["lds"], change  # tables of addresses


def test_a_file_is_for_its_kind_of_gpu(device, tmp_path, monkeypatch):
    families = {"elements of 4 bytes": {"chunk": 8192}, "rows": {"threads": 256}}
    here = written(tmp_path / "here.json", families)
    monkeypatch.setenv("GPUADAPT_TUNING", here)
    assert tuning.launch("elements of 4 bytes") == tuning.Launch(chunk=8192)
    assert tuning.launch("rows") == tuning.default("rows")._replace(threads=256)
    assert tuning.launch("8-bit blocks") == tuning.Launch()
    for device_of in ("A GPU, 80", "Another GPU, 90"):
        other = written(tmp_path / "other.json", families, device_of)
        tuning.read.cache_clear()
        monkeypatch.setenv("GPUADAPT_TUNING", other)
        assert tuning.launch("elements of 4 bytes") == tuning.Launch()
    monkeypatch.setenv("GPUADAPT_TUNING", "none")
    assert tuning.launch("rows").threads == 128


def test_a_user_without_a_home_has_no_file(device, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GPUADAPT_TUNING", raising=False)
    monkeypatch.setattr(tuning.user_folder, "chosen", homeless)
    assert tuning.launch(tuning.ROWS) == tuning.default(tuning.ROWS)


def test_the_file_is_in_the_users_folder(device, tmp_path, monkeypatch):
    monkeypatch.delenv("GPUADAPT_TUNING", raising=False)
    monkeypatch.setenv("GPUADAPT_CACHE_DIR", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuning.launch("rows") == tuning.default("rows")  # without a file there is no warning
    tuning.read.cache_clear()
    written(tmp_path / "tuning.json", {"rows": {"threads": 64}})
    assert tuning.launch("rows").threads == 64
    tuning.read.cache_clear()


GOOD = {"version": tuning.VERSION, "devices": {DEVICE: {"rows": {"threads": 64}}}}


def changed(**families):
    return json.dumps(GOOD | {"devices": {DEVICE: families}})


BROKEN = {
    "not JSON": ("{", "Expecting property name"),
    "not a table": ("[1]", "version None"),
    "another version": (json.dumps(GOOD | {"version": 2}), "version 2, and this gpuadapt reads"),
    "no devices": (json.dumps({"version": tuning.VERSION}), '"devices" is not a table'),
    "a list of families": (changed(rows=[]), '"rows" is not a table'),
    "an unknown parameter": (changed(rows={"lanes": 4}), '"rows" has lanes = 4'),
    "threads of no warp": (changed(rows={"threads": 100}), "threads = 100, not one of 64, 128"),
    "more than there are registers": (changed(rows={"threads": 512}), "threads = 512, not one of"),
    "a boolean": (changed(rows={"groups": True}), "groups = True, not one of 1, 2"),
    "a float": (changed(rows={"groups": 2.0}), "groups = 2.0, not one of 1, 2"),
    "text": (changed(rows={"streaming": "1; }"}), "streaming = '1; }', not one of none"),
    "a list": (changed(rows={"chunk": [512]}), r"chunk = \[512\], not one of"),
    "no file": (None, "No such file"),
    "no text": (b"\xff\xfe\x00", "can't decode"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_broken_is_one_warning(name, device, tmp_path, monkeypatch):
    content, reason = BROKEN[name]
    path = tmp_path / "tuning.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("GPUADAPT_TUNING", str(path))
    with pytest.warns(ga.errors.TuningWarning, match=reason) as caught:
        assert tuning.launch("rows") == tuning.default("rows")
    assert len(caught) == 1 and "python -m benchmarks.tune" in str(caught[0].message)
    assert str(path) in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuning.launch("elements of 4 bytes") == tuning.Launch()  # the same file: no other


def test_every_chunk_keeps_the_pages_of_random_bits_and_whole_blocks():
    """A chunk crosses no multiple of 2^32 elements, and is of whole blocks of 256."""
    for chunk in tuning.ALLOWED["chunk"]:
        assert chunk % 256 == 0 and 2**32 % chunk == 0


def test_a_block_has_enough_registers():
    """A kernel may need 255 of them for a thread, unless the compiler is told of fewer."""
    for threads in tuning.ALLOWED["threads"]:
        options = tuning.options(tuning.Launch(threads=threads))
        each = int(options[0].removeprefix("--maxrregcount=")) if options else 255
        assert each >= 32 and threads * each <= tuning.REGISTERS
    assert max(tuning.allowed(tuning.ROWS, "threads")) * 255 <= tuning.REGISTERS


def test_defaults_are_allowed():
    for family in [*map(tuning.family, map(formats_of, KINDS)), tuning.ROWS]:
        for name, value in tuning.default(family)._asdict().items():
            assert value in tuning.allowed(family, name)
    assert len(set(map(tuning.family, map(formats_of, KINDS)))) == 5
