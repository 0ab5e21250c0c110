"""A slot that is stored as codes: a node of the state."""

import functools
from collections.abc import Mapping
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import DictKey, register_pytree_with_keys_class
from jax.typing import DTypeLike

from gradtx._arguments import described
from gradtx._devices.types import PyTree
from gradtx.codecs.codec import Codec, Parts
from gradtx.codecs.dither import random_bits

SEED = "seed"


@register_pytree_with_keys_class
class Coded:
    """An array of a state that is stored as the parts that a codec returns.

    Functions of JAX take it for the array that it stands for. If its parts have more axes than the
    codec returns, as in a state made by `vmap`, it is a stack of such arrays.

    Args:
      parts: the arrays in which it is stored, by name; with `"seed"` if it is rounded
        stochastically.
      codec: the codec.
      shape: the shape of the array.
      dtype: its dtype.
      inside: whether rules decode it themselves, leaf by leaf; if not, the transformation `store`
        does it for them.
    """

    def __init__(
        self, parts: Parts, codec: Codec, shape: tuple[int, ...], dtype: DTypeLike, inside: bool
    ):
        self.parts, self.codec, self.inside = dict(parts), codec, inside
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)

    @classmethod
    def of(cls, x: Array, codec: Codec, seed: Array | None, inside: bool) -> Self:
        """Returns an array stored as codes.

        Args:
          x: the array.
          codec: the codec.
          seed: a uint32 scalar if the codec is stochastic.
          inside: as for the class.
        """
        return cls(_encoded(codec, x, seed), codec, x.shape, x.dtype, inside)

    def value(self) -> Array:
        """Returns the array."""
        return _decoded(self.codec, self.shape, self.dtype, self.parts)

    def with_value(self, x: Array) -> "Coded":
        """Returns another array of the same shape stored in the same way."""
        x, seed = jnp.asarray(x, self.dtype), self.parts.get(SEED)
        encode = functools.partial(_encoded, self.codec)
        for _ in range(x.ndim - self.ndim):
            encode = jax.vmap(encode, (0, None if seed is None else 0))
        return type(self)(encode(x, seed), self.codec, self.shape, self.dtype, self.inside)

    @property
    def ndim(self) -> int:
        """The number of axes of the array."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries of the array."""
        return int(np.prod(self.shape))

    def __jax_array__(self) -> Array:
        return self.value()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value(), dtype)

    def __repr__(self) -> str:
        return f"Coded({self.codec.name}, {self.dtype}{list(self.shape)})"

    def tree_flatten_with_keys(self) -> tuple[list[tuple[PyTree, PyTree]], PyTree]:
        """Returns the parts with their keys, and what is static."""
        names = tuple(sorted(self.parts))
        children = [(DictKey(f"{self.codec.name}/{name}"), self.parts[name]) for name in names]
        return children, (names, self.codec, self.shape, self.dtype, self.inside)

    @classmethod
    def tree_unflatten(cls, static: PyTree, children: PyTree) -> "Coded":
        """Returns the node again."""
        names, *rest = static
        new = object.__new__(cls)  # children may be anything
        new.parts = dict(zip(names, children, strict=True))
        new.codec, new.shape, new.dtype, new.inside = rest
        return new


# Compiled, so that they are one program each where they are not part of another one.
@functools.partial(jax.jit, static_argnums=0)
def _encoded(codec: Codec, x: Array, seed: Array | None) -> Parts:
    seed = seed if codec.stochastic else None
    bits = None if seed is None else random_bits(seed, x.shape)
    parts = codec.encode(x.astype(jnp.float32), bits)
    if not isinstance(parts, Mapping):
        told = f"encode must return a mapping from names to arrays, got {described(parts)}"
        raise TypeError(f"Codec {codec.name!r}: {told}")
    return dict(parts) if seed is None else {**parts, SEED: seed + jnp.uint32(1)}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decoded(codec: Codec, shape: tuple[int, ...], dtype: np.dtype, parts: Parts) -> Array:
    def decode(parts: Parts) -> Array:
        x = codec.decode(parts, shape)
        if x.shape != shape:
            told = f"decode must return an array of shape {shape}, got {x.shape}"
            raise ValueError(f"Codec {codec.name!r}: {told}")
        return x.astype(dtype)

    one = jax.ShapeDtypeStruct(shape, jnp.float32)
    kept = jax.eval_shape(lambda x: codec.encode(x, None), one)
    mine = {name: parts[name] for name in kept}
    for _ in range(min(mine[name].ndim - kept[name].ndim for name in kept)):
        decode = jax.vmap(decode)
    return decode(mine)


def is_coded(x: PyTree) -> bool:
    """Returns whether a node of a state is an array stored as codes.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.codecs import CODECS, Coded, is_coded
      >>> x = jnp.zeros(2)
      >>> is_coded(x), is_coded(Coded.of(x, CODECS["int8"], None, inside=True))
      (False, True)
    """
    return isinstance(x, Coded)


def decoded(tree: PyTree, inside: bool = True) -> PyTree:
    """Returns a state, or another pytree, with arrays in place of codes.

    Args:
      tree: the pytree.
      inside: whether codes that rules decode themselves are decoded too. Default: True.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.store(gradtx.adam(0.1), {"nu": "uint8"}, min_size=1)
      >>> state = tx.init(jnp.zeros(2))
      >>> print(state[0].nu, gradtx.decoded(state)[0].nu)
      Coded(uint8, float32[2]) [0. 0.]
    """

    def value(x: PyTree) -> PyTree:
        return x.value() if is_coded(x) and (inside or not x.inside) else x

    return jax.tree.map(value, tree, is_leaf=is_coded)


def coded_like(old: PyTree, new: PyTree) -> PyTree:
    """Returns a pytree with those arrays stored as codes that are so in another one.

    Args:
      old: the other pytree.
      new: the pytree of arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.codecs import CODECS, Coded, coded_like
      >>> mu = Coded.of(jnp.zeros(2), CODECS["int8"], None, inside=True)
      >>> old = {"mu": mu, "nu": jnp.zeros(2)}
      >>> coded_like(old, {"mu": jnp.ones(2), "nu": jnp.ones(2)})
      {'mu': Coded(int8, float32[2]), 'nu': Array([1., 1.], dtype=float32)}
    """

    def stored(o: PyTree, x: PyTree) -> PyTree:
        return o.with_value(x) if is_coded(o) and not is_coded(x) else x

    return jax.tree.map(stored, old, new, is_leaf=is_coded)
