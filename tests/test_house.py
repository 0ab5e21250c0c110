"""The order of the house: who imports whom, what exists, and what is said about it."""

import ast
import functools
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from representatives import ENTRIES, each_build, each_entry
from trees import needed

import gradtx
from gradtx import catalog
from gradtx.__main__ import main

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradtx"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground floor up: a module imports from floors below its own, and within a package from
# its neighbours as long as nothing goes round in a circle. `optimizers` register themselves in
# `catalog`, which therefore lies below them.
LAYERS = (
    "_arguments",
    "_devices",
    "codecs",
    "engine",
    "_roles",
    "_table",
    "tree",
    "tree_utils",
    "numerics",
    "linear_algebra",
    "matrices",
    "_apply",
    "schedules",
    "transforms",
    "linesearch",
    "catalog",
    "optimizers",
    "problems",
    "_minimizing",
    "state",
    "contrib",
    "_distributions",
    "projections",
    "losses",
    "assignment",
    "perturbations",
    "second_order",
    "microbatching",
    "experimental",
    "gradcheck",
    "crosschecking",
    "train",
    "draw",
    "_range_test",
    "racing",
    "interop",
    "__init__",
    "__main__",
    "as_optax",
)

# What a user may write `gradtx.` before: these modules, and names that are no modules.
SUBMODULES = {
    *(
        "assignment",
        "catalog",
        "codecs",
        "contrib",
        "crosschecking",
        "draw",
        "engine",
        "experimental",
    ),
    *("gradcheck", "interop", "linear_algebra", "linesearch", "losses", "matrices"),
    *("microbatching", "numerics", "optimizers", "perturbations", "problems", "projections"),
    *("racing", "schedules", "second_order", "state", "train", "transforms", "tree"),
    "tree_utils",
}


def module_of(path):
    """The name of a file's module, relative to the package: `optimizers.adam`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


NAMES = {module_of(path) for path in FILES}


def layer_of(module):
    return module.split(".")[0]


@functools.cache
def imports_of(path):
    """What a file imports: dotted names, and whether each is imported when the file is."""
    return list(_imports_of(path))


def _imports_of(path):
    tree = ast.parse(path.read_text())
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where things come from"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in lazy


def own_imports(path):
    """The modules of gradtx that a file imports, relative to the package."""
    for name, at_once in imports_of(path):
        if name.split(".")[0] != "gradtx":
            continue
        parts = name.split(".")[1:]
        while parts and ".".join(parts) not in NAMES:
            parts.pop()  # the last part is a name in the module
        yield ".".join(parts) or "__init__", at_once


def by_module(path):
    return module_of(path)


# Run with `python -m`, and never imported: `gradtx.as_optax` is a function.
MODULES = [path for path in FILES if module_of(path) != "as_optax"]


def test_every_module_has_its_floor():
    assert {layer_of(module_of(path)) for path in FILES} <= set(LAYERS)
    there = {layer_of(module_of(path)) for path in FILES}
    assert there >= {"_devices", "engine", "tree", "catalog", "optimizers"}


@pytest.mark.parametrize("path", FILES, ids=by_module)
def test_imports_point_down(path):
    mine = layer_of(module_of(path))
    for module, _ in own_imports(path):
        theirs = layer_of(module)
        if theirs != mine:
            assert LAYERS.index(theirs) < LAYERS.index(mine), f"{module_of(path)} imports {module}"


def test_nothing_imports_in_a_circle():
    """Nor does an import inside of a function."""
    graph = {module_of(p): {module for module, _ in own_imports(p)} for p in FILES}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module in done:
            return
        path.append(module)
        for other in sorted(graph[module]):
            visit(other)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)


@pytest.mark.parametrize("path", FILES, ids=by_module)
def test_foreign_imports(path):
    """JAX without its private parts, NumPy; what the demo needs inside of functions; optax in the
    cross-check and in `interop`."""
    free = set(sys.stdlib_module_names) | {"jax", "numpy", "gradtx"}
    lazily = {"rich", "matplotlib", "sklearn"}
    for name, at_once in imports_of(path):
        top = name.split(".")[0]
        assert "jax._src" not in name and not name.startswith("jaxlib")
        if name.startswith("jax.core"):
            assert name == "jax.core.Tracer"
        if top in free:
            continue
        if top == "optax":
            assert layer_of(module_of(path)) in {"crosschecking", "interop"} and not at_once
        else:
            assert top in lazily and not at_once, f"{module_of(path)} imports {name}"


def printed_by(program):
    """The words that a program prints in a Python of its own."""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return result.stdout.split()


def test_importing_gradtx_needs_jax_and_numpy_only():
    program = (
        "import sys, jax, numpy; before = set(sys.modules); import gradtx; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    new = set(printed_by(program)) - set(sys.stdlib_module_names)
    # what JAX itself loads on demand: its own parts, and what it depends on
    assert new <= {"gradtx", "jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy"}


def test_importing_gradtx_leaves_jax_to_be_set_up():
    """An array made at import would start JAX's backend, and with it fix devices and processes."""
    program = (
        "import gradtx, jax; jax.config.update('jax_num_cpu_devices', 3); "
        "print(len(jax.devices('cpu')))"
    )
    assert printed_by(program) == ["3"]


