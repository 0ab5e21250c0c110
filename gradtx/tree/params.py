"""Mapping over the parts of a state that correspond to the parameters."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gradtx.codecs import SEED, Coded, is_coded
from gradtx.engine.base import OptState, Params, PyTree, PyTreeDef, TransformationLike
from gradtx.engine.paths import StructureError, align, describe_difference, is_none
from gradtx.tree.walking import Names, Part, children, key_name, parts, replaced, walk

INFERRED = ("unknown", "reading")
"""Kinds of fields for which the roles leave open whether they correspond to the parameters."""


class _Place:
    """A stand-in for one leaf of the parameters, by its number; a pytree without leaves."""

    def __init__(self, number: int):
        self.number = number


class _Whole:
    """A stand-in for the parameters as a whole; a pytree without leaves."""


jax.tree_util.register_pytree_node(
    _Place, lambda place: ((), place.number), lambda number, _: _Place(number)
)
jax.tree_util.register_pytree_node(_Whole, lambda _: ((), None), lambda *_: _Whole())


def map_params(
    initable: TransformationLike | Callable[[Params], OptState],
    f: Callable[..., PyTree],
    state: OptState,
    /,
    *rest: PyTree,
    transform_non_params: Callable[[PyTree], PyTree] | None = None,
    is_leaf: Callable[[PyTree], bool] | None = None,
) -> PyTree:
    """Maps a function over the parts of a state that correspond to the parameters, such as moments.

    These are the fields that a state declares to be slots or statistics; the arrays of a statistic
    have other shapes than the parameters, and `gradtx.state.roles` reports which these are. For a
    state that declares nothing, such as a bare pytree, `init` is called with stand-ins for the
    parameters: parts of its result that are made of stand-ins correspond to the parameters. Masked
    leaves stay masked, and `None` stays `None`. An array that is stored as codes is passed to `f`
    decoded; an array that `f` returns for it is coded, and anything else, such as a sharding, takes
    the place of its codes and scales.

    Args:
      initable: a transformation, or its `init`.
      f: `f(x, *r)`, a function of one leaf of such a part, and of the corresponding leaves of
        `rest`.
      state: a state of the transformation.
      *rest: pytrees like the parameters, such as their shardings. If a state has several arrays for
        a parameter, `f` is called for each of them with the same leaves of `rest`.
      transform_non_params: a function of one leaf that corresponds to no parameter, such as a step
        count. Default: `None`, these leaves are not changed.
      is_leaf: `is_leaf(node)`, a function that selects nodes which are passed to `f` as a whole,
        such as a `MaskedNode`. Default: `None`, leaves only.

    Returns:
      A pytree like `state`.

    Raises:
      ValueError: `state` is not of that transformation; or a pytree in `rest` is not like the
        parameters; or `init` needs the structure of the parameters, and no pytree in `rest` gives
        it.

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
    init: Any = getattr(initable, "init", initable)
    made, columns = _of_stand_ins(init, found, state, rest)
    outlines = [
        jax.tree.structure(part.value, is_leaf=_is_whole)
        for part, like in zip(found, made, strict=True)
        if part.kind == "slot" and _corresponds(part, like) and jax.tree.leaves(part.value)
    ]

    def mapped(mark: PyTree, value: PyTree, of: Names = ()) -> PyTree:
        if isinstance(mark, _Place):
            return _map_part(each, value, [column[mark.number] for column in columns], is_leaf)
        if _is_mark(mark):
            return _map_part(each, value, [_seen(tree, of) for tree in rest], is_leaf, outlines)
        return others(value)

    def others(value: PyTree) -> PyTree:
        return value if transform_non_params is None else jax.tree.map(transform_non_params, value)

    def each(x: PyTree, *r: PyTree) -> PyTree:
        return _map_coded(f, others, x, *r) if is_coded(x) else f(x, *r)

    new = {}
    for part, like in zip(found, made, strict=True):
        if like is not None and part.kind in INFERRED:
            new[part.path] = jax.tree.map(mapped, like.value, part.value, is_leaf=_is_mark)
        else:
            new[part.path] = mapped(None if _corresponds(part, like) else part, part.value, part.of)
    return replaced(state, new)


def _seen(tree: PyTree, of: Names) -> PyTree:
    """Returns the part of a pytree like the parameters to which an inner state belongs."""
    for name in of:
        below = {key_name(key): child for key, child in children(tree)[0]}
        tree = below.get(name, tree)
    return tree


def _is_mark(x: PyTree) -> bool:
    return x is None or isinstance(x, (_Place, _Whole))


