"""Importing states of PyTorch."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gradtx._arguments import counted
from gradtx.engine.base import OptState
from gradtx.state.counts import step_count
from gradtx.state.naming import named_leaves
from gradtx.state.saving import load_matching
from gradtx.state.selecting import Rules, by_path

SLOTS = {
    "scale_by_adam": {"mu": "exp_avg", "nu": "exp_avg_sq"},
    "scale_by_amsgrad": {"mu": "exp_avg", "nu": "exp_avg_sq", "nu_max": "max_exp_avg_sq"},
    "scale_by_rms": {"nu": "square_avg"},
    "scale_by_rstd_dev": {"mu": "grad_avg", "nu": "square_avg"},
    "scale_by_rss": {"sum_of_squares": "sum"},
    "trace": {"trace": "momentum_buffer"},
}
"""The names in PyTorch of the slots of gradtx's pieces."""

SCALARS = {
    "add_decayed_weights": ("count",),
    "scale_by_schedule": ("count",),
    "scale_by_learning_rate": ("count", "learning_rate"),
}
"""The fields of further pieces that hold the number of steps or the learning rate."""

NEEDED = {
    "amsgrad": "max_exp_avg_sq",
    "centered": "grad_avg",
    "momentum": "momentum_buffer",
}
"""Settings of PyTorch, and the slots that they need."""

COMPUTED = {"mu_product"}
"""What PyTorch saves, and gradtx computes from the step count: of NAdam."""

TorchNames = Sequence[str | None] | Mapping[int | str, str | None]

REFUSED = {
    "maximize": "gradtx descends, and its averages have the opposite sign",
    "dampening": "gradtx.trace adds gradients to the velocity without a factor",
}
"""Settings of PyTorch that are not supported, and why: they change the meaning of slots."""


