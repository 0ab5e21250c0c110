"""Values from JSON: of the declared type, or an error that names the field."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import pytest

from gradtx.train.decoding import decode, parse_json


class Point(NamedTuple):
    x: float
    label: str | None
    tags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    points: dict[str, Point]
    size: int | Literal["full"] = 3
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    done: bool = False


def test_values_of_every_type():
    value = parse_json('{"points": {"a": {"x": 1, "label": null, "tags": ["s"]}}, "size": "full"}')
    assert decode(Plan, value, "plan") == Plan({"a": Point(1.0, None, ("s",))}, "full")
    assert type(decode(Plan, value, "plan").points["a"].x) is float
    assert decode(Plan, {"points": {}, "more": {"k": [None]}, "done": True}, "plan").done
    assert decode(tuple[float | None, ...], [1, None], "x") == (1.0, None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"plan must be a mapping, got \[\]"),
        ({}, "plan must have the fields points, size, more, done; it lacks points, and has none"),
        ({"points": {}, "a": 1, "b": 1}, "it lacks none, and has a, b in excess"),
        ({"points": {"a": {"x": 1}}}, r"plan\.points\.a must have .* it lacks label"),
        (
            {"points": {"a": {"x": "1", "label": ""}}},
            "x must be a finite number, got '1'",
        ),
        ({"points": {"a": {"x": True, "label": ""}}}, "x must be a finite number, got True"),
        ({"points": {"a": {"x": math.nan, "label": ""}}}, "x must be a finite number, got nan"),
        ({"points": {"a": {"x": -math.inf, "label": ""}}}, "x must be a finite number, got -inf"),
        (
            {"points": {"a": {"x": 10**400, "label": ""}}},
            "x must be a finite number, got 10",
        ),
        ({"points": {"a": {"x": 1, "label": 2}}}, "label must be a string or null, got 2"),
        ({"points": {"a": {"x": 1, "label": "", "tags": "s"}}}, "tags must be a list, got 's'"),
        (
            {"points": {"a": {"x": 1, "label": "", "tags": [1]}}},
            r"tags\[0\] must be a string",
        ),
        ({"points": {}, "size": 2.0}, r"size must be an integer or one of \('full',\), got 2\.0"),
        ({"points": {}, "size": "half"}, r"size must be an integer or one of .*, got 'half'"),
        ({"points": {}, "size": True}, "size must be an integer or one of .*, got True"),
        ({"points": {}, "done": 1}, "done must be true or false, got 1"),
    ],
)
def test_other_values_are_named(value, words):
    with pytest.raises(ValueError, match=words):
        decode(Plan, value, "plan")


@pytest.mark.parametrize("text", ["", "{", b"\xff", "1" * 10_000, '{"a":' * 100_000, "[" * 100_000])
def test_what_is_not_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
