"""Adding noise to updates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import finished, step_number, times, value_of
from gradtx.engine.roles import Count, RandomKey, declared
from gradtx.engine.rules import Slots


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
    eta: Any, gamma: Any, key: int | Array | None = None, *, seed: int | None = None
) -> GradientTransformation:
    """Adds Gaussian noise that fades: `g + sqrt(eta / t**gamma) * normal()`.

    `t` is 1 at the first step. Every element of every leaf gets noise of its own at every step. In
    a complex element the variance is that of its magnitude: half of it is in each part.

    Args:
      eta: the variance at the first step, at least 0.
      gamma: how fast it fades; 0 for noise that stays. The paper's is 0.55.
      key: a random key of JAX, or a seed. Default: the seed 0, and so the same noise in every run.
      seed: another name for a `key` that is a seed. Default: `key` says it.

    Raises:
      ValueError: `eta` is negative, `key` and `seed` are both given, or `key` is several keys.

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
    if isinstance(eta, (int, float)) and eta < 0:
        raise ValueError(f"add_noise: eta is {eta}, and a variance is not negative")
    return leafwise(
        AddNoiseState,
        None,
        _add_noise,
        scalars={"eta": eta, "gamma": gamma},
        key=as_key(key, seed, "add_noise"),
        name="add_noise",
    )


def _add_noise(g: Array, s: Slots, step: Any, p: None) -> tuple[Array, Slots]:
    t = step_number(step)
    # Two roots: that of a fraction would have no slope where eta is 0.
    deviation = jnp.sqrt(value_of(s.eta)) * t ** (-0.5 * s.gamma)
    # An integer gradient meets noise in floats, which the engine then refuses to round.
    noise = jax.random.normal(finished(s.rng_key), g.shape, jnp.result_type(g, 1.0))
    return g + times(deviation, noise), Slots()


def as_key(key: Any, seed: Any, name: str, key_name: str = "key") -> Array:
    """Gives one typed random key for a key of either kind, or for a seed.

    Args:
      key: a random key, or a seed, or `None`.
      seed: a seed, or `None`; the seed is 0 if both are.
      name: what errors call the caller.
      key_name: what errors call `key`. Default: "key".
    """
    if key is not None and seed is not None:
        raise ValueError(f"{name}: {key_name} is {key!r} and seed is {seed!r}; give one of them")
    given = jnp.asarray(key if key is not None else 0 if seed is None else seed)
    if not jnp.issubdtype(given.dtype, jax.dtypes.prng_key):
        given = jax.random.key(given) if given.ndim == 0 else jax.random.wrap_key_data(given)
    if given.shape != ():
        raise ValueError(f"{name}: {key_name} has shape {given.shape}; one key or seed is wanted")
    return given
