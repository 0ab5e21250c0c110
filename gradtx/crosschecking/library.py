"""The catalog's optimizers against those of the same names in another library."""

from collections.abc import Callable, Iterator
from typing import Any

from gradtx import catalog
from gradtx.crosschecking.comparing import crosscheck
from gradtx.crosschecking.differences import KNOWN, Known, check_known, known_differences
from gradtx.crosschecking.samples import sample_loss, sample_tree
from gradtx.crosschecking.verdicts import ROUNDING, Comparison

COUPLED_ROUNDING = (16.0 * 2**16, 16.0)
"""`ROUNDING` where leaves act on each other: float32 ones then carry the rounding of bfloat16."""

ABSENT = {
    **{"momentum": 0.9, "optimism": 0.03, "beta3": 0.95, "weight_decay": 0.01},
    **{"init_estim_sq_dist": 0.01, "adam_learning_rate": 0.02, "consistent_rms": 0.2},
}
"""What stands in the settings for hyperparameters that are `None` otherwise."""


def settings(entry: catalog.Entry) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives an optimizer's probe, and then variants of it with one hyperparameter moved.

    Flags are turned, numbers are changed by a tenth (whole ones by one), the learning rate becomes
    a schedule, and a momentum that was absent becomes 0.9. What is of another kind stays: masks,
    dtypes, words, line searches.

    Args:
      entry: the optimizer's entry in the catalog.
    """
    base, known = dict(entry.probe), entry.hyperparameters
    yield "", base
    for name, default in known.items():
        value = base.get(name, default)
        if name == entry.rate and not entry.fixed_rate:
            rate = 1.0 if value is None else value
            yield f"{name}=schedule", {**base, name: lambda t, rate=rate: rate * _wave(t)}
        elif isinstance(value, bool):
            needed = {"momentum": 0.9} if name == "nesterov" and "momentum" in known else {}
            yield f"{name}={not value}", {**needed, **base, name: not value}
        elif isinstance(value, int):
            yield f"{name}={value + 1}", {**base, name: value + 1}
        elif isinstance(value, float):
            moved = 0.9 * value if value else 0.01
            yield f"{name}={moved:.3g}", {**base, name: moved}
        elif name in ABSENT and value is None:
            yield f"{name}={ABSENT[name]}", {**base, name: ABSENT[name]}


def factory_of(peer: Any, name: str) -> Callable[..., Any] | None:
    """Finds a library's optimizer, at its top level or in its `contrib`.

    Args:
      peer: a module such as `optax`.
      name: the optimizer's name.
    """
    return getattr(peer, name, None) or getattr(getattr(peer, "contrib", None), name, None)


def _rounding(entry: catalog.Entry, known: Known) -> tuple[float, float]:
    single, half = COUPLED_ROUNDING if entry.couples_leaves else ROUNDING
    return known.amplifies * single, known.amplifies * half


def _wave(t: Any) -> Any:
    return (1 + 0.1 * t) / (1 + 0.01 * t**2)  # up for ten steps, and down


def crosscheck_catalog(
    peer: Any,
    names: list[str] | None = None,
    *,
    steps: int = 100,
    every_setting: bool = False,
    progress: Callable[[Comparison], None] = lambda row: None,
) -> list[Comparison]:
    """Compares every optimizer that a peer library has under the same name.

    Args:
      peer: a module with factories of transformations, such as `optax`.
      names: which optimizers. Default: all that both have.
      steps: how many steps. Default: 100.
      every_setting: whether to move each hyperparameter in turn as well. Default: no.
      progress: called with each finished row.

    Raises:
      UnknownOptimizer: a name is not in the catalog.
    """
    check_known(KNOWN)
    chosen = [catalog.get(n) for n in names] if names is not None else catalog.entries()
    rows = []
    for entry in chosen:
        factory = factory_of(peer, entry.name)
        if factory is None:
            continue
        known = known_differences(entry.name)
        # Random gradients have a constant for their loss; only a search asks for a function.
        value: dict[str, Any] = {"value": 10.0} if entry.needs == ("value",) else {}
        if "obj_fn" in entry.needs:
            value["obj_fn"] = sample_loss
        tree = {name: x for name, x in sample_tree().items() if name not in known.refuses}
        for label, setting in settings(entry) if every_setting else [("", dict(entry.probe))]:
            if label.split("=")[0] in known.refuses:
                continue
            row = crosscheck(
                entry.factory(**setting),
                factory(**setting),
                tree,
                steps=steps,
                name=f"{entry.name} {label}".strip(),
                note=known.when.get(label.split("=")[0], known.always),
                rounding=_rounding(entry, known),
                loss=sample_loss if {"value_fn", "obj_fn"} & {*entry.needs} else None,
                **value,
            )
            rows.append(row)
            progress(row)
    return rows
