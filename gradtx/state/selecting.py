"""Selecting parameters by their paths, in any pytree."""

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from gradtx._arguments import FRACTION
from gradtx.engine.base import (
    EmptyState,
    GradientTransformation,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    Updates,
    init_empty_state,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.links import Pair
from gradtx.engine.pipeline import Pipeline, named
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.tree.norms import rescale
from gradtx.tree.walking import Path, path_name

Rules = Mapping[str | re.Pattern[str], Any] | Callable[[str, Any], Any]


class _Missing:
    """A sentinel: there is no default."""


DEFAULT = "the others"
"""The entry for leaves that no pattern matches."""


def by_path(
    rules: Rules, default: Any = _Missing, *, unused: bool = False
) -> Callable[[PyTree], PyTree]:
    """Returns a function that assigns each leaf of a pytree a value by rules for its path.

    The function can be used as labels or mask: in `partition`, `masked`, `freeze`, or for weight
    decay. It accepts any pytree; a path consists of the keys, attributes and indices that lead to a
    leaf, as in `blocks/0/bias`.

    Args:
      rules: a mapping from patterns to values, in which the first pattern that matches counts; or
        `rule(path, leaf) -> value`. A string is a glob, as for file names (`*`, `?`, `[ab]`; `*`
        also matches `/`). It must match whole names, anywhere in the path: `"bias"` and `"*/bias"`
        match `a/bias`; `"blocks"` and `"blocks/0"` match everything below. A pattern of
        `re.compile` is searched for in the path.
      default: the value of leaves that no pattern matches. Without it, such leaves are an error.
      unused: whether a pattern may match no leaf at all. Default: False.

    Returns:
      `select(tree) -> values`, a pytree of the structure of `tree`. It raises `ValueError` for a
      leaf without a rule and for a rule without a leaf, with their names.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}}
      >>> gradtx.by_path({"bias": False}, True)(params)
      {'layer': {'bias': False, 'kernel': True}}
      >>> tx = gradtx.adamw(0.1, mask=gradtx.by_path({"bias": False}, True))
    """
    if isinstance(rules, Mapping):
        return ByPattern(rules, default, unused)
    rule = rules
    return lambda tree: jax.tree.map_with_path(lambda path, x: rule(path_name(path), x), tree)


@dataclasses.dataclass(frozen=True, eq=False)
class ByPattern:
    """The function that `by_path` returns for patterns.

    Attributes:
      rules: a mapping from patterns to values.
      default: the value of leaves that no pattern matches.
      unused: whether a pattern may match no leaf.
    """

    rules: Mapping[str | re.Pattern[str], Any]
    default: Any
    unused: bool

    def __call__(self, tree: PyTree) -> PyTree:
        """Returns each leaf's value."""
        patterns = self.patterns(tree)
        return jax.tree.map(lambda x: self.rules.get(x, self.default), patterns)

    def patterns(self, tree: PyTree) -> PyTree:
        """Returns the pattern that applies to each leaf, and `DEFAULT` where none does."""
        matched: set[str | re.Pattern[str]] = set()
        lost: list[str] = []

        def pattern_of(path: Path, _: PyTree) -> str | re.Pattern[str]:
            name = path_name(path)
            found = [pattern for pattern in self.rules if matches(pattern, name)]
            matched.update(found)
            if not found and self.default is _Missing:
                lost.append(name)
            return found[0] if found else DEFAULT

        patterns = jax.tree.map_with_path(pattern_of, tree)
        if lost:
            raise ValueError(
                f"by_path: needs a rule or a default for {some(lost)}, none of {list(self.rules)} "
                "matches"
            )
        paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(tree)]
        idle = [x for x in self.rules if x not in matched]
        if idle and paths and not self.unused:
            raise ValueError(f"by_path: {idle[0]!r} matches none of {some(paths)}")
        return patterns


@piece
def multiply_by_path(
    rules: Rules, default: Scalar = 1.0, *, unused: bool = False
) -> GradientTransformation:
    """Multiplies each update by a number given by rules for its path: learning rates by group.

    `u * m`, after an optimizer in a chain.

    Args:
      rules: a mapping from patterns to numbers `m`, or `rule(path, update) -> m`; see `by_path`.
      default: the number for all other leaves. Default: 1.
      unused: whether a pattern may match no leaf. Default: False.

    Raises:
      ValueError: a pattern matches no leaf, at the first update.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(0.5), gradtx.multiply_by_path({"head": 10.0}))
      >>> g = {"body": jnp.ones(1), "head": jnp.ones(1)}
      >>> print(tx.update(g, tx.init(g))[0])
      {'body': Array([-0.5], dtype=float32), 'head': Array([-5.], dtype=float32)}
    """
    return _multiplying(by_path(rules, default, unused=unused), "multiply_by_path")


