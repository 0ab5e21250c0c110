"""Dice losses against float64 NumPy statements, optax as a second opinion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx.losses import binary_dice_loss, dice_loss, multiclass_generalized_dice_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 4, 5, 3)).astype(np.float32)
TRUTH = np.eye(3, dtype=np.float32)[RNG.integers(3, size=(2, 4, 5))]


def softmax(z):
    e = np.exp(np.asarray(z, np.float64))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def dice(p, t, axis=(1, 2), smooth=1.0, alpha=0.5, beta=0.5):
    both, predicted, true = (p * t).sum(axis), p.sum(axis), t.sum(axis)
    whole = both + alpha * (predicted - both) + beta * (true - both) + smooth
    return 1 - (both + smooth) / whole


@pytest.mark.parametrize(
    "kw", [{}, {"smooth": 0.0}, {"smooth": 3.0, "alpha": 0.3, "beta": 0.7}, {"axis": (0, 1, 2)}]
)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_dice_follows_the_equation(kw, reduction):
    want = dice(softmax(LOGITS), TRUTH, **kw)
    want = want if reduction == "none" else getattr(np, reduction)(want, axis=-1)
    got = dice_loss(LOGITS, TRUTH, reduction=reduction, **kw)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    theirs = optax.losses.dice_loss(LOGITS, TRUTH, reduction=reduction, **kw)
    np.testing.assert_allclose(got, theirs, rtol=1e-5)


def test_dice_of_one_class_is_of_a_sigmoid():
    z, t = LOGITS[..., 0], TRUTH[..., 0]
    want = dice(sigmoid(z), t, axis=(1, 2))
    np.testing.assert_allclose(dice_loss(z[..., None], t[..., None]), want, rtol=1e-5)
    np.testing.assert_allclose(dice_loss(z, t[..., None]), want, rtol=1e-5)
    np.testing.assert_allclose(dice_loss(z[..., None], t), want, rtol=1e-5)
    np.testing.assert_allclose(binary_dice_loss(z, t), want, rtol=1e-5)
    np.testing.assert_allclose(binary_dice_loss(z[..., None], t), want, rtol=1e-5)
    np.testing.assert_allclose(binary_dice_loss(z, t[..., None]), want, rtol=1e-5)
    np.testing.assert_allclose(
        binary_dice_loss(z, t, smooth=2.0), dice(sigmoid(z), t, smooth=2.0), rtol=1e-5
    )


def test_dice_weights_and_background():
    per_class = dice(softmax(LOGITS), TRUTH)
    w = np.array([1.0, 2.0, 0.5])
    np.testing.assert_allclose(
        dice_loss(LOGITS, TRUTH, class_weights=w), (per_class * w).mean(-1), rtol=1e-5
    )
    np.testing.assert_allclose(
        dice_loss(LOGITS, TRUTH, ignore_background=True, reduction="sum"),
        per_class[:, 1:].sum(-1),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        dice_loss(LOGITS, TRUTH, class_weights=[1.0, 2.0, 0.5], ignore_background=True),
        (per_class * w)[:, 1:].mean(-1),
        rtol=1e-5,
    )


def test_dice_of_what_is_right():
    """No loss for the truth itself, without smoothing too, and none for classes that are absent."""
    truth = TRUTH.copy()
    truth[..., 0] += truth[..., 2]
    truth[..., 2] = 0
    for smooth in (0.0, 1.0):
        got = dice_loss(truth, truth, apply_softmax=False, smooth=smooth, reduction="none")
        np.testing.assert_array_equal(got, np.zeros((2, 3)))
    slope = jax.grad(lambda p: dice_loss(p, truth, apply_softmax=False, smooth=0.0).sum())(truth)
    assert np.isfinite(slope).all()
    sure = np.where(truth > 0, np.inf, -np.inf).astype(np.float32)[..., :1]
    np.testing.assert_array_equal(binary_dice_loss(sure, truth[..., :1]), np.zeros(2))
    np.testing.assert_allclose(binary_dice_loss(-sure, truth[..., :1], smooth=0.0), np.ones(2))


def test_small_losses_keep_their_digits():
    """A million pixels of which one is a little wrong."""
    p = np.ones((1, 1000, 1000), np.float32)
    p[0, 0, 0] = 0.75
    got = binary_dice_loss(p, np.ones_like(p), apply_sigmoid=False)
    np.testing.assert_allclose(got, [0.125 / (1e6 - 0.125 + 1)], rtol=1e-5)


def test_generalized_dice_follows_the_equation():
    def generalized(p, t):
        per_class, volume = dice(p, t), t.sum((0, 1, 2))
        w = np.array([0 if v == 0 else 1 / v**2 for v in volume])
        return ((per_class * w).sum(-1) / w.sum()).mean()

    p, t = softmax(LOGITS), TRUTH
    got = multiclass_generalized_dice_loss(LOGITS, TRUTH)
    np.testing.assert_allclose(got, generalized(p, t), rtol=1e-5)
    np.testing.assert_allclose(
        got, optax.losses.multiclass_generalized_dice_loss(LOGITS, TRUTH), rtol=1e-5
    )
    np.testing.assert_allclose(
        multiclass_generalized_dice_loss(LOGITS, TRUTH, ignore_background=True),
        generalized(p[..., 1:], t[..., 1:]),
        rtol=1e-5,
    )
    absent = TRUTH.copy()
    absent[..., 0] += absent[..., 2]
    absent[..., 2] = 0  # optax: this class has all of the weight
    np.testing.assert_allclose(
        multiclass_generalized_dice_loss(LOGITS, absent), generalized(p, absent), rtol=1e-5
    )
    nothing = np.zeros_like(TRUTH)
    np.testing.assert_allclose(
        multiclass_generalized_dice_loss(LOGITS, nothing), dice(p, nothing).mean(), rtol=1e-5
    )


def test_probabilities_are_checked_where_they_can_be():
    p = softmax(LOGITS).astype(np.float32)
    np.testing.assert_allclose(
        dice_loss(p, TRUTH, apply_softmax=False), dice(p, TRUTH).mean(-1), rtol=1e-5
    )
    half = jnp.asarray(p, jnp.bfloat16)
    assert dice_loss(half, jnp.asarray(TRUTH, jnp.bfloat16), apply_softmax=False).shape == (2,)
    with pytest.raises(ValueError, match=r"dice_loss: .* not valid probability distributions"):
        dice_loss(p / 2, TRUTH, apply_softmax=False)
    with pytest.raises(ValueError, match=r"predictions must be probabilities in \[0, 1\]"):
        dice_loss(2 * p - p.mean(-1, keepdims=True), TRUTH, apply_softmax=False)
    told = r"binary_dice_loss: predictions must be probabilities in \[0, 1\]"
    with pytest.raises(ValueError, match=told):
        binary_dice_loss(3 * p[..., 0], TRUTH[..., 0], apply_sigmoid=False)
    # In optax, neither one region's probabilities nor any under jit are possible.
    want = dice(p[..., 0], TRUTH[..., 0])
    got = binary_dice_loss(p[..., 0], TRUTH[..., 0], apply_sigmoid=False)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jitted = jax.jit(lambda p: dice_loss(p, TRUTH, apply_softmax=False))
    np.testing.assert_allclose(jitted(p), dice(p, TRUTH).mean(-1), rtol=1e-5)


def test_axes_of_the_classes():
    got = dice_loss(LOGITS, TRUTH, axis=-1, reduction="none")
    np.testing.assert_allclose(got, dice(softmax(LOGITS), TRUTH, axis=-1), rtol=1e-5)
    for kw in ({}, {"class_weights": np.ones(3), "reduction": "none"}):
        with pytest.raises(ValueError, match="axis=-1 sums over the classes"):
            dice_loss(LOGITS, TRUTH, axis=-1, **kw)


def test_segmentation_errors():
    with pytest.raises(
        ValueError, match=r"predictions of shape \(2, 4, 5, 3\) .* got \(2, 4, 5, 2\)"
    ):
        dice_loss(LOGITS, TRUTH[..., :2])
    with pytest.raises(ValueError, match=r"got \(2, 4, 5\)"):
        dice_loss(LOGITS, TRUTH.argmax(-1))
    with pytest.raises(ValueError, match="reduction must be mean, sum or none, got 'all'"):
        dice_loss(LOGITS, TRUTH, reduction="all")
    with pytest.raises(
        ValueError, match=r"class_weights of 3 classes must have the shape \(3,\), got \(2,\)"
    ):
        dice_loss(LOGITS, TRUTH, class_weights=np.ones(2))
    with pytest.raises(TypeError, match="predictions must be floating-point"):
        binary_dice_loss(TRUTH.astype(int), TRUTH)
