"""Mechanic: the scale of another optimizer's steps, learnt."""

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
GRADIENTS = [trees.like(PARAMS, i) for i in range(4)]
ADAM = gradtx.mechanize(gradtx.adam(1.0))


def by_hand(gradients, start, rate, weight_decay=0.01, eps=1e-8, s_init=1e-6, num_betas=6):
    """Cutkosky et al., arXiv:2306.00144, Algorithm 1, around gradient descent.

    As in the authors' programs, the sum of steps is read off the parameters, and changes of the
    loss are clipped to the largest seen before.
    """
    betas = 1 - 0.1 ** np.arange(1, num_betas + 1)
    r, m, v = np.zeros((3, num_betas))
    x, s, steps = start, np.full(num_betas, s_init), []
    for g in gradients:
        total = (x - start) / (np.sum(s) + eps)
        pull = weight_decay * np.sum(s) * np.linalg.norm(g) / (np.linalg.norm(x) + eps)
        h = total @ (g + pull * x)
        r = betas * r - s * np.clip(h, -m, m)
        m = np.maximum(betas * m, np.abs(h) + eps)
        v = betas**2 * v + h**2
        s = (s_init * m / num_betas + np.maximum(r, 0)) / (np.sqrt(v) + eps)
        steps.append(start + np.sum(s) * (total - rate * g) - x)
        x = x + steps[-1]
    return steps, s


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.0},
        {"weight_decay": 0.5, "s_init": 0.1},
        {"eps": 0.1},
        {"s_init": 0.1},
        {"num_betas": 1, "s_init": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("one_sign", [True, False])
def test_against_numpy_and_optax(settings, one_sign, x64):
    start = trees.numbers((5,), 1, jnp.float64)
    gradients = [trees.numbers((5,), i, jnp.float64) for i in range(30)]
    if one_sign:  # the scale grows, as the loss goes on falling
        gradients = [jnp.abs(g) for g in gradients]
    # The sum of steps is a difference of parameters, divided by the scale.
    digits = 1e-12 / settings.get("s_init", 1e-6)
    wanted, scales = by_hand([np.asarray(g) for g in gradients], np.asarray(start), 0.5, **settings)
    for library in (gradtx, optax):
        mechanize = gradtx.mechanize if library is gradtx else optax.contrib.mechanize
        tx = mechanize(library.sgd(0.5), **settings)
        update = tx.update if library is gradtx else jax.jit(tx.update)
        params = {"a": start[:2], "b": start[2:]}
        state = tx.init(params)
        for g, step in zip(gradients, wanted, strict=True):
            updates, state = update({"a": g[:2], "b": g[2:]}, state, params)
            params = library.apply_updates(params, updates)
            ours = np.concatenate([updates["a"], updates["b"]])
            bound = digits * np.max(np.abs(step)) + 1e-15
            np.testing.assert_allclose(ours, step, rtol=0, atol=bound)
        np.testing.assert_allclose(state.s, scales, rtol=10 * digits)
    assert np.sum(scales) > (1e-4 if one_sign and not settings else 0)


def test_two_steps_by_hand(x64):
    # S = 1 at first, where nothing has moved: h = 0, m = eps, s = s_init * m / eps = 1; p = 3 - 2.
    # Then D = -2 / (1 + eps), h = 4 D; r = -clip(h, -eps, eps) = eps; m = |h| + eps, v = h^2;
    # s = (m + eps) / (|h| + eps) = 1 + eps / m.
    eps = 0.5
    tx = gradtx.mechanize(gradtx.sgd(1.0), weight_decay=0.0, eps=eps, s_init=1.0, num_betas=1)
    p = jnp.array(3.0)
    state = tx.init(p)
    first, state = tx.update(jnp.array(2.0), state, p)
    second, state = tx.update(jnp.array(4.0), state, p + first)
    d = 2 / 1.5
    scale = 1 + eps / (4 * d + eps)
    np.testing.assert_allclose([first, second], [-2.0, 2 - scale * (d + 4)], rtol=1e-14)
    np.testing.assert_allclose(
        [state.r[0], state.m[0], state.v[0], state.s[0]],
        [eps, 4 * d + eps, 16 * d**2, scale],
        rtol=1e-14,
    )


@pytest.mark.parametrize("rate", [1e-3, 1.0, 1e3])
def test_finds_the_scale(rate, x64):
    """Rates that are a million apart end at the same place."""
    target = jnp.array([1.0, -2.0])

    def loss(p):
        return jnp.sum((p - target) ** 2)

    tx = gradtx.mechanize(gradtx.adam(rate), weight_decay=0.0)

    @jax.jit
    def train(p):
        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jax.grad(loss)(p), state, p)
            return (p + updates, state), None

        return jax.lax.scan(step, (p, tx.init(p)), length=3000)[0][0]

    start = jnp.array([10.0, 10.0])
    assert loss(train(start)) < 1e-3 * loss(start)


@pytest.mark.parametrize("x64", [False, True])
def test_the_state_is_a_fixed_point(x64):
    with jax.enable_x64(x64):
        dtypes = ["float32", "bfloat16", "float16", "complex64"] + ["float64"] * x64
        params = {d: trees.numbers((2,), 1, d) for d in dtypes}
        gradients = {d: trees.numbers((2,), 2, d if d[0] == "c" else "float32") for d in dtypes} | {
            "float32": trees.numbers((2,), 2, "bfloat16")
        }
        first = ADAM.init(params)
        assert avals(jax.eval_shape(ADAM.init, params)) == avals(first)
        assert avals(jax.jit(ADAM.init)(params)) == avals(first)
        assert not any(weak for *_, weak in avals(first)[1])
        updates, state = ADAM.update(gradients, first, params)
        assert avals(state) == avals(first)
        assert avals(updates) == avals(gradients)


