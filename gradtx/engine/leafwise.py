"""Writing a transformation as a rule for one array."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from gradtx._arguments import Range, Requirements, checked
from gradtx.engine.base import Array, GradientTransformation, Scalar, ScalarOrSchedule
from gradtx.engine.links import Link, Origin, Rule
from gradtx.engine.made import call_of
from gradtx.engine.pipeline import Pipeline, pipeline_of, with_links
from gradtx.engine.rules import COUNT, Counter, Kernel, Slots

P = ParamSpec("P")


@checked
def leafwise(
    state: type,
    init: Callable[..., Slots] | None,
    update: Callable[..., tuple[Array, Slots]],
    *,
    params: bool = False,
    real_only: bool = False,
    rate: ScalarOrSchedule | None = None,
    scalars: Mapping[str, ScalarOrSchedule] | None = None,
    shared: Callable[..., Mapping[str, Scalar]] | None = None,
    per_step: Callable[[Array], Mapping[str, Scalar]] | None = None,
    key: Array | None = None,
    counter: Counter = COUNT,
    integers: bool = False,
    traits: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> GradientTransformation:
    """Lifts a rule for one array to a transformation of pytrees.

    The rule is a function of one leaf: its update `g`, its slots `s`, the step count and its
    parameter `p`. Half-precision leaves are passed as float32, and the results are stored in the
    dtypes of the caller's updates and of the state; the state keeps its structure, shapes and
    dtypes from the first step on. The rule is not called for leaves that are `None` or masked.

    Args:
      state: the NamedTuple class of the state. The field `count`, if there is one, has the number
        of steps taken and is updated by the engine; so are `rng_key` and `learning_rate`, the
        learning rate of the last step. A field with the name of another scalar has its value at the
        last step. Every other field is a slot: a pytree like the parameters.
      init: `init(p) -> Slots(...)`, the first slots of one array; `None` for a rule without slots.
        With `key` it is `init(p, key)`, with a random key for each leaf.
      update: `update(g, s, step, p) -> (g, Slots(...))` for one array. `step` is an int32 scalar,
        0 at the first step, or `None` if the state has no `count`; `p` is `None` unless `params`.
      params: whether the rule needs the parameters. Default: False.
      real_only: whether complex parameters and updates are an error. Default: False.
      rate: the learning rate: a number, a scalar array or a schedule; the rule reads it as
        `s.learning_rate`, and `update(..., learning_rate=x)` overrides it for one call. Default:
        there is none.
      scalars: further numbers and schedules that all leaves share, read as `s.name`. Default: there
        are none.
      shared: `shared(step, extra)`, a function that returns a dict of scalars, called once per step
        for all leaves with the step count and the dict of extra arguments of `update`. Without
        `jit`, it is called outside compiled code, so that it may be any Python function. The rule
        reads the scalars as `s.name`. Default: there are none.
      per_step: `per_step(step)`, a function that returns a dict of scalars that depend only on the
        step count, such as bias corrections. It is called once per step, inside compiled code; the
        rule reads the scalars as `s.name`. Default: there are none.
      key: a random key from which the engine derives a new key for every leaf: for `init`, and, if
        the state has the field `rng_key`, for each step, read as `s.rng_key`. Default: there are no
        keys.
      counter: the step counter of the state if it is not an int32 `count`; the rule reads it as
        `step`. Default: the `count`.
      integers: whether an integer update stays an integer, if the scalars are integers too.
        Default: False, and integer parameters are an error.
      traits: further properties of the rule: `{"frozen": True}` if it sets updates to zero, for
        `gradtx.summary`. Default: none.
      name: the name of the rule in error messages. Default: the function in which `update` is
        defined.

    Complex leaves: the update must be the direction of steepest ascent, `conj(jax.grad(f)(z))` for
    a real function `f`, so that `z - learning_rate * g` descends.

    Returns:
      The transformation. Neighbours in a `gradtx.chain` that `leafwise` made run in one pass over
      the leaves.

    Raises:
      TypeError: an argument is of a wrong kind.

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
        kernel=Kernel(
            state, init, update, per_step, counter, integers, real_only, keyed=key is not None
        ),
        scalars={**(scalars or {}), **({} if rate is None else {"learning_rate": rate})},
        shared=shared,
        key=key,
    )
    return Pipeline((rule,), 0).transformation()


def piece(
    factory: Callable[P, GradientTransformation],
    *,
    constants: Sequence[str] = (),
    ranges: Mapping[str, Range | None] | None = None,
) -> Callable[P, GradientTransformation]:
    """Decorates a factory of transformations so that they share their compiled code.

    Outside `jit`, compiled code is cached by the factory and its arguments, without the numbers
    among them. The factory is called again when the code is traced, with runtime values in place of
    numbers; in operators and in the functions of `gradtx.numerics` these behave like numbers. If a
    factory needs a number's value (in an `if`, or in a function of JAX), the number becomes a
    constant, and other values are compiled separately. Masks, and schedules that gradtx did not
    make, are called before the compiled code. If the code itself needs a function that was an
    argument, and is not a schedule of gradtx, nothing is shared.

    The arguments of each call are checked against the factory's annotations: a number, a boolean, a
    schedule, a transformation; and numbers with a usual name, such as `b1`, `eps` or
    `learning_rate`, against its usual range. Traced values and arguments without an annotation may
    be anything.

    Args:
      factory: a pure function of hyperparameters that returns a transformation.
      constants: the names of hyperparameters whose numbers are always constants, because the
        results depend on their last digits. Default: none.
      ranges: a mapping from hyperparameters whose names do not mean what they usually do to their
        ranges; with `None`, the hyperparameter is not checked. Default: none.

    Raises:
      TypeError: by the decorated factory: an argument is of a wrong kind.
      ValueError: by the decorated factory: a number is out of its range.

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
    requirements = Requirements(factory, factory.__name__.lstrip("_"), ranges or {})

    @functools.wraps(factory)
    def of_links(*args: Any, **kwargs: Any) -> GradientTransformation:
        return pipeline_of(factory(*args, **kwargs)).transformation()

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        requirements.check(args, kwargs)
        tx = factory(*args, **kwargs)
        made = call_of(requirements.signature, of_links, args, kwargs, constants)
        numbers = itertools.count()

        def known(link: Link) -> Link:
            origin = Origin(made, next(numbers), len(link.masks))
            return dataclasses.replace(link, origin=origin)

        return with_links(tx, known)

    vars(make)["requirements"] = requirements
    return make
