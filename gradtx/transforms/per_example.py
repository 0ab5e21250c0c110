"""Clipping the gradient of each example before they are summed, as differential privacy needs.

The leaves of `grads` have the examples on their first axis, as returned by
`jax.vmap(jax.grad(loss), ...)`. These are functions of such gradients, not transformations.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx._arguments import counted
from gradtx.engine.base import Array, PyTree, Scalar, Updates
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.numerics import abs_sq, default_float, widen
from gradtx.engine.scalars import finished, total
from gradtx.tree.norms import safe_sqrt


def per_example_global_norm_clip(grads: Updates, l2_norm_clip: Scalar) -> tuple[Updates, Array]:
    """Clips each example's gradient to a global norm, and sums over the examples.

    `sum(g_i * min(1, l2_norm_clip / norm(g_i)), over i)`, with norms over all leaves, in float32 or
    wider. The bound holds for every finite gradient: neither its squares nor their sum can
    overflow.

    Args:
      grads: a pytree of arrays, each with the examples on its first axis.
      l2_norm_clip: the largest Euclidean norm of one example's gradient.

    Returns:
      The sum, a pytree like `grads` without the first axis, and the number of examples that were
      clipped, an int32 scalar.

    Raises:
      ValueError: a leaf has no first axis, or the lengths of the first axes differ.

    Source: Abadi et al., "Deep Learning with Differential Privacy", arXiv:1607.00133, Algorithm 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> grads = {"w": jnp.array([[3.0, 4.0], [0.3, 0.4]])}  # two examples
      >>> total, clipped = gradtx.per_example_global_norm_clip(grads, 1.0)
      >>> print(total["w"], clipped)
      [0.9... 1.2...] 1
    """
    _check_batch(grads, "per_example_global_norm_clip")
    return _clip_together(grads, l2_norm_clip)


def per_example_layer_norm_clip(
    grads: Updates, global_l2_norm_clip: Scalar, uniform: bool = True
) -> tuple[Updates, PyTree]:
    """Clips each example's gradient leaf by leaf, and sums over the examples.

    Leaf `k` of `K` leaves, with `D_k` of all `D` elements, is clipped to the norm
    `global_l2_norm_clip / sqrt(K)`, or to `global_l2_norm_clip * sqrt(D_k / D)` if not uniform.
    Either way the global norm of one example's gradient is at most `global_l2_norm_clip`.

    Args:
      grads: a pytree of arrays, each with the examples on its first axis.
      global_l2_norm_clip: the largest Euclidean norm of one example's gradient.
      uniform: whether all leaves are clipped to the same norm. Default: True.

    Returns:
      The sum, a pytree like `grads` without the first axis, and a pytree of the numbers of examples
      that were clipped in each leaf, int32 scalars.

    Raises:
      ValueError: a leaf has no first axis, or the lengths of the first axes differ.

    Source: McMahan et al., "Learning Differentially Private Recurrent Language Models",
    arXiv:1710.06963, section 3.2.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> grads = {"b": jnp.array([[1.0]]), "w": jnp.array([[6.0, 8.0]])}  # one example
      >>> total, clipped = gradtx.per_example_layer_norm_clip(grads, 1.0)
      >>> print(total["b"], total["w"], clipped["b"])
      [0.7...] [0.42... 0.56...] 1
    """
    _check_batch(grads, "per_example_layer_norm_clip")
    leaves, treedef = jax.tree.flatten(grads)
    sizes = [x.size for x in map(jnp.asarray, leaves)]
    shares = [1 / len(leaves) if uniform else size / max(sum(sizes), 1) for size in sizes]
    pairs = [
        _clip_together(leaf, global_l2_norm_clip * share**0.5)
        for leaf, share in zip(leaves, shares, strict=True)
    ]
    return treedef.unflatten(s for s, _ in pairs), treedef.unflatten(n for _, n in pairs)


@compiled_when_concrete
def _clip_together(grads: Updates, limit: Scalar) -> tuple[Updates, Array]:
    leaves, treedef = jax.tree.flatten(grads)
    wide = [_floating(x) for x in leaves]
    if not wide:
        return grads, jnp.zeros((), jnp.int32)
    # Each example is divided by its largest element, so that squares stay in range. The divisor is
    # bounded, so that its reciprocal is a normal number too.
    largest = functools.reduce(jnp.maximum, [_over_examples(jnp.max, jnp.abs(x)) for x in wide])
    top = float(jnp.finfo(largest.dtype).max) ** 0.75
    scale = finished(lax.stop_gradient(jnp.clip(largest, 1 / top, top)))
    units = [x / _beside(scale, x) for x in wide]
    squares = [_over_examples(jnp.sum, abs_sq(x)) for x in units]
    relative = safe_sqrt(total(squares))
    clipped = finished(relative * scale > limit)
    shortened = finished(jnp.where(clipped, limit / jnp.where(clipped, relative, 1), 1))

    def sum_up(x: Array, unit: Array, like: ArrayLike) -> Array:
        chosen = jnp.where(_beside(clipped, x), unit * _beside(shortened, x), x)
        dtype = jnp.result_type(like)
        added = jnp.sum(chosen, axis=0)
        return added.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else added

    sums = map(sum_up, wide, units, leaves)
    return treedef.unflatten(sums), jnp.sum(clipped, dtype=jnp.int32)


def _floating(x: ArrayLike) -> Array:
    x = widen(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(default_float())


def _over_examples(reduce: Callable[..., Array], x: Array) -> Array:
    """Reduces all axes except that of the examples; an empty reduction is zero."""
    return reduce(x, tuple(range(1, x.ndim)), initial=0)


def _beside(per_example: Array, x: Array) -> Array:
    """Reshapes an array of one number per example so that it broadcasts to the shape of `x`."""
    return per_example.reshape(-1, *(1,) * (x.ndim - 1))


def _check_batch(grads: Updates, name: str) -> None:
    """Raises unless all leaves have a first axis, of the same length."""
    found = jax.tree.leaves_with_path(grads)
    shapes = [(jax.tree_util.keystr(path), jnp.shape(x)) for path, x in found]
    for path, shape in shapes:
        if not shape:
            raise ValueError(
                f"{name}: grads{path} must have the examples on its first axis, got a scalar"
            )
        if shape[0] != shapes[0][1][0]:
            raise ValueError(
                f"{name}: grads{path} has {counted(shape[0], 'example')} on its first axis, but "
                f"grads{shapes[0][0]} has {shapes[0][1][0]}"
            )
