"""The first slots of the leaves of a pytree, for a rule of one array.

Inside `jit`, repeated blocks of leaves are traced once. Outside, one compiled function returns the
slots of all leaves, on their device: leaves whose values it does not need are arguments too. The
time of a call is that of its results, so that this costs little.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, PyTree
from gradtx.engine.blocks import pieces
from gradtx.engine.concrete import is_traced, shape_and_dtype, spans_devices
from gradtx.engine.draws import has_loops, in_loops, type_of
from gradtx.engine.keys import first_key
from gradtx.engine.made import Frozen, InTurn, Source, thaw
from gradtx.engine.rules import Kernel, MaskedNode
from gradtx.engine.scalars import finished
from gradtx.engine.storage import first_slots

FrozenForms = Sequence[tuple[Frozen, Sequence[PyTree]]]
Rows = list[list[PyTree]]
Make = Callable[..., Rows]


class First:
    """The first slots of a rule, for any leaves.

    Args:
      kernel: the rule.
      key: the random key in the first state, or `None`.
    """

    def __init__(self, kernel: Kernel, key: Array | None):
        self._kernel, self._key = kernel, key
        self._in_pieces = _in_pieces(kernel)
        self._compiled = jax.jit(self._in_pieces, static_argnums=0, keep_unused=True)

    def rows(
        self,
        names: tuple[str, ...],
        leaves: Sequence[PyTree],
        takes: Sequence[bool],
        frozen: FrozenForms = (),
    ) -> Rows:
        """Returns the first slots of each leaf, in the order of their names.

        Args:
          names: the names of the slots.
          leaves: the leaves.
          takes: for each leaf, whether the rule acts on it. The slots of others are `None` or
            masked, as the leaf is.
          frozen: the frozen forms of the rule, each with its numbers, if nothing is traced.
        """
        where = [i for i, takes_part in enumerate(takes) if takes_part]
        mine = _arrays([leaves[i] for i in where])
        keys = None if self._key is None else _keys(self._key, np.array(where, np.int32))
        rows = iter(self._make(names, mine, keys, frozen))
        return [
            next(rows) if mine else [None if x is None else MaskedNode()] * len(names)
            for x, mine in zip(leaves, takes, strict=True)
        ]

    def _make(
        self, names: tuple[str, ...], leaves: list[PyTree], keys: Array | None, frozen: FrozenForms
    ) -> Rows:
        if any(map(spans_devices, leaves)):  # in compiled code their shardings are not available
            return first_slots(self._kernel, names, leaves, keys)
        if is_traced(leaves[:1]):
            if keys is None or not has_loops(*leaves, keys):
                return self._in_pieces(names, leaves, keys, placed=True)
            return in_loops(
                functools.partial(self._row, names), [*map(type_of, leaves)], keys, leaves
            )
        kept = [functools.partial(_of_frozen, *f) for f in frozen]
        make: Make = InTurn([*kept, self._compiled])
        if keys is None:
            return make(names, leaves, None)
        # One program with the random numbers of all leaves would take long to compile.
        pairs = [(leaves[i : i + 1], keys[i : i + 1]) for i in range(len(leaves))]
        return [row for pair in pairs for row in make(names, *pair)]

    def _row(self, names: tuple[str, ...], _: PyTree, key: Array, leaf: ArrayLike) -> list[PyTree]:
        return first_slots(self._kernel, names, [leaf], [key])[0]


def _arrays(leaves: list[PyTree]) -> list[ArrayLike]:
    """Returns leaves as arguments of compiled code, to which variables of flax are converted."""
    if not any(hasattr(kind, "__jax_array__") for kind in set(map(type, leaves))):
        return leaves
    return [jax.numpy.asarray(x) if hasattr(x, "__jax_array__") else x for x in leaves]


@jax.jit  # all in one computation: one for each leaf would take long to compile
def _keys(key: Array, leaves: Array) -> Array:
    """Returns random keys for the leaves of these numbers."""
    return finished(jax.vmap(functools.partial(jax.random.fold_in, first_key(key)))(leaves))


def _in_pieces(kernel: Kernel) -> Make:
    """Returns the function for the first slots of leaves; those that repeat are traced once."""
    plain = functools.partial(first_slots, kernel)
    piece = jax.jit(plain, static_argnums=(0, 3))

    def make(
        names: tuple[str, ...], leaves: list[ArrayLike], keys: Array | None, placed: bool = False
    ) -> Rows:
        signatures = tuple(map(shape_and_dtype, leaves))
        times, rows = Counter(signatures), []
        for a, b in pieces(signatures):
            run = plain if b == a + 1 and times[signatures[a]] == 1 else piece
            rows.extend(run(names, leaves[a:b], None if keys is None else keys[a:b], placed))
        return rows

    return make


@functools.partial(jax.jit, static_argnums=(0, 2), keep_unused=True)
def _of_frozen(
    frozen: Frozen, numbers: Sequence[PyTree], names: tuple[str, ...], *args: PyTree
) -> Rows:
    return _in_pieces(thaw(frozen, Source(numbers)).kernel)(names, *args)
