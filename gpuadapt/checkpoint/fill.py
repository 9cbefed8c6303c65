"""Numbers of an open file, brought to arrays: through memory, or directly into memory maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.commit import Call

from ..arrays import bits_of, copy_calls
from ..parameter import Parameter
from ..state import Plan
from .contents import Contents
from .safetensors_file import Stored

Parameters = Mapping[str, Parameter]


def read(
    file: Contents, planned: Plan, given: dict[str, HostArray], parameters: Parameters
) -> dict[str, Stored]:
    """Read what a load takes, and compare all checksums of the file; changes no parameter.

    Parameters
    ----------
    file : Contents
    planned : Plan
        Its `Stored` are replaced by arrays.
    given : dict of str to ndarray
        Numbers of parameters, by name; the same holds, but for what is returned.
    parameters : mapping of str to Parameter

    Returns
    -------
    dict of str to Stored
        What goes into parameters that are memory maps, for `fill`; they are taken out of ``given``,
        for they may be larger than memory.

    Raises
    ------
    CheckpointError, DamagedFileError, NotReadError
    """
    direct: dict[str, Stored] = {}
    for name, numbers in [*given.items()]:
        if isinstance(numbers, Stored) and is_memory_map(parameters[name].array):
            direct[name] = numbers
            del given[name]
        else:
            given[name] = file.read(numbers)
    for name, saved in planned.arrays.items():
        planned.arrays[name] = {key: file.read(one) for key, one in saved.items()}
    file.source.verify()
    return direct


def is_memory_map(array: Any) -> bool:
    """Return whether an array is a view of a `numpy.memmap`."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def fill(file: Contents, direct: Mapping[str, Stored], parameters: Parameters) -> None:
    """Read from a file into memory maps. What raises, or interrupts, leaves a part of it in them.

    Raises
    ------
    DamagedFileError, NotReadError
    """
    for name, stored in direct.items():
        file.source.read_into(stored.name, _first(parameters[name], stored))


def parameter_calls(parameters: Parameters, given: Mapping[str, HostArray]) -> list[Call]:
    """Return the calls that write parameters, or the first rows of longer tables."""
    calls: list[Call] = []
    for name, numbers in given.items():
        part = _first(parameters[name], numbers)
        calls += copy_calls(part, numbers if part.dtype == numbers.dtype else bits_of(numbers))
    return calls


def _first(parameter: Parameter, numbers: HostArray) -> Array:
    """The array of a parameter, or its first rows if the numbers are of fewer."""
    array = parameter.array
    return array if array.shape == numbers.shape else array[: len(numbers)]
