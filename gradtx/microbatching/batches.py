"""Evaluation of a function on the micro-batches of a batch, one after another."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx._arguments import counted
from gradtx.engine.base import Array, PyTree
from gradtx.microbatching.accumulators import AccumulationType, of_examples, resolve


def reshape_batch_axis(tree: PyTree, microbatch_size: int, axis: int = 0) -> PyTree:
    """Splits the batch axis of every leaf in two, micro-batches and their examples.

    Micro-batch `i` of `k` has the examples `i`, `i + k`, `i + 2 k` and so on, not neighbours: each
    device of a sharded batch keeps its examples, and has its share of every micro-batch.

    Args:
      tree: a tree of arrays that have a batch axis.
      microbatch_size: the examples in a micro-batch; it divides the size of the batch.
      axis: the batch axis; counted from the end if negative. Default: 0.

    Returns:
      The tree with the shapes `[*before, size // microbatch_size, microbatch_size, *after]`.

    Raises:
      ValueError: a leaf has no such axis, or its size is not divisible.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.microbatching import reshape_batch_axis
      >>> print(reshape_batch_axis(jnp.arange(6), 2))
      [[0 3]
       [1 4]
       [2 5]]
    """
    name = "reshape_batch_axis"
    for path, size in _sizes(name, tree, axis).items():
        _number_of_parts(f"{name}: leaf{path}", size, microbatch_size)

    def reshape(x: Array) -> Array:
        at = axis % jnp.ndim(x)
        num_parts = jnp.shape(x)[at] // microbatch_size
        return jnp.swapaxes(_split(x, microbatch_size, num_parts, at), at, at + 1)

    return jax.tree.map(reshape, tree)


def microbatch(
    fun: Callable[..., PyTree],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: PyTree = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: int | Array | None = None,
) -> Callable[..., PyTree]:
    """Returns a function that evaluates `fun` on parts of the batch in turn, to save memory.

    For a function that sums over its batch, `microbatch(fun, 0, 4)(batch)` is::

        sum(fun(b[i]), over i)

    for the parts `b[i]` of `batch` with 4 examples, as a loop that needs the memory of `fun` for
    one part only. The examples of a part are those of `reshape_batch_axis`. The accumulator must
    fit the function: `MEAN` for one that takes a mean, `CONCAT` for one that returns something for
    each example.

    The loop can be differentiated in forward mode, and in reverse mode unless
    `num_real_microbatches` is traced. In reverse mode it stores what `fun` needs for every part. To
    save memory in training, use micro-batches of the gradient: `microbatch(jax.grad(loss), ...)`.

    Args:
      fun: any function of arrays.
      argnums: the positions of the arguments that have a batch axis; trees of arrays.
      microbatch_size: the examples in a part; it divides the size of the batch. `None` for the
        whole batch as one part.
      accumulator: how results combine: an `AccumulationType` or `Accumulator`, or a tree of them
        that is a prefix of the result of `fun`. Default: `AccumulationType.SUM`.
      argnames: the names of the keyword arguments that have a batch axis. Default: none.
      in_axes: the batch axis of each of these arguments, `argnums` before `argnames`; one number
        for all of them. Default: 0.
      num_real_microbatches: the number of parts to evaluate, the first ones; may be traced, so that
        batches of several sizes, padded to one, need one compilation. Default: all.

    Returns:
      A function of the arguments of `fun`.

    Raises:
      ValueError: sizes of batches differ or are not divisible, accumulators do not fit, or there
        are no such arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> total = gradtx.microbatch(jnp.sum, argnums=0, microbatch_size=2)
      >>> print(total(jnp.arange(6.0)))
      15.0
    """
    return in_parts(
        "microbatch",
        fun,
        argnums,
        microbatch_size,
        accumulator,
        argnames=argnames,
        in_axes=in_axes,
        num_real_microbatches=num_real_microbatches,
        examples=False,
    )


def in_parts(
    name: str,
    fun: Callable[..., PyTree],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: PyTree,
    *,
    argnames: str | Sequence[str],
    in_axes: int | Sequence[int],
    num_real_microbatches: int | Array | None,
    examples: bool,
) -> Callable[..., PyTree]:
    """Implements `microbatch` and `micro_vmap`.

    Args:
      name: the name of the calling function, for errors.
      fun: see `microbatch`.
      argnums: see there.
      microbatch_size: see there.
      accumulator: see there.
      argnames: see there.
      in_axes: see there.
      num_real_microbatches: see there.
      examples: whether results have an axis of examples, to be aggregated before they accumulate.
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)
    count = len(numbers) + len(names)
    axes = (in_axes,) * count if isinstance(in_axes, int) else tuple(in_axes)
    if len(axes) != count:
        raise ValueError(
            f"{name}: in_axes has {counted(len(axes), 'axis', 'axes')}, argnums and "
            f"argnames {count}"
        )

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> PyTree:
        given = dict(enumerate(args)) | kwargs
        keys = _keys(name, numbers, names, args, kwargs)
        batches = {key: (given[key], axis) for key, axis in zip(keys, axes, strict=True)}
        size = _batch_size(name, batches)
        part_size = size if microbatch_size is None or size == 0 else microbatch_size
        num_parts = _number_of_parts(name, size, part_size)
        num_run = _number_to_run(name, num_real_microbatches, num_parts)

        def evaluate(i: Array) -> PyTree:
            def part(x: Array, axis: int) -> Array:
                at = axis % jnp.ndim(x)
                split = _split(x, part_size, num_parts, at)
                return lax.dynamic_index_in_dim(split, i, at + 1, keepdims=False)

            now = given | {
                key: jax.tree.map(functools.partial(part, axis=axis), tree)
                for key, (tree, axis) in batches.items()
            }
            return fun(*(now[i] for i in range(len(args))), **{k: now[k] for k in kwargs})

        struct = jax.eval_shape(evaluate, 0)
        whole = resolve(accumulator, struct, num_parts)
        whole = of_examples(whole) if examples else whole
        carry = lax.fori_loop(
            0, num_run, lambda i, carry: whole.update(carry, evaluate(i), i), whole.init(struct)
        )
        return whole.finalize(carry)

    return run


