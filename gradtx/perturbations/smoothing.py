"""Averages of a function over noise, whose gradients need no gradient of the function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradtx.engine.base import Array, PyTree, Scalar
from gradtx.engine.draws import drawn
from gradtx.engine.numerics import compute_dtype, default_float, widen
from gradtx.perturbations.noise import Gumbel, Noise


def make_perturbed_fun(
    fun: Callable[[PyTree], PyTree],
    num_samples: int = 1000,
    sigma: Scalar = 0.1,
    noise: Noise = Gumbel(),  # noqa: B008  it has no state
    use_baseline: bool = True,
) -> Callable[[Array, PyTree], PyTree]:
    r"""Estimates `E[fun(x + sigma * z)]` by samples, differentiable in `x` and `sigma`.

    The average over noise `z` is smooth even where `fun` is not: an argmax becomes a softmax, a
    ranking becomes soft. Its derivatives are averages too, with `y = x + sigma * z` held fixed and
    `p` the density of `y`::

        grad(E(fun(y))) = E(fun(y) * grad(log(p(y))))
        log(p(y)) = log_prob((y - x) / sigma) - log(sigma)

    with the mean `E` over the noise, and the derivative `grad` by `x` or `sigma`, summed over all
    elements of `x`, so that `fun` itself is never differentiated. Each sample is weighted by
    `exp(log(p(y)) - stop_gradient(log(p(y))))`, which is 1 and has that derivative; so all orders
    of derivatives are unbiased estimates. Their variance is large: that of a gradient is
    proportional to `1 / (num_samples * sigma^2)`. The same key gives the same noise.

    Args:
      fun: a function from one pytree of floating-point arrays to a pytree of arrays.
      num_samples: the number of samples to average; `fun` is called once, under `jax.vmap`.
        Default: 1000.
      sigma: the scale of the noise, positive, a number or a scalar array. Default: 0.1.
      noise: the distribution of `z`, with the methods of `Gumbel`. Note that the mean of a Gumbel
        variable is 0.577, not 0. Default: `Gumbel()`.
      use_baseline: whether to subtract `fun(x)` from the samples that weight the derivative, which
        reduces its variance and does not change its mean. Default: yes.

    Returns:
      `perturbed(key, x)`, which returns a pytree like `fun(x)`. Averages of half precision are
      taken in float32; integers and booleans become floats.

    Raises:
      ValueError: `num_samples` is less than 1, or `sigma` is not positive.
      TypeError: `perturbed` was called with an `x` that is not floating-point.

    Source: Berthet et al., "Learning with Differentiable Perturbed Optimizers", arXiv:2002.08676;
    the weights are those of Foerster et al., "DiCE: The Infinitely Differentiable Monte-Carlo
    Estimator", arXiv:1802.05098.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradtx.perturbations import make_perturbed_fun
      >>> hard = lambda x: jax.nn.one_hot(jnp.argmax(x), x.size)
      >>> soft = make_perturbed_fun(hard, num_samples=100_000, sigma=1.0)
      >>> x = jnp.array([0.0, 1.0, 2.0])
      >>> print(f"{soft(jax.random.key(0), x)[2]:.2f} {jax.nn.softmax(x)[2]:.2f}")
      0.67 0.67
    """
    if num_samples < 1:
        raise ValueError(f"make_perturbed_fun: num_samples is {num_samples}, and must be positive")
    if isinstance(sigma, (int, float)) and not sigma > 0:
        raise ValueError(f"make_perturbed_fun: sigma is {sigma}, and must be positive")

    def perturbed(key: Array, x: PyTree) -> PyTree:
        paths, structure = jax.tree_util.tree_flatten_with_path(x)
        leaves = [_floating(path, leaf) for path, leaf in paths]
        centers, scale = lax.stop_gradient((leaves, sigma))
        shapes = [((num_samples, *leaf.shape), compute_dtype(leaf.dtype)) for leaf in leaves]
        keys = jax.random.split(key, max(len(leaves), 1))[: len(leaves)]
        noises = drawn(lambda k, shape_and_dtype: noise.sample(k, *shape_and_dtype), keys, shapes)

        def evaluate(zs: list[Array]) -> tuple[PyTree, Array]:
            """Returns `fun` at one sample, and the logarithm of its density."""
            ys, log_density = [], jnp.zeros((), default_float())
            for z, leaf, center in zip(zs, leaves, centers, strict=True):
                ys.append((widen(center) + scale * z).astype(leaf.dtype))
                # (y - x) / sigma, written so that its value is z, however large x is beside sigma
                u = z * (scale / sigma) + (widen(center) - widen(leaf)) / sigma
                log_density += jnp.sum(noise.log_prob(u)) - leaf.size * jnp.log(sigma)
            return fun(jax.tree.unflatten(structure, ys)), log_density

        values, log_density = jax.vmap(evaluate, axis_size=num_samples)(noises)
        weights = jnp.exp(log_density - lax.stop_gradient(log_density))
        if use_baseline:
            baselines = fun(jax.tree.unflatten(structure, centers))
        else:
            baselines = jax.tree.map(lambda v: jnp.zeros(v.shape[1:], v.dtype), values)

        def average(value: Array, baseline: Array) -> Array:
            inexact = jnp.issubdtype(value.dtype, jnp.inexact)
            dtype = value.dtype if inexact else default_float()
            wide = compute_dtype(dtype)
            value, baseline = lax.stop_gradient((value.astype(wide), jnp.asarray(baseline, wide)))
            baseline = jnp.where(jnp.isfinite(baseline), baseline, 0)  # inf - inf would be nan
            weight = weights.astype(wide).reshape(-1, *[1] * baseline.ndim)
            return (jnp.mean(weight * (value - baseline), axis=0) + baseline).astype(dtype)

        return jax.tree.map(average, values, baselines)

    return perturbed


def _floating(path: jax.tree_util.KeyPath, leaf: ArrayLike) -> Array:
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(
            f"make_perturbed_fun: the input x{jax.tree_util.keystr(path)} must be floating-point, "
            f"not {leaf.dtype}"
        )
    return leaf
