"""What an optimizer does to which parameters, and what its state costs, before there is any."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx._table import text_table
from gradtx.engine.base import Params
from gradtx.engine.paths import is_none
from gradtx.engine.pipeline import Wrapped, pipeline_of
from gradtx.engine.rules import Coupled, MaskedNode, Rule, flags
from gradtx.state.naming import parts, path_name
from gradtx.state.selecting import DEFAULT, ByPattern
from gradtx.transforms import PartitionState


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that an optimizer treats alike.

    Attributes:
      rule: the label of a partition, or the pattern of `by_path`, that made the group, if known.
      paths: the parameters.
      parameters: the number of their elements.
      optimizer: what acts on them, in its order.
      frozen: whether it holds them still.
      weight_decay: that of `add_decayed_weights`: a number, `"schedule"`, or `None` without. What a
        method decays inside of its own equations is not seen.
      rate_multiplier: that of `multiply_by_path` and `layerwise_decay`, or `None` without.
      parameter_bytes: the memory of the parameters.
      state_bytes: the memory of the state, by dtype.
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

    @property
    def leaves(self) -> int:
        """The number of parameters that are arrays of their own."""
        return len(self.paths)

    @property
    def bytes(self) -> int:
        """The memory of parameters and state together."""
        return self.parameter_bytes + sum(self.state_bytes.values())


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `summary` found; as a string it is a table.

    Attributes:
      rows: the groups.
      shared: the memory of what belongs to no parameter, as step counts, by dtype.
      total: all of it as one group.
    """

    rows: tuple[Group, ...]
    shared: Mapping[str, int]
    total: Group

    def __str__(self) -> str:
        shared = Group("(shared)", (), 0, "", False, None, None, 0, self.shared)
        groups = (*self.rows, *([shared] if self.shared else []), self.total)
        lines = [_cells(group, len(self.rows)) for group in groups]
        header = ["group", "leaves", "parameters", "optimizer", "decay", "rate", "state", "memory"]
        return text_table(header, lines, " rr rr r")


def summary(tx: Any, params: Params) -> Summary:
    """Says what an optimizer does to which parameters, and what its state costs.

    Parameters on which the same pieces act are a group. Nothing is allocated. It looks into chains,
    masks, partitions, guards, `watch` and `MultiSteps`; what is not gradtx's, or made anew at every
    step as by `inject_hyperparams`, is told by its state.

    Args:
      tx: the optimizer.
      params: the parameters, or only their shapes and dtypes: `jax.eval_shape(make_params)`.

    Returns:
      A `Summary`, which prints as a table. Memory is that of parameters and state, without
      gradients; in `rate` stands the multiplier of the learning rate.

    Example:
      >>> import jax.numpy as jnp
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
    """
    leaves = jax.tree.leaves(params, is_leaf=is_none)
    paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(params, is_leaf=is_none)]
    acting = list(_acting(tx, params))
    members: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if leaf is not None:
            alike = tuple((a.active[i], a.factors[i] if a.active[i] else None) for a in acting)
            members.setdefault(alike, []).append(i)
    places = {paths[i]: i for i, leaf in enumerate(leaves) if leaf is not None}
    costs, shared = _state_bytes(jax.eval_shape(tx.init, params), places)
    rows = [_group(acting, where, paths, leaves, costs) for where in members.values()]
    total = Group(
        "(total)",
        tuple(path for row in rows for path in row.paths),
        sum(row.parameters for row in rows),
        "",
        False,
        None,
        None,
        sum(row.parameter_bytes for row in rows),
        dict(sum((Counter(row.state_bytes) for row in rows), Counter(shared))),
    )
    return Summary(tuple(rows), dict(shared), total)


class _Acting(NamedTuple):
    """A link, and what it does to each leaf.

    Attributes:
      name: what to call it.
      link: a rule, a method, or another pair.
      label: the labels of the partitions that it stands in.
      active: for each leaf, whether it acts there.
      patterns: for each leaf, the pattern that decided that, if one did.
      factors: for each leaf, the number by which it multiplies, if it only does that.
    """

    name: str
    link: Any
    label: str
    active: list[bool]
    patterns: list[Any]
    factors: list[Any]


def _acting(tx: Any, tree: Any) -> Iterator[_Acting]:
    pipeline = pipeline_of(tx)
    labels = _labels(pipeline.skeleton)
    for number, link in enumerate(pipeline.links):
        label = labels.get(number, "")
        active, patterns = _masked(link, tree)
        seen, inner = _hidden(tree, active), _inner(link)
        if inner is not None:
            for found in _acting(inner, seen):
                below = [
                    p or q for p, q in zip(_spread(found.patterns, active), patterns, strict=True)
                ]
                yield found._replace(
                    label="/".join(filter(None, (label, found.label))),
                    active=[bool(a) for a in _spread(found.active, active)],
                    patterns=below,
                    factors=_spread(found.factors, active),
                )
            continue
        factors: list[Any] = [None] * len(active)
        if isinstance(link, Coupled) and link.factors is not None:
            factors = _spread(_of_leaves(link.factors(seen), seen), active)
            if isinstance(link.factors, ByPattern):
                patterns = _spread(_of_leaves(link.factors.patterns(seen), seen), active)
        yield _Acting(_name(link, seen), link, label, active, patterns, factors)


