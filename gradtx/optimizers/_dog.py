"""Step sizes from the distance travelled: DoG and DoWG."""

from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp

from gradtx import tree
from gradtx._roles import Hyperparameter, Shared, Slot, Told, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import plus, ratio, root
from gradtx.engine.scalars import finished
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.slots import as_slots, copied_slots
from gradtx.tree.norms import rescale
from gradtx.tree.present import common_dtype, present, replaced

FirstStep = tuple[Literal["heuristic", "distance", "learning_rate"], Scalar]
FIRST_STEPS = ("heuristic", "distance", "learning_rate")


@declared
class DoGState(NamedTuple):
    """The state of DoG: the second element of the state of `dog`.

    Attributes:
      is_init_step: whether no step was taken yet.
      init_params: the parameters at the start.
      max_dist: the largest distance of the parameters from `init_params` so far, or the first
        guess.
      sum_sq_norm_grads: the sum of the squared norms of all gradients.
    """

    is_init_step: Shared
    init_params: Slot
    max_dist: Annotated[Hyperparameter, Told("max_distance")]
    sum_sq_norm_grads: Shared


@declared
class DoWGState(NamedTuple):
    """The state of DoWG: the second element of the state of `dowg`.

    Attributes:
      init_params: the parameters at the start.
      weighted_sq_norm_grads: the sum of squared norms of gradients, times the squared distances.
      estim_sq_dist: the square of the largest distance of the parameters from their start so far,
        or the first guess.
    """

    init_params: Slot
    weighted_sq_norm_grads: Shared
    estim_sq_dist: Annotated[Hyperparameter, Told("max_squared_distance")]


@piece
def _scale_by_dog(init_step: FirstStep, eps: Scalar) -> GradientTransformation:
    kind, value = init_step
    if kind not in FIRST_STEPS:
        raise ValueError(f"dog: init_step must begin with one of {FIRST_STEPS}, got {init_step!r}")

    def init(params: Params) -> DoGState:
        dtype = common_dtype(params)
        distance = {
            "heuristic": lambda: value * (1 + tree.norm(params)),
            "distance": lambda: value,
            "learning_rate": lambda: 0.0,
        }[kind]()
        return DoGState(
            is_init_step=jnp.ones((), bool),
            init_params=copied_slots(params),
            max_dist=jnp.array(distance, dtype),
            sum_sq_norm_grads=jnp.zeros((), dtype),
        )

    @compiled_when_concrete
    def step(updates: Updates, state: DoGState, params: Params) -> tuple[Updates, DoGState]:
        g, start, distance = _way(updates, state.init_params, params)
        distance = jnp.maximum(state.max_dist, distance.astype(state.max_dist.dtype))
        squares = state.sum_sq_norm_grads + _squared_norm(as_slots(g, start), state.max_dist)
        rate = distance / root(plus(squares, eps))
        if kind == "learning_rate":
            rate = jnp.where(state.is_init_step, value, rate)
        rate = finished(rate)
        new = DoGState(jnp.zeros((), bool), state.init_params, distance, squares)
        return replaced(updates, updates, [rescale(x, rate) for x in g]), new

    def update(
        updates: Updates, state: DoGState, params: Params, **extra: Any
    ) -> tuple[Updates, DoGState]:
        del extra
        return step(updates, state, params)

    return coupled(DoGState, init, update, name="scale_by_dog", params=True)


@piece
def _scale_by_dowg(init_estim_sq_dist: Scalar | None, eps: Scalar) -> GradientTransformation:
    first = eps if init_estim_sq_dist is None else init_estim_sq_dist

    def init(params: Params) -> DoWGState:
        dtype = common_dtype(params)
        return DoWGState(
            init_params=copied_slots(params),
            weighted_sq_norm_grads=jnp.zeros((), dtype),
            estim_sq_dist=jnp.array(first, dtype),
        )

    @compiled_when_concrete
    def step(updates: Updates, state: DoWGState, params: Params) -> tuple[Updates, DoWGState]:
        g, start, distance = _way(updates, state.init_params, params)
        square = jnp.square(distance).astype(state.estim_sq_dist.dtype)
        square = jnp.maximum(state.estim_sq_dist, square)
        weighted = square * _squared_norm(as_slots(g, start), square)
        weighted = state.weighted_sq_norm_grads + weighted
        rate = finished(ratio(square, weighted, eps))
        new = DoWGState(state.init_params, weighted, square)
        return replaced(updates, updates, [rescale(x, rate) for x in g]), new

    def update(
        updates: Updates, state: DoWGState, params: Params, **extra: Any
    ) -> tuple[Updates, DoWGState]:
        del extra
        return step(updates, state, params)

    return coupled(DoWGState, init, update, name="scale_by_dowg", params=True)


