"""Use with programs and libraries that import optax."""

from gradtx.interop.converting import to_optax as to_optax
from gradtx.interop.importing import as_optax as as_optax
