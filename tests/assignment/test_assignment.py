"""Assignments against SciPy, brute force, and optax."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from representatives import first

from gradtx import assignment
from gradtx.assignment import base_hungarian_algorithm, hungarian_algorithm

each_algorithm = pytest.mark.parametrize("solve", [hungarian_algorithm, base_hungarian_algorithm])
SHAPES = [(1, 1), (4, 4), (3, 6), (6, 3), (9, 9)]


def check_is_matching(pairs, shape):
    i, j = (np.asarray(x) for x in pairs)
    assert i.shape == j.shape == (min(shape),)
    assert i.dtype == j.dtype == np.int32
    assert (np.diff(i) > 0).all(), "sorted by row, no row twice"
    assert len(set(j.tolist())) == len(j), "no column twice"
    assert ((i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1])).all()
    return i, j


def total(costs, pairs):
    i, j = check_is_matching(pairs, costs.shape)
    return np.asarray(costs, np.float64)[i, j].sum()


def least(costs):
    costs = np.asarray(costs, np.float64)
    return costs[scipy.optimize.linear_sum_assignment(costs)].sum()


@each_algorithm
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_integers_are_exact(solve, data):
    """Small ranges, where ties abound, and large ones."""
    shape = data.draw(st.sampled_from(SHAPES))
    bound = data.draw(st.sampled_from([1, 5, 10_000_000]))
    costs = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(-bound, bound)))
    assert total(costs, solve(costs)) == least(costs)


@each_algorithm
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_floats_are_as_good_as_scipys(solve, data):
    shape = data.draw(st.sampled_from(SHAPES))
    elements = st.floats(-100, 100, width=32)
    costs = data.draw(hnp.arrays(np.float32, shape, elements=elements))
    np.testing.assert_allclose(total(costs, solve(costs)), least(costs), rtol=1e-5, atol=1e-3)


@each_algorithm
def test_against_every_permutation(solve):
    rng = np.random.default_rng(0)
    for _ in range(10):
        costs = rng.normal(size=(5, 5)).astype(np.float32)
        sums = [costs[range(5), list(p)].sum() for p in itertools.permutations(range(5))]
        np.testing.assert_allclose(total(costs, solve(costs)), min(sums), rtol=1e-5)


@each_algorithm
@pytest.mark.parametrize(
    "shape", list(first(map(pytest.param, [(30, 70), (60, 60), (70, 30)]))), ids=str
)
def test_larger_problems(solve, shape):
    rng = np.random.default_rng(1)
    uniform = rng.uniform(size=shape)
    distances = np.linalg.norm(
        rng.normal(size=(shape[0], 1, 2)) - rng.normal(size=(shape[1], 2)), axis=-1
    )
    product = np.outer(np.arange(shape[0]) + 1.0, np.arange(shape[1]) + 1)  # the longest paths
    few = rng.integers(0, 5, size=shape)
    for costs in (uniform, distances, product, few):
        costs = costs.astype(np.float32)
        pairs = solve(costs)
        np.testing.assert_allclose(total(costs, pairs), least(costs), rtol=1e-5)
        other = total(costs, sorted_by_row(optax.assignment.hungarian_algorithm(jnp.array(costs))))
        np.testing.assert_allclose(total(costs, pairs), other, rtol=1e-5)


def sorted_by_row(pairs):
    i, j = (np.asarray(x, np.int32) for x in pairs)
    return i[np.argsort(i)], j[np.argsort(i)]


@each_algorithm
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "uint8", "bool"])
def test_narrow_dtypes(solve, dtype):
    costs = np.random.default_rng(2).integers(0, 2 if dtype == "bool" else 127, size=(7, 7))
    costs = jnp.asarray(costs, dtype)
    assert total(costs, solve(costs)) == least(costs)
    if dtype == "int8":  # differences that int8 cannot hold
        costs = jnp.array([[127, -128], [-128, 127]], dtype)
        assert total(costs, solve(costs)) == -256


@each_algorithm
def test_double_precision(solve, x64):
    rng = np.random.default_rng(3)
    costs = 1e6 + rng.uniform(size=(8, 8))
    np.testing.assert_allclose(total(costs, solve(costs)) - 8e6, least(costs) - 8e6, rtol=1e-7)
    costs = rng.integers(0, 10**12, size=(8, 8))
    assert total(costs, solve(costs)) == least(costs)


@each_algorithm
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_assign(solve, shape):
    check_is_matching(solve(jnp.zeros(shape)), shape)


@each_algorithm
def test_forbidden_pairs_are_avoided(solve):
    inf = np.inf
    costs = np.array([[inf, 1, 9], [1, inf, 9], [inf, 2, 9]], np.float32)
    assert total(costs, solve(costs)) == least(costs) == 11
    costs = np.array([[inf, inf, 0], [inf, 5, 0], [1, 2, inf]], np.float32)
    assert total(costs, solve(costs)) == least(costs) == 6
    rng = np.random.default_rng(4)
    for _ in range(20):
        costs = rng.uniform(size=(6, 8)).astype(np.float32)
        costs[rng.uniform(size=costs.shape) < 0.5] = inf
        costs[range(6), rng.permutation(8)[:6]] = 0.5  # so that there is a way
        np.testing.assert_allclose(total(costs, solve(costs)), least(costs), rtol=1e-5)


@each_algorithm
def test_what_cannot_be_assigned_takes_what_is_left(solve):
    inf = np.inf
    costs = np.array([[inf, inf, 1], [inf, inf, 2], [3, inf, 0]], np.float32)
    i, j = check_is_matching(solve(costs), costs.shape)
    assert np.isfinite(costs[i, j]).sum() == 2
    for bad in (np.full((4, 4), inf), np.full((3, 5), np.nan), np.full((5, 3), -inf)):
        check_is_matching(solve(jnp.asarray(bad, jnp.float32)), bad.shape)
    costs = np.array([[np.nan, 1], [0, 5]], np.float32)
    assert total(costs, solve(costs)) == 1


@each_algorithm
def test_jit_and_vmap(solve):
    batch = np.random.default_rng(5).integers(0, 9, size=(5, 4, 6))
    rows, columns = jax.jit(jax.vmap(solve))(batch)
    for k, costs in enumerate(batch):
        assert total(costs, (rows[k], columns[k])) == least(costs)


@each_algorithm
def test_what_is_rejected(solve):
    with pytest.raises(ValueError, match=rf"{solve.__name__}.*two axes.*\(3,\)"):
        solve(jnp.ones(3))
    with pytest.raises(TypeError, match=f"{solve.__name__}.*complex64"):
        solve(jnp.ones((2, 2), jnp.complex64))


def test_bids_alone_leave_a_matching_that_is_the_cheapest_so_far():
    """What the paths start from: each matched row has a column that is cheapest for it."""
    from gradtx.assignment.bids import bid
    from gradtx.assignment.matching import unmatched

    costs = jnp.asarray(np.random.default_rng(6).uniform(size=(30, 40)), jnp.float32)
    match = jax.jit(bid)(costs, unmatched(costs))
    rows = np.flatnonzero(match.column_of >= 0)
    assert len(rows) > 20
    seen = costs - match.price
    taken = seen[rows, match.column_of[rows]]
    np.testing.assert_allclose(taken, seen[rows].min(axis=1), atol=1e-6)
    assert (match.price[match.row_of < 0] == 0).all() and (match.price <= 0).all()
    assert assignment.hungarian_algorithm(costs)[1].shape == (30,)
