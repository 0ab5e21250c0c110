"""Finding the block that repeats in a sequence.

Networks repeat their layers, so the signatures along a tree's leaves repeat too, and one traced
block can serve for all layers.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Block(NamedTuple):
    """A stretch of a sequence that stands several times in a row.

    Attributes:
      start: where it begins.
      length: how long it is.
      times: how often it stands there, one after another.
    """

    start: int
    length: int
    times: int


def repeated_block(sequence: Sequence[Hashable]) -> Block:
    """Gives the block whose repetitions cover most of a sequence, the shortest of such.

    Args:
      sequence: anything that can be compared.

    Example:
      >>> from gradtx.engine.blocks import repeated_block
      >>> repeated_block("xabcabcabcy")
      Block(start=1, length=3, times=3)
    """
    numbers: dict[Hashable, int] = {}
    items = [numbers.setdefault(item, len(numbers)) for item in sequence]
    best = Block(0, len(items), 1)
    covered = 0
    for length in range(1, len(items) // 2 + 1):
        run = 0  # how many items up to here equal the one a block's length before
        for i in range(length, len(items)):
            run = run + 1 if items[i] == items[i - length] else 0
            times = run // length + 1
            if times >= 2 and times * length > covered:
                covered = times * length
                best = Block(i + 1 - covered, length, times)
    return best
