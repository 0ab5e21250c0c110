"""Training a classifier, epoch by epoch."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, GradientTransformation, OptState, PyTree
from gradtx.train.data import Data
from gradtx.train.epoch import (
    Steps,
    TrainState,
    classification_loss,
    make_epoch,
    make_evaluation,
    steps_per_epoch,
)
from gradtx.train.errors import DivergenceError, TrainingError
from gradtx.train.models import Model


class Row(NamedTuple):
    """The measurements after an epoch.

    Attributes:
      epoch: the number of epochs trained.
      step: the number of steps taken.
      train_loss: the mean loss over all training examples, with the parameters at the epoch's end.
      train_accuracy: the fraction of training examples that these parameters classify correctly.
      test_loss: the mean loss over the test examples.
      test_accuracy: the fraction of test examples that are classified correctly.
      learning_rate: the rate of the last step; `None` if the state does not have it.
      seconds: the duration of the epoch, with compilation in the first.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    learning_rate: float | None
    seconds: float


class Progress(NamedTuple):
    """The progress of a run.

    Attributes:
      state: parameters and optimizer state.
      history: the measurements after each epoch.
    """

    state: TrainState
    history: tuple[Row, ...] = ()

    @property
    def epoch(self) -> int:
        """The number of epochs trained."""
        return len(self.history)


class _Measures(NamedTuple):
    train_loss: Array
    train_accuracy: Array
    test_loss: Array
    test_accuracy: Array


def begin(model: Model, data: Data, tx: GradientTransformation, *, seed: int = 0) -> Progress:
    """Returns the progress of a new run: initial parameters and optimizer state.

    Args:
      model: the classifier.
      data: the data set.
      tx: the optimizer.
      seed: the seed of the initial parameters. Default: 0.

    Example:
      >>> import gradtx
      >>> from gradtx import train
      >>> run = train.begin(train.softmax(), train.load(), gradtx.sgd(0.1))
      >>> run.epoch, run.state.params["logits"]["bias"].shape
      (0, (10,))
    """
    # Under `jit` every leaf has its own buffer, which donation needs.
    return Progress(jax.jit(functools.partial(_init, model, data.shape, data.classes, tx))(seed))


def _init(
    model: Model, shape: tuple[int, ...], classes: int, tx: GradientTransformation, seed: ArrayLike
) -> TrainState:
    params = model.init(_keys(seed)[0], shape, classes)
    return TrainState(params, tx.init(params))


def _keys(seed: ArrayLike) -> tuple[Array, Array]:
    """Returns the key of the initial parameters, and the one from which to derive epochs' keys."""
    initial, shuffle = jax.random.split(jax.random.key(seed))
    return initial, shuffle


