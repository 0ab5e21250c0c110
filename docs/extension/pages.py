"""The pages of the reference, in Markdown: one for each public name, and lists of them."""

import ast
import enum
import inspect
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

from extension import pictures
from extension.docstrings import escaped, linked, markdown
from extension.symbols import GROUPS, PACKAGE, Symbol, public_names
from gradtx import catalog
from gradtx.problems import Problem

ROOT = PACKAGE.parent
ACTS_ON = {"leaf": "a leaf", "tree": "the whole tree"}
INTRODUCTIONS = {
    "optimizers": "Click a column's head to sort by it. *Acts on* says how far the update of an "
    "element depends on other elements, by default: not at all (elements), on those of its leaf, "
    "on those of its matrix (leaves that are no matrices have another rule), or on the whole tree. "
    "*Bytes* are those of the state for each parameter of a 1024 x 1024 matrix in float32; "
    "[less](../memory.md) is possible. *Needs* lists the arguments of `update` besides the "
    "gradients. The [families](#families) are below. Each page has a picture of a descent, of a "
    "1 x 2 matrix and with the setting in which the tests use the optimizer, not a tuned one.",
    "pieces": "[Pieces](../pieces.md) lists them by purpose.",
    "schedules": "A schedule is a function of the step count, which is 0 at the first step.",
    "state": "The pages [State](../state.md), [State in little memory](../memory.md) and "
    "[Many devices](../devices.md) show how these are used.",
    "writing": "The page [Write your own optimizer](../writing.md) shows how these are used.",
    "matrices": "See also the page [Methods on matrices](../matrices.md).",
    "comparing": "See also [Which optimizer, which learning rate?](../choosing.md).",
    "types": "The states of transformations, which are NamedTuples, and types of arguments.",
}


def write(folder: Path) -> None:
    """Writes all pages and pictures into a folder, except for those that are there already.

    Args:
      folder: the folder. Markdown files in it that are no longer made are deleted.
    """
    folder.mkdir(exist_ok=True)
    made = {"index.md": _index()}
    for group in GROUPS:
        members = [symbol for symbol in public_names() if symbol.group == group]
        made[f"{group}.md"] = _group(group, members)
        made |= {f"{symbol.path}.md": _page(symbol) for symbol in members}
    made["examples.md"] = _programs("Example programs", "examples")
    made["benchmarks.md"] = _programs("Benchmarks", "benchmarks")
    for name, text in made.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
    for file in folder.glob("*.md"):
        if file.name not in made:
            file.unlink()
    pictures.write(folder / "pictures")


# ---- Lists --------------------------------------------------------------------------------------


