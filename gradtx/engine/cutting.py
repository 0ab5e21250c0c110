"""Cutting arrays that hold the results of several leaves."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.engine.base import Array


def cut(stacks: list[Array], counts: Sequence[int]) -> Sequence[Sequence[Array]]:
    """Cuts each of several arrays into equal parts, along the first axis.

    XLA on CPUs fuses a part into the kernels of its leaf. With the first row as a constant, the
    kernels of leaves of one shape differ, and each is compiled; so it is passed at run time there.

    Args:
      stacks: the arrays.
      counts: for each of them, the number of parts.
    """
    if all(count == 1 for count in counts):
        return [[stack] for stack in stacks]
    sizes = [len(stack) // count for stack, count in zip(stacks, counts, strict=True)]

    def at_run_time(stacks: list[Array]) -> list[list[Array]]:
        starts = {k * size for size, n in zip(sizes, counts, strict=True) for k in range(n)}
        rows = _at_run_time(sorted(starts))
        return [
            [stack] if n == 1 else [_rows(stack, rows[k * size], size) for k in range(n)]
            for stack, size, n in zip(stacks, sizes, counts, strict=True)
        ]

    def default(stacks: list[Array]) -> list[list[Array]]:
        return [
            list(lax.split(stack, [size] * n))
            for stack, size, n in zip(stacks, sizes, counts, strict=True)
        ]

    return lax.platform_dependent(stacks, cpu=at_run_time, default=default)


@functools.partial(jax.jit, static_argnums=2)  # traced once for each shape
def _rows(stack: Array, start: Array, size: int) -> Array:
    return lax.dynamic_slice_in_dim(stack, start[0], size)


def _at_run_time(numbers: Sequence[int]) -> dict[int, Array]:
    """Returns integers as arrays, each twice, that are computed at run time, by a sort.

    The compiler does not replace the results of the sort by constants.
    """
    key = lax.optimization_barrier(jnp.zeros(2, jnp.int32))
    columns = [lax.full((2,), number, jnp.int32) for number in numbers]
    return dict(zip(numbers, lax.sort((key, *columns), num_keys=1)[1:], strict=True))
