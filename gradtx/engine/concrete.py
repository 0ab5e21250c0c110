"""Distinguishing traced from concrete arrays.

Outside `jit`, a call is one dispatch instead of hundreds, and a branch with a known condition is
taken in Python.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import jax
from jax import lax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.typing import ArrayLike

from gradtx.engine.base import PyTree

P = ParamSpec("P")
R = TypeVar("R")


def is_traced(tree: PyTree) -> bool:
    """Returns whether a pytree is traced, so that the caller is already being compiled.

    Only the first leaf is examined. If other leaves differ, the result of the caller is still
    correct, with one more nested call of a compiled function than necessary.

    Args:
      tree: a pytree of arrays.
    """
    return isinstance(next(iter(jax.tree.leaves(tree)), None), Tracer)


def is_committed(x: Any) -> bool:
    """Returns whether an object is a concrete array that is bound to its devices."""
    return not isinstance(x, Tracer) and getattr(x, "committed", False)


def spans_devices(x: Any) -> bool:
    """Returns whether an object is a concrete array on several devices."""
    return is_committed(x) and len(x.sharding.device_set) > 1


def beside(state: PyTree, params: PyTree) -> PyTree:
    """Returns a state whose arrays are on the devices of the parameters.

    Without it, a count would be moved from the default device to those of the parameters at the
    first step, and the step would be compiled again for the second.

    Args:
      state: the state.
      params: the parameters; nothing is done unless they are bound to devices.
    """
    bound = [x.sharding for x in jax.tree.leaves(params) if is_committed(x)]
    if not bound:
        return state
    there = max(bound, key=lambda sharding: len(sharding.device_set))
    if isinstance(there, NamedSharding):
        there = NamedSharding(there.mesh, PartitionSpec())
    elif len(there.device_set) == 1:
        there = SingleDeviceSharding(next(iter(there.device_set)))
    else:
        return state

    # `device_put` is faster, but cannot reach the devices of other processes.
    move = jax.device_put if there.is_fully_addressable else _constrained

    def put(x: PyTree) -> PyTree:
        if isinstance(x, Tracer) or not isinstance(x, jax.Array):
            return x
        return x if x.committed and x.sharding.device_set == there.device_set else move(x, there)

    return jax.tree.map(put, state)


_constrained = jax.jit(lax.with_sharding_constraint, static_argnums=1)


def shape_and_dtype(x: Any) -> Hashable:
    """Returns the shape and dtype, which identify a leaf in a trace; for Python numbers, the type.

    Args:
      x: an array or a Python number.
    """
    return (x.shape, x.dtype) if hasattr(x, "dtype") else type(x)


def compiled_when_concrete(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a pure function of pytrees to be compiled when it is called with concrete arrays.

    Inside `jit` the function is traced as it is, because a nested `jit` would only cost time.

    Args:
      function: a function of pytrees of arrays. Keyword arguments may also be functions and
        strings; it is compiled separately for each of them.
    """

    plain: Callable[..., R] = function

    @functools.partial(jax.jit, static_argnums=0)
    def compiled(fixed: tuple[tuple[str, Any], ...], *args: Any, **kwargs: Any) -> R:
        return plain(*args, **kwargs, **dict(fixed))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_traced((args, kwargs)):
            return function(*args, **kwargs)
        fixed = tuple((n, x) for n, x in kwargs.items() if callable(x) or isinstance(x, str))
        names = {n for n, _ in fixed}
        return compiled(fixed, *args, **{n: x for n, x in kwargs.items() if n not in names})

    return call


def branch(condition: ArrayLike, yes: Callable[[], R], no: Callable[[], R]) -> R:
    """Calls one of two functions; if the condition is traced, both are traced and one of them runs.

    Args:
      condition: a scalar boolean, traced or concrete; with a concrete one, Python branches.
      yes: the function to call if the condition holds.
      no: the function to call otherwise; its result has the structure and dtypes of that of `yes`.
    """
    if isinstance(condition, Tracer):
        return lax.cond(condition, yes, no)
    return yes() if condition else no()
