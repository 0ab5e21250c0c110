"""The type checker that `pytest --runtime-types` applies to every call in the modules it names."""

from typing import Any, Literal, Self

import beartype

# PEP 484: an `int` is accepted where a `float` is.
checked = beartype.beartype(
    conf=beartype.BeartypeConf(
        is_pep484_tower=True,
        hint_overrides=beartype.FrozenDict(
            {
                # The function's own error for an unknown option is under test.
                Literal["mean", "sum", "none"]: str,
                # Methods are checked one by one, without their class.
                Self: Any,
            }
        ),
    )
)
