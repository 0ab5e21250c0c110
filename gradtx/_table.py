"""Tables in plain text and in Markdown."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: str = "") -> str:
    """Formats cells as a table of plain text.

    Args:
      header: the names of the columns.
      rows: the cells; each row has as many as there are names.
      numbers: one character for each column: `r` aligns it to the right, any other to the left.
        Default: all to the left.

    Example:
      >>> from gradtx._table import text_table
      >>> print(text_table(["name", "n"], [["a", "1"], ["bc", "12"]], " r"))
      name   n
      ----  --
      a      1
      bc    12
    """
    lines = [list(header), [], *map(list, rows)]
    widths = [max(len(line[i]) for line in lines if line) for i in range(len(header))]
    lines[1] = ["-" * width for width in widths]
    right = numbers.ljust(len(header))
    return "\n".join(
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


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
