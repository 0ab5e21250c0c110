"""Settings given as text, `key=value`, checked against the signature of their function."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from gradtx._arguments import near
from gradtx.train.errors import TrainingError

Setting = bool | int | float | str | None
"""A value given as text."""

_WORDS = {"none": None, "null": None, "true": True, "false": False}


def parse_settings(flag: str, texts: Iterable[str]) -> dict[str, Setting]:
    """Parses texts `key=value`; a value is a number, `true`, `false`, `none`, or else a string.

    Args:
      flag: the command-line option, for messages.
      texts: the texts.

    Raises:
      TrainingError: a text is not of this form, or a key is given twice.

    Example:
      >>> from gradtx.train import parse_settings
      >>> parse_settings("--set", ["b1=0.8", "nesterov=true", "period=3", "mask=none"])
      {'b1': 0.8, 'nesterov': True, 'period': 3, 'mask': None}
    """
    settings: dict[str, Setting] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and key and value):
            raise TrainingError(f"{flag} must be key=value, got {text!r}")
        if key in settings:
            raise TrainingError(f"{flag} gives {key} twice: {show(settings[key])} and {value}")
        settings[key] = _value(value)
    return settings


def _value(text: str) -> Setting:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def show(value: Setting) -> str:
    """Formats a value as it is given on the command line: `none`, `true`, `0.1`."""
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")


def options_of(function: Callable[..., Any], reserved: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the parameters of a function that settings may name, with their defaults.

    Args:
      function: the function.
      reserved: parameters that settings may not name. Default: none.
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
    """Checks settings against the valid keys, and against the types of their defaults.

    Args:
      flag: the command-line option, for messages.
      owner: the optimizer or schedule, for messages.
      settings: the settings.
      options: the valid keys and their defaults.

    Raises:
      TrainingError: a key is not valid, or a value has the wrong type; the message lists the
        valid keys.
    """
    for key, value in settings.items():
        if key not in options:
            similar = near(key, options)
            hint = f" (did you mean {similar[0]}?)" if similar else ""
            raise TrainingError(
                f"{flag} {key}={show(value)}: {owner} has no setting {key!r}{hint}; it has "
                f"{', '.join(options) or 'none'}"
            )
        wanted = _wanted(key, value, options[key])
        if wanted:
            raise TrainingError(f"{flag} {key}={show(value)}: {owner}'s {key} must be {wanted}")


def _wanted(key: str, value: Setting, default: Any) -> str | None:
    """Returns what a value should have been, or `None` if it is valid."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, str):
        return None if isinstance(value, str) else f"a word, such as {default}"
    if "dtype" in key:
        return None if value is None or _is_dtype(value) else "a dtype, such as bfloat16, or none"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        return None if number else f"a number, such as {show(default)}"
    # There is no default whose type could be compared.
    return None if not isinstance(value, str) else "a number, true, false or none"


def _is_dtype(value: Setting) -> bool:
    if not isinstance(value, str):
        return False
    try:
        jnp.dtype(value)
    except TypeError:
        return False
    return True
