"""The roles of a state's fields, and their declaration."""

from gradtx._roles.declaring import (
    Declaration as Declaration,
    declaration_of as declaration_of,
    declaration_of_class as declaration_of_class,
    declared as declared,
    declared_as as declared_as,
)
from gradtx._roles.kinds import (
    KEPT as KEPT,
    UNKNOWN as UNKNOWN,
    Aside as Aside,
    Clock as Clock,
    Count as Count,
    Hyperparameter as Hyperparameter,
    Inner as Inner,
    Kind as Kind,
    Projected as Projected,
    RandomKey as RandomKey,
    Rate as Rate,
    Reading as Reading,
    Role as Role,
    Shared as Shared,
    Slot as Slot,
    Statistic as Statistic,
    Tally as Tally,
    Told as Told,
    UnsignedSlot as UnsignedSlot,
    UnsignedStatistic as UnsignedStatistic,
)
