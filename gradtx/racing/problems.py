"""What is raced on: a loss of one's own, or the classifiers of `gradtx train`."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Array, Params, is_function
from gradtx.racing.grid import Problem
from gradtx.train.data import Data
from gradtx.train.epoch import classification_loss, make_evaluation, steps_per_epoch
from gradtx.train.errors import TrainingError
from gradtx.train.models import Model


def classification(model: Model, data: Data, batch_size: int) -> Problem:
    """Makes the problem of training a classifier: its loss on what is trained on, its accuracy on
    what is held back.

    A run of the race is the run that `gradtx.train.fit` makes of the same seed and rate.

    Args:
      model: the classifier.
      data: the data set.
      batch_size: examples in a mini-batch; a short last one takes a step of its own.

    Raises:
      TrainingError: `batch_size` is not between 1 and the number of training examples.

    Example:
      >>> from gradtx.racing import classification
      >>> from gradtx.train import load, mlp
      >>> problem = classification(mlp(), load(), 64)
      >>> problem.title, problem.steps
      ('digits · mlp', 23)
    """
    examples = len(data.y_train)
    if not 1 <= batch_size <= examples:
        raise TrainingError(
            f"a batch of {batch_size} is not possible with {examples} training examples"
        )
    evaluate = make_evaluation(model)

    def init(key: Array) -> Params:
        return model.init(key, data.shape, data.classes)

    def measure(params: Params, data: Any) -> tuple[Array, Array]:
        trained, held_back = data
        return evaluate(params, *trained)[0], evaluate(params, *held_back)[1]

    title = f"{data.name} · {model.name}"
    return Problem(
        init,
        classification_loss(model),
        measure,
        jax.tree.map(jnp.asarray, ((data.x_train, data.y_train), (data.x_test, data.y_test))),
        batch_size,
        steps_per_epoch(examples, batch_size),
        title,
        {"problem": title, "data": data.fingerprint(), "batch": batch_size},
    )


def own_problem(
    loss: Callable[[Params, Any], Array],
    init: Any,
    batches: Iterable[Any],
    accuracy: Callable[[Params], Array] | None = None,
) -> Problem:
    """Makes a problem of a loss, initial parameters, and batches.

    Args:
      loss: `loss(params, batch)`, a scalar.
      init: `init(key) -> params`, or the initial parameters themselves, for all seeds.
      batches: a list (or any other finite iterable, but no tuple or mapping) of batches, each a
        pytree of arrays, all of one shape. In every epoch each is seen once, in an order that
        depends on the seed.
      accuracy: `accuracy(params)`, a share from 0 to 1 in which more is better, measured after each
        epoch on data of its own. Default: none.

    Raises:
      TrainingError: there are no batches, they differ in shape, or the loss or the accuracy is not
        a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.racing import own_problem
      >>> batches = [jnp.ones(3), jnp.zeros(2)]
      >>> own_problem(lambda p, x: jnp.mean((p - x) ** 2), jnp.zeros(()), batches)
      Traceback (most recent call last):
      ...
      gradtx.train.errors.TrainingError: race: batch 1 is float32[2], and batch 0 is float32[3]; ...
    """
    stacked, count = _stacked(batches)
    start = init if is_function(init) else lambda key: jax.tree.map(jnp.asarray, init)
    params = jax.eval_shape(start, jax.random.key(0))
    first = jax.tree.map(lambda x: x[0], stacked)
    _check_scalar("loss(params, batch)", jax.eval_shape(loss, params, first))
    if accuracy is not None:
        _check_scalar("accuracy(params)", jax.eval_shape(accuracy, params))

    def loss_of_one(params: Params, batch: Any, counted: Array) -> Array:
        return loss(params, jax.tree.map(lambda x: x[0], batch[1]))

    def measure(params: Params, data: Any) -> tuple[Array, Array | None]:
        losses = jax.lax.map(lambda batch: loss(params, batch[1]), data[0])
        return jnp.mean(losses), None if accuracy is None else jnp.asarray(accuracy(params))

    return Problem(
        start,
        loss_of_one,
        measure,
        ((jnp.arange(count), stacked), ()),  # counted, because a batch may hold no array at all
        1,
        count,
        "",
        {
            "batches": _digest(stacked),
            # A function cannot be told from another one, but what it gives can.
            "loss": f"{float(jax.jit(loss)(start(jax.random.key(0)), first)):.3g}",
        },
    )


def _stacked(batches: Iterable[Any]) -> tuple[Any, int]:
    if isinstance(batches, (tuple, Mapping, np.ndarray, jax.Array)):
        raise TrainingError(
            f"race: batches is of type {type(batches).__name__}, and must be a list of batches, "
            "each a pytree of arrays; of a single batch, give [batch]"
        )
    listed = list(batches)
    if not listed:
        raise TrainingError("race: there are no batches")
    first = _shapes(listed[0])
    for i, batch in enumerate(listed):
        if _shapes(batch) != first:
            raise TrainingError(
                f"race: batch {i} is {_shapes(batch)}, and batch 0 is {first}; they must be of one "
                "shape, so that one compiled step serves all of them"
            )
    return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *listed), len(listed)


def _shapes(batch: Any) -> str:
    def one(x: Any) -> str:
        x = np.asarray(x) if not hasattr(x, "dtype") else x
        return f"{x.dtype}{list(x.shape)}"

    found = jax.tree.map(one, batch)
    return found if isinstance(found, str) else str(found).replace("'", "")


def _check_scalar(what: str, found: Any) -> None:
    if not (hasattr(found, "shape") and found.shape == ()):
        shape = getattr(found, "shape", None)
        told = f"an array of shape {shape}" if shape is not None else f"{found}"
        raise TrainingError(f"race: {what} must be a scalar, got {told}")


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
