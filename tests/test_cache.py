"""The folder of compiled kernels: what is read from it, who may write to it, and doing without."""

import errno
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path

import numba
import pytest

from gpuadapt import CacheWarning
from gpuadapt.kernels.cpu import cache_folder, compile, machine_code

TEXT = """
from gpuadapt.kernels.cpu.machine_code import njit

@njit(["float64(float64)"], cache=True)
def product(x):
    return {} * x
"""

LOAD = f"""
    import os, pathlib, random, sys
    from gpuadapt.kernels.cpu import cache_folder, compile

    def load(factor=2):
        product = compile.load("product", {TEXT!r}.format(factor)).product
        return product(3.0), sum(product.stats.cache_hits.values())
"""


def load(factor=2):
    """What a compiled function returns for 3, and how often machine code was read for it."""
    product = compile.load("product", TEXT.format(factor)).product
    return product(3.0), sum(product.stats.cache_hits.values())


def start(script, *arguments, **environment):
    """A process that runs a script; a value None takes a variable out of its environment."""
    merged = {**os.environ, **environment}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={name: value for name, value in merged.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """What a process printed; neither an exception nor a signal has ended it."""
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return out


def as_another_process(monkeypatch):
    """Forget what this process knows of the folder."""
    cache_folder.directory.cache_clear()
    monkeypatch.setattr(cache_folder, "_warned", False)


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """An empty folder that is the chosen one for the duration of a test."""
    chosen = tmp_path / "cache"
    monkeypatch.setenv("GPUADAPT_CACHE_DIR", str(chosen))
    as_another_process(monkeypatch)
    yield chosen
    cache_folder.directory.cache_clear()


def loads_with_one_warning(match):
    """Load two functions: both are right, and there is one warning in all."""
    with pytest.warns(CacheWarning, match=match) as issued:
        assert [load(factor)[0] for factor in (2, 5)] == [6, 15]
    assert len([one for one in issued if one.category is CacheWarning]) == 1


def loads_without_warning(hits):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        assert load() == (6, hits)


def code_file(folder):
    (file,) = folder.rglob("*.code")
    return file


FLIPS = 40

FLIP = (
    LOAD
    + f"""
    chance = random.Random(int(sys.argv[1]))
    load()
    files = sorted(cache_folder.directory().iterdir())
    assert len(files) == 2, files
    good = {{file: file.read_bytes() for file in files}}
    for _ in range({FLIPS}):
        file = chance.choices(files, [7 if file.suffix == ".code" else 1 for file in files])[0]
        content = bytearray(good[file])
        # Half of the flips are in the first bytes, which say what the others mean.
        limit = chance.choice([min(400, len(content)), len(content)])
        content[chance.randrange(limit)] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        damaged = load()
        assert damaged == (6, int(file.suffix == ".py")), (damaged, file)
        assert load() == (6, 1), file
    print("whole")
"""
)


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_is_found_and_mended(tmp_path, seed):
    """The function is compiled again and its file replaced; nothing raises or ends the process."""
    process = start(FLIP, seed, GPUADAPT_CACHE_DIR=str(tmp_path))
    assert finish(process).strip() == "whole"


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_foreign_data_is_not_used(chosen, tmp_path):
    load(), load(5)
    # The files of one text: the other one's machine code is foreign to it.
    files = {file.name.split(".")[0]: file for file in chosen.rglob("*.code")}
    file, other = files.values()
    good, marker = file.read_bytes(), tmp_path / "ran"
    factor = 2 if "2 *" in file.with_name(f"{file.name.split('.')[0]}.py").read_text() else 5
    nonsense = {
        "nothing": b"",
        "cut": good[:-1],
        "longer": good + b"\0",
        "of another function": other.read_bytes(),
        "a pickle": pickle.dumps(Planted(marker)),
        "a pickle behind a digest of it alone": machine_code.seal(
            "", pickle.dumps(Planted(marker))
        ),
        "no pickle": machine_code.seal(file.name, b"no pickle"),
        "a pickle of something else": machine_code.seal(file.name, pickle.dumps((1, 2))),
        "a module that is not there": machine_code.seal(file.name, b"cnowhere\nnothing\n."),
    }
    for name, content in nonsense.items():
        file.write_bytes(content)
        assert load(factor) == (3 * factor, 0), name
        assert load(factor) == (3 * factor, 1), name
        # A recompiled file need not have the bytes of the first: only its digest has to be right.
        assert machine_code.unseal(file.name, file.read_bytes()), name
    assert not marker.exists()


def to_another_user(path, monkeypatch):
    if os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)


def by_a_link(path, monkeypatch):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def by_a_foreign_link(path, monkeypatch):
    by_a_link(path, monkeypatch)
    if os.geteuid() == 0:
        os.chown(path, 4242, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)


def mode(bits):
    return lambda path, monkeypatch: path.chmod(bits)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such modes")
