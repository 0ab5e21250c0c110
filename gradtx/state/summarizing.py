"""Summaries of optimizers: what acts on which parameters, and the memory of the state."""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from gradtx._arguments import checked
from gradtx._devices import explicit_types, named_mesh, shardings_of
from gradtx._roles import Kind
from gradtx._table import text_table
from gradtx.codecs import is_coded
from gradtx.engine.base import (
    OptState,
    Params,
    PyTree,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.links import Link
from gradtx.engine.masks import hide
from gradtx.engine.paths import is_none
from gradtx.engine.pipeline import inner_of, pipeline_of
from gradtx.state.belonging import roles
from gradtx.state.selecting import DEFAULT, ByPattern
from gradtx.tree.walking import parts, path_name


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of parameters that an optimizer treats alike.

    Attributes:
      rule: the label of a partition or the pattern of `by_path` that defines the group, if known.
      paths: the paths of the parameters.
      parameters: the number of their elements.
      optimizer: the pieces that act on them, in order, those inside of a wrapper in parentheses.
      frozen: whether they are frozen.
      weight_decay: that of `add_decayed_weights`: a number, or `"schedule"`; `None` if there is
        none. Decay inside a method's own equations is not included.
      rate_multiplier: that of `multiply_by_path` and `layerwise_decay`; `None` if there is none.
      parameter_bytes: the memory of the parameters.
      state_bytes: the memory of the state, by dtype.
      device_bytes: the memory of one device's part of the state, by kind of memory: `"device"`,
        and `"pinned_host"` with `offload`. It is empty if the parameters are not on a mesh.
    """

    rule: str
    paths: tuple[str, ...]
    parameters: int
    optimizer: str
    frozen: bool
    weight_decay: float | str | None
    rate_multiplier: float | None
    parameter_bytes: int
    state_bytes: Mapping[str, int]
    device_bytes: Mapping[str, int]

    @property
    def leaves(self) -> int:
        """The number of arrays."""
        return len(self.paths)

    @property
    def bytes(self) -> int:
        """The memory of parameters and state together."""
        return self.parameter_bytes + sum(self.state_bytes.values())


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of `summary`; as a string it is a table.

    Attributes:
      rows: the groups.
      shared: the memory of arrays that belong to no parameter, such as step counts, by dtype.
      total: the sum of all, as a group.
      roles: the memory of the state by role, see `gradtx.state.roles`: as arrays, and as `store`
        keeps them. The two differ only with `store`.
    """

    rows: tuple[Group, ...]
    shared: Mapping[str, int]
    total: Group
    roles: Mapping[Kind, tuple[int, int]]

    def __str__(self) -> str:
        here = Counter(self.total.device_bytes)
        for row in self.rows:
            here.subtract(row.device_bytes)
        shared = Group("(shared)", (), 0, "", False, None, None, 0, self.shared, here)
        groups = (*self.rows, *([shared] if self.shared else []), self.total)
        lines = [_cells(group, len(self.rows)) for group in groups]
        header = ["group", "leaves", "parameters", "optimizer", "decay", "rate", "state", "memory"]
        if not self.total.device_bytes:
            table = text_table(header, [line[:-1] for line in lines], " rr rr r")
        else:
            table = text_table([*header, "state per device"], lines, " rr rr rr")
        if all(whole == stored for whole, stored in self.roles.values()):
            return table
        kinds = [[kind, *map(_human, both)] for kind, both in self.roles.items()]
        return f"{table}\n\n{text_table(['role', 'as arrays', 'stored'], kinds, ' rr')}"


@checked
def summary(tx: TransformationLike, params: Params) -> Summary:
    """Returns a summary of what acts on which parameters, and of the memory of the state.

    Parameters on which the same pieces act are a group. Nothing is allocated. Chains, masks,
    partitions and wrappers are described by their parts, such as `watch(clip, adamw)`; optimizers
    of the catalog have their own names. Transformations of other libraries are described by their
    states.

    If parameters have a `NamedSharding`, a column has the memory of each device's part of the
    state, after `zero`, `shard` and `offload`, too. Shardings over a `jax.sharding.AbstractMesh`
    are enough, so that it is known for more devices than there are.

    Args:
      tx: the optimizer.
      params: the parameters, or only their shapes and dtypes: `jax.eval_shape(make_params)`, or
        `jax.ShapeDtypeStruct(shape, dtype, sharding=...)`.

    Returns:
      A `Summary`, which prints as a table. Memory is that of parameters and state, without
      gradients; the column `rate` is the multiplier of the learning rate.

    Raises:
      ValueError: parameters have `NamedSharding`s over different meshes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> params = {"body": jnp.ones((8, 8)), "head": {"w": jnp.ones((8, 2)), "bias": jnp.ones(2)}}
      >>> tune = gradtx.adamw(0.1, weight_decay=0.01)
      >>> tx = gradtx.partition(
      ...     {"tune": tune, "hold": gradtx.set_to_zero()},
      ...     gradtx.by_path({"body": "hold"}, "tune"),
      ... )
      >>> print(gradtx.summary(tx, params))
      group     leaves  parameters  optimizer  decay  rate  state                      memory
      --------  ------  ----------  ---------  -----  ----  -------------------------  ------
      hold           1          64  frozen                                              256 B
      tune           2          18  adamw       0.01        float32 144 B               216 B
      (shared)                                              float32 4 B, int32 12 B      16 B
      (total)        3          82                          float32 148 B, int32 12 B   488 B

      Of 64 devices, which need not be there:

      >>> from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
      >>> mesh = AbstractMesh((64,), ("data",), axis_types=(AxisType.Explicit,))
      >>> whole = NamedSharding(mesh, PartitionSpec())
      >>> w = jax.ShapeDtypeStruct((1024, 1024), jnp.float32, sharding=whole)
      >>> for tx in (gradtx.adam(0.1), gradtx.zero(gradtx.adam(0.1), "data")):
      ...     print(gradtx.summary(tx, w).total.device_bytes)
      {'device': 8388620}
      {'device': 131084}
    """
    leaves = jax.tree.leaves(params, is_leaf=is_none)
    paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(params, is_leaf=is_none)]
    acting = list(_acting(tx, params))
    members: dict[Hashable, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if leaf is not None:
            alike = tuple((a.active[i], a.factors[i] if a.active[i] else None) for a in acting)
            members.setdefault(alike, []).append(i)
    places = {paths[i]: i for i, leaf in enumerate(leaves) if leaf is not None}
    state = jax.eval_shape(tx.init, params)
    arrays = jax.tree.leaves(state)
    sizes = [(str(x.dtype), x.size * x.dtype.itemsize) for x in arrays]
    costs = _by_parameter(state, params, places, sizes)
    here = {i: Counter[str]() for i in costs}
    if (mesh := named_mesh("summary", params)) is not None:
        shardings = jax.tree.leaves(shardings_of(tx.init, explicit_types(mesh, params), mesh))
        sizes = [
            (to.memory_kind or "device", math.prod(to.shard_shape(x.shape)) * x.dtype.itemsize)
            for x, to in zip(arrays, shardings, strict=True)
        ]
        here = _by_parameter(state, params, places, sizes)
    rows = [_group(acting, where, paths, leaves, costs, here) for where in members.values()]
    total = Group(
        "(total)",
        tuple(path for row in rows for path in row.paths),
        sum(row.parameters for row in rows),
        "",
        False,
        None,
        None,
        sum(row.parameter_bytes for row in rows),
        _sum(costs.values()),
        _sum(here.values()),
    )
    return Summary(tuple(rows), dict(costs[None]), total, _by_role(state, params))


T = TypeVar("T")


class _Acting(NamedTuple):
    """A link and the leaves on which it acts.

    Attributes:
      name: its name.
      link: the link.
      label: the labels of the partitions that contain it.
      active: for each leaf, whether the link acts on it.
      patterns: for each leaf, the pattern by which that was decided, if any.
      factors: for each leaf, the number by which the link multiplies, if that is all it does.
      around: the wrappers around the link, the outermost first.
    """

    name: str
    link: Link
    label: str
    active: tuple[bool, ...]
    patterns: list[str | re.Pattern[str] | None]
    factors: list[float | None]
    around: tuple[Link, ...]


def _acting(tx: TransformationLike, tree: PyTree) -> Iterator[_Acting]:
    for effect in pipeline_of(tx).effects(tree):
        link, active = effect.link, effect.active
        seen = hide(tree, active)
        labels = [str(mask.label) for mask, _, _ in effect.masks if mask.label is not None]
        patterns: list[str | re.Pattern[str] | None] = [None] * len(active)
        for mask, tree_seen, there in effect.masks:
            if isinstance(mask.tree, ByPattern):
                found = _spread(_of_leaves(mask.tree.patterns(tree_seen), tree_seen), there)
                patterns = [a or b for a, b in zip(patterns, found, strict=True)]
        factors: list[float | None] = [None] * len(active)
        if (by := link.traits.get("factors")) is not None:
            factors = _spread(_of_leaves(by(seen), seen), active)
            if isinstance(by, ByPattern):
                patterns = _spread(_of_leaves(by.patterns(seen), seen), active)
        name, label = _name(link, seen), "/".join(labels)
        yield _Acting(name, link, label, active, patterns, factors, effect.around)


def _of_leaves(values: PyTree, tree: PyTree) -> list[PyTree]:
    """Returns the values for the leaves of a pytree; `None` for leaves that are `None`."""
    found = iter(jax.tree.leaves(values, is_leaf=lambda x: isinstance(x, re.Pattern)))
    return [None if x is None else next(found) for x in jax.tree.leaves(tree, is_leaf=is_none)]


def _spread(column: Sequence[T], active: Sequence[bool]) -> list[T | None]:
    """Returns the values of the active leaves, with `None` for the others."""
    values = iter(column)
    return [next(values) if a else None for a in active]


def _name(link: Link, seen: PyTree) -> str:
    if link.name or inner_of(link):
        return link.traits.get("part") or link.owner or link.name
    pieces = dict.fromkeys(part.piece for part in parts(jax.eval_shape(link.init_seen, seen)))
    return ", ".join(filter(None, pieces)) or "other"


def _described(acting: Iterable[_Acting], depth: int = 0) -> list[str]:
    """Returns the names of links, those of wrappers with the names of what they contain.

    Args:
      acting: the links, each wrapper before what it contains.
      depth: the number of wrappers around all of them. Default: 0.
    """
    names: dict[str, None] = {}
    for _, members in itertools.groupby(acting, lambda a: (*a.around, a.link)[depth]):
        outer, *within = members
        frozen = outer.link.traits.get("frozen")
        inside = [*_described(within, depth + 1), *_passed_on(outer.link)]
        names |= dict.fromkeys(_named("frozen" if frozen else outer.name, outer.link, inside))
    return list(names)


def _named(name: str, link: Link, inside: Sequence[str]) -> list[str]:
    """Returns the name of a link with those inside, or these alone if the link has no name."""
    inside = [x for x in dict.fromkeys(inside) if x != name]
    if not name or not inside or link.owner:
        return [name] if name else inside
    return [f"{name}({', '.join(inside)})"]


def _passed_on(link: Link) -> Iterator[str]:
    """Yields the names of what a wrapper calls with other parameters than its own."""
    for tx in link.traits.get("passes_to") or ():
        if not any(tx is inner for inner in link.traits.get("inner", ())):
            yield from _names(tx)


def _names(tx: TransformationLike) -> Iterator[str]:
    """Yields the names of a transformation's links, whatever the parameters are."""
    for link in pipeline_of(tx).links:
        within = [name for inner in inner_of(link) for name in _names(inner)]
        yield from _named(link.owner or link.name, link, [*within, *_passed_on(link)])


def _by_parameter(
    state: OptState,
    params: Params,
    places: Mapping[str, int],
    sizes: Sequence[tuple[str, int]],
) -> dict[int | None, Counter[str]]:
    """Returns the bytes for each parameter, and those of arrays that belong to none for `None`.

    Args:
      state: the types of the state.
      params: the parameters.
      places: the parameters' numbers by their paths.
      sizes: for each array of the state, what its bytes are counted as, and their number.
    """
    found: dict[int | None, Counter[str]] = {i: Counter() for i in (*places.values(), None)}
    told = jax.tree.leaves(roles(state, params))
    for role, (kind, size) in zip(told, sizes, strict=True):
        found[None if role.parameter is None else places[role.parameter]][kind] += size
    return found


def _by_role(state: OptState, params: Params) -> dict[Kind, tuple[int, int]]:
    """Returns the bytes of the arrays with each role, decoded and as they are stored."""
    whole, stored = Counter[Kind](), Counter[Kind]()

    def count(x: PyTree, role: PyTree) -> None:
        # The parts of an array stored as codes have roles, of which that of the codes is the first.
        kind = min(jax.tree.leaves(role), key=lambda found: found.name).kind
        whole[kind] += x.size * x.dtype.itemsize
        stored[kind] += sum(part.size * part.dtype.itemsize for part in jax.tree.leaves(x))

    jax.tree.map(count, state, roles(state, params), is_leaf=is_coded)
    return {kind: (whole[kind], stored[kind]) for kind in whole}


def _sum(counts: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sum(counts, Counter[str]()))


def _group(
    acting: list[_Acting],
    where: list[int],
    paths: list[str],
    leaves: list[ArrayLike],
    costs: Mapping[int | None, Counter[str]],
    here: Mapping[int | None, Counter[str]],
) -> Group:
    mine = [a for a in acting if a.active[where[0]]]
    frozen = any(a.link.traits.get("frozen") for a in mine)
    labels = dict.fromkeys(a.label for a in mine if a.label)
    near = [a for a in acting if not a.label or a.label in labels]
    patterns = dict.fromkeys(a.patterns[i] for i in where for a in near if a.patterns[i])
    if labels or len(patterns) > 1:
        patterns.pop(DEFAULT, None)
    rules = [x.pattern if isinstance(x, re.Pattern) else x for x in (*labels, *patterns) if x]
    scalars = [getattr(a.link, "scalars", {}) for a in mine]
    decays = [_decay(found["weight_decay"]) for found in scalars if "weight_decay" in found]
    factors = [f for a in mine if (f := a.factors[where[0]]) is not None]
    shapes = [(jnp.shape(leaves[i]), jnp.result_type(leaves[i])) for i in where]
    return Group(
        ", ".join(rules),
        tuple(paths[i] for i in where),
        sum(int(np.prod(shape)) for shape, _ in shapes),
        ", ".join(_described(mine)),
        frozen,
        (decays[0] if len(decays) == 1 else ", ".join(map(str, decays))) if decays else None,
        float(np.prod(factors)) if factors and not frozen else None,
        sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes),
        _sum(costs[i] for i in where),
        _sum(here[i] for i in where),
    )


