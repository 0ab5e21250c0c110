"""The type of gradient transformations.

The types that are used everywhere, and the adapter of other libraries' transformations.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from gradtx._arguments import require_transformation

Array = jax.Array
PyTree = Any
"""A nesting of containers that JAX has registered, with arrays or `None` at its leaves."""
PyTreeDef = Any
"""The structure of a pytree, as `jax.tree.structure` returns it; a type that pyright cannot see."""
Params = PyTree
"""A pytree of arrays: what is being optimized."""
Updates = Params
"""A pytree of the structure of the parameters: gradients, or what has been made of them so far."""
OptState = PyTree
"""A pytree of arrays: what a transformation keeps from one step to the next."""
ExtraArgs = Mapping[str, Any]
"""The extra keyword arguments of `update`, by name."""
Scalar = float | np.number | np.ndarray | Array
"""A number, or an array of shape `()`, traced or not: a hyperparameter."""
Schedule = Callable[[Scalar], Scalar]
"""A function of the step count, which is 0 at the first step."""
ScalarOrSchedule = Scalar | np.ndarray | Schedule
"""A number, a scalar array, or a `Schedule`."""
MaskOrFn = PyTree | Callable[[Params], PyTree]
"""A pytree of booleans, or a function that returns one for a tree like the parameters."""


class TransformInitFn(Protocol):
    """A function that builds the state from the parameters: `init(params) -> state`."""

    def __call__(self, params: Params, /) -> OptState:  # noqa: D102
        ...


class TransformUpdateFn(Protocol):
    """A function for one step.

    `update(updates, state, params=None, **extra) -> (updates, state)`.
    """

    def __call__(  # noqa: D102
        self, updates: Updates, state: OptState, params: Params | None = None, /, **extra: Any
    ) -> tuple[Updates, OptState]: ...


TransformUpdateExtraArgsFn = TransformUpdateFn


class GradientTransformation(NamedTuple):
    """A pure pair `(init, update)`; optimizers and their pieces are all of this type.

    `init(params)` returns the first state; of shapes and dtypes (`jax.ShapeDtypeStruct`), those of
    the state. `update(updates, state, params=None, **extra)` returns
    the transformed updates and the next state, and ignores extra arguments that it does not use.
    The pair can be unpacked, and can be made of any two functions of these signatures.

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


# There is one type: every transformation takes extra arguments, or is adapted where it is used.
GradientTransformationExtraArgs = GradientTransformation


@runtime_checkable
class TransformationLike(Protocol):
    """A transformation of this or another library: anything with `init` and `update`."""

    @property
    def init(self) -> Callable[..., OptState]:
        """A function `init(params) -> state`."""
        ...

    @property
    def update(self) -> Callable[..., tuple[Updates, OptState]]:
        """A function `update(updates, state, params=None) -> (updates, state)`."""
        ...


class EmptyState(NamedTuple):
    """The state of a transformation that keeps nothing between steps."""


def init_empty_state(params: Params) -> EmptyState:
    """Returns the state of a transformation that keeps nothing between steps.

    Args:
      params: ignored.

    Example:
      >>> import gradtx
      >>> gradtx.init_empty_state({"w": 1.0})
      EmptyState()
    """
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
    """Returns whether a function takes arbitrary keyword arguments (`**kwargs`)."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False
    return any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def with_extra_args_support(tx: TransformationLike) -> GradientTransformation:
    """Adapts any pair `(init, update)`, optax's included, to ignore unknown extra arguments.

    Args:
      tx: a pair of functions with the attributes `init` and `update`.

    Returns:
      A transformation whose `update` accepts any keyword argument. It passes on those that the
      signature of `tx.update` names, or all of them if `tx.update` takes `**extra`.

    Raises:
      TypeError: `tx` has no `init` and `update`.

    Example:
      >>> from gradtx import GradientTransformation, with_extra_args_support
      >>> plain = GradientTransformation(lambda params: (), lambda u, s, params=None: (u, s))
      >>> with_extra_args_support(plain).update(1.0, (), value=3.0)
      (1.0, ())
    """
    require_transformation(tx, "with_extra_args_support: tx")
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


def for_tree(given: PyTree | Callable[[PyTree], PyTree], tree: PyTree, name: str) -> PyTree:
    """Returns a pytree that is given, or that a function returns for another pytree.

    Args:
      given: the pytree, or the function.
      tree: the argument of the function.
      name: what it returns, for a note to its errors.
    """
    if not is_function(given):
        return given
    try:
        return given(tree)
    except Exception as e:
        if not hasattr(e, "__notes__"):  # labels are masks as well
            e.add_note(
                f"The function that returns {name} is called with the whole pytree. For one that "
                "looks at a single leaf: lambda params: jax.tree.map(function, params)"
            )
        raise
