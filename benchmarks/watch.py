"""What `gradtx.watch` costs in a jitted training step, by the size of the batch.

    python benchmarks/watch.py

A network of 6 layers of width 512, clipping and AdamW. The norms are the same work at each size of
the batch, and the gradients are not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, report, side_by_side, timed

import gradtx


def training(tx: gradtx.GradientTransformation, params: list, x: jax.Array) -> Callable[[], float]:
    """Makes the run of a training step, which gives its seconds."""

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
    """Prints the ratio for three sizes of the batch."""
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
