"""One sweep over the leaves of a pytree: where rules for one array meet trees.

A rule knows one array and its slots. This file knows everything else, and is the only place that
does: flattening, leaves that are `None` or masked, the step count, per-leaf random keys, the dtype
in which arithmetic is done and in which slots are stored, errors that name a leaf's path, and how
often Python code is traced.

A `Rule` is a `Kernel` (pure functions of one array) and what is computed once a step for all
leaves (`shared`). A `Sweep` takes each leaf through one or several kernels, one after another;
`gradtx.pipeline` decides which pieces of a chain stand in one sweep.

Tracing. The kernels of a sweep are traced once for each distinct signature (shape and dtype) among
the leaves, by an inner `jit`, and not once for each leaf. A call with concrete arrays compiles the
whole sweep, so that an un-jitted step is one dispatch.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp

from gradtx.base import Array, OptState, Params, Updates
from gradtx.concrete import any_tracer
from gradtx.numerics import compute_dtype, default_float, safe_increment, widen
from gradtx.paths import align, is_none, nth_path


class MaskedNode(NamedTuple):
    """Stands where a masked leaf has no slot; a pytree without leaves."""


class Slots:
    """What a rule remembers about one array: named arrays, read as attributes.

    The names are the fields of the rule's state class. Scalars that `shared` computes for the step
    are read in the same way.

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


class Kernel(NamedTuple):
    """A rule's pure functions of one array; equal kernels share compiled code."""

    state: type
    init: Callable[[Array], Slots] | None
    update: Callable[..., Any]
    needs_params: bool = False
    real_only: bool = False


