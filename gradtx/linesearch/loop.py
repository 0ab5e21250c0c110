"""A loop for searches: in Python on concrete arrays, compiled and differentiable under tracing."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from gradtx.engine.base import Array, PyTree, Scalar

S = TypeVar("S")


def loop_until_done(body: Callable[[S], S], state: S, most: Scalar) -> S:
    """Repeats `state = body(state)` until `state.done`.

    With concrete arrays this is a Python loop that calls the loss function directly: a function
    that is redefined at every step is not recompiled, and a function that reads a variable reads
    its current value. Under tracing it is `lax.while_loop`. Where that is differentiated, it is a
    `lax.scan` that skips the steps after the end: unlike `lax.while_loop`, it has a derivative in
    reverse mode.

    Args:
      body: returns the next state, of the same structure and shapes; it counts its calls itself,
        and sets `done` after `most` of them.
      state: the first state, with the boolean scalar `done`.
      most: the largest number of calls. For reverse-mode differentiation it must be a Python
        number.

    Returns:
      The first state that is done.
    """
    # What the loss function closes over may be traced though nothing in the first state is.
    while not any(isinstance(x, Tracer) for x in jax.tree.leaves(state)):
        if state.done:  # type: ignore[attr-defined]
            return state
        state = _of_the_same_dtypes(body(state), state)
    # With a custom derivative, what the body closes over must be an argument of the loop.
    closed, hidden = jax.closure_convert(lambda s: _of_the_same_dtypes(body(s), s), state)

    @jax.custom_jvp
    def loop(state: S, hidden: list[Array]) -> S:
        return lax.while_loop(_goes_on, lambda s: closed(s, *hidden), state)

    @loop.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        def unrolled(state: S, hidden: list[Array]) -> S:
            def step(s: Any, _: None) -> tuple[Any, None]:
                return lax.cond(s.done, lambda s: s, lambda s: closed(s, *hidden), s), None

            return lax.scan(step, state, length=int(most))[0]

        return jax.jvp(unrolled, primals, tangents)

    return loop(state, hidden)


def _goes_on(state: Any) -> Any:
    return ~state.done


def _of_the_same_dtypes(new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda x, o: jnp.asarray(x, o.dtype), new, old)
