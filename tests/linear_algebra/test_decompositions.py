"""Decompositions of stacks: they agree with NumPy, batch, and end."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linear_algebra import decompositions as d


def stack(*shape):
    return jax.random.normal(jax.random.key(0), shape)


def symmetric(*shape):
    x = stack(*shape)
    return x + x.mT


CASES = {
    "eigh": (lambda a: [v * w[..., None, :] @ v.mT for w, v in [d.eigh(a)]], symmetric),
    "qr": (lambda a: [jnp.matmul(*d.qr(a))], stack),
}


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4), (2, 3, 4, 4), (0, 4, 4)])
@pytest.mark.parametrize("name", ["eigh", "qr"])
def test_products_of_the_factors(name, shape):
    function, make = CASES[name]
    a = make(*shape)
    for f in (function, jax.jit(function)):
        np.testing.assert_allclose(f(a)[0], a, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4)])
def test_triangular_factors_and_solutions(shape):
    a = stack(*shape) + 4 * jnp.eye(4)
    np.testing.assert_allclose(jnp.abs(d.triangular_factor(a)), jnp.abs(d.qr(a)[1]), rtol=1e-5)
    upper = jnp.triu(a)
    np.testing.assert_allclose(upper.mT @ d.solve_adjoint(upper, a), a, rtol=1e-4, atol=1e-5)


def test_batches_are_those_of_single_matrices():
    a = symmetric(3, 4, 4)
    values = jax.vmap(lambda x: d.eigh(x)[0])(a)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(np.asarray(a)), atol=1e-5)
    twice = jax.vmap(jax.vmap(lambda x: d.eigh(x)[0]))(symmetric(2, 3, 4, 4))
    assert twice.shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4)])
def test_derivatives_in_both_modes(shape):
    a, x = jnp.triu(stack(*shape)) + 4 * jnp.eye(4), stack(*shape)

    def plain(a, x):
        return jnp.sum(jnp.linalg.solve(a.mT, x) ** 2)

    def ours(a, x):
        return jnp.sum(jax.lax.cond(True, d.solve_adjoint, lambda q, x: x, a, x) ** 2)

    slopes, expected = (jax.grad(f, argnums=(0, 1))(a, x) for f in (ours, plain))
    np.testing.assert_allclose(jnp.triu(slopes[0]), jnp.triu(expected[0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slopes[1], expected[1], rtol=1e-4, atol=1e-5)
    _, forward = jax.jvp(lambda x: ours(a, x), (x,), (x,))
    np.testing.assert_allclose(forward, jnp.sum(expected[1] * x), rtol=1e-4)


MANY = """
import jax, jax.numpy as jnp
from gradtx.linear_algebra.decompositions import eigh, qr, solve_adjoint
def spd(m):
    x = jax.random.normal(jax.random.key(m), (8, m, m)) / m + jnp.eye(m)
    return x @ x.mT
xs = [spd(m) for m in (64, 192, 65, 66, 128, 67)]
@jax.jit
def step(xs):
    return [(eigh(x), qr(x), solve_adjoint(jnp.triu(x), x)) for x in xs]
for _ in range(20):
    jax.block_until_ready(step(xs))
print("ended")
"""


@pytest.mark.thorough
def test_programs_with_many_decompositions_end():
    """With batches in one call, most of these processes wait for ever under JAX 0.10."""
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-c", MANY], capture_output=True, text=True, timeout=120
        )
        assert result.stdout.strip() == "ended", result.stderr
