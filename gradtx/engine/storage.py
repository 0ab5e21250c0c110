"""How a slot is stored: its dtype, its weak type, and whose buffer it is."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array
from gradtx.engine.numerics import widen
from gradtx.engine.rules import Kernel, LeafError, Slots


def store(x: Any, dtype: Any, what: str = "the update", stage: int = 0) -> Array:
    """Casts to a dtype and sheds a weak type.

    Args:
      x: the array.
      dtype: the dtype wanted.
      what: what an error calls `x`.
      stage: the number of the link.

    Raises:
      LeafError: `x` is complex and `dtype` is not.
    """
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise LeafError(TypeError, f"{what} is {x.dtype}, and {dtype} cannot hold it", stage)
    return lax.convert_element_type(x, dtype)


def store_slot(old: Any, new: Slots, name: str, stage: int) -> Any:
    """Stores what a rule gave for a slot as the slot was stored before.

    Args:
      old: the slot as it was, an array or a tree of them.
      new: what the rule gave.
      name: the slot's name.
      stage: the number of the link.
    """
    return jax.tree.map(
        lambda o, x: store(x, jnp.result_type(o), f"state.{name}", stage), old, getattr(new, name)
    )


def first_slots(kernel: Kernel, names: tuple[str, ...], leaves: Sequence[Any]) -> list[list[Any]]:
    """Returns the first slots of leaves: strongly typed, each in a buffer of its own.

    Args:
      kernel: the rule.
      names: the slots' names, in the order of the results.
      leaves: parameters, or stacks of their matrices.

    Raises:
      LeafError: `init` gives other slots.
    """
    wanted, taken = dict(kernel.stored), set(map(id, leaves))

    def own(slot: Any, dtype: Any) -> Any:
        """Makes a buffer of its own, so that parameters and state can be donated."""
        slot = jnp.array(slot, copy=True) if id(slot) in taken else jnp.asarray(slot)
        taken.add(id(slot))
        if dtype is None:
            return store(slot, slot.dtype)
        # A complex slot stored as a real one is refused at the first update, where it would lose.
        real = not jnp.issubdtype(dtype, jnp.complexfloating)
        return lax.convert_element_type(jnp.real(slot) if real else slot, dtype)

    rows = []
    for leaf in leaves:
        slots = {} if kernel.init is None else vars(kernel.init(widen(leaf)))
        if sorted(slots) != sorted(names):
            raise LeafError(
                TypeError, f"init gives the slots {sorted(slots)}, the state has {[*names]}"
            )
        rows.append([jax.tree.map(lambda x, n=n: own(x, wanted.get(n)), slots[n]) for n in names])
    return rows
