"""Comparing public names and signatures with optax's."""

import functools
import importlib
import inspect
import json
import os
import re
import sys
import types
import warnings

from peer_common import API, DEVIATIONS, load_json, target_paths


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


_KINDS = {
    "POSITIONAL_ONLY": "pos",
    "POSITIONAL_OR_KEYWORD": "std",
    "VAR_POSITIONAL": "*args",
    "KEYWORD_ONLY": "kw",
    "VAR_KEYWORD": "**kw",
}


def norm_default(v):
    if v is inspect.Parameter.empty:
        return None
    if isinstance(v, (types.FunctionType, types.BuiltinFunctionType, type)):
        return v.__name__
    if v.__class__.__name__ == "partial":
        return "partial"
    name = getattr(v, "__name__", None)
    if isinstance(name, str):
        return name
    if hasattr(v, "name") and hasattr(v, "value") and not isinstance(v, str):
        return f"{type(v).__name__}.{v.name}"
    r = repr(v)
    r = re.sub(r" at 0x[0-9a-f]+", "", r)
    return re.sub(r"\b[a-zA-Z_][\w]*(\._?\w+)+\.(?=\w)", "", r)


def signature(obj):
    try:
        sig = inspect.signature(obj)
    except (TypeError, ValueError):
        return None
    return [[p.name, _KINDS[p.kind.name], norm_default(p.default)] for p in sig.parameters.values()]


def describe(obj):
    d = {}
    if inspect.isclass(obj):
        d["kind"] = "class"
        if hasattr(obj, "_fields"):
            d["kind"] = "namedtuple"
            d["fields"] = list(obj._fields)
            d["defaults"] = {
                k: norm_default(v) for k, v in getattr(obj, "_field_defaults", {}).items()
            }
        elif hasattr(obj, "__members__"):
            d["kind"] = "enum"
            d["fields"] = list(obj.__members__)
        elif getattr(obj, "_is_protocol", False):
            d["kind"] = "protocol"
        else:
            d["sig"] = signature(obj)
        if d["kind"] != "protocol":
            d["methods"] = {
                n: signature(getattr(obj, n))
                for n in dir(obj)
                if not n.startswith("_")
                and callable(getattr(obj, n, None))
                and not (d["kind"] == "namedtuple" and hasattr(tuple, n))
                and n not in ("_make", "_replace")
                and d["kind"] != "enum"
            }
            if d["kind"] == "class":
                d["attrs"] = [
                    n
                    for n in dir(obj)
                    if not n.startswith("_") and not callable(getattr(obj, n, None))
                ]
    elif isinstance(obj, types.ModuleType):
        d["kind"] = "module"
    elif (
        callable(obj)
        and not getattr(obj, "__module__", "").startswith("typing")
        and type(obj).__module__ != "typing"
        and not isinstance(obj, types.GenericAlias)
        and not isinstance(obj, getattr(types, "UnionType", ()))
    ):
        d["kind"] = "function"
        d["sig"] = signature(obj)
    else:
        d["kind"] = "alias"
    return d


def is_noise(name, obj, pkg):
    """Names that are public only by accident (imports, typing)."""
    if isinstance(obj, types.ModuleType):
        mod = obj.__name__
        return not (mod == pkg or mod.startswith(pkg + "."))
    if isinstance(obj, functools.partial):
        return is_noise(name, obj.func, pkg)
    mod = getattr(obj, "__module__", None)
    if isinstance(mod, str) and (inspect.isclass(obj) or inspect.isfunction(obj)):
        return not (mod == pkg or mod.startswith(pkg + "."))
    return bool(
        isinstance(mod, str)
        and mod.split(".")[0]
        in ("typing", "collections", "functools", "absl", "jax", "jaxlib", "numpy")
        and type(obj).__name__
        not in ("_UnionGenericAlias", "_CallableGenericAlias", "_GenericAlias")
    )


def public_api(pkg):
    """{dotted module: {name: description}} for a real, importable package."""
    out, queue, seen = {}, [(pkg, importlib.import_module(pkg))], set()
    while queue:
        dotted, mod = queue.pop(0)
        if dotted in seen:
            continue
        seen.add(dotted)
        # __all__ is authoritative where the module is also private-named
        # (experimental.aggregating); elsewhere optax's __all__ are incomplete.
        names = set(getattr(mod, "__all__", ()))
        names |= {n for n in vars(mod) if not n.startswith("_")}
        entry = {}
        for n in sorted(names):
            try:
                obj = getattr(mod, n)
            except AttributeError:
                continue
            if is_noise(n, obj, pkg):
                continue
            if isinstance(obj, types.ModuleType):
                # only true sub-modules (possibly under a private file name), not
                # modules that happen to be imported there
                if obj.__name__ in (f"{mod.__name__}.{n}", f"{mod.__name__}._{n}"):
                    queue.append((f"{dotted}.{n}", obj))
                continue
            entry[n] = describe(obj)
            if n not in vars(mod):
                entry[n]["deprecated"] = True
        table = getattr(mod, "_deprecations", None)
        if isinstance(table, dict):
            for n, (_, repl) in table.items():
                if repl is not None:
                    entry.setdefault(n, describe(repl))["deprecated"] = True
        out[dotted[len(pkg) :].lstrip(".")] = entry
    return out