def load_torch(
    template: OptState,
    saved: Mapping[str, Any],
    names: TorchNames,
    *,
    axes: Rules | None = None,
    count: int | None = None,
) -> OptState:
    """Returns a gradtx optimizer's state with the arrays of a PyTorch optimizer's `state_dict()`.

    It loads averages, velocities, step counts and the learning rate of the last step; the
    hyperparameters are those of the gradtx optimizer. These optimizers correspond to PyTorch's:

    - SGD: `sgd(lr, momentum, nesterov)`;
    - Adam: `adam(lr, b1, b2, eps)`; AdamW: `adamw(..., weight_decay=...)`;
    - Adam with `amsgrad=True`: `amsgrad(lr, b1, b2, eps, raw_maximum=True)`;
    - NAdam: `nadam(lr, b1, b2, eps, momentum_decay=...)`;
    - RMSprop: `rmsprop(lr, alpha, eps, eps_in_sqrt=False, centered=..., momentum=...)`, whose
      velocity includes the learning rate. PyTorch's does not, which matters under a schedule:
      `chain(scale_by_rms(alpha, eps, eps_in_sqrt=False), trace(momentum),
      scale_by_learning_rate(lr))`;
    - Adagrad: `adagrad(lr, eps=1e-10, eps_in_sqrt=False)`; `lr_decay` is the schedule
      `lr / (1 + t * lr_decay)`;
    - `weight_decay`, except in AdamW: `chain(add_decayed_weights(weight_decay), ...)`.

    `docs/recipes.md` has a table of all optimizers of PyTorch.

    A velocity after the learning rate in the chain, as in `rmsprop` and `momentum`, is `-lr` times
    PyTorch's. The states of guards, clips and so on are those of the template.

    Args:
      template: a state of the gradtx optimizer, `tx.init(params)`. Arrays get its dtypes.
      saved: the result of `state_dict()` of the PyTorch optimizer.
      names: the paths of the parameters in gradtx, such as `layer/kernel`, in the order of
        PyTorch's optimizer; or a mapping to them from the numbers of the parameters, or from
        PyTorch's names if the optimizer was made from `model.named_parameters()`. `None` omits a
        parameter.
      axes: rules from paths to permutations of PyTorch's axes, as for `by_path`:
        `{"kernel": (1, 0)}` for linear layers, `(2, 3, 1, 0)` for convolutions in two dimensions.
        For square matrices, a missing permutation is not detected. Default: `None`, no
        permutations.
      count: the number of steps taken, which PyTorch's SGD does not save. Default: the saved one.

    Raises:
      ValueError: PyTorch's state has arrays without a place in the template, or lacks some; shapes
        or step counts differ; `saved` is not a `state_dict()` of a PyTorch optimizer; or gradtx
        does not support PyTorch's settings.

    Example:
      >>> import numpy as np
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> velocity = {0: {"momentum_buffer": np.ones((2, 3))}}  # of a torch.nn.Linear(3, 2)
      >>> saved = {"state": velocity, "param_groups": [{"lr": 0.1, "params": [0]}]}
      >>> tx = gradtx.sgd(0.1, momentum=0.9)
      >>> template = tx.init({"kernel": jnp.zeros((3, 2))})
      >>> state = gradtx.load_torch(template, saved, ["kernel"], axes={"kernel": (1, 0)}, count=10)
      >>> print(state[0].trace["kernel"].shape, gradtx.tree.get(state, "count"))
      (3, 2) 10
    """
    theirs = _read(saved, names, axes)
    count = count if count is None else int(step_count(count, "load_torch: count"))
    leaves = [_leaf(name, theirs.rates) for name, _ in named_leaves(template)]
    flat: dict[str, Any] = {}
    taken: dict[tuple[str, str], str] = {}
    for leaf in leaves:
        if leaf.field == "count":
            flat[leaf.name] = np.int32(_count(leaf, leaves, theirs, count))
        elif leaf.field == "learning_rate":
            flat[leaf.name] = np.float32(theirs.rates[_params(leaf, leaves, theirs)[0]])
        elif leaf.key:
            place = leaf.path, leaf.key
            if place in taken:
                raise _error(
                    f"{taken[place]} and {leaf.name} both correspond to {leaf.key} of {leaf.path!r}"
                )
            taken[place] = leaf.name
            if place in theirs.slots:
                flat[leaf.name] = theirs.slots[place] * _unit(leaf, leaves, theirs)
            elif leaf.path not in theirs.rates:
                raise _error(f"names must have the parameter of {leaf.name}")
            elif leaf.path in theirs.moved and leaf.key != "momentum_buffer":
                raise _error(f"{leaf.name} needs {leaf.key}, which is missing in PyTorch's state")
    if left := [f"{key} of {path!r}" for path, key in theirs.slots if (path, key) not in taken]:
        raise _error(f"the template has no place for {', '.join(left)}")
    for (path, key), setting in theirs.needed.items():
        if (path, key) not in taken:
            raise _error(
                f"the template has no place for {key} of {path!r}, which PyTorch's {setting} needs"
            )
    state, report = load_matching(template, flat)
    if report.reshaped:
        raise _error(f"PyTorch's arrays must have the template's shapes, see axes\n{report}")
    return state


class _Saved(NamedTuple):
    """The saved state of PyTorch, by the paths of the parameters in gradtx.

    Attributes:
      slots: arrays, by path and PyTorch's key.
      steps: a dict from paths to step counts; empty if PyTorch did not save them.
      rates: a dict from all paths to learning rates.
      moved: the paths of parameters that have a state.
      needed: a dict from the slots that PyTorch's settings need to these settings.
    """

    slots: dict[tuple[str, str], np.ndarray]
    steps: dict[str, int]
    rates: dict[str, float]
    moved: set[str]
    needed: dict[tuple[str, str], str]


class _Leaf(NamedTuple):
    """A leaf of the template: its name, the parts of the name, and PyTorch's key of the slot."""

    name: str
    label: str = ""
    piece: str = ""
    field: str = ""
    path: str = ""
    key: str = ""


