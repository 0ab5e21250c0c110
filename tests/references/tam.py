"""TAM."""

import numpy as np

from references.common import descend, optimizer, squared


# cosines 0, 1, -1, whose averages are 0, 1/2, -1/4, so that gradients count 1/2, 3/4, 3/8
@optimizer(
    {"momentum": 0.5, "decay_rate": 0.5, "eps": 0.0},
    (-0.1, -0.2 * 3.5, -0.3),
    moved={"decay_rate": [0.5], "momentum": [0.5, 0.0]},
    cancels=True,
)
def tam(gradients, start, learning_rate, momentum=0.9, decay_rate=0.9, eps=1e-8):
    """arXiv:2412.18790, Algorithm 1."""
    m, s, out = np.zeros_like(start), 0.0, []
    for g in gradients:
        sizes = np.sqrt(np.sum(squared(m)) * np.sum(squared(g)))
        cosine = np.sum((np.conj(m) * g).real) / sizes if sizes > 0 else 0.0
        s = decay_rate * s + (1 - decay_rate) * cosine
        m = momentum * m + (eps + (1 + s) / 2) * g
        out.append(m)
    return descend(out, start, learning_rate)
