"""What a gradient transformation is.

The types that everything else is written in, and the two transformations that need nothing else.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
PyTree = Any
"""Any nesting of containers that JAX knows, with arrays at its leaves. Types cannot say more."""
Params = PyTree
"""A pytree of arrays: what is being optimized."""
Updates = Params
"""A pytree of arrays of the same structure: gradients on their way to becoming steps."""
OptState = PyTree
"""A pytree of arrays: what a transformation remembers from one step to the next."""
Scalar = float | np.number | Array
"""A number, or an array of shape `()`, traced or not: a hyperparameter."""
Schedule = Callable[[Scalar], Scalar]
"""A function of the step count, which is 0 at the first step."""
ScalarOrSchedule = Scalar | Schedule
"""A number, a scalar array, or a `Schedule`."""
MaskOrFn = PyTree | Callable[[Params], PyTree]
"""A pytree of booleans, or a function that makes one of the parameters."""


class TransformInitFn(Protocol):
    """Makes the state from the parameters: `init(params) -> state`."""

    def __call__(self, params: Params, /) -> OptState:  # noqa: D102
        ...


class TransformUpdateFn(Protocol):
    """Transforms updates: `update(updates, state, params=None, **extra) -> (updates, state)`."""

    def __call__(  # noqa: D102
        self, updates: Updates, state: OptState, params: Params | None = None, /, **extra: Any
    ) -> tuple[Updates, OptState]: ...


TransformUpdateExtraArgsFn = TransformUpdateFn


class GradientTransformation(NamedTuple):
    """A pure pair `(init, update)`; optimizers and their pieces are all of this type.

    `init(params)` gives the first state. `update(updates, state, params=None, **extra)` gives the
    transformed updates and the next state; what it does not know in `extra` passes by. The pair
    unpacks, and any two functions of these signatures may stand in it.

    Attributes:
      init: `params -> state`.
      update: `(updates, state, params=None, **extra) -> (updates, state)`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import GradientTransformation
      >>> def init(params):
      ...     return ()
      >>> def update(updates, state, params=None, **extra):
      ...     return -0.1 * updates, state
      >>> tx = GradientTransformation(init, update)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
      >>> print(updates)
      [-0.1 -0.1]
    """

    init: Callable[..., OptState]
    update: Callable[..., tuple[Updates, OptState]]


# There is one type: every transformation takes extra arguments, or is adapted to where it stands.
GradientTransformationExtraArgs = GradientTransformation


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


def init_empty_state(params: Params) -> EmptyState:
    """Gives the state of a transformation that remembers nothing.

    Args:
      params: ignored.
    """
    del params
    return EmptyState()


def is_function(x: Any) -> bool:
    """Returns whether `x` is a function of a tree rather than a tree.

    A tree may be callable too, as modules are that are registered as pytrees: for JAX, a function
    is a leaf.

    Args:
      x: a function, a tree of arrays, booleans or labels, or anything else.
    """
    return callable(x) and jax.tree.structure(x) == jax.tree.structure(0)


def accepts_extra(function: Callable[..., Any]) -> bool:
    """Says whether a function takes keyword arguments that it does not name."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False
    return any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def with_extra_args_support(tx: Any) -> GradientTransformation:
    """Adapts any pair `(init, update)`, optax's included, so that unknown extra arguments pass by.

    Args:
      tx: a pair of functions with the attributes `init` and `update`.

    Returns:
      A transformation whose `update` accepts any keyword; those that `tx.update` names, or all if
      it takes `**extra`, reach it.

    Example:
      >>> from gradtx import GradientTransformation, with_extra_args_support
      >>> plain = GradientTransformation(lambda params: (), lambda u, s, params=None: (u, s))
      >>> with_extra_args_support(plain).update(1.0, (), value=3.0)
      (1.0, ())
    """
    if accepts_extra(tx.update):
        if isinstance(tx, GradientTransformation):
            return tx
        return GradientTransformation(tx.init, tx.update)
    parameters = list(inspect.signature(tx.update).parameters.values())
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} | {
        p.name for p in parameters[3:] if p.kind is p.POSITIONAL_OR_KEYWORD
    }

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        known = {name: value for name, value in extra.items() if name in named}
        return tx.update(updates, state, params, **known)

    return GradientTransformation(tx.init, update)