def _index() -> str:
    listed = "\n".join(f"{title} <{group}>" for group, title in GROUPS.items())
    return (
        "# Reference\n\nOne page for each public name: its arguments, equations, source and an "
        f"example that is run by the tests. There are {len(public_names())}.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )


def _group(group: str, members: list[Symbol]) -> str:
    parts = [f"# {GROUPS[group]}", INTRODUCTIONS.get(group, "")]
    if group == "optimizers":
        parts += [_catalog_table(), "## Families", _families()]
        members = []
    by_module: dict[str, list[Symbol]] = {}
    for symbol in members:
        by_module.setdefault(symbol.path.rpartition(".")[0], []).append(symbol)
    for module, found in by_module.items():
        if len(by_module) > 1:
            parts.append(f"## `{module}`")
        rows = [(_link(x), escaped(x.summary).replace("|", r"\|")) for x in found]
        parts.append(_table(("name", "what it does"), rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _link(symbol: Symbol) -> str:
    return f"[`{symbol.name}`]({symbol.path}.md)"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [heads := tuple(heads), ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _catalog_table() -> str:
    heads = ("optimizer", "what it is", "acts on", "bytes", "needs", "year", "family", "paper")
    rows = []
    for entry in catalog.entries():
        facts = facts_of(entry)
        rows.append((f"[`{entry.name}`](gradtx.{entry.name}.md)", entry.summary, *facts.values()))
    return f"````{{container}} sortable\n{_table(heads, rows)}\n````"


def _families() -> str:
    counts = Counter(entry.family for entry in catalog.entries())
    rows = [(name, told, str(counts[name])) for name, told in catalog.FAMILIES.items()]
    return _table(("family", "what its members have in common", "members"), rows)


def facts_of(entry: catalog.Entry) -> dict[str, str]:
    """Returns what the table says of an optimizer, by column, as Markdown.

    Args:
      entry: the optimizer's entry in the catalog.
    """
    needs = ("params",) * entry.needs_params + entry.needs
    return {
        "acts on": ACTS_ON.get(entry.acts_on, entry.acts_on),
        "bytes": f"{bytes_of_state(entry):.2f}",
        "needs": ", ".join(f"`{name}`" for name in needs),
        "year": year(entry.source),
        "family": entry.family,
        "paper": linked(entry.source.replace("|", r"\|")),
    }


def year(source: str) -> str:
    """Returns the year of a publication.

    Args:
      source: the source, as the catalog has it.

    Example:
      >>> year("Kingma and Ba, 'Adam', arXiv:1412.6980"), year("Duchi, 'AdaGrad' (JMLR 2011)")
      ('2014', '2011')
    """
    stated = re.search(r"\((?:[^()]* )?((?:19|20)\d\d)\)", source)
    posted = re.search(r"arXiv:(\d\d)\d\d\.", source)
    return stated[1] if stated else f"20{posted[1]}" if posted else ""


def bytes_of_state(entry: catalog.Entry) -> float:
    """Returns the bytes of an optimizer's state for each parameter of a large matrix.

    Args:
      entry: the optimizer's entry in the catalog.
    """
    params = {"kernel": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
    state = jax.tree.leaves(jax.eval_shape(entry.make().init, params))
    arrays = (x for x in state if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays) / 1024**2


def _programs(title: str, folder: str) -> str:
    parts = [f"---\norphan: true\n---\n\n# {title}", f"The folder `{folder}/` of the repository."]
    for file in sorted((ROOT / folder).iterdir()):
        if file.suffix not in (".py", ".sh"):
            continue
        text = file.read_text()
        doc = (ast.get_docstring(ast.parse(text)) or "") if file.suffix == ".py" else ""
        language = "python" if file.suffix == ".py" else "sh"
        told = escaped(doc.partition("\n")[0])
        code = f"`````{{dropdown}} The program\n````{language}\n{text}\n````\n`````"
        parts.append(f"## `{file.name}`\n\n{told}\n\n{code}")
    return "\n\n".join(parts) + "\n"


# ---- The page of a name -------------------------------------------------------------------------


def _page(symbol: Symbol) -> str:
    parts = [
        "---\norphan: true\n---",
        f"# {symbol.name}",
        f"[Reference](index.md) › [{GROUPS[symbol.group]}]({symbol.group}.md)",
        _described(symbol),
    ]
    if picture := pictures.picture_of(symbol):
        told, file = picture
        parts.append(f"![{told}](pictures/{file})\n\n*{told}*")
    value = symbol.value.fun if isinstance(symbol.value, Problem) else symbol.value
    if code := source(value):
        parts.append(code)
    return "\n\n".join(part for part in parts if part) + "\n"


def _described(symbol: Symbol) -> str:
    body = markdown(symbol.doc) if symbol.doc else ""
    if path := symbol.stands_for:
        body = f"Another name of [`{path}`]({path}.md).\n\n{body}"
    if symbol.is_optimizer:
        body = f"{body}\n\n{_facts(catalog.get(symbol.name))}"
    module, _, name = symbol.path.rpartition(".")
    if isinstance(symbol.value, Problem):
        kind, name = "py:function", f"{name}(x)"
        body = f"{body}\n\n{problem(symbol.value)}"
    elif inspect.isclass(symbol.value) and symbol.doc:
        kind = "py:class"
        name += "" if issubclass(symbol.value, enum.Enum) else signature(symbol.value)
        body = "\n\n".join([body, *_methods(symbol.value)])
    elif inspect.isroutine(symbol.value):
        kind = "py:function"
        name += signature(symbol.value)
    else:
        kind = "py:data"
        if not body:
            body = f"A type: `{str(symbol.value).replace('jax.jaxlib._jax.', 'jax.')}`"
    return f"::::::{{{kind}}} {name}\n:module: {module}\n\n{body}\n::::::"


def _facts(entry: catalog.Entry) -> str:
    facts = facts_of(entry)
    del facts["paper"]
    facts |= {
        "complex parameters": "yes" if entry.takes_complex else "no",
        "scale-free": "yes" if entry.scale_free else "no",
    }
    facts["needs"] = facts["needs"] or "gradients only"
    return _table(facts, [facts.values()])


def problem(x: Problem) -> str:
    """Returns what is known of a test problem and an example, as Markdown.

    Args:
      x: the problem.
    """
    facts = {
        "start": _point(x.start),
        "least value": f"{x.least:g}",
        "where": ", ".join(map(_point, x.minima)) or "not published",
        "values of other local minima": ", ".join(f"{value:g}" for value in x.elsewhere)
        or "none known",
        "saddle points": ", ".join(map(_point, x.saddles)),
    }
    shown = "\n".join(f"- **{name}**: {fact}" for name, fact in facts.items() if fact)
    example = (
        f">>> import jax.numpy as jnp\n>>> import gradtx\n>>> {x.name} = gradtx.problems.{x.name}\n"
        f">>> start = jnp.array({x.name}.start)\n"
        f'>>> print(f"{{{x.name}(start):.4g}}")\n{x(jnp.array(x.start)):.4g}\n'
        f">>> found = gradtx.minimize({x.name}, start)"
    )
    return (
        f"{shown}\n\n**Source**: {linked(x.source)}.\n\n"
        f"**Example**\n\n```pycon\n{example}\n```\n\n"
        "It is a [`Problem`](gradtx.problems.Problem.md); see [`minimize`](gradtx.minimize.md)."
    )


def _point(x: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in x)})"


def _methods(cls: type) -> Iterator[str]:
    for name, x in vars(cls).items():
        function = x.__func__ if isinstance(x, (classmethod, staticmethod)) else x
        if name.startswith("_") or not (inspect.getdoc(function) or "").strip():
            continue
        body = textwrap.dedent(markdown(inspect.getdoc(function) or ""))
        if isinstance(x, property):
            yield f":::::{{py:property}} {name}\n\n{body}\n:::::"
        elif inspect.isfunction(function):
            yield f":::::{{py:method}} {name}{signature(function, method=True)}\n\n{body}\n:::::"


def signature(value: Callable[..., object], *, method: bool = False) -> str:
    """Returns the parameters of a function or class with their defaults, without types.

    Args:
      value: the function or class.
      method: whether to leave out the first parameter. Default: no.
    """
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except ValueError:
        return ""
    shown, star = [], False
    for p in parameters[method:]:
        if p.kind is p.VAR_POSITIONAL:
            star = True
        elif p.kind is p.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        mark = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        default = "" if p.default is p.empty else f"={_default(p.default)}"
        shown.append(f"{mark}{p.name}{default}")
    return f"({', '.join(shown)})"


def _default(value: object) -> str:
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    text = repr(value)
    return text if re.fullmatch(r"[\w.,()\[\]{}'\" +:-]{1,40}", text) else "..."


def source(value: object) -> str:
    """Returns the program of a function or class, without its docstring, behind a button.

    Args:
      value: the function or class; for anything else the result is empty.
    """
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        return ""
    value = inspect.unwrap(value)
    try:
        lines, first = inspect.getsourcelines(value)
        file = Path(inspect.getsourcefile(value) or "").relative_to(ROOT)
    except (OSError, TypeError, ValueError):
        return ""
    code = textwrap.dedent("".join(lines))
    (node,) = ast.parse(code).body
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
    rows = code.splitlines()
    if ast.get_docstring(node) and len(node.body) > 1:
        told = node.body[0]
        rows[told.lineno - 1 : told.end_lineno] = []
    text = "\n".join(rows)
    return f"::::{{dropdown}} Program: `{file}`, line {first}\n```python\n{text}\n```\n::::"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
