"""What bounds the size of updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused

import gradtx
from gradtx import transforms


def apply(tx, updates, params=None):
    return tx.update(updates, tx.init(updates if params is None else params), params)[0]


def wide(tree):
    """The tree in double precision."""
    return jax.tree.map(lambda x: x.astype(jnp.result_type(x, jnp.float64)), tree)


# ---- One factor for a tree, or for a leaf ------------------------------------------------------


def test_clipping_by_the_norm_of_the_tree(x64):
    g = wide(trees.small(with_complex=True))
    norm = np.sqrt(sum(np.sum(np.abs(x) ** 2) for x in jax.tree.leaves(g)))
    for limit in (0.0, 0.5 * norm, 2 * norm):
        clipped = apply(gradtx.clip_by_global_norm(limit), g)
        wanted = jax.tree.map(lambda x, limit=limit: x * min(1, limit / norm), g)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), clipped, wanted)


def test_clipping_to_nothing():
    for tx in (gradtx.clip_by_global_norm(0.0), gradtx.clip_by_block_rms(0.0)):
        for dtype in (jnp.float32, jnp.float16, jnp.complex64):
            trees.assert_equal(apply(tx, jnp.zeros(2, dtype)), jnp.zeros(2, dtype))
            trees.assert_equal(apply(tx, jnp.ones(2, dtype)), jnp.zeros(2, dtype))


def test_clipping_by_the_root_mean_square_of_a_leaf(x64):
    g = wide(trees.small(with_complex=True))
    clipped = apply(gradtx.clip_by_block_rms(1.1), g)
    sizes = []
    for x, y in zip(jax.tree.leaves(g), jax.tree.leaves(clipped), strict=True):
        rms = np.sqrt(np.mean(np.abs(np.asarray(x)) ** 2))
        sizes.append(rms)
        np.testing.assert_allclose(y, x * min(1, 1.1 / rms), rtol=1e-12)
    assert min(sizes) < 1.1 < max(sizes)
    real = trees.small()
    theirs = apply(optax.clip_by_block_rms(1.1), real)
    trees.assert_ulps(apply(gradtx.clip_by_block_rms(1.1), real), theirs, 4)


def test_half_precision_does_not_overflow_where_optax_gives_zeros():
    g = jnp.full(4, 300, jnp.float16)
    trees.assert_equal(apply(gradtx.clip_by_block_rms(1.0), g), jnp.ones(4, jnp.float16))
    trees.assert_equal(apply(gradtx.clip_by_global_norm(1.0), g), jnp.full(4, 0.5, jnp.float16))
    trees.assert_equal(apply(optax.clip_by_block_rms(1.0), g), jnp.zeros(4, jnp.float16))


def test_what_is_not_finite_stays_visible():
    g = jnp.array([[1.0, jnp.nan], [jnp.inf, 2.0]])
    for tx in (
        gradtx.clip_by_block_rms(1.0),
        gradtx.clip_by_global_norm(1.0),
        gradtx.adaptive_grad_clip(0.1, axis=(0, 1)),
    ):
        np.testing.assert_array_equal(apply(tx, g, jnp.ones((2, 2))), g)


def test_slopes_of_a_clipped_gradient(x64):
    """On either side of the bound; clipped, a gradient's length no longer matters."""

    def total(scale, limit):
        g = scale * jnp.array([3.0, 4.0])
        return jnp.sum(apply(gradtx.clip_by_block_rms(limit), g))

    assert float(jax.grad(total)(1.0, 100.0)) == 7.0
    np.testing.assert_allclose(jax.grad(total)(1.0, 1.0), 0.0, atol=1e-15)
    np.testing.assert_allclose(jax.grad(total, argnums=1)(1.0, 1.0), 7 / np.sqrt(12.5), rtol=1e-12)


def test_integers_are_refused():
    with refused(TypeError, "clip_by_global_norm", "params['n']", "int32"):
        apply(gradtx.clip_by_global_norm(1.0), {"n": jnp.array([3, 4])})


# ---- Units -------------------------------------------------------------------------------------

UNITS = {
    (): (),
    (3,): (0,),
    (1, 3): (0, 1),
    (3, 1): (0, 1),
    (2, 3): (0,),
    (2, 3, 4): (0,),
    (1, 3, 4): (0,),
    (2, 3, 4, 5): (0, 1, 2),
    (2, 3, 4, 2, 3): (0, 1, 2, 3),
}


@pytest.mark.parametrize("shape", UNITS, ids=str)
def test_units(shape, x64):
    x = trees.numbers(shape, 1, jnp.float64)
    wanted = np.sqrt(np.sum(np.square(x), axis=UNITS[shape], keepdims=True))
    ours = transforms.unitwise_norm(x)
    np.testing.assert_allclose(ours, np.broadcast_to(wanted, shape), rtol=1e-12)
    np.testing.assert_allclose(ours, optax.transforms.unitwise_norm(x), rtol=1e-12)
    assert ours.shape == shape


def test_units_of_other_shapes():
    x = trees.numbers((2, 1, 2, 1, 2, 3), 1)
    with refused(ValueError, "unitwise_norm", "(2, 1, 2, 1, 2, 3)", "axis"):
        transforms.unitwise_norm(x)
    norm = transforms.unitwise_norm(x, axis=(0, 2))
    wanted = np.sqrt(np.sum(np.square(x), axis=(0, 2), keepdims=True))
    np.testing.assert_allclose(norm, np.broadcast_to(wanted, x.shape), rtol=1e-6)
    complex_norm = transforms.unitwise_norm(jnp.array([3 + 4j, 0]))
    assert complex_norm.dtype == jnp.float32 and complex_norm.tolist() == [5.0, 5.0]
    half = transforms.unitwise_norm(jnp.full((4, 1), 300, jnp.float16))
    assert half.dtype == jnp.float32 and set(half.ravel().tolist()) == {600.0}


