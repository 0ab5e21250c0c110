"""Functions of two variables, which can be drawn."""

from gradtx.engine.base import Array
from gradtx.problems.problem import problem

_MGH = "Moré, Garbow and Hillstrom, 'Testing Unconstrained Optimization Software' (1981), problem "
_HIMMELBLAU = "Himmelblau, 'Applied Nonlinear Programming' (1972)"


@problem(
    "Rosenbrock, 'An automatic method for finding the greatest or least value of a function' "
    f"(1960); {_MGH}1",
    start=(-1.2, 1.0),
    minima=((1.0, 1.0),),
    window=((-2.0, 2.0), (-1.0, 3.0)),
)
def rosenbrock(x: Array) -> Array:
    """A valley along a parabola, whose floor is nearly flat.

    `(1 - x[0])^2 + 100 * (x[1] - x[0]^2)^2`.
    """
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


@problem(
    f"Beale, 'On an iterative method for finding a local minimum' (1958); {_MGH}5",
    start=(1.0, 1.0),
    minima=((3.0, 0.5),),
    window=((-4.5, 4.5), (-4.5, 4.5)),
)
def beale(x: Array) -> Array:
    """A flat basin between steep walls.

    `(1.5 - x[0] * (1 - x[1]))^2 + (2.25 - x[0] * (1 - x[1]^2))^2 +
    (2.625 - x[0] * (1 - x[1]^3))^2`.
    """
    return (
        (1.5 - x[0] * (1 - x[1])) ** 2
        + (2.25 - x[0] * (1 - x[1] ** 2)) ** 2
        + (2.625 - x[0] * (1 - x[1] ** 3)) ** 2
    )


@problem(
    _HIMMELBLAU,
    start=(0.0, 0.0),
    minima=(
        (3.0, 2.0),
        (-2.8051180869527448, 3.1313125182505730),
        (-3.7793102533777469, -3.2831859912861694),
        (3.5844283403304917, -1.8481265269644034),
    ),
    window=((-5.0, 5.0), (-5.0, 5.0)),
)
def himmelblau(x: Array) -> Array:
    """A function with four equal minima, and saddles between them.

    `(x[0]^2 + x[1] - 11)^2 + (x[0] + x[1]^2 - 7)^2`.
    """
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


@problem(
    "Jamil and Yang, 'A Literature Survey of Benchmark Functions For Global Optimization "
    "Problems', arXiv:1308.4008, function 17",
    start=(-5.0, 5.0),
    minima=((1.0, 3.0),),
    window=((-10.0, 10.0), (-10.0, 10.0)),
)
def booth(x: Array) -> Array:
    """A bowl: a quadratic form whose curvatures differ by a factor of nine.

    `(x[0] + 2 * x[1] - 7)^2 + (2 * x[0] + x[1] - 5)^2`.
    """
    return (x[0] + 2 * x[1] - 7) ** 2 + (2 * x[0] + x[1] - 5) ** 2
