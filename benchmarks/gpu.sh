#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: every test, then every benchmark.
# Usage: gpu.sh FOLDER [arguments of the benchmarks, such as: dense --quick]
# Uses the python3 that is active, which needs setuptools, platformdirs, numba, ml_dtypes, CuPy, pytest,
# hypothesis and, for the comparison, torch; tests of `gpuadapt compare` also its extra.
set -uo pipefail
output=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
python3 -m pip install --quiet --no-deps --no-build-isolation -e . || exit 1
status=0
nvidia-smi >"$output/nvidia-smi.txt"
skip=()
python3 -c "import matplotlib, rich, sklearn" 2>"$output/left-out.txt" ||
    skip=(--ignore tests/test_cli.py --ignore tests/test_compare_formats.py --ignore tests/test_grid.py --ignore tests/test_words.py --ignore gpuadapt/compare)
# One process, one GPU; pytest-xdist need not be there.
python3 -m pytest -o addopts="--doctest-modules --import-mode=importlib" -q "${skip[@]}" >"$output/tests.txt" 2>&1 || status=1
tail -n 25 "$output/tests.txt"
python3 -m benchmarks "$@" --backend cuda --json "$output/cuda.json" || status=1
exit $status
