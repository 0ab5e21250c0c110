"""Speed of Muon: stacks of matrices in gradtx against single leaves in optax, in one run.

    python benchmarks/muon.py

The parameters are the 48 matrices, of 4 shapes, of a transformer with 12 layers of width 64, and of
width 256 for a second measurement of the step. "gradtx, Gram" takes four steps of Polar Express in
the Gram form, whose singular values are as near to 1 as those of five classic steps, see
`orthogonalize.py`. "By hand" is the same method in plain JAX for these matrices alone, without
a library: what tracing it has to cost.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from harness import machine, parser, report, side_by_side, timed
from speed import transformer

import gradtx

LIBRARIES: dict[str, tuple[Any, Callable]] = {
    "optax": (optax.contrib.muon(1e-3), optax.apply_updates),
    "gradtx": (gradtx.muon(1e-3), gradtx.apply_updates),
    "gradtx, Gram": (
        gradtx.muon(
            1e-3,
            gradtx.polar_express(4, 3e-3),
            preconditioning="schatten",
            ns_form="gram",
        ),
        gradtx.apply_updates,
    ),
}


def matrices(width: int = 64) -> list[jax.Array]:
    """Returns the matrices, with random elements."""
    random = np.random.default_rng(0)
    leaves = jax.tree.leaves(transformer())
    shapes = [tuple(n * width // 64 for n in x.shape) for x in leaves if x.ndim == 2]
    return [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]


def by_hand(params: list, state: list, grads: list) -> tuple[list, list]:
    """A step of Muon written for matrices of few shapes."""
    mu = [0.95 * m + g for m, g in zip(state, grads, strict=True)]
    nesterov = [0.95 * m + g for m, g in zip(mu, grads, strict=True)]
    where: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(params):
        where.setdefault(x.shape, []).append(i)
    new = list(params)
    for shape, mine in where.items():
        x = jnp.stack([nesterov[i] for i in mine])
        x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-8)
        x = x.mT if (tall := shape[0] > shape[1]) else x
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        x = (x.mT if tall else x) * max(1, shape[1] / shape[0]) ** 0.5
        for i, u in zip(mine, x, strict=True):
            new[i] = params[i] - 1e-3 * u
    return new, mu


def step_of(name: str) -> Callable:
    """Returns the training step of a library: update and apply."""
    tx, apply = LIBRARIES[name]

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return apply(params, updates), state

    return step


def main() -> None:
    """Prints the ratios."""
    parser(__doc__).parse_args()
    print(machine("jax", "optax", "gradtx", "numpy"))
    params = matrices()
    states = {name: tx.init(params) for name, (tx, _) in LIBRARIES.items()}
    print(f"{len(params)} matrices, {len({x.shape for x in params})} shapes")

    def lowered(name: str) -> Any:
        return (
            jax.jit(step_of(name), donate_argnums=(0, 1))
            .trace(params, states[name], params)
            .lower()
        )

    def trace(name: str) -> float:
        jax.clear_caches()
        return timed(lambda: lowered(name) and 0)

    def trace_by_hand() -> float:
        jax.clear_caches()
        step = jax.jit(by_hand, donate_argnums=(0, 1))
        return timed(lambda: step.trace(params, params, params).lower() and 0)

    runs = {name: lambda n=name: trace(n) for name in LIBRARIES}
    found = side_by_side({**runs, "by hand": trace_by_hand}, 11)
    report("trace + lower, caches empty", found, "optax", "at most 0.2")

    def compile_(name: str) -> float:
        jax.clear_caches()
        low = lowered(name)
        return timed(lambda: low.compile() and 0)

    found = side_by_side({name: lambda n=name: compile_(n) for name in LIBRARIES}, 5)
    report("compile", found, "optax", "at most 0.4")

    report("jitted step", side_by_side(steps(params), 21), "optax", "at most 0.5")
    wide = side_by_side(steps(matrices(256)), 5)
    report("jitted step, width 256", wide, "optax", "at most 0.5")


def steps(params: list[jax.Array]) -> dict[str, Callable[[], float]]:
    """Returns functions that return the seconds of a compiled step."""
    runs = {}
    for name, (tx, _) in LIBRARIES.items():
        state = tx.init(params)
        step = jax.jit(step_of(name), donate_argnums=(0, 1))
        compiled = step.lower(params, state, params).compile()
        carry = [[jnp.copy(x) for x in params], state]

        def once(compiled=compiled, carry=carry) -> object:
            carry[:] = compiled(*carry, params)
            return carry[0]

        runs[name] = lambda once=once: timed(once, 5)
    return runs


if __name__ == "__main__":
    main()
