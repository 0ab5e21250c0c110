"""What is public in gradtx: every name that `gradtx` or one of its modules exports."""

import ast
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import gradtx
from gradtx import catalog

PACKAGE = Path(gradtx.__file__).parent
SKIPPED = {"contrib", "tree_utils", "optimizers", "transforms", "schedules", "linear_algebra"}
"""Modules whose names `gradtx` exports, or that repeat them under optax's names."""

GROUPS = {
    "optimizers": "Optimizers",
    "pieces": "Pieces: transformations and wrappers",
    "schedules": "Schedules",
    "state": "Reading, saving and placing states",
    "losses": "Losses",
    "projections": "Projections",
    "tree": "Arithmetic on pytrees",
    "writing": "Writing rules",
    "matrices": "Matrices and linear algebra",
    "comparing": "Comparing, checking and minimizing",
    "draw": "Pictures",
    "train": "Training",
    "other": "Other functions",
    "types": "Types of states",
}
"""The titles of the groups of names, by the name of their page."""

_OF_MODULE = {
    **dict.fromkeys(("transforms", "optimizers", "linesearch", "as_optax"), "pieces"),
    **dict.fromkeys(("schedules",), "schedules"),
    **dict.fromkeys(("state", "codecs", "interop", "_roles", "_devices"), "state"),
    **dict.fromkeys(("losses",), "losses"),
    **dict.fromkeys(("projections",), "projections"),
    **dict.fromkeys(("tree",), "tree"),
    **dict.fromkeys(("engine", "numerics", "catalog", "_arguments"), "writing"),
    **dict.fromkeys(("linear_algebra", "matrices"), "matrices"),
    **dict.fromkeys(("crosschecking", "gradcheck", "racing", "_range_test"), "comparing"),
    **dict.fromkeys(("_minimizing", "problems", "second_order"), "comparing"),
    **dict.fromkeys(("draw",), "draw"),
    **dict.fromkeys(("train",), "train"),
}


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A public name.

    Attributes:
      path: the name with its module, such as `gradtx.adam`.
      value: what it stands for.
    """

    path: str
    value: object

    @property
    def name(self) -> str:
        """The name without its module."""
        return self.path.rpartition(".")[2]

    @property
    def doc(self) -> str:
        """The docstring, that of the function for a test problem, empty for aliases of types."""
        if isinstance(self.value, gradtx.problems.Problem):
            return inspect.getdoc(self.value.fun) or ""
        described = inspect.isroutine(self.value) or inspect.isclass(self.value)
        own = (getattr(self.value, "__module__", "") or "").startswith("gradtx")  # not typing.Any
        return (inspect.getdoc(self.value) or "") if described and own else ""

    @property
    def stands_for(self) -> str | None:
        """The public path of the class or function of which it is another name, if it is one."""
        own = getattr(self.value, "__name__", self.name)
        if own == self.name or self.is_optimizer:
            return None
        return next(
            (s.path for s in public_names() if s.name == own and s.value is self.value), None
        )

    @property
    def is_optimizer(self) -> bool:
        """True if it is in the catalog."""
        return self.path == f"gradtx.{self.name}" and self.name in catalog.names()

    @property
    def summary(self) -> str:
        """The first line of the docstring, after the name that it stands for."""
        first = self.doc.partition("\n")[0]
        return f"Another name of `{self.stands_for}`. {first}" if self.stands_for else first

    @property
    def group(self) -> str:
        """The name of the page that lists it."""
        if self.is_optimizer:
            return "optimizers"
        ends = self.name.endswith(("State", "Info", "Fn"))
        if inspect.isclass(self.value) and (ends or self.summary.startswith("The state of")):
            return "types"
        module = self.path.split(".")[1] if self.path.count(".") > 1 else _home(self.value)
        return _OF_MODULE.get(module, "other")


def _home(value: object) -> str:
    """Returns the folder or module of `gradtx` that defines something."""
    module = getattr(value, "__module__", "") or ""
    return module.split(".")[1] if module.startswith("gradtx.") else ""


def exported(module: ModuleType) -> Iterator[str]:
    """Yields the names that a module defines, or exports by `import x as x`.

    Args:
      module: the module.
    """
    file = inspect.getsourcefile(module)
    assert file is not None
    for node in ast.parse(Path(file).read_text()).body:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.asname == alias.name)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name


@functools.cache
def public_names() -> tuple[Symbol, ...]:
    """Returns all public names, each once, sorted by path."""
    found: dict[str, Symbol] = {}
    of_top = {name: x for name, x in inspect.getmembers(gradtx) if not name.startswith("_")}
    for name, x in of_top.items():
        if not inspect.ismodule(x):
            found[f"gradtx.{name}"] = Symbol(f"gradtx.{name}", x)
    for name, module in of_top.items():
        if not inspect.ismodule(module) or name in SKIPPED:
            continue
        module = importlib.import_module(f"gradtx.{name}")
        for inner in exported(module):
            x = getattr(module, inner)
            documented = inspect.isroutine(x) or inspect.isclass(x)
            known = documented or isinstance(x, gradtx.problems.Problem)
            if not known or inspect.ismodule(x) or of_top.get(inner) is x:
                continue
            found[f"gradtx.{name}.{inner}"] = Symbol(f"gradtx.{name}.{inner}", x)
    return tuple(found[path] for path in sorted(found, key=str.lower))