UNITS_OF_RANK = {2: 0, 4: (0, 1, 2)}


def clipped_by_units(g, p, clipping, eps, axis):
    """Brock et al., arXiv:2102.06171, equation 3."""
    g_norm = np.sqrt(np.sum(np.square(g), axis=axis, keepdims=True))
    p_norm = np.maximum(np.sqrt(np.sum(np.square(p), axis=axis, keepdims=True)), eps)
    too_large = g_norm / p_norm > clipping
    return np.where(too_large, clipping * p_norm / g_norm * g, g)


@pytest.mark.parametrize(("shape", "axis"), [((4, 3), None), ((4, 3), 1), ((3, 3, 2, 5), None)])
@pytest.mark.parametrize("eps", [1e-3, 1.0])
def test_adaptive_clipping(shape, axis, eps, x64):
    random = np.random.default_rng(0)
    g, p = random.standard_normal(shape), random.standard_normal(shape)
    wanted = clipped_by_units(g, p, 0.8, eps, UNITS_OF_RANK[len(shape)] if axis is None else axis)
    assert 0 < np.mean(np.isclose(wanted, g)) < 1
    ours = apply(gradtx.adaptive_grad_clip(0.8, eps, axis), jnp.asarray(g), jnp.asarray(p))
    np.testing.assert_allclose(ours, wanted, rtol=1e-12)
    theirs = apply(optax.adaptive_grad_clip(0.8, eps, axis), jnp.asarray(g), jnp.asarray(p))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_adaptive_clipping_is_exact_where_optax_clips_small_gradients_tenfold(x64):
    g, p = jnp.array([6e-8, 8e-8]), jnp.zeros(2)
    np.testing.assert_allclose(
        apply(gradtx.adaptive_grad_clip(1e-5), g, p), [6e-9, 8e-9], rtol=1e-12
    )
    theirs = apply(optax.adaptive_grad_clip(1e-5), g, p)
    np.testing.assert_allclose(theirs, [6e-10, 8e-10], rtol=1e-12)


def test_slopes_of_adaptive_clipping_at_zero_where_optax_gives_nan():
    def total(tx):
        return lambda g: jnp.sum(apply(tx, g, jnp.zeros(3)))

    np.testing.assert_array_equal(jax.grad(total(gradtx.adaptive_grad_clip(0.1)))(jnp.zeros(3)), 1)
    assert np.isnan(jax.grad(total(optax.adaptive_grad_clip(0.1)))(jnp.zeros(3))).all()


def test_clipping_of_units():
    g_norm, limit = jnp.array([5.0, 5.0, 1e-7, 0.0]), jnp.array([1.0, 10.0, 1e-8, 0.0])
    ours = transforms.unitwise_clip(g_norm, limit, g_norm)
    np.testing.assert_allclose(ours, [1.0, 5.0, 1e-9, 0.0], rtol=1e-6)
    theirs = optax.transforms.unitwise_clip(g_norm, limit, g_norm)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    exact = transforms.unitwise_clip(g_norm, limit, g_norm, div_eps=0.0)
    np.testing.assert_allclose(exact, [1.0, 5.0, 1e-8, 0.0], rtol=1e-6)
    half = transforms.unitwise_clip(g_norm[:1], limit[:1], jnp.array([5], jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert transforms.unitwise_clip(g_norm[:1], limit[:1], jnp.array([5])).tolist() == [1.0]


@pytest.mark.parametrize("size", [1e20, 1e30, 1e36])
@pytest.mark.parametrize(
    "tx, norm_of, expected",
    [
        (gradtx.clip_by_global_norm(2.0), gradtx.global_norm, 2.0),
        (gradtx.normalize(), gradtx.global_norm, 1.0),
        (gradtx.normalize_by_update_norm(3.0), gradtx.global_norm, 3.0),
        (gradtx.clip_by_block_rms(2.0), lambda u: gradtx.global_norm(u["w"]) / 6**0.5, 2.0),
        (gradtx.adaptive_grad_clip(0.5), lambda u: gradtx.global_norm(u["b"]), 0.5 * 3**0.5),
        (gradtx.scale_by_trust_ratio(), lambda u: gradtx.global_norm(u["w"]), 6**0.5),
    ],
    ids=["global", "normalize", "update", "rms", "adaptive", "trust"],
)
def test_finite_gradients_whose_squares_overflow(tx, norm_of, expected, size):
    """The bound holds, and the direction stays; inside of `jit`, too."""
    base = {"w": trees.numbers((2, 3), 1), "b": trees.numbers((3,), 2)}
    params = jax.tree.map(jnp.ones_like, base)
    large = jax.tree.map(lambda x: x * size, base)
    moderate = jax.tree.map(lambda x: x * 1e9, base)
    for update in (tx.update, jax.jit(tx.update)):
        found, like = (update(g, tx.init(params), params)[0] for g in (large, moderate))
        assert float(norm_of(found)) == pytest.approx(expected, rel=1e-5)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, like)


def test_what_is_not_finite_passes():
    for bad in (jnp.inf, jnp.nan):
        g = {"w": jnp.array([1e20, bad]), "b": jnp.ones(2)}
        updates, _ = gradtx.clip_by_global_norm(1.0).update(g, ())
        jax.tree.map(np.testing.assert_array_equal, updates, g)
