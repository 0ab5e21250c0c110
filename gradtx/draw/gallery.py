"""The figures of `gradtx draw`, on built-in problems."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

import gradtx.optimizers as opt
from gradtx import train
from gradtx._arguments import counted
from gradtx.draw.batches import batch_sizes
from gradtx.draw.descending import descent
from gradtx.draw.landscape import loss_surface
from gradtx.draw.lessons import gradient_check, heads, softmax_weights
from gradtx.draw.rates import learning_rates
from gradtx.draw.scheduling import schedules
from gradtx.engine.base import Array, OptState, Params, PyTree, Schedule
from gradtx.problems import Problem, booth, rosenbrock
from gradtx.transforms import reduce_on_plateau

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _saddle(x: Array) -> Array:
    return x[0] ** 2 / 2 - x[1] ** 2 / 2 + x[1] ** 4 / 4


SADDLE = Problem(
    name="a saddle between two minima",
    fun=_saddle,
    start=(1.3, 1e-3),  # close to the ridge, which leads to the saddle point at the origin
    least=-0.25,
    minima=((0.0, 1.0), (0.0, -1.0)),
    elsewhere=(),
    window=((-1.5, 1.5), (-1.5, 1.5)),
    source="x[0]**2 / 2 - x[1]**2 / 2 + x[1]**4 / 4",
    saddles=((0.0, 0.0),),
)


def _descent() -> "Figure":
    optimizers = {
        "sgd": opt.sgd(1e-3),
        "momentum": opt.sgd(1e-3, momentum=0.9),
        "adagrad": opt.adagrad(0.3),
        "rmsprop": opt.rmsprop(0.02),
        "adam": opt.adam(0.1),
        "lbfgs": opt.lbfgs(),
    }
    window = (-1.6, 1.6), (-0.7, 1.7)
    return descent(rosenbrock, optimizers, steps=300, window=window, title="Rosenbrock's valley")


def _at_a_saddle() -> "Figure":
    optimizers = {
        "sgd": opt.sgd(0.05),
        "momentum": opt.sgd(0.05, momentum=0.9),
        "rmsprop": opt.rmsprop(0.03),
        "adam": opt.adam(0.05),
    }
    return descent(SADDLE, optimizers, steps=80, title="At a saddle point, plain descent stalls")


def _learning_rates() -> "Figure":
    rates = {"too small": 0.004, "good": 0.095, "nearly too large": 0.1095, "too large": 0.125}
    return learning_rates(
        booth, opt.sgd, rates, steps=40, title="Gradient descent on Booth's function"
    )


def _batch_sizes() -> "Figure":
    data, model = train.load(), train.softmax()
    loss = _loss_of(model)
    params = model.init(jax.random.key(0), data.shape, data.classes)
    examples = data.x_train, data.y_train
    rates = {len(data.y_train): 1.0, 64: 0.5, 1: 0.05}  # larger batches allow larger rates
    return batch_sizes(
        loss, params, examples, lambda size: opt.sgd(rates[size]), list(rates), epochs=10,
        title="Softmax regression on digits: gradient descent",
    )  # fmt: skip


@functools.cache
def _trained() -> tuple[Callable[[Params], Array], list[Params]]:
    """Trains the MLP on digits; returns its training loss, and its parameters by epoch."""
    data, model = train.load(), train.mlp()
    tx = opt.sgd(0.1, momentum=0.9)
    start = train.begin(model, data, tx)
    path = [jax.tree.map(jnp.copy, start.state.params)]

    def keep(run: train.Progress) -> None:
        path.append(jax.tree.map(jnp.copy, run.state.params))

    train.fit(model, data, tx, epochs=15, start=start, on_epoch=keep)
    examples = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    return lambda params: _loss_of(model)(params, examples), path


def _loss_of(model: train.Model) -> Callable[[Params, PyTree], Array]:
    """Returns the mean loss over all examples of a batch."""
    loss = train.classification_loss(model)
    return lambda params, batch: loss(params, batch, jnp.ones(len(batch[1]), bool))


def _loss_surface() -> "Figure":
    loss, path = _trained()
    title = "MLP on digits: loss along two random filter-normalized directions"
    return loss_surface(loss, path[-1], trajectory=path, title=title)


def _training_path() -> "Figure":
    loss, path = _trained()
    title = "MLP on digits: loss in the plane of its training trajectory, by epoch"
    return loss_surface(loss, path[-1], trajectory=path, directions="path", title=title)


def _schedules() -> "Figure":
    length, peak = train.Length(epochs=30, steps_per_epoch=23), 0.1
    chosen = {name: train.make_schedule(name, peak, length, {}) for name in train.SCHEDULES}
    flat = 8
    del chosen["plateau"]  # it depends on the losses
    chosen[f"plateau, flat from epoch {flat}"] = _on_a_plateau(peak, length, flat)
    title = (
        f"Schedules of a run of {counted(length.epochs, 'epoch')} with "
        f"{counted(length.steps_per_epoch, 'step')} each, peak rate {peak:g}"
    )
    return schedules(chosen, length.steps, title=title)


def _on_a_plateau(peak: float, length: train.Length, flat: int) -> Schedule:
    """Returns the rates of `reduce_on_plateau` when the loss falls until an epoch, and no more."""
    settings, steps = train.schedule_settings("plateau"), length.steps_per_epoch
    tx = reduce_on_plateau(**settings, accumulation_size=steps)

    def step(state: OptState, t: Array) -> tuple[OptState, Array]:
        loss = jnp.maximum(0.0, 1 - t / (flat * steps))
        rate, state = tx.update(jnp.asarray(peak), state, value=loss)
        return state, rate

    rates = jax.lax.scan(step, tx.init(jnp.asarray(peak)), jnp.arange(length.steps + 1.0))[1]
    return lambda count: rates[count]


GALLERY: dict[str, Callable[[], "Figure"]] = {
    "descent": _descent,
    "saddle": _at_a_saddle,
    "learning-rates": _learning_rates,
    "batch-sizes": _batch_sizes,
    "softmax": softmax_weights,
    "gradient-check": gradient_check,
    "heads": heads,
    "loss-surface": _loss_surface,
    "training-path": _training_path,
    "schedules": _schedules,
}
"""Functions that return a figure, by the name of the figure."""
