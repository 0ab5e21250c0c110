"""Sophia and the estimator of the Hessian's diagonal, beyond what all optimizers are tested for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused
from trees import assert_equal, avals

import gradtx
from gradtx import hutchinson_estimator_diag_hessian, second_order
from gradtx.crosschecking import sample_loss

MATRIX = np.array([[3.0, 1.0, 0.5], [1.0, -2.0, 0.25], [0.5, 0.25, 4.0]])


def quadratic(p):
    return 0.5 * p @ jnp.asarray(MATRIX) @ p


# ---- The estimator -----------------------------------------------------------------------------


def estimates(tx, p, loss, many):
    def step(state, _):
        found, state = tx.update(p, state, p, obj_fn=loss)
        return state, found

    return jax.jit(lambda: jax.lax.scan(step, tx.init(p), length=many)[1])()


def test_estimates_are_signs_times_the_hessian_times_signs(x64):
    """Of three signs there are four pairs of opposite choices, and their mean is the diagonal."""
    found = estimates(hutchinson_estimator_diag_hessian(), jnp.ones(3), quadratic, 200)
    signs = np.array([[1, a, b] for a in (1, -1) for b in (1, -1)])
    possible = signs * (signs @ MATRIX)
    nearest = np.abs(found[:, None] - possible).sum(axis=-1)
    np.testing.assert_allclose(nearest.min(axis=1), 0, atol=1e-12)
    counts = np.bincount(nearest.argmin(axis=1), minlength=4)
    assert counts.min() > 30  # of 50 expected
    np.testing.assert_allclose(possible.mean(axis=0), np.diag(MATRIX))


def test_a_diagonal_hessian_is_found_at_once(x64):
    params = {"a": trees.numbers((3,), 1, jnp.float64), "b": trees.numbers((2, 2), 2, jnp.float64)}
    _, unravel = jax.flatten_util.ravel_pytree(params)
    wanted = unravel(second_order.hessian_diag(lambda p, x, y: sample_loss(p), params, 0, 0))
    for library in (gradtx, optax.contrib):
        tx = library.hutchinson_estimator_diag_hessian()
        found, _ = tx.update(params, tx.init(params), params, obj_fn=sample_loss)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), found, wanted)


def test_leaves_of_one_shape_get_signs_of_their_own():
    def loss(p):
        return jnp.sum(p["a"] * p["b"])  # estimates are products of their signs

    p = {"a": jnp.ones(64), "b": jnp.ones(64)}
    tx = hutchinson_estimator_diag_hessian()
    found, _ = tx.update(p, tx.init(p), p, obj_fn=loss)
    assert_equal(found["a"], found["b"])
    assert 16 < int(jnp.sum(found["a"] > 0)) < 48


@pytest.mark.parametrize(
    ("given", "seed"),
    [(None, 0), (3, 3), (jax.random.key(3), 3), (np.array([0, 3], np.uint32), 3)],
    ids=["none", "seed", "key", "old key"],
)
def test_the_seed_says_what_is_drawn(given, seed):
    p = jnp.ones(3)
    first = estimates(hutchinson_estimator_diag_hessian(given), p, quadratic, 8)
    assert_equal(estimates(hutchinson_estimator_diag_hessian(seed), p, quadratic, 8), first)
    other = estimates(hutchinson_estimator_diag_hessian(9), p, quadratic, 8)
    assert not np.array_equal(other, first)


def test_a_seed_breaks_optax():
    """It takes the seed itself for its random key."""
    tx, p = optax.contrib.hutchinson_estimator_diag_hessian(3), jnp.ones(3)
    with pytest.raises(TypeError, match="key"):
        tx.update(p, tx.init(p), p, obj_fn=quadratic)


def test_leaves_may_differ_in_precision_where_optax_wants_one():
    p = {"h": jnp.ones(2, jnp.bfloat16), "w": jnp.ones(2)}
    ours = hutchinson_estimator_diag_hessian()
    found, _ = ours.update(p, ours.init(p), p, obj_fn=sample_loss)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, [1.0, 10.0]), found)
    theirs = optax.contrib.hutchinson_estimator_diag_hessian()
    with pytest.raises(TypeError, match="tangent"):
        theirs.update(p, theirs.init(p), p, obj_fn=sample_loss)


def test_the_state_of_the_estimator():
    tx, p = hutchinson_estimator_diag_hessian(), {"w": jnp.ones(2, jnp.bfloat16), "n": None}
    state = tx.init(p)
    assert avals(jax.eval_shape(tx.init, p)) == avals(state)
    found, new = tx.update(p, state, p, obj_fn=lambda p: jnp.sum(p["w"] ** 3))
    assert avals(new) == avals(state) and found["w"].dtype == jnp.float32 and found["n"] is None
    np.testing.assert_allclose(found["w"], 6.0)
    jax.jit(tx.update, donate_argnums=1, static_argnames="obj_fn")(
        p, tx.init(p), p, obj_fn=lambda p: jnp.sum(p["w"] ** 3)
    )
    tx.init(p)  # the key that was given away is not that of the next run


# ---- Sophia ------------------------------------------------------------------------------------


CURVATURE = np.array([1.0, 3.0, 10.0, 0.5])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"update_interval": 3},
        {"clip_threshold": 0.3, "weight_decay": 0.1, "learning_rate": 0.2},
        {"eps": 2.0},
        {"gamma": 0.5},
    ],
    ids=str,
)
def test_optax_agrees_where_nothing_is_averaged(settings, x64):
    """Over 100 steps: the first ones clipped, the last ones not."""

    def loss(p):
        return jnp.sum(CURVATURE * p**2) / 2

    def trajectory(library):
        made = {"learning_rate": 0.05, "gamma": 1.0, "b1": 0.0, "b2": 0.0, **settings}
        tx = library.sophia(**made)

        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jax.grad(loss)(p), state, p, obj_fn=loss)
            return (p + updates, state), updates

        start = jnp.array([3.0, -2.0, 2.5, 4.1])
        return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=100)[1])(start)

    ours, theirs = trajectory(gradtx), trajectory(optax.contrib)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)
    assert np.unique(np.round(np.abs(ours), 6)).size > 50


def test_averages_are_the_papers_where_optax_takes_others(x64):
    """It divides the average of gradients by `1 - b1**t`, and by curvatures without the latest."""
    p = jnp.array([0.1, -0.2])
    settings = {"gamma": 1.0, "eps": 0.5, "b1": 0.8, "b2": 0.0, "update_interval": 1}

    def two_steps(library):
        tx = library.sophia(1.0, **settings, weight_decay=0.0, clip_threshold=None)
        state, found = tx.init(p), []
        for _ in range(2):
            updates, state = tx.update(p, state, p, obj_fn=lambda q: jnp.sum(q**2))
            found.append(updates)
        return np.stack(found)

    m = np.array([[0.2], [0.36]]) * p
    np.testing.assert_allclose(two_steps(gradtx), -m / 2, rtol=1e-12)
    np.testing.assert_allclose(two_steps(optax.contrib), -np.stack([p / 0.5, p / 2]), rtol=1e-12)


def test_curvatures_that_are_negative_or_none_give_steps_of_full_length():
    tx = gradtx.sophia(0.1, weight_decay=0.0, clip_threshold=2.0)
    p = jnp.array([1.0, 1.0, 0.0])

    def saddle(q):
        return q[0] ** 2 / 2 - q[1] ** 2 / 2

    updates, _ = tx.update(jax.grad(saddle)(p), tx.init(p), p, obj_fn=saddle)
    np.testing.assert_allclose(updates, [-0.2, 0.2, 0.0], rtol=1e-6)


def test_curvatures_are_measured_at_their_steps_only():
    """By a branch: in between, the loss is not even looked at in eager mode."""
    calls = []

    def loss(p):
        calls.append(None)
        return jnp.sum(p**2)

    tx, p = gradtx.sophia(0.1, update_interval=3), jnp.ones(2)
    state, seen = tx.init(p), []
    for _ in range(7):
        calls.clear()
        before = state[0]
        _, state = tx.update(p, state, p, obj_fn=loss)
        seen.append(len(calls) > 0)
        assert bool(jnp.all(state[0].nu == before.nu)) != seen[-1]
        same = jax.random.key_data(state[0].hessian_fn_state.key) == jax.random.key_data(
            before.hessian_fn_state.key
        )
        assert bool(jnp.all(same)) != seen[-1]
    assert seen == [True, False, False, True, False, False, True]
    jaxpr = str(jax.make_jaxpr(lambda g, s: tx.update(g, s, p, obj_fn=loss))(p, state))
    assert "cond[" in jaxpr


@pytest.mark.parametrize("estimator", ["ours", "optax's", "exact"])
def test_other_estimators(estimator):
    """Any transformation that gives the diagonal in the place of the updates."""

    def exact(updates, state, params=None, **extra):
        return second_order.hessian_diag(lambda p, x, y: quadratic(p), params, 0, 0), state

    tx = gradtx.sophia(
        0.1,
        b1=0.0,
        b2=0.0,
        gamma=1.0,
        clip_threshold=10.0,
        weight_decay=0.0,
        hessian_diagonal_fn={
            "ours": hutchinson_estimator_diag_hessian(5),
            "optax's": optax.contrib.hutchinson_estimator_diag_hessian(),
            "exact": gradtx.GradientTransformation(lambda params: (), exact),
        }[estimator],
    )
    p = jnp.array([1.0, 0.0, 1.0])
    state, more = tx.init(p), {} if estimator == "exact" else {"obj_fn": quadratic}
    updates, new = jax.jit(lambda g, s: tx.update(g, s, p, **more))(jnp.ones(3), state)
    assert avals(new) == avals(state)
    if estimator == "exact":  # and without obj_fn, which it does not need
        np.testing.assert_allclose(updates, [-0.1 / 3, -1.0, -0.1 / 4], rtol=1e-6)


def test_the_win_rate_is_printed(capfd):
    def loss(p):
        return jnp.sum(jnp.array([1.0, 1.0, 1.0, 1e-9]) * p**2 / 2)

    p = jnp.full(4, 0.5)
    for settings, steps in (
        ({"verbose": True}, [1, 2, 3, 4]),
        ({"verbose": True, "print_win_rate_every_n_steps": 2}, [2, 4]),
        ({"print_win_rate_every_n_steps": 2}, []),
    ):
        tx = gradtx.sophia(0.1, gamma=1.0, b1=0.0, b2=0.0, **settings)
        for update in (tx.update, jax.jit(tx.update, static_argnames="obj_fn")):
            state = tx.init(p)
            for _ in range(4):
                _, state = update(p, state, p, obj_fn=loss)
            jax.effects_barrier()
            lines = capfd.readouterr().out.splitlines()
            assert lines == [f"sophia: win rate 0.75 at step {t}" for t in steps]


def test_the_state_has_the_names_that_optax_has():
    p = {"w": jnp.ones(2)}
    ours, theirs = (x.sophia(0.1).init(p)[0] for x in (gradtx, optax.contrib))
    assert ours._fields == theirs._fields
    assert type(ours.hessian_fn_state).__name__ == type(theirs.hessian_fn_state).__name__


# ---- What cannot be right ----------------------------------------------------------------------


def test_what_cannot_be_right_is_refused():
    p = jnp.ones(2)
    tx = gradtx.sophia(0.1)
    told = (
        "the loss as a function of the parameters",
        "update(updates, state, params, obj_fn=...)",
    )
    with refused(TypeError, "sophia", *told):
        tx.update(p, tx.init(p), p)
    estimator = hutchinson_estimator_diag_hessian()
    with refused(TypeError, "hutchinson_estimator_diag_hessian", *told):
        estimator.update(p, estimator.init(p), p)
    with refused(ValueError, "hutchinson_estimator_diag_hessian", "update(updates, state, params)"):
        estimator.update(p, estimator.init(p), obj_fn=quadratic)
    with refused(TypeError, "hutchinson_estimator_diag_hessian", "complex64"):
        estimator.init(jnp.ones(2, jnp.complex64))
    with refused(
        ValueError,
        "hutchinson_estimator_diag_hessian",
        "random_seed must be one key or seed, got shape (2,)",
    ):
        hutchinson_estimator_diag_hessian(jax.random.split(jax.random.key(0)))
    with refused(ValueError, "sophia", "update_interval must be a whole number, at least 1, got 0"):
        gradtx.sophia(0.1, update_interval=0)
    with refused(
        TypeError,
        "sophia",
        "hessian_diagonal_fn must be a transformation",
        "the function quadratic",
    ):
        gradtx.sophia(0.1, hessian_diagonal_fn=quadratic)
