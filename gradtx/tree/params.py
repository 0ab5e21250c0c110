"""Mapping over the parts of a state that mirror the parameters."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from gradtx.engine.paths import StructureError, align, is_none
from gradtx.tree.lookup import children


class _Place:
    """Stands for one leaf of the parameters, the one of that number; a pytree without leaves."""

    def __init__(self, number: int):
        self.number = number


class _Whole:
    """Stands for the parameters as a whole; a pytree without leaves."""


jax.tree_util.register_pytree_node(
    _Place, lambda place: ((), place.number), lambda number, _: _Place(number)
)
jax.tree_util.register_pytree_node(_Whole, lambda _: ((), None), lambda *_: _Whole())


def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[[Any], Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """Applies a function to the parts of a state that mirror the parameters, such as moments.

    Which parts those are is learnt from `init`, which is called with stand-ins for the parameters:
    where these come out again, the state mirrors the parameters. A masked leaf stays masked, and
    `None` stays `None`.

    Args:
      initable: a transformation, or its `init`.
      f: `f(x, *r)`, a function of one leaf of a mirroring part, and of what `rest` has for that
        parameter.
      state: a state of that transformation.
      *rest: pytrees like the parameters, such as their shardings. Where a state keeps several
        arrays for a parameter, each gets what `rest` has for it.
      transform_non_params: a function of one leaf that mirrors no parameter, such as a step count.
        Default: `None`, these stay as they are.
      is_leaf: `is_leaf(node)` says whether `f` is given a whole node of a mirroring part, such as a
        `MaskedNode`. Default: `None`, leaves only.

    Returns:
      A tree like `state`.

    Raises:
      ValueError: `state` is not of that transformation; or a tree in `rest` is not like the
        parameters; or `init` cannot be called without their structure, and it was not given.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx, params = gradtx.adam(0.1), {"w": jnp.zeros((2, 3))}
      >>> spec = gradtx.tree.map_params(
      ...     tx, lambda x, axis: axis, tx.init(params), {"w": "model"},
      ...     transform_non_params=lambda x: "replicated",
      ... )
      >>> spec[0]
      ScaleByAdamState(count='replicated', mu={'w': 'model'}, nu={'w': 'model'})
    """
    if not jax.tree.leaves(state) and is_leaf is None:
        return state
    marks, values, treedef, columns = _outline(getattr(initable, "init", initable), state, rest)
    results = []
    for mark, value in zip(marks, values, strict=True):
        if isinstance(mark, _Place):
            results.append(_map_part(f, value, [c[mark.number] for c in columns], is_leaf))
        elif mark is None or isinstance(mark, _Whole):
            results.append(_map_part(f, value, rest, is_leaf))
        else:
            results.append(value if transform_non_params is None else transform_non_params(value))
    return treedef.unflatten(results)


def _is_mark(x: Any) -> bool:
    return x is None or isinstance(x, (_Place, _Whole))


def _outline(init: Callable[[Any], Any], state: Any, rest: tuple[Any, ...]) -> Any:
    """Finds stand-ins for the parameters from which `init` makes a state of the same structure."""
    problem: Exception | None = None
    for stand_in, columns in _stand_ins(state, rest):
        try:
            marked = init(stand_in)
            marks, treedef = jax.tree.flatten(marked, is_leaf=_is_mark)
            return marks, align(treedef, state, "state", marked, "init"), treedef, columns
        except Exception as e:  # whatever `init` raises when this is no tree of arrays
            problem = problem or e
    raise ValueError(
        "tree.map_params: init makes no such state of stand-ins for the parameters; is the state "
        "of another transformation? If init needs to know the structure of the parameters, as one "
        "with a fixed mask does, give a tree like them after the state. The first problem was: "
        f"{problem}"
    ) from problem


def _stand_ins(state: Any, rest: tuple[Any, ...]) -> Iterator[tuple[Any, list[Any]]]:
    """Gives stand-ins for the parameters, and the leaves of `rest` in their order.

    Nearly every `init` maps over the parameters' leaves, and will do so over none. One with a fixed
    mask needs their structure: that of a tree in `rest`, or of some part of the state.
    """
    yield None, []
    yield _Whole(), []
    tried = []
    for like in (*rest, *_parts(state)):
        treedef = jax.tree.structure(like, is_leaf=_has_no_leaves)
        if treedef in tried:
            continue
        tried.append(treedef)
        try:
            columns = [align(treedef, r, f"rest[{i}]", like) for i, r in enumerate(rest)]
        except StructureError:
            continue
        yield treedef.unflatten(map(_Place, range(treedef.num_leaves))), columns


def _parts(node: Any) -> Iterator[Any]:
    below, _ = children(node)
    if below:
        yield node
    for _, child in below:
        yield from _parts(child)


def _has_no_leaves(x: Any) -> bool:
    return not jax.tree.leaves(x)


def _map_part(
    f: Callable[..., Any], part: Any, rest: Sequence[Any], is_leaf: Callable[[Any], bool] | None
) -> Any:
    """Maps over one part of the state that mirrors the parameters, or one of them."""

    def given(x: Any) -> bool:
        return is_leaf is not None and is_leaf(x)

    def stops(x: Any) -> bool:
        return given(x) or _has_no_leaves(x)

    leaves, treedef = jax.tree.flatten(part, is_leaf=stops)

    def beside(tree: Any, number: int) -> list[Any]:
        try:
            return align(treedef, tree, f"rest[{number}]", part, "state")
        except StructureError as e:
            problem = e
        try:  # a parameter may have several arrays in the state
            deep = jax.tree.map(
                lambda r, below: jax.tree.map(lambda _: r, below, is_leaf=stops),
                tree,
                part,
                is_leaf=is_none,
            )
            return treedef.flatten_up_to(deep)
        except (ValueError, TypeError):
            raise StructureError(f"tree.map_params: {problem}") from None

    columns = [beside(tree, i) for i, tree in enumerate(rest)]
    return treedef.unflatten(
        f(x, *r) if given(x) or not _has_no_leaves(x) else x
        for x, *r in zip(leaves, *columns, strict=True)
    )
