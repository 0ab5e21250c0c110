"""Functions that are hard to minimize, with the number of their arguments."""

import jax
import jax.numpy as jnp


@jax.jit
def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@jax.jit
def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


@jax.jit
def beale(x):
    return sum((c - x[0] * (1 - x[1] ** k)) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625)))


@jax.jit
def powell(x):
    a, b, c, d = x
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


@jax.jit
def rippled(x):
    return jnp.sum(x**2) - jnp.cos(10 * x[0])


PROBLEMS = {rosenbrock: 4, himmelblau: 2, beale: 2, powell: 4, rippled: 3}
