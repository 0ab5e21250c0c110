"""The random keys that a transformation derives from the key in its state.

At each step the key is split in two: its child 0 is the key of the next step, and the keys of the
leaves or matrices are derived from child 1. The functions here return further children, so that no
random number is drawn from a key that is used otherwise.
"""

import jax

from gradtx.engine.base import Array


def shared_key(key: Array) -> Array:
    """Returns the random key of a step that all leaves share.

    Args:
      key: the key in the state before the step.
    """
    return jax.random.fold_in(key, 2)


def first_key(key: Array) -> Array:
    """Returns the random key from which those of `init` are derived.

    Args:
      key: the key in the first state.
    """
    return jax.random.fold_in(key, 3)
