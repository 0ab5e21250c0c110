"""RProp."""

import numpy as np

from references.common import optimizer, piece

FIRST_SIZE = {"learning_rate": [0.02]}  # a first step size, not a schedule


@piece(required={"learning_rate": 0.05}, moved=FIRST_SIZE)
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


# sizes 0.1; 0.1 * 1.2 for the same sign; then the sign changes, and nothing moves
@optimizer({"learning_rate": 0.1}, (-0.1, -0.12, 0.0), moved=FIRST_SIZE)
def rprop(gradients, start, learning_rate, **hyperparameters):
    """Riedmiller and Braun (1993), as iRprop-."""
    return [-u for u in scale_by_rprop(gradients, learning_rate, **hyperparameters)]
