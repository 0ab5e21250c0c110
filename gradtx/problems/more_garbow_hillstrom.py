"""Moré, Garbow and Hillstrom's problems of at most six variables: sums of squared residuals.

Rosenbrock's and Beale's functions, their numbers 1 and 5, are among those in the plane.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array
from gradtx.problems.problem import problem

_MGH = "Moré, Garbow and Hillstrom, 'Testing Unconstrained Optimization Software' (1981), problem "


def _squares(*residuals: ArrayLike) -> Array:
    return jnp.asarray(sum(jnp.sum(r * r) for r in residuals))


@problem(f"{_MGH}2", start=(0.5, -2.0), minima=((5.0, 4.0),), elsewhere=(48.9842,))
def freudenstein_roth(x: Array) -> Array:
    """A function whose descent from the usual start ends in a local minimum.

        (a - 13 + ((5 - b) * b - 2) * b)^2 + (a - 29 + ((b + 1) * b - 14) * b)^2

    where `a, b = x`.
    """
    a, b = x
    return _squares(
        -13 + a + ((5 - b) * b - 2) * b,
        -29 + a + ((b + 1) * b - 14) * b,
    )


@problem(f"{_MGH}3", start=(0.0, 1.0), minima=((1.098159329699759e-5, 9.106146739866524),))
def powell_badly_scaled(x: Array) -> Array:
    """The two variables differ by six orders of magnitude.

        (10^4 * a * b - 1)^2 + (exp(-a) + exp(-b) - 1.0001)^2

    where `a, b = x`.
    """
    a, b = x
    return _squares(1e4 * a * b - 1, jnp.exp(-a) + jnp.exp(-b) - 1.0001)


@problem(f"{_MGH}4", start=(1.0, 1.0), minima=((1e6, 2e-6),))
def brown_badly_scaled(x: Array) -> Array:
    """The two variables differ by twelve orders of magnitude.

        (a - 10^6)^2 + (b - 2 * 10^-6)^2 + (a * b - 2)^2

    where `a, b = x`.
    """
    a, b = x
    return _squares(a - 1e6, b - 2e-6, a * b - 2)


@problem(f"{_MGH}6", start=(0.3, 0.4), least=124.362, minima=((0.2578252, 0.2578252),))
def jennrich_sampson(x: Array) -> Array:
    """A narrow valley of exponentials that cannot be fitted.

        sum((2 + 2 * i - exp(i * a) - exp(i * b))^2, over i)

    where `a, b = x`, and `i` goes from 1 to 10.
    """
    i = np.arange(1, 11)
    return _squares(2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1])))


@problem(f"{_MGH}7", start=(-1.0, 0.0, 0.0), minima=((1.0, 0.0, 0.0),))
def helical_valley(x: Array) -> Array:
    """A valley that winds around an axis.

        turns = arctan2(b, a) / (2 * pi)
        100 * (c - 10 * turns)^2 + 100 * (sqrt(a^2 + b^2) - 1)^2 + c^2

    where `a, b, c = x`. Turns are counted from -1/4 to 3/4: to those below -1/4, 1 is added.
    """
    a, b, c = x
    # Turns around the axis, from -1/4 to 3/4.
    turns = jnp.arctan2(b, a) / (2 * math.pi) + jnp.where((a < 0) & (b < 0), 1.0, 0.0)
    return _squares(10 * (c - 10 * turns), 10 * (jnp.hypot(a, b) - 1), c)


_BARD = (0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34,
                  2.10, 4.39)  # fmt: skip


@problem(f"{_MGH}8", start=(1.0, 1.0, 1.0), least=8.21487e-3, elsewhere=(17.4286,))
def bard(x: Array) -> Array:
    """A rational function, fitted to fifteen measurements.

        v_i = 16 - i
        sum((y_i - a - i / (v_i * b + min(i, v_i) * c))^2, over i)

    where `a, b, c = x`, `i` goes from 1 to 15, and `y_i` are the measurements.
    """
    a, b, c = x
    u = np.arange(1, 16)
    v = 16 - u
    return _squares(np.array(_BARD) - (a + u / (v * b + np.minimum(u, v) * c)))


_HALF_BELL = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521)
_BELL = (*_HALF_BELL, 0.3989, *reversed(_HALF_BELL))


@problem(f"{_MGH}9", start=(0.4, 1.0, 0.0), least=1.12793e-8)
def gaussian(x: Array) -> Array:
    """A bell curve, fitted to fifteen rounded values of one.

        t_i = (8 - i) / 2
        sum((a * exp(-b * (t_i - c)^2 / 2) - y_i)^2, over i)

    where `a, b, c = x`, `i` goes from 1 to 15, and `y_i` are the values.
    """
    a, b, c = x
    t = (8 - np.arange(1, 16)) / 2
    return _squares(a * jnp.exp(-b * (t - c) ** 2 / 2) - np.array(_BELL))


_MEYER = (34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147,
                   4427, 3820, 3307, 2872)  # fmt: skip


@problem(f"{_MGH}10", start=(0.02, 4000.0, 250.0), least=87.9458)
def meyer(x: Array) -> Array:
    """A thermistor's resistance; variables differ by six orders of magnitude, curvatures more.

        t_i = 45 + 5 * i
        sum((a * exp(b / (t_i + c)) - y_i)^2, over i)

    where `a, b, c = x`, `i` goes from 1 to 16, and `y_i` are the measurements.
    """
    a, b, c = x
    t = 45 + 5 * np.arange(1, 17)
    return _squares(a * jnp.exp(b / (t + c)) - np.array(_MEYER))


@problem(f"{_MGH}11", start=(5.0, 2.5, 0.15), minima=((50.0, 25.0, 1.5),))
def gulf(x: Array) -> Array:
    """A Weibull distribution, fitted to 99 of its values.

        t_i = i / 100
        y_i = 25 + (-50 * log(t_i))^(2/3)
        sum((exp(-|y_i - b|^c / a) - t_i)^2, over i)

    where `a, b, c = x`, and `i` goes from 1 to 99.
    """
    a, b, c = x
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return _squares(jnp.exp(-(jnp.abs(y - b) ** c) / a) - t)


@problem(f"{_MGH}12", start=(0.0, 10.0, 20.0), minima=((1.0, 10.0, 1.0), (10.0, 1.0, -1.0)))
def box(x: Array) -> Array:
    """A difference of exponentials, which is also 0 wherever `x[0] == x[1]` and `x[2] == 0`.

        t_i = i / 10
        sum((exp(-t_i * a) - exp(-t_i * b) - c * (exp(-t_i) - exp(-10 * t_i)))^2, over i)

    where `a, b, c = x`, and `i` goes from 1 to 10.
    """
    a, b, c = x
    t = np.arange(1, 11) / 10
    return _squares(jnp.exp(-t * a) - jnp.exp(-t * b) - c * (np.exp(-t) - np.exp(-10 * t)))


@problem(f"{_MGH}13", start=(3.0, -1.0, 0.0, 1.0), minima=((0.0, 0.0, 0.0, 0.0),))
def powell_singular(x: Array) -> Array:
    """A function with a singular Hessian at its minimum, where all methods become slow.

        (a + 10 * b)^2 + 5 * (c - d)^2 + (b - 2 * c)^4 + 10 * (a - d)^4

    where `a, b, c, d = x`.
    """
    a, b, c, d = x
    return _squares(
        a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2
    )


@problem(f"{_MGH}14", start=(-3.0, -1.0, -3.0, -1.0), minima=((1.0, 1.0, 1.0, 1.0),))
def wood(x: Array) -> Array:
    """A coupling of two Rosenbrock valleys; descent nearly stops near a saddle.

        100 * (b - a^2)^2 + (1 - a)^2 + 90 * (d - c^2)^2 + (1 - c)^2
        + 10 * (b + d - 2)^2 + (b - d)^2 / 10

    where `a, b, c, d = x`.
    """
    a, b, c, d = x
    return _squares(
        10 * (b - a**2),
        1 - a,
        math.sqrt(90) * (d - c**2),
        1 - c,
        math.sqrt(10) * (b + d - 2),
        (b - d) / math.sqrt(10),
    )


_KOWALIK = (0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235,
                     0.0246)  # fmt: skip
_KOWALIK_U = (4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


@problem(f"{_MGH}15", start=(0.25, 0.39, 0.415, 0.39), least=3.07505e-4, elsewhere=(1.02734e-3,))
def kowalik_osborne(x: Array) -> Array:
    """An enzyme's reaction, fitted to eleven measurements.

        sum((y_i - a * (u_i^2 + u_i * b) / (u_i^2 + u_i * c + d))^2, over i)

    where `a, b, c, d = x`, `i` goes from 1 to 11, and `u_i` and `y_i` are concentrations and the
    measurements.
    """
    a, b, c, d = x
    u = np.array(_KOWALIK_U)
    return _squares(np.array(_KOWALIK) - a * (u * u + u * b) / (u * u + u * c + d))


@problem(f"{_MGH}16", start=(25.0, 5.0, -5.0, -1.0), least=85822.2)
def brown_dennis(x: Array) -> Array:
    """An exponential and a wave that cannot be fitted; residuals stay large.

        t_i = i / 5
        sum(((a + t_i * b - exp(t_i))^2 + (c + d * sin(t_i) - cos(t_i))^2)^2, over i)

    where `a, b, c, d = x`, and `i` goes from 1 to 20.
    """
    a, b, c, d = x
    t = np.arange(1, 21) / 5
    u, v = a + t * b - np.exp(t), c + d * np.sin(t) - np.cos(t)
    return _squares(u * u + v * v)


_OSBORNE = (0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751,
                     0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490,
                     0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406)  # fmt: skip  # noqa: E501


@problem(f"{_MGH}17", start=(0.5, 1.5, -1.0, 0.01, 0.02), least=5.46489e-5)
def osborne(x: Array) -> Array:
    """A sum of two exponentials that nearly cancel, fitted to 33 measurements.

        t_i = 10 * i
        sum((y_i - a - b * exp(-t_i * d) - c * exp(-t_i * e))^2, over i)

    where `a, b, c, d, e = x`, `i` goes from 0 to 32, and `y_i` are the measurements.
    """
    a, b, c, d, e = x
    t = 10 * np.arange(33)
    return _squares(np.array(_OSBORNE) - (a + b * jnp.exp(-t * d) + c * jnp.exp(-t * e)))


@problem(
    f"{_MGH}18",
    start=(1.0, 2.0, 1.0, 1.0, 1.0, 1.0),
    minima=((1.0, 10.0, 1.0, 5.0, 4.0, 3.0),),
    elsewhere=(5.65565e-3,),
)
def biggs(x: Array) -> Array:
    """A sum of three exponentials, fitted to thirteen values of such a sum.

        t_i = i / 10
        y_i = exp(-t_i) - 5 * exp(-10 * t_i) + 3 * exp(-4 * t_i)
        sum((c * exp(-t_i * a) - d * exp(-t_i * b) + f * exp(-t_i * e) - y_i)^2, over i)

    where `a, b, c, d, e, f = x`, and `i` goes from 1 to 13.
    """
    a, b, c, d, e, f = x
    t = np.arange(1, 14) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return _squares(c * jnp.exp(-t * a) - d * jnp.exp(-t * b) + f * jnp.exp(-t * e) - y)


@problem(f"{_MGH}20", start=(0.0,) * 6, least=2.28767e-3)
def watson(x: Array) -> Array:
    """A polynomial that nearly solves a differential equation; its Hessian is nearly singular.

        t_i = i / 29
        p_i = sum(x[j] * t_i^j, over j)
        q_i = sum(j * x[j] * t_i^(j - 1), over j)
        sum((q_i - p_i^2 - 1)^2, over i) + x[0]^2 + (x[1] - x[0]^2 - 1)^2

    where `i` goes from 1 to 29: `p_i` is the polynomial at `t_i`, and `q_i` its slope.
    """
    n = len(x)
    t = np.arange(1, 30)[:, None] / 29
    j = np.arange(n)
    slope = (j[1:] * t ** (j[1:] - 1)) @ x[1:]
    return _squares(slope - (t**j @ x) ** 2 - 1, x[0], x[1] - x[0] ** 2 - 1)
