"""Gradient descent with noise."""

from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.transforms.combining import chain
from gradtx.transforms.noise import add_noise
from gradtx.transforms.scaling import scale_by_learning_rate


@optimizer(
    "Neelakantan et al., 'Adding Gradient Noise Improves Learning for Very Deep Networks', "
    "arXiv:1511.06807",
    family="momentum",
    # Without its noise, so that it can be compared; the noise has tests of its own.
    probe={"learning_rate": 0.05, "eta": 0.0, "key": 0},
    usual_rate=0.01,
)
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: Scalar = 0.01,
    gamma: Scalar = 0.55,
    key: int | Array | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    """Gradient descent with decaying Gaussian noise.

    `p - learning_rate * (g + sqrt(eta / t**gamma) * normal())`, where `t` is 1 at the first step;
    see `add_noise`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      eta: the variance of the noise at the first step. Default: 0.01; the paper tries 0.01, 0.3
        and 1.
      gamma: the exponent with which the variance decays. Default: 0.55, as in the paper.
      key: a random key of JAX, or a seed. Default: the seed 0, and so the same noise in every run.
      seed: another name for a `key` that is a seed. Default: `None`, for `key`.

    Raises:
      ValueError: `eta` is negative, `key` and `seed` are both given, or `key` holds several keys.

    Source: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks",
    arXiv:1511.06807.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.noisy_sgd(0.1, eta=1e-8, key=7)
      >>> print(tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0].round(3))
      [-0.1 -0.1]
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate))
