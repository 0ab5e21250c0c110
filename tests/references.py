"""What the papers say, as plain NumPy in float64.

Written from the sources named at each function, and independent of gradtx's code. A piece takes a
list of gradients of one array and gives a list of directions. An optimizer takes the gradients and
the start, and gives the steps: what is added to the parameters, one after another. Gradients may be
complex; `|g|^2` is real then. A learning rate is a number, or a function of the step count.
"""

import numpy as np


def squared(g):
    return (g * np.conj(g)).real


def rate(learning_rate, count):
    """The learning rate at a step; the count is 0 at the first."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def descend(directions, start, learning_rate, weight_decay=0.0):
    """`x <- x - lr * (u + weight_decay * x)`: decoupled decay, arXiv:1711.05101, with their eta_t
    and alpha taken together in the learning rate, as in PyTorch's AdamW."""
    x, steps = start, []
    for t, u in enumerate(directions):
        steps.append(-rate(learning_rate, t) * (u + weight_decay * x))
        x = x + steps[-1]
    return steps


# ---- Pieces ---------------------------------------------------------------------------------


def trace(gradients, decay, nesterov=False):
    """Sutskever et al. (ICML 2013), eq. 1-4, for the velocity of gradients."""
    v, out = 0.0, []
    for g in gradients:
        v = decay * v + g
        out.append(g + decay * v if nesterov else v)
    return out


def scale_by_rss(gradients, initial_accumulator_value=0.1, eps=1e-7):
    """Duchi et al. (JMLR 2011), Figure 1, with the diagonal of G_t."""
    total, out = initial_accumulator_value, []
    for g in gradients:
        total = total + squared(g)
        out.append(g / np.sqrt(total + eps))
    return out


def scale_by_rms(
    gradients,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    bias_correction=False,
    centered=False,
):
    """Tieleman and Hinton (2012), lecture 6.5; centered: Graves, arXiv:1308.0850, eq. 38-40."""
    m, n, out = 0.0, initial_scale, []
    for t, g in enumerate(gradients, start=1):
        m = decay * m + (1 - decay) * g
        n = decay * n + (1 - decay) * squared(g)
        weight = 1 - decay**t if bias_correction else 1.0
        spread = n / weight - (squared(m / weight) if centered else 0.0)
        spread = np.maximum(spread, 0.0)  # a variance, but for rounding
        out.append(g / (np.sqrt(spread + eps) if eps_in_sqrt else np.sqrt(spread) + eps))
    return out


def scale_by_stddev(gradients, **hyperparameters):
    """Graves, arXiv:1308.0850, eq. 38-40."""
    return scale_by_rms(gradients, **hyperparameters, centered=True)


def scale_by_adadelta(gradients, rho=0.9, eps=1e-6):
    """Zeiler, arXiv:1212.5701, Algorithm 1."""
    return [-step for step in adadelta(gradients, 0.0, 1.0, rho, eps)]


def scale_by_adam(gradients, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, nesterov=False):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 1; Nesterov: Dozat (2016), Algorithm 2 with a
    constant decay: mu_t = mu_(t+1) = b1."""
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        out.append(m_hat / (np.sqrt(v_hat + eps_root) + eps))
    return out


def scale_by_uncorrected_adam(gradients, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma and Ba, arXiv:1412.6980, section 6.4."""
    m, v, out = 0.0, 0.0, []
    for g in gradients:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        out.append(m / (np.sqrt(v) + eps))
    return out


