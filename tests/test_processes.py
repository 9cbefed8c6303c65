"""Processes, threads and the disk cache, each in a fresh interpreter."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gpuadapt.kernels.cpu import multi_tensor

LAYERS = ["tbb", "omp", "workqueue"]


def python(script, *arguments, timeout=120, **environment):
    """Run a script; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


CONCURRENT = """
    import threading
    import numba
    import numpy as np
    import gpuadapt as ga

    rows = np.random.default_rng(0).integers(20_000, size=20_000)

    def expected():
        w = np.ones((20_000, 10), np.float32)
        optimizer = ga.Adam(w)
        for _ in range(10):
            gradient = np.full_like(w, 0.5)
            optimizer.step(gradient)
            optimizer.step(ga.RowGrad(rows, gradient))
        return w

    results = {}

    def work(name):
        results[name] = expected()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(np.array_equal(w, expected()) for w in results.values())
    print(numba.threading_layer())
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_concurrent_steps(layer):
    """The workqueue layer aborts the process if two threads enter it."""
    assert python(CONCURRENT, NUMBA_THREADING_LAYER=layer).strip() == layer


FORKED = """
    import os
    import numba
    import numpy as np
    import gpuadapt as ga

    w = np.ones((20_000, 10), np.float32)
    gradient = w.copy()
    by_rows = ga.RowGrad(np.arange(len(w))[::-1].copy(), gradient)
    optimizer = ga.Adam(w, lr=0.25)
    optimizer.step(gradient)
    optimizer.step(by_rows)
    child = os.fork()
    optimizer.step(by_rows)
    optimizer.step(gradient)
    right = np.allclose(w, 0)
    if child == 0:
        os._exit(0 if right else 3)
    assert right
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), numba.threading_layer())
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_a_forked_child_can_step(layer):
    """The OpenMP layer kills a child that enters it."""
    assert python(FORKED, NUMBA_THREADING_LAYER=layer).split() == ["0", layer]


def test_fork_before_the_first_step():
    """Somebody else's parallel function has started OpenMP; the child is the first of ours."""
    script = """
        import os
        import numba
        import numpy as np
        import gpuadapt as ga

        @numba.njit(parallel=True)
        def foreign(x):
            for i in numba.prange(x.size):
                x[i] += 1

        foreign(np.zeros(1000))
        w = np.ones(200_000, np.float32)
        optimizer = ga.Adam(w, lr=0.25)
        child = os.fork()
        if child == 0:
            optimizer.step(np.ones_like(w))
            os._exit(0 if w[0] == 0.75 else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), numba.threading_layer())
    """
    assert python(script, NUMBA_THREADING_LAYER="omp").split() == ["0", "omp"]


def test_fork_while_another_thread_steps():
    """The child does not wait for a lock that nobody in it holds."""
    script = """
        import os, threading
        import numpy as np
        import gpuadapt as ga

        w = np.ones(2_000_000, np.float32)
        optimizer, stop = ga.Adam(w), threading.Event()
        optimizer.step(w.copy())

        def work():
            gradient = w.copy()
            while not stop.is_set():
                optimizer.step(gradient)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(5):
            child = os.fork()
            if child == 0:
                v = np.ones(200_000, np.float32)
                ga.Adam(v).step(v.copy())
                os._exit(0 if v[0] < 1 else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        thread.join()
    """
    python(script, NUMBA_THREADING_LAYER="workqueue")


def test_tbb_is_chosen():
    """Where it has wheels it is a dependency, and is found inside the environment."""
    if (sys.platform, os.uname().machine) != ("linux", "x86_64"):
        pytest.skip("no wheel of TBB is a dependency here")
    script = """
        import numpy as np, gpuadapt as ga, numba
        w = np.ones(100_000)
        ga.SGD(w).step(w.copy())
        print(numba.threading_layer())
    """
    assert python(script).strip() == "tbb"


STEP = """
    import sys
    import numpy as np
    sys.path.insert(0, sys.argv[1])
    import own
    import gpuadapt as ga
    from gpuadapt.kernels.cpu import multi_tensor
    w = np.ones(5, np.float32)
    ga.Optimizer(own.own, w, lr=0.5).step(np.ones(5, np.float32))
    from gpuadapt.kernels.formats import uniform
    stats = multi_tensor.kernel(own.own, uniform(own.own, np.dtype(np.float32))).stats
    print(w[0], sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
OWN = "import gpuadapt as ga\n\n\n@ga.rule\ndef own(p, g, h):\n    return p - {} * h.lr * g\n"


def test_a_second_process_compiles_nothing_and_an_edit_is_never_stale(tmp_path):
    cache = {"GPUADAPT_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    (tmp_path / "own.py").write_text(OWN.format(1))
    assert python(STEP, tmp_path, **cache).split() == ["0.5", "0", "1"]
    assert python(STEP, tmp_path, **cache).split() == ["0.5", "1", "0"]
    (tmp_path / "own.py").write_text(OWN.format(2))
    assert python(STEP, tmp_path, **cache).split() == ["0.0", "0", "1"]
    (tmp_path / "own.py").write_text(OWN.format(1))
    assert python(STEP, tmp_path, **cache).split() == ["0.5", "1", "0"]


WITHOUT_HELPERS = """
    import importlib.metadata, sys

    sys.modules["platformdirs"] = sys.modules["tbb"] = None  # importing them raises ImportError
    files = importlib.metadata.files

    def without_tbb(name):
        if name == "tbb":
            raise importlib.metadata.PackageNotFoundError(name)
        return files(name)

    importlib.metadata.files = without_tbb
    from gpuadapt.kernels.cpu import cache_folder
    print(cache_folder.directory().parent)
