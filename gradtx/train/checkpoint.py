"""Checkpoints: a pytree of arrays with metadata, written atomically to one file.

The file is a `.npz`. Each leaf is an entry under its path (`params/head/kernel`), so that
`np.load` reads it; dtypes that NumPy does not have, such as bfloat16, are stored as bytes. The
entry `header` is JSON: the leaves' dtypes and shapes, the caller's metadata, and a SHA-256 of
everything.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Array, PyTree
from gradtx.state.counts import is_at_hand
from gradtx.train.arrays import read_npz, size_in_bytes
from gradtx.train.decoding import decode, parse_json
from gradtx.train.errors import CheckpointError
from gradtx.train.files import reading, write_atomically

_FORMAT = "gradtx checkpoint 1"
_HEADER = "header"


class _Leaf(NamedTuple):
    """A leaf as the header describes it; `key` is the implementation of a random key."""

    dtype: str
    shape: tuple[int, ...]
    key: str | None = None


class _Header(NamedTuple):
    format: str
    leaves: dict[str, _Leaf]
    extra: dict[str, Any]
    sha256: str


def save(path: str | Path, tree: PyTree, extra: Mapping[str, Any]) -> None:
    """Writes a pytree of arrays to a file, atomically.

    Args:
      path: the file.
      tree: a pytree of arrays, which may include random keys.
      extra: metadata to be saved with it, of JSON's types.

    Raises:
      ValueError: two leaves have the same path, or one has the path `header`, or is divided over
        the devices of several processes, which one file cannot be written from.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> from gradtx.train import checkpoint
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "checkpoint.npz"
      >>> checkpoint.save(path, {"w": jnp.ones(2)}, {"epoch": 3})
      >>> tree, extra = checkpoint.restore(path, {"w": jnp.zeros(2)})
      >>> print(tree["w"], extra)
      [1. 1.] {'epoch': 3}
    """
    arrays, leaves = {}, {}
    for name, leaf in _named(tree).items():
        if not is_at_hand(leaf):
            raise ValueError(
                f"checkpoint: {name} is divided over the devices of several processes; use orbax, "
                "or save jax.experimental.multihost_utils.process_allgather(array, tiled=True)"
            )
        if _is_key(leaf):
            leaf, kind = jax.random.key_data(leaf), {"key": str(jax.random.key_impl(leaf))}
        else:
            kind = {}
        array = np.asarray(leaf)
        leaves[name] = {"dtype": array.dtype.name, "shape": array.shape, **kind}
        arrays[name] = array if _is_native(array.dtype) else _as_bytes(array)
    header = {"format": _FORMAT, "leaves": leaves, "extra": dict(extra)}
    header["sha256"] = _digest(header, arrays)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in {_HEADER: text, **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def restore(path: str | Path, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Reads a pytree of arrays that `save` wrote, bit for bit.

    Args:
      path: the file.
      template: a pytree of the same structure, of arrays or of `jax.ShapeDtypeStruct`, as
        `jax.eval_shape` returns them.

    Returns:
      The pytree, and the metadata saved with it.

    Raises:
      CheckpointError: the file is missing or damaged, or its leaves are not those of `template`;
        the message names them.
    """
    header, arrays = _read(Path(path))
    saved, wanted = header.leaves, _named(template)
    missing, unknown = wanted.keys() - saved.keys(), saved.keys() - wanted.keys()
    if missing or unknown:
        raise CheckpointError(
            f"{path} is from another model or optimizer: it lacks {sorted(missing) or 'nothing'}, "
            f"and has {sorted(unknown) or 'nothing'} in excess"
        )
    leaves = [_leaf(path, name, saved[name], arrays[name], spec) for name, spec in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), header.extra


def read_extra(path: str | Path) -> dict[str, Any]:
    """Reads the metadata saved with the pytree, and verifies the whole file.

    Args:
      path: the file.

    Raises:
      CheckpointError: the file is missing or damaged.
    """
    return _read(Path(path))[0].extra


def _named(tree: PyTree) -> dict[str, Array]:
    pairs, _ = jax.tree.flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
    if len(named) != len(pairs) or _HEADER in named:
        raise ValueError("checkpoint: leaves must have different paths, and none may be 'header'")
    return named


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_native(dtype: np.dtype) -> bool:
    return dtype.kind in "biufc" and dtype.isbuiltin == 1


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def _digest(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps({**header, "sha256": None}).encode())
    for name in header["leaves"]:
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[_Header, dict[str, np.ndarray]]:
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    with reading(path, CheckpointError, "damaged checkpoint") as file:
        arrays = read_npz(file, compressed=False)
        if _HEADER not in arrays:
            raise ValueError(f"it has no entry {_HEADER!r}")
        content = decode(dict[str, Any], parse_json(arrays.pop(_HEADER).tobytes()), "header")
        if (kind := content.get("format")) != _FORMAT:
            raise CheckpointError(
                f"{path}: its format is {kind!r}, but this version reads {_FORMAT!r}"
            )
        header = decode(_Header, content, "header")
        if header.leaves.keys() != arrays.keys():
            differ = sorted(header.leaves.keys() ^ arrays.keys())
            raise ValueError(f"the leaves of the header must be those of the file, {differ} differ")
        if (computed := _digest(content, arrays)) != header.sha256:
            raise ValueError(
                f"its checksum is {computed[:16]}..., it should be {header.sha256[:16]}..."
            )
        return header, {n: _stored(n, leaf, arrays[n]) for n, leaf in header.leaves.items()}


def _stored(name: str, leaf: _Leaf, array: np.ndarray) -> np.ndarray:
    """Returns the array of an entry as the header describes it."""
    try:
        dtype = jnp.dtype(leaf.dtype)
        size = size_in_bytes(leaf.shape, dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
    if not (jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool)):
        raise ValueError(f"{name} must have a dtype of numbers, got {leaf.dtype}")
    native = _is_native(dtype)
    needed = (dtype, leaf.shape) if native else (np.dtype(np.uint8), (size,))
    if (array.dtype, array.shape) != needed:
        raise ValueError(
            f"{name}: the header says {leaf.dtype} of shape {leaf.shape}, the entry has "
            f"{array.dtype} of shape {array.shape}"
        )
    return array if native else np.frombuffer(array.tobytes(), dtype).reshape(leaf.shape)


def _leaf(path: str | Path, name: str, saved: _Leaf, array: np.ndarray, spec: Array) -> Array:
    leaf = array
    try:
        if saved.key is not None:
            leaf = jax.random.wrap_key_data(jnp.array(array), impl=saved.key)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {name} is not a random key: {error}") from None
    # Compared before `jnp.array`, which silently rounds 64 bits to 32.
    if (leaf.dtype, leaf.shape) != (spec.dtype, spec.shape):
        raise CheckpointError(
            f"{path}: {name} has dtype {leaf.dtype} and shape {leaf.shape}, but the model or "
            f"optimizer needs {spec.dtype} and {spec.shape}"
        )
    if isinstance(leaf, jax.Array):
        return leaf
    if getattr(spec, "weak_type", False) and not leaf.shape:
        return jnp.asarray(leaf.item())  # a Python number becomes a weakly typed array again
    return jnp.array(leaf)