def fit(
    model: Model,
    data: Data,
    tx: GradientTransformation,
    *,
    epochs: int,
    batch_size: int = 64,
    seed: int = 0,
    start: Progress | None = None,
    on_epoch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Trains a classifier.

    An epoch, with its shuffling, all its steps and the measurements after it, is one compiled call
    that reuses the buffers of the parameters and of the optimizer's state. The order of examples
    depends only on `seed` and the number of the epoch, so a run that continues from `start` takes
    exactly the steps of an uninterrupted run.

    Args:
      model: the classifier, for instance `gradtx.train.MODELS["mlp"]()`.
      data: the data set, for instance `gradtx.train.load()`.
      tx: the optimizer.
      epochs: the total number of epochs, those of `start` included.
      batch_size: the number of examples in a mini-batch; the last one may be smaller. Default: 64.
      seed: the seed of the initial parameters and of the shuffling. Default: 0.
      start: the progress to continue from, which is not modified. Default: a new run.
      on_epoch: a callback that receives the progress after each epoch. Its arrays are valid until
        the callback returns, because the next epoch reuses their memory: copy those to be kept.
        Default: none.

    Returns:
      The progress after the last epoch.

    Raises:
      TrainingError: `batch_size` is not between 1 and the number of training examples.
      DivergenceError: the loss or the parameters are not finite; the message names the step.

    Example:
      >>> import gradtx
      >>> from gradtx import train
      >>> run = train.fit(train.MODELS["softmax"](), train.load(), gradtx.adam(0.01), epochs=5)
      >>> run.history[-1].test_accuracy > 0.9
      True
    """
    examples = len(data.y_train)
    if not 1 <= batch_size <= examples:
        raise TrainingError(
            f"batch_size must be from 1 to {examples}, the number of training examples, got "
            f"{batch_size}"
        )
    steps = steps_per_epoch(examples, batch_size)
    train = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    test = jnp.asarray(data.x_test), jnp.asarray(data.y_test)
    shuffle = _keys(seed)[1]
    advance = _compiled_epoch(model, tx, batch_size)

    progress = start or begin(model, data, tx, seed=seed)
    if start is not None:
        progress = progress._replace(state=jax.tree.map(jnp.copy, progress.state))
    for epoch in range(progress.epoch, epochs):
        began = time.perf_counter()
        state, trace, measures = advance(
            progress.state, jax.random.fold_in(shuffle, epoch), train, test
        )
        jax.block_until_ready(measures)
        seconds = time.perf_counter() - began
        _check_finite(trace, measures, epoch, steps)
        row = Row(
            epoch + 1,
            (epoch + 1) * steps,
            *(float(m) for m in measures),
            learning_rate=learning_rate(state.opt_state),
            seconds=seconds,
        )
        progress = Progress(state, (*progress.history, row))
        if on_epoch is not None:
            on_epoch(progress)
    return progress


@functools.lru_cache(maxsize=16)  # continuing with the same optimizer compiles nothing
def _compiled_epoch(model: Model, tx: GradientTransformation, batch_size: int) -> Callable:
    train_epoch = make_epoch(classification_loss(model), tx, batch_size)
    evaluate = make_evaluation(model)

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(
        state: TrainState, key: Array, train: tuple[Array, Array], test: tuple[Array, Array]
    ) -> tuple[TrainState, Steps, _Measures]:
        state, steps = train_epoch(state, key, train)
        return (
            state,
            steps,
            _Measures(*evaluate(state.params, *train), *evaluate(state.params, *test)),
        )

    return advance


def _check_finite(trace: Steps, measures: _Measures, epoch: int, steps: int) -> None:
    finite = np.asarray(trace.finite)
    if finite.all():
        if np.isfinite(measures).all():
            return
        first, what = steps - 1, "the loss on the whole data set was not finite after it"
    else:
        first = int(np.argmin(finite))
        loss = float(trace.loss[first])
        what = (
            f"the parameters were not finite after it (its loss was {loss:.6g})"
            if np.isfinite(loss)
            else f"its loss was {loss}"
        )
    raise DivergenceError(
        f"diverged at step {epoch * steps + first + 1}, step {first + 1} of {steps} in epoch "
        f"{epoch + 1}: {what}; try a smaller learning rate, or clipping",
        step=epoch * steps + first + 1,
        epoch=epoch + 1,
    )


def learning_rate(state: OptState) -> float | None:
    """Returns the learning rate of the last step, read from an optimizer's state.

    It is the first field `learning_rate` in the state, times the scales of `reduce_on_plateau`.

    Args:
      state: the state.

    Returns:
      The rate, or `None` if the state has no such field.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.train import learning_rate
      >>> learning_rate(gradtx.adam(0.25).init(jnp.zeros(2)))
      0.25
    """
    rates, scales = [], []

    def visit(node: PyTree) -> None:
        if isinstance(node, tuple):
            fields = getattr(node, "_fields", ())
            if "learning_rate" in fields:
                rates.append(float(node.learning_rate))  # pyright: ignore
            if "plateau_count" in fields:
                scales.append(float(node.scale))  # pyright: ignore
            for child in node:
                visit(child)
        elif isinstance(node, dict):
            for child in node.values():
                visit(child)

    visit(state)
    return rates[0] * float(np.prod(scales)) if rates else None
