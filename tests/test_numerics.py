"""Functions that are safe where others overflow or have no gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from representatives import first

import gradtx
from gradtx.engine import numerics

VECTOR_ORDS = [None, 0, 1, 2, -2, 1.5, -1.5, jnp.inf, -jnp.inf]
MATRIX_ORDS = [None, "fro", "nuc", 1, -1, 2, -2, jnp.inf, -jnp.inf]
CASES = [
    *itertools.product(VECTOR_ORDS, [0, 1]),
    *itertools.product(MATRIX_ORDS, [None, (0, 1)]),
]
X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -7.0]], np.float32)


@pytest.mark.parametrize(("ord", "axis"), CASES, ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_safe_norm_is_numpys_where_it_is_large(ord, axis, keepdims):
    wanted = np.linalg.norm(X, ord=ord, axis=axis, keepdims=keepdims)
    found = gradtx.safe_norm(X, 0.0, ord, axis, keepdims)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    raised = gradtx.safe_norm(X, 1e4, ord, axis, keepdims)
    assert raised.shape == wanted.shape and bool(jnp.all(raised == 1e4))


@pytest.mark.parametrize(("ord", "axis"), CASES, ids=str)
@pytest.mark.parametrize("min_norm", list(first([0.0, 1.0])))
def test_safe_norm_has_gradient_zero_at_zero(ord, axis, min_norm):
    def f(x):
        return jnp.sum(gradtx.safe_norm(x, min_norm, ord, axis))

    for derivative in (jax.grad, jax.jacfwd):
        slope = jax.jit(derivative(f))(jnp.zeros((3, 4)))
        np.testing.assert_array_equal(slope, jnp.zeros((3, 4)))


def test_safe_norm_gradients():
    g = jax.grad(gradtx.safe_norm)
    np.testing.assert_allclose(g(jnp.array([3.0, 4.0]), 1.0), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(g(jnp.array([3.0, 4.0]), 6.0), [0.0, 0.0])
    assert jax.grad(gradtx.safe_norm, argnums=1)(jnp.ones(1), 2.0) == 1
    assert jax.grad(gradtx.safe_norm, argnums=1)(jnp.ones(1), 0.5) == 0


@pytest.mark.parametrize("shape", [(2, 2, 3), (33,)])
def test_a_quotient_of_zeros_has_finite_derivatives_in_any_compiled_form(shape):
    """Where roots are approximate, the square of the root of the smallest number may be none."""

    def total(x, eps):
        return jnp.sum(numerics.ratio(x, x * x, eps))

    for slope in jax.jit(jax.grad(total, (0, 1)))(jnp.zeros(shape), jnp.zeros(())):
        assert bool(jnp.all(jnp.isfinite(slope)))
    square = jnp.square(numerics.root(jnp.zeros(())))
    assert square > 1.5 * jnp.finfo(jnp.float32).tiny


def test_safe_norm_shows_nan():
    assert jnp.isnan(gradtx.safe_norm(jnp.array([jnp.nan]), 0.0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_does_not_overflow(dtype):
    x = jnp.full(1000, 300, dtype)
    norm, rms = gradtx.safe_norm(x, 0.0), gradtx.safe_root_mean_squares(x, 0.0)
    assert norm.dtype == rms.dtype == "float32"
    np.testing.assert_allclose(norm, 300 * 1000**0.5, rtol=1e-6)
    np.testing.assert_allclose(rms, 300, rtol=1e-6)


def test_safe_root_mean_squares():
    np.testing.assert_allclose(gradtx.safe_root_mean_squares(X, 0.0), np.sqrt(np.mean(X**2)))
    assert gradtx.safe_root_mean_squares(X, 10.0) == 10
    np.testing.assert_allclose(gradtx.safe_root_mean_squares(jnp.array([3 + 4j]), 0.0), 5)
    assert gradtx.safe_root_mean_squares(jnp.zeros((0, 2)), 0.5) == 0.5
    g = jax.grad(gradtx.safe_root_mean_squares)
    for least in (0.0, 3.0):
        np.testing.assert_array_equal(g(jnp.zeros(2), least), [0.0, 0.0])
    np.testing.assert_allclose(g(jnp.array([1.0, 7.0]), 0.0), [0.1, 0.7], rtol=1e-6)


def test_float64(x64):
    assert gradtx.safe_norm(jnp.ones(2), 0.0).dtype == "float64"
    assert gradtx.safe_root_mean_squares(jnp.ones(2, jnp.float32), 0.0).dtype == "float32"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "float16", "float32"])
def test_safe_increment(dtype):
    top = (jnp.finfo if "float" in dtype else jnp.iinfo)(dtype).max
    for count, wanted in ((3, 4), (top, top)):
        found = jax.jit(gradtx.safe_increment)(jnp.asarray(count, dtype))
        assert found.dtype == dtype and found == jnp.asarray(wanted, dtype)
    assert gradtx.safe_int32_increment is gradtx.safe_increment


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
def test_safe_increment_of_what_is_no_counter(dtype):
    with pytest.raises(ValueError, match=rf"safe_increment: count must be .*, got {dtype}"):
        gradtx.safe_increment(jnp.ones((), dtype))


@pytest.mark.parametrize("scale", [-0.5, 0.0, 2.0, jnp.float32(0.5)], ids=str)
def test_scale_gradient(scale):
    x = {"a": jnp.array([3.0, -2.0]), "h": jnp.ones(2, jnp.bfloat16), "z": jnp.array([1 + 2j])}

    def f(x, scale):
        y = gradtx.scale_gradient(x, scale)
        return sum(jnp.sum(jnp.real(v * jnp.conj(v))).astype(jnp.float32) for v in y.values())

    assert f(x, scale) == f(x, 1.0)
    g, plain = jax.grad(f)(x, scale), jax.grad(f)(x, 1.0)
    for name, value in g.items():
        assert value.dtype == x[name].dtype
        np.testing.assert_array_equal(value, scale * plain[name])
    _, tangent = jax.jvp(lambda x: gradtx.scale_gradient(x, scale), (x["a"],), (x["a"],))
    np.testing.assert_array_equal(tangent, scale * x["a"])


def test_scale_gradient_lets_other_leaves_pass():
    tree = {"n": jnp.arange(2), "none": None, "key": jax.random.key(0), "flag": True}
    passed = gradtx.scale_gradient(tree, 0.5)
    assert passed["n"] is tree["n"] and passed["none"] is None and passed["flag"] is True
    g = jax.grad(lambda x: gradtx.scale_gradient({"x": x, "n": 3}, 0.5)["x"] * 3)(1.0)
    assert g == 1.5
    traced = jax.jit(jax.grad(lambda x, s: gradtx.scale_gradient(x, s) ** 2))(3.0, 0.25)
    assert traced == 1.5
