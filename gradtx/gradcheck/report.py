"""The report of a gradient check, and its table."""

import math
from dataclasses import dataclass

import numpy as np

from gradtx._arguments import counted
from gradtx._table import text_table


@dataclass(frozen=True)
class GradientRow:
    """The result for one leaf.

    Attributes:
      path: the path of the leaf, such as `args[0]['w']`.
      shape: its shape.
      checked: the number of its elements that were compared.
      error: the largest relative error among these, as `check_gradients` defines it.
      index: the index of the element with that error; `None` if nothing was compared.
      analytic: the derivative from `jax.grad` there; complex if the leaf is.
      numeric: the central difference there.
      ok: whether the leaf passed.
      note: a remark, or an empty string.
    """

    path: str
    shape: tuple[int, ...]
    checked: int
    error: float
    index: tuple[int, ...] | None
    analytic: complex
    numeric: complex
    ok: bool
    note: str


@dataclass(frozen=True)
class GradientReport:
    """The result of `check_gradients`; `str(report)` is a table.

    Attributes:
      rows: one for each leaf.
      dtype: the coarsest floating dtype that the function computes in.
      eps: the relative step of the differences.
      rtol: the largest relative error that passes.
      value: the value of the function at the point. If it is not finite, the function has no
        gradient there, and no leaf passes.
    """

    rows: tuple[GradientRow, ...]
    dtype: np.dtype
    eps: float
    rtol: float
    value: float

    @property
    def ok(self) -> bool:
        """Returns whether the function is finite, and every leaf passed."""
        return math.isfinite(self.value) and all(row.ok for row in self.rows)

    def raise_if_bad(self) -> None:
        """Raises an `AssertionError` with the table unless every leaf passed."""
        if not math.isfinite(self.value):
            raise AssertionError(f"check_gradients: {self._no_value()}\n{self}")
        if not self.ok:
            bad = ", ".join(row.path for row in self.rows if not row.ok)
            raise AssertionError(f"check_gradients: wrong gradient at {bad}\n{self}")

    def _no_value(self) -> str:
        return f"the function is {self.value} at the given point, and has no gradient there"

    def __str__(self) -> str:
        """Returns an aligned table, one line a leaf."""
        head = ("path", "shape", "checked", "error", "at", "jax.grad", "numeric", "")
        finite = math.isfinite(self.value)
        table = text_table(head, [_cells(row, finite) for row in self.rows])
        if not finite:
            switch = "jax_debug_nans" if math.isnan(self.value) else "jax_debug_infs"
            return (
                f"{table}\n{self._no_value()}: check another point, or find the operation with\n"
                f'jax.config.update("{switch}", True)'
            )
        bad = sum(not row.ok for row in self.rows)
        wrong = (
            f"{bad} of {counted(len(self.rows), 'leaf', 'leaves')} {'is' if bad == 1 else 'are'}"
        )
        verdict = f"{wrong} wrong" if bad else "all leaves are right"
        how = f"in {self.dtype}, steps of {self.eps:.1e}, errors up to {self.rtol:.1e} pass"
        partly = any(not row.ok and row.checked < math.prod(row.shape) for row in self.rows)
        more = "\nmax_elements=None compares all elements of large leaves" if partly else ""
        return f"{table}\n{verdict} ({how}){more}"


def _cells(row: GradientRow, finite: bool) -> tuple[str, ...]:
    def number(x: complex) -> str:
        return f"{x:.6g}"

    verdict = "ok" if row.ok else "WRONG" if finite else "unknown"
    return (
        row.path,
        str(row.shape),
        f"{row.checked} of {math.prod(row.shape)}",
        f"{row.error:.1e}",
        "" if row.index is None else str(list(row.index)),
        number(row.analytic) if row.checked else "",
        number(row.numeric) if row.checked else "",
        f"{verdict}: {row.note}" if row.note else verdict,
    )
