"""Saving a state as a flat mapping from names to arrays, and loading all or parts of it.

Any store of named arrays can be used: `np.savez`, orbax, safetensors. Arrays are loaded into a
template, a new state of the optimizer, so that the classes of all parts come from the program and
not from the file. With NumPy:

    np.savez("state.npz", **gradtx.state_dict(state))
    state = gradtx.load_state_dict(tx.init(params), np.load("state.npz"))

With orbax's `StandardCheckpointer`, which needs the names and shapes for reading:

    checkpointer.save(path, gradtx.state_dict(state))
    flat = checkpointer.restore(path, gradtx.state_dict(template := tx.init(params)))
    state = gradtx.load_state_dict(template, flat)

Arrays that `gradtx.store` keeps as codes are saved as codes. They are loaded as the template has
them: as codes of the same or another codec, or decoded.

In several processes all of them call these functions. The arrays stay divided over the devices as
they are, and nothing is sent to a process that does not need it: orbax writes and reads them so.
NumPy arrays, which every process has whole, are divided as those of the template are.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.engine.base import Array, OptState
from gradtx.state.counts import check_counts, is_at_hand
from gradtx.state.naming import VERSION, named_leaves
from gradtx.state.recoding import recoded, viewed

Flat = Mapping[str, ArrayLike]
SAVED = (jax.Array, jax.ShapeDtypeStruct, np.ndarray, np.generic, int, float, complex)
Migrations = Mapping[int, Callable[[dict[str, ArrayLike]], Flat]]


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """A report on the names of a template and of a flat mapping.

    Attributes:
      loaded: names that were loaded.
      recast: names that were cast to another dtype, with the saved dtype and that of the template.
      missing: names that only the template has; they kept its values.
      unexpected: names that only the mapping has; they were ignored.
      reshaped: names with different shapes, with a complex dtype for a real one, or with numbers
        that the template's integers cannot hold, with the saved shape and dtype and those of the
        template; they kept the template's values.
    """

    loaded: tuple[str, ...] = ()
    recast: tuple[tuple[str, str, str], ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """True if everything was loaded without change, and nothing was ignored."""
        return not (self.recast or self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} read"]
        lines += [f"missing: {name}" for name in self.missing]
        lines += [f"unexpected: {name}" for name in self.unexpected]
        lines += [f"reshaped: {name}: saved {a}, needs {b}" for name, a, b in self.reshaped]
        lines += [f"recast: {name}: saved {a}, needs {b}" for name, a, b in self.recast]
        return "\n".join(lines)


class StateMismatch(ValueError):
    """Raised if the saved arrays do not match the template.

    Attributes:
      report: a `LoadReport` of the differences.
    """

    def __init__(self, report: LoadReport, function: str = "load_state_dict"):
        super().__init__(
            f"{function}: the saved arrays do not match the template; load_matching loads those "
            f"that do\n{report}"
        )
        self.report = report


def state_dict(state: OptState, *, version: int = 0) -> dict[str, Any]:
    """Returns the arrays of a state by names that don't depend on the optimizer around them.

    The names consist of the piece, the field and the parameter's path, `scale_by_adam/mu/w`; see
    `gradtx.state.naming`. The arrays are those of the state, with their shardings, and not copies:
    write or copy them before a step that donates the state. Random keys are replaced by their data.
    NumPy's functions cannot save arrays that are divided over the devices of several processes.
    orbax can; `jax.experimental.multihost_utils.process_allgather(array, tiled=True)` returns a
    whole one to every process.

    Args:
      state: the state of an optimizer of gradtx or optax, or any pytree that contains one, such as
        flax's `TrainState`; or only its shapes, which are returned in the same form.
      version: the version of your program's state, an integer, for later migrations; see
        `load_state_dict`. Default: 0.

    Raises:
      TypeError: a leaf is not an array.

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
        if not isinstance(leaf, SAVED):
            raise TypeError(f"state_dict: {name} must be an array, got {type(leaf).__name__}")
        flat[name] = _data(leaf)
    return flat


