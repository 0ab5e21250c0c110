"""Decoding JSON into values of declared types, so that a file is checked before it is used."""

import dataclasses
import json
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def parse_json(text: str | bytes) -> Any:
    """Parses JSON.

    Args:
      text: the text, or its UTF-8 bytes.

    Raises:
      ValueError: the text is not JSON, or nested too deeply.

    Example:
      >>> from gradtx.train.decoding import parse_json
      >>> parse_json("[" * 100_000)
      Traceback (most recent call last):
      ...
      ValueError: the JSON is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def decode(kind: type[_T], value: Any, name: str) -> _T:
    """Converts a value from JSON to a type, and checks it on the way.

    Args:
      kind: the type: `bool`, `int`, `float` (a finite number), `str`, `None`, `Any`, a `Literal`, a
        union, `tuple[X, ...]`, a mapping from strings, a NamedTuple or a dataclass. Fields with a
        default may be missing.
      value: the value, from `parse_json`.
      name: the name of the value, for messages.

    Raises:
      ValueError: the value does not have this type; the message names the field.

    Example:
      >>> from typing import NamedTuple
      >>> from gradtx.train.decoding import decode
      >>> class Point(NamedTuple):
      ...     at: tuple[float, ...]
      ...     label: str | None = None
      >>> decode(Point, {"at": [1, 2.5]}, "point")
      Point(at=(1.0, 2.5), label=None)
      >>> decode(Point, {"at": [1, "x"]}, "point")
      Traceback (most recent call last):
      ...
      ValueError: point.at[1] must be a finite number, got 'x'
    """
    return _decode(kind, value, name)


def _decode(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if kind in _WORDS:
        return _scalar(kind, value, name)
    if origin is Literal:
        return _require(value in arguments, value, name, f"one of {arguments}")
    if origin in (Union, types.UnionType):
        return _union(arguments, value, name)
    if origin is tuple:
        _require(isinstance(value, list), value, name, "a list")
        return tuple(_decode(arguments[0], x, f"{name}[{i}]") for i, x in enumerate(value))
    _require(isinstance(value, dict), value, name, "a mapping")
    if origin in (dict, Mapping):
        return {key: _decode(arguments[1], x, f"{name}.{key}") for key, x in value.items()}
    return _fields(kind, value, name)


_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
    str: "a string",
    type(None): "null",
}


def _scalar(kind: type, value: Any, name: str) -> Any:
    if kind is float:
        right = type(value) in (int, float) and abs(value) <= sys.float_info.max
        return float(_require(right, value, name, _WORDS[kind]))
    return _require(type(value) is kind, value, name, _WORDS[kind])


def _union(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    errors = []
    for kind in kinds:
        try:
            return _decode(kind, value, name)
        except ValueError as error:
            errors.append(str(error).removeprefix(f"{name} must be "))
    reasons = [*(error.partition(", got ")[0] for error in errors[:-1]), errors[-1]]
    raise ValueError(f"{name} must be {' or '.join(reasons)}")


def _fields(kind: Any, value: dict[str, Any], name: str) -> Any:
    hints = get_type_hints(kind)
    needed = hints.keys() - _defaults(kind)
    missing, unknown = sorted(needed - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        raise ValueError(
            f"{name} must have the fields {', '.join(hints)}; it lacks "
            f"{', '.join(missing) or 'none'}, and has {', '.join(unknown) or 'none'} in excess"
        )
    return kind(**{key: _decode(hints[key], x, f"{name}.{key}") for key, x in value.items()})


def _defaults(kind: Any) -> set[str]:
    """Returns the names of the fields of a NamedTuple or a dataclass that have a default."""
    if not dataclasses.is_dataclass(kind):
        return {*kind._field_defaults}
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return {f.name for f in fields if not f.default is f.default_factory is missing}


def _require(right: bool, value: Any, name: str, what: str) -> Any:
    if not right:
        shown = repr(value)
        raise ValueError(f"{name} must be {what}, got {shown[:60]}{'...' * (len(shown) > 60)}")
    return value
