"""Adam and what is near to it."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, piece, squared

# x after two steps, with a decay of 1/2; it starts at 1.
# Beside Adam's direction 10/3 / sqrt(12) = 5 / sqrt(27):
X_ADAMW = 1 - 0.1 * (1 + 0.5) - 0.2 * (5 / sqrt(27) + 0.5 * 0.85)  # 0.85 - 0.2774500897 = 0.5725...
# beside AdaMax's 10/3 / 4 = 5/6:
X_ADAMAXW = 1 - 0.1 * (1 + 0.5) - 0.2 * (5 / 6 + 0.5 * 0.85)
# beside NAdam's, see there:
X_NADAMW = 1 - 0.1 * (4 / 3 + 0.5) - 0.2 * (86 / 21 / sqrt(12) + 0.5 * (1 - 11 / 60))


@piece(moved={"ahead_correction": [{"ahead_correction": False, "nesterov": True}]})
def scale_by_adam(
    gradients,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    nesterov=False,
    momentum_decay=None,
    ahead_correction=True,
):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 1; Nesterov: Dozat (2016), Algorithm 2, with a
    constant decay, mu_t = b1, or its schedule."""

    def rate(t):
        return b1 if momentum_decay is None else b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def weight(t):
        rates = [rate(i) for i in range(1, t + 1)]
        return 1 - (b1**t if momentum_decay is None else np.prod(rates))

    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        if nesterov:
            ahead = rate(t + 1) * m / weight(t + 1) if ahead_correction else b1 * m_hat
            m_hat = ahead + (1 - rate(t)) * g / weight(t)
        out.append(m_hat / (np.sqrt(v_hat + eps_root) + eps))
    return out


@piece()
def scale_by_uncorrected_adam(gradients, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma and Ba, arXiv:1412.6980, section 6.4."""
    m, v, out = 0.0, 0.0, []
    for g in gradients:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        out.append(m / (np.sqrt(v) + eps))
    return out


@piece()
def scale_by_adamax(gradients, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 2, with an eps beside |g|."""
    m, u, out = 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        out.append(m / (1 - b1**t) / u)
    return out


@piece()
def scale_by_amsgrad(
    gradients,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
    raw_maximum=False,
):
    """Reddi et al., arXiv:1904.09237, Algorithm 2, with Adam's bias corrections where wanted."""
    m, v, top, out = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        m_hat = m / (1 - b1**t) if bias_correction_mu else m
        weight = 1 - b2**t if bias_correction_nu else 1.0
        top = np.maximum(top, v if raw_maximum else v / weight)
        v_hat = top / weight if raw_maximum else top
        out.append(m_hat / (np.sqrt(v_hat + eps_root) + eps))
    return out


# m_hat / (sqrt(v_hat) + 1)
@optimizer(
    {**DECAYS, "eps": 1.0},
    (-0.1 * 2 / 3, -0.2 * 10 / 3 / (sqrt(12) + 1), -0.3 * 2 / 7 / (sqrt(52 / 7) + 1)),
)
def adam(gradients, start, learning_rate, **hyperparameters):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 1."""
    return descend(scale_by_adam(gradients, **hyperparameters), start, learning_rate)


# m / sqrt(v)
@optimizer({**DECAYS, "eps": 0.0}, (-0.1 * 1 / sqrt(2), -0.2 * 2.5 / 3, -0.3 * 0.25 / sqrt(6.5)))
def uncorrected_adam(gradients, start, learning_rate, **hyperparameters):
    """Kingma and Ba, arXiv:1412.6980, section 6.4."""
    return descend(scale_by_uncorrected_adam(gradients, **hyperparameters), start, learning_rate)


# x: 1, 0.85, X_ADAMW; the direction's third is 2/7 / sqrt(52/7) = 1 / sqrt(91)
@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (-0.15, -0.2 * (5 / sqrt(27) + 0.425), -0.3 * (1 / sqrt(91) + 0.5 * X_ADAMW)),
)
def adamw(gradients, start, learning_rate, weight_decay=1e-4, **hyperparameters):
    """Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2."""
    directions = scale_by_adam(gradients, **hyperparameters)
    return descend(directions, start, learning_rate, weight_decay)


# m_hat = m/2 / (1 - 1/2^(t+1)) + g/2 / (1 - 1/2^t): 2/3 + 2; 10/7 + 8/3; 2/15 - 8/7
@optimizer(
    {**DECAYS, "eps": 0.0},
    (-0.1 * 8 / 3 / 2, -0.2 * 86 / 21 / sqrt(12), 0.3 * 106 / 105 / sqrt(52 / 7)),
)
def nadam(gradients, start, learning_rate, nesterov=True, **hyperparameters):
    """Dozat (ICLR workshop 2016), Algorithm 2."""
    return adam(gradients, start, learning_rate, nesterov=nesterov, **hyperparameters)


# the same; the first step is 0.1 * (4/3 + 1/2) = 11/60, which takes x to 49/60
@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (
        -11 / 60,
        -0.2 * (86 / 21 / sqrt(12) + 49 / 120),
        0.3 * (106 / 105 / sqrt(52 / 7) - 0.5 * X_NADAMW),
    ),
)
def nadamw(gradients, start, learning_rate, nesterov=True, **hyperparameters):
    """Dozat (2016) with the decay of arXiv:1711.05101."""
    return adamw(gradients, start, learning_rate, nesterov=nesterov, **hyperparameters)


# u = max(u / 2, |g|): 2, 4, 2
@optimizer({**DECAYS, "eps": 0.0}, (-0.1 * 2 / 2, -0.2 * 10 / 3 / 4, -0.3 * 2 / 7 / 2))
def adamax(gradients, start, learning_rate, **hyperparameters):
    """Kingma and Ba, arXiv:1412.6980, Algorithm 2."""
    return descend(scale_by_adamax(gradients, **hyperparameters), start, learning_rate)


@optimizer(
    {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
    (-0.15, -0.2 * (5 / 6 + 0.425), -0.3 * (1 / 7 + 0.5 * X_ADAMAXW)),
)
def adamaxw(gradients, start, learning_rate, weight_decay=1e-4, **hyperparameters):
    """Kingma and Ba, Algorithm 2, with the decay of arXiv:1711.05101."""
    directions = scale_by_adamax(gradients, **hyperparameters)
    return descend(directions, start, learning_rate, weight_decay)


# the largest v_hat: 4, 12, 12
@optimizer({**DECAYS, "eps": 0.0}, (-0.1 * 2 / 2, -0.2 * 5 / sqrt(27), -0.3 * 2 / 7 / sqrt(12)))
def amsgrad(gradients, start, learning_rate, **hyperparameters):
    """Reddi et al., arXiv:1904.09237, Algorithm 2."""
    return descend(scale_by_amsgrad(gradients, **hyperparameters), start, learning_rate)
