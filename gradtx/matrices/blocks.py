"""Rules for blocks of large matrices."""

from collections.abc import Callable

import jax.numpy as jnp

from gradtx.engine.base import Array
from gradtx.engine.rules import Slots

Init = Callable[[Array], Slots]
Update = Callable[..., tuple[Array, Slots]]


def in_blocks(
    init: Init, update: Update, size: int | None, like_matrices: tuple[str, ...] = ()
) -> tuple[Init, Update]:
    """Returns a rule that acts on the blocks of large matrices.

    A side longer than `size` is divided into the least number of equal blocks that are not longer.
    The last one is filled up with zeros where the division leaves a rest.

    Args:
      init: the first slots of a stack `(n, rows, columns)`.
      update: the rule, as for `matrixwise`; it sees the blocks of all matrices as one stack.
      size: the longest side of a block; `None` for whole matrices.
      like_matrices: the slots that have the shape of the matrices. All others are stored with the
        axis of the matrices, one of their blocks, and their own.

    Returns:
      `init` and `update` for whole matrices.
    """
    if size is None:
        return init, update

    def init_blocks(p: Array) -> Slots:
        return Slots(**_joined(vars(init(_cut(p, size))), p.shape, size, like_matrices))

    def update_blocks(g: Array, s: Slots, step: Array, p: Array | None) -> tuple[Array, Slots]:
        parts = _parts(g.shape, size)
        many, held = parts[0] * parts[2], dict(vars(s))
        for name, x in held.items():
            if name in like_matrices:
                held[name] = _cut(x, size)
            elif jnp.ndim(x) >= 2 and x.shape[:2] == (g.shape[0], many):
                held[name] = x.reshape(g.shape[0] * many, *x.shape[2:])
        of_p = None if p is None else _cut(p, size)
        u, new = update(_cut(g, size), Slots(**held), step, of_p)
        return _whole(u, g.shape, size), Slots(**_joined(vars(new), g.shape, size, like_matrices))

    return init_blocks, update_blocks


def _parts(shape: tuple[int, ...], size: int) -> tuple[int, int, int, int]:
    """Returns the number of blocks along the rows and their length, and the same for columns."""
    many = [max(-(-side // size), 1) for side in shape[1:]]
    rows, columns = (-(-side // k) for side, k in zip(shape[1:], many, strict=True))
    return many[0], rows, many[1], columns


def _cut(x: Array, size: int) -> Array:
    """Returns the blocks `(n * blocks, rows, columns)` of matrices."""
    n, rows, columns = x.shape
    a, r, b, c = _parts(x.shape, size)
    if a * b == 1:
        return x
    x = jnp.pad(x, ((0, 0), (0, a * r - rows), (0, b * c - columns)))
    return x.reshape(n, a, r, b, c).transpose(0, 1, 3, 2, 4).reshape(n * a * b, r, c)


def _whole(x: Array, shape: tuple[int, ...], size: int) -> Array:
    """Returns the matrices for their blocks."""
    n, rows, columns = shape
    a, r, b, c = _parts(shape, size)
    if a * b == 1:
        return x
    x = x.reshape(n, a, b, r, c).transpose(0, 1, 3, 2, 4).reshape(n, a * r, b * c)
    return x[:, :rows, :columns]


def _joined(
    slots: dict[str, Array], shape: tuple[int, ...], size: int, like_matrices: tuple[str, ...]
) -> dict[str, Array]:
    a, _, b, _ = _parts(shape, size)
    return {
        name: _whole(x, shape, size)
        if name in like_matrices
        else x.reshape(shape[0], a * b, *x.shape[1:])
        for name, x in slots.items()
    }
