"""Inverse roots of stacks of matrices, and eigenbases, against NumPy in double."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linear_algebra.eigenbases import tracked_eigenbases
from gradtx.linear_algebra.inverse_roots import inverse_roots


def positive(seed, n, rank, dtype=float):
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, rank))
    x = x + 1j * random.standard_normal((n, rank)) if dtype is complex else x
    return x @ x.conj().T


@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("dtype", [float, complex])
def test_roots(method, dtype, x64):
    a = np.stack([positive(i, 4, 6, dtype) * 10.0 ** (i - 3) for i in (0, 3, 6)])
    root = jax.jit(lambda a: inverse_roots(a, 4, 1e-4, method))(jnp.asarray(a))
    fourth = np.linalg.matrix_power(np.asarray(root), 4)
    np.testing.assert_allclose(fourth @ (a + 1e-4 * np.eye(4)), [np.eye(4)] * 3, atol=1e-8)


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_null_spaces_and_extreme_sizes(method):
    """The root of a null space is that of the least eigenvalue that is not a rounding error."""
    a = jnp.asarray(np.stack([positive(i, 5, 2) for i in range(3)]), jnp.float32)
    for size in (1e-30, 1.0, 1e30):
        root = inverse_roots(a * size, 4, 0.0, method)
        assert bool(jnp.all(jnp.isfinite(root)))
        largest = jnp.linalg.norm(a * size, 2, (1, 2)) * 4 * 5**0.5 * jnp.finfo(jnp.float32).eps
        found = jnp.linalg.norm(root, 2, (1, 2))
        np.testing.assert_allclose(found, largest**-0.25, rtol=0.2)
    assert not np.any(inverse_roots(jnp.zeros((1, 3, 3)), 4, 0.0, method))


def test_bases_are_tracked_where_the_null_space_stays(x64):
    """A row that is always 0 does not need an eigendecomposition at each step."""
    a = jnp.pad(jnp.asarray(positive(0, 3, 5))[None], ((0, 0), (0, 1), (0, 1)))
    last = jnp.eye(4)[None]
    found = tracked_eigenbases(a, last, jnp.array([3]))
    order = np.argsort(-np.diag(a[0]))
    q, _ = np.linalg.qr(np.asarray(a[0])[:, order])
    np.testing.assert_allclose(np.abs(found.vectors[0, :, :3]), np.abs(q[:, :3]), atol=1e-12)
    np.testing.assert_array_equal(found.rank, [3])
    # the same from the basis before, in which the null space was larger
    found = tracked_eigenbases(a, last, jnp.array([2]))
    exact = found.vectors[0].T @ a[0] @ found.vectors[0]
    np.testing.assert_allclose(exact - np.diag(np.diag(exact)), 0, atol=1e-12)


def test_bases_are_tracked_unless_they_had_a_null_space(x64):
    a = jnp.asarray(np.stack([positive(i, 4, 6) for i in range(2)]))
    last = jnp.asarray(np.stack([np.eye(4)] * 2))
    found = tracked_eigenbases(a, last, jnp.array([4, 2]))
    order = np.argsort(-np.diag(a[0]))
    q, _ = np.linalg.qr(np.asarray(a[0])[:, order])
    np.testing.assert_allclose(np.abs(found.vectors[0]), np.abs(q), atol=1e-12)
    exact = found.vectors[1].T @ a[1] @ found.vectors[1]
    np.testing.assert_allclose(exact - np.diag(np.diag(exact)), 0, atol=1e-12)
    np.testing.assert_array_equal(found.rank, [4, 4])