def _corresponds(part: Part, made: Part | None) -> bool:
    """Returns whether a declared part corresponds to the parameters leaf by leaf.

    It does not if its transformation sees them in another form, such as one vector.
    """
    if part.kind not in ("slot", "statistic"):
        return False
    leaves = [] if made is None else jax.tree.leaves(made.value, is_leaf=_is_mark)
    return not leaves or any(map(_is_mark, leaves))


def _of_stand_ins(
    init: Callable[[Params], OptState],
    found: list[Part],
    state: OptState,
    rest: tuple[PyTree, ...],
) -> tuple[Sequence[Part | None], list[list[PyTree]]]:
    """Finds stand-ins for the parameters for which `init` returns a state with the same parts.

    Returns:
      For each part, the corresponding part of that state; and the leaves of `rest` in the order of
      the stand-ins. If `init` can't be called with any, and all parts are declared, `None` for
      each part.
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
                if part.kind in INFERRED:
                    treedef = jax.tree.structure(like.value, is_leaf=_is_mark)
                    align(treedef, part.value, "state", like.value, "init")
        except Exception as e:  # whatever `init` raises when this is no tree of arrays
            problem = problem or e
        else:
            return list(made), columns
    if not (needed or called):
        return [None] * len(found), []
    raise ValueError(
        "tree.map_params: the state is not one that init returns. If it is of this transformation, "
        "and its init needs the structure of the parameters, as with a fixed mask, pass a pytree "
        f"like the parameters after the state. The first problem was: {problem}"
    ) from problem


def _place(part: Part) -> tuple[Names, str, str]:
    return part.scope, part.piece, part.field


def _stand_ins(
    state: OptState, rest: tuple[PyTree, ...]
) -> Iterator[tuple[PyTree, list[list[PyTree]]]]:
    """Yields stand-ins for the parameters, and the leaves of `rest` in their order.

    Nearly every `init` maps over the leaves of the parameters, and so works without any leaf. With
    a fixed mask it needs their structure: that of a pytree in `rest`, or of a part of the state.
    """
    yield None, []
    yield _Whole(), []
    tried = []
    for like in (*rest, *(part.value for part in walk(state, deep=True))):
        treedef = jax.tree.structure(like, is_leaf=_is_whole)
        if treedef in tried:
            continue
        tried.append(treedef)
        try:
            columns = [align(treedef, r, f"rest[{i}]", like) for i, r in enumerate(rest)]
        except StructureError:
            continue
        yield treedef.unflatten(map(_Place, range(treedef.num_leaves))), columns


def _is_empty(x: PyTree) -> bool:
    """Returns whether a node is empty, such as `None`, a masked leaf, or an empty list."""
    treedef = jax.tree.structure(x)
    return treedef.num_nodes == 1 and treedef.num_leaves == 0


def _is_whole(x: PyTree) -> bool:
    """Returns whether a node is empty, or stands for one array."""
    return is_coded(x) or _is_empty(x)


def _map_coded(
    f: Callable[..., PyTree], others: Callable[[PyTree], PyTree], x: Coded, *rest: PyTree
) -> Coded:
    """Maps over an array that is stored as codes; `others` maps its seed."""
    concrete = all(map(_is_array, x.parts.values()))
    value = x.value() if concrete else jax.eval_shape(x.value)
    found = f(value, *rest)
    coded = x.with_value(found) if _is_array(found) and found is not value else x

    def new(name: str, part: PyTree) -> PyTree:
        if name == SEED:
            return others(x.parts[SEED])
        if isinstance(found, jax.ShapeDtypeStruct) and found is not value:
            return jax.ShapeDtypeStruct(part.shape, part.dtype, sharding=found.sharding)
        return part if found is value or _is_array(found) else found

    parts = {name: new(name, part) for name, part in coded.parts.items()}
    return Coded(parts, x.codec, x.shape, x.dtype, x.inside)


def _is_array(x: PyTree) -> bool:
    return isinstance(x, (jax.Array, np.ndarray))


def _map_part(
    f: Callable[..., PyTree],
    part: PyTree,
    rest: Sequence[PyTree],
    is_leaf: Callable[[PyTree], bool] | None,
    outlines: Sequence[PyTreeDef] = (),
) -> PyTree:
    """Maps over one part of the state that corresponds to the parameters, or to one of them.

    The parameters may have any of the structures in `outlines`.
    """

    def given(x: PyTree) -> bool:
        return is_leaf is not None and is_leaf(x)

    def stops(x: PyTree) -> bool:
        return given(x) or _is_whole(x)

    leaves, treedef = jax.tree.flatten(part, is_leaf=stops)

    def corresponding(tree: PyTree, number: int) -> list[PyTree]:
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

    columns = [corresponding(tree, i) for i, tree in enumerate(rest)]
    return treedef.unflatten(
        f(x, *r) if given(x) or not _is_empty(x) else x
        for x, *r in zip(leaves, *columns, strict=True)
    )
