"""The type checker that `pytest --runtime-types` applies to every call in the engine and losses."""

import beartype

# PEP 484: an `int` is accepted where a `float` is.
checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
