"""A picture of each optimizer's path through a valley, and of each schedule."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from extension.symbols import PACKAGE, Symbol, public_names
from gradtx import catalog
from gradtx.draw.panels import draw_contours
from gradtx.draw.plane import on_grid
from gradtx.draw.scheduling import schedule_values
from gradtx.draw.style import COLOURS, finish, new_figure, png
from gradtx.problems import Problem

STEPS = 100
VALLEY = Problem(
    name="a valley, ten times as steep across as along",
    fun=lambda x: 0.5 * (x[0] ** 2 + 10.0 * x[1] ** 2),
    start=(-1.8, 0.7),
    least=0.0,
    minima=((0.0, 0.0),),
    elsewhere=(),
    window=((-2.2, 1.0), (-1.0, 1.0)),
    source="x[0]**2 / 2 + 5 * x[1]**2",
)
SCHEDULES = {
    "constant_schedule": {"value": 0.1},
    "cosine_decay_schedule": {"init_value": 0.1, "decay_steps": 100},
    "cosine_onecycle_schedule": {"transition_steps": 100, "peak_value": 0.1},
    "cosine_restarts_schedule": {"peak_value": 0.1, "period": 15, "period_mult": 2},
    "exponential_decay": {"init_value": 0.1, "transition_steps": 20, "decay_rate": 0.5},
    "inverse_time_decay_schedule": {"init_value": 0.1, "rate": 0.1},
    "linear_onecycle_schedule": {"transition_steps": 100, "peak_value": 0.1},
    "linear_schedule": {"init_value": 0.1, "end_value": 0.0, "transition_steps": 100},
    "natural_exp_decay_schedule": {"init_value": 0.1, "rate": 0.05},
    "piecewise_constant_schedule": {
        "init_value": 0.1,
        "boundaries_and_scales": {30: 0.5, 60: 0.2},
    },
    "piecewise_interpolate_schedule": {
        "interpolate_type": "linear",
        "init_value": 0.1,
        "boundaries_and_scales": {30: 0.5, 60: 0.2, 100: 0.5},
    },
    "polynomial_schedule": {
        "init_value": 0.1,
        "end_value": 0.0,
        "power": 2,
        "transition_steps": 100,
    },
    "rectified_schedule": {"value": 0.1, "b2": 0.99},
    "sgdr_schedule": {
        "cosine_kwargs": [
            {"init_value": 0.0, "peak_value": peak, "warmup_steps": 5, "decay_steps": 34}
            for peak in (0.1, 0.06, 0.03)
        ]
    },
    "step_decay_schedule": {"init_value": 0.1, "period": 25},
    "warmup_constant_schedule": {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 20},
    "warmup_cosine_decay_schedule": {
        "init_value": 0.0,
        "peak_value": 0.1,
        "warmup_steps": 20,
        "decay_steps": 100,
    },
    "warmup_exponential_decay_schedule": {
        "init_value": 0.0,
        "peak_value": 0.1,
        "warmup_steps": 20,
        "transition_steps": 20,
        "decay_rate": 0.5,
    },
    "warmup_stable_decay_schedule": {
        "init_value": 0.0,
        "peak_value": 0.1,
        "warmup_steps": 15,
        "stable_steps": 50,
        "decay_steps": 35,
    },
}
"""The arguments with which schedules are drawn, by their names."""


def picture_of(symbol: Symbol) -> tuple[str, str] | None:
    """Returns what a name's picture shows, and its file's name; `None` if it has no picture.

    Args:
      symbol: the name.
    """
    if symbol.is_optimizer:
        probe = catalog.get(symbol.name).probe
        given = ", ".join(f"{name}={value!r}" for name, value in probe.items())
        return f"{STEPS} steps of {symbol.name}({given}) in a valley", f"{symbol.name}.png"
    if symbol.name in SCHEDULES and symbol.path == f"gradtx.{symbol.name}":
        given = ", ".join(f"{name}={value!r}" for name, value in SCHEDULES[symbol.name].items())
        return f"{symbol.name}({given})", f"{symbol.name}.png"
    return None


def write(folder: Path) -> None:
    """Draws the pictures that are not there, or are older than gradtx or this file.

    Args:
      folder: the folder.
    """
    folder.mkdir(exist_ok=True)
    changed = max(file.stat().st_mtime for file in [*PACKAGE.rglob("*.py"), Path(__file__)])
    for symbol in public_names():
        picture = picture_of(symbol)
        if picture is None:
            continue
        file = folder / picture[1]
        if not file.exists() or file.stat().st_mtime < changed:
            drawn = _path(symbol.name) if symbol.is_optimizer else _schedule(symbol.name)
            file.write_bytes(drawn)


@functools.cache
def _surface():
    return on_grid("valley", VALLEY.fun, VALLEY.window, 81, VALLEY.least)


def _descent(tx: gradtx.GradientTransformation) -> tuple[np.ndarray, np.ndarray]:
    """Returns the points and values of an optimizer's steps, from a program compiled cheaply."""

    def fun(params):
        return VALLEY.fun(params["kernel"][0])

    def ascent(params, step=None):
        return jax.grad(fun)(params)

    def one(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(fun)(params)
        more = {"value": value, "grad": grad, "value_fn": fun, "obj_fn": fun, "grad_fn": ascent}
        updates, state = tx.update(grad, state, params, **more)
        moved = gradtx.apply_updates(params, updates)
        return (moved, state), (params["kernel"][0], value)

    def run(params):
        return jax.lax.scan(one, (params, tx.init(params)), length=STEPS + 1)[1]

    cheap = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})
    points, values = cheap({"kernel": jnp.array([VALLEY.start])})
    return np.asarray(points), np.asarray(values)


def _path(name: str) -> bytes:
    """Draws the path of an optimizer, and its values by step."""
    points, values = _descent(catalog.get(name).make())
    figure = new_figure(6.4, 2.4, dpi=100)
    above, by_step = figure.subplots(1, 2, width_ratios=(1.6, 1))
    draw_contours(above, _surface())
    above.plot(*points.T, color=COLOURS[1], linewidth=1.3, marker="o", markersize=2.2)
    above.plot(*VALLEY.start, "o", markerfacecolor="white", markeredgecolor="black", zorder=4)
    above.plot(*VALLEY.minima[0], "X", color="#F0E442", markeredgecolor="black", zorder=4)
    (left, right), (low, high) = VALLEY.window
    above.set(xlim=(left, right), ylim=(low, high), xticks=[], yticks=[])
    by_step.semilogy(values, color=COLOURS[1])
    by_step.set(xlabel="step", title="value")
    by_step.title.set_fontsize(10)
    finish(by_step)
    return png(figure)


def _schedule(name: str) -> bytes:
    """Draws a schedule's value by step."""
    values = schedule_values(getattr(gradtx, name)(**SCHEDULES[name]), 110)
    figure = new_figure(4.6, 2.2, dpi=100)
    axes = figure.subplots()
    axes.plot(values, color=COLOURS[0], linewidth=2)
    axes.set(xlabel="step", ylabel="value", xlim=(0, 110), ylim=(-0.004, 0.107))
    finish(axes)
    return png(figure)
