"""Importing states of optax."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx._roles import KEPT
from gradtx.engine.base import OptState
from gradtx.state.counts import step_count
from gradtx.state.naming import VERSION, named_leaves
from gradtx.state.saving import StateMismatch, load_matching, state_dict
from gradtx.tree.walking import Part, holds_states, parts


def load_optax(template: OptState, state: OptState, *, count: int | None = None) -> OptState:
    """Returns a state of a gradtx optimizer with the arrays of a state of the optax optimizer.

    The two have the same pieces, whose states have the same names (see `state_dict`). Step counts
    for the schedules of weight decay and learning rate, which optax may not have, are set to the
    count of optax's other pieces. Other optional fields that optax does not have, such as the
    learning rate of the last step, are those of the template. Averages of half-precision parameters
    are widened to the template's float32.

    Args:
      template: a state of the gradtx optimizer, `tx.init(params)`.
      state: the state of the same optimizer in optax.
      count: the number of steps taken, if optax's state does not have it (as for `sgd` at a
        constant learning rate), or has several different ones. Default: the one of optax's state.

    Raises:
      TypeError: `state` is a nesting of dicts and arrays, as flax and orbax return checkpoints that
        are restored without a target; the target is `gradtx.optax_layout(tx).init(params)`.
      ValueError: `count` is needed.
      StateMismatch: a slot is missing or unexpected, or has another shape or a wider dtype than the
        template.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import gradtx
      >>> params = {"w": jnp.ones(2)}
      >>> theirs, ours = optax.adam(0.1), gradtx.adam(0.1)
      >>> _, state = theirs.update(params, theirs.init(params))
      >>> state = gradtx.load_optax(ours.init(params), state)
      >>> print(state[0].mu["w"], gradtx.tree.get(state, "count"))
      [0.1 0.1] 1
    """
    if holds_states(template) and not holds_states(state):
        raise TypeError(
            f"load_optax: state must have the classes of optax's states, got a "
            f"{type(state).__name__} without them; restore checkpoints of flax and orbax into "
            "gradtx.optax_layout(tx).init(params)"
        )
    flat = state_dict(state)
    wanted = dict(named_leaves(template))
    counts = {name: x for name, x in flat.items() if name.endswith("/count")}
    given = None if count is None else step_count(count, "load_optax: count")
    for name in wanted:
        if name not in flat and name.endswith("/count"):
            flat[name] = _count_for(name, counts) if given is None else given
    flat = {n: x for n, x in flat.items() if n in wanted or n not in (*counts, VERSION)}
    result, report = load_matching(template, flat)
    lost = any(jnp.promote_types(a, b) != b for _, a, b in report.recast)
    optional = _optional(template)
    missing = [name for name in report.missing if name not in optional]
    if missing or report.unexpected or report.reshaped or lost:
        raise StateMismatch(report, "load_optax")
    return result


def _optional(state: OptState) -> set[str]:
    """Returns the names of the fields that may be omitted, as optax's states do."""
    found = [part for part in parts(state) for _ in jax.tree.leaves(part.value)]
    names = [name for name, _ in named_leaves(state)]
    return {name for name, part in zip(names, found, strict=True) if _is_optional(part)}


def _is_optional(part: Part) -> bool:
    owner = part.around[-1][1] if part.around else None
    return getattr(owner, "_field_defaults", {}).get(part.field, part) is KEPT


def _count_for(name: str, counts: dict[str, ArrayLike]) -> np.int32:
    """Returns the count of the pieces under the same label, or of all pieces."""
    label = name.split("/")[:-2]
    near = [n for n in counts if n.split("/")[:-2] == label] or counts
    found = {step_count(counts[n], f"load_optax: {n}") for n in near}
    if len(found) != 1:
        told = "no step count" if not found else f"the step counts {sorted(map(int, found))}"
        raise ValueError(f"load_optax: needs count= for {name}, because optax's state has {told}")
    return found.pop()