"""


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"GPUADAPT_CACHE_DIR": "{}/own", "XDG_CACHE_HOME": "{}/xdg"}, "own"),
        ({"GPUADAPT_CACHE_DIR": "", "XDG_CACHE_HOME": "{}/xdg"}, "xdg/gpuadapt"),
        ({"GPUADAPT_CACHE_DIR": "", "XDG_CACHE_HOME": ""}, "home/.cache/gpuadapt"),
    ],
    ids=["named", "XDG_CACHE_HOME", "home"],
)
def test_platformdirs_and_tbb_need_not_be_there(tmp_path, environment, folder):
    environment = {name: value.format(tmp_path) for name, value in environment.items()}
    environment["HOME"] = str(tmp_path / "home")
    assert python(WITHOUT_HELPERS, **environment).strip() == str(tmp_path / folder)


def test_a_step_without_platformdirs_and_tbb(tmp_path):
    script = (
        WITHOUT_HELPERS
        + """
    import numpy as np, gpuadapt as ga
    w = np.ones(5)
    ga.SGD(w, lr=0.5).step(np.ones(5))
    print(w[0], any(cache_folder.directory().iterdir()))
"""
    )
    environment = {"GPUADAPT_CACHE_DIR": "", "XDG_CACHE_HOME": str(tmp_path)}
    assert python(script, **environment).split()[1:] == ["0.5", "True"]


def test_platformdirs_is_not_imported_where_the_folder_is_named(tmp_path):
    script = """
        import sys
        from gpuadapt.kernels.cpu import cache_folder
        cache_folder.directory()
        print("platformdirs" in sys.modules)
    """
    assert python(script, GPUADAPT_CACHE_DIR=str(tmp_path)).strip() == "False"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with a rule and a cache with its machine code."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "own.py").write_text(OWN.format(1))
    python(STEP, folder, GPUADAPT_CACHE_DIR=str(folder / "cache"))
    return folder


@pytest.mark.parametrize(
    ("kind", "damage", "elsewhere"),
    [
        ("py", b"raise SystemExit(9)", False),
        ("py", b"\xff\xfe", False),
        ("code", b"", False),
        ("code", 16, False),
        ("code", 32, False),
        ("code", 100, False),
        ("code", -1, False),
        ("code", 100, True),
    ],
)
def test_a_damaged_cache_file_is_replaced(tmp_path, compiled, kind, damage, elsewhere):
    """Replaced, emptied or cut to a number of bytes; Numba's own folder does not matter."""
    cache = {"GPUADAPT_CACHE_DIR": str(tmp_path / "cache")}
    shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)
    if elsewhere:
        cache["NUMBA_CACHE_DIR"] = str(tmp_path / "numba")
    (file,) = (tmp_path / "cache").rglob(f"own_*.{kind}")
    good = file.read_bytes()
    file.write_bytes(good[:damage] if isinstance(damage, int) else damage)
    hits = "1 0" if kind == "py" else "0 1"
    assert python(STEP, tmp_path, **cache).split() == ["0.5", *hits.split()]
    assert kind != "py" or file.read_bytes() == good
    assert python(STEP, tmp_path, **cache).split() == ["0.5", "1", "0"]
    assert not list(tmp_path.rglob("*.nb?"))


def test_the_cache_may_move_or_go(tmp_path):
    """A relative folder and a change of directory; a folder that is deleted during the run."""
    script = """
        import os, shutil, sys
        os.chdir(sys.argv[1])
        import numpy as np
        import gpuadapt as ga
        w = np.ones(3)
        ga.SGD(w, lr=0.5).step(np.ones(3))
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        ga.SGD(w, lr=0.5, momentum=0.5).step(np.ones(3))
        shutil.rmtree("../cache")
        ga.SGD(w, lr=0.5, momentum=0.5, nesterov=True).step(np.ones(3))
        print(w[0], os.listdir())
    """
    assert python(script, tmp_path, GPUADAPT_CACHE_DIR="cache").split() == ["-0.75", "[]"]


