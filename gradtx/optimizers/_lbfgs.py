"""The limited-memory quasi-Newton method L-BFGS."""

from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, reshard
from jax.typing import ArrayLike, DTypeLike

from gradtx._devices import axes_of, explicit_mesh, partition_spec
from gradtx._roles import Count, Shared, Slot, Statistic, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    Params,
    PyTree,
    ScalarOrSchedule,
    TransformationLike,
    Updates,
)
from gradtx.engine.concrete import compiled_when_concrete
from gradtx.engine.coupled import coupled
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import abs_sq, widen
from gradtx.engine.scalars import finished, total
from gradtx.linesearch import scale_by_zoom_linesearch
from gradtx.transforms.combining import chain, identity
from gradtx.transforms.scaling import scale, scale_by_learning_rate
from gradtx.transforms.slots import zero_slots
from gradtx.tree.moments import next_count
from gradtx.tree.norms import safe_sqrt
from gradtx.tree.present import common_dtype, present, replaced


@declared
class ScaleByLBFGSState(NamedTuple):
    """The state of `scale_by_lbfgs`.

    Step `k` stores the changes since step `k - 1` at index `(k - 1) % memory_size`.

    Attributes:
      count: the number of steps taken.
      params: the parameters at the last step.
      updates: the gradients at the last step.
      diff_params_memory: changes `s` of the parameters, `[memory_size, ...]` for each leaf.
      diff_updates_memory: changes `y` of the gradients.
      weights_memory: `1 / <s, y>`, `[memory_size]`; 0 where there is no pair, or no positive
        curvature along it.
    """

    count: Count
    params: Slot
    updates: Slot
    diff_params_memory: Statistic
    diff_updates_memory: Statistic
    weights_memory: Shared