def _masked(link: Any, tree: Any) -> tuple[list[bool], list[Any]]:
    """Says on which leaves a link acts, and the patterns that its masks have for them."""
    leaves = jax.tree.leaves(tree, is_leaf=is_none)
    active: list[bool] = [True] * len(leaves)
    patterns: list[Any] = [None] * len(leaves)
    hides = not isinstance(link, Rule) and getattr(link, "narrow", None) is None
    # What couples leaves sees of each mask's tree what the mask around it leaves.
    for mask in reversed(getattr(link, "masks", ())):
        seen, before = (_hidden(tree, active), active) if hides else (tree, [True] * len(leaves))
        found = _spread(flags(mask, seen, "params"), before)
        active = [a and bool(b) for a, b in zip(active, found, strict=True)]
        if isinstance(mask, ByPattern):
            told = _spread(_of_leaves(mask.patterns(seen), seen), before)
            patterns = [a or b for a, b in zip(patterns, told, strict=True)]
    return active, patterns


def _of_leaves(values: Any, tree: Any) -> list[Any]:
    """Gives the values that stand in the places of a tree's leaves; `None` has none."""
    found = iter(jax.tree.leaves(values, is_leaf=lambda x: isinstance(x, re.Pattern)))
    return [None if x is None else next(found) for x in jax.tree.leaves(tree, is_leaf=is_none)]


def _hidden(tree: Any, active: Sequence[bool]) -> Any:
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    pairs = zip(leaves, active, strict=True)
    return treedef.unflatten(x if a or x is None else MaskedNode() for x, a in pairs)


def _spread(column: Sequence[Any], active: Sequence[bool]) -> list[Any]:
    """Puts what belongs to the leaves that are seen to their places among all."""
    values = iter(column)
    return [next(values) if a else None for a in active]


def _inner(link: Any) -> Any:
    if isinstance(link, Wrapped):
        return link.inner
    if isinstance(link, (Rule, Coupled)):
        return None
    return getattr(getattr(link.update, "__self__", None), "inner_opt", None)


def _labels(skeleton: Any) -> dict[int, str]:
    """Gives the labels of partitions that lead to each link."""
    found: dict[int, str] = {}

    def visit(node: Any, labels: tuple[str, ...]) -> None:
        if isinstance(node, PartitionState):
            for label, part in node.inner_states.items():
                visit(part, (*labels, str(label)))
        elif isinstance(node, int):
            found[node] = "/".join(labels)
        else:
            below = jax.tree.leaves(
                node, is_leaf=lambda x: x is not node and isinstance(x, PartitionState)
            )
            for part in below:
                visit(part, labels)

    visit(skeleton, ())
    return found


def _name(link: Any, tree: Any) -> str:
    if isinstance(link, (Rule, Coupled)):
        return link.owner or link.name
    pieces = dict.fromkeys(part.piece for part in parts(jax.eval_shape(link.init, tree)))
    return ", ".join(filter(None, pieces)) or "other"


def _state_bytes(state: Any, places: Mapping[str, int]) -> tuple[dict[int, Counter], Counter]:
    """Gives the bytes by dtype for each parameter, and for what belongs to none."""
    costs: dict[int, Counter] = {i: Counter() for i in places.values()}
    shared: Counter[str] = Counter()
    for part in parts(state):
        for path, leaf in jax.tree.leaves_with_path(part.value):
            prefixes = (path_name(path[:n]) for n in range(len(path), -1, -1))
            place = next((places[name] for name in prefixes if name in places), None)
            cost = shared if place is None else costs[place]
            cost[str(leaf.dtype)] += leaf.size * leaf.dtype.itemsize
    return costs, shared


def _group(
    acting: list[_Acting],
    where: list[int],
    paths: list[str],
    leaves: list[Any],
    costs: Mapping[int, Counter],
) -> Group:
    here = [a for a in acting if a.active[where[0]]]
    names = dict.fromkeys(a.name for a in here)
    frozen = names.pop("set_to_zero", names) is None
    labels = dict.fromkeys(a.label for a in here if a.label)
    near = [a for a in acting if not a.label or a.label in labels]
    patterns = dict.fromkeys(a.patterns[i] for i in where for a in near if a.patterns[i])
    if labels or len(patterns) > 1:
        patterns.pop(DEFAULT, None)
    rules = [getattr(x, "pattern", x) for x in (*labels, *patterns)]
    decays = [_decay(a.link) for a in here if getattr(a.link, "name", "") == "add_decayed_weights"]
    factors = [a.factors[where[0]] for a in here if a.factors[where[0]] is not None]
    shapes = [(jnp.shape(leaves[i]), jnp.result_type(leaves[i])) for i in where]
    return Group(
        ", ".join(rules),
        tuple(paths[i] for i in where),
        sum(int(np.prod(shape)) for shape, _ in shapes),
        ", ".join((*filter(None, names), *(["frozen"] if frozen else []))),
        frozen,
        (decays[0] if len(decays) == 1 else ", ".join(map(str, decays))) if decays else None,
        float(np.prod(factors)) if factors and not frozen else None,
        sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes),
        dict(sum((costs[i] for i in where), Counter())),
    )


def _decay(rule: Rule) -> float | str:
    """Gives a rule's weight decay, or says that it depends on the step."""
    found: list[Any] = []
    count = jax.ShapeDtypeStruct((), jnp.int32)
    jax.eval_shape(lambda step: found.append(rule.scalars(step, {})["weight_decay"]), count)
    return "schedule" if isinstance(found[0], Tracer) else float(found[0])


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
    ]


def _human(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
