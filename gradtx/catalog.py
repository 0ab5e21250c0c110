"""The catalog of all optimizers.

Each is registered where it is defined, by the decorator `optimizer`. The tests, the tables in the
documentation, `gradtx list`, the cross-check and the benchmarks all use this catalog.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, ParamSpec

from gradtx._arguments import Range, near
from gradtx.engine.base import GradientTransformation
from gradtx.engine.leafwise import piece
from gradtx.engine.links import Link
from gradtx.engine.pipeline import named, pipeline_of

P = ParamSpec("P")

FAMILIES = {
    "momentum": "gradient descent, and averages or sums of gradients",
    "Adam": "divided by the root of an average of squared gradients",
    "AdaGrad": "divided by sums of all gradients' squares or deviations",
    "sign": "steps along signs",
    "layer-wise": "steps in proportion to the norm of a leaf or of a neuron's weights",
    "factored": "second moments that elements share, to save memory",
    "low rank": "moments of low-rank projections of matrices, to save memory",
    "orthogonalized": "momentum of matrices with equal singular values",
    "Shampoo": "preconditioners for the rows and columns of matrices",
    "learning-rate-free": "step sizes estimated from distances, losses or gradients",
    "averaging": "averages of the parameters",
    "curvature": "second derivatives, or changes of gradients",
}
"""The families of optimizers, each with what its members have in common."""


class UnknownOptimizer(KeyError):
    """Raised if no optimizer has this name; the message suggests similar names."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclasses.dataclass(frozen=True)
class Entry:
    """The catalog's entry of an optimizer.

    Attributes:
      name: its name.
      factory: the function of hyperparameters that returns it.
      source: its publication: the title of a paper, and its arXiv id if it has one.
      family: its family, a key of `FAMILIES`.
      probe: hyperparameters with which it makes progress on a small problem.
      acts_on: how far, by default, the update of an element depends on other elements: not at all
        (`"elements"`), on those of its leaf (`"leaf"`) or, by a method on matrices, of its matrix
        (`"matrices"`), or on all (`"tree"`).
      usual_rate: the usual learning rate for networks in papers and textbooks; `None` if the
        factory's default, or else the probe's rate, is suitable.
      scale_free: whether it works without a learning rate.
      fixed_rate: whether its learning rate must be a number, not a schedule.
      rate: the name of the hyperparameter that multiplies all steps.
      constants: the names of hyperparameters whose numbers are constants in compiled code, see
        `piece`.
    """

    name: str
    factory: Callable[..., GradientTransformation]
    source: str
    family: str
    probe: Mapping[str, Any]
    acts_on: Literal["elements", "leaf", "matrices", "tree"] = "elements"
    usual_rate: float | None = None
    scale_free: bool = False
    fixed_rate: bool = False
    rate: str = "learning_rate"
    constants: tuple[str, ...] = ()

    def make(self, **changes: Any) -> GradientTransformation:
        """Returns the optimizer with the probe's hyperparameters, except for those given."""
        return self.factory(**{**self.probe, **changes})

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The factory's parameters, with their defaults; `None` for those without one."""
        parameters = inspect.signature(self.factory).parameters
        return {n: None if p.default is p.empty else p.default for n, p in parameters.items()}

    @property
    def needs(self) -> tuple[str, ...]:
        """The extra arguments that `update` needs, among `value`, `grad`, `value_fn` and
        `obj_fn`."""
        return tuple(dict.fromkeys(n for link in self._links for n in link.needs))

    @property
    def needs_params(self) -> bool:
        """True if `update` needs the parameters."""
        return any(link.needs_params for link in self._links)

    @property
    def takes_complex(self) -> bool:
        """True if parameters may be complex."""
        return not any(link.real_only for link in self._links)

    @property
    def couples_leaves(self) -> bool:
        """True if the update of a leaf may depend on other leaves."""
        return any(link.couples for link in self._links)

    @functools.cached_property
    def _links(self) -> tuple[Link, ...]:
        return pipeline_of(self.make()).links

    @property
    def module(self) -> str:
        """The module that defines it."""
        return self.factory.__module__

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(self.factory) or "").split("\n")[0]


