"""Losses made from a function whose gradient is the prediction."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.losses.arguments import accumulator, broadcast_shape, common_dtype, weighted


def make_fenchel_young_loss(max_fun: Callable[..., Array]) -> Callable[..., Array]:
    r"""Returns the Fenchel-Young loss of a convex function of the scores.

    With `max_fun(s) = max(<s, y> - r(y), over y)`, whose gradient, the maximizing `y`, is the
    prediction for the scores `s`::

        loss(s, y) = max_fun(s) - <s, y>

    It is smallest where the prediction is `y`, with the gradient `prediction - y`. (Its value there
    is `-r(y)`: 0 at a vertex for most regularizers `r`.) With `max_fun=jax.nn.logsumexp` it is the
    cross entropy of a softmax. "Learning with Fenchel-Young losses" (arXiv:1901.02324).

    Args:
      max_fun: a function of a vector of scores, `[n]`, and of the further arguments of the loss,
        whose value is a scalar.

    Returns:
      The loss, `loss(scores, targets, *args, **kwargs)`, with one value for each vector. `scores`
      and `targets`, `[..., n]`, broadcast; `args` and `kwargs` are given to `max_fun`, the same for
      all vectors. It raises `ValueError` if the shapes do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradtx import losses
      >>> cross_entropy = losses.make_fenchel_young_loss(jax.nn.logsumexp)
      >>> cross_entropy(jnp.array([2.0, 0.0, 0.0]), jnp.array([1.0, 0.0, 0.0])).item()
      0.2395
    """

    def fenchel_young_loss(
        scores: ArrayLike, targets: ArrayLike, *args: Any, **kwargs: Any
    ) -> Array:
        name = "make_fenchel_young_loss"
        shapes = {"scores": jnp.shape(scores), "targets": jnp.shape(targets)}
        if min(map(len, shapes.values())) < 1 or len({shape[-1] for shape in shapes.values()}) > 1:
            raise ValueError(
                f"{name}: scores and targets must have the shape [..., n], got "
                f"{shapes['scores']} and {shapes['targets']}"
            )
        broadcast_shape(name, **shapes)
        dtype = common_dtype(scores, targets)
        s, y = (jnp.asarray(x).astype(accumulator(dtype)) for x in (scores, targets))
        largest = jax.vmap(lambda row: max_fun(row, *args, **kwargs))(s.reshape(-1, s.shape[-1]))
        if largest.ndim != 1:
            raise ValueError(
                f"{name}: max_fun must return a scalar for a vector, got the shape "
                f"{largest.shape[1:]}"
            )
        inner = jnp.sum(weighted(*jnp.broadcast_arrays(y, s)), axis=-1)
        return (largest.reshape(s.shape[:-1]) - inner).astype(dtype)

    return fenchel_young_loss
