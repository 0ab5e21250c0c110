"""Numerical comparison of two transformations.

Both receive the same parameters and the same random gradients for many steps, once in float64 and
once in the dtypes of the parameters. In float64 they have to agree. In the other dtypes each is
compared with the first one's float64 trajectory, which separates their rounding errors.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._apply import apply_updates
from gradtx.crosschecking.verdicts import AGREEMENT, ROUNDING, Comparison
from gradtx.engine.base import Array, OptState, Params, TransformationLike, Updates

_Loss = Callable[[Params], Array]


def crosscheck(
    mine: TransformationLike,
    theirs: TransformationLike,
    params: Params,
    *,
    steps: int = 100,
    seed: int = 0,
    name: str = "",
    note: str = "",
    agreement: float = AGREEMENT,
    rounding: tuple[float, float] = ROUNDING,
    loss: _Loss | None = None,
    **extra: Any,
) -> Comparison:
    """Compares two transformations over many steps.

    Both start from `params` and receive the same random gradients, which are normally distributed
    with a different scale for each leaf. Each applies its own updates to its own parameters.
    Transformations that evaluate the loss, such as line searches, need `loss`.

    Args:
      mine: a transformation; errors are relative to its float64 trajectory.
      theirs: another one, of any library with pairs of `init` and `update`.
      params: a pytree of real or complex arrays.
      steps: the number of steps. Default: 100.
      seed: the seed of the gradients. Default: 0.
      name: the name of the comparison in the table. Default: none.
      note: the reason for an expected difference; agreement is then a failure. Default: none, a
        difference is a failure.
      agreement: the tolerance on the relative difference in float64. Default: 1e-10.
      rounding: the tolerances on the errors of `mine` in float32 and in half precision, in ulps.
        Default: 16 and 16.
      loss: a function of the parameters. If it is given, each transformation receives its gradient
        at its own parameters, and `value`, `grad` and `value_fn`; errors in float32 are then those
        of whole trajectories, and every finite error passes. Default: none, random gradients.
      **extra: keyword arguments for both `update` functions.

    Returns:
      A `Comparison`; `print` shows it as a table, and `.ok` is whether it passes.

    Raises:
      TypeError: a leaf is neither real nor complex floating.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
      >>> a, b = gradtx.sgd(0.1, momentum=0.9), gradtx.momentum(0.1, 0.9)
      >>> gradtx.crosscheck(a, b, params, steps=10).agrees
      True
    """
    leaves, treedef = jax.tree.flatten(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.flatten_with_path(params)[0]]
    dtypes = [np.dtype(jnp.result_type(leaf)) for leaf in leaves]
    for path, dtype in zip(paths, dtypes, strict=True):
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(f"crosscheck: params{path} must be floating, got {dtype}")
    start = [np.asarray(leaf) for leaf in leaves]
    gradients = _random_gradients(start, dtypes, steps, seed)

    def run(tx: TransformationLike, wide: bool) -> list[np.ndarray]:
        with jax.enable_x64(True) if wide else jax.enable_x64(False):
            cast = [_widened(x) if wide else x for x in start]
            stream = [_widened(x) if wide else x for x in gradients]
            given = treedef.unflatten(cast), treedef.unflatten(stream)
            updates = _trajectory(tx, *given, loss, extra)
            return [_widened(np.asarray(u)) for u in jax.tree.leaves(updates)]

    exact, other = run(mine, True), run(theirs, True)
    rounded = run(mine, False), run(theirs, False)
    wide = [_differences(a, b) for a, b in zip(exact, other, strict=True)]
    worst = max(range(len(wide)), key=lambda i: _largest(wide[i]), default=0)
    narrow = [jnp.finfo(d).bits < 32 for d in dtypes]

    def error(a: list[np.ndarray], b: list[np.ndarray], half: bool) -> float:
        found = [
            _largest(_differences(x, y)) / _epsilon(dtype)
            for x, y, dtype, is_half in zip(a, b, dtypes, narrow, strict=True)
            if is_half == half
        ]
        return float(np.max(found)) if found else 0.0

    return Comparison(
        name=name,
        float64=max(map(_largest, wide), default=0.0),
        where=f"params{paths[worst]}, step {int(np.argmax(wide[worst]))}" if leaves else "",
        single=error(*rounded, half=False),
        single_errors=(error(rounded[0], exact, False), error(rounded[1], exact, False)),
        half_errors=(error(rounded[0], exact, True), error(rounded[1], exact, True)),
        note=note,
        agreement=agreement,
        # With a loss, rounding errors accumulate along the trajectory; and random numbers differ
        # between float64 and other dtypes.
        rounding=rounding if loss is None and not _draws(mine, params) else (np.inf, np.inf),
    )


def _draws(tx: TransformationLike, params: Params) -> bool:
    """Returns whether a transformation keeps a random key, or derives one in `init`."""
    init = jax.make_jaxpr(tx.init)(params)
    arrays = [*init.out_avals, *(x.aval for step in init.eqns for x in step.outvars)]
    return any(jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in arrays)


def _trajectory(
    tx: TransformationLike,
    params: Params,
    gradients: Updates,
    loss: _Loss | None,
    extra: Mapping[str, Any],
) -> Updates:
    """Returns the updates of all steps, stacked."""

    def step(carry: tuple[Params, OptState], g: Updates) -> tuple[tuple[Params, OptState], Updates]:
        params, state = carry
        more = {}
        if loss is not None:
            value, slope = jax.value_and_grad(loss)(params)
            g = jax.tree.map(jnp.conj, slope)
            more = {"value": value, "grad": g, "value_fn": loss}
        updates, new = tx.update(g, state, params, **more, **extra)
        # Some libraries' states change dtypes at the first step, which scan does not allow.
        new = jax.tree.map(lambda old, x: jnp.asarray(x, jnp.result_type(old)), state, new)
        return (apply_updates(params, updates), new), updates

    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])(params, gradients)


def _random_gradients(
    start: list[np.ndarray], dtypes: list[np.dtype], steps: int, seed: int
) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    gradients = []
    for x, dtype in zip(start, dtypes, strict=True):
        g = rng.standard_normal((steps, *x.shape)) * 10.0 ** rng.uniform(-2, 1)
        if np.issubdtype(dtype, np.complexfloating):
            g = g + 1j * rng.standard_normal(g.shape)
        gradients.append(g.astype(dtype))
    return gradients


def _widened(x: np.ndarray) -> np.ndarray:
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _epsilon(dtype: np.dtype) -> float:
    return float(jnp.finfo(dtype).eps)


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the largest difference at each step, relative to the largest magnitude so far."""
    if a.size == 0:
        return np.zeros(max(len(a), 1))
    flat = tuple(range(1, a.ndim))
    with np.errstate(invalid="ignore"):
        difference = np.max(np.abs(a - b), axis=flat)
    size = np.maximum.accumulate(np.max(np.abs(b), axis=flat))
    relative = np.divide(difference, size, out=np.zeros_like(difference), where=size > 0)
    # Values that are not finite count as different, and so does any difference from all zeros.
    equal = (difference == 0) | (relative > 0)
    return np.where(equal & np.isfinite(relative), relative, np.inf)


def _largest(values: np.ndarray) -> float:
    return float(np.max(values))
