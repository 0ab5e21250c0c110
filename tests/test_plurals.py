"""Numbers in messages have nouns in their singular or plural."""

import re
from pathlib import Path

import jax.numpy as jnp
import pytest

import gradtx
from gradtx._arguments import counted

PACKAGE = Path(gradtx.__file__).parent
NOUNS = "|".join((
    "arguments|axes|batches|boundaries|bytes|classes|dimensions|epochs|examples|gradients|images",
    "labels|leaves|losses|names|rates|runs|schedules|seeds|steps|values",
))  # fmt: skip
WRITTEN = re.compile(rf"\{{[^{{}}]*\}} ({NOUNS})\b")
NEVER_ONE = {
    "{d} leaves",  # a dtype
    "{4 + 4 * ndim} bytes",
    "{announced} bytes",  # more than 2**28
    "{len(rates)} rates",  # after the case of one
    "{more} rates",  # "smaller" or "larger"
    "{p.ndim} axes",  # those of batches and classes, and those of pixels
    "{seeds} seeds",  # after the case of one
}


def test_counted():
    assert counted(1, "epoch") == "1 epoch"
    assert counted(0, "epoch") == "0 epochs"
    assert counted(2, "leaf", "leaves") == "2 leaves"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: gradtx.join_schedules([gradtx.constant_schedule(1.0)], [5]), "1 schedule and 1 b"),
        (
            lambda: gradtx.check_gradients(jnp.sum, (jnp.ones(2),), argnums=3),
            "is given 1 argument$",
        ),
    ],
)
def test_one_is_singular(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_the_result_of_minimize_counts():
    found = gradtx.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2), max_steps=1)
    assert "after 1 step, 2 values and 2 gradients" in str(found)


def test_numbers_that_may_be_one_are_counted():
    """A number and a plural in one literal, as in `f"{n} steps"`, would say "1 steps"."""
    odd = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.lstrip().startswith("#") or 'f"' not in line:
                continue
            odd += [
                f"{path.name}:{number}: {found.group()}"
                for found in WRITTEN.finditer(line)
                if found.group() not in NEVER_ONE
            ]
    assert not odd, "\n".join(odd)
