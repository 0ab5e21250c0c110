"""Arithmetic on one array, shared by rules.

Arithmetic of Python numbers is done in double: `1 - b` is computed before it is combined with a
float32 array. The functions that nearly every rule calls use `jax.lax` instead of `jax.numpy`,
because it traces the same operation several times faster.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from gradtx.engine.base import Array, Scalar


class NeedsConstant(TypeError):
    """Raised if a rule needs the value of a number that is an argument of compiled code."""


class Number:
    """A hyperparameter that is an argument of compiled code, with related values in full precision.

    It replaces a Python number in operators and in the functions of this module. JAX's own
    functions raise an error for it, after which the engine makes the number a constant.

    Attributes:
      value: the number, a scalar array.
      complement: one minus the number.
      log: the number's logarithm; 0 if it has none.
    """

    __slots__ = ("complement", "log", "value")

    def __init__(self, value: Scalar, complement: Scalar, log: Scalar):
        self.value, self.complement, self.log = value, complement, log

    @staticmethod
    def parts(x: float) -> tuple[float, float, float]:
        """Returns the three attributes for a number, each computed in double."""
        return x, 1 - x, math.log(x) if 0 < x < math.inf else 0.0

    def __rsub__(self, other: Scalar) -> Scalar:
        one = isinstance(other, (int, float)) and other == 1
        return self.complement if one else other - self.value

    def __pow__(self, other: Scalar) -> "Scalar | Number":
        if not isinstance(other, float) or not 0 < other < 1:
            return self.value ** value_of(other)
        log = other * self.log  # a root of a decay rate is a decay rate
        positive = self.value > 0
        return Number(
            self.value**other, jnp.where(positive, -jnp.expm1(log), 1), jnp.where(positive, log, 0)
        )

    def __bool__(self) -> bool:
        raise NeedsConstant("a rule needs the value of a number")

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise NeedsConstant("a rule needs the value of a number")

    __float__ = __int__ = __index__ = __bool__


def value_of(number: Scalar | Number) -> Scalar:
    """Returns a hyperparameter as an argument of JAX's functions: a number, or a scalar array.

    Example:
      >>> from gradtx.numerics import Number, value_of
      >>> value_of(0.9), value_of(Number(*Number.parts(0.9)))
      (0.9, 0.9)
    """
    return number.value if isinstance(number, Number) else number


def _operator(operate: Callable[..., Scalar], reflected: bool = False) -> Callable[..., Scalar]:
    def apply(self: Number, *other: Scalar | Number) -> Scalar:
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


def like(scalar: Scalar, x: Array) -> Array | np.ndarray:
    """Casts a scalar to the dtype of `x`, because the functions of `lax` do not promote dtypes.

    Args:
      scalar: a number, or a scalar array.
      x: a real or complex array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import like
      >>> like(0.5, jnp.ones(3, jnp.bfloat16)).dtype.name
      'bfloat16'
    """
    scalar = value_of(scalar)
    if isinstance(scalar, jax.Array):
        return lax.convert_element_type(scalar, x.dtype)
    return np.asarray(scalar, x.dtype)


def times(scalar: Scalar, x: Array) -> Array:
    """Returns `scalar * x`, in the dtype of `x`; integers are promoted as usual.

    Args:
      scalar: a Python number, or a scalar array.
      x: an array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import times
      >>> times(jnp.float32(0.5), jnp.ones(2, jnp.bfloat16))  # jnp.multiply would return float32
      Array([0.5, 0.5], dtype=bfloat16)
    """
    return lax.mul(x, like(scalar, x)) if _inexact(x) else jnp.asarray(value_of(scalar) * x)


def plus(x: Array, scalar: Scalar) -> Array:
    """Returns `x + scalar`, in the dtype of `x`, and `x` itself for the Python number 0.

    Args:
      x: an array.
      scalar: a Python number, or a scalar array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import plus
      >>> print(plus(jnp.array([1.0, 2.0]), 0.5))
      [1.5 2.5]
    """
    if isinstance(scalar, (int, float)) and scalar == 0:
        return x
    return lax.add(x, like(scalar, x)) if _inexact(x) else x + value_of(scalar)


def over(x: Array, scalar: Scalar) -> Array:
    """Returns `x / scalar`, in the dtype of `x`; integers are promoted as usual.

    Args:
      x: an array.
      scalar: a Python number, or a scalar array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import over
      >>> print(over(jnp.array([1.0, 2.0]), 4))
      [0.25 0.5 ]
    """
    return lax.div(x, like(scalar, x)) if _inexact(x) else x / value_of(scalar)


def _inexact(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def abs_sq(x: Array) -> Array:
    """Returns `|x|^2` as a real array, without the square root in `abs`.

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


