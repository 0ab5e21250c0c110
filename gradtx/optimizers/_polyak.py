"""Gradient descent with Polyak's step size."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx import tree
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    EmptyState,
    GradientTransformation,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
    init_empty_state,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import value_of, widen
from gradtx.engine.pipeline import Pipeline, gather, pipeline_of
from gradtx.engine.scalars import finished
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.present import common_dtype


@piece
def scale_by_polyak(
    f_min: Scalar = 0.0,
    max_learning_rate: Scalar = 1.0,
    eps: Scalar = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> GradientTransformation:
    """Scales gradients by Polyak's step size, bounded.

    `rate = min((value - f_min) / (norm(g)**2 + eps), max_learning_rate)`, with the norm over all
    leaves. The loss comes with each call, `update(..., value=loss)`. Where the loss is below
    `f_min`, the rate is negative in the variant `"sps"`, and 0 in `"sps+"`. Zero gradients stay
    zero.

    Args:
      f_min: the minimum of the loss, or an estimate of it. Default: 0.
      max_learning_rate: the largest rate. Default: 1.
      eps: added to the denominator. Default: 0.
      variant: `"sps"` or `"sps+"`. Default: `"sps"`.

    Raises:
      ValueError: `variant` is neither of the two.
      TypeError: `update` was called without `value`.

    Source: Loizou et al., "Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate for Fast
    Convergence", arXiv:2002.10542, with `c = 1` (SPS_max); the variant "sps+": Garrigos et al.,
    "Function Value Learning: Adaptive Learning Rates Based on the Polyak Stepsize and Function
    Splitting in ERM", arXiv:2307.14528.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_polyak()
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(None), value=5.0)[0])
      [0.6 0.8]
    """

    @compiled_when_concrete
    def step(updates: Updates, numbers: tuple[Scalar, ...]) -> Updates:
        dtype = common_dtype(updates)
        value, least, most, margin = (jnp.asarray(value_of(x), dtype) for x in numbers)
        gap = value - least
        if variant == "sps+":
            gap = jnp.maximum(gap, 0)
        size = tree.norm(updates)
        square = size * size + margin
        positive = square > 0
        # The square of a large norm overflows, and the rate underflows, before the step does.
        large = square > float(jnp.finfo(dtype).max) ** 0.75
        unit = jnp.where(large, size, 1)
        denominator = jnp.where(large, size, jnp.where(positive, square, 1))
        # A square that underflows would give an infinite rate, or NaN for a gap of 0.
        rate = jnp.where(
            positive, jnp.minimum(gap / denominator, most * unit), jnp.where(gap > 0, most, 0)
        )
        rate, share = finished(rate), finished(1 / unit)
        return jax.tree.map(
            lambda g: jnp.asarray(widen(g) * share * rate, jnp.result_type(g)), updates
        )

    def update(
        updates: Updates, state: EmptyState, params: Params | None, *, value: Scalar, **extra: Any
    ) -> tuple[Updates, EmptyState]:
        del params, extra
        return step(updates, (value, f_min, max_learning_rate, eps)), state

    return coupled(EmptyState, init_empty_state, update, name="scale_by_polyak", needs=("value",))


@optimizer(
    "Loizou et al., 'Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate for Fast "
    "Convergence', arXiv:2002.10542",
    family="learning-rate-free",
    acts_on="tree",
    probe={"max_learning_rate": 1.0},
    rate="scaling",
)
def polyak_sgd(
    max_learning_rate: Scalar = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: Scalar = 0.0,
    eps: Scalar = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> GradientTransformation:
    """SGD with Polyak's step size: a rate from the loss and the gradient's norm.

    `p - scaling * min((value - f_min) / (norm(g)**2 + eps), max_learning_rate) * g`, see
    `scale_by_polyak`. It is for losses whose minimum is known, such as 0 for a model that can fit
    its data exactly.

    Args:
      max_learning_rate: the largest rate, before it is scaled. Default: 1.
      scaling: a factor of the rate; a number, a scalar array, or a schedule. Default: 1.
      f_min: the minimum of the loss, or an estimate of it. Default: 0.
      eps: added to the denominator. Default: 0.
      variant: `"sps"`, or `"sps+"`, which never steps uphill. Default: `"sps"`.

    Raises:
      ValueError: `variant` is neither of the two.
      TypeError: `update` was called without `value`.

    Source: Loizou et al., "Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate for Fast
    Convergence", arXiv:2002.10542.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return jnp.sum(p**2)
      >>> tx, p = gradtx.polyak_sgd(), jnp.array([1.0, 2.0])
      >>> value, grad = jax.value_and_grad(loss)(p)
      >>> updates, state = tx.update(grad, tx.init(p), value=value)
      >>> print(p + updates)
      [0.5 1. ]
    """
    parts = scale_by_polyak(f_min, max_learning_rate, eps, variant), scale_by_learning_rate(scaling)
    links, (polyak, rate) = gather(list(map(pipeline_of, parts)))
    # States nested as in optax, which scales first.
    return Pipeline(links, ((EmptyState(), rate), polyak)).transformation()
