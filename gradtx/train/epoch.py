"""One epoch of mini-batch descent as one pure function.

It is what `fit` compiles, and what a sweep can `vmap` over initial parameters, keys, and learning
rates: `epoch(state, key, examples) -> (state, steps)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._apply import apply_updates
from gradtx.engine.base import Array, GradientTransformation, Params
from gradtx.engine.roles import Inner, Slot, declared
from gradtx.losses import softmax_cross_entropy_with_integer_labels
from gradtx.train.models import Model

Loss = Callable[[Params, Any, Array], Array]
"""`loss(params, batch, counted)`: the mean loss over those examples of a batch that count."""


@declared
class TrainState(NamedTuple):
    """What changes while training.

    Attributes:
      params: the model's parameters.
      opt_state: the optimizer's state.
    """

    params: Slot
    opt_state: Inner


class Steps(NamedTuple):
    """What was measured at each step of an epoch.

    Attributes:
      loss: the mini-batch's loss before the step, `[steps]`.
      finite: whether that loss, and all parameters after the step, were finite, `[steps]`.
    """

    loss: Array
    finite: Array


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Gives the number of mini-batches; the last one may be short.

    Args:
      examples: how many examples there are.
      batch_size: how many a mini-batch has.

    Example:
      >>> from gradtx.train import steps_per_epoch
      >>> steps_per_epoch(1437, 64)
      23
    """
    return -(-examples // batch_size)


def batches(order: Array, batch_size: int) -> tuple[Array, Array]:
    """Cuts an order of examples into mini-batches of one size.

    If the examples don't come out even, the last batch is filled up with examples that do not
    count. So every example counts exactly once, and one compiled step serves all batches.

    Args:
      order: indices of examples, `[examples]`.
      batch_size: examples in a batch.

    Returns:
      The indices, `[steps, batch_size]`, and which of them count, a mask of the same shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.train import batches
      >>> index, counted = batches(jnp.array([2, 0, 1]), 2)
      >>> index.tolist(), counted.tolist()
      ([[2, 0], [1, 0]], [[True, True], [True, False]])
    """
    steps = steps_per_epoch(len(order), batch_size)
    filled = jnp.pad(order, (0, steps * batch_size - len(order)))
    counted = jnp.arange(len(filled)) < len(order)
    return filled.reshape(steps, batch_size), counted.reshape(steps, batch_size)


def classification_loss(model: Model) -> Loss:
    """Makes the mean cross entropy of a classifier over a batch `(x, y)`.

    Args:
      model: the classifier.

    Returns:
      `loss(params, (x, y), counted)`, a scalar: the mean over those examples that count.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradtx.train import classification_loss, softmax
      >>> model = softmax()
      >>> params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), (3,), 2))
      >>> batch = jnp.ones((4, 3)), jnp.array([0, 1, 1, 0])
      >>> float(classification_loss(model)(params, batch, jnp.ones(4, bool)))
      0.6931
    """

    def loss(params: Params, batch: tuple[Array, Array], counted: Array) -> Array:
        x, y = batch
        losses = softmax_cross_entropy_with_integer_labels(model.apply(params, x), y)
        return jnp.sum(jnp.where(counted, losses, 0)) / jnp.sum(counted)

    return loss


def make_epoch(
    loss: Loss, tx: GradientTransformation, batch_size: int
) -> Callable[[TrainState, Array, Any], tuple[TrainState, Steps]]:
    """Makes the function that trains for one epoch.

    The examples are shuffled with the epoch's key and visited once each, in mini-batches; a short
    last one takes a step of its own, on the mean over its examples.

    Args:
      loss: `loss(params, batch, counted)`, the mean over those examples of the batch that count.
      tx: the optimizer. Its `update` is given `value`, `grad`, `value_fn` and `obj_fn` as well, for
        those that measure the loss.
      batch_size: examples in a mini-batch.

    Returns:
      `epoch(state, key, examples) -> (state, steps)`, where `examples` is a pytree of arrays whose
      first axes run over the examples. It is pure: `jit`, `vmap` and `grad` apply.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.train import TrainState, make_epoch
      >>> def loss(mean, x, counted):
      ...     return jnp.sum(jnp.where(counted, (x - mean) ** 2, 0)) / jnp.sum(counted)
      >>> tx = gradtx.sgd(0.25)
      >>> state = TrainState(jnp.zeros(()), tx.init(jnp.zeros(())))
      >>> epoch = jax.jit(make_epoch(loss, tx, batch_size=2))
      >>> state, steps = epoch(state, jax.random.key(0), jnp.array([4.0, 4.0, 4.0]))
      >>> float(state.params), steps.loss.tolist()
      (3.0, [16.0, 4.0])
    """

    def epoch(state: TrainState, key: Array, examples: Any) -> tuple[TrainState, Steps]:
        examples = jax.tree.map(jnp.asarray, examples)
        count = len(jax.tree.leaves(examples)[0])

        def step(state: TrainState, xs: tuple[Array, Array]) -> tuple[TrainState, Steps]:
            index, counted = xs
            batch = jax.tree.map(lambda a: a[index], examples)

            def value_fn(params: Params) -> Array:
                return loss(params, batch, counted)

            value, grads = jax.value_and_grad(value_fn)(state.params)
            updates, opt_state = tx.update(
                grads, state.opt_state, state.params,
                value=value, grad=grads, value_fn=value_fn, obj_fn=value_fn,
            )  # fmt: skip
            params = apply_updates(state.params, updates)
            return TrainState(params, opt_state), Steps(value, _all_finite((value, params)))

        return jax.lax.scan(step, state, batches(jax.random.permutation(key, count), batch_size))

    return epoch


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def make_evaluation(
    model: Model, batch_size: int = 1000
) -> Callable[[Params, Array, Array], tuple[Array, Array]]:
    """Makes the function that measures a classifier on a whole data set.

    Args:
      model: the classifier.
      batch_size: examples that are looked at together; it bounds the memory, not the result.

    Returns:
      `evaluate(params, x, y) -> (mean loss, accuracy)`, both float32 scalars.

    Example:
      >>> import jax
      >>> from gradtx.train import load, make_evaluation, softmax
      >>> data, model = load(), softmax()
      >>> params = model.init(jax.random.key(0), data.shape, data.classes)
      >>> loss, accuracy = make_evaluation(model)(params, data.x_test, data.y_test)
      >>> 0 < accuracy < 0.5
      Array(True, dtype=bool)
    """

    def evaluate(params: Params, x: Array, y: Array) -> tuple[Array, Array]:
        x, y = jnp.asarray(x), jnp.asarray(y)

        def measure(batch: tuple[Array, Array]) -> tuple[Array, Array]:
            index, counted = batch
            logits = model.apply(params, x[index])
            losses = softmax_cross_entropy_with_integer_labels(logits, y[index])
            right = jnp.argmax(logits, axis=-1) == y[index]
            return jnp.sum(jnp.where(counted, losses, 0)), jnp.sum(counted & right)

        order = jnp.arange(len(y))
        losses, right = jax.lax.map(measure, batches(order, min(batch_size, len(y))))
        return jnp.sum(losses) / len(y), jnp.sum(right) / len(y)

    return evaluate
