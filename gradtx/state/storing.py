"""Storing the arrays of a state in fewer bytes."""

import contextlib
import functools
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from gradtx._arguments import described
from gradtx.codecs import (
    SIGNED,
    UNSIGNED,
    Codec,
    Coded,
    codec_of,
    coded_like,
    decoded,
    is_coded,
)
from gradtx.engine.base import (
    GradientTransformation,
    OptState,
    Params,
    TransformationLike,
    Updates,
    with_extra_args_support,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.links import Link
from gradtx.engine.pipeline import FORM, wrapped
from gradtx.state.belonging import LeafRole, roles
from gradtx.state.selecting import matches, some

STORABLE = ("slot", "statistic", "shared")
"""The kinds of arrays that may be stored as codes."""

Patterns = Mapping[str | re.Pattern[str], str | Codec | None]


@piece
def store(
    tx: TransformationLike, codecs: Patterns, min_size: int = 4096, seed: int = 0
) -> GradientTransformation:
    """Stores arrays of a state in fewer bytes; the arithmetic stays as it is.

    Before a step, `x = decode(parts)`; after it, `parts = encode(x)`. Rules of single arrays do so
    leaf by leaf, in the kernels of the step. For transformations whose update of a leaf depends on
    other leaves, for methods on matrices, and for those of other libraries, the whole state is
    decoded.

    The patterns are matched with the role of an array and its name in `gradtx.state_dict`, such as
    `slot/scale_by_adam/nu/layer/kernel`, as those of `by_path` are: `"nu"` or `"*/nu"` is every
    second moment, `"slot"` all moments, `"embed/*"` all that belongs to the parameters below
    `embed`. An array that matches a pattern with `None` is left as it is; of the others, the first
    pattern that matches counts.

    The built-in codecs are, with the bytes of an entry:

    - `"int8"` (1.02): signed floats of 4 bits of exponent and 3 of the mantissa, with a power of
      two for each block of 64 entries of an axis. The relative error is at most 2^-3.
    - `"uint8"` (1.02): the same for numbers that are not negative, as second moments, with 5 bits
      of exponent. Positive numbers stay positive. A negative one of more than 2^-8 of its block's
      largest becomes NaN.
    - `"int4"`, `"uint4"` (0.53): 4 bits in blocks of 128, from the block's largest entry down to
      1/7 of it, and for second moments to 1/225.
    - `"bfloat16"`, `"float16"` (2), `"float8_e4m3fn"`, `"float8_e5m2"` (1): JAX's dtypes.

    Arrays that are never negative, such as second moments, get the unsigned codes also for the
    names of the signed ones, because these turn small positive numbers into 0, by which a step may
    be divided: `{"*": "int8"}` stores Adam's `nu` as `"uint8"`. States declare which arrays these
    are, as `UnsignedSlot` and `UnsignedStatistic` of `gradtx.state`.

    Codes of 8 and 4 bits are rounded stochastically, so that averages that change by less than the
    distance of two codes move on: rounded to nearest, a second moment with `b2=0.999` never decays.
    So are `"bfloat16_stochastic"` and `"float16_stochastic"`. For others, such as copies of
    parameters or eigenvectors, there are `"int8_nearest"`, `"uint8_nearest"` and so on. The random
    bits depend on the seed, the array's name, the step and the entry, not on how arrays are divided
    over devices.

    Args:
      tx: the transformation.
      codecs: a mapping from patterns to codecs: a name, a `Codec`, or `None`.
      min_size: arrays with fewer entries are left as they are. So are counts, random keys, numbers
        of the method, and complex and integer arrays. Default: 4096.
      seed: the seed of stochastic rounding. Default: 0.

    Raises:
      ValueError: there is no codec of a name; or, by `init`, a pattern matches no array, or an
        array that is declared to have negative numbers would be stored in an unsigned codec.

    Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", arXiv:2110.02861, for
    blocks; Zamirai et al., "Revisiting BFloat16 Training", arXiv:2010.06192, for stochastic
    rounding.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.store(gradtx.adam(0.1), {"*/mu": "int8", "*/nu": "uint8"})
      >>> w = jnp.ones((64, 64))
      >>> state = tx.init(w)
      >>> print(state[0].mu)
      Coded(int8, float32[64, 64])
      >>> sum(x.nbytes for x in jax.tree.leaves(state[0])) / w.size  # 8 without store
      2.0341796875
    """
    if not isinstance(codecs, Mapping):
        raise TypeError(
            "store: codecs must be a mapping from patterns to codecs, such as "
            f'{{"mu": "int8", "nu": "uint8"}}, got {described(codecs)}'
        )
    if odd := [x for x in codecs if not isinstance(x, (str, re.Pattern))]:
        raise TypeError(
            "store: a pattern must be a string or a compiled regular expression, got "
            f"{described(odd[0])}"
        )
    found = {key: None if x is None else codec_of(x, "store") for key, x in codecs.items()}
    inner = with_extra_args_support(tx)

    @contextlib.contextmanager
    def forming(idle: set[Any]) -> Iterator[None]:
        """Stores the slots of rules as codes wherever `init` is called."""
        before = FORM.get()

        def form(link: Link, state: OptState, params: Params) -> OptState:
            state = before(link, state, params)
            if not link.sweeps:
                return state
            return _stored(state, params, found, min_size, seed, idle, inside=True)

        token = FORM.set(form)
        try:
            yield
        finally:
            FORM.reset(token)

    def init(params: Params) -> OptState:
        if not all(map(_is_array, jax.tree.leaves(params))):
            return inner.init(params)
        idle = set(found)
        with forming(idle):
            state = inner.init(params)
        state = _stored(state, params, found, min_size, seed, idle, inside=False)
        if idle and jax.tree.leaves(params):
            pattern = next(x for x in found if x in idle)
            every = jax.tree.leaves(roles(state, params))
            names = [_name(role) for role in every if role.kind in STORABLE]
            raise ValueError(
                f"store: {pattern!r} matches no array that could be stored as codes; there are "
                f"{some(names) or 'none'}"
            )
        return state

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        with forming(set()):  # some transformations call `init` again
            updates, new = inner.update(updates, decoded(state, inside=False), params, **extra)
        return updates, coded_like(state, new)

    return wrapped(init, update, tx, name="store")


def _stored(
    state: OptState,
    params: Params,
    codecs: Mapping[str | re.Pattern[str], Codec | None],
    min_size: int,
    seed: int,
    idle: set[Any],
    inside: bool,
) -> OptState:
    """Returns a state with codes in place of arrays, and removes patterns that match from `idle`.

    Args:
      state: the state.
      params: the parameters.
      codecs: the codecs by patterns.
      min_size: the smallest size of arrays that are stored as codes.
      seed: the seed of stochastic rounding.
      idle: the patterns that have matched nothing.
      inside: whether rules decode the codes themselves.
    """

    def stored(x: Any, role: LeafRole) -> Any:
        if is_coded(x) or role.kind not in STORABLE:
            return x
        name = _name(role)
        matching = [pattern for pattern in codecs if matches(pattern, name)]
        idle.difference_update(matching)
        wanted = [codec for pattern in matching if (codec := codecs[pattern]) is not None]
        if not wanted or len(wanted) < len(matching) or jnp.size(x) < min_size:
            return x
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            return x
        codec = wanted[0]
        if not role.signed:
            codec = UNSIGNED.get(codec, codec)
        elif role.declared and codec in SIGNED:
            raise ValueError(
                f"store: {matching[0]!r} would store {name}, whose numbers may be negative, in the "
                f"unsigned codec {codec.name!r}, where negative numbers become NaN; use the signed "
                f"codec {SIGNED[codec].name!r}, or declare an UnsignedSlot or UnsignedStatistic "
                "of gradtx.state in a state of your own whose numbers are never negative"
            )
        first_seed = np.uint32(zlib.crc32(f"{seed}/{name}".encode()))
        return _first(x, codec, first_seed, inside)

    return jax.tree.map(stored, state, roles(state, params), is_leaf=is_coded)


@functools.partial(jax.jit, static_argnums=(1, 3))
def _first(x: Array, codec: Codec, seed: ArrayLike, inside: bool) -> Coded:
    # Otherwise XLA computes the codes of constants when it compiles, which takes it long.
    x = lax.optimization_barrier(x)
    return Coded.of(x, codec, jnp.asarray(seed, jnp.uint32), inside)


def _name(role: LeafRole) -> str:
    return f"{role.kind}/{role.name}"


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype") or isinstance(x, (float, complex))