def _read(saved: Mapping[str, Any], names: TorchNames, axes: Rules | None) -> _Saved:
    found = f"keys {[*saved]}" if isinstance(saved, Mapping) else type(saved).__name__
    if not (isinstance(saved, Mapping) and {"state", "param_groups"} <= saved.keys()):
        raise _error(f"saved must be the state_dict() of a PyTorch optimizer, got {found}")
    groups = _groups(saved["param_groups"])
    for name, why in REFUSED.items():
        if any(group.get(name) for group in groups):
            raise _error(f"PyTorch's {name} is not supported: {why}")
    numbers = [number for group in groups for number in group["params"]]
    paths = _paths(groups, numbers, names)
    order = by_path(axes, (), unused=True)(dict.fromkeys(paths.values(), 0)) if axes else {}
    state = _checked(saved["state"], Mapping, "saved['state']", "a mapping")
    if unknown := [number for number in state if number not in numbers]:
        raise _error(f"saved['state'] must have parameters of a group, got {unknown}")
    slots, steps, moved = {}, {}, set()
    for number, entry in state.items():
        _checked(entry, Mapping, f"saved['state'][{number!r}]", "a mapping")
        if (path := paths.get(number)) is None:
            continue
        moved.add(path)
        for key, value in entry.items():
            what = f"{key} of {path!r}"
            if key == "step":
                steps[path] = int(step_count(_numbers(value, what), f"load_torch: {what}"))
            elif value is not None and key not in COMPUTED:
                slots[path, key] = _array(value, order.get(path, ()), what)
    used = [(paths[n], group) for group in groups for n in group["params"] if n in paths]
    rates = {path: _rate(group) for path, group in used}
    needed = {(p, NEEDED[s]): s for p, group in used for s in NEEDED if group.get(s)}
    # If some parameters have step counts, those without a state have taken no step.
    counts = {p: steps.get(p, 0) for p in rates} if steps else {}
    return _Saved(slots, counts, rates, moved, needed)


def _groups(groups: Any) -> Sequence[Mapping[str, Any]]:
    for i, group in enumerate(_checked(groups, (list, tuple), "saved['param_groups']", "a list")):
        what = f"saved['param_groups'][{i}]"
        _checked(group, Mapping, what, "a mapping")
        for number in _checked(group.get("params"), (list, tuple), f"{what}['params']", "a list"):
            _checked(number, (int, str), f"a parameter in {what}", "an integer or a name")
    return groups


def _checked(value: Any, kinds: type | tuple[type, ...], what: str, needed: str) -> Any:
    if not isinstance(value, kinds):
        raise _error(f"{what} must be {needed}, got {type(value).__name__}")
    return value


def _rate(group: Mapping[str, Any]) -> float:
    rate = _numbers(group.get("lr"), "lr")
    if rate.size != 1 or not np.isfinite(rate).all():
        raise _error(f"lr must be a finite number, got {group['lr']}")
    return float(rate.item())


def _paths(
    groups: Sequence[Mapping[str, Any]], numbers: Sequence[int | str], names: TorchNames
) -> dict[int | str, str]:
    """Returns the paths of PyTorch's parameters by number, except for those that are omitted."""
    if isinstance(names, str) or not isinstance(names, (Sequence, Mapping)):
        raise _error(f"names must be a list or a mapping, got {type(names).__name__}")
    if not isinstance(names, Mapping):
        if len(names) != len(numbers):
            raise _error(
                f"needs {counted(len(numbers), 'name')} for PyTorch's parameters, got {len(names)}"
            )
        names = dict(zip(numbers, names, strict=True))
    called = {n: k for g in groups for n, k in zip(g["params"], g.get("param_names", ()))}  # noqa: B905
    keys = {n: n if n in names else called.get(n, n) for n in numbers}
    if lost := [called.get(n, n) for n in numbers if keys[n] not in names]:
        raise _error(f"names must have PyTorch's parameters {lost}; None omits one")
    if unknown := [key for key in names if key not in keys.values()]:
        raise _error(
            f"names must be among PyTorch's parameters {list(keys.values())}, got {unknown}"
        )
    paths = {n: path for n, key in keys.items() if (path := names[key]) is not None}
    if twice := [path for path, n in Counter(paths.values()).items() if n > 1]:
        raise _error(f"names must be unique, got {twice} more than once")
    return paths


