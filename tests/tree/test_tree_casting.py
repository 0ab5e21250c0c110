"""Dtypes of trees."""

import jax
import jax.numpy as jnp
import pytest
import trees
from hypothesis import given
from test_properties import any_tree, few

from gradtx import tree


@given(any_tree())
@few
def test_casting_and_back(x):
    wide = tree.cast(x, jnp.complex64)
    assert {a.dtype for a in jax.tree.leaves(wide)} <= {jnp.dtype("complex64")}
    real = tree.real(wide)
    has_complex = any(jnp.iscomplexobj(a) for a in jax.tree.leaves(x))
    if not has_complex:
        trees.assert_equal(tree.cast_like(real, x), x)
    trees.assert_equal(tree.cast_like(x, x), x)
    assert tree.cast(x, None) is x


def test_a_complex_leaf_is_not_cut_in_half():
    z = {"x": jnp.ones(1), "z": jnp.array([1j])}
    with pytest.raises(
        TypeError, match=r"tree\.cast: at tree\['z'\]: cannot cast complex64 to float"
    ):
        tree.cast(z, "float32")
    with pytest.raises(TypeError, match=r"cast_like: at tree\['z'\]: cannot cast .* to float16"):
        tree.cast_like(z, {"x": 1.0, "z": jnp.ones(1, jnp.float16)})


def test_cast_like_leaves_none_alone():
    assert tree.cast_like({"a": None}, {"a": jnp.ones(2)}) == {"a": None}
    x = jnp.ones(2, jnp.int8)
    assert tree.cast_like({"a": x}, {"a": None})["a"] is x
    assert tree.cast_like({"a": 1.5}, {"a": 2})["a"].dtype == "int32"
    with pytest.raises(ValueError, match=r"only other_tree has other_tree\['b'\]"):
        tree.cast_like({"a": 1.0}, {"a": 1.0, "b": 1.0})


TREE = {"a": jnp.ones(1, jnp.bfloat16), "b": jnp.ones(1, jnp.float32), "c": jnp.ones(1, jnp.int8)}


def test_dtype():
    assert tree.dtype([jnp.ones(1, jnp.int8)] * 2) == "int8"
    assert tree.dtype({}) == tree.dtype(None) == tree.dtype(1.0) == "float32"
    assert tree.dtype(TREE, "highest") == tree.dtype(TREE, "promote") == "float32"
    assert tree.dtype(TREE, "lowest") == "int8"
    assert tree.dtype([jnp.float16(1), jnp.bfloat16(1)], "promote") == "float32"


def test_dtypes_that_differ():
    with pytest.raises(
        ValueError, match=r"tree\['a'\] is bfloat16, tree\['b'\] is float32, tree\['"
    ):
        tree.dtype(TREE)
    for handler in ("highest", "lowest"):
        with pytest.raises(
            ValueError, match=r"neither of bfloat16 \(tree\[0\]\) and float16 \(tre"
        ):
            tree.dtype([jnp.bfloat16(1), jnp.float16(1)], handler)
    with pytest.raises(ValueError, match=r"mixed_dtype_handler must be one of .*, got 'widest'"):
        tree.dtype(TREE, "widest")


def test_float64(x64):
    assert tree.dtype({}) == tree.dtype([1.0]) == "float64"
    assert tree.cast([jnp.ones(1, jnp.float32)], float)[0].dtype == "float64"
