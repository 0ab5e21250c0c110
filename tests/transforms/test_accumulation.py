"""Several micro-steps as one: sums, means, windows, and what spoils them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_conformance import each_entry, extras
from trees import assert_equal, assert_ulps, avals

import gradtx


def stack(*trees):
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


@pytest.fixture(params=[False, True], ids=["eager", "jitted"])
def maybe_jit(request):
    return jax.jit if request.param else lambda f: f


def test_windows_by_hand(maybe_jit):
    """Gradients 1, 3, 5, 9 in windows of 2: means 2 and 7."""
    tx = gradtx.MultiSteps(gradtx.sgd(0.5), 2)
    state, update = tx.init(jnp.zeros(())), maybe_jit(tx.update)
    told = []
    for g in (1.0, 3.0, 5.0, 9.0):
        updates, state = update(jnp.asarray(g), state)
        counts = int(state.mini_step), int(state.gradient_step)
        told.append((float(updates), float(state.acc_grads), *counts, bool(tx.has_updated(state))))
    assert told == [
        (0.0, 1.0, 1, 0, False),
        (-1.0, 0.0, 0, 1, True),
        (0.0, 5.0, 1, 1, False),
        (-3.5, 0.0, 0, 2, True),
    ]


def test_the_sum_instead_of_the_mean():
    tx = gradtx.MultiSteps(gradtx.sgd(0.5), 3, use_grad_mean=False)
    state = tx.init(jnp.zeros(()))
    for g in (1.0, 3.0, 5.0):
        updates, state = tx.update(jnp.asarray(g), state)
    assert float(updates) == -4.5


@pytest.mark.slow
@each_entry
def test_a_window_is_a_step_on_the_mean(entry):
    """What the optimizer alone does with the mean, once in a window, and the same trajectory."""
    params = {"w": trees.numbers((2, 3), 1)}
    micro = [{"w": trees.numbers((2, 3), 2 + i)} for i in range(6)]
    tx, alone = gradtx.MultiSteps(entry.make(), 3), entry.make()
    state, alone_state = tx.init(params), alone.init(params)
    first, start = state, params
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, **extras(entry, g, p)))
    for g in micro:
        updates, state = update(g, state, params)
        params = gradtx.apply_updates(params, updates)
        assert avals(state) == avals(first)
    by_mean = start
    for window in (micro[:3], micro[3:]):
        mean = jax.tree.map(lambda x: jnp.mean(x, 0), stack(*window))
        more = extras(entry, window[-1], by_mean)  # the last call's reach the optimizer
        updates, alone_state = alone.update(mean, alone_state, by_mean, **more)
        by_mean = gradtx.apply_updates(by_mean, updates)
    assert_ulps(params, by_mean, 64, of_largest=True)
    assert avals(jax.eval_shape(tx.init, params)) == avals(first)


def test_the_optimizer_runs_once_in_a_window(maybe_jit):
    ran = []

    def update(updates, state, params=None):
        jax.debug.callback(lambda: ran.append(1))
        return updates, state

    inner = gradtx.GradientTransformation(lambda params: (), update)
    tx = gradtx.MultiSteps(inner, 4)
    state, step = tx.init(jnp.zeros(2)), maybe_jit(tx.update)
    for i in range(8):
        _, state = step(jnp.ones(2), state)
        jax.effects_barrier()
        assert len(ran) == (i + 1) // 4


def test_a_bad_micro_batch_spoils_its_own_window(maybe_jit):
    tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2)
    state, update = tx.init(jnp.zeros(2)), maybe_jit(tx.update)
    for bad in (jnp.nan, jnp.inf):
        updates, state = update(jnp.array([bad, 1.0]), state)
        updates, state = update(jnp.array([1.0, 1.0]), state)
        assert not jnp.isfinite(updates[0]) and updates[1] == -1.0
        np.testing.assert_array_equal(state.acc_grads, [0.0, 0.0])
        for _ in range(2):
            updates, state = update(jnp.array([1.0, 3.0]), state)
        np.testing.assert_array_equal(updates, [-1.0, -3.0])


def test_skipped_micro_batches_count_for_nothing(maybe_jit):
    tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2, should_skip_update_fn=gradtx.skip_not_finite)
    state, update = tx.init(jnp.zeros(())), maybe_jit(tx.update)
    first = state
    told = []
    for g in (1.0, jnp.nan, 3.0, jnp.inf, 5.0, 7.0):
        updates, state = update(jnp.asarray(g), state)
        assert avals(state) == avals(first)
        told.append((float(updates), int(state.mini_step), bool(state.skip_state["should_skip"])))
    assert told == [
        (0.0, 1, False),
        (0.0, 1, True),
        (-2.0, 0, False),
        (0.0, 0, True),
        (0.0, 1, False),
        (-6.0, 0, False),
    ]


@pytest.mark.parametrize("mean", [True, False])
def test_half_precision_is_gathered_in_float32(mean):
    """The sum of a hundred 30000s is no float16; their mean is, and so are small ones beside."""
    tx = gradtx.MultiSteps(gradtx.clip_by_global_norm(1.0), 100, use_grad_mean=mean)
    state = tx.init(jnp.zeros(2, jnp.float16))
    assert state.acc_grads.dtype == jnp.float32
    g = jnp.array([30000.0, 0.5], jnp.float16)

    def step(state, _):
        updates, state = tx.update(g, state)
        return state, updates

    _, updates = jax.lax.scan(step, state, length=100)
    assert updates.dtype == jnp.float16
    np.testing.assert_allclose(updates[-1].astype(np.float32), [1.0, 0.5 / 30000.0], rtol=2e-3)


def test_the_accumulators_dtype():
    params = {"h": jnp.zeros(2, jnp.bfloat16), "c": jnp.zeros(2, jnp.complex64)}

    def dtypes(**settings):
        state = gradtx.MultiSteps(gradtx.sgd(1.0), 2, **settings).init(params)
        return {name: str(x.dtype) for name, x in state.acc_grads.items()}

    assert dtypes() == {"h": "float32", "c": "complex64"}
    assert dtypes(accumulator_dtype=None) == {"h": "bfloat16", "c": "complex64"}
    assert dtypes(accumulator_dtype=jnp.bfloat16) == {"h": "bfloat16", "c": "complex64"}


def test_float64_is_not_rounded(x64):
    """float32, the default accumulator, would make 1 of the mean."""
    tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2)
    state = tx.init(jnp.zeros(()))
    for g in (1.0, 1.0 + 2e-12):
        updates, state = tx.update(jnp.asarray(g), state)
    assert float(updates) == -(1.0 + 1e-12)


def test_window_lengths_may_follow_a_schedule(maybe_jit):
    asked = []

    def every(window):
        asked.append(window)
        return jnp.where(window < 2, 1, 3)

    tx = gradtx.MultiSteps(gradtx.sgd(1.0), every)
    state, update = tx.init(jnp.zeros(())), maybe_jit(tx.update)
    ends = []
    for _ in range(8):
        _, state = update(jnp.ones(()), state)
        ends.append(bool(tx.has_updated(state)))
    assert ends == [True, True, False, False, True, False, False, True]


def test_the_schedule_within_counts_windows_from_0():
    tx = gradtx.MultiSteps(gradtx.sgd(lambda count: 1.0 + count), 2)
    state, steps = tx.init(jnp.zeros(())), []
    for _ in range(6):
        updates, state = tx.update(jnp.ones(()), state)
        steps.append(float(updates))
    assert steps == [0, -1, 0, -2, 0, -3]


def test_extra_arguments_reach_the_optimizer():
    tx = gradtx.chain(gradtx.MultiSteps(gradtx.sgd(1.0), 2), gradtx.identity())
    state = tx.init(jnp.zeros(()))
    _, state = tx.update(jnp.ones(()), state)
    updates, state = tx.update(jnp.ones(()), state, learning_rate=0.25)
    assert float(updates) == -0.25


def test_trees_that_differ_are_refused():
    tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2)
    state = tx.init({"a": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"MultiSteps: .*only updates has updates\['b'\]"):
        tx.update({"a": jnp.zeros(2), "b": jnp.zeros(2)}, state)
    with pytest.raises(
        ValueError, match="every_k_schedule must be a whole number, at least 1, got 0"
    ):
        gradtx.MultiSteps(gradtx.sgd(1.0), 0)


def test_masked_and_absent_leaves_pass():
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "none": None, "i": jnp.arange(3)}
    mask = {"a": True, "b": False, "none": False, "i": False}
    tx = gradtx.masked(gradtx.MultiSteps(gradtx.adam(0.1), 2), mask)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params)
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-6)
    assert_equal(updates["b"], params["b"])
    assert updates["none"] is None and updates["i"].dtype == params["i"].dtype


def test_trajectories_are_those_of_optax():
    params = trees.small()
    stream = [trees.like(params, i) for i in range(12)]

    def run(library):
        tx = library.MultiSteps(library.adamw(0.1), 3)
        state, p = tx.init(params), params
        for g in stream:
            updates, state = tx.update(g, state, p)
            p = library.apply_updates(p, updates)
        return p

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), run(gradtx), run(optax))


def test_nothing_is_compiled_again_in_eager_steps():
    tx = gradtx.MultiSteps(gradtx.adamw(0.1), 2)
    params = trees.small()
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(params, state, params)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        listen := lambda event, _, **kwargs: compiled.append(event)
    )
    try:
        for _ in range(4):
            _, state = tx.update(params, state, params)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "trace" in event]


# ---- apply_every ------------------------------------------------------------------------------


def test_sums_at_every_third_step(maybe_jit):
    tx = gradtx.apply_every(3)
    state, update = tx.init(jnp.zeros(2)), maybe_jit(tx.update)
    first, seen = state, []
    for i in range(7):
        updates, state = update(jnp.array([1.0, i]), state)
        assert avals(state) == avals(first)
        seen.append(updates.tolist())
    zero = [0.0, 0.0]
    assert seen == [zero, zero, [3.0, 3.0], zero, zero, [3.0, 12.0], zero]


def test_a_bad_update_spoils_one_sum():
    tx = gradtx.apply_every(2)
    state = tx.init(jnp.zeros(()))
    sums = []
    for g in (jnp.nan, 1.0, 2.0, 3.0, jnp.inf, 0.0, 1.0, 1.0):
        updates, state = tx.update(jnp.asarray(g), state)
        sums.append(float(updates))
    np.testing.assert_array_equal(sums, [0, np.nan, 0, 5, 0, np.inf, 0, 2])


def test_half_precision_sums_are_taken_in_float32():
    tx = gradtx.apply_every(1000)
    state = tx.init(jnp.zeros((), jnp.bfloat16))
    one = jnp.ones((), jnp.bfloat16)

    def step(state, _):
        updates, state = tx.update(one, state)
        return state, updates

    _, updates = jax.lax.scan(step, state, length=1000)
    assert float(updates[-1]) == 1000.0 and updates.dtype == jnp.bfloat16


def test_apply_every_counts_below_its_period():
    """A count of all steps would stop at its largest value, and with it the sums."""
    tx, state = gradtx.apply_every(3), gradtx.apply_every(3).init(jnp.zeros(1))
    for step in range(7):
        updates, state = tx.update(jnp.ones(1), state)
        assert updates == (3 if step % 3 == 2 else 0)
        assert state.count == (step + 1) % 3


# ---- Weights of micro-batches -----------------------------------------------------------------

TOKENS = (11, 101)


def of_micro_batches():
    """Two micro-batches of 11 and 101 tokens: their mean gradients, and that of all tokens."""
    rows = np.random.default_rng(4).standard_normal((sum(TOKENS), 3))
    parts = np.split(rows, np.cumsum(TOKENS)[:-1])
    return [jnp.asarray(x.mean(0)) for x in parts], rows.mean(0)


@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (lambda: gradtx.MultiSteps(gradtx.identity(), 2), 1),
        (lambda: gradtx.MultiSteps(gradtx.identity(), 2, use_grad_mean=False), sum(TOKENS)),
        (lambda: gradtx.apply_every(2), 2),
    ],
    ids=["mean", "sum", "apply_every"],
)
def test_uneven_micro_batches_give_the_mean_of_all_tokens(make, scale, maybe_jit, x64):
    (first, second), mean = of_micro_batches()
    tx = make()
    update, start = maybe_jit(tx.update), tx.init(first)
    state = start
    for _ in range(2):  # the second window begins as the first did
        updates, state = update(first, state, weight=TOKENS[0])
        assert not np.any(updates)
        updates, state = update(second, state, weight=jnp.asarray(TOKENS[1]))
        assert avals(state) == avals(start)
        np.testing.assert_allclose(updates, scale * mean, rtol=1e-13)
    assert float(state.excess_weight) == 0


@pytest.mark.parametrize(
    "make",
    [lambda: gradtx.MultiSteps(gradtx.identity(), 2), lambda: gradtx.apply_every(2)],
    ids=["MultiSteps", "apply_every"],
)
def test_a_micro_batch_of_weight_0_is_left_out(make):
    """Its mean over no tokens is not a number."""
    tx, g, nan = make(), jnp.array([1.0, 2.0]), jnp.full(2, jnp.nan)
    scale = 2 if isinstance(tx, gradtx.GradientTransformation) else 1

    @jax.jit
    def window(rows, weights):
        def step(state, row):
            updates, state = tx.update(row[0], state, weight=row[1])
            return state, updates

        return jax.lax.scan(step, tx.init(g), (rows, weights))[1][-1]

    np.testing.assert_array_equal(window(jnp.stack([g, nan]), jnp.array([3.0, 0.0])), scale * g)
    np.testing.assert_array_equal(window(jnp.stack([nan, nan]), jnp.zeros(2)), [0, 0])


def test_weights_and_what_else_multi_steps_does():
    g = jnp.array([1.0, jnp.nan])
    tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2, should_skip_update_fn=gradtx.skip_not_finite)
    _, state = tx.update(jnp.array([2.0, 2.0]), tx.init(g), weight=3.0)
    _, state = tx.update(g, state, weight=100.0)  # skipped, with its weight
    updates, state = tx.update(jnp.array([6.0, 6.0]), state)  # of weight 1
    np.testing.assert_allclose(updates, -3.0)
    assert gradtx.extra_args(tx.gradient_transformation()) == ("weight", "learning_rate")
    # An accumulation inside gets the weight of the window.
    nested = gradtx.MultiSteps(gradtx.MultiSteps(gradtx.identity(), 2), 2)
    state = nested.init(jnp.zeros(()))
    for x, weight in ((1.0, 1.0), (1.0, 2.0), (3.0, 4.0), (3.0, 5.0)):
        updates, state = nested.update(jnp.asarray(x), state, weight=weight)
    np.testing.assert_allclose(updates, (3 * 1 + 9 * 3) / 12, rtol=1e-6)


@pytest.mark.parametrize("weight", [-1, float("nan"), np.float32(np.inf), jnp.asarray(-0.5)])
def test_weights_are_finite_and_not_negative(weight):
    g = jnp.ones(2)
    for tx in (gradtx.MultiSteps(gradtx.sgd(0.1), 2), gradtx.apply_every(2)):
        told = r"weight must be finite and not negative, got \S+; give 0 to leave the update out"
        with pytest.raises(ValueError, match=told):
            tx.update(g, tx.init(g), weight=weight)


def test_states_of_optax_have_no_weights():
    g, sums = jnp.ones(2), gradtx.apply_every(2)
    means = gradtx.MultiSteps(gradtx.sgd(1.0), 2).gradient_transformation()
    for tx, state in (
        (sums, optax.apply_every(2).init(g)),
        (sums, gradtx.optax_layout(sums).init(g)),
        (means, gradtx.optax_layout(means).init(g)),
    ):
        assert "excess_weight" not in state._fields
        for _ in range(2):
            updates, new = tx.update(g, state)
            assert avals(new) == avals(state)
            state = new
        np.testing.assert_array_equal(jnp.abs(updates), [2, 2] if tx is sums else [1, 1])
        with pytest.raises(ValueError, match="weight needs the field excess_weight"):
            tx.update(g, state, weight=2.0)