def load_state_dict(
    template: OptState, flat: Flat, *, version: int = 0, migrate: Migrations | None = None
) -> OptState:
    """Returns a state with the saved arrays, all of which must match.

    Args:
      template: a state of the optimizer, `tx.init(params)`, whose values are not used; or only its
        shapes, `jax.eval_shape(tx.init, params)`. Arrays get the shardings of the template. Where
        it has none, those that are divided over the devices of several processes keep theirs.
      flat: the result of `state_dict`: a mapping from names to arrays, of NumPy or JAX. In several
        processes, arrays that are not divided over their devices must be the same in all of them.
      version: the version of this program's state. Default: 0.
      migrate: a mapping from older versions to functions that convert a mapping to the next
        version: `migrate[0]` converts version 0 to version 1. Default: `None`, no migrations.

    Raises:
      StateMismatch: a name is missing or unexpected, or a shape or dtype differs; its report lists
        all of them.
      ValueError: `flat` has a version that `migrate` cannot convert to `version`, or a negative
        count, or an array of which other processes have a part where the template has one of NumPy
        or of this process alone.
      TypeError: `flat` is not a mapping.

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
    state, report = _load(template, flat, version, migrate, "load_state_dict")
    if not report.complete:
        raise StateMismatch(report)
    return state


def load_matching(
    template: OptState, flat: Flat, *, version: int = 0, migrate: Migrations | None = None
) -> tuple[OptState, LoadReport]:
    """Returns a state with those saved arrays that match, and a report on all of them.

    It is for an optimizer that was changed after the state was saved: another clip, guard, schedule
    or mask.

    Args:
      template: as for `load_state_dict`; arrays that are missing or have another shape keep the
        values of the template.
      flat: as for `load_state_dict`.
      version: as for `load_state_dict`.
      migrate: as for `load_state_dict`.

    Returns:
      The state, and a `LoadReport`. Arrays of another dtype are cast, and reported.

    Raises:
      ValueError: the template has only a shape where its value is needed; or as for
        `load_state_dict`.

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
    state, report = _load(template, flat, version, migrate, "load_matching")
    needed = dict(named_leaves(template))
    for name in (*report.missing, *(name for name, _, _ in report.reshaped)):
        if isinstance(needed[name], jax.ShapeDtypeStruct):
            raise ValueError(
                f"load_matching: {name} needs a value from the template, which has only its shape; "
                f"give tx.init(params) as the template\n{report}"
            )
    return state, report


def _migrated(flat: Flat, version: int, migrate: Migrations, function: str) -> dict[str, ArrayLike]:
    if not isinstance(flat, Mapping):
        raise TypeError(
            f"{function}: flat must be a mapping from names to arrays, got {type(flat).__name__}; "
            "np.load(path) reads one from a file"
        )
    number = np.asarray(flat[VERSION]) if VERSION in flat else np.asarray(0)
    if number.shape or number.dtype.kind not in "iu" or number < 0:
        raise ValueError(
            f"{function}: the saved version must be an integer of at least 0, got "
            f"{str(number)[:60]}"
        )
    if (saved := int(number)) > version:
        raise ValueError(
            f"{function}: the saved version must be at most the program's, {version}, got {saved}"
        )
    arrays = {name: flat[name] for name in flat if name != VERSION}
    for step in range(saved, version):
        if step not in migrate:
            raise ValueError(
                f"{function}: the saved version is {saved}, the program's is {version}; migrate "
                f"needs a function for version {step}"
            )
        arrays = dict(migrate[step](arrays))
    return arrays


def _load(
    template: OptState, flat: Flat, version: int, migrate: Migrations | None, function: str
) -> tuple[OptState, LoadReport]:
    flat = recoded(template, _migrated(flat, version, migrate or {}, function))
    needed = named_leaves(template)
    found: dict[str, list[Any]] = {f.name: [] for f in dataclasses.fields(LoadReport)}
    leaves = []
    for name, old in needed:
        if name not in flat:
            found["missing"].append(name)
            leaves.append(old)
            continue
        new = _readable(flat[name], old)
        shape, dtype = _data_type(old)
        if new.shape != shape or not _castable(new, dtype):
            found["reshaped"].append((name, _told(new), f"{dtype}{list(shape)}"))
            leaves.append(old)
            continue
        found["loaded"].append(name)
        if new.dtype != dtype:
            found["recast"].append((name, str(new.dtype), str(dtype)))
        try:
            leaves.append(_placed(new, old, dtype))
        except _NotAtHand as error:
            raise ValueError(
                f"{function}: {name}: the saved array is divided over the devices of several "
                f"processes, but the template's is {error}; give a template with shardings over "
                "all of them, or the whole array, as "
                "jax.experimental.multihost_utils.process_allgather(array, tiled=True) returns it"
            ) from None
    known = {name for name, _ in needed}
    found["unexpected"] = [name for name in flat if name not in known]
    report = LoadReport(**{k: tuple(v) for k, v in found.items()})
    state = jax.tree.unflatten(jax.tree.structure(template), leaves)
    try:
        check_counts(state)
    except ValueError as error:
        raise ValueError(f"{function}: {error}") from None
    return state, report