def _way(updates: Updates, start: Params, params: Params) -> tuple[list[Array], list[Array], Array]:
    """Returns the leaves of the updates and of the start, and the distance to the start."""
    trees = {"updates": updates, "state.init_params": start, "params": params}
    g, origin, p = present(updates, **trees)
    moved = [x - x0 for x, x0 in zip(as_slots(p, origin), origin, strict=True)]
    return g, origin, tree.norm(moved)


def _squared_norm(leaves: list[Array], like: Array) -> Array:
    return tree.norm(leaves, squared=True).astype(like.dtype)


@piece
def _decay(weight_decay: ScalarOrSchedule | None, mask: MaskOrFn | None) -> GradientTransformation:
    if weight_decay is None and mask is None:
        return identity()
    # The mask is checked even if nothing decays.
    return add_decayed_weights(0.0 if weight_decay is None else weight_decay, mask)


@optimizer(
    "Ivgi, Hinder and Carmon, 'DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size "
    "Schedule', arXiv:2302.12022",
    family="learning-rate-free",
    acts_on="tree",
    # With a rate of 1, the first step is exactly as long as the initial guess, where `max` has a
    # kink.
    probe={"learning_rate": 0.9, "init_step": ("distance", 0.1)},
    scale_free=True,
)
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: FirstStep = ("heuristic", 1e-6),
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """DoG, distance over gradients: SGD whose rate follows the distance from the start.

    `r = max(r, norm(p - p_0)); G = G + norm(g)^2; p - learning_rate * r / sqrt(G + eps) * g`, with
    norms over all leaves. The first steps are tiny, and the rate grows as fast as the distance.
    Evaluate an average of the parameters, as the paper does. The start is stored in float32 or
    wider; half-precision parameters cannot represent a small distance from it, so choose a larger
    first `r`, or keep the parameters in float32.

    Args:
      learning_rate: a factor of the estimated rate; a number, a scalar array or a schedule.
        Default: 1.
      init_step: the first `r`: `("distance", r)`; or `("heuristic", a)`, which is
        `a * (1 + norm(p_0))`, where the paper advises 1e-6, and 1e-4 with batch normalization; or
        `("learning_rate", rate)`, which sets the first step's rate; `r` is then the distance alone.
        Default: `("heuristic", 1e-6)`.
      eps: added under the root. Default: 1e-8.
      weight_decay: the coefficient of L2 regularization, a number or a schedule:
        `weight_decay * p` is added to the gradient. Default: `None`, no decay.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `init_step` begins with another word, or `update` was called without params.

    Source: Ivgi, Hinder and Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size
    Schedule", arXiv:2302.12022.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.dog(init_step=("distance", 0.5))
      >>> params = jnp.array([1.0, 2.0])
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0])
      [-0.3 -0.4]
    """
    return chain(
        _decay(weight_decay, mask),
        _scale_by_dog(init_step, eps),
        scale_by_learning_rate(learning_rate),
    )


@optimizer(
    "Khaled, Mishchenko and Jin, 'DoWG Unleashed: An Efficient Universal Parameter-Free Gradient "
    "Descent Method', arXiv:2305.16284",
    family="learning-rate-free",
    acts_on="tree",
    probe={"learning_rate": 1.0, "init_estim_sq_dist": 0.01},
    scale_free=True,
)
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: Scalar | None = None,
    eps: Scalar = 1e-4,
    weight_decay: ScalarOrSchedule | None = None,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """DoWG, distance over weighted gradients: DoG with larger weights for late gradients.

    `R = max(R, norm(p - p_0)^2); V = V + R * norm(g)^2;
    p - learning_rate * R / (sqrt(V) + eps) * g`, with norms over all leaves. The start is stored in
    float32 or wider.

    Args:
      learning_rate: a factor of the estimated rate; a number, a scalar array or a schedule.
        Default: 1.
      init_estim_sq_dist: the first `R`, positive; so small that the first steps do no harm.
        Default: `eps`.
      eps: added to the root. Default: 1e-4.
      weight_decay: the coefficient of L2 regularization, a number or a schedule:
        `weight_decay * p` is added to the gradient. Default: `None`, no decay.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      ValueError: `update` was called without params.

    Source: Khaled, Mishchenko and Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free
    Gradient Descent Method", arXiv:2305.16284.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.dowg(init_estim_sq_dist=0.25, eps=0.0)
      >>> params = jnp.array([1.0, 2.0])
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0])
      [-0.3 -0.4]
    """
    return chain(
        _decay(weight_decay, mask),
        _scale_by_dowg(init_estim_sq_dist, eps),
        scale_by_learning_rate(learning_rate),
    )
