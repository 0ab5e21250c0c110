"""Connectionist temporal classification: label sequences with unknown alignment in time."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx._arguments import counted
from gradtx.engine.base import Array
from gradtx.losses.arguments import accumulator, class_numbers, floating, from_the_front, pick

# The logarithm of 0 in sums: finite, as gradients would otherwise contain inf - inf, and far below
# the logarithm of any real probability.
_NEVER = -1e30


def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> Array:
    r"""Connectionist temporal classification: cross entropy of a sequence without its alignment.

    An alignment assigns a label or the blank to each frame. It belongs to the label sequence that
    remains after its repetitions are merged and then its blanks removed. With
    `q = softmax(logits)`::

        loss = -log(sum(prod(q[t, a[t]], over t), over a))

    over the alignments `a` of the labels. The sum is taken by the recursion of
    `ctc_loss_with_forward_probs`. "Connectionist temporal classification: labelling unsegmented
    sequence data with recurrent neural networks" (Graves et al., ICML 2006).

    Args:
      logits: unnormalized log-probabilities, floating-point, `[batch, frames, classes]`.
      logit_paddings: `[batch, frames]`, 0 for a frame, and 1 for padding.
      labels: the class indices, integers, `[batch, length]`. An index that is not a class gives
        NaN, as no error can be raised under `jit`.
      label_paddings: `[batch, length]`, 0 for a label and 1 for padding, which comes last in each
        row.
      blank_id: the index of the class that stands for the blank; a negative one counts from the
        last. Default: 0.
      log_epsilon: the value that is returned for the logarithm of 0, a large negative number:
        labels without any alignment, for example because there are too few frames, have the loss
        `-log_epsilon`, with gradient 0. Default: -1e5.

    Returns:
      The loss of each sequence, `[batch]`, of the dtype of `logits`. It is not divided by the
      length.

    Raises:
      TypeError: if `logits` are not floating-point, or `labels` not integers.
      ValueError: if the shapes do not fit, or `blank_id` is not a class.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.log(jnp.array([[[0.5, 0.5], [0.25, 0.75]]]))  # two frames, one label
      >>> nothing_padded = jnp.zeros((1, 2)), jnp.zeros((1, 1))
      >>> loss = losses.ctc_loss(logits, nothing_padded[0], jnp.array([[1]]), nothing_padded[1])
      >>> jnp.exp(-loss).tolist()  # all but two blanks
      [0.875]
    """
    arrays = logits, logit_paddings, labels, label_paddings
    return _forward("ctc_loss", *arrays, blank_id, log_epsilon)[0]


def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> tuple[Array, Array, Array]:
    r"""The loss of `ctc_loss`, with the forward probabilities that it is computed from.

    With `q = softmax(logits)`, let `blank[t, n]` be the probability that the frames up to `t` read
    as the first `n` labels and frame `t` is a blank, and `label[t, n]` that they do and frame `t`
    is label `n`::

        blank[t, n] = q[t, blank_id] * (blank[t-1, n] + label[t-1, n])
        label[t, n] = q[t, labels[n]] * (label[t-1, n] + blank[t-1, n-1]
                                         + label[t-1, n-1] * [labels[n] != labels[n-1]])
        loss        = -log(blank[T, N] + label[T, N])

    where the condition in brackets is 1 or 0. It is computed in logarithms, starting from
    `blank[0, 0] = 1`; frames of padding change nothing. Equations 6 and 7 of "Connectionist
    temporal classification: labelling unsegmented sequence data with recurrent neural networks"
    (Graves et al., ICML 2006).

    Args:
      logits: unnormalized log-probabilities, floating-point, `[batch, frames, classes]`.
      logit_paddings: `[batch, frames]`, 0 for a frame, and 1 for padding.
      labels: the class indices, integers, `[batch, length]`. An index that is not a class gives
        NaN, as no error can be raised under `jit`.
      label_paddings: `[batch, length]`, 0 for a label and 1 for padding, which comes last in each
        row.
      blank_id: the index of the class that stands for the blank; a negative one counts from the
        last. Default: 0.
      log_epsilon: the value that is returned for the logarithm of 0, a large negative number. It is
        not used in sums, so probabilities as small as this are still exact. Default: -1e5.

    Returns:
      The loss of each sequence, `[batch]`; `log(blank)`, `[frames, batch, length + 1]`; and
      `log(label)`, `[frames, batch, length]`, for `n` from 1. All are of the dtype of `logits`. The
      last frame of `log(blank)`, and only that, holds the total, `log(blank + label)`.

    Raises:
      TypeError: if `logits` are not floating-point, or `labels` not integers.
      ValueError: if the shapes do not fit, or `blank_id` is not a class.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> logits = jnp.log(jnp.array([[[0.5, 0.5], [0.25, 0.75]]]))  # two frames, one label
      >>> loss, blank, label = losses.ctc_loss_with_forward_probs(
      ...     logits, jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1))
      ... )
      >>> jnp.exp(label)[:, 0, 0].tolist()  # the label in frame 1; and in frame 2, new or still
      [0.5, 0.75]
      >>> jnp.exp(blank)[:, 0, :].tolist()
      [[0.5, 0.0], [0.125, 0.875]]
    """
    arrays = logits, logit_paddings, labels, label_paddings
    return _forward("ctc_loss_with_forward_probs", *arrays, blank_id, log_epsilon)


def _forward(
    name: str,
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    blank_id: int,
    log_epsilon: float,
) -> tuple[Array, Array, Array]:
    logits, labels = floating(name, "logits", logits), class_numbers(name, labels)
    _check_shapes(name, logits, logit_paddings, labels, label_paddings, blank_id)
    there = jnp.asarray(logit_paddings) == 0
    padded = jnp.asarray(label_paddings) != 0
    length = jnp.sum(~padded, axis=1)
    z = jnp.where(there[..., None], logits.astype(accumulator(logits.dtype)), 0)

    log_q = jnp.maximum(jax.nn.log_softmax(z), _NEVER)
    q_blank = log_q[..., blank_id, None]
    spoken = from_the_front(labels[:, None, :], log_q.shape[-1])
    q_label = jnp.take_along_axis(log_q, spoken, axis=-1, mode="fill")
    q_label = jnp.where(padded[:, None, :], _NEVER, q_label)  # whatever number the padding holds
    new = labels[:, 1:] != labels[:, :-1]  # a repetition needs a blank in between

    batch, n = labels.shape
    impossible = jnp.full((batch, n), _NEVER, z.dtype)
    empty = jnp.full((batch, n + 1), _NEVER, z.dtype).at[:, 0].set(0)

    def whole(blank: Array, label: Array) -> Array:
        return jnp.concatenate([blank[:, :1], jnp.logaddexp(blank[:, 1:], label)], axis=1)

    def step(
        state: tuple[Array, Array], frame: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        blank, label = state
        q_blank, q_label, there = frame
        before = jnp.where(new, label[:, :-1], _NEVER)
        before = jnp.concatenate([impossible[:, :1], before], axis=1)
        reached = (
            whole(blank, label) + q_blank,
            jnp.logaddexp(jnp.logaddexp(label, blank[:, :-1]), before) + q_label,
        )
        state = jax.tree.map(lambda x, y: jnp.where(there[:, None], x, y), reached, state)
        return state, state

    q_blank, q_label, there = (jnp.moveaxis(x, 1, 0) for x in (q_blank, q_label, there))
    frames = (q_blank, q_label, there)
    (blank, label), (blanks, emitted) = jax.lax.scan(step, (empty, impossible), frames)
    total = whole(blank, label)
    log_p = pick(total, length)[:, 0]
    if len(blanks):
        blanks = blanks.at[-1].set(total)

    def returned(log_p: Array) -> Array:
        return jnp.where(log_p < _NEVER / 2, log_epsilon, log_p).astype(logits.dtype)

    return -returned(log_p), returned(blanks), returned(emitted)


def _check_shapes(
    name: str,
    logits: Array,
    logit_paddings: ArrayLike,
    labels: Array,
    label_paddings: ArrayLike,
    blank_id: int,
) -> None:
    if logits.ndim != 3 or labels.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"{name}: needs logits of shape [batch, frames, classes] and labels of shape "
            f"[batch, length], got {logits.shape} and {labels.shape}"
        )
    for role, paddings, shape in (
        ("logit_paddings", logit_paddings, logits.shape[:2]),
        ("label_paddings", label_paddings, labels.shape),
    ):
        if jnp.shape(paddings) != shape:
            raise ValueError(
                f"{name}: {role} must have the shape {shape}, got {jnp.shape(paddings)}"
            )
    classes = logits.shape[-1]
    if isinstance(blank_id, int) and not -classes <= blank_id < classes:
        raise ValueError(
            f"{name}: blank_id={blank_id} is not one of {counted(classes, 'class', 'classes')}"
        )
