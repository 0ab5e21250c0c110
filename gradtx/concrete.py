"""Making calls outside of `jit` one dispatch instead of hundreds."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.core import Tracer

P = ParamSpec("P")
R = TypeVar("R")


def any_tracer(tree: Any) -> bool:
    """Says whether any leaf is being traced, so that the caller is compiling already."""
    return any(issubclass(kind, Tracer) for kind in set(map(type, jax.tree.leaves(tree))))


def compiled_when_concrete(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a pure function of pytrees when it is called with concrete arrays.

    Inside of somebody's `jit` the function is traced as it is: another layer would only cost time.

    Args:
      function: a function of pytrees of arrays.
    """
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (function if any_tracer((args, kwargs)) else compiled)(*args, **kwargs)

    return call