# ---- Names ------------------------------------------------------------------------------------


def imported(path):
    name = module_of(path)
    return gradtx if name == "__init__" else importlib.import_module(f"gradtx.{name}")


@pytest.mark.parametrize("path", MODULES, ids=by_module)
def test_no_name_hides_a_module(path):
    """After `import gradtx.a.b`, the module is what `gradtx.a.b` gives."""
    module = imported(path)
    assert functools.reduce(getattr, module.__name__.split(".")[1:], gradtx) is module


def test_the_program_as_optax_does_not_hide_the_function():
    with pytest.raises(ImportError, match="is a function"):
        importlib.import_module("gradtx.as_optax")
    assert inspect.isfunction(gradtx.as_optax)


def test_gradtx_shows_its_public_submodules_and_no_others():
    program = (
        "import gradtx, inspect; "
        "print(*(name for name, _ in inspect.getmembers(gradtx, inspect.ismodule)))"
    )
    at_once = printed_by(program)
    assert {name for name in at_once if not name.startswith("_")} == SUBMODULES
    for path in MODULES:  # each becomes an attribute of its package when it is imported
        imported(path)
    later = [name for name, _ in inspect.getmembers(gradtx, inspect.ismodule)]
    assert {name for name in later if not name.startswith("_")} == SUBMODULES


def later_for_type_checkers():
    """The modules of gradtx, and the names from them, that only type checkers import at once."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    blocks = [x for x in tree.body if isinstance(x, ast.If)]
    found: dict[str, tuple[str, ...]] = {}
    for node in (x for block in blocks for x in block.body if isinstance(x, ast.ImportFrom)):
        names = tuple(alias.asname or alias.name for alias in node.names)
        whole = node.module == "gradtx"
        found |= dict.fromkeys(names, ()) if whole else {node.module.split(".")[1]: names}
    return found


def test_what_is_imported_later_is_what_type_checkers_see():
    assert later_for_type_checkers() == gradtx._LATER
    program = "import gradtx, sys; print(*(name for name in sys.modules if 'gradtx' in name))"
    at_once = {name.split(".")[1] for name in printed_by(program) if "." in name}
    assert len(gradtx._LATER) > 10 and not at_once & {*gradtx._LATER}
    assert "optimizers" in at_once


def test_importing_all_of_gradtx_in_traced_code_leaks_no_tracer():
    """A module may be imported in the middle of somebody's program."""
    program = """
import jax, gradtx
def use(x):
    return x + len([getattr(gradtx, name) for name in dir(gradtx)])
with jax.checking_leaks():
    print(jax.jit(use)(0.0) > 300)
import sys
modules = [m for name, m in sys.modules.items() if name.startswith("gradtx")]
print(*(x for m in modules for x in vars(m).values() if isinstance(x, jax.core.Tracer)))
"""
    assert printed_by(program) == ["True"]


def test_an_unknown_name_is_refused_as_in_any_module():
    with pytest.raises(AttributeError, match="module 'gradtx' has no attribute 'adaam'") as error:
        gradtx.adaam  # noqa: B018
    assert error.value.obj is gradtx and error.value.name == "adaam"  # Python suggests `adam`


def test_a_star_imports_all_public_names():
    program = "from gradtx import *; print(*dir())"
    public = {name for name in dir(gradtx) if not name.startswith("_")}
    assert {x for x in printed_by(program) if not x.startswith("_")} == public


def test_few_modules_stand_beside_the_folders():
    assert len([path for path in FILES if path.parent == PACKAGE]) <= 12


UNSAFE = re.compile(
    r"(eval|exec|__import__|(pickle|marshal|dill|shelve|joblib)\.\w*(loads?|open)|pickle\.Unpickler"
    r"|(np|numpy|jnp)\.load|torch\.load|yaml\.\w*load\w*)$"
)


