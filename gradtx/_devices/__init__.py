"""Shardings that are part of an array's type, and exchanges of matrices between devices.

JAX keeps the sharding of an array over the explicit axes of a mesh in the array's type, also while
it traces. The functions here read it there.
"""

from gradtx._devices.dividing import divided as divided
from gradtx._devices.placing import (
    placed as placed,
    placed_like as placed_like,
    placed_with as placed_with,
    typed_like as typed_like,
    undivided as undivided,
    whole as whole,
)
from gradtx._devices.types import (
    Axes as Axes,
    axes_of as axes_of,
    explicit_axes as explicit_axes,
    explicit_mesh as explicit_mesh,
    explicit_types as explicit_types,
    explicitly as explicitly,
    named_mesh as named_mesh,
    over_automatic_axes as over_automatic_axes,
    over_explicit_axes as over_explicit_axes,
    partition_spec as partition_spec,
    placed_as as placed_as,
    shardings_of as shardings_of,
)
