"""Dion and Dion2: rank, random start, momentum of low rank, selection, and the compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from trees import assert_equal

import gradtx
from gradtx import MatrixAxes


def orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def walk(tx, gradients):
    state, found = tx.init(gradients[0]), []
    for g in gradients:
        updates, state = tx.update(g, state)
        found.append(updates)
    return found, state


def test_with_power_iterations_it_becomes_muon(x64):
    """For the same gradient at each step, the columns converge to its singular vectors."""
    random = np.random.default_rng(0)
    u, v = np.linalg.qr(random.standard_normal((6, 4)))[0], orthogonal(4, 1)
    g = u * np.array([8.0, 4.0, 2.0, 1.0]) @ v.T
    found, _ = walk(gradtx.scale_by_dion(), [g] * 60)
    np.testing.assert_allclose(found[-1], (4 / 6) ** 0.5 * u @ v.T, atol=1e-10)
    # half of the rank: the larger singular vectors get most of the steps
    found, _ = walk(gradtx.scale_by_dion(0.0, 2), [g] * 60)
    assert np.linalg.matrix_rank(found[-1]) == 2


def test_what_a_low_rank_leaves_out_comes_later(x64):
    """Error feedback: the sum of steps grows in all directions, not only in the largest."""
    g = np.diag([8.0, 4.0, 2.0, 1.0])
    found, state = walk(gradtx.scale_by_dion(0.5, 1), [g] * 60)
    assert np.linalg.matrix_rank(found[-1], tol=1e-6) == 1
    assert np.linalg.matrix_rank(sum(found), tol=1) == 4
    assert state.q.shape == (1, 4, 1)


@pytest.mark.parametrize("first", ["random", "unit"])
def test_momentum_of_rank_1_gives_its_polar_factor_in_any_basis(first, x64):
    """What a QR decomposition returns beyond the rank must not reach the step."""
    random = np.random.default_rng(0)
    a, b = random.standard_normal(6), random.standard_normal(4)
    tx = gradtx.scale_by_dion(first=first)
    for left, right in ((np.eye(6), np.eye(4)), (orthogonal(6, 1), orthogonal(4, 2))):
        g = np.outer(left @ a, right @ b)
        wanted = (4 / 6) ** 0.5 * g / np.linalg.norm(g)
        for u in walk(tx, [g, g * 3, g])[0]:
            np.testing.assert_allclose(u, wanted, atol=1e-12)


def test_zero_gradients_leave_the_columns_as_they_are():
    for dtype in ("float32", "bfloat16"):
        zeros = jnp.zeros((3, 5), dtype)
        tx = gradtx.scale_by_dion()
        first = tx.init(zeros)
        updates, state = tx.update(zeros, first)
        assert_equal(updates, zeros)
        np.testing.assert_array_equal(state.q, first.q)
        g = trees.numbers((3, 5), 1).astype(dtype)
        later, _ = tx.update(g, state)
        assert_equal(later, tx.update(g, first)[0])


def test_large_and_small_gradients():
    g = trees.numbers((3, 5), 1)
    tx = gradtx.scale_by_dion(first="unit")
    wanted = tx.update(g, tx.init(g))[0]
    for size in (1e-25, 1e25):
        np.testing.assert_allclose(tx.update(g * size, tx.init(g))[0], wanted, rtol=1e-4, atol=1e-6)


def test_the_first_columns_depend_on_the_key_and_the_leaf():
    params = {"a": jnp.ones((4, 6)), "b": jnp.ones((4, 6)), "s": jnp.ones((2, 4, 6))}
    axes = MatrixAxes(-2, -1)

    def first(key=None):
        return gradtx.scale_by_dion(key=key, weight_dimension_numbers=axes).init(params).q

    q = first()
    assert q["s"].shape == (2, 4, 4)
    draws = [q["a"][0], q["b"][0], *q["s"], first(1)["a"][0], first(jax.random.key(2))["a"][0]]
    assert len({np.asarray(x).tobytes() for x in draws}) == len(draws)
    assert_equal(first(0), q)
    assert_equal(first(jax.random.key(1)), first(1))
    np.testing.assert_allclose(np.linalg.norm(q["a"][0], axis=0), 1, rtol=1e-6)


def test_one_decomposition_a_shape():
    def count(layers):
        params = {f"w{i}": jnp.ones((4 + 2 * (i % 3), 6)) for i in range(layers)}
        tx = gradtx.dion(0.1)
        compiled = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
        return compiled.as_text().count("geqrf")

    assert count(3) == count(12) > 0


# ---- Dion2 ----------------------------------------------------------------------------------


def test_every_row_has_its_turn(x64):
    """What is not selected keeps its momentum, and so is selected later."""
    g = np.diag([8.0, 4.0, 2.0, 1.0]) @ np.eye(4, 6)
    tx = gradtx.scale_by_dion2(4, beta=0.5, ns_form="svd")
    found, _ = walk(tx, [g] * 60)
    assert all(np.count_nonzero(np.any(u != 0, axis=1)) == 1 for u in found)
    turns = np.count_nonzero([np.any(u != 0, axis=1) for u in found], axis=0)
    assert turns.min() > 0 and list(turns) == sorted(turns, reverse=True)
    # and its size is that of a unit vector, times the factor of the shape
    np.testing.assert_allclose([np.linalg.norm(u) for u in found], (6 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 8), 0), ((8, 3), 1), ((4, 4), 1)], ids=["rows", "columns", "square"]
)
def test_the_shorter_side_is_selected(shape, axis, x64):
    g = np.random.default_rng(0).standard_normal(shape)
    updates, _ = walk(gradtx.scale_by_dion2(2), [g])
    used = np.any(np.asarray(updates[0]) != 0, axis=1 - axis)
    sums = np.sum(np.abs(g), axis=1 - axis)
    number = -(-shape[axis] // 2)
    assert set(np.flatnonzero(used)) == set(np.argsort(-sums)[:number])


@pytest.mark.parametrize(("name", "number"), [("dion", "rank"), ("dion2", "parts")])
def test_numbers_below_1(name, number):
    told = f"^{name}: {number} must be a whole number, at least 1"
    for x in (0, 1.5):
        with pytest.raises((ValueError, TypeError), match=told):
            getattr(gradtx, name)(0.1, **{number: x})
