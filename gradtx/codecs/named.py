"""The built-in codecs by name."""

from gradtx.codecs import eight_bits, floats, four_bits
from gradtx.codecs.codec import Codec

CODECS = {
    found.name: found
    for module in (floats, eight_bits, four_bits)
    for found in vars(module).values()
    if isinstance(found, Codec)
}


UNSIGNED = {codec: CODECS[f"u{name}"] for name, codec in CODECS.items() if f"u{name}" in CODECS}
"""For each signed codec the unsigned one with as many bits and the same rounding."""

SIGNED = {unsigned: signed for signed, unsigned in UNSIGNED.items()}
"""For each unsigned codec the signed one with as many bits and the same rounding."""


def codec_of(codec: str | Codec, function: str) -> Codec:
    """Returns a codec.

    Args:
      codec: the codec, or the name of a built-in one.
      function: the name of the caller, for errors.

    Raises:
      ValueError: `codec` is something else, or there is no codec of that name.

    Example:
      >>> from gradtx.codecs import codec_of
      >>> codec_of("int8", "store").name
      'int8'
      >>> codec_of("int9", "store")
      Traceback (most recent call last):
      ...
      ValueError: store: a codec must be a Codec or among bfloat16, ...
    """
    if isinstance(codec, Codec):
        return codec
    if not isinstance(codec, str) or codec not in CODECS:
        raise ValueError(
            f"{function}: a codec must be a Codec or among {', '.join(CODECS)}, got {codec!r}"
        )
    return CODECS[codec]
