"""Four image classifiers in plain JAX; their parameters are nested dicts of arrays."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.engine.base import Array, Params
from gradtx.train.errors import DataError

_HE = jax.nn.initializers.he_normal()  # for layers followed by a ReLU
_GLOROT = jax.nn.initializers.glorot_uniform()  # for the layer of the logits


class Model(NamedTuple):
    """A classifier.

    Attributes:
      name: its name.
      init: `(key, shape, classes) -> params`, where `shape` is the shape of one example.
      apply: `(params, x) -> logits`, from `[examples, *shape]` to `[examples, classes]`.
    """

    name: str
    init: Callable[[Array, tuple[int, ...], int], Params]
    apply: Callable[[Params, Array], Array]


def count_parameters(params: Params) -> int:
    """Returns the number of elements in a pytree of arrays, or of their shapes.

    Args:
      params: a pytree of arrays or of `jax.ShapeDtypeStruct`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.train import count_parameters
      >>> count_parameters({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
      8
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _dense_init(key: Array, inputs: int, outputs: int, kernel: Callable = _HE) -> Params:
    return {"kernel": kernel(key, (inputs, outputs), jnp.float32), "bias": jnp.zeros(outputs)}


def _dense(params: Params, x: Array) -> Array:
    return x @ params["kernel"] + params["bias"]


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def softmax() -> Model:
    """Softmax regression: `logits = x W + b`, a single layer.

    Example:
      >>> import jax
      >>> from gradtx.train import softmax
      >>> params = softmax().init(jax.random.key(0), (8, 8), 10)
      >>> params["logits"]["kernel"].shape
      (64, 10)
    """

    def init(key: Array, shape: tuple[int, ...], classes: int) -> Params:
        return {"logits": _dense_init(key, math.prod(shape), classes, _GLOROT)}

    def apply(params: Params, x: Array) -> Array:
        return _dense(params["logits"], _flat(x))

    return Model("softmax", init, apply)


def mlp(hidden: tuple[int, ...] = (128, 128)) -> Model:
    """A multi-layer perceptron with ReLUs.

    Args:
      hidden: the widths of the hidden layers. Default: two of 128.

    Example:
      >>> import jax
      >>> from gradtx.train import count_parameters, mlp
      >>> count_parameters(mlp((100,)).init(jax.random.key(0), (8, 8), 10))
      7510
    """
    names = [f"hidden{i + 1}" for i in range(len(hidden))]

    def init(key: Array, shape: tuple[int, ...], classes: int) -> Params:
        *keys, last = jax.random.split(key, len(hidden) + 1)
        widths = [math.prod(shape), *hidden]
        pairs = itertools.pairwise(widths)
        layers = [_dense_init(k, *pair) for k, pair in zip(keys, pairs, strict=True)]
        logits = _dense_init(last, widths[-1], classes, _GLOROT)
        return {**dict(zip(names, layers, strict=True)), "logits": logits}

    def apply(params: Params, x: Array) -> Array:
        x = _flat(x)
        for name in names:
            x = jax.nn.relu(_dense(params[name], x))
        return _dense(params["logits"], x)

    return Model("mlp", init, apply)


def _conv(params: Params, x: Array) -> Array:
    """A 3x3 convolution that keeps the size, as one matrix product over shifted copies.

    XLA's own convolution took 10 times as long inside a scan on a CPU.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    kernel = params["kernel"]
    return jnp.concatenate(shifts, -1) @ kernel.reshape(-1, kernel.shape[-1]) + params["bias"]


def _max_pool(x: Array) -> Array:
    """The maximum of each 2x2 block; an odd last row or column is dropped."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


_CHANNELS = (16, 32, 64)


def _trunk_init(key: Array, shape: tuple[int, ...]) -> tuple[Params, tuple[int, int, int]]:
    if len(shape) not in (2, 3) or min(shape[:2]) < 4:
        raise DataError(
            "the convolutional models need images of shape (height, width) or (height, width, "
            f"channels), of 4x4 pixels at least; the examples have shape {shape}"
        )
    keys = jax.random.split(key, len(_CHANNELS))
    inputs = (shape[2] if len(shape) == 3 else 1, *_CHANNELS)
    params = {
        f"conv{i + 1}": {
            "kernel": _HE(k, (3, 3, inputs[i], inputs[i + 1]), jnp.float32),
            "bias": jnp.zeros(inputs[i + 1]),
        }
        for i, k in enumerate(keys)
    }
    return params, (shape[0] // 4, shape[1] // 4, _CHANNELS[-1])


def _trunk(params: Params, x: Array) -> Array:
    x = x if x.ndim == 4 else x[..., None]
    x = _max_pool(jax.nn.relu(_conv(params["conv1"], x)))
    x = _max_pool(jax.nn.relu(_conv(params["conv2"], x)))
    return jax.nn.relu(_conv(params["conv3"], x))


def cnn_fc(width: int = 128) -> Model:
    """A CNN: three convolutions, and a head of two dense layers on the flattened feature map.

    Args:
      width: the width of the head's hidden layer. Default: 128.

    Example:
      >>> import jax
      >>> from gradtx.train import cnn_fc, count_parameters
      >>> params = cnn_fc().init(jax.random.key(0), (8, 8), 10)
      >>> {part: count_parameters(params[part]) for part in ("trunk", "head")}
      {'trunk': 23296, 'head': 34186}
    """

    def init(key: Array, shape: tuple[int, ...], classes: int) -> Params:
        k1, k2, k3 = jax.random.split(key, 3)
        trunk, features = _trunk_init(k1, shape)
        head = {
            "hidden": _dense_init(k2, math.prod(features), width),
            "logits": _dense_init(k3, width, classes, _GLOROT),
        }
        return {"trunk": trunk, "head": head}

    def apply(params: Params, x: Array) -> Array:
        x, head = _flat(_trunk(params["trunk"], x)), params["head"]
        return _dense(head["logits"], jax.nn.relu(_dense(head["hidden"], x)))

    return Model("cnn-fc", init, apply)


def cnn_gap() -> Model:
    """A CNN: the convolutions of `cnn_fc`, global average pooling, and a head of one dense layer.

    The size of the head does not depend on the size of the images.

    Source: Lin, Chen and Yan, "Network In Network", arXiv:1312.4400.

    Example:
      >>> import jax
      >>> from gradtx.train import cnn_gap, count_parameters
      >>> params = cnn_gap().init(jax.random.key(0), (8, 8), 10)
      >>> {part: count_parameters(params[part]) for part in ("trunk", "head")}
      {'trunk': 23296, 'head': 650}
    """

    def init(key: Array, shape: tuple[int, ...], classes: int) -> Params:
        # The keys of `cnn_fc`, so that both models start from the same trunk.
        k1, k2, _ = jax.random.split(key, 3)
        trunk, features = _trunk_init(k1, shape)
        return {"trunk": trunk, "head": {"logits": _dense_init(k2, features[2], classes, _GLOROT)}}

    def apply(params: Params, x: Array) -> Array:
        features = _trunk(params["trunk"], x).mean((1, 2))
        return _dense(params["head"]["logits"], features)

    return Model("cnn-gap", init, apply)


MODELS: dict[str, Callable[[], Model]] = {
    "softmax": softmax,
    "mlp": mlp,
    "cnn-fc": cnn_fc,
    "cnn-gap": cnn_gap,
}
"""The classifiers of the command, by name."""
