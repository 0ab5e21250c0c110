"""The kinds of links that a chain consists of. Each answers for itself.

A `Rule` is run leaf by leaf, together with its neighbours, by `gradtx.engine.sweep`. A `Coupled`
method is written by hand over whole trees. A `Pair` is anybody's `(init, update)`. Matrices have a
kind of their own in `gradtx.engine.matrixwise`, wrappers in `gradtx.engine.pipeline`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import GradientTransformation, OptState, Params, Updates
from gradtx.engine.blocks import pieces
from gradtx.engine.checks import check_given, check_leaves, check_pairs
from gradtx.engine.concrete import is_traced, shape_and_dtype, spans_devices
from gradtx.engine.made import Freezer, Frozen, InTurn, Made, Opaque, Source, is_known, thaw
from gradtx.engine.masks import hide, hide_extra, merge, narrowed
from gradtx.engine.numerics import default_float, safe_increment, value_of
from gradtx.engine.paths import is_none
from gradtx.engine.rules import Kernel, MaskedNode, field, rate_at, rate_kept, value_at
from gradtx.engine.storage import first_slots

Active = tuple[bool, ...] | None
FirstSlots = Callable[[tuple[str, ...], list[Any]], list[list[Any]]]


class Mask(NamedTuple):
    """Where a link applies.

    Attributes:
      tree: a tree of booleans, or a function that makes one from a tree like the parameters.
      all_trees: whether extra arguments that are trees like the updates are masked too.
      label: the label of a partition that the mask stands for, or `None`.
    """

    tree: Any
    all_trees: bool = False
    label: Any = None


class Origin(NamedTuple):
    """How a link was made.

    Attributes:
      made: the call of a factory.
      number: which of the links that the factory made it is.
      masks: how many masks the factory put around it.
    """

    made: Made
    number: int
    masks: int


class Effect(NamedTuple):
    """What a link does to the leaves of a tree, for those who describe it.

    Attributes:
      link: the link.
      active: for each leaf, whether it acts there.
      masks: the masks around it, the outermost first, each with the tree that it sees, and with
        which of all leaves that tree has.
    """

    link: "Link"
    active: tuple[bool, ...]
    masks: tuple[tuple[Mask, Any, tuple[bool, ...]], ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Link:
    """One member of a chain.

    Attributes:
      name: what errors call it; nothing for what has no name.
      state: the NamedTuple class of its state, if that is known.
      needs: the extra arguments that `update` cannot do without.
      needs_params: whether `update` needs the parameters.
      real_only: whether complex leaves are refused.
      owner: the optimizer that it is part of, which errors name too, or nothing.
      masks: where it applies, the innermost mask first; a leaf takes part if all say so.
      origin: how it was made, if that is known.
      traits: what else is known of it, for those who describe it: `frozen`, `factors`.
    """

    name: str = ""
    state: Any = None
    needs: tuple[str, ...] = ()
    needs_params: bool = False
    real_only: bool = False
    owner: str = ""
    masks: tuple[Mask, ...] = ()
    origin: Origin | None = None
    traits: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    sweeps: ClassVar[bool] = False
    """Whether it is run leaf by leaf, with its neighbours."""
    compiles: ClassVar[bool] = False
    """Whether it may be compiled also where it is not known how it was made."""
    sees_all: ClassVar[bool] = False
    """Whether it can leave out leaves by itself; from others, masked leaves are hidden."""
    couples: ClassVar[bool] = True
    """Whether leaves may act on each other's updates."""

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"{self.owner} ({self.name})" if self.owner else self.name

    def narrow(self, mask: Mask) -> "Link":
        """Returns the link for the leaves where a mask is true."""
        return dataclasses.replace(self, masks=(*self.masks, mask))

    def activity(self, tree: Any, tree_name: str) -> Active:
        """Says for each leaf of a tree whether the link applies to it; `None` means to all."""
        around = list(narrowed(self.masks, tree, tree_name, self.sees_all))
        return tuple(around[-1][3]) if around else None

    def init(
        self, params: Params, active: Active, frozen: Sequence[tuple[Frozen, Any]] = ()
    ) -> OptState:
        """Returns the first state.

        Args:
          params: the parameters.
          active: for each leaf, whether the link applies; `None` means to all.
          frozen: the link frozen, with its numbers, in the ways that there are, if nothing is
            traced.
        """
        del frozen
        return self.init_seen(params if active is None else hide(params, active))

    def update(
        self,
        updates: Updates,
        state: OptState,
        params: Params | None,
        extra: dict[str, Any],
        active: Active,
    ) -> tuple[Updates, OptState]:
        """Takes the updates through the link."""
        if active is None:
            return self.update_seen(updates, state, params, extra)
        all_trees = any(mask.all_trees for mask in self.masks)
        extra = hide_extra(extra, updates, params, active, all_trees)
        seen = None if params is None else hide(params, active)
        new, state = self.update_seen(hide(updates, active), state, seen, extra)
        return merge(updates, new), state

    def init_seen(self, params: Params) -> OptState:
        """Returns the first state for the leaves that it sees."""
        raise NotImplementedError

    def update_seen(
        self, updates: Updates, state: OptState, params: Params | None, extra: dict[str, Any]
    ) -> tuple[Updates, OptState]:
        """Takes the updates that it sees through the link."""
        raise NotImplementedError

    def outside(self, state: OptState, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what has to be computed for the link outside of compiled code: nothing."""
        del state, extra
        return {}

    def with_rate(
        self, given: dict[str, Any], state: OptState, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns what `outside` gave, and the learning rate, if the link multiplies by one."""
        del state, extra
        return given

    def effects(self, tree: Any) -> Iterator[Effect]:
        """Tells what the link does to which leaves of a tree.

        Args:
          tree: the parameters, or their shapes and dtypes.
        """
        around = narrowed(self.masks, tree, "params", self.sees_all)
        masks = tuple((mask, seen, tuple(there)) for mask, seen, there, _ in around)
        everywhere = (True,) * len(jax.tree.leaves(tree, is_leaf=is_none))
        yield Effect(self, self.activity(tree, "params") or everywhere, masks)

    def freeze(self, freezer: Freezer, nested: bool = True) -> Frozen:
        """Returns the link frozen.

        Args:
          freezer: what gathers its numbers.
          nested: whether nothing can be computed for it outside of compiled code; otherwise its
            masks are left out.

        Raises:
          Opaque: it is not known how it was made.
        """
        if self.origin is None:
            raise Opaque(self.title)
        made, number, masks = self.origin
        call = freezer.call(made, stand_in=self.sweeps and not nested)
        around = freezer.freeze(self.masks[masks:]) if nested else None
        return Frozen(_thaw_link, (call, number, around))


def _thaw_link(data: Any, source: Source) -> Link:
    call, number, around = data
    link = thaw(call, source).update.pipeline.links[number]
    masks = () if around is None else (*link.masks, *thaw(around, source))
    return dataclasses.replace(link, masks=masks)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Rule(Link):
    """A kernel, and what belongs to one use of it.

    Attributes:
      kernel: the functions of one array.
      scalars: what all leaves share, by name: numbers and schedules. The one named `learning_rate`
        may be given anew at each call.
      shared: `shared(step, extra) -> dict` of more of them, or `None`. It is called outside of
        compiled code, so that it may be any Python function.
      key: a random key, or `None`; each leaf then finds a key of its own in `s.rng_key`.
    """

    kernel: Kernel
    scalars: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None
    key: Any = None

    sweeps = compiles = sees_all = True
    couples = False

    @functools.cached_property
    def _first(self) -> FirstSlots:
        """What makes first slots, kept with the rule."""
        return _first_in_pieces(self.kernel)

    @functools.cached_property
    def _first_compiled(self) -> FirstSlots:
        return jax.jit(self._first, static_argnums=0)

    def init(
        self, params: Params, active: Active, frozen: Sequence[tuple[Frozen, Any]] = ()
    ) -> OptState:
        """Returns the first state; see `Link.init`."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        takes = [x is not None and (active is None or active[i]) for i, x in enumerate(leaves)]
        counter, fields = self.kernel.counter, {}
        if counter.field in self.state._fields:
            fields = {name: jnp.array(counter.first) for name in counter.fields}
        if "rng_key" in self.state._fields:
            fields["rng_key"] = jnp.copy(self.key)  # the state may be donated
        known = self.common(fields.get(counter.field), {})
        for name in self.state._fields:
            if name in known:
                fields[name] = jnp.array(value_of(known[name]), default_float())
        integers = self.kernel.integers and all(map(_is_integer, known.values()))
        check_leaves(params, "params", takes, integers=integers, real_only=self.real_only)
        if names := self.kernel.slots(known):
            rows = self._rows(names, leaves, takes, frozen)
            for number, name in enumerate(names):
                fields[name] = treedef.unflatten([row[number] for row in rows])
        return self.state(**fields)

    def _rows(
        self, names: tuple[str, ...], leaves: list[Any], takes: list[bool], frozen: Any
    ) -> list[list[Any]]:
        """Returns the first slots of each leaf, in the order of their names."""
        where = [i for i, takes_part in enumerate(takes) if takes_part]
        mine = [leaves[i] for i in where]
        make: FirstSlots = self._first
        if any(map(spans_devices, mine)):  # compiled code would not learn how they are sharded
            make = functools.partial(first_slots, self.kernel)
        elif not is_traced(mine[:1]):
            kept = [functools.partial(_first_of_frozen, *f) for f in frozen]
            make = InTurn([*kept, self._first_compiled])
        rows: list[Any] = [[None if x is None else MaskedNode()] * len(names) for x in leaves]
        for i, row in zip(where, make(names, mine), strict=True):
            rows[i] = row
        return rows

    @functools.cached_property
    def opaque(self) -> tuple[str, ...]:
        """The scalars that only Python can compute: the values of somebody else's schedules."""
        return tuple(n for n, x in self.scalars.items() if callable(x) and not is_known(x))

    def clock(self, state: OptState) -> Any:
        """Returns the step count by which schedules go, or `None`."""
        return field(state, self.kernel.counter.fields[-1])

    def common(
        self, step: Any, extra: Mapping[str, Any], given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the scalars that all leaves share at a step.

        Args:
          step: the step count, or `None`.
          extra: the extra arguments.
          given: what `outside` computed of them. Default: all are computed.
        """
        found = {}
        for name, x in self.scalars.items():
            if given is not None and name in given:
                found[name] = given[name]
            elif name == "learning_rate":
                found[name] = rate_at(x, step, extra)
            else:
                found[name] = value_at(x, step)
        if self.shared is None:
            return found
        more = self.shared(step, extra) if given is None else given
        return {**more, **found}

    def outside(self, state: OptState, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Returns those scalars that have to be computed outside of compiled code."""
        scalars = {n: self.scalars[n] for n in self.opaque}
        return dataclasses.replace(self, scalars=scalars).common(self.clock(state), extra)

    def with_rate(
        self, given: dict[str, Any], state: OptState, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns what `outside` gave, and the learning rate, if the rule multiplies by one."""
        if "learning_rate" in given or "learning_rate" not in self.scalars:
            return given
        rate = rate_at(self.scalars["learning_rate"], self.clock(state), extra)
        return {**given, "learning_rate": rate}

    def freeze(self, freezer: Freezer, nested: bool = True) -> Frozen:
        """Returns the rule frozen; see `Link.freeze`."""
        if nested and (self.opaque or self.shared is not None):
            raise Opaque(self.title)
        return super().freeze(freezer, nested)


def _first_in_pieces(kernel: Kernel) -> FirstSlots:
    """Returns what makes the first slots of leaves; pieces that repeat are traced once."""
    piece = jax.jit(functools.partial(first_slots, kernel), static_argnums=0)

    def make(names: tuple[str, ...], leaves: list[Any]) -> list[list[Any]]:
        cuts = pieces(tuple(map(shape_and_dtype, leaves)))
        return [row for a, b in cuts for row in piece(names, leaves[a:b])]

    return make


@functools.partial(jax.jit, static_argnums=(0, 2))
def _first_of_frozen(
    frozen: Frozen, numbers: Any, names: tuple[str, ...], leaves: list[Any]
) -> list[list[Any]]:
    return _first_in_pieces(thaw(frozen, Source(numbers)).kernel)(names, leaves)


def _is_integer(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value_of(x)), jnp.integer)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Coupled(Link):
    """A method that couples leaves, with the checks that all such methods need.

    Attributes:
      own_init: `init(params) -> state`.
      own_update: `update(updates, state, params, **extra) -> (updates, state)`.
      rate: the learning rate, if it is kept for the method: a number, a scalar array, a schedule.
    """

    own_init: Callable[..., OptState]
    own_update: Callable[..., tuple[Updates, OptState]]
    rate: Any = None

    def init_seen(self, params: Params) -> OptState:
        """Returns the first state for the leaves that it sees."""
        check_leaves(params, "params", real_only=self.real_only)
        state = self.own_init(params)
        if self.rate is None:
            return state
        count = jnp.zeros((), jnp.int32)
        first = jnp.array(value_of(value_at(self.rate, count)), default_float())
        return state._replace(count=count, learning_rate=first)

    def update_seen(
        self, updates: Updates, state: OptState, params: Params | None, extra: dict[str, Any]
    ) -> tuple[Updates, OptState]:
        """Takes the updates that it sees through the method."""
        check_given(self.needs, self.needs_params, params, extra)
        check_leaves(updates, "updates")
        if self.needs_params:
            check_pairs(updates, params)
        check_leaves(updates, "updates", real_only=self.real_only)
        if self.rate is None:
            return self.own_update(updates, state, params, **extra)
        rate = value_of(rate_at(self.rate, state.count, extra))
        updates, new = self.own_update(updates, state, params, **{**extra, "learning_rate": rate})
        kept = jnp.asarray(rate, jnp.result_type(state.learning_rate))
        used = rate_kept(kept, state.count)
        return updates, new._replace(count=safe_increment(state.count), learning_rate=used)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Pair(Link):
    """A pair of functions of which nothing is known.

    Attributes:
      pair: the transformation; its `update` takes any extra arguments.
    """

    pair: GradientTransformation

    def init_seen(self, params: Params) -> OptState:
        """Returns the first state for the leaves that it sees."""
        return self.pair.init(params)

    def update_seen(
        self, updates: Updates, state: OptState, params: Params | None, extra: dict[str, Any]
    ) -> tuple[Updates, OptState]:
        """Takes the updates that it sees through the pair."""
        return self.pair.update(updates, state, params, **extra)
