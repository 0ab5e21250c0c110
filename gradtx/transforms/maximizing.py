"""Maximizing an objective by an optimizer that minimizes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import (
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.pipeline import wrapped


@piece
def maximize(inner: TransformationLike) -> GradientTransformation:
    """Ascends: minimizes the negative of the objective whose gradients `update` gets.

    The optimizer gets `-g`; of the extra arguments, also `value` and `grad` and the results of
    `value_fn`, `obj_fn` and `grad_fn` are negated. The state is that of the optimizer. Unlike a
    negative learning rate, it leaves weight decay and the rate themselves as they are.

    Args:
      inner: the optimizer.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.maximize(gradtx.sgd(0.1))
      >>> print(tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[0])
      [0.1 0.1]
    """
    inner = with_extra_args_support(inner)

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        for name in {"value", "grad"} & set(extra):
            extra[name] = _negated(extra[name])
        for name in {"value_fn", "obj_fn", "grad_fn"} & set(extra):
            extra[name] = _with_negated_result(extra[name])
        return inner.update(_negated(updates), state, params, **extra)

    return wrapped(inner.init, update, inner, name="maximize")


@compiled_when_concrete
def _negated(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.negative, tree)


def _with_negated_result(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    @functools.wraps(function)  # so that the arguments that it takes can be seen
    def negative(*args: Any, **kwargs: Any) -> PyTree:
        return _negated(function(*args, **kwargs))

    return negative
