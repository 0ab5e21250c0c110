"""The requirements of arguments, the check of each call of a factory, and descriptions for errors.

The annotation of an argument determines its kind, and its name determines its range, by the table
in `ranges`. `Requirements` reads both, once for each factory. The values of traced arrays are never
examined.
"""

from gradtx._arguments.axes import MisfitError as MisfitError, axes_within as axes_within
from gradtx._arguments.calls import misfit as misfit, negative as negative
from gradtx._arguments.descriptions import (
    counted as counted,
    describe_difference as describe_difference,
    described as described,
    name_of as name_of,
    outlines as outlines,
)
from gradtx._arguments.ranges import (
    COUNT as COUNT,
    DECAY as DECAY,
    FRACTION as FRACTION,
    MEANINGS as MEANINGS,
    MOMENTUM as MOMENTUM,
    NOT_NEGATIVE as NOT_NEGATIVE,
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
from gradtx._arguments.similar import near as near
