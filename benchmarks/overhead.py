"""What a step costs besides memory traffic: import, compilation, Python, in fresh processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

IMPORT = """
import time; start = time.perf_counter()
import gpuadapt
print(time.perf_counter() - start)
"""

FIRST_STEP = """
import time; start = time.perf_counter()
import gpuadapt, numpy
w = numpy.ones(1000, numpy.float32)
gpuadapt.Adam(w).step(w.copy())
print(time.perf_counter() - start)
"""


def measure(quick: bool) -> dict[str, Any]:
    """Seconds: import; import and first Adam step, with an empty cache and with a full one."""
    repeats = 3 if quick else 9
    with tempfile.TemporaryDirectory() as cache:
        _run(IMPORT, cache)  # fills the file cache
        first = []
        for index in range(3):
            first.append(_run(FIRST_STEP, os.path.join(cache, str(index))))
        return {
            "import": statistics.median(_run(IMPORT, cache) for _ in range(repeats)),
            "first step ever": statistics.median(first),
            "first step, second process": statistics.median(
                _run(FIRST_STEP, os.path.join(cache, "0")) for _ in range(repeats)
            ),
        }


def _run(script: str, cache: str) -> float:
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "GPUADAPT_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(result.stdout)
