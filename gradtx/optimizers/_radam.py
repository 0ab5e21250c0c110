"""RAdam: Adam, rectified while its second moment is uncertain."""

import functools

import jax.numpy as jnp

from gradtx._arguments import NUMBER
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, ema, over, plus, ratio, value_of
from gradtx.engine.rules import Slots
from gradtx.engine.scalars import finished
from gradtx.optimizers._adam import ScaleByAdamState, moment_weights, zero_moments
from gradtx.schedules.rectified import rectification
from gradtx.transforms.combining import chain
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.moments import step_number


@functools.partial(piece, ranges={"threshold": NUMBER})
def scale_by_radam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
    eps_uncorrected: bool = False,
) -> GradientTransformation:
    """Scales by Adam's rule, rectified while the variance of the second moment is large.

    `rho_inf = 2 / (1-b2) - 1; rho = rho_inf - 2 * t * b2**t / (1-b2**t)` is the effective number of
    squares in the second moment, and
    `r = sqrt((rho-4) * (rho-2) * rho_inf / ((rho_inf-4) * (rho_inf-2) * rho))` corrects for its
    variance. With `mu_hat` and `nu_hat` as in `scale_by_adam`, the result is
    `r * mu_hat / (sqrt(nu_hat + eps_root) + eps)` if `rho` is at least `threshold`, and `mu_hat`
    alone before.

    Args:
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. If it is at most 0.6, `rho` stays below 4,
        and `mu_hat` is never divided. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      threshold: the least `rho` for which to divide. `r` is undefined for `rho` up to 4, so
        thresholds up to 4 mean just above 4, as in the paper. Default: 5, as in the authors' code.
      nesterov: whether to use Nesterov momentum. Default: False.
      eps_uncorrected: whether `eps` is added to the root before bias correction, as
        `r * mu_hat * sqrt(1-b2**t) / (sqrt(nu) + eps)` in PyTorch and the authors' code: it then
        counts for more in the first steps. Default: False.

    Raises:
      ValueError: `b2` is not in [0, 1).

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
    arXiv:1908.03265.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_radam()
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(6):  # the sixth is the first that divides
      ...     updates, state = tx.update(jnp.array([4.0]), state)
      ...     print(updates)
      [4.]
      [4.]
      [4.]
      [4.]
      [4.]
      [0.02...]
    """

    def per_step(step: Scalar) -> dict[str, Array]:
        ready, r = rectification(b2, step_number(step), value_of(threshold))
        known = {"ready": finished(ready), "r": finished(r)}
        return moment_weights(b1, b2, look_ahead=nesterov)(step) | known

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        mu_hat, nu_hat = over(mu, s.mu_weight), over(nu, s.nu_weight)
        if nesterov:
            mu_hat = ema(over(g, s.mu_weight), over(mu, s.next_mu_weight), b1)
        added = eps / jnp.sqrt(s.nu_weight) if eps_uncorrected else eps
        divided = ratio(mu_hat, plus(nu_hat, eps_root), added)
        return jnp.where(s.ready, s.r * divided, mu_hat), Slots(mu=mu, nu=nu)

    return leafwise(ScaleByAdamState, zero_moments, update, per_step=per_step)


@optimizer(
    "Liu et al., 'On the Variance of the Adaptive Learning Rate and Beyond', arXiv:1908.03265",
    family="Adam",
    probe={"learning_rate": 0.1},
    usual_rate=0.001,
    ranges={"threshold": NUMBER},
)
def radam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
    eps_uncorrected: bool = False,
) -> GradientTransformation:
    """RAdam: Adam with a warm-up while the variance of its second moment is large.

    `p - learning_rate * r * mu_hat / (sqrt(nu_hat + eps_root) + eps)`, where `r` grows from 0 to 1;
    in the first steps `p - learning_rate * mu_hat`. See `scale_by_radam`.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squares. Default: 0.999.
      eps: added to the root. Default: 1e-8.
      eps_root: added under the root. Default: 0.
      threshold: the least effective number of squares in the second moment for which to divide;
        values up to 4 mean just above 4. Default: 5.
      nesterov: whether to use Nesterov momentum. Default: False.
      eps_uncorrected: whether `eps` is added to the root before bias correction, as in PyTorch and
        the authors' code, see `scale_by_radam`. Default: False.

    Raises:
      ValueError: `b2` is not in [0, 1).

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
    arXiv:1908.03265.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.radam(1e-3)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-0.004]
    """
    return chain(
        scale_by_radam(
            b1, b2, eps, eps_root, threshold, nesterov=nesterov, eps_uncorrected=eps_uncorrected
        ),
        scale_by_learning_rate(learning_rate),
    )
