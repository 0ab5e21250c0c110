"""Arithmetic on one array that rules share.

Python numbers stay Python numbers for as long as they are alone: `1 - b` is taken in double before
it meets a float32 array. The functions that nearly every rule calls use `jax.lax` rather than
`jax.numpy`, which traces the same operation several times faster.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.engine.base import Array
from gradtx.engine.concrete import is_traced


class NeedsConstant(TypeError):
    """A number is an argument of compiled code, where a rule needs its value."""


class Number:
    """A hyperparameter that is an argument of compiled code, with what would lose its digits there.

    It stands for a Python number in operators and in the functions of this module. What JAX's own
    functions make of it is an error, after which the engine takes the number for a constant.

    Attributes:
      value: the number, a scalar array.
      complement: one minus the number.
      log: the number's logarithm; 0 if it has none.
    """

    __slots__ = ("complement", "log", "value")

    def __init__(self, value: Any, complement: Any, log: Any):
        self.value, self.complement, self.log = value, complement, log

    @staticmethod
    def parts(x: float) -> tuple[float, float, float]:
        """Returns what a number is made of, each rounded from double."""
        return x, 1 - x, math.log(x) if 0 < x < math.inf else 0.0

    def __rsub__(self, other: Any) -> Any:
        one = isinstance(other, (int, float)) and other == 1
        return self.complement if one else other - self.value

    def __pow__(self, other: Any) -> Any:
        if not isinstance(other, float) or not 0 < other < 1:
            return self.value ** value_of(other)
        log = other * self.log  # a root of a decay rate is a decay rate
        positive = self.value > 0
        return Number(
            self.value**other, jnp.where(positive, -jnp.expm1(log), 1), jnp.where(positive, log, 0)
        )

    def __bool__(self) -> bool:
        raise NeedsConstant("a rule asks for the value of a number")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise NeedsConstant("a rule asks for the value of a number")

    __float__ = __int__ = __index__ = __bool__


def value_of(number: Any) -> Any:
    """Returns a hyperparameter as what JAX's functions take: a number, or a scalar array."""
    return number.value if isinstance(number, Number) else number


def _operator(operate: Any, reflected: bool = False) -> Any:
    def apply(self: Number, *other: Any) -> Any:
        operands = (self.value, *map(value_of, other))
        return operate(*(reversed(operands) if reflected else operands))

    return apply


