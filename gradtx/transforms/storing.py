"""The dtypes in which slots are stored."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.engine.base import GradientTransformation
from gradtx.engine.leafwise import piece
from gradtx.engine.pipeline import Pipeline, pipeline_of, with_links


def store_as(tx: GradientTransformation, **dtypes: DTypeLike | None) -> GradientTransformation:
    """Returns a leafwise transformation whose slots are stored in other dtypes.

    Arithmetic is still done in float32 or wider; a slot is rounded when it is stored.

    Args:
      tx: a transformation made by `leafwise`, or a chain of such transformations.
      **dtypes: the dtypes of slots by name; with `None` the slot is not changed.

    Raises:
      TypeError: a part of `tx` was not made by `leafwise`.
      ValueError: no part has a slot of that name.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.store_as(gradtx.scale_by_adam(), mu=jnp.bfloat16)
      >>> state = tx.init(jnp.zeros(2))
      >>> print(state.mu.dtype, state.nu.dtype)
      bfloat16 float32
    """
    wanted = {name: jnp.dtype(dtype) for name, dtype in dtypes.items() if dtype is not None}
    if not wanted:
        return tx
    links = pipeline_of(tx).links
    if not all(link.sweeps for link in links):
        raise TypeError("store_as: every part of the transformation must be made by leafwise")
    known = {field for link in links for field in link.state._fields}
    if missing := sorted(set(wanted) - known):
        raise ValueError(f"store_as: slots must be among {sorted(known)}, got {missing}")
    return with_links(tx, lambda link: pipeline_of(_stored(link, wanted)).links[0])


@piece
def _stored(link: Any, wanted: Mapping[str, DTypeLike]) -> GradientTransformation:
    mine = {n: d for n, d in wanted.items() if n in link.state._fields}
    kernel = link.kernel._replace(stored=tuple({**dict(link.kernel.stored), **mine}.items()))
    return Pipeline((dataclasses.replace(link, kernel=kernel),), 0).transformation()
