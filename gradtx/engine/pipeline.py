"""What `chain`, `masked` and their like build: a flat row of links, and the shape of their state.

A link is a `Rule`, which a `Sweep` can run together with its neighbours, a `Coupled` method, or any
other pair `(init, update)`. However deeply combinators are nested, the row stays flat, so that
rules which follow each other make one sweep over the leaves; the nesting survives in the
`skeleton`, the state with each link's state replaced by the link's number.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Union

import jax

from gradtx.engine.base import (
    EmptyState,
    GradientTransformation,
    OptState,
    Params,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.paths import StructureError
from gradtx.engine.rules import Coupled, LeafError, Rule
from gradtx.engine.sweep import Sweep, make_sweep

OURS = (Rule, Coupled)
Link = Union[Rule, Coupled, "Wrapped", GradientTransformation]


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """A row of links, run from left to right.

    Attributes:
      links: rules and other transformations.
      skeleton: a pytree of the links' numbers; the state has this structure. A link that is not in
        it has no state of its own.
      name: what errors call the whole, or nothing.
    """

    links: tuple[Link, ...]
    skeleton: Any
    name: str = ""

    def __post_init__(self):
        order, treedef = jax.tree.flatten(self.skeleton)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_treedef", treedef)
        object.__setattr__(self, "_groups", _group(self.links))

    def init(self, params: Params) -> OptState:
        """Gives the first state."""
        states: list[OptState] = []
        for sweep, part in self._groups:  # type: ignore[attr-defined]
            try:
                states.extend(sweep.init(params, part) if sweep else [part[0].init(params)])
            except (LeafError, StructureError) as e:
                raise _with_title(e, part) from e.__cause__
        return self._join(states)

    def update(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        """Takes the updates through all links."""
        states = self._split(state)
        done: list[OptState] = []
        for sweep, part in self._groups:  # type: ignore[attr-defined]
            here = states[len(done) : len(done) + len(part)]
            try:
                if sweep is None:
                    updates, one = part[0].update(updates, here[0], params, **extra)
                    new = [one]
                else:
                    updates, new = sweep.update(updates, here, params, part, extra)
                done.extend(new)
            except (LeafError, StructureError) as e:
                raise _with_title(e, part) from e.__cause__
        return updates, self._join(done)

    def transformation(self) -> GradientTransformation:
        """Gives the pair of functions that users hold."""
        return GradientTransformation(self.init, self.update)

    def _split(self, state: OptState) -> list[OptState]:
        try:
            found = self._treedef.flatten_up_to(state)  # type: ignore[attr-defined]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._not_my_state(state) from None
        states: list[OptState] = [EmptyState()] * len(self.links)
        for number, piece in zip(self._order, found, strict=True):  # type: ignore[attr-defined]
            states[number] = piece
        for link, piece in zip(self.links, states, strict=True):
            if isinstance(link, OURS) and any(
                f not in getattr(piece, "_fields", ()) for f in link.state._fields
            ):
                raise self._not_my_state(state)
        return states

    def _join(self, states: Sequence[OptState]) -> OptState:
        in_order = [states[number] for number in self._order]  # type: ignore[attr-defined]
        return self._treedef.unflatten(in_order)  # type: ignore[attr-defined]

    def _not_my_state(self, state: OptState) -> TypeError:
        ours = [link for link in self.links if isinstance(link, OURS)]
        wanted = [link.state.__name__ for link in ours]
        name = self.name or ", ".join(link.title for link in ours) or "chain"
        return TypeError(
            f"{name}: the state given to update is {_outline(state)}, where init gives one made of "
            f"{', '.join(wanted) or 'other parts'}; the order is update(updates, state, params)"
        )


def _with_title(e: LeafError | StructureError, links: Sequence[Any]) -> Exception:
    if not isinstance(links[0], OURS):
        return e  # somebody else's pair, which has no name
    if isinstance(e, LeafError):
        return e.kind(f"{links[e.stage].title}: {e}")
    titles = dict.fromkeys(link.owner or link.name for link in links)
    return ValueError(f"{', '.join(titles)}: {e}")


def _outline(state: OptState) -> str:
    if isinstance(state, tuple) and not hasattr(state, "_fields"):
        return f"a tuple of {', '.join(type(s).__name__ for s in state) or 'nothing'}"
    return f"a {type(state).__name__}"


def _group(links: tuple[Link, ...]) -> list[tuple[Sweep | None, list[Any]]]:
    """Puts neighbouring rules together."""
    groups: list[tuple[Sweep | None, list[Any]]] = []
    run: list[Rule] = []
    for link in (*links, None):
        if isinstance(link, Rule):
            run.append(link)
            continue
        if run:
            groups.append((make_sweep(tuple(rule.kernel for rule in run)), run))
            run = []
        if link is not None:
            groups.append((None, [link]))
    return groups


def pipeline_of(tx: Any) -> Pipeline:
    """Gives the pipeline behind a transformation, or one that holds it as its only link."""
    owner = getattr(tx.update, "__self__", None)
    if isinstance(owner, Pipeline) and getattr(tx.init, "__self__", None) is owner:
        return owner
    return Pipeline((with_extra_args_support(tx),), 0)


class Wrapped(NamedTuple):
    """A pair that is written around another transformation.

    It runs like any pair; that it tells what is within is for those who describe optimizers.

    Attributes:
      init: `init(params) -> state`.
      update: `update(updates, state, params=None, **extra) -> (updates, state)`.
      inner: the transformation within.
      masks: as those of a `Rule`, for what it does not see of the trees.
    """

    init: Callable[..., OptState]
    update: Callable[..., tuple[Updates, OptState]]
    inner: Any
    masks: tuple[Any, ...] = ()


def wrapped(init: Any, update: Any, inner: Any) -> GradientTransformation:
    """Makes a transformation of a pair that is written around another.

    Args:
      init: `init(params) -> state`.
      update: `update(updates, state, params=None, **extra) -> (updates, state)`.
      inner: the transformation within.
    """
    return Pipeline((Wrapped(init, update, inner),), 0).transformation()


def gather(pipelines: Sequence[Pipeline]) -> tuple[tuple[Link, ...], list[Any]]:
    """Gives the links of several pipelines in one row, and each one's skeleton renumbered."""
    links: list[Link] = []
    skeletons = []
    for pipeline in pipelines:
        start = len(links)
        links.extend(pipeline.links)
        skeletons.append(jax.tree.map(lambda n, start=start: n + start, pipeline.skeleton))
    return tuple(links), skeletons


def named(tx: GradientTransformation, name: str) -> GradientTransformation:
    """Gives the same transformation under a name that its errors begin with."""
    pipeline = pipeline_of(tx)
    links = tuple(
        link._replace(owner=name) if isinstance(link, OURS) else link for link in pipeline.links
    )
    return Pipeline(links, pipeline.skeleton, name).transformation()
