"""Norms, where squares overflow and where they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees

import gradtx
from gradtx.tree import norms as module
from gradtx.tree.norms import norms

MANY = [trees.numbers((2, 3), 1), trees.numbers((3,), 2), trees.numbers((), 3)]


@pytest.fixture(scope="module", params=["small", "large", "accelerator"], autouse=True)
def way(request):
    """Takes norms as on CPUs, of small and of large arrays, and as on accelerators."""
    if request.param == "small":
        yield
        return
    jax.clear_caches()  # once for all tests of this way: pytest orders them by it
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "large":
            patch.setattr(module, "SMALL", 2)  # of MANY, only the scalar is small
        else:
            patch.setattr(jax.lax, "platform_dependent", lambda *, cpu, default: default())
        yield
    jax.clear_caches()


def reference(leaves):
    return np.sqrt(sum(np.sum(np.abs(np.asarray(x, np.complex128)) ** 2) for x in leaves))


@pytest.mark.parametrize("size", [1.0, 1e-15, 1e19, 1e25, 1e37])
@pytest.mark.parametrize("count", [1, 3])
def test_the_norm_is_right_wherever_it_is_a_number(size, count):
    leaves = [x * size for x in MANY[:count]]
    for norm in (gradtx.global_norm, jax.jit(gradtx.global_norm)):
        np.testing.assert_allclose(norm(leaves), reference(leaves), rtol=1e-6)
    batched = jax.vmap(gradtx.global_norm)([jnp.stack([x, x / size]) for x in leaves])
    expected = [reference(leaves), reference([x / size for x in leaves])]
    np.testing.assert_allclose(batched, expected, rtol=1e-6)


def test_float64_overflows_no_earlier(x64):
    leaves = [x.astype(jnp.float64) * 1e200 for x in MANY]
    np.testing.assert_allclose(gradtx.global_norm(leaves), 1e200 * reference(MANY), rtol=1e-7)


@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan])
def test_what_is_not_finite_stays_so(bad):
    found = gradtx.global_norm([jnp.ones(2), jnp.array([bad, 1e25])])
    np.testing.assert_equal(float(found), abs(bad))


@pytest.mark.parametrize("size", [1.0, 1e25])
def test_gradients(size):
    def norm(leaves):
        return gradtx.global_norm(leaves)

    leaves = [x * size for x in MANY]
    expected = [x / float(reference(leaves)) for x in leaves]
    for found in (jax.jit(jax.grad(norm))(leaves), jax.jit(jax.jacfwd(norm))(leaves)):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    z = jnp.array([3 + 4j, 1j])
    np.testing.assert_allclose(jax.grad(norm)(z), jnp.conj(z) / norm(z), rtol=1e-6)
    assert not jnp.any(jax.grad(norm)(jnp.zeros(3)))
    hessian = jax.jit(jax.hessian(norm))(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(hessian, np.array([[16, -12], [-12, 9]]) / 125, rtol=1e-5)


def test_only_large_arrays_need_a_branch_on_cpus(way, request):
    def branches(leaves):
        return jax.jit(gradtx.global_norm).lower(leaves).compile().as_text().count(" conditional(")

    if request.node.callspec.params["way"] == "small":
        assert branches([jnp.ones(4096), jnp.ones((64, 64))]) == 0
        assert branches([jnp.ones(4096), jnp.ones(4097), jnp.ones(5000)]) == 1


def test_each_of_several_along_axes():
    x, y = jnp.array([[3.0, 1e25], [4.0, 0.0]]), jnp.ones((2, 2))
    of_x, of_y = norms(x, y, axis=(0,))
    np.testing.assert_allclose(of_x, [[5.0, 1e25]], rtol=1e-6)
    np.testing.assert_allclose(of_y, np.sqrt([[2.0, 2.0]]), rtol=1e-6)


def test_safe_norms_of_large_numbers():
    x = jnp.array([3e25, 4e25])
    np.testing.assert_allclose(gradtx.safe_norm(x, 0.0), 5e25, rtol=1e-6)
    np.testing.assert_allclose(gradtx.safe_norm(x, 0.0, ord=1), 7e25, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(gradtx.safe_norm)(x, 0.0), [0.6, 0.8], rtol=1e-6)
    rms = gradtx.safe_root_mean_squares(x, 0.0)
    np.testing.assert_allclose(rms, 5e25 / 2**0.5, rtol=1e-6)
