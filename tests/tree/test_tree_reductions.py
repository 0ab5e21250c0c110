"""Sums, extremes, norms: precision, empty trees, gradients at zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from hypothesis import given, strategies as st
from test_properties import any_tree, few

import gradtx
from gradtx import tree

EMPTY = [{}, (), None, {"a": [None]}]


def flat(x):
    """All elements as one NumPy vector, in double precision."""
    leaves = [np.asarray(a).astype(np.complex128).ravel() for a in jax.tree.leaves(x)]
    return np.concatenate([np.zeros(0, np.complex128), *leaves])


@given(any_tree())
@few
def test_reductions_are_those_of_the_vector(x):
    v = flat(x)
    for pairs in (False, True):
        np.testing.assert_allclose(tree.sum(x, pairs), v.sum(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tree.norm(x), np.linalg.norm(v), rtol=1e-5)
    np.testing.assert_allclose(tree.norm(x, squared=True), np.vdot(v, v).real, rtol=1e-5)
    np.testing.assert_allclose(tree.norm(x, 1), np.abs(v).sum(), rtol=1e-5)
    np.testing.assert_allclose(tree.norm(x, 1, squared=True), np.abs(v).sum() ** 2, rtol=1e-5)
    np.testing.assert_allclose(tree.norm(x, "inf"), np.max(np.abs(v), initial=0), rtol=1e-5)
    assert tree.size(x) == v.size


@given(any_tree(), st.integers(1, 9))
@few
def test_inner_product(x, seed):
    y = trees.like(x, seed)
    np.testing.assert_allclose(tree.vdot(x, y), np.vdot(flat(x), flat(y)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tree.vdot(y, x), np.conj(tree.vdot(x, y)), rtol=1e-5, atol=1e-5)


@given(any_tree(["float32", "bfloat16", "float16"]))
@few
def test_extremes(x):
    v = flat(x).real
    assert tree.max(x) == v.max(initial=-np.inf)
    assert tree.min(x) == v.min(initial=np.inf)


@pytest.mark.parametrize("x", EMPTY, ids=str)
def test_empty_trees(x):
    assert tree.sum(x) == tree.sum(x, associative_reduction=True) == tree.vdot(x, x) == 0
    assert tree.norm(x) == tree.norm(x, 1) == tree.norm(x, "inf") == tree.size(x) == 0
    assert tree.max(x) == -jnp.inf
    assert tree.min(x) == jnp.inf
    assert bool(tree.allclose(x, x))


def test_zero_size_leaves_have_no_say():
    x = [jnp.full(2, 3, jnp.int8), jnp.zeros((0, 2), jnp.float32)]
    assert tree.max(x) == tree.min(x) == 3
    assert tree.norm(x, jnp.inf) == 3


def test_many_bfloat16_leaves():
    """In bfloat16, ones stop adding up at 256."""
    ones = [jnp.ones(1, jnp.bfloat16)] * 300
    assert tree.sum(ones) == tree.vdot(ones, ones) == tree.norm(ones, 1) == 300
    np.testing.assert_allclose(gradtx.global_norm(ones), 300**0.5, rtol=1e-6)


def test_large_float16_leaves():
    x = [jnp.full(100, 6e4, jnp.float16)] * 2
    for ord, wanted in ((None, 6e4 * 200**0.5), (1, 6e4 * 200), ("inf", 6e4)):
        np.testing.assert_allclose(tree.norm(x, ord), wanted, rtol=1e-3)
    np.testing.assert_allclose(tree.vdot(x, x), 200 * 6e4**2, rtol=1e-3)


@pytest.mark.parametrize("ord", [None, 1, 2, jnp.inf, "inf", "infinity"], ids=str)
@pytest.mark.parametrize("squared", [False, True])
def test_gradients_at_zero_are_finite(ord, squared):
    x = {"a": jnp.zeros(2), "z": jnp.zeros(2, jnp.complex64), "h": jnp.zeros(2, jnp.float16)}
    g = jax.grad(lambda x: tree.norm(x, ord, squared))(x)
    assert all(bool(jnp.all(jnp.isfinite(a))) for a in jax.tree.leaves(g))
    if ord in (None, 2) or squared:
        assert tree.norm(g) == 0


def test_gradient_of_the_norm():
    g = jax.grad(tree.norm)({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
    np.testing.assert_allclose(jax.tree.leaves(g), [[0.6], [0.8]], rtol=1e-6)


def test_an_unknown_order():
    with pytest.raises(ValueError, match=r"tree\.norm: ord must be one of None, 1, 2, inf.*got 3"):
        tree.norm(jnp.ones(2), 3)


@pytest.mark.parametrize(
    ("leaf", "summed", "normed"),
    [
        ("bool", "int32", "float32"),
        ("int8", "int32", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "float32", "float32"),
        ("complex64", "complex64", "float32"),
    ],
)
def test_dtypes(leaf, summed, normed):
    x = [jnp.ones(3, leaf)] * 2
    assert tree.sum(x).dtype == tree.sum(x, True).dtype == summed
    for ord in (None, 1, "inf"):
        assert tree.norm(x, ord).dtype == tree.norm(x, ord, squared=True).dtype == normed
    assert tree.max(x).dtype == tree.min(x).dtype == leaf


def test_float64(x64):
    x = [jnp.array([1.0, 1e-12]), jnp.array([1.0], jnp.float32)]
    assert tree.sum(x).dtype == tree.norm(x).dtype == "float64"
    assert tree.sum(x) == 2 + 1e-12


def test_large_integers_are_not_rounded():
    assert tree.max([2**24 + 1, 3]) == 2**24 + 1


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_what_is_not_finite_has_no_finite_norm(bad):
    assert not np.isfinite(gradtx.global_norm({"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)}))
    assert not np.isfinite(gradtx.safe_root_mean_squares(jnp.array([bad, 1.0]), 0.0))


def test_small_integers_do_not_overflow():
    assert tree.norm(jnp.full(4, 100, jnp.int8)) == 200


def test_allclose():
    x = {"a": jnp.ones(2), "b": jnp.array([jnp.nan])}
    assert not tree.allclose(x, x)
    assert tree.allclose(x, x, equal_nan=True)
    assert tree.allclose(1.0, 1.1, rtol=0.2)
    assert tree.allclose(1.0, 1.1, atol=0.2)
    assert not tree.allclose([1.0, 2.0], [1.0, 2.1])
    assert jax.jit(tree.allclose)(x, x).dtype == bool
    with pytest.raises(ValueError, match=r"tree\.allclose: .*only a has a\['b'\]"):
        tree.allclose(x, {"a": 1.0})


def test_vdot_wants_equal_shapes():
    with pytest.raises(
        ValueError, match=r"at tree_x\[0\]: the shapes must be equal, got \(2, 3\) and \(6,\)"
    ):
        tree.vdot([jnp.ones((2, 3))], [jnp.ones(6)])


@pytest.mark.parametrize("leaf", ["a random key", "the string 'text'", "an object"])
@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("global_norm: updates", gradtx.global_norm),
        ("tree.sum: tree", tree.sum),
        ("tree.max: tree", tree.max),
        ("tree.min: tree", tree.min),
        *(
            ("tree.norm: tree", functools.partial(tree.norm, ord=ord, squared=squared))
            for ord in (None, 1, "inf")
            for squared in (False, True)
        ),
    ],
)
def test_leaves_that_are_no_numbers_are_named(name, f, leaf):
    odd = {"a random key": jax.random.key(0), "the string 'text'": "text", "an object": object()}
    with pytest.raises(TypeError) as caught:
        f({"a": None, "b": (jnp.ones(2), {"c": odd[leaf]})})
    assert str(caught.value) == f"{name}['b'][1]['c'] is {leaf}, not a number; leave it out"


def test_every_number_is_one():
    numbers = [True, 2, 3.0, np.float16(1), np.ones(2, bool), jnp.ones(2, "bfloat16"), None]
    numbers += [jnp.ones(2, dtype) for dtype in ("int8", "uint8", "bool", "float8_e4m3fn")]
    assert tree.sum(numbers) == 7 + 2 + 2 + 8
    np.testing.assert_allclose(gradtx.global_norm(numbers), (1 + 4 + 9 + 1 + 2 + 2 + 8) ** 0.5)
    with pytest.raises(TypeError, match=r"a random key \(key<fry>\) is not a number"):
        gradtx.safe_norm(jax.random.key(0), 0.1)
    key = {"w": jnp.ones(2), "key": jax.random.key(0)}
    with pytest.raises(TypeError, match=r"tree.vdot: at tree_x\['key'\]"):
        tree.vdot(key, key)
