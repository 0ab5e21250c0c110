"""Writing a state as a flat mapping of names to arrays, and reading it back, all of it or a part.

Any store of named arrays will do: `np.savez`, orbax, safetensors. What is read back goes into a
template, the state of an optimizer that was just made, so the class of every part comes from the
program and not from the file. With NumPy that is

    np.savez("state.npz", **gradtx.state_dict(state))
    state = gradtx.load_state_dict(tx.init(params), np.load("state.npz"))

and with orbax's `StandardCheckpointer`, which wants to know the names and shapes beforehand,

    checkpointer.save(path, gradtx.state_dict(state))
    flat = checkpointer.restore(path, gradtx.state_dict(template := tx.init(params)))
    state = gradtx.load_state_dict(template, flat)
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import OptState
from gradtx.state.naming import VERSION, named_leaves

Flat = Mapping[str, Any]
Migrations = Mapping[int, Callable[[dict[str, Any]], Flat]]


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of the names in a template and in a flat mapping.

    Attributes:
      loaded: names that were read.
      recast: names that were read into another dtype, with the saved and the wanted one.
      missing: names that only the template has; they kept its values.
      unexpected: names that only the mapping has; they were left.
      reshaped: names whose shapes differ, or whose dtypes cannot stand for each other (complex for
        real), with the saved and the wanted one; they kept the template's values.
    """

    loaded: tuple[str, ...] = ()
    recast: tuple[tuple[str, str, str], ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything was read as it was saved, and nothing was left."""
        return not (self.recast or self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} read"]
        lines += [f"missing: {name}" for name in self.missing]
        lines += [f"unexpected: {name}" for name in self.unexpected]
        lines += [f"reshaped: {name}: saved {a}, wanted {b}" for name, a, b in self.reshaped]
        lines += [f"recast: {name}: saved {a}, wanted {b}" for name, a, b in self.recast]
        return "\n".join(lines)


class StateMismatch(ValueError):
    """What was saved does not fit the template.

    Attributes:
      report: a `LoadReport` that says where.
    """

    def __init__(self, report: LoadReport, function: str = "load_state_dict"):
        super().__init__(
            f"{function}: what was saved does not fit the template; load_matching takes what does\n"
            f"{report}"
        )
        self.report = report


def state_dict(state: OptState, *, version: int = 0) -> dict[str, Any]:
    """Gives the arrays of a state by names that stay when the optimizer around them changes.

    The names are made of the piece, the field and the parameter's path, `scale_by_adam/mu/w`; see
    `gradtx.state.naming`. The arrays are those of the state, not copies, where they are and as they
    are sharded: write them, or copy them, before a step that donates the state. Random keys become
    their data.

    Args:
      state: the state of an optimizer, or any pytree that holds one, as flax's `TrainState`;
        optax's states as well.
      version: a number that tells your program how to read what it wrote; see `load_state_dict`.
        Default: 0.

    Raises:
      TypeError: a leaf is no array.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> state = gradtx.sgd(0.1, momentum=0.9).init({"w": jnp.zeros(2)})
      >>> for name, array in gradtx.state_dict(state).items():
      ...     print(name, array)
      version 0
      trace/trace/w [0. 0.]
      scale_by_learning_rate/count 0
      scale_by_learning_rate/learning_rate 0.1
    """
    flat: dict[str, Any] = {VERSION: np.asarray(version, np.int32)}
    for name, leaf in named_leaves(state):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise TypeError(f"state_dict: {name} is {type(leaf).__name__}, not an array")
        flat[name] = _data(leaf)
    return flat


def load_state_dict(
    template: OptState, flat: Flat, *, version: int = 0, migrate: Migrations | None = None
) -> OptState:
    """Gives a state with the arrays that were saved, exactly.

    Args:
      template: a state of the optimizer, `tx.init(params)`, whose values do not matter; or its
        shapes only, `jax.eval_shape(tx.init, params)`. An array comes back with the sharding that
        stands there.
      flat: what `state_dict` gave: a mapping from names to arrays, of NumPy or JAX.
      version: the version that this program writes. Default: 0.
      migrate: from older versions to functions that bring a mapping one version further:
        `migrate[0]` makes version 1 of version 0. Default: there are none.

    Raises:
      StateMismatch: a name is missing or not expected, a shape or dtype is another; its report
        tells all of them.
      ValueError: `flat` is of a version that `migrate` does not know how to bring to `version`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.zeros(2)}
      >>> tx = gradtx.adam(0.1)
      >>> _, state = tx.update({"w": jnp.ones(2)}, tx.init(params))
      >>> saved = gradtx.state_dict(state)
      >>> print(gradtx.load_state_dict(tx.init(params), saved)[0].mu["w"])
      [0.1 0.1]
    """
    state, report = _load(template, _migrated(flat, version, migrate or {}))
    if not report.complete:
        raise StateMismatch(report)
    return state


def load_matching(
    template: OptState, flat: Flat, *, version: int = 0, migrate: Migrations | None = None
) -> tuple[OptState, LoadReport]:
    """Gives a state with those of the saved arrays that fit, and says what became of all others.

    For an optimizer that has changed since: a clip, a guard, a schedule, a mask, a group more.

    Args:
      template: as for `load_state_dict`; what is missing or has another shape keeps its values.
      flat: as for `load_state_dict`.
      version: as for `load_state_dict`.
      migrate: as for `load_state_dict`.

    Returns:
      The state, and a `LoadReport`. Arrays of another dtype are cast, and reported.

    Raises:
      ValueError: the template has a shape only where a value is needed; or as `load_state_dict`.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.zeros(2)}
      >>> saved = gradtx.state_dict(gradtx.adam(0.1).init(params))
      >>> momentum = gradtx.adam(0.1), gradtx.trace(0.9)
      >>> _, report = gradtx.load_matching(gradtx.chain(*momentum).init(params), saved)
      >>> print(report)
      5 read
      missing: trace/trace/w
    """
    state, report = _load(template, _migrated(flat, version, migrate or {}))
    wanted = dict(named_leaves(template))
    for name in (*report.missing, *(name for name, _, _ in report.reshaped)):
        if isinstance(wanted[name], jax.ShapeDtypeStruct):
            raise ValueError(
                f"load_matching: {name} was not saved as the template has it, and the template "
                f"tells its shape only; give tx.init(params)\n{report}"
            )
    return state, report


def _migrated(flat: Flat, version: int, migrate: Migrations) -> dict[str, Any]:
    saved = int(flat[VERSION]) if VERSION in flat else 0
    if saved > version:
        raise ValueError(f"load: this was saved as version {saved}, and the program is {version}")
    arrays = {name: flat[name] for name in flat if name != VERSION}
    for step in range(saved, version):
        if step not in migrate:
            raise ValueError(
                f"load: this was saved as version {saved}, the program is {version}, and migrate "
                f"does not say how to go from {step} to {step + 1}"
            )
        arrays = dict(migrate[step](arrays))
    return arrays


def _load(template: OptState, flat: Flat) -> tuple[OptState, LoadReport]:
    wanted = named_leaves(template)
    found: dict[str, list[Any]] = {f.name: [] for f in dataclasses.fields(LoadReport)}
    leaves = []
    for name, old in wanted:
        if name not in flat:
            found["missing"].append(name)
            leaves.append(old)
            continue
        new = _readable(flat[name], old)
        shape, dtype = _data_type(old)
        if new.shape != shape or not _castable(new.dtype, dtype):
            found["reshaped"].append((name, _told(new), f"{dtype}{list(shape)}"))
            leaves.append(old)
            continue
        found["loaded"].append(name)
        if new.dtype != dtype:
            found["recast"].append((name, str(new.dtype), str(dtype)))
        leaves.append(_placed(new, old, dtype))
    known = {name for name, _ in wanted}
    found["unexpected"] = [name for name in flat if name not in known]
    report = LoadReport(**{k: tuple(v) for k, v in found.items()})
    return jax.tree.unflatten(jax.tree.structure(template), leaves), report


def _data(leaf: Any) -> Any:
    if isinstance(leaf, (int, float, complex)):
        return np.asarray(leaf, jnp.result_type(leaf))
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data_type(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """The shape and dtype that a leaf of the template has when it is saved."""
    data = jax.eval_shape(_data, leaf) if _is_key(leaf) else _data(leaf)
    return data.shape, np.dtype(data.dtype)


def _readable(saved: Any, old: Any) -> Any:
    """Makes an array of what was saved; NumPy's files know bfloat16 as two bytes of anything."""
    array = _data(saved) if isinstance(saved, jax.Array) else np.asarray(saved)
    dtype = _data_type(old)[1]
    of_jax = dtype.kind == "V" and dtype.itemsize == array.dtype.itemsize
    return array.view(dtype) if array.dtype.type is np.void and of_jax else array


