"""The grid of an optimizer, learning rates x seeds, as one program."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    PyTree,
    with_extra_args_support,
)
from gradtx.racing.entrants import Factory
from gradtx.train.epoch import Loss, TrainState, make_epoch


class Problem(NamedTuple):
    """The problem of a race.

    Attributes:
      init: `init(key) -> params`, the initial parameters.
      loss: `loss(params, batch, counted)`, as in `gradtx.train.make_epoch`.
      measure: `measure(params, data) -> (loss, accuracy)`, called after each epoch: the loss on all
        training examples, and the accuracy from 0 to 1, or `None`.
      data: the training and the test data, two pytrees of arrays; the first axes of the training
        data run over the examples.
      batch_size: the number of examples in a step.
      steps: the number of steps in an epoch.
      title: the title of the figures.
      config: values of JSON's types that identify the problem in saved results.
      unit: the unit of the loss. Default: none.
      measured: what `measure` measures, in words. Default: the loss of `own_problem`.
      large: whether one run keeps a device busy and fills its memory, so that runs must follow one
        another. Default: no.
    """

    init: Callable[[Array], Params]
    loss: Loss
    measure: Callable[[Params, PyTree], tuple[Array, Array | None]]
    data: tuple[PyTree, PyTree]
    batch_size: int
    steps: int
    title: str
    config: Mapping[str, str | int]
    unit: str = ""
    measured: str = "the mean loss over the batches"
    large: bool = False


class Curves(NamedTuple):
    """The measurements of runs.

    Attributes:
      loss: the loss on all training examples; infinity where it is not finite.
      accuracy: the accuracy, 0 where it or the loss is not finite; `None` if it is not measured.
    """

    loss: Array
    accuracy: Array | None


class Start(NamedTuple):
    """The start of the runs of each seed; the first axes run over the seeds.

    Attributes:
      params: the initial parameters.
      shuffle: the key from which each epoch's order of examples is derived.
      curves: the measurements before the first step, `[seeds]`.
    """

    params: Params
    shuffle: Array
    curves: Curves


def make_start(problem: Problem) -> Callable[[Array, PyTree], Start]:
    """Returns the function that computes each seed's start, the same for all optimizers.

    Args:
      problem: the problem.

    Returns:
      `start(seeds, data) -> Start`, to be compiled; `seeds` is an array of integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.racing import make_start, own_problem
      >>> problem = own_problem(lambda p, x: jnp.mean((p - x) ** 2), jnp.zeros(()), [jnp.ones(4)])
      >>> print(make_start(problem)(jnp.arange(2), problem.data).curves.loss)
      [1. 1.]
    """

    def one(seed: Array, data: PyTree) -> Start:
        initial, shuffle = jax.random.split(jax.random.key(seed))  # as in `train.fit`
        params = problem.init(initial)
        return Start(params, shuffle, _measured(problem, params, data))

    def start(seeds: Array, data: PyTree) -> Start:
        return _over_seeds(problem)(lambda seed: one(seed, data))(seeds)

    return start


def make_grid(
    problem: Problem,
    make: Factory,
    epochs: int,
    on_epoch: Callable[[Array], None] | None = None,
) -> Callable[[Array, Start, PyTree], Curves]:
    """Returns the function that trains with every learning rate and every seed.

    The seed decides the initial parameters and the order of the examples, so they are the same for
    all rates and all optimizers. On accelerators all runs are batched; on a CPU the runs of one
    seed are batched and the seeds follow one another, which is faster because it uses the caches
    better. The runs of a `large` problem follow one another everywhere, and those of one seed on a
    CPU if the optimizer has branches (`lax.cond`), because batched runs compute all of them: SOAP
    would compute eigenvectors at every step.

    Args:
      problem: the problem.
      make: the optimizer, as a function of its learning rate, which is traced.
      epochs: the number of epochs.
      on_epoch: a callback on the host that receives, while the program runs, the losses `[rates]`
        of a seed after each epoch. Default: none.

    Returns:
      `grid(rates, start, data) -> curves`, to be compiled; `rates` has one axis, and the curves
      have the shape `[seeds, epochs, rates]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.racing import make_grid, make_start, own_problem
      >>> problem = own_problem(lambda p, x: jnp.mean((p - x) ** 2), jnp.zeros(()), [jnp.ones(4)])
      >>> start = make_start(problem)(jnp.arange(1), problem.data)
      >>> grid = jax.jit(make_grid(problem, gradtx.sgd, epochs=2))
      >>> print(grid(jnp.array([0.25, 0.5]), start, problem.data).loss)
      [[[0.25   0.    ]
        [0.0625 0.    ]]]
    """

    def transformation(rate: Array) -> GradientTransformation:
        return with_extra_args_support(make(rate))

    def one_seed(rates: Array, start: Start, data: PyTree) -> Curves:
        def begin(rate: Array) -> TrainState:
            return TrainState(start.params, transformation(rate).init(start.params))

        def train(state: TrainState, rate: Array, key: Array) -> TrainState:
            steps = make_epoch(problem.loss, transformation(rate), problem.batch_size)
            return steps(state, key, data[0])[0]

        alone = problem.large or (
            jax.default_backend() == "cpu" and _has_branches(train, begin, rates, start.shuffle)
        )
        over_rates = _one_by_one if alone else jax.vmap

        def epoch(state: TrainState, number: Array) -> tuple[TrainState, Curves]:
            # The key has no axis of rates: examples are shuffled and gathered once for all of them.
            key = jax.random.fold_in(start.shuffle, number)
            state = over_rates(lambda state, rate: train(state, rate, key))(state, rates)
            curves = over_rates(lambda params: _measured(problem, params, data))(state.params)
            if on_epoch is not None:
                jax.debug.callback(on_epoch, curves.loss)
            return state, curves

        return jax.lax.scan(epoch, jax.vmap(begin)(rates), jnp.arange(epochs))[1]

    def grid(rates: Array, start: Start, data: PyTree) -> Curves:
        return _over_seeds(problem)(lambda start: one_seed(rates, start, data))(start)

    return grid


def _over_seeds(problem: Problem) -> Callable[[Callable], Callable]:
    """Returns the map over seeds.

    On a CPU, random numbers for one seed also compile in half the time of those for many.
    """
    return _one_by_one if problem.large or jax.default_backend() == "cpu" else jax.vmap


def _has_branches(train: Callable, begin: Callable, rates: Array, key: Array) -> bool:
    """Returns whether the program of a run has branches."""
    rate = jax.ShapeDtypeStruct((), rates.dtype)
    return " cond[" in str(jax.make_jaxpr(lambda x: train(begin(x), x, key))(rate))


def _one_by_one(function: Callable) -> Callable:
    return lambda *xs: jax.lax.map(lambda x: function(*x), xs)


def _measured(problem: Problem, params: Params, data: PyTree) -> Curves:
    loss, accuracy = problem.measure(params, data)
    finite = jnp.isfinite(loss)
    if accuracy is not None:
        accuracy = jnp.where(finite & jnp.isfinite(accuracy), accuracy, 0)
    return Curves(jnp.where(finite, loss, jnp.inf), accuracy)
