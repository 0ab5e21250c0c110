"""Clipping the gradient of each example."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused

import gradtx

CLIPS = [gradtx.per_example_global_norm_clip, gradtx.per_example_layer_norm_clip]


def gradients(dtype=jnp.float64):
    sizes = jnp.array([1, 2, 0, 0.1, 3], dtype).reshape(5, 1, 1)
    w, b = trees.numbers((5, 2, 3), 1, dtype), trees.numbers((5,), 2, dtype)
    return {"w": sizes * w, "b": [b, None]}


def one_by_one(grads, limits):
    """A loop over examples; `limits` has a norm for each group of leaves."""
    leaves, total, counts = jax.tree.leaves(grads), [], []
    groups = [[leaf] for leaf in leaves] if isinstance(limits, list) else [leaves]
    limits = limits if isinstance(limits, list) else [limits]
    for group, limit in zip(groups, limits, strict=True):
        sums, clipped = [np.zeros(x.shape[1:]) for x in group], 0
        for i in range(len(group[0])):
            example = [np.asarray(x[i], np.float64) for x in group]
            norm = np.sqrt(sum(np.sum(x**2) for x in example))
            clipped += int(norm > limit)
            factor = limit / norm if norm > limit else 1.0
            sums = [s + factor * x for s, x in zip(sums, example, strict=True)]
        total += sums
        counts.append(clipped)
    return total, counts


@pytest.mark.parametrize("limit", [0.0, 1.0, 3.0, jnp.inf])
def test_by_the_norm_of_all_leaves(limit, x64):
    grads = gradients()
    total, clipped = gradtx.per_example_global_norm_clip(grads, limit)
    wanted, (count,) = one_by_one(grads, limit)
    assert jax.tree.structure(total) == jax.tree.structure(grads)
    for a, b in zip(jax.tree.leaves(total), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert int(clipped) == count and clipped.dtype == jnp.int32
    theirs, number = optax.per_example_global_norm_clip(grads, limit)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), total, theirs)
    assert int(number) == count


@pytest.mark.parametrize("uniform", [True, False])
def test_leaf_by_leaf(uniform, x64):
    grads = gradients()
    total, clipped = gradtx.per_example_layer_norm_clip(grads, 2.0, uniform)
    # leaves in order: b with 1 of 7 elements, w with 6
    limits = [2 / np.sqrt(2)] * 2 if uniform else [2 * np.sqrt(1 / 7), 2 * np.sqrt(6 / 7)]
    wanted, counts = one_by_one(grads, limits)
    for a, b in zip(jax.tree.leaves(total), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert [int(n) for n in jax.tree.leaves(clipped)] == counts and 0 < sum(counts) < 10
    assert jax.tree.structure(clipped) == jax.tree.structure(grads)
    theirs, numbers = optax.per_example_layer_norm_clip(grads, 2.0, uniform)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), total, theirs)
    assert [int(n) for n in jax.tree.leaves(numbers)] == counts


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(
    ("size", "dtype"), [(300, "float16"), (1e25, "float32"), (1e-30, "float32"), (3e38, "float32")]
)
def test_no_finite_gradient_escapes_the_bound(clip, size, dtype):
    """optax gives zeros: its norms overflow."""
    grads = [jnp.full((1, 4), size, dtype)]
    limit = 1.0 if size > 1 else 1e-32
    total, _ = clip(grads, limit)
    np.testing.assert_allclose(np.asarray(total[0], np.float64), limit / 2, rtol=1e-6)
    assert total[0].dtype == dtype
    if size > 1:
        theirs, _ = getattr(optax, clip.__name__)(grads, limit)
        assert float(jnp.max(theirs[0])) == 0


@pytest.mark.parametrize("clip", CLIPS)
def test_what_is_not_finite_stays_visible(clip):
    for wrong in (jnp.nan, jnp.inf):
        total, _ = clip([jnp.array([[1.0, wrong], [1.0, 1.0]])], 1.0)
        assert not np.isfinite(total[0]).all()


@pytest.mark.parametrize("clip", CLIPS)
def test_slopes_are_finite_at_zero(clip):
    for limit in (0.0, 1.0, jnp.inf):
        slope = jax.grad(lambda x, limit=limit: jnp.sum(clip([x], limit)[0][0]))(jnp.zeros((2, 2)))
        assert np.isfinite(slope).all()


def test_slopes_against_central_differences(x64):
    grads = gradients()["w"]

    def total(x):
        return jnp.sum(jnp.cos(gradtx.per_example_global_norm_clip([x], 1.5)[0][0]))

    slope = jax.grad(total)(grads)
    h = 1e-6
    for index in ((0, 1, 1), (3, 0, 2), (4, 1, 0)):
        there = (total(grads.at[index].add(h)) - total(grads.at[index].add(-h))) / (2 * h)
        np.testing.assert_allclose(slope[index], there, rtol=1e-6)


@pytest.mark.parametrize("clip", CLIPS)
def test_half_precision_is_added_in_float32(clip):
    grads = [jnp.ones((1000, 2), jnp.bfloat16)]
    total, _ = clip(grads, 10.0)
    assert total[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(total[0], jnp.full(2, 1000, jnp.bfloat16))


@pytest.mark.parametrize("clip", CLIPS)
def test_under_jit_and_vmap(clip):
    grads = gradients(jnp.float32)
    eager = clip(grads, 1.0)
    trees.assert_ulps(jax.jit(clip)(grads, 1.0), eager, 4)
    both = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), grads)
    together = jax.vmap(lambda g: clip(g, 1.0))(both)
    trees.assert_ulps(jax.tree.map(lambda x: x[0], together), eager, 4)


@pytest.mark.parametrize("clip", CLIPS)
def test_other_leaves(clip):
    total, _ = clip([jnp.array([[3, 4], [0, 0]])], 1.0)  # integers
    np.testing.assert_allclose(total[0], [0.6, 0.8], rtol=1e-6)
    total, _ = clip([jnp.array([[3 + 4j, 0.0]])], 1.0)
    np.testing.assert_allclose(total[0], [0.6 + 0.8j, 0], rtol=1e-6)
    total, _ = clip([jnp.zeros((0, 2)), jnp.zeros((0, 3))], 1.0)  # no examples
    trees.assert_equal(total, [jnp.zeros(2), jnp.zeros(3)])
    total, _ = clip([jnp.zeros((2, 0)), jnp.ones((2, 1))], 10.0)  # an empty leaf
    trees.assert_equal(total, [jnp.zeros(0), jnp.full(1, 2.0)])
    assert clip([], 1.0)[0] == []


@pytest.mark.parametrize("clip", CLIPS)
def test_batches_that_differ(clip):
    with refused(ValueError, clip.__name__, "grads['b']", "3 examples", "grads['a'] has 2"):
        clip({"a": jnp.ones((2, 3)), "b": jnp.ones(3)}, 1.0)
    with refused(ValueError, clip.__name__, "grads['b'] must have the examples on its first axis"):
        clip({"a": jnp.ones((2, 3)), "b": jnp.ones(())}, 1.0)
