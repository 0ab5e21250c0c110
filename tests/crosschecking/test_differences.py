"""The table in `docs/differences.md`: what optax 0.2.8 does, and what gradtx does instead.

Each test states both sides, so that a row that is no longer true fails.
"""

import functools
import os
import pickle
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

HALF = jnp.float16


@pytest.fixture(autouse=True)
def quiet_optax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def one_step(library, name, g, *args, **settings):
    tx = getattr(library, name)(*args, **settings)
    params = jax.tree.map(jnp.zeros_like, g)
    return tx.update(g, tx.init(params), params)[0]


@pytest.mark.parametrize("name", ["adam", "adabelief", "rmsprop", "adan", "novograd"])
def test_float16_zero_gradients(name):
    zeros = jnp.zeros(2, HALF)
    assert bool(jnp.any(jnp.isnan(one_step(optax, name, zeros, 1e-3))))
    np.testing.assert_array_equal(one_step(gradtx, name, zeros, 1e-3), zeros)


def test_float16_adam_on_small_gradients():
    g = jnp.full(2, 1e-4, HALF)
    assert not bool(jnp.all(jnp.isfinite(one_step(optax, "adam", g, 1e-3))))
    np.testing.assert_allclose(one_step(gradtx, "adam", g, 1e-3), -1e-3, rtol=1e-3)


def test_init_of_shapes():
    shapes = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}

    def kinds(library, name, **settings):
        found = getattr(library, name)(**settings).init(shapes)
        return {isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(found)}

    rate = {"learning_rate": 0.1}
    for name, settings in (("adam", rate), ("cocob", {}), ("madgrad", rate), ("dog", {})):
        assert kinds(gradtx, name, **settings) == {True}
    assert kinds(optax, "adam", **rate) == {False}
    assert kinds(optax.contrib, "cocob") == kinds(optax.contrib, "madgrad", **rate) == {True, False}
    with pytest.raises(TypeError):
        kinds(optax.contrib, "dog")


LARGEST = [  # the largest gradient that the section on limits promises, and what it gives
    ("adam", 1e19, {"learning_rate": 0.1}),
    ("adam", 1.7e19, {"learning_rate": 0.1}),
    ("dog", 1e19, {"init_step": ("distance", 0.1)}),
    ("momo", 1e19, {}),
    ("polyak_sgd", 1e30, {}),
    ("muon", 1e30, {"learning_rate": 0.1}),
]


@pytest.mark.parametrize(("name", "size", "settings"), LARGEST)
def test_limits_of_large_gradients(name, size, settings):
    """Up to the limit the step has the direction and the length of that of small gradients."""
    unit = np.array([[0.6, 0.0], [0.0, -0.8]])
    params, tx = jnp.zeros((2, 2)), getattr(gradtx, name)(**settings)

    def length_and_direction(size):
        g = jnp.asarray(unit * size, jnp.float32)
        u = np.float64(tx.update(g, tx.init(params), params, value=2.0)[0])
        length = np.linalg.norm(u)
        return length, u / length

    (length, along), (usual, expected) = map(length_and_direction, (size, 100.0))
    np.testing.assert_allclose(along, expected, rtol=1e-5)
    shorter = size / 100 if name in ("momo", "polyak_sgd") else 1  # Polyak's step: loss / norm
    np.testing.assert_allclose(length * shorter, usual, rtol=1e-5)


def test_limits_of_float16():
    unit = np.array([[0.6, 0.0], [0.0, -1.0]])
    tx, params = gradtx.muon(0.1), jnp.zeros((2, 2), HALF)
    steps = [
        np.float32(tx.update(jnp.asarray(unit * size, HALF), tx.init(params), params)[0])
        for size in (100.0, 4.4e4)
    ]
    np.testing.assert_allclose(*steps, rtol=2e-3)


def test_what_a_second_moment_beyond_the_limit_does():
    params = jnp.zeros(2)
    for tx, stays in ((gradtx.adam(0.1), [True, False]), (gradtx.dog(), [True, True])):
        _, state = tx.update(jnp.array([1e20, 1.0]), tx.init(params), params)
        updates, _ = tx.update(jnp.ones(2), state, params)
        np.testing.assert_array_equal(updates == 0, stays)
        clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), tx)
        _, state = clipped.update(jnp.array([1e20, 1e20]), clipped.init(params), params)
        assert bool(jnp.all(clipped.update(jnp.ones(2), state, params)[0] != 0))


