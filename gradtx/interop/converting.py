"""Transformations for libraries that check for optax's own class."""

from typing import TYPE_CHECKING

from gradtx.engine.base import TransformationLike, with_extra_args_support

if TYPE_CHECKING:
    import optax


def to_optax(tx: TransformationLike) -> "optax.GradientTransformationExtraArgs":
    """Returns a transformation as an instance of `optax.GradientTransformationExtraArgs`.

    Its `init` and `update` are those of `tx`, so it computes the same and has the same states. Some
    libraries check the class of the optimizer that they are given, for example `numpyro.infer.SVI`
    and `gpjax.fit`. After `gradtx.as_optax()` this is not needed, because optax's classes are then
    those of gradtx.

    Args:
      tx: a transformation of gradtx, or any pair `(init, update)`.

    Raises:
      ImportError: optax is not installed.

    Example:
      >>> import optax
      >>> import gradtx
      >>> isinstance(gradtx.adam(1e-3), optax.GradientTransformation)
      False
      >>> isinstance(gradtx.to_optax(gradtx.adam(1e-3)), optax.GradientTransformationExtraArgs)
      True
    """
    try:
        import optax
    except ImportError:
        raise ImportError(
            "to_optax: needs optax, which is not installed; install it with: pip install optax"
        ) from None
    return optax.GradientTransformationExtraArgs(*with_extra_args_support(tx))
