"""What each array of a state is, what it is called, and which parameter it belongs to."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.engine.base import OptState, Params
from gradtx.engine.roles import Kind
from gradtx.state.naming import named_leaves
from gradtx.tree.walking import Names, Part, key_name, parts

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LeafRole:
    """What an array of a state is.

    Attributes:
      kind: `"slot"`, of the shape of its parameter; `"statistic"`, of a parameter, but of another
        shape; `"count"`, `"rate"`, `"hyperparameter"`, `"key"`, `"reading"`, or `"shared"` for what
        belongs to no parameter otherwise. `gradtx.engine.roles` says more.
      name: what `gradtx.state_dict` calls it.
      parameter: the path of the parameter that it belongs to, as `layer/kernel`; `None` for what
        belongs to none. The path of a single array is empty.
    """

    kind: Kind
    name: str
    parameter: str | None = None

    def __str__(self) -> str:
        owner = "" if self.parameter is None else f" of {self.parameter or 'the parameter'}"
        return f"{self.kind}{owner}: {self.name}"


def roles(state: OptState, params: Params | None = None) -> Any:
    """Says for each array of a state what it is, its name, and the parameter that it belongs to.

    States declare it, see `gradtx.engine.roles`. Where one declares nothing, as a bare pytree, its
    structure is compared with that of the parameters.

    Args:
      state: the state of an optimizer, of gradtx or not, or its shapes only.
      params: the parameters, or their shapes only. With them, the answer is right also where an
        optimizer sees the parameters in another form, as under `flatten`, or keeps several arrays
        for a parameter. Default: what the state itself tells of them, in its slots.

    Returns:
      A tree like the state, with a `LeafRole` in the place of each array.

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

      Moments in the dtype of a compressed checkpoint, and all else as it is:

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
    part: Part, path: Any, leaf: Any, name: str, known: Mapping[Names, Shape], complete: bool
) -> LeafRole:
    kind = part.kind
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        kind = "key"
    if kind not in ("slot", "statistic", "unknown"):
        return LeafRole(kind, name)
    keys, shape = (*part.of, *_keys(path)), jnp.shape(leaf)
    owner = _owner(keys, known, anywhere=kind == "unknown")
    like = owner is not None and shape == known[owner]
    if kind == "unknown" and owner == () and not like:
        owner = None  # a single array is found everywhere
    if owner is None:
        if complete or (kind == "unknown" and (known or not shape)):
            return LeafRole("shared", name)
        return LeafRole("slot" if kind == "unknown" else kind, name, "/".join(keys))
    if kind == "unknown" or complete:
        kind = "slot" if like and kind != "statistic" else "statistic"
    return LeafRole(kind, name, "/".join(owner))


def _owner(keys: Names, known: Mapping[Names, Shape], anywhere: bool) -> Names | None:
    """Finds the path of a parameter at the beginning of another path, or anywhere in it."""
    starts = range(len(keys) + 1) if anywhere else (0,)
    found = [keys[i:j] for i in starts for j in range(i, len(keys) + 1) if keys[i:j] in known]
    return max(found, key=len, default=None)


def _shapes(tree: Any, of: Names = ()) -> dict[Names, Shape]:
    flat = jax.tree.leaves_with_path(tree)
    return {(*of, *_keys(path)): jnp.shape(leaf) for path, leaf in flat}


def _keys(path: Any) -> Names:
    return tuple(map(key_name, path))
