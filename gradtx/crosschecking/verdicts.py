"""The result of a comparison, its verdict, and its table."""

import dataclasses

import numpy as np

from gradtx._table import filled, text_table

AGREEMENT = 1e-10
"""The tolerance on the relative difference in float64, over all steps."""
ROUNDING = (16.0, 16.0)
"""The tolerances on our errors in float32 and in half precision, in ulps."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The differences between two transformations.

    Differences of updates are elementwise, and relative to the largest magnitude of the leaf's
    updates so far. In float64 they are fractions of it, in other dtypes multiples of its unit in
    the last place (ulp) in the leaf's own dtype.

    Attributes:
      name: the name of the comparison.
      float64: the largest relative difference in float64.
      where: the leaf's path and the step of that difference.
      single: the largest difference between the two in float32, in ulps.
      single_errors: the largest error of each in float32 relative to float64, in ulps.
      half_errors: the same for leaves in half precision.
      note: the reason for an expected difference. Default: none.
      agreement: the tolerance on `float64`. Default: 1e-10.
      rounding: the tolerances on our errors in float32 and in half precision, in ulps. Default: 16
        and 16.
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
        """True if the two agree in float64."""
        return self.float64 <= self.agreement

    @property
    def ok(self) -> bool:
        """True if they agree or differ as documented, with the first one's errors in `rounding`."""
        errors = self.single_errors[0], self.half_errors[0]
        rounds_well = all(
            np.isfinite(error) and error <= bound
            for error, bound in zip(errors, self.rounding, strict=True)
        )
        return (self.agrees != bool(self.note)) and rounds_well

    @property
    def verdict(self) -> str:
        """The verdict in a few words."""
        if not self.ok:
            return "DIFFERS at " + self.where if not self.agrees else "FAILS"
        return self.note if self.note else "agrees"

    def __str__(self) -> str:
        return comparison_table([self])


def comparison_table(
    comparisons: list[Comparison],
    names: tuple[str, str] = ("ours", "theirs"),
    width: int | None = None,
) -> str:
    """Formats comparisons as a table of plain text.

    Args:
      comparisons: the rows.
      names: the names of the two sides. Default: "ours" and "theirs".
      width: the number of columns into which it should fit, by wrapping. Default: any.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.crosschecking import comparison_table
      >>> sgd, params = gradtx.sgd(0.1), {"w": jnp.ones(3)}
      >>> row = gradtx.crosscheck(sgd, sgd, params, steps=2, name="sgd")
      >>> comparison_table([row], names=("gradtx", "another")).splitlines()[2].split()
      ['sgd', '0.0e+00', '0.0', ..., 'agrees']
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
    table = text_table(header, rows, " rrrrrr ", width)
    if not any("inf" in row[1:-1] for row in rows):
        return table
    note = (
        "inf: updates that are not finite, or not zero where they should be. Verdicts are about "
        f"float64 and the errors of {ours}; those of {theirs} are for comparison."
    )
    return f"{table}\n\n{note if width is None else filled(note, width)}"


def _ulps(x: float) -> str:
    return f"{x:.1f}" if x < 1e4 else f"{x:.0e}"
