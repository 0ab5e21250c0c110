"""Descriptions of values and pytrees in error messages."""

import textwrap
from collections.abc import Mapping, Sequence

import jax


def described(x: object) -> str:
    """Returns a description of an argument: its value if that is short, or else its kind."""
    if isinstance(x, (bool, int, float, complex, type(None))):
        return repr(x)
    if isinstance(x, type):
        return x.__name__
    if isinstance(x, (str, bytes)):
        return f"the string {x!r}"
    if hasattr(x, "init") and hasattr(x, "update"):
        return "a transformation"
    if isinstance(x, (list, tuple)) and all(isinstance(y, (int, float)) for y in x[:5]):
        return repr(x) if len(x) < 5 else f"a {type(x).__name__} of {len(x)} numbers"
    if (shape := getattr(x, "shape", None)) is not None:
        return f"an array of shape {shape}" if shape else f"{x}"
    if callable(x):
        return f"the function {name_of(x)}"
    return f"{_article(type(x).__name__)} {type(x).__name__}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with a noun in its singular or plural.

    Args:
      number: the number.
      noun: the noun.
      plural: its plural. Default: the noun and "s".

    Example:
      >>> from gradtx._arguments import counted
      >>> counted(1, "epoch"), counted(2, "epoch"), counted(0, "leaf", "leaves")
      ('1 epoch', '2 epochs', '0 leaves')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def name_of(function: object) -> str:
    """Returns the name of a function or another callable object."""
    return getattr(function, "__name__", type(function).__name__)


def outline(state: object, depth: int = 1) -> str:
    """Returns a description of a state: its type, with its parts down to a depth.

    Args:
      state: a state; types may stand for some of the states in it.
      depth: how many levels of tuples and dicts are described. Default: 1.
    """
    if state is None:
        return "None"
    name = state.__name__ if isinstance(state, type) else type(state).__name__
    if isinstance(state, type) or depth < 1:
        return name
    named = hasattr(state, "_fields")
    if isinstance(state, tuple) and not (named and depth == 1):
        parts = [outline(part, depth - 1) for part in state] or ["nothing"]
        return f"{name} of {', '.join(parts)}"
    if isinstance(state, Mapping) and depth > 1:
        return f"{name} of {', '.join(f'{k}: {outline(v, depth - 1)}' for k, v in state.items())}"
    return name


def outlines(wanted: object, given: object) -> tuple[str, str]:
    """Returns descriptions of two states, as deep as is necessary to tell them apart.

    Args:
      wanted: the state that `init` returns, with types that stand for states.
      given: the other state.
    """
    both = [(outline(wanted, depth), outline(given, depth)) for depth in range(1, 8)]
    pair = next((pair for pair in both if pair[0] != pair[1]), both[-1])
    short = (textwrap.shorten(text, 300, placeholder=" ...") for text in pair)
    first, second = (text if text == "None" else f"{_article(text)} {text}" for text in short)
    return first, second


def _article(word: str) -> str:
    return "an" if word[0] in "AEIOUaeio" else "a"


def paths(tree: object, empty: bool = False, stored: bool = False) -> list[str]:
    """Returns the paths of all leaves, including `None`.

    Args:
      tree: the pytree.
      empty: whether nodes without children are among them. Default: False.
      stored: whether the parts of a node that stands for an array, such as one stored as codes, are
        among them in place of it. Default: False.
    """

    def is_leaf(x: object) -> bool:
        if x is None or (hasattr(x, "__jax_array__") and not stored):
            return True
        return empty and jax.tree.structure(x).num_nodes == 1

    flat, _ = jax.tree.flatten_with_path(tree, is_leaf=is_leaf)
    return [jax.tree_util.keystr(path) for path, _ in flat]


def describe_difference(name_a: str, a: object, name_b: str, b: object) -> str:
    """Returns a sentence on how the structures of two pytrees differ."""
    only_a, only_b = _apart(paths(a), paths(b))
    if not (only_a and only_b):  # they may differ in what is masked
        more_a, more_b = _apart(paths(a, empty=True), paths(b, empty=True))
        only_a, only_b = only_a or more_a, only_b or more_b
    if not (only_a or only_b):  # or in what is stored as codes
        only_a, only_b = _apart(paths(a, stored=True), paths(b, stored=True))
    told = []
    if type(a) is not type(b):
        told.append(f"{name_a} is {described(a)}, {name_b} is {described(b)}")
    if only_a:
        told.append(f"only {name_a} has {_some(name_a, only_a)}")
    if only_b:
        told.append(f"only {name_b} has {_some(name_b, only_b)}")
    if not told:
        told.append(f"{name_a} is {jax.tree.structure(a)}, {name_b} is {jax.tree.structure(b)}")
    if type(a) is not type(b) and name_b in ("the mask", "the labels"):
        told.append(f"gradtx.by_path builds {name_b} for any container")
    return f"{name_a} and {name_b} have different structures: {'; '.join(told)}"


def _apart(a: list[str], b: list[str]) -> tuple[list[str], list[str]]:
    return [x for x in a if x not in set(b)], [x for x in b if x not in set(a)]


def _some(name: str, found: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(f"{name}{p}" for p in found[:most])
    return shown + (f" and {len(found) - most} more" if len(found) > most else "")
