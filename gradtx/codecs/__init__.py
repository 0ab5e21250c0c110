"""Codecs: how arrays of a state are stored in fewer bytes.

`floats` has bfloat16 and its like, `eight_bits` and `four_bits` codes in `blocks` that share a
scale. `dither` has the random bits of stochastic rounding. A `Coded` is the node of a state that
stands for an array; rules decode and code it in `gradtx.engine.storage`, and `gradtx.store` does it
for all other transformations.
"""

from gradtx.codecs.codec import Codec as Codec, Parts as Parts
from gradtx.codecs.coded import (
    SEED as SEED,
    Coded as Coded,
    coded_like as coded_like,
    decoded as decoded,
    is_coded as is_coded,
)
from gradtx.codecs.dither import random_bits as random_bits
from gradtx.codecs.floats import nearest as nearest, stochastically as stochastically
from gradtx.codecs.named import (
    CODECS as CODECS,
    SIGNED as SIGNED,
    UNSIGNED as UNSIGNED,
    codec_of as codec_of,
)
