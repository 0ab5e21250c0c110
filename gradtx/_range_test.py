"""The learning-rate range test: one short run with a growing learning rate."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import TYPE_CHECKING

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
    PyTree,
    with_extra_args_support,
)
from gradtx.state import hyperparams

_RUNNING = 0.9  # decay rate of the average that decides when to stop: about ten losses

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """The result of `lr_range_test`; `print` shows the suggested rate and the reason for it.

    Attributes:
      rates: the learning rate of each step.
      losses: the loss before each step; the last one may not be finite.
      smoothed: the finite losses, averaged over neighbouring steps.
      suggestion: the suggested learning rate, or `None` if no rate made the loss fall.
      lowest_at: the learning rate at which the smoothed loss is lowest.
      diverged: whether the test stopped because the loss rose.
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

    def picture(self, title: str = "learning-rate range test") -> "Figure":
        """Draws the losses against the learning rates.

        Args:
          title: the title. Default: "learning-rate range test".

        Returns:
          A matplotlib figure, made without pyplot; `figure.savefig("range.png")` writes it.

        Raises:
          TrainingError: matplotlib is not installed.
        """
        figure = new_figure(7, 4.2, dpi=150)
        axes = figure.subplots()
        count = len(self.smoothed)
        rates, colour = self.rates[:count], COLOURS[0]
        axes.plot(rates, self.losses[:count], color=colour, alpha=0.4, linewidth=1, label="loss")
        axes.plot(rates, self.smoothed, color=colour, linewidth=2, label="smoothed")
        marks = [(self.lowest_at, GREY, ":", f"lowest at {self.lowest_at:.2g}")]
        if self.suggestion is not None:
            text = f"suggested: {self.suggestion:.2g}"
            marks.insert(0, (self.suggestion, COLOURS[1], "-", text))
        for rate, colour, style, text in marks:
            axes.axvline(rate, color=colour, linestyle=style, linewidth=1.5, label=text)
        # A diverging loss would compress all the rest into a line: the axis ends with the losses
        # up to the lowest.
        before = self.losses[: max(int(np.argmin(self.smoothed)) + 1, 2)]
        low, high = float(np.min(self.losses[:count])), float(np.max(before))
        margin = 0.05 * (high - low) or 1e-12
        axes.set_ylim(low - margin, high + margin)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate (log scale), one step each")
        axes.set_ylabel("loss before the step")
        axes.set_title(title, fontsize=11)
        finish(axes)
        axes.legend(loc="lower left")
        return figure


