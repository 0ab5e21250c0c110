"""The role, the name and the parameter of each array of a state."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx._roles import Kind
from gradtx.engine.base import OptState, Params, PyTree
from gradtx.state.naming import named_leaves
from gradtx.tree.walking import Names, Part, Path, key_name, parts

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LeafRole:
    """The role of an array of a state.

    Attributes:
      kind: `"slot"` for an array of the shape of its parameter; `"statistic"` for an array of a
        parameter with another shape; `"count"`, `"rate"`, `"hyperparameter"`, `"key"`, `"reading"`,
        or `"shared"` for other arrays that belong to no parameter.
      name: its name in `gradtx.state_dict`.
      parameter: the path of the parameter to which it belongs, such as `layer/kernel`; `None` if it
        belongs to none. The path of a single array is empty.
      signed: whether its numbers may be negative, as those of arrays that declare nothing may.
      declared: whether its state declares `signed`, as the types of slots and statistics do.
    """

    kind: Kind
    name: str
    parameter: str | None = None
    signed: bool = True
    declared: bool = False

    def __str__(self) -> str:
        owner = "" if self.parameter is None else f" of {self.parameter or 'the parameter'}"
        return f"{self.kind}{owner}: {self.name}"


def roles(state: OptState, params: Params | None = None) -> PyTree:
    """Returns for each array of a state its role, its name, and the parameter to which it belongs.

    States declare the roles of their fields, see `gradtx.state.Role`. If a part of the state
    declares nothing, as a bare pytree, its structure is compared with that of the parameters.

    Args:
      state: the state of an optimizer, of gradtx or another library, or only its shapes.
      params: the parameters, or only their shapes. They are needed if an optimizer sees the
        parameters in another form, as in `flatten`, or has several arrays for a parameter.
        Default: `None`, the parameters are inferred from the slots of the state.

    Returns:
      A pytree like the state, with a `LeafRole` for each array.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.ones((4, 3))}
      >>> state = gradtx.chain(gradtx.scale_by_novograd(), gradtx.sgd(0.1)).init(params)
      >>> for role in jax.tree.leaves(gradtx.state.roles(state, params)):
      ...     print(role)
      count: scale_by_novograd/count
      slot of w: scale_by_novograd/mu/w
      statistic of w: scale_by_novograd/nu/w
      count: scale_by_learning_rate/count
      rate: scale_by_learning_rate/learning_rate

      Casting moments for a compressed checkpoint, and nothing else:

      >>> def compress(role, x):
      ...     return x.astype(jnp.bfloat16) if role.kind == "slot" else x
      >>> small = jax.tree.map(compress, gradtx.state.roles(state, params), state)
      >>> print(small[0].mu["w"].dtype, small[0].nu["w"].dtype)
      bfloat16 float32
    """
    found = parts(state)
    known = _shapes(params) if params is not None else {}
    if params is None:
        for part in found:
            known |= _shapes(part.value, part.of) if part.kind == "slot" else {}
    names = iter([name for name, _ in named_leaves(state)])
    leaves = [
        _role(part, path, leaf, next(names), known, params is not None)
        for part in found
        for path, leaf in jax.tree.leaves_with_path(part.value)
    ]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def _role(
    part: Part, path: Path, leaf: Any, name: str, known: Mapping[Names, Shape], complete: bool
) -> LeafRole:
    kind = part.kind
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        kind = "key"
    if kind not in ("slot", "statistic", "unknown"):
        return LeafRole(kind, name)
    sign = part.role.signed, part.role.kind in ("slot", "statistic")
    keys, shape = (*part.of, *_keys(path)), jnp.shape(leaf)
    owner = _owner(keys, known, anywhere=kind == "unknown")
    like = owner is not None and shape == known[owner]
    if kind == "unknown" and owner == () and not like:
        owner = None  # the empty path of a single array matches everywhere
    if owner is None:
        if complete or (kind == "unknown" and (known or not shape)):
            return LeafRole("shared", name, None, *sign)
        kind = "slot" if kind == "unknown" else kind
        return LeafRole(kind, name, "/".join(keys), *sign)
    if kind == "unknown" or complete:
        kind = "slot" if like and kind != "statistic" else "statistic"
    return LeafRole(kind, name, "/".join(owner), *sign)


def _owner(keys: Names, known: Mapping[Names, Shape], anywhere: bool) -> Names | None:
    """Returns the longest path of a parameter at the beginning of a path, or anywhere in it."""
    starts = range(len(keys) + 1) if anywhere else (0,)
    found = [keys[i:j] for i in starts for j in range(i, len(keys) + 1) if keys[i:j] in known]
    return max(found, key=len, default=None)


def _shapes(tree: PyTree, of: Names = ()) -> dict[Names, Shape]:
    flat = jax.tree.leaves_with_path(tree)
    return {(*of, *_keys(path)): jnp.shape(leaf) for path, leaf in flat}


def _keys(path: Path) -> Names:
    return tuple(map(key_name, path))
