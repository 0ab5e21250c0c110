"""Pipelines: flat rows of links, as built by `chain`, `masked` and so on, and their states.

Even for nested combinators the row is flat, so that consecutive rules run as one sweep over the
leaves. The nesting is in the `skeleton`, the state with each link's state replaced by the link's
number.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jax

from gradtx._arguments import misfit, negative, outlines
from gradtx.engine.base import (
    EmptyState,
    ExtraArgs,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import beside, is_traced
from gradtx.engine.equality import Value
from gradtx.engine.links import Effect, Link, Pair
from gradtx.engine.made import Freezer, Frozen, Source, thaw
from gradtx.engine.masks import hide
from gradtx.engine.paths import StructureError
from gradtx.engine.rules import LeafError
from gradtx.engine.segment import Segment, segments

FORM: ContextVar[Callable[[Link, OptState, Params], OptState]] = ContextVar(
    "FORM", default=lambda link, state, params: state
)
"""The function that returns the form in which `init` returns a link's first state."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pipeline(Value):
    """A row of links, run from left to right.

    Attributes:
      links: the links.
      skeleton: a pytree of the links' numbers, the structure of the state. A link that is not in it
        has no state.
      name: the name of the whole in error messages, or empty.
    """

    links: tuple[Link, ...]
    skeleton: PyTree
    name: str = ""

    def __repr__(self) -> str:
        parts = dict.fromkeys(link.owner or link.name or "other" for link in self.links)
        return self.name or f"chain of {', '.join(parts) or 'nothing'}"

    @functools.cached_property
    def _structure(self) -> tuple[list[int], Any]:
        return jax.tree.flatten(self.skeleton)

    @functools.cached_property
    def _segments(self) -> list[Segment]:
        return segments(self.links)

    @functools.cached_property
    def _weights(self) -> tuple[str, ...]:
        names = (name for link in self.links for name in link.traits.get("weights", ()))
        return tuple(dict.fromkeys(names))

    def init(self, params: Params) -> OptState:
        """Returns the first state."""
        states = [x for part in self._segments for x in _titled(part)(part.init, params)]
        given = zip(self.links, states, strict=True)
        state = self._join([FORM.get()(link, state, params) for link, state in given])
        return beside(state, params)

    def update(
        self, updates: Updates, state: OptState, params: Params | None, extra: ExtraArgs
    ) -> tuple[Updates, OptState]:
        """Applies all links to the updates."""
        states, done = self._split(state), []
        if problem := misfit(updates, params) or negative(extra, self._weights):
            raise type(problem)(f"{self._title}: {problem}")
        for segment in self._segments:
            here = states[len(done) : len(done) + len(segment.links)]
            run = segment.run if is_traced(updates) else segment.run_compiled
            updates, new = _titled(segment)(run, updates, here, params, extra)
            done.extend(new)
        return updates, self._join(done)

    def transformation(self) -> GradientTransformation:
        """Returns the pair of functions that users hold."""
        return GradientTransformation(Init(self), Update(self))

    def effects(self, tree: PyTree) -> Iterator[Effect]:
        """Yields the leaves of a pytree on which the links act, in the order of the links.

        A wrapper comes before what it contains.
        """
        for link in self.links:
            for effect in link.effects(tree):
                yield effect
                for inner in inner_of(link):
                    yield from _within(effect, inner, tree)

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns its frozen value."""
        order, treedef = self._structure
        links = tuple(map(freezer.freeze, self.links))
        return Frozen(_thaw_pipeline, (links, tuple(order), treedef, self.name))

    def _split(self, state: OptState) -> list[OptState]:
        order, treedef = self._structure
        try:
            found = treedef.flatten_up_to(state)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._not_my_state(state) from None
        states: list[OptState] = [EmptyState()] * len(self.links)
        for number, piece in zip(order, found, strict=True):
            states[number] = piece
        if not all(map(Link.accepts, self.links, states)):
            raise self._not_my_state(state)
        return states

    def _join(self, states: Sequence[OptState]) -> OptState:
        order, treedef = self._structure
        return treedef.unflatten([states[number] for number in order])

    def _not_my_state(self, state: OptState) -> TypeError:
        types = [link.state or object for link in self.links]
        wanted, given = outlines(jax.tree.map(lambda n: types[n], self.skeleton), state)
        return TypeError(
            f"{self._title}: the state is {given}, but init returns {wanted}; the order of "
            "arguments is update(updates, state, params). Use tx.init(params), or "
            "gradtx.load_matching for the parts that fit"
        )

    @property
    def _title(self) -> str:
        titles = dict.fromkeys(link.owner or link.name for link in self.links)
        return self.name or ", ".join(filter(None, titles)) or "chain"


@dataclasses.dataclass(frozen=True)
class Init:
    """The function `init` of a pipeline."""

    pipeline: Pipeline

    def __call__(self, params: Params) -> OptState:
        """Returns the first state; for shapes and dtypes, those of the state."""
        kinds = set(map(type, jax.tree.leaves(params)))
        if any(issubclass(kind, jax.ShapeDtypeStruct) for kind in kinds):
            return jax.eval_shape(self.pipeline.init, params)
        return self.pipeline.init(params)


@dataclasses.dataclass(frozen=True)
class Update:
    """The function `update` of a pipeline."""

    pipeline: Pipeline

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        """Applies all links to the updates."""
        return self.pipeline.update(updates, state, params, extra)

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns the frozen value of the transformation."""
        return Frozen(_thaw_transformation, self.pipeline.freeze(freezer))


