"""The extra arguments that transformations read, and errors for those that none of them reads."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from gradtx._arguments import checked, near
from gradtx.engine.base import (
    ExtraArgs,
    GradientTransformation,
    OptState,
    Params,
    TransformationLike,
    Updates,
    accepts_extra,
    with_extra_args_support,
)
from gradtx.engine.links import Coupled, Link, Pair, Rule
from gradtx.engine.pipeline import pipeline_of, wrapped

FUNCTIONS = ("value_fn", "obj_fn", "grad_fn")
"""The extra arguments that are functions, whose own keyword arguments are extra arguments too."""


@checked
def extra_args(tx: TransformationLike) -> tuple[str, ...] | None:
    """Returns the names of the extra arguments that the `update` of a transformation reads.

    Args:
      tx: the transformation.

    Returns:
      The names, in the order of the parts that read them; `None` if a part may read any argument,
      as those of other libraries may.

    Example:
      >>> import gradtx
      >>> gradtx.extra_args(gradtx.chain(gradtx.polyak_sgd(), gradtx.reduce_on_plateau()))
      ('value', 'learning_rate')
    """
    names: dict[str, None] = {}
    for link in pipeline_of(tx).links:
        found = _read_by(link)
        if found is None:
            return None
        names.update(dict.fromkeys(found))
    return tuple(names)


@checked
def strict(inner: TransformationLike) -> GradientTransformation:
    """Checks that every extra argument is read by a part of a transformation, and none is misspelt.

    Without `strict`, `update` ignores extra arguments that no part reads. The updates and the state
    are those of the transformation.

    Args:
      inner: the transformation.

    Raises:
      TypeError: `update` got an extra argument that is not among `extra_args(inner)`, and not an
        argument of a function among them, such as `value_fn`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.strict(gradtx.sgd(0.1))
      >>> tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), learning_rte=0.2)
      Traceback (most recent call last):
      ...
      TypeError: strict: nothing reads learning_rte; did you mean learning_rate?
    """
    known = extra_args(inner)
    tx = with_extra_args_support(inner)

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        if known is not None:
            _refuse_unknown(extra, known)
        return tx.update(updates, state, params, **extra)

    return wrapped(tx.init, update, inner)


def _refuse_unknown(extra: ExtraArgs, known: Iterable[str]) -> None:
    functions = [extra[n] for n in FUNCTIONS if callable(extra.get(n))]
    if any(map(accepts_extra, functions)):
        return
    names = {*known, *(name for f in functions for name in inspect.signature(f).parameters)}
    for name in extra:
        if name not in names:
            similar = near(name, sorted(names))
            others = f"what is read: {', '.join(sorted(names)) or 'nothing'}"
            hint = f"did you mean {similar[0]}?" if similar else others
            raise TypeError(f"strict: nothing reads {name}; {hint}")


def _read_by(link: Link) -> tuple[str, ...] | None:
    """Returns the names of the extra arguments that a link reads; `None` if it may read any."""
    if isinstance(link, Rule):
        return None if link.shared else tuple({"learning_rate"} & set(link.scalars))
    if isinstance(link, Coupled):
        rate = () if link.rate is None else ("learning_rate",)
        own = (*link.needs, *_keywords(link.own_update), *rate, *link.traits.get("reads", ()))
        passes_to = link.traits.get("passes_to", ())
    elif isinstance(link, Pair):
        own = _keywords(link.pair.update)
        unknown = None if accepts_extra(link.pair.update) else ()
        passes_to = link.traits.get("passes_to", unknown)
    else:
        return ()
    return None if passes_to is None else _joined(own, passes_to)


def _joined(own: Iterable[str], inner: Iterable[Any]) -> tuple[str, ...] | None:
    names = [*own]
    for tx in inner:  # a transformation, or a function that returns one
        found = extra_args(tx if hasattr(tx, "update") else tx())
        if found is None:
            return None
        names.extend(found)
    return tuple(names)


def _keywords(update: Callable[..., Any]) -> tuple[str, ...]:
    parameters = list(inspect.signature(update).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in parameters[3:] if p.kind in kinds)