class _NotAtHand(Exception):
    """An array is needed in this process, which has only a part of it."""


def _data(leaf: Any) -> Any:
    if isinstance(leaf, (int, float, complex)):
        return np.asarray(leaf, jnp.result_type(leaf))
    if not _is_key(leaf):
        return leaf
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.random.key_data(leaf)
    data = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding)


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data_type(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and dtype that a leaf of the template has when it is saved."""
    if isinstance(leaf, jax.Array):
        leaf = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    data = _data(leaf)
    return data.shape, np.dtype(data.dtype)


def _readable(saved: ArrayLike, old: Any) -> Array | np.ndarray:
    """Returns a saved array in its own dtype."""
    array = _data(saved) if isinstance(saved, jax.Array) else np.asarray(saved)
    return viewed(array, _data_type(old)[1])


def _castable(saved: Array | np.ndarray, needed: np.dtype) -> bool:
    """Returns whether an array can be cast to a dtype: with rounding, except to integers."""
    if not (jnp.issubdtype(saved.dtype, np.number) or saved.dtype.type is np.bool_):
        return False  # words, dates, objects, and bytes of unknown meaning
    if jnp.issubdtype(saved.dtype, np.complexfloating):
        return jnp.issubdtype(needed, np.complexfloating)
    if saved.dtype == needed or not jnp.issubdtype(needed, np.integer) or not is_at_hand(saved):
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.all(np.asarray(saved).astype(needed) == np.asarray(saved)))


def _placed(new: Any, old: Any, dtype: np.dtype) -> ArrayLike:
    """Returns an array with the dtype, the type and the sharding of the template's leaf."""
    at_hand = is_at_hand(new)
    if not isinstance(old, (jax.Array, jax.ShapeDtypeStruct)):
        if not at_hand:
            raise _NotAtHand(f"a {type(old).__name__}")
        return np.array(new, dtype) if isinstance(old, np.ndarray) else type(old)(new)
    sharding = old.sharding if getattr(old, "committed", True) else None
    # Uncommitted arrays stay uncommitted, because a jitted step is recompiled for committed ones.
    if sharding is None and getattr(new, "committed", False) and at_hand:
        new = np.asarray(new)
    new = new.astype(dtype)
    if getattr(old, "weak_type", False) and not old.shape:
        new = jnp.asarray(new.item())  # a Python number makes a weakly typed array
    new = jnp.array(new) if sharding is None else _on_devices(new, sharding, at_hand)
    return jax.random.wrap_key_data(new, impl=_impl(old)) if _is_key(old) else new


def _on_devices(new: Any, sharding: jax.sharding.Sharding, at_hand: bool) -> Array:
    """Returns a copy, because the saved array must outlive a step that donates the state."""
    alone = sharding.is_fully_addressable
    if alone and not at_hand:
        raise _NotAtHand("on devices of this process alone")
    moved = not (alone and getattr(new, "is_fully_addressable", True))
    if moved and at_hand and not getattr(new, "weak_type", False):
        # `device_put` would send the array to every process, to compare it there.
        here = np.asarray(new)
        return jax.make_array_from_callback(here.shape, sharding, lambda i: here[i].copy())
    return jax.device_put(new, sharding, may_alias=False)


def _impl(key: Any) -> Any:
    """Returns the implementation of a random key, which may be only a shape and dtype."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]


def _told(x: Array | np.ndarray) -> str:
    return f"{x.dtype}{list(x.shape)}"
