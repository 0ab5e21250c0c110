"""Gradient descent: plain, with momentum, and with schedules."""

from references.common import descend, optimizer, piece, rate, wave


@piece(required={"decay": 0.9})
def trace(gradients, decay, nesterov=False):
    """Sutskever et al. (ICML 2013), eq. 1-4, for the velocity of gradients."""
    v, out = 0.0, []
    for g in gradients:
        v = decay * v + g
        out.append(g + decay * v if nesterov else v)
    return out


@piece(required={"step_size_fn": wave})
def scale_by_schedule(gradients, step_size_fn):
    """A factor that depends on the step."""
    return [step_size_fn(t) * g for t, g in enumerate(gradients)]


@piece(required={"learning_rate": 0.1})
def scale_by_learning_rate(gradients, learning_rate, flip_sign=True):
    """The step of gradient descent."""
    sign = -1 if flip_sign else 1
    return [sign * rate(learning_rate, t) * g for t, g in enumerate(gradients)]


# v = 2; 1 + 4; 5/2 - 2
@optimizer({"momentum": 0.5}, (-0.1 * 2, -0.2 * 5, -0.3 * 0.5))
def sgd(gradients, start, learning_rate, momentum=None, nesterov=False):
    """Robbins and Monro (1951); momentum outside of which the rate stands, as in PyTorch."""
    directions = gradients if momentum is None else trace(gradients, momentum, nesterov)
    return descend(directions, start, learning_rate)


# v = -0.2; -0.1 - 0.8; -0.45 + 0.6
@optimizer({"decay": 0.5}, (-0.2, -0.9, 0.15))
def momentum(gradients, start, learning_rate, decay=0.9):
    """Rumelhart et al. (1986): `v <- decay * v - lr * g; x <- x + v`."""
    v, steps = 0.0, []
    for t, g in enumerate(gradients):
        v = decay * v - rate(learning_rate, t) * g
        steps.append(v)
    return steps


# v as in momentum; v/2 - lr g: -0.1 - 0.2; -0.45 - 0.8; 0.075 + 0.6
@optimizer({"decay": 0.5}, (-0.3, -1.25, 0.675))
def nesterov(gradients, start, learning_rate, decay=0.9):
    """Bengio et al., arXiv:1212.0901, eq. 5-7: the parameters are those of the look-ahead point."""
    v, steps = 0.0, []
    for t, g in enumerate(gradients):
        last, v = v, decay * v - rate(learning_rate, t) * g
        steps.append(-decay * last + (1 + decay) * v)
    return steps
