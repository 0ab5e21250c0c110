"""Pictures of models: softmax regression, gradient checks, heads of convolutional networks."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

import gradtx.optimizers as opt
from gradtx import train
from gradtx.draw.style import finish, line_styles, new_figure
from gradtx.engine.base import Array
from gradtx.losses import softmax_cross_entropy_with_integer_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def softmax_weights() -> "Figure":
    """Draws the weights of softmax regression on digits, one image for each class.

    Returns:
      A matplotlib figure, made without pyplot.
    """
    data = train.load()
    run = train.fit(train.softmax(), data, opt.sgd(0.5), epochs=30)
    weights = np.asarray(run.state.params["logits"]["kernel"]).reshape(
        *data.shape[:2], data.classes
    )
    largest = np.abs(weights).max()
    figure = new_figure(9.6, 4.2)
    for number, axes in enumerate(figure.subplots(2, 5).flat):
        axes.imshow(weights[..., number], cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes.set(title=str(number), xticks=[], yticks=[])
    accuracy = run.history[-1].test_accuracy
    figure.suptitle(f"Weights of softmax regression on digits, test accuracy {accuracy:.1%}")
    return figure


def gradient_check() -> "Figure":
    """Draws the errors of finite differences, by their step, and of backpropagation in an MLP.

    Returns:
      A matplotlib figure, made without pyplot.
    """
    data = train.load()
    random = np.random.default_rng(0)
    x, y = data.x_train[:100].reshape(100, -1), data.y_train[:100]
    params = [0.1 * random.standard_normal(shape) for shape in ((x.shape[1], 32), (32, 10))]
    direction = [random.standard_normal(p.shape) for p in params]
    steps = np.logspace(-12, 0, 49)

    def derivatives(dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the derivative along `direction`: exact, and by both kinds of differences."""
        inputs, *p = (jnp.asarray(a, dtype) for a in (x, *params))
        d = [jnp.asarray(a, dtype) for a in direction]

        @jax.jit
        def along(t: Array) -> Array:
            w1, w2 = (a + t * b for a, b in zip(p, d, strict=True))
            logits = jnp.tanh(inputs @ w1) @ w2
            return softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(y)).mean()

        at, h, zero = jax.vmap(along), jnp.asarray(steps, dtype), jnp.zeros((), dtype)
        forward, central = (at(h) - along(zero)) / h, (at(h) - at(-h)) / (2 * h)
        return np.asarray(jax.grad(along)(zero)), np.asarray(forward), np.asarray(central)

    single = derivatives(jnp.float32)
    with jax.enable_x64(True):
        double = derivatives(jnp.float64)
    exact = double[0]
    curves = {
        "forward differences, float64": double[1],
        "central differences, float64": double[2],
        "central differences, float32": single[2],
        "backpropagation, float32": np.broadcast_to(single[0], steps.shape),
    }
    figure = new_figure(9.6, 4.4)
    axes = figure.subplots()
    for (label, values), style in zip(curves.items(), line_styles(curves).values(), strict=True):
        error = np.maximum(np.abs(values / exact - 1), 1e-16)
        axes.loglog(steps, error, label=label, **{**style, "markersize": 3})
    axes.set(xlabel="step of the differences", ylabel="relative error", ylim=(1e-12, 10))
    axes.set_title("Derivative of an MLP's loss along a random direction, against float64")
    axes.legend(fontsize=8)
    finish(axes)
    return figure


def heads() -> "Figure":
    """Draws test loss and accuracy of two convolutional networks that differ in the head.

    Returns:
      A matplotlib figure, made without pyplot.
    """
    data, tx = train.load(), opt.adam(1e-3)
    models = {"fully connected": train.cnn_fc(), "global average pooling": train.cnn_gap()}
    figure = new_figure(9.6, 4.0)
    left, right = figure.subplots(1, 2)
    for (name, model), style in zip(models.items(), line_styles(models).values(), strict=True):
        run = train.fit(model, data, tx, epochs=15)
        label = f"{name}, {train.count_parameters(run.state.params):,} parameters"
        epochs = [measured.epoch for measured in run.history]
        look = {**style, "markersize": 5, "label": label}
        left.semilogy(epochs, [measured.test_loss for measured in run.history], **look)
        right.plot(epochs, [measured.test_accuracy for measured in run.history], **look)
    left.set(xlabel="epoch", ylabel="test loss")
    right.set(xlabel="epoch", ylabel="test accuracy")
    right.legend(fontsize=8)
    figure.suptitle("Two heads of one convolutional network on digits")
    finish(left, right)
    return figure
