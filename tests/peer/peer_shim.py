"""Serves `optax` from a package that takes its place, inside of the pytest process.

optax's `*_test.py` files are run unmodified. This file, loaded as a pytest plugin,

* installs a finder at the head of `sys.meta_path` that answers every `optax` and `optax.*` import:
  `*_test` modules and `_src.test_utils` are executed from the sdist, and every other module is a
  synthetic one whose attributes are looked up in the target package;
* loads the test modules through that finder, never through the real `optax/__init__`, so that the
  real optax need not even be installed.

Where a synthetic module looks:

* public module `optax.P`: in `target.P` only;
* top level `optax`: in `target` only;
* private `optax.P._q`: in `target.P.q` if that is a module, then `target.P`, `target`, and the
  other public submodules of the target;
* private `optax._src.q`: in `target`, then its public submodules;
* then among the stand-ins (see `STANDINS`);
* then it is an AttributeError while a test runs, and a placeholder while modules are being imported
  and parameterised, so that a missing name fails the tests that use it and not the whole file.
"""

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import traceback
import types

from peer_common import PUBLIC_SUBMODULES, VERSION

PLUGIN = "peer_shim"


def _standin_x64():
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64  # jax's own context manager
    from jax.experimental import enable_x64

    return enable_x64


def _standin_abs_sq():
    def abs_sq(x):
        import jax.numpy as jnp

        return (
            jnp.square(jnp.real(x)) + jnp.square(jnp.imag(x))
            if jnp.iscomplexobj(x)
            else jnp.square(x)
        )

    return abs_sq


def _standin_any():
    import typing

    return typing.Any


# Names that optax keeps private and its tests use as tooling (objective
# functions, precision switches, annotations), not as the thing under test.
# Independent one-line equivalents; full synthetic name -> factory.
STANDINS = {
    "optax._src.utils.x64_precision": _standin_x64,
    "optax._src.numerics.abs_sq": _standin_abs_sq,
    "optax._src.base.ArrayTree": _standin_any,
    "optax._src.base.PRNGKey": _standin_any,
    "optax._src.base.Shape": _standin_any,
}


class _State:
    target_name = None
    target = None
    sdist = None
    standins_on = True
    running = None  # node id of the running test, None while collecting
    finder = None
    events = {}  # node id (or "<import>") -> {"missing":[], ...}
    keep_alive = []
    target_pulled_optax = False


def _note(kind, name):
    ev = _State.events.setdefault(_State.running or "<import>", {})
    lst = ev.setdefault(kind, [])
    if name not in lst:
        lst.append(name)


def _probe(name):
    """Attributes that pytest and inspect ask any object for."""
    return (name.startswith("__") and name.endswith("__")) or name.startswith(
        ("_mock", "pytest", "_pytest")
    )


class Missing:
    """Placeholder for a name the target lacks, alive only during collection."""

    def __init__(self, name):
        self.__dict__["_peer_name"] = name

    def _fail(self, why=""):
        _note("missing", self._peer_name)
        raise AttributeError(
            f"[peer-shim] {self._peer_name} is missing in {_State.target_name}{why}"
        )

    def __call__(self, *a, **k):
        if _State.running:
            self._fail()
        return Missing(self._peer_name + "(...)")

    def __getattr__(self, name):
        if _probe(name):
            raise AttributeError(name)
        if _State.running:
            self._fail(f" (needed .{name})")
        return Missing(f"{self._peer_name}.{name}")

    def __getitem__(self, item):
        if isinstance(item, int):
            raise TypeError(f"[peer-shim] {self._peer_name} is missing")
        if _State.running:
            self._fail()
        return Missing(self._peer_name + "[...]")

    def __mro_entries__(self, bases):
        return (object,)

    def __or__(self, other):
        return self

    __ror__ = __or__

    __iter__ = None  # not an Iterable, and iterating fails

    def __repr__(self):
        return f"<missing {self._peer_name}>"


def _load_target():
    """Imports the target with the shim out of the way; remembers real optax."""
    st = _State
    if st.target is not None:
        return
    before = {k for k in sys.modules if k == "optax" or k.startswith("optax.")}
    shims = {k: sys.modules.pop(k) for k in before}
    st.finder.disabled = True
    try:
        target = importlib.import_module(st.target_name)
        for sub in PUBLIC_SUBMODULES:
            if not hasattr(target, sub):
                with contextlib.suppress(ImportError):
                    importlib.import_module(f"{st.target_name}.{sub}")
    finally:
        st.finder.disabled = False
        real = [k for k in sys.modules if k == "optax" or k.startswith("optax.")]
        st.target_pulled_optax = bool(real)
        for k in real:
            st.keep_alive.append(sys.modules.pop(k))
        sys.modules.update(shims)
    st.target = target


def _submodule(obj, name):
    """target.P as a module-like namespace, or None."""
    try:
        return getattr(obj, name)
    except AttributeError:
        mod = getattr(obj, "__name__", None)
        if mod and isinstance(obj, types.ModuleType):
            try:
                return importlib.import_module(f"{mod}.{name}")
            except ImportError:
                return None
    return None


def _walk(parts):
    obj = _State.target
    for p in parts:
        obj = _submodule(obj, p)
        if obj is None:
            return None
    return obj


@functools.cache
def _scopes(modname):
    """Target namespaces to search for attributes of synthetic module modname."""
    parts = modname.split(".")[1:]
    if not any(p.startswith("_") for p in parts):
        return [_walk(parts)]
    scopes = []
    if parts[0] != "_src":
        pub = []
        for p in parts:
            if p.startswith("_"):
                break
            pub.append(p)
        inner = _walk([*pub, parts[len(pub)].lstrip("_")])
        if isinstance(inner, types.ModuleType) and inner.__name__.startswith(
            _State.target.__name__ + "."
        ):
            scopes.append(inner)
        scopes.append(_walk(pub))
    scopes.append(_State.target)
    scopes.extend(_walk([s]) for s in PUBLIC_SUBMODULES)
    return scopes


