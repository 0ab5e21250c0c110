"""The kinds of links of which a chain consists.

A `Rule` is run leaf by leaf, together with its neighbours, by `gradtx.engine.sweep`. A `Coupled`
method is written by hand over whole pytrees. A `Pair` is any `(init, update)`. The links for
matrices are in `gradtx.matrices`, those for wrappers in `gradtx.engine.pipeline`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import (
    Array,
    ExtraArgs,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    Updates,
)
from gradtx.engine.checks import check_given, check_leaves, check_pairs, located
from gradtx.engine.concrete import is_traced
from gradtx.engine.first import First, FrozenForms
from gradtx.engine.made import Freezer, Frozen, Made, Opaque, Source, is_known, thaw
from gradtx.engine.masks import Mask, hide, hide_extra, merge, narrowed
from gradtx.engine.numerics import default_float, safe_increment, value_of
from gradtx.engine.paths import is_none
from gradtx.engine.rules import Kernel, LeafError, field, rate_at, rate_kept, value_at
from gradtx.engine.storage import new_number

Active = tuple[bool, ...] | None


class Origin(NamedTuple):
    """The origin of a link: a factory call.

    Attributes:
      made: the call of the factory.
      number: the number of the link among those that the factory returned.
      masks: the number of masks that the factory added.
    """

    made: Made
    number: int
    masks: int


class Effect(NamedTuple):
    """The leaves on which a link acts, for descriptions of optimizers.

    Attributes:
      link: the link.
      active: for each leaf, whether the link acts on it.
      masks: the masks around it, the outermost first, each with the pytree that it sees, and with
        a boolean for every leaf: whether that pytree has it.
      around: the wrappers around it, the outermost first.
    """

    link: "Link"
    active: tuple[bool, ...]
    masks: tuple[tuple[Mask, PyTree, tuple[bool, ...]], ...]
    around: tuple["Link", ...] = ()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Link:
    """A member of a chain.

    Attributes:
      name: its name in error messages, or empty.
      state: the NamedTuple class of its state, if known.
      needs: the extra arguments that `update` requires.
      needs_params: whether `update` needs the parameters.
      real_only: whether complex leaves are an error.
      owner: the optimizer of which it is a part, for error messages, or empty.
      masks: its masks, the innermost first; it acts on the leaves for which all are true.
      origin: how it was made, if known.
      traits: further properties. For descriptions of optimizers: `frozen`, `factors`, `part`, the
        optimizer of a part of the parameters to which it belongs, and `inner`, the transformations
        that a wrapper calls with the parameters as they are. For their extra arguments:
        `passes_to`, the transformations to which these are passed on, or `None` if any may be read;
        `reads`, names that are read but are not in the signature of `update`; and `weights`, names
        of those that must not be negative. For their order in a chain: `last`, whether its updates
        are those of the parameters, so that nothing may change them; and `follows`, whether it may
        come after such a link, because it does not change updates, or only rounds them.
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
    """Whether it is run leaf by leaf, together with its neighbours."""
    compiles: ClassVar[bool] = False
    """Whether it may be compiled even if its origin is unknown."""
    sees_all: ClassVar[bool] = False
    """Whether it skips masked leaves itself; for other links they become `MaskedNode()`."""
    couples: ClassVar[bool] = True
    """Whether the update of a leaf may depend on other leaves."""

    @property
    def title(self) -> str:
        """The name in error messages."""
        return f"{self.owner} ({self.name})" if self.owner else self.name

    def narrow(self, mask: Mask) -> "Link":
        """Returns the link with one more mask around it."""
        return dataclasses.replace(self, masks=(*self.masks, mask))

    def activity(self, tree: PyTree, tree_name: str) -> Active:
        """Returns for each leaf of a pytree whether the link acts on it; `None` means on all."""
        if not self.masks:
            return None
        *_, (_, _, _, active) = narrowed(self.masks, tree, tree_name, self.sees_all)
        return tuple(active)

    def init(self, params: Params, active: Active, frozen: FrozenForms = ()) -> OptState:
        """Returns the first state.

        Args:
          params: the parameters.
          active: for each leaf, whether the link acts on it; `None` means on all.
          frozen: the frozen forms of the link, each with its numbers, if nothing is traced.
        """

        return self.init_seen(params if active is None else hide(params, active))

    def update(
        self,
        updates: Updates,
        state: OptState,
        params: Params | None,
        extra: ExtraArgs,
        active: Active,
    ) -> tuple[Updates, OptState]:
        """Applies the link to the updates."""
        if active is None:
            return self.update_seen(updates, state, params, extra)
        all_trees = any(mask.all_trees for mask in self.masks)
        extra = hide_extra(extra, updates, params, active, all_trees)
        kept = hide(updates, active, params)  # it checks that both have one structure
        seen = None if params is None else hide(params, active)
        new, state = self.update_seen(kept, state, seen, extra)
        return merge(updates, new), state

    def accepts(self, state: OptState) -> bool:
        """Returns whether a state has the fields of the link's state class, except optional ones.

        Fields with the default `KEPT` are optional, because optax's states do not have them. The
        next state has the fields that the state has.
        """
        if self.state in (None, type(state)):
            return True
        own, has = (set(getattr(x, "_fields", [""])) for x in (self.state, state))
        optional = getattr(self.state, "_field_defaults", {})
        return own <= has or own - optional.keys() <= has <= own

    def init_seen(self, params: Params) -> OptState:
        """Returns the first state for the leaves that are not masked."""
        raise NotImplementedError

    def update_seen(
        self, updates: Updates, state: OptState, params: Params | None, extra: ExtraArgs
    ) -> tuple[Updates, OptState]:
        """Applies the link to the updates that are not masked."""
        raise NotImplementedError

    def outside(self, state: OptState, extra: ExtraArgs) -> dict[str, Scalar]:
        """Returns the values that have to be computed outside compiled code: none."""

        return {}

    def with_rate(
        self, given: dict[str, Scalar], state: OptState, extra: ExtraArgs
    ) -> dict[str, Scalar]:
        """Returns the values of `outside`, and the learning rate if the link has one."""

        return given

    def effects(self, tree: PyTree) -> Iterator[Effect]:
        """Yields the leaves of a pytree on which the link acts.

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
          freezer: the freezer, which gathers the numbers.
          nested: whether the link is inside another one, so that nothing can be computed for it
            outside compiled code; if not, its masks are omitted.

        Raises:
          Opaque: its origin is unknown.
        """
        if self.origin is None:
            raise Opaque(self.title)
        made, number, masks = self.origin
        call = freezer.call(made, stand_in=self.sweeps and not nested)
        around = freezer.freeze(self.masks[masks:]) if nested else None
        return Frozen(_thaw_link, (call, number, around))