@pytest.mark.parametrize(
    ("target", "change", "reason"),
    [
        ("trusted", mode(0o700), None),
        ("chosen", mode(0o1777), None),
        ("chosen", mode(0o777), "can be written by other users"),
        ("chosen", mode(0o770), "can be written by other users"),
        ("chosen", to_another_user, "belongs to user"),
        ("chosen", by_a_link, None),
        ("chosen", by_a_foreign_link, "is a symbolic link of user"),
        ("folder", mode(0o777), "can be written by other users"),
        ("folder", mode(0o1777), "can be written by other users"),
        ("folder", mode(0o775), "can be written by other users"),
        ("folder", to_another_user, "belongs to user"),
        ("folder", by_a_link, "is a symbolic link"),
        ("file", mode(0o666), "can be written by other users"),
        ("file", mode(0o620), "can be written by other users"),
        ("file", to_another_user, "belongs to user"),
        ("file", by_a_link, "cannot be read"),
    ],
)
def test_planted_code_does_not_run(chosen, tmp_path, monkeypatch, target, change, reason):
    """Not where another may have written it; the cases without a reason show that it would run."""
    load()
    file, marker = code_file(chosen), tmp_path / "ran"
    file.write_bytes(machine_code.seal(file.name, pickle.dumps(Planted(marker))))
    targets = {"chosen": chosen, "folder": file.parent, "file": file, "trusted": chosen}
    change(targets[target], monkeypatch)
    as_another_process(monkeypatch)
    if reason is None:
        loads_without_warning(hits=0)
        assert marker.exists()
    else:
        loads_with_one_warning(reason)
        assert not marker.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such modes")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (mode(0o777), "can be written by other users"),
        (to_another_user, "belongs to user"),
        (by_a_link, "is a symbolic link"),
    ],
)
def test_a_folder_that_is_exchanged_during_a_process(chosen, tmp_path, monkeypatch, change, reason):
    """As below /tmp, whose old files a system may delete; nothing is written there either."""
    load()
    file, marker = code_file(chosen), tmp_path / "ran"
    file.write_bytes(machine_code.seal(file.name, pickle.dumps(Planted(marker))))
    before = {path.name for path in file.parent.iterdir()}
    change(file.parent, monkeypatch)
    loads_with_one_warning(reason)
    assert not marker.exists()
    assert {path.name for path in file.parent.iterdir()} == before


def test_modes_do_not_depend_on_the_umask(chosen, monkeypatch):
    monkeypatch.setenv("GPUADAPT_CACHE_DIR", str(chosen / "deep" / "er"))
    for umask in (0, 0o277):
        shutil.rmtree(chosen, ignore_errors=True)
        as_another_process(monkeypatch)
        before = os.umask(umask)
        try:
            loads_without_warning(hits=0)
        finally:
            os.umask(before)
        for path in (chosen, *chosen.rglob("*")):
            expected = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == expected, path
        assert {path.suffix for path in chosen.rglob("*.*") if path.is_file()} == {".py", ".code"}