def _resolve(modname, attr):
    for scope in _scopes(modname):
        if scope is None:
            continue
        try:
            return True, getattr(scope, attr)
        except AttributeError:
            continue
    return False, None


class _Version(str):
    """A version string that compares by number ('0.10' > '0.7')."""

    @staticmethod
    def _key(v):
        return [int(x) for x in re.findall(r"\d+", str(v))[:3]]

    def __lt__(self, other):
        return self._key(self) < self._key(other)

    def __ge__(self, other):
        return not self < other

    __hash__ = str.__hash__


class ShimModule(types.ModuleType):
    def __getattr__(self, attr):
        modname = self.__dict__["__name__"]
        if attr == "__version__":
            return VERSION
        if _probe(attr):
            raise AttributeError(attr)
        full = f"{modname}.{attr}"
        if full in sys.modules and isinstance(sys.modules[full], ShimModule):
            return sys.modules[full]
        if _State.finder.kind(full) == "shim":
            return importlib.import_module(full)
        ok, value = _resolve(modname, attr)
        if ok:
            return value
        if _State.standins_on and full in STANDINS:
            _note("standins", full)
            return STANDINS[full]()
        if _State.running:
            _note("missing", full)
            raise AttributeError(f"[peer-shim] {full} is missing in {_State.target_name}")
        if _State.finder.kind(full) == "sdist":
            raise AttributeError(full)  # let `from pkg import mod` import it
        _note("missing", full)
        return Missing(full)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves optax and optax.*: test files from the sdist, the rest synthetic."""

    def __init__(self, sdist):
        self.sdist = sdist
        self.disabled = False

    def _path(self, fullname):
        return os.path.join(self.sdist, *fullname.split("."))

    def kind(self, fullname):
        base = self._path(fullname)
        last = fullname.rsplit(".", 1)[-1]
        if os.path.isdir(base):
            return "shim"
        if os.path.isfile(base + ".py"):
            if last.endswith("_test") or last == "test_utils":
                return "sdist"
            return "shim"
        return None

    def find_spec(self, fullname, path=None, target=None):
        if self.disabled:
            return None
        if fullname != "optax" and not fullname.startswith("optax."):
            return None
        kind = self.kind(fullname)
        if kind == "sdist":
            return importlib.util.spec_from_file_location(fullname, self._path(fullname) + ".py")
        if kind == "shim":
            return importlib.machinery.ModuleSpec(
                fullname, self, is_package=os.path.isdir(self._path(fullname))
            )
        return None

    def create_module(self, spec):
        if spec.name == "optax":
            _load_target()
        return ShimModule(spec.name, "synthetic module (peer shim)")

    def exec_module(self, module):
        pass


if os.environ.get("PEER_TARGET") and __name__ == PLUGIN:
    import pytest

    _OUT = open(os.environ["PEER_OUT"], "a", buffering=1)

    def _emit(**kw):
        _OUT.write(json.dumps(kw) + "\n")

    class _TestModule(pytest.Module):
        def _getobj(self):
            rel = os.path.relpath(str(self.path), _State.sdist)
            name = rel[:-3].replace(os.sep, ".")
            try:
                if rel.endswith("sharding_test.py"):
                    # These tests skip themselves when jax.__version__ < "0.7.2", a text
                    # comparison that is also true of 0.10; compare by number instead.
                    import jax

                    jax.__version__ = _Version(jax.__version__)
                return importlib.import_module(name)
            except pytest.skip.Exception:
                raise
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt):
                    raise
                raise self.CollectError("".join(traceback.format_exception(e)[-12:])) from e

    def pytest_configure(config):
        _State.target_name = os.environ["PEER_TARGET"]
        _State.sdist = os.environ["PEER_SDIST"]
        _State.standins_on = os.environ.get("PEER_STANDINS", "1") == "1"
        _State.finder = Finder(_State.sdist)
        sys.meta_path.insert(0, _State.finder)

    def pytest_collect_directory(path, parent):
        return pytest.Dir.from_parent(parent, path=path)

    def pytest_pycollect_makemodule(module_path, parent):
        return _TestModule.from_parent(parent, path=module_path)

    def pytest_collectreport(report):
        if report.failed:
            _emit(t="collect_error", msg=str(report.longrepr)[-4000:])

    def pytest_deselected(items):
        _emit(t="deselected", ids=[i.nodeid for i in items])

    def pytest_collection_finish(session):
        _emit(
            t="collected",
            ids=[i.nodeid for i in session.items],
            real_optax=_State.target_pulled_optax,
            target_file=getattr(_State.target, "__file__", None),
            jax=str(getattr(sys.modules.get("jax"), "__version__", "?")),
            target_version=str(getattr(_State.target, "__version__", "?")),
        )

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(item, nextitem):
        _State.running = item.nodeid
        _emit(t="start", id=item.nodeid)
        yield
        _emit(t="end", id=item.nodeid, **_State.events.get(item.nodeid, {}))
        _State.running = None

    def pytest_runtest_logreport(report):
        sub = "Subtest" in type(report).__name__
        _emit(
            t="report",
            id=report.nodeid,
            when=report.when,
            sub=sub,
            outcome=report.outcome if not (sub and report.skipped) else "passed",
            s=round(report.duration, 4),
            msg="" if report.passed else str(report.longrepr)[-2500:],
        )

    def pytest_sessionfinish(session, exitstatus):
        _emit(t="finish", exit=int(exitstatus), imports=_State.events.get("<import>", {}))
