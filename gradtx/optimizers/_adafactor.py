"""Adafactor: second moments of matrices in the memory of two vectors."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.typing import DTypeLike

from gradtx._arguments import DECAY, NUMBER
from gradtx._roles import Count, UnsignedStatistic, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import Array, GradientTransformation, MaskOrFn, Scalar, ScalarOrSchedule
from gradtx.engine.leafwise import leafwise, piece
from gradtx.engine.numerics import abs_sq, plus, ratio, root, times
from gradtx.engine.rules import Slots
from gradtx.transforms.averaging import ema
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.param_scale import scale_by_param_block_rms
from gradtx.transforms.scaling import scale, scale_by_learning_rate
from gradtx.tree.filling import real_full_like, zeros_without
from gradtx.tree.moments import step_number


@declared
class FactoredState(NamedTuple):
    """The state of `scale_by_factored_rms`.

    Attributes:
      count: the number of steps taken.
      v_row: for factored leaves, the mean of `v` over the largest axis; of shape (1,) for others.
      v_col: for factored leaves, the mean of `v` over the second largest axis; of shape (1,) for
        others.
      v: for leaves that are not factored, the moving average of squares; of shape (1,) for others.
    """

    count: Count
    v_row: UnsignedStatistic
    v_col: UnsignedStatistic
    v: UnsignedStatistic


class Squares(NamedTuple):
    """Averages of squares of one leaf, whole or factored; arrays that are not used have one 0.

    Attributes:
      v_row: for factored leaves, the mean of `v` over the axis of columns.
      v_col: for factored leaves, the mean of `v` over the axis of rows.
      v: for other leaves, the average of squares.
    """

    v_row: Array
    v_col: Array
    v: Array


RowsAndColumns = tuple[int, int] | None


def factored_axes(shape: tuple[int, ...], factored: bool, smallest: int) -> RowsAndColumns:
    """Returns the axes of a leaf's rows and columns, which are its largest, if it is factored.

    Args:
      shape: the shape of the leaf.
      factored: whether any leaf is factored.
      smallest: the least size of the second largest axis of a leaf that is factored.
    """
    by_size = np.argsort(shape, kind="stable")
    if not factored or len(shape) < 2 or shape[by_size[-2]] < max(smallest, 1):
        return None
    return int(by_size[-2]), int(by_size[-1])


def first_squares(p: Array, axes: RowsAndColumns) -> Squares:
    """Returns averages of squares before any step."""
    none = real_full_like(jnp.zeros((1,), p.dtype), 0)
    if axes is None:
        return Squares(none, none, real_full_like(p, 0))
    row, col = axes
    return Squares(zeros_without(p, col), zeros_without(p, row), none)


def averaged_squares(
    square: Array, last: Squares | Slots, weight: Scalar, axes: RowsAndColumns
) -> Squares:
    """Returns averages of squares with this step's: `(1 - weight) * last + weight * square`."""

    def average(old: Array, new: Array) -> Array:
        return lax.add(times(1 - weight, old), times(weight, new))

    if axes is None:
        return Squares(last.v_row, last.v_col, average(last.v, square))
    row, col = axes
    rows = average(last.v_row, jnp.mean(square, axis=col))
    return Squares(rows, average(last.v_col, jnp.mean(square, axis=row)), last.v)


def over_root(x: Array, squares: Squares, axes: RowsAndColumns) -> Array:
    """Returns `x / sqrt(v)`, with `v[i,j] = v_row[i] * v_col[j] / mean(v_row)` if factored."""
    if axes is None:
        return ratio(x, squares.v, 0.0)
    row, col = axes
    rows, cols = jnp.expand_dims(squares.v_row, col), jnp.expand_dims(squares.v_col, row)
    # Roots before products, because products of squares overflow or underflow in float32.
    mean_root = root(jnp.mean(rows, axis=row, keepdims=True))
    return x * (mean_root / _root_or_1(rows)) / _root_or_1(cols)


def _root_or_1(x: Array) -> Array:
    """Returns the root, and 1 where it is 0; there, what is divided by it is 0 as well."""
    return lax.sqrt(jnp.where(x == 0, 1, x))


