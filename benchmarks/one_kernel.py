"""An 8-bit AdamW step in one Pallas kernel for each leaf, against what XLA makes of the same codec.

    python benchmarks/one_kernel.py [--sizes 100M 1B] [--rounds 11] [--rows 32 64]

It measures what an accelerator can reach when the largest entry of a block, and the codes, are
computed in one pass over the arrays. On a CPU it runs the kernel in Pallas's interpreter and
compares its numbers with those of gradtx, for a small size.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import memory
from harness import machine, report, side_by_side, timed
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from gradtx.codecs.eight_bits import CODE, HALF_CODE, SIZE

B1, B2, EPS, RATE, DECAY = 0.9, 0.999, 1e-8, 1e-3, 1e-4


def encode(x: jax.Array, signed: bool) -> tuple[jax.Array, jax.Array]:
    """Returns codes and exponents of blocks, rounded to nearest, for finite numbers."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    magnitude = bits & 0x7FFFFFFF
    exponent = (jnp.max(magnitude, axis=1) + (1 << 22)) >> 23
    offset = (jnp.maximum(exponent - (15 if signed else 31), 0) << 3)[:, None]
    code = ((magnitude + HALF_CODE) >> CODE) - offset
    code = jnp.maximum(code, 0 if signed else jnp.minimum(magnitude, 1))
    if signed:
        code = code | ((bits >> 24) & 128)
    return code.astype(jnp.uint8), exponent.astype(jnp.uint8)


def decode(codes: jax.Array, exponent: jax.Array, signed: bool) -> jax.Array:
    """Returns the numbers of blocks."""
    found = codes.astype(jnp.int32)
    code = found & 127 if signed else found
    exponent = exponent.astype(jnp.int32)
    offset = (jnp.maximum(exponent - (15 if signed else 31), 0) << 3)[:, None]
    magnitude = jnp.where(code == 0, 0, code + offset) << CODE
    if signed:
        magnitude = magnitude | ((found & 128) << 24)
    return jax.lax.bitcast_convert_type(magnitude, jnp.float32)


def kernel(scalars, p, g, mu, mu_scale, nu, nu_scale, *results):
    """Updates some blocks: parameters, codes and exponents."""
    p_new, mu_new, mu_scale_new, nu_new, nu_scale_new = results
    m = B1 * decode(mu[...], mu_scale[...], True) + (1 - B1) * g[...]
    v = B2 * decode(nu[...], nu_scale[...], False) + (1 - B2) * g[...] * g[...]
    step = (m * scalars[0]) / (jnp.sqrt(v * scalars[1]) + EPS) + DECAY * p[...]
    p_new[...] = p[...] - RATE * step
    mu_new[...], mu_scale_new[...] = encode(m, True)
    nu_new[...], nu_scale_new[...] = encode(v, False)


def update(rows: int, p: jax.Array, g: jax.Array, state: tuple, scalars: jax.Array) -> tuple:
    """Updates one leaf."""
    blocks = p.size // SIZE
    wide = pl.BlockSpec((rows, SIZE), lambda i: (i, 0))
    narrow = pl.BlockSpec((rows,), lambda i: (i,))
    arrays = (p.reshape(blocks, SIZE), g.reshape(blocks, SIZE), *state)
    specs = [wide, wide, wide, narrow, wide, narrow]
    results = [arrays[0], *state]
    found = pl.pallas_call(
        kernel,
        grid=(blocks // rows,),
        in_specs=[pl.BlockSpec((2,), lambda i: (0,)), *specs],
        out_specs=[wide, wide, narrow, wide, narrow],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        input_output_aliases={1: 0, 3: 1, 4: 2, 5: 3, 6: 4},
        compiler_params=triton.CompilerParams(num_warps=4),
        interpret=jax.default_backend() == "cpu",
    )(scalars, *arrays)
    return found[0].reshape(p.shape), tuple(found[1:])


class OneKernel:
    """A compiled, donated step, and what it holds.

    Args:
      rows: the number of blocks that a program of the kernel updates.
      grads: the gradients.
    """

    def __init__(self, rows: int, grads: dict[str, jax.Array]):
        def first(g: jax.Array) -> tuple:
            codes = jnp.zeros((g.size // SIZE, SIZE), jnp.uint8)
            scale = jnp.zeros((g.size // SIZE,), jnp.uint8)
            return codes, scale, codes + 0, scale + 0

        def step(params, state, count, grads):
            count = count + 1
            scalars = jnp.stack([1 / (1 - B1**count), 1 / (1 - B2**count)])
            new = {n: update(rows, params[n], grads[n], state[n], scalars) for n in grads}
            return {n: x for n, (x, _) in new.items()}, {n: s for n, (_, s) in new.items()}, count

        self.grads = grads
        self.carry = [
            jax.tree.map(jnp.zeros_like, grads),
            jax.tree.map(jax.jit(first), grads),
            jnp.zeros((), jnp.float32),
        ]
        self.step = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*self.carry, grads).compile()

    def once(self) -> object:
        """Runs one step."""
        self.carry[:] = self.step(*self.carry, self.grads)
        return self.carry


def agree() -> None:
    """Prints the largest difference from gradtx after three steps."""
    grads = {"w": jax.random.normal(jax.random.key(0), (64, 128))}
    mine, other = OneKernel(32, grads), memory.Training("8-bit nearest", grads)
    for _ in range(3):
        mine.once()
        other.once()
    difference = jnp.max(jnp.abs(mine.carry[0]["w"] - other.carry[0]["w"]))
    print(f"largest difference from gradtx after three steps: {difference:.1e}")


def compare(size: int, rows: list[int], rounds: int) -> None:
    """Prints times for a number of parameters."""
    grads = memory.gradients(size)
    names = ["float32", "8-bit", "8-bit nearest"]
    trainings: dict = {name: memory.Training(name, grads) for name in names}
    moved = trainings["8-bit"].moved
    for n in rows:
        try:
            trainings[f"one kernel, {n} blocks"] = OneKernel(n, grads)
        except Exception as error:  # what a version of JAX cannot compile is printed
            print(f"one kernel, {n} blocks: {type(error).__name__}: {str(error)[:500]}")
    copied = min(16 * size, 2**31)
    runs = {name: functools.partial(timed, t.once, 5) for name, t in trainings.items()}
    found = side_by_side({**runs, "copy": memory.copying(copied)}, rounds, warm=2)
    report(f"AdamW, {size / 1e6:.0f} million parameters", found, "float32", "at most 0.6")
    rate = 2 * copied / min(found["copy"])
    for name in list(runs)[1:]:
        print(f"  {name:<24} {moved / min(found[name]) / rate:.2f} of the bandwidth of a copy")


def main() -> None:
    """Compares numbers on a CPU, and times elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=[10**8], type=memory.size_of)
    parser.add_argument("--rows", nargs="+", default=[16, 32, 64], type=int)
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    print(machine("jax", "gradtx", "numpy"))
    if jax.default_backend() == "cpu":
        return agree()
    for size in given.sizes:
        compare(size, given.rows, given.rounds)


if __name__ == "__main__":
    main()
