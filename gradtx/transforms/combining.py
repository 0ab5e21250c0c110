"""Applying transformations one after another."""

from gradtx._arguments import described, require_transformation
from gradtx.engine.base import EmptyState, GradientTransformation, TransformationLike
from gradtx.engine.order import refuse_after_last
from gradtx.engine.pipeline import Pipeline, gather, pipeline_of


def identity() -> GradientTransformation:
    """Returns the updates unchanged.

    Example:
      >>> import gradtx
      >>> tx = gradtx.identity()
      >>> tx.update(1.0, tx.init(0.0))
      (1.0, EmptyState())
    """
    return Pipeline((), EmptyState()).transformation()


def chain(*args: TransformationLike) -> GradientTransformation:
    """Applies transformations one after another; each gets the updates of the one before it.

    Neighbours made by `gradtx.leafwise` run as one sweep over the leaves, also in nested chains and
    under masks. The state is a tuple of the parts' states.

    Args:
      *args: transformations; pairs `(init, update)` of other libraries may be among them.

    Returns:
      A transformation that passes parameters and extra arguments to every part.

    Raises:
      TypeError: an argument has no `init` and `update`.
      ValueError: a part that must be last, such as `kahan`, is followed by one that changes its
        updates.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1))
      >>> updates, state = tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))
      >>> print(updates)
      [-0.1]
    """
    for i, tx in enumerate(args):
        require_transformation(tx, f"chain: argument {i}")
    parts = {f"argument {i}": pipeline_of(tx) for i, tx in enumerate(args)}
    refuse_after_last(parts, "chain")
    links, skeletons = gather([*parts.values()])
    return Pipeline(links, tuple(skeletons)).transformation()


def named_chain(*args: tuple[str, TransformationLike]) -> GradientTransformation:
    """Applies named transformations one after another; the state is a dict of the parts' states.

    Args:
      *args: pairs `(name, transformation)`, with different names.

    Raises:
      ValueError: a name occurs twice, or a part that must be last is followed by one that changes
        its updates.
      TypeError: an argument is not such a pair.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("scale", gradtx.scale(-0.1)))
      >>> sorted(tx.init(jnp.zeros(1)))
      ['clip', 'scale']
    """
    for i, pair in enumerate(args):
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not is_pair or hasattr(pair, "init"):
            told = f"a pair (name, transformation), got {described(pair)}"
            raise TypeError(f"named_chain: argument {i} must be {told}")
    names = [name for name, _ in args]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"named_chain: names must be unique, got {repeated} more than once in {names}"
        )
    for name, tx in args:
        require_transformation(tx, f"named_chain: {name!r}")
    parts = {repr(name): pipeline_of(tx) for name, tx in args}
    refuse_after_last(parts, "named_chain")
    links, skeletons = gather([*parts.values()])
    return Pipeline(links, dict(zip(names, skeletons, strict=True))).transformation()
