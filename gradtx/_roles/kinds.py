"""The roles of a state's fields, declared in their types.

    @declared
    class ScaleByAdamState(NamedTuple):
        count: Count
        mu: Slot
        nu: Slot

Everything that reads states uses these declarations: names in files, hyperparameters and metrics,
the memory of each parameter, `gradtx.tree.get` and `map_params`, storage and sharding.

The roles are:

- `Slot`: a pytree like the parameters, with arrays of the shapes of the parameters: moments,
  copies, accumulated gradients. The dtypes may differ.
- `Statistic`: a pytree like the parameters with arrays of other shapes, one or several for each
  parameter: numbers, rows and columns, projections, histories with a leading axis.
- `UnsignedSlot` and `UnsignedStatistic`: the same, with numbers that are never negative, such as
  second moments; `gradtx.store` has codes for them that keep positive numbers positive.
- `Tally`: a statistic with counts for each matrix, reported as their sum over all parameters.
- `Shared`: an array that belongs to no parameter and has no role below.
- `Count`: a number of steps. `Clock`: a count that repeats that of other parts of the state.
- `Rate`: the learning rate of the last step, for reading only; the next step overwrites it.
- `Hyperparameter`: a number used by the method, given to it or estimated by it.
- `RandomKey`: a random key, or its data.
- `Reading`: a measurement that does not affect the updates.
- `Inner`: the state of a wrapped transformation, or a dict or tuple of such states. `Projected`:
  the state of a transformation that sees the parameters in other shapes, so that its slots are
  statistics. `Aside`: states of transformations of something other than the parameters.

`Annotated[Hyperparameter, Told("lower_bound")]` sets the name under which `gradtx.hyperparams` and
`gradtx.metrics` report a field. They report each `Hyperparameter` and `Reading`, and other fields
if they are `Told`. With `Told("*")` the contents of the field are reported under their own names.
If an `Inner` field is `Told()`, its name is part of the names of its contents.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from gradtx.engine.base import Array, OptState, Params

Kind = Literal[
    "slot",
    "statistic",
    "shared",
    "count",
    "rate",
    "hyperparameter",
    "key",
    "reading",
    "inner",
    "unknown",
]


@dataclasses.dataclass(frozen=True)
class Role:
    """The role of a field of a state, declared by the field's type, such as `gradtx.state.Slot`.

    Attributes:
      kind: the kind of its arrays, see `gradtx.state.LeafRole`; `"inner"` for the state of a
        wrapped transformation; `"unknown"` if nothing is declared.
      told: the name under which the field is reported, `""` for its own name, `"*"` for the names
        of its contents; `None` if it is not reported.
      repeats: whether it repeats the value of other parts of the state.
      summed: whether the sum of all its arrays is reported.
      slots: for an inner state, the kind of its slots; `"unknown"` if it may be the state of
        something other than the parameters.
      of: for an inner state, the part of the parameters to which it belongs; empty for all.
      signed: whether its numbers may be negative.
    """

    kind: Kind
    told: str | None = None
    repeats: bool = False
    summed: bool = False
    slots: Kind = "slot"
    of: str = ""
    signed: bool = True


@dataclasses.dataclass(frozen=True)
class Told:
    """The name under which a field is reported.

    Attributes:
      name: the name; `"*"` for the names of the field's contents. Default: the field's own name.
    """

    name: str = ""


Slot = Annotated[Params, Role("slot")]
Statistic = Annotated[Params, Role("statistic")]
UnsignedSlot = Annotated[Params, Role("slot", signed=False)]
UnsignedStatistic = Annotated[Params, Role("statistic", signed=False)]
Tally = Annotated[Params, Role("statistic", told="", summed=True)]
Shared = Annotated[Array, Role("shared")]
Count = Annotated[Array, Role("count")]
Clock = Annotated[Array, Role("count", repeats=True)]
Rate = Annotated[Array, Role("rate")]
Hyperparameter = Annotated[Array, Role("hyperparameter", told="")]
RandomKey = Annotated[Array, Role("key")]
Reading = Annotated[Array, Role("reading", told="")]
Inner = Annotated[OptState, Role("inner")]
Projected = Annotated[OptState, Role("inner", slots="statistic")]
Aside = Annotated[OptState, Role("inner", told="", slots="unknown")]

UNKNOWN = Role("unknown")

KEPT: Any = None
"""The default of a field that the engine sets."""

USUAL: Mapping[str, Role] = {
    "count": Role("count"),
    "rng_key": Role("key"),
    "learning_rate": Role("hyperparameter", told=""),
    **dict.fromkeys(
        ("inner_state", "inner_states", "inner_opt_state", "base_optimizer_state", "opt_state"),
        Role("inner"),
    ),
}
"""The roles of fields with these names if nothing is declared."""
