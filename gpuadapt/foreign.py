"""Arrays of other libraries, as NumPy or CuPy arrays of the same memory.

Types of torch and JAX are looked up where these have been imported; any other object offers its
memory by ``__cuda_array_interface__``, ``__array_interface__``, a buffer or ``__dlpack__``.
"""

from __future__ import annotations

import sys
from array import array as python_array
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array, DeviceArray

from .arrays import address, backend_of, check_device, describe, namespace, numpy_dtype
from .errors import BackendError, GradientError, ParameterError, StateError

LEAVES = (str, bytes, bytearray, memoryview, python_array)
"""Types of sequences whose elements are no arrays."""

PROTOCOLS = ("__cuda_array_interface__", "__array_interface__", "__dlpack__")

HOST_DEVICES = (1, 3)
"""DLPack's numbers of memory that the CPU can read: its own, and pinned for CUDA."""

READ_ONLY = "whose memory is read-only: pass a writable array, such as a copy (numpy.array(x))"


class _Refused(Exception):
    """The end of an error message, which begins with a relative pronoun."""


class _Interface:
    """The ``__cuda_array_interface__`` of an object, without the stream."""

    def __init__(self, owner: Any, interface: dict[str, Any]) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = interface | {"stream": None}


def offers_memory(given: Any) -> bool:
    """Return True if an object offers its memory by a protocol or as a buffer."""
    kind = type(given)  # asking the object itself may raise an error
    return any(hasattr(kind, name) for name in PROTOCOLS) or _buffer(given) is not None


def as_array(
    label: str,
    given: Any,
    error: type[GradientError | ParameterError | StateError] = GradientError,
    writable: bool = False,
) -> Any:
    """Return a NumPy or CuPy array with the memory of another library's array.

    Work that is under way on the array's own stream comes before what CuPy's current stream gets.
    The numbers are copied where memory has others: of a tensor whose negative bit is set.

    Parameters
    ----------
    label : str
        The beginning of error messages, such as "gradient of 'w'".
    given : object
    error : type, optional
        The type of errors.
    writable : bool, optional
        Refuse read-only memory, and memory with other numbers.

    Returns
    -------
    array, or ``given`` itself if that is a NumPy or CuPy array, a number, or no array at all

    Raises
    ------
    GradientError, ParameterError or StateError
        The array has no memory that can be read (or written).
    BackendError
        The array is on a GPU, and CuPy is missing.
    """
    torch = sys.modules.get("torch")
    if not writable and type(given) is getattr(torch, "Tensor", None):
        try:
            return given.numpy()
        except (RuntimeError, TypeError):  # it has no plain numbers in memory
            pass
    elif backend_of(given) is not None or isinstance(given, np.generic):
        return given
    try:
        return _converted(given, writable)
    except BackendError:
        raise
    except _Refused as reason:
        raise error(f"{label}: got {describe(given)}, {reason}") from None
    except Exception as cause:
        raise error(
            f"{label}: got {describe(given)}, which cannot be read as an array: {cause}"
        ) from cause


def _converted(given: Any, writable: bool) -> Any:
    torch = _library_of(given, "torch", "Tensor")
    if torch is not None:
        return _of_tensor(torch, given, writable)
    if _library_of(given, "jax", "Array") is not None:
        return _of_jax(given, writable)
    if hasattr(given, "__cuda_array_interface__"):
        return _of_cuda(given, writable)
    buffer = _buffer(given)
    if hasattr(given, "__array_interface__"):
        array = np.asarray(given)
    elif buffer is not None:
        array = np.asarray(buffer)
    elif not hasattr(given, "__dlpack__"):
        return given
    elif given.__dlpack_device__()[0] not in HOST_DEVICES:
        return _from_dlpack(given)
    else:
        array = np.from_dlpack(given)
    if writable and not array.flags.writeable:
        raise _Refused(READ_ONLY)
    return array


def _library_of(given: Any, module: str, name: str) -> Any:
    """Return a library if it has been imported and the object is of its type; else None."""
    library = sys.modules.get(module)
    # Another thread may be importing it just now.
    return library if isinstance(given, getattr(library, name, ())) else None


def _buffer(given: Any) -> memoryview | None:
    try:
        return memoryview(given)
    except (TypeError, BufferError):
        return None


def _of_tensor(torch: Any, tensor: Any, writable: bool) -> Array:
    """Return the memory of a torch tensor; bfloat16 by its bits, which NumPy has no type for."""
    _check_tensor(torch, tensor, writable)
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_neg() or tensor.is_conj():
        tensor = tensor.resolve_conj().resolve_neg()
    bits = tensor.dtype is torch.bfloat16
    if bits:
        tensor = tensor.view(torch.int16)
    array = tensor.numpy() if tensor.is_cpu else _from_dlpack(tensor)
    return array.view(numpy_dtype("bfloat16", backend_of(array) or "")) if bits else array


