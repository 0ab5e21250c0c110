"""Second moments in the memory of vectors: Adafactor's and SM3's, on matrices and tensors."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_conformance as conformance
import test_hyperparameters as hyperparameters
import trees
from references import OPTIMIZERS, PIECES
from representatives import first_of_each, moved_one_by_one
from test_references import run
from trees import assert_equal

import gradtx
from gradtx import catalog

SHAPES = [(4, 5), (), (3,), (5, 4), (4, 4), (1, 4), (3, 2, 4), (4, 2, 3, 4), (0, 3), (3, 0)]

NOT_EMPTY = [shape for shape in SHAPES if 0 not in shape]


def problem(shape, steps=20, dtype=np.float64):
    """A start, and gradients whose rows and columns differ in size."""
    random = np.random.default_rng(len(shape) + sum(shape))
    sizes = 1.0
    for axis, n in enumerate(shape):
        sizes = sizes * np.expand_dims(
            10 ** random.uniform(-1, 1, n), tuple(i for i in range(len(shape)) if i != axis)
        )
    draws = [np.asarray(random.standard_normal(shape) * sizes, dtype) for _ in range(steps)]
    return np.asarray(random.standard_normal(shape) + 3, dtype), draws


def assert_agree(ours, wanted, tolerance=1e-12):
    for t, (a, b) in enumerate(zip(ours, wanted, strict=True)):
        largest = np.max(np.abs(b), initial=0.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=f"step {t}")


# ---- Adafactor -------------------------------------------------------------------------------

FACTORED = {"min_dim_size_to_factor": 2}
SETTINGS = [
    {},
    {"decay_rate": 0.5},
    {"decay_offset": 2},
    {"eps": 1e-2},
    {"min_dim_size_to_factor": 3},
    {"factored": False},
    {"multiply_by_parameter_scale": False},
    {"clipping_threshold": None},
    {"weight_decay_rate": 0.01},
    {"momentum": 0.9, "dtype_momentum": None},
]


@pytest.mark.parametrize(("shape", "setting"), list(moved_one_by_one(NOT_EMPTY, SETTINGS)), ids=str)
def test_adafactor_agrees_with_its_reference(shape, setting, x64):
    start, gradients = problem(shape)
    setting = {"learning_rate": 0.05, **FACTORED, **setting}
    ours = run(gradtx.adafactor(**setting), gradients, start)
    assert_agree(ours, OPTIMIZERS["adafactor"].function(gradients, start, **setting))


@pytest.mark.parametrize("shape", list(first_of_each(len, map(pytest.param, NOT_EMPTY))), ids=str)
def test_optax_agrees_once_its_decay_is_not_rounded_to_float32(shape, x64):
    """What it computes is `1 - t**-0.8` in float32, whatever the precision around it."""
    start, gradients = problem(shape)

    def in_double(t, c):
        return 1 - (t + jnp.float64(1)) ** -c

    ours = run(gradtx.scale_by_factored_rms(min_dim_size_to_factor=2), gradients, start)
    theirs = run(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2, decay_rate_fn=in_double),
        gradients,
        start,
    )
    assert_agree(ours, theirs)
    rounded = run(optax.scale_by_factored_rms(min_dim_size_to_factor=2), gradients, start)
    with pytest.raises(AssertionError):
        assert_agree(ours, rounded)
    assert_agree(ours, rounded, 1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_of_the_state_are_those_of_optax(shape):
    p = jnp.zeros(shape)
    for smallest in (1, 2, 3, 4, 5):
        ours, theirs = (
            lib.scale_by_factored_rms(min_dim_size_to_factor=smallest).init(p)
            for lib in (gradtx, optax)
        )
        assert ours._fields == theirs._fields
        assert trees.avals(tuple(ours)) == trees.avals(tuple(theirs))


def test_a_large_matrix_costs_two_vectors():
    state = gradtx.adafactor(0.01).init(jnp.zeros((300, 200), jnp.bfloat16))
    assert sum(x.size for x in jax.tree.leaves(state)) < 300 + 200 + 5
    assert {x.dtype for x in jax.tree.leaves(state[0][1:])} == {jnp.dtype(jnp.float32)}


def test_squares_of_rank_one_are_kept_exactly(x64):
    row, col = jnp.array([1.0, 2.0, 5.0]), jnp.array([3.0, -1.0])
    tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
    updates, _ = tx.update(jnp.outer(row, col), tx.init(jnp.zeros((3, 2))))
    np.testing.assert_allclose(updates, jnp.sign(jnp.outer(row, col)), rtol=1e-14)


# Everything that does not look at shapes of slots, once more on the way of matrices.
CONTRACT = [
    test
    for module in (conformance, hyperparameters)
    for name, test in vars(module).items()
    if name.startswith("test_")
    and list(inspect.signature(test).parameters) == ["entry"]
    and "tracers_do_not_outlive" not in name
]


@pytest.mark.slow
@pytest.mark.parametrize("test", CONTRACT, ids=lambda test: test.__name__)
def test_matrices_keep_the_contract_of_all_optimizers(test):
    entry = catalog.get("adafactor")
    test(dataclasses.replace(entry, probe={**entry.probe, **FACTORED}))


@pytest.mark.parametrize("offset", [1, 3])
def test_a_decay_offset_is_finite_before_it_too(offset):
    start, gradients = problem((3,), dtype=np.float32)
    ours = run(gradtx.adafactor(0.01, decay_offset=offset), gradients, start)
    assert np.all(np.isfinite(ours))
    theirs = run(optax.adafactor(0.01, decay_offset=offset), gradients, start)
    assert np.any(np.isnan(theirs))
    # From the offset on the decay is that of a run that starts there.
    late = gradtx.scale_by_factored_rms(step_offset=offset)
    early = gradtx.scale_by_factored_rms()
    state = late.init(start)._replace(count=jnp.int32(offset))
    for g in gradients:
        a, state = late.update(g, state)
    b = run(early, gradients, start)[-1]
    assert_equal(a, b)


def test_the_last_weights_keep_their_digits():
    """`1 - decay` at a million steps is 1.6e-5; taken from a float32 decay, 0.4% of it is lost."""
    tx = gradtx.scale_by_factored_rms()
    state = tx.init(jnp.zeros(1))._replace(count=jnp.int32(999_999))
    _, state = tx.update(jnp.ones(1), state)
    np.testing.assert_allclose(state.v, [1e6**-0.8], rtol=3e-6)


def test_the_size_from_which_on_matrices_are_factored():
    p = jnp.zeros((4, 3))
    wanted = trees.avals(gradtx.adafactor(min_dim_size_to_factor=2).init(p))
    for size in (np.int64(2), np.float32(2.0), jnp.int32(2), jnp.float32(2.0), 2.0):
        assert trees.avals(gradtx.adafactor(min_dim_size_to_factor=size).init(p)) == wanted
    with pytest.raises(ValueError, match=r"min_dim_size_to_factor must be a whole number.*2\.5"):
        gradtx.adafactor(min_dim_size_to_factor=2.5)
    with pytest.raises(TypeError, match=r"min_dim_size_to_factor must be .* got a traced"):
        jax.jit(lambda n: gradtx.adafactor(min_dim_size_to_factor=n).init(p))(2)


def test_all_other_numbers_may_be_traced_at_init():
    numbers = {
        "learning_rate": 0.1,
        "decay_rate": 0.7,
        "decay_offset": 1,
        "clipping_threshold": 0.9,
        "momentum": 0.9,
        "weight_decay_rate": 0.1,
        "eps": 1e-20,
    }
    p = jnp.ones((4, 3))
    state = jax.jit(lambda h: gradtx.adafactor(**FACTORED, **h).init(p))(numbers)
    assert trees.avals(state) == trees.avals(gradtx.adafactor(**FACTORED, **numbers).init(p))


def test_rows_of_zeros_with_and_without_eps():
    g = jnp.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], jnp.float16)
    for eps in (1e-30, 0.0):
        tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=eps)

        def total(g, tx=tx):
            updates, state = tx.update(g, tx.init(g))
            return jnp.sum(updates + tx.update(g, state)[0])

        for x in (g, jnp.zeros_like(g)):
            updates, _ = tx.update(x, tx.init(x))
            np.testing.assert_array_equal(updates, jnp.sign(x))
            wide = x.astype(jnp.float32)
            assert np.all(np.isfinite(jax.grad(total)(wide)))


def test_float16_squares_do_not_overflow():
    g = jnp.full((3, 4), 60_000.0, jnp.float16)
    tx = gradtx.adafactor(0.1, multiply_by_parameter_scale=False, **FACTORED)
    np.testing.assert_allclose(tx.update(g, tx.init(g), g)[0], -0.1, rtol=1e-3)


def test_a_mask_is_checked_even_if_nothing_decays():
    tx = gradtx.adafactor(0.1, weight_decay_mask={"a": True})
    with pytest.raises(ValueError, match=r"adafactor.*mask"):
        tx.init({"a": jnp.ones(2), "b": jnp.ones(2)})


def test_complex_momentum_is_not_cut_to_real():
    z = jnp.ones(3, jnp.complex64)
    tx = gradtx.adafactor(0.1, momentum=0.9)
    with pytest.raises(TypeError, match=r"adafactor.*complex64.*float32"):
        tx.update(z, tx.init(z), z)
    tx = gradtx.adafactor(0.1, momentum=0.9, dtype_momentum=None)
    assert tx.update(z, tx.init(z), z)[0].dtype == jnp.complex64


# ---- SM3 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "setting"),
    list(moved_one_by_one(SHAPES, [{}, {"b1": 0.0}, {"b2": 0.9}, {"eps": 0.1}])),
    ids=str,
)
def test_sm3_agrees_with_its_reference(shape, setting, x64):
    start, gradients = problem(shape)
    ours = run(gradtx.scale_by_sm3(**setting), gradients, start)
    assert_agree(ours, PIECES["scale_by_sm3"].function(gradients, **setting))
    if shape and 0 not in shape:  # what optax can do
        assert_agree(ours, run(optax.scale_by_sm3(**setting), gradients, start))


def test_bounds_of_sm3_are_above_the_sums_of_squares(x64):
    """Claim 2 of the paper; and they never fall."""
    start, gradients = problem((4, 2, 3))
    tx = gradtx.scale_by_sm3()
    state, total = tx.init(start), 0.0
    for g in gradients:
        last = state.mu
        _, state = tx.update(g, state)
        total = total + g**2
        for axis, (bound, before) in enumerate(zip(state.mu, last, strict=True)):
            others = tuple(i for i in range(3) if i != axis)
            assert np.all(bound >= before)
            assert np.all(np.expand_dims(bound, others) >= total * (1 - 1e-14))


def test_sm3_on_vectors_is_adagrad(x64):
    start, gradients = problem((5,))
    ours = run(gradtx.sm3(0.1, momentum=0.0), gradients, start)
    adagrad = gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-8)
    assert_agree(ours, run(adagrad, gradients, start), 1e-14)


def test_sm3_takes_schedules_and_scalars_where_optax_does_not():
    def rate(count):
        return 0.1 / (count + 1)

    with pytest.raises(TypeError):
        optax.sm3(rate)
    with pytest.raises(IndexError):
        optax.scale_by_sm3().update(jnp.ones(()), optax.scale_by_sm3().init(jnp.ones(())))
    steps = run(gradtx.sm3(rate, momentum=0.0), [jnp.ones(())] * 3, jnp.ones(()))
    np.testing.assert_allclose(steps, [-0.1, -0.05 / 2**0.5, -0.1 / 3 / 3**0.5], rtol=1e-6)


def test_bounds_of_sm3_fall_where_they_are_averages():
    """After one large gradient and many zeros, `v` is `b2**n` of what it was: SM3-II starts each
    maximum from this step alone."""
    tx = gradtx.scale_by_sm3(b2=0.5)
    state = tx.init(jnp.zeros((2, 2)))
    _, state = tx.update(jnp.full((2, 2), 4.0), state)
    for _ in range(3):
        _, state = tx.update(jnp.zeros((2, 2)), state)
    for bound in state.mu:
        np.testing.assert_array_equal(bound, [1.0, 1.0])  # 16 / 2 / 2**3
