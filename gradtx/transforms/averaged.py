"""Reading averages of the parameters from any state."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from gradtx.codecs import decoded
from gradtx.engine.base import Array, OptState, Params, PyTree
from gradtx.engine.paths import align, is_none
from gradtx.engine.rules import MaskedNode
from gradtx.tree.walking import parts, path_name


def averaged_params(
    state: OptState, params: Params | None = None, *, name: str | None = None
) -> Params:
    """Returns the averaged parameters in a state, for evaluation.

    They are those of `params_ema`, `params_mean`, `lawa`, `primal_averaging` or `schedule_free`,
    wherever their state is: in chains, partitions, masks or wrappers. It works inside `jit`.

    If several averages have the same parameters, `name` selects one: `"lawa"`; of two averages in
    one chain, `"params_ema"` and `"params_ema#2"`; or the name in a `named_chain`.

    Args:
      state: the state of an optimizer, or any pytree that contains one.
      params: the parameters in training. They are returned where a mask or a partition leaves a
        parameter without an average, and determine the dtypes. `primal_averaging` and
        `schedule_free` compute the average from them. Default: `None`, the average must have all
        parameters, and is returned in the dtype in which it is stored.
      name: the name of the average, or a part of its path. Default: `None`, all averages.

    Raises:
      ValueError: there is no such average; several have the same parameter; a parameter without an
        average is not given; or `params` differ from the averages in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(
      ...     gradtx.sgd(1.0),
      ...     gradtx.named_chain(
      ...         ("short", gradtx.params_ema(0.5, warmup=False)), ("all", gradtx.params_mean())
      ...     ),
      ... )
      >>> p = jnp.zeros(1)
      >>> state = tx.init(p)
      >>> for _ in range(4):
      ...     updates, state = tx.update(-jnp.ones(1), state, p)
      ...     p = p + updates
      >>> print(gradtx.averaged_params(state, name="short"))
      [3.0625]
      >>> print(gradtx.averaged_params(state, name="all"))
      [2.5]
    """
    known = dict(_averages(decoded(state)))
    found = {n: x for n, x in known.items() if name is None or name in (n, *n.split("/"))}
    if not found:
        told = f"named {name!r}, got {', '.join(known)}" if known else "of the parameters, got none"
        raise ValueError(
            f"averaged_params: the state must contain an average {told}; averages are those of "
            "params_ema, params_mean, lawa, primal_averaging and schedule_free"
        )
    trees = [x.averaged(params) for x in found.values()]
    like, its_name = (trees[0], "the first average") if params is None else (params, "params")
    leaves, treedef = jax.tree.flatten(like, is_leaf=_is_absent)
    try:
        rows = [align(treedef, tree, "the average", like, its_name) for tree in trees]
    except ValueError as error:
        raise ValueError(f"averaged_params: {error}") from None
    whole = treedef.unflatten([0] * len(leaves))
    paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(whole)]

    def one(i: int, leaf: PyTree) -> Array | None:
        mine = [n for n, row in zip(found, rows, strict=True) if not _is_absent(row[i])]
        if len(mine) > 1:
            raise ValueError(
                f"averaged_params: {paths[i]!r} has the averages {', '.join(mine)}; choose one by "
                "name=..."
            )
        if mine:
            x = rows[list(found).index(mine[0])][i]
            return x if params is None else jnp.asarray(x, jnp.result_type(leaf))
        if isinstance(leaf, MaskedNode):
            raise ValueError(
                f"averaged_params: {paths[i]!r} has no average; to use the parameter itself, call "
                "averaged_params(state, params)"
            )
        return leaf

    return treedef.unflatten([one(i, leaf) for i, leaf in enumerate(leaves)])


def _averages(state: OptState) -> Iterator[tuple[str, PyTree]]:
    """Yields the states with an average, by their names."""
    seen: set[int] = set()
    for part in parts(state):
        owner = part.around[-1][1] if part.around else None
        if hasattr(owner, "averaged") and id(owner) not in seen:
            seen.add(id(owner))
            yield "/".join((*part.scope, part.piece)), owner


def _is_absent(x: PyTree) -> bool:
    return is_none(x) or isinstance(x, MaskedNode)
