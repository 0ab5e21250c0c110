"""One optimizer's whole grid, learning rates x seeds, as one program."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation, Params, with_extra_args_support
from gradtx.train.epoch import Loss, TrainState, make_epoch


class Problem(NamedTuple):
    """What is raced on.

    Attributes:
      init: `init(key) -> params`, the initial parameters.
      loss: `loss(params, batch, counted)`, as `gradtx.train.make_epoch` takes it.
      measure: `measure(params, data) -> (loss, accuracy)`, after each epoch: the loss on all the
        examples, and the accuracy, a share from 0 to 1, or `None`.
      data: what is trained on and what is held back, two pytrees of arrays; the first axes of the
        former run over the examples.
      batch_size: how many examples a step takes.
      steps: the steps of an epoch.
      title: what it is, for people.
      config: what tells this problem from others, in values that JSON has.
    """

    init: Callable[[Array], Params]
    loss: Loss
    measure: Callable[[Params, Any], tuple[Array, Array | None]]
    data: tuple[Any, Any]
    batch_size: int
    steps: int
    title: str
    config: Mapping[str, Any]


class Curves(NamedTuple):
    """What was measured.

    Attributes:
      loss: the loss on all the examples; infinity where it was not finite.
      accuracy: the accuracy, 0 where it or the loss was not finite; `None` if none is measured.
    """

    loss: Array
    accuracy: Array | None


class Start(NamedTuple):
    """Where the runs of each seed begin; the first axes run over the seeds.

    Attributes:
      params: the initial parameters.
      shuffle: the key that each epoch's order of examples comes from.
      curves: what is measured before any step, `[seeds]`.
    """

    params: Params
    shuffle: Array
    curves: Curves


def make_start(problem: Problem) -> Callable[[Array, Any], Start]:
    """Makes the function that gives each seed's initial parameters, the same for all optimizers.

    Args:
      problem: what is raced on.

    Returns:
      `start(seeds, data) -> Start`, to be compiled; `seeds` is an array of whole numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.racing import make_start, own_problem
      >>> problem = own_problem(lambda p, x: jnp.mean((p - x) ** 2), jnp.zeros(()), [jnp.ones(4)])
      >>> print(make_start(problem)(jnp.arange(2), problem.data).curves.loss)
      [1. 1.]
    """

    def one(seed: Array, data: Any) -> Start:
        initial, shuffle = jax.random.split(jax.random.key(seed))  # as `train.fit` has them
        params = problem.init(initial)
        return Start(params, shuffle, _measured(problem, params, data))

    def start(seeds: Array, data: Any) -> Start:
        return _over_seeds()(lambda seed: one(seed, data))(seeds)

    return start


def make_grid(
    problem: Problem,
    make: Callable[[Any], GradientTransformation],
    epochs: int,
    on_epoch: Callable[[Any], None] | None = None,
) -> Callable[[Array, Start, Any], Curves]:
    """Makes the function that trains with every learning rate and every seed.

    The seed decides the initial parameters and the order of the examples, so all rates and all
    optimizers meet the same ones. On accelerators all runs go on together; on a CPU those of one
    seed do, and the next seed follows: what its caches can hold is done faster.

    Args:
      problem: what is raced on.
      make: the optimizer, as a function of its learning rate, which is traced.
      epochs: how many epochs are trained.
      on_epoch: called on the host, while the program runs, with the losses `[rates]` of a seed
        after an epoch. Default: nothing is called.

    Returns:
      `grid(rates, start, data) -> curves`, each `[seeds, epochs, rates]`, to be compiled; `rates`
      is an array of one axis.

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

    def train(state: TrainState, rate: Array, key: Array, examples: Any) -> TrainState:
        epoch = make_epoch(problem.loss, transformation(rate), problem.batch_size)
        return epoch(state, key, examples)[0]

    def one_seed(rates: Array, start: Start, data: Any) -> Curves:
        def begin(rate: Array) -> TrainState:
            return TrainState(start.params, transformation(rate).init(start.params))

        def epoch(state: TrainState, number: Array) -> tuple[TrainState, Curves]:
            # The key has no axis of rates: examples are shuffled and gathered once for all of them.
            key = jax.random.fold_in(start.shuffle, number)
            state = jax.vmap(train, (0, 0, None, None))(state, rates, key, data[0])
            curves = jax.vmap(lambda params: _measured(problem, params, data))(state.params)
            if on_epoch is not None:
                jax.debug.callback(on_epoch, curves.loss)
            return state, curves

        return jax.lax.scan(epoch, jax.vmap(begin)(rates), jnp.arange(epochs))[1]

    def grid(rates: Array, start: Start, data: Any) -> Curves:
        return _over_seeds()(lambda start: one_seed(rates, start, data))(start)

    return grid


def _over_seeds() -> Callable[[Callable], Callable]:
    """On a CPU, random numbers for one seed also compile in half the time of those for many."""
    return _one_by_one if jax.default_backend() == "cpu" else jax.vmap


def _one_by_one(function: Callable) -> Callable:
    return lambda xs: jax.lax.map(function, xs)


def _measured(problem: Problem, params: Params, data: Any) -> Curves:
    loss, accuracy = problem.measure(params, data)
    finite = jnp.isfinite(loss)
    if accuracy is not None:
        accuracy = jnp.where(finite & jnp.isfinite(accuracy), accuracy, 0)
    return Curves(jnp.where(finite, loss, jnp.inf), accuracy)
