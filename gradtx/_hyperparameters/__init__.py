"""What the arguments of optimizers and pieces must be, and the check where these are made.

The annotation of an argument says of what kind it is, its name in which range it is; `ranges` has
one table of these names. `checked` reads both once, for each factory. The values of traced arrays
are never examined.
"""

from gradtx._hyperparameters.ranges import MEANINGS as MEANINGS, RANGES as RANGES, Range as Range
from gradtx._hyperparameters.requirements import (
    Requirements as Requirements,
    checked as checked,
    described as described,
)
