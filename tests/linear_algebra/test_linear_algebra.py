"""Eigenvalues, inverse roots and least squares against NumPy in float64 and SciPy; optax second."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from hypothesis import given, settings, strategies as st
from representatives import moved_one_by_one

import gradtx
from gradtx import matrix_inverse_pth_root, nnls, power_iteration


def rotated(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues."""
    eigenvalues = np.asarray(eigenvalues, np.float64)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return (q * eigenvalues) @ q.T


# ---- Power iteration --------------------------------------------------------------------------


@pytest.mark.parametrize("eigenvalues", [[5, 2, 1, 0], [-5, 2, 1, 0.5], [1e-20, 0, 0, 0]])
def test_the_dominant_eigenpair(eigenvalues):
    a = rotated(eigenvalues).astype(np.float32)
    eigenvalue, v = power_iteration(a)
    assert eigenvalue.dtype == v.dtype == jnp.float32
    np.testing.assert_allclose(eigenvalue, eigenvalues[0], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(v), 1, rtol=1e-6)
    np.testing.assert_allclose(a @ v, eigenvalue * v, atol=2e-6 * abs(eigenvalues[0]))
    # a second opinion, where optax can give one
    if eigenvalues[0] > 1:
        np.testing.assert_allclose(optax.power_iteration(a)[0], eigenvalue, rtol=1e-6)


def test_a_function_of_a_tree_is_a_matrix_too():
    def multiply(x):  # [[0, 2], [3, 0]] has the eigenvalues of both signs: shifted by one
        return {"a": x["a"] + 2 * x["b"], "b": x["b"] + 3 * x["a"]}

    v0 = {"a": jnp.ones(3), "b": jnp.zeros(3)}
    eigenvalue, v = jax.jit(lambda v0: power_iteration(multiply, v0=v0))(v0)
    np.testing.assert_allclose(eigenvalue, 1 + np.sqrt(6), rtol=1e-5)
    np.testing.assert_allclose(gradtx.tree.norm(v), 1, rtol=1e-6)
    np.testing.assert_allclose(v["b"] / v["a"], np.sqrt(1.5), rtol=1e-4)


def test_complex_integer_and_half_precision_matrices():
    a = jnp.array([[2, 1j], [-1j, 2]])
    eigenvalue, v = power_iteration(a)
    np.testing.assert_allclose(eigenvalue, 3, rtol=1e-5)
    np.testing.assert_allclose(a @ v, 3 * v, atol=1e-5)
    np.testing.assert_allclose(
        power_iteration(jnp.array([[1, 2], [3, 4]]))[0], 5.3722813, rtol=1e-5
    )
    eigenvalue, v = power_iteration(jnp.diag(jnp.array([300.0, 2.0], jnp.float16)))
    assert v.dtype == jnp.float16
    np.testing.assert_allclose(eigenvalue, 300, rtol=1e-6)


def test_the_zero_matrix_has_eigenvalue_zero():
    eigenvalue, v = power_iteration(jnp.zeros((3, 3)))
    assert eigenvalue == 0
    np.testing.assert_allclose(np.linalg.norm(v), 1, rtol=1e-6)
    assert power_iteration(lambda x: 0 * x, v0=np.array([1, 1]))[0] == 0


def test_iterations_end_by_number_and_by_tolerance():
    a = rotated([1, 0.9, 0.1])
    v0 = np.ones(3)
    for n in range(4):  # `n` products after the first vector, then the Rayleigh quotient
        v = np.linalg.matrix_power(a, n) @ v0
        want = v @ a @ v / (v @ v)
        got, _ = power_iteration(a, v0=v0, num_iters=n, error_tolerance=0.0)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    _, rough = power_iteration(a, v0=v0, error_tolerance=0.3)
    _, fine = power_iteration(a, v0=v0, num_iters=1000)
    residual = [np.linalg.norm(a @ v - (v @ a @ v) * v) for v in (rough, fine)]
    assert 1e-3 < residual[0] <= 0.3 and residual[1] <= 2e-6


def test_keys_and_transformations_of_power_iteration(x64):
    matrices = np.stack([rotated([3, 1, 0]), rotated([7, 1, 0], 1)])
    eigenvalues, _ = jax.vmap(lambda a: power_iteration(a, error_tolerance=1e-13))(matrices)
    np.testing.assert_allclose(eigenvalues, [3, 7], rtol=1e-12)
    one, other = (
        power_iteration(matrices[0], key=jax.random.key(k), num_iters=0)[1] for k in (1, 2)
    )
    assert abs(one - other).max() > 1e-3


def test_what_power_iteration_rejects():
    with pytest.raises(ValueError, match=r"power_iteration.*square.*\(2, 3\)"):
        power_iteration(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"power_iteration.*\(3,\).*\(2, 2\)"):
        power_iteration(jnp.ones((2, 2)), v0=jnp.ones(3))
    with pytest.raises(ValueError, match="needs v0"):
        power_iteration(lambda x: x)


# ---- Inverse roots ----------------------------------------------------------------------------