@piece
def scale_by_lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True
) -> GradientTransformation:
    """Multiplies gradients by L-BFGS's approximation of the inverse Hessian.

    From the last pairs `s = p - p_before`, `y = g - g_before` with weights `w = 1 / <s, y>`, oldest
    first, the matrix is `H = gamma * I` and then for each pair

        H = (I - w * s @ y.T) @ H @ (I - w * y @ s.T) + w * s @ s.T

    It is never formed: `H g` takes two loops over the pairs. `gamma = <s, y> / <y, y>` of the
    latest pair, and `min(1, 1 / norm(g))` before there is one. A pair with `<s, y> <= 0` would make
    `H` indefinite, so that `-H g` might lead uphill; its weight is 0, which leaves it out.

    Args:
      memory_size: the number of pairs that are stored. Default: 10.
      scale_init_precond: whether `gamma` is as above; otherwise it is 1. Default: True.

    Raises:
      TypeError: `memory_size` is not of an integer type.
      ValueError: `memory_size` is less than 1, or `update` was called without params.

    Source: Nocedal, "Updating Quasi-Newton Matrices with Limited Storage" (1980); Liu and Nocedal,
    "On the limited memory BFGS method for large scale optimization" (1989).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> curvature = jnp.array([1.0, 10.0])
      >>> tx, p = gradtx.scale_by_lbfgs(), jnp.ones(2)
      >>> state = tx.init(p)
      >>> for _ in range(9):
      ...     direction, state = tx.update(curvature * p, state, p)
      ...     p = p - direction
      >>> bool(jnp.all(jnp.abs(p) < 1e-4))
      True
    """
    if not isinstance(memory_size, Integral):
        raise TypeError(f"scale_by_lbfgs: memory_size must be an integer, got {memory_size!r}")

    def init(params: Params) -> ScaleByLBFGSState:
        zeros = zero_slots(params)

        def memory() -> PyTree:
            shape = jnp.shape
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (memory_size, *shape(x))), zeros)

        return ScaleByLBFGSState(
            count=jnp.zeros((), jnp.int32),
            params=zeros,
            updates=zero_slots(params),
            diff_params_memory=memory(),
            diff_updates_memory=memory(),
            weights_memory=jnp.zeros(memory_size, common_dtype(params)),
        )

    @compiled_when_concrete
    def step(
        updates: Updates, state: ScaleByLBFGSState, params: Params
    ) -> tuple[Updates, ScaleByLBFGSState]:
        last = {f"state.{name}": tree for name, tree in state._asdict().items() if name in _TREES}
        g, p, old_p, old_g, all_s, all_y = present(
            updates, **{"updates": updates, "params": params}, **last
        )
        p = [_stored(x, o) for x, o in zip(p, old_p, strict=True)]
        g_wide = [_stored(x, o) for x, o in zip(g, old_g, strict=True)]
        dtype = state.weights_memory.dtype
        weights = state.weights_memory

        s, y = _minus(p, old_p), _minus(g_wide, old_g)
        product = _inner(s, y, dtype)
        # Below this, rounding decides the product's sign.
        curved = product > jnp.finfo(dtype).eps * _norm(s, dtype) * _norm(y, dtype)
        curved &= (state.count > 0) & jnp.isfinite(product)
        here = (state.count - 1) % memory_size
        weights = weights.at[here].set(jnp.where(curved, 1 / jnp.where(curved, product, 1), 0))
        all_s, all_y = (
            [
                lax.dynamic_update_index_in_dim(
                    _beside(memory, x), jnp.where(curved, x, 0), here, 0
                )
                for memory, x in zip(column, new, strict=True)
            ]
            for column, new in ((all_s, s), (all_y, y))
        )
        newest_first = (here - jnp.arange(memory_size)) % memory_size
        pairs = (newest_first, weights[newest_first])
        gamma = jnp.ones((), dtype)
        if scale_init_precond:
            gamma = finished(_first_scale(g_wide, all_y, *pairs))
        direction = _two_loops(g_wide, gamma, all_s, all_y, pairs)
        direction = [x.astype(jnp.result_type(u)) for x, u in zip(direction, g, strict=True)]
        return replaced(updates, updates, direction), ScaleByLBFGSState(
            next_count(state.count, memory_size),
            replaced(state.params, updates, p),
            replaced(state.updates, updates, g_wide),
            replaced(state.diff_params_memory, updates, all_s),
            replaced(state.diff_updates_memory, updates, all_y),
            weights,
        )

    def update(
        updates: Updates, state: ScaleByLBFGSState, params: Params, **extra: Any
    ) -> tuple[Updates, ScaleByLBFGSState]:
        del extra
        return step(updates, state, params)

    return coupled(ScaleByLBFGSState, init, update, name="scale_by_lbfgs", params=True)


_TREES = ("params", "updates", "diff_params_memory", "diff_updates_memory")


def _two_loops(
    g: list[Array], gamma: Array, all_s: list[Array], all_y: list[Array], pairs: tuple[Array, Array]
) -> list[Array]:
    """Returns `H g`: from the newest pair to the oldest, and back."""
    dtype = gamma.dtype

    def back(q: list[Array], pair: tuple[Array, Array]) -> tuple[list[Array], Array]:
        i, weight = pair
        alpha = finished(weight * _inner(_at(all_s, i), q, dtype))
        return _plus(q, -alpha, _at(all_y, i)), alpha

    def forth(r: list[Array], pair: tuple[tuple[Array, Array], Array]) -> tuple[list[Array], None]:
        (i, weight), alpha = pair
        beta = weight * _inner(_at(all_y, i), r, dtype)
        return _plus(r, finished(alpha - beta), _at(all_s, i)), None

    q, alphas = lax.scan(back, g, pairs)
    r = [(gamma * x).astype(x.dtype) for x in q]
    return lax.scan(forth, r, (pairs, alphas), reverse=True)[0]