def scale_by_adamax(gradients, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 2, with an eps beside |g|."""
    m, u, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        out.append(m / (1 - b1**t) / u)
    return out


def scale_by_amsgrad(
    gradients,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
):
    """Reddi et al., arXiv:1904.09237, Algorithm 2, with Adam's bias corrections where wanted."""
    m, v, top, out = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        m_hat = m / (1 - b1**t) if bias_correction_mu else m
        top = np.maximum(top, v / (1 - b2**t) if bias_correction_nu else v)
        out.append(m_hat / (np.sqrt(top + eps_root) + eps))
    return out


def scale_by_rprop(
    gradients, learning_rate, eta_minus=0.5, eta_plus=1.2, min_step_size=1e-6, max_step_size=50.0
):
    """Igel and Hüsken (2000), iRprop-: after a change of sign the gradient counts as 0."""
    size, last, out = np.full(np.shape(gradients[0]), learning_rate), 0.0, []
    for g in gradients:
        same = np.sign(g) * np.sign(last)
        size = np.where(same > 0, np.minimum(size * eta_plus, max_step_size), size)
        size = np.where(same < 0, np.maximum(size * eta_minus, min_step_size), size)
        last = np.where(same < 0, 0.0, g)
        out.append(np.sign(last) * size)
    return out


def scale_by_schedule(gradients, step_size_fn):
    """A factor that depends on the step."""
    return [step_size_fn(t) * g for t, g in enumerate(gradients)]


def scale_by_learning_rate(gradients, learning_rate, flip_sign=True):
    """The step of gradient descent."""
    sign = -1 if flip_sign else 1
    return [sign * rate(learning_rate, t) * g for t, g in enumerate(gradients)]


# ---- Optimizers -----------------------------------------------------------------------------


def sgd(gradients, start, learning_rate, momentum=None, nesterov=False):
    """Robbins and Monro (1951); momentum outside of which the rate stands, as in PyTorch."""
    directions = gradients if momentum is None else trace(gradients, momentum, nesterov)
    return descend(directions, start, learning_rate)


def momentum(gradients, start, learning_rate, decay=0.9):
    """Rumelhart et al. (1986): `v <- decay * v - lr * g; x <- x + v`."""
    v, steps = 0.0, []
    for t, g in enumerate(gradients):
        v = decay * v - rate(learning_rate, t) * g
        steps.append(v)
    return steps


def nesterov(gradients, start, learning_rate, decay=0.9):
    """Bengio et al., arXiv:1212.0901, eq. 5-7: the parameters are those of the look-ahead point."""
    v, steps = 0.0, []
    for t, g in enumerate(gradients):
        last, v = v, decay * v - rate(learning_rate, t) * g
        steps.append(-decay * last + (1 + decay) * v)
    return steps


def adagrad(gradients, start, learning_rate, **hyperparameters):
    """Duchi et al. (JMLR 2011)."""
    return descend(scale_by_rss(gradients, **hyperparameters), start, learning_rate)


def rmsprop(
    gradients,
    start,
    learning_rate,
    momentum=None,
    nesterov=False,
    centered=False,
    **hyperparameters,
):
    """Tieleman and Hinton (2012); Graves, arXiv:1308.0850, for the momentum, inside of which the
    rate stands."""
    directions = scale_by_rms(gradients, centered=centered, **hyperparameters)
    steps = descend(directions, start, learning_rate)
    return steps if momentum is None else trace(steps, momentum, nesterov)


def adadelta(gradients, start, learning_rate=None, rho=0.9, eps=1e-6, weight_decay=0.0):
    """Zeiler, arXiv:1212.5701, Algorithm 1; the decay is L2 regularization."""
    x, e_g, e_x, steps = start, 0.0, 0.0, []
    for t, g in enumerate(gradients):
        g = g + weight_decay * x
        e_g = rho * e_g + (1 - rho) * squared(g)
        u = np.sqrt(e_x + eps) / np.sqrt(e_g + eps) * g
        e_x = rho * e_x + (1 - rho) * squared(u)
        steps.append(-(1.0 if learning_rate is None else rate(learning_rate, t)) * u)
        x = x + steps[-1]
    return steps


def adam(gradients, start, learning_rate, **hyperparameters):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 1."""
    return descend(scale_by_adam(gradients, **hyperparameters), start, learning_rate)


def uncorrected_adam(gradients, start, learning_rate, **hyperparameters):
    """Kingma and Ba, arXiv:1412.6980, section 6.4."""
    return descend(scale_by_uncorrected_adam(gradients, **hyperparameters), start, learning_rate)


def adamw(gradients, start, learning_rate, weight_decay=1e-4, **hyperparameters):
    """Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2."""
    directions = scale_by_adam(gradients, **hyperparameters)
    return descend(directions, start, learning_rate, weight_decay)


def nadam(gradients, start, learning_rate, nesterov=True, **hyperparameters):
    """Dozat (ICLR workshop 2016), Algorithm 2."""
    return adam(gradients, start, learning_rate, nesterov=nesterov, **hyperparameters)


def nadamw(gradients, start, learning_rate, nesterov=True, **hyperparameters):
    """Dozat (2016) with the decay of arXiv:1711.05101."""
    return adamw(gradients, start, learning_rate, nesterov=nesterov, **hyperparameters)


def adamax(gradients, start, learning_rate, **hyperparameters):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 2."""
    return descend(scale_by_adamax(gradients, **hyperparameters), start, learning_rate)


def adamaxw(gradients, start, learning_rate, weight_decay=1e-4, **hyperparameters):
    """Kingma and Ba, Algorithm 2, with the decay of arXiv:1711.05101."""
    directions = scale_by_adamax(gradients, **hyperparameters)
    return descend(directions, start, learning_rate, weight_decay)


def amsgrad(gradients, start, learning_rate, **hyperparameters):
    """Reddi et al., arXiv:1904.09237, Algorithm 2."""
    return descend(scale_by_amsgrad(gradients, **hyperparameters), start, learning_rate)


def rprop(gradients, start, learning_rate, **hyperparameters):
    """Riedmiller and Braun (1993), as iRprop-."""
    return [-u for u in scale_by_rprop(gradients, learning_rate, **hyperparameters)]


OPTIMIZERS = {
    f.__name__: f
    for f in (
        adadelta,
        adagrad,
        adam,
        adamax,
        adamaxw,
        adamw,
        amsgrad,
        momentum,
        nadam,
        nadamw,
        nesterov,
        rmsprop,
        rprop,
        sgd,
        uncorrected_adam,
    )
}
"""From the name in gradtx's catalog to the reference."""

PIECES = {
    f.__name__: f
    for f in (
        scale_by_adadelta,
        scale_by_adam,
        scale_by_adamax,
        scale_by_amsgrad,
        scale_by_learning_rate,
        scale_by_rms,
        scale_by_rprop,
        scale_by_rss,
        scale_by_schedule,
        scale_by_stddev,
        scale_by_uncorrected_adam,
        trace,
    )
}
"""From the name in gradtx to the reference of a piece."""
