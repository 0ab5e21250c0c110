"""An epoch of mini-batch descent as one pure function.

`fit` compiles it, and a sweep can `vmap` it over initial parameters, keys, and learning rates:
`epoch(state, key, examples) -> (state, steps)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._apply import apply_updates
from gradtx._roles import Inner, Slot, declared
from gradtx.engine.base import Array, GradientTransformation, Params, PyTree
from gradtx.losses import softmax_cross_entropy_with_integer_labels
from gradtx.train.models import Model

Loss = Callable[[Params, PyTree, Array], Array]
"""`loss(params, batch, counted)`: the mean loss over the examples of a batch that the mask
`counted` selects."""


@declared
class TrainState(NamedTuple):
    """The state of training.

    Attributes:
      params: the model's parameters.
      opt_state: the optimizer's state.
    """

    params: Slot
    opt_state: Inner


class Steps(NamedTuple):
    """The measurements at each step of an epoch.

    Attributes:
      loss: the mini-batch's loss before the step, `[steps]`.
      finite: whether this loss, and all parameters after the step, are finite, `[steps]`.
    """

    loss: Array
    finite: Array


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Returns the number of mini-batches in an epoch; the last one may be smaller.

    Args:
      examples: the number of examples.
      batch_size: the number of examples in a mini-batch.

    Example:
      >>> from gradtx.train import steps_per_epoch
      >>> steps_per_epoch(1437, 64)
      23
    """
    return -(-examples // batch_size)


def batches(order: Array, batch_size: int) -> tuple[Array, Array]:
    """Divides an ordered list of examples into mini-batches of equal size.

    If the number of examples is not a multiple of the size, the last batch is padded with examples
    that the mask excludes. So every example counts exactly once, and all batches share one compiled
    step.

    Args:
      order: indices of examples, `[examples]`.
      batch_size: the number of examples in a batch.

    Returns:
      The indices, `[steps, batch_size]`, and a boolean mask of the same shape, false for padding.

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
    """Returns the mean cross entropy of a classifier as a loss function of a batch `(x, y)`.

    Args:
      model: the classifier.

    Returns:
      `loss(params, (x, y), counted)`, a scalar: the mean over the examples that the mask `counted`
      selects.

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
) -> Callable[[TrainState, Array, PyTree], tuple[TrainState, Steps]]:
    """Returns the function that trains for one epoch.

    The examples are shuffled with the epoch's key and visited once each, in mini-batches; if the
    last one is smaller, its step uses the mean over its examples.

    Args:
      loss: `loss(params, batch, counted)`, the mean over the examples that `counted` selects.
      tx: the optimizer. Its `update` also receives `value`, `grad`, `value_fn` and `obj_fn`, for
        optimizers that evaluate the loss.
      batch_size: the number of examples in a mini-batch.

    Returns:
      `epoch(state, key, examples) -> (state, steps)`, where `examples` is a pytree of arrays whose
      first axes run over the examples. It is pure, and works under `jit`, `vmap` and `grad`.

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

    def epoch(state: TrainState, key: Array, examples: PyTree) -> tuple[TrainState, Steps]:
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


def _all_finite(tree: PyTree) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def make_evaluation(
    model: Model, batch_size: int = 1000
) -> Callable[[Params, Array, Array], tuple[Array, Array]]:
    """Returns the function that evaluates a classifier on a whole data set.

    Args:
      model: the classifier.
      batch_size: the number of examples evaluated at a time; it bounds the memory and does not
        change the result. Default: 1000.

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