def power_decay(step: Scalar, exponent: Scalar = 0.8) -> Array:
    """Returns a decay rate that starts at 0 and approaches 1: `1 - (step + 1)**-exponent`.

    Args:
      step: the step count, 0 at the first step.
      exponent: the larger it is, the faster the decay rate approaches 1. Default: 0.8.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235, section 7.2.
    """
    return 1 - _power_weight(step, exponent)


def _power_weight(step: Scalar, exponent: Scalar) -> Array:
    """Returns `1 - power_decay`, the weight of the new value, without cancellation."""
    return step_number(step) ** -exponent


@functools.partial(piece, ranges={"decay_rate": NUMBER})
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Scalar = 0.8,
    step_offset: Scalar = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Scalar = 1e-30,
    decay_rate_fn: Callable[[Scalar, Scalar], Scalar] = power_decay,
) -> GradientTransformation:
    """Divides by the root of averaged squares; of matrices only row and column means are stored.

    With the decay rate `decay = decay_rate_fn(t, decay_rate)` and
    `t = max(count - step_offset, 0)`: `v = decay*v + (1-decay) * (|g|^2 + epsilon); g / sqrt(v)`.
    For a leaf whose two largest axes have at least `min_dim_size_to_factor` elements each, only the
    means of `v` over each of them are stored, and `v[i,j]` is approximated by
    `v_row[i] * v_col[j] / mean(v_row)`.

    Args:
      factored: whether the second moments of matrices are factored. Default: True.
      decay_rate: the exponent in the decay rate. Default: 0.8.
      step_offset: the step count at which fine-tuning began; until then the decay rate is 0.
        Default: 0.
      min_dim_size_to_factor: the least size of the second largest axis of a leaf that is factored;
        an integer, as the shapes of the state depend on it. Default: 128.
      epsilon: added to squares. Default: 1e-30.
      decay_rate_fn: a function of `t` and `decay_rate` that returns the decay rate. Default:
        `1 - (t + 1)**-decay_rate`.

    Raises:
      TypeError: `min_dim_size_to_factor` is traced.
      ValueError: `min_dim_size_to_factor` is not a whole number.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235, Algorithm 4.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
      >>> state = tx.init(jnp.zeros((2, 3)))
      >>> updates, state = tx.update(jnp.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]), state)
      >>> print(updates)
      [[1. 1. 1.]
       [1. 1. 1.]]
      >>> state.v_row.shape, state.v_col.shape, state.v.shape
      ((2,), (3,), (1,))
    """
    smallest = _whole_number(min_dim_size_to_factor)
    if decay_rate_fn is power_decay:
        return _by_power_decay(factored, decay_rate, step_offset, smallest, epsilon)

    def weight(step: Scalar) -> dict[str, Scalar]:
        return {"weight": 1 - decay_rate_fn(_since(step, step_offset), decay_rate)}

    return _by_factored_rms(factored, smallest, epsilon, weight)


def _whole_number(size: Scalar) -> int:
    if isinstance(size, Tracer):
        raise TypeError(
            "scale_by_factored_rms: min_dim_size_to_factor must be a Python integer, because the "
            "shapes of the state depend on it, got a traced number"
        )
    return int(size)


def _since(step: Scalar, offset: Scalar) -> Array:
    return jnp.maximum(step - offset, 0)


@piece
def _by_power_decay(
    factored: bool, decay_rate: Scalar, step_offset: Scalar, smallest: int, epsilon: Scalar
) -> GradientTransformation:
    def weight(step: Scalar) -> dict[str, Scalar]:
        return {"weight": _power_weight(_since(step, step_offset), decay_rate)}

    return _by_factored_rms(factored, smallest, epsilon, weight)