def test_eager_equals_jitted_and_compiles_once():
    update = jax.jit(ADAM.update)
    state, params = ADAM.init(PARAMS), PARAMS
    for g in GRADIENTS:
        eager, new = ADAM.update(g, state, params)
        assert_ulps(update(g, state, params), (eager, new), 4, of_largest=True)
        params, state = gradtx.apply_updates(params, eager), new
    with counted_traces() as found:
        ADAM.update(GRADIENTS[0], state, params)
        update(GRADIENTS[0], state, params)
    assert found == []


def test_scan_with_donated_buffers():
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *GRADIENTS)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(params, state):
        def step(carry, g):
            params, state = carry
            updates, state = ADAM.update(g, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), stacked)[0]

    params = jax.tree.map(jnp.copy, PARAMS)
    done, _ = train(params, ADAM.init(params))
    assert all(x.is_deleted() for x in jax.tree.leaves(params))
    assert_ulps(done, walk(ADAM, PARAMS, GRADIENTS)[2], 4, of_largest=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_zero_gradients_and_large_ones(dtype):
    params = {"w": jnp.full(3, 2.0, dtype)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state, _ = walk(gradtx.mechanize(gradtx.sgd(1.0)), params, [zeros, zeros])
    assert_equal(updates, zeros)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state))
    large = {"w": jnp.full(3, 6e4, dtype)}
    updates, state, _ = walk(gradtx.mechanize(gradtx.sgd(1e-6)), params, [large, large])
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((updates, state)))


def test_gradients_pass_through():
    def last(rate, p):
        tx = gradtx.mechanize(gradtx.sgd(rate))
        state = tx.init(p)
        for _ in range(3):
            updates, state = tx.update(p, state, p)
            p = p + updates
        return jnp.sum(p)

    for p in (jnp.ones(2), jnp.zeros(2)):
        slopes = jax.jit(jax.grad(last, argnums=(0, 1)))(0.1, p)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in slopes)


def test_extra_arguments_reach_the_optimizer_and_its_trees_may_lack_leaves():
    tx = gradtx.mechanize(gradtx.polyak_sgd())
    state = tx.init(PARAMS)
    with refused(TypeError, "polyak_sgd", "value"):
        tx.update(GRADIENTS[0], state, PARAMS)
    tx.update(GRADIENTS[0], state, PARAMS, value=1.0, unknown=None)
    given = gradtx.mechanize(gradtx.sgd(1.0))
    _, state = given.update(GRADIENTS[0], given.init(PARAMS), PARAMS, learning_rate=0.25)
    assert float(state.base_optimizer_state[1].learning_rate) == 0.25

    some = {**PARAMS, "b": None}
    updates, state, _ = walk(ADAM, some, [{**g, "b": None} for g in GRADIENTS])
    assert updates["b"] is None
    without = walk(
        ADAM,
        {k: v for k, v in PARAMS.items() if k != "b"},
        [{k: v for k, v in g.items() if k != "b"} for g in GRADIENTS],
    )
    assert_equal(jax.tree.leaves((updates, state)), jax.tree.leaves(without[:2]))
    masked = gradtx.masked(ADAM, {"a": True, "b": False, "c": {"d": True}})
    updates, _, _ = walk(masked, PARAMS, GRADIENTS)
    assert_equal(updates["b"], GRADIENTS[-1]["b"])


def test_hyperparameters_in_the_state():
    made = gradtx.inject_hyperparams(
        functools.partial(gradtx.mechanize, gradtx.sgd(1.0)), static_args="num_betas"
    )(s_init=0.1)
    plain = gradtx.mechanize(gradtx.sgd(1.0), s_init=0.1)
    ours, theirs = (walk(tx, PARAMS, GRADIENTS)[0] for tx in (made, plain))
    assert_ulps(ours, theirs, 16, of_largest=True)


def test_what_cannot_be_right():
    with refused(ValueError, "mechanize: num_betas must be a whole number, at least 1, got 0"):
        gradtx.mechanize(gradtx.sgd(1.0), num_betas=0)
    with refused(ValueError, "mechanize: eps must be finite and positive, got 0.0"):
        gradtx.mechanize(gradtx.sgd(1.0), eps=0.0)
    state = ADAM.init(PARAMS)
    with refused(ValueError, "mechanize", "update(updates, state, params)"):
        ADAM.update(PARAMS, state)
    with refused(TypeError, "mechanize", "a dict", "MechanicState"):
        ADAM.update(PARAMS, PARAMS, state)
    with refused(TypeError, "mechanize", "params['n']", "int32"):
        ADAM.init({"n": jnp.arange(3)})
    wrong = {**PARAMS, "b": jnp.ones(4)}
    with refused(ValueError, "updates['b']", "(4,)", "(3,)"):
        ADAM.update(wrong, state, PARAMS)
    assert jax.tree.structure(ADAM.init({})) == jax.tree.structure(
        ADAM.update({}, ADAM.init({}), {})[1]
    )
