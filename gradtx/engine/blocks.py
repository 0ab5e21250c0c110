"""Repeated blocks in a sequence.

Networks repeat their layers, so that the signatures of the leaves repeat too, and one traced
block can serve for all layers.
"""

import functools
import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

MANY = 16
"""The largest number of leaves in a piece of several blocks. Each piece is one call."""


class Block(NamedTuple):
    """A part of a sequence that occurs several times in a row.

    Attributes:
      start: the index of its first occurrence.
      length: its length.
      times: the number of its occurrences in a row.
    """

    start: int
    length: int
    times: int


def repeated_block(sequence: Sequence[Hashable]) -> Block:
    """Returns the block whose repetitions cover most of a sequence, the shortest of several.

    If nothing repeats, it is the whole sequence, once.

    Args:
      sequence: a sequence of hashable values.

    Example:
      >>> from gradtx.engine.blocks import repeated_block
      >>> repeated_block("xabcabcabcy")
      Block(start=1, length=3, times=3)
    """
    numbers: dict[Hashable, int] = {}
    items = np.array([numbers.setdefault(item, len(numbers)) for item in sequence], np.int32)
    best, covered, n = Block(0, len(items), 1), 0, len(items)
    for length in range(1, n // 2 + 1):
        if covered >= n // length * length:
            continue  # no repetitions of this length cover more
        alike = items[length:] == items[:-length]
        # For two blocks in a row, `length` pairs in a row are equal. A test of a few of them rules
        # out nearly all lengths.
        apart = max(1, length // 8)
        seen, few = alike[apart - 1 :: apart], length // apart
        if not np.all([seen[k : len(seen) - few + 1 + k] for k in range(few)], axis=0).any():
            continue
        ends = np.flatnonzero(np.diff(alike, prepend=False, append=False))
        runs = ends[1::2] - ends[::2]
        covers = (runs // length + 1) * length * (runs >= length)
        longest = int(np.argmax(covers)) if len(covers) else 0
        if len(covers) and covers[longest] > covered:
            covered = int(covers[longest])
            best = Block(int(ends[2 * longest]), length, covered // length)
    return best


@functools.lru_cache(maxsize=8)  # for repeated calls of `init`
def pieces(sequence: Hashable) -> list[tuple[int, int]]:
    """Cuts a sequence into few different pieces: repeated blocks, and single items.

    Args:
      sequence: a tuple of hashable values.

    Returns:
      The start and the end of each piece.

    Example:
      >>> from gradtx.engine.blocks import pieces
      >>> pieces("xabcabcabcy")
      [(0, 1), (1, 4), (4, 7), (7, 10), (10, 11)]
    """
    assert isinstance(sequence, Sequence)
    block = repeated_block(sequence)
    if block.times < 2:
        return [(i, i + 1) for i in range(len(sequence))]
    end = block.start + block.length * block.times
    together = max(1, MANY // block.length) * block.length
    together = together if 2 * together <= end - block.start else block.length
    whole = block.start + (end - block.start) // together * together
    cuts = [
        *range(block.start),
        *range(block.start, whole, together),
        *range(whole, end, block.length),
        *range(end, len(sequence) + 1),
    ]
    return list(itertools.pairwise(cuts))
