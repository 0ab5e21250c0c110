"""Writing a transformation as a rule for one array."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation
from gradtx.engine.pipeline import Pipeline, pipeline_of
from gradtx.engine.rules import COUNT, Counter, Kernel, Rule, Slots, is_constant, mark_constant

P = ParamSpec("P")


def leafwise(
    state: type,
    init: Callable[[Array], Slots] | None,
    update: Callable[[Array, Slots, Any, Any], tuple[Array, Slots]],
    *,
    params: bool = False,
    real_only: bool = False,
    shared: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None,
    per_step: Callable[[Any], Mapping[str, Any]] | None = None,
    key: Any = None,
    counter: Counter = COUNT,
    name: str | None = None,
) -> GradientTransformation:
    """Lifts a rule for one array to a transformation of pytrees.

    The rule sees one leaf at a time: its update `g`, its slots `s`, the step count and its
    parameter `p`. Half-precision leaves reach it as float32, and its answer is stored back in the
    dtypes that the caller's updates and the state have; the state keeps its structure, shapes and
    dtypes from the first step on. Leaves that are `None` (or masked) never reach it.

    Args:
      state: the NamedTuple class of the state. The field `count`, if there is one, holds the
        number of steps taken and is kept by the engine; so is `rng_key`. Fields that `shared`
        computes hold those scalars. Every other field is a slot: a tree like the parameters.
      init: `init(p) -> Slots(...)`, the slots of one array at the start; `None` without slots.
      update: `update(g, s, step, p) -> (g, Slots(...))` for one array. `step` is an int32 scalar,
        0 at the first step, or `None` if the state has no `count`; `p` is `None` unless `params`.
      params: whether the rule needs the parameters. Default: no.
      real_only: whether complex parameters are refused, at `init`. Default: no.
      shared: `shared(step, extra) -> dict` of scalars computed once a step for all leaves, from the
        step count and the keyword arguments of `update`; the rule reads them as `s.name`. Default:
        there are none.
      per_step: `per_step(step) -> dict` of scalars that depend on the step count alone, such as
        bias corrections; computed once a step too, and read in the same way. Default: there are
        none.
      key: a random key from which the engine gives every leaf a new key at every step, read as
        `s.rng_key`; the state needs the field `rng_key`. Default: there are no keys.
      counter: what the state has in place of a `count` of int32; the rule reads it as `step`.
        Default: nothing else.
      name: what errors call the rule. Default: the function in which `update` is defined.

    Complex leaves: the update is taken as the direction of steepest ascent, `conj(jax.grad(f)(z))`
    for a real function `f`, so that `z - learning_rate * g` descends.

    Returns:
      The transformation. Neighbours in a `gradtx.chain` that come from `leafwise` run as one sweep.

    Example:
      >>> from typing import NamedTuple
      >>> import jax.numpy as jnp
      >>> from gradtx import Slots, leafwise
      >>> class HeavyBallState(NamedTuple):
      ...     velocity: jnp.ndarray
      >>> def heavy_ball(decay):
      ...     def init(p):
      ...         return Slots(velocity=jnp.zeros_like(p))
      ...     def update(g, s, step, p):
      ...         v = decay * s.velocity + g
      ...         return v, Slots(velocity=v)
      ...     return leafwise(HeavyBallState, init, update)
      >>> tx = heavy_ball(0.5)
      >>> params = {"w": jnp.zeros(2)}
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update({"w": jnp.ones(2)}, state)
      >>> print(updates["w"])
      [1.5 1.5]
    """
    title = name or getattr(update, "__qualname__", "a rule").split(".")[0].lstrip("_")
    kernel = Kernel(state, init, update, per_step, params, real_only, counter)
    rule = Rule(kernel, shared, key, title)
    return Pipeline((rule,), 0).transformation()


def piece(factory: Callable[P, GradientTransformation]) -> Callable[P, GradientTransformation]:
    """Makes a factory give the same transformation again for the same constant hyperparameters.

    Two optimizers that are built alike then share their compiled code. Arguments that are arrays,
    tracers or functions are never kept.

    Args:
      factory: a function of hyperparameters that returns a transformation.
    """

    @functools.lru_cache(maxsize=512, typed=True)
    def remembered(*args: Any, **kwargs: Any) -> GradientTransformation:
        tx = factory(*args, **kwargs)
        mark_constant([link for link in pipeline_of(tx).links if isinstance(link, Rule)])
        return tx

    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def call(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()  # one form for all ways to say the same
        if all(map(is_constant, (*given.args, *given.kwargs.values()))):
            return remembered(*given.args, **given.kwargs)
        return factory(*args, **kwargs)

    return call


def store_as(tx: GradientTransformation, **dtypes: Any) -> GradientTransformation:
    """Stores slots of a leafwise transformation in dtypes of the user's choice.

    Arithmetic stays in float32 or wider; the slot is rounded when it is stored.

    Args:
      tx: a transformation made by `leafwise`, or a chain of such.
      **dtypes: from a slot's name to its dtype; `None` leaves the slot as it is.

    Raises:
      TypeError: a part of `tx` was not made by `leafwise`.
      ValueError: no part has a slot of that name.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.store_as(gradtx.scale_by_adam(), mu=jnp.bfloat16)
      >>> state = tx.init(jnp.zeros(2))
      >>> print(state.mu.dtype, state.nu.dtype)
      bfloat16 float32
    """
    wanted = {name: jnp.dtype(dtype) for name, dtype in dtypes.items() if dtype is not None}
    if not wanted:
        return tx
    pipeline = pipeline_of(tx)
    rules = [link for link in pipeline.links if isinstance(link, Rule)]
    if len(rules) < len(pipeline.links):
        raise TypeError("store_as: every part of the transformation must come from leafwise")
    known = {field for rule in rules for field in rule.kernel.state._fields}  # type: ignore
    if missing := sorted(set(wanted) - known):
        raise ValueError(f"store_as: no slot is named {missing}; there are {sorted(known)}")

    def recast(init: Callable[[Array], Slots]) -> Callable[[Array], Slots]:
        def recast_init(p: Array) -> Slots:
            slots = vars(init(p))
            return Slots(**{n: _cast(x, wanted[n]) if n in wanted else x for n, x in slots.items()})

        return recast_init

    def rule_with_recast(rule: Rule) -> Rule:
        if rule.kernel.init is None:
            return rule
        return rule._replace(kernel=rule.kernel._replace(init=recast(rule.kernel.init)))

    links = tuple(map(rule_with_recast, rules))
    return dataclasses.replace(pipeline, links=links).transformation()


def _cast(x: Array, dtype: Any) -> Array:
    # A complex slot stored as a real one is refused at the first update, where it would lose.
    return jnp.asarray(x if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.real(x), dtype)
