"""The type of codecs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np
from jax import Array

Parts = Mapping[str, Array]
"""The arrays in which an array is stored, by name."""

R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class With(Generic[R]):
    """A function with one argument given; unlike those of `functools.partial`, two can be equal.

    Attributes:
      function: the function.
      last: its last argument.
    """

    function: Callable[..., R]
    last: bool | np.dtype

    def __call__(self, *args: object) -> R:
        """Returns the result of the function."""
        return self.function(*args, self.last)


@dataclasses.dataclass(frozen=True)
class Codec:
    """A way to store an array of real numbers in fewer bytes: two pure functions.

    For an array `x`, each entry of `decode(encode(x, None), x.shape)` differs from that of `x` by
    at most `relative * abs(x) + absolute * m`, where `m` is the largest finite magnitude in its
    block; with random bits, by at most twice as much.

    Attributes:
      name: the name, which is a part of the names of saved arrays.
      encode: `encode(x, bits) -> parts` for a float32 array: a dict of arrays, by name. `bits` are
        random uint32 integers of the shape of `x`, for stochastic rounding, or `None`.
      decode: `decode(parts, shape) -> x`, the float32 array of the given shape.
      relative: the relative error of rounding to nearest.
      absolute: the error of rounding to nearest relative to the block. Default: 0.
      stochastic: whether `store` rounds stochastically; then the state has a seed for each array.
        Default: False.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> half = gradtx.Codec(
      ...     "half",
      ...     encode=lambda x, bits: {"codes": x.astype(jnp.float16)},
      ...     decode=lambda parts, shape: parts["codes"].astype(jnp.float32),
      ...     relative=2**-11,
      ... )
      >>> tx = gradtx.store(gradtx.adam(0.1), {"mu": half}, min_size=1)
      >>> print(tx.init(jnp.zeros(2))[0].mu.parts["codes"].dtype)
      float16
    """

    name: str
    encode: Callable[[Array, Array | None], Parts]
    decode: Callable[[Parts, tuple[int, ...]], Array]
    relative: float
    absolute: float = 0.0
    stochastic: bool = False
