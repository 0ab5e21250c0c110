"""DoG, DoWG, D-Adaptation, Prodigy, MoMo and COCOB, beyond what all optimizers are tested for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused
from test_conformance import walk
from trees import assert_equal, avals

import gradtx

NAMES = ["cocob", "dadapt_adamw", "dog", "dowg", "momo", "momo_adam", "prodigy"]
RATED = ["dadapt_adamw", "momo", "momo_adam", "prodigy"]


def value_for(name):
    return {"value": jnp.float32(1.0)} if "momo" in name else {}


@pytest.mark.parametrize("scale", [1e-9, 1e14, 1e17, 1e19, 1e25, 1e36])
def test_polyak_steps_of_any_gradient(scale):
    """`value / norm(g)**2 * g`, also where the square overflows or the rate underflows."""
    g = jnp.asarray(np.array([3.0, -4.0, 1e-1]) * scale, jnp.float32)
    exact = np.float64(g)
    tx = gradtx.polyak_sgd(max_learning_rate=jnp.inf, eps=0.0)
    for update in (tx.update, jax.jit(tx.update)):
        step, _ = update(g, tx.init(g), value=jnp.float32(2.0))
        np.testing.assert_allclose(step, -exact * 2 / np.sum(exact**2), rtol=5e-7, atol=2e-38)


@pytest.mark.parametrize("scale", [1.0, 1e10, 1e18])
def test_momo_begins_with_polyaks_step_for_large_gradients_too(scale):
    """The inner products of gradient and parameters, which are larger than the loss, cancel."""
    g, p = jnp.array([3.0, 4.0]) * scale, jnp.array([1.0, -2.5])
    tx = gradtx.momo(1e30)
    step, _ = tx.update(g, tx.init(p), p, value=2.0)
    np.testing.assert_allclose(step, -np.float64(g) * 2 / np.sum(np.float64(g) ** 2), rtol=1e-6)


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_the_adapted_bound_stays_a_number(name):
    p, tx = jnp.array([1.0, -2.5]), getattr(gradtx, name)(adapt_lower_bound=True)
    _, state = tx.update(jnp.array([3e30, 4e30]), tx.init(p), p, value=2.0)
    assert bool(jnp.isfinite(state.lb))


# ---- What is the same as in optax --------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_states_have_the_names_that_optax_has(name):
    params = {"w": jnp.ones(2)}
    ours, theirs = (getattr(x, name)().init(params) for x in (gradtx, optax.contrib))

    def own(state):
        """The method's part, whatever stands around it."""
        nodes = jax.tree.leaves(state, is_leaf=lambda x: type(x).__name__ == wanted)
        return next(x for x in nodes if type(x).__name__ == wanted)

    parts = theirs if type(theirs) is tuple else (theirs,)
    (wanted,) = {type(x).__name__ for x in parts} - {"EmptyState"}
    more = ("learning_rate",) if name in RATED else ()
    assert own(ours)._fields == own(theirs)._fields + more
    for field in own(theirs)._fields:
        assert_equal(
            jax.tree.map(jnp.shape, getattr(own(ours), field)),
            jax.tree.map(jnp.shape, getattr(own(theirs), field)),
        )


@pytest.mark.parametrize(
    ("name", "more"),
    [(name, {}) for name in NAMES]
    + [(name, {"adapt_lower_bound": True}) for name in ("momo", "momo_adam")],
)
def test_defaults_agree_with_optax(name, more, x64):
    """From the first guesses that people use, and not those of the probe."""
    trajectories = []
    for library in (gradtx, optax.contrib):
        tx = getattr(library, name)(**more)
        update, p, steps = jax.jit(tx.update), trees.numbers((4,), 1, jnp.float64), []
        state = tx.init(p)
        for i in range(60):
            # a gradient that pulls the same way at first, for the estimates to grow
            g = trees.numbers((4,), i, jnp.float64) / 4 + (1.0 if i < 40 else -1.0)
            value = {"value": 1.0 + jnp.sum(p**2)} if "momo" in name else {}
            updates, state = update(g, state, p, **value)
            p = p + updates
            steps.append(updates)
        trajectories.append(np.stack(steps))
    ours, theirs = trajectories
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * np.max(np.abs(theirs)))


# ---- What is right where optax isn't -----------------------------------------------------------