def second_moment(library):
    tx = library.adam(1e-3)
    one = jnp.ones((), jnp.bfloat16)

    def step(state, _):
        return tx.update(one, state)[1], None

    return float(jax.lax.scan(step, tx.init(one), length=3000)[0][0].nu)


def test_second_moments_of_bfloat16():
    exact = 1 - 0.999**3000
    assert second_moment(optax) < 0.6 * exact
    assert abs(second_moment(gradtx) - exact) < 1e-3


def average(library):
    tx = library.ema(0.999, debias=False)
    one = jnp.ones((), jnp.bfloat16)
    step = lambda state, _: (tx.update(one, state)[1], None)  # noqa: E731
    return float(jax.lax.scan(step, tx.init(one), length=3000)[0].ema)


def test_averages_of_bfloat16():
    assert average(optax) < 0.6
    assert abs(average(gradtx) - 0.950) < 1e-3


def test_a_float16_norm():
    g = {f"w{i}": jnp.full((), 300.0, HALF) for i in range(100)}
    assert float(one_step(optax, "clip_by_global_norm", g, 1.0)["w0"]) == 0
    for leaf in jax.tree.leaves(one_step(gradtx, "clip_by_global_norm", g, 1.0)):
        np.testing.assert_allclose(leaf, 0.1, rtol=1e-3)


def test_the_norm_of_many_bfloat16_leaves():
    ones = [jnp.ones((), jnp.bfloat16)] * 300
    assert float(optax.global_norm(ones)) == 16
    np.testing.assert_allclose(gradtx.global_norm(ones), 300**0.5, rtol=1e-6)


def test_clipping_zeros_to_norm_0():
    zeros = jnp.zeros(3)
    for name in ("clip_by_global_norm", "clip_by_block_rms"):
        assert bool(jnp.all(jnp.isnan(one_step(optax, name, zeros, 0.0))))
        np.testing.assert_array_equal(one_step(gradtx, name, zeros, 0.0), zeros)


def test_adaptive_clipping_of_small_gradients():
    g, params = jnp.full(2, 1e-7), jnp.full(2, 1e-9)

    def norm(library):
        tx = library.adaptive_grad_clip(1e-5)  # of parameters no smaller than 1e-3
        return float(jnp.linalg.norm(tx.update(g, tx.init(params), params)[0]))

    assert norm(optax) < 2e-9
    np.testing.assert_allclose(norm(gradtx), 1e-8, rtol=1e-5)


def test_radam_below_the_papers_threshold():
    def steps(library):
        tx, one = library.radam(0.1, threshold=2.0), jnp.ones(())
        state, found = tx.init(one), []
        for _ in range(6):
            updates, state = tx.update(one, state, one)
            found.append(float(updates))
        return found

    assert not np.all(np.isfinite(steps(optax)))
    assert np.all(np.isfinite(steps(gradtx)))


def test_yogi_without_gradients():
    zero = jnp.zeros(1)
    assert float(one_step(optax, "yogi", zero, 0.1)[0]) < -2e-5
    assert float(one_step(gradtx, "yogi", zero, 0.1)[0]) == 0


def test_sm3_of_a_scalar():
    one = jnp.ones(())
    with pytest.raises(IndexError):
        one_step(optax, "sm3", one, 0.1)
    assert float(one_step(gradtx, "sm3", one, 0.1)) < 0


def test_roots_of_matrices():
    matrix = jnp.diag(jnp.array([1.0, 2.0, 3.0]))

    def residual(library):
        root, _ = library.matrix_inverse_pth_root(matrix, 3)
        return float(jnp.max(jnp.abs(jnp.linalg.matrix_power(root, 3) @ matrix - jnp.eye(3))))

    assert residual(optax) > 0.1
    assert residual(gradtx) < 1e-5


def test_moments_of_odd_and_fractional_orders():
    def moment(library, order):
        g, zero = jnp.array([-2.0]), jnp.zeros(1)
        return float(library.update_moment_per_elem_norm(g, zero, 0.0, order)[0])

    assert moment(optax, 3) == -8 and np.isnan(moment(optax, 2.5))
    assert moment(gradtx, 3) == 8
    np.testing.assert_allclose(moment(gradtx, 2.5), 2**2.5, rtol=1e-6)


