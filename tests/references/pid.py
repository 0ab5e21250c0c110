"""PID."""

from references.common import descend, optimizer


# sums 2, 5, 1/2; changes 0, 2, -6, whose averages are 0, 1, -5/2
@optimizer(
    {"momentum": 0.5, "integral": 1.0, "derivative": 1.0},
    (-0.4, -2.0, 1.2),
    moved={"momentum": [0.5, 0.0], "integral": [0.0, 1.0], "derivative": [0.0, 2.0]},
    cancels=True,
)
def pid(gradients, start, learning_rate, momentum=0.9, integral=5.0, derivative=10.0):
    """An et al. (CVPR 2018), eq. 10 to 12, with the gains of the authors' program."""
    v, d, last, out = 0.0, 0.0, gradients[0], []
    for g in gradients:
        v = momentum * v + g
        d = momentum * d + (1 - momentum) * (g - last)
        out.append(g + integral * v + derivative * d)
        last = g
    return descend(out, start, learning_rate)
