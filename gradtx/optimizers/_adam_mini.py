"""Adam-mini: one second moment for each block of parameters."""

import dataclasses
import math
import re
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._roles import Count, Slot, UnsignedStatistic, declared_as
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
)
from gradtx.engine.equality import Value
from gradtx.engine.leafwise import leafwise
from gradtx.engine.made import Freezer, Frozen, Made
from gradtx.engine.numerics import abs_sq, ema, over, ratio
from gradtx.engine.paths import is_none
from gradtx.engine.rules import Slots
from gradtx.optimizers._adam import moment_weights
from gradtx.transforms.combining import chain
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.partitioning import partition
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.filling import real_full_like
from gradtx.tree.walking import path_name

ONE_BLOCK = "one block"


@declared_as("adam_mini")
class AdamMiniState(NamedTuple):
    """The state of `adam_mini`; of each part of it if there are `blocks`.

    Attributes:
      count: the number of steps taken.
      mu: moving average of gradients.
      nu: for each leaf the moving averages of the mean squared gradients of its blocks, real.
    """

    count: Count
    mu: Slot
    nu: UnsignedStatistic


@optimizer(
    "Zhang et al., 'Adam-mini: Use Fewer Learning Rates To Gain More', arXiv:2406.16793",
    family="factored",
    acts_on="leaf",
    probe={"learning_rate": 0.05},
    usual_rate=0.001,
    constants=("blocks",),
)
def adam_mini(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: MaskOrFn | None = None,
    *,
    blocks: Sequence[tuple[str, Sequence[int]]] | None = None,
) -> GradientTransformation:
    """Adam-mini: AdamW with one second moment for each block of parameters, half of its memory.

    `mu = b1*mu + (1-b1)*g; nu = b2*nu + (1-b2)*mean(|g|^2)`, with the mean over a block;
    `p - learning_rate * (mu_hat / (sqrt(nu_hat) + eps) + weight_decay*p)`, with the bias correction
    of `adam`.

    Which parameters form a block decides whether it trains as well as Adam. The paper's rule is
    that a block has one dense part of the Hessian: in a transformer, a head of the queries and of
    the keys; a neuron, which is all weights of one output, of values, other matrices and
    convolutions; and a token of embeddings and of the output layer. By default each leaf is one
    block, which the paper found to be unstable for transformers: state the `blocks` for them.

    Args:
      learning_rate: a number, a scalar array or a schedule; that of AdamW.
      b1: the decay rate of the average of gradients. Default: 0.9.
      b2: the decay rate of the average of mean squares. Default: 0.999; the paper has 0.95.
      eps: added to the root. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      blocks: pairs of a regular expression, which is searched for in the paths of leaves such as
        `layers/0/query/kernel`, and the number of blocks along each axis; -1 for one block for each
        index. The first that is found counts; a leaf without any is one block. Default: `None`, all
        leaves are.

    Raises:
      ValueError: a pattern is not a regular expression, the shape of a leaf does not have these
        blocks, or `update` was called without params.

    Source: Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", arXiv:2406.16793.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> heads = 2
      >>> blocks = [
      ...     ("(query|key)/kernel", (1, heads)),  # Flax's kernels: inputs, outputs
      ...     ("kernel", (1, -1)),
      ...     ("embedding", (-1, 1)),
      ... ]
      >>> tx = gradtx.adam_mini(1e-3, blocks=blocks)
      >>> params = {"embedding": jnp.zeros((9, 4)), "query": {"kernel": jnp.zeros((4, 6))}}
      >>> parts = tx.init(params)[0].inner_states
      >>> print([x.shape for x in jax.tree.leaves([part[0].nu for part in parts.values()])])
      [(1, 2), (9, 1)]
    """
    directions = _scale_by_blocks(b1, b2, eps, None)
    if blocks is not None:
        found = FirstMatch(tuple((_checked(pattern), tuple(n)) for pattern, n in blocks))
        parts: dict[Hashable, GradientTransformation] = {ONE_BLOCK: directions}
        parts |= {pattern: _scale_by_blocks(b1, b2, eps, n) for pattern, n in found.blocks}
        directions = partition(parts, found)
    return chain(
        directions,
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _checked(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as e:
        told = f"blocks must begin with regular expressions, got {pattern!r}: {e}"
        raise ValueError(f"adam_mini: {told}") from None
    return pattern


def _scale_by_blocks(
    b1: Scalar, b2: Scalar, eps: Scalar, blocks: tuple[int, ...] | None
) -> GradientTransformation:
    def init(p: Array) -> Slots:
        nu = jnp.zeros(_counts(p.shape, blocks), p.dtype)
        return Slots(mu=jnp.zeros_like(p), nu=real_full_like(nu, 0))

    def update(g: Array, s: Slots, step: Scalar, p: None) -> tuple[Array, Slots]:
        mu = ema(g, s.mu, b1)
        # each axis as two: the blocks, and the indices in a block
        counts = _counts(g.shape, blocks)
        split = [n for size, k in zip(g.shape, counts, strict=True) for n in (k, size // max(k, 1))]
        inside = tuple(range(1, len(split), 2))
        square = abs_sq(g).reshape(split)
        block = math.prod(split[1::2])
        nu = ema(jnp.sum(square, axis=inside) / max(block, 1), s.nu, b2)
        nu_hat = jnp.expand_dims(over(nu, s.nu_weight), inside)
        nu_hat = jnp.broadcast_to(nu_hat, split).reshape(g.shape)
        return ratio(over(mu, s.mu_weight), nu_hat, eps), Slots(mu=mu, nu=nu)

    return leafwise(AdamMiniState, init, update, per_step=moment_weights(b1, b2), name="adam_mini")


def _counts(shape: tuple[int, ...], blocks: tuple[int, ...] | None) -> tuple[int, ...]:
    """Returns the number of blocks along each axis."""
    if blocks is None:
        return (1,) * len(shape)
    return tuple(size if n == -1 else n for size, n in zip(shape, blocks, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class FirstMatch(Value):
    """A function that returns for each leaf the first regular expression that is in its path.

    Attributes:
      blocks: the regular expressions, each with the number of blocks along each axis.
    """

    blocks: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, tree: Params) -> PyTree:
        """Returns a pytree of patterns, and of `ONE_BLOCK` for leaves without one."""
        leaves, treedef = jax.tree.flatten_with_path(tree, is_leaf=is_none)
        return treedef.unflatten([self._first(path_name(path), x) for path, x in leaves])

    def freeze(self, freezer: Freezer) -> Frozen:
        """Returns its frozen value."""
        return freezer.call(Made(FirstMatch, ((self.blocks,), {})))

    def _first(self, path: str, x: PyTree) -> str:
        for pattern, blocks in self.blocks:
            if x is not None and re.search(pattern, path):
                _check_blocks(path, jnp.shape(x), pattern, blocks)
                return pattern
        return ONE_BLOCK


def _check_blocks(path: str, shape: tuple[int, ...], pattern: str, blocks: tuple[int, ...]) -> None:
    fits = len(shape) == len(blocks) and all(
        n == -1 or (n > 0 and size % n == 0) for size, n in zip(shape, blocks, strict=True)
    )
    if not fits:
        told = "have for each axis a number that divides its size, or -1"
        raise ValueError(
            f"adam_mini: the leaf {path} has shape {shape}, for which the blocks of "
            f"{pattern!r} must {told}, got {blocks}"
        )
