"""Losses for rankings of lists of items."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.losses.arguments import broadcast_shape, floating
from gradtx.losses.classification import softmax_cross_entropy


def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., Array] | None = jnp.mean,
) -> Array:
    r"""Softmax loss of a list of items: each relevant one should have a high score.

    With the scores `s` of a list's items, their relevance `y` and their weights `w`::

        loss = -sum(w[i] * y[i] * log(exp(s[i]) / sum(exp(s[j]), over j)), over i)

    ListNet's loss, with the relevance in place of its softmax: "Learning to rank: from pairwise
    approach to listwise approach" (Cao et al., ICML 2007), "An alternative cross entropy loss for
    learning-to-rank" (arXiv:1911.09798).

    Args:
      logits: the scores, floating-point, `[..., items]`.
      labels: the relevance of each item, not negative, of a shape that broadcasts with that of
        `logits`.
      where: which items are present, a mask that broadcasts to both. The scores, labels and weights
        of the others are ignored; a list without items has loss 0. Default: `None`, all.
      weights: the weight of each item, of a shape that broadcasts with `logits`. Default: `None`,
        all 1.
      reduce_fn: the reduction of the losses to one number, `jnp.mean` or `jnp.sum`; `None` for one
        loss for each list. With `where` it is called as `reduce_fn(losses, where=...)`, with a mask
        of the lists that have items. Default: `jnp.mean`.

    Returns:
      The result of `reduce_fn`; or the loss of each list, of the broadcast shape without the last
      axis and of the dtype that `logits`, `labels` and `weights` promote to.

    Raises:
      TypeError: if `logits` are not floating-point.
      ValueError: if the shapes do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import losses
      >>> scores = jnp.array([[2.0, 1.0, 3.0], [1.0, 0.5, 1.5]])
      >>> relevance = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
      >>> losses.ranking_softmax_loss(scores, relevance, reduce_fn=None).tolist()
      [1.4076, 0.6803]
      >>> losses.ranking_softmax_loss(scores, relevance).item()
      1.0439
    """
    name = "ranking_softmax_loss"
    floating(name, "logits", logits)
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    shapes = {"logits": logits.shape, "labels": labels.shape}
    if weights is not None:
        shapes["weights"] = jnp.shape(weights)
    if where is not None:
        shapes["where"] = jnp.shape(where)
    shape = broadcast_shape(name, **shapes)
    there = None if where is None else jnp.broadcast_to(jnp.asarray(where, bool), shape)
    if weights is not None:
        labels = labels * jnp.asarray(weights)
    if there is not None:
        labels = jnp.where(there, labels, 0)
    loss = softmax_cross_entropy(jnp.broadcast_to(logits, shape), labels, where=there)
    if reduce_fn is None:
        return loss
    if there is None:
        return reduce_fn(loss)
    lists = jnp.any(there, axis=-1)
    # If no list has items, all of them count, with loss 0: the mean of none would be nan.
    return reduce_fn(loss, where=lists | ~jnp.any(lists))
