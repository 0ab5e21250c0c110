"""The cost of `gradtx.watch` in a jitted training step, by batch size.

    python benchmarks/watch.py

The network has 6 layers of width 512; the optimizer is clipping and AdamW. The cost of the norms
does not depend on the batch size, but that of the gradients does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, parser, report, side_by_side, timed

import gradtx


def training(tx: gradtx.GradientTransformation, params: list, x: jax.Array) -> Callable[[], float]:
    """Returns a function that runs a training step and returns its seconds."""

    def loss(params, x):
        for layer in params:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return jnp.mean(x**2)

    def step(params, state, x):
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        return gradtx.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    carry = [jax.tree.map(jnp.copy, params), tx.init(params)]

    def once() -> object:
        carry[:] = compiled(*carry, x)
        return carry[0]

    return lambda: timed(once, 10)


def main() -> None:
    """Prints the ratio for three batch sizes."""
    parser(__doc__).parse_args()
    print(machine("jax", "gradtx", "numpy"))
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    params = [{"w": 0.06 * normal(512, 512), "b": jnp.zeros(512)} for _ in range(6)]
    plain = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    for batch in (128, 512, 2048):
        x = normal(batch, 512)
        runs = {
            "plain": training(plain, params, x),
            "watched": training(gradtx.watch(plain), params, x),
        }
        report(f"jitted step, batch {batch}", side_by_side(runs, 15), "plain")


if __name__ == "__main__":
    main()
