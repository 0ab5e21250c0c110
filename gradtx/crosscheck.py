"""Checking optimizers against each other, number by number.

Two transformations get the same parameters and the same random gradients for many steps, once in
float64 and once in the dtypes that the parameters have. In float64 they have to agree; in the
other dtypes each is compared with the first one's float64 trajectory, which tells whose rounding
is whose.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx import catalog
from gradtx.apply import apply_updates
from gradtx.engine.base import Params
from gradtx.engine.numerics import abs_sq, widen
from gradtx.table import text_table

AGREEMENT = 1e-10
"""The largest relative difference in float64 that passes, over all steps."""
ROUNDING = (16.0, 16.0)
"""The largest errors of ours that pass, in float32 and in half precision, in ulps."""
COUPLED_ROUNDING = (16.0 * 2**16, 16.0)
"""The same where leaves act on each other: float32 leaves then carry the rounding of bfloat16."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How two transformations differ.

    Differences of updates are taken element by element, and measured against the largest magnitude
    that the leaf's update has had so far: relative to it in float64, in units of its last place
    (ulps) in the leaf's own dtype otherwise.

    Attributes:
      name: what was compared.
      float64: the largest relative difference in float64.
      where: the path of the leaf and the step at which it was found.
      single: the largest difference between the two in float32, in ulps.
      single_errors: the largest error of each in float32 against float64, in ulps.
      half_errors: the same for leaves in half precision.
      note: why a difference is right, if one is documented.
      agreement: the largest `float64` that passes.
      rounding: the largest errors of ours in float32 and in half precision that pass, in ulps.
    """

    name: str
    float64: float
    where: str
    single: float
    single_errors: tuple[float, float]
    half_errors: tuple[float, float]
    note: str = ""
    agreement: float = AGREEMENT
    rounding: tuple[float, float] = ROUNDING

    @property
    def agrees(self) -> bool:
        """Whether the two agree in float64."""
        return self.float64 <= self.agreement

    @property
    def ok(self) -> bool:
        """Whether they agree, or differ as documented, and the first one rounds properly."""
        errors = self.single_errors[0], self.half_errors[0]
        rounds_well = all(
            np.isfinite(error) and error <= bound
            for error, bound in zip(errors, self.rounding, strict=True)
        )
        return (self.agrees != bool(self.note)) and rounds_well

    @property
    def verdict(self) -> str:
        """The comparison in a word."""
        if not self.ok:
            return "DIFFERS at " + self.where if not self.agrees else "FAILS"
        return self.note if self.note else "agrees"

    def __str__(self) -> str:
        return comparison_table([self])


def comparison_table(
    comparisons: list[Comparison], names: tuple[str, str] = ("ours", "theirs")
) -> str:
    """Lays out comparisons as a table of text.

    Args:
      comparisons: the rows.
      names: what the two sides are called.
    """
    ours, theirs = names
    header = [
        "optimizer",
        "float64 rel.",
        "float32 ulps",
        f"float32 {ours}",
        f"float32 {theirs}",
        f"half {ours}",
        f"half {theirs}",
        "verdict",
    ]
    rows = [
        [
            c.name,
            f"{c.float64:.1e}",
            *map(_ulps, (c.single, *c.single_errors, *c.half_errors)),
            c.verdict,
        ]
        for c in comparisons
    ]
    return text_table(header, rows, " rrrrrr ")


def _ulps(x: float) -> str:
    return f"{x:.1f}" if x < 1e4 else f"{x:.0e}"


def crosscheck(
    mine: Any,
    theirs: Any,
    params: Params,
    *,
    steps: int = 100,
    seed: int = 0,
    name: str = "",
    note: str = "",
    agreement: float = AGREEMENT,
    rounding: tuple[float, float] = ROUNDING,
    loss: Callable[[Params], Any] | None = None,
    **extra: Any,
) -> Comparison:
    """Compares two transformations over many steps.

    Both start from `params` and see the same random gradients, normally distributed with a scale of
    its own for each leaf. Each adds its own updates to its own parameters. What measures the loss,
    a line search for one, needs a `loss` that the gradients belong to.

    Args:
      mine: a transformation; its float64 trajectory is the yardstick of errors.
      theirs: another one, of any library that uses pairs of `init` and `update`.
      params: a pytree of real or complex arrays.
      steps: how many steps. Default: 100.
      seed: of the gradients. Default: 0.
      name: what the table calls the pair. Default: nothing.
      note: why the two differ, if they should; agreement then fails. Default: they should not.
      agreement: the largest relative difference in float64 that passes. Default: 1e-10.
      rounding: the largest errors of `mine` in float32 and in half precision that pass, in ulps.
        Default: 16 and 16.
      loss: a function of the parameters. Each transformation then gets its gradient at the
        parameters that it has come to, and `value`, `grad` and `value_fn`; errors in float32
        then are those of whole trajectories, and any finite one passes. Default: there is none, and
        gradients are random.
      **extra: keyword arguments for both `update` functions.

    Returns:
      A `Comparison`; `print` shows it as a table, `.ok` says whether it passes.

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
            raise TypeError(f"crosscheck: params{path} is {dtype}, and gradients are floating")
    start = [np.asarray(leaf) for leaf in leaves]
    gradients = _random_gradients(start, dtypes, steps, seed)

    def run(tx: Any, wide: bool) -> list[np.ndarray]:
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
        # Where the gradients depend on the steps, errors grow with the trajectory's; and random
        # numbers are others in float64.
        rounding=rounding if loss is None and not _draws(mine, params) else (np.inf, np.inf),
    )


