"""Adding noise to updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._arguments import described
from gradtx._roles import Count, RandomKey, declared
from gradtx.engine.base import Array, GradientTransformation, Scalar
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import times, value_of
from gradtx.engine.rules import Slots
from gradtx.engine.scalars import finished
from gradtx.tree.moments import step_number


@declared
class AddNoiseState(NamedTuple):
    """The state of `add_noise`.

    Attributes:
      count: the number of steps taken.
      rng_key: the random key of the next step.
    """

    count: Count
    rng_key: RandomKey


@piece
def add_noise(
    eta: Scalar, gamma: Scalar, key: int | Array | None = None, *, seed: int | None = None
) -> GradientTransformation:
    """Adds Gaussian noise of decaying variance: `g + sqrt(eta / t**gamma) * normal()`.

    `t` is 1 at the first step. The noise of all elements and all steps is independent. In a complex
    element, the real and the imaginary part each have half of the variance.

    Args:
      eta: the variance at the first step, at least 0.
      gamma: the exponent of the decay; 0 for constant variance. The paper's is 0.55.
      key: a random key of JAX, or a seed. Default: the seed 0, and so the same noise in every run.
      seed: an integer seed, in place of `key`. Default: `None`, `key` is used.

    Raises:
      ValueError: `eta` is negative, `key` and `seed` are both given, or `key` holds several keys.

    Source: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks",
    arXiv:1511.06807, section 3.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.add_noise(eta=4.0, gamma=0.55, key=0)
      >>> updates, _ = tx.update(jnp.zeros(10_000), tx.init(jnp.zeros(10_000)))
      >>> print(f"{updates.std():.1f}")
      2.0
    """
    return leafwise(
        AddNoiseState,
        None,
        _add_noise,
        scalars={"eta": eta, "gamma": gamma},
        key=as_key(key, seed, "add_noise"),
        name="add_noise",
    )


def _add_noise(g: Array, s: Slots, step: Array, p: None) -> tuple[Array, Slots]:
    t = step_number(step)
    # Two roots, because the root of the quotient has no finite derivative where eta is 0.
    deviation = jnp.sqrt(value_of(s.eta)) * t ** (-0.5 * s.gamma)
    # For integer gradients the noise is floating, and the engine then refuses to round the sum.
    noise = jax.random.normal(finished(s.rng_key), g.shape, jnp.result_type(g, 1.0))
    return g + times(deviation, noise), Slots()


def as_key(
    key: int | Array | None, seed: int | Array | None, name: str, key_name: str = "key"
) -> Array:
    """Returns a typed random key for a key of either kind, or for a seed.

    Args:
      key: a random key, a seed, or `None`.
      seed: a seed, or `None`; the seed is 0 if both are.
      name: the name of the caller in error messages.
      key_name: the name of `key` in error messages. Default: "key".

    Raises:
      ValueError: both are given, or `key` holds several keys.
      TypeError: a key or seed is a floating number, or no number.
    """
    if key is not None and seed is not None:
        raise ValueError(f"{name}: give {key_name} or seed, got both: {key!r} and {seed!r}")
    told = f"{name}: {key_name if seed is None else 'seed'} must be an integer or a random key, got"
    x = key if key is not None else 0 if seed is None else seed
    try:
        given = jnp.asarray(x)
    except (TypeError, ValueError):
        raise TypeError(f"{told} {described(x)}") from None
    if jnp.issubdtype(given.dtype, jnp.inexact):
        raise TypeError(f"{told} {given.dtype}")
    if not jnp.issubdtype(given.dtype, jax.dtypes.prng_key):
        given = jax.random.key(given) if given.ndim == 0 else jax.random.wrap_key_data(given)
    if given.shape != ():
        raise ValueError(f"{name}: {key_name} must be one key or seed, got shape {given.shape}")
    return given
