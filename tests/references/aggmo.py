"""AggMo."""

from references.common import descend, optimizer
from references.descent import trace


# the velocities are 2, 4, -2 and 2, 5, 1/2 and 2, 11/2, 17/8
@optimizer(
    {"betas": (0.0, 0.5, 0.75)},
    (-0.2, -0.2 * 14.5 / 3, -0.3 * 0.625 / 3),
    moved={"betas": [(0.3, 0.6, 0.8)]},
)
def aggmo(gradients, start, learning_rate, betas=(0.0, 0.9, 0.99)):
    """arXiv:1804.00325, eq. 3."""
    velocities = zip(*[trace(gradients, beta) for beta in betas], strict=True)
    return descend([sum(v) / len(betas) for v in velocities], start, learning_rate)
