"""Reading hyperparameters and measurements from any state.

The fields of states declare which they are, and under which names they are reported: see
`gradtx._roles`.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._roles import declaration_of
from gradtx.engine.base import Array, OptState
from gradtx.tree.walking import Names, Part, parts, path_name


def hyperparams(state: OptState) -> dict[str, Array]:
    """Returns the hyperparameters of a state: the last learning rate, the step count, others.

    No wrapper is needed, and `hyperparams` works inside `jit`. The names are

    - `learning_rate` and `count` (before any step, the learning rate of the first step, and 0);
    - in a partition or a `named_chain`, the same with the label or name before it: `slow/count`;
    - if a chain has several, the same with a number after it: `learning_rate#2`;
    - for an additional learning rate, such as that of a line search, the same with the piece before
      it: `scale_by_zoom_linesearch/learning_rate`;
    - the names of the hyperparameters of `inject_hyperparams`. Their values are those of the next
      step, also after you have changed them;
    - estimates of methods: `estim_lr` of Prodigy and D-Adaptation, `max_distance` of DoG,
      `mechanic_scales`, `plateau_scale`, `lower_bound` of MoMo, and `max_learning_rate` of
      schedule-free methods.

    The count is that of the optimizer's own steps; for `MultiSteps`, that of windows. States of
    optax have counts and injected hyperparameters only.

    Args:
      state: the state of an optimizer, or any pytree that contains one.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> schedule = gradtx.linear_schedule(1.0, 0.0, 10)
      >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(schedule))
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(2), state)
      >>> for name, value in gradtx.hyperparams(state).items():
      ...     print(name, value)
      count 2
      learning_rate 0.9
    """
    found = [
        reading
        for part in parts(state)
        if _is_hyperparameter(part) and not _is_injected(part)
        for reading in _of_part(part)
    ]
    first = {(r.scope, r.name) for r in found if r.first}
    told: list[tuple[str, Array]] = []
    for r in found:
        if not r.first and (r.scope, r.name) in first:
            if r.name == "count":  # it repeats the one that is reported already
                continue
            told.append(("/".join((*r.scope, r.piece, r.name)), r.value))
            continue
        first.add((r.scope, r.name))
        told.append(("/".join((*r.scope, r.name)), r.value))
    return _numbered(told)


def metrics(state: OptState) -> dict[str, Array]:
    """Returns the measurements of monitors, guards, line searches and accumulation, by name.

    Among them are the measurements of `monitor` and `snapshot` under their given names, the norms
    of `watch`, the counts of `counted`, `skipped` of `skip_outliers` in place of that of `watch`,
    `notfinite_count` and others of `apply_if_finite`, and `mini_step` of `MultiSteps`. Labels,
    names and numbers are added to them as in `hyperparams`.

    Args:
      state: the state of an optimizer, or any pytree that contains one.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.watch(gradtx.apply_if_finite(gradtx.sgd(0.1), 5))
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (3.0, float("nan")):
      ...     updates, state = tx.update(jnp.array([g]), state)
      >>> for name, value in gradtx.metrics(state).items():
      ...     print(name, value)
      gradient_norm nan
      update_norm 0.0
      update_ratio 0.0
      skipped 1
      notfinite_count 1
      last_finite False
      total_notfinite 1
    """
    metrics = [part for part in parts(state) if _is_metric(part)]
    found = [
        reading
        for part in metrics
        if not (part.role.repeats and any(_is_inside(other, part) for other in metrics))
        for reading in _of_part(part)
    ]
    return _numbered([("/".join((*r.scope, r.name)), r.value) for r in found])


class _Reading(NamedTuple):
    scope: Names
    piece: str
    name: str
    value: Array
    first: bool


def _is_hyperparameter(part: Part) -> bool:
    """Returns whether a part is a hyperparameter, a learning rate or a count of the parameters."""
    if part.slots == "unknown":  # it may belong to a schedule or to a measure
        return False
    counts = part.role.kind == "count" and part.field == "count"
    return counts or part.role.kind in ("rate", "hyperparameter")


def _is_metric(part: Part) -> bool:
    return part.role.told is not None and part.role.kind != "hyperparameter"


def _is_inside(part: Part, outer: Part) -> bool:
    """Returns whether a part is in a state inside of that of another with the same name."""
    around = part.around[:-1]
    same = part.scope == outer.scope and part.field == outer.field
    return same and any(state is outer.around[-1][1] for _, state in around)


def _is_injected(part: Part) -> bool:
    """Returns whether an injected hyperparameter overrides a part."""
    for scope, state in part.around[:-1]:
        declared = declaration_of(state)
        for field, role in declared.roles.items() if declared is not None else ():
            injects = role.kind == "hyperparameter" and role.told == "*"
            if injects and scope == part.scope and part.field in getattr(state, field):
                return True
    return False


def _of_part(part: Part) -> Iterator[_Reading]:
    told = part.role.told or part.field
    if told in ("learning_rate", "count"):  # one number each, whatever contains it
        # The state with the learning rate also has the count of the steps that used one.
        first = part.owner is not None and "rate" in (r.kind for r in part.owner.roles.values())
        yield _Reading(part.scope, part.piece, told, part.value, first)
        return
    if part.role.summed:
        counts = [jnp.sum(x) for x in jax.tree.leaves(part.value)]
        yield _Reading(part.scope, part.piece, told, jnp.asarray(sum(counts)), True)
        return
    for path, leaf in jax.tree.leaves_with_path(part.value):
        below = path_name(path)
        name = below if told == "*" else "/".join(filter(None, (told, below)))
        yield _Reading(part.scope, part.piece, name, leaf, True)


def _numbered(told: list[tuple[str, Array]]) -> dict[str, Array]:
    taken: Counter[str] = Counter()
    found = {}
    for name, value in told:
        taken[name] += 1
        found[name if taken[name] == 1 else f"{name}#{taken[name]}"] = value
    return found
