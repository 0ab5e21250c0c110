"""Writing a transformation as a rule for a stack of matrices.

Methods on matrices spend their time in linear algebra, which is fastest in batches. A rule here is
called for all matrices of one shape at once, as an array `(n, rows, columns)`, whichever leaves
they come from: the number of matrix products in a program grows with the number of shapes, not of
leaves.

A leaf with more axes is a stack of matrices: `axes` names those of the rows and columns, and the
other axes index the matrices.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx._arguments import checked
from gradtx._devices import explicit_mesh, placed_as
from gradtx._roles import declaration_of_class
from gradtx.engine.base import (
    Array,
    ExtraArgs,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    PyTreeDef,
    Scalar,
    Updates,
)
from gradtx.engine.checks import check_given, check_leaves, check_pairs, located
from gradtx.engine.concrete import is_traced, spans_devices
from gradtx.engine.draws import has_loops, in_loops, type_of
from gradtx.engine.first import FrozenForms
from gradtx.engine.keys import first_key, shared_key
from gradtx.engine.links import Active, Link
from gradtx.engine.made import Frozen, InTurn, Source, thaw
from gradtx.engine.numerics import compute_dtype, safe_increment
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.pipeline import Pipeline
from gradtx.engine.rules import Kernel, LeafError, MaskedNode, Slots, field, run_rule
from gradtx.engine.storage import first_slots
from gradtx.matrices.keys import key_data, keys_of_leaves
from gradtx.matrices.layout import (
    Layout,
    Place,
    axes_of_leaves,
    place_of_slots,
    places_of,
)
from gradtx.matrices.stacks import Column, map_stacks, placed_like, typed_like


@checked
def matrixwise(
    state: type,
    init: Callable[..., Slots] | None,
    update: Callable[..., tuple[Array, Slots]],
    *,
    axes: PyTree = None,
    lying: bool = False,
    after: Callable[[Array, Layout], Array] | None = None,
    params: bool = False,
    real_only: bool = False,
    key: Array | None = None,
    per_step: Callable[..., Mapping[str, Scalar]] | None = None,
    name: str | None = None,
    argument: str = "axes",
) -> GradientTransformation:
    """Lifts a rule for a stack of matrices to a transformation of pytrees.

    The rule is called once for all leaves whose matrices have one shape and dtype. Half-precision
    leaves are passed as float32; updates and slots are stored in their own dtypes. If the leaves
    are sharded over explicit axes of a mesh, each device runs the rule for its share of whole
    matrices, and slots are divided in the same way. Expensive computations that are not needed at
    every step, such as that of a preconditioner stored in a slot, should be in
    `lax.cond(step % gap == 0, ...)`. A method with an inner transformation, such as GaLore, is
    written with `coupled` instead.

    Args:
      state: the NamedTuple class of the state. The field `count`, if there is one, has the number
        of steps taken. Every other field is a slot: a pytree like the parameters, with an array for
        each leaf, whose first axes index the leaf's matrices: the leaf's axes for them, or one of
        length 1 if there are none. A field that is declared as a `Slot` of `gradtx.state`, such as
        a moment, has the shape of the matrices in the rule, and that of the leaf in the state.
      init: `init(p) -> Slots(...)`, the first slots of a stack of matrices; `None` for a rule
        without slots. With `key` it is `init(p, keys)`.
      update: `update(g, s, step, p) -> (g, Slots(...))` for a stack `(n, rows, columns)`, whose
        slots have `n` entries too. The result for a matrix must not depend on the others. `p` is
        `None` unless `params`.
      axes: a pytree of `MatrixAxes`, like the parameters or a prefix of them, or a function that
        returns one; `None` for leaves that are matrices. Default: `None`, all are.
      lying: whether tall matrices, with more rows than columns, are transposed for the rule, so
        that they can share a stack with wide ones. Default: False.
      after: `after(g, layout) -> g`, a function applied to the updated matrices of one leaf, such
        as a factor that depends on their shape: `layout.rows` and `layout.columns` are those before
        the transposition. Default: `None`, nothing is applied.
      params: whether the rule needs the parameters. Default: False.
      real_only: whether complex parameters are an error. Default: False.
      key: a random key from which the engine derives a new key for every matrix: for `init`, and,
        if the state has the field `rng_key`, for each step, read as `s.rng_key`, of shape `(n,)`.
        Default: there are no keys.
      per_step: `per_step(step)`, a function that returns a dict of scalars, read as `s.name`. With
        `s.rng_key` it is `per_step(step, key)`, with a random key of the step for decisions that
        are the same for all matrices. Default: there are none.
      name: the name of the rule in error messages. Default: the function in which `update` is
        defined.
      argument: the name of `axes` in error messages, such as that of the argument by which your
        factory got them. Default: "axes".

    Raises:
      TypeError: an argument is of a wrong kind.
      ValueError: by `init` and `update`: a leaf without axes is not a matrix, or its axes do not
        match its shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import EmptyState, Slots, matrixwise
      >>> def unit(g, s, step, p):  # divides each matrix by its largest singular value
      ...     return g / jnp.linalg.norm(g, 2, (1, 2), keepdims=True), Slots()
      >>> tx = matrixwise(EmptyState, None, unit)
      >>> g = {"a": 2 * jnp.eye(2), "b": 3 * jnp.eye(2)}
      >>> print(tx.update(g, tx.init(g))[0]["b"])
      [[1. 0.]
       [0. 1.]]
    """
    title = name or getattr(update, "__qualname__", "a rule").split(".")[0].lstrip("_")
    link = Stacked(
        name=title,
        state=state,
        needs_params=params,
        real_only=real_only,
        kernel=Kernel(state, init, update, per_step, keyed=key is not None),
        axes=axes,
        lying=lying,
        after=after,
        key=key,
        argument=argument,
    )
    return Pipeline((link,), 0).transformation()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Stacked(Link):
    """A rule for stacks of matrices.

    Attributes:
      kernel: the functions of one stack.
      axes: the axes of rows and columns.
      lying: whether tall matrices are transposed.
      after: the function applied to a leaf's updated matrices, or `None`.
      key: a random key, or `None`.
      argument: the name of `axes` in error messages.
    """

    kernel: Kernel
    axes: PyTree
    lying: bool
    after: Callable[[Array, Layout], Array] | None
    key: Array | None
    argument: str

    compiles = sees_all = True
    couples = False

    def init(self, params: Params, active: Active, frozen: FrozenForms = ()) -> OptState:
        """Returns the first state; see `Link.init`."""
        leaves, treedef, places = self._places(params, "params", active)
        rows = {i: None if x is None else MaskedNode() for i, x in leaves.items()}
        columns: dict[str, list[PyTree]] = {f: [*rows.values()] for f in self.kernel.slots({})}
        try:
            found = self._first_slots(leaves, places, frozen) if columns else []
        except LeafError as e:
            raise located(
                e, params, places, lambda i: self._slots({i: leaves[i]}, {i: places[i]})
            ) from e.__cause__
        for (name, column), mine in zip(columns.items(), found, strict=True):
            for i, slot in mine.items():
                column[i] = placed_as(slot, leaves[i]) if self._is_like_leaf(name) else slot
        values = {f: treedef.unflatten(column) for f, column in columns.items()}
        if "count" in self.state._fields:
            values["count"] = jnp.zeros((), jnp.int32)
        if "rng_key" in self.state._fields and self.key is not None:
            values["rng_key"] = jnp.copy(self.key)  # the state may be donated
        return self.state(**values)

    def update(
        self,
        updates: Updates,
        state: OptState,
        params: Params | None,
        extra: ExtraArgs,
        active: Active,
    ) -> tuple[Updates, OptState]:
        """Applies the rule to the updates, one stack for each shape of matrices."""
        check_given((), self.needs_params, params, extra)
        leaves, treedef, places = self._places(updates, "updates", active)
        values = {}
        if self.needs_params:
            check_pairs(updates, params, [i in places for i in leaves])
            values = dict(enumerate(align(treedef, params, "params", updates)))
        names = self.kernel.slots({})
        columns = {f: align(treedef, getattr(state, f), f"state.{f}", updates) for f in names}
        step = field(state, "count")
        rng_key = None if self.key is None else field(state, "rng_key")
        scalars = {}
        if self.kernel.per_step is not None:
            shared = () if rng_key is None else (shared_key(rng_key),)
            scalars = self.kernel.per_step(step, *shared)
        slots = self._slots(leaves, places)
        self._check_slots(updates, columns, slots)
        rule, with_params = self.kernel.update, bool(values)
        next_key, keys = None, list[Column]()
        if rng_key is not None:
            next_key, used = jax.random.split(rng_key)
            keys = [keys_of_leaves(key_data(used, places), leaves, places)]

        def on_stacks(g: Array, *rest: Array) -> list[Array]:
            p, held = (rest[0], rest[1:]) if with_params else (None, rest)
            mine = dict(zip(names, held, strict=False))
            if rng_key is not None:
                impl = jax.random.key_impl(rng_key)
                mine["rng_key"] = jax.random.wrap_key_data(held[-1], impl=impl)
            s = Slots(**mine, **scalars)
            try:
                g, new = run_rule(rule, g, s, step, p, names)
            except LeafError as e:
                first = next(
                    (i for i in places if places[i].shape == g.shape[1:]), next(iter(places))
                )
                error = e.at(f"updates{nth_path(updates, first)}")
                raise error from error.__cause__
            return [g, *(getattr(new, f) for f in names)]

        given = [
            Column({i: jnp.asarray(column[i]) for i in places}, places)
            for column in ([leaves, values] if values else [leaves])
        ]
        held = [
            column._replace(arrays={i: columns[f][i] for i in places})
            for f, column in zip(names, slots, strict=True)
        ]
        results = [given[0]._replace(after=self.after), *held]
        found, *new = map_stacks(on_stacks, [*given, *held, *keys], results)
        leaves |= found
        for name, mine in zip(names, new, strict=True):
            for i, slot in mine.items():
                columns[name][i] = slot
        fields = {f: treedef.unflatten(column) for f, column in columns.items()}
        if step is not None:
            fields["count"] = safe_increment(step)
        if next_key is not None:
            fields["rng_key"] = next_key
        return treedef.unflatten(leaves.values()), state._replace(**fields) if fields else state

    def _places(
        self, tree: PyTree, name: str, active: Active
    ) -> tuple[dict[int, PyTree], PyTreeDef, dict[int, Place]]:
        """Returns the leaves of a pytree, its structure, and the places of the active leaves."""
        found, treedef = jax.tree.flatten(tree, is_leaf=is_none)
        takes = [x is not None and (active is None or active[i]) for i, x in enumerate(found)]
        check_leaves(tree, name, takes, real_only=self.real_only)
        axes = axes_of_leaves(self.axes, tree, self.argument)
        places = places_of(tree, name, axes, takes, self.lying, self.argument)
        return dict(enumerate(found)), treedef, places

    def _first_slots(
        self, leaves: dict[int, PyTree], places: dict[int, Place], frozen: FrozenForms
    ) -> list[dict[int, Array]]:
        """Returns the first slots, for each of their names, by the leaves' numbers.

        Each leaf has a call of a function that is compiled once for each shape: a program for all
        leaves, with an output for each slot of each leaf, would take long to compile. The leaves
        are arguments even if their values are not needed, so that the slots are on their device.
        """
        mine = {i: jnp.asarray(leaves[i]) for i in places}
        keys = None if self.key is None else key_data(first_key(self.key), places)
        if explicit_mesh(mine.values()) is not None or any(map(spans_devices, mine.values())):
            given = [Column(mine, places)]
            given += [] if keys is None else [keys_of_leaves(keys, leaves, places)]
            return map_stacks(self._first, given, self._slots(leaves, places))
        sizes = [place.layout.matrices for place in places.values()]
        starts = np.cumsum([0, *sizes], dtype=np.int32)[: len(sizes)]
        if is_traced((mine, keys)):
            make = self._first_compiled
        else:
            kept = [functools.partial(_first_of_frozen, *f) for f in frozen]
            make = InTurn([*kept, self._first_compiled])
        if keys is not None and has_loops(*mine.values(), keys):
            rows = in_loops(
                lambda kind, start, x: self.first_of_leaf(kind[0], x, keys, start),
                [(place, type_of(mine[i])) for i, place in places.items()],
                jnp.asarray(starts),
                [*mine.values()],
            )
        else:
            args = zip(places.values(), mine.values(), starts, strict=True)
            rows = [make(place, x, keys, start) for place, x, start in args]
        found: list[dict[int, Array]] = [{} for _ in self.kernel.slots({})]
        for i, row in zip(places, rows, strict=True):
            for slots, slot in zip(found, row, strict=True):
                slots[i] = slot
        return found

    def first_of_leaf(
        self, place: Place, x: Array, keys: Array | None, start: Scalar
    ) -> list[Array]:
        """Returns the first slots of a leaf.

        Args:
          place: the place of the leaf.
          x: the leaf.
          keys: the data of the random keys of all leaves' matrices, or `None`.
          start: the number of matrices of the leaves before it.
        """
        given = [Column({0: x}, {0: place})]
        if keys is not None:
            rows = lax.dynamic_slice_in_dim(keys, start, place.layout.matrices)
            there = place_of_slots(place, keys.shape[1:])
            given.append(Column({0: rows.reshape(there.layout.shape)}, {0: there}))
        found = map_stacks(self._first, given, self._slots({0: x}, {0: place}))
        return [slots[0] for slots in found]

    @functools.cached_property
    def _first_compiled(self) -> Callable[..., list[Array]]:
        return jax.jit(self.first_of_leaf, static_argnums=0, keep_unused=True)

    def _first(self, stack: Array, *keys: Array) -> list[PyTree]:
        """Returns the first slots of a stack, for the data of the matrices' random keys if any."""
        names, mine = self.kernel.slots({}), None
        if self.key is not None:
            mine = [jax.random.wrap_key_data(keys[0], impl=jax.random.key_impl(self.key))]
        return first_slots(self.kernel, names, [stack], mine)[0]

    @functools.cached_property
    def _shapes(self) -> Callable[..., list[PyTree]]:
        """The shapes of the first slots, for those of a stack; traced once for each of them."""
        return functools.cache(lambda *given: jax.eval_shape(self._first, *given))

    def _is_like_leaf(self, name: str) -> bool:
        """Returns whether a slot is stored in the shape of its leaf."""
        declared = declaration_of_class(self.state)
        return declared is not None and declared.role(name).kind == "slot"

    def _slots(self, leaves: dict[int, PyTree], places: dict[int, Place]) -> list[Column]:
        """Returns the types of the leaves' slots, and their places."""
        names = self.kernel.slots({})
        columns = [Column({}, {}, f"state.{name}") for name in names]
        for i, place in places.items() if names else ():
            n, dtype = place.layout.matrices, compute_dtype(jnp.result_type(leaves[i]))
            given = [jax.ShapeDtypeStruct((n, *place.shape), dtype)]
            if self.key is not None:
                data = jax.random.key_data(self.key)
                given.append(jax.ShapeDtypeStruct((n, *data.shape), data.dtype))
            slots = self._shapes(*given)
            for name, column, slot in zip(names, columns, slots, strict=True):
                if self._is_like_leaf(name):
                    if slot.shape != given[0].shape:
                        told = f"state.{name} is declared as a Slot, and init must return it in"
                        raise LeafError(
                            ValueError,
                            f"{told} the shape of the matrices, {given[0].shape}, got {slot.shape}",
                        )
                    column.places[i] = place
                    column.arrays[i] = typed_like(leaves[i], slot.dtype)
                else:
                    mine = column.places[i] = place_of_slots(place, slot.shape[1:])
                    column.arrays[i] = placed_like(leaves[i], place.layout, mine.layout, slot.dtype)
        return columns

    def _check_slots(
        self, updates: Updates, columns: dict[str, list[PyTree]], slots: list[Column]
    ) -> None:
        """Raises unless the slots are as `init` returns them, up to their precision."""
        for (name, held), column in zip(columns.items(), slots, strict=True):
            for i, wanted in column.arrays.items():
                found = jnp.shape(held[i]) if hasattr(held[i], "shape") else "no array"
                if found != wanted.shape:
                    raise LeafError(
                        ValueError,
                        f"updates{nth_path(updates, i)} has shape "
                        f"{jnp.shape(jax.tree.leaves(updates, is_leaf=is_none)[i])}, for which "
                        f"state.{name} must have shape {wanted.shape}, got {found}",
                    )
                if jnp.iscomplexobj(wanted) and not jnp.iscomplexobj(held[i]):
                    raise LeafError(
                        TypeError,
                        f"updates{nth_path(updates, i)} is {wanted.dtype}, but state.{name} is "
                        f"{held[i].dtype}; call init with complex parameters",
                    )


@functools.partial(jax.jit, static_argnums=(0, 2), keep_unused=True)
def _first_of_frozen(
    frozen: Frozen, numbers: Sequence[PyTree], place: Place, *args: Any
) -> list[Array]:
    return thaw(frozen, Source(numbers)).first_of_leaf(place, *args)
