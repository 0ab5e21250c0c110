"""Line searches, written as the textbook has them: one procedure that calls another."""

import numpy as np

from references.common import loss_around, piece


class Point:
    """A rate, the loss there, and its slope along the direction."""

    def __init__(self, rate, value, slope):
        self.rate, self.value, self.slope = rate, value, slope


class Wolfe:
    """The conditions on a step, and what was evaluated on the way to one that meets them."""

    def __init__(self, loss, start, direction, slope_rtol, curv_rtol, tol, approx_dec_rtol):
        self.loss, self.start, self.direction = loss, start, direction
        self.slope_rtol, self.curv_rtol, self.tol = slope_rtol, curv_rtol, tol
        self.approx_dec_rtol = approx_dec_rtol
        self.tried = []
        self.origin = self._at(0.0)

    def _at(self, rate):
        value, gradient = self.loss(self.start + rate * self.direction)
        return Point(rate, value, np.sum(gradient * self.direction))

    def at(self, rate):
        self.tried.append(self._at(rate))
        return self.tried[-1]

    def decreases(self, point):
        """Nocedal and Wright, eq. 3.7a; or Hager and Zhang (2006), eq. 27 under eq. 26."""
        start = self.origin
        promised = self.slope_rtol * point.rate * start.slope
        if point.value <= start.value + promised + self.tol:
            return True
        if self.approx_dec_rtol is None:
            return False
        flat = point.slope <= (2 * self.slope_rtol - 1) * start.slope + self.tol
        near = point.value <= start.value + self.approx_dec_rtol * abs(start.value) + self.tol
        return flat and near

    def is_flat(self, point):
        """Nocedal and Wright, eq. 3.7b."""
        return abs(point.slope) <= self.curv_rtol * abs(self.origin.slope) + self.tol

    def holds(self, point):
        return self.decreases(point) and self.is_flat(point)


def search(wolfe, guess, steps, most, increase_factor, precision):
    """Nocedal and Wright, Algorithm 3.5; gives the rate."""
    low, rate = wolfe.origin, min(guess, most)
    for i in range(steps):
        new, left = wolfe.at(rate), steps - i - 1
        if wolfe.holds(new):
            return new.rate
        if not wolfe.decreases(new) or (i > 0 and new.value >= low.value):
            return zoom(wolfe, low, new, left, precision)
        if new.slope >= 0:
            return zoom(wolfe, new, low, left, precision)
        low = new
        if rate >= most:
            break
        rate = min(increase_factor * rate, most)
    return low.rate


def zoom(wolfe, low, high, steps, precision):
    """Nocedal and Wright, Algorithm 3.6; gives the rate."""
    third = None
    for _ in range(steps):
        if low.rate > 0 and abs(high.rate - low.rate) <= precision:
            break
        new = wolfe.at(interpolate(low, high, third))
        if wolfe.holds(new):
            return new.rate
        if not wolfe.decreases(new) or new.value >= low.value:
            third, high = high, new
        elif new.slope * (high.rate - low.rate) >= 0:
            third, high, low = high, low, new
        else:
            third, low = low, new
    return low.rate or wolfe.tried[-1].rate


def interpolate(low, high, third):
    """The minimum of a cubic, of a parabola, or the middle, if it is well inside."""
    a, b = np.longdouble(low.rate), np.longdouble(high.rate)

    def inside(x, margin):
        return min(a, b) + margin * abs(b - a) < x < max(a, b) - margin * abs(b - a)

    def rise(point):
        return np.longdouble(point.value) - low.value - low.slope * (point.rate - a)

    if third is not None:
        c = np.longdouble(third.rate)
        cubic = (rise(high) / (b - a) ** 2 - rise(third) / (c - a) ** 2) / (b - c)
        square = rise(high) / (b - a) ** 2 - cubic * (b - a)
        radicand = square**2 - 3 * cubic * low.slope
        if radicand > 0:
            x = a + (np.sqrt(radicand) - square) / (3 * cubic)
            if inside(x, 0.2):
                return float(x)
    x = a - low.slope * (b - a) ** 2 / (2 * rise(high))
    return float(x if inside(x, 0.1) else (a + b) / 2)


@piece(
    coupled=True,
    required={"max_linesearch_steps": 10},
    moved={
        "max_linesearch_steps": [2],
        "max_learning_rate": [0.05],
        "tol": [0.5],
        "increase_factor": [1.3],
        "slope_rtol": [0.4],
        "curv_rtol": [0.01],
        "approx_dec_rtol": [None, 0.5],
        "stepsize_precision": [{"stepsize_precision": 0.1, "curv_rtol": 0.01}],
        "initial_guess_strategy": ["one"],
        "verbose": [],
    },
)
def scale_by_zoom_linesearch(
    gradients,
    start,
    max_linesearch_steps,
    max_learning_rate=None,
    tol=0.0,
    increase_factor=2.0,
    slope_rtol=1e-4,
    curv_rtol=0.9,
    approx_dec_rtol=1e-6,
    stepsize_precision=1e-5,
    initial_guess_strategy="keep",
):
    """Nocedal and Wright (2006), Algorithms 3.5 and 3.6, along directions whose loss falls."""
    x, rate, out = start, 1.0, []
    for u in gradients:
        wolfe = Wolfe(loss_around(x, -u), x, u, slope_rtol, curv_rtol, tol, approx_dec_rtol)
        guess = rate if initial_guess_strategy == "keep" else 1.0
        most = np.inf if max_learning_rate is None else max_learning_rate
        rate = search(wolfe, guess, max_linesearch_steps, most, increase_factor, stepsize_precision)
        out.append(rate * u)
        x = x + out[-1]
    return out


@piece(
    coupled=True,
    required={"max_backtracking_steps": 30},
    moved={
        "max_backtracking_steps": [2],
        "slope_rtol": [0.4],
        "decrease_factor": [0.5],
        "increase_factor": [1.1, np.inf],
        "max_learning_rate": [0.5],
        "atol": [3.0],
        "rtol": [0.1],
        "store_grad": [True],
        "verbose": [],
    },
)
def scale_by_backtracking_linesearch(
    gradients,
    start,
    max_backtracking_steps,
    slope_rtol=1e-4,
    decrease_factor=0.8,
    increase_factor=1.5,
    max_learning_rate=1.0,
    atol=0.0,
    rtol=0.0,
    store_grad=False,
):
    """Armijo (1966); the first rate of a search: Vaswani et al., arXiv:1905.09997, Algorithm 2."""
    x, rate, out = start, 1.0, []
    for u in gradients:
        loss = loss_around(x, -u)
        value, gradient = loss(x)
        rate = min(rate * increase_factor, max_learning_rate)
        for _ in range(max_backtracking_steps):
            promised = slope_rtol * rate * np.sum(gradient * u)
            if loss(x + rate * u)[0] <= (1 + rtol) * value + promised + atol:
                break
            rate = rate * decrease_factor
        out.append(rate * u)
        x = x + out[-1]
    return out
