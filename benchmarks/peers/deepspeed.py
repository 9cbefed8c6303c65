"""DeepSpeed's CPUAdam, which compiles itself when it is first made (needs a C++ compiler)."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

from ..training import Make
from . import torch

NAME = "deepspeed"
DTYPES = ("float32",)


@cache
def library() -> Any:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
        import ninja
    except ImportError:
        return None
    # Its compiler driver looks for ninja where programs are.
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ["PATH"]])
    return deepspeed


def version() -> str | None:
    return library() and library().__version__


def makers(method: str, backend: str) -> dict[str, Make]:
    if (method, backend) != ("adam", "cpu"):
        return {}
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    kind = partial(DeepSpeedCPUAdam, adamw_mode=False)
    return {"deepspeed": partial(torch.make, kind, "adam", "cpu")}
