"""Softmax cross entropies against float64 NumPy statements, and optax as a second opinion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_program import one_program
from representatives import first_of_each

import gradtx
from gradtx.losses import (
    poly_loss_cross_entropy,
    safe_softmax_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)

# In one program each; without `jit` they are called in test_losses.py.
INTEGER, SOFT = map(one_program, (softmax_cross_entropy_with_integer_labels, softmax_cross_entropy))
poly_loss_cross_entropy, safe_softmax_cross_entropy = map(
    one_program, (poly_loss_cross_entropy, safe_softmax_cross_entropy)
)
optax_integer, optax_soft, optax_poly = map(
    one_program,
    (
        optax.losses.softmax_cross_entropy_with_integer_labels,
        optax.losses.softmax_cross_entropy,
        optax.losses.poly_loss_cross_entropy,
    ),
)


def log_softmax(z):
    z = np.asarray(z, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture
def classes():
    return np.array([0, 3, 1, 2, 3])


def probabilities(shape=(5, 4)):
    p = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    return p / p.sum(-1, keepdims=True)


def test_integer_labels_follow_the_equation(logits, classes):
    want = -log_softmax(logits)[np.arange(5), classes]
    np.testing.assert_allclose(INTEGER(logits, classes), want, rtol=1e-6)


def test_soft_labels_follow_the_equation(logits):
    p = probabilities()
    want = -(p.astype(np.float64) * log_softmax(logits)).sum(-1)
    np.testing.assert_allclose(SOFT(logits, p), want, rtol=1e-6)


def test_gradients_are_softmax_less_the_label(logits, classes):
    q, p = np.exp(log_softmax(logits)), probabilities()
    one_hot = np.eye(4)[classes]
    gradient = jax.grad(lambda z: INTEGER(z, classes).sum())(logits)
    np.testing.assert_allclose(gradient, q - one_hot, atol=1e-6)
    gradient = jax.grad(lambda z: SOFT(z, p).sum())(logits)
    np.testing.assert_allclose(gradient, q - p, atol=1e-6)


def test_large_logits_keep_their_differences():
    z = np.array([[1e7, 1e7 - 2, 1e7 - 5], [-1e30, 1e30, 0.0]], np.float32)
    want = -log_softmax(z)[[0, 1], [0, 1]]
    np.testing.assert_allclose(INTEGER(z, np.array([0, 1])), want, rtol=1e-6)
    np.testing.assert_allclose(SOFT(z, np.eye(3, dtype=np.float32)[[0, 1]]), want, rtol=1e-6)
    assert np.isfinite(jax.grad(lambda z: INTEGER(z, np.array([1, 0])).sum())(z)).all()


def test_half_precision_is_computed_in_single(logits, classes):
    z = jnp.asarray(logits * 20, jnp.bfloat16)
    loss = INTEGER(z, classes)
    assert loss.dtype == jnp.bfloat16
    want = -log_softmax(np.asarray(z))[np.arange(5), classes]
    half_an_ulp = 2.0**-8
    np.testing.assert_allclose(
        np.asarray(loss, np.float64), want, rtol=half_an_ulp, atol=np.finfo(np.float32).eps
    )
    assert SOFT(z, jnp.asarray(probabilities(), jnp.bfloat16)).dtype == jnp.bfloat16
    assert SOFT(z, jnp.asarray(probabilities())).dtype == jnp.float32


def test_impossible_classes_cost_nothing_unless_wanted():
    z = jnp.array([[1.0, 2.0, -jnp.inf]])
    p = jnp.array([[0.25, 0.75, 0.0]])
    want = -(np.array([0.25, 0.75]) * log_softmax([1.0, 2.0])).sum()
    np.testing.assert_allclose(SOFT(z, p), [want], rtol=1e-6)
    slope = jax.grad(lambda z: SOFT(z, p).sum())(z)
    np.testing.assert_allclose(
        slope, [[*np.exp(log_softmax([1.0, 2.0])) - [0.25, 0.75], 0]], atol=1e-6
    )
    assert INTEGER(z, jnp.array([2]))[0] == jnp.inf


def test_gradients_with_respect_to_the_labels(logits):
    """Also where a probability is 0: the slope there is `-log(q)` as everywhere."""
    p = np.eye(4, dtype=np.float32)[[0, 3, 1, 2, 3]]
    slope = jax.grad(lambda p: SOFT(logits, p).sum())(p)
    np.testing.assert_allclose(slope, -log_softmax(logits), rtol=1e-5)
    slope = jax.grad(lambda p: SOFT(jnp.array([0.0, 0.0, -jnp.inf]), p))(jnp.array([0.5, 0.5, 0]))
    np.testing.assert_allclose(slope, [np.log(2), np.log(2), 0], rtol=1e-6)


def test_where_leaves_classes_out(logits):
    kept = np.array([True, True, False, True])
    y = np.array([0, 3, 1, 1, 3])
    place = np.array([0, 2, 1, 1, 2])  # the same classes among the three that are kept
    want = -log_softmax(logits[:, kept])[np.arange(5), place]
    mask = kept[None]
    np.testing.assert_allclose(INTEGER(logits, y, where=mask), want, rtol=1e-6)
    p = probabilities()
    want = -(p[:, kept] * log_softmax(logits[:, kept])).sum(-1)
    np.testing.assert_allclose(SOFT(logits, p, where=mask), want, rtol=1e-6)
    slope = jax.grad(lambda z: SOFT(z, p, where=mask).sum())(logits)
    assert (np.asarray(slope)[:, 2] == 0).all()


@pytest.mark.parametrize("excluded", [0.0, 1e38, np.inf, -np.inf, np.nan])
def test_what_is_left_out_has_no_say(logits, excluded):
    z = logits.copy()
    z[:, 2] = excluded
    kept, y = np.array([[True, True, False, True]]), np.array([0, 3, 1, 1, 3])
    np.testing.assert_array_equal(INTEGER(z, y, where=kept), INTEGER(logits, y, where=kept))
    slope = jax.grad(lambda z: INTEGER(z, y, where=kept).sum())
    np.testing.assert_array_equal(slope(z), slope(logits))


def test_nothing_left_in_is_no_loss(logits, classes):
    none = np.zeros((5, 1), bool)
    for loss in (
        lambda z: INTEGER(z, classes, where=none),
        lambda z: SOFT(z, probabilities(), where=none),
    ):
        np.testing.assert_array_equal(loss(logits), np.zeros(5))
        np.testing.assert_array_equal(jax.grad(lambda z, f=loss: f(z).sum())(logits), 0 * logits)


@pytest.mark.parametrize(
    "axis",
    list(first_of_each(type, map(pytest.param, [0, -1, 1, (2, 0), (1, 2), (0, 1, 2)]))),
    ids=str,
)
def test_axes(axis):  # also of a mask over examples
    z = np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)
    axes = axis if isinstance(axis, tuple) else (axis,)
    rest = [i for i in range(3) if i not in [a % 3 for a in axes]]
    flat = z.transpose(*rest, *axes).reshape(*[z.shape[i] for i in rest], -1)
    y = np.random.default_rng(3).integers(flat.shape[-1], size=flat.shape[:-1])
    want = -np.take_along_axis(log_softmax(flat), y[..., None], -1)[..., 0]
    np.testing.assert_allclose(INTEGER(z, y, axis=axis), want, rtol=2e-6)
    np.testing.assert_allclose(
        INTEGER(z, y, axis=axis),
        optax_integer(z, y, axis=axis),
        rtol=2e-6,
    )
    p = probabilities((2, 3, 4))
    np.testing.assert_allclose(SOFT(z, p, axis=axis), optax_soft(z, p, axis=axis), rtol=2e-6)
    counted = np.random.default_rng(4).uniform(size=flat.shape[:-1]) < 0.5
    want = np.where(counted, INTEGER(z, y, axis=axis), 0)
    np.testing.assert_allclose(INTEGER(z, y, axis=axis, where=counted), want, rtol=1e-6)
    want = np.where(counted, SOFT(z, p, axis=axis), 0)
    np.testing.assert_allclose(SOFT(z, p, axis=axis, where=counted), want, rtol=1e-6)


@pytest.mark.parametrize("label", [-100, -1, 4, 1000])
@pytest.mark.parametrize(
    "loss",
    [
        INTEGER,
        one_program(gradtx.losses.multiclass_hinge_loss),
        one_program(gradtx.losses.multiclass_perceptron_loss),
        one_program(gradtx.losses.multiclass_sparsemax_loss),
    ],
)
def test_labels_that_are_no_class_give_nan(loss, label, logits):
    """None counts from the end: -1 and -100 are what people write for what is to be left out."""
    found = loss(logits[:2], np.array([label, 1]))
    assert np.isnan(found[0])
    np.testing.assert_array_equal(found[1], loss(logits[1:2], np.array([1]))[0])


def test_labels_that_are_no_class_can_be_left_out(logits):
    labels = np.array([-100, 1])
    counted = labels >= 0
    found = INTEGER(logits[:2], labels, where=np.broadcast_to(counted[:, None], (2, 4)))
    np.testing.assert_array_equal(found, [0, INTEGER(logits[1:2], np.array([1]))[0]])


def test_under_jit_vmap_and_hessian(logits, classes):
    np.testing.assert_allclose(
        jax.jit(jax.vmap(INTEGER))(logits, classes), INTEGER(logits, classes), rtol=1e-6
    )
    q = np.exp(log_softmax(logits[0]))
    curvature = jax.hessian(lambda z: INTEGER(z, 1))(logits[0])
    np.testing.assert_allclose(curvature, np.diag(q) - np.outer(q, q), atol=1e-6)


def test_the_safe_loss_is_the_plain_one(logits):
    z = np.concatenate([logits, np.full((5, 1), -np.inf, np.float32)], axis=1)
    p = np.concatenate([probabilities(), np.zeros((5, 1), np.float32)], axis=1)
    want = -(p[:, :4] * log_softmax(logits)).sum(-1)
    np.testing.assert_allclose(safe_softmax_cross_entropy(z, p), want, rtol=1e-6)
    np.testing.assert_array_equal(safe_softmax_cross_entropy(z, p), SOFT(z, p))
    slope = jax.grad(lambda z: safe_softmax_cross_entropy(z, p).sum())(z)
    np.testing.assert_allclose(slope[:, :4], np.exp(log_softmax(logits)) - p[:, :4], atol=1e-6)
    np.testing.assert_array_equal(slope[:, 4], 0)
    assert safe_softmax_cross_entropy(z[0], np.eye(5, dtype=np.float32)[4]) == np.inf


@pytest.mark.parametrize("epsilon", [2.0, 0.0, -1.0, 0.5])
def test_poly_loss_follows_the_equation(logits, epsilon):
    p = probabilities().astype(np.float64)
    log_q = log_softmax(logits)
    want = (-p * log_q + epsilon * p * (1 - np.exp(log_q))).sum(-1)
    np.testing.assert_allclose(
        poly_loss_cross_entropy(logits, probabilities(), epsilon=epsilon), want, rtol=2e-6
    )
    want = optax_poly(logits, p, epsilon=epsilon)
    np.testing.assert_allclose(
        poly_loss_cross_entropy(logits, probabilities(), epsilon=epsilon), want, rtol=1e-5
    )


def test_poly_loss_takes_the_first_term_away(logits):
    """The cross entropy is `sum_j (1 - q)^j / j`, so that at -1 the terms from 2 on remain."""
    one_hot = np.eye(4, dtype=np.float32)[[0, 3, 1, 2, 3]]
    wrong = 1 - np.exp((one_hot * log_softmax(logits)).sum(-1))
    want = sum(wrong**j / j for j in range(2, 400))
    np.testing.assert_allclose(
        poly_loss_cross_entropy(logits, one_hot, epsilon=-1.0), want, rtol=1e-5
    )


def test_poly_loss_with_impossible_and_masked_classes(logits):
    z = np.concatenate([logits, np.full((5, 1), -np.inf, np.float32)], axis=1)
    p = np.concatenate([probabilities(), np.zeros((5, 1), np.float32)], axis=1)
    want = poly_loss_cross_entropy(logits, probabilities())
    np.testing.assert_array_equal(poly_loss_cross_entropy(z, p), want)
    kept = np.arange(5)[None] < 4
    z[:, 4], p[:, 4] = np.nan, 0.5
    np.testing.assert_array_equal(poly_loss_cross_entropy(z, p, where=kept), want)
    slope = jax.grad(lambda z: poly_loss_cross_entropy(z, p, where=kept).sum())(z)
    assert np.isfinite(slope).all()
    rows = np.array([True, False, True, True, False])
    np.testing.assert_array_equal(
        poly_loss_cross_entropy(logits, probabilities(), where=rows), np.where(rows, want, 0)
    )


def test_labels_of_another_rank_do_not_multiply(logits, classes):
    """`[n, 1]` labels for `[n, classes]` logits would make `[n, n]` losses."""
    with pytest.raises(ValueError, match=r"need labels of shape \(5,\), got \(5, 1\)"):
        INTEGER(logits, classes[:, None])
    assert INTEGER(logits[0], classes).shape == (5,)  # one score for all is meant


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda z: INTEGER(z, np.ones(5)), TypeError, "labels must be integers, not float"),
        (lambda z: INTEGER(z.astype(int), np.ones(5, int)), TypeError, "logits must be floating"),
        (lambda z: SOFT(z.astype(int), z), TypeError, "logits must be floating"),
        (lambda z: INTEGER(z, np.ones(3, int)), ValueError, r"of shape \(5,\), got \(3,\)"),
        (
            lambda z: INTEGER(z, np.ones(5, int), where=np.ones(4, bool)),
            ValueError,
            r"of the logits, \(5, 4\), or that without axis \(-1,\), got \(4,\)",
        ),
        (lambda z: SOFT(z, z, where=np.ones((2, 1), bool)), ValueError, r"got \(2, 1\)"),
        (lambda z: SOFT(z, np.ones((2, 4))), ValueError, r"\(5, 4\) and labels of shape \(2, 4\)"),
    ],
)
def test_errors_name_both_sides(logits, call, error, words):
    with pytest.raises(error, match=words):
        call(logits)
