"""What makes the site: equations, docstrings, links; `.ci/thorough` builds it."""

import ast
import doctest
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import gradtx
from gradtx import catalog
from gradtx.problems import more_garbow_hillstrom

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def extension():
    """The modules of the extension that need neither Sphinx nor latex2mathml."""
    package = type(sys)("extension")
    package.__path__ = [str(DOCS / "extension")]
    sys.modules["extension"] = package
    names = ("equations", "docstrings", "symbols", "links", "pictures", "pages")
    for name in names:
        setattr(package, name, importlib.import_module(f"extension.{name}"))
    yield package
    for name in ("extension", *(f"extension.{name}" for name in names)):
        del sys.modules[name]


def test_links_to_folders_lead_to_pages_of_the_reference(extension):
    """On the site; in plain Markdown they lead to the folders themselves."""
    tree = ast.parse((DOCS / "extension" / "__init__.py").read_text())
    (found,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FOLDERS"
    )
    made = {"examples", "benchmarks", *extension.symbols.GROUPS}
    for folder, page in found.items():
        assert (DOCS.parent / folder).is_dir()
        assert page in {f"docs/reference/{name}.md" for name in made}
    assert "](../gradtx/optimizers)" in (DOCS / "catalog.md").read_text()


def test_examples_of_the_extension(extension):
    for name in ("equations", "docstrings", "pages"):
        result = doctest.testmod(getattr(extension, name))
        assert result.attempted and not result.failed


def test_equations_are_typeset_only_where_they_are_equations(extension):
    latex, refused = extension.equations.latex, extension.equations.NoEquation
    assert r"\frac{\hat{\mu}}{\sqrt{\hat{\nu}} + \epsilon}" in latex(
        "mu_hat / (sqrt(nu_hat) + eps)"
    )
    assert r"a - \left(b - c\right)" in latex("a - (b - c)")
    assert r"\left(1 - b_{1}\right) \, \left|g\right|^{2}" in latex("(1-b1) * |g|^2")
    assert r"\sum_{i} \left(y_{i} - a\right)^{2}" in latex("sum((y_i - a)^2, over i)")
    assert r"Q^{\mathsf H} \, \left(a \, b\right)" in latex("Q.H @ (a @ b)")
    assert r"-\log\left(\sum_{a} \prod_{t} {q}_{t, {a}_{t}}\right)" in latex(
        "-log(sum(prod(q[t, a[t]], over t), over a))"
    )
    assert r"\max_{k} \left({s}_{k} + \left[k \ne y\right]\right) - {s}_{y}" in latex(
        "max(s[k] + [k != y], over k) - s[y]"
    )
    assert latex("l, u = f[i](l), 2 - l") == (
        r"\begin{aligned}l, u &= {f}_{i}\left(l\right), 2 - l\end{aligned}"
    )
    assert r"{\mathrm{betas}}_{i} \, \beta_{i}" in latex("betas[i] * beta_i")
    assert r"1 - a_{1} \, \cdots \, a_{n} \quad \text{for } 0 \le t < b" in latex(
        "0 <= t < b: 1 - a_1 * ... * a_n"
    )
    assert latex("|e| <= 1:  loss = e^2\notherwise: loss = |e|") == (
        r"\begin{aligned}\mathrm{loss} &= e^{2} \quad \text{for } \left|e\right| \le 1\\"
        r"\mathrm{loss} &= \left|e\right| \quad \text{otherwise}\end{aligned}"
    )
    assert r"&1 \quad \text{for } t = 0" in latex("t = 0: 1")
    assert latex("a = min(b,\n        c)") == latex("a = min(b, c)")
    for text in (
        *("update(updates, state, params=None)", 'f("x") + 1', "sum x y"),
        *("repeat: x = x / 2", "t: value", "otherwise:"),
        *("f(x, ...)", "a, b", "[a, b]", "..."),
    ):
        with pytest.raises(refused):
            latex(text)
    assert not extension.equations.is_long("scale_by_zoom_linesearch/learning_rate")


def test_blocks_of_docstrings_are_equations_or_loops(extension):
    """What stands apart in the docstring of a public name is typeset, unless it is a loop."""
    plain, typeset = [], 0
    for symbol in extension.symbols.public_names():
        head, _ = extension.docstrings.sections(symbol.doc)
        shown = extension.docstrings.prose(head)
        blocks = re.findall(r"```text\n(.*?)\n```", shown, re.DOTALL)
        plain += [f"{symbol.path}: {text}" for text in blocks if not re.search(r":$", text, re.M)]
        typeset += shown.count("$$") // 2
    assert not plain
    assert typeset > 300


