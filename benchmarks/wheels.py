"""`python wheels.py FOLDER`: those wheels of a folder that this machine needs, a line each.

`python wheels.py`: what this machine has and lacks, and how to fetch it.

They are gpuadapt's own, and of the others those whose package is not installed, or is older than
gpuadapt or its tests ask for. Imports nothing that would have to be installed.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

OWN = "gpuadapt"


def needed(folder: Path) -> Iterator[Path]:
    """The wheels to install.

    Raises
    ------
    FileNotFoundError
        There is no wheel of gpuadapt, or more than one.
    """
    wheels = sorted(folder.glob("*.whl"))
    own = [wheel for wheel in wheels if _name(wheel) == OWN]
    if len(own) != 1:
        raise FileNotFoundError(
            f"{folder} has {len(own)} wheels of {OWN}, and one is needed: "
            f"run `bash benchmarks/gpu.sh needs {folder}` where there is a network"
        )
    least = _least(own[0])
    for wheel in wheels:
        name = _name(wheel)
        try:
            here = _numbers(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield wheel
        else:
            if name == OWN or here < least.get(name, ()):
                yield wheel


def _name(wheel: Path) -> str:
    return _normal(wheel.name.split("-")[0])


def _normal(name: str) -> str:
    """A package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _least(wheel: Path) -> dict[str, tuple[int, ...]]:
    """The least version that a wheel asks for, by package."""
    with zipfile.ZipFile(wheel) as file:
        metadata = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        lines = file.read(metadata).decode().splitlines()
    found = (re.match(r"Requires-Dist: ([\w.-]+)>=([\d.]+)", line) for line in lines)
    return {_normal(match[1]): _numbers(match[2]) for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])


OWN_ON_GPUS = {"numpy": "", "numba": "llvmlite", "cupy": "cuda-pathfinder fastrlock"}
"""What a machine with a GPU should have of its own, and what comes with it."""

FETCHED = ("platformdirs", "tbb", "ml_dtypes", "pytest", "pytest-xdist", "hypothesis")
"""What `gpu.sh needs WHEELS` fetches without being asked, and what that needs."""

OPTIONAL = {"torch": "it is left out of the comparison"}


def lacking() -> list[str]:
    """Lines that say what is here, and the command that fetches what is not."""
    lines, missing = [], []
    for name in (*OWN_ON_GPUS, *OPTIONAL, *FETCHED):
        found = _version_of_any(name)
        lines.append(f"{name} {found}" if found else f"{name}: missing{_so(name)}")
        if not found and name in OWN_ON_GPUS:
            package = "cupy-cuda12x" if name == "cupy" else name
            missing += [package, *OWN_ON_GPUS[name].split()]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    words = ["bash benchmarks/gpu.sh needs wheels --python-version", version, *missing]
    return [
        f"Python {sys.version.split()[0]}",
        *lines,
        f"Where there is a network: {' '.join(words)}",
    ]


def _so(name: str) -> str:
    """What follows if a package is missing."""
    if name in FETCHED:
        return ", which the command below fetches"
    if name == "cupy":
        return ": cupy-cuda12x or cupy-cuda13x, by the driver that nvidia-smi names"
    return f": {OPTIONAL[name]}" if name in OPTIONAL else ", which the command below names"


def _version_of_any(name: str) -> str:
    """A package's version, or that of one with CUDA's version in its name; "" if it is missing."""
    for package in (name, f"{name}-cuda12x", f"{name}-cuda13x"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def main() -> str | None:
    """Print them; returns what is wrong."""
    if len(sys.argv) < 2:
        print(*lacking(), sep="\n")
        return None
    try:
        print(*(wheel.absolute() for wheel in needed(Path(sys.argv[1]))), sep="\n")
    except FileNotFoundError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
