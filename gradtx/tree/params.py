"""Mapping over the parts of a state that mirror the parameters."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from gradtx.engine.paths import StructureError, align, describe_difference, is_none
from gradtx.tree.walking import Names, Part, children, key_name, parts, replaced, walk

LEARNT = ("unknown", "reading")
"""Kinds of what may mirror the parameters, or may not; a person may want to see all of them."""


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

    Those are the fields that a state declares to be slots or statistics, see
    `gradtx.engine.roles`; the arrays of a statistic have other shapes than the parameters, and
    `gradtx.state.roles` tells which they are. Where a state declares nothing, as a bare pytree, it
    is learnt from `init`, which is called with stand-ins for the parameters: where these come out
    again, the state mirrors the parameters. A masked leaf stays masked, and `None` stays `None`.

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
        parameters; or `init` cannot be called without their structure, which was not given and is
        needed.

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
    found = parts(state)
    made, columns = _of_stand_ins(getattr(initable, "init", initable), found, state, rest)
    outlines = [
        jax.tree.structure(part.value, is_leaf=_is_empty)
        for part, like in zip(found, made, strict=True)
        if part.kind == "slot" and _mirrors(part, like) and jax.tree.leaves(part.value)
    ]

    def mapped(mark: Any, value: Any, of: Names = ()) -> Any:
        if isinstance(mark, _Place):
            return _map_part(f, value, [column[mark.number] for column in columns], is_leaf)
        if _is_mark(mark):
            return _map_part(f, value, [_seen(tree, of) for tree in rest], is_leaf, outlines)
        return value if transform_non_params is None else jax.tree.map(transform_non_params, value)

    new = {}
    for part, like in zip(found, made, strict=True):
        if like is not None and part.kind in LEARNT:
            new[part.path] = jax.tree.map(mapped, like.value, part.value, is_leaf=_is_mark)
        else:
            new[part.path] = mapped(None if _mirrors(part, like) else part, part.value, part.of)
    return replaced(state, new)


def _seen(tree: Any, of: Names) -> Any:
    """Gives the part of a tree like the parameters that an inner state is for."""
    for name in of:
        below = {key_name(key): child for key, child in children(tree)[0]}
        tree = below.get(name, tree)
    return tree


def _is_mark(x: Any) -> bool:
    return x is None or isinstance(x, (_Place, _Whole))


def _mirrors(part: Part, made: Part | None) -> bool:
    """Says whether a part that is declared mirrors the parameters.

    It does not where its transformation sees them in another form, all in one vector.
    """
    if part.kind not in ("slot", "statistic"):
        return False
    leaves = [] if made is None else jax.tree.leaves(made.value, is_leaf=_is_mark)
    return not leaves or any(map(_is_mark, leaves))


def _of_stand_ins(
    init: Callable[[Any], Any], found: list[Part], state: Any, rest: tuple[Any, ...]
) -> tuple[list[Any], list[Any]]:
    """Finds stand-ins for the parameters from which `init` makes a state with the same parts.

    Returns:
      For each part that was found, what `init` made; and the leaves of `rest` in the order of the
      stand-ins. If `init` can't be called with any, and all parts are declared, `None` for each.
    """
    problem: Exception | None = None
    called, needed = False, any(part.kind == "unknown" for part in found)
    for stand_in, columns in _stand_ins(state if needed else None, rest):
        try:
            marked = init(stand_in)
            called = True
            made = parts(marked)
            if [_place(part) for part in made] != [_place(part) for part in found]:
                raise StructureError(describe_difference("init", marked, "state", state))
            for part, like in zip(found, made, strict=True):
                if part.kind in LEARNT:
                    treedef = jax.tree.structure(like.value, is_leaf=_is_mark)
                    align(treedef, part.value, "state", like.value, "init")
        except Exception as e:  # whatever `init` raises when this is no tree of arrays
            problem = problem or e
        else:
            return list(made), columns
    if not (needed or called):
        return [None] * len(found), []
    raise ValueError(
        "tree.map_params: init makes no such state of stand-ins for the parameters; is the state "
        "of another transformation? If init needs to know the structure of the parameters, as one "
        "with a fixed mask does, give a tree like them after the state. The first problem was: "
        f"{problem}"
    ) from problem


def _place(part: Part) -> tuple[Any, ...]:
    return part.scope, part.piece, part.field


def _stand_ins(state: Any, rest: tuple[Any, ...]) -> Iterator[tuple[Any, list[Any]]]:
    """Gives stand-ins for the parameters, and the leaves of `rest` in their order.

    Nearly every `init` maps over the parameters' leaves, and will do so over none. One with a fixed
    mask needs their structure: that of a tree in `rest`, or of some part of the state.
    """
    yield None, []
    yield _Whole(), []
    tried = []
    for like in (*rest, *(part.value for part in walk(state, deep=True))):
        treedef = jax.tree.structure(like, is_leaf=_is_empty)
        if treedef in tried:
            continue
        tried.append(treedef)
        try:
            columns = [align(treedef, r, f"rest[{i}]", like) for i, r in enumerate(rest)]
        except StructureError:
            continue
        yield treedef.unflatten(map(_Place, range(treedef.num_leaves))), columns


def _is_empty(x: Any) -> bool:
    """Says whether a node has nothing in it, as `None`, a masked leaf, or an empty list."""
    treedef = jax.tree.structure(x)
    return treedef.num_nodes == 1 and treedef.num_leaves == 0


def _map_part(
    f: Callable[..., Any],
    part: Any,
    rest: Sequence[Any],
    is_leaf: Callable[[Any], bool] | None,
    outlines: Sequence[Any] = (),
) -> Any:
    """Maps over one part of the state that mirrors the parameters, or one of them.

    The parameters may have any of the structures in `outlines`.
    """

    def given(x: Any) -> bool:
        return is_leaf is not None and is_leaf(x)

    def stops(x: Any) -> bool:
        return given(x) or _is_empty(x)

    leaves, treedef = jax.tree.flatten(part, is_leaf=stops)

    def beside(tree: Any, number: int) -> list[Any]:
        for outline in (*outlines, treedef):  # a parameter may have several arrays in the state
            try:
                column, below = outline.flatten_up_to(tree), outline.flatten_up_to(part)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            if outline == treedef:
                return column
            counts = [len(jax.tree.leaves(x, is_leaf=stops)) for x in below]
            return [r for r, n in zip(column, counts, strict=True) for _ in range(n)]
        try:
            deep = jax.tree.map(
                lambda r, below: jax.tree.map(lambda _: r, below, is_leaf=stops),
                tree,
                part,
                is_leaf=is_none,
            )
            return treedef.flatten_up_to(deep)
        except (ValueError, TypeError):
            problem = describe_difference("state", part, f"rest[{number}]", tree)
            raise StructureError(f"tree.map_params: {problem}") from None

    columns = [beside(tree, i) for i, tree in enumerate(rest)]
    return treedef.unflatten(
        f(x, *r) if given(x) or not _is_empty(x) else x
        for x, *r in zip(leaves, *columns, strict=True)
    )
