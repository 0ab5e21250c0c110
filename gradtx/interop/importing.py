"""Imports of gradtx by the name `optax`."""

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from gradtx.interop.private import PRIVATE

VERSION = "0.2.8"
"""The version of optax whose public names gradtx has."""


def as_optax() -> None:
    """Replaces optax by gradtx in every later `import optax` of this process.

    Call it before the imports of libraries that import optax themselves; or run an unchanged
    program with `python -m gradtx.as_optax program.py`, or a module with `-m module`. Then

    - `optax` and its public modules, such as `optax.contrib` and `optax.losses`, contain the names
      of gradtx; optax's classes are gradtx's, so checks with `isinstance` succeed;
    - the private modules `optax._src.*` contain all names of `gradtx` and the private ones that
      published programs use; `optax.contrib._muon` and the like contain the names of their package;
    - `optax.__version__` and `importlib.metadata.version("optax")` are the version of optax that
      gradtx corresponds to, whether optax is installed or not.

    Calling it again changes nothing. Child processes need their own call.

    Raises:
      RuntimeError: optax is already imported.

    Example:
      >>> import optax
      >>> import gradtx
      >>> gradtx.as_optax()
      Traceback (most recent call last):
        ...
      RuntimeError: as_optax: optax is already imported, from ...; call gradtx.as_optax() before
      anything that imports optax
    """
    loaded = sys.modules.get("optax")
    if loaded is not None and not isinstance(getattr(loaded, "__loader__", None), _Importer):
        raise RuntimeError(
            f"as_optax: optax is already imported, from {getattr(loaded, '__file__', 'memory')}; "
            "call gradtx.as_optax() before anything that imports optax"
        )
    if not any(isinstance(finder, _Importer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Importer())


class _Importer(DistributionFinder, Loader):
    """Finds and loads `optax` and its modules, and finds its metadata."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if _names(fullname) is None:
            return None
        spec = ModuleSpec(fullname, self, origin=__file__, is_package=True)
        spec.has_location = True  # so that error messages name this file
        return spec

    def exec_module(self, module: ModuleType) -> None:
        def submodule(name: str) -> ModuleType:
            """Imports a module that is used as an attribute, without an import of its own."""
            fullname = f"{module.__name__}.{name}"
            if name.startswith("__") or _names(fullname) is None:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return importlib.import_module(fullname)

        vars(module).update(_names(module.__name__) or {}, __getattr__=submodule)

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        if context.name is None or context.name.lower() == "optax":
            yield _Metadata()


class _Metadata(Distribution):
    """The metadata of a distribution named optax."""

    def read_text(self, filename: str) -> str | None:
        text = f"Metadata-Version: 2.1\nName: optax\nVersion: {VERSION}\n"
        return text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        return Path(__file__).parent / path


def _names(fullname: str) -> Mapping[str, object] | None:
    """Returns what a module of optax contains; `None` if there is no such module."""
    top, *path = fullname.split(".")
    if top != "optax":
        return None
    match path:
        case []:
            return {**_public("gradtx"), "__version__": VERSION}
        case ["_src"]:
            return {}
        case ["_src", name] if not name.startswith("_"):
            return {**_public("gradtx"), **PRIVATE.get(name, {})}
        case [*package, name] if package and name.startswith("_"):
            found = _names(".".join([top, *package]))
            return found and {**found, **PRIVATE.get(".".join(path), {})}
        case _ if not any(name.startswith("_") for name in path):
            try:
                return _public(".".join(["gradtx", *path]))
            except ImportError:
                return None
    return None


def _public(name: str) -> dict[str, object]:
    """Returns the public names of a module of gradtx, without its submodules."""
    names = inspect.getmembers(importlib.import_module(name))
    return {n: x for n, x in names if not n.startswith("_") and not isinstance(x, ModuleType)}
