"""The IDX file format, in which MNIST is distributed."""

import gzip
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gradtx._arguments import counted
from gradtx.train.arrays import check_inflation, file_size, size_in_bytes
from gradtx.train.errors import DataError
from gradtx.train.files import reading

# The third byte of a file says how its numbers are stored; all are big-endian.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | Path) -> np.ndarray:
    """Reads an array from an IDX file, plain or compressed with gzip.

    The file is two zero bytes, a byte for the dtype, a byte for the number of dimensions, each
    dimension as a big-endian 32-bit integer, and the numbers in row-major order. Compression is
    recognized by the first bytes, whatever the name. No more is read than the header announces, and
    a compressed file must not announce more than 100 times its size, or 256 MiB if that is more.

    Args:
      path: the file.

    Returns:
      The array, in the machine's byte order.

    Raises:
      DataError: the file cannot be read, is not a regular file or not an IDX file, or its size is
        not the one that its header announces.

    Example:
      >>> import tempfile, pathlib
      >>> from gradtx.train import read_idx
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
      >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
      >>> read_idx(path)
      array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    with reading(path, DataError, "damaged gzip file") as file:
        start = file.read(2)
        file.seek(0)
        if start == _GZIP_MAGIC:
            return _array(path, file, gzip.GzipFile(fileobj=file))
        if path.suffix == ".gz" and start != b"\0\0":
            raise DataError(
                f"{path}: damaged gzip file: it begins with bytes {start.hex(' ')}, not "
                f"{_GZIP_MAGIC.hex(' ')}"
            )
        return _array(path, file, file)


def _array(path: Path, file: BinaryIO, content: BinaryIO | gzip.GzipFile) -> np.ndarray:
    """Reads the header, and then no more than the header announces."""
    start = content.read(4)
    if len(start) < 4:
        raise DataError(f"{path}: an IDX header has 4 bytes, the file has {len(start)}")
    if start[:2] != b"\0\0":
        raise DataError(
            f"{path}: not an IDX file: it begins with bytes {start[:2].hex(' ')}, not 00 00"
        )
    code, ndim = start[2], start[3]
    if code not in _DTYPES:
        known = ", ".join(f"{c:#04x}" for c in _DTYPES)
        raise DataError(f"{path}: dtype code {code:#04x} is not one of IDX's: {known}")
    lengths = content.read(4 * ndim)
    if len(lengths) < 4 * ndim:
        raise DataError(
            f"{path}: the header announces {counted(ndim, 'dimension')}, so "
            f"{4 + 4 * ndim} bytes of header; the file has {4 + len(lengths)}"
        )
    shape = tuple(np.frombuffer(lengths, ">u4").tolist())
    dtype = np.dtype(_DTYPES[code])
    compressed = content is not file
    try:
        announced = size_in_bytes(shape, dtype)
        if compressed:
            check_inflation(file, announced)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    # The size of a plain file is known before it is read.
    found = announced if compressed else file_size(file) - file.tell()
    data = np.empty(announced if found == announced else 0, np.uint8)
    if found == announced:
        found = _fill(data, content) + len(content.read(1))
    if found != announced:
        what = "truncated" if found < announced else "trailing bytes"
        more = " or more" if compressed and found > announced else ""
        raise DataError(
            f"{path}: {what}: the header announces shape {shape}, "
            f"{counted(announced, 'byte')} of data; the file has {found}{more}"
        )
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _fill(data: np.ndarray, content: BinaryIO | gzip.GzipFile) -> int:
    """Reads bytes into an array, in pieces, and returns how many there were."""
    found = 0
    while found < len(data) and (piece := content.read(min(len(data) - found, 2**20))):
        data[found : found + len(piece)] = np.frombuffer(piece, np.uint8)
        found += len(piece)
    return found
