"""Gradient descent with noise. The noise itself is measured in tests/transforms/test_noise.py."""

from references.common import descend, optimizer


# without noise: 2, 4, -2
@optimizer(
    {"eta": 0.0},
    (-0.2, -0.8, 0.6),
    moved={"eta": [0.0], "gamma": [0.3], "key": [3], "seed": [{"seed": 4, "key": None}]},
)
def noisy_sgd(gradients, start, learning_rate, eta, gamma=0.55, key=None, seed=None):
    """Neelakantan et al., arXiv:1511.06807, eq. 1, where the noise has no variance."""
    assert eta == 0
    return descend(gradients, start, learning_rate)