def _thaw_link(data: tuple[Frozen, int, Frozen | None], source: Source) -> Link:
    call, number, around = data
    link = thaw(call, source).update.pipeline.links[number]
    masks = () if around is None else (*link.masks, *thaw(around, source))
    return dataclasses.replace(link, masks=masks)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Rule(Link):
    """A use of a kernel, with its numbers.

    Attributes:
      kernel: the functions of one array.
      scalars: numbers and schedules that all leaves share, by name. The one named `learning_rate`
        can be overridden at each call.
      shared: `shared(step, extra)`, a function that returns a dict of more scalars, or `None`. It
        is called outside compiled code, so that it may be any Python function.
      key: a random key, or `None`; from it each leaf has its own keys, in `init` and in `update`.
    """

    kernel: Kernel
    scalars: Mapping[str, ScalarOrSchedule] = dataclasses.field(default_factory=dict)
    shared: Callable[..., Mapping[str, Scalar]] | None = None
    key: Array | None = None

    sweeps = compiles = sees_all = True
    couples = False

    @functools.cached_property
    def _first(self) -> First:
        """The first slots, with their compiled code."""
        return First(self.kernel, self.key)

    def init(self, params: Params, active: Active, frozen: FrozenForms = ()) -> OptState:
        """Returns the first state; see `Link.init`."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        takes = [x is not None and (active is None or active[i]) for i, x in enumerate(leaves)]
        counter, fields = self.kernel.counter, {}
        new: Callable[..., Array] = jnp.array if is_traced(leaves[:1]) else new_number
        if counter.field in self.state._fields:
            fields = {name: new(counter.first) for name in counter.fields}
        if "rng_key" in self.state._fields and self.key is not None:
            fields["rng_key"] = jnp.copy(self.key)  # the state may be donated
        known = self.common(fields.get(counter.field), {})
        for name in self.state._fields:
            if name in known:
                fields[name] = new(value_of(known[name]), default_float())
        integers = self.kernel.integers and all(map(_is_integer, known.values()))
        check_leaves(
            params, "params", takes, leaves=leaves, integers=integers, real_only=self.real_only
        )
        if names := self.kernel.slots(known):
            try:
                rows = self._first.rows(names, leaves, takes, frozen)
            except LeafError as e:
                where = [i for i, takes_part in enumerate(takes) if takes_part]
                raise located(
                    e, params, where, lambda i: self._first.rows(names, [leaves[i]], [True])
                ) from e.__cause__
            for number, name in enumerate(names):
                fields[name] = treedef.unflatten([row[number] for row in rows])
        return self.state(**fields)

    @functools.cached_property
    def opaque(self) -> tuple[str, ...]:
        """The scalars that cannot be compiled: the values of schedules that are not of gradtx."""
        return tuple(n for n, x in self.scalars.items() if callable(x) and not is_known(x))

    @property
    def timed(self) -> bool:
        """True if a step depends on a step count that is optional in the state."""
        return self.kernel.per_step is not None or any(map(callable, self.scalars.values()))

    def clock(self, state: OptState) -> Array | None:
        """Returns the step count for schedules, or `None`."""
        return field(state, self.kernel.counter.fields[-1])

    def common(
        self, step: Array | None, extra: ExtraArgs, given: Mapping[str, Scalar] | None = None
    ) -> dict[str, Scalar]:
        """Returns the scalars that all leaves share at a step.

        Args:
          step: the step count, or `None`.
          extra: the extra arguments.
          given: those that `outside` has computed. Default: `None`, all are computed.
        """
        if step is None and self.kernel.counter.field in self.state._fields and self.timed:
            raise TypeError(f"{self.title}: needs the step count, which is not in the state")
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

    def outside(self, state: OptState, extra: ExtraArgs) -> dict[str, Scalar]:
        """Returns the scalars that have to be computed outside compiled code."""
        scalars = {n: self.scalars[n] for n in self.opaque}
        return dataclasses.replace(self, scalars=scalars).common(self.clock(state), extra)

    def with_rate(
        self, given: dict[str, Scalar], state: OptState, extra: ExtraArgs
    ) -> dict[str, Scalar]:
        """Returns the values of `outside`, and the learning rate if the rule has one."""
        if "learning_rate" in given or "learning_rate" not in self.scalars:
            return given
        rate = rate_at(self.scalars["learning_rate"], self.clock(state), extra)
        return {**given, "learning_rate": rate}

    def freeze(self, freezer: Freezer, nested: bool = True) -> Frozen:
        """Returns the rule frozen; see `Link.freeze`."""
        if nested and not freezer.whole and (self.opaque or self.shared is not None):
            raise Opaque(self.title)
        return super().freeze(freezer, nested)


def _is_integer(x: Scalar) -> bool:
    return jnp.issubdtype(jnp.result_type(value_of(x)), jnp.integer)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Coupled(Link):
    """A method that couples leaves, with checks of its arguments.

    Attributes:
      own_init: `init(params) -> state`.
      own_update: `update(updates, state, params, **extra) -> (updates, state)`.
      rate: the learning rate, if the state has it: a number, a scalar array or a schedule.
    """

    own_init: Callable[..., OptState]
    own_update: Callable[..., tuple[Updates, OptState]]
    rate: ScalarOrSchedule | None = None

    def init_seen(self, params: Params) -> OptState:
        """Returns the first state for the leaves that are not masked."""
        check_leaves(params, "params", real_only=self.real_only)
        state = self.own_init(params)
        if self.rate is None:
            return state
        count = jnp.zeros((), jnp.int32)
        first = jnp.array(value_of(value_at(self.rate, count)), default_float())
        return state._replace(count=count, learning_rate=first)

    def update_seen(
        self, updates: Updates, state: OptState, params: Params | None, extra: ExtraArgs
    ) -> tuple[Updates, OptState]:
        """Applies the method to the updates that are not masked."""
        check_given(self.needs, self.needs_params, params, extra)
        check_leaves(updates, "updates")
        if self.needs_params:
            check_pairs(updates, params)
        check_leaves(updates, "updates", real_only=self.real_only)
        if self.rate is None:
            return self.own_update(updates, state, params, **extra)
        rate = value_of(rate_at(self.rate, state.count, extra))
        updates, new = self.own_update(updates, state, params, **{**extra, "learning_rate": rate})
        known = {**new._asdict(), "count": safe_increment(state.count)}
        if (kept := field(state, "learning_rate")) is not None:
            used = jnp.asarray(rate, jnp.result_type(kept))
            known["learning_rate"] = rate_kept(used, state.count)
        return updates, state._replace(**{name: known[name] for name in state._fields})


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Pair(Link):
    """A pair of functions `(init, update)`.

    Attributes:
      pair: the transformation; its `update` takes any extra arguments.
    """

    pair: GradientTransformation

    def init_seen(self, params: Params) -> OptState:
        """Returns the first state for the leaves that are not masked."""
        return self.pair.init(params)

    def update_seen(
        self, updates: Updates, state: OptState, params: Params | None, extra: ExtraArgs
    ) -> tuple[Updates, OptState]:
        """Applies the pair to the updates that are not masked."""
        return self.pair.update(updates, state, params, **extra)
