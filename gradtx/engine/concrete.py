"""Telling traced from concrete arrays.

Calls outside of `jit` become one dispatch instead of hundreds, and a choice between two ways is
made by Python where Python can know it.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax import lax
from jax.core import Tracer

P = ParamSpec("P")
R = TypeVar("R")


def is_traced(tree: Any) -> bool:
    """Says whether a tree is being traced, so that the caller is compiling already.

    The first leaf speaks for all. Where it misleads, what follows is still right, only one call
    of a compiled function deeper than it need be.

    Args:
      tree: a pytree of arrays.
    """
    return isinstance(next(iter(jax.tree.leaves(tree)), None), Tracer)


def spans_devices(x: Any) -> bool:
    """Says whether an array is concrete and lies on several devices.

    Args:
      x: an array or a Python number.
    """
    sharding = None if isinstance(x, Tracer) else getattr(x, "sharding", None)
    return sharding is not None and len(sharding.device_set) > 1


def shape_and_dtype(x: Any) -> Any:
    """Gives what tells two leaves apart when they are traced; for Python numbers their type.

    Args:
      x: an array or a Python number.
    """
    return (x.shape, x.dtype) if hasattr(x, "dtype") else type(x)


def compiled_when_concrete(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a pure function of pytrees when it is called with concrete arrays.

    Inside of somebody's `jit` the function is traced as it is: another layer would only cost time.

    Args:
      function: a function of pytrees of arrays; keyword arguments may be functions and strings too,
        and it is compiled anew for others of them.
    """

    plain: Callable[..., Any] = function

    @functools.partial(jax.jit, static_argnums=0)
    def compiled(fixed: tuple[tuple[str, Any], ...], *args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs, **dict(fixed))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_traced((args, kwargs)):
            return function(*args, **kwargs)
        fixed = tuple((n, x) for n, x in kwargs.items() if callable(x) or isinstance(x, str))
        names = {n for n, _ in fixed}
        return compiled(fixed, *args, **{n: x for n, x in kwargs.items() if n not in names})

    return call


def branch(condition: Any, yes: Callable[[], R], no: Callable[[], R]) -> R:
    """Calls one of two functions; under tracing, both are traced and one of them runs.

    Args:
      condition: a scalar boolean, traced or concrete; for a concrete one Python decides.
      yes: called where the condition holds.
      no: called where it does not; its result has the structure and the dtypes of that of `yes`.
    """
    if isinstance(condition, Tracer):
        return lax.cond(condition, yes, no)
    return yes() if condition else no()
