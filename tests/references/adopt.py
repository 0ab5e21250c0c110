"""ADOPT."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, piece, squared


def narrow(count):
    return 0.3 + 0.1 * (count % 3)


MOVED = {
    "nesterov": [True],
    "use_clipping": [False],
    "clip_value_fn": [narrow],
}


@piece(moved=MOVED)
def scale_by_adopt(
    gradients,
    b1=0.9,
    b2=0.9999,
    eps=1e-6,
    mu_dtype=None,
    nesterov=False,
    use_clipping=True,
    clip_value_fn=lambda t: t**0.25,
):
    """Taniguchi et al., arXiv:2411.02853, Algorithm 2: the first gradient is the index 0, with
    which nothing moves; Nesterov: the average once more, as in NAdam."""
    m, v, out = 0.0, squared(gradients[0]), [0.0 * gradients[0]]
    for t, g in enumerate(gradients[1:], start=1):
        n = g / np.maximum(np.sqrt(v), eps)
        if use_clipping:
            n = n * np.minimum(1, clip_value_fn(t) / np.abs(n))
        m = b1 * m + (1 - b1) * n
        v = b2 * v + (1 - b2) * squared(g)
        out.append(b1 * m + (1 - b1) * n if nesterov else m)
    return out


# v before each step: 4, 10; normalized: 4/2, clipped to 1; -2/sqrt(10), not clipped. m: 1/2
@optimizer(
    {**DECAYS, "eps": 0.0},
    (0.0, -0.2 * 0.5, -0.3 * (0.25 - 1 / sqrt(10))),
    moved=MOVED,
)
def adopt(gradients, start, learning_rate, **hyperparameters):
    """Taniguchi et al., arXiv:2411.02853, Algorithm 2."""
    return descend(scale_by_adopt(gradients, **hyperparameters), start, learning_rate)
