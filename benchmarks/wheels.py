"""`python wheels.py FOLDER`: those wheels of a folder that this machine needs, a line each.

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
            f"run `bash benchmarks/gpu.sh prepare {folder}` where there is a network"
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


def main() -> str | None:
    """Print them; returns what is wrong."""
    try:
        print(*(wheel.absolute() for wheel in needed(Path(sys.argv[1]))), sep="\n")
    except FileNotFoundError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
