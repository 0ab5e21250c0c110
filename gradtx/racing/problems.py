"""The problems of races: any loss function, or the classifiers of `gradtx train`."""

import hashlib
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, Params, PyTree, is_function
from gradtx.racing.grid import Problem
from gradtx.train.data import Data
from gradtx.train.epoch import classification_loss, make_evaluation, steps_per_epoch
from gradtx.train.errors import TrainingError
from gradtx.train.models import Model


def classification(model: Model, data: Data, batch_size: int) -> Problem:
    """Returns the problem of training a classifier: training loss and test accuracy.

    A run of the race equals the run of `gradtx.train.fit` with the same seed and rate.

    Args:
      model: the classifier.
      data: the data set.
      batch_size: the number of examples in a mini-batch; the last one may be smaller.

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
            f"race: batch_size must be from 1 to {examples}, the number of training examples, got "
            f"{batch_size}"
        )
    evaluate = make_evaluation(model)

    def init(key: Array) -> Params:
        return model.init(key, data.shape, data.classes)

    def measure(params: Params, data: PyTree) -> tuple[Array, Array]:
        train, test = data
        return evaluate(params, *train)[0], evaluate(params, *test)[1]

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
        "nats",
        "the mean cross entropy on the training examples and the accuracy on the test examples",
    )


def own_problem(
    loss: Callable[[Params, PyTree], Array],
    init: Params | Callable[[Array], Params],
    batches: Iterable[PyTree],
    accuracy: Callable[[Params], Array] | None = None,
) -> Problem:
    """Returns the problem of a loss function, initial parameters, and batches.

    Args:
      loss: `loss(params, batch)`, a scalar.
      init: `init(key) -> params`, or the initial parameters themselves, for all seeds.
      batches: a list (or any other finite iterable except tuples, mappings and arrays) of batches,
        each a pytree of arrays, all of the same shapes. Every epoch uses each batch once, in an
        order that depends on the seed.
      accuracy: `accuracy(params)`, from 0 to 1, where higher is better; measured after each epoch.
        Default: none.

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
      gradtx.train.errors.TrainingError: race: all batches must have the same shapes, got ...
    """
    stacked, count = _stacked(batches)
    start = init if is_function(init) else lambda key: jax.tree.map(jnp.asarray, init)
    params = jax.eval_shape(start, jax.random.key(0))
    first = jax.tree.map(lambda x: x[0], stacked)
    _check_scalar("loss(params, batch)", jax.eval_shape(loss, params, first))
    if accuracy is not None:
        _check_scalar("accuracy(params)", jax.eval_shape(accuracy, params))

    def loss_of_one(params: Params, batch: PyTree, counted: Array) -> Array:
        return loss(params, jax.tree.map(lambda x: x[0], batch[1]))

    def measure(params: Params, data: PyTree) -> tuple[Array, Array | None]:
        losses = jax.lax.map(lambda batch: loss(params, batch[1]), data[0])
        return jnp.mean(losses), None if accuracy is None else jnp.asarray(accuracy(params))

    return Problem(
        start,
        loss_of_one,
        measure,
        ((jnp.arange(count), stacked), ()),  # with indices, because a batch may have no arrays
        1,
        count,
        "",
        {
            "batches": digest(stacked),
            # Functions cannot be compared, but their values can.
            "loss": f"{float(jax.jit(loss)(start(jax.random.key(0)), first)):.3g}",
        },
    )


def _stacked(batches: Iterable[PyTree]) -> tuple[PyTree, int]:
    if isinstance(batches, (tuple, Mapping, np.ndarray, jax.Array)):
        raise TrainingError(
            "race: batches must be a list of batches, each a pytree of arrays, got "
            f"{type(batches).__name__}; give a single batch as [batch]"
        )
    listed = list(batches)
    if not listed:
        raise TrainingError("race: there are no batches")
    first = _shapes(listed[0])
    for i, batch in enumerate(listed):
        if _shapes(batch) != first:
            raise TrainingError(
                f"race: all batches must have the same shapes, got {first} for batch 0 and "
                f"{_shapes(batch)} for batch {i}"
            )
    return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *listed), len(listed)


def _shapes(batch: PyTree) -> str:
    def one(x: ArrayLike) -> str:
        array = x if isinstance(x, jax.Array) else np.asarray(x)
        return f"{array.dtype}{list(array.shape)}"

    found = jax.tree.map(one, batch)
    return found if isinstance(found, str) else str(found).replace("'", "")


def _check_scalar(what: str, found: PyTree) -> None:
    if not (hasattr(found, "shape") and found.shape == ()):
        shape = getattr(found, "shape", None)
        given = f"an array of shape {shape}" if shape is not None else f"{found}"
        raise TrainingError(f"race: {what} must be a scalar, got {given}")


def digest(tree: PyTree) -> str:
    """Returns a short digest of the arrays of a pytree, which identifies data in saved results.

    Args:
      tree: a pytree of arrays.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