def test_bias_correction_before_any_step():
    one = jnp.ones(1)
    assert float(optax.tree.bias_correction(one, 0.9, 0)[0]) == np.inf
    assert float(gradtx.tree.bias_correction(one, 0.9, 0)[0]) == 1


def test_per_example_clipping_of_huge_gradients():
    huge = [jnp.full((2, 3), 1e25)]  # two examples
    assert float(optax.per_example_global_norm_clip(huge, 1.0)[0][0][0]) == 0
    ours = gradtx.per_example_global_norm_clip(huge, 1.0)[0][0]
    np.testing.assert_allclose(ours, 2 / 3**0.5, rtol=1e-6)


def test_divergence_at_probability_0():
    p = jnp.array([1.0, 0.0])
    assert bool(jnp.isnan(optax.losses.kl_divergence(jnp.log(p), p)))
    assert float(gradtx.losses.kl_divergence(jnp.log(p), p)) == 0


def test_casts_that_lose():
    z = jnp.array([1 + 2j])
    assert optax.tree.cast(z, jnp.float32).dtype == jnp.float32
    with pytest.raises(TypeError, match="complex64"):
        gradtx.tree.cast(z, jnp.float32)


def test_first_states_of_monitors():
    params = jnp.ones(4)

    def first(library):
        return library.monitor({"norm": library.global_norm}).init(params).measurements

    assert first(optax) == {}
    assert first(gradtx) == {"norm": 0}
    theirs = optax.snapshot("norm", optax.global_norm).init(params).measurement["norm"]
    ours = gradtx.snapshot("norm", gradtx.global_norm).init(params).measurement["norm"]
    assert float(theirs) == 2 and float(ours) == 0


AFTER_A_SYNC = """
import jax.numpy as jnp, numpy as np, optax
import gradtx
rng = np.random.default_rng(0)
start, g = rng.standard_normal((2, 100)).astype("f4")
for library in (optax, gradtx):
    params = library.LookaheadParams.init_synced(jnp.asarray(start))
    tx = library.lookahead(library.sgd(1.0), sync_period=1, slow_step_size=0.3)
    updates, _ = tx.update(jnp.asarray(g), tx.init(params), params)
    moved = library.apply_updates(params, updates)
    print(int(jnp.sum(moved.fast != moved.slow)))
"""


@pytest.mark.thorough
def test_lookahead_after_a_sync():
    """As users compile: with no optimizations, LLVM rounds one number in two ways."""
    command = [sys.executable, "-c", AFTER_A_SYNC]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    of_optax, of_gradtx = map(int, result.stdout.split())
    assert of_optax > 0 and of_gradtx == 0, result.stderr


def test_norms_that_are_not_finite():
    g = jnp.array([jnp.inf, 1.0])
    assert bool(jnp.any(jnp.isnan(one_step(optax, "clip_by_global_norm", g, 1.0))))
    np.testing.assert_array_equal(one_step(gradtx, "clip_by_global_norm", g, 1.0), g)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("adam", 1e-3), ("clip_by_global_norm", 1.0), ("clip_by_global_norm", 0.0)],
)
def test_gradients_through_an_update_at_zero(name, argument):
    def total(library, g):
        return jnp.sum(one_step(library, name, g, argument))

    slope = jax.grad(functools.partial(total, gradtx))(jnp.zeros(2))
    assert bool(jnp.all(jnp.isfinite(slope)))
    if name == "adam":
        slope = jax.grad(functools.partial(total, optax))(jnp.zeros(2))
        assert bool(jnp.any(jnp.isnan(slope)))


def test_adafactor_with_an_offset():
    g = jnp.ones((3, 3))
    assert not bool(jnp.all(jnp.isfinite(one_step(optax, "adafactor", g, 0.1, decay_offset=1))))
    assert bool(jnp.all(jnp.isfinite(one_step(gradtx, "adafactor", g, 0.1, decay_offset=1))))


