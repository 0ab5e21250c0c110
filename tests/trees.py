"""Trees to test with, and ways to compare them."""

import contextlib
import dataclasses
import functools
import gc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TINY_NORMAL = float(jnp.finfo(jnp.float32).tiny)


class Pair(NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: Any
    bias: Any
    label: str = dataclasses.field(default="layer", metadata={"static": True})


def numbers(shape, seed=0, dtype=jnp.float32):
    """Numbers between 1/2 and 2 of both signs, reproducibly; complex ones of any angle."""
    random = np.random.default_rng(seed)
    sizes = 2.0 ** random.uniform(-1, 1, shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jnp.asarray(sizes * np.exp(2j * np.pi * random.uniform(size=shape)), dtype)
    return jnp.asarray(np.where(random.uniform(size=shape) < 0.5, -sizes, sizes), dtype)


def like(tree, seed=0):
    """A tree of other numbers, of the same shapes and dtypes."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten(
        numbers(jnp.shape(x), seed + i, jnp.result_type(x)) for i, x in enumerate(leaves)
    )


def small(with_complex=False):
    """A small tree: a matrix, two vectors alike, and perhaps a complex one."""
    tree = {"a": numbers((2, 3), 1), "b": numbers((3,), 2), "c": {"d": numbers((3,), 3)}}
    if with_complex:
        tree["z"] = numbers((3,), 4, jnp.complex64)
    return tree


def loss_around(params, gradient):
    """A convex loss whose gradient at `params` is a given one: tests of steps choose gradients.

    At `q = params + d` it is `1 + |params|^2 + Re <gradient, d> + |d|^2 / 2 + |d|^4 / 4`. It is
    compiled, once for all numbers: a search evaluates it many times.
    """
    return functools.partial(_loss_around, params, gradient)


@jax.jit
def _loss_around(params, gradient, q):
    pairs = [
        (p, g)
        for p, g in zip(leaves_and_none(params), leaves_and_none(gradient), strict=True)
        if p is not None and g is not None
    ]
    there = zip(leaves_and_none(q), leaves_and_none(gradient), strict=True)
    moved = [x for x, g in there if x is not None and g is not None]
    steps = [_wide(x) - _wide(p) for x, (p, _) in zip(moved, pairs, strict=True)]
    linear = sum(
        jnp.sum(jnp.real(jnp.conj(_wide(g)) * d)) for (_, g), d in zip(pairs, steps, strict=True)
    )
    square = sum(jnp.sum(_square(d)) for d in steps)
    base = sum(jnp.sum(_square(_wide(p))) for p, _ in pairs)
    return jnp.asarray(1.0 + base + linear + square / 2 + square**2 / 4)


def extras(entry, gradient=None, params=None):
    """The extra arguments that an optimizer cannot do without, for a step with this gradient."""
    return needed(entry, loss_around(params, gradient), params, gradient) if entry.needs else {}


def needed(entry, loss, params, gradient):
    """The extra arguments that an optimizer cannot do without, from a loss and its gradient."""
    known = (
        {"value": loss(params), "grad": gradient, "value_fn": loss, "obj_fn": loss}
        if entry.needs
        else {}
    )
    return {name: known[name] for name in entry.needs}


@contextlib.contextmanager
def checking_leaks():
    """`jax.checking_leaks`; the garbage that JAX collects at every trace is of new objects only.

    The others are collected when conftest's `forget` does so.
    """
    gc.freeze()
    with jax.checking_leaks():
        yield


def leaves_and_none(tree):
    return jax.tree.leaves(tree, is_leaf=lambda x: x is None)


def _wide(x):
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _square(x):
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2


def avals(tree):
    """What a tree looks like to the compiler: paths, shapes, dtypes and weak types."""
    flat, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return treedef, [
        (jax.tree_util.keystr(path), x.shape, x.dtype, jax.typeof(x).weak_type) for path, x in flat
    ]


def is_key(x):
    return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)


def without_key_type(x):
    """Random keys as the numbers that they are."""
    return jax.random.key_data(x) if is_key(x) else x


def assert_equal(a, b):
    """The same structure, dtypes, and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert jnp.result_type(x) == jnp.result_type(y), jax.tree_util.keystr(path)
        x, y = map(without_key_type, (x, y))
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def assert_ulps(a, b, ulps=1, of_largest=False):
    """The same structure and dtypes, and numbers that differ by a few ulps.

    An ulp is that of the number itself (of a complex one, that of its magnitude); with `of_largest`
    it is that of the largest number in its array, for results in which terms cancel.
    """
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        name = jax.tree_util.keystr(path)
        dtype = jnp.result_type(x)
        assert dtype == jnp.result_type(y), name
        if not jnp.issubdtype(dtype, jnp.inexact):
            x, y = map(without_key_type, (x, y))
            np.testing.assert_array_equal(x, y, err_msg=name)
            continue
        wide = np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64
        x, y = np.asarray(x).astype(wide), np.asarray(y).astype(wide)
        bound = ulps * float(jnp.finfo(dtype).eps)
        if of_largest:
            largest = np.max(np.abs(y), initial=0.0)
            np.testing.assert_allclose(x, y, rtol=0, atol=bound * largest, err_msg=name)
        else:
            np.testing.assert_allclose(x, y, rtol=bound, atol=TINY_NORMAL, err_msg=name)
