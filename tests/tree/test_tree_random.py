"""Random trees are reproducible, and their leaves independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees

from gradtx import tree

KEY = jax.random.key(0)


def shapes():
    return {"a": jnp.zeros((50, 40)), "b": (jnp.zeros((50, 40), jnp.bfloat16), None), "c": 1.0}


def test_each_leaf_has_the_key_that_split_gives_it():
    keys = tree.split_key_like(KEY, shapes())
    assert jax.tree.structure(keys) == jax.tree.structure(shapes())
    raw = tree.unwrap_random_key_data(keys)
    np.testing.assert_array_equal(
        jax.tree.leaves(raw), jax.random.key_data(jax.random.split(KEY, 3))
    )
    assert tree.split_key_like(KEY, {}) == {}


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_reproducible(key):
    first, again = (tree.random_like(key, shapes()) for _ in range(2))
    trees.assert_equal(first, again)


def test_shapes_and_dtypes():
    drawn = tree.random_like(KEY, shapes())
    assert drawn["a"].shape == (50, 40) and drawn["a"].dtype == "float32"
    assert drawn["b"][0].dtype == "bfloat16" and drawn["b"][1] is None
    assert drawn["c"].shape == () and drawn["c"].dtype == "float32"
    assert {x.dtype for x in jax.tree.leaves(tree.random_like(KEY, shapes(), dtype="float16"))} == {
        jnp.dtype("float16")
    }
    signs = tree.random_like(KEY, shapes(), jax.random.rademacher, "int32")
    assert set(np.unique(signs["a"])) == {-1, 1}


def test_leaves_are_independent():
    drawn = tree.random_like(KEY, {"a": jnp.zeros(4000), "b": jnp.zeros(4000)})
    a, b = drawn["a"], drawn["b"]
    assert abs(float(jnp.mean(a))) < 5 / 4000**0.5
    assert abs(float(jnp.corrcoef(a, b)[0, 1])) < 5 / 4000**0.5
    other = tree.random_like(jax.random.key(1), {"a": jnp.zeros(4000)})["a"]
    assert abs(float(jnp.corrcoef(a, other)[0, 1])) < 5 / 4000**0.5


def test_a_leaf_that_the_sampler_refuses():
    with pytest.raises(ValueError, match=r"tree\.random_like: at target_tree\['n'\]: .*int32"):
        tree.random_like(KEY, {"n": jnp.zeros(2, jnp.int32)})


def test_unwrapping_keys():
    state = {"key": jax.random.key(7), "count": 1, "none": None, "x": jnp.ones(2)}
    unwrapped = tree.unwrap_random_key_data(state)
    assert unwrapped["key"].tolist() == [0, 7]
    assert unwrapped["count"] == 1 and unwrapped["none"] is None
    assert unwrapped["x"] is state["x"]


def test_float64(x64):
    assert tree.random_like(KEY, [1.0])[0].dtype == "float64"