def test_nothing_from_a_file_is_run():
    """What SECURITY.md promises."""
    for path in FILES:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                name = ast.unparse(call.func)
                assert not UNSAFE.match(name), f"{module_of(path)} calls {name}"
                pickles = [k.value for k in call.keywords if k.arg == "allow_pickle"]
                reads = name.endswith(("format.read_array", "format.write_array"))
                assert len(pickles) == reads and all(ast.unparse(v) == "False" for v in pickles)


def test_the_workflow_runs_what_ci_runs_on_every_python():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert "bash .ci/run" in workflow and "bash .ci/package" in workflow
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert f'python: ["3.{oldest[1]}", ' in workflow


def test_the_version_stands_in_one_place():
    assert importlib.metadata.version("gradtx") == gradtx.__version__
    assert f"## {gradtx.__version__}" in (ROOT / "CHANGELOG.md").read_text()


# ---- The engine -------------------------------------------------------------------------------

ENGINE = [path for path in FILES if path.parent.name == "engine"]


def lines_of_code(path):
    """The numbers of a file's lines without blank ones, comments and docstrings."""
    text = path.read_text()
    told = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return [i for i, x in lines if i not in told and x.strip() and not x.strip().startswith("#")]


def test_the_engine_can_be_read_in_one_sitting():
    assert sum(len(lines_of_code(path)) for path in ENGINE) <= 2000


def test_the_map_of_the_engine_has_all_rooms():
    map_ = inspect.getdoc(importlib.import_module("gradtx.engine"))
    rooms = {path.stem for path in ENGINE} - {"__init__"}
    assert rooms == {room for room in rooms if f"`{room}`" in map_ or f"`{room}." in map_}


@pytest.mark.parametrize("path", FILES, ids=by_module)
def test_stacks_are_decomposed_in_one_place(path):
    """In JAX 0.10, others may wait for ever on CPUs; see `gradtx.linear_algebra.decompositions`."""
    called = re.findall(
        r"(?:jnp|lax)\.linalg\.(eigh|eigvalsh|qr|cholesky|triangular_solve)\(", path.read_text()
    )
    assert not called or module_of(path) == "linear_algebra.decompositions"


# ---- The catalog ------------------------------------------------------------------------------

OPTIMIZER_FILES = [p for p in sorted((PACKAGE / "optimizers").glob("*.py")) if p.stem != "__init__"]


@pytest.mark.parametrize("path", OPTIMIZER_FILES, ids=by_module)
def test_every_optimizer_on_disk_is_in_the_catalog(path):
    module = importlib.import_module(f"gradtx.{module_of(path)}")
    public = {
        name
        for name, x in vars(module).items()
        if inspect.isfunction(x) and x.__module__ == module.__name__ and not name.startswith("_")
        if inspect.signature(x).return_annotation is gradtx.GradientTransformation
    }
    registered = {entry.name for entry in ENTRIES if entry.module == module.__name__}
    if not registered:
        families = [p for p in OPTIMIZER_FILES if f"{module.__name__} import" in p.read_text()]
        assert len(families) > 1, f"{path.name} registers no optimizer, and is not shared by any"
        return
    assert {name for name in public if not name.startswith("scale_by_")} == registered


@each_entry
def test_every_optimizer_is_exported(entry):
    assert getattr(gradtx, entry.name) is entry.factory
    assert catalog.get(entry.name) is entry


@pytest.mark.parametrize("path", OPTIMIZER_FILES, ids=by_module)
def test_scale_pieces_and_states_are_exported(path):
    module = importlib.import_module(f"gradtx.{module_of(path)}")
    for name, x in vars(module).items():
        if getattr(x, "__module__", "") != module.__name__ or name.startswith("_"):
            continue
        if name.startswith(("scale_by_", "ScaleBy")):
            assert getattr(gradtx, name) is x, name


@each_entry
def test_every_optimizer_is_documented(entry):
    check_docstring(entry.factory)
    doc = inspect.getdoc(entry.factory)
    # an equation in the code's symbols: what is done to p, or the piece that says it
    assert re.search(r"`[^`]*(\bp\b|=)[^`]*`", doc), "no equation"
    assert entry.summary.endswith(".") and len(entry.summary) < 100
    (source,) = re.findall(r"\nSource: (.*?)\n\n", doc, re.DOTALL)
    assert " ".join(source.split()) == re.sub(r"'(.*?)'(?!s)", r'"\1"', entry.source) + "."
    assert re.search(
        r"arXiv:\d{4}\.\d{4,5}|\((.*, )?(ICLR.*|ICML.*|JMLR.*|COURSERA.*|)\d{4}\)", entry.source
    )


