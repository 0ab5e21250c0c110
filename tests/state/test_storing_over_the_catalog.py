"""Any optimizer with its state in any codec, for parameters of any dtype and shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from declared_error import LIMITED, bound_of
from hypothesis import assume, given, settings, strategies as st
from trees import needed, numbers

import gradtx
from gradtx import catalog
from gradtx.codecs import CODECS, is_coded

SHAPES = {
    "a matrix and a vector": {"w": (16, 24), "b": (24,)},
    "a vector with padding": {"b": (70,)},
    "blocks on an inner axis": {"w": (2, 70, 3)},
    "rows of 128": {"w": (4, 128), "b": (128,)},
    "no axis for blocks": {"w": (7, 11), "c": ()},
}
SIGNED = [name for name in CODECS if not name.startswith("u")]  # `store` chooses the unsigned ones


def loss(params):
    return sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(params)) / 2


def check(name, codec, dtype, shapes, min_size):
    """Steps with codes are those from the decoded state, whose results are coded.

    So the updates are equal, and the new state is within the declared error.
    """
    entry = catalog.get(name)
    plain = entry.make()
    params = {key: numbers(shape, i, dtype) for i, (key, shape) in enumerate(shapes.items())}
    slots = jax.tree.leaves(gradtx.state.roles(jax.eval_shape(plain.init, params), params))
    assume(any(role.kind in ("slot", "statistic", "shared") for role in slots))
    tx = gradtx.store(plain, {"*": codec}, min_size)

    @jax.jit
    def run(params):
        state, found = tx.init(params), []
        for _ in range(2):
            g = jax.grad(loss)(params)
            extra = needed(entry, loss, params, g)
            exact = plain.update(g, gradtx.decoded(state), params, **extra)
            updates, state = tx.update(g, state, params, **extra)
            found.append((updates, state, *exact))
            params = gradtx.apply_updates(params, updates)
        return found

    for updates, state, exact_updates, exact_state in run(params):
        if min_size == 1:
            assert any(map(is_coded, jax.tree.leaves(state, is_leaf=is_coded)))
        for u, exact, p in zip(
            *map(jax.tree.leaves, (updates, exact_updates, params)), strict=True
        ):
            assert u.dtype == exact.dtype == p.dtype
            close(u, exact, 2 * float(jnp.finfo(dtype).eps) + 1e-5)
        for x, exact in zip(
            jax.tree.leaves(state, is_leaf=is_coded), jax.tree.leaves(exact_state), strict=True
        ):
            if is_coded(x):
                within_the_declared_error(x, exact)
            elif jnp.issubdtype(exact.dtype, jnp.floating):
                close(x, exact, 2 * float(jnp.finfo(exact.dtype).eps) + 1e-5)


def close(x, exact, error):
    """Equal up to the order of operations, relative to the largest number."""
    x, exact = (np.asarray(each, np.float64) for each in (x, exact))
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x, exact, rtol=0, atol=error * np.max(np.abs(exact), initial=0))


def within_the_declared_error(x, exact):
    assert (x.shape, x.dtype) == (exact.shape, exact.dtype)
    codec, eps = x.codec, float(jnp.finfo(x.dtype).eps)
    exact, found = np.asarray(exact, np.float32), np.asarray(x.value(), np.float64)
    if codec.name.removesuffix("_stochastic") in LIMITED:  # larger numbers become the largest one
        most = float(jnp.finfo(codec.name.removesuffix("_stochastic")).max)
        exact = np.clip(exact, -most, most)
    bound = (1 + codec.stochastic) * bound_of(codec, exact)
    bound += (eps + 1e-5) * np.max(np.abs(exact), initial=0)  # of the step, and of the slot's dtype
    assert (np.abs(found - exact) <= bound).all()


drawn = given(
    name=st.sampled_from(catalog.names()),
    codec=st.sampled_from(SIGNED),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    shapes=st.sampled_from(list(SHAPES)),
    min_size=st.sampled_from([1, 65]),
)


@settings(max_examples=6, deadline=None, derandomize=True)
@drawn
def test_some_optimizers_in_some_codecs(name, codec, dtype, shapes, min_size):
    check(name, codec, dtype, SHAPES[shapes], min_size)


@pytest.mark.thorough
@settings(max_examples=100, deadline=None, derandomize=True)
@drawn
def test_many_optimizers_in_many_codecs(name, codec, dtype, shapes, min_size):
    check(name, codec, dtype, SHAPES[shapes], min_size)
