"""`gpuadapt source` and the forms of `Rule.source`: what kernels are compiled to."""

import re
import subprocess
import sys

import numba
import numpy as np
import pytest
from cuda_source import architectures, inexact

import gpuadapt as ga
from gpuadapt import cli
from gpuadapt.kernels.cpu import cache_folder
from gpuadapt.kernels.cpu.compiled_loop import LOOP
from gpuadapt.kernels.cuda import compile, disassembly, nvrtc
from gpuadapt.optimizer import internals

RULE = """
import gpuadapt as ga


@ga.rule
def own(p, g, h):
    return p - h.lr * g
"""


@pytest.fixture
def printed(capsys):
    """Run the command and return what it prints."""

    def run(*arguments):
        status = cli.main(["source", *arguments])
        given = capsys.readouterr()
        assert (status, given.err) == (0, "")
        return given.out

    return run


@pytest.fixture
def refused(capsys):
    """Run the command and return its error, which is one line."""

    def run(*arguments):
        assert cli.main(["source", *arguments]) == 2
        given = capsys.readouterr()
        (line,) = given.err.splitlines()
        assert not given.out and line.startswith("gpuadapt source: ")
        return line

    return run


@pytest.mark.parametrize("traversal", [None, "many", "dense", "rows", "exact"])
@pytest.mark.parametrize("backend", [None, "cpu", "cuda"])
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_it_prints_a_kernel(backend, traversal, dtype, printed):
    options = {"--backend": backend, "--traversal": traversal, "--dtype": dtype}
    given = [word for option in options.items() if option[1] for word in option]
    want = ga.rules.adam.source(backend or "cpu", traversal or "many", dtype or "float32")
    assert printed("Adam", *given).rstrip("\n") == want.rstrip("\n")


@pytest.mark.parametrize(
    ("dtype", "state_dtype"),
    [("float32", "bfloat16"), ("float32", "8bit"), ("bfloat16", "float16"), ("float16", None)],
)
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_formats_are_those_of_an_optimizer(backend, dtype, state_dtype, printed):
    import ml_dtypes

    parameter = np.ones(3, getattr(ml_dtypes, dtype, None) or dtype)
    (one,) = internals(ga.Adam(parameter, state_dtype=state_dtype))[0].values()
    given = ["--state-dtype", state_dtype] if state_dtype else []
    text = printed("Adam", "--backend", backend, "--dtype", dtype, *given)
    assert text.rstrip("\n") == ga.rules.adam.source(backend, "many", one.formats).rstrip("\n")


def test_it_prints_javascript(printed):
    text = printed("adam", "--backend", "javascript", "--dtype", "float64")
    assert text == ga.rules.adam.source("javascript", dtype="float64")


def test_a_rule_of_a_file(tmp_path, printed, refused):
    (tmp_path / "mine.py").write_text(RULE)
    assert "def rule__own(p, g, h_lr):" in printed(f"{tmp_path}/mine.py:own")
    assert f"did you mean own? {tmp_path}/mine.py has no 'owen'" in refused(
        f"{tmp_path}/mine.py:owen"
    )


@pytest.mark.parametrize("form", ["llvm", "asm"])
def test_the_loop_over_elements_as_it_is_compiled(form, printed):
    """Also of a kernel whose machine code has been loaded; nothing else of the process changes."""
    ga.SGD(np.ones(3)).step(np.ones(3))
    settings = {k: v for k, v in vars(numba.config).items() if k.isupper()}
    modules = set(sys.modules)
    text = printed("SGD", "--dtype", "float64", f"--{form}")
    assert settings == {k: v for k, v in vars(numba.config).items() if k.isupper()}
    assert not {name for name in set(sys.modules) - modules if "generated" in name}
    # What is kept is loaded by the next process, and has no text then.
    assert not [*cache_folder.directory().glob("fresh_*")]
    entries = r"^define .*@(\S+?)\(" if form == "llvm" else r"^(_?_Z\w+):"
    (name,) = re.findall(entries, text, re.MULTILINE)
    assert "update_span" in name
    if form == "llvm":
        # One rounding for each operation: no flag allows LLVM to contract or to reorder them.
        assert re.search(r"= fmul (<\d+ x )?double", text)
        assert re.search(r"= fsub (<\d+ x )?double", text)
        assert not re.search(r" (fast|contract|reassoc|arcp|afn|nnan|ninf|nsz) ", text)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "float16", "8bit"])
@pytest.mark.parametrize("traversal", ["many", "dense", "rows", "exact"])
def test_the_loop_has_one_name_in_every_kernel(traversal, state_dtype, printed):
    text = printed("momentum", "--traversal", traversal, "--state-dtype", state_dtype)
    assert (
        re.findall(r"^def (\w+)\(arrays, scalars, begin, keys, buffers\):", text, re.M)[0] == LOOP
    )