def inverse_root(a, p, ridge=1e-6):
    """By eigenvalues, in float64."""
    w, v = np.linalg.eigh(np.asarray(a, np.float64))
    return (v * (w + ridge * w.max()) ** (-1 / p)) @ v.T


def relative_error(got, want):
    return np.abs(np.asarray(got, np.float64) - want).max() / np.abs(want).max()


@pytest.mark.parametrize(
    ("condition", "p"), list(moved_one_by_one([10, 1e3, 1e5], [4, 1, 2, 3, 5, 6, 8]))
)
def test_the_inverse_root_of_any_order(p, condition):
    """optax 0.2.8 is wrong by 5 to 60 percent for p = 3, 5, 6 and 7."""
    a = rotated(condition ** -np.linspace(0, 1, 12)).astype(np.float32)
    root, error = matrix_inverse_pth_root(a, p)
    assert error < 5e-6
    # what the rounding of the matrix itself to float32 does to the smallest eigenvalue
    assert relative_error(root, inverse_root(a, p)) < 1e-6 + 1e-7 * condition / p
    if p in (1, 2, 4, 8):
        other, _ = optax.matrix_inverse_pth_root(a, p)
        assert relative_error(root, np.asarray(other, np.float64)) < 1e-5 + 2e-7 * condition


def test_the_inverse_root_in_double(x64):
    a = rotated([1, 1e-2, 1e-5, 1e-8])
    for p in (1, 3, 4):
        root, error = matrix_inverse_pth_root(a, p, ridge_epsilon=0, error_tolerance=1e-14)
        assert root.dtype == jnp.float64 and error < 1e-9
        assert relative_error(root, inverse_root(a, p, ridge=0)) < 1e-7  # 1e8 times 1e-15


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e8])
def test_the_inverse_root_is_as_good_at_any_scale(scale):
    a = np.float32(scale) * rotated([4, 2, 1]).astype(np.float32)
    root, _ = matrix_inverse_pth_root(a, 4)
    assert relative_error(root, inverse_root(a, 4)) < 3e-6


def test_many_tiny_eigenvalues_do_not_end_the_iteration_early():
    a = np.diag([1.0] + [1e-9] * 7).astype(np.float32)
    root, error = matrix_inverse_pth_root(a, 2, ridge_epsilon=0)
    assert error < 1e-5
    np.testing.assert_allclose(np.diag(root), np.diag(a) ** -0.5, rtol=1e-4)


def test_roots_of_traced_order_and_of_batches():
    a = rotated([3, 2, 1]).astype(np.float32)
    traced = jax.jit(matrix_inverse_pth_root)
    for p in (1, 3, 6):
        assert relative_error(traced(a, p)[0], inverse_root(a, p)) < 3e-6
    batch = np.stack([a, 100 * a, rotated([1, 1e-4, 1e-5]).astype(np.float32)])
    roots, _ = jax.vmap(lambda a: matrix_inverse_pth_root(a, 3))(batch)
    for root, a in zip(roots, batch, strict=True):
        assert relative_error(root, inverse_root(a, 3)) < 2e-2 * (a[0, 0] < 1) + 3e-6


def test_roots_of_half_precision_integers_zeros_and_nothing():
    a = jnp.diag(jnp.array([1, 4, 16]))
    for dtype, out in ((jnp.bfloat16, jnp.bfloat16), (jnp.int32, jnp.float32)):
        root, _ = matrix_inverse_pth_root(a.astype(dtype), 2)
        assert root.dtype == out
        np.testing.assert_allclose(np.diag(root).astype(float), [1, 0.5, 0.25], rtol=1e-4)
    root, error = matrix_inverse_pth_root(jnp.zeros((2, 2)), 2)  # NaN in optax
    np.testing.assert_allclose(root, 1e3 * np.eye(2), rtol=1e-5)
    assert error < 1e-6
    assert matrix_inverse_pth_root(jnp.zeros((0, 0)), 2)[0].shape == (0, 0)
    np.testing.assert_allclose(matrix_inverse_pth_root(jnp.full((1, 1), 8.0), 3)[0], [[0.5]], 1e-5)


def test_a_matrix_without_a_root_is_told_by_the_error():
    root, error = matrix_inverse_pth_root(-np.eye(2, dtype=np.float32), 2)
    assert error > 0.5 and np.isfinite(root).all()


def test_what_roots_reject():
    with pytest.raises(ValueError, match=r"matrix_inverse_pth_root.*\(2, 3\)"):
        matrix_inverse_pth_root(jnp.ones((2, 3)), 2)
    for p in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"p is {p}"):
            matrix_inverse_pth_root(jnp.eye(2), p)


# ---- Least squares without negative coefficients ----------------------------------------------


def problem(m, n, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, n)).astype(dtype), rng.normal(size=m).astype(dtype)


def loss(a, b, x):
    a, b, x = (np.asarray(y, np.float64) for y in (a, b, x))
    return np.sum((a @ x - b) ** 2)


