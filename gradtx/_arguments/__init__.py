"""The requirements of arguments, their check where pieces are made, and words for errors.

The annotation of an argument says of what kind it is, its name in which range it is; `ranges` has
one table of these names. `checked` reads both once, for each factory. The values of traced arrays
are never examined.
"""

from gradtx._arguments.calls import misfit as misfit
from gradtx._arguments.descriptions import (
    describe_difference as describe_difference,
    described as described,
    name_of as name_of,
    outlines as outlines,
)
from gradtx._arguments.ranges import (
    DECAY as DECAY,
    FRACTION as FRACTION,
    MEANINGS as MEANINGS,
    MOMENTUM as MOMENTUM,
    NUMBER as NUMBER,
    POSITIVE as POSITIVE,
    RANGES as RANGES,
    Range as Range,
)
from gradtx._arguments.requirements import (
    Requirements as Requirements,
    checked as checked,
    require_transformation as require_transformation,
)
