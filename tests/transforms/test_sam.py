"""Sharpness-aware minimization."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused
from test_conformance import counted_traces, walk
from trees import assert_equal, assert_ulps, avals

import gradtx

PARAMS = trees.small()
GRADIENTS = [trees.like(PARAMS, i) for i in range(7)]
normalized = gradtx.stateless(lambda u, p: jax.tree.map(lambda x: x / gradtx.global_norm(u), u))


def ascent(rho=0.05):
    return gradtx.chain(normalized, gradtx.sgd(rho))


CURVATURE = np.array([1.0, 3.0, 10.0])


def slope(q):
    return CURVATURE * q + q**3


def by_hand(start, rho, rate, steps, climbs=1):
    """Foret et al., arXiv:2010.01412, Algorithm 1, with gradient descent; more than one climb goes
    on from where the last one led."""
    p, seen = start, []
    for _ in range(steps):
        q = p
        for _ in range(climbs):
            g = slope(q)
            q = q + rho * g / np.linalg.norm(g)
        p = p - rate * slope(q)
        seen.append(p)
    return seen


@pytest.mark.parametrize("period", [1, 2, 4])
def test_both_modes_against_numpy(period, x64):
    start = np.array([1.0, -2.0, 0.5])
    wanted = by_hand(start, 0.05, 0.02, 5, period - 1)
    tx = gradtx.sam(gradtx.sgd(0.02), ascent(), period)
    p = jnp.asarray(start)
    state = tx.init(p)
    for t in range(5 * period):
        updates, state = tx.update(slope(p), state, p)
        p = p + updates
        assert int(state.steps_since_sync) == (t + 1) % period
        if (t + 1) % period == 0:
            np.testing.assert_allclose(p, wanted[t // period], rtol=1e-12)
    tx = gradtx.sam(gradtx.sgd(0.02), ascent(), period, opaque_mode=True)
    p = jnp.asarray(start)
    state = tx.init(p)
    points = []

    def grad_fn(q, i):
        points.append(i)
        return slope(q)

    for t in range(5):
        updates, state = tx.update(slope(p), state, p, grad_fn=grad_fn)
        p = p + updates
        np.testing.assert_allclose(p, wanted[t], rtol=1e-12)
    assert points == list(range(period - 1)) * 5


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(
    ("period", "opaque"), [(2, False), (3, False), (1, True), (2, True), (3, True)]
)
def test_optax_agrees(period, reset, opaque, x64):
    """With optimizers that have states, and look at the parameters."""
    ends = []
    for library in (gradtx, optax):
        sam = gradtx.sam if library is gradtx else optax.contrib.sam
        up = library.sgd(0.05, momentum=0.5)
        tx = sam(library.adamw(0.1, weight_decay=0.3), up, period, reset, opaque)
        p, grad_fn = jnp.array([1.0, -2.0, 0.5]), lambda q, i: slope(q)
        state, update = tx.init(p), jax.jit(tx.update, static_argnames="grad_fn")
        more = {"grad_fn": grad_fn} if opaque else {}
        seen = []
        for _ in range(13):
            updates, state = update(slope(p), state, p, **more)
            p = p + updates
            seen.append(p)
        ends.append((np.stack(seen), state.adv_state[0].trace, state.steps_since_sync, state.cache))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10), *ends)


def test_a_period_of_one_is_the_optimizer_alone_where_optax_starts_one_step_back(x64):
    start, rate = jnp.array([1.0, -2.0, 0.5]), 0.1
    gradients = [trees.numbers((3,), i, jnp.float64) for i in range(4)]
    tx = gradtx.sam(gradtx.adamw(rate), ascent(), 1)
    np.testing.assert_allclose(
        walk(tx, start, gradients)[2], walk(gradtx.adamw(rate), start, gradients)[2], rtol=1e-12
    )
    theirs = optax.contrib.sam(optax.sgd(rate), optax.sgd(0.05), 1)
    seen, state = [start, start], theirs.init(start)
    for g in gradients:
        updates, state = theirs.update(g, state, seen[-1])
        seen.append(seen[-1] + updates)
        np.testing.assert_allclose(seen[-1], seen[-3] - rate * g, rtol=1e-12)


def test_goes_to_the_flattest_of_all_minima():
    """Of `(x * y - 1)**2 / 2` those are at `x * y = 1`, with the curvature `x**2 + y**2`."""

    def loss(p):
        return (p[0] * p[1] - 1) ** 2 / 2

    def end(tx):
        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jax.grad(loss)(p), state, p)
            return (p + updates, state), None

        start = jnp.array([4.0, 0.3])
        return jax.lax.scan(step, (start, tx.init(start)), length=4000)[0][0]

    alone = jax.jit(lambda: end(gradtx.sgd(0.02)))()
    flat = jax.jit(lambda: end(gradtx.sam(gradtx.sgd(0.02), ascent(0.1))))()
    np.testing.assert_allclose(jnp.prod(alone), 1.0, atol=1e-3)
    np.testing.assert_allclose(jnp.prod(flat), 1.0, atol=0.1)
    assert jnp.sum(flat**2) < 0.5 * jnp.sum(alone**2)


# ---- What JAX does to functions ----------------------------------------------------------------


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("name", ["adamw", "prodigy", "lion"])
def test_the_state_is_a_fixed_point(name, opaque):
    dtypes = ("float32", "bfloat16", "float16")
    params = {d: trees.numbers((2,), 1, d) for d in dtypes} | {"none": None}
    gradients = {d: trees.numbers((2,), 2, "float32") for d in dtypes} | {"none": None}
    tx = gradtx.sam(gradtx.catalog.get(name).make(), ascent(), opaque_mode=opaque)
    more = {"grad_fn": lambda q, i: q} if opaque else {}
    first = tx.init(params)
    assert avals(jax.eval_shape(tx.init, params)) == avals(first)
    state = first
    for _ in range(3):
        updates, state = tx.update(gradients, state, params, **more)
        assert avals(state) == avals(first) and avals(updates) == avals(gradients)


def test_eager_scan_vmap_and_donation():
    tx = gradtx.sam(gradtx.adamw(0.1), ascent(), 3)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *GRADIENTS)
    _, state, params = walk(tx, PARAMS, GRADIENTS)
    with counted_traces() as found:
        walk(tx, PARAMS, GRADIENTS[:3])
    assert found == []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(params, state):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), stacked)[0]

    start = jax.tree.map(jnp.copy, PARAMS)
    done = train(start, tx.init(start))
    assert_ulps(done, (params, state), 4, of_largest=True)
    rows = jax.tree.map(lambda x: jnp.stack([x, -x]), PARAMS)
    both = jax.vmap(lambda p: walk(tx, p, GRADIENTS[:3])[2])(rows)
    alone = walk(tx, PARAMS, GRADIENTS[:3])[2]
    assert_ulps(jax.tree.map(lambda x: x[0], both), alone, 4, of_largest=True)


def test_half_precision_comes_back_to_where_it_started():
    """The way up is taken back to the bit, however coarse its steps are."""
    for dtype in ("bfloat16", "float16"):
        p = trees.numbers((50,), 1, dtype)
        tx = gradtx.sam(gradtx.set_to_zero(), gradtx.sgd(0.37), 2)
        state, q = tx.init(p), p
        for i in range(6):
            updates, state = tx.update(trees.numbers((50,), i, dtype), state, q)
            q = q + updates
        assert_equal(q, p)


@pytest.mark.parametrize("opaque", [True, False])
def test_members_of_an_axis_climb_alone_and_descend_together(opaque, x64):
    """In the transparent mode too, where optax leaves each with parameters of its own."""
    p, parts = jnp.array([1.0, 2.0]), jnp.array([[3.0, 4.0], [1.0, 0.0]])

    def end(library, part):
        sam = gradtx.sam if library is gradtx else optax.contrib.sam
        tx = sam(library.sgd(0.1), library.sgd(0.5), opaque_mode=opaque, batch_axis_name="batch")
        more = {"grad_fn": lambda q, i: part * q} if opaque else {}
        q, state = p, tx.init(p)
        for _ in range(1 if opaque else 2):
            updates, state = tx.update(part * q, state, q, **more)
            q = q + updates
        return q

    ours, theirs = (
        jax.vmap(functools.partial(end, library), axis_name="batch")(parts)
        for library in (gradtx, optax)
    )
    up = p + 0.5 * parts * p
    np.testing.assert_allclose(ours, [p - 0.1 * jnp.mean(parts * up, axis=0)] * 2, rtol=1e-12)
    assert np.allclose(ours, theirs) == opaque


def test_extra_arguments_and_missing_leaves():
    tx = gradtx.sam(gradtx.polyak_sgd(), gradtx.sgd(0.1), 1)
    with refused(TypeError, "scale_by_polyak", "value"):
        tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS)
    tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS, value=1.0, unknown=None)
    # The rate at the call is that of the descent.
    tx = gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.5), opaque_mode=True)
    p = jnp.array([1.0])
    updates, state = tx.update(p, tx.init(p), p, grad_fn=lambda q, i: q, learning_rate=0.2)
    np.testing.assert_allclose(updates, [-0.3], rtol=1e-6)
    assert float(state.opt_state[1].learning_rate) == np.float32(0.2)
    # What has no gradient stands still, and a mask hides leaves from the gradients too.
    for opaque in (False, True):
        tx = gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.5), opaque_mode=opaque)
        more = {"grad_fn": lambda q, i: {**q, "b": None}} if opaque else {}
        some = {**GRADIENTS[0], "b": None}
        updates, _ = tx.update(some, tx.init(PARAMS), PARAMS, **more)
        assert updates["b"] is None
        mask = {"a": True, "b": False, "c": {"d": True}}
        more = {"grad_fn": lambda q, i: q} if opaque else {}
        masked = gradtx.masked(tx, mask)
        updates, state = masked.update(GRADIENTS[0], masked.init(PARAMS), PARAMS, **more)
        assert_equal(updates["b"], GRADIENTS[0]["b"])
        alone, _ = tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS, **more)
        assert_equal((updates["a"], updates["c"]), (alone["a"], alone["c"]))
        assert avals(state) == avals(masked.init(PARAMS))


def test_hyperparameters_may_be_traced():
    def end(period, rho):
        tx = gradtx.sam(gradtx.sgd(0.1), ascent(rho), period)
        return walk(tx, PARAMS, GRADIENTS[:6])[2]["b"]

    together = jax.jit(jax.vmap(end))(jnp.array([2, 3]), jnp.array([0.1, 0.2]))
    for i, (period, rho) in enumerate([(2, 0.1), (3, 0.2)]):
        np.testing.assert_allclose(together[i], end(period, rho), rtol=1e-5)


# ---- What cannot be right ----------------------------------------------------------------------


def test_what_cannot_be_right_is_refused():
    with refused(ValueError, "sam", "sync_period must be a whole number, at least 1, got 0"):
        gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), 0)
    with refused(ValueError, "sam", "sync_period must be an integer in opaque mode, got 2.0"):
        gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), 2.0, opaque_mode=True)
    tx = gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1))
    with refused(ValueError, "sam", "update(updates, state, params)"):
        tx.update(PARAMS, tx.init(PARAMS))
    with refused(TypeError, "sam", "a dict", "SAMState"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
    with refused(ValueError, "sam", "state.cache", "updates['b']"):
        tx.update(PARAMS, tx.init({**PARAMS, "b": jnp.ones(2)}), PARAMS)
    opaque = gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), opaque_mode=True)
    state = opaque.init(PARAMS)
    with refused(TypeError, "sam", "the gradient function", "grad_fn=..."):
        opaque.update(PARAMS, state, PARAMS)
    with refused(ValueError, "sam", "grad_fn(params, 0)", "['b']"):
        opaque.update(PARAMS, state, PARAMS, grad_fn=lambda q, i: {"a": q["a"], "c": q["c"]})
