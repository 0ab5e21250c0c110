"""Perturbed functions against closed forms; tolerances are five standard errors of the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from gradtx.perturbations import Gumbel, Normal, make_perturbed_fun

X = jnp.array([0.3, -0.2, 0.5])
KEY = jax.random.key(0)
SAMPLES = 10_000  # jaxlib 0.10.2 adds up only a part of some longer sums on CPU, jax-ml/jax#39103


def compiled(*args):
    """`make_perturbed_fun` in one program: without `jit`, each of its operations is compiled."""
    return jax.jit(make_perturbed_fun(*args))


def hard(x):
    return jax.nn.one_hot(jnp.argmax(x), x.size)


def square(x):
    return jnp.sum(x * x)


def gradients(perturbed, x, keys=8):
    """Independent gradients: their mean, and the standard error of that."""
    slope = jax.grad(perturbed, argnums=1)
    each = jax.lax.map(lambda key: slope(key, x), jax.random.split(KEY, keys))
    return np.mean(each, 0), np.std(each, 0, ddof=1) / np.sqrt(keys)


@pytest.mark.parametrize("noise, reference", [(Gumbel(), "gumbel_r"), (Normal(), "norm")])
def test_noise_is_what_it_says(noise, reference):
    reference = getattr(scipy.stats, reference)
    z = np.linspace(-3, 5, 9).astype(np.float32)
    np.testing.assert_allclose(noise.log_prob(z), reference.logpdf(z), rtol=1e-5)
    sample = noise.sample(KEY, (20_000,))
    assert sample.dtype == jnp.float32 and noise.sample(KEY).shape == ()
    assert noise.sample(KEY, (2,), jnp.bfloat16).dtype == jnp.bfloat16
    assert scipy.stats.kstest(np.asarray(sample, np.float64), reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_argmax_with_gumbel_noise_is_the_softmax(sigma):
    soft = compiled(hard, SAMPLES, sigma)
    keys = jax.random.split(KEY, 16)
    p = np.asarray(jax.nn.softmax(X / sigma))
    jacobian = (np.diag(p) - np.outer(p, p)) / sigma
    for fun, want in ((soft, p), (jax.jacobian(soft, argnums=1), jacobian)):
        each = jax.lax.map(lambda key, fun=fun: fun(key, X), keys)
        error = np.std(each, 0, ddof=1) / 4
        assert (np.abs(np.mean(each, 0) - want) < 5 * error).all()
        assert (error < 0.02 / sigma).all()


@pytest.mark.slow
@pytest.mark.parametrize("use_baseline", [True, False])
def test_the_square_with_normal_noise(use_baseline):
    """E[|x + s z|^2] = |x|^2 + n s^2, so the gradient is 2 x, and the Hessian 2 I."""
    sigma = 0.4
    perturbed = compiled(square, SAMPLES, sigma, Normal(), use_baseline)
    value = perturbed(KEY, X)
    np.testing.assert_allclose(value, square(X) + 3 * sigma**2, rtol=0.02)
    mean, error = gradients(perturbed, X)
    assert (np.abs(mean - 2 * X) < 5 * error + 1e-3).all() and (error < 0.05).all()
    second = jax.hessian(perturbed, argnums=1)
    each = jax.lax.map(lambda key: second(key, X), jax.random.split(KEY, 16))
    error = np.std(each, 0, ddof=1) / 4
    assert (np.abs(np.mean(each, 0) - 2 * np.eye(3)) < 5 * error).all() and (error < 0.3).all()


def test_the_baseline_makes_gradients_less_noisy_and_no_other():
    def shifted(x):
        return square(x) + 10

    with_it, without = (
        gradients(compiled(shifted, 5000, 0.2, Normal(), b), X) for b in (True, False)
    )
    assert (with_it[1] < 0.2 * without[1]).all()
    assert (np.abs(with_it[0] - without[0]) < 5 * (with_it[1] + without[1])).all()


def test_the_scale_can_be_differentiated():
    """optax 0.2.8 gives twice the derivative at this point: it forgets the density's -log sigma."""

    def of_sigma(sigma, key):
        return compiled(square, SAMPLES, sigma, Normal())(key, X)

    slope = jax.grad(of_sigma)
    each = jax.lax.map(lambda key: slope(0.5, key), jax.random.split(KEY, 16))
    error = np.std(each, ddof=1) / 4
    assert abs(np.mean(each) - 2 * 3 * 0.5) < 5 * error and error < 0.1


def test_half_precision_inputs():
    """The density is that of z, not of (y - x) / sigma, whose digits the rounding of y has eaten;
    optax is wrong by a factor of up to 3."""
    half, single = (
        jax.grad(compiled(square, SAMPLES, 0.1, Normal()), argnums=1)(KEY, x)
        for x in (X.astype(jnp.bfloat16), X)
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), single, atol=0.05)


def test_trees_in_and_out():
    def fun(x):
        return {"sum": x["a"].sum() + x["b"], "largest": jnp.argmax(x["a"])}

    x = {"a": X, "b": jnp.array(2.0)}
    perturbed = compiled(fun, 5000, 0.1, Normal())
    out = perturbed(KEY, x)
    np.testing.assert_allclose(out["sum"], 2.6, atol=0.02)
    assert out["largest"].dtype == jnp.float32 and 0 < out["largest"] < 2
    slope = jax.grad(lambda x: perturbed(KEY, x)["sum"])(x)
    np.testing.assert_allclose(slope["a"], np.ones(3), atol=0.15)
    np.testing.assert_allclose(slope["b"], 1, atol=0.15)


def test_the_function_is_never_differentiated():
    @jax.custom_jvp
    def step(x):
        return jnp.floor(x)

    @step.defjvp
    def fails(primals, tangents):
        raise AssertionError("differentiated")

    slope = jax.grad(compiled(step, SAMPLES, 1.0, Normal()), argnums=1)(KEY, 0.3)
    np.testing.assert_allclose(slope, 1, atol=0.1)  # E[floor(x + z)] is nearly x - 1/2


def test_an_infinite_value_stays_infinite():
    perturbed = compiled(lambda x: jnp.where(x > 0, jnp.inf, 0.0), 100, 1.0)
    assert perturbed(KEY, jnp.array(0.0)) == jnp.inf
    assert perturbed(KEY, jnp.array(9.0)) == jnp.inf


def test_the_same_key_gives_the_same_and_jit_agrees():
    perturbed = make_perturbed_fun(hard, 100, 1.0)
    assert (perturbed(KEY, X) == perturbed(KEY, X)).all()
    np.testing.assert_allclose(jax.jit(perturbed)(KEY, X), perturbed(KEY, X), rtol=1e-6)
    assert (perturbed(jax.random.key(1), X) != perturbed(KEY, X)).any()
    theirs = jax.jit(optax.perturbations.make_perturbed_fun(hard, SAMPLES, 1.0))(KEY, X)
    ours = compiled(hard, SAMPLES, 1.0)(KEY, X)
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_what_is_rejected():
    with pytest.raises(ValueError, match="num_samples is 0"):
        make_perturbed_fun(hard, 0)
    with pytest.raises(ValueError, match="sigma is 0"):
        make_perturbed_fun(hard, sigma=0)
    with pytest.raises(TypeError, match=r"x\['a'\].*int32"):
        make_perturbed_fun(lambda x: x["a"])(KEY, {"a": jnp.array([1, 2])})
