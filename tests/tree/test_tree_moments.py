"""Moments over trees, against the formulas in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees

import gradtx
from gradtx import tree

G = {"a": np.array([2.0, -3.0]), "b": np.array([[0.5]])}
M = {"a": np.array([1.0, 4.0]), "b": np.array([[-0.25]])}


def formula(f, *more):
    return jax.tree.map(f, G, M, *more)


CASES = {
    "update_moment 1": (
        lambda g, m: tree.update_moment(g, m, 0.9, 1),
        lambda g, m: 0.9 * m + 0.1 * g,
    ),
    "update_moment 3": (
        lambda g, m: tree.update_moment(g, m, 0.9, 3),
        lambda g, m: 0.9 * m + 0.1 * g**3,
    ),
    "per_elem_norm 1": (
        lambda g, m: tree.update_moment_per_elem_norm(g, m, 0.9, 1),
        lambda g, m: 0.9 * m + 0.1 * abs(g),
    ),
    "per_elem_norm 2": (
        lambda g, m: tree.update_moment_per_elem_norm(g, m, 0.9, 2),
        lambda g, m: 0.9 * m + 0.1 * g**2,
    ),
    "per_elem_norm 2.5": (
        lambda g, m: tree.update_moment_per_elem_norm(g, m, 0.9, 2.5),
        lambda g, m: 0.9 * m + 0.1 * abs(g) ** 2.5,
    ),
    "infinity": (
        lambda g, m: tree.update_infinity_moment(g, m, 0.9, 1e-3),
        lambda g, m: np.maximum(abs(g) + 1e-3, 0.9 * m),
    ),
    "bias_correction": (
        lambda g, m: tree.bias_correction(m, 0.9, 3),
        lambda g, m: m / (1 - 0.9**3),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_formulas(name, dtype, rtol):
    ours, exact = CASES[name]
    result = ours(tree.cast(G, dtype), tree.cast(M, dtype))
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(formula(exact)), strict=True):
        assert x.dtype == dtype
        np.testing.assert_allclose(np.asarray(x, np.float64), y, rtol=rtol)


@pytest.mark.parametrize("name", CASES)
def test_formulas_in_float64(name, x64):
    ours, exact = CASES[name]
    result = ours(*(jax.tree.map(jnp.asarray, t) for t in (G, M)))
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(formula(exact)), strict=True):
        assert x.dtype == "float64"
        np.testing.assert_allclose(x, y, rtol=1e-14)


@pytest.mark.parametrize("order", [1, 2])
def test_optax_gives_the_same_in_float64(order, x64):
    g, m = (jax.tree.map(jnp.asarray, t) for t in (G, M))
    for ours, theirs in (
        (tree.update_moment(g, m, 0.9, order), optax.tree.update_moment(g, m, 0.9, order)),
        (tree.update_infinity_moment(g, m, 0.9, 0.1), optax.update_infinity_moment(g, m, 0.9, 0.1)),
        (tree.bias_correction(m, 0.9, 2), optax.tree.bias_correction(m, 0.9, 2)),
    ):
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-14)


@pytest.mark.parametrize(
    ("update", "moment", "result"),
    [
        ("float32", "bfloat16", "bfloat16"),
        ("bfloat16", "float32", "float32"),
        ("float32", "float32", "float32"),
        ("complex64", "float32", "complex64"),  # the imaginary part is not lost
        ("complex64", "complex64", "complex64"),
        ("float32", "complex64", "complex64"),
        ("float32", "int32", "float32"),
    ],
)
def test_moments_keep_their_dtype(update, moment, result):
    g, m = jnp.ones(2, update), jnp.zeros(2, moment)
    assert tree.update_moment(g, m, 0.5, 1).dtype == result
    real = "float32" if moment == "float32" else result
    assert tree.update_moment_per_elem_norm(g, m, 0.5, 2).dtype == real


def test_magnitudes_of_complex_updates():
    g, m = jnp.array([3 + 4j]), jnp.zeros(1)
    np.testing.assert_allclose(tree.update_moment_per_elem_norm(g, m, 0.5, 2), [12.5])
    np.testing.assert_allclose(tree.update_moment_per_elem_norm(g, m, 0.5, 1), [2.5], rtol=1e-6)
    np.testing.assert_allclose(tree.update_infinity_moment(g, m, 0.5, 0.0), [5.0], rtol=1e-6)


def test_the_state_of_a_scan_keeps_its_type():
    def step(m, g):
        return tree.update_moment({"a": g}, m, 0.5, 2), None

    m, _ = jax.lax.scan(step, {"a": jnp.zeros(2, jnp.bfloat16)}, jnp.ones((3, 2), jnp.float32))
    assert m["a"].tolist() == [0.875] * 2


def test_missing_updates():
    m = {"a": jnp.ones(2), "b": jnp.ones(2)}
    g = {"a": None, "b": jnp.ones(2)}
    for f in (tree.update_moment, tree.update_moment_per_elem_norm, tree.update_infinity_moment):
        result = f(g, m, 0.5, 1)
        assert result["a"] is None and result["b"].shape == (2,)
        with pytest.raises(
            ValueError, match=rf"tree\.{f.__name__}: .*only moments has moments\['b"
        ):
            f({"a": jnp.ones(2)}, m, 0.5, 1)


def test_hyperparameters_may_be_traced():
    @jax.jit
    def f(decay, count):
        return tree.bias_correction(
            tree.update_moment(jnp.ones(1), jnp.zeros(1), decay, 1), decay, count
        )

    np.testing.assert_allclose(f(0.999, 1), [1.0], rtol=1e-5)


def test_bias_correction_is_exact_while_decay_is_near_one():
    decay = 1 - 2.0**-14
    corrected = tree.bias_correction(jnp.array([1.0]), decay, 1)
    np.testing.assert_allclose(corrected, [2.0**14], rtol=1e-6)


@pytest.mark.parametrize(("decay", "count"), [(0.9, 0), (1.0, 5)])
def test_an_average_without_weight_is_given_back(decay, count):
    zeros = tree.bias_correction({"a": jnp.zeros(2)}, decay, jnp.int32(count))
    trees.assert_equal(zeros, {"a": jnp.zeros(2)})


def test_constants_are_exact():
    """`1 - decay` is taken in double: with 1 - 2**-30 it would be 0 in float32."""
    m = tree.update_moment(jnp.ones(1), jnp.zeros(1), 1 - 2.0**-30, 1)
    assert m.tolist() == [2.0**-30]


def test_top_level_names():
    for name in (
        "bias_correction",
        "update_moment",
        "update_infinity_moment",
        "update_moment_per_elem_norm",
    ):
        assert getattr(gradtx, name) is getattr(tree, name)
