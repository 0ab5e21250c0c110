"""What the catalog's optimizers are compared on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Params
from gradtx.engine.numerics import abs_sq, widen


def sample_tree() -> dict[str, Any]:
    """Makes a small random tree of several dtypes and shapes."""
    rng = np.random.default_rng(42)
    shapes = {"scalar": (), "vector": (7,), "matrix": (5, 4), "tensor": (2, 3, 4)}
    tree: dict[str, Any] = {n: rng.standard_normal(s).astype("f4") for n, s in shapes.items()}
    tree["bfloat16"] = rng.standard_normal((3, 4)).astype(jnp.bfloat16)
    tree["float16"] = rng.standard_normal((6,)).astype(np.float16)
    return tree


def sample_loss(params: Params) -> Any:
    """A convex loss with its least value, 0, where all parameters are 1.

    Its curvatures differ by ten, and it is not quadratic, so that interpolation is no exact guess.

    Args:
      params: a pytree of real or complex arrays.
    """

    def of_leaf(x: Any) -> Any:
        distance = abs_sq(widen(x) - 1)
        curvature = jnp.linspace(1, 10, distance.size, dtype=distance.dtype)
        return jnp.sum(curvature.reshape(distance.shape) * (distance / 2 + distance**2 / 4))

    return sum(of_leaf(x) for x in jax.tree.leaves(params))