for _name in ("add", "sub", "mul", "truediv", "neg", "abs", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{_name}__", _operator(getattr(operator, _name)))
for _name in ("add", "mul", "truediv", "pow"):
    setattr(Number, f"__r{_name}__", _operator(getattr(operator, _name), reflected=True))
jax.tree_util.register_pytree_node(
    Number, lambda x: ((x.value, x.complement, x.log), None), lambda _, parts: Number(*parts)
)


def like(scalar: Any, x: Array) -> Any:
    """Casts a scalar to the dtype of `x`, which `lax` does not do by itself.

    Args:
      scalar: a number, or a scalar array.
      x: a real or complex array.
    """
    scalar = value_of(scalar)
    if isinstance(scalar, jax.Array):
        return lax.convert_element_type(scalar, x.dtype)
    return np.asarray(scalar, x.dtype)


def times(scalar: Any, x: Array) -> Array:
    """Gives `scalar * x`, in the dtype of `x`; integers are promoted as usual.

    Args:
      scalar: a Python number, or a scalar array.
      x: an array.
    """
    return lax.mul(x, like(scalar, x)) if _inexact(x) else value_of(scalar) * x


def plus(x: Array, scalar: Any) -> Array:
    """Gives `x + scalar`, in the dtype of `x`; the Python number 0 costs nothing.

    Args:
      x: an array.
      scalar: a Python number, or a scalar array.
    """
    if isinstance(scalar, (int, float)) and scalar == 0:
        return x
    return lax.add(x, like(scalar, x)) if _inexact(x) else x + value_of(scalar)


def over(x: Array, scalar: Any) -> Array:
    """Gives `x / scalar`, in the dtype of `x`; integers are promoted as usual.

    Args:
      x: an array.
      scalar: a Python number, or a scalar array.
    """
    return lax.div(x, like(scalar, x)) if _inexact(x) else x / value_of(scalar)


def _inexact(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def abs_sq(x: Array) -> Array:
    """Gives `|x|^2` as a real array, without the square root that `abs` would take.

    Args:
      x: any real or complex array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.engine.numerics import abs_sq
      >>> print(abs_sq(jnp.array([3 + 4j, 2])))
      [25.  4.]
    """
    if jnp.iscomplexobj(x):
        return lax.real(x) * lax.real(x) + lax.imag(x) * lax.imag(x)
    return lax.mul(x, x)


def real_full_like(x: Array, value: Any) -> Array:
    """Makes an array of the shape of `x` and its real dtype, such as a second moment has.

    Args:
      x: a real or complex array; its values are not read.
      value: what to fill the array with.
    """
    dtype = jnp.finfo(x.dtype).dtype if _inexact(x) else None
    return lax.full_like(x, value_of(value), dtype)


def zeros_without(x: Array, axes: Any) -> Array:
    """Makes zeros of the real dtype of `x` and its shape without some axes, sharded as `x` is.

    Args:
      x: a real or complex array, or its shape and dtype; its values are not read.
      axes: the axis or axes to leave out.
    """
    return real_full_like(_sum.eval_shape(x, axes), 0)


_sum = jax.jit(jnp.sum, static_argnums=1)  # one function, so that JAX remembers its trace


def ema(x: Array, average: Array, decay: Any) -> Array:
    """Moves an exponential average towards `x`: `decay * average + (1 - decay) * x`.

    Args:
      x: the new value.
      average: the average so far, of the shape and dtype of `x`.
      decay: how much of the average stays, in [0, 1]; `1 - decay` is taken before it meets `x`.
    """
    return lax.add(times(decay, average), times(1 - decay, x))


def total(parts: Sequence[Any]) -> Array:
    """Adds numbers up, of which each belongs to one leaf, in one operation.

    XLA copies what is cheap into each kernel that uses it. A sum over all leaves which is written
    as a chain of additions, and then used by every leaf, is so compiled once for each of them, in a
    time that grows with the square of their number. A reduction is never copied; and the zero that
    it begins with keeps XLA from turning it back into a chain.

    Args:
      parts: scalars, or arrays of one shape.

    Example:
      >>> from gradtx.engine.numerics import total
      >>> print(total([1.0, 2.0, 3.0]))
      6.0
    """
    if not parts:
        return jnp.zeros((), default_float())
    stacked = jnp.stack([jnp.asarray(x) for x in parts])
    one_before = [(1, 0, 0)] + (stacked.ndim - 1) * [(0, 0, 0)]
    return lax.reduce_sum(lax.pad(stacked, np.zeros((), stacked.dtype), one_before), [0])


def finished(x: Any) -> Array:
    """Gives a number as it is, such that no kernel which uses it computes it again.

    What all leaves are multiplied by, the factor of a clip for one, goes through here, with all
    that it took to compute it; see `total`. It is as good under `vmap` and in derivatives, and
    costs nothing beside the leaves.

    Args:
      x: a scalar, or a small array that all leaves use: numbers, booleans, or random keys.
    """
    return _through_a_sum(x) if is_traced(x) else jnp.asarray(x)


@jax.jit  # one call in the traced program, however often
def _through_a_sum(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = total([jax.random.key_data(x)])
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    return total([x.astype(jnp.int32)]) > 0 if x.dtype == bool else total([x])


def gathered_weight(decay: Any, steps: Any) -> Array:
    """Gives `1 - decay**steps`: the sum of the weights in an average that started at zero.

    Dividing the average by it corrects its bias. Written as `-expm1(steps * log(decay))`, because
    the plain form loses most of its digits while `decay**steps` is near 1: at `decay=0.999` in
    float32, a relative error of 1e-5 at the first step.

    Args:
      decay: the decay of the average, in [0, 1].
      steps: how many values the average holds; a scalar, at least 1.
    """
    steps = jnp.asarray(steps, default_float())
    if isinstance(decay, Number):
        positive = decay.value > 0
        weight = one_minus_power(decay.log, steps)
        return jnp.where(positive, weight, 1)
    if not isinstance(decay, jax.Array):
        decay = float(decay)
        return one_minus_power(math.log(decay), steps) if decay > 0 else jnp.ones_like(steps)
    positive = decay > 0
    weight = one_minus_power(jnp.log(jnp.where(positive, decay, 1)), steps)
    return jnp.where(positive, weight, 1)


def step_number(count: Any) -> Array:
    """Returns the number of the step after `count` steps, 1 for the first, as a floating scalar.

    It is `count + 1`, which an integer count at its largest value could not hold.

    Args:
      count: the number of steps taken, a scalar.
    """
    return lax.convert_element_type(count, default_float()) + 1


def one_minus_power(log_base: Any, exponent: Array) -> Array:
    """Gives `1 - base**exponent` from the base's logarithm, to the last digits.

    Args:
      log_base: the logarithm, a number or a scalar array.
      exponent: a floating scalar.
    """
    return lax.neg(lax.expm1(times(log_base, exponent)))


def root(x: Array) -> Array:
    """Gives the square root as a denominator: never quite 0, and with a finite gradient.

    `sqrt(x + tiny)`, where `tiny` is the dtype's smallest normal number: what is above 1e-30 in
    float32 does not notice, and a quotient `0 / 0` becomes 0, its gradient finite. An addition
    costs no more than the `eps_root` that it takes the place of.

    Args:
      x: a real array, not negative.
    """
    return lax.sqrt(plus(x, jnp.finfo(x.dtype).tiny))


def is_never_zero(number: Any, dtype: Any) -> bool:
    """Says whether a hyperparameter is a Python number that is above zero in a dtype, too.

    Args:
      number: a Python number, or an array, of which nothing is known.
      dtype: a real dtype.
    """
    return isinstance(number, (int, float)) and bool(number >= jnp.finfo(dtype).tiny)


def ratio(numerator: Array, square: Array, eps: Any) -> Array:
    """Gives `numerator / (sqrt(square) + eps)`, and 0 where both are 0.

    Args:
      numerator: a real or complex array.
      square: a real array, not negative, of the same shape.
      eps: a Python number, or a scalar array.
    """
    denominator = plus(root(square), eps)
    dtype = jnp.result_type(numerator, denominator)
    return lax.div(
        lax.convert_element_type(numerator, dtype), lax.convert_element_type(denominator, dtype)
    )


@jax.custom_jvp
def safe_sqrt(x: Array) -> Array:
    """Gives the exact square root, with gradient 0 where `x` is 0 instead of infinity.

    Args:
      x: a real array, not negative; NaN stays NaN.
    """
    return lax.sqrt(x)


@safe_sqrt.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = safe_sqrt(*primals)
    zero = y == 0
    return y, tangents[0] * jnp.where(zero, 0, 0.5 / jnp.where(zero, 1, y))


def safe_increment(count: Array) -> Array:
    """Adds one to a counter, and stays at the dtype's largest value rather than overflow.

    Args:
      count: an integer or floating scalar array.

    Raises:
      ValueError: `count` is boolean or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> int(gradtx.safe_increment(jnp.int32(2**31 - 1)))
      2147483647
    """
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.integer):
        info = jnp.iinfo
    elif jnp.issubdtype(count.dtype, jnp.floating):
        info = jnp.finfo
    else:
        raise ValueError(f"safe_increment: the counter is {count.dtype}, not integer or floating")
    top = np.asarray(info(count.dtype).max, count.dtype)
    return lax.add(count, lax.convert_element_type(lax.lt(count, top), count.dtype))


safe_int32_increment = safe_increment


def compute_dtype(dtype: Any) -> Any:
    """Gives the dtype in which arithmetic on `dtype` is done: float32 for what is narrower.

    Args:
      dtype: any dtype.
    """
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        return jnp.dtype(jnp.float32)
    return jnp.dtype(dtype)


def widen(x: Any) -> Array:
    """Casts an array to the dtype in which arithmetic on it is done, without a weak type.

    Args:
      x: an array, a Python number, or the shape and dtype of an array (`jax.ShapeDtypeStruct`), of
        which come the shape and dtype of the result.
    """
    if isinstance(x, jax.ShapeDtypeStruct):  # from it `init` makes a state, without the parameters
        return x.update(dtype=compute_dtype(x.dtype))  # type: ignore[return-value]
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return lax.convert_element_type(x, compute_dtype(x.dtype))


def rescale(x: Any, factor: Any) -> Array:
    """Gives `factor * x`, multiplied in float32 or wider and rounded once to the dtype of `x`.

    Args:
      x: an array.
      factor: a scalar array or a number.
    """
    return jnp.asarray(widen(x) * factor, jnp.result_type(x))


def default_float() -> Any:
    """Gives the dtype of a Python float in JAX: float32, or float64 in x64 mode."""
    return jnp.result_type(float)
