"""Methods whose update of a leaf depends on other leaves: functions of pytrees, with checks."""

from collections.abc import Callable, Mapping
from typing import Any

from gradtx._arguments import checked
from gradtx.engine.base import GradientTransformation, OptState, ScalarOrSchedule, Updates
from gradtx.engine.links import Coupled
from gradtx.engine.pipeline import Pipeline


@checked
def coupled(
    state: type,
    init: Callable[..., OptState],
    update: Callable[..., tuple[Updates, OptState]],
    *,
    name: str,
    needs: tuple[str, ...] = (),
    params: bool = False,
    real_only: bool = False,
    rate: ScalarOrSchedule | None = None,
    traits: Mapping[str, Any] | None = None,
) -> GradientTransformation:
    """Creates a transformation from a pair of functions over pytrees, with checks of arguments.

    The functions are only called with valid arguments: parameters and updates are floating arrays
    (also complex unless `real_only`), `None`, or masked; every extra argument in `needs` is given;
    and `params`, if needed, have the structure and shapes of the updates.

    Args:
      state: the NamedTuple class of the state.
      init: `init(params) -> state`.
      update: `update(updates, state, params, **extra) -> (updates, state)`.
      name: its name in error messages.
      needs: the extra arguments that `update` requires. Default: none.
      params: whether `update` needs the parameters. Default: False.
      real_only: whether complex parameters are an error. Default: False.
      rate: the learning rate: a number, a scalar array or a schedule. `update` then gets the
        learning rate of the step as the argument `learning_rate`: this one, or that of the call
        `update(..., learning_rate=x)`. The state needs the fields `count` and `learning_rate`,
        which the engine updates. Default: there is none.
      traits: further properties: `"passes_to"`, the transformations to which it passes the extra
        arguments on, or `None` if any may be read; `"reads"`, names of extra arguments that it
        reads, but are not in the signature of `update`; `"weights"`, names of those that must not
        be negative. Default: none.

    Returns:
      The transformation. It raises `TypeError` for leaves of a wrong kind and for missing extra
      arguments, and `ValueError` for missing parameters and pytrees that differ in structure.

    Example:
      >>> from typing import NamedTuple
      >>> import jax
      >>> from gradtx.engine.coupled import coupled
      >>> class NoState(NamedTuple):
      ...     pass
      >>> def update(updates, state, params, *, value, **extra):
      ...     return jax.tree.map(lambda u: value * u, updates), state
      >>> tx = coupled(NoState, lambda params: NoState(), update, name="by_value", needs=("value",))
      >>> tx.update(2.0, tx.init(1.0), value=3.0)[0]
      6.0
      >>> tx.update(2.0, tx.init(1.0))
      Traceback (most recent call last):
      ...
      TypeError: by_value: needs the loss: call update(updates, state, params, value=...)
    """

    link = Coupled(
        name=name,
        state=state,
        needs=needs,
        needs_params=params,
        real_only=real_only,
        traits=traits or {},
        own_init=init,
        own_update=update,
        rate=rate,
    )
    return Pipeline((link,), 0).transformation()
