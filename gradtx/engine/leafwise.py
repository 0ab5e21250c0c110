"""Writing a transformation as a rule for one array."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import jax.numpy as jnp

from gradtx.engine.base import Array, GradientTransformation, ScalarOrSchedule
from gradtx.engine.links import Link, Origin, Rule
from gradtx.engine.made import call_of
from gradtx.engine.pipeline import Pipeline, pipeline_of, with_links
from gradtx.engine.rules import COUNT, Counter, Kernel, Slots

P = ParamSpec("P")


def leafwise(
    state: type,
    init: Callable[[Array], Slots] | None,
    update: Callable[[Array, Slots, Any, Any], tuple[Array, Slots]],
    *,
    params: bool = False,
    real_only: bool = False,
    rate: ScalarOrSchedule | None = None,
    scalars: Mapping[str, ScalarOrSchedule] | None = None,
    shared: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None,
    per_step: Callable[[Any], Mapping[str, Any]] | None = None,
    key: Any = None,
    counter: Counter = COUNT,
    integers: bool = False,
    traits: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> GradientTransformation:
    """Lifts a rule for one array to a transformation of pytrees.

    The rule sees one leaf at a time: its update `g`, its slots `s`, the step count and its
    parameter `p`. Half-precision leaves reach it as float32, and its answer is stored back in the
    dtypes that the caller's updates and the state have; the state keeps its structure, shapes and
    dtypes from the first step on. Leaves that are `None` (or masked) never reach it.

    Args:
      state: the NamedTuple class of the state. The field `count`, if there is one, holds the
        number of steps taken and is kept by the engine; so are `rng_key` and `learning_rate`, the
        rate that the last step used. Fields named like other scalars hold these. Every other field
        is a slot: a tree like the parameters.
      init: `init(p) -> Slots(...)`, the slots of one array at the start; `None` without slots.
      update: `update(g, s, step, p) -> (g, Slots(...))` for one array. `step` is an int32 scalar,
        0 at the first step, or `None` if the state has no `count`; `p` is `None` unless `params`.
      params: whether the rule needs the parameters. Default: no.
      real_only: whether complex parameters are refused, at `init`. Default: no.
      rate: the learning rate: a number, a scalar array or a schedule; the rule reads it as
        `s.learning_rate`, and `update(..., learning_rate=x)` takes its place for one call. Default:
        there is none.
      scalars: further numbers and schedules that all leaves share, read as `s.name`. Default: there
        are none.
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
      integers: whether an integer update stays an integer, if the scalars are integers too.
        Default: no, and integer parameters are refused.
      traits: what is known of the rule beside, see `gradtx.engine.links.Link`. Default: nothing.
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
    rule = Rule(
        name=title,
        state=state,
        needs_params=params,
        real_only=real_only,
        traits=traits or {},
        kernel=Kernel(state, init, update, per_step, counter, integers),
        scalars={**(scalars or {}), **({} if rate is None else {"learning_rate": rate})},
        shared=shared,
        key=key,
    )
    return Pipeline((rule,), 0).transformation()


def piece(
    factory: Callable[P, GradientTransformation], *, constants: Sequence[str] = ()
) -> Callable[P, GradientTransformation]:
    """Makes transformations that are made alike share their compiled code.

    What a factory of hyperparameters returns then knows how it was made, and outside of `jit` its
    code is kept by that: the factory and its arguments, without the numbers among them. The factory
    is called again when the code is traced, with runtime values in the place of numbers, which
    stand in operators and in the functions of `gradtx.numerics` like the numbers themselves. A
    factory that needs a number's value (in an `if`, or in a function of JAX) gets it, and is
    compiled again for another one. Functions among the arguments, other than schedules of gradtx,
    are known by what holds them alone: nothing is shared then.

    Args:
      factory: a function of hyperparameters that returns a transformation, and does nothing else.
      constants: the names of those whose numbers shall be constants, because so much depends on
        their last digits. Default: none.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> @gradtx.piece
      ... def scale_by_power(exponent):
      ...     def update(g, s, step, p):
      ...         return jnp.sign(g) * abs(g) ** exponent, gradtx.Slots()
      ...     return gradtx.leafwise(gradtx.EmptyState, None, update)
      >>> tx = scale_by_power(0.5)
      >>> print(tx.update(jnp.array([-4.0]), tx.init(jnp.zeros(1)))[0])
      [-2.]
    """
    signature = inspect.signature(factory)

    def of_links(*args: Any, **kwargs: Any) -> GradientTransformation:
        return pipeline_of(factory(*args, **kwargs)).transformation()

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        tx = factory(*args, **kwargs)
        made, numbers = call_of(signature, of_links, args, kwargs, constants), itertools.count()

        def known(link: Link) -> Link:
            origin = Origin(made, next(numbers), len(link.masks))
            return dataclasses.replace(link, origin=origin)

        return with_links(tx, known)

    return make


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
    links = pipeline_of(tx).links
    if not all(link.sweeps for link in links):
        raise TypeError("store_as: every part of the transformation must come from leafwise")
    known = {field for link in links for field in link.state._fields}
    if missing := sorted(set(wanted) - known):
        raise ValueError(f"store_as: no slot is named {missing}; there are {sorted(known)}")
    return with_links(tx, lambda link: pipeline_of(_stored(link, wanted)).links[0])


@piece
def _stored(link: Any, wanted: Mapping[str, Any]) -> GradientTransformation:
    mine = {n: d for n, d in wanted.items() if n in link.state._fields}
    kernel = link.kernel._replace(stored=tuple({**dict(link.kernel.stored), **mine}.items()))
    return Pipeline((dataclasses.replace(link, kernel=kernel),), 0).transformation()
