"""Comparison of `jax.grad` with central differences.

`jax.test_util` checks a whole gradient along one random direction, and reports only a failure.
Here every leaf gets a row with its largest error, the element that has it, and the two numbers.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx._arguments import counted
from gradtx.engine.base import Array, PyTree
from gradtx.gradcheck.precision import arrays, examined, takes_float64
from gradtx.gradcheck.report import GradientReport, GradientRow


def check_gradients(
    fun: Callable[..., PyTree],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_elements: int | None = 100,
    seed: int = 0,
    show: bool = True,
) -> GradientReport:
    """Compares `jax.grad` with central differences, leaf by leaf, and prints a table.

        numeric = (fun(x + h) - fun(x - h)) / (2 * h),   h = eps * max(1, |x|)
        error = |analytic - numeric| / max(|analytic|, |numeric|, atol / rtol)

    in one element after another. A leaf passes when its largest error is at most `rtol`, that is,
    when `|analytic - numeric| <= max(rtol * max(|analytic|, |numeric|), atol)` everywhere.

    *Precision.* A central difference has about two thirds of the digits that the function has: ten
    in float64, five in float32. So all arguments are cast to float64, under `jax.enable_x64`. If
    the function still computes in a coarser dtype at some place (because it casts), or does not
    accept float64, it runs with the caller's dtypes and x64 setting instead, and `eps`, `rtol` and
    `atol` follow the coarsest dtype found. The report has this dtype.

    *Large leaves.* Of a leaf with more than `max_elements` elements, `max_elements` are drawn at
    random. If they are right, the whole leaf is also checked along one random direction. If that
    fails, the element with the error is searched by bisection of the direction, and the row shows
    it. If several errors hide it, the row fails with a note.

    *Kinks.* Where the function has a kink, such as `relu` at 0, the central difference is the mean
    of the slopes on both sides, and `jax.grad` may rightly return another. The row fails, with the
    note "kink?" when `jax.grad` is between the two slopes: move the point, and check again.

    *NaN.* Where the function itself is NaN or infinite, the report says so, and no leaf passes.
    Where it is so only after a step, at the edge of its domain, the row fails with the note "the
    function is not finite nearby".

    *Complex leaves.* For `z = x + i y` and a real `fun`, `jax.grad` returns `dfun/dx - i dfun/dy`,
    the conjugate of the direction of steepest ascent; the difference is formed in the same way.

    Args:
      fun: a function whose value is a real scalar. It is compiled if it can be.
      *args: its arguments, pytrees. `None` leaves and empty arrays hold nothing to check.
      argnums: the argument to differentiate by, or several; default 0.
      has_aux: whether `fun` returns `(value, aux)`; default `False`.
      eps: the step of the differences, relative to elements above 1, absolute below; default the
        cube root of the dtype's machine epsilon: 6e-6 in float64, 5e-3 in float32.
      rtol: the largest relative error that passes; default the machine epsilon to the power 0.4:
        5e-7 in float64, 2e-3 in float32.
      atol: the absolute error that always passes, because differences of nearly equal values are
        inexact; default `10 * machine_eps ** (2 / 3) * F`, with the largest `|fun|` seen as `F`.
      max_elements: the largest number of elements of a leaf to compare; default 100, `None` for
        all.
      seed: for the draw of these elements.
      show: whether to print the table; default yes.

    Returns:
      A `GradientReport`: `.ok`, `.rows`, `.raise_if_bad()`, and a table as its `str()`.

    Raises:
      TypeError: a leaf to differentiate by is not real or complex floating, or `fun` does not
        return a real scalar.
      ValueError: an argument number or a tolerance is out of range, there is no leaf to check, or
        `eps` is too small to change an element in its dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.gradcheck import check_gradients
      >>> def loss(params, x):
      ...     return jnp.sum(jnp.tanh(x @ params["w"] + params["b"]) ** 2)
      >>> params = {"w": jnp.array([[0.5], [-1.0]]), "b": jnp.zeros(1)}
      >>> report = check_gradients(loss, params, jnp.ones((3, 2)), show=False)
      >>> report.ok
      True
      >>> report.raise_if_bad()
      >>> print([row.path for row in report.rows])
      ["args[0]['b']", "args[0]['w']"]
    """
    for name, x in {"eps": eps, "rtol": rtol, "max_elements": max_elements}.items():
        if x is not None and not 0 < x < math.inf:
            raise ValueError(f"check_gradients: {name} must be positive and finite, got {x}")
    if atol is not None and not 0 <= atol < math.inf:
        raise ValueError(f"check_gradients: atol must be finite and not negative, got {atol}")
    value, paths, moving, rest = _flattened(fun, args, _argument_numbers(argnums, args), has_aux)
    # In the caller's mode first, so that an error of the function's own is seen as it is.
    compiles, dtype = examined(value, arrays(moving), arrays(rest))
    wide = takes_float64(value, moving, rest)
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        dtype = np.dtype(np.float64) if wide else dtype
        check = _Check(
            value=jax.jit(value) if compiles else value,
            moving=arrays(moving, wide),
            rest=arrays(rest, wide),
            machine_eps=float(jnp.finfo(dtype).eps),
            eps=eps or float(jnp.finfo(dtype).eps) ** (1 / 3),
            rtol=rtol or float(jnp.finfo(dtype).eps) ** 0.4,
            atol=atol,
            max_elements=max_elements,
        )
        gradients = jax.grad(check.value)(check.moving, check.rest)
        here = float(check.value(check.moving, check.rest))
        rng = np.random.default_rng(seed)
        rows = [
            check.row(i, path, np.asarray(gradient), rng)
            for i, (path, gradient) in enumerate(zip(paths, gradients, strict=True))
        ]
    report = GradientReport(tuple(rows), dtype, check.eps, check.rtol, here)
    if show:
        print(report)
    return report


@dataclass(frozen=True)
class _Check:
    """A function of lists of arrays, the point at which it is checked, and the settings."""

    value: Callable[[list[Array], list[Array]], Array]
    moving: list[Array]
    rest: list[Array]
    machine_eps: float
    eps: float
    rtol: float
    atol: float | None
    max_elements: int | None

    def row(self, i: int, path: str, gradient: np.ndarray, rng: np.random.Generator) -> GradientRow:
        """Checks leaf `i`."""
        x = np.asarray(self.moving[i])
        if x.size == 0:
            return GradientRow(path, x.shape, 0, 0.0, None, 0.0, 0.0, True, "empty")
        if self.max_elements is None or x.size <= self.max_elements:
            return self._compared(i, path, x, gradient, np.arange(x.size))[0]
        elements = np.sort(rng.choice(x.size, self.max_elements, replace=False))
        row, size = self._compared(i, path, x, gradient, elements)
        found = self._wrong_element(i, x, gradient, size, rng) if row.ok else None
        if found is None:
            return row
        there, _ = self._compared(i, path, x, gradient, np.array([found]))
        checked = row.checked + 1
        if not there.ok:
            return replace(there, checked=checked)
        return replace(row, checked=checked, ok=False, note="wrong along a random direction")

    def _compared(
        self, i: int, path: str, x: np.ndarray, gradient: np.ndarray, elements: np.ndarray
    ) -> tuple[GradientRow, float]:
        """Returns the row of some elements of a leaf, and the largest value seen."""
        here = self._at(i, x)
        slopes, sizes = zip(*(self._differences(i, x, int(k), here) for k in elements), strict=True)
        central, forward, backward = np.stack(slopes, axis=1)
        analytic = gradient.ravel()[elements].astype(central.dtype)
        size, atol = max(sizes), self.atol
        if atol is None:
            atol = 10 * self.machine_eps ** (2 / 3) * size
        with np.errstate(invalid="ignore"):  # what is not finite is handled below
            off = np.abs(analytic - central)
            floor = np.maximum(np.maximum(np.abs(analytic), np.abs(central)), atol / self.rtol)
            errors = np.divide(off, floor, out=np.zeros_like(off), where=off != 0)
        errors = np.where(np.isfinite(errors), errors, np.inf)
        worst = int(np.argmax(errors))
        a, n = analytic[worst], central[worst]

        right, notes = math.isfinite(here) and bool(errors[worst] <= self.rtol), []
        if not np.isfinite([a, n, here]).all():
            edge = math.isfinite(here) and not np.isfinite(n)
            notes.append("the function is not finite nearby" if edge else "not finite")
        elif not right and _is_between(a, forward[worst], backward[worst], self.rtol):
            notes.append("kink?")
        row = GradientRow(
            path=path,
            shape=x.shape,
            checked=len(elements),
            error=float(errors[worst]),
            index=tuple(map(int, np.unravel_index(elements[worst], x.shape))),
            analytic=a.item(),
            numeric=n.item(),
            ok=right,
            note=", ".join(notes),
        )
        return row, size

    def _differences(self, i: int, x: np.ndarray, k: int, here: float) -> tuple[np.ndarray, float]:
        """Returns the central, forward and backward difference, and the largest value seen."""
        wide = x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)
        h = self.eps * max(1.0, abs(wide.flat[k]))
        slopes, seen = np.zeros(3, wide.dtype), [here]
        for unit in (1, 1j) if np.iscomplexobj(x) else (1,):
            values, steps = [], []
            for sign in (1, -1):
                y = wide.copy()
                y.flat[k] += sign * h * unit
                y = y.astype(x.dtype)
                values.append(self._at(i, y))
                # Rounding may have changed the step.
                steps.append(abs(y.flat[k].astype(wide.dtype) - wide.flat[k]))
            if 0 in steps:
                raise ValueError(
                    f"check_gradients: a step of {h:.1e} does not change {x.flat[k]} in {x.dtype}; "
                    f"eps must be larger than {self.eps:.1e}"
                )
            (above, below), (up, down) = values, steps
            parts = [(above - below) / (up + down), (above - here) / up, (here - below) / down]
            # jax.grad's convention for z = x + i y is df/dx - i df/dy.
            slopes += np.multiply(parts, np.conj(unit))
            seen += values
        return slopes, max((abs(v) for v in seen if math.isfinite(v)), default=0.0)

    def _at(self, i: int, x: ArrayLike) -> float:
        moving = [*self.moving[:i], x, *self.moving[i + 1 :]]
        return float(self.value(moving, self.rest))

    def _wrong_element(
        self,
        i: int,
        x: np.ndarray,
        gradient: np.ndarray,
        size: float,
        rng: np.random.Generator,
    ) -> int | None:
        """Returns an element of leaf `i` with a wrong derivative, or `None` if none is noticed.

        The change of the function along a random direction is compared with the one that the
        gradient predicts. By how much they differ is a sum over the elements, so one half of them
        has at least half of it; halving on leads to an element.
        """
        wide = np.complex128 if np.iscomplexobj(x) else np.float64
        at, slopes = x.astype(wide).ravel(), gradient.astype(wide).ravel()
        # It changes the leaf by `eps` relative to its norm.
        step = self.eps * max(1.0, float(np.linalg.norm(at))) / math.sqrt(x.size)
        direction = step * rng.standard_normal(x.size)
        if wide is np.complex128:
            direction = direction + 1j * step * rng.standard_normal(x.size)

        def difference(elements: np.ndarray) -> tuple[float, float]:
            """Returns the difference, infinite if it is no number, and the predicted change."""
            ends = []
            for sign in (1, -1):
                y = at.copy()
                y[elements] += sign * direction[elements]
                ends.append(y.astype(x.dtype).reshape(x.shape))
            above, below = ends
            # Rounding may have changed the steps. `jax.grad` returns df/dx - i df/dy.
            moved = above.astype(wide).ravel() - below.astype(wide).ravel()
            predicted = float(np.sum(np.real(slopes * moved)))
            off = abs(self._at(i, above) - self._at(i, below) - predicted)
            return (off if math.isfinite(off) else math.inf), abs(predicted)

        elements = np.arange(x.size)
        off, predicted = difference(elements)
        usual = 2 * step * float(np.linalg.norm(slopes))
        if off <= 20 * self.machine_eps * size + self.rtol * (usual + predicted):
            return None
        while len(elements) > 1:
            elements = max(np.array_split(elements, 2), key=lambda half: difference(half)[0])
        return int(elements[0])


def _argument_numbers(argnums: int | Sequence[int], args: Sequence[PyTree]) -> list[int]:
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise ValueError(
                f"check_gradients: argnums has {n}, but the function is given "
                f"{counted(len(args), 'argument')}"
            )
    return sorted({n % len(args) for n in numbers})


def _flattened(
    fun: Callable[..., PyTree], args: tuple[PyTree, ...], chosen: list[int], has_aux: bool
) -> tuple[Callable[[list[Array], list[Array]], Array], list[str], list[Array], list[Array]]:
    """Writes the function as one of two lists of arrays: those to differentiate by, and the rest.

    Returns:
      That function, the paths of the leaves to differentiate by, these leaves, and the rest.
    """
    flat, structure = jax.tree.flatten_with_path(args)
    leaves = [leaf for _, leaf in flat]
    moves = [path[0].idx in chosen for path, _ in flat]
    # Numbers and objects in the other arguments stay as they are: the function may branch on them.
    passed = [
        not m and isinstance(x, (jax.Array, np.ndarray)) for m, x in zip(moves, leaves, strict=True)
    ]
    paths = [f"args{jax.tree_util.keystr(path)}" for path, _ in flat]
    moving_paths = [p for p, m in zip(paths, moves, strict=True) if m]
    moving = [x for x, m in zip(leaves, moves, strict=True) if m]
    rest = [x for x, r in zip(leaves, passed, strict=True) if r]
    for path, leaf in zip(moving_paths, moving, strict=True):
        dtype = getattr(leaf, "dtype", type(leaf))
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"check_gradients: {path} is of type {getattr(dtype, '__name__', dtype)}; only "
                "floating and complex leaves have a gradient"
            )
    if not any(np.size(x) for x in moving):
        told = ", ".join(f"args[{n}]" for n in chosen) or "no argument"
        raise ValueError(f"check_gradients: there is nothing to differentiate by in {told}")

    def value(moving: list[Array], rest: list[Array]) -> Array:
        m, r = iter(moving), iter(rest)
        filled = [
            next(m) if is_moving else next(r) if is_passed else leaf
            for leaf, is_moving, is_passed in zip(leaves, moves, passed, strict=True)
        ]
        result = fun(*jax.tree.unflatten(structure, filled))
        result = jnp.asarray(result[0] if has_aux else result)
        if result.shape != () or not jnp.issubdtype(result.dtype, jnp.floating):
            raise TypeError(
                "check_gradients: the function must return a real floating scalar, got "
                f"{result.dtype}{list(result.shape)}"
            )
        return result

    return value, moving_paths, moving, rest


def _is_between(x: complex, a: complex, b: complex, rtol: float) -> bool:
    """Returns whether `x` is between `a` and `b`, in its real and its imaginary part."""
    slack = rtol * max(abs(a), abs(b))
    return all(
        min(p, q) - slack <= y <= max(p, q) + slack
        for y, p, q in ((x.real, a.real, b.real), (x.imag, a.imag, b.imag))
    )