DOCSTRING = """Divides an average by a root.

`mu = b1*mu + (1-b1)*g; mu / (sqrt(nu) + eps)`, where `t` is *not* a*b.

Args:
  b1: the decay rate, see
    arXiv:1412.6980. Default: 0.9.

Source: Kingma, arXiv:1412.6980.

Example:
  >>> 1 + 1
  2
"""


def test_a_docstring_becomes_markdown(extension):
    shown = extension.docstrings.markdown(DOCSTRING.strip()).splitlines()
    paper = "[arXiv:1412.6980](https://arxiv.org/abs/1412.6980)"
    assert shown[2] == shown[4] == "$$" and r"\sqrt{\nu} + \epsilon" in shown[3]
    assert shown[6:8] == [r"where `t` is *not* a\*b.", ""]
    assert shown[10:12] == ["- **`b1`**: the decay rate, see", f"  {paper}. Default: 0.9."]
    assert shown[13] == f"**Source**: Kingma, {paper}."
    assert shown[-4:] == ["```pycon", ">>> 1 + 1", "2", "```"]
    shown = extension.docstrings.markdown("With `e = predictions - targets`::\n\n    loss = e**2")
    assert ":" not in shown and shown.count("$$") == 4


def test_every_public_name_has_its_page(extension):
    symbols = {symbol.path: symbol for symbol in extension.symbols.public_names()}
    public = {
        f"gradtx.{name}" for name, x in inspect.getmembers(gradtx) if not name.startswith("_")
    }
    modules = {f"gradtx.{name}" for name, x in inspect.getmembers(gradtx) if inspect.ismodule(x)}
    assert public - modules <= set(symbols)
    assert "gradtx.losses.dice_loss" in symbols and "gradtx.problems.booth" in symbols
    assert {s.name for s in symbols.values() if s.is_optimizer} == set(catalog.names())
    page = extension.pages._page(symbols["gradtx.adam"])
    for part in ("gradtx.adam", "learning_rate, b1=0.9", "pictures/adam.png", "Program: `gradtx/"):
        assert part in page


def test_every_public_function_has_an_example(extension):
    functions = [s for s in extension.symbols.public_names() if inspect.isroutine(s.value)]
    assert len(functions) > 400
    assert not [s.path for s in functions if ">>>" not in s.doc]


def test_docstrings_refer_to_public_names(extension):
    """What stands between backticks and begins with `gradtx.` can be imported, and has a page."""
    symbols = extension.symbols.public_names()
    paths = {symbol.path for symbol in symbols}
    modules = {path.rpartition(".")[0] for path in paths}
    wrong = []
    for symbol in symbols:
        for found in re.findall(r"`(gradtx\.[\w.]+)", symbol.doc):
            parts = found.split(".")
            public = {".".join(parts[:n]) for n in range(2, len(parts) + 1)} & (paths | modules)
            wrong += [] if public else [f"{symbol.path}: {found}"]
    assert wrong == []


def test_pages_of_other_names_say_so(extension):
    symbols = {symbol.path: symbol for symbol in extension.symbols.public_names()}
    alias = symbols["gradtx.ClipState"]
    assert alias.summary.startswith("Another name of `gradtx.EmptyState`. The state of")
    assert "[`gradtx.EmptyState`](gradtx.EmptyState.md)" in extension.pages._page(alias)
    assert symbols["gradtx.EmptyState"].stands_for is symbols["gradtx.adam"].stands_for is None


MEASURED = {
    "bard": {"y_i": more_garbow_hillstrom._BARD},
    "gaussian": {"y_i": more_garbow_hillstrom._BELL},
    "meyer": {"y_i": more_garbow_hillstrom._MEYER},
    "kowalik_osborne": {
        "y_i": more_garbow_hillstrom._KOWALIK,
        "u_i": more_garbow_hillstrom._KOWALIK_U,
    },
    "osborne": {"y_i": more_garbow_hillstrom._OSBORNE},
}


