"""Shampoo for tensors: preconditioning by an inverse root of the second moment of every axis."""

import functools
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx._devices import placed_with, whole
from gradtx._roles import Count, Slot, Statistic, Tally, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, value_of
from gradtx.engine.rules import Slots
from gradtx.engine.scalars import finished
from gradtx.linear_algebra.inverse_roots import RootMethod, inverse_roots
from gradtx.matrices.renewal import renewed
from gradtx.matrices.sides import stored_dtype
from gradtx.tree.moments import gathered_weight, step_number


@declared
class ScaleByTensorShampooState(NamedTuple):
    """The state of `scale_by_tensor_shampoo`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      moments: for each leaf a list with the average or sum of second moments of each axis.
      roots: for each leaf a list with the inverse root of each of them.
      rejected: for each leaf, the number of gradients and roots that were not finite.
    """

    count: Count
    mu: Slot
    moments: Statistic
    roots: Statistic
    rejected: Tally


@functools.partial(piece, constants=("precondition_frequency", "exponent_override"))
def scale_by_tensor_shampoo(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-12,
    precondition_frequency: int = 10,
    *,
    accumulation: Literal["average", "sum"] = "average",
    exponent_override: int | None = None,
    root: RootMethod = "eigh",
    max_dim: int | None = 1024,
    statistics_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Multiplies momentum of tensors by an inverse root of the second moment of every axis.

    With `t` 1 at the first step, and `unfold(g, i)` the matrix whose rows are axis `i`::

        mu = b1*mu + (1-b1)*g
        moments[i] = b2*moments[i] + (1-b2) * unfold(g, i) @ unfold(g, i).H
        u = mu / (1-b1**t)
        unfold(u, i) = root(moments[i] / (1-b2**t)) @ unfold(u, i)

    for each axis `i` in turn, where `root(A) = (A + eps * I)**(-1/p)`, and `p` is twice the number
    of axes that are preconditioned. For matrices this is `scale_by_shampoo`, which computes many at
    once and is faster. Roots are computed at the first step and every `precondition_frequency`
    steps. The gradient of a leaf which is not finite, or so large that its squares are not, counts
    as zeros; see `rejected` in `gradtx.metrics`. Its elements that are not finite are returned as
    they are. Derivatives treat roots as constants.

    Args:
      b1: decay rate of the average of gradients, in [0, 1); 0 for no momentum. Default: 0.9.
      b2: decay rate of the averages of second moments, in [0, 1). Default: 0.999.
      eps: added to the diagonal before the root. Default: 1e-12.
      precondition_frequency: the number of steps for which roots are kept, a Python integer, at
        least 1. Default: 10.
      accumulation: "average", or "sum" for sums of second moments, as in the first paper, where
        `b2` has no effect. Default: "average".
      exponent_override: the order `p` of the root, a Python integer, at least 1. Default: twice the
        number of axes that are preconditioned.
      root: "eigh", or "newton" for the coupled Newton iteration of arXiv:2002.09018. Default:
        "eigh".
      max_dim: the length of the longest axis that is preconditioned; `None` for no limit. Default:
        1024.
      statistics_dtype: the dtype in which second moments and roots are stored. Default: that of the
        parameters, and float32 for half precision; those of complex parameters always are in
        theirs.

    Source: Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization",
    arXiv:1802.09568, Algorithm 2; averages and bias corrections: Shi et al., "A Distributed
    Data-Parallel PyTorch Implementation of the Distributed Shampoo Optimizer", arXiv:2309.06497.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_tensor_shampoo()
      >>> g = jnp.zeros((2, 2, 2)).at[0, 0, 0].set(3.0).at[1, 1, 1].set(-1.0)
      >>> updates, state = tx.update(g, tx.init(g))
      >>> print(updates.round(3)[0, 0, 0], updates.round(3)[1, 1, 1], len(state.moments))
      1.0 -1.0 3
    """
    average = accumulation == "average"

    def preconditioned(x: Array) -> list[int]:
        return [i for i, n in enumerate(x.shape) if max_dim is None or n <= max_dim]

    def init(p: Array) -> Slots:
        dtype, sides = stored_dtype(p, statistics_dtype), [p.shape[i] for i in preconditioned(p)]
        return Slots(
            mu=jnp.zeros_like(p),
            moments=[jnp.zeros((n, n), dtype) for n in sides],
            roots=[jnp.eye(n, dtype=dtype) for n in sides],
            rejected=jnp.zeros((), jnp.int32),
        )

    def per_step(step: Array) -> dict[str, Array]:
        t = step_number(step)
        of_moments = gathered_weight(b2, t) if average else jnp.ones(())
        return {"of_mu": gathered_weight(b1, t), "of_moments": of_moments}

    def roots_of(moments: list[Array], old: list[Array]) -> list[Array]:
        order = exponent_override or 2 * len(moments)
        return [inverse_roots(lax.stop_gradient(a), order, value_of(eps), root) for a in moments]

    def update(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
        if g.size == 0:
            return g, Slots(mu=s.mu, moments=s.moments, roots=s.roots, rejected=s.rejected)
        good = jnp.isfinite(jnp.sum(abs_sq(g)))
        clean, sides = jnp.where(good, g, 0), preconditioned(g)
        moments, undivided = [], whole(clean)
        for i, held in zip(sides, s.moments, strict=True):
            new = _second_moment(undivided, i)
            held = held.astype(g.dtype)
            moments.append(ema(new, held, b2) if average else held + new)
        mu, bad = ema(clean, s.mu, b1), 0
        u, roots = over(whole(mu), s.of_mu), [x.astype(g.dtype) for x in s.roots]
        if sides:
            stacks, rejected = renewed(
                roots_of,
                [over(x, s.of_moments)[None] for x in moments],
                [x[None] for x in roots],
                step,
                precondition_frequency,
            )
            roots, bad = [x[0] for x in stacks], rejected[0]
        for i, x in zip(sides, roots, strict=True):
            u = _times(x, u, i)
        u = placed_with(u, g)
        return jnp.where(jnp.isfinite(g), u, g), Slots(
            mu=mu, moments=moments, roots=roots, rejected=finished(s.rejected + ~good + bad)
        )

    return leafwise(ScaleByTensorShampooState, init, update, per_step=per_step)


def _second_moment(g: Array, axis: int) -> Array:
    """Returns `unfold(g, axis) @ unfold(g, axis).H`."""
    others = tuple(i for i in range(g.ndim) if i != axis)
    summed = ((others, others), ((), ()))
    return lax.dot_general(g, g.conj(), summed, precision=lax.Precision.HIGHEST)


def _times(a: Array, x: Array, axis: int) -> Array:
    """Returns `a @ unfold(x, axis)`, folded back."""
    summed = (((1,), (axis,)), ((), ()))
    found = lax.dot_general(a, x, summed, precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(found, 0, axis)