def test_rprop_follows_the_current_gradient():
    def steps(library):
        tx, params = library.rprop(0.1), jnp.zeros(())
        state, found = tx.init(params), []
        for g in (3.0, 5.0):
            updates, state = tx.update(jnp.asarray(g), state, params)
            found.append(float(updates))
        return found

    np.testing.assert_allclose(steps(optax), [0.0, -0.1], atol=1e-7)
    np.testing.assert_allclose(steps(gradtx), [-0.1, -0.12], rtol=1e-6)


# ---- Wrappers ---------------------------------------------------------------------------------


def test_injected_hyperparameters_of_bfloat16():
    g = jnp.ones(2, jnp.bfloat16)

    def step(library):
        tx = library.inject_hyperparams(library.adam)(1e-3)
        return tx.update(g, tx.init(g), g)[0]

    assert bool(jnp.any(jnp.isnan(step(optax))))
    np.testing.assert_allclose(step(gradtx).astype(jnp.float32), -1e-3, rtol=1e-2)


def test_injected_adafactor_can_be_initialized_in_jit():
    params = {"w": jnp.ones((4, 4))}
    with pytest.raises(jax.errors.JAXTypeError):
        jax.jit(optax.inject_hyperparams(optax.adafactor)(0.1).init)(params)
    tx = gradtx.inject_hyperparams(gradtx.adafactor)(0.1)
    state = jax.jit(tx.init)(params)
    updates, _ = tx.update(params, state, params)
    assert bool(jnp.all(jnp.isfinite(updates["w"])))


def test_a_bad_micro_batch():
    def last_window(library):
        tx = library.MultiSteps(library.sgd(1.0), 2)
        state = tx.init(jnp.zeros(()))
        for g in (jnp.nan, 1.0, 1.0, 3.0):
            updates, state = tx.update(jnp.asarray(g), state)
        return float(updates)

    assert np.isnan(last_window(optax))
    assert last_window(gradtx) == -2.0


def test_float64_micro_batches(x64):
    def mean(library):
        tx = library.MultiSteps(library.scale(1.0), 2)
        state = tx.init(jnp.zeros(()))
        for g in (1.0, 1.0 + 2e-12):
            updates, state = tx.update(jnp.asarray(g), state)
        return float(updates)

    assert mean(optax) == 1.0
    assert mean(gradtx) == 1.0 + 1e-12


def test_a_partition_with_a_line_search_inside():
    target = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}

    def loss(p):
        return sum(jnp.sum((p[k] - target[k]) ** 2) for k in target)

    tx = gradtx.partition(
        {"search": gradtx.lbfgs(), "sgd": gradtx.sgd(0.3)}, {"a": "search", "b": "sgd"}
    )
    params = jax.tree.map(jnp.zeros_like, target)
    state = tx.init(params)
    for _ in range(20):
        value, g = jax.value_and_grad(loss)(params)
        updates, state = tx.update(g, state, params, value=value, grad=g, value_fn=loss)
        params = gradtx.apply_updates(params, updates)
    assert float(loss(params)) < 1e-6


def test_selective_transform_with_a_function():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def mask(tree):
        return {"a": False, "b": True}

    tx = gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask=mask)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 0.0)


def test_optimizers_made_alike():
    assert gradtx.adam(0.1) == gradtx.adam(0.1)
    assert optax.adam(0.1) != optax.adam(0.1)
    assert pickle.loads(pickle.dumps(gradtx.adam(0.1))) == gradtx.adam(0.1)
    with pytest.raises(AttributeError, match="local object"):
        pickle.dumps(optax.adam(0.1))


def test_flatten_keeps_dtypes():
    params = {"h": jnp.ones(2, jnp.bfloat16), "f": jnp.ones(2)}

    def dtypes(library):
        tx = library.flatten(library.sgd(0.1))
        return [str(u.dtype) for u in jax.tree.leaves(tx.update(params, tx.init(params))[0])]

    assert dtypes(optax) == ["float32", "float32"]
    assert dtypes(gradtx) == ["float32", "bfloat16"]


# ---- Errors -----------------------------------------------------------------------------------


def test_integer_parameters():
    optax.adam(0.1).init({"n": jnp.arange(3)})
    with pytest.raises(TypeError, match=r"adam.*params\['n'\].*int32"):
        gradtx.adam(0.1).init({"n": jnp.arange(3)})