def lr_range_test(
    loss: Callable[[Params, PyTree], Array],
    params: Params,
    batches: Iterable[PyTree],
    tx: GradientTransformation,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    smoothing: float | None = None,
    rise: float = 0.5,
) -> RangeTest:
    """Trains for a few steps while the learning rate grows, and suggests a learning rate.

    Step `k` uses the rate `lowest * (highest / lowest)**(k / (steps - 1))`. At small rates the loss
    hardly changes; then it falls, faster and faster, until the rates are too large and it rises.
    The suggestion is the rate at which the smoothed loss falls fastest, before its minimum,
    provided that it falls by more than its noise. For long runs, also try a third of that rate.

    `params` are not modified. The rate is passed as `tx.update(..., learning_rate=rate)`, which
    every optimizer of the catalog with a learning rate accepts, whatever rate or schedule it was
    created with. The step is compiled once, for all rates.

    Args:
      loss: `loss(params, batch)`, a scalar.
      params: the parameters to start from.
      batches: mini-batches, pytrees of the same shapes: a list, a generator, or `zip(x, y)` of
        stacked arrays. If there are fewer than `steps`, they are repeated in the same order.
      tx: the optimizer.
      lowest: the first rate, above 0. Default: 1e-6.
      highest: the last rate. Default: 10.
      steps: the number of rates, at least 10. Default: 100.
      smoothing: the standard deviation, in steps, of the Gaussian window that averages the losses.
        Default: `steps / 50`.
      rise: the test stops when the moving average of the losses has risen above its minimum by
        more than this fraction of the first loss; infinity for never. A loss that is not finite
        always stops it. Default: 0.5.

    Returns:
      A `RangeTest`: `.rates`, `.losses`, `.smoothed`, `.suggestion`, `.why`, `.picture()`.

    Raises:
      ValueError: an argument is out of range, there are no batches, the first loss is not finite,
        or `tx` does not take the learning rate from the call.

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
    def step(
        params: Params, state: OptState, batch: PyTree, rate: Array
    ) -> tuple[Params, OptState, Array]:
        def value_fn(params: Params) -> Array:
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
                raise ValueError(f"lr_range_test: the first loss must be finite, got {losses[-1]}")
            diverged = True
            break
        running = _RUNNING * running + (1 - _RUNNING) * losses[-1]
        average = running / (1 - _RUNNING ** (i + 1))
        least = min(least, average)
        if average - least > rise * abs(losses[0]):
            diverged = True
            break
    rates = rates[: len(losses)]
    _check_rate_was_used(before, _rates_in(state), rates)
    return _judged(rates, np.array(losses), diverged, smoothing or steps / 50)


def _judged(rates: np.ndarray, losses: np.ndarray, diverged: bool, smoothing: float) -> RangeTest:
    """Chooses the suggestion."""
    finite = losses[np.isfinite(losses)]
    smoothed = _smooth(finite, smoothing)
    low = int(np.argmin(smoothed))
    lowest_at = float(rates[low])
    made = functools.partial(
        RangeTest, rates, losses, smoothed, lowest_at=lowest_at, diverged=diverged
    )
    slopes = np.gradient(smoothed)[: low + 1] if len(smoothed) > 1 else np.zeros(1)
    steepest = int(np.argmin(slopes))
    # The smoothing scales the standard deviation of independent errors by this factor.
    part = 1 / math.sqrt(max(1.0, 2 * math.sqrt(math.pi) * smoothing))
    noise = part * float(np.std((finite - smoothed)[: low + 1]))
    ended = (
        f"the test stopped at {rates[-1]:.2g}, where the loss had risen"
        if diverged
        else f"the test ran up to {rates[-1]:.2g}"
    )
    if not smoothed[0] - smoothed[low] > 5 * noise:
        why = (
            f"No rate is suggested: no rate from {rates[0]:.2g} on made the smoothed loss fall "
            f"from its first value, {smoothed[0]:.3g}, by more than its noise ({noise:.2g}); "
            f"{ended}."
        )
        return made(suggestion=None, why=why)
    rate = float(rates[steepest])
    why = (
        f"{rate:.2g} is suggested: there the smoothed loss falls fastest, by "
        f"{-slopes[steepest]:.2g} per step. It falls from {smoothed[0]:.3g} to its minimum, "
        f"{smoothed[low]:.3g}, at {lowest_at:.2g}; {ended}."
    )
    if low == len(smoothed) - 1 and not diverged:
        why += " The loss was still falling there: try a larger highest rate."
    return made(suggestion=rate, why=why)


def _smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Averages over neighbours on both sides, so that the curve is not shifted along the rates."""
    i = np.arange(len(values))
    weights = np.exp(-(((i[:, None] - i) / width) ** 2) / 2)
    return weights @ values / weights.sum(1)


def _repeated(batches: Iterable[PyTree]) -> Iterator[PyTree]:
    stream = itertools.cycle(batches)
    try:
        first = next(stream)
    except StopIteration:
        raise ValueError("lr_range_test: there are no batches") from None
    return itertools.chain([first], stream)


def _rates_in(state: OptState) -> list[float]:
    found = hyperparams(state).items()
    return [float(x) for name, x in found if name.split("/")[-1] == "learning_rate"]


def _check_rate_was_used(before: list[float], after: list[float], rates: np.ndarray) -> None:
    """Raises an error unless the state, which keeps the last step's rate, shows one of ours."""

    def used(old: float, new: float) -> bool:
        # With gradient accumulation the last step may be some calls ago. If the rate in the state
        # did not change, it counts only if it is the last of the test.
        return bool(np.isclose(rates[-1] if new == old else rates, new).any())

    if not any(used(*pair) for pair in zip(before, after, strict=True)):
        found = f"its state has {', '.join(map(str, after))}" if after else "its state has none"
        raise ValueError(
            "lr_range_test: tx does not take its learning rate from update(..., learning_rate=x), "
            f"as optimizers of gradtx.catalog with a learning rate do: {found}"
        )


def _check(lowest: float, highest: float, steps: int, smoothing: float | None, rise: float) -> None:
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"lr_range_test: rates must satisfy 0 < lowest < highest, got {lowest} and {highest}"
        )
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 10:
        raise ValueError(f"lr_range_test: steps must be an integer of at least 10, got {steps!r}")
    if smoothing is not None and not 0 < smoothing < math.inf:
        raise ValueError(f"lr_range_test: smoothing must be positive and finite, got {smoothing}")
    if not rise > 0:
        raise ValueError(f"lr_range_test: rise must be positive, got {rise}")