_ENTRIES: dict[str, Entry] = {}


def optimizer(
    source: str,
    *,
    family: str,
    probe: Mapping[str, Any],
    constants: Sequence[str] = (),
    ranges: Mapping[str, Range | None] | None = None,
    **traits: Any,
) -> Callable[[Callable[P, GradientTransformation]], Callable[P, GradientTransformation]]:
    """Decorates an optimizer's factory: registers it, and adds its name to error messages.

    Args:
      source: its publication: the title of a paper, and its arXiv id if it has one.
      family: its family, a key of `FAMILIES`.
      probe: hyperparameters with which it makes progress on a small problem.
      constants: the names of hyperparameters whose numbers are constants in compiled code, see
        `piece`. Default: none.
      ranges: a mapping from hyperparameters whose names do not mean what they usually do to their
        ranges, see `piece`. Default: none.
      **traits: further attributes of its `Entry`.

    Raises:
      ValueError: the name is registered already, or there is no such family.

    Example:
      >>> import gradtx
      >>> @gradtx.catalog.optimizer("Cauchy (1847)", family="momentum", probe={"learning_rate": 1})
      ... def sgd(learning_rate):
      ...     return gradtx.scale_by_learning_rate(learning_rate)
      Traceback (most recent call last):
      ...
      ValueError: catalog: 'sgd' is already registered by gradtx.optimizers._sgd
    """

    def register(
        factory: Callable[P, GradientTransformation],
    ) -> Callable[P, GradientTransformation]:
        name, known = factory.__name__, piece(factory, constants=constants, ranges=ranges)

        @functools.wraps(known)
        def make(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
            return named(known(*args, **kwargs), name)

        if name in _ENTRIES:
            raise ValueError(f"catalog: {name!r} is already registered by {_ENTRIES[name].module}")
        if family not in FAMILIES:
            families = ", ".join(map(repr, FAMILIES))
            raise ValueError(f"catalog: family of {name} must be one of {families}, got {family!r}")
        numbers, fixed = MappingProxyType(dict(probe)), tuple(constants)
        _ENTRIES[name] = Entry(name, make, source, family, numbers, constants=fixed, **traits)
        return make

    return register


def entries() -> list[Entry]:
    """Returns all entries, sorted by name.

    Example:
      >>> import gradtx
      >>> [entry.name for entry in gradtx.catalog.entries() if entry.needs]
      [...'lbfgs'...'polyak_sgd'...]
      >>> [entry.name for entry in gradtx.catalog.entries() if entry.family == "AdaGrad"]
      ['a2grad', 'adagrad', 'ftrl', 'kate', 'madgrad']
    """
    return [_ENTRIES[name] for name in sorted(_ENTRIES)]


def names() -> list[str]:
    """Returns the optimizers' names, sorted.

    Example:
      >>> import gradtx
      >>> gradtx.catalog.names()[:3]
      ['a2grad', 'acprop', 'adabelief']
    """
    return sorted(_ENTRIES)


def get(name: str) -> Entry:
    """Returns the entry of an optimizer.

    Args:
      name: its name.

    Raises:
      UnknownOptimizer: no optimizer has this name; the message suggests similar names.

    Example:
      >>> import gradtx
      >>> gradtx.catalog.get("adma")
      Traceback (most recent call last):
      ...
      gradtx.catalog.UnknownOptimizer: no optimizer is named 'adma'; did you mean 'adam', ...
    """
    if name not in _ENTRIES:
        similar = ", ".join(map(repr, near(name, names(), 3)))
        hint = f"did you mean {similar}?" if similar else "`gradtx list` shows all"
        raise UnknownOptimizer(f"no optimizer is named {name!r}; {hint}")
    return _ENTRIES[name]