def _first_scale(g: list[Array], all_y: list[Array], places: Array, weights: Array) -> Array:
    """Returns `gamma`, from the latest pair that has a weight."""
    latest = jnp.argmax(weights > 0)
    weight, y = weights[latest], _at(all_y, places[latest])
    there = weight > 0
    denominator = weight * _inner(y, y, weights.dtype)
    scale = 1 / jnp.where(there & (denominator > 0), denominator, 1)
    return jnp.where(there, scale, 1 / jnp.maximum(_norm(g, weights.dtype), 1))


def _inner(a: list[Array], b: list[Array], dtype: DTypeLike) -> Array:
    """Returns the inner product of two lists of arrays, complex numbers as pairs of real ones."""
    # Not `vdot`: on accelerators a matrix unit would round its factors.
    found = [jnp.sum(jnp.real(jnp.conj(x) * y)) for x, y in zip(a, b, strict=True)]
    return jnp.asarray(total(found), dtype)


def _norm(a: list[Array], dtype: DTypeLike) -> Array:
    return safe_sqrt(jnp.asarray(total([jnp.sum(abs_sq(x)) for x in a]), dtype))


def _at(memory: list[Array], i: Array) -> list[Array]:
    """Returns the entries of a step."""
    return [lax.dynamic_index_in_dim(x, i, keepdims=False) for x in memory]


def _plus(a: list[Array], factor: Array, b: list[Array]) -> list[Array]:
    return [x + (factor * y).astype(x.dtype) for x, y in zip(a, b, strict=True)]


def _minus(a: list[Array], b: list[Array]) -> list[Array]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _beside(memory: Array, x: Array) -> Array:
    """Returns a memory that is sharded like its entries; one from a file may be whole."""
    mesh = explicit_mesh([x])
    if mesh is None:
        return memory
    return reshard(memory, NamedSharding(mesh, partition_spec([(), *axes_of(x)])))


def _stored(x: ArrayLike, like: Array) -> Array:
    return jnp.asarray(widen(x), like.dtype)


@optimizer(
    "Liu and Nocedal, 'On the limited memory BFGS method for large scale optimization' (1989)",
    family="curvature",
    acts_on="tree",
    probe={"learning_rate": 1.0, "memory_size": 5},
)
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: TransformationLike | None = scale_by_zoom_linesearch(  # noqa: B008
        20, initial_guess_strategy="one"
    ),
) -> GradientTransformation:
    """L-BFGS: quasi-Newton steps from the last gradients, with a line search.

    `p - rate * learning_rate * H @ g`, with `H` as in `scale_by_lbfgs` and the `rate` from the line
    search. L-BFGS is for losses without noise, where it needs far fewer evaluations than gradient
    descent. `update` needs the arguments of the line search: `value=`, `grad=` and `value_fn=`. If
    the loss is the same function at every step, `value_and_grad_from_state` saves an evaluation.

    Args:
      learning_rate: a factor of the direction that is searched; a number, a scalar array, or a
        schedule. Default: `None`, a factor of 1.
      memory_size: the number of steps from which `H` is computed. Default: 10.
      scale_init_precond: whether `H` starts from a scaled identity. Default: True.
      linesearch: the line search, or `None` for none. Default: `scale_by_zoom_linesearch`, with at
        most 20 evaluations a step, of which the first is at rate 1.

    Raises:
      TypeError: `memory_size` is not of an integer type, or `update` was called without an argument
        that the line search needs.
      ValueError: `memory_size` is less than 1, or `update` was called without params.

    Source: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization"
    (1989).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def rosenbrock(p):
      ...     return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
      >>> tx, p = gradtx.lbfgs(), jnp.array([-1.2, 1.0])
      >>> @jax.jit
      ... def step(p, state):
      ...     value, grad = jax.value_and_grad(rosenbrock)(p)
      ...     updates, state = tx.update(
      ...         grad, state, p, value=value, grad=grad, value_fn=rosenbrock
      ...     )
      ...     return gradtx.apply_updates(p, updates), state
      >>> state = tx.init(p)
      >>> for _ in range(40):
      ...     p, state = step(p, state)
      >>> print(jnp.round(p, 3))
      [1. 1.]
    """
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