def _decay(weight_decay: ScalarOrSchedule) -> float | str:
    """Returns a weight decay as a number, or `"schedule"` if it depends on the step."""
    if callable(weight_decay) or isinstance(weight_decay, Tracer):
        return "schedule"
    return float(weight_decay)


def _cells(group: Group, groups: int) -> list[str]:
    more = f" and {group.leaves - 1} more" if group.leaves > 1 else ""
    name = group.rule or ("all" if groups == 1 else f"{group.paths[0]}{more}")
    decay, rate = group.weight_decay, group.rate_multiplier
    state = ", ".join(f"{dtype} {_human(n)}" for dtype, n in sorted(group.state_bytes.items()))
    return [
        name,
        str(group.leaves) if group.paths else "",
        f"{group.parameters:,}" if group.paths else "",
        group.optimizer,
        "" if decay is None else decay if isinstance(decay, str) else f"{decay:g}",
        "" if rate is None else f"x {rate:g}",
        state,
        _human(group.bytes),
        _by_memory(group.device_bytes),
    ]


def _by_memory(device_bytes: Mapping[str, int]) -> str:
    names = {"device": "", "pinned_host": "host "}
    kinds = sorted(device_bytes.items())
    return ", ".join(f"{names.get(kind, kind)}{_human(n)}" for kind, n in kinds if n)


def _human(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