def check_docstring(function):
    doc = inspect.getdoc(function)
    assert doc and "Example:" in doc and ">>> " in doc, "no example"
    parameters = inspect.signature(function).parameters
    if not parameters:
        return
    assert "Args:" in doc, "no arguments"
    args = re.split(r"\n\n|\n\S", doc.split("Args:", 1)[1])[0]
    named = re.findall(r"^  \*{0,2}(\w+): ", args, re.MULTILINE)
    assert named == list(parameters), "the arguments, in their order"
    for name, p in parameters.items():
        if p.default is not p.empty:
            told = re.split(rf"^  {name}: ", args, flags=re.MULTILINE)[1]
            told = re.split(r"^  \w+: ", told, flags=re.MULTILINE)[0]
            assert re.search(r"Default:\s", told), f"the default of {name}"


PIECES = sorted(
    name
    for name in dir(gradtx)
    if inspect.isfunction(getattr(gradtx, name))
    and inspect.signature(getattr(gradtx, name)).return_annotation is gradtx.GradientTransformation
    and name not in catalog.names()
)


@pytest.mark.parametrize("name", PIECES)
def test_every_piece_is_documented(name):
    check_docstring(getattr(gradtx, name))


@pytest.mark.parametrize("name", sorted(n for n in dir(gradtx) if not n.startswith("_")))
def test_every_public_name_has_a_docstring(name):
    thing = getattr(gradtx, name)
    if not (inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isroutine(thing)):
        return  # an alias of a type
    doc = inspect.getdoc(thing)
    assert doc and doc.strip().split("\n")[0].endswith((".", ":")), name
    if inspect.isclass(thing) and hasattr(thing, "_fields"):
        assert "Alias for field" not in doc and not doc.startswith(f"{name}("), "NamedTuple's own"
        for field in thing._fields:
            assert re.search(rf"^  {field}: ", doc, re.MULTILINE), field


def without_docstring(node, path):
    """The public functions, classes and methods of a module or class that have no docstring."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for inner in node.body:
        if isinstance(inner, definitions) and not inner.name.startswith("_"):
            if not ast.get_docstring(inner):
                yield f"{path}.{inner.name}"
            if isinstance(inner, ast.ClassDef):
                yield from without_docstring(inner, f"{path}.{inner.name}")


@pytest.mark.parametrize("path", FILES, ids=by_module)
def test_everything_has_a_docstring(path):
    """Also in modules like `_adam`, which ruff takes for private."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert not [*without_docstring(tree, module_of(path))]


@each_build
def test_every_probe_makes_progress(entry):
    """On a quadratic whose curvatures differ by ten."""
    curvature = jnp.array([1.0, 3.0, 10.0])

    def loss(x):
        return 0.5 * jnp.sum(curvature * (x["w"] - 1.0) ** 2)

    @jax.jit
    def train(params):
        tx = entry.make()

        def step(carry, _):
            params, state = carry
            g = jax.grad(loss)(params)
            updates, state = tx.update(g, state, params, **needed(entry, loss, params, g))
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=200)[0][0]

    start = {"w": jnp.zeros(3)}
    assert loss(train(start)) < 0.05 * loss(start)


@pytest.mark.parametrize(
    ("page", "marker", "command"),
    [
        ("catalog.md", "catalog", ["list", "--markdown"]),
        ("differences.md", "known", ["crosscheck", "--known"]),
    ],
)
def test_the_documentation_shows_what_the_command_prints(page, marker, command, capsys):
    text = (ROOT / "docs" / page).read_text()
    (table,) = re.findall(f"<!-- {marker} -->(.*?)<!-- /{marker} -->", text, re.DOTALL)
    assert main(command) == 0
    assert table.strip() == capsys.readouterr().out.strip()


def test_the_documentation_shows_the_whole_catalog():
    text = (ROOT / "docs" / "catalog.md").read_text()
    (table,) = re.findall(r"<!-- catalog -->(.*?)<!-- /catalog -->", text, re.DOTALL)
    assert sorted(re.findall(r"^\| *`(\w+)`", table, re.MULTILINE)) == catalog.names()


# ---- Style ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_pyright():
    result = subprocess.run(
        [sys.executable, "-m", "pyright"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_source_map_has_every_folder_and_file():
    table = (ROOT / "docs" / "house.md").read_text().split("\n\nThe folders of `tests/`")[0]
    named = set(re.findall(r"`([\w.]+)/?`", table))
    there = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    assert not there - named
