"""Tables in plain text and in Markdown, and text in the width of the terminal."""

import itertools
import shutil
import textwrap
from collections.abc import Sequence

GAP = "  "


def terminal_width() -> int:
    """Returns the number of columns of the terminal, 80 without one, and at least 40."""
    return max(shutil.get_terminal_size().columns, 40)


def filled(text: str, width: int) -> str:
    """Wraps each line of a text at spaces, so that it fits into a width.

    Args:
      text: the text.
      width: the width.

    Example:
      >>> from gradtx._table import filled
      >>> print(filled("one two three", 8))
      one two
      three
    """
    return "\n".join("\n".join(_wrapped(line, width)) for line in text.split("\n"))


def text_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: str = "",
    width: int | None = None,
) -> str:
    """Formats cells as a table of plain text.

    Args:
      header: the names of the columns.
      rows: the cells; each row has as many as there are names.
      numbers: one character for each column: `r` aligns it to the right, any other to the left.
        Default: all to the left.
      width: the width into which it should fit: names are wrapped at spaces if that is necessary,
        and then the longest cells. Default: any.

    Example:
      >>> from gradtx._table import text_table
      >>> print(text_table(["name", "n"], [["a", "1"], ["bc", "12"]], " r"))
      name   n
      ----  --
      a      1
      bc    12
      >>> print(text_table(["name", "the source"], [["a", "one of many"]], width=13))
      name  the
            source
      ----  -------
      a     one of
            many
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if width is not None:
        widths = _fitting(lines, widths, width)
    right = numbers.ljust(len(header))
    shown = []
    for line in lines:
        cells = [_wrapped(cell, at_most) for cell, at_most in zip(line, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            shown.append(
                GAP.join(
                    part.rjust(to) if side == "r" else part.ljust(to)
                    for part, to, side in zip(parts, widths, right, strict=True)
                ).rstrip()
            )
        if line is lines[0]:
            shown.append(GAP.join("-" * to for to in widths))
    return "\n".join(shown)


def _wrapped(text: str, width: int) -> list[str]:
    """Returns the lines of a text, at least one; a word that is longer than a line stays whole."""
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _fitting(lines: Sequence[Sequence[str]], widths: list[int], width: int) -> list[int]:
    """Returns the widths of columns that fit into a width, if their words do."""
    room = width - len(GAP) * (len(widths) - 1)
    columns = list(zip(*lines, strict=True))
    least = [
        max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns
    ]
    if sum(widths) > room:
        widths = [
            max(shortest, *map(len, cells)) if cells else shortest
            for shortest, (_, *cells) in zip(least, columns, strict=True)
        ]
    while sum(widths) > room and widths != least:
        longest = max(range(len(widths)), key=lambda i: widths[i] if widths[i] > least[i] else 0)
        widths[longest] -= 1
    return widths


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats cells as a table in Markdown.

    Args:
      header: the names of the columns.
      rows: the cells, in Markdown; each row has as many as there are names.

    Example:
      >>> from gradtx._table import markdown_table
      >>> print(markdown_table(["name", "n"], [["`a`", "1"]]))
      | name | n |
      | --- | --- |
      | `a` | 1 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
