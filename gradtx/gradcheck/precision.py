"""The precision that a function computes in, read off its jaxpr."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array

LOOPS = ("scan", "while")


def arrays(leaves: list[Array], wide: bool = False) -> list[Array]:
    """Returns arrays; with `wide`, which needs x64 mode, the inexact ones in double precision."""

    def array(x: ArrayLike) -> Array:
        x = jnp.asarray(x)
        if not wide or not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        real = jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(jnp.float64 if real else jnp.complex128)

    return [array(x) for x in leaves]


def takes_float64(value: Callable[..., Array], moving: list[Array], rest: list[Array]) -> bool:
    """Returns whether a function that is given float64 computes in float64 to the end."""
    with jax.enable_x64(True):
        try:
            _, dtype = examined(value, arrays(moving, True), arrays(rest, True))
        except Exception:  # it runs in its own dtype, so the error comes from float64
            return False
    return dtype == np.float64


def examined(
    value: Callable[..., Array], moving: list[Array], rest: list[Array]
) -> tuple[bool, np.dtype]:
    """Returns whether a function can be traced, and the coarsest dtype in which it computes."""
    dtypes = [x.dtype for x in moving]
    try:
        jaxpr = jax.make_jaxpr(value)(moving, rest).jaxpr
        traced = True
        dtypes += _dtypes_behind(jaxpr, {id(v) for v in jaxpr.invars[: len(moving)]})
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    ):
        traced = False
        dtypes.append(value(moving, rest).dtype)
    real = [jnp.finfo(d).dtype for d in dtypes]
    return traced, np.dtype(max(real, key=lambda d: float(jnp.finfo(d).eps)))


def _dtypes_behind(jaxpr: Any, sources: set[int]) -> Iterator[Any]:
    """Returns the floating dtypes of all that is computed from some variables, named by `id`.

    What does not depend on them, such as a one-hot label, may have any precision.
    """
    for eqn in jaxpr.eqns:
        depends = [id(v) in sources for v in eqn.invars]
        if not any(depends):
            continue
        sources.update(map(id, eqn.outvars))
        for v in eqn.outvars:
            dtype = getattr(v.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.inexact):
                yield dtype
        for inner in _inner_jaxprs(eqn):
            # In a loop, what depends on the variables at the end does so from the start.
            called = len(inner.invars) == len(depends) and eqn.primitive.name not in LOOPS
            inner_sources = [v for v, d in zip(inner.invars, depends, strict=False) if d]
            yield from _dtypes_behind(
                inner, {id(v) for v in (inner_sources if called else inner.invars)}
            )


def _inner_jaxprs(eqn: Any) -> Iterator[Any]:
    for parameter in eqn.params.values():
        for x in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
            inner = getattr(x, "jaxpr", x)
            if hasattr(inner, "eqns"):
                yield inner