def sig_diff(a, b):
    """Differences between reference signature a and target's b."""
    if a is None or b is None:
        return []
    out = []
    na, nb = [p[0] for p in a], [p[0] for p in b]
    has_kw = any(p[1] == "**kw" for p in b)
    has_var = any(p[1] == "*args" for p in b)
    db = {p[0]: p for p in b}
    for n, kind, default in a:
        if n not in db:
            if kind in ("*args", "**kw"):
                if not any(p[1] == kind for p in b):
                    out.append(f"no {kind}")
            elif has_kw:
                out.append(
                    f"{n}: only through **kw"
                    + (" (positional before)" if kind != "kw" and not has_var else "")
                )
            else:
                out.append(f"lacks parameter {n}")
            continue
        if db[n][2] != default:
            out.append(f"default of {n}: {default} -> {db[n][2]}")
        if kind != db[n][1]:
            out.append(
                f"kind of {n}: {kind} -> {db[n][1]}" + (" (wider)" if db[n][1] == "std" else "")
            )
    pa = [p[0] for p in a if p[1] in ("pos", "std") and p[0] in db]
    pb = [p[0] for p in b if p[1] in ("pos", "std") and p[0] in na]
    if pa != pb and sorted(pa) == sorted(pb):
        out.append(f"positional order: {pa} -> {pb}")
    for n, kind, default in b:
        if n not in na and kind not in ("*args", "**kw"):
            out.append(
                f"extra parameter {n}" + (" (required)" if default is None else f"={default}")
            )
    pos_a = [p[0] for p in a if p[1] in ("pos", "std")]
    pos_b = [p[0] for p in b if p[1] in ("pos", "std")]
    for i, n in enumerate(pos_b[: len(pos_a)]):
        if n not in pos_a:
            out.append(f"extra positional {n} at {i} shifts later ones")
            break
    del nb
    return out


def describe_diff(a, b):
    out = []
    if "fields" in a and list(a["fields"]) != list(b.get("fields", [])):
        out.append(f"fields {a['fields']} -> {b.get('fields')}")
    if a.get("defaults", {}) != b.get("defaults", {}) and "fields" in b:
        out.append(f"field defaults {a.get('defaults')} -> {b.get('defaults')}")
    if a["kind"] in ("function", "class") and a.get("sig") is not None:
        if b["kind"] not in ("function", "class", "namedtuple"):
            out.append(f"kind {a['kind']} -> {b['kind']}")
        out += sig_diff(a["sig"], b.get("sig"))
    for m, s in a.get("methods", {}).items():
        if m not in b.get("methods", {}):
            out.append(f"lacks method {m}")
        else:
            out += [f"method {m}: {x}" for x in sig_diff(s, b["methods"][m])]
    for m in a.get("attrs", ()):
        if m not in b.get("attrs", ()) and m not in b.get("methods", {}):
            out.append(f"lacks attribute {m}")
    return out


def api(args):
    for p in reversed(target_paths(args)):
        sys.path.insert(0, p)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    warnings.simplefilter("ignore")
    if args.record_api:
        ref = public_api("optax")
        with open(API, "w") as g:
            json.dump({"optax": args.version, "modules": ref}, g, indent=0, sort_keys=True)
        print(f"wrote {API}")
    ref = load_json(API, None)
    if ref is None:
        sys.exit(f"{API} is missing; make it with --api --record-api where optax is installed")
    ref = ref["modules"]
    target = importlib.import_module(args.target)
    report = {"missing": {}, "differs": {}, "deprecated_missing": {}}
    n_all = n_have = n_same = 0
    for dotted, names in ref.items():
        obj = target
        for part in [p for p in dotted.split(".") if p]:
            obj = _submodule(obj, part) if obj is not None else None
        for n, ra in names.items():
            if ra.get("deprecated"):
                if obj is None or not hasattr(obj, n):
                    report["deprecated_missing"].setdefault(dotted, []).append(n)
                continue
            n_all += 1
            if obj is None or not hasattr(obj, n):
                report["missing"].setdefault(dotted, []).append(n)
                continue
            n_have += 1
            diff = describe_diff(ra, describe(getattr(obj, n)))
            if diff:
                report["differs"].setdefault(dotted, {})[n] = diff
            else:
                n_same += 1
    print(
        f"# {args.target} against optax {args.version}: has {n_have} of "
        f"{n_all} public names, {n_same} with the same signature"
    )
    for d, ns in report["missing"].items():
        whole = " (ALL)" if len(ns) == sum(not v.get("deprecated") for v in ref[d].values()) else ""
        print(
            f"\nmissing in {('.' + d) if d else 'top level'}: {len(ns)}{whole}\n  " + ", ".join(ns)
        )
    for d, ns in report["deprecated_missing"].items():
        print(
            f"\n(deprecated in optax, missing in "
            f"{('.' + d) if d else 'top level'}): " + ", ".join(ns)
        )
    for d, ns in report["differs"].items():
        print(f"\nsignature differences in {('.' + d) if d else 'top level'}:")
        for n, diff in ns.items():
            print(f"  {n}: " + "; ".join(diff))
    known = load_json(DEVIATIONS, {"api": {}})["api"]
    found = {f"{d}.{n}".lstrip(".") for d, ns in report["differs"].items() for n in ns}
    for name in sorted(found - set(known)):
        print(f"# not in deviations.json: {name}")
    for name in sorted(set(known) - found):
        print(f"# deviations.json lists a name that does not differ: {name}")
    report["counts"] = {"public": n_all, "have": n_have, "same": n_same}
    if args.json:
        with open(args.json, "w") as g:
            json.dump(report, g, indent=1)
    return 0 if not report["missing"] and found == set(known) else 1
