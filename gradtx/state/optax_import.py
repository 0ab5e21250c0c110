"""Going on in gradtx from a state that optax made."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import OptState
from gradtx.state.belonging import roles
from gradtx.state.naming import VERSION, named_leaves
from gradtx.state.saving import StateMismatch, load_matching, state_dict


def load_optax(template: OptState, state: OptState, *, count: int | None = None) -> OptState:
    """Gives a state of a gradtx optimizer with the arrays of a state of the optax optimizer.

    The two have the same pieces, whose states have the same names (see `state_dict`). What gradtx
    counts and optax does not, the steps of weight decay and learning rate by which schedules go,
    is filled in with the count that optax's other pieces agree on. The learning rate of the last
    step, which optax does not tell, stays the template's; the next step writes it. Averages of
    half-precision parameters are widened to the template's float32.

    Args:
      template: a state of the optimizer that goes on, `tx.init(params)`.
      state: the state of the same optimizer in optax.
      count: the number of steps taken, where optax's state does not tell (as with `sgd` at a
        constant rate), or tells several. Default: what it tells.

    Raises:
      ValueError: `count` is needed.
      StateMismatch: a slot is missing or left over, or has another shape or a narrower dtype.

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
    # optax calls a state by another name where a flag makes it count.
    flat = {name.replace("_with_count/", "/"): x for name, x in state_dict(state).items()}
    wanted = dict(named_leaves(template))
    counts = {name: int(x) for name, x in flat.items() if name.endswith("/count")}
    for name in wanted.keys() - flat.keys():
        if name.endswith("/count"):
            flat[name] = np.int32(_count_for(name, counts) if count is None else count)
    flat = {n: x for n, x in flat.items() if n in wanted or n not in (*counts, VERSION)}
    result, report = load_matching(template, flat)
    lost = any(jnp.promote_types(a, b) != b for _, a, b in report.recast)
    rates = {role.name for role in jax.tree.leaves(roles(template)) if role.kind == "rate"}
    missing = [name for name in report.missing if name not in rates]
    if missing or report.unexpected or report.reshaped or lost:
        raise StateMismatch(report, "load_optax")
    return result


def _count_for(name: str, counts: dict[str, int]) -> int:
    """Gives the steps that pieces under the same label have counted, or all pieces."""
    label = name.split("/")[:-2]
    near = {n for name, n in counts.items() if name.split("/")[:-2] == label}
    found = near or set(counts.values())
    if len(found) != 1:
        told = "does not tell" if not found else f"tells {sorted(found)}"
        raise ValueError(
            f"load_optax: {name} is the number of steps taken, which optax's state {told}; "
            f"give count="
        )
    return found.pop()
