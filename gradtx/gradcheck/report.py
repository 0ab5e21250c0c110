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
    """

    rows: tuple[GradientRow, ...]
    dtype: np.dtype
    eps: float
    rtol: float

    @property
    def ok(self) -> bool:
        """Returns whether every leaf passed."""
        return all(row.ok for row in self.rows)

    def raise_if_bad(self) -> None:
        """Raises an `AssertionError` with the table unless every leaf passed."""
        if not self.ok:
            bad = ", ".join(row.path for row in self.rows if not row.ok)
            raise AssertionError(f"check_gradients: wrong gradient at {bad}\n{self}")

    def __str__(self) -> str:
        """Returns an aligned table, one line a leaf."""
        head = ("path", "shape", "checked", "error", "at", "jax.grad", "numeric", "")
        table = text_table(head, [_cells(row) for row in self.rows])
        bad = sum(not row.ok for row in self.rows)
        wrong = (
            f"{bad} of {counted(len(self.rows), 'leaf', 'leaves')} {'is' if bad == 1 else 'are'}"
        )
        verdict = f"{wrong} wrong" if bad else "all leaves are right"
        how = f"in {self.dtype}, steps of {self.eps:.1e}, errors up to {self.rtol:.1e} pass"
        partly = any(not row.ok and row.checked < math.prod(row.shape) for row in self.rows)
        more = "\nmax_elements=None compares all elements of large leaves" if partly else ""
        return f"{table}\n{verdict} ({how}){more}"


def _cells(row: GradientRow) -> tuple[str, ...]:
    def number(x: complex) -> str:
        return f"{x:.6g}"

    verdict = "ok" if row.ok else "WRONG"
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
