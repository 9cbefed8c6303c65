"""Fill arrays from an open file: through memory, or directly where they are memory maps."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.commit import Call, make

from ..arrays import bits_of, copy_calls
from ..errors import DamagedFileError, NotReadError
from ..parameter import Parameter
from ..state import Plan
from .contents import Contents
from .safetensors_file import Stored, has_direct_calls

Parameters = Mapping[str, Parameter]

Direct = list[tuple[str, HostArray]]
"""Names of tensors, and the memory maps that are filled from the file."""


def read(
    file: Contents, planned: Plan, given: dict[str, HostArray], parameters: Parameters
) -> Direct:
    """Read what a load takes, and compare all checksums of the file.

    What goes into memory maps is not kept, and taken out of the plan: together with the arrays
    of a table larger than memory, it would not fit there.

    Parameters
    ----------
    file : Contents
    planned : Plan
        Its `Stored` are replaced by arrays.
    given : dict of str to ndarray
        Numbers of parameters, by name; the same holds.
    parameters : mapping of str to Parameter

    Raises
    ------
    DamagedFileError, NotReadError
    """
    direct: Direct = []
    for name, numbers in [*given.items()]:
        del given[name]
        if (array := _read(file, numbers, _first(parameters[name], numbers), direct)) is not None:
            given[name] = array
    for name, saved in planned.arrays.items():
        own = {} if name in planned.rows else parameters[name].saved_arrays
        arrays = {key: _read(file, one, own.get(key), direct) for key, one in saved.items()}
        planned.arrays[name] = {key: one for key, one in arrays.items() if one is not None}
    file.file.verify()
    return direct


def _first(parameter: Parameter, numbers: HostArray) -> Array:
    """The array of a parameter, or the first rows of it."""
    array = parameter.array
    return array if array.shape == numbers.shape else array[: len(numbers)]


def _read(file: Contents, saved: Any, destination: Array | None, direct: Direct) -> Any:
    """An array that was saved; None if it is entered into ``direct``."""
    if isinstance(saved, Stored) and has_direct_calls(destination) and is_memory_map(destination):
        direct.append((saved.name, destination))
        return None
    return file.read(saved)


def is_memory_map(array: Any) -> bool:
    """Return whether an array is a view of a file that is mapped into memory."""
    while array is not None:
        if isinstance(array, (np.memmap, mmap.mmap)):
            return True
        array = getattr(array, "base", getattr(array, "obj", None))
    return False


def parameter_calls(parameters: Parameters, given: Mapping[str, HostArray]) -> list[Call]:
    """Return the calls that write parameters, or the first rows of longer tables."""
    calls: list[Call] = []
    for name, numbers in given.items():
        part = _first(parameters[name], numbers)
        calls += copy_calls(part, numbers if part.dtype == numbers.dtype else bits_of(numbers))
    return calls


def fill(file: Contents, direct: Direct, calls: Sequence[Call]) -> None:
    """Fill memory maps from a file, and make the other calls of a load, as one.

    Raises
    ------
    NotReadError
        The disk failed, and the memory maps that are named hold numbers of before and of the file.
    DamagedFileError
        The file was changed at the same time, with the same result.
    """
    own = [call for name, array in direct for call in file.file.direct_calls(name, array)]
    names = ", ".join(repr(name) for name, _ in direct)
    after = f"{names} may hold numbers of before and of the file: load again; steps are refused"
    try:
        make([*own, *calls])
    except OSError as error:
        if not direct:
            raise
        raise NotReadError(f"{file.file.path}: {error}; the memory maps of {after}") from error
    for name, array in direct:
        try:
            file.file.compare(name, array)
        except DamagedFileError as error:
            raise DamagedFileError(
                f"{error}; it changed while it was loaded, and {after}"
            ) from None
