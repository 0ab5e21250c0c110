"""Setting the step size by the distance from the initial parameters."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import Slot, UnsignedStatistic, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import plus, root, times
from gradtx.engine.rules import Slots
from gradtx.tree.filling import real_full_like
from gradtx.tree.norms import norms


@declared
class ScaleByDistanceOverGradientsState(NamedTuple):
    """The state of `scale_by_distance_over_gradients`.

    Attributes:
      max_dist: for each leaf, its largest distance from its initial value so far.
      grad_sum_of_squares: for each leaf, the sum of the squared norms of its gradients.
      init_params: the initial parameters.
    """

    max_dist: UnsignedStatistic
    grad_sum_of_squares: UnsignedStatistic
    init_params: Slot


@piece
def scale_by_distance_over_gradients(
    reps_rel: Scalar = 1e-6,
    eps: Scalar = 1e-8,
    param_dtype: DTypeLike = jnp.float32,
    global_scale: Scalar = 1.0,
) -> GradientTransformation:
    """Multiplies each leaf by its distance from the start over the root of its squared gradients.

    `d = max(d, norm(p - p_0)); G = G + norm(g)^2;
    g * global_scale * max(d, reps_rel * (1 + norm(p_0))) / sqrt(G + eps)`,
    with norms over one leaf. Chain `scale(-1.0)` after it to descend.

    Args:
      reps_rel: the length of the first step, relative to the norm of the parameters. Default: 1e-6.
      eps: added under the root. Default: 1e-8.
      param_dtype: the dtype in which the initial parameters are stored; complex ones are stored in
        the complex dtype of that precision. Default: float32.
      global_scale: a factor of all steps. Default: 1.

    Raises:
      ValueError: `update` was called without params.

    Source: Ivgi, Hinder and Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size
    Schedule", arXiv:2302.12022, in its layer-wise form L-DoG.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_distance_over_gradients(reps_rel=0.1)
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(jnp.array([0.0, 2.0]), tx.init(params), params)[0])
      [0. 0.6]
    """

    def init(p: Array) -> Slots:
        kind = jnp.result_type(param_dtype, jnp.complex64) if jnp.iscomplexobj(p) else param_dtype
        zero = real_full_like(jnp.zeros((), p.dtype), 0)
        return Slots(init_params=p.astype(kind), max_dist=zero, grad_sum_of_squares=zero)

    def update(g: Array, s: Slots, step: None, p: Array) -> tuple[Array, Slots]:
        moved, slope, begin = norms(p - s.init_params, g, s.init_params)
        distance = jnp.maximum(s.max_dist, moved)
        squares = s.grad_sum_of_squares + jnp.square(slope)
        farthest = jnp.maximum(distance, reps_rel * (1 + begin))
        factor = global_scale * farthest / root(plus(squares, eps))
        return times(factor, g), Slots(
            max_dist=distance, grad_sum_of_squares=squares, init_params=s.init_params
        )

    return leafwise(ScaleByDistanceOverGradientsState, init, update, params=True)
