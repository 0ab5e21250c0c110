"""Finding a learning rate by trying all of them in one short run."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._apply import apply_updates
from gradtx.draw.style import COLOURS, GREY, finish, new_figure
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    with_extra_args_support,
)
from gradtx.state import hyperparams

_RUNNING = 0.9  # of the average that says when to stop: that of about ten losses


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What `lr_range_test` found; `print` tells what it suggests and why.

    Attributes:
      rates: the learning rate of each step.
      losses: each step's loss, before the step; the last one may not be finite.
      smoothed: the losses, averaged over their neighbours; as many as are finite.
      suggestion: the suggested learning rate, or `None` if no rate made the loss fall.
      lowest_at: the learning rate at which the smoothed loss is least.
      diverged: whether it stopped because the loss rose.
      why: the suggestion and its reason, in words.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    lowest_at: float
    diverged: bool
    why: str

    def __str__(self) -> str:
        return self.why

    def picture(self, title: str = "learning-rate range test") -> Any:
        """Draws the losses over the learning rates.

        Args:
          title: the picture's title. Default: what it is.

        Returns:
          A matplotlib figure, made without pyplot; `figure.savefig("range.png")` keeps it.

        Raises:
          TrainingError: matplotlib is not installed.
        """
        figure = new_figure(7, 4.2, dpi=150)
        axes = figure.subplots()
        count = len(self.smoothed)
        rates, colour = self.rates[:count], COLOURS[0]
        axes.plot(rates, self.losses[:count], color=colour, alpha=0.4, linewidth=1, label="loss")
        axes.plot(rates, self.smoothed, color=colour, linewidth=2, label="smoothed")
        marks = [(self.lowest_at, GREY, ":", f"least at {self.lowest_at:.2g}")]
        if self.suggestion is not None:
            text = f"suggested: {self.suggestion:.2g}"
            marks.insert(0, (self.suggestion, COLOURS[1], "-", text))
        for rate, colour, style, text in marks:
            axes.axvline(rate, color=colour, linestyle=style, linewidth=1.5, label=text)
        # A loss that runs away would press all the rest into a line.
        low, first = float(np.min(self.losses[:count])), float(self.smoothed[0])
        margin = 0.3 * max(first - low, 0.1 * abs(first), 1e-12)
        axes.set_ylim(low - margin, first + margin)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate (log scale), one step each")
        axes.set_ylabel("loss before the step")
        axes.set_title(title, fontsize=11)
        finish(axes)
        axes.legend(loc="lower left")
        return figure


def lr_range_test(
    loss: Callable[[Params, Any], Any],
    params: Params,
    batches: Iterable[Any],
    tx: GradientTransformation,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    smoothing: float | None = None,
    rise: float = 0.5,
) -> RangeTest:
    """Trains for a few steps while the learning rate grows, and suggests one.

    Step `k` takes the rate `lowest * (highest / lowest)**(k / (steps - 1))`. Small rates do
    nothing; then the loss falls, faster and faster, until rates are too large and it rises.
    Suggested is the rate at which the smoothed loss falls fastest, before it is least, if it falls
    by more than its noise. Where runs are long, it is worth while to try a third of it as well.

    `params` stay as they are. The rate is given to `tx.update(..., learning_rate=rate)`, which
    every optimizer of the catalog with a learning rate takes, whatever rate or schedule it was made
    with. One step is compiled, for all rates.

    Args:
      loss: `loss(params, batch)`, a scalar.
      params: the parameters to start from.
      batches: mini-batches, pytrees of the same shapes: a list, a generator, or `zip(x, y)` of
        stacked arrays. If there are fewer than `steps`, they are used again, in their order.
      tx: the optimizer.
      lowest: the first rate, above 0. Default: 1e-6.
      highest: the last one. Default: 10.
      steps: how many rates there are, at least 10. Default: 100.
      smoothing: the standard deviation of the bell curve that losses are averaged with, in steps.
        Default: `steps / 50`.
      rise: by how much the running average of losses may rise above its least, as a part of the
        first loss, before the test stops; infinity for never. A loss that is not finite always
        stops it. Default: 0.5.

    Returns:
      A `RangeTest`: `.rates`, `.losses`, `.smoothed`, `.suggestion`, `.why`, `.picture()`.

    Raises:
      ValueError: a setting is out of range, there are no batches, the first loss is not finite, or
        `tx` does not take the learning rate from the call.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186,
    section 3.3, with rates that grow exponentially.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p, batch):
      ...     return jnp.mean((p * jnp.array([1.0, 3.0]) - batch) ** 2)
      >>> batches = [jnp.array([1.0, 2.0]), jnp.array([2.0, 1.0])]
      >>> found = gradtx.lr_range_test(loss, jnp.full(2, 9.0), batches, gradtx.sgd(0.1))
      >>> 0.001 < found.suggestion < 0.2, found.diverged  # 2 / 9 is the largest that is stable
      (True, True)
    """
    _check(lowest, highest, steps, smoothing, rise)
    tx = with_extra_args_support(tx)
    rates = np.geomspace(lowest, highest, steps)
    losses, running, least, diverged = [], 0.0, math.inf, False

    @jax.jit
    def step(params: Params, state: OptState, batch: Any, rate: Array) -> tuple[Any, ...]:
        def value_fn(params: Params) -> Any:
            return loss(params, batch)

        value, grads = jax.value_and_grad(value_fn)(params)
        grads = jax.tree.map(jnp.conj, grads)
        updates, new = tx.update(
            grads, state, params, learning_rate=rate,
            value=value, grad=grads, value_fn=value_fn, obj_fn=value_fn,
        )  # fmt: skip
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype), new, state)
        return apply_updates(params, updates), new, value

    state = jax.tree.map(jnp.asarray, tx.init(params))
    before, stream = _rates_in(state), _repeated(batches)
    for i, rate in enumerate(rates):
        params, state, value = step(params, state, next(stream), jnp.asarray(rate, jnp.float32))
        losses.append(float(value))
        if not math.isfinite(losses[-1]):
            if i == 0:
                raise ValueError(f"lr_range_test: the first loss is {losses[-1]}")
            diverged = True
            break
        running = _RUNNING * running + (1 - _RUNNING) * losses[-1]
        average = running / (1 - _RUNNING ** (i + 1))
        least = min(least, average)
        if average - least > rise * abs(losses[0]):
            diverged = True
            break
    rates = rates[: len(losses)]
    _check_that_it_was_heeded(before, _rates_in(state), rates)
    return _judged(rates, np.array(losses), diverged, smoothing or steps / 50)


def _judged(rates: np.ndarray, losses: np.ndarray, diverged: bool, smoothing: float) -> RangeTest:
    """Finds the suggestion."""
    finite = losses[np.isfinite(losses)]
    smoothed = _smooth(finite, smoothing)
    low = int(np.argmin(smoothed))
    lowest_at = float(rates[low])
    made = functools.partial(
        RangeTest, rates, losses, smoothed, lowest_at=lowest_at, diverged=diverged
    )
    slopes = np.gradient(smoothed)[: low + 1] if len(smoothed) > 1 else np.zeros(1)
    steepest = int(np.argmin(slopes))
    # Of independent errors a mean with weights in a bell curve leaves this part.
    part = 1 / math.sqrt(max(1.0, 2 * math.sqrt(math.pi) * smoothing))
    noise = part * float(np.std((finite - smoothed)[: low + 1]))
    ended = (
        f"the test stopped at {rates[-1]:.2g}, where the loss had risen"
        if diverged
        else f"the test went on to {rates[-1]:.2g}"
    )
    if not smoothed[0] - smoothed[low] > 5 * noise:
        why = (
            f"No rate is suggested: from {rates[0]:.2g} on, none made the smoothed loss fall from "
            f"the {smoothed[0]:.3g} that it began with by more than its noise ({noise:.2g}); "
            f"{ended}."
        )
        return made(suggestion=None, why=why)
    rate = float(rates[steepest])
    why = (
        f"{rate:.2g} is suggested: there the smoothed loss falls fastest, by "
        f"{-slopes[steepest]:.2g} a step. From {smoothed[0]:.3g} it falls to its least, "
        f"{smoothed[low]:.3g}, at {lowest_at:.2g}; {ended}."
    )
    if low == len(smoothed) - 1 and not diverged:
        why += " It was still falling there: a larger highest rate would show more."
    return made(suggestion=rate, why=why)


def _smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Averages over neighbours on both sides, so that nothing is shifted to larger rates."""
    i = np.arange(len(values))
    weights = np.exp(-(((i[:, None] - i) / width) ** 2) / 2)
    return weights @ values / weights.sum(1)


