"""RAdam."""

import numpy as np

from references.common import DECAYS, descend, optimizer, piece, squared

LATER = {
    "threshold": [8.0],
    "eps_uncorrected": [{"eps_uncorrected": True, "eps": 1e-2}],
}


@piece(moved=LATER)
def scale_by_radam(
    gradients,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    threshold=5.0,
    nesterov=False,
    eps_uncorrected=False,
):
    """Liu et al., arXiv:1908.03265, Algorithm 2, whose threshold is 4; rho is the length of
    the plain average whose values have the same mean age (section 3.2). Nesterov: Dozat (2016)."""
    m, v, out = 0.0, 0.0, []
    rho_inf = 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * squared(g)
        u = m / (1 - b1**t)
        if nesterov:
            u = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        # The paper's closed form for it loses too many digits to be a yardstick.
        ages, weights = np.arange(1, t + 1), b2 ** np.arange(t)
        rho = 2 * np.sum(ages * weights) / np.sum(weights) - 1
        if rho > 4 and rho >= threshold:
            r = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            own = eps / np.sqrt(1 - b2**t) if eps_uncorrected else eps
            u = np.sqrt(r) * u / (np.sqrt(v / (1 - b2**t) + eps_root) + own)
        out.append(u)
    return out


# rho is at most t: in three steps no second moment is ripe, and the steps are those of m_hat
@optimizer(DECAYS, (-0.1 * 2, -0.2 * 10 / 3, -0.3 * 2 / 7), moved=LATER)
def radam(gradients, start, learning_rate, **hyperparameters):
    """Liu et al., arXiv:1908.03265, Algorithm 2."""
    return descend(scale_by_radam(gradients, **hyperparameters), start, learning_rate)