def test_counts_of_a_scheduled_adam():
    def count(library):
        tx = library.adam(lambda step: 0.1)
        return library.tree.get(tx.init(jnp.zeros(2)), "count")

    with pytest.raises(KeyError):
        count(optax)
    assert int(count(gradtx)) == 0


@pytest.mark.parametrize("name", ["clip_by_global_norm", "normalize_by_update_norm"])
def test_finite_gradients_whose_squares_overflow(name):
    g = jnp.array([3e20, -4e20])
    theirs, ours = (getattr(library, name)(1.0).update(g, ())[0] for library in (optax, gradtx))
    np.testing.assert_array_equal(theirs, [0.0, 0.0])
    np.testing.assert_allclose(ours, [0.6, -0.8], rtol=1e-6)


def test_plateaus_of_negative_values():
    def scale_after(tx, values):
        state = tx.init(None)
        for value in values:
            _, state = tx.update(jnp.ones(1), state, value=value)
        return float(state.scale)

    setting = {"factor": 0.5, "patience": 2, "rtol": 0.1}
    worse = [-1.0, -0.95, -0.91, -0.9]  # each above the best, by less than a tenth of it
    assert scale_after(optax.contrib.reduce_on_plateau(**setting), worse) == 1
    assert scale_after(gradtx.reduce_on_plateau(**setting), worse) == 0.5


def test_labels_that_are_no_class():
    logits, labels = jnp.array([[1.0, 2.0, 3.0]] * 3), jnp.array([-1, -100, 2])
    name = "softmax_cross_entropy_with_integer_labels"
    theirs, ours = (getattr(library, name)(logits, labels) for library in (optax, gradtx))
    np.testing.assert_array_equal(jnp.isnan(theirs), [False, True, False])
    np.testing.assert_array_equal(theirs[0], theirs[2])
    np.testing.assert_array_equal(jnp.isnan(ours), [True, True, False])


def test_schedule_free_weights_around_prodigy():
    """The estimate grows from 1e-6 to 1e-2 while optax averages with equal weights."""
    start, g = jnp.ones(1), jnp.ones(1)

    def last_weight(library):
        tx = library.contrib.schedule_free(library.contrib.prodigy(betas=(0.0, 0.99)), 1.0)
        update = jax.jit(tx.update)
        p, state, sums = start, tx.init(start), [0.0, 0.0]
        for _ in range(50):
            updates, state = update(g, state, p)
            p, sums = p + updates, [sums[1], float(state.weight_sum)]
        return (sums[1] - sums[0]) / sums[1]

    np.testing.assert_allclose(last_weight(optax), 1 / 50, rtol=1e-5)
    assert last_weight(gradtx) > 0.1


# ---- Misuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda library: library.adam(0.1, b1=1.5),
        lambda library: library.clip(-1.0),
        lambda library: library.adam(0.1, nesterov="no"),
        lambda library: library.adam(-0.1),
    ],
)
def test_hyperparameters_that_cannot_be_right(make):
    make(optax)
    with pytest.raises((ValueError, TypeError), match=r"^(adam|clip): \w+ must "):
        make(gradtx)


def test_ascending():
    g = jnp.ones(2)
    down = one_step(optax, "sgd", g, -0.1)
    tx = gradtx.maximize(gradtx.sgd(0.1))
    np.testing.assert_allclose(tx.update(g, tx.init(g), g)[0], down, rtol=1e-6)


def test_gradients_that_only_broadcast():
    g, params = jnp.ones((1, 3)), jnp.ones((2, 3))
    assert optax.sgd(0.1).update(g, optax.sgd(0.1).init(params), params)[0].shape == (1, 3)
    with pytest.raises(ValueError, match=r"sgd: updates has shape \(1, 3\), but params"):
        gradtx.sgd(0.1).update(g, gradtx.sgd(0.1).init(params), params)


def test_losses_that_are_not_scalars():
    g, losses = jnp.ones(3), jnp.arange(3.0)
    tx = optax.polyak_sgd()
    assert len(set(tx.update(g, tx.init(g), g, value=losses)[0].tolist())) == 3
    tx = gradtx.polyak_sgd()
    with pytest.raises(ValueError, match=r"polyak_sgd .*: value has shape \(3,\)"):
        tx.update(g, tx.init(g), g, value=losses)
