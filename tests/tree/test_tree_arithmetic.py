"""Arithmetic on trees: its laws on random trees, dtypes, and what it refuses."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from hypothesis import given, strategies as st
from test_properties import any_tree, few

from gradtx import tree

REALS = ["float32", "bfloat16", "float16"]


def in_float64(x):
    wide = np.complex128 if jnp.iscomplexobj(x) else np.float64
    return np.asarray(x).astype(wide)


def assert_rounded(result, exact):
    """The same as NumPy's float64 result, rounded to the result's dtype."""
    assert jax.tree.structure(result) == jax.tree.structure(exact)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(exact), strict=True):
        bound = 4 * float(jnp.finfo(x.dtype).eps)
        np.testing.assert_allclose(in_float64(x), y, rtol=bound, atol=bound)


@given(any_tree(), st.integers(1, 9))
@few
def test_operations_are_numpys_leaf_by_leaf(x, seed):
    y = trees.like(x, seed)
    wide = [jax.tree.map(in_float64, t) for t in (x, y)]
    for ours, theirs in (
        (tree.add, operator.add),
        (tree.sub, operator.sub),
        (tree.mul, operator.mul),
        (tree.div, operator.truediv),
    ):
        result = ours(x, y)
        assert trees.avals(result) == trees.avals(x)
        assert_rounded(result, jax.tree.map(theirs, *wide))
    assert_rounded(tree.scale(0.3, x), jax.tree.map(lambda a: 0.3 * a, wide[0]))
    moved = jax.tree.map(lambda a, b: a + 0.3 * b, *wide)
    assert_rounded(tree.add_scale(x, 0.3, y), moved)


@given(any_tree(), st.integers(1, 9))
@few
def test_laws(x, seed):
    y = trees.like(x, seed)
    trees.assert_equal(tree.add(x, y), tree.add(y, x))
    trees.assert_ulps(tree.mul(x, y), tree.mul(y, x), 2)  # complex ones are summed in an order
    trees.assert_equal(tree.sub(x, x), tree.zeros_like(x))
    trees.assert_equal(tree.add(x, tree.zeros_like(x)), x)
    trees.assert_equal(tree.mul(x, tree.ones_like(x)), x)
    trees.assert_equal(tree.scale(2.0, x), tree.add(x, x))  # powers of two are exact
    trees.assert_equal(tree.add_scale(x, 1.0, y), tree.add(x, y))
    trees.assert_equal(tree.conj(tree.conj(x)), x)
    trees.assert_equal(tree.where(True, x, y), x)
    trees.assert_equal(tree.where(False, x, y), y)


@given(any_tree(REALS))
@few
def test_clip_keeps_the_range(x):
    clipped = tree.clip(x, -0.75, 1.5)
    assert trees.avals(clipped) == trees.avals(x)
    for a, b in zip(jax.tree.leaves(clipped), jax.tree.leaves(x), strict=True):
        np.testing.assert_array_equal(a, np.clip(b, b.dtype.type(-0.75), b.dtype.type(1.5)))
    trees.assert_equal(tree.clip(x), x)


def test_real_and_conj_of_complex_leaves():
    z = {"z": jnp.array([1 + 2j, 3 - 4j]), "x": jnp.array([5.0]), "none": None}
    assert tree.conj(z)["z"].tolist() == [1 - 2j, 3 + 4j]
    assert tree.real(z)["z"].tolist() == [1.0, 3.0]
    assert tree.real(z)["x"].tolist() == [5.0]
    assert tree.real(z)["none"] is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """256 + 1 - 256 is 1; step by step in bfloat16 it is 0."""
    big, one = jnp.asarray([2048.0], dtype), jnp.asarray([1.0], dtype)
    assert tree.add(big, one, -big).tolist() == [1.0]
    assert tree.add_scale(-big, 1 + 2.0**-11, big).tolist() == [1.0]
    assert tree.add(big, one, -big).dtype == dtype


@pytest.mark.parametrize(
    ("scalar", "leaf", "result"),
    [
        (2, "int32", "int32"),
        (2.0, "int32", "float32"),
        (2.0, "bfloat16", "bfloat16"),
        (2.0, "float16", "float16"),
        (2.0, "complex64", "complex64"),
        (2j, "float32", "complex64"),
        (np.float32(2), "bfloat16", "float32"),
        (jnp.float32(2), "bfloat16", "float32"),
        (jnp.bfloat16(2), "float32", "float32"),
        (jnp.bfloat16(2), "float16", "float32"),
        (jnp.bfloat16(2), "bfloat16", "bfloat16"),
    ],
)
def test_dtypes_are_promoted_as_in_jax(scalar, leaf, result):
    x = jnp.ones(2, leaf)
    assert (scalar * x).dtype == result  # what JAX says
    assert tree.scale(scalar, x).dtype == result
    assert tree.add_scale(x, scalar, x).dtype == result


def test_float64(x64):
    x = {"a": jnp.array([0.1]), "b": jnp.array([0.1], jnp.float32)}
    assert [y.dtype for y in jax.tree.leaves(tree.scale(0.1, x))] == ["float64", "float32"]
    assert tree.add_scale(x, 0.1, x)["a"].tolist() == [0.1 + 0.1 * 0.1]


def test_python_numbers_stay_python_numbers():
    assert tree.add({"a": 1}, {"a": 2}) == {"a": 3}
    assert tree.add_scale(3, 0.1, 2) == 3 + 0.1 * 2
    assert isinstance(tree.scale(0.5, 3), float)


def test_none_in_the_first_tree_of_add_scale():
    """As for a gradient that is not there."""
    assert tree.add_scale({"a": None, "b": 1.0}, 2.0, {"a": jnp.ones(2), "b": 3.0}) == {
        "a": None,
        "b": 7.0,
    }
    assert tree.add_scale(None, 1.0, {"a": 1.0}) is None


def test_filling():
    x = {"a": jnp.ones((2, 3), jnp.bfloat16), "none": None}
    for make, value in ((tree.zeros_like, 0), (tree.ones_like, 1)):
        assert make(x)["a"].tolist() == [[value] * 3] * 2
        assert make(x)["a"].dtype == "bfloat16"
        assert make(x, jnp.float32)["a"].dtype == "float32"
        assert make(x)["none"] is None
    assert tree.full_like(x, 7)["a"].tolist() == [[7] * 3] * 2
    assert tree.full_like(x, 7, "int32")["a"].dtype == "int32"
    assert tree.batch_shape(x, (4, 5))["a"].shape == (4, 5, 2, 3)
    trees.assert_equal(tree.batch_shape(x), x)
    np.testing.assert_array_equal(tree.batch_shape(jnp.arange(2), (2,)), [[0, 1], [0, 1]])


BINARY = {
    "add": tree.add,
    "sub": tree.sub,
    "mul": tree.mul,
    "div": tree.div,
    "add_scale": lambda x, y: tree.add_scale(x, 1.0, y),
    "where": lambda x, y: tree.where(True, x, y),
    "vdot": tree.vdot,
}


@pytest.mark.parametrize("name", BINARY)
def test_different_structures(name):
    f, x = BINARY[name], {"a": jnp.ones(2), "b": {"c": jnp.ones(2)}}
    with pytest.raises(
        ValueError,
        match=rf"tree\.{name}: .*only tree_x has tree_x\['b'\]\['c'\]; only tree_y has tree_y\['d'",
    ):
        f(x, {"a": jnp.ones(2), "d": jnp.ones(2)})
    with pytest.raises(ValueError, match=rf"tree\.{name}: .*tree_y\['a'\]\[0\]"):
        f(x, {"a": [jnp.ones(2)], "b": {"c": jnp.ones(2)}})
    with pytest.raises(ValueError, match=rf"tree\.{name}: "):
        f(x, {"a": None, "b": {"c": jnp.ones(2)}})


@pytest.mark.parametrize("name", BINARY)
def test_shapes_that_do_not_fit_are_told_with_the_path(name):
    with pytest.raises((TypeError, ValueError), match=rf"tree\.{name}: at tree_x\['b'\].*\(3,\)"):
        BINARY[name]({"a": jnp.ones(2), "b": jnp.ones(3)}, {"a": jnp.ones(2), "b": jnp.ones(2)})


def test_the_other_trees_of_add_are_named():
    with pytest.raises(ValueError, match=r"only other_trees\[1\] has other_trees\[1\]\['z'\]"):
        tree.add({"a": 1}, {"a": 1}, {"a": 1}, {"a": 1, "z": 1})


def test_under_jit_vmap_and_grad():
    x = {"a": jnp.arange(3.0), "b": None}

    def f(x):
        y = tree.add(x, tree.scale(0.5, x), tree.mul(x, x))
        return tree.sum(tree.sub(y, tree.ones_like(x)))

    wanted = jnp.sum(1.5 * x["a"] + x["a"] ** 2 - 1)
    np.testing.assert_allclose(jax.jit(f)(x), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(f)(x)["a"], 1.5 + 2 * x["a"], rtol=1e-6)
    rows = jax.vmap(lambda a: f({"a": a[None], "b": None}))(x["a"])
    np.testing.assert_allclose(jnp.sum(rows), wanted, rtol=1e-6)
