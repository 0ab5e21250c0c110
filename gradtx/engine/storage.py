"""Storage of slots: their dtypes, weak types, and buffers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx._devices import placed_as
from gradtx.codecs import is_coded
from gradtx.engine.base import Array, PyTree
from gradtx.engine.numerics import widen
from gradtx.engine.rules import Kernel, LeafError, Slots, checked_slots, errors_of


def store(x: ArrayLike, dtype: DTypeLike, what: str = "the update", stage: int = 0) -> Array:
    """Casts an array to a dtype, without a weak type.

    Args:
      x: the array.
      dtype: the dtype.
      what: the name of `x` in error messages. Default: "the update".
      stage: the number of the link.

    Raises:
      LeafError: `x` is complex and `dtype` is not.
    """
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise LeafError(TypeError, f"{what} is {x.dtype}, which cannot be stored as {dtype}", stage)
    return lax.convert_element_type(x, dtype)


def store_slot(old: PyTree, new: Slots, name: str, stage: int) -> PyTree:
    """Returns a new slot in the dtypes of the old one, and as codes where the old one is.

    Args:
      old: the old slot, an array or a pytree of arrays.
      new: the slots that the rule returned.
      name: the slot's name.
      stage: the number of the link.
    """

    def stored(o: PyTree, x: ArrayLike) -> PyTree:
        dtype = o.dtype if is_coded(o) else jnp.result_type(o)
        x = store(x, dtype, f"state.{name}", stage)
        return o.with_value(x) if is_coded(o) else x

    return jax.tree.map(stored, old, getattr(new, name), is_leaf=is_coded)


def new_number(x: ArrayLike, dtype: DTypeLike | None = None) -> Array:
    """Returns a number as a new array, as `jnp.array` does, in half the time outside `jit`.

    Args:
      x: a number, or a scalar array.
      dtype: the dtype. Default: that of `x`.
    """
    if isinstance(x, jax.Array):
        return jnp.array(x, dtype)
    return _new(np.asarray(x, dtype))


@jax.jit
def _new(x: Array) -> Array:
    return lax.optimization_barrier(x)


def first_slots(
    kernel: Kernel,
    names: tuple[str, ...],
    leaves: Sequence[ArrayLike],
    keys: Array | Sequence[Array] | None = None,
    placed: bool = False,
) -> list[list[PyTree]]:
    """Returns the first slots of leaves: strongly typed, in separate buffers.

    Args:
      kernel: the rule.
      names: the slots' names, in the order of the results.
      leaves: parameters, or stacks of their matrices.
      keys: for each of them the second argument of `init`, its random key or its matrices' keys.
        Default: `None`, `init` has one argument.
      placed: whether slots are sharded like their leaves where the compiler decides. Default:
        False, because that costs a little.

    Raises:
      LeafError: `init` raises an error, or returns other slots.
    """
    wanted, taken = dict(kernel.stored), set(map(id, leaves))

    def own(slot: Array, dtype: DTypeLike | None) -> Array:
        """Returns a slot in a separate buffer, so that parameters and state can be donated."""
        if id(slot) in taken:
            slot = jnp.array(slot, copy=True)
        elif not isinstance(slot, jax.Array):
            slot = jnp.asarray(slot)
        taken.add(id(slot))
        if dtype is None:
            return lax.convert_element_type(slot, slot.dtype) if slot.weak_type else slot
        # For a complex slot stored as a real one, the first update raises an error.
        real = not jnp.issubdtype(dtype, jnp.complexfloating)
        return lax.convert_element_type(jnp.real(slot) if real else slot, dtype)

    rows = []
    for number, leaf in enumerate(leaves):
        made = Slots()
        if kernel.init is not None:
            with errors_of("init", {"the parameter": leaf}):
                more = () if keys is None else (keys[number],)
                made = kernel.init(widen(leaf), *more)
        slots = vars(checked_slots(made, names, "init must return"))
        row = [jax.tree.map(lambda x, n=n: own(x, wanted.get(n)), slots[n]) for n in names]
        rows.append(jax.tree.map(lambda x, p=leaf: placed_as(x, p), row) if placed else row)
    return rows
