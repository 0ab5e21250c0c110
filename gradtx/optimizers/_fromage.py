"""Fromage: steps that are relative to the parameters in every layer."""

from jax import lax

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import AddDecayedWeightsState
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.trust_ratio import scale_by_trust_ratio


@optimizer(
    "Bernstein et al., 'On the distance between two neural networks and the stability of "
    "learning', arXiv:2002.03432",
    family="layer-wise",
    acts_on="leaf",
    probe={"learning_rate": 0.1, "min_norm": 1e-3},
    usual_rate=0.01,
)
def fromage(learning_rate: ScalarOrSchedule, min_norm: Scalar = 1e-6) -> GradientTransformation:
    """Fromage: each leaf moves by a fixed fraction of its norm, and is rescaled to keep the norm.

    `(p - learning_rate * g * size(p) / size(g)) / sqrt(1 + learning_rate**2)`, where
    `size(x) = max(norm(x), min_norm)` is taken over one leaf; see `scale_by_trust_ratio`. The
    divisor keeps the norm of a leaf from growing, as it would with steps orthogonal to the leaf.

    Args:
      learning_rate: the fraction; a number, a scalar array or a schedule. The paper's is 0.01.
      min_norm: the smallest size of parameters and gradient, so that parameters can leave zero.
        Default: 1e-6.

    Raises:
      ValueError: `update` was called without params.

    Source: Bernstein et al., "On the distance between two neural networks and the stability of
    learning", arXiv:2002.03432.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.fromage(0.75)
      >>> params = jnp.array([3.0, 4.0])
      >>> updates, _ = tx.update(jnp.array([8.0, -6.0]), tx.init(params), params)
      >>> print(params + updates)
      [0. 5.]
    """
    return chain(
        scale_by_trust_ratio(min_norm),
        scale_by_learning_rate(learning_rate),
        _shrink(learning_rate),
    )


@piece
def _shrink(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """Divides the parameters after the step by `sqrt(1 + learning_rate**2)`."""
    return leafwise(
        AddDecayedWeightsState, None, _divide, params=True, rate=learning_rate, name="fromage"
    )


def _divide(u: Array, s: Slots, step: Scalar, p: Array) -> tuple[Array, Slots]:
    rate = s.learning_rate
    length = (1 + rate * rate) ** 0.5
    # 1 - 1 / length, without cancellation.
    shrink = rate * rate / (length * (1 + length))
    return lax.sub(times(1 / length, u), times(shrink, p).astype(u.dtype)), Slots()
