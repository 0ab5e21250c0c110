"""Settings given as text, `key=value`, checked against the function that takes them."""

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from gradtx.train.errors import TrainingError

_WORDS = {"none": None, "null": None, "true": True, "false": False}


def parse_settings(flag: str, texts: Iterable[str]) -> dict[str, Any]:
    """Reads `key=value` texts: numbers, `true`, `false`, `none`, and otherwise words.

    Args:
      flag: the option that they were given by, for messages.
      texts: the texts.

    Raises:
      TrainingError: a text is not of this form, or a key comes twice.

    Example:
      >>> from gradtx.train import parse_settings
      >>> parse_settings("--set", ["b1=0.8", "nesterov=true", "period=3", "mask=none"])
      {'b1': 0.8, 'nesterov': True, 'period': 3, 'mask': None}
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and key and value):
            raise TrainingError(f"{flag} wants key=value, got {text!r}")
        if key in settings:
            raise TrainingError(f"{flag} gives {key} twice: {show(settings[key])} and {value}")
        settings[key] = _value(value)
    return settings


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def show(value: Any) -> str:
    """Writes a value as it would be given: `none`, `true`, `0.1`."""
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")


def options_of(function: Callable[..., Any], reserved: Iterable[str] = ()) -> dict[str, Any]:
    """Gives the parameters of a function that settings may name, with their defaults.

    Args:
      function: the function.
      reserved: parameters that are not for settings.
    """
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in reserved
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def check_settings(
    flag: str, owner: str, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Checks settings against the options that there are, and against their defaults' types.

    Args:
      flag: the option that they were given by, for messages.
      owner: whose settings they are, for messages.
      settings: the settings.
      options: the valid keys and their defaults.

    Raises:
      TrainingError: a key is not valid, or a value of the wrong type; the message lists the valid
        keys.
    """
    for key, value in settings.items():
        if key not in options:
            near = difflib.get_close_matches(key, options, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise TrainingError(
                f"{flag} {key}={show(value)}: {owner} has no setting {key!r}{hint}; it has "
                f"{', '.join(options) or 'none'}"
            )
        wanted = _wanted(key, value, options[key])
        if wanted:
            raise TrainingError(f"{flag} {key}={show(value)}: {owner}'s {key} must be {wanted}")


def _wanted(key: str, value: Any, default: Any) -> str | None:
    """Says what a value should have been, or nothing if it is right."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, str):
        return None if isinstance(value, str) else f"a word, such as {default}"
    if "dtype" in key:
        return None if value is None or _is_dtype(value) else "a dtype, such as bfloat16, or none"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        return None if number else f"a number, such as {show(default)}"
    # There is no default to go by.
    return None if not isinstance(value, str) else "a number, true, false or none"


def _is_dtype(value: Any) -> bool:
    try:
        jnp.dtype(value)
    except TypeError:
        return False
    return isinstance(value, str)