def _thaw_pipeline(data: Any, source: Source) -> Pipeline:
    frozen, order, treedef, name = data
    links = tuple(thaw(link, source) for link in frozen)
    return Pipeline(links, treedef.unflatten(order), name)


def _thaw_transformation(data: Frozen, source: Source) -> GradientTransformation:
    return thaw(data, source).transformation()


def _titled(segment: Segment) -> Callable[..., Any]:
    """Returns a function that calls another one, and adds the links' titles to its errors."""

    def call(function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except LeafError as e:
            title = segment.links[e.stage].title
            raise e.kind(f"{title}: {e}" if title else str(e)) from e.__cause__
        except StructureError as e:
            first, last = e.stages
            here = segment.links[first : last + 1]
            titles = ", ".join(filter(None, dict.fromkeys(x.owner or x.name for x in here)))
            if e.owner not in ("", titles):
                titles = f"{e.owner} ({titles})" if titles else e.owner
            told = ": ".join(filter(None, (titles, str(e))))
            raise ValueError(told) from e.__cause__

    return call


def pipeline_of(tx: Any) -> Pipeline:
    """Returns the pipeline of a transformation, or one with the transformation as its only link."""
    if hasattr(tx, "gradient_transformation"):  # MultiSteps
        tx = tx.gradient_transformation()
    init, update = (getattr(f, "pipeline", None) for f in (tx.init, tx.update))
    if update is not None and init is update:
        return update
    return Pipeline((Pair(pair=with_extra_args_support(tx)),), 0)


def inner_of(link: Link) -> tuple[GradientTransformation, ...]:
    """Returns the transformations that a link calls with the parameters as they are."""
    inner = link.traits.get("inner", ())
    return tuple(tx if hasattr(tx, "update") else tx() for tx in inner)


def _within(wrapper: Effect, inner: GradientTransformation, tree: PyTree) -> Iterator[Effect]:
    """Yields the leaves of a pytree on which the links inside of a wrapper act."""

    def spread(found: Sequence[bool]) -> tuple[bool, ...]:
        below = iter(found)
        return tuple(a and next(below) for a in wrapper.active)

    for effect in pipeline_of(inner).effects(hide(tree, wrapper.active)):
        masks = tuple((mask, seen, spread(there)) for mask, seen, there in effect.masks)
        around = (wrapper.link, *effect.around)
        yield Effect(effect.link, spread(effect.active), (*wrapper.masks, *masks), around)


def wrapped(
    init: Callable[..., OptState],
    update: Callable[..., Any],
    inner: Any = None,
    *,
    name: str = "",
    state: type | None = None,
    traits: Mapping[str, Any] | None = None,
) -> GradientTransformation:
    """Creates a transformation from a pair of functions that wrap another transformation.

    It runs like the pair. The wrapped transformation is only used for descriptions of optimizers,
    such as `gradtx.summary`. If the function that calls `wrapped` is decorated with `gradtx.piece`,
    wrappers of equal transformations share their compiled code.

    Args:
      init: `init(params) -> state`.
      update: `update(updates, state, params=None, **extra) -> (updates, state)`.
      inner: the wrapped transformation; or, if it is made again at each step, a function without
        arguments that returns one like it. Default: `None`, nothing is wrapped, and the extra
        arguments that are read are those in the signature of `update`.
      name: the name of the wrapper in error messages. Default: none, errors are those of the pair.
      state: the NamedTuple class of the state; `update` raises an error for another state. Default:
        `None`, the state is not checked.
      traits: further properties: `"passes_to"`, the transformations to which it passes the extra
        arguments on, by default `inner`, or `None` if any may be read; `"weights"`, names of extra
        arguments that must not be negative. Default: none.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> @gradtx.piece
      ... def doubled(inner):
      ...     def update(updates, state, params=None, **extra):
      ...         updates, state = inner.update(updates, state, params, **extra)
      ...         return jax.tree.map(lambda u: 2 * u, updates), state
      ...     return gradtx.wrapped(inner.init, update, inner)
      >>> tx = doubled(gradtx.sgd(0.5))
      >>> print(tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[0])
      [-1. -1.]
    """
    own = () if inner is None else (inner,)
    known = {"passes_to": own, "inner": own, **(traits or {})}
    link = Pair(pair=GradientTransformation(init, update), name=name, state=state, traits=known)
    return Pipeline((link,), 0).transformation()


def gather(pipelines: Sequence[Pipeline]) -> tuple[tuple[Link, ...], list[PyTree]]:
    """Returns the links of several pipelines in one row, and their renumbered skeletons."""
    links: list[Link] = []
    skeletons = []
    for pipeline in pipelines:
        start = len(links)
        links.extend(pipeline.links)
        skeletons.append(jax.tree.map(lambda n, start=start: n + start, pipeline.skeleton))
    return tuple(links), skeletons


def with_links(tx: Any, change: Callable[[Link], Link], name: str = "") -> GradientTransformation:
    """Returns a transformation with each of its links changed.

    Args:
      tx: the transformation.
      change: a function that returns the new link for each link.
      name: the new name in error messages. Default: the present one.
    """
    pipeline = pipeline_of(tx)
    links = tuple(map(change, pipeline.links))
    return Pipeline(links, pipeline.skeleton, name or pipeline.name).transformation()


def named(tx: GradientTransformation, name: str) -> GradientTransformation:
    """Returns the same transformation with a name, with which its error messages begin."""

    def own(link: Link) -> Link:
        masks = tuple(mask._replace(name=name) for mask in link.masks)
        return dataclasses.replace(link, owner=name if link.name else link.owner, masks=masks)

    return with_links(tx, own, name)
