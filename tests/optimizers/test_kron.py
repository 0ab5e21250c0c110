"""PSGD Kron: whitening, one decision for all matrices, sides without triangular factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def normals(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def factors(state):
    return {n: (state.left[n], state.right[n]) for n in state.left}


@pytest.mark.parametrize("size", [1, 8192], ids=["diagonal", "triangular"])
def test_gradients_are_whitened(size, x64):
    """Rows and columns then have second moments of 1 times the other side's length."""
    rows, columns = normals(0, 3, 3) + 2 * jnp.eye(3), normals(1, 4, 4) + 2 * jnp.eye(4)
    if size == 1:  # of which a diagonal factor can make white ones
        rows, columns = jnp.diag(jnp.diag(rows)), jnp.diag(jnp.diag(columns))
    tx = gradtx.scale_by_kron(
        0.0, 1.0, size, precond_lr=lambda t: 0.3 / (1 + t / 100), max_rms=None
    )
    gradients = jnp.einsum("ab,tbc,cd->tad", rows, normals(2, 4000, 3, 4), columns)

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    _, found = jax.lax.scan(step, tx.init(gradients[0]), gradients)
    last = found[2000:]
    moment = jnp.einsum("tab,tcb->ac", last, last) / len(last)
    np.testing.assert_allclose(moment, 4 * np.eye(3), atol=0.8)
    moment = jnp.einsum("tab,tac->bc", last, last) / len(last)
    np.testing.assert_allclose(moment, 3 * np.eye(4), atol=0.6)


def test_all_matrices_are_fitted_at_the_same_steps():
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3)), "c": jnp.ones((4, 2))}
    tx = gradtx.scale_by_kron(preconditioner_update_probability=0.5)
    state, patterns = tx.init(params), []
    for t in range(40):
        g = {n: normals(t, *x.shape).astype(jnp.float32) for n, x in params.items()}
        before = factors(state)
        _, state = tx.update(g, state)
        after = factors(state)
        patterns.append([bool(jnp.any(before[n][0] != after[n][0])) for n in params])
    assert all(len(set(pattern)) == 1 for pattern in patterns)
    assert 10 < sum(pattern[0] for pattern in patterns) < 30


def test_a_restored_state_continues_under_another_key():
    """Probes and decisions come from the state alone."""
    params = normals(0, 3, 4).astype(jnp.float32)
    one, other = (gradtx.scale_by_kron(0.0, 0.5, key=key) for key in (0, 7))
    state = mine = one.init(params)
    for t in range(8):
        g = normals(t, 3, 4).astype(jnp.float32)
        (u, state), (v, mine) = one.update(g, state), other.update(g, mine)
        np.testing.assert_array_equal(u, v)


def test_a_tall_matrix_is_a_transposed_wide_one():
    g = normals(0, 5, 3).astype(jnp.float32)
    tx = gradtx.scale_by_kron()
    tall, wide = tx.init(g), tx.init(g.T)
    for _ in range(3):
        u, tall = tx.update(g, tall)
        v, wide = tx.update(g.T, wide)
    np.testing.assert_allclose(u, v.T, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "shapes"),
    [
        ({}, ((1, 3, 3), (1, 7, 7))),
        ({"max_size_triangular": 6}, ((1, 3, 3), (1, 7))),
        ({"max_size_triangular": 1}, ((1, 3), (1, 7))),
        ({"max_skew_triangular": 2}, ((1, 3, 3), (1, 7))),
        ({"max_skew_triangular": 3}, ((1, 3, 3), (1, 7, 7))),
    ],
    ids=str,
)
def test_sides_without_triangular_factors(settings, shapes):
    state = gradtx.scale_by_kron(**settings).init(jnp.ones((3, 7)))
    assert (state.left.shape, state.right.shape) == shapes


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_gradient_does_not_reach_the_factors(bad):
    """It is one of zeros for its matrix, and is counted."""
    tx = gradtx.scale_by_kron()
    good = normals(0, 3, 2).astype(jnp.float32)
    state = tx.update(good, tx.init(good))[1]
    _, wanted = tx.update(jnp.zeros_like(good), state)
    _, found = tx.update(good.at[1, 1].set(bad), state)
    np.testing.assert_array_equal(found.left, wanted.left)
    np.testing.assert_array_equal(found.right, wanted.right)
    assert gradtx.metrics(found)["rejected"] == 1


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-10, 1e10, 1e18])
def test_gradients_of_all_sizes(size):
    """Factors stay finite, also while nothing limits them but the damping."""
    tx = gradtx.scale_by_kron()
    gradients = size * normals(0, 500, 3, 4).astype(jnp.float32)
    gradients = gradients.at[:, 1].set(0)

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    state, found = jax.lax.scan(step, tx.init(gradients[0]), gradients)
    assert all(jnp.all(jnp.isfinite(x)) for x in (found, state.left, state.right))
    assert state.rejected == 0
    if size == 0:
        assert jnp.all(found == 0)
    elif size > 1e-9:  # not below the damping
        rms = jnp.sqrt(jnp.mean(found[-1] ** 2))
        assert 0.3 < rms < 1.11
