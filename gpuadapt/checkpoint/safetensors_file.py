"""The format of files: safetensors with a version, a checksum per tensor and one of the header.

A file is the length of the header (8 bytes, little-endian), the header (JSON) and the tensors, in
C order, little-endian, without gaps (https://huggingface.co/docs/safetensors). ``__metadata__`` of
the header has besides the caller's strings

- ``format`` and ``version``: "gpuadapt" and `VERSION`;
- ``crc32``: JSON, 8 hexadecimal digits by name of tensor;
- ``sha256``: the digest of length and header, with zeros in its own place.

Headers are checked against the length of the file before anything is allocated, so a file that is
damaged or made to harm is an error. Files are read, not mapped: a mapped file that another process
cuts short ends the process that reads it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray

from ..errors import CheckpointError, DamagedFileError, NotReadError
from .chunks import CHUNK, bytes_of, chunks, length, put

FORMAT, VERSION = "gpuadapt", 1
"""The version is incremented when the meaning of files changes; older ones stay readable."""

LIMIT = 100_000_000
"""Bytes of the longest header, that of the safetensors package."""

DEPTH = 8
"""Levels of objects and lists of the deepest header."""

DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "I64": np.dtype(np.int64), "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16), "I8": np.dtype(np.int8), "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32), "U16": np.dtype(np.uint16), "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}  # fmt: skip
"""By safetensors' name."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}

STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string of JSON; possessive, so that a long one without an end takes no quadratic time."""

NO_DIGEST = "0" * 64

Progress = Callable[[int, int], object]
"""Called with (bytes written, bytes in all)."""


class Tensor(NamedTuple):
    """Where a tensor lies in a file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    """The offset from the end of the header, bytes."""
    stop: int


