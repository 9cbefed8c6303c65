"""How long the host is busy with a step of small arrays, for which a GPU then waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.benchmark.timing import interleaved

from . import overhead
from .failures import WHOLE

COUNTS = (1, 10, 1_000)


def entries(backend: str, quick: bool) -> Iterator[dict[str, Any]]:
    """As `overhead.entries`: seconds of the host for a step; on a GPU it waits for nothing."""
    for count in COUNTS:
        errors: Errors = {}
        with noted(errors, WHOLE):
            candidates = overhead.small_steps(count, backend, errors)
            # By the host's clock also on a GPU: its kernels take less time than their launches.
            times = interleaved(candidates, "cpu", 5 if quick else 25, errors=errors)
            for name, time in times.items():
                label = f"host time of a step of {count:,} arrays of one element, {name}"
                yield {"name": label, "value": time["median"], "unit": "s"}
        if errors:
            yield {"name": f"host time of a step of {count:,} arrays", "errors": errors}
