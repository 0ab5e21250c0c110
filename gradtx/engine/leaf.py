"""The update of one leaf by the kernels of a sweep."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gradtx.codecs import decoded
from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.numerics import Number, compute_dtype
from gradtx.engine.rules import Kernel, LeafError, Slots, run_rule
from gradtx.engine.storage import store, store_slot


class Plan(NamedTuple):
    """The static part of one leaf's update, for each kernel.

    Attributes:
      takes_part: whether the kernel applies to the leaf.
      names: the names of its slots.
      constants: the shared scalars that are Python numbers.
    """

    takes_part: tuple[bool, ...]
    names: tuple[tuple[str, ...], ...]
    constants: tuple[tuple[tuple[str, float], ...], ...]


class Cell(NamedTuple):
    """The arrays of one leaf.

    Attributes:
      g: its update.
      p: its parameter, or `None`.
      slots: for each kernel its slots, in the order of the plan's names.
      keys: for each kernel a random key, or `None`.
    """

    g: ArrayLike
    p: ArrayLike | None
    slots: tuple[tuple[PyTree, ...], ...]
    keys: tuple[Array | None, ...]


def update_leaf(
    kernels: tuple[Kernel, ...],
    plan: Plan,
    cell: Cell,
    steps: tuple[Array | None, ...],
    scalars: tuple[dict[str, Scalar], ...],
) -> tuple[Array, tuple[tuple[PyTree, ...], ...]]:
    """Applies the kernels to one leaf, and returns its update and its new slots.

    All arithmetic is done in one precision: the widest among the leaf's update, parameter and
    slots, and at least float32. Results are stored in the dtypes of the arguments.

    Args:
      kernels: the kernels of the sweep.
      plan: what is static about this leaf.
      cell: the leaf's arrays.
      steps: for each kernel its step count, or `None`.
      scalars: for each kernel the scalars that all leaves share.

    Raises:
      LeafError: a shape or dtype is wrong.
    """
    dtype = jnp.result_type(cell.g)
    slots = decoded(cell.slots)
    real = _widest_real((cell.g, cell.p, slots))
    u = _with_precision(cell.g, real)
    p = None if cell.p is None else _with_precision(cell.p, real)
    new_slots = []
    for k, kernel in enumerate(kernels):
        if not plan.takes_part[k]:
            new_slots.append(())
            continue
        mine = dict(zip(plan.names[k], slots[k], strict=True))
        _check_slots(kernel, cell.g if cell.p is None else cell.p, mine, k)
        if kernel.real_only and jnp.iscomplexobj(u):
            raise LeafError(TypeError, f"is {u.dtype}, but must be real", k)
        key = {} if cell.keys[k] is None else {"rng_key": cell.keys[k]}
        s = Slots(
            **{n: jax.tree.map(lambda x: _with_precision(x, real), v) for n, v in mine.items()},
            **{n: _with_precision(x, real) for n, x in scalars[k].items()},
            **dict(plan.constants[k]),
            **key,
        )
        u, new = run_rule(kernel.update, u, s, steps[k], p, tuple(mine), k)
        held = zip(plan.names[k], cell.slots[k], strict=True)
        new_slots.append(tuple(store_slot(old, new, n, k) for n, old in held))
    if jnp.issubdtype(u.dtype, jnp.inexact) and not jnp.issubdtype(dtype, jnp.inexact):
        raise LeafError(TypeError, f"an update of dtype {u.dtype} would be rounded to {dtype}")
    return store(u, dtype), tuple(new_slots)


def _widest_real(tree: PyTree) -> np.dtype:
    """Returns the real dtype of the leaf's arithmetic."""
    found = [jnp.result_type(x) for x in jax.tree.leaves(tree)]
    reals = [compute_dtype(jnp.finfo(d).dtype) for d in found if jnp.issubdtype(d, jnp.inexact)]
    return max(reals, key=lambda d: d.itemsize, default=jnp.dtype(jnp.float32))


def _with_precision(x: Any, real: np.dtype) -> Any:
    """Casts real and complex arrays to a precision; does not change integers and random keys."""
    if isinstance(x, Number):  # it is cast when it is combined with an array
        return x
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return lax.convert_element_type(
        x, jnp.result_type(real, jnp.complex64) if jnp.iscomplexobj(x) else real
    )


def _check_slots(kernel: Kernel, like: ArrayLike, slots: dict[str, PyTree], stage: int) -> None:
    """Raises unless the slots have the shapes that `init` returns for this leaf."""
    shape = jnp.shape(like)
    if all(getattr(x, "shape", None) == shape for x in slots.values()):
        return  # the slots of nearly all rules
    init = kernel.init or (lambda *given: Slots())
    given: list[Any] = [jax.ShapeDtypeStruct(shape, compute_dtype(jnp.result_type(like)))]
    given += [jax.random.key(0)] if kernel.keyed else []
    expected = jax.eval_shape(lambda *given: vars(init(*given)), *given)
    of_leaf = [name for name, want in expected.items() if getattr(want, "shape", None) == shape]
    for name in dict.fromkeys([*of_leaf, *expected]):  # the simplest first
        want = expected[name]
        found = [jnp.shape(x) for x in jax.tree.leaves(slots[name])]
        if found != (shapes := [x.shape for x in jax.tree.leaves(want)]):
            raise LeafError(
                ValueError,
                f"has shape {shape}, for which state.{name} must have shape {_one(shapes)}, got "
                f"{_one(found)}",
                stage,
            )


def _one(shapes: list[tuple[int, ...]]) -> str:
    return str(shapes[0]) if len(shapes) == 1 else str(shapes) if shapes else "no array"
