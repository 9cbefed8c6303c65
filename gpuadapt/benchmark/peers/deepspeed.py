"""DeepSpeed's CPUAdam, which compiles itself when it is first made (needs a C++ compiler)."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

from ..candidates import Make
from . import torch
from .installed import load

NAME = "deepspeed"
PACKAGES = ("deepspeed",)
DTYPES = ("float32",)


@cache
def library() -> Any:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    ninja = load("ninja")
    if ninja is None:
        return None
    # Its compiler driver looks for ninja where programs are.
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ["PATH"]])
    return load("deepspeed")


def makers(method: str, backend: str) -> dict[str, Make]:
    if (method, backend) != ("adam", "cpu"):
        return {}
    kind = partial(load("deepspeed.ops.adam").DeepSpeedCPUAdam, adamw_mode=False)
    return {"deepspeed": partial(torch.make, kind, "adam", "cpu")}
