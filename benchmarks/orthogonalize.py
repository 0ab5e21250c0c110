"""Error and time of each iteration that orthogonalizes matrices, in one run.

    python benchmarks/orthogonalize.py

For each shape, with random matrices and with singular values from 1 down to 1e-3: the smallest and
the largest singular value of the result, the root of the mean square of their distances from 1, and
the shortest time of a compiled call for a batch of matrices, as a ratio to the classic
Newton–Schulz iteration in the same dtype.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, parser, side_by_side, timed

import gradtx

SHAPES = {(64, 64): 32, (64, 256): 16, (256, 1024): 2}
"""Shapes, and how many matrices of them are in the batch."""

# Four steps for singular values above 0.003 of the Schatten 4-norm.
SHORT = gradtx.polar_express(4, 3e-3)
ITERATIONS = {
    "classic, 5 steps": {},
    "classic, 5 steps, Gram": {"form": "gram"},
    "Polar Express, 5 steps": {"coefficients": "polar_express"},
    "Polar Express, 5 steps, Gram": {"coefficients": "polar_express", "form": "gram"},
    "Polar Express, 4 steps, Schatten norm, Gram": {
        "coefficients": SHORT,
        "form": "gram",
        "preconditioning": "schatten",
    },
    "singular value decomposition": {"form": "svd"},
}


def matrices(number: int, shape: tuple[int, int], smallest: float | None) -> jax.Array:
    """Returns random matrices; with the smallest singular value given, the largest is 1."""
    g = np.random.default_rng(0).standard_normal((number, *shape))
    if smallest is not None:
        u, s, vh = np.linalg.svd(g, full_matrices=False)
        g = u * np.geomspace(1, smallest, s.shape[1]) @ vh
    return jnp.asarray(g, jnp.float32)


def main() -> None:
    """Prints a table in Markdown."""
    parser(__doc__).parse_args()
    print(machine("jax", "gradtx", "numpy"))
    print("\n| shape | dtype | iteration | random: singular values, spread | 1 to 1e-3 | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for shape, number in SHAPES.items():
        samples = [matrices(number, shape, smallest) for smallest in (None, 1e-3)]
        for dtype in (jnp.float32, jnp.bfloat16):
            calls = {
                name: jax.jit(functools.partial(gradtx.orthogonalize, dtype=dtype, **settings))
                for name, settings in ITERATIONS.items()
            }
            runs = {name: run_of(call, samples[0]) for name, call in calls.items()}
            seconds = {k: float(np.min(x)) for k, x in side_by_side(runs, 7).items()}
            for name, call in calls.items():
                errors = " | ".join(error(call(g)) for g in samples)
                ratio = seconds[name] / seconds["classic, 5 steps"]
                told = f"{shape[0]}x{shape[1]} | {dtype.__name__} | {name} | {errors}"
                print(f"| {told} | {ratio:.2f} |", flush=True)


def run_of(call: Callable, g: jax.Array) -> Callable[[], float]:
    """Returns a function that returns the seconds of a call."""
    return lambda: timed(lambda: call(g), 3)


def error(found: jax.Array) -> str:
    """Returns the singular values' range and spread."""
    s = np.linalg.svd(np.asarray(found, np.float64), compute_uv=False)
    return f"{s.min():.3f} to {s.max():.3f}, {np.sqrt(np.mean((s - 1) ** 2)):.3f}"


if __name__ == "__main__":
    main()
