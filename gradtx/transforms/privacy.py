"""Differential privacy: steps that reveal little about any one example.

Here gradients have one more axis than the parameters, for the examples. So none of this is in the
catalog of optimizers, whose gradients have the shapes of the parameters.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._arguments import counted
from gradtx._roles import RandomKey, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    Scalar,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.draws import drawn, sampled, type_of
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import over, times, widen
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.rules import LeafError
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.momentum import trace
from gradtx.transforms.noise import as_key
from gradtx.transforms.per_example import per_example_global_norm_clip
from gradtx.transforms.scaling import scale_by_learning_rate


@declared
class DifferentiallyPrivateAggregateState(NamedTuple):
    """The state of `differentially_private_aggregate`.

    Attributes:
      rng_key: the random key of the next step.
    """

    rng_key: RandomKey


@piece
def differentially_private_aggregate(
    l2_norm_clip: Scalar,
    noise_multiplier: Scalar,
    key: int | Array | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    """Averages the clipped gradients of examples, with noise that hides any one of them.

    `(sum(g_i * min(1, C / norm(g_i)), over i) + noise_multiplier * C * normal()) / B` for the
    gradients `g_i` of `B` examples, with norms over all leaves, and `C = l2_norm_clip`. The
    incoming updates have the examples on the first axis of every leaf, as returned by
    `jax.vmap(jax.grad(loss), (None, 0))`; the result does not have this axis. The noise of all
    elements and all steps is independent. In a complex number, the real and the imaginary part each
    have the full variance, because the bound is on both together. Sum and noise are computed in
    float32 or wider.

    The privacy budget has to be computed by a privacy accountant from the multiplier, the number of
    steps, and the sampling of examples. The key must be secret. The noise is drawn in floating
    point, and its lowest bits are not random: it does not protect against attacks on these bits
    (Mironov, "On significance of the least significant bits for differential privacy", 2012).

    Args:
      l2_norm_clip: the largest Euclidean norm of one example's gradient, not negative.
      noise_multiplier: the standard deviation of the noise, in units of `l2_norm_clip`; not
        negative.
      key: a random key of JAX, or a seed. Default: the seed 0, with a warning, because known noise
        does not protect.
      seed: an integer seed, in place of `key`. Default: `None`, `key` is used.

    Raises:
      ValueError: `l2_norm_clip` or `noise_multiplier` is negative, `key` and `seed` are both given,
        or `key` holds several keys; or, at a step, a leaf has no first axis, the first axes are
        empty or differ in length, or the other axes are not those of the parameter.

    Source: Abadi et al., "Deep Learning with Differential Privacy", arXiv:1607.00133, Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.differentially_private_aggregate(1.0, 0.0, key=7)
      >>> grads = {"w": jnp.array([[3.0, 4.0], [0.6, 0.8]])}  # two examples
      >>> updates, _ = tx.update(grads, tx.init({"w": jnp.zeros(2)}))
      >>> print(updates["w"])
      [0.6 0.8]
    """
    name = "differentially_private_aggregate"
    first_key = as_key(key, seed, name)
    if key is None and seed is None and _is_positive(noise_multiplier):
        warnings.warn(
            f"{name}: without key or seed, the noise is that of the seed 0 and does not protect; "
            "give a secret key",
            stacklevel=2,
        )

    def init(params: Params) -> DifferentiallyPrivateAggregateState:
        del params
        return DifferentiallyPrivateAggregateState(jnp.copy(first_key))  # it may be donated

    @compiled_when_concrete
    def aggregate(updates: Updates, key: Array) -> tuple[Updates, Array]:
        leaves, treedef = jax.tree.flatten(updates)
        keys = jax.random.split(key, 1 + len(leaves))
        if not leaves:
            return updates, keys[0]
        sums, _ = per_example_global_norm_clip(list(map(widen, leaves)), l2_norm_clip)
        size = jnp.shape(leaves[0])[0]
        # Without noise the deviation is 0, also for an infinite bound.
        deviation = jnp.where(noise_multiplier == 0, 0, noise_multiplier * l2_norm_clip)
        noises = drawn(_normal, keys[1:], list(map(type_of, sums)))
        means = [
            over(total + times(deviation, noise), size)
            for noise, total in zip(noises, sums, strict=True)
        ]
        rounded = [m.astype(jnp.result_type(u)) for m, u in zip(means, leaves, strict=True)]
        return treedef.unflatten(rounded), keys[0]

    def update(
        updates: Updates,
        state: DifferentiallyPrivateAggregateState,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Updates, DifferentiallyPrivateAggregateState]:
        del extra
        _check_examples(updates, params)
        means, key = aggregate(updates, state.rng_key)
        return means, DifferentiallyPrivateAggregateState(key)

    return coupled(DifferentiallyPrivateAggregateState, init, update, name=name)


@piece
def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: Scalar,
    noise_multiplier: Scalar,
    seed: int | Array,
    momentum: Scalar | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    """DP-SGD: gradient descent with differential privacy.

    `p - learning_rate * g`, or with momentum `v = momentum * v + g; p - learning_rate * v`, where
    `g` is the noisy mean of the examples' clipped gradients that `differentially_private_aggregate`
    returns. The gradients have the examples on the first axis of every leaf.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      l2_norm_clip: the largest Euclidean norm of one example's gradient, not negative.
      noise_multiplier: the standard deviation of the noise, in units of `l2_norm_clip`; not
        negative.
      seed: the seed of the noise: an integer, or a random key of JAX. It must be kept secret.
      momentum: momentum coefficient, in (-1, 1]. Default: `None`, no momentum.
      nesterov: whether to use Nesterov momentum. Default: False.

    Raises:
      ValueError: for the same reasons as `differentially_private_aggregate`.

    Source: Abadi et al., "Deep Learning with Differential Privacy", arXiv:1607.00133, Algorithm 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p, x):
      ...     return jnp.sum((p - x) ** 2)
      >>> tx, p = gradtx.dpsgd(0.1, l2_norm_clip=5.0, noise_multiplier=0.01, seed=7), jnp.zeros(2)
      >>> grads = jax.vmap(jax.grad(loss), (None, 0))(p, jnp.array([[1.0, 2.0], [1.0, 2.0]]))
      >>> updates, _ = tx.update(grads, tx.init(p), p)
      >>> print(updates.round(1))
      [0.2 0.4]
    """
    velocity = identity() if momentum is None else trace(momentum, nesterov)
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed),
        velocity,
        scale_by_learning_rate(learning_rate),
    )


def _normal(key: Array, like: jax.ShapeDtypeStruct) -> Array:
    """Draws normal numbers; in complex ones, each part has variance 1."""
    noise = sampled(jax.random.normal)(key, like)
    return times(2**0.5, noise) if jnp.iscomplexobj(noise) else noise


def _is_positive(x: Scalar) -> bool:
    """Returns whether a number may be positive, as arrays may."""
    return not isinstance(x, (int, float)) or x > 0


def _check_examples(updates: Updates, params: Params | None) -> None:
    """Raises unless all leaves have the examples on a first axis before the parameter's axes."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    first: tuple[str, int] | None = None
    for i, leaf in enumerate(leaves):
        if leaf is None:
            continue
        path, shape = f"updates{nth_path(updates, i)}", jnp.shape(leaf)
        if not shape:
            raise LeafError(ValueError, f"{path} is a scalar; {_NEEDED}")
        if first is None:
            first = (path, shape[0])
        if shape[0] != first[1]:
            raise LeafError(
                ValueError,
                f"{path} has {counted(shape[0], 'example')} on its first axis, but {first[0]} has "
                f"{first[1]}",
            )
        if shape[0] == 0:
            raise LeafError(ValueError, f"{path} needs at least one example, got shape {shape}")
    if params is not None:
        _check_parameters(updates, leaves, align(treedef, params, "params", updates))


def _check_parameters(
    updates: Updates, leaves: Sequence[ArrayLike | None], params: Sequence[ArrayLike | None]
) -> None:
    for i, (u, p) in enumerate(zip(leaves, params, strict=True)):
        if u is not None and p is not None and jnp.shape(u)[1:] != jnp.shape(p):
            path = nth_path(updates, i)
            raise LeafError(
                ValueError,
                f"updates{path} has shape {jnp.shape(u)}, params{path} has shape {jnp.shape(p)}; "
                + _NEEDED,
            )


_NEEDED = (
    "gradients must have the examples on a first axis, as returned by "
    "jax.vmap(jax.grad(loss), (None, 0))(params, examples)"
)
