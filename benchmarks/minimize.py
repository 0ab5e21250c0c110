"""Evaluations and accuracy of `gradtx.minimize` against SciPy's L-BFGS-B on classic problems.

    python benchmarks/minimize.py [--markdown]

Both start from the published starts, in float64, with a memory of 10 pairs. They stop when the
gradient's norm (in SciPy: its largest element) is at most 1e-10, or when they make no more
progress. An evaluation is one of value and gradient. A value is marked with (!) if it is neither
the published global minimum nor a known local one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from harness import machine, parser

import gradtx
from gradtx._table import text_table
from gradtx.problems import PROBLEMS, Problem

TOL = 1e-10
HEADER = ["problem", "n", "published", "gradtx", "gradient", "evaluations", "scipy", "gradient",
          "evaluations"]  # fmt: skip


def cells(problem: Problem, value: float, gradient: np.ndarray, evaluations: int) -> list[str]:
    known = (problem.least, *problem.elsewhere)
    found = any(abs(value - k) <= max(5e-6 * k, 1e-15) for k in known)
    return [
        f"{value:.6g}" + ("" if found else " (!)"),
        f"{np.max(np.abs(gradient)):.0e}",
        str(evaluations),
    ]


def row(problem: Problem) -> list[str]:
    value_and_grad = jax.jit(jax.value_and_grad(problem.fun))
    start = np.array(problem.start)
    ours = gradtx.minimize(problem, jnp.array(start), tol=TOL, max_steps=5000)
    theirs = scipy.optimize.minimize(
        lambda x: tuple(map(np.asarray, value_and_grad(x))),
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 10, "ftol": 0.0, "gtol": TOL, "maxiter": 5000, "maxfun": 50000},
    )
    return [
        problem.name,
        str(len(start)),
        " or ".join(f"{x:g}" for x in (problem.least, *problem.elsewhere)),
        *cells(
            problem,
            float(ours.value),
            np.asarray(value_and_grad(ours.x)[1]),
            int(ours.gradient_evaluations),
        ),
        *cells(problem, float(theirs.fun), theirs.jac, theirs.nfev),
    ]


def main() -> None:
    """Prints the table."""
    options = parser(__doc__)
    options.add_argument("--markdown", action="store_true")
    markdown = options.parse_args().markdown
    jax.config.update("jax_enable_x64", True)
    print(machine("jax", "scipy", "gradtx", "numpy"))
    rows = [row(problem) for problem in PROBLEMS.values()]
    if markdown:
        print("\n".join(f"| {' | '.join(r)} |" for r in [HEADER, ["---"] * len(HEADER), *rows]))
    else:
        print(text_table(HEADER, rows, " rrrrrrrr"))
    for name, column in (("gradtx", 3), ("scipy", 6)):
        reached = [r for r in rows if "(!)" not in r[column]]
        print(f"{name}: {len(reached)} of {len(rows)} reach a published minimum")
    both = [r for r in rows if "(!)" not in r[3] + r[6]]
    ratio = np.median([int(r[5]) / int(r[8]) for r in both])
    total = [sum(int(r[c]) for r in both) for c in (5, 8)]
    print(
        f"on the {len(both)} where both do: {total[0]} evaluations against {total[1]}, median "
        f"ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    main()