def ema(x: Array, average: Array, decay: Scalar) -> Array:
    """Updates an exponential moving average: `decay * average + (1 - decay) * x`.

    Args:
      x: the new value.
      average: the average so far, of the shape and dtype of `x`.
      decay: decay rate of the average, in [0, 1]; for a Python number, `1 - decay` is computed in
        double.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import ema
      >>> print(ema(jnp.array([4.0, 8.0]), jnp.zeros(2), 0.75))
      [1. 2.]
    """
    return lax.add(times(decay, average), times(1 - decay, x))


def root(x: Array) -> Array:
    """Returns the square root for use as a denominator: not 0, and with a finite gradient.

    `sqrt(x + 2*tiny)`, where `tiny` is the dtype's smallest normal number. In float32, it does not
    change numbers above 1e-30, and a quotient `0 / 0` becomes 0 with a finite gradient, in which
    the square of the root must not be below `tiny`, whatever its rounding. It costs no more than
    the usual addition of `eps_root`, which it replaces.

    Args:
      x: a real array, not negative.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import root
      >>> print(root(jnp.array([4.0, 9.0])), jnp.isfinite(jax.grad(root)(0.0)))
      [2. 3.] True
    """
    return lax.sqrt(plus(x, 2 * jnp.finfo(x.dtype).tiny))


def is_never_zero(number: Scalar, dtype: DTypeLike) -> bool:
    """Returns whether a hyperparameter is a Python number that is positive in a dtype.

    Args:
      number: a Python number, or an array, for which the result is False.
      dtype: a real dtype.
    """
    return isinstance(number, (int, float)) and bool(number >= jnp.finfo(dtype).tiny)


def ratio(numerator: Array, square: Array, eps: Scalar) -> Array:
    """Returns `numerator / (sqrt(square) + eps)`, and 0 where both are 0.

    Args:
      numerator: a real or complex array.
      square: a real array, not negative, of the same shape.
      eps: a Python number, or a scalar array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import ratio
      >>> print(ratio(jnp.array([3.0, 0.0]), jnp.array([4.0, 0.0]), eps=0.0))
      [1.5 0. ]
    """
    denominator = plus(root(square), eps)
    dtype = jnp.result_type(numerator, denominator)
    return lax.div(
        lax.convert_element_type(numerator, dtype), lax.convert_element_type(denominator, dtype)
    )


def safe_increment(count: Array) -> Array:
    """Returns a counter plus one, or the dtype's largest value instead of an overflow.

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
        raise ValueError(f"safe_increment: count must be integer or floating, got {count.dtype}")
    top = np.asarray(info(count.dtype).max, count.dtype)
    return lax.add(count, lax.convert_element_type(lax.lt(count, top), count.dtype))


safe_int32_increment = safe_increment


def compute_dtype(dtype: DTypeLike) -> np.dtype:
    """Returns the dtype of arithmetic on `dtype`: float32 for narrower ones.

    Args:
      dtype: any dtype.

    Example:
      >>> from gradtx.numerics import compute_dtype
      >>> print(compute_dtype("bfloat16"), compute_dtype("float64"), compute_dtype("int32"))
      float32 float64 int32
    """
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        return jnp.dtype(jnp.float32)
    return jnp.dtype(dtype)


def widen(x: ArrayLike) -> Array:
    """Casts an array to the dtype of arithmetic on it (`compute_dtype`), without a weak type.

    Args:
      x: an array, or a Python number.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.numerics import widen
      >>> widen(jnp.ones(2, jnp.bfloat16))
      Array([1., 1.], dtype=float32)
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return lax.convert_element_type(x, compute_dtype(x.dtype))


def default_float() -> np.dtype:
    """Returns the dtype of a Python float in JAX: float32, or float64 in x64 mode.

    Example:
      >>> import jax
      >>> from gradtx.numerics import default_float
      >>> with jax.enable_x64(True):
      ...     print(default_float())
      float64
    """
    return jnp.result_type(float)