def _draws(tx: Any, params: Params) -> bool:
    """Says whether a transformation keeps a random key."""
    state = jax.tree.leaves(jax.eval_shape(tx.init, params))
    return any(jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in state)


def _trajectory(
    tx: Any, params: Params, gradients: Any, loss: Any, extra: Mapping[str, Any]
) -> Any:
    """Gives the updates of all steps, stacked."""

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        more = {}
        if loss is not None:
            value, slope = jax.value_and_grad(loss)(params)
            g = jax.tree.map(jnp.conj, slope)
            more = {"value": value, "grad": g, "value_fn": loss}
        updates, new = tx.update(g, state, params, **more, **extra)
        # Some libraries' states change their dtypes at the first step, which scan refuses.
        new = jax.tree.map(lambda old, x: jnp.asarray(x, jnp.result_type(old)), state, new)
        return (apply_updates(params, updates), new), updates

    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])(params, gradients)


def _random_gradients(
    start: list[np.ndarray], dtypes: list[Any], steps: int, seed: int
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


def _epsilon(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps)


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gives for each step the largest difference, relative to the largest magnitude so far."""
    if a.size == 0:
        return np.zeros(max(len(a), 1))
    flat = tuple(range(1, a.ndim))
    with np.errstate(invalid="ignore"):
        difference = np.max(np.abs(a - b), axis=flat)
    size = np.maximum.accumulate(np.max(np.abs(b), axis=flat))
    relative = np.divide(difference, size, out=np.zeros_like(difference), where=size > 0)
    # What is not finite differs, and so does anything from nothing but zeros.
    equal = (difference == 0) | (relative > 0)
    return np.where(equal & np.isfinite(relative), relative, np.inf)


def _largest(values: np.ndarray) -> float:
    return float(np.max(values))


def sample_tree() -> dict[str, Any]:
    """Makes a small random tree of several dtypes and shapes."""
    rng = np.random.default_rng(42)
    shapes = {"scalar": (), "vector": (7,), "matrix": (5, 4), "tensor": (2, 3, 4)}
    tree: dict[str, Any] = {n: rng.standard_normal(s).astype("f4") for n, s in shapes.items()}
    tree["bfloat16"] = rng.standard_normal((3, 4)).astype(jnp.bfloat16)
    tree["float16"] = rng.standard_normal((6,)).astype(np.float16)
    return tree


def sample_loss(params: Params) -> Any:
    """A convex loss with its least value, 0, where all parameters are 1.

    Its curvatures differ by ten, and it is not quadratic, so that interpolation is no exact guess.

    Args:
      params: a pytree of real or complex arrays.
    """

    def of_leaf(x: Any) -> Any:
        distance = abs_sq(widen(x) - 1)
        curvature = jnp.linspace(1, 10, distance.size, dtype=distance.dtype)
        return jnp.sum(curvature.reshape(distance.shape) * (distance / 2 + distance**2 / 4))

    return sum(of_leaf(x) for x in jax.tree.leaves(params))


def _rounding(entry: catalog.Entry) -> tuple[float, float]:
    single, half = COUPLED_ROUNDING if entry.couples_leaves else ROUNDING
    return entry.amplifies * single, entry.amplifies * half


ABSENT = {
    **{"momentum": 0.9, "optimism": 0.03, "beta3": 0.95, "weight_decay": 0.01},
    **{"init_estim_sq_dist": 0.01, "adam_learning_rate": 0.02, "consistent_rms": 0.2},
}
"""What stands in the settings for hyperparameters that are `None` otherwise."""


def settings(entry: catalog.Entry) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives an optimizer's probe, and then variants of it with one hyperparameter moved.

    Flags are turned, numbers are changed by a tenth (whole ones by one), the learning rate becomes
    a schedule, and a momentum that was absent becomes 0.9. What is of another kind stays: masks,
    dtypes, words, line searches.

    Args:
      entry: the optimizer's entry in the catalog.
    """
    base, known = dict(entry.probe), entry.hyperparameters
    yield "", base
    for name, default in known.items():
        value = base.get(name, default)
        if name == entry.rate and not entry.fixed_rate:
            rate = 1.0 if value is None else value
            yield f"{name}=schedule", {**base, name: lambda t, rate=rate: rate * _wave(t)}
        elif isinstance(value, bool):
            needed = {"momentum": 0.9} if name == "nesterov" and "momentum" in known else {}
            yield f"{name}={not value}", {**needed, **base, name: not value}
        elif isinstance(value, int):
            yield f"{name}={value + 1}", {**base, name: value + 1}
        elif isinstance(value, float):
            moved = 0.9 * value if value else 0.01
            yield f"{name}={moved:.3g}", {**base, name: moved}
        elif name in ABSENT and value is None:
            yield f"{name}={ABSENT[name]}", {**base, name: ABSENT[name]}


def factory_of(peer: Any, name: str) -> Callable[..., Any] | None:
    """Finds a library's optimizer, at its top level or in its `contrib`.

    Args:
      peer: a module such as `optax`.
      name: the optimizer's name.
    """
    return getattr(peer, name, None) or getattr(getattr(peer, "contrib", None), name, None)


def _wave(t: Any) -> Any:
    return (1 + 0.1 * t) / (1 + 0.01 * t**2)  # up for ten steps, and down


def crosscheck_catalog(
    peer: Any,
    names: list[str] | None = None,
    *,
    steps: int = 100,
    every_setting: bool = False,
    progress: Callable[[Comparison], None] = lambda row: None,
) -> list[Comparison]:
    """Compares every optimizer that a peer library has under the same name.

    Args:
      peer: a module with factories of transformations, such as `optax`.
      names: which optimizers. Default: all that both have.
      steps: how many steps. Default: 100.
      every_setting: whether to move each hyperparameter in turn as well. Default: no.
      progress: called with each finished row.

    Raises:
      UnknownOptimizer: a name is not in the catalog.
    """
    chosen = [catalog.get(n) for n in names] if names is not None else catalog.entries()
    rows = []
    for entry in chosen:
        factory = factory_of(peer, entry.name)
        if factory is None:
            continue
        # Random gradients have a constant for their loss; only a search asks for a function.
        value: dict[str, Any] = {"value": 10.0} if entry.needs == ("value",) else {}
        if "obj_fn" in entry.needs:
            value["obj_fn"] = sample_loss
        tree = {name: x for name, x in sample_tree().items() if name not in entry.optax_refuses}
        for label, setting in settings(entry) if every_setting else [("", dict(entry.probe))]:
            if label.split("=")[0] in entry.optax_refuses:
                continue
            row = crosscheck(
                entry.factory(**setting),
                factory(**setting),
                tree,
                steps=steps,
                name=f"{entry.name} {label}".strip(),
                note=entry.differs_when.get(label.split("=")[0], entry.differs_from_optax),
                rounding=_rounding(entry),
                loss=sample_loss if {"value_fn", "obj_fn"} & {*entry.needs} else None,
                **value,
            )
            rows.append(row)
            progress(row)
    return rows
