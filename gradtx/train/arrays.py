"""Reading arrays from `.npz` files, whose headers are checked before any array is allocated."""

import io
import math
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from gradtx._arguments import counted

INFLATION = 100
ALWAYS_READ = 2**28
"""Compressed files may inflate to `INFLATION` times their size, or to `ALWAYS_READ` bytes if that
is more. Real data sets inflate less; a file of zeros inflates a thousandfold."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def size_in_bytes(shape: Sequence[int], dtype: np.dtype) -> int:
    """Returns the size of an array in bytes, if NumPy can hold one of this shape.

    Args:
      shape: the shape that a file announces.
      dtype: the dtype.

    Raises:
      ValueError: a length is negative, there are more than 64 axes, or the array would have 2**63
        bytes or more without its lengths of zero, which NumPy rejects even for empty arrays.

    Example:
      >>> import numpy as np
      >>> from gradtx.train.arrays import size_in_bytes
      >>> size_in_bytes((2, 3), np.dtype("float32"))
      24
    """
    if min(shape, default=0) < 0:
        raise ValueError(f"the lengths of an array must be at least 0, got {tuple(shape)}")
    if len(shape) > 64:
        raise ValueError(f"an array must have at most 64 dimensions, got {len(shape)}")
    if math.prod(length or 1 for length in shape) * dtype.itemsize >= 2**63:
        raise ValueError(f"an array must have less than 2**63 bytes, got shape {tuple(shape)}")
    return math.prod(shape) * dtype.itemsize


def file_size(file: BinaryIO) -> int:
    """Returns the size of an open file in bytes."""
    position = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(position)
    return size


def check_inflation(file: BinaryIO, announced: int) -> None:
    """Raises an error if a compressed file announces much more than its size; see `INFLATION`.

    Args:
      file: the file.
      announced: the number of bytes that it announces.

    Raises:
      ValueError: it announces too much.
    """
    size = file_size(file)
    if announced > max(INFLATION * size, ALWAYS_READ):
        raise ValueError(
            f"it would inflate from {size} to {announced} bytes, more than {INFLATION} times; if "
            "that is right, store it without compression"
        )


def read_npz(
    file: BinaryIO, names: Sequence[str] | None = None, *, compressed: bool = True
) -> dict[str, np.ndarray]:
    """Reads arrays from a `.npz` file; nothing is unpickled.

    Args:
      file: the file, opened for reading.
      names: the names of the arrays to be read; others are ignored. Default: all.
      compressed: whether arrays may be compressed, within the limits of `check_inflation`.
        Default: yes.

    Raises:
      ValueError: an array is missing, or its header does not fit its content.
      Exception: of any type, if the file is damaged in another way.

    Example:
      >>> import io
      >>> import numpy as np
      >>> from gradtx.train.arrays import read_npz
      >>> file = io.BytesIO()
      >>> np.savez(file, x=np.arange(3), y=np.ones(2))
      >>> read_npz(file, ["x"], compressed=False)
      {'x': array([0, 1, 2])}
    """
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise ValueError("it has two entries of the same name")
        if missing := [name for name in names or () if name not in entries]:
            raise ValueError(
                f"lacks {', '.join(missing)}; it has {', '.join(entries) or 'no arrays'}"
            )
        wanted = {name: entries[name] for name in (entries if names is None else names)}
        for name, info in wanted.items():
            _check_compression(name, info, compressed)
        announced = sum(info.file_size for info in wanted.values())
        if compressed:
            check_inflation(file, announced)
        elif announced > file_size(file):
            raise ValueError(
                f"it announces {counted(announced, 'byte')} of arrays, more than it has"
            )
        for name, info in wanted.items():
            _check_header(archive, name, info)
        return {name: _array(archive, info) for name, info in wanted.items()}


def _check_compression(name: str, info: zipfile.ZipInfo, compressed: bool) -> None:
    # The decoders of other methods may inflate any amount at once.
    methods = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
    if not compressed:
        del methods[zipfile.ZIP_DEFLATED]
    if info.compress_type not in methods:
        raise ValueError(
            f"{name} must be {' or '.join(methods.values())}, got compression method "
            f"{info.compress_type}"
        )


def _check_header(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> None:
    with archive.open(info) as entry:
        try:
            version = np.lib.format.read_magic(entry)
            if version not in _HEADERS:
                raise ValueError(f"the version must be 1.0 or 2.0, got {version}")
            shape, _, dtype = _HEADERS[version](entry)
            announced, found = size_in_bytes(shape, dtype), info.file_size - entry.tell()
        except ValueError as error:
            raise ValueError(f"{name} is not an array in NumPy's format: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"{name} must hold numbers, not Python objects")
    if announced != found:
        raise ValueError(
            f"{name}: the header announces shape {shape} of {dtype}, "
            f"{counted(announced, 'byte')}; the file has {found}"
        )


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)
