"""Functions of one example, mapped over a batch in parts; gradients of single examples."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._arguments import counted
from gradtx.engine.base import Array, PyTree
from gradtx.microbatching.accumulators import AccumulationType
from gradtx.microbatching.batches import in_parts


class Aux(NamedTuple):
    """The auxiliary results of `micro_grad`, for each example.

    Attributes:
      values: the values of the function, `[batch]`.
      metrics: the results of `metrics_fn`, with a leading batch axis.
      aux: the function's own auxiliary results, with a leading batch axis, or `None`.
    """

    values: PyTree
    metrics: PyTree
    aux: PyTree


def micro_vmap(
    fun: Callable[..., PyTree],
    in_axes: int | Sequence[int | None] | None = 0,
    out_axes: int = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., PyTree] = jax.vmap,
    accumulator: PyTree = AccumulationType.CONCAT,
    num_real_microbatches: int | Array | None = None,
) -> Callable[..., PyTree]:
    """Maps a function over a batch like `jax.vmap`, in parts and optionally with a reduction.

    With the default accumulator the result is that of `jax.vmap(fun, in_axes)`. With `SUM`, `MEAN`
    or another one it is that result, summed, averaged or folded over the batch, where only the
    results of `microbatch_size` examples are stored at once.

    Args:
      fun: a function of one example.
      in_axes: the batch axis of each positional argument, `None` if it has none; one number for all
        of them. Keyword arguments have their batch axis first. Default: 0.
      out_axes: the batch axis of the results; it must be 0. Default: 0.
      microbatch_size: the examples in a part; it divides the size of the batch. Default: all.
      vmap_fn: a replacement for `jax.vmap`, with its signature. Default: `jax.vmap`.
      accumulator: an `AccumulationType` or `Accumulator`, or a tree of them that is a prefix of the
        result of `fun`. Default: `AccumulationType.CONCAT`.
      num_real_microbatches: the number of parts to evaluate, see `microbatch`. Default: all.

    Returns:
      A function of the arguments of `fun`, each with an additional batch axis.

    Raises:
      NotImplementedError: `out_axes` is not 0.
      ValueError: sizes of batches differ or are not divisible, accumulators do not fit, or
        `in_axes` does not have one entry for each positional argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.microbatching import AccumulationType, micro_vmap
      >>> square = lambda x: x * x
      >>> print(micro_vmap(square, microbatch_size=2)(jnp.arange(6)))
      [ 0  1  4  9 16 25]
      >>> total = micro_vmap(square, microbatch_size=2, accumulator=AccumulationType.SUM)
      >>> print(total(jnp.arange(6)))
      55
    """
    if out_axes != 0:
        raise NotImplementedError(f"micro_vmap: out_axes is {out_axes}, and must be 0")

    def run(*args: Any, **kwargs: Any) -> PyTree:
        if in_axes is None or isinstance(in_axes, int):
            axes = (in_axes,) * len(args)
        else:
            axes = tuple(in_axes)
        if len(axes) != len(args):
            raise ValueError(
                f"micro_vmap: in_axes has {counted(len(axes), 'axis', 'axes')} for "
                f"{counted(len(args), 'positional argument')}"
            )
        mapped = [(i, axis) for i, axis in enumerate(axes) if axis is not None]
        return in_parts(
            "micro_vmap",
            vmap_fn(fun, in_axes=axes, out_axes=0),
            [i for i, _ in mapped],
            microbatch_size,
            accumulator,
            argnames=list(kwargs),
            in_axes=[axis for _, axis in mapped] + [0] * len(kwargs),
            num_real_microbatches=num_real_microbatches,
            examples=True,
        )(*args, **kwargs)

    return run


def _unchanged(gradient: PyTree) -> PyTree:
    return gradient


def _no_metrics(gradient: PyTree) -> None:
    del gradient


def micro_grad(
    fun: Callable[..., PyTree],
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: PyTree = AccumulationType.SUM,
    transform_fn: Callable[[PyTree], PyTree] = _unchanged,
    metrics_fn: Callable[[PyTree], PyTree] = _no_metrics,
    num_real_microbatches: int | Array | None = None,
) -> Callable[..., tuple[PyTree, Aux]]:
    """Returns a function that computes, transforms and combines per-example gradients.

    With `g[e]` the gradient of `fun` at example `e` alone, the results are::

        sum(transform_fn(g[e]), over e)

    and `Aux(values[e], metrics_fn(g[e]), aux[e])`, so that each gradient can be clipped, squared or
    measured, as in private or robust training, while no more than `microbatch_size` of them are
    stored at once.

    Args:
      fun: a loss, `fun(params, batch, ...)`, a scalar.
      has_aux: whether `fun` returns a pair, the loss and something else. Default: no.
      argnums: the positions of the arguments to differentiate by; for several, the result is a
        tuple of gradients. Default: 0.
      batch_argnums: the positions of the arguments whose first axis is the batch. Keyword arguments
        have a batch axis too. Default: 1.
      keep_batch_dim: whether `fun` receives each example as a batch of one; otherwise it receives
        it without a batch axis. Default: yes.
      microbatch_size: the examples whose gradients are taken at once. Default: all.
      accumulator: how the transformed gradients combine, see `microbatch`.
        Default: `AccumulationType.SUM`.
      transform_fn: a function of one example's gradient. Default: the gradient itself.
      metrics_fn: a function of one example's gradient whose result is kept for each example.
        Default: nothing.
      num_real_microbatches: the number of parts to evaluate, see `microbatch`. Default: all.

    Returns:
      A function of the arguments of `fun` that returns the gradient and an `Aux`.

    Raises:
      ValueError: sizes of batches differ or are not divisible, accumulators do not fit, or there
        are no arguments `batch_argnums`.

    Source: Roulet and Agarwala, "Per-example gradients: a new frontier for understanding and
    improving optimizers", arXiv:2510.00236.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.microbatching import micro_grad
      >>> loss = lambda w, x: jnp.mean(w * x)
      >>> clipped = micro_grad(loss, transform_fn=lambda g: jnp.clip(g, -1, 1), microbatch_size=2)
      >>> grads, aux = clipped(2.0, jnp.array([0.5, 3.0, -0.25, 7.0]))
      >>> print(grads, aux.values)
      2.25 [ 1.   6.  -0.5 14. ]
    """
    batched = {batch_argnums} if isinstance(batch_argnums, int) else set(batch_argnums)
    value_and_grad = jax.value_and_grad(fun, argnums=argnums, has_aux=has_aux)

    def one_example(*args: Any, **kwargs: Any) -> tuple[PyTree, Aux]:
        if keep_batch_dim:
            args = tuple(
                jax.tree.map(lambda x: jnp.expand_dims(x, 0), x) if i in batched else x
                for i, x in enumerate(args)
            )
        result, grads = value_and_grad(*args, **kwargs)
        value, aux = result if has_aux else (result, None)
        return transform_fn(grads), Aux(value, metrics_fn(grads), aux)

    def run(*args: Any, **kwargs: Any) -> tuple[PyTree, Aux]:
        absent = [i for i in batched if not 0 <= i < len(args)]
        if absent:
            raise ValueError(
                f"micro_grad: batch_argnums names the argument {absent[0]}, and there are "
                f"{len(args)} positional ones"
            )
        return micro_vmap(
            one_example,
            in_axes=[0 if i in batched else None for i in range(len(args))],
            microbatch_size=microbatch_size,
            accumulator=(accumulator, AccumulationType.CONCAT),
            num_real_microbatches=num_real_microbatches,
        )(*args, **kwargs)

    return run