@pytest.mark.parametrize("shape", [(20, 10), (10, 20), (40, 40), (5, 1), (1, 5)])
def test_nnls_finds_what_scipy_finds(shape):
    a, b = problem(*shape)
    want, residual = scipy.optimize.nnls(a.astype(np.float64), b.astype(np.float64))
    got = nnls(a, b, iters=300)
    assert (got >= 0).all()
    np.testing.assert_allclose(loss(a, b, got), residual**2, rtol=1e-5, atol=1e-5)
    if shape[0] >= shape[1]:  # otherwise there are many solutions
        np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("iters", [30, 100, 300])
def test_nnls_is_nearer_than_optax_after_as_many_iterations(iters):
    a, b = problem(40, 40)
    least = scipy.optimize.nnls(a.astype(np.float64), b.astype(np.float64))[1] ** 2
    ours, theirs = (loss(a, b, f(jnp.array(a), jnp.array(b), iters)) for f in (nnls, optax.nnls))
    assert ours - least < 0.2 * (theirs - least)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_nnls_meets_the_conditions_of_optimality(seed):
    """x >= 0, slope >= 0, and one of them is 0 everywhere."""
    a, b = problem(12, 6, seed)
    x = np.asarray(nnls(a, b, iters=2000), np.float64)
    slope = a.T.astype(np.float64) @ (a.astype(np.float64) @ x - b)
    assert (x >= 0).all() and (slope > -1e-3).all()
    np.testing.assert_allclose(x * slope, 0, atol=1e-3)


def test_nnls_of_several_targets_is_that_of_each():
    a, _ = problem(10, 6)
    b = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    together = nnls(a, b, 200)
    assert together.shape == (6, 3)
    for k in range(3):
        np.testing.assert_allclose(together[:, k], nnls(a, b[:, k], 200), atol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda b: nnls(a, b, 200))(b.T).T, together, atol=1e-5)


def test_nnls_takes_a_bound_and_unrolls():
    a, b = problem(10, 6)
    largest = np.linalg.eigvalsh(a.T @ a)[-1]
    want = scipy.optimize.nnls(a.astype(np.float64), b.astype(np.float64))[0]
    np.testing.assert_allclose(nnls(a, b, 300, L=1.01 * largest), want, atol=1e-5)
    np.testing.assert_allclose(nnls(a, b, 300, unroll=4), want, atol=1e-5)
    # the first step is a projected gradient step of that length
    step = np.maximum(a.T @ b / (2 * largest), 0)
    np.testing.assert_allclose(nnls(a, b, 1, L=2 * largest), step, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n", [1, 3, 30])
def test_the_bound_that_nnls_computes_holds_and_is_tight(n):
    a, b = problem(2 * n, n)
    pulled = a.T.astype(np.float64) @ b
    pulled = np.abs(pulled)  # after one step x = pulled / L, if all are positive
    sign = np.sign(a.T @ b)
    used = (pulled / np.asarray(nnls(a * sign, b, 1), np.float64)).max()
    largest = np.linalg.eigvalsh(a.T.astype(np.float64) @ a)[-1]
    assert largest <= used <= 1.0001 * n ** (1 / 8) * largest


def test_nnls_in_other_dtypes():
    a, b = problem(10, 6)
    x = nnls(jnp.asarray(a, jnp.bfloat16), jnp.asarray(b, jnp.bfloat16), 100)
    assert x.dtype == jnp.bfloat16
    np.testing.assert_allclose(x.astype(np.float32), nnls(a, b, 100), atol=0.02)
    np.testing.assert_allclose(nnls(jnp.array([[1, 0], [1, 1]]), jnp.array([2, 1]), 200), [1.5, 0])


def test_nnls_of_nothing():
    assert nnls(jnp.zeros((2, 2)), jnp.ones(2), 10).tolist() == [0, 0]
    assert nnls(jnp.zeros((0, 2)), jnp.zeros(0), 10).tolist() == [0, 0]
    assert nnls(jnp.ones((2, 0)), jnp.ones(2), 10).shape == (0,)
    assert nnls(jnp.ones((2, 2)), jnp.ones(2), 0).tolist() == [0, 0]


def test_nnls_has_the_gradient_of_its_active_set(x64):
    a, b = problem(10, 6, dtype=np.float64)
    x = nnls(a, b, 3000)
    support = np.asarray(x) > 1e-6
    assert 0 < support.sum() < 6
    want = np.zeros((6, 10))
    want[support] = np.linalg.pinv(a[:, support])  # x = pinv(A_S) b on the support S
    got = jax.jacobian(lambda b: nnls(a, b, 3000))(b)
    np.testing.assert_allclose(got, want, atol=1e-8)
    assert np.isfinite(jax.grad(lambda a: nnls(a, b, 50).sum())(a)).all()


def test_what_nnls_rejects():
    with pytest.raises(ValueError, match=r"nnls.*\(2, 3\).*\(3,\)"):
        nnls(jnp.ones((2, 3)), jnp.ones(3), 5)
    with pytest.raises(ValueError, match=r"nnls.*\(3,\)"):
        nnls(jnp.ones(3), jnp.ones(3), 5)
    with pytest.raises(ValueError, match=r"nnls.*-1"):
        nnls(jnp.ones((2, 2)), jnp.ones(2), -1)
