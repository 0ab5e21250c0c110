"""What the links of a chain consist of.

A `Rule` is a `Kernel`, pure functions of one array, together with what is computed once a step for
all leaves; `gradtx.engine.sweep` runs it. A `Coupled` method is written by hand over whole trees.
These are only descriptions.
"""

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Array, OptState
from gradtx.engine.numerics import safe_increment
from gradtx.engine.paths import StructureError, align, is_none, nth_path


class MaskedNode(NamedTuple):
    """Stands where a masked leaf has no slot; a pytree without leaves."""


class Slots:
    """What a rule remembers about one array: named arrays, read as attributes.

    The names are the fields of the rule's state class. Scalars that are computed once a step are
    read in the same way.

    Example:
      >>> from gradtx import Slots
      >>> Slots(mu=1.0, nu=2.0).nu
      2.0
    """

    def __init__(self, **arrays: Any):
        self.__dict__.update(arrays)

    def __getattr__(self, name: str) -> Any:  # only reached for names that are absent
        raise AttributeError(f"no slot {name!r}; there are {sorted(self.__dict__)}")

    def __repr__(self) -> str:
        return f"Slots({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


class Counter(NamedTuple):
    """The scalar by which a state knows where it is; the engine keeps it, rules read it as `step`.

    Attributes:
      field: the state's field.
      first: its value before the first step.
      advance: the function that gives the next value.
      clock: another field that counts like it, by which schedules go, and which may be set back
        for them to begin again. Default: schedules go by the counter itself.
    """

    field: str = "count"
    first: Any = np.int32(0)
    advance: Callable[[Array], Array] = safe_increment
    clock: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that count."""
        return (self.field,) if self.clock is None else (self.field, self.clock)


COUNT = Counter()
"""What most states have: the number of steps taken."""


class Kernel(NamedTuple):
    """A rule's pure functions; equal kernels share compiled code.

    Attributes:
      state: the NamedTuple class of the state.
      init: `init(p) -> Slots`, or `None` for a rule without slots.
      update: `update(g, s, step, p) -> (g, Slots)`.
      per_step: `per_step(step) -> dict` of scalars, or `None`.
      needs_params: whether `update` needs `p`.
      real_only: whether complex leaves are refused.
      counter: how the state counts its steps, if it has the counter's field.
    """

    state: Any
    init: Callable[[Array], Slots] | None
    update: Callable[..., tuple[Array, Slots]]
    per_step: Callable[[Any], Mapping[str, Any]] | None = None
    needs_params: bool = False
    real_only: bool = False
    counter: Counter = COUNT

    @property
    def engine_fields(self) -> tuple[str, ...]:
        """The fields of the state that the engine keeps by itself."""
        return (*self.counter.fields, "rng_key")

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The functions that there are."""
        return [f for f in (self.init, self.update, self.per_step) if f is not None]