def raising(number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(
    ("module", "name"), [(os, "mkdir"), (tempfile, "mkstemp"), (os, "replace")]
)
def test_a_disk_that_refuses(chosen, monkeypatch, module, name, number):
    monkeypatch.setattr(module, name, raising(number))
    loads_with_one_warning("are not kept")
    assert not [path for path in chosen.rglob("*") if path.is_file()]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk(chosen, monkeypatch):
    def mkstemp(dir, suffix):
        Path(dir, "new.tmp").touch()
        return os.open("/dev/full", os.O_WRONLY), str(Path(dir, "new.tmp"))

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    loads_with_one_warning("No space left")
    assert not [path for path in chosen.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "name", ["/dev/null/cache", "~nosuchuser/cache", "x" * 5000, "/proc/cache"]
)
def test_a_path_of_nonsense(chosen, monkeypatch, name):
    monkeypatch.setenv("GPUADAPT_CACHE_DIR", name)
    loads_with_one_warning("there is no folder for them")


def test_a_file_in_the_way_of_the_folder(tmp_path):
    """Training goes on."""
    (tmp_path / "file").touch()
    script = """
        import warnings
        import numpy as np, gpuadapt as ga
        w = np.ones(5)
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always")
            ga.SGD(w, lr=0.5).step(np.ones(5))
        print(w[0], *(one.category.__name__ for one in issued))
    """
    process = start(script, GPUADAPT_CACHE_DIR=str(tmp_path / "file"))
    assert finish(process).split() == ["0.5", "CacheWarning"]


def test_a_warm_cache_that_is_read_only_is_used(chosen, monkeypatch):
    """As in an image that root has built and another user runs."""
    load()
    for path in (chosen, *chosen.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
    for module, name in [(os, "mkdir"), (tempfile, "mkstemp"), (os, "replace")]:
        monkeypatch.setattr(module, name, raising(errno.EROFS))
    as_another_process(monkeypatch)
    loads_without_warning(hits=1)
    with pytest.warns(CacheWarning, match="cannot be written"):  # what is new is not kept
        assert load(5) == (15, 0)
    for path in (chosen, *chosen.rglob("*")):
        path.chmod(0o700)


def test_a_user_without_home_and_entry():
    script = """
        import pwd
        def missing(name):
            raise KeyError(name)
        pwd.getpwuid = pwd.getpwnam = missing
    """
    names = ["HOME", "XDG_CACHE_HOME", "GPUADAPT_CACHE_DIR"]
    script = textwrap.dedent(script) + textwrap.dedent(LOAD) + "print(load()[0], load(5)[0])"
    process = start(script, **dict.fromkeys(names))
    out, errors = process.communicate(timeout=240)
    assert (process.returncode, out.split()) == (0, ["6.0", "15.0"]), errors
    assert errors.count("CacheWarning") == 1, errors


@pytest.mark.parametrize("which", ["numba", "llvmlite", "processor", "features"])
def test_versions_and_processors_keep_their_kernels_side_by_side(chosen, monkeypatch, which):
    import llvmlite
    import llvmlite.binding

    changes = {
        "numba": (numba, "__version__", "0.1"),
        "llvmlite": (llvmlite, "__version__", "0.1"),
        "processor": (llvmlite.binding, "get_host_cpu_name", lambda: "another/../processor"),
        "features": (llvmlite.binding, "get_host_cpu_features", raising_runtime_error),
    }
    hits = []
    for changed in (False, True, False, True):
        with monkeypatch.context() as patch:
            if changed:
                patch.setattr(*changes[which])
            as_another_process(patch)
            value, found = load()
            hits.append(found)
            assert value == 6 and cache_folder.directory().parent == chosen
    assert hits == [0, 0, 1, 1]
    assert len(list(chosen.iterdir())) == 2


def raising_runtime_error():
    raise RuntimeError("LLVM does not know this processor")


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    script = LOAD + "\n    print(*(load(factor)[0] for factor in range(2, 8)))"
    processes = [start(script, GPUADAPT_CACHE_DIR=str(tmp_path)) for _ in range(3)]
    expected = [str(3.0 * factor) for factor in range(2, 8)]
    assert [finish(process).split() for process in processes] == [expected] * 3
    kinds = [path.suffix for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(kinds) == [".code"] * 6 + [".py"] * 6
    script = LOAD + "\n    print(*(load(factor)[1] for factor in range(2, 8)))"
    assert finish(start(script, GPUADAPT_CACHE_DIR=str(tmp_path))).split() == ["1"] * 6


def test_the_exit_of_a_forked_child_leaves_the_folder(tmp_path):
    script = (
        LOAD
        + """
    load()
    child = os.fork()
    if child == 0:
        load(5)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(*load(), *load(5))
"""
    )
    for folder, hits in ((tmp_path, "1"), ("/dev/null/cache", "0")):
        process = start(script, GPUADAPT_CACHE_DIR=str(folder))
        assert finish(process).split() == ["6.0", hits, "15.0", hits]


RANDOM_BITS = """
    import hashlib, sys
    import ml_dtypes
    import numpy as np
    import gpuadapt as ga

    dtype, settings = eval(sys.argv[1])
    w = np.random.default_rng(0).normal(size=(6, 40)).astype(dtype)
    before = w.copy()
    optimizer = ga.Adam(w, lr=0.1, seed=2**63 - 25, **settings)
    for step in range(6):
        rows = np.array([4, step % 6, 4, 0])
        values = np.random.default_rng(step).normal(size=(4, 40)).astype(np.float32)
        optimizer.step(ga.RowGrad(rows, values))
    optimizer.flush()
    assert np.isfinite(w.astype(np.float32)).all() and (w != before).all()
    digest = hashlib.sha256(w.tobytes())
    for array in optimizer.state["0"].values():
        parts = (array.codes, array.scales) if hasattr(array, "codes") else (array,)
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
    print(digest.hexdigest())
"""
STOCHASTIC = ("bfloat16", {"rounding": "stochastic"})


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        STOCHASTIC,
        ("float32", {"state_dtype": "8bit"}),
        ("float32", {"state_dtype": "bfloat16"}),
        ("bfloat16", {"rounding": "stochastic", "sparse": "exact"}),
        ("float32", {"state_dtype": "bfloat16", "sparse": "exact", "exactness": "bits"}),
    ],
    ids=str,
)
def test_random_bits_without_compilation(dtype, settings):
    """Rows with random bits run as plain Python; one kind is compared with compiled kernels."""
    case = repr((dtype, settings))
    digest = finish(start(RANDOM_BITS, case, NUMBA_DISABLE_JIT="1"))
    if (dtype, settings) == STOCHASTIC:
        assert finish(start(RANDOM_BITS, case)) == digest