def _check_tensor(torch: Any, tensor: Any, writable: bool) -> None:
    """Check that a torch tensor has memory that can be read or written."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise _Refused(
            "a subclass of torch.Tensor, which may keep its numbers elsewhere: pass a plain tensor "
            "(of a DTensor its to_local())"
        )
    if tensor.layout is not torch.strided:
        raise _Refused(
            f"whose layout is {tensor.layout}: pass a dense tensor (to_dense()); the gradient of a "
            "table may also be a COO tensor with one sparse dimension"
        )
    if not (tensor.is_cpu or tensor.is_cuda):
        raise _Refused(f"which is on device {tensor.device}, not on the CPU or a CUDA device")
    if not writable:
        return
    if tensor.is_inference():
        raise _Refused("which was made in inference mode and may not be changed: pass its clone()")
    if not tensor.is_leaf:
        raise _Refused(
            "which is computed from other tensors: pass these, or detach() for its own memory"
        )
    if tensor.is_neg() or tensor.is_conj():
        raise _Refused(
            "whose memory has other numbers than it shows, since its negative or conjugate bit is "
            "set: pass a copy (resolve_conj().resolve_neg())"
        )


def sparse_rows(label: str, given: Any) -> tuple[Any, Any] | None:
    """Return row indices and values of a sparse torch tensor in COO format; None of other objects.

    Parameters
    ----------
    label : str
        The beginning of error messages.
    given : object

    Returns
    -------
    (tensor of int64, shape (n,); tensor, shape (n, \\*row shape)) or None
        Views of the tensor's memory, which may have duplicates.

    Raises
    ------
    GradientError
        More than one of its dimensions is sparse.
    """
    if not getattr(given, "is_sparse", False) or _library_of(given, "torch", "Tensor") is None:
        return None
    if given.sparse_dim() != 1:
        raise GradientError(
            f"{label}: got a COO tensor with {given.sparse_dim()} sparse dimensions, expected one: "
            "pass to_dense(), or RowGrad(rows, values)"
        )
    return given._indices()[0], given._values()


def _of_jax(given: Any, writable: bool) -> Array:
    if writable:
        raise _Refused(
            "which is read-only, as JAX's arrays are: keep the parameter in a NumPy array "
            "(numpy.array(x)), and give JAX a copy (jax.numpy.array(w)) after each step; gradients "
            "may be JAX's"
        )
    on_host = all(device.platform == "cpu" for device in given.devices())
    return np.asarray(given) if on_host else _from_dlpack(given)


def _of_cuda(given: Any, writable: bool) -> DeviceArray:
    interface = given.__cuda_array_interface__
    if writable and interface["data"][1]:
        raise _Refused(READ_ONLY)
    check_device()
    array = namespace("cuda").asarray(_Interface(given, interface))
    _join(array, interface.get("stream"), before=True)
    return array


def _from_dlpack(given: Any) -> DeviceArray:
    """Import an array on a GPU, whose library lets CuPy's current stream wait for its own."""
    check_device()
    return namespace("cuda").from_dlpack(given)


def _join(array: DeviceArray, stream: int | None, before: bool) -> None:
    """Let CuPy's current stream wait for another, or the other for CuPy's, and not the host."""
    cuda = namespace("cuda").cuda
    with array.device:
        current = cuda.get_current_stream()
        # What a graph captures is ordered by its replays.
        if stream is None or stream == current.ptr or current.is_capturing():
            return
        other = cuda.ExternalStream(stream)
        first, then = (other, current) if before else (current, other)
        then.wait_event(first.record())


def place(label: str, given: Any) -> tuple[Any, ...]:
    """Return where the elements of another library's parameter lie, and how.

    The results of two calls differ if the array has been given other memory in between. Streams
    wait as by `as_array`.

    Parameters
    ----------
    label : str
        The beginning of error messages.
    given : object

    Raises
    ------
    ParameterError
        The array has no memory any more that can be written.
    """
    if _library_of(given, "torch", "Tensor") is not None and given.is_cpu:
        return given.data_ptr(), given.dtype, given.shape, given.stride(), given.is_neg()
    array = as_array(label, given, ParameterError, writable=True)
    return address(array), array.dtype, array.shape, array.strides


def written(pairs: Iterable[tuple[Any, Array]]) -> None:
    """Tell other libraries that their arrays have been written to.

    torch then raises an error where a gradient needs the numbers before. The streams that arrays on
    a GPU name as their own wait for CuPy's current stream.

    Parameters
    ----------
    pairs : iterable of (object, array)
        Arrays of other libraries, and the results of `as_array`.
    """
    for given, array in pairs:
        torch = _library_of(given, "torch", "Tensor")
        if torch is not None and hasattr(torch.autograd.graph, "increment_version"):
            torch.autograd.graph.increment_version(given)
        if isinstance(array, np.ndarray):
            continue
        if torch is not None:
            _join(array, torch.cuda.current_stream(given.device).cuda_stream, before=False)
        elif hasattr(given, "__cuda_array_interface__"):
            _join(array, given.__cuda_array_interface__.get("stream"), before=False)
