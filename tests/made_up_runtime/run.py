"""Runs the tests of backend "gpu" with the real CuPy, over a CUDA that is made up.

`python tests/made_up_runtime/run.py --cupy 14.2.0 --work FOLDER` installs CuPy there, which takes
some minutes the first time, and runs the tests of a GPU. What follows ``--`` goes to pytest
instead. CuPy's own Python and Cython are run, and gpuadapt's kernels and launches through them;
`runtime.cpp` says what takes CUDA's place, and what it refuses.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ON_GPU = "gpu or every_backend or every_kind or backends_agree or stats_are_of_rows"
"""Tests that run on a GPU, by parameter or by a loop over backends: as in `benchmarks/gpu.sh`."""

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def environment(folder: Path, site: Path, schedule: str) -> dict[str, str]:
    """Variables for a process that imports this CuPy."""
    (folder / "kernels").mkdir(exist_ok=True)
    paths = [str(site), str(HERE), str(ROOT / "tests"), str(ROOT)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "MADE_UP_CUDA": str(folder),
        "MADE_UP_SCHEDULE": schedule,
        "CUPY_CACHE_IN_MEMORY": "1",
        "CUPY_ACCELERATORS": "",  # they are compiled by CUDA's compiler
    }


def main() -> int:
    """Install what is not installed yet, and run pytest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cupy", default="14.2.0", help="version of CuPy")
    parser.add_argument("--work", type=Path, required=True, help="folder of sources and builds")
    parser.add_argument("--schedule", default="late", help="late, soon or drawn:SEED")
    parser.add_argument(
        "pytest", nargs="*", help="arguments of pytest, instead of all tests of a GPU"
    )
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from build import install, library

    folder = given.work.resolve() / given.cupy
    site = install(given.cupy, folder)
    library(folder)
    arguments = given.pytest or ["tests", "-k", ON_GPU]
    command = [sys.executable, "-m", "pytest", "-p", "reporting", *arguments]
    variables = environment(folder, site, given.schedule)
    return subprocess.run(command, env=variables, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
