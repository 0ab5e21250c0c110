"""Adam-mini."""

from math import sqrt

import numpy as np

from references.common import DECAYS, descend, optimizer, squared


# A number is a block: Adam.
@optimizer(
    {**DECAYS, "eps": 0.0},
    (-0.1, -0.2 * 5 / sqrt(27), -0.3 * 2 / 7 / sqrt(52 / 7)),
    moved={"blocks": [[("absent", (5,)), (".", (2, -1))], [(".", (1, 3)), ("w", (4, 1))]]},
    shape=(4, 3),
)
def adam_mini(
    gradients,
    start,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    mask=None,
    blocks=None,
):
    """arXiv:2406.16793, Algorithm 1, block by block."""
    counts = (1,) * np.ndim(start) if blocks is None else dict(blocks)["."]
    m, v, out = 0.0, {}, []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        root = np.ones_like(squared(g))
        for block in np.ndindex(*(n if n > 0 else k for n, k in zip(counts, g.shape, strict=True))):
            widths = [k // n if n > 0 else 1 for n, k in zip(counts, g.shape, strict=True)]
            place = tuple(slice(i * w, (i + 1) * w) for i, w in zip(block, widths, strict=True))
            v[block] = b2 * v.get(block, 0.0) + (1 - b2) * np.mean(squared(g)[place])
            root[place] = np.sqrt(v[block] / (1 - b2**t))
        out.append(m / (1 - b1**t) / (root + eps))
    return descend(out, start, learning_rate, weight_decay)