def value_of_equation(problem, x):
    """What the equation in a problem's docstring says of a point."""
    doc = inspect.getdoc(problem.fun)
    found = re.search(r"^    .*?(?=\n\n)", doc, re.DOTALL | re.MULTILINE)
    text = found[0] if found else re.search(r"`([^`]{20,})`", doc)[1]
    text = re.sub(r"\s*\n\s*\+", " +", text).replace(" +\n", " + ").replace("^", "**")
    text = re.sub(r"\|([^|]+)\|", r"abs(\1)", re.sub(r", over \w\)", ")", text))
    functions = ("exp", "log", "sin", "cos", "sqrt", "arctan2", "abs", "pi")
    names = {name: getattr(np, name) for name in functions}
    names |= {"min": np.minimum, "sum": lambda terms: np.sum(terms, -1)}
    names |= {"x": x, "j": np.arange(len(x)), **dict(zip("abcdef", x, strict=False))}
    if goes := re.search(r"`i` goes from (\d+) to (\d+)", doc):
        names["i"] = np.arange(int(goes[1]), int(goes[2]) + 1)
        if "over j" in doc:
            names["i"] = names["i"][:, None]
    names |= {name: np.array(values) for name, values in MEASURED.get(problem.name, {}).items()}
    *lines, last = text.strip().splitlines()
    for line in lines:
        name, _, code = line.partition(" = ")
        names[name.strip()] = eval(code, names)
    return eval(last.strip(), names)


@pytest.mark.parametrize("name", gradtx.problems.PROBLEMS)
def test_the_equation_of_a_problem_is_its_function(extension, name):
    problem = gradtx.problems.PROBLEMS[name]
    point = np.array(problem.start, np.float64) * 1.01 + 0.01
    with jax.enable_x64(True):
        np.testing.assert_allclose(value_of_equation(problem, point), problem(point), rtol=1e-10)
    symbol = next(
        s for s in extension.symbols.public_names() if s.path == f"gradtx.problems.{name}"
    )
    page = extension.pages._page(symbol)
    for part in ("$$", "**start**", "**least value**", "**Source**", "gradtx.minimize(", "Program"):
        assert part in page
    example = page.partition("```pycon")[2].partition("```")[0].partition(">>> found")[0]
    found = doctest.DocTestParser().get_doctest(example, {}, name, None, None)
    assert not doctest.DocTestRunner().run(found).failed


def test_every_schedule_has_a_picture(extension):
    made = {
        name
        for name, x in inspect.getmembers(gradtx)
        if inspect.isfunction(x) and ".schedules" in x.__module__ and "inject" not in name
    }
    assert made - {"join_schedules"} <= set(extension.pictures.SCHEDULES)


def test_every_source_has_its_year(extension):
    years = {entry.name: extension.pages.year(entry.source) for entry in catalog.entries()}
    assert all(re.fullmatch(r"(19|20)\d\d", year) for year in years.values()), years


def test_the_catalog_says_what_an_optimizer_acts_on_and_its_family(extension):
    facts = {
        name: extension.pages.facts_of(catalog.get(name)) for name in ("lamb", "shampoo", "dog")
    }
    assert [x["acts on"] for x in facts.values()] == ["a leaf", "matrices", "the whole tree"]
    assert facts["lamb"]["family"] == "layer-wise"
    page = extension.pages._group("optimizers", [])
    assert "| Shampoo | preconditioners for the rows and columns of matrices | 7 |" in page


def test_links_that_lead_nowhere_are_found(extension, tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="top"></p><a href="b.html#here">x</a> <a href="b.html#gone">x</a>'
        '<a href="c.html">x</a> <a href="https://arxiv.org">x</a>'
        '<script src="https://example.org/x.js"></script><a href="#top">x</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>')
    (tmp_path / "c.css").write_text('@import "//example.org/font.css";')
    assert sorted(extension.links.faults(tmp_path)) == [
        "a.html: b.html#gone has no such anchor",
        "a.html: c.html leads nowhere",
        "a.html: loads https://example.org/x.js from elsewhere",
        "c.css: loads //example.org/font.css from elsewhere",
    ]


def test_exercises_have_solutions_that_are_hidden():
    for path in (DOCS.parent / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        told = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        hidden = [cell for cell in cells if "hide-cell" in cell["metadata"].get("tags", ())]
        assert hidden and "xercise" in told, path.name
        pictures = [o for cell in cells for o in cell.get("outputs", ()) if "image/png" in str(o)]
        assert pictures, path.name
