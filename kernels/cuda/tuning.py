"""Launch parameters of kernels, by family, as they were tuned for a kind of GPU.

They decide how fast a kernel is, never its bits. ``python -m benchmarks.tune`` measures them and
writes a JSON file, which is read here when an optimizer is made: ``tuning.json`` in the folder of
`gpuadapt.kernels.user_folder`, or the file that ``GPUADAPT_TUNING`` names ("none": no file). A file
that cannot be used issues one `TuningWarning`, and the defaults of `default` are used.
"""

from __future__ import annotations

import json
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .. import user_folder
from ..errors import TuningWarning
from ..formats import BLOCK, Formats

VERSION = 1
"""The number of the file's layout and of what its parameters mean."""

ROWS = "rows"
"""The family of kernels that update rows of a table."""

STREAMING = ("none", "gradients", "all")
"""Arrays that are read and written with the hint that they are not needed again soon."""

BLOCKS = 256
"""Blocks that keep a GPU busy: about two for each of its multiprocessors."""


class Launch(NamedTuple):
    """Launch parameters of a kernel."""

    chunk: int = 4096
    """Most elements of a chunk, which a block updates; a power of two. Few for the sake of small
    arrays, many for the sake of a block's first loads; see `chunk`."""
    threads: int = 256
    """Threads of a block, a multiple of 32."""
    access: int = 16
    """Bytes that a thread loads or stores at once of the arrays with the largest elements. So the
    accesses of a warp have no gaps; those of 16-bit arrays beside float32 have half as many bytes.
    """
    groups: int = 1
    """Accesses of each array that a thread loads before it computes, if all elements have one size;
    as many bytes of the smallest elements otherwise."""
    streaming: str = "none"
    """One of `STREAMING`."""


ALLOWED: dict[str, tuple[Any, ...]] = {
    "chunk": tuple(2**k for k in range(9, 18)),
    "threads": (64, 128, 256, 512),
    "access": (8, 16),
    "groups": (1, 2, 4),
    "streaming": STREAMING,
}
"""Values of each parameter with which kernels are correct; see `allowed`."""

REGISTERS = 65536
"""Registers of a multiprocessor, all of which a block may have; a thread has 255 at most."""


def family(formats: Formats) -> str:
    """Name the family of the kernel that updates whole arrays of these formats."""
    if formats.block:
        return "8-bit blocks"
    sizes = " and ".join(map(str, dict.fromkeys(formats.itemsizes)))
    return f"elements of {sizes} bytes{', random' * formats.random}"


def default(family: str) -> Launch:
    """Return the parameters of a family on a GPU for which nothing was tuned."""
    return Launch(threads=128) if family == ROWS else Launch()


def allowed(family: str, parameter: str) -> tuple[Any, ...]:
    """Return the values that a parameter of a family may have; () if there is no such parameter."""
    values = ALLOWED.get(parameter, ())
    if family == ROWS and parameter == "threads":
        return tuple(value for value in values if 256 * value <= REGISTERS)
    return values


def options(launch: Launch) -> tuple[str, ...]:
    """Return the options of NVRTC with which a block of so many threads has enough registers."""
    each = REGISTERS // launch.threads
    return (f"--maxrregcount={each}",) if each < 256 else ()


def launch(family: str) -> Launch:
    """Return the parameters of a family on the current device."""
    return tuned().get(family, default(family))


def tuned() -> dict[str, Launch]:
    """Return the parameters that a file has for the current device, by family."""
    name = os.environ.get("GPUADAPT_TUNING", "")
    if name == "none":
        return {}
    try:
        file = str(path())
    except RuntimeError:  # there is no home directory, so no file in it either
        return {}
    kinds = read(file, bool(name))
    return kinds.get(kind(), {}) if kinds else {}


def path() -> Path:
    """Return the path of the file: what ``GPUADAPT_TUNING`` says, or that in the user's folder."""
    return Path(os.environ.get("GPUADAPT_TUNING") or user_folder.chosen() / "tuning.json")


def kind() -> str:
    """Return the name and the compute capability of the current device."""
    import cupy

    return _kind(cupy.cuda.Device().id)


@cache
def _kind(device: int) -> str:
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(device)["name"].decode()
    return f"{name}, {cupy.cuda.Device(device).compute_capability}"


@cache
def read(path: str, named: bool = True) -> dict[str, dict[str, Launch]]:
    """Read a file: kind of GPU to family to parameters; empty, with a warning, if it is unusable.

    Parameters
    ----------
    path : str
    named : bool
        The file must be there.
    """
    try:
        content = Path(path).read_text(encoding="utf-8")
        return parsed(content)
    except FileNotFoundError as error:
        fault = str(error) if named else ""
    except (OSError, ValueError) as error:
        fault = str(error)
    if fault:
        warnings.warn(
            f"the tuned launch parameters in {path} are not used: {fault}. Kernels have their "
            "defaults, and the same bits. Remove the file, or write it anew with `python -m "
            "benchmarks.tune --backend cuda`",
            TuningWarning,
            stacklevel=2,
        )
    return {}


def parsed(content: str) -> dict[str, dict[str, Launch]]:
    """Parse the content of a file.

    Raises
    ------
    ValueError
        It is no such file, of another version, or has a parameter that no kernel may have.
    """
    file = json.loads(content)
    version = file.get("version") if isinstance(file, dict) else None
    if version != VERSION:
        raise ValueError(f"it has version {version}, and this gpuadapt reads version {VERSION}")
    devices = file.get("devices")
    if not isinstance(devices, dict) or not all(isinstance(d, dict) for d in devices.values()):
        raise ValueError('"devices" is not a table of kinds of GPUs')
    return {
        device: {name: _launch(name, given) for name, given in families.items()}
        for device, families in devices.items()
    }


def _launch(family: str, given: Any) -> Launch:
    """Parameters of a family as the file has them; those that are missing have their defaults."""
    if not isinstance(given, dict):
        raise ValueError(f'"{family}" is not a table of parameters')
    for name, value in given.items():
        values = allowed(family, name)
        if type(value) not in (int, str) or value not in values:
            choice = f", not one of {', '.join(map(str, values))}" if values else ""
            raise ValueError(f'"{family}" has {name} = {value!r}{choice}')
    return default(family)._replace(**given)


def chunk(launch: Launch, formats: Formats, total: int) -> int:
    """Return the elements of a chunk: fewer where ``total`` elements give fewer than `BLOCKS`.

    A thread of a chunk has at least one access, and a warp a block of elements that share a scale;
    a chunk is still a power of two.
    """
    own = BLOCK // 32 if formats.block else max(launch.access // formats.itemsizes[1], 1)
    least, size = launch.threads * own, launch.chunk
    while size > least and total < BLOCKS * size:
        size //= 2
    return size


def macros(launch: Launch, formats: Formats) -> dict[str, object]:
    """Return the macros of a kernel of whole arrays of these formats."""
    smallest, largest = formats.itemsizes
    return {
        "chunk": launch.chunk,
        "threads": launch.threads,
        "elements": max(launch.access // largest, 1),
        "groups": launch.groups * largest // smallest,
        "streaming": STREAMING.index(launch.streaming),
    }
