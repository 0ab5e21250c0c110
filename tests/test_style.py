"""What a tool can check of the prose and the types: first words, words to avoid, `Any`, spelling.

Ruff and pyright are in `test_house`.
"""

import ast
import collections
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradtx"
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def place(path):
    """A file or folder relative to the repository."""
    return str(path.relative_to(ROOT))


# ---- First words ------------------------------------------------------------------------------

# A function's docstring begins with what the function does. To use another verb, add it here.
VERBS = """
Accumulates Adapts Adds Adjusts Advances Aggregates Allocates Allows Appends Applies
Approximates Assembles Assigns Attaches Averages Binds Bounds Broadcasts Builds Calculates
Calls Casts Centers Centralizes Centres Chains Changes Checks Chooses Clips Collects
Combines Compares Compiles Completes Composes Computes Concatenates Conjugates Connects
Constrains Continues Converts Copies Corrects Counts Creates Cuts Decays Decides Declares
Decodes Decorates Decreases Defines Deletes Describes Detects Determines Differentiates
Discards Displays Divides Draws Drops Encodes Enters Estimates Evaluates Excludes Expands
Exports Extends Extracts Fills Filters Finds Fits Flattens Follows Formats Freezes Gathers
Generates Groups Halves Handles Holds Identifies Ignores Implements Imports Increases
Increments Initializes Injects Inserts Interpolates Inverts Iterates Joins Keeps Labels
Learns Leaves Lifts Limits Lists Loads Locks Looks Maintains Maps Marks Masks Matches Measures
Merges
Minimizes Mixes Modifies Monitors Moves Multiplies Names Negates Normalizes Numbers Opens
Orders Orthogonalizes Pads Parses Partitions Passes Performs Permutes Prepares Prints
Processes Projects Propagates Quantizes Races Raises Ranks Reads Rebuilds Receives
Recognizes Records Reduces Registers Rejects Removes Renames Reorders Repeats Replaces
Reports Represents Rescales Resets Reshapes Restores Returns Reuses Reverses Rewrites Rises
Rotates Rounds Runs Samples Saves Scales Searches Selects Separates Serializes Sets Shards
Shares Shifts Shortens Shows Shrinks Shuffles Simulates Skips Smooths Solves Sorts Splits
Squares Stacks Starts Stops Stores Subtracts Summarizes Sums Symmetrizes Tests Traces Tracks
Trains Transfers Transforms Transposes Truncates Turns Unflattens Unstacks Updates Uses
Validates Verifies Visits Walks Warns Weights Widens Wraps Writes Yields
"""
# These are vague: "Gives the" is "Returns the", "Says whether" is "Returns whether".
REFUSED = """
Brings Gives Goes Lets Makes Puts Says Takes Tells
How One What When Where Whether Which Who Why
"""
# A property, a constant or a mathematical function is named by a noun with its article.
ARTICLES = {"A", "An", "The", "True"}
# Losses, optimizers and problems are described without one; `Name: ...` is a name anywhere.
NAMED_WITHOUT_ARTICLE = {"losses", "optimizers", "problems"}


def documented(path):
    """The modules, classes and functions of a file that have a docstring, with that docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node, docstring


def begins_well(node, docstring, folder):
    first_line = docstring.partition("\n")[0]
    word = re.split(r"[\s,.:;]", first_line)[0]
    if word in REFUSED.split():
        return False
    if not isinstance(node, FUNCTIONS) or folder in NAMED_WITHOUT_ARTICLE:
        return True
    return word in ARTICLES or word in VERBS.split() or ": " in first_line.partition(". ")[0]


@pytest.mark.parametrize("folder", FOLDERS, ids=place)
def test_docstrings_begin_with_a_verb_or_a_noun(folder):
    wrong = [
        f"{place(path)}:{getattr(node, 'lineno', 1)}: {docstring.partition(chr(10))[0]}"
        for path in sorted(folder.glob("*.py"))
        for node, docstring in documented(path)
        if not begins_well(node, docstring, folder.name)
    ]
    assert not wrong, "\n".join(wrong)


# ---- Words to avoid ---------------------------------------------------------------------------

AVOIDED = [
    *(r"dear", r"bears? well", r"now and then", r"foretold", r"pass(es|ed)? by", r"foreign"),
    *(r"strangers?", r"speaks? for (itself|themselves)", r"go(es)? round", r"an? handful"),
    *(r"(is|are) told(?! apart)", r"hand(s|ed)? on", r"knows?", r"tells", r"somebody('s)?"),
    r"lies(?! (in|on|between|along|within|below|above)\b)",  # what is not geometry "is"
]


def prose(path):
    """All strings and comments of a file, on one line."""
    kinds = {"STRING", "COMMENT", "FSTRING_MIDDLE"}
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    words = [t.string.lstrip("# ") for t in tokens if tokenize.tok_name[t.type] in kinds]
    return re.sub(r"\s+", " ", " ".join(words))


@pytest.mark.parametrize("folder", FOLDERS, ids=place)
def test_words_to_avoid(folder):
    found = [
        f"{place(path)}: ...{text[max(0, m.start() - 40) : m.end() + 30]}..."
        for path in sorted(folder.glob("*.py"))
        for text in [prose(path)]
        for m in re.finditer(rf"\b({'|'.join(AVOIDED)})\b", text, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


# ---- Types ------------------------------------------------------------------------------------


def uses_of_any(path):
    """How often a file says `Any`, where it does not have to: imports, `*args`, `**kwargs`."""
    tree = ast.parse(path.read_text())
    open_ended = {
        id(argument.annotation)
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
        for argument in (node.args.vararg, node.args.kwarg)
        if argument is not None
    }
    return sum(
        isinstance(node, ast.Name) and node.id == "Any" and id(node) not in open_ended
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=place)
def test_few_types_are_any(folder):
    files = sorted(folder.glob("*.py"))
    lines = sum(len(path.read_text().splitlines()) for path in files)
    uses = collections.Counter({path.name: uses_of_any(path) for path in files})
    assert uses.total() <= 0.02 * lines, (
        f"{place(folder)}: {uses.total()} in {lines} lines: {uses.most_common(10)}"
    )


# ---- Spelling ---------------------------------------------------------------------------------


def test_spelling():
    places = ["gradtx", "README.md", "docs", "notebooks", "examples", "benchmarks", "tests"]
    result = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *places],  # set up in pyproject.toml
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
