"""The four classifiers: sizes by hand, and their pieces against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradtx.train import MODELS, DataError, count_parameters, mlp
from gradtx.train.models import _conv, _max_pool

TRUNK = (9 * 1 * 16 + 16) + (9 * 16 * 32 + 32) + (9 * 32 * 64 + 64)
SIZES = {
    ("softmax", (8, 8)): 64 * 10 + 10,
    ("softmax", (28, 28)): 784 * 10 + 10,
    ("mlp", (8, 8)): (64 * 128 + 128) + (128 * 128 + 128) + (128 * 10 + 10),
    ("mlp", (28, 28)): (784 * 128 + 128) + (128 * 128 + 128) + (128 * 10 + 10),
    ("cnn-fc", (8, 8)): TRUNK + (2 * 2 * 64 * 128 + 128) + (128 * 10 + 10),
    ("cnn-fc", (28, 28)): TRUNK + (7 * 7 * 64 * 128 + 128) + (128 * 10 + 10),
    ("cnn-gap", (8, 8)): TRUNK + (64 * 10 + 10),
    ("cnn-gap", (28, 28)): TRUNK + (64 * 10 + 10),
}


@pytest.mark.parametrize(("name", "shape"), SIZES)
def test_sizes_and_shapes(name, shape):
    model = MODELS[name]()
    assert model.name == name
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), shape, 10))
    assert count_parameters(params) == SIZES[name, shape]
    x = jax.ShapeDtypeStruct((5, *shape), jnp.float32)
    logits = jax.eval_shape(model.apply, params, x)
    assert (logits.shape, logits.dtype) == ((5, 10), jnp.float32)


@pytest.mark.parametrize("name", MODELS)
def test_initial_parameters_come_from_the_key(name):
    model = MODELS[name]()
    first, again, other = (model.init(jax.random.key(k), (8, 8), 10) for k in (0, 0, 1))
    kernels = jax.tree.leaves(jax.tree.map(lambda a: a.ndim > 1, first))
    for a, b, c, kernel in zip(*map(jax.tree.leaves, (first, again, other)), kernels, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any() if kernel else (a == 0).all()


def test_initial_scales_keep_the_signal():
    params = mlp((2000,)).init(jax.random.key(0), (40, 25), 10)
    he, glorot = params["hidden1"]["kernel"], params["logits"]["kernel"]
    assert np.std(he) == pytest.approx(np.sqrt(2 / 1000), rel=0.01)
    assert np.abs(glorot).max() == pytest.approx(np.sqrt(6 / 2010), rel=0.01)


def test_the_trunks_are_alike_and_only_the_heads_differ():
    fc, gap = (MODELS[n]().init(jax.random.key(3), (8, 8), 10) for n in ("cnn-fc", "cnn-gap"))
    jax.tree.map(np.testing.assert_array_equal, fc["trunk"], gap["trunk"])
    assert fc.keys() == gap.keys() == {"trunk", "head"}
    assert gap["head"].keys() == {"logits"}


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (2, 7, 5, 16)])
def test_convolution_and_pooling_are_xlas(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    params = {
        "kernel": rng.normal(size=(3, 3, shape[-1], 4)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
    }
    layout = ("NHWC", "HWIO", "NHWC")
    want = lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=layout, precision="highest"
    )
    np.testing.assert_allclose(_conv(params, x), want + params["bias"], rtol=1e-4, atol=1e-4)
    window = (1, 2, 2, 1)
    want = lax.reduce_window(x, -np.inf, lax.max, window, window, "VALID")
    np.testing.assert_array_equal(_max_pool(jnp.asarray(x)), want)


def test_softmax_regression_is_one_affine_map():
    model = MODELS["softmax"]()
    x = np.random.default_rng(0).uniform(size=(6, 8, 8)).astype(np.float32)
    params = model.init(jax.random.key(0), (8, 8), 10)
    kernel, bias = (np.asarray(params["logits"][n], np.float64) for n in ("kernel", "bias"))
    np.testing.assert_allclose(
        model.apply(params, x), x.reshape(6, 64) @ kernel + bias, rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn-fc", "cnn-gap"])
def test_images_with_channels(name):
    model = MODELS[name]()
    params = model.init(jax.random.key(0), (8, 8, 3), 10)
    assert params["trunk"]["conv1"]["kernel"].shape == (3, 3, 3, 16)
    assert model.apply(params, jnp.ones((2, 8, 8, 3))).shape == (2, 10)


@pytest.mark.parametrize("shape", [(64,), (3, 8), (8, 8, 3, 1)])
def test_what_is_no_image_is_refused(shape):
    for name in ("cnn-fc", "cnn-gap"):
        with pytest.raises(DataError, match="4x4 pixels at least; the examples have shape") as e:
            MODELS[name]().init(jax.random.key(0), shape, 10)
        assert str(shape) in str(e.value)
