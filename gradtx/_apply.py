"""Applying updates to parameters, and moving tensors towards others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Params, PyTree, Scalar, Updates
from gradtx.engine.concrete import compiled_when_concrete, shape_and_dtype
from gradtx.engine.numerics import widen
from gradtx.engine.paths import StructureError, describe_difference, is_none, nth_path


def apply_updates(params: Params, updates: Updates) -> Params:
    """Adds updates to parameters, leaf by leaf: `params + updates`, in the parameters' dtypes.

    The sum is computed in the wider of the two dtypes and rounded once. Where `updates` is `None`
    or has the dtype `float0`, as the gradients of integers and booleans do, the parameter does not
    change; where `params` is `None`, the result is `None`. The sum of booleans is "or".

    Args:
      params: a pytree of arrays.
      updates: a pytree of the same structure and shapes.

    Returns:
      The new parameters, with the structure and dtypes of `params`.

    Raises:
      ValueError: structures or shapes differ; the message names the leaf.
      TypeError: an integer parameter would get a floating update, which would be rounded.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> print(gradtx.apply_updates(params, {"w": jnp.array([0.5, 0.5])})["w"])
      [1.5 2.5]
    """
    return _add_trees(params, updates)


def incremental_update(new_tensors: Params, old_tensors: Params, step_size: Scalar) -> Params:
    """Moves tensors towards others: `step_size * new + (1 - step_size) * old`.

    It is used for target networks, and for the averages of iterates of Polyak and Juditsky. Half
    precision is averaged in float32 and rounded once. Where `new_tensors` is `None`, the old tensor
    does not change; where `old_tensors` is `None`, the result is `None`.

    Args:
      new_tensors: a pytree of arrays.
      old_tensors: a pytree of the same structure and shapes.
      step_size: the weight of the new tensors, in [0, 1]: a number or a scalar array.

    Returns:
      The moved tensors, with the structure and dtypes of `old_tensors`.

    Raises:
      ValueError: structures or shapes differ; the message names the leaf.
      TypeError: an old tensor is integer, and the average would be rounded.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (SIAM
      Journal on Control and Optimization 30, 1992).

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> print(gradtx.incremental_update(jnp.array([1.0]), jnp.array([3.0]), 0.25))
      [2.5]
    """
    # both weights are computed before the step size is rounded to float32
    return _move(new_tensors, old_tensors, step_size, 1 - step_size)


def periodic_update(
    new_tensors: Params, old_tensors: Params, steps: ArrayLike, update_period: ArrayLike
) -> Params:
    """Replaces tensors by others periodically: when `steps % update_period == 0`.

    Where `new_tensors` is `None`, the old tensor does not change; where `old_tensors` is `None`,
    the result is `None`.

    Args:
      new_tensors: a pytree of arrays.
      old_tensors: a pytree of the same structure and shapes.
      steps: the number of steps, an integer or an integer scalar array; 0 replaces the tensors.
      update_period: the number of steps between replacements, at least 1.

    Returns:
      The new or the old tensors, with the structure and dtypes of `old_tensors`.

    Raises:
      ValueError: structures or shapes differ (the message names the leaf), or `update_period` is a
        number below 1.
      TypeError: a new tensor would be rounded to integers, or made real.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> new, old = jnp.array([1.0]), jnp.array([3.0])
      >>> print(gradtx.periodic_update(new, old, 5, 5), gradtx.periodic_update(new, old, 6, 5))
      [1.] [3.]
    """
    if isinstance(update_period, (int, float)) and update_period < 1:
        raise ValueError(f"periodic_update: update_period must be at least 1, got {update_period}")
    return _choose(new_tensors, old_tensors, steps, update_period)


@compiled_when_concrete
def _add_trees(params: Params, updates: Updates) -> Params:
    def add(p: ArrayLike, u: ArrayLike) -> Array:
        same = shape_and_dtype(p) == shape_and_dtype(u) and not _is_boolean(p)
        return lax.add(p, u) if same else _add_and_round(p, u)

    return _with_each("apply_updates", add, params, updates, ("params", "updates"))


def _is_boolean(x: ArrayLike) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.bool_)


@jax.jit
def _add_and_round(p: ArrayLike, u: ArrayLike) -> Array:
    p = jnp.asarray(p)
    return jnp.asarray(p + u, p.dtype)


@compiled_when_concrete
def _move(new_tensors: Params, old_tensors: Params, step_size: Scalar, rest: Scalar) -> Params:
    def move(old: ArrayLike, new: ArrayLike) -> Array:
        return jnp.asarray(step_size * widen(new) + rest * widen(old), jnp.result_type(old))

    names = ("old_tensors", "new_tensors")
    return _with_each("incremental_update", move, old_tensors, new_tensors, names, averages=True)


@compiled_when_concrete
def _choose(
    new_tensors: Params, old_tensors: Params, steps: ArrayLike, period: ArrayLike
) -> Params:
    def cast(old: ArrayLike, new: ArrayLike) -> Array:
        return jnp.asarray(new, jnp.result_type(old))

    names = ("old_tensors", "new_tensors")
    new = _with_each("periodic_update", cast, old_tensors, new_tensors, names)
    return lax.cond(
        jnp.asarray(steps) % period == 0,
        lambda: jax.tree.map(_strongly_typed, new),
        lambda: jax.tree.map(_strongly_typed, old_tensors),
    )


def _strongly_typed(x: ArrayLike) -> Array:
    return lax.convert_element_type(x, jnp.result_type(x))


def _with_each(
    function: str,
    f: Callable[[ArrayLike, ArrayLike], Array],
    kept: PyTree,
    coming: PyTree,
    names: tuple[str, str],
    averages: bool = False,
) -> PyTree:
    """Returns `f(k, c)` for the leaves of two pytrees, in the structure of the first.

    Where either is `None`, the leaf of the first is returned. The others are checked to match.
    """
    leaves, treedef = jax.tree.flatten(kept, is_leaf=is_none)
    try:
        others = treedef.flatten_up_to(coming)
    except (ValueError, TypeError, KeyError, AttributeError):
        told = describe_difference(names[1], coming, names[0], kept)
        raise StructureError(f"{function}: {told}") from None
    results = []
    for i, (k, c) in enumerate(zip(leaves, others, strict=True)):
        if k is None or c is None or getattr(c, "dtype", None) == jax.dtypes.float0:
            results.append(k)
            continue
        if averages or shape_and_dtype(k) != shape_and_dtype(c):
            problem = _misfit(k, c, names[1], averages)
            if problem:
                kind, told = problem
                raise kind(f"{function}: {names[0]}{nth_path(kept, i)} {told}")
        results.append(f(k, c))
    return treedef.unflatten(results)


def _misfit(
    k: ArrayLike, c: PyTree, name: str, averages: bool
) -> tuple[type[Exception], str] | None:
    """Returns why the second leaf, of the pytree `name`, cannot replace the first, or `None`."""
    if not hasattr(c, "dtype") and not isinstance(c, (int, float, complex)):
        return ValueError, f"is an array, but {name} has {c!r}"
    if jnp.shape(k) != jnp.shape(c):
        return ValueError, f"has shape {jnp.shape(k)}, but in {name} it has shape {jnp.shape(c)}"
    into, of = jnp.result_type(k), jnp.result_type(c)
    of = jnp.result_type(of, float) if averages else of
    for kind, lost in ((jnp.inexact, "rounded"), (jnp.complexfloating, "made real")):
        if jnp.issubdtype(of, kind) and not jnp.issubdtype(into, kind):
            what = f"its average with {name}" if averages else f"in {name} it"
            return TypeError, f"is {into}, but {what} is {of} and would be {lost}"
    return None
