"""Transforming a whole pytree as one vector."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._devices import placed, typed_like, whole
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import compute_dtype
from gradtx.engine.paths import align, is_none, nth_path
from gradtx.engine.pipeline import wrapped


@piece
def flatten(inner: TransformationLike) -> GradientTransformation:
    """Applies a transformation to all leaves joined to one vector, and splits the result again.

    What `inner` computes for an array is then computed for the whole pytree: a norm or a mean is
    that of all leaves. The results of elementwise rules don't change; each slot of their state is
    one vector.

    The vector has the dtype of the leaves if they agree, and otherwise the narrowest that holds
    each of them exactly: float32 for bfloat16 with float16 or float32. Updates are returned in
    their own dtypes. Real leaves next to complex ones are made complex, and the real parts of their
    updates are returned. Sharded leaves are gathered: the vector is whole on each device. Extra
    arguments are passed to `inner` as they are, not flattened.

    Args:
      inner: the transformation.

    Raises:
      TypeError: the pytree has integer leaves and leaves of another dtype.
      ValueError: params and updates differ in structure or shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.flatten(gradtx.scale_by_adam())
      >>> params = {"a": jnp.zeros(2), "b": jnp.zeros((2, 3))}
      >>> state = tx.init(params)
      >>> print(state.mu)
      [0. 0. 0. 0. 0. 0. 0. 0.]
      >>> updates, state = tx.update(params, state)
      >>> print(updates["b"].shape)
      (2, 3)
    """
    inner = with_extra_args_support(inner)

    def init(params: Params) -> OptState:
        _check_dtypes(params, "params")
        return inner.init(_join(params))

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        _check_dtypes(updates, "updates")
        if params is not None:
            _check_shapes(updates, params)
        vector = None if params is None else _join(params)
        new, state = inner.update(_join(updates), state, vector, **extra)
        return _cut(new, updates), state

    return wrapped(init, update, name="flatten", traits={"passes_to": (inner,)})


@compiled_when_concrete
def _join(tree: PyTree) -> Array:
    leaves = [jnp.ravel(whole(jnp.asarray(x))) for x in jax.tree.leaves(tree)] or [jnp.zeros(0)]
    dtypes = {x.dtype for x in leaves}
    dtype = dtypes.pop() if len(dtypes) == 1 else jnp.result_type(*map(compute_dtype, dtypes))
    return jnp.concatenate([x.astype(dtype) for x in leaves])


@compiled_when_concrete
def _cut(vector: Array, like: PyTree) -> PyTree:
    leaves, treedef = jax.tree.flatten(like)
    pieces, start = [], 0
    for x in map(jnp.asarray, leaves):
        piece = vector[start : start + x.size].reshape(x.shape)
        start += x.size
        real = jnp.iscomplexobj(vector) and not jnp.iscomplexobj(x)
        piece = (piece.real if real else piece).astype(x.dtype)
        pieces.append(placed(piece, typed_like(x, x.dtype).sharding))
    return treedef.unflatten(pieces)


def _check_dtypes(tree: PyTree, name: str) -> None:
    found = [(path, jnp.result_type(x)) for path, x in jax.tree.leaves_with_path(tree)]
    for path, dtype in found:
        other = next((d for _, d in found if d != dtype), dtype)
        if other != dtype and not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"flatten: {name}{jax.tree_util.keystr(path)} is {dtype}, and another leaf is "
                f"{other}; keep integers out of the pytree, or make them floating"
            )


def _check_shapes(updates: Updates, params: Params) -> None:
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    for i, (g, p) in enumerate(zip(leaves, align(treedef, params, "params", updates), strict=True)):
        if (mine := _outline(g)) != (other := _outline(p)):
            path = nth_path(updates, i)
            raise ValueError(f"flatten: updates{path} has {mine}, but params{path} has {other}")


def _outline(x: ArrayLike | None) -> str:
    return "no array" if x is None else f"shape {jnp.shape(x)}"
