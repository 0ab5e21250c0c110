"""AdaHessian: Adam with the Hessian's diagonal in the second moment."""

from typing import Annotated, NamedTuple

import jax.numpy as jnp

from gradtx._arguments import POSITIVE, MisfitError, axes_within
from gradtx._roles import Count, Inner, Slot, Told, UnsignedSlot, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.numerics import ema, over, plus, root, value_of
from gradtx.optimizers._curvature import by_curvature
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.hutchinson import hutchinson_estimator_diag_hessian
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.slots import as_slots, as_updates
from gradtx.tree.moments import gathered_weight, next_count, step_number


@declared_as("adahessian")
class AdaHessianState(NamedTuple):
    """The first element of the state of `adahessian`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of squared estimates of the Hessian's diagonal.
      hessian_fn_state: the state of the estimator.
    """

    count: Count
    mu: Slot
    nu: UnsignedSlot
    hessian_fn_state: Annotated[Inner, Told()]


@optimizer(
    "Yao et al., 'ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning', "
    "arXiv:2006.00719",
    family="curvature",
    probe={"learning_rate": 0.1},
    usual_rate=0.15,
    ranges={"hessian_power": POSITIVE},
)
def adahessian(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-4,
    hessian_power: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    kernel_axes: tuple[int, ...] = (),
    update_interval: Scalar = 1,
    hessian_diagonal_fn: TransformationLike = hutchinson_estimator_diag_hessian(),  # noqa: B008
) -> GradientTransformation:
    """AdaHessian: momentum divided by the root mean square of the Hessian's diagonal.

    With an estimate `h` of the diagonal at every `update_interval`-th step, beginning with the
    first, `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*h^2;
    p - learning_rate * (mu_hat / (nu_hat**(hessian_power/2) + eps) + weight_decay*p)`, where
    `mu_hat` and `nu_hat` are the averages with bias correction. The steps are those of Newton's
    method on a diagonal, with the magnitude of curvatures, so that learning rates are of the order
    of 1, and need less tuning. It costs about two more gradients a step.

    The loss comes with each call, `update(..., obj_fn=loss)`, a function of the parameters on the
    batch of that step; see `hutchinson_estimator_diag_hessian`.

    Args:
      learning_rate: a number, a scalar array or a schedule; the authors' is 0.15.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of squared estimates. Default: 0.999.
      eps: added to the root. Default: 1e-4.
      hessian_power: the power of the curvature: 1 for Newton's method, 0 for SGD. Default: 1.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      kernel_axes: the axes of a convolution's kernel, over which magnitudes of the estimate are
        averaged, in leaves with four axes: (0, 1) for Flax and Haiku, (2, 3) for Equinox and
        PyTorch. Default: none, as in the authors' program.
      update_interval: the number of steps from one estimate to the next. Default: 1.
      hessian_diagonal_fn: a transformation that returns the estimates as its updates. Default:
        `hutchinson_estimator_diag_hessian()`, whose random numbers are the same in every run.

    Raises:
      TypeError: `update` was called without `obj_fn`, `hessian_diagonal_fn` is not a
        transformation, or parameters are complex.
      ValueError: `update_interval` is less than 1, `kernel_axes` are not axes of a kernel, or
        `update` was called without params.

    Source: Yao et al., "ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning",
    arXiv:2006.00719.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return 0.5 * jnp.sum(jnp.array([1.0, 100.0]) * p**2)
      >>> tx, p = gradtx.adahessian(0.5, b1=0.0, eps=0.0), jnp.ones(2)
      >>> updates, state = tx.update(jax.grad(loss)(p), tx.init(p), p, obj_fn=loss)
      >>> print(updates.round(3))
      [-0.5 -0.5]
    """
    try:
        kernel = axes_within(kernel_axes, 4, "kernel_axes")
    except MisfitError as e:
        raise ValueError(f"adahessian: a convolution's kernel {e}") from None
    method = _Method(b1, b2, eps, hessian_power, kernel, update_interval)
    return chain(
        by_curvature(
            hessian_diagonal_fn,
            update_interval,
            AdaHessianState,
            method.average,
            method.step,
            name="scale_by_adahessian",
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


class _Method(NamedTuple):
    """The hyperparameters of the direction."""

    b1: Scalar
    b2: Scalar
    eps: Scalar
    power: Scalar
    kernel: tuple[int, ...]
    interval: Scalar

    def average(self, h: list[Array], nu: list[Array]) -> list[Array]:
        squares = [jnp.square(self._over_kernels(x)) for x in as_slots(h, nu)]
        return [ema(x, y, self.b2) for x, y in zip(squares, nu, strict=True)]

    def step(
        self, given: list[Array], mu: list[Array], nu: list[Array], count: Array
    ) -> tuple[list[Array], list[Array], Array]:
        """Returns the directions, the averages, and the new count."""
        mu = [ema(g, m, self.b1) for g, m in zip(as_slots(given, nu), mu, strict=True)]
        of_mu = gathered_weight(self.b1, step_number(count))
        of_nu = gathered_weight(self.b2, step_number(count // value_of(self.interval)))
        moves = [self._ratio(over(m, of_mu), over(n, of_nu)) for m, n in zip(mu, nu, strict=True)]
        return as_updates(moves, given), mu, next_count(count, self.interval)

    def _ratio(self, m: Array, nu: Array) -> Array:
        return m / plus(root(nu) ** value_of(self.power), self.eps)

    def _over_kernels(self, h: Array) -> Array:
        if h.ndim != 4 or not self.kernel:
            return h
        return jnp.broadcast_to(jnp.mean(jnp.abs(h), self.kernel, keepdims=True), h.shape)
