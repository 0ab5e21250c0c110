"""A language model as the problem of a race: a small transformer on Python's own help texts."""

import math
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._arguments import counted
from gradtx.engine.base import Array, Params, PyTree
from gradtx.losses import softmax_cross_entropy_with_integer_labels
from gradtx.racing.grid import Problem
from gradtx.racing.problems import digest
from gradtx.train.errors import TrainingError


def language_model(
    width: int = 32,
    layers: int = 2,
    heads: int = 4,
    context: int = 32,
    batch_size: int = 32,
    examples: int = 3200,
) -> Problem:
    """Returns the problem of predicting each character of a text from those before it.

    The text is `pydoc_data.topics`, which every Python has, about 460 kB. The model is a
    transformer without biases: embeddings of characters and positions, and in each layer causal
    attention and an MLP, each after a root-mean-square normalization. The loss is the mean cross
    entropy in nats per character; after each epoch it is measured on text that is not used for
    training.

    Args:
      width: the length of the vector of a character; a multiple of `heads`. Default: 32.
      layers: the number of layers. Default: 2.
      heads: the number of attention heads. Default: 4.
      context: the number of characters in a sequence. Default: 32.
      batch_size: the number of sequences in a mini-batch. Default: 32.
      examples: the number of sequences in an epoch, spread evenly over the text. Default: 3200.

    Raises:
      TrainingError: `width` is not a multiple of `heads`, or `batch_size` or `examples` is out of
        range.

    Example:
      >>> from gradtx.racing import language_model
      >>> problem = language_model()
      >>> problem.title, problem.steps
      ('text · transformer', 100)
    """
    if width % heads:
        raise TrainingError(f"language_model: width {width} is not a multiple of heads, {heads}")
    text = "\n".join(topics[name] for name in sorted(topics))
    alphabet = sorted(set(text))
    tokens = np.searchsorted(alphabet, list(text)).astype(np.int32)
    whole = len(tokens) // (context + 1)
    sequences = tokens[: whole * (context + 1)].reshape(whole, context + 1)
    held_out = sequences[::10]  # every tenth, so that all parts of the text are tested
    rest = np.delete(sequences, np.s_[::10], axis=0)
    if not 1 <= batch_size <= examples <= len(rest):
        raise TrainingError(
            "language_model: batch_size must be from 1 to examples, and examples at most the "
            f"{counted(len(rest), 'sequence')} of {context + 1} characters in the text, got "
            f"batch_size {batch_size} and examples {examples}"
        )
    train = rest[np.linspace(0, len(rest) - 1, examples).astype(int)]
    test = held_out[np.linspace(0, len(held_out) - 1, min(512, len(held_out))).astype(int)]

    def init(key: Array) -> Params:
        keys = iter(jax.random.split(key, 3 + 4 * layers))

        def matrix(rows: int, columns: int) -> Array:
            return jax.random.normal(next(keys), (rows, columns)) / math.sqrt(rows)

        return {
            "embedding": {
                "token": 0.1 * jax.random.normal(next(keys), (len(alphabet), width)),
                "position": 0.1 * jax.random.normal(next(keys), (context, width)),
            },
            "layers": [
                {
                    "attention": {
                        "norm": jnp.ones(width),
                        "qkv": matrix(width, 3 * width),
                        "out": matrix(width, width),
                    },
                    "mlp": {
                        "norm": jnp.ones(width),
                        "up": matrix(width, 4 * width),
                        "down": matrix(4 * width, width),
                    },
                }
                for _ in range(layers)
            ],
            "head": {"norm": jnp.ones(width), "logits": matrix(width, len(alphabet))},
        }

    def loss(params: Params, batch: PyTree, counted: Array) -> Array:
        losses = jnp.mean(_losses(params, batch, heads), axis=1)
        return jnp.sum(jnp.where(counted, losses, 0)) / jnp.sum(counted)

    def measure(params: Params, data: PyTree) -> tuple[Array, None]:
        return jnp.mean(_losses(params, data[1], heads)), None

    return Problem(
        init,
        loss,
        measure,
        (jnp.asarray(train), jnp.asarray(test)),
        batch_size,
        -(-examples // batch_size),
        "text · transformer",
        {
            "problem": "text · transformer",
            "data": digest((train, test)),
            "batch": batch_size,
            "size": f"{width}x{layers}x{heads}",
        },
        "nats a character",
        "the mean cross entropy on text that is not trained on",
        large=layers * width**2 > 2**20,  # more than about 12 million parameters
    )


def _losses(params: Params, tokens: Array, heads: int) -> Array:
    """Returns the cross entropy of each character but the first, `[batch, context]`."""
    x = params["embedding"]["token"][tokens[:, :-1]] + params["embedding"]["position"]
    for layer in params["layers"]:
        x = x + _attention(layer["attention"], x, heads)
        x = x + _mlp(layer["mlp"], x)
    logits = _normalized(x, params["head"]["norm"]) @ params["head"]["logits"]
    return softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])


def _normalized(x: Array, scale: Array) -> Array:
    return scale * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def _attention(p: Params, x: Array, heads: int) -> Array:
    batch, length, width = x.shape
    qkv = (_normalized(x, p["norm"]) @ p["qkv"]).reshape(batch, length, 3, heads, width // heads)
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return mixed.reshape(batch, length, width) @ p["out"]


def _mlp(p: Params, x: Array) -> Array:
    return jax.nn.gelu(_normalized(x, p["norm"]) @ p["up"]) @ p["down"]
