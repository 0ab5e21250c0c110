"""Saved arrays in the form in which a state stores them: as codes of a codec, or as they are."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.codecs import CODECS, SEED, Coded, is_coded
from gradtx.engine.base import OptState
from gradtx.state.naming import named_leaves

Keys = dict[str, str]
"""The names under which the parts of an array are saved, by the names of the parts."""


class _Leaf:
    """A node of a state that stands for one array, as a leaf."""

    def __init__(self, node: Any):
        self.node = node


def recoded(template: OptState, flat: Mapping[str, ArrayLike]) -> Mapping[str, ArrayLike]:
    """Returns saved arrays in the form that a state has for them.

    The parts of an array that is stored by a codec are saved as `name/codec/part`, where `name` is
    that of the array. Those of built-in codecs, and of the codecs of the state, can be decoded.

    Args:
      template: the state.
      flat: the saved arrays by name.
    """
    leaves = named_leaves(jax.tree.map(_Leaf, template, is_leaf=is_coded))
    wanted = {name: leaf.node for name, leaf in leaves}
    codecs = CODECS | {x.codec.name: x.codec for x in wanted.values() if is_coded(x)}
    saved: dict[str, dict[str, Keys]] = defaultdict(lambda: defaultdict(dict))
    for key in flat:
        name, codec, part = ("", "", *key.rsplit("/", 2))[-3:]
        if codec in codecs and name in wanted:
            saved[name][codec][part] = key
    new = dict(flat)
    for name, node in wanted.items():
        mine = saved.get(name, {})
        if (is_coded(node) and node.codec.name in mine) or not (mine or is_coded(node)):
            continue  # in the same form
        if mine:
            codec, keys = next(iter(mine.items()))
            x = jax.ShapeDtypeStruct(node.shape, jnp.float32)
            like = jax.eval_shape(lambda x, c=codecs[codec]: c.encode(x, None), x)
            parts = {
                part: jnp.asarray(viewed(flat[key], like[part].dtype if part in like else None))
                for part, key in keys.items()
            }
            if any(parts[part].shape != x.shape for part, x in like.items() if part in parts):
                continue  # it is reported
            value, seed = codecs[codec].decode(parts, node.shape), parts.get(SEED)
        elif name in flat and np.shape(flat[name]) == node.shape:
            keys, value, seed = {"": name}, jnp.asarray(viewed(flat[name], node.dtype)), None
        else:
            continue
        for key in keys.values():
            del new[key]
        new |= _named(name, node, value, seed)
    return new


def viewed(saved: ArrayLike, dtype: np.dtype | None) -> Array | np.ndarray:
    """Returns a saved array in its own dtype; in NumPy's files, bfloat16 is two bytes of void.

    Args:
      saved: the array.
      dtype: the dtype that it had if it is void now.
    """
    array = saved if isinstance(saved, jax.Array) else np.asarray(saved)
    if dtype is None or array.dtype.type is not np.void:
        return array
    of_jax = dtype.kind == "V" and dtype.itemsize == array.dtype.itemsize
    return array.view(dtype) if of_jax else array


def _named(name: str, node: Any, value: Array, seed: Array | None) -> dict[str, Array]:
    """Returns the arrays under which a value is saved in the form of a node of a state."""
    if not is_coded(node):
        return {name: value.astype(node.dtype)}
    kept = node.parts.get(SEED)
    seed = seed if seed is not None or isinstance(kept, jax.ShapeDtypeStruct) else kept
    seed = jnp.zeros((), jnp.uint32) if seed is None else jnp.asarray(seed)
    coded = Coded.of(value.astype(node.dtype), node.codec, seed, node.inside)
    return {f"{name}/{node.codec.name}/{part}": x for part, x in coded.parts.items()}
