"""CAME: Adafactor with momentum, divided by the instability of its steps."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx._roles import Slot, UnsignedStatistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise
from gradtx.engine.numerics import abs_sq, ema, plus, times
from gradtx.engine.rules import Slots
from gradtx.optimizers._adafactor import (
    averaged_squares,
    factored_axes,
    first_squares,
    over_root,
    scale_by_factored_rms,
)
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@declared_as("scale_by_confidence")
class ConfidenceState(NamedTuple):
    """The state of the second part of `came`.

    Attributes:
      mu: moving average of updates.
      v_row: for factored leaves, the mean of the instability over the largest axis; of shape (1,)
        for others.
      v_col: for factored leaves, the mean over the second largest axis; of shape (1,) for others.
      v: of shape (1,); leaves that are not factored have no instability.
    """

    mu: Slot
    v_row: UnsignedStatistic
    v_col: UnsignedStatistic
    v: UnsignedStatistic


def _scale_by_confidence(
    b1: Scalar, b3: Scalar, eps: Scalar, smallest: int
) -> GradientTransformation:
    """Averages updates, and divides by the root mean square of their distances from the average."""

    def init(p: Array) -> Slots:
        axes = factored_axes(p.shape, True, smallest)
        squares = first_squares(p if axes else jnp.zeros((1,), p.dtype), axes)
        return Slots(mu=jnp.zeros_like(p), **squares._asdict())

    def update(u: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        mu, axes = ema(u, s.mu, b1), factored_axes(u.shape, True, smallest)
        if axes is None:
            return mu, Slots(mu=mu, v_row=s.v_row, v_col=s.v_col, v=s.v)
        # `u - mu`, without the rounding of `mu`, which would be squared and divided by
        instability = plus(abs_sq(times(b1, lax.sub(u, s.mu))), eps)
        squares = averaged_squares(instability, s, 1 - b3, axes)
        return over_root(mu, squares, axes), Slots(mu=mu, **squares._asdict())

    return leafwise(ConfidenceState, init, update)


@optimizer(
    "Luo et al., 'CAME: Confidence-guided Adaptive Memory Efficient Optimization', "
    "arXiv:2307.02047",
    family="factored",
    acts_on="leaf",
    # With the default threshold of 1, the derivative has a jump at the first step.
    probe={"learning_rate": 0.02, "b1": 0.5, "b2": 0.9, "b3": 0.9, "clipping_threshold": 0.8},
    usual_rate=2e-4,
)
def came(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    eps: Scalar = 1e-30,
    eps_instability: Scalar = 1e-16,
    clipping_threshold: Scalar = 1.0,
    min_dim_size_to_factor: int = 1,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """CAME: Adafactor with momentum that is scaled down where its steps have been unstable.

    `v = b2*v + (1-b2) * (|g|^2 + eps); u = g / sqrt(v);
    u = u / max(1, rms(u) / clipping_threshold); mu = b1*mu + (1-b1)*u;
    s = b3*s + (1-b3) * (|u - mu|^2 + eps_instability);
    p - learning_rate * (mu / sqrt(s) + weight_decay*p)`. Of matrices, only the means of `v` and `s`
    over rows and over columns are stored, as in `scale_by_factored_rms`; leaves that are not
    factored have `mu` in place of `mu / sqrt(s)`. It is for large models that must be trained with
    less memory than AdamW takes: the only slot of full size is `mu`.

    No average has a bias correction. `sqrt(s)` starts at `sqrt(1-b3)` of its size, so that with the
    default `b3` the first steps of matrices are about 10 times as long as Adam's: a warm-up of the
    learning rate is needed.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 2e-4, and they
        advise one to three times less than AdamW's.
      b1: the decay rate of the average of updates. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      b3: the decay rate of the average of instabilities. Default: 0.9999.
      eps: added to squared gradients. Default: 1e-30.
      eps_instability: added to squared distances. Default: 1e-16.
      clipping_threshold: the largest root mean square of `u` over a leaf. Default: 1.
      min_dim_size_to_factor: the least size of the second largest axis of a leaf that is factored;
        an integer, as the shapes of the state depend on it. Default: 1, all leaves with two axes or
        more. Of more axes, the two largest are the matrix; in the authors' program the last two.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.

    Raises:
      TypeError: `min_dim_size_to_factor` is traced.
      ValueError: `min_dim_size_to_factor` is not a whole number, or `update` was called without
        params.

    Source: Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization",
    arXiv:2307.02047.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.came(1e-3, b1=0.0, b2=0.0, b3=0.0, eps_instability=1.0)
      >>> params = jnp.zeros((2, 2))
      >>> print(tx.update(jnp.full((2, 2), 3.0), tx.init(params), params)[0])
      [[-0.001 -0.001]
       [-0.001 -0.001]]
    """
    return chain(
        scale_by_factored_rms(
            decay_rate=b2,
            min_dim_size_to_factor=min_dim_size_to_factor,
            epsilon=eps,
            decay_rate_fn=_constant,
        ),
        clip_by_block_rms(clipping_threshold),
        _scale_by_confidence(b1, b3, eps_instability, int(min_dim_size_to_factor)),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _constant(step: Scalar, decay: Scalar) -> Scalar:
    """Returns a decay rate that does not depend on the step."""
    return decay