def write(
    fd: int,
    tensors: Mapping[str, tuple[Array, np.dtype]],
    metadata: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Write a file; the header comes last, because it has the checksums.

    Parameters
    ----------
    fd : int
        An empty file.
    tensors : mapping of str to (array, dtype)
        NumPy or CuPy arrays of any strides, and the dtype in the file, which has the array's bits.
    metadata : mapping of str to str
    progress : callable, optional

    Raises
    ------
    CheckpointError
        The names and settings do not fit into a header.
    OSError
    """
    names = sorted(tensors, key=lambda name: (-tensors[name][1].itemsize, name))
    placed: dict[str, Tensor] = {}
    stop = 0
    for name in names:
        array, dtype = tensors[name]
        start, stop = stop, stop + array.size * dtype.itemsize
        placed[name] = Tensor(dtype, tuple(array.shape), start, stop)
    begin = len(_header(placed, metadata, dict.fromkeys(names, 0)))
    _reserve(fd, begin + stop)
    os.lseek(fd, begin, os.SEEK_SET)
    checksums, done = {}, 0
    for name in names:
        array, checksum = tensors[name][0], 0
        for index in chunks(placed[name].shape, placed[name].dtype.itemsize):
            data = bytes_of(array, index)
            checksum = zlib.crc32(data, checksum)
            _write_all(fd, data)
            done += len(data)
            if progress is not None:
                progress(done, stop)
        checksums[name] = checksum
    os.lseek(fd, 0, os.SEEK_SET)
    _write_all(fd, memoryview(_header(placed, metadata, checksums)))


def _header(
    placed: Mapping[str, Tensor], metadata: Mapping[str, str], checksums: Mapping[str, int]
) -> bytes:
    """Return length and header; the same number of bytes for any checksums."""
    about = {
        "format": FORMAT, "version": str(VERSION), **metadata,
        "crc32": compact({name: f"{value:08x}" for name, value in checksums.items()}),
        "sha256": NO_DIGEST,
    }  # fmt: skip
    header: dict[str, Any] = {"__metadata__": about}
    for name, one in placed.items():
        header[name] = {
            "dtype": NAMES[one.dtype],
            "shape": list(one.shape),
            "data_offsets": [one.start, one.stop],
        }
    text = compact(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    if len(text) > LIMIT:
        raise CheckpointError(
            f"the names and settings take {len(text):,} bytes, and a safetensors file has at most "
            f"{LIMIT:,}: save in several optimizers, or put large JSON values into arrays"
        )
    data = len(text).to_bytes(8, "little") + text
    ours = f'"sha256":"{NO_DIGEST}"'.encode()
    at = data.rindex(ours) + len(ours) - 1 - len(NO_DIGEST)
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:at] + digest + data[at + len(digest) :]


def compact(value: Any) -> str:
    """Return a value as JSON without spaces; raises ValueError for NaN and infinities."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _reserve(fd: int, size: int) -> None:
    """Take the space on the disk now, where the file system can."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Stored(np.ndarray):
    """Stands for a tensor that has not been read: has its dtype and shape, and takes no memory.

    Attributes
    ----------
    name : str
        The tensor's name.
    """

    name: str


class SafetensorsFile:
    """An open file whose header has been checked.

    Attributes
    ----------
    path : str
    metadata : dict of str to str
    tensors : dict of str to Tensor
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path, self._fd = path, fd
        size = os.fstat(fd).st_size
        head = self._read(8, 0) if size >= 8 else b""
        count = int.from_bytes(head, "little")
        if not (head and 2 <= count <= min(size - 8, LIMIT)):
            raise DamagedFileError(f"{path}: it has no header of a safetensors file")
        raw = head + self._read(count, 8)
        self._begin = len(raw)
        try:
            self.metadata, self.tensors = parse(raw)
            if (end := _end(self.tensors)) != size - self._begin:
                raise DamagedFileError(
                    f"it has {size:,} bytes, and its header says {self._begin + end:,}"
                )
            self._checksums = _checksums(self.metadata, self.tensors)
        except CheckpointError as error:
            raise type(error)(f"{path}: {error}") from None
        self._compared: set[str] = set()

    def _read(self, count: int, at: int) -> bytes:
        """Return bytes of the file."""
        data = b""
        try:
            while len(data) < count:
                if not (more := _read_at(self._fd, count - len(data), at + len(data))):
                    raise DamagedFileError(
                        f"{self.path}: it ends at byte {at + len(data):,}; something has cut it "
                        "short while it was read"
                    )
                data += more
        except OSError as error:
            raise not_read(self.path, error) from error
        return data

    def verify(self) -> None:
        """Compare the checksums of all tensors that have not been read.

        Raises
        ------
        DamagedFileError, NotReadError
        """
        for name, one in self.tensors.items():
            if name in self._compared:
                continue
            checksum = 0
            for start in range(one.start, one.stop, CHUNK):
                count = min(start + CHUNK, one.stop) - start
                checksum = zlib.crc32(self._read(count, self._begin + start), checksum)
            self._check(name, checksum)

    def _check(self, name: str, checksum: int) -> None:
        if checksum != self._checksums[name]:
            raise DamagedFileError(
                f"{self.path}: the checksum of {name!r} is wrong: the file is damaged; load an "
                "older one (gpuadapt.latest finds the newest that is whole)"
            )
        self._compared.add(name)

    def stored(self, name: str) -> Stored:
        """Return what stands for a tensor until it is read."""
        one = self.tensors[name]
        array = np.broadcast_to(np.zeros((), one.dtype), one.shape).view(Stored)
        array.name = name
        return array

    def array(self, name: str) -> HostArray:
        """Return a tensor as a new NumPy array.

        Raises
        ------
        CheckpointError
            There is not enough memory.
        DamagedFileError, NotReadError
        """
        one = self.tensors[name]
        try:
            array = np.empty(one.shape, one.dtype)
        except MemoryError as error:
            raise CheckpointError(f"{self.path}: {name!r} takes too much memory: {error}") from None
        self.read_into(name, array)
        return array

    def read_into(self, name: str, array: HostArray) -> None:
        """Read a tensor chunk by chunk into an array of its shape, of elements of its size.

        Raises
        ------
        DamagedFileError, NotReadError
            The array may have been written to.
        """
        one = self.tensors[name]
        at, checksum, size = self._begin + one.start, 0, one.dtype.itemsize
        for index in chunks(one.shape, size):
            data = self._read(length(one.shape, size, index), at)
            checksum = zlib.crc32(data, checksum)
            put(array, index, data)
            at += len(data)
        self._check(name, checksum)


@contextmanager
def opened(path: Any) -> Iterator[SafetensorsFile]:
    """Open a file and check its header.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    NotReadError
        There is no such file, or it cannot be read.
    DamagedFileError
        It is no file of gpuadapt, or damaged.
    CheckpointError
        A later version of gpuadapt has written it.
    """
    name = os.fsdecode(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise not_read(name, error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotReadError(f"{name}: expected a file, got a folder or a device")
        yield SafetensorsFile(name, fd)
    finally:
        os.close(fd)


def not_read(name: str, error: Exception) -> NotReadError:
    """Return the error for a file that the system does not give."""
    made = NotReadError(f"{name}: it cannot be read: {error}")
    made.errno = getattr(error, "errno", None)
    return made


def _read_at(fd: int, count: int, at: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, count, at)
    os.lseek(fd, at, os.SEEK_SET)
    return os.read(fd, count)


def parse(raw: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Check length and header of a file.

    Parameters
    ----------
    raw : bytes

    Returns
    -------
    metadata : dict of str to str
    tensors : dict of str to Tensor
        In the order in which they lie in the file, without gaps.

    Raises
    ------
    DamagedFileError, CheckpointError
    """
    header = parse_json(raw[8:])
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
    if not (isinstance(metadata, dict) and all(type(one) is str for one in metadata.values())):
        metadata = {}
    if metadata.get("format") != FORMAT:
        raise DamagedFileError("`save` has not written it: its header does not say so")
    if not re.fullmatch("[1-9][0-9]{0,8}", metadata.get("version", "")):
        raise DamagedFileError("its header has no version")
    if int(metadata["version"]) > VERSION:
        raise CheckpointError(
            f"it has version {metadata['version']} of the format, and this gpuadapt reads versions "
            f"up to {VERSION}: load it with a later gpuadapt"
        )
    claimed = metadata.pop("sha256", "").encode()
    if len(claimed) != len(NO_DIGEST) or raw.count(claimed) != 1:
        raise DamagedFileError("its header has no digest")
    if hashlib.sha256(raw.replace(claimed, NO_DIGEST.encode())).hexdigest().encode() != claimed:
        raise DamagedFileError("the digest of its header is wrong: the file is damaged")
    tensors = {name: _tensor(name, entry) for name, entry in header.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1][2:]))
    end = 0
    for name, one in tensors.items():
        if one.start != end:
            raise DamagedFileError(f"its header has a gap or an overlap before {name!r}")
        end = one.stop
    return metadata, tensors


def parse_json(data: bytes | str, depth: int = DEPTH) -> Any:
    """Parse JSON of a file, without NaN and infinities, doubled names and deep nesting.

    Parameters
    ----------
    data : bytes or str
    depth : int
        Levels of objects and lists at most.

    Raises
    ------
    DamagedFileError
    """
    data = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    keep = bytes(set(range(256)) - set(b"[]{}"))
    brackets = np.frombuffer(STRING.sub(b"", data).translate(None, keep), np.uint8)
    levels = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1).cumsum()
    if levels.size and levels.max() > depth:
        raise DamagedFileError("its JSON is nested too deeply")
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_without_doubles, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"its JSON is wrong: {error}") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _tensor(name: str, entry: Any) -> Tensor:
    """Check the entry of a tensor in a header."""
    if isinstance(entry, dict) and {*entry} == {"dtype", "shape", "data_offsets"}:
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
        if lists and all(type(one) is int and 0 <= one < 2**63 for one in (*shape, *offsets)):
            dtype = DTYPES.get(kind) if isinstance(kind, str) else None
            start, stop = offsets
            if dtype is not None and stop - start == math.prod(shape) * dtype.itemsize:
                found = Tensor(dtype, tuple(shape), start, stop)
                _check_shape(found)
                return found
    raise DamagedFileError(f"its header has a wrong entry of {name!r}")


def _check_shape(tensor: Tensor) -> None:
    """Refuse a shape of which NumPy has no arrays; takes no memory."""
    try:
        np.broadcast_to(np.zeros((), tensor.dtype), tensor.shape)
    except (ValueError, OverflowError) as error:
        raise DamagedFileError(f"its header has a shape that NumPy refuses: {error}") from None


def _checksums(metadata: dict[str, str], tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Take the checksums out of the metadata."""
    found = parse_json(metadata.pop("crc32", ""))
    if isinstance(found, dict) and found.keys() == tensors.keys():
        texts = found.values()
        if all(isinstance(one, str) and re.fullmatch("[0-9a-f]{8}", one) for one in texts):
            return {name: int(text, 16) for name, text in found.items()}
    raise DamagedFileError("its header has no checksums of its tensors")


def _end(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of bytes of all tensors."""
    return max((one.stop for one in tensors.values()), default=0)
