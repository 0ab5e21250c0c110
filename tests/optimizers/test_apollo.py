"""APOLLO, Fira and Alice: rotations, the limit of growth, bad gradients, tall matrices."""

import jax.numpy as jnp
import numpy as np
import pytest
from optimizers.test_preconditioners import normals, orthogonal, steps

import gradtx

ALL = {
    "apollo": gradtx.scale_by_apollo(rank=2, update_proj_gap=3),
    "apollo, svd": gradtx.scale_by_apollo(rank=2, update_proj_gap=3, projection="svd"),
    "apollo, tensor": gradtx.scale_by_apollo(rank=1, update_proj_gap=3, scaling="tensor"),
    "fira": gradtx.scale_by_fira(rank=2, update_proj_gap=3),
    "alice": gradtx.scale_by_alice(rank=2, leading=2, update_proj_gap=3),
}
each = pytest.mark.parametrize("tx", ALL.values(), ids=ALL)
OF_SINGULAR_VECTORS = [(name, rank) for name in ("apollo, svd", "fira") for rank in (4, 2, 1)]
OF_SINGULAR_VECTORS += [("alice", 4)]  # with fewer, random vectors replace those of zero


@pytest.mark.parametrize(("name", "rank_of_gradients"), OF_SINGULAR_VECTORS)
def test_rotated_rows_have_rotated_updates(name, rank_of_gradients, x64):
    """Those of the shorter side; Adam is one of the elements along the longer."""
    rows = orthogonal(0, 4)
    gradients = [
        normals(i, 4, rank_of_gradients) @ normals(50 + i, rank_of_gradients, 6) for i in range(7)
    ]
    plain, _ = steps(ALL[name], gradients)
    rotated, _ = steps(ALL[name], [rows @ g for g in gradients])
    # The first projector takes its signs from unit vectors; norms of columns do not depend on them.
    for u, v in zip(plain, rotated, strict=True):
        np.testing.assert_allclose(v, rows @ u, atol=1e-8)


@each
def test_a_tall_matrix_is_a_transposed_wide_one(tx):
    gradients = [normals(i, 5, 3).astype(np.float32) for i in range(5)]
    tall, _ = steps(tx, gradients)
    wide, _ = steps(tx, [g.T for g in gradients])
    for u, v in zip(tall, wide, strict=True):
        np.testing.assert_allclose(u, v.T, rtol=1e-6)


def test_norms_grow_slowly():
    gradients = [normals(i, 3, 4).astype(np.float32) * 10.0**i for i in range(6)]
    limited, _ = steps(gradtx.scale_by_apollo(rank=2, gamma=1.5, b2=0.0), gradients)
    free, _ = steps(gradtx.scale_by_apollo(rank=2, gamma=None, b2=0.0), gradients)
    sizes = [np.linalg.norm(u) for u in limited]
    for last, size, u, v in zip(sizes, sizes[1:], limited[1:], free[1:], strict=False):
        assert size <= 1.5 * last * (1 + 1e-6)
        np.testing.assert_allclose(u / np.linalg.norm(u), v / np.linalg.norm(v), rtol=1e-5)


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_gradient_does_not_reach_the_state(tx, bad):
    """It is one of zeros, and is counted."""
    good = jnp.asarray(normals(0, 3, 4), jnp.float32)
    state = tx.init(good)
    for _ in range(3):  # the next step renews projectors
        _, state = tx.update(good, state)
    _, wanted = tx.update(jnp.zeros_like(good), state)
    _, found = tx.update(good.at[1, 1].set(bad), state)
    for name in ("mu", "nu", "projector", "norm"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert gradtx.metrics(found)["rejected"] == 1
