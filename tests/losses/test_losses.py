"""What every loss keeps: dtypes, accuracy, gradients, jit and vmap, documentation, optax's values.

What each one computes is tested in the file of its module.
"""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from representatives import first_of_each
from test_house import check_docstring

import gradtx
from gradtx import check_gradients, losses

RNG = np.random.default_rng(0)
Z, S = RNG.normal(size=(2, 4, 5))
CLASSES = RNG.integers(5, size=4)
P, Q = RNG.dirichlet(np.ones(5), size=(2, 4))
BITS = np.array([[1, 0, 1, 1, 0]] * 4)
PIXELS = RNG.normal(size=(2, 6, 3))
REGIONS = np.eye(3)[RNG.integers(3, size=(2, 6))]
SPEECH = RNG.normal(size=(2, 5, 4)), np.zeros((2, 5)), np.array([[1, 1], [2, 3]]), np.zeros((2, 2))


def fenchel_young(module):
    return module.make_fenchel_young_loss(jax.nn.logsumexp)


# The arguments of a call of each loss. Floating ones are cast to the dtype of the test; the first
# is what is differentiated. All but the last three take a batch in the first axis.
CALLS = {
    "binary_dice_loss": (Z, BITS),
    "convex_kl_divergence": (np.log(Q), P),
    "cosine_distance": (Z, S),
    "cosine_similarity": (Z, S),
    "ctc_loss": SPEECH,
    "dice_loss": (PIXELS, REGIONS),
    "generalized_kl_divergence": (np.log(Q), P),
    "hinge_loss": (Z, 2 * BITS - 1),
    "huber_loss": (Z, S),
    "kl_divergence": (np.log(Q), P),
    "kl_divergence_with_log_targets": (np.log(Q), np.log(P)),
    "l2_loss": (Z, S),
    "log_cosh": (Z, S),
    "make_fenchel_young_loss": (Z, P),
    "multiclass_hinge_loss": (Z, CLASSES),
    "multiclass_perceptron_loss": (Z, CLASSES),
    "multiclass_sparsemax_loss": (Z, CLASSES),
    "perceptron_loss": (Z, 2 * BITS - 1),
    "poly_loss_cross_entropy": (Z, P),
    "safe_softmax_cross_entropy": (Z, P),
    "sigmoid_binary_cross_entropy": (Z, P),
    "sigmoid_focal_loss": (Z, P),
    "smooth_labels": (P, 0.1),
    "softmax_cross_entropy": (Z, P),
    "softmax_cross_entropy_with_integer_labels": (Z, CLASSES),
    "sparsemax_loss": (Z, BITS),
    "squared_error": (Z, S),
    "triplet_margin_loss": (Z, S, 2 * S),
    "ctc_loss_with_forward_probs": SPEECH,
    "multiclass_generalized_dice_loss": (PIXELS, REGIONS),
    "ntxent": (Z, np.array([0, 0, 1, 1])),
    "ranking_softmax_loss": (Z, P),
}
OF_A_BATCH = list(CALLS)[:-4]
each = pytest.mark.parametrize("name", CALLS)


def module_of(name):
    return getattr(losses, name).__module__


def call(name, args, module=losses):
    """The loss, also if it must be made first, or has a former name that warns; its first part."""
    loss = getattr(module, name)
    if name == "make_fenchel_young_loss":
        loss = fenchel_young(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        value = loss(*args)
    return value[0] if isinstance(value, tuple) else value


def compiled(name, args, module=losses):
    """The same in one program, for what is compared with it."""
    return jax.jit(lambda *args: call(name, args, module))(*args)


def in_dtype(args, dtype):
    floats = [isinstance(x, np.ndarray) and x.dtype == float for x in args]
    return [jnp.asarray(x, dtype) if f else x for x, f in zip(args, floats, strict=True)]


def test_every_loss_is_here():
    public = {n for n, x in vars(losses).items() if inspect.isfunction(x)}
    assert public == set(CALLS)
    assert public == {n for n in dir(optax.losses) if inspect.isfunction(getattr(losses, n, None))}
    assert {n for n in public if hasattr(optax, n) and n != "make_fenchel_young_loss"} <= set(
        dir(gradtx)
    )


@each
def test_documented(name):
    check_docstring(getattr(losses, name))


@each
@pytest.mark.parametrize(
    "dtype",
    [
        jnp.bfloat16,
        pytest.param(jnp.float16, marks=pytest.mark.slow),
        pytest.param(jnp.float32, marks=pytest.mark.thorough),
    ],
)
def test_computed_in_float32_at_least(name, dtype):
    """Half precision costs one rounding, that of the result."""
    args = in_dtype(CALLS[name], dtype)
    got = call(name, args)
    assert got.dtype == dtype
    with jax.enable_x64(True):
        wide = [
            np.asarray(x, float) if hasattr(x, "dtype") and x.dtype == dtype else x for x in args
        ]
        want = np.asarray(compiled(name, wide))
    one_rounding = float(jnp.finfo(dtype).eps) / 2 if dtype != jnp.float32 else 0
    np.testing.assert_allclose(np.asarray(got, float), want, rtol=one_rounding + 2e-6, atol=1e-6)


@each
def test_optax_agrees_in_float64(name, x64):
    args = in_dtype(CALLS[name], np.float64)
    got = compiled(name, args)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, compiled(name, args, optax.losses), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", list(first_of_each(module_of, CALLS)))
def test_gradients(name):
    first, *rest = in_dtype(CALLS[name], jnp.float32)
    check_gradients(
        lambda x: jnp.sum(call(name, [x, *rest])), first, max_elements=12, show=False
    ).raise_if_bad()


@pytest.mark.parametrize("name", list(first_of_each(module_of, OF_A_BATCH)))
def test_under_jit_and_vmap(name):
    args = in_dtype(CALLS[name], jnp.float32)
    want = call(name, args)
    np.testing.assert_allclose(compiled(name, args), want, rtol=1e-6, atol=1e-6)
    axes = tuple(0 if np.ndim(x) else None for x in args)

    def one(*args):  # as a batch of one, for those that want a batch
        return call(name, [x[None] if jnp.ndim(x) else x for x in args])[0]

    many = jax.jit(jax.vmap(one, axes))(*args)
    np.testing.assert_allclose(many, want, rtol=1e-6, atol=1e-6)
