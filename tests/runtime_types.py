"""The type checker that `pytest --runtime-types` applies to every call in the engine and losses."""

from typing import Literal

import beartype

# PEP 484: an `int` is accepted where a `float` is.
checked = beartype.beartype(
    conf=beartype.BeartypeConf(
        is_pep484_tower=True,
        # The function's own error for an unknown option is under test.
        hint_overrides=beartype.FrozenDict({Literal["mean", "sum", "none"]: str}),
    )
)
