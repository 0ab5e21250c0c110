"""Transforming complex numbers as pairs of real ones."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx._arguments import checked
from gradtx._roles import Inner, declared
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    PyTree,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.pipeline import wrapped

R = TypeVar("R")


class RealAndImaginary(NamedTuple):
    """The two real leaves that replace a complex one.

    Attributes:
      real: its real part.
      imaginary: its imaginary part.
    """

    real: Array
    imaginary: Array


@declared
class SplitRealAndImaginaryState(NamedTuple):
    """The state of `split_real_and_imaginary`.

    Attributes:
      inner_state: the state of the transformation, with two slots for a complex leaf.
    """

    inner_state: Inner


@checked
def split_real_and_imaginary(inner: TransformationLike) -> GradientTransformation:
    """Applies a transformation to the real and imaginary parts of complex leaves.

    With `g = a + ib` the result is `u(a) + i u(b)`, where `u` is what `inner` computes for real
    arrays. So a transformation for real numbers can be used for complex ones. A transformation that
    supports complex numbers uses their magnitudes, and does not depend on their phases; split, it
    treats the two parts separately. A norm over all leaves is the same either way, but the norm of
    one leaf is not.

    Real leaves are passed unchanged. Pytrees that belong to the parameters, such as masks and
    labels, may have one entry for both parts. Of the extra arguments for line searches, `grad` is
    split like the updates, and `value_fn` is called with complex parameters.

    Args:
      inner: the transformation.

    Raises:
      TypeError: an update is complex and its parameter real, or vice versa.
      ValueError: params and updates differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.split_real_and_imaginary(gradtx.scale_by_sign())
      >>> z = jnp.array([3.0 - 4.0j])
      >>> print(tx.update(z, tx.init(z))[0])
      [1.-1.j]
    """
    inner = with_extra_args_support(inner)

    def init(params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.init(_split(params)))

    def update(
        updates: Updates,
        state: SplitRealAndImaginaryState,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[Updates, SplitRealAndImaginaryState]:
        if params is not None:
            _check_kinds(updates, params)
            if extra.get("value_fn") is not None:
                extra["value_fn"] = _of_parts(extra["value_fn"], params)
        if extra.get("grad") is not None:
            extra["grad"] = _split(extra["grad"])
        parts, p_parts = _split((updates, params))
        new, inner_state = inner.update(parts, state.inner_state, p_parts, **extra)
        return _merge(new, updates), SplitRealAndImaginaryState(inner_state)

    name, state = "split_real_and_imaginary", SplitRealAndImaginaryState
    return wrapped(init, update, name=name, state=state, traits={"passes_to": (inner,)})


@compiled_when_concrete
def _split(tree: PyTree) -> PyTree:
    def split(x: ArrayLike) -> ArrayLike | RealAndImaginary:
        return RealAndImaginary(jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x

    return jax.tree.map(split, tree)


@compiled_when_concrete
def _merge(parts: PyTree, like: PyTree) -> PyTree:
    leaves, treedef = jax.tree.flatten(like)
    found = zip(leaves, treedef.flatten_up_to(parts), strict=True)
    return treedef.unflatten(
        [lax.complex(*part) if jnp.iscomplexobj(x) else part for x, part in found]
    )


def _check_kinds(updates: Updates, params: Params) -> None:
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    for i, (g, p) in enumerate(zip(leaves, align(treedef, params, "params", updates), strict=True)):
        if g is not None and p is not None and jnp.iscomplexobj(g) != jnp.iscomplexobj(p):
            path = nth_path(updates, i)
            raise TypeError(
                f"split_real_and_imaginary: updates{path} is {jnp.result_type(g)}, but "
                f"params{path} is {jnp.result_type(p)}"
            )


def _of_parts(value_fn: Callable[..., R], like: Params) -> Callable[..., R]:
    """Returns a loss of complex parameters as a function of their real and imaginary parts."""

    @functools.wraps(value_fn)
    def of_parts(parts: Params, *args: Any, **kwargs: Any) -> R:
        return value_fn(_merge(parts, like), *args, **kwargs)

    return of_parts
