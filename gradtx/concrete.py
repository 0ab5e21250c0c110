"""Making calls outside of `jit` one dispatch instead of hundreds."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
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
      function: a function of pytrees of arrays.
    """
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (function if is_traced((args, kwargs)) else compiled)(*args, **kwargs)

    return call
