"""Figures of batch, stochastic and mini-batch descent."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._apply import apply_updates
from gradtx.draw.style import GREY, finish, line_styles, new_figure, with_rate
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    OptState,
    Params,
    PyTree,
    with_extra_args_support,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEASUREMENTS = 60  # points of a curve, as many as the figure resolves


class BatchCurve(NamedTuple):
    """A run with one batch size.

    Attributes:
      size: the number of examples in a batch.
      steps: the number of steps before each measurement; the first is 0.
      evaluations: the number of gradients of single examples computed before each measurement.
      epochs: `evaluations` divided by the number of examples.
      loss: the loss on all examples, by measurement; infinity where it is not finite.
    """

    size: int
    steps: np.ndarray
    evaluations: np.ndarray
    epochs: np.ndarray
    loss: np.ndarray


def batch_curve(
    loss: Callable[[Params, PyTree], Array],
    params: Params,
    data: PyTree,
    tx: GradientTransformation,
    size: int,
    *,
    epochs: int,
    key: Array,
) -> BatchCurve:
    """Trains with one batch size, and measures the loss on all examples at some of the steps.

    The examples are shuffled again for every epoch, and the batches are taken from this stream one
    after another, across the ends of epochs. So every step has `size` examples. An incomplete last
    batch is dropped.

    Args:
      loss: `loss(params, batch)`, the mean over the batch's examples.
      params: the parameters to start from.
      data: the examples, a pytree of arrays whose first axes run over them.
      tx: the optimizer.
      size: the number of examples in a batch.
      epochs: the number of epochs.
      key: the random key of the shuffling.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.draw.batches import batch_curve
      >>> def loss(p, x):
      ...     return jnp.mean((p - x) ** 2)
      >>> data, key = jnp.array([1.0, 3.0, 1.0, 3.0]), jax.random.key(0)
      >>> run = batch_curve(loss, jnp.array(0.0), data, gradtx.sgd(0.5), 4, epochs=1, key=key)
      >>> run.evaluations.tolist(), run.loss.tolist()
      ([0, 4], [5.0, 1.0])
    """
    tx = with_extra_args_support(tx)
    data = jax.tree.map(jnp.asarray, data)
    count = len(jax.tree.leaves(data)[0])
    steps = epochs * count // size
    measured = _measured_steps(steps)
    due = np.isin(np.arange(1, steps + 1), measured)
    none = jnp.asarray(jnp.nan, float)

    def measure(params: Params) -> Array:
        return jnp.asarray(loss(params, data), float)

    def step(
        carry: tuple[Params, OptState], xs: tuple[Array, Array]
    ) -> tuple[tuple[Params, OptState], Array]:
        params, state = carry
        index, now = xs
        batch = jax.tree.map(lambda a: a[index], data)

        def value_fn(params: Params) -> Array:
            return loss(params, batch)

        value, grads = jax.value_and_grad(value_fn)(params)
        updates, state = tx.update(
            grads, state, params, value=value, grad=grads, value_fn=value_fn, obj_fn=value_fn
        )
        params = apply_updates(params, updates)
        whole = jax.lax.cond(now, measure, lambda params: none, params)
        return (params, state), whole

    @jax.jit
    def run(params: Params, key: Array) -> tuple[Array, Array]:
        keys = jax.random.split(key, epochs)
        order = jax.vmap(lambda k: jax.random.permutation(k, count))(keys).ravel()
        index = order[: steps * size].reshape(steps, size)
        state = jax.tree.map(jnp.asarray, tx.init(params))
        return loss(params, data), jax.lax.scan(step, (params, state), (index, jnp.asarray(due)))[1]

    first, rest = run(jax.tree.map(jnp.asarray, params), key)
    losses = np.concatenate([[first], np.asarray(rest, np.float64)[due]])
    evaluations = measured * size
    losses = np.where(np.isfinite(losses), losses, np.inf)
    return BatchCurve(size, measured, evaluations, evaluations / count, losses)


def _measured_steps(steps: int) -> np.ndarray:
    """Returns the steps to measure at: some geometrically spaced, and some equally spaced.

    The latter are for the panel by epoch.
    """
    by_ratio = np.geomspace(1, steps, _MEASUREMENTS // 2)
    by_distance = np.linspace(0, steps, _MEASUREMENTS // 2)
    return np.unique(np.concatenate([by_ratio, by_distance]).round().astype(int))


def batch_sizes(
    loss: Callable[[Params, PyTree], Array],
    params: Params,
    data: PyTree,
    tx: GradientTransformation | Callable[[int], GradientTransformation],
    sizes: Sequence[int],
    *,
    epochs: int,
    key: Array | None = None,
    title: str = "",
) -> "Figure":
    """Draws the effect of the batch size: batch, stochastic and mini-batch descent side by side.

    Three panels show the loss by epoch, by gradient evaluations and by step, the last two with
    logarithmic axes. Gradient evaluations are counted for each example, so that they
    measure the work. The loss is always that on all examples, even within an epoch. See
    `batch_curve`. The legend shows the learning rates.

    Args:
      loss: `loss(params, batch)`, the mean over the batch's examples.
      params: the parameters to start from.
      data: the examples, a pytree of arrays whose first axes run over them.
      tx: the optimizer for all batch sizes, or a function from a batch size to an optimizer.
      sizes: the batch sizes; the number of examples is batch descent, 1 is stochastic descent.
      epochs: the number of epochs.
      key: the random key of the shuffling. Default: `jax.random.key(0)`.
      title: the title. Default: none.

    Returns:
      A matplotlib figure, made without pyplot.

    Raises:
      ValueError: `sizes` is empty or has a size out of range, `epochs` is below 1, or the arrays of
        `data` differ in their numbers of examples.
      TrainingError: matplotlib is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p, x):
      ...     return jnp.mean((p - x) ** 2)
      >>> x = jnp.arange(8.0)
      >>> figure = gradtx.draw.batch_sizes(
      ...     loss, jnp.array(0.0), x, gradtx.sgd(0.1), [8, 2, 1], epochs=3
      ... )
      >>> [axes.get_xlabel() for axes in figure.axes]
      ['epoch', 'gradient evaluations (log scale)', 'step (log scale)']
    """
    count = _check(data, sizes, epochs)
    key = jax.random.key(0) if key is None else key
    optimizers = [tx(size) if callable(tx) else tx for size in sizes]
    curves = [
        batch_curve(loss, params, data, own, size, epochs=epochs, key=key)
        for size, own in zip(sizes, optimizers, strict=True)
    ]
    labels = [
        with_rate(_label(size, count), own.init(params))
        for size, own in zip(sizes, optimizers, strict=True)
    ]
    styles = line_styles(labels)

    figure = new_figure(9.6, 4.0)
    panels = figure.subplots(1, 3, sharey=True)
    for label, curve in zip(labels, curves, strict=True):
        shown = np.where(np.isfinite(curve.loss), curve.loss, np.nan)
        name = label + " (diverges)" * (not np.isfinite(curve.loss[-1]))
        look = {**styles[label], "markersize": 2.5, "linewidth": 1.3, "label": name}
        panels[0].plot(curve.epochs, shown, **look)
        for axes, x in zip(panels[1:], (curve.evaluations, curve.steps), strict=True):
            axes.plot(x[1:], shown[1:], **look)  # step 0 has no logarithm
    first = curves[0].loss[0]
    names = ("epoch", "gradient evaluations (log scale)", "step (log scale)")
    for axes, name in zip(panels, names, strict=True):
        axes.set_xlabel(name)
        axes.axhline(first, color=GREY, linestyle=":", linewidth=1, zorder=1, label="start")
        if name != "epoch":
            axes.set_xscale("log")
            axes.set_xlim(left=0.8)
    panels[0].set_xlim(0, epochs)
    if all((curve.loss > 0).all() for curve in curves):
        panels[0].set_yscale("log")
    # A diverging loss must not compress the rest into a line.
    panels[0].set_ylim(top=min(panels[0].get_ylim()[1], first + abs(first)))
    panels[0].set_ylabel("loss" + " (log scale)" * (panels[0].get_yscale() == "log"))
    finish(*panels)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False,
        fontsize=9, ncols=len(labels) + 1,
    )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _label(size: int, count: int) -> str:
    if size == count:
        return f"batch, all {count}"
    return "stochastic, 1" if size == 1 else f"mini-batch, {size}"


def _check(data: PyTree, sizes: Sequence[int], epochs: int) -> int:
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(
            "batch_sizes: the arrays of data must have first axes of the same length, over the "
            f"examples, got {sorted(lengths)}"
        )
    ((count,),) = lengths
    if not sizes:
        raise ValueError("batch_sizes: sizes must not be empty")
    for size in sizes:
        if not isinstance(size, Integral) or not 1 <= size <= count:
            raise ValueError(
                f"batch_sizes: sizes must be integers from 1 to {count}, the number of examples, "
                f"got {size!r}"
            )
    if not isinstance(epochs, Integral) or epochs < 1:
        raise ValueError(f"batch_sizes: epochs must be an integer of at least 1, got {epochs!r}")
    return count