def _split(x: Array, part_size: int, num_parts: int, at: int) -> Array:
    """Splits the axis `at` into the examples of a part, and the parts."""
    shape = jnp.shape(x)
    return jnp.reshape(x, (*shape[:at], part_size, num_parts, *shape[at + 1 :]))


def _sizes(name: str, tree: PyTree, axis: int) -> dict[str, int]:
    """Returns the size of every leaf's batch axis, by the leaf's path."""
    sizes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        shape, told = jnp.shape(leaf), jax.tree_util.keystr(path)
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"{name}: leaf{told} has the shape {shape}, and no axis {axis}")
        sizes[told] = shape[axis]
    return sizes


def _batch_size(name: str, batches: dict[int | str, tuple[PyTree, int]]) -> int:
    """Returns the size that all batch axes have."""
    sizes = {
        (f"argument {key}" if isinstance(key, int) else key) + path: size
        for key, (tree, axis) in batches.items()
        for path, size in _sizes(f"{name}: argument {key}", tree, axis).items()
    }
    if not sizes:
        raise ValueError(f"{name}: no argument has a batch axis; name one in argnums or argnames")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{name}: batch axes must have equal sizes, got {sizes}")
    return next(iter(sizes.values()))


def _number_of_parts(name: str, size: int, part_size: int) -> int:
    if size == part_size == 0:
        return 1
    if part_size < 1:
        raise ValueError(f"{name}: microbatch_size is {part_size}, and must be positive")
    if size % part_size:
        raise ValueError(
            f"{name}: the batch size {size} is not divisible by the microbatch_size {part_size}"
        )
    return size // part_size


def _number_to_run(
    name: str, num_real_microbatches: int | Array | None, num_parts: int
) -> int | Array:
    if num_real_microbatches is None:
        return num_parts
    if isinstance(num_real_microbatches, int):
        if not 0 <= num_real_microbatches <= num_parts:
            raise ValueError(
                f"{name}: num_real_microbatches is {num_real_microbatches}, and the batch has "
                f"{num_parts}"
            )
        return num_real_microbatches
    return jnp.minimum(num_real_microbatches, num_parts)


def _keys(
    name: str,
    numbers: tuple[int, ...],
    names: tuple[str, ...],
    args: tuple[PyTree, ...],
    kwargs: dict[str, PyTree],
) -> list[int | str]:
    """Returns the positions of the arguments with a batch axis."""
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise ValueError(
                f"{name}: argnums names the argument {number}, and there are {len(args)} "
                "positional ones"
            )
    for missing in [n for n in names if n not in kwargs]:
        raise ValueError(
            f"{name}: argnames names {missing!r}, and the keyword arguments are {sorted(kwargs)}"
        )
    return [number % len(args) for number in numbers] + list(names)