def _castable(saved: Any, wanted: Any) -> bool:
    """Says whether arrays of one dtype can be had as another, if need be with a rounding."""
    if saved.type is np.void:
        return False
    to_complex = jnp.issubdtype(wanted, jnp.complexfloating)
    return to_complex or not jnp.issubdtype(saved, jnp.complexfloating)


def _placed(new: Any, old: Any, dtype: Any) -> Any:
    """Gives an array the dtype, the kind and the sharding of what stood in its place."""
    if isinstance(old, np.ndarray):
        return np.array(new, dtype)
    if not isinstance(old, (jax.Array, jax.ShapeDtypeStruct)):
        return type(old)(new)
    sharding = old.sharding if getattr(old, "committed", True) else None
    # What no one has placed stays so: a jitted step would compile again for a placed one.
    if sharding is None and getattr(new, "committed", False):
        new = np.asarray(new)
    new = new.astype(dtype)
    if _is_key(old):
        new = jax.random.wrap_key_data(jnp.asarray(new), impl=_impl(old))
    elif getattr(old, "weak_type", False) and not old.shape:
        new = jnp.asarray(new.item())  # a Python number makes a weakly typed array
    # A copy, for what was saved has to outlive a step that donates the state.
    return jnp.array(new) if sharding is None else jax.device_put(new, sharding, may_alias=False)


def _impl(key: Any) -> Any:
    """Gives the implementation of a random key, of which there may be the dtype only."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]


def _told(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"
