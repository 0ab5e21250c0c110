"""Accumulators, which combine the results of micro-batches."""

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from gradtx.engine.base import Array, PyTree, PyTreeDef
from gradtx.engine.numerics import compute_dtype, default_float


class AccumulationType(enum.Enum):
    """The standard ways to combine results.

    Sums and means over half precision are taken in float32 and rounded once, at the end.

    Attributes:
      MEAN: the sum, divided by the number of micro-batches in the batch. Those that
        `num_real_microbatches` excludes count as zeros.
      SUM: the sum.
      RUNNING_MEAN: the mean over the micro-batches that ran, updated with each.
      CONCAT: the results, concatenated along their first axis in the order of the batch. Those that
        were left out are zeros.
    """

    MEAN = enum.auto()
    SUM = enum.auto()
    RUNNING_MEAN = enum.auto()
    CONCAT = enum.auto()


@dataclass(frozen=True)
class Accumulator:
    """A fold over the results of micro-batches.

    For the results `x[0], ..., x[k-1]` it computes::

        carry = init(shapes and dtypes of x[0])
        for i in range(k):
            carry = update(carry, x[i], i)
        result = finalize(carry)

    Attributes:
      init: `init(struct) -> carry`, from a tree of `jax.ShapeDtypeStruct`.
      update: `update(carry, value, index) -> carry`, of the same shapes and dtypes.
      finalize: `finalize(carry) -> result`.
      aggregate: `aggregate(values) -> value`, from the results of the examples of one micro-batch,
        stacked along their first axis, to the micro-batch's result; for `micro_vmap` only.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.microbatching import Accumulator, microbatch
      >>> largest = Accumulator(
      ...     init=lambda x: jnp.full(x.shape, -jnp.inf, x.dtype),
      ...     update=lambda carry, x, i: jnp.maximum(carry, x),
      ...     finalize=lambda carry: carry,
      ...     aggregate=lambda xs: jnp.max(xs, axis=0),
      ... )
      >>> print(microbatch(jnp.max, 0, microbatch_size=2, accumulator=largest)(jnp.arange(6.0)))
      5.0
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, Array], PyTree]
    finalize: Callable[[PyTree], PyTree]
    aggregate: Callable[[PyTree], PyTree]


def resolve(accumulator: PyTree, struct: PyTree, num_microbatches: int) -> Accumulator:
    """Returns one accumulator for the whole result of a function.

    Args:
      accumulator: an `Accumulator`, an `AccumulationType`, or a tree of them that is a prefix of
        the result.
      struct: the shapes and dtypes of a micro-batch's result.
      num_microbatches: the number of micro-batches in the batch.

    Raises:
      ValueError: an accumulator is something else, or the tree is not a prefix of the result.
    """
    kinds, prefix = jax.tree.flatten(accumulator)
    for kind in kinds:
        if not isinstance(kind, (Accumulator, AccumulationType)):
            raise ValueError(
                f"microbatching: {kind!r} is neither an AccumulationType nor an Accumulator"
            )
    try:
        parts = prefix.flatten_up_to(struct)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"microbatching: the accumulators, {prefix}, are not a prefix of the function's "
            f"result, {jax.tree.structure(struct)}"
        ) from error

    def of_part(kind: Accumulator | AccumulationType, part: PyTree) -> Accumulator:
        if isinstance(kind, Accumulator):
            return kind
        leaves, structure = jax.tree.flatten(part)
        return _joined([_BUILT_IN[kind](x.dtype, num_microbatches) for x in leaves], structure)

    return _joined([of_part(k, part) for k, part in zip(kinds, parts, strict=True)], prefix)


def of_examples(accumulator: Accumulator) -> Accumulator:
    """Returns an accumulator of results that have an axis of examples.

    Args:
      accumulator: an accumulator of aggregates over examples.
    """
    a = accumulator
    return Accumulator(
        init=lambda x: a.init(jax.eval_shape(a.aggregate, x)),
        update=lambda carry, xs, i: a.update(carry, a.aggregate(xs), i),
        finalize=a.finalize,
        aggregate=a.aggregate,
    )


def _joined(accumulators: list[Accumulator], structure: PyTreeDef) -> Accumulator:
    """Returns the accumulator of a tree from those of its parts; it carries a list of carries."""

    def parts(tree: PyTree) -> Iterator[tuple[Accumulator, PyTree]]:
        return zip(accumulators, structure.flatten_up_to(tree), strict=True)

    def update(carry: list[PyTree], value: PyTree, i: Array) -> list[PyTree]:
        return [a.update(c, v, i) for c, (a, v) in zip(carry, parts(value), strict=True)]

    def finalize(carry: list[PyTree]) -> PyTree:
        pairs = zip(accumulators, carry, strict=True)
        return structure.unflatten([a.finalize(c) for a, c in pairs])

    return Accumulator(
        init=lambda tree: [a.init(x) for a, x in parts(tree)],
        update=update,
        finalize=finalize,
        aggregate=lambda tree: structure.unflatten([a.aggregate(x) for a, x in parts(tree)]),
    )


def _sum(dtype: DTypeLike, num_microbatches: int) -> Accumulator:
    del num_microbatches
    counted = jnp.dtype(jnp.int32) if dtype == jnp.bool_ else dtype
    wide = compute_dtype(counted)
    return Accumulator(
        init=lambda x: jnp.zeros_like(x, wide),
        update=lambda carry, x, i: carry + x.astype(wide),
        finalize=lambda carry: carry.astype(counted),
        aggregate=lambda xs: jnp.sum(xs.astype(wide), axis=0, dtype=wide),
    )


def _mean(dtype: DTypeLike, num_microbatches: int) -> Accumulator:
    dtype = _mean_dtype(dtype)
    wide = compute_dtype(dtype)
    return Accumulator(
        init=lambda x: jnp.zeros_like(x, wide),
        update=lambda carry, x, i: carry + x.astype(wide),
        finalize=lambda carry: (carry / num_microbatches).astype(dtype),
        aggregate=lambda xs: jnp.mean(xs.astype(wide), axis=0),
    )


def _running_mean(dtype: DTypeLike, num_microbatches: int) -> Accumulator:
    del num_microbatches
    dtype = _mean_dtype(dtype)
    wide = compute_dtype(dtype)
    return Accumulator(
        init=lambda x: jnp.zeros_like(x, wide),
        update=lambda carry, x, i: carry + (x.astype(wide) - carry) / (i + 1),
        finalize=lambda carry: carry.astype(dtype),
        aggregate=lambda xs: jnp.mean(xs.astype(wide), axis=0),
    )


def _concat(dtype: DTypeLike, num_microbatches: int) -> Accumulator:
    # Micro-batch `i` has the examples `i, i + num_microbatches, ...`: its results form a column.
    def init(x: Array) -> Array:
        if not x.shape:
            raise ValueError("microbatching: CONCAT needs results with an axis, got a scalar")
        column = jnp.expand_dims(jnp.zeros_like(x, dtype), 1)  # sharded as `x` is
        return jnp.repeat(column, num_microbatches, axis=1)

    return Accumulator(
        init=init,
        update=lambda carry, x, i: lax.dynamic_update_index_in_dim(carry, x, i, axis=1),
        finalize=lambda carry: carry.reshape(len(carry) * num_microbatches, *carry.shape[2:]),
        aggregate=lambda xs: xs,
    )


def _mean_dtype(dtype: DTypeLike) -> DTypeLike:
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else default_float()


_BUILT_IN = {
    AccumulationType.MEAN: _mean,
    AccumulationType.SUM: _sum,
    AccumulationType.RUNNING_MEAN: _running_mean,
    AccumulationType.CONCAT: _concat,
}