def _array(tensor: Any, axes: Sequence[int], what: str) -> np.ndarray:
    array = _numbers(tensor, what)
    if axes and sorted(axes) != list(range(array.ndim)):
        raise _error(f"axes must permute the shape {array.shape} of {what} in PyTorch, got {axes}")
    return array.transpose(axes) if axes else array


def _numbers(tensor: Any, what: str) -> np.ndarray:
    """Returns a tensor of PyTorch, an array or a number as an array of NumPy."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        # PyTorch cannot convert bfloat16 to NumPy.
        tensor = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    try:
        array = np.asarray(tensor)
    except ValueError as error:
        raise _error(f"{what} must be numeric: {error}") from None
    if array.dtype.kind not in "iufc":
        found = array.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
        raise _error(f"{what} must be numeric, got {found}")
    return array


def _leaf(name: str, paths: Container[str]) -> _Leaf:
    """Splits a name into parts; names without a counterpart in PyTorch have none."""
    parts = name.split("/")
    found = []
    for i, (numbered, field) in enumerate(pairwise(parts)):
        piece = numbered.split("#")[0]
        leaf = _Leaf(name, "/".join(parts[:i]), numbered, field, "/".join(parts[i + 2 :]))
        if field in SLOTS.get(piece, ()):
            found.append(leaf._replace(key=SLOTS[piece][field]))
        elif not leaf.path and field in SCALARS.get(piece, ("count",) if piece in SLOTS else ()):
            found.append(leaf)
    # A label or a key may have the name of a piece; the correct split has a known path.
    known = [leaf for leaf in found if not leaf.key or leaf.path in paths]
    return (known or found or [_Leaf(name)])[0]


def _params(leaf: _Leaf, leaves: Sequence[_Leaf], theirs: _Saved) -> list[str]:
    """Returns the parameters of a piece: those of its slots, or of its label, or all."""
    slots = [x for x in leaves if x.key and x.label == leaf.label and x.path in theirs.rates]
    own = [x for x in slots if x.piece == leaf.piece] or slots
    return [x.path for x in own] or list(theirs.rates)


def _count(leaf: _Leaf, leaves: Sequence[_Leaf], theirs: _Saved, count: int | None) -> int:
    found = {theirs.steps[path] for path in _params(leaf, leaves, theirs) if theirs.steps}
    if len(found) > 1:
        raise _error(
            f"{leaf.name} needs one step count for all its parameters, got {sorted(found)} from "
            "PyTorch; a partition has one for each label"
        )
    if found and count not in (None, *found):
        raise _error(f"count must be PyTorch's {min(found)} for {leaf.name}, got {count}")
    if not found and count is None:
        raise _error(f"needs count= for {leaf.name}, PyTorch's state has no step count")
    return count if count is not None else min(found)


def _unit(leaf: _Leaf, leaves: Sequence[_Leaf], theirs: _Saved) -> float:
    """Returns the factor of a slot: a velocity may include the learning rate."""
    rates = [x for x in leaves if x.field == "learning_rate"]
    if leaf.key != "momentum_buffer" or not rates:
        return 1.0
    near = [x for x in rates if x.label == leaf.label]
    if not near:
        raise _error(
            f"cannot determine whether {leaf.name} includes the learning rate, because "
            f"{rates[0].name} is under another label"
        )
    included = leaves.index(near[0]) < leaves.index(leaf)
    return -theirs.rates[leaf.path] if included else 1.0


def _error(message: str) -> ValueError:
    return ValueError(f"load_torch: {message}")
