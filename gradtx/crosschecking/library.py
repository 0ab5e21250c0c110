"""Comparison of the catalog's optimizers with those of the same names in another library."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from gradtx import catalog
from gradtx.crosschecking.comparing import crosscheck
from gradtx.crosschecking.differences import KNOWN, Known, check_known, known_differences
from gradtx.crosschecking.samples import sample_loss, sample_tree
from gradtx.crosschecking.verdicts import ROUNDING, Comparison
from gradtx.engine.base import Scalar, TransformationLike

COUPLED_ROUNDING = (16.0 * 2**16, 16.0)
"""The tolerances where leaves are coupled: float32 leaves then have bfloat16's rounding errors."""

ABSENT = {
    **{"momentum": 0.9, "optimism": 0.03, "beta3": 0.95, "weight_decay": 0.01},
    **{"init_estim_sq_dist": 0.01, "adam_learning_rate": 0.02, "consistent_rms": 0.2},
}
"""The values of hyperparameters whose default is `None`, when they are varied."""


def settings(entry: catalog.Entry) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the probe of an optimizer, and then variants with one hyperparameter changed.

    Booleans are negated, floats are changed by a tenth and integers by one, the learning rate
    becomes a schedule, and the hyperparameters of `ABSENT` get its values. Others are not varied:
    masks, dtypes, strings, line searches.

    Args:
      entry: the optimizer's entry in the catalog.

    Yields:
      A label such as `"b1=0.81"`, empty for the probe, and the keyword arguments.

    Example:
      >>> from gradtx import catalog
      >>> from gradtx.crosschecking import settings
      >>> for label, arguments in settings(catalog.get("signum")):
      ...     print(label or "the probe", arguments)
      the probe {'learning_rate': 0.02}
      learning_rate=schedule {'learning_rate': <function ...>}
      beta=0.81 {'learning_rate': 0.02, 'beta': 0.81}
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


def factory_of(peer: ModuleType, name: str) -> Callable[..., TransformationLike] | None:
    """Returns the factory of a library's optimizer, from its top level or its `contrib`.

    Args:
      peer: a module such as `optax`.
      name: the optimizer's name.

    Returns:
      The factory, or `None` if the library has no such optimizer.

    Example:
      >>> import gradtx
      >>> from gradtx.crosschecking import factory_of
      >>> factory_of(gradtx, "adam") is gradtx.adam, factory_of(gradtx, "nobody")
      (True, None)
    """
    return getattr(peer, name, None) or getattr(getattr(peer, "contrib", None), name, None)


def _rounding(entry: catalog.Entry, known: Known) -> tuple[float, float]:
    single, half = COUPLED_ROUNDING if entry.couples_leaves else ROUNDING
    return known.amplifies * single, known.amplifies * half


def _wave(t: Scalar) -> Scalar:
    return (1 + 0.1 * t) / (1 + 0.01 * t**2)  # rises for ten steps, then falls


def crosscheck_catalog(
    peer: ModuleType,
    names: list[str] | None = None,
    *,
    steps: int = 100,
    every_setting: bool = False,
    progress: Callable[[Comparison], None] = lambda row: None,
) -> list[Comparison]:
    """Compares every optimizer that a peer library has under the same name.

    Args:
      peer: a module with factories of transformations, such as `optax`.
      names: the optimizers to compare. Default: all that both libraries have.
      steps: the number of steps. Default: 100.
      every_setting: whether to vary each hyperparameter in turn as well. Default: no.
      progress: a callback that receives each finished row. Default: none.

    Returns:
      One comparison for each optimizer and setting.

    Raises:
      UnknownOptimizer: a name is not in the catalog.

    Example:
      >>> import gradtx  # in place of another library, so that all agree
      >>> from gradtx.crosschecking import crosscheck_catalog
      >>> [row] = crosscheck_catalog(gradtx, ["sgd"], steps=2)
      >>> row.name, row.verdict
      ('sgd', 'agrees')
    """
    check_known(KNOWN)
    chosen = [catalog.get(n) for n in names] if names is not None else catalog.entries()
    rows = []
    for entry in chosen:
        factory = factory_of(peer, entry.name)
        if factory is None:
            continue
        known = known_differences(entry.name)
        # With random gradients the loss is a constant; only line searches need a function.
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