@piece
def _by_factored_rms(
    factored: bool, smallest: int, epsilon: Scalar, weight: Callable[[Scalar], Mapping[str, Scalar]]
) -> GradientTransformation:
    def init(p: Array) -> Slots:
        return Slots(**first_squares(p, factored_axes(p.shape, factored, smallest))._asdict())

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        axes = factored_axes(g.shape, factored, smallest)
        squares = averaged_squares(plus(abs_sq(g), epsilon), s, s.weight, axes)
        return over_root(g, squares, axes), Slots(**squares._asdict())

    return leafwise(FactoredState, init, update, per_step=weight, name="scale_by_factored_rms")


@optimizer(
    "Shazeer and Stern, 'Adafactor: Adaptive Learning Rates with Sublinear Memory Cost', "
    "arXiv:1804.04235",
    family="factored",
    acts_on="leaf",
    # With the default threshold of 1, the derivative has a jump at the first step, whose `rms(u)`
    # is 1.
    probe={"learning_rate": 0.1, "clipping_threshold": 0.8},
    usual_rate=0.01,
    scale_free=True,
    ranges={"momentum": DECAY},
)
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: Scalar = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    dtype_momentum: DTypeLike | None = jnp.float32,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: Scalar = 1e-30,
    factored: bool = True,
    weight_decay_mask: MaskOrFn | None = None,
) -> GradientTransformation:
    """Adafactor: second moments in two vectors a matrix, steps relative to the parameters.

    `u = g / sqrt(v)`, see `scale_by_factored_rms`; `u = u / max(1, rms(u) / clipping_threshold);
    u = learning_rate * max(rms(p), 1e-3) * u; m = momentum*m + (1-momentum)*u;
    p - m - weight_decay_rate*p`, with root mean squares over one leaf. Without momentum, `m = u`.
    The learning rate does not multiply the weight decay.

    Args:
      learning_rate: a number, a scalar array or a schedule. Default: `None`, a rate of 1. The
        paper's is `min(0.01, 1 / sqrt(t))`.
      min_dim_size_to_factor: the least size of the second largest axis of a leaf that is factored;
        an integer, as the shapes of the state depend on it. Default: 128.
      decay_rate: the exponent in the decay rate of `v`, `1 - t**-decay_rate`. Default: 0.8, as in
        the paper.
      decay_offset: the step count at which fine-tuning began, where `t` is 1. Default: 0.
      multiply_by_parameter_scale: whether steps are relative to the root mean square of the
        parameters. Default: True.
      clipping_threshold: the largest root mean square of `u`, or `None` for no clipping. Default:
        1.
      momentum: the decay rate of the average of steps. Default: `None`, no momentum.
      dtype_momentum: the dtype in which that average is stored, or `None` for that of the
        parameters; complex parameters need `None`. Default: float32.
      weight_decay_rate: the coefficient of weight decay, a number or a schedule: each step
        subtracts `weight_decay_rate * p`. Default: `None`, no decay.
      eps: added to squares. Default: 1e-30, as in the paper.
      factored: whether the second moments of matrices are factored. Default: True.
      weight_decay_mask: which parameters decay: a pytree of booleans, or a function of the
        parameters that returns one. Default: all.

    Raises:
      TypeError: `min_dim_size_to_factor` is traced.
      ValueError: `min_dim_size_to_factor` is not a whole number, or `update` was called without
        params, and an option needs them.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.adafactor(0.01)
      >>> params = jnp.array([3.0, 3.0])
      >>> print(tx.update(jnp.array([4.0, -0.5]), tx.init(params), params)[0])
      [-0.03  0.03]
    """
    parts = (
        scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps),
        None if clipping_threshold is None else clip_by_block_rms(clipping_threshold),
        None if learning_rate is None else scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_param_block_rms() if multiply_by_parameter_scale else None,
        None if momentum is None else ema(momentum, False, dtype_momentum),
        # The mask is checked even if nothing decays.
        None
        if weight_decay_rate is None and weight_decay_mask is None
        else add_decayed_weights(
            0.0 if weight_decay_rate is None else weight_decay_rate, weight_decay_mask
        ),
        # If `learning_rate` is `None`, that of `update(..., learning_rate=x)` is applied here.
        scale_by_learning_rate() if learning_rate is None else scale(-1.0),
    )
    return chain(*(part for part in parts if part is not None))
