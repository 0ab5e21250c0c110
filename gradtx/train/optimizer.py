"""The optimizer of a run, built from its options."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import catalog
from gradtx.engine.base import (
    GradientTransformation,
    OptState,
    Params,
    ScalarOrSchedule,
    Updates,
)
from gradtx.train.errors import TrainingError
from gradtx.train.schedules import Length, make_schedule, schedule_settings
from gradtx.train.settings import check_settings, options_of, show
from gradtx.transforms import add_decayed_weights, chain, clip_by_global_norm, reduce_on_plateau

_EMPTY = inspect.Parameter.empty


class Recipe(NamedTuple):
    """An optimizer with its description.

    Attributes:
      tx: the optimizer.
      rate: its learning rate, a number or a schedule; `None` if it has none.
      summary: the names of its parts, in the order in which they transform the gradients.
    """

    tx: GradientTransformation
    rate: ScalarOrSchedule | None
    summary: str


def default_learning_rate(name: str) -> float | None:
    """Returns the learning rate of an optimizer for which none was given.

    It is the default of the optimizer's factory; or else `usual_rate` of its catalog entry, a rate
    for neural networks; or else the rate of the entry's `probe`, which suits a small problem; or
    else `None`.

    Args:
      name: the optimizer's name in the catalog.

    Example:
      >>> from gradtx.train import default_learning_rate
      >>> default_learning_rate("adam")
      0.001
    """
    entry = catalog.get(name)
    default = entry.hyperparameters.get(entry.rate)
    choices = (default, entry.usual_rate, entry.probe.get(entry.rate))
    return next((rate for rate in choices if rate is not None), None)


def build_optimizer(
    name: str,
    length: Length,
    *,
    learning_rate: float | None = None,
    settings: Mapping[str, Any] | None = None,
    schedule: str = "constant",
    schedule_set: Mapping[str, Any] | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
) -> Recipe:
    """Builds an optimizer of the catalog with gradient clipping, weight decay and a schedule.

    Gradients are clipped first. If the optimizer's factory has a `weight_decay`, weight decay is
    the optimizer's own (decoupled from the gradient in AdamW, for example); otherwise
    `weight_decay * params` is added to the gradient, which is an L2 penalty.

    Args:
      name: the optimizer's name in the catalog.
      length: the length of the run, for the schedule.
      learning_rate: the peak rate, or the peak of the hyperparameter that takes its place (such as
        the factor of Polyak's rate). Default: `default_learning_rate(name)`.
      settings: hyperparameters of the optimizer. Default: the defaults of its factory.
      schedule: a name in `SCHEDULES`. Default: a constant rate.
      schedule_set: changes to the schedule's settings. Default: none.
      weight_decay: the weight decay. Default: the optimizer's own default, or none.
      clip: the largest global norm of the gradient. Default: no clipping.

    Raises:
      TrainingError: there is no such optimizer, or it does not accept these settings.

    Example:
      >>> from gradtx.train import Length, build_optimizer
      >>> length = Length(epochs=10, steps_per_epoch=23)
      >>> build_optimizer("sgd", length, learning_rate=0.2, weight_decay=1e-4, clip=1.0).summary
      'clip to norm 1.0 -> L2 penalty 0.0001 -> sgd(learning_rate=0.2)'
    """
    try:
        entry = catalog.get(name)
    except catalog.UnknownOptimizer as error:
        raise TrainingError(str(error)) from None
    options = options_of(entry.factory)
    settings, schedule_set = dict(settings or {}), dict(schedule_set or {})
    for key, flag, value in (
        (entry.rate, "--learning-rate", learning_rate),
        ("weight_decay", "--weight-decay", weight_decay),
    ):
        if key in settings and (value is not None or key == entry.rate):
            raise TrainingError(f"--set {key}={show(settings[key])}: use {flag} alone instead")
    others = {key: default for key, default in options.items() if key != entry.rate}
    check_settings("--set", name, settings, others)

    rate = peak = default_learning_rate(name) if learning_rate is None else learning_rate
    # Arguments without a default get the values of the catalog's probe.
    needed = {k: entry.probe[k] for k, v in options.items() if v is _EMPTY and k in entry.probe}
    arguments = {**needed, **settings}
    if entry.rate in options:
        if rate is not None:
            rate = arguments[entry.rate] = make_schedule(schedule, rate, length, schedule_set)
    elif learning_rate is not None or schedule not in ("constant", "plateau"):
        raise TrainingError(
            f"{name} takes no learning rate, so neither --learning-rate nor --schedule {schedule} "
            f"can be given; its settings are {', '.join(options)}"
        )
    own_decay = weight_decay is not None and "weight_decay" in options
    if own_decay:
        arguments["weight_decay"] = weight_decay

    shown = dict(arguments)
    if callable(rate):
        shown[entry.rate] = f"{schedule}({_list({'peak': peak, **schedule_set})})"
    parts: list[tuple[str, GradientTransformation]] = []
    try:
        if clip is not None:
            parts.append((f"clip to norm {clip}", clip_by_global_norm(clip)))
        if weight_decay is not None and not own_decay:
            parts.append((f"L2 penalty {weight_decay}", add_decayed_weights(weight_decay)))
        own = " (weight decay: its own)" if own_decay else ""
        parts.append((f"{name}({_list(shown)}){own}", entry.factory(**arguments)))
        if schedule == "plateau":
            plateau = {**schedule_settings(schedule), **schedule_set}
            piece = reduce_on_plateau(**plateau, accumulation_size=length.steps_per_epoch)
            parts.append((f"reduce on plateau({_list(plateau)})", piece))
    except (TypeError, ValueError) as error:
        told = str(error).removeprefix(f"{name}: ")
        raise TrainingError(f"{name} does not accept these settings: {told}") from None
    texts, pieces = zip(*parts, strict=True)
    tx = pieces[0] if len(pieces) == 1 else chain(*pieces)
    return Recipe(tx, rate, " -> ".join(texts))


def check_trains(name: str, tx: GradientTransformation, params: Params) -> None:
    """Checks that an optimizer accepts a model's parameters, by tracing one step.

    Args:
      name: the optimizer's name, for messages.
      tx: the optimizer.
      params: the parameters, or their shapes and dtypes.

    Raises:
      TrainingError: it does not accept these parameters, or its settings are invalid.
    """

    def step(params: Params, value: jax.Array) -> tuple[Updates, OptState]:
        def loss(params: Params) -> jax.Array:
            return value

        extra = {"value": value, "grad": params, "value_fn": loss, "obj_fn": loss}
        return tx.update(params, tx.init(params), params, **extra)

    try:
        jax.eval_shape(step, params, jax.ShapeDtypeStruct((), jnp.float32))
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{name} cannot train this model: {error}") from None


def _list(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={show(value)}" for key, value in arguments.items())
