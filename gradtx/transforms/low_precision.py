"""Training of parameters in bfloat16 or float16 without losing small steps.

A step of less than half the distance of two bfloat16 numbers, 2^-8 of the parameter, is lost when
it is added. `master_weights` adds it to a float32 copy, `kahan` to what the parameters lack, and
`stochastic_round` adds it with a probability.

All three return updates after which `apply_updates` gives the parameters that they mean.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradtx._apply import apply_updates
from gradtx._roles import Count, Inner, Slot, declared
from gradtx.codecs import nearest, random_bits, stochastically
from gradtx.engine.base import (
    GradientTransformation,
    Params,
    PyTree,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.checks import check_given, check_leaves, check_pairs
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import safe_increment, widen
from gradtx.engine.pipeline import wrapped
from gradtx.transforms.slots import copied_slots, zero_slots


@declared
class MasterWeightsState(NamedTuple):
    """The state of `master_weights`.

    Attributes:
      master: the parameters in float32.
      inner_state: the state of the wrapped transformation.
    """

    master: Slot
    inner_state: Inner


@piece
def master_weights(inner: TransformationLike) -> GradientTransformation:
    """Keeps a float32 copy of half-precision parameters, and updates that.

    `u = inner(g, m); m = m + u; p = round(m)`, where `m` is the copy. The wrapped transformation
    sees only float32 gradients and parameters. Parameters must be changed by its updates only, so
    that nothing that changes them may follow in a chain.

    Args:
      inner: the transformation, with the learning rate.

    Source: Micikevicius et al., "Mixed Precision Training", arXiv:1710.03740.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.master_weights(gradtx.sgd(1e-3))
      >>> w = jnp.ones(1, jnp.bfloat16)
      >>> state = tx.init(w)
      >>> for _ in range(100):
      ...     updates, state = tx.update(-jnp.ones(1, jnp.bfloat16), state, w)
      ...     w = gradtx.apply_updates(w, updates)
      >>> print(w, state.master)
      [1.10156] [1.1000047]
    """
    tx = with_extra_args_support(inner)

    def init(params: Params) -> MasterWeightsState:
        check_leaves(params, "params", real_only=True)
        master = copied_slots(params)
        return MasterWeightsState(master, tx.init(master))

    def update(
        updates: Updates, state: MasterWeightsState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MasterWeightsState]:
        check_given((), True, params, {})
        check_pairs(updates, params)
        g = jax.tree.map(widen, updates)
        new, inner_state = tx.update(g, state.inner_state, state.master, **extra)
        master = apply_updates(state.master, new)
        return jax.tree.map(_update, new, master, params, updates), MasterWeightsState(
            master, inner_state
        )

    traits = {"last": True}
    return wrapped(
        init, update, inner, name="master_weights", state=MasterWeightsState, traits=traits
    )


@declared
class KahanState(NamedTuple):
    """The state of `kahan`.

    Attributes:
      count: the number of steps taken, from which the rounding of the residuals is drawn.
      residual: what the parameters lack: in their dtypes, or as integers from -127 to 127 that
        divide half the distance of two neighbours of the parameter.
      inner_state: the state of the wrapped transformation.
    """

    count: Count
    residual: Slot
    inner_state: Inner


@piece
def kahan(
    inner: TransformationLike, residual: Literal["float", "int8"] = "float"
) -> GradientTransformation:
    """Adds updates to half-precision parameters with a compensation of rounding errors.

    `u = inner(g, p + c); y = c + u; p_new = round(p + y); c = y - (p_new - p)`, where `c` is the
    residual, in 2 bytes or 1 for each parameter. It is rounded stochastically, so that errors
    average out. The wrapped transformation sees only float32 gradients and parameters. Nothing that
    changes the updates may follow in a chain.

    Args:
      inner: the transformation, with the learning rate.
      residual: `"float"`, in the dtypes of the parameters, or `"int8"`, a 256th of the distance of
        two neighbours: bfloat16 parameters then have the precision of 16 bits of the mantissa.
        Default: `"float"`.

    Raises:
      ValueError: `residual` is something else.

    Source: Zamirai et al., "Revisiting BFloat16 Training", arXiv:2010.06192, algorithm 3.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.kahan(gradtx.sgd(1e-3))
      >>> w = jnp.ones(1, jnp.bfloat16)
      >>> state = tx.init(w)
      >>> for _ in range(100):
      ...     updates, state = tx.update(-jnp.ones(1, jnp.bfloat16), state, w)
      ...     w = gradtx.apply_updates(w, updates)
      >>> print(w)
      [1.10156]
    """
    tx = with_extra_args_support(inner)

    def init(params: Params) -> KahanState:
        check_leaves(params, "params", real_only=True)
        kinds = {"int8": lambda p: jnp.int8, "float": jnp.result_type}
        zeros = jax.tree.map(lambda c, p: c.astype(kinds[residual](p)), zero_slots(params), params)
        whole = jax.tree.map(widen, params)
        return KahanState(jnp.zeros((), jnp.int32), zeros, tx.init(whole))

    def update(
        updates: Updates, state: KahanState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, KahanState]:
        check_given((), True, params, {})
        check_pairs(updates, params)
        held = jax.tree.map(_read, state.residual, params)
        whole = jax.tree.map(lambda p, c: _exactly(p) + c, params, held)
        g = jax.tree.map(widen, updates)
        new, inner_state = tx.update(g, state.inner_state, whole, **extra)
        sums = jax.tree.map(lambda c, u: c + widen(u), held, new)
        result = jax.tree.map(
            lambda y, p, g: _update(y, _exactly(p) + y, p, g), sums, params, updates
        )
        moved = jax.tree.map(_moved, params, result)
        lacking = jax.tree.map(lambda y, q, p: y - (q - _exactly(p)), sums, moved, params)
        bits = _bits_like(params, state.count, 0)
        kept = jax.tree.map(_stored, lacking, moved, params, bits, state.residual)
        return result, KahanState(safe_increment(state.count), kept, inner_state)

    traits = {"last": True}
    return wrapped(init, update, inner, name="kahan", state=KahanState, traits=traits)


@declared
class StochasticRoundState(NamedTuple):
    """The state of `stochastic_round`.

    Attributes:
      count: the number of steps taken, from which the rounding is drawn.
    """

    count: Count


@piece
def stochastic_round(seed: int = 0) -> GradientTransformation:
    """Rounds half-precision parameters up or down at random after each step.

    `u = round(p + u) - p`, where the probability of rounding up is the distance to the number
    below as a share of that of the two neighbours. So the mean over all draws is that of exact
    steps. It must be the last piece of a chain. Parameters in float32 are not changed.

    Args:
      seed: the seed of the random bits, which also depend on the step, the leaf and the entry.
        Default: 0.

    Source: Zamirai et al., "Revisiting BFloat16 Training", arXiv:2010.06192, algorithm 2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1e-3), gradtx.stochastic_round())
      >>> w = jnp.ones(1000, jnp.bfloat16)
      >>> updates, _ = tx.update(-jnp.ones(1000, jnp.bfloat16), tx.init(w), w)
      >>> moved = gradtx.apply_updates(w, updates)
      >>> print(jnp.unique(moved))  # of 2^-7, the distance of neighbours
      [1 1.00781]
      >>> bool(abs(moved.astype(float).mean() - 1.001) < 3e-4)
      True
    """

    def init(params: Params) -> StochasticRoundState:
        return StochasticRoundState(jnp.zeros((), jnp.int32))

    def update(
        updates: Updates, state: StochasticRoundState, params: Params, **extra: Any
    ) -> tuple[Updates, StochasticRoundState]:
        bits = _bits_like(params, state.count, seed)

        def rounded(u: ArrayLike, p: ArrayLike, b: Array) -> Array:
            target = stochastically(_exactly(p) + widen(u), b, jnp.result_type(p))
            return _update(u, target, p, u)

        new = jax.tree.map(rounded, updates, params, bits)
        return new, StochasticRoundState(safe_increment(state.count))

    return coupled(
        StochasticRoundState,
        init,
        update,
        name="stochastic_round",
        params=True,
        real_only=True,
        traits={"last": True, "follows": True},
    )


def _update(step: ArrayLike, target: Array, p: ArrayLike, g: ArrayLike) -> Array:
    """Returns the update of a parameter to a number, in the dtype of the gradient.

    Args:
      step: the difference of the number and the parameter, if nothing is rounded.
      target: the number.
      p: the parameter, in whose dtype the number is rounded.
      g: the gradient.
    """
    dtype = jnp.result_type(p)
    if not dtype == target.dtype == jnp.result_type(g):  # rounded, so what is lost comes next time
        step = nearest(target, dtype) - _exactly(p)
    dtype = jnp.result_type(g)
    return nearest(jnp.asarray(step), dtype).astype(dtype)


def _exactly(p: ArrayLike) -> Array:
    """Returns parameters in float32, rounded to their dtype even if XLA omitted that."""
    return nearest(widen(p), jnp.result_type(p))


def _moved(p: ArrayLike, u: ArrayLike) -> Array:
    """Returns in float32 what `apply_updates` returns."""
    return nearest(_exactly(p) + _exactly(u), jnp.result_type(p))


def _bits_like(params: Params, count: Array, seed: int) -> PyTree:
    """Returns random bits for each entry of the parameters."""
    leaves, treedef = jax.tree.flatten(params)
    first = jnp.uint32(int(seed) * 0x9E3779B9 % 2**32)
    step = count.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B) + first
    bits = [random_bits(step + jnp.uint32(i), jnp.shape(x)) for i, x in enumerate(leaves)]
    return treedef.unflatten(bits)


def _unit(p: Array, dtype: DTypeLike) -> Array:
    """Returns a 254th of the distance of a number's neighbours: half of it is 127 units.

    Of numbers below 2^-108 it is that of 2^-108, because XLA takes numbers below 2^-126 for zero.
    """
    info = jnp.finfo(dtype)
    least = max(float(info.smallest_normal), 2.0**-108)
    _, exponent = jnp.frexp(jnp.maximum(jnp.abs(p), least))
    return jnp.ldexp(jnp.float32(1 / 254), exponent - 1 - info.nmant)


def _read(residual: Array, p: ArrayLike) -> Array:
    if residual.dtype != jnp.int8:
        return widen(residual)
    return residual.astype(jnp.float32) * _unit(_exactly(p), jnp.result_type(p))


def _stored(c: Array, q: Array, p: ArrayLike, bits: Array, like: Array) -> Array:
    if like.dtype != jnp.int8:
        return stochastically(c, bits, like.dtype).astype(like.dtype)
    up = (bits >> 8).astype(jnp.float32) * 2.0**-24
    return jnp.clip(jnp.floor(c / _unit(q, jnp.result_type(p)) + up), -127, 127).astype(jnp.int8)
