"""Pieces that act on any optimizer: what they make of a list of gradients `g` of one array.

Those that wrap an optimizer get its updates `u` as well, and those that need them the parameters
`x` before each step. What averages parameters gives the average after the last step.
"""

import numpy as np

from references.common import squared


def grokfast_ema(g, alpha, lamb):
    """arXiv:2405.20233; the average starts at the first gradient."""
    mu, out = g[0], []
    for now in g:
        mu = alpha * mu + (1 - alpha) * now
        out.append(now + lamb * mu)
    return out


def grokfast_ma(g, window, lamb):
    """arXiv:2405.20233, with its warm-up."""
    filtered = [
        now + lamb * np.mean(g[max(0, t + 1 - window) : t + 1], 0) for t, now in enumerate(g)
    ]
    return g[: window - 1] + filtered[window - 1 :]


def grams(g, u, finished):
    """arXiv:2412.17107, of directions."""
    assert not finished
    return [
        np.where(now == 0, 0, now / np.abs(now)) * np.abs(new)
        for now, new in zip(g, u, strict=True)
    ]


def stable_rms_clip(g, u, b2, eps):
    """arXiv:2304.13013, Algorithm 2, whose decay rate at step t is b2 (1-b2^(t-1)) / (1-b2^t)."""
    v, out = 0.0, []
    for t, (now, new) in enumerate(zip(g, u, strict=True), start=1):
        decay = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        v = decay * v + (1 - decay) * squared(now)
        rms = np.sqrt(np.mean(squared(now) / np.maximum(v, eps**2)))
        out.append(new / max(1, rms))
    return out


def spike_aware_clip(g, threshold, b2):
    """arXiv:2501.06842: where g^2 / v > threshold."""
    v, out = 0 * squared(g[0]), []
    for now in g:
        spike = (v > 0) & (squared(now) > threshold * v)
        size = np.abs(now)
        now = np.where(spike, now / size * np.sqrt(threshold * v), now)
        v = b2 * v + (1 - b2) * squared(now)
        out.append(now)
    return out


def adaptive_spike_clip(g, decay):
    """arXiv:2502.17055, AdaClip."""
    average, out = 0.0, []
    for t, now in enumerate(g, start=1):
        top = np.max(np.abs(now))
        average = decay * average + (1 - decay) * top
        limit = average / (1 - decay**t)
        out.append(np.where(np.abs(now) > limit, now / top * limit, now))
    return out


def adaptive_gradient_norm(g, b1, b2, eps):
    """arXiv:2502.17055, AdaGN."""
    m, v, out = 0.0, 0.0, []
    for t, now in enumerate(g, start=1):
        norm = np.sqrt(np.sum(squared(now)))
        m, v = b1 * m + (1 - b1) * norm, b2 * v + (1 - b2) * norm**2
        out.append(now / norm * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps))
    return out


def momentum_reset(g, every, warmup, b1):
    """arXiv:2501.06842, around a corrected average of gradients."""
    out = []
    for t, now in enumerate(g):
        since = t % every
        m = 0.0 if since == 0 else m  # noqa: F821
        m = b1 * m + (1 - b1) * now
        scale = 1 if t < every else (1 - np.cos(np.pi * min(1, (since + 1) / warmup))) / 2
        out.append(scale * m / (1 - b1 ** (since + 1)))
    return out


def add_independent_decay(g, x, weight_decay):
    """arXiv:1711.05101: `weight_decay(t)` is eta_t * lambda."""
    return [now - weight_decay(t) * p for t, (now, p) in enumerate(zip(g, x, strict=True))]


def add_corrected_decay(g, x, weight_decay, learning_rate, max_learning_rate):
    """arXiv:2506.02285, before the learning rate."""
    return [
        now + weight_decay * learning_rate(t) / max_learning_rate * p
        for t, (now, p) in enumerate(zip(g, x, strict=True))
    ]


def add_cautious_decay(g, x, weight_decay):
    """arXiv:2510.12402, before the learning rate."""
    return [
        now + weight_decay * ((np.conj(now) * p).real >= 0) * p for now, p in zip(g, x, strict=True)
    ]


def add_decay_to_initial(g, x, weight_decay):
    """arXiv:1802.01483, as a gradient."""
    return [now + weight_decay * (p - x[0]) for now, p in zip(g, x, strict=True)]


def params_ema(g, x, decay, warmup=True):
    """With TensorFlow's warm-up."""
    average = x[0]
    for t, (now, p) in enumerate(zip(g, x, strict=True), start=1):
        d = min(decay, (1 + t) / (10 + t)) if warmup else decay
        average = d * average + (1 - d) * (p + now)
    return average


def params_mean(g, x, start=0, every=1):
    """Polyak's average of the tail."""
    after = [p + now for now, p in zip(g, x, strict=True)]
    return np.mean(after[start + every - 1 :: every], 0)


def lawa(g, x, window, every):
    """arXiv:2209.14981."""
    return np.mean([p + now for now, p in zip(g, x, strict=True)][every - 1 :: every][-window:], 0)


def primal_averaging(g, start, mu_x, mu_y, learning_rate, weight_decay):
    """arXiv:2512.17131, around SGD, for given gradients: the points y and the last x."""
    z = x = start
    points = []
    for t, now in enumerate(g):
        z = z - learning_rate(t) * (now + weight_decay * z)
        x = mu_x * x + (1 - mu_x) * z
        points.append(mu_y * x + (1 - mu_y) * z)
    return points, x
