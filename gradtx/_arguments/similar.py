"""Names that resemble a misspelt one, for error messages."""

from collections.abc import Iterable

_FAR = 0.4
"""The largest share of a name that may be misspelt."""


def near(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Returns the names that a misspelt one may stand for, the most similar first.

    Those are near whose letters differ in at most two fifths of the places; two neighbours that
    changed places count as one. So are those that begin with the name, or that it begins with, and
    those whose words it abbreviates, as `lr` does `learning-rate`. Upper case and the kind of dash
    do not count.

    Args:
      name: the misspelt name.
      known: the right names.
      count: the largest number of names to return. Default: 1.

    Example:
      >>> from gradtx._arguments import near
      >>> near("adma", ["adam", "adamax", "sgd"], 2), near("--lr", ["--learning-rate", "--clip"])
      (['adam', 'adamax'], ['--learning-rate'])
    """
    far = {other: _distance(_plain(name), _plain(other)) for other in known}
    return sorted((n for n in far if far[n] <= _FAR), key=far.__getitem__)[:count]


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").strip("-")


def _distance(a: str, b: str) -> float:
    """Returns the share of two names that differs."""
    if a == "".join(word[:1] for word in b.split("-")) and len(a) > 1:
        return 0.0
    share = _edits(a, b) / max(len(a), len(b), 1)
    shorter, longer = sorted((a, b), key=len)
    return min(share, _FAR) if len(shorter) > 2 and longer.startswith(shorter) else share


def _edits(a: str, b: str) -> int:
    """Returns how many letters to insert, delete, replace, or swap with their neighbour."""
    rows = [[*range(len(b) + 1)]]
    for i, x in enumerate(a):
        row = [i + 1]
        for j, y in enumerate(b):
            row.append(min(rows[i][j + 1] + 1, row[j] + 1, rows[i][j] + (x != y)))
            if i and j and x == b[j - 1] and y == a[i - 1]:
                row[-1] = min(row[-1], rows[i - 1][j - 1] + 1)
        rows.append(row)
    return rows[-1][-1]
