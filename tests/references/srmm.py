"""SRMM."""

from references.common import optimizer, rate


# The weights are 1, 1/2, 1: the averages of gradients 2, 3, -2, those of parameters 1, 9/10, 3/10.
@optimizer(
    {"power": 1.0, "window": 2},
    (-0.2, -0.5, 0.6),
    moved={"power": [0.0, 1.0], "window": [7]},
    cancels=True,
    ulps=100,  # differences of parameters, which are much larger than a step
)
def srmm(gradients, start, learning_rate, power=0.5, window=None):
    """arXiv:2201.01652: the minimum of the average of the surrogates
    `<g, x - x_k> + |x - x_k|^2 / (2 lr)`."""
    x, of_g, of_x, steps = start, 0.0, 0.0, []
    for t, g in enumerate(gradients):
        w = (1 + (t % window if window else t)) ** -power
        of_g = (1 - w) * of_g + w * g
        of_x = (1 - w) * of_x + w * x
        steps.append(of_x - rate(learning_rate, t) * of_g - x)
        x = x + steps[-1]
    return steps
