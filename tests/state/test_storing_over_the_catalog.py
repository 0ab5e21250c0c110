"""Any optimizer with its state in any codec, for parameters of any dtype and shape.

Steps with codes are those from the decoded state, whose results are coded: so the updates are
equal, and the new state is within the declared error.
"""

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


def check_an_entry(name, codec, dtype, shapes, min_size):
    entry = catalog.get(name)
    plain = entry.make()
    params = {key: numbers(shape, i, dtype) for i, (key, shape) in enumerate(shapes.items())}
    slots = jax.tree.leaves(gradtx.state.roles(jax.eval_shape(plain.init, params), params))
    assume(any(role.kind in ("slot", "statistic", "shared") for role in slots))
    state = check(plain, gradtx.store(plain, {"*": codec}, min_size), params, entry)
    assert min_size > 1 or any(map(is_coded, jax.tree.leaves(state, is_leaf=is_coded)))


def check(plain, tx, params, entry=None, steps=2):
    """Checks a few steps of a transformation with and without codes; returns the last state."""

    @jax.jit
    def run(params):
        state, found = tx.init(params), []
        for _ in range(steps):
            g = jax.grad(loss)(params)
            extra = needed(entry, loss, params, g) if entry else {}
            exact = plain.update(g, gradtx.decoded(state), params, **extra)
            updates, state = tx.update(g, state, params, **extra)
            found.append((updates, state, *exact))
            params = gradtx.apply_updates(params, updates)
        return found

    found = run(params)
    for updates, state, exact_updates, exact_state in found:
        for u, exact, p in zip(
            *map(jax.tree.leaves, (updates, exact_updates, params)), strict=True
        ):
            assert u.dtype == exact.dtype == p.dtype
            close(u, exact, 2 * float(jnp.finfo(p.dtype).eps) + 1e-5)
        for x, exact in zip(
            jax.tree.leaves(state, is_leaf=is_coded), jax.tree.leaves(exact_state), strict=True
        ):
            if is_coded(x):
                within_the_declared_error(x, exact)
            elif jnp.issubdtype(exact.dtype, jnp.floating):
                close(x, exact, 2 * float(jnp.finfo(exact.dtype).eps) + 1e-5)
    return found[-1][1]


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


@settings(max_examples=12, deadline=None, derandomize=True)
@drawn
def test_some_optimizers_in_some_codecs(name, codec, dtype, shapes, min_size):
    check_an_entry(name, codec, dtype, SHAPES[shapes], min_size)


@pytest.mark.thorough
@settings(max_examples=200, deadline=None, derandomize=True)
@drawn
def test_many_optimizers_in_many_codecs(name, codec, dtype, shapes, min_size):
    check_an_entry(name, codec, dtype, SHAPES[shapes], min_size)


# ---- Compositions -------------------------------------------------------------------------------

PARAMS = {
    "embed": {"kernel": numbers((16, 24), 1)},
    "body": {"kernel": numbers((24, 32), 2), "bias": numbers((24,), 3)},
}
WRAPPERS = {
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2).gradient_transformation(),
    "partition": lambda tx: gradtx.partition(
        {"a": tx, "b": gradtx.sgd(0.1, momentum=0.9)}, gradtx.by_path({"embed": "b"}, "a")
    ),
    "masked": lambda tx: gradtx.masked(tx, gradtx.by_path({"bias": False}, True)),
}
FEW = {
    "lbfgs": {"diff_*": "int8"},
    "shampoo": {"left": "int8", "right": "int8", "*_root": "int8_nearest", "slot": "int4"},
    "soap": {
        "left": "int8",
        "right": "int8",
        "*_basis": "int4_nearest",
        "nu": "int4",
        "mu": "bfloat16",
    },
    **{name: {"*": "int8"} for name in WRAPPERS},
}
WAYS = {"float32": {}, "16": {"*": "bfloat16"}, "4": {"*": "int4"}}


def composed(name):
    """A transformation, and what it needs."""
    if name in WRAPPERS:
        return WRAPPERS[name](gradtx.adamw(0.1)), None
    return catalog.get(name).make(), catalog.get(name)


@pytest.mark.parametrize("name", FEW)
def test_compositions_and_loading_into_another_codec(name):
    """What is loaded is what was saved, to the errors of the codec into which it is loaded."""
    plain, entry = composed(name)
    tx = gradtx.store(plain, FEW[name], min_size=1)
    state = check(plain, tx, PARAMS, entry, steps=3)
    codecs = {x.codec.name for x in jax.tree.leaves(state, is_leaf=is_coded) if is_coded(x)}
    assert {codec.removeprefix("u") for codec in codecs} == set(FEW[name].values())
    saved, exact = gradtx.state_dict(state), jax.tree.leaves(gradtx.decoded(state))
    for way in (FEW[name], *WAYS.values()):
        other = gradtx.store(plain, way, min_size=1) if way else plain
        template = other.init(PARAMS)
        loaded = gradtx.load_state_dict(template, saved)
        assert jax.tree.structure(loaded) == jax.tree.structure(template)
        for x, y in zip(jax.tree.leaves(loaded, is_leaf=is_coded), exact, strict=True):
            if is_coded(x) and way != FEW[name]:
                within_the_declared_error(x, y)
            else:
                np.testing.assert_allclose(x, y, rtol=2**-22)  # of two programs


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_around_codes(name):
    plain = WRAPPERS[name](gradtx.adamw(0.1))
    tx = WRAPPERS[name](gradtx.store(gradtx.adamw(0.1), {"*": "int4"}, min_size=1))
    state = check(plain, tx, PARAMS, steps=3)
    assert any(map(is_coded, jax.tree.leaves(state, is_leaf=is_coded)))