@pytest.mark.parametrize("name", ["dadapt_adamw", "prodigy"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_first_gradient_of_zero_spoils_nothing(name, dtype):
    """The estimate is a quotient, 0 / 0 at first."""
    p = jnp.ones(3, dtype)
    gradients = [jnp.zeros_like(p), jnp.ones_like(p)]
    updates, state, _ = walk(getattr(gradtx, name)(), p, gradients)
    assert bool(jnp.all(updates < 0))
    assert float(state.estim_lr) == np.float32(1e-6)
    theirs, _, _ = walk(getattr(optax.contrib, name)(), p, gradients)
    assert bool(jnp.all(jnp.isnan(theirs)))


@pytest.mark.parametrize("name", NAMES)
def test_large_and_small_float16_gradients_do_the_same(name):
    """These methods look at ratios of gradients; squares of the large ones are no float16."""
    p, steps = jnp.ones(3, jnp.float16), []
    for size in (3e4, 30.0):
        g = jnp.array([size, -size, size / 2], jnp.float16)
        value = {"value": jnp.float32(size)} if "momo" in name else {}
        tx = getattr(gradtx, name)()
        steps.append(tx.update(g, tx.init(p), p, **value)[0])
    ours, other = (np.asarray(s, np.float64) for s in steps)
    assert np.all(np.isfinite(ours)) and np.all(ours != 0)
    if name not in ("momo", "dowg"):  # whose rates are bounded, and whose eps is 1e-4
        np.testing.assert_allclose(ours, other, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_trees_of_float16_and_bfloat16(name):
    params = {"a": jnp.ones(3, jnp.float16), "b": jnp.ones(2, jnp.bfloat16), "c": jnp.ones(2)}
    tx = getattr(gradtx, name)()
    state = tx.init(params)
    updates, new = tx.update(params, state, params, **value_for(name))
    assert avals(updates) == avals(params) and avals(new) == avals(state)


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_a_copy(name):
    """Parameters whose buffers are given away leave the start in the state."""
    tx, p = getattr(gradtx, name)(), jnp.ones(3)
    state = tx.init(p)
    p.delete()
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_weight_decay_is_part_of_what_momo_minimizes(name, x64):
    """The first step is the least point of the model with the penalty, which optax's is not."""
    p, g, value, rate, decay = jnp.array([1.0, -2.0]), jnp.array([3.0, 1.0]), 2.0, 0.5, 0.4
    scale = jnp.ones(2) if name == "momo" else jnp.abs(g) + 1e-8
    # MoMo-Adam's averages hold a tenth of the first values at first.
    weight = 1.0 if name == "momo" else 0.1

    def model(q):
        line = jnp.maximum(value + jnp.vdot(g, q - p), 0)
        near = jnp.sum(scale * (q - p) ** 2) / (2 * rate)
        return line * weight + (near + decay / 2 * jnp.sum(scale * q**2)) * weight

    def reached(factory):
        tx = factory(rate, weight_decay=decay)
        return p + tx.update(g, tx.init(p), p, value=value)[0]

    ours, theirs = reached(getattr(gradtx, name)), reached(getattr(optax.contrib, name))
    angles = jnp.linspace(0, 2 * jnp.pi, 100)
    around = ours + 1e-3 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    assert bool(jnp.all(jax.vmap(model)(around) > model(ours)))
    assert model(theirs) > model(ours) + 1e-4


@pytest.mark.parametrize("name", ["cocob", "dog", "dowg", "momo"])
def test_complex_steps_turn_with_the_gradient(name, x64):
    """A rule for complex numbers must not depend on where their angle is counted from."""
    z = jnp.zeros(2, complex)
    gradients = [jnp.array([3.0 + 4.0j, 1.0 - 2.0j]), jnp.array([1.0 - 1.0j, 2.0 + 0.5j])] * 3

    def last(factory, turn):
        tx, p = factory(), z
        state = tx.init(p)
        for g in gradients:
            value = {"value": 30.0} if name == "momo" else {}
            updates, state = tx.update(turn * g, state, p, **value)
            p = p + updates
        return np.asarray(p)

    ours = getattr(gradtx, name)
    np.testing.assert_allclose(last(ours, 1j), 1j * last(ours, 1), rtol=1e-12)
    if name == "cocob":
        theirs = optax.contrib.cocob
        assert not np.allclose(last(theirs, 1j), 1j * last(theirs, 1))


def test_momo_takes_complex_numbers_beside_real_ones():
    """Products of complex leaves are taken as those of planes, and the model stays real."""
    params = {"x": jnp.ones(2), "z": jnp.ones(2, jnp.complex64)}
    g = {"x": jnp.ones(2), "z": jnp.array([1j, 1 + 1j])}
    (ours, _, _), p = walk(Valued(gradtx.momo()), params, [g, g]), params
    assert avals(ours) == avals(p)
    tx = optax.contrib.momo()
    assert jnp.iscomplexobj(tx.update(g, tx.init(params), params, value=1.0)[0]["x"])


class Valued:
    """An optimizer that is told that the loss is 1."""

    def __init__(self, tx):
        self.init = tx.init
        self.update = lambda *args: tx.update(*args, value=1.0)


# ---- The rate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RATED)
def test_the_rate_that_was_used_is_in_the_state(name):
    params = {"w": jnp.ones(2)}
    tx = getattr(gradtx, name)(lambda count: 0.5 / (count + 1))
    state = tx.init(params)
    rates = [float(state.learning_rate)]
    for override in ({}, {}, {"learning_rate": 0.125}):
        _, state = tx.update(params, state, params, **value_for(name), **override)
        rates.append(float(state.learning_rate))
    assert rates == [0.5, 0.5, 0.25, 0.125]
    assert int(state.count) == 3
    assert float(gradtx.tree.get(state, "learning_rate")) == 0.125
    assert int(gradtx.tree.get(state, "count")) == 3


def test_a_constant_rate_of_cocob_changes_nothing_and_a_schedule_does(x64):
    p, gradients = jnp.zeros(3), [trees.numbers((3,), i, jnp.float64) for i in range(5)]

    def last(rate):
        return walk(gradtx.cocob(rate), p, gradients)[2]

    np.testing.assert_allclose(last(0.01), last(1.0), rtol=1e-12)
    assert not np.allclose(last(lambda count: 1.0 / (count + 1)), last(1.0))
    stopped = walk(gradtx.cocob(lambda count: 1.0 * (count < 4)), p, gradients)[0]
    np.testing.assert_allclose(stopped, 0, atol=1e-16)


# ---- Estimates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dog", "dowg", "dadapt_adamw", "prodigy"])
@pytest.mark.parametrize("far", [1.0, 1e4])
def test_estimates_grow_to_the_size_of_the_problem(name, far):
    """From a distance that is wrong by ten orders of magnitude, without a rate."""
    target = far * jnp.array([1.0, -2.0, 0.5])

    def loss(p):
        return jnp.sum(jnp.abs(p - target)) / far

    tx = getattr(gradtx, name)()

    @jax.jit
    def train(p):
        def step(carry, _):
            p, state, mean = carry
            updates, state = tx.update(jax.grad(loss)(p), state, p)
            p = p + updates
            return (p, state, mean + 0.002 * (p - mean)), None

        (p, _, mean), _ = jax.lax.scan(step, (p, tx.init(p), p), length=20_000)
        return mean

    start = jnp.zeros(3)
    assert loss(train(start)) < 0.05 * loss(start)


def test_the_first_rate_of_dog_can_be_set(x64):
    p, g = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    tx = gradtx.dog(init_step=("learning_rate", 0.01))
    updates, state = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(updates, -0.01 * g, rtol=1e-14)
    updates, state = tx.update(g, state, p + updates)
    # the distance 0.05 over sqrt(25 + 25 + eps)
    np.testing.assert_allclose(updates, -0.05 / np.sqrt(50 + 1e-8) * g, rtol=1e-12)
    assert float(state[1].max_dist) == pytest.approx(0.05)


# ---- What cannot be right ----------------------------------------------------------------------


def test_dog_names_the_first_steps_that_there_are():
    with refused(
        ValueError, "dog: init_step must", "'heuristic'", "'distance'", "got ('guess', 1.0)"
    ):
        gradtx.dog(init_step=("guess", 1.0))


@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_momo_says_what_is_missing(name):
    tx, p = getattr(gradtx, name)(), jnp.ones(2)
    with refused(TypeError, name, "needs the loss", "update(updates, state, params, value=...)"):
        tx.update(p, tx.init(p), p)
    with refused(ValueError, name, "update(updates, state, params)"):
        tx.update(p, tx.init(p), value=1.0)


@pytest.mark.parametrize("name", ["dadapt_adamw", "prodigy", "momo_adam"])
def test_methods_that_measure_number_by_number_refuse_complex_ones(name):
    with refused(TypeError, name, "params['z']", "complex64"):
        getattr(gradtx, name)().init({"z": jnp.ones(2, jnp.complex64)})
