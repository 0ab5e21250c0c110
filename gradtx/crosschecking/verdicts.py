"""What a comparison found, whether it passes, and how it is shown."""

import dataclasses

import numpy as np

from gradtx._table import text_table

AGREEMENT = 1e-10
"""The largest relative difference in float64 that passes, over all steps."""
ROUNDING = (16.0, 16.0)
"""The largest errors of ours that pass, in float32 and in half precision, in ulps."""


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
