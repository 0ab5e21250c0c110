"""CTC against a sum over all alignments, taken one by one; optax as a second opinion."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import check_gradients
from gradtx.losses import ctc_loss, ctc_loss_with_forward_probs


def read(alignment, blank=0):
    """What an alignment says: without repetitions, then without blanks."""
    return tuple(k for k, _ in itertools.groupby(alignment) if k != blank)


def by_enumeration(logits, labels, blank=0):
    """`-log` of the probability of all alignments of the labels."""
    z = np.asarray(logits, np.float64)
    q = np.exp(z - z.max(-1, keepdims=True))
    q /= q.sum(-1, keepdims=True)
    frames, classes = q.shape
    total = sum(
        np.prod(q[np.arange(frames), alignment])
        for alignment in itertools.product(range(classes), repeat=frames)
        if read(alignment, blank) == tuple(labels)
    )
    return -np.log(total) if total > 0 else np.inf


def draw(batch, frames, classes, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, frames, classes)).astype(np.float32)


def padding(lengths, size):
    return (np.arange(size) >= np.asarray(lengths)[:, None]).astype(np.float32)


# In one program each; without `jit` they are called in test_losses.py.
loss, loss_and_probs = (
    jax.jit(f, static_argnames=("blank_id", "log_epsilon"))
    for f in (ctc_loss, ctc_loss_with_forward_probs)
)
gradient = jax.jit(jax.grad(lambda z, *args: ctc_loss(z, *args).sum()))


LABELS = [(), (1,), (1, 1), (2, 1), (1, 2, 1), (2, 2, 1), (1, 1, 1)]


@pytest.mark.parametrize("blank", [0, 2])
def test_all_alignments(blank):
    """Labels of several lengths in one batch, sequences of several lengths too."""
    other = {0: 0, 1: 1, 2: 2} if blank == 0 else {1: 0, 2: 1}
    frames = [5, 3, 4, 5, 5, 5, 5]
    z = draw(len(LABELS), 5, 3)
    labels = np.full((len(LABELS), 3), 7)  # what is padded may be anything
    for row, y in zip(labels, LABELS, strict=True):
        row[: len(y)] = [other[k] for k in y]
    want = [
        by_enumeration(z[i, : frames[i]], [other[k] for k in y], blank)
        for i, y in enumerate(LABELS)
    ]
    got = loss(z, padding(frames, 5), labels, padding([len(y) for y in LABELS], 3), blank_id=blank)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_forward_probabilities_are_of_prefixes():
    """`label[t, n]`: the frames up to t read as n labels and end in one; `blank`, in a blank."""
    z, labels = draw(1, 4, 3), np.array([[1, 1]])
    zeros = np.zeros((1, 4)), np.zeros((1, 2))
    _, blank, label = loss_and_probs(z, zeros[0], labels, zeros[1])
    assert blank.shape == (4, 1, 3) and label.shape == (4, 1, 2)
    q = np.exp(z[0].astype(float))
    q /= q.sum(-1, keepdims=True)
    for t in range(4):
        want = np.zeros((2, 3))
        for alignment in itertools.product(range(3), repeat=t + 1):
            said = read(alignment)
            if said == tuple(labels[0, : len(said)]):
                ends_in_label = int(alignment[-1] != 0)
                want[ends_in_label, len(said)] += np.prod(q[np.arange(t + 1), alignment])
        if t == 3:
            want[0] += want[1]  # the last frame has the whole
        np.testing.assert_allclose(np.exp(blank[t, 0]), want[0], rtol=1e-5)
        np.testing.assert_allclose(np.exp(label[t, 0]), want[1, 1:], rtol=1e-5)


def test_optax_agrees():
    rng = np.random.default_rng(3)
    z = draw(6, 9, 5)
    labels = rng.integers(1, 5, size=(6, 4))
    paddings = padding([9, 8, 9, 7, 9, 9], 9), padding([4, 3, 0, 2, 1, 4], 4)
    args = z, paddings[0], labels, paddings[1]
    mine, theirs = loss_and_probs(*args), jax.jit(optax.ctc_loss_with_forward_probs)(*args)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-5)
    lengths = 4 - paddings[1].sum(1).astype(int)
    for first, got, want in ((0, mine[1], theirs[1]), (1, mine[2], theirs[2])):
        # beyond the labels' lengths, optax goes on with what stands in the padding
        there = np.arange(first, 5) <= lengths[:, None]
        np.testing.assert_array_equal(got[:, ~there], np.float32(-1e5))
        got, want = np.where(there, got, -1e5), np.where(there & (want > -5e4), want, -1e5)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    want = jax.jit(jax.grad(lambda z: optax.ctc_loss(z, *args[1:]).sum()))(z)
    np.testing.assert_allclose(gradient(*args), want, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_gradients():
    z = jnp.asarray(draw(2, 5, 3))
    args = padding([5, 4], 5), np.array([[1, 1], [2, 0]]), padding([2, 1], 2)
    check_gradients(lambda z: ctc_loss(z, *args).sum(), z, show=False).raise_if_bad()
    slope = gradient(z, *args)
    np.testing.assert_array_equal(slope[1, 4], np.zeros(3))  # the frame that is not there


def test_too_few_frames():
    """Two equal labels want three frames: the loss is that of `log_epsilon`, its slope 0."""
    z, zeros = draw(2, 2, 3), np.zeros((2, 2))
    labels = np.array([[1, 1], [1, 2]])
    got = loss(z, zeros, labels, zeros, log_epsilon=-123.0)
    np.testing.assert_allclose(got, [123.0, by_enumeration(z[1], (1, 2))], rtol=1e-5)
    slope = gradient(z, zeros, labels, zeros)
    np.testing.assert_array_equal(slope[0], np.zeros((2, 3)))
    assert np.isfinite(slope).all() and (slope[1] != 0).any()


def test_impossible_classes():
    z = draw(1, 4, 3)
    z[0, 1, 1] = z[0, 2, 0] = -np.inf
    zeros = np.zeros((1, 4)), np.zeros((1, 2))
    labels = np.array([[1, 2]])
    np.testing.assert_allclose(
        loss(z, zeros[0], labels, zeros[1]), [by_enumeration(z[0], (1, 2))], rtol=1e-5
    )
    assert np.isfinite(gradient(z, zeros[0], labels, zeros[1])).all()
    z[0, :, 1] = -np.inf
    assert loss(z, zeros[0], labels, zeros[1])[0] == 1e5


def test_long_improbable_sequences_are_exact():
    """A log-probability below -1e5, which optax takes for impossible. One alignment only: a label
    a frame, without repetitions."""
    frames = 4000
    z = np.tile(np.array([30.0, 0.0, 0.0], np.float32), (1, frames, 1))
    labels = np.tile(np.array([[1, 2]]), (1, frames // 2))
    zeros = np.zeros((1, frames))
    want = frames * np.log(np.exp(30.0) + 2)
    np.testing.assert_allclose(loss(z, zeros, labels, zeros), [want], rtol=1e-5)


@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_frames_that_are_not_there_have_no_say(junk):
    z = draw(1, 5, 3)
    args = np.array([[1, 2]]), np.zeros((1, 2))
    want = loss(z[:, :4], np.zeros((1, 4)), *args)
    z[:, 4] = junk
    np.testing.assert_allclose(loss(z, padding([4], 5), *args), want, rtol=1e-6)
    assert np.isfinite(gradient(z, padding([4], 5), *args)).all()


def test_nothing_to_say():
    z = draw(2, 3, 4)
    q = jax.nn.log_softmax(z)
    got = loss(z, np.zeros((2, 3)), np.zeros((2, 0), int), np.zeros((2, 0)))
    np.testing.assert_allclose(got, -q[..., 0].sum(-1), rtol=1e-6)
    none = np.zeros((2, 0))
    np.testing.assert_array_equal(loss(z[:, :0], none, none.astype(int), none), [0, 0])
    got = loss(z[:, :0], none, np.ones((2, 1), int), np.zeros((2, 1)))
    np.testing.assert_array_equal(got, [1e5, 1e5])


def test_ctc_errors():
    z, labels = draw(2, 3, 4), np.ones((2, 2), int)
    three, two = np.zeros((2, 3)), np.zeros((2, 2))
    assert np.isnan(ctc_loss(z, three, labels + 3, two)).all()
    with pytest.raises(TypeError, match="ctc_loss: labels must be integers, not float"):
        ctc_loss(z, three, labels.astype(float), two)
    with pytest.raises(TypeError, match="logits must be floating"):
        ctc_loss(z.astype(int), three, labels, two)
    with pytest.raises(ValueError, match=r"got \(3, 4\) and \(2, 2\)"):
        ctc_loss(z[0], three, labels, two)
    with pytest.raises(
        ValueError, match=r"logit_paddings must have the shape \(2, 3\), got \(2, 2\)"
    ):
        ctc_loss_with_forward_probs(z, two, labels, two)
    with pytest.raises(ValueError, match=r"label_paddings must have the shape \(2, 2\)"):
        ctc_loss(z, three, labels, three)
    with pytest.raises(ValueError, match="blank_id=4 is not one of 4 classes"):
        ctc_loss(z, three, labels, two, blank_id=4)
