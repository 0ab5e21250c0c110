"""A loss along a direction, which every line search evaluates."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._apply import apply_updates
from gradtx._arguments import described
from gradtx.engine.base import Array, Params, PyTree, Scalar, Updates
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.numerics import widen
from gradtx.engine.rules import LeafError
from gradtx.engine.scalars import finished, total
from gradtx.transforms.slots import zero_slots
from gradtx.tree.norms import rescale
from gradtx.tree.present import present, replaced


class Ray(NamedTuple):
    """The loss `f(p + rate * u)` as a function of the rate.

    Attributes:
      f: the loss, a function of the parameters alone.
      p: the parameters.
      u: the direction.
      dtype: the real dtype of rates, values and slopes.
    """

    f: Callable[[Params], Array]
    p: Params
    u: Updates
    dtype: DTypeLike

    def point(self, rate: Array) -> Params:
        """Returns the parameters after a step of this rate, with rounding."""
        return apply_updates(self.p, scaled(self.u, rate))

    def value(self, rate: Array) -> Array:
        """Returns the loss at `point(rate)`; a loss that is not finite counts as infinite."""
        return self._bounded(self.f(self.point(rate)))

    def value_and_pullback(self, rate: Array) -> tuple[Array, Callable[[], Updates]]:
        """Returns the loss at `point(rate)`, and a function that returns its gradient."""
        value, pullback = jax.vjp(self.f, self.point(rate))
        return self._bounded(value), lambda: pullback(jnp.ones_like(value))[0]

    def value_and_grad(self, rate: Array) -> tuple[Array, Updates, Array]:
        """Returns the loss at `point(rate)`, its gradient as of `jax.grad`, and the ray's slope."""
        value, grad = jax.value_and_grad(self.f)(self.point(rate))
        return self._bounded(value), grad, self.slope(conjugate(grad))

    def slope(self, ascent: Updates) -> Array:
        """Returns the slope along the ray where `ascent` is the direction of steepest ascent."""
        (g,) = present(self.u, grad=ascent)
        (u,) = present(self.u, updates=self.u)
        return jnp.asarray(_real_inner(g, u), self.dtype)

    def _bounded(self, value: Array) -> Array:
        value = finished(jnp.asarray(value, self.dtype))
        return jnp.where(jnp.isfinite(value), value, jnp.inf)


@compiled_when_concrete
def scaled(u: Updates, rate: Scalar) -> Updates:
    """Multiplies updates by a rate; each is rounded once, to its own dtype.

    Args:
      u: the updates.
      rate: a real scalar.
    """
    return jax.tree.map(lambda x: rescale(x, rate), u)


@compiled_when_concrete
def conjugate(tree: PyTree) -> PyTree:
    """Returns the complex conjugate, which makes a gradient of `jax.grad` the steepest ascent.

    Args:
      tree: a pytree of arrays.
    """
    return jax.tree.map(jnp.conj, tree)


@compiled_when_concrete
def _real_inner(a: list[Array], b: list[Array]) -> Array:
    # Not `vdot`: on accelerators a matrix unit would round its factors.
    products = [jnp.sum(jnp.real(jnp.conj(widen(x)) * widen(y))) for x, y in zip(a, b, strict=True)]
    return total(products)


def zero_gradient(params: Params) -> Updates:
    """Returns a gradient of zeros, in float32 for half-precision leaves.

    Args:
      params: the parameters.
    """
    return zero_slots(params)


@compiled_when_concrete
def gradient_here(like: Updates, updates: Updates, ascent: Updates) -> Updates:
    """Returns the gradient that `update` was given, in the form in which states store it.

    Args:
      like: the gradient in the state, whose leaves are kept where there are no updates.
      updates: the updates.
      ascent: the gradient, conjugated if it is complex.
    """
    old, given = present(updates, **{"state.grad": like, "grad": ascent})
    new = [jnp.asarray(jnp.conj(g), o.dtype) for g, o in zip(given, old, strict=True)]
    return replaced(like, updates, new)


def loss_of_params(
    value_fn: Callable[..., Array], extra: Mapping[str, Any]
) -> Callable[[Params], Array]:
    """Binds those extra arguments that a loss function takes.

    Args:
      value_fn: the loss as a function of the parameters, and perhaps of further keyword arguments.
      extra: the extra arguments of `update`, of which some may be meant for other transformations.

    Returns:
      The loss as a function of the parameters alone.
    """
    parameters = list(inspect.signature(value_fn).parameters.values())[1:]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    bound = {n: x for n, x in extra.items() if takes_all or n in names}

    def loss(params: Params) -> Array:
        value = value_fn(params, **bound)
        if isinstance(value, (tuple, list, Mapping)):
            told = f"value_fn must return the loss only, got {described(value)}"
            raise LeafError(TypeError, told)
        if shape := jnp.shape(value):
            raise LeafError(ValueError, f"value_fn must return a scalar, got shape {shape}")
        return value

    return loss
