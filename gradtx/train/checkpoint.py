"""Checkpoints: a pytree of arrays with metadata, written atomically to one file.

The file is a `.npz`. Each leaf is an entry under its path (`params/head/kernel`), so that
`np.load` reads it; dtypes that NumPy does not have, such as bfloat16, are stored as bytes. The
entry `header` is JSON: the leaves' dtypes and shapes, the caller's metadata, and a SHA-256 of
everything.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Array, PyTree
from gradtx.train.errors import CheckpointError

_FORMAT = "gradtx checkpoint 1"
_HEADER = "header"


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file atomically: after a crash it has either the old or the new content.

    Args:
      path: the file.
      content: the new content.

    Example:
      >>> import pathlib, tempfile
      >>> from gradtx.train import checkpoint
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
      >>> checkpoint.write_atomically(path, b"whole or not at all")
      >>> path.read_text()
      'whole or not at all'
    """
    path = Path(path)
    # Always the same name, so that the next write replaces what a crash left.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the rename is durable once the folder is synced
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save(path: str | Path, tree: PyTree, extra: Mapping[str, Any]) -> None:
    """Writes a pytree of arrays to a file, atomically.

    Args:
      path: the file.
      tree: a pytree of arrays, which may include random keys.
      extra: metadata to be saved with it, of JSON's types.

    Raises:
      ValueError: two leaves have the same path.

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
    saved, wanted = header["leaves"], _named(template)
    missing, unknown = wanted.keys() - saved.keys(), saved.keys() - wanted.keys()
    if missing or unknown:
        raise CheckpointError(
            f"{path} is from another model or optimizer: it lacks {sorted(missing) or 'nothing'}, "
            f"and has {sorted(unknown) or 'nothing'} in excess"
        )
    leaves = [_leaf(path, name, saved[name], arrays[name], spec) for name, spec in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), header["extra"]


def read_extra(path: str | Path) -> dict[str, Any]:
    """Reads the metadata saved with the pytree, and verifies the whole file.

    Args:
      path: the file.

    Raises:
      CheckpointError: the file is missing or damaged.
    """
    return _read(Path(path))[0]["extra"]


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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
        kind, digest, computed = header["format"], header["sha256"], _digest(header, arrays)
    # A damaged zip file raises exceptions of many types, all with the same meaning.
    except Exception as error:
        raise CheckpointError(f"{path}: damaged checkpoint: {error}") from None
    if kind != _FORMAT:
        raise CheckpointError(f"{path}: its format is {kind!r}, but this version reads {_FORMAT!r}")
    if digest != computed:
        raise CheckpointError(
            f"{path}: damaged checkpoint: its checksum is {computed[:16]}..., it should be "
            f"{digest[:16]}..."
        )
    return header, arrays


def _leaf(
    path: str | Path, name: str, saved: Mapping[str, Any], array: np.ndarray, spec: Array
) -> Array:
    dtype, shape = jnp.dtype(saved["dtype"]), tuple(saved["shape"])
    if not _is_native(dtype):
        array = np.frombuffer(array.tobytes(), dtype).reshape(shape)
    if "key" in saved:
        leaf = jax.random.wrap_key_data(jnp.array(array), impl=saved["key"])
    elif getattr(spec, "weak_type", False) and not shape:
        leaf = jnp.asarray(array.item())  # a Python number becomes a weakly typed array again
    else:
        leaf = jnp.array(array)
    if (leaf.dtype, leaf.shape) != (spec.dtype, spec.shape):
        raise CheckpointError(
            f"{path}: {name} has dtype {leaf.dtype} and shape {leaf.shape}, but the model or "
            f"optimizer needs {spec.dtype} and {spec.shape}"
        )
    return leaf
