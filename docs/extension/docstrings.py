"""Docstrings of gradtx as Markdown (MyST)."""

import re
import textwrap

from extension.equations import NoEquation, is_long, latex

TITLES = {
    **{"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"},
    **{"Source": "Source", "Example": "Example", "Examples": "Example"},
}


def sections(doc: str) -> tuple[str, dict[str, str]]:
    """Returns what a docstring says before its sections, and the sections by their names.

    Args:
      doc: the docstring, without indentation.

    Example:
      >>> sections("Adds.\\n\\nArgs:\\n  x: a number.\\n\\nSource: Euclid.")
      ('Adds.', {'Args': 'x: a number.', 'Source': 'Euclid.'})
    """
    parts = re.split(rf"^({'|'.join(TITLES)}):", doc, flags=re.MULTILINE)
    named = {
        name: textwrap.dedent(text.strip("\n")).strip() if text.startswith("\n") else text.strip()
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return parts[0].strip(), named


def escaped(text: str) -> str:
    """Returns prose in which only code between backticks and `*stress*` have a meaning in Markdown.

    Args:
      text: the prose.

    Example:
      >>> print(escaped("2*x of `x*y*z` <here>, *all* of it"))
      2\\*x of `x*y*z` \\<here>, *all* of it
    """
    parts = re.split(r"(`[^`]*`|(?<![\w*])\*\w[^*`]*\*(?![\w*]))", text)
    parts[::2] = [re.sub(r"([*_<\\[{$~])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def linked(text: str) -> str:
    """Returns prose as `escaped` does, with a link for each paper on arXiv.

    Args:
      text: the prose.
    """
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", escaped(text))


def breakable(page: str) -> str:
    """Returns a page in HTML whose title may break between the words of a name.

    Args:
      page: the page.

    Example:
      >>> breakable("<h1>ScaleByAdamState</h1>"), breakable("<h1>scale_by_adam<a>")
      ('<h1>Scale<wbr>By<wbr>Adam<wbr>State</h1>', '<h1>scale_<wbr>by_<wbr>adam<a>')
    """
    between = r"(?<=[_.])(?=\w)|(?<=[a-z])(?=[A-Z])"
    title = r"(?<=<h1>)[\w.]+(?=<)"
    return re.sub(title, lambda name: re.sub(between, "<wbr>", name[0]), page, count=1)


def prose(text: str) -> str:
    """Returns paragraphs, lists and blocks of code or of equations as Markdown.

    Long code between backticks that is an equation gets a line of its own, typeset.

    Args:
      text: the text.
    """
    return "\n\n".join(_block(part) for part in re.split(r"\n\s*\n", text) if part.strip())


def _block(text: str) -> str:
    if all(line.startswith("    ") for line in text.splitlines()):
        code = textwrap.dedent(text)
        try:
            return _display(latex(code))
        except NoEquation:
            return f"```text\n{code}\n```"
    text = re.sub(r"::$", ":", text)
    if re.match(r"\s*([-*]|\d+\.) ", text):
        return escaped_list(text)
    return _with_equations(text)


def escaped_list(text: str) -> str:
    """Returns a list as Markdown: its bullets keep their meaning.

    Args:
      text: the lines of the list.
    """
    lines = re.findall(r"^(\s*(?:[-*] |\d+\. )?)(.*)$", text, re.MULTILINE)
    marks, words = zip(*lines, strict=True)
    told = escaped("\n".join(words)).split("\n")
    return "\n".join(mark + line for mark, line in zip(marks, told, strict=True))


def _with_equations(text: str) -> str:
    parts = re.split(r"`([^`]*)`", text)
    shown = ""
    for i, part in enumerate(parts):
        if i % 2 == 0:
            # after an equation, the punctuation that ended it is not repeated
            if shown.endswith("$$\n\n"):
                part = re.sub(r"^[.,;:]?\s*", "", part)
                part = re.sub(r"^see\b", "See", part)
            shown += linked(part)
            continue
        code = " ".join(part.split())
        try:
            if not is_long(code):
                raise NoEquation
            shown = shown.rstrip() + "\n\n" + _display(latex(code)) + "\n\n"
        except NoEquation:
            shown += f"`{part}`"
    return shown.strip()


def _display(equation: str) -> str:
    return f"$$\n{equation}\n$$"


def items(text: str) -> str:
    """Returns the entries `name: description` of a section as a list in Markdown.

    Args:
      text: the section; further lines of an entry are indented.

    Example:
      >>> print(items("x: a\\n  number.\\ny: another."))
      - **`x`**: a
        number.
      - **`y`**: another.
    """
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    shown = []
    for entry in entries:
        found = re.match(r"([*\w., ]+): (.*)", entry.strip(), re.DOTALL)
        if found:
            name, told = found.groups()
            first, _, rest = told.partition("\n")
            told = textwrap.indent(linked(f"{first}\n{textwrap.dedent(rest)}"), "  ").strip()
            shown.append(f"- **`{name}`**: {told}")
        elif entry.strip():
            shown.append(f"- {escaped(entry.strip())}")
    return "\n".join(shown)


def markdown(doc: str) -> str:
    """Returns a whole docstring as Markdown.

    Args:
      doc: the docstring, without indentation.
    """
    head, named = sections(doc)
    shown = [prose(head)]
    for name, text in named.items():
        title = f"**{TITLES[name]}**"
        if name in ("Args", "Attributes", "Raises"):
            shown.append(f"{title}\n\n{items(text)}")
        elif name.startswith("Example"):
            shown.append(f"{title}\n\n```pycon\n{text}\n```")
        else:
            shown.append(f"{title}: {prose(text)}")
    return "\n\n".join(shown)