class Rule(NamedTuple):
    """A kernel, and what is computed once a step for all leaves.

    Attributes:
      kernel: the functions of one array.
      shared: `shared(step, extra) -> dict` of scalars, or `None`.
      key: a random key, or `None`; each leaf then finds a key of its own in `s.rng_key`.
      name: what errors call this rule.
      owner: the optimizer that the rule is part of, which errors name too, or nothing.
      masks: trees of booleans, or functions that make one from the updates; a leaf takes part if
        all say so.
    """

    kernel: Kernel
    shared: Callable[[Array, Mapping[str, Any]], Mapping[str, Any]] | None
    key: Any
    name: str
    owner: str = ""
    masks: tuple[Any, ...] = ()

    @property
    def title(self) -> str:
        """What errors call this rule."""
        return f"{self.owner} ({self.name})" if self.owner else self.name

    def scalars(self, state: OptState, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Computes what all leaves share at this step."""
        if self.shared is None:
            return {}
        return dict(self.shared(field(state, "count"), extra))

    def activity(self, tree: Any, tree_name: str) -> tuple[bool, ...] | None:
        """Says for each leaf whether this rule applies to it; `None` means that all take part."""
        if not self.masks:
            return None
        _, treedef = jax.tree.flatten(tree, is_leaf=is_none)
        columns = []
        for mask in self.masks:
            mask = mask(tree) if callable(mask) else mask
            flags = align(treedef, spread(mask, tree), "the mask", tree, tree_name)
            columns.append([bool(flag) for flag in flags])
        return tuple(all(column) for column in zip(*columns, strict=True))


def spread(prefix: Any, tree: Any) -> Any:
    """Repeats the leaves of a prefix of `tree` until it has `tree`'s structure."""
    try:
        return jax.tree.map(
            lambda m, below: jax.tree.map(lambda _: m, below, is_leaf=is_none), prefix, tree
        )
    except (ValueError, TypeError):
        return prefix  # `align` says what differs


def field(state: Any, name: str) -> Any:
    """Gives a state's field, or `None`; a tuple's own methods (`count`!) are no fields."""
    return getattr(state, name) if name in state._fields else None


class LeafError(Exception):
    """Something is wrong at a leaf; carries what the error to raise needs to name."""

    def __init__(self, kind: type[Exception], message: str, stage: int = 0):
        super().__init__(message)
        self.kind, self.stage = kind, stage


ENGINE_FIELDS = ("count", "rng_key")


class Sweep:
    """One sweep over the leaves, in which each leaf goes through all kernels."""

    def __init__(self, kernels: tuple[Kernel, ...]):
        self.kernels = kernels
        self.needs_params = any(k.needs_params for k in kernels)
        # One trace for each signature among the leaves; in compiled code the calls are inlined.
        self._leaf = jax.jit(self._one_leaf, static_argnums=0)
        # One dispatch for a step outside of jit.
        self._whole = jax.jit(self._all_leaves, static_argnames="active")

    def init(self, params: Params, rules: Sequence[Rule]) -> list[OptState]:
        """Gives each kernel's first state."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        states, activity = [], []
        for stage, rule in enumerate(rules):
            active = rule.activity(params, "params") or (True,) * len(leaves)
            activity.append(active)
            states.append(self._init_stage(stage, rule, params, leaves, treedef, active))
        for i, leaf in enumerate(leaves):
            here = tuple(active[i] for active in activity)
            if leaf is None or not any(here):
                continue
            if jnp.iscomplexobj(leaf):
                self._refuse_complex(params, i, leaf, here)
            elif not _inexact(leaf):
                self._refuse_rounding(params, i, leaf, here)
        return states

    def _refuse_complex(self, params: Params, i: int, leaf: Any, active: tuple[bool, ...]) -> None:
        for stage, kernel in enumerate(self.kernels):
            if kernel.real_only and active[stage]:
                path = nth_path(params, i)
                raise LeafError(
                    TypeError, f"params{path} is {leaf.dtype}; the rule is for real numbers", stage
                )

    def _init_stage(
        self,
        stage: int,
        rule: Rule,
        params: Params,
        leaves: list[Any],
        treedef: Any,
        active: Sequence[bool],
    ) -> OptState:
        kernel = rule.kernel
        fields: dict[str, Any] = {}
        if "count" in kernel.state._fields:  # type: ignore[attr-defined]
            fields["count"] = jnp.zeros((), jnp.int32)
        if "rng_key" in kernel.state._fields:  # type: ignore[attr-defined]
            fields["rng_key"] = rule.key
        shared = {} if rule.shared is None else rule.shared(fields.get("count"), {})
        for name, value in shared.items():
            if name in kernel.state._fields:  # type: ignore[attr-defined]
                fields[name] = jnp.asarray(value, default_float())
        names = [f for f in kernel.state._fields if f not in fields]  # type: ignore[attr-defined]
        columns: dict[str, list[Any]] = {name: [] for name in names}
        if names:
            assert kernel.init is not None, f"{rule.name}: a state with slots needs an init"
            for i, leaf in enumerate(leaves):
                if leaf is None or not active[i]:
                    for name in names:
                        columns[name].append(None if leaf is None else MaskedNode())
                    continue
                _require_array(leaf, params, i, stage)
                slots = vars(kernel.init(widen(leaf)))
                if sorted(slots) != sorted(names):
                    raise LeafError(
                        TypeError, f"init gave the slots {sorted(slots)}, the state has {names}", stage
                    )
                for name in names:
                    columns[name].append(jax.tree.map(functools.partial(_own, leaf), slots[name]))
        fields |= {name: treedef.unflatten(column) for name, column in columns.items()}
        return kernel.state(**fields)

    def _refuse_rounding(self, params: Params, i: int, leaf: Any, active: tuple[bool, ...]) -> None:
        """Raises if the kernels would make fractions of an integer leaf."""
        for stage, kernel in enumerate(self.kernels):
            if not active[stage]:
                continue
            aval = jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
            if _rounds(kernel, aval):
                raise LeafError(
                    TypeError,
                    f"params{nth_path(params, i)} is {aval.dtype}, and a step would have to be "
                    "rounded to be added to it; keep it out with gradtx.masked, freeze it with "
                    "gradtx.partition and gradtx.set_to_zero, or make it floating",
                    stage,
                )

    def update(
        self,
        updates: Updates,
        states: Sequence[OptState],
        params: Params | None,
        rules: Sequence[Rule],
        extra: Mapping[str, Any],
    ) -> tuple[Updates, list[OptState]]:
        """Takes the updates through all kernels."""
        if not self.needs_params:
            params = None
        elif params is None:
            stage = next(i for i, k in enumerate(self.kernels) if k.needs_params)
            raise LeafError(
                ValueError, "needs the parameters: call update(updates, state, params)", stage
            )
        scalars = tuple(r.scalars(s, extra) for r, s in zip(rules, states, strict=True))
        active = None
        if any(rule.masks for rule in rules):
            active = tuple(rule.activity(updates, "updates") for rule in rules)
        traced = any_tracer((updates, states, params, scalars))
        run = self._all_leaves if traced else self._whole
        return run(updates, tuple(states), params, scalars, active=active)

    def _all_leaves(
        self,
        updates: Updates,
        states: tuple[OptState, ...],
        params: Params | None,
        scalars: tuple[dict[str, Any], ...],
        active: tuple[tuple[bool, ...] | None, ...] | None,
    ) -> tuple[Updates, list[OptState]]:
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        p_leaves = [None] * len(leaves)
        if params is not None:
            p_leaves = align(treedef, params, "params", updates)
        # Per stage: the names of its slots, their columns of leaves, its count and its keys.
        names, columns, steps, keys = [], [], [], []
        for kernel, state, shared in zip(self.kernels, states, scalars, strict=True):
            fields: tuple[str, ...] = kernel.state._fields  # type: ignore[attr-defined]
            slots = [f for f in fields if f not in ENGINE_FIELDS and f not in shared]
            names.append(slots)
            columns.append(
                [align(treedef, getattr(state, f), f"state.{f}", updates) for f in slots]
            )
            steps.append(field(state, "count"))
            keys.append(jax.random.split(state.rng_key) if "rng_key" in fields else None)

        out_leaves = []
        for i, (g, p) in enumerate(zip(leaves, p_leaves, strict=True)):
            takes_part = tuple(active is None or (a := active[k]) is None or a[i]
                               for k in range(len(self.kernels)))  # fmt: skip
            if g is None or not any(takes_part):
                out_leaves.append(g)
                continue
            _check_leaf(g, p, updates, i)
            slots = tuple(
                tuple(column[i] for column in columns[k]) if takes_part[k] else ()
                for k in range(len(self.kernels))
            )
            leaf_keys = tuple(None if k is None else jax.random.fold_in(k[1], i) for k in keys)
            shape_of_call = (takes_part, tuple(map(tuple, names)))
            try:
                out, slots = self._leaf(
                    shape_of_call, g, p, slots, tuple(steps), leaf_keys, scalars
                )
            except LeafError as e:
                raise LeafError(e.kind, f"updates{nth_path(updates, i)}: {e}", e.stage) from None
            out_leaves.append(out)
            for k in range(len(self.kernels)):
                for column, new in zip(columns[k], slots[k], strict=False):
                    column[i] = new

        new_states = []
        for k, (state, shared) in enumerate(zip(states, scalars, strict=True)):
            fields = {n: treedef.unflatten(c) for n, c in zip(names[k], columns[k], strict=True)}
            if steps[k] is not None:
                fields["count"] = safe_increment(steps[k])
            if keys[k] is not None:
                fields["rng_key"] = keys[k][0]
            for name, value in shared.items():
                if name in state._fields:
                    fields[name] = jnp.asarray(value, getattr(state, name).dtype)
            new_states.append(state._replace(**fields) if fields else state)
        return treedef.unflatten(out_leaves), new_states

    def _one_leaf(
        self,
        shape_of_call: tuple[tuple[bool, ...], tuple[tuple[str, ...], ...]],
        g: Array,
        p: Array | None,
        slots: tuple[tuple[Any, ...], ...],
        steps: tuple[Any, ...],
        keys: tuple[Any, ...],
        scalars: tuple[dict[str, Any], ...],
    ) -> tuple[Array, tuple[tuple[Any, ...], ...]]:
        takes_part, names = shape_of_call
        dtype, shape = jnp.result_type(g), jnp.shape(g)
        u, q = widen(g), None if p is None else widen(p)
        new_slots = []
        for k, kernel in enumerate(self.kernels):
            if not takes_part[k]:
                new_slots.append(())
                continue
            _check_slots(kernel, g if p is None else p, dict(zip(names[k], slots[k], strict=True)), k)
            s = Slots(
                **{n: jax.tree.map(widen, v) for n, v in zip(names[k], slots[k], strict=True)},
                **{n: _scalar_like(v, u.dtype) for n, v in scalars[k].items()},
            )
            if keys[k] is not None:
                s.rng_key = keys[k]
            u, new = kernel.update(u, s, steps[k], q)
            new = vars(new)
            new_slots.append(
                tuple(
                    jax.tree.map(
                        lambda old, x, n=n, k=k: _store(x, jnp.result_type(old), f"state.{n}", k),
                        old,
                        new[n],
                    )
                    for n, old in zip(names[k], slots[k], strict=True)
                )
            )
            if jnp.shape(u) != shape:
                raise LeafError(
                    ValueError, f"the rule made shape {jnp.shape(u)} of shape {shape}", k
                )
        if not jnp.issubdtype(dtype, jnp.inexact) and jnp.issubdtype(u.dtype, jnp.inexact):
            raise LeafError(TypeError, f"a step of dtype {u.dtype} would be rounded to {dtype}")
        return _store(u, dtype), tuple(new_slots)


@functools.lru_cache(maxsize=512)
def _shared_sweep(kernels: tuple[Kernel, ...]) -> Sweep:
    return Sweep(kernels)


def make_sweep(kernels: tuple[Kernel, ...]) -> Sweep:
    """Gives the sweep over kernels, the same one again where that keeps nothing alive needlessly.

    Kernels whose hyperparameters are arrays or tracers must not outlive their user, so only those
    whose functions are known to be plain (see `piece`) are remembered.
    """
    plain = all(_is_plain(f) for k in kernels for f in (k.init, k.update))
    return _shared_sweep(kernels) if plain else Sweep(kernels)


def _is_plain(function: Any) -> bool:
    return function is None or function.__closure__ is None or hasattr(function, "__plain__")


P = ParamSpec("P")
PLAIN = (int, float, complex, str, bytes, type, jnp.dtype, type(None))


def remember_plain(rules: Sequence[Rule]) -> None:
    """Marks the functions of rules as safe to keep: they close over plain Python values only."""
    for rule in rules:
        for function in (rule.kernel.init, rule.kernel.update):
            if function is not None and function.__closure__ is not None:
                function.__plain__ = True


def is_plain_value(x: Any) -> bool:
    """Says whether a hyperparameter is a Python constant, neither an array nor a function."""
    return isinstance(x, PLAIN)


def _require_array(leaf: Any, params: Params, i: int, stage: int) -> None:
    if not isinstance(leaf, (jax.Array, int, float, complex)) and not hasattr(leaf, "dtype"):
        raise LeafError(
            TypeError,
            f"params{nth_path(params, i)} is {type(leaf).__name__}, not an array; "
            "replace it by None or keep it out of the tree",
            stage,
        )


def _check_leaf(g: Any, p: Any, updates: Updates, i: int) -> None:
    if p is not None and jnp.shape(p) != jnp.shape(g):
        path = nth_path(updates, i)
        raise LeafError(
            ValueError,
            f"updates{path} has shape {jnp.shape(g)}, params{path} has shape {jnp.shape(p)}",
        )


def _check_slots(kernel: Kernel, like: Array, slots: dict[str, Any], stage: int) -> None:
    """Raises unless the slots have the shapes that `init` would give for this leaf."""
    if kernel.init is None or not slots:
        return
    aval = jax.ShapeDtypeStruct(jnp.shape(like), compute_dtype(jnp.result_type(like)))
    expected = jax.eval_shape(lambda p: vars(kernel.init(p)), aval)  # type: ignore[misc]
    for name, want in expected.items():
        found = [jnp.shape(x) for x in jax.tree.leaves(slots[name])]
        if found != (shapes := [x.shape for x in jax.tree.leaves(want)]):
            raise LeafError(
                ValueError,
                f"shape {aval.shape}, but state.{name} was made for another: it holds "
                f"{_one(found)} where {_one(shapes)} belongs",
                stage,
            )


def _one(shapes: list[Any]) -> str:
    return str(shapes[0]) if len(shapes) == 1 else str(shapes) if shapes else "nothing"


def _rounds(kernel: Kernel, aval: jax.ShapeDtypeStruct) -> bool:
    """Says whether a kernel turns an integer update into a floating one."""

    def run(g: Array) -> Array:
        slots = Slots() if kernel.init is None else kernel.init(g)
        return kernel.update(g, _AnyScalar(vars(slots)), jnp.zeros((), jnp.int32), g)[0]

    return jnp.issubdtype(jax.eval_shape(run, aval).dtype, jnp.inexact)


class _AnyScalar(Slots):
    """Slots that answer 1.0 for scalars that are only known at a step."""

    def __init__(self, slots: dict[str, Any]):
        super().__init__(**slots)

    def __getattr__(self, name: str) -> Any:
        return jax.random.key(0) if name == "rng_key" else 1.0


def _inexact(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _own(leaf: Any, slot: Any) -> Array:
    """Makes a slot a strongly typed buffer of its own, so that params and state can be donated."""
    if slot is leaf:
        return jnp.array(slot, copy=True)
    return _store(slot, jnp.result_type(slot))


def _store(x: Any, dtype: Any, what: str = "the update", stage: int = 0) -> Array:
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise LeafError(TypeError, f"{what} is {x.dtype}, and {dtype} cannot hold it", stage)
    return jax.lax.convert_element_type(x, dtype)


def _scalar_like(x: Any, dtype: Any) -> Any:
    """Casts a shared floating scalar to a leaf's real dtype, so that it does not widen the leaf."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating) or not jnp.issubdtype(dtype, jnp.inexact):
        return x
    return jax.lax.convert_element_type(x, jnp.finfo(dtype).dtype)