class Rule(NamedTuple):
    """A kernel, and what belongs to one use of it.

    Attributes:
      kernel: the functions of one array.
      shared: `shared(step, extra) -> dict` of scalars for all leaves, or `None`. It is called
        outside of compiled code, so that it may be any Python function.
      key: a random key, or `None`; each leaf then finds a key of its own in `s.rng_key`.
      name: what errors call this rule.
      owner: the optimizer that the rule is part of, which errors name too, or nothing.
      masks: trees of booleans, or functions that make one from a tree; a leaf takes part if all
        say so.
    """

    kernel: Kernel
    shared: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None
    key: Any
    name: str
    owner: str = ""
    masks: tuple[Any, ...] = ()

    @property
    def state(self) -> Any:
        """The NamedTuple class of the state."""
        return self.kernel.state

    @property
    def needs(self) -> tuple[str, ...]:
        """The extra arguments that the rule cannot do without: none."""
        return ()

    @property
    def needs_params(self) -> bool:
        """Whether `update` needs the parameters."""
        return self.kernel.needs_params

    @property
    def real_only(self) -> bool:
        """Whether complex leaves are refused."""
        return self.kernel.real_only

    @property
    def title(self) -> str:
        """What errors call this rule."""
        return f"{self.owner} ({self.name})" if self.owner else self.name

    def scalars(self, step: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Computes what all leaves share at this step."""
        return {} if self.shared is None else dict(self.shared(step, extra))

    def activity(self, tree: Any, tree_name: str) -> tuple[bool, ...] | None:
        """Says for each leaf whether this rule applies to it; `None` means to all."""
        if not self.masks:
            return None
        return tuple(map(all, zip(*(flags(m, tree, tree_name) for m in self.masks), strict=True)))


class Coupled(NamedTuple):
    """A method that couples leaves, and what is known of it.

    Attributes:
      state: the NamedTuple class of the state.
      init: `init(params) -> state`.
      update: `update(updates, state, params=None, **extra) -> (updates, state)`.
      name: what errors call it.
      needs: the extra arguments that `update` cannot do without.
      needs_params: whether `update` needs the parameters.
      real_only: whether complex leaves are refused.
      owner: the optimizer that the method is part of, which errors name too, or nothing.
      narrow: `narrow(mask)` gives the method for the leaves where a mask is true, if it can leave
        out leaves by itself; otherwise masked leaves are taken out of the trees that it sees.
      masks: as those of a `Rule`, for those who describe the method: it keeps to them already.
      factors: `factors(tree)` gives the numbers by which a method that only multiplies does so, for
        those who describe it.
    """

    state: Any
    init: Callable[..., OptState]
    update: Callable[..., Any]
    name: str
    needs: tuple[str, ...] = ()
    needs_params: bool = False
    real_only: bool = False
    owner: str = ""
    narrow: Callable[[Any], "Coupled"] | None = None
    masks: tuple[Any, ...] = ()
    factors: Callable[[Any], Any] | None = None

    @property
    def title(self) -> str:
        """What errors call this method."""
        return f"{self.owner} ({self.name})" if self.owner else self.name


class LeafError(Exception):
    """Something is wrong at a leaf.

    Attributes:
      kind: the class of the error that users see.
      stage: the number of the rule in its sweep.
    """

    def __init__(self, kind: type[Exception], message: str, stage: int = 0):
        super().__init__(message)
        self.kind, self.stage = kind, stage

    def at(self, path: str) -> "LeafError":
        """Gives the same error, with the leaf's path."""
        error = LeafError(self.kind, f"{path}: {self}", self.stage)
        error.__cause__ = self.__cause__
        return error


def field(state: OptState, name: str) -> Any:
    """Gives a state's field, or `None`; a tuple's own methods (`count`!) are no fields."""
    return getattr(state, name) if name in getattr(state, "_fields", ()) else None


def flags(mask: Any, tree: Any, tree_name: str) -> list[bool]:
    """Gives a mask's boolean for each leaf of a tree.

    Args:
      mask: a tree of booleans, like `tree` or a prefix of it, or a function that makes one.
      tree: the tree to be masked.
      tree_name: what an error calls it.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    whole = spread(mask(tree) if callable(mask) else mask, tree)
    found = align(treedef, whole, "the mask", tree, tree_name)
    for i, (flag, leaf) in enumerate(zip(found, leaves, strict=True)):
        if leaf is not None and not _is_boolean(flag):
            path = nth_path(tree, i)
            raise StructureError(f"the mask{path} is {flag!r} for {tree_name}{path}, not a boolean")
    return [bool(flag) for flag in found]


def _is_boolean(x: Any) -> bool:
    return isinstance(x, bool) or (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.bool_))


def spread(prefix: Any, tree: Any) -> Any:
    """Repeats the leaves of a prefix of `tree` until it has `tree`'s structure."""
    try:
        return jax.tree.map(
            lambda m, below: jax.tree.map(lambda _: m, below, is_leaf=is_none),
            prefix,
            tree,
            is_leaf=is_none,
        )
    except (ValueError, TypeError):
        return prefix  # `align` says what differs


# Compiled code is kept for kernels that can be made again, and only for those: a kernel whose
# hyperparameters are arrays or tracers must not outlive its user.

CONSTANTS = (int, float, complex, str, bytes, type, jnp.dtype, type(None))


def is_constant(x: Any) -> bool:
    """Says whether a hyperparameter is a plain Python value, neither an array nor a function."""
    return isinstance(x, CONSTANTS)


def mark_constant(rules: Sequence[Rule]) -> None:
    """Marks the functions of rules as closing over plain Python values only."""
    for rule in rules:
        for function in rule.kernel.functions:
            if isinstance(function, FunctionType):
                function.__constant__ = True  # type: ignore[attr-defined]


def may_be_kept(kernels: Sequence[Kernel]) -> bool:
    """Says whether compiled code for these kernels may be kept."""
    return all(
        isinstance(f, FunctionType) and (f.__closure__ is None or hasattr(f, "__constant__"))
        for kernel in kernels
        for f in kernel.functions
    )