def test_the_loop_over_blocks_of_8_bits(printed):
    text = printed("momentum", "--state-dtype", "8bit", "--llvm")
    assert re.search(r"^define .*update_span", text, re.MULTILINE)
    assert re.search(r"= fmul (<\d+ x )?float", text)


def test_there_is_nvrtc():
    assert architectures(), "the tests need CuPy and NVRTC, not a GPU"


@pytest.mark.parametrize("traversal", ["many", "rows", "exact"])
@pytest.mark.parametrize("architecture", architectures())
def test_ptx_is_exact_and_for_the_architecture_that_is_asked_for(architecture, traversal, printed):
    text = printed("sgd", "--ptx", "--arch", f"sm_{architecture}", "--traversal", traversal)
    assert f".target sm_{architecture}" in text and ".visible .entry gpuadapt_sgd_" in text
    assert not inexact(text)


def test_ptx_is_for_sm_90_by_default_and_python_has_it_too(printed):
    text = printed("Adam", "--ptx", "--state-dtype", "8bit")
    assert ".target sm_90" in text and "sqrt.rn.f32" in text
    assert ".target sm_80" in ga.rules.sgd.source("cuda", form="ptx", arch="80")


def test_ptx_has_the_options_of_the_kernel(monkeypatch):
    given = []
    made = nvrtc.Compiled("", b"", 0, 0, 0, 0)
    monkeypatch.setattr(nvrtc, "compile", lambda *of, code: given.append(of) or made)
    ga.rules.sgd.source("cuda", form="ptx")
    assert given == [(ga.rules.sgd.source("cuda"), 90, compile.OPTIONS)]


def test_machine_code(printed, refused):
    if disassembly.disassembler():
        text = printed("sgd", "--sass")
        assert "FMUL" in text and "EXIT" in text and "gpuadapt_sgd_many" in text
    else:
        assert "there is no nvdisasm" in refused("sgd", "--sass")


WRONG = {
    ("adm",): "did you mean Adam? no method or rule 'adm'",
    (
        "sgd",
        "--ptx",
        "--backend",
        "cpu",
    ): "backend cpu has no form 'ptx'; it is one of backend cuda",
    (
        "sgd",
        "--asm",
        "--backend",
        "cuda",
    ): "backend cuda has no form 'asm'; it is one of backend cpu",
    ("sgd", "--llvm", "--backend", "javascript"): "backend javascript has no form 'llvm'",
    ("sgd", "--ptx", "--llvm"): "not allowed with argument",
    ("sgd", "--arch", "sm_90"): "arch: got 'sm_90', which has an effect on ptx and sass alone",
    ("sgd", "--asm", "--arch", "sm_90"): "arch: got 'sm_90', which has an effect on ptx and sass",
    ("sgd", "--ptx", "--arch", "hopper"): "arch: got 'hopper', expected a compute capability such",
    ("sgd", "--ptx", "--arch", "sm_1"): "arch: got sm_1; this NVRTC compiles for sm_",
    ("sgd", "--ptx", "--traversal", "dense"): "contiguous arrays have traversal 'many'",
    ("sgd", "--traversal", "diagonal"): "invalid choice: 'diagonal'",
    ("sgd", "--backend", "gpu"): "invalid choice: 'gpu'",
    (
        "sgd",
        "--backend",
        "javascript",
        "--traversal",
        "rows",
    ): "no traversal 'rows': JavaScript has",
    ("adam", "--backend", "javascript", "--state-dtype", "8bit"): "JavaScript has no formats",
    ("adam", "--state-dtype", "float64"): "got 'float64' for 'm' of 'p', whose arithmetic is",
}


@pytest.mark.parametrize("given", WRONG, ids=" ".join)
def test_what_is_wrong_is_said_in_one_line(given, refused):
    assert WRONG[given] in refused(*given)


def test_what_is_missing_is_said_with_what_to_install(monkeypatch, refused):
    monkeypatch.setattr(disassembly, "disassembler", lambda: None)
    assert "there is no nvdisasm, which shows machine code: pip install" in refused("sgd", "--sass")
    monkeypatch.setitem(sys.modules, "cupy.cuda", None)
    assert 'there is no NVRTC, which compiles CUDA C: pip install "gpuadapt' in refused(
        "sgd", "--ptx"
    )
    assert nvrtc.architectures() == ()


def test_a_text_that_does_not_compile_has_the_compilers_message():
    with pytest.raises(ga.BackendError, match="is undefined"):
        nvrtc.compile("no text at all", architectures()[0], ())


@pytest.mark.parametrize("form", ["llvm", "asm"])
def test_without_compilation_there_is_no_machine_code(form):
    script = "import sys; from gpuadapt.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, "source", "sgd", f"--{form}"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        "gpuadapt source: Numba does not compile here: unset NUMBA_DISABLE_JIT\n"
    )


def test_the_reader_of_a_pipe_may_go():
    script = f"{sys.executable} -m gpuadapt source Adam | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout == '"""adam, many, float32: generated by gpuadapt."""\n'
    assert done.stderr == "" and done.returncode in (0, 141)