@functools.partial(piece, constants=("rules", "default"))  # zeros are left out
def add_decay_by_path(
    rules: Mapping[str | re.Pattern[str], ScalarOrSchedule],
    default: ScalarOrSchedule = 0.0,
    *,
    unused: bool = False,
) -> GradientTransformation:
    """Adds weight decay with coefficients given by rules for paths: `g + weight_decay * p`.

    Each coefficient is an `add_decayed_weights` with a mask. So its kind is decided by its place in
    a chain, and the learning rate multiplies it if it stands before that. `gradtx.summary` prints
    the table of what decays.

    Args:
      rules: a mapping from patterns to coefficients, in which the first pattern that matches
        counts, see `by_path`; numbers, scalar arrays or schedules.
      default: the coefficient of all other leaves. Default: 0.
      unused: whether a pattern may match no leaf. Default: False.

    Raises:
      ValueError: a pattern matches no leaf, or `update` was called without params.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> decay = gradtx.add_decay_by_path({"bias": 0.0, "embed": 0.01}, 0.1)
      >>> tx = gradtx.chain(gradtx.scale_by_adam(), decay, gradtx.scale_by_learning_rate(0.1))
      >>> params = {"embed": jnp.ones(4), "w": jnp.ones(4), "bias": jnp.ones(4)}
      >>> for row in gradtx.summary(tx, params).rows:
      ...     print(row.paths, row.weight_decay)
      ('bias',) None
      ('embed',) 0.01
      ('w',) 0.1
    """

    def of(wanted: Any) -> Callable[[PyTree], PyTree]:
        return by_path(
            {pattern: pattern == wanted for pattern in rules}, wanted is None, unused=unused
        )

    decays = [*rules.items(), (None, default)]
    parts = [add_decayed_weights(x, of(pattern)) for pattern, x in decays if not _is_zero(x)]
    return named(chain(*parts), "add_decay_by_path")


def _is_zero(x: ScalarOrSchedule) -> bool:
    return isinstance(x, (int, float)) and x == 0


@functools.partial(piece, ranges={"decay": FRACTION})
def layerwise_decay(decay: Scalar, layer: str) -> GradientTransformation:
    """Scales updates by a factor that decays from the last layer to the first.

    `u * decay**(last - layer)`. It is for fine-tuning, where early layers, with more general
    features, should change less (Howard & Ruder, "Universal Language Model Fine-tuning for Text
    Classification", arXiv:1801.06146; Clark et al., "ELECTRA", arXiv:2003.10555).

    Args:
      decay: the ratio of the learning rates of neighbouring layers, in [0, 1]; with 0, of all
        layers only the last is trained.
      layer: a regular expression with one group for the layer's number: `r"blocks/(\\d+)"`. Updates
        that it does not match, such as those of the head, are not scaled; for an embedding, add
        `multiply_by_path` to the chain.

    Raises:
      ValueError: `layer` has no group; or it matches no leaf, at the first update.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.layerwise_decay(0.5, r"block_(\\d+)"))
      >>> g = {"block_0": jnp.ones(1), "block_1": jnp.ones(1), "head": jnp.ones(1)}
      >>> [float(u[0]) for u in tx.update(g, tx.init(g))[0].values()]
      [-0.5, -1.0, -1.0]
    """
    pattern = re.compile(layer)
    if not pattern.groups:
        raise ValueError(f"layerwise_decay: layer must have a group for the number, got {layer!r}")

    def numbers(updates: Updates) -> PyTree:
        depth = by_path(lambda path, _: int(m[1]) if (m := pattern.search(path)) else -1)(updates)
        last = max(jax.tree.leaves(depth), default=-1)
        if last < 0 and jax.tree.leaves(depth):
            raise ValueError(f"layerwise_decay: layer must match a path, {layer!r} matches none")
        return jax.tree.map(lambda i: decay ** (last - i) if i >= 0 else 1.0, depth)

    return _multiplying(numbers, "layerwise_decay")


def _multiplying(factors: Callable[[PyTree], PyTree], name: str) -> GradientTransformation:
    def update(
        updates: Updates, state: EmptyState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, EmptyState]:
        del params, extra
        return jax.tree.map(rescale, updates, factors(updates)), state

    pair = GradientTransformation(init_empty_state, update)
    link = Pair(
        name=name, state=EmptyState, pair=pair, traits={"factors": factors, "passes_to": ()}
    )
    return Pipeline((link,), 0).transformation()


def matches(pattern: str | re.Pattern[str], name: str) -> bool:
    """Returns whether a name, such as a path, matches a pattern; see `by_path`."""
    if isinstance(pattern, re.Pattern):
        return bool(pattern.search(name))
    return fnmatch.fnmatchcase(f"/{name}/", f"*/{pattern.strip('/')}/*")


def some(names: list[str], most: int = 5) -> str:
    """Returns the first of several names, for error messages."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest
