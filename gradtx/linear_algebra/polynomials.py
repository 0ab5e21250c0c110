"""Polar Express: the best polynomials for moving singular values to 1."""

import functools
import math

import numpy as np

Polynomial = tuple[float, float, float]
"""The coefficients of `c0*x + c1*x**3 + c2*x**5`."""

# Where the lower bound is smaller than this share of the upper one, the best polynomial brings
# values between them near 0 again, and rounding errors with them; the source gives the number.
SMALLEST_SHARE = 0.02407327424182761


def polar_express(
    steps: int = 5, lower_bound: float = 1e-3, safety: float = 1.01
) -> tuple[Polynomial, ...]:
    """Returns the coefficients of the Polar Express iteration, one polynomial for each step.

    Each polynomial `c0*x + c1*x**3 + c2*x**5` minimizes the maximum distance from 1 on the interval
    `[l, u]` to which the steps before it have brought the singular values; its values are centred
    on 1. From `l = lower_bound` and `u = 1`::

        l, u = p(l), 2 - p(l)

    It is computed in double precision by Remez's exchange algorithm, and kept for each setting.

    Args:
      steps: the number of polynomials, at least 1. Default: 5.
      lower_bound: the singular value from which on the convergence is optimal, in (0, 1], after the
        division by the matrix's norm; smaller ones converge too, but later. Default: 1e-3.
      safety: the factor by which rounding may move singular values beyond their interval, at least
        1; every polynomial but the last is stretched by it. Default: 1.01.

    Raises:
      ValueError: `steps`, `lower_bound` or `safety` is out of range.

    Source: Amsel et al., "The Polar Express: Optimal Matrix Sign Methods and Their Application to
    the Muon Algorithm", arXiv:2505.16932.

    Example:
      >>> import gradtx
      >>> gradtx.polar_express(steps=1, lower_bound=1.0)  # 15/8, -10/8 and 3/8
      ((1.875, -1.25, 0.375),)
      >>> [round(c, 3) for c in gradtx.polar_express(safety=1)[0]]
      [8.287, -23.596, 17.3]
    """
    if steps < 1 or steps % 1:
        raise ValueError(f"polar_express: steps must be a whole number, at least 1, got {steps}")
    if not 0 < lower_bound <= 1:
        raise ValueError(f"polar_express: lower_bound must be in (0, 1], got {lower_bound}")
    if not 1 <= safety < math.inf:
        raise ValueError(f"polar_express: safety must be finite and at least 1, got {safety}")
    return _coefficients(int(steps), float(lower_bound), float(safety))


@functools.cache
def _coefficients(steps: int, low: float, safety: float) -> tuple[Polynomial, ...]:
    found, high = [], 1.0
    for step in range(steps):
        best = _nearest_to_1(max(low, SMALLEST_SHARE * high), high)
        # centred on 1 for the whole interval, also if the polynomial was found for a part of it
        best *= 2 / (_value(best, low) + _value(best, high))
        low = _value(best, low)
        high = 2 - low
        stretched = best / safety ** np.array([1, 3, 5]) if step < steps - 1 else best
        found.append(tuple(stretched.tolist()))
    return tuple(found)


def _value(c: np.ndarray, x: float) -> float:
    return float(x * (c[0] + x**2 * (c[1] + x**2 * c[2])))


def _nearest_to_1(low: float, high: float) -> np.ndarray:
    """Returns the odd polynomial of degree 5 that minimizes the maximum distance from 1.

    Its error has the same size and alternating signs at four points: both ends, and the two extrema
    between them.
    """
    if low > (1 - 1e-5) * high:  # the distance is below 1e-15, and the points coincide
        return np.array([15, -10, 3]) / 8 / high ** np.array([1, 3, 5])
    inner = low + (high - low) * np.array([0.25, 0.75])
    c = np.zeros(3)
    for _ in range(100):
        x = np.array([low, *inner, high])
        rows = np.column_stack([x, x**3, x**5, [1, -1, 1, -1]])
        c = np.linalg.solve(rows, np.ones(4))[:3]
        # the zeros of the derivative c0 + 3*c1*x**2 + 5*c2*x**4
        root = math.sqrt(max(0.0, 9 * c[1] ** 2 - 20 * c[0] * c[2]))
        extrema = np.sqrt((-3 * c[1] + root * np.array([-1, 1])) / (10 * c[2]))
        moved, inner = np.max(np.abs(extrema - inner)), extrema
        if moved < 1e-14 * high:
            break
    return c
