"""Sophia: an average of gradients, divided by an average of curvatures and clipped."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx._roles import Count, Inner, Slot, Told, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.concrete import branch
from gradtx.engine.numerics import ema
from gradtx.engine.scalars import total
from gradtx.optimizers._curvature import by_curvature
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.hutchinson import hutchinson_estimator_diag_hessian
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.transforms.slots import as_slots, as_updates
from gradtx.tree.moments import next_count


@declared
class SophiaState(NamedTuple):
    """The first element of the state of `sophia`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: moving average of estimates of the Hessian's diagonal.
      hessian_fn_state: the state of the estimator.
    """

    count: Count
    mu: Slot
    nu: Slot
    hessian_fn_state: Annotated[Inner, Told()]


@optimizer(
    "Liu et al., 'Sophia: A Scalable Stochastic Second-order Optimizer for Language Model "
    "Pre-training', arXiv:2305.14342",
    family="curvature",
    probe={"learning_rate": 0.05, "gamma": 1.0},
    usual_rate=0.001,
)
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: MaskOrFn | None = None,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: Scalar = 10,
    hessian_diagonal_fn: TransformationLike = hutchinson_estimator_diag_hessian(),  # noqa: B008
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> GradientTransformation:
    """Sophia: momentum divided by the curvature, clipped for each element.

    With an estimate `h` of the diagonal of the loss's Hessian at every `update_interval`-th step,
    beginning with the first,

        mu = b1*mu + (1-b1)*g
        nu = b2*nu + (1-b2)*h
        p - learning_rate * (clip(mu / max(gamma * nu, eps), clip_threshold) + weight_decay * p)

    Where the curvature is negative or small, steps have the full length, as in sign descent. The
    loss comes with each call, `update(..., obj_fn=loss)`, a function of the parameters on the batch
    of that step; see `hutchinson_estimator_diag_hessian`. Between estimates it is not evaluated.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      b1: the decay rate of the average of gradients. Default: 0.965.
      b2: the decay rate of the average of curvatures. Default: 0.99.
      eps: the smallest denominator. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 1e-4.
      weight_decay_mask: which parameters decay: a pytree of booleans, or a function of the
        parameters that returns one. Default: all.
      gamma: the factor of the curvature: the smaller it is, the more elements are clipped. Default:
        0.01.
      clip_threshold: the largest magnitude of an element, before the learning rate; `None` for no
        bound. Default: 1.
      update_interval: the number of steps from one estimate to the next. Default: 10.
      hessian_diagonal_fn: a transformation that returns the estimates as its updates. Default:
        `hutchinson_estimator_diag_hessian()`, whose random numbers are the same in every run; give
        it another seed, `hutchinson_estimator_diag_hessian(seed)`, for others. With
        `gauss_newton_bartlett_estimator` it is Sophia-G, for which the paper has `gamma=0.05`.
      mu_dtype: the dtype in which `mu` is stored. Default: the parameters' dtype, and float32 for
        half precision.
      verbose: whether to print the share of elements that were not clipped, the "win rate".
        Default: False.
      print_win_rate_every_n_steps: the number of steps between prints, if `verbose`. Default: 0,
        for a print at each step.

    Raises:
      TypeError: `update` was called without `obj_fn`, `hessian_diagonal_fn` is not a
        transformation, or parameters are complex.
      ValueError: `update_interval` is less than 1, or `update` was called without params.

    Source: Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training", arXiv:2305.14342.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(p):
      ...     return 0.5 * jnp.sum(jnp.array([1.0, 100.0]) * p**2)
      >>> tx, p = gradtx.sophia(0.1, b1=0.0, b2=0.0, gamma=1.0, weight_decay=0.0), jnp.ones(2)
      >>> state = tx.init(p)
      >>> for _ in range(2):  # Newton's steps, and thus the same for both curvatures
      ...     updates, state = tx.update(jax.grad(loss)(p), state, p, obj_fn=loss)
      ...     p = p + updates
      >>> print(p)
      [0.81 0.81]
    """
    method = _Method(
        b1, b2, eps, gamma, clip_threshold, update_interval, mu_dtype,
        print_win_rate_every_n_steps if verbose else None,
    )  # fmt: skip
    return chain(
        method.transformation(hessian_diagonal_fn),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )


class _Method(NamedTuple):
    """The hyperparameters of the direction."""

    b1: Scalar
    b2: Scalar
    eps: Scalar
    gamma: Scalar
    bound: Scalar | None
    interval: Scalar
    mu_dtype: DTypeLike | None
    print_every: int | None

    def transformation(self, hessian: TransformationLike) -> GradientTransformation:
        """Returns the part of `sophia` before decay and learning rate."""
        return by_curvature(
            hessian,
            self.interval,
            SophiaState,
            self._average,
            self._step,
            name="scale_by_sophia",
            report=self._report,
            mu_dtype=self.mu_dtype,
        )

    def _average(self, h: list[Array], nu: list[Array]) -> list[Array]:
        return [ema(x, y, self.b2) for x, y in zip(as_slots(h, nu), nu, strict=True)]

    def _step(
        self, given: list[Array], mu: list[Array], nu: list[Array], count: Array
    ) -> tuple[list[Array], list[Array], Array, Array]:
        """Returns the directions, the averages, the new count, and the share not clipped."""
        averages = [
            ema(g, m.astype(g.dtype), self.b1) for g, m in zip(as_slots(given, nu), mu, strict=True)
        ]
        ratios = [self._ratio(m, n) for m, n in zip(averages, nu, strict=True)]
        clipped, free, size = ratios, 0, sum(x.size for x in ratios)
        if self.bound is not None:
            free = total([jnp.sum(jnp.abs(x) < self.bound) for x in ratios])
            clipped = [
                jnp.clip(x, -jnp.asarray(self.bound, x.dtype), jnp.asarray(self.bound, x.dtype))
                for x in ratios
            ]
        win_rate = jnp.asarray(free if self.bound is not None else size, jnp.float32) / max(size, 1)
        stored = [x.astype(m.dtype) for x, m in zip(averages, mu, strict=True)]
        return as_updates(clipped, given), stored, next_count(count, self.interval), win_rate

    def _ratio(self, m: Array, nu: Array) -> Array:
        least = jnp.finfo(nu.dtype).tiny ** 0.5  # its square must not vanish in derivatives
        return m / jnp.maximum(jnp.maximum(self.gamma * nu, self.eps).astype(nu.dtype), least)

    def _report(self, count: Array, win_rate: Array) -> None:
        """Prints the share of elements that were not clipped, at every `print_every`-th step."""
        if self.print_every is None:
            return

        def show() -> None:
            jax.debug.print("sophia: win rate {} at step {}", win_rate, count)

        every = max(self.print_every, 1)
        branch(count % every == 0, show, lambda: None)
