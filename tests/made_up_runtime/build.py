"""Installs CuPy in a folder of its own, with a library of ours where it calls CUDA.

CuPy's wheel finds the driver and NVRTC when it is imported, but has the CUDA runtime inside the one
module that calls it, `cupy_backends.cuda.api.runtime`. CuPy's source can be built without CUDA, for
its documentation, and its calls then end in functions that do nothing (`CUPY_INSTALL_USE_STUB`).
That module alone is built so, with these functions declared only, and takes the place of the
wheel's. All else is the wheel as it is published.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

LIBRARIES = "libcuda.so.1", "libnvrtc.so.12"
"""Names under which CuPy asks for the driver and for NVRTC; the second is a link to the first."""

MODULE = "cupy_backends/cuda/api/runtime"
STUBS = "cupy_backends/stub/cupy_cuda_runtime.h"


def open_calls(stubs: str) -> tuple[str, list[str]]:
    """Declare the functions of the CUDA runtime instead of defining them.

    Parameters
    ----------
    stubs : str
        CuPy's header whose functions do nothing.

    Returns
    -------
    tuple
        The header with declarations, and the functions' names.
    """
    head = r"^((?:const char\*|cudaError_t|int) (cuda\w+)\([^)]*\)) ?\{.*?^\}"
    defined = re.compile(head, re.MULTILINE | re.DOTALL)
    return defined.sub(r"\1;", stubs), [name for _, name in defined.findall(stubs)]


def _edit(path: Path, pattern: str, text: str) -> None:
    before = path.read_text(encoding="utf-8")
    after, found = re.subn(pattern, text, before, flags=re.MULTILINE | re.DOTALL)
    if not found:
        raise SystemExit(f"{path}: nothing is like {pattern!r}; has CuPy been written anew?")
    path.write_text(after, encoding="utf-8")


def patch(source: Path) -> list[str]:
    """Let the module of CuPy's source call the library, and build nothing else.

    Parameters
    ----------
    source : Path
        The folder of CuPy's source.

    Returns
    -------
    list of str
        Names of the functions that the library must have.
    """
    text, names = open_calls((source / STUBS).read_text(encoding="utf-8"))
    (source / STUBS).write_text(text, encoding="utf-8")
    api = source / "cupy_backends" / "cuda" / "api"
    named = f"object libname = '{LIBRARIES[0]}'"
    _edit(api / "_runtime_softlink.pxi", r"object libname = None", named)
    # Without CUDA, the module does not know of which kind memory is.
    attributes = r"(struct cudaPointerAttributes\{)"
    _edit(source / STUBS.replace("runtime", "common"), attributes, r"\1\n    int type;")
    struct = r"IF 0 < CUPY_CUDA_VERSION:(\s*ctypedef struct _PointerAttributes)"
    _edit(api / "_runtime_typedef.pxi", struct, r"IF 1:\1")
    answer = (
        r"IF CUPY_CUDA_VERSION > 0(?: or 6\w+ <= CUPY_HIP_VERSION)?:(\s*return (?:Pointer|attrs))"
    )
    _edit(api / "runtime.pyx", answer, r"IF 1:\1")
    # Nor CUDA's version, by which CuPy 13 looks for NVRTC.
    _edit(api / "runtime.pyx", r"IF 0 < CUPY_CUDA_VERSION:(\s*major =)", r"IF 1:\1")
    # Nor the device's properties.
    given = r"\1    return {**__import__('made_up_cuda').PROPERTIES}\n"
    _edit(api / "runtime.pyx", r"(^cpdef getDeviceProperties\(int device\):\n)", given)
    builder = source / "install" / "cupy_builder"
    only = f"_cuda_files = ['{MODULE.replace('/', '.')}']"
    _edit(builder / "_features.py", r"^ *'cupy.fft._callback',$", "")
    _edit(builder / "_features.py", r"^_cuda_files = \[.*?^\]", only)
    _edit(builder / "cupy_setup_build.py", r"\[m\['name'\] for m in MODULES\]", "['cuda']")
    return names


def _pip(*arguments: str) -> None:
    environment = os.environ | {"CUPY_INSTALL_USE_STUB": "1"}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env=environment)


def _module(version: str, folder: Path) -> None:
    """Build the module, and write it and the names of its functions to the folder."""
    archive = folder / f"cupy-{version}.tar.gz"
    if not archive.exists():
        _pip("download", "--no-deps", "--no-binary", "cupy", f"cupy=={version}", "-d", str(folder))
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    names = patch(folder / f"cupy-{version}")
    (folder / "functions.txt").write_text("\n".join(names), encoding="utf-8")
    _pip("wheel", "--no-cache-dir", "--no-deps", str(folder / f"cupy-{version}"), "-w", str(folder))


def install(version: str, folder: Path) -> Path:
    """Build and install CuPy, once.

    Parameters
    ----------
    version : str
        Version of CuPy, such as ``"14.2.0"``.
    folder : Path
        Where its source, the built module and the package go.

    Returns
    -------
    Path
        The folder of the package, for ``PYTHONPATH``.
    """
    site, done = folder / "site", folder / "installed"
    if done.exists():
        return site
    folder.mkdir(parents=True, exist_ok=True)
    _module(version, folder)
    # CuPy before 14 locks by a package of its own.
    beside = [] if int(version.split(".")[0]) > 13 else ["fastrlock"]
    _pip("install", "--no-deps", "--target", str(site), f"cupy-cuda12x=={version}", *beside)
    (wheel,) = folder.glob("cupy-*.whl")
    with zipfile.ZipFile(wheel) as built:
        (name,) = (n for n in built.namelist() if n.startswith(MODULE) and n.endswith(".so"))
        assert (site / name).exists()
        built.extract(name, site)
    # CuPy would warn of a second CuPy that is installed beside it.
    loads = "import made_up_cuda as _made_up\n_made_up.load()"
    _edit(
        site / "cupy" / "__init__.py", r"^_environment\._detect_duplicate_installation\(\)", loads
    )
    done.touch()
    return site


def library(folder: Path) -> None:
    """Compile the runtime for CuPy to load, with a refusal for each function that it lacks."""
    text = (HERE / "runtime.cpp").read_text(encoding="utf-8")
    names = (folder / "functions.txt").read_text(encoding="utf-8").split()
    text += "".join(
        f'EXPORT int {name}(...) {{ return made_up_missing("{name}"); }}\n'
        for name in names
        if not re.search(rf"^EXPORT .*\b{name}\(", text, re.MULTILINE)
    )
    source = folder / "runtime.cpp"
    source.write_text(text, encoding="utf-8")
    driver, nvrtc = (folder / name for name in LIBRARIES)
    _link(driver, str(source), "-ldl")
    # A library without functions, which needs the other one: its functions are found through it.
    nothing = "-x", "c++", "/dev/null", "-x", "none"
    _link(nvrtc, *nothing, "-Wl,--no-as-needed", str(driver), "-Wl,-rpath,$ORIGIN")


def _link(made: Path, *inputs: str) -> None:
    """Make a library, in place of one that another process may be using."""
    beside = made.with_suffix(f".{os.getpid()}")
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", f"-Wl,-soname,{made.name}"]
    subprocess.run(["g++", *flags, *inputs, "-o", str(beside)], check=True)
    beside.replace(made)