def test_importing_is_light():
    script = """
        import sys
        import gpuadapt
        heavy = {"numba", "cupy", "llvmlite", "matplotlib", "sklearn", "rich"} & set(sys.modules)
        assert not heavy, heavy
    """
    python(script)


def test_the_users_process_is_left_alone():
    """Environment, NumPy's error state, warnings filters, Numba's settings, signal handlers."""
    script = """
        import os, signal, sys, warnings
        import numba, numpy as np

        def state():
            handlers = {s: signal.getsignal(s) for s in signal.valid_signals()}
            settings = {k: v for k, v in vars(numba.config).items() if k.isupper()}
            return (dict(os.environ), np.geterr(), list(warnings.filters), handlers,
                    numba.get_num_threads(), settings, sys.getswitchinterval())

        before = state()
        import gpuadapt as ga
        w = np.ones(200_000)
        optimizer = ga.Adam(w)
        optimizer.step(w.copy())
        optimizer.effective_lr("0")
        ga.rules.adam.source("cuda")
        assert state() == before
    """
    python(script)


def test_machine_code_is_vectorised(tmp_path):
    """Packed square roots and divisions in the span loop, and nothing contracted."""
    script = """
        import sys
        import numpy as np
        sys.path.insert(0, sys.argv[1])
        from cases import CASES, KINDS
        from gpuadapt.kernels.cpu import multi_tensor, rows
        from gpuadapt.kernels import rules
        from gpuadapt.kernels.formats import uniform
        named = [case for case in CASES if case.name in ("lion", "nadam", "velocity")]
        kernels = [(multi_tensor, case.rule, "float32") for case in KINDS + named]
        kernels += [(multi_tensor, of, "float64") for of in (rules.adam, rules.adadelta)]
        kernels += [(rows, rules.adagrad, "float32"), (rows, rules.adam, "float64")]
        for traversal, rule, dtype in kernels:
            formats = uniform(rule, np.dtype(dtype))
            (text,) = traversal.kernel(rule, formats).inspect_asm().values()
            lines = (*(line for _, line in rule.lines), *rule.results)
            print(f"=== {traversal.__name__} {rule.name} {dtype}\\n{' '.join(lines)}\\n{text}")
    """
    if os.uname().machine != "x86_64":
        pytest.skip("reads x86-64 machine code")
    here = os.path.dirname(__file__)
    text = python(script, here, GPUADAPT_CACHE_DIR=str(tmp_path), timeout=400)
    wide = "[yz]mm" if "avx2" in Path("/proc/cpuinfo").read_text() else "[xyz]mm"
    kernels = text.split("=== ")[1:]
    assert len(kernels) >= 15
    for kernel in kernels:
        title, rule, code = kernel.split("\n", 2)
        traversal, name, dtype = title.split()
        kind = {"float32": "ps", "float64": "pd"}[dtype]
        operations = {"mul": " * ", "sub": " - ", "div": " / ", "sqrt": "sqrt("}
        for operation in (key for key, symbol in operations.items() if symbol in rule):
            packed = re.findall(rf"\bv?{operation}{kind}\b.*%{wide}", code)
            assert packed, (name, dtype, operation)
        assert ("prefetch" in code) == (multi_tensor.PREFETCHED or traversal.endswith("rows")), name
        contracted = re.findall(r"\bvfn?m(?:add|sub)\w+", code)
        assert not contracted, (name, contracted)


FORMATS = [
    ("float32", {"state_dtype": "float16"}),
    ("bfloat16", {"state_dtype": "bfloat16", "rounding": "kahan"}),
    ("float32", {"state_dtype": "8bit"}),
]


def test_loops_over_elements_call_no_function(tmp_path):
    """In every format the update of an element is inlined: LLVM vectorizes no other loop."""
    if os.uname().machine != "x86_64":
        pytest.skip("reads x86-64 machine code")
    script = f"""
        import ml_dtypes
        import numpy as np
        import gpuadapt as ga
        from gpuadapt.kernels.cpu import multi_tensor
        from gpuadapt.optimizer import internals
        for name, settings in {FORMATS!r}:
            dtype = ml_dtypes.bfloat16 if name == "bfloat16" else name
            optimizer = ga.Adam(np.zeros(8, dtype), **settings)
            formats = internals(optimizer).parameters["0"].formats
            (text,) = multi_tensor.kernel(optimizer.rule, formats).inspect_asm().values()
            print("===", name, settings, text)
    """
    kernels = python(script, GPUADAPT_CACHE_DIR=str(tmp_path), timeout=400).split("=== ")[1:]
    assert len(kernels) == len(FORMATS)
    symbol = r"(?:movabsq\s+\$|call\w*\s+)_ZN\d+gpuadapt_generated\d+(adam_[0-9a-f]{16})(\w+?)B\d"
    for kernel in kernels:
        called = {name.lstrip("0123456789") for _, name in re.findall(symbol, kernel)}
        assert called == {"launch", "run_share", "run_chunks"}, kernel.split("\n", 1)[0]
