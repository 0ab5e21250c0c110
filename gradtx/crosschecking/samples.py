"""The parameters and the loss on which the catalog's optimizers are compared."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Array, Params
from gradtx.engine.numerics import abs_sq, widen


def sample_tree() -> dict[str, np.ndarray]:
    """Returns a small random pytree of several dtypes and shapes.

    Example:
      >>> from gradtx.crosschecking import sample_tree
      >>> {name: (x.shape, x.dtype.name) for name, x in sample_tree().items()}
      {'scalar': ((), 'float32'), ..., 'float16': ((6,), 'float16')}
    """
    rng = np.random.default_rng(42)
    shapes = {"scalar": (), "vector": (7,), "matrix": (5, 4), "tensor": (2, 3, 4)}
    tree = {n: np.asarray(rng.standard_normal(s), "f4") for n, s in shapes.items()}
    tree["bfloat16"] = rng.standard_normal((3, 4)).astype(jnp.bfloat16)
    tree["float16"] = rng.standard_normal((6,)).astype(np.float16)
    return tree


def sample_loss(params: Params) -> Array:
    """Returns a convex loss, whose minimum is 0 where all parameters are 1.

    Its curvatures differ by a factor of ten. It is not quadratic, so that the interpolation of line
    searches is not exact.

    Args:
      params: a pytree of real or complex arrays.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from gradtx.crosschecking import sample_loss
      >>> ones = {"w": jnp.ones(3)}
      >>> print(sample_loss(ones), jax.grad(sample_loss)({"w": jnp.zeros(3)})["w"])
      0.0 [ -2. -11. -20.]
    """

    def of_leaf(x: Array) -> Array:
        distance = abs_sq(widen(x) - 1)
        curvature = jnp.linspace(1, 10, distance.size, dtype=distance.dtype)
        return jnp.sum(curvature.reshape(distance.shape) * (distance / 2 + distance**2 / 4))

    return jnp.asarray(sum(of_leaf(x) for x in jax.tree.leaves(params)))
