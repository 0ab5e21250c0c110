"""The IDX file format, in which MNIST is distributed."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from gradtx.train.errors import DataError

# The third byte of a file says how its numbers are stored; all are big-endian.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | Path) -> np.ndarray:
    """Reads an array from an IDX file, plain or compressed with gzip.

    The file is two zero bytes, a byte for the dtype, a byte for the number of dimensions, each
    dimension as a big-endian 32-bit integer, and the numbers in row-major order. Compression is
    recognized by the first bytes, whatever the name.

    Args:
      path: the file.

    Returns:
      The array, in the machine's byte order.

    Raises:
      DataError: the file cannot be read, or its size differs from that of its header.

    Example:
      >>> import tempfile, pathlib
      >>> from gradtx.train import read_idx
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
      >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
      >>> read_idx(path)
      array([7, 2, 1], dtype=uint8)
    """
    content = _content(Path(path))
    if len(content) < 4:
        raise DataError(f"{path}: {len(content)} bytes are too short for an IDX header of 4 bytes")
    if content[:2] != b"\0\0":
        raise DataError(
            f"{path}: not an IDX file: it begins with bytes {content[:2].hex(' ')}, not 00 00"
        )
    code, ndim = content[2], content[3]
    if code not in _DTYPES:
        known = ", ".join(f"{c:#04x}" for c in _DTYPES)
        raise DataError(f"{path}: dtype code {code:#04x} is not one of IDX's: {known}")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise DataError(
            f"{path}: the header announces {ndim} dimensions, so {start} bytes of header; the file "
            f"has {len(content)}"
        )
    shape = tuple(np.frombuffer(content, ">u4", ndim, 4).tolist())
    dtype = np.dtype(_DTYPES[code])
    announced, found = math.prod(shape) * dtype.itemsize, len(content) - start
    if found != announced:
        what = "truncated" if found < announced else "trailing bytes"
        raise DataError(
            f"{path}: {what}: the header announces shape {shape}, {announced} bytes of data; the "
            f"file has {found}"
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content.startswith(_GZIP_MAGIC):
        if path.suffix == ".gz" and content[:2] != b"\0\0":
            raise DataError(
                f"{path}: damaged gzip file: it begins with bytes {content[:2].hex(' ')}, not "
                f"{_GZIP_MAGIC.hex(' ')}"
            )
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from None