def _repeated(batches: Iterable[Any]) -> Any:
    stream = itertools.cycle(batches)
    try:
        first = next(stream)
    except StopIteration:
        raise ValueError("lr_range_test: there are no batches") from None
    return itertools.chain([first], stream)


def _rates_in(state: OptState) -> list[float]:
    found = hyperparams(state).items()
    return [float(x) for name, x in found if name.split("/")[-1] == "learning_rate"]


def _check_that_it_was_heeded(before: list[float], after: list[float], rates: np.ndarray) -> None:
    """Looks for a rate that was given: the state keeps the one that its last step used."""

    def heeded(old: float, new: float) -> bool:
        # An accumulator's last step may lie back; a rate that never moved was not ours.
        return bool(np.isclose(rates[-1] if new == old else rates, new).any())

    if not any(heeded(*pair) for pair in zip(before, after, strict=True)):
        told = f"its state says {', '.join(map(str, after))}" if after else "its state has none"
        raise ValueError(
            "lr_range_test: tx does not take its learning rate from update(..., learning_rate=x), "
            f"as optimizers of gradtx.catalog with a learning rate do: {told}"
        )


def _check(lowest: Any, highest: Any, steps: Any, smoothing: Any, rise: Any) -> None:
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"lr_range_test: rates go from {lowest} to {highest}, and must grow from above 0"
        )
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 10:
        raise ValueError(f"lr_range_test: steps is {steps!r}, and must be a whole number from 10")
    if smoothing is not None and not 0 < smoothing < math.inf:
        raise ValueError(f"lr_range_test: smoothing is {smoothing}, and must be above 0")
    if not rise > 0:
        raise ValueError(f"lr_range_test: rise is {rise}, and must be above 0")
