"""optax's states: trajectories that go on in gradtx as they would have in optax."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import like, numbers

import gradtx

PARAMS = {"w": numbers((2, 3), 1), "b": numbers((3,), 2)}
STEPS, MORE = 5, 15


def falling(count):
    return 0.05 * 0.5 ** (count / 4)


def growing(count):
    return 0.01 * (count + 1)


def run(tx, params, state, steps):
    update = jax.jit(tx.update)
    for step in steps:
        updates, state = update(like(params, 100 * (step + 1)), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


BIAS = {"w": True, "b": False}
# Made by both libraries, by functions of the same names.
OPTIMIZERS = {
    "adam": lambda lib: lib.adam(0.05),
    "adam, scheduled": lambda lib: lib.adam(falling),
    "nadam": lambda lib: lib.nadam(falling),
    "adamw": lambda lib: lib.adamw(falling, weight_decay=0.1, mask=BIAS),
    "sgd, scheduled": lambda lib: lib.sgd(falling, momentum=0.9, nesterov=True),
    "rmsprop": lambda lib: lib.rmsprop(falling, momentum=0.9),
    "rmsprop, centered": lambda lib: lib.rmsprop(falling, eps=1e-2, centered=True),
    "rmsprop, corrected": lambda lib: lib.rmsprop(falling, bias_correction=True),
    "rmsprop, centered and corrected": lambda lib: lib.rmsprop(
        falling, eps=1e-2, centered=True, bias_correction=True
    ),
    "decay, scheduled": lambda lib: lib.adamw(falling, weight_decay=growing),
    "adagrad": lambda lib: lib.adagrad(falling),
    "lion": lambda lib: lib.lion(falling, weight_decay=0.1),
    "clipped": lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(falling)),
    "guarded": lambda lib: lib.apply_if_finite(lib.adam(falling), 3),
    "accumulated": lambda lib: lib.MultiSteps(lib.adam(falling), 2).gradient_transformation(),
    "injected": lambda lib: lib.inject_hyperparams(lib.adam)(learning_rate=falling, b1=0.8),
    "partitioned": lambda lib: lib.partition(
        {"w": lib.adam(falling), "b": lib.sgd(falling)}, {"w": "w", "b": "b"}
    ),
    "piecewise": lambda lib: lib.chain(
        lib.scale_by_adam(), lib.scale_by_schedule(growing), lib.scale_by_learning_rate(falling)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectories_go_on(name, x64):
    """In float64: in float32, optax's bias corrections have errors of 1e-5."""
    theirs, tx = (OPTIMIZERS[name](lib) for lib in (optax, gradtx))
    first = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), PARAMS)
    params, state = run(theirs, first, theirs.init(first), range(STEPS))
    start = gradtx.load_optax(tx.init(first), state)
    assert jax.tree.structure(start) == jax.tree.structure(tx.init(first))
    last = range(STEPS, STEPS + MORE)
    ours, reached = run(tx, params, start, last)
    wanted, _ = run(theirs, params, state, last)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)
    steps = {"accumulated": (STEPS + MORE) // 2}.get(name, STEPS + MORE)
    counts = [x for n, x in gradtx.state_dict(reached).items() if n.endswith("/count")]
    assert counts and {int(x) for x in counts} == {steps}


def test_the_count_is_asked_for_where_optax_does_not_tell():
    theirs, tx = optax.sgd(0.1, momentum=0.9), gradtx.sgd(falling, momentum=0.9)
    _, state = run(theirs, PARAMS, theirs.init(PARAMS), range(STEPS))
    with pytest.raises(
        ValueError, match=r"needs count= for .*learning_rate/count, .* no step count"
    ):
        gradtx.load_optax(tx.init(PARAMS), state)
    start = gradtx.load_optax(tx.init(PARAMS), state, count=STEPS)
    _, reached = tx.update(PARAMS, start)
    assert gradtx.tree.get(reached, "learning_rate") == jnp.float32(falling(STEPS))


def test_the_count_is_asked_for_where_optax_tells_several():
    state = (optax.ScaleByScheduleState(jnp.int32(3)), optax.EmaState(jnp.int32(5), PARAMS))
    tx = gradtx.chain(gradtx.scale_by_schedule(falling), gradtx.ema(0.9), gradtx.sgd(0.1))
    with pytest.raises(ValueError, match=r"needs count= .* has the step counts \[3, 5\]"):
        gradtx.load_optax(tx.init(PARAMS), state)


def test_half_precision_moments_are_widened():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    theirs, tx = optax.adam(0.1), gradtx.adam(0.1)
    _, state = theirs.update(params, theirs.init(params))
    loaded = gradtx.load_optax(tx.init(params), state)
    assert state[0].mu["w"].dtype == jnp.bfloat16
    assert loaded[0].mu["w"].dtype == jnp.float32
    np.testing.assert_array_equal(loaded[0].mu["w"], state[0].mu["w"])
    narrow = gradtx.adam(0.1, mu_dtype=jnp.bfloat16).init(PARAMS)
    with pytest.raises(gradtx.StateMismatch, match=r"mu/w: saved float32, needs bfloat16"):
        gradtx.load_optax(narrow, optax.adam(0.1).init(PARAMS))


@pytest.mark.parametrize(
    ("theirs", "tx", "words"),
    [
        (optax.adam(0.1), gradtx.rmsprop(0.1), "unexpected: scale_by_adam/mu/b"),
        (optax.adam(0.1), gradtx.amsgrad(0.1), "missing: scale_by_amsgrad/nu_max/b"),
        (optax.adam(0.1), gradtx.scale_by_schedule(falling), "unexpected: scale_by_adam/mu/b"),
    ],
)
def test_other_optimizers_are_refused(theirs, tx, words):
    with pytest.raises(gradtx.StateMismatch, match=r"load_optax: the saved arrays do not") as error:
        gradtx.load_optax(tx.init(PARAMS), theirs.init(PARAMS))
    assert words in str(error.value)


@pytest.mark.parametrize("count", [-3, 2.5, "3", 2**31])
def test_the_given_count_is_a_whole_number(count):
    template = gradtx.sgd(0.1).init(jnp.ones(2))
    with pytest.raises(ValueError, match="load_optax: count must be a whole number from 0 to"):
        gradtx.load_optax(template, optax.sgd(0.1).init(jnp.ones(2)), count=count)


@pytest.mark.parametrize("count", [-3, 2.5])
def test_counts_of_optax_are_whole_numbers(count):
    adam, rest = optax.adam(0.1).init(jnp.ones(2))
    state = adam._replace(count=jnp.asarray(count)), rest
    with pytest.raises(ValueError, match="load_optax: scale_by_adam/count must be a whole number"):
        gradtx.load_optax(gradtx.adam(0.1).init(jnp.ones(2)), state)


def test_states_without_their_classes_are_refused():
    """Checkpoints that flax restored without a target; the message names the target."""
    bare = flax.serialization.to_state_dict(optax.adam(0.1).init(PARAMS))
    message = (
        r"load_optax: state must have the classes of optax's states, got a dict without them; "
        r"restore checkpoints of flax and orbax into gradtx.optax_layout\(tx\).init\(params\)$"
    )
    with pytest.raises(TypeError, match=message):
        gradtx.load_optax(gradtx.adam(0.1).init(PARAMS), bare)


def test_states_restored_into_the_layout_of_optax():
    _, old = run(optax.adam(falling), PARAMS, optax.adam(falling).init(PARAMS), range(STEPS))
    tx = gradtx.adam(falling)
    bare = flax.serialization.to_state_dict(old)
    restored = flax.serialization.from_state_dict(gradtx.optax_layout(tx).init(PARAMS), bare)
    state = gradtx.load_optax(tx.init(PARAMS), restored)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(PARAMS))
    assert state[-1].count == state[0].count == STEPS
