"""Hyperparameters as numbers, arrays and tracers, and what is kept of them between calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import trees
from representatives import each_engine, each_entry, first
from test_conformance import counted_traces, step_of, walk
from test_references import assert_close, make_problem, run, wanted_steps
from trees import assert_equal, assert_ulps, avals, needed

import gradtx
from gradtx.engine.made import Freezer


def floats(entry):
    """The hyperparameters that are numbers, as the probe or the signature sets them."""
    settings = {**entry.hyperparameters, **entry.probe}
    return {n: x for n, x in settings.items() if isinstance(x, float)}


@each_engine
@pytest.mark.parametrize(
    "kind",
    [
        *first(
            [
                pytest.param(jnp.float32, id="jax"),
                pytest.param(np.float32, id="numpy"),
                pytest.param(np.asarray, id="0-d"),
            ]
        )
    ],
)
def test_hyperparameters_may_be_arrays(entry, kind):
    """An array is the number that JAX makes of it, and is not read while tracing."""
    start, gradients = make_problem(entry.name, np.float32, entry.takes_complex, one_sign=True)
    arrays = {name: kind(x) for name, x in floats(entry).items()}
    tx = entry.make(**arrays)
    state = tx.init(start)
    assert avals(state) == avals(entry.make().init(start))
    assert avals(step_of(entry, tx)(gradients[0], state, start)[1]) == avals(state)
    exact = {name: float(jnp.asarray(x)) for name, x in arrays.items()}
    reference = references.OPTIMIZERS[entry.name]
    wanted = wanted_steps(reference, gradients, start, {**entry.probe, **exact})
    # As with plain numbers, and the tables of `expm1` and `log` add a few roundings of their own.
    bound = (reference.ulps or 16) * float(np.finfo(np.float32).eps)
    assert_close(run(tx, gradients, start, entry), wanted, bound, reference)


@pytest.mark.slow
@each_entry
def test_hyperparameters_may_be_integers(entry):
    """`b1=0` is `b1=0.0`."""
    params = {"w": trees.numbers((2,), 1)}
    for name in floats(entry):
        for number in (0, 1):
            if not entry.factory.requirements.of[name].accepts(number):
                continue
            whole, exact = entry.make(**{name: number}), entry.make(**{name: float(number)})
            ours = walk(whole, params, [params, params], entry)
            assert_ulps(ours, walk(exact, params, [params, params], entry), 2)


@each_engine
def test_hyperparameters_may_be_traced(entry):
    """All of them at once, under `vmap`: 16 learning rates, one compilation."""
    params = {"w": trees.numbers((3,), 1)}
    gradients = [trees.like(params, i) for i in range(3)]
    settings = floats(entry)
    rates = np.geomspace(0.01, 0.1, 16).astype(np.float32)

    def steps(rate, others):
        tx = entry.make(**others, **{entry.rate: rate})
        return walk(tx, params, gradients, entry)

    others = {n: jnp.float32(x) for n, x in settings.items() if n != entry.rate}
    with trees.checking_leaks():
        together = jax.jit(jax.vmap(steps, in_axes=(0, None)))(jnp.asarray(rates), others)
    for i in (0, 7, 15):
        alone = steps(rates[i], others)
        mine = jax.tree.map(lambda x, i=i: x[i], together)
        assert_ulps(mine, alone, 16, of_largest=True)


@pytest.mark.slow
@each_entry
def test_derivatives_by_hyperparameters(entry, x64):
    """Against central differences of the paper's equations, in double."""
    start, gradients = make_problem(entry.name, np.float64, False)
    start, gradients = {"w": start["w"]}, [{"w": g["w"]} for g in gradients[:3]]
    reference = references.OPTIMIZERS[entry.name]

    def ours(settings):
        steps = run(entry.make(**settings), gradients, start, entry)
        return sum(jnp.sum(jnp.cos(u["w"])) for u in steps)

    def papers(settings):
        steps = wanted_steps(reference, gradients, start, {**entry.probe, **settings})
        return sum(np.sum(np.cos(u["w"])) for u in steps)

    # Away from the bounds where a derivative would be one-sided.
    settings = {n: x for n, x in floats(entry).items() if x > 1e-3}
    slopes = jax.jit(jax.grad(ours))({n: jnp.asarray(x) for n, x in settings.items()})
    for name, x in settings.items():
        h = 1e-6 * x
        up, down = papers({**settings, name: x + h}), papers({**settings, name: x - h})
        np.testing.assert_allclose(
            slopes[name], (up - down) / (2 * h), rtol=1e-4, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adadelta", "amsgrad", "adamax"])
def test_derivatives_by_decays_at_zero_are_finite(name):
    """Where `decay**t` is `exp(t * log(decay))`, its slope at 0 would be 0 * infinity."""
    entry = gradtx.catalog.get(name)
    decays = [n for n in ("b1", "b2", "decay", "rho") if n in entry.hyperparameters]
    more = {"bias_correction": True} if "bias_correction" in entry.hyperparameters else {}

    def total(decay, which):
        tx = entry.make(**{which: decay}, **more)
        return jnp.sum(walk(tx, jnp.ones(2), [jnp.ones(2), 2 * jnp.ones(2)])[0])

    for which in decays:
        assert np.isfinite(jax.grad(total)(0.0, which)), which


def test_derivatives_by_rate_and_scale_at_zero_are_finite():
    """Amos multiplies steps by functions of their roots."""

    @jax.grad
    def total(numbers):
        return jnp.sum(walk(gradtx.amos(**numbers), jnp.ones(2), [jnp.ones(2)] * 2)[0])

    for rate, scale in ((0.0, 0.5), (0.1, 0.0)):
        found = total({"learning_rate": rate, "scale": scale})
        assert all(np.isfinite(x) for x in found.values()), (rate, scale)


@each_engine
def test_gradients_pass_through_training(entry, x64):
    """The slope of the last loss by the learning rate, through 5 steps of `scan`."""
    target = trees.numbers((3,), 3, jnp.float64)

    def loss(x):
        return jnp.sum((x - target) ** 2)

    def last_loss(rate):
        tx = entry.make(**{entry.rate: rate})

        def step(carry, _):
            x, state = carry
            g = jax.grad(loss)(x)
            updates, state = tx.update(g, state, x, **needed(entry, loss, x, g))
            return (gradtx.apply_updates(x, updates), state), None

        x = jnp.zeros(3)
        return loss(jax.lax.scan(step, (x, tx.init(x)), length=5)[0][0])

    rate = 0.5 * {**entry.hyperparameters, **entry.probe}[entry.rate]
    h = 1e-6 * rate
    with trees.checking_leaks():
        slope = jax.jit(jax.grad(last_loss))(rate)
    values = jax.jit(jax.vmap(last_loss))(jnp.asarray([rate - h, rate + h]))
    rounding = np.finfo(np.float64).eps * abs(values[0]) / h  # of the two losses
    np.testing.assert_allclose(slope, (values[1] - values[0]) / (2 * h), rtol=1e-5, atol=rounding)


def test_the_rate_at_the_call_may_be_traced():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1))
    g = {"w": jnp.ones(2)}
    state = tx.init(g)

    def step(rate):
        updates, new = tx.update(g, state, learning_rate=rate)
        return updates["w"][0], new[1][1].learning_rate

    rates = jnp.linspace(0.0, 1.0, 16)
    with trees.checking_leaks():
        steps, kept = jax.jit(jax.vmap(step))(rates)
    assert_equal((steps, kept), (-rates, rates))
    assert float(jax.grad(lambda rate: step(rate)[0])(0.3)) == -1.0


@pytest.mark.parametrize("name", ["adamw", "nadamw", "adamaxw", "adadelta"])
def test_weight_decay_may_be_a_schedule(name):
    """As in optax; it sees every step from 0."""
    import optax

    seen = []

    def schedule(count):
        if not isinstance(count, jax.core.Tracer):
            seen.append(int(count))
        return 0.5 / (count + 1)

    params = {"w": trees.numbers((3,), 1)}
    gradients = [trees.like(params, i) for i in range(3)]
    ours = walk(getattr(gradtx, name)(0.1, weight_decay=schedule), params, gradients)
    assert [n for n in seen if n] == [1, 2]
    theirs = walk(getattr(optax, name)(0.1, weight_decay=schedule), params, gradients)
    np.testing.assert_allclose(ours[0]["w"], theirs[0]["w"], rtol=1e-5)


# ---- What is kept -----------------------------------------------------------------------------


@each_engine
def test_tracers_do_not_outlive_their_function(entry):
    params = {"w": trees.numbers((2,), 1)}
    g = trees.like(params, 5)
    constants = {n: x * 0.987654 for n, x in floats(entry).items()}  # nobody has made this one yet

    @jax.jit
    def inside(params, rate):
        with_tracer = entry.make(**{**constants, entry.rate: rate})
        walk(with_tracer, params, [g], entry)
        return walk(entry.make(**constants), params, [g], entry)

    with trees.checking_leaks():
        traced = inside(params, 0.1)
    outside = walk(entry.make(**constants), params, [g], entry)
    # A search leaves little of the gradient, and all of its rounding.
    assert_ulps(outside, traced, 16 if entry.needs else 4, of_largest=True)


def test_pieces_are_known_by_how_they_were_made():
    """That is what their compiled code is kept by; numbers are no part of it, constants are."""

    def known(tx):
        freezer = Freezer()
        return freezer.freeze(tx), freezer.numbers

    assert known(gradtx.scale_by_adam(0.9)) == known(gradtx.scale_by_adam(0.9))
    assert known(gradtx.scale_by_adam(0.9))[0] == known(gradtx.scale_by_adam(0.8))[0]
    assert known(gradtx.scale_by_adam(0.9))[1] != known(gradtx.scale_by_adam(0.8))[1]
    rms = [known(gradtx.scale_by_rms(eps_in_sqrt=x)) for x in (True, False)]
    assert rms[0][0] != rms[1][0] and rms[0][1] == rms[1][1]
    array = jnp.float32(0.9)
    assert known(gradtx.scale_by_adam(array))[1][0] is array
    # 1 and True are equal to Python, and are different hyperparameters
    assert known(gradtx.trace(0.5, True))[0] != known(gradtx.trace(0.5, 1))[0]


def test_names_given_as_arguments_or_in_order_make_the_same_optimizer():
    params = trees.small()
    walk(gradtx.scale_by_adam(0.83, 0.91), params, [params])
    with counted_traces() as found:
        walk(gradtx.scale_by_adam(b1=0.83, b2=0.91), params, [params])
    assert found == []


def test_the_same_optimizer_serves_both_precisions():
    """Compiled code for one default float is not used for the other."""
    tx, p = gradtx.adamw(0.1), {"w": trees.numbers((2,), 1)}
    narrow = walk(tx, p, [p])
    with jax.enable_x64(True):
        wide_p = {"w": p["w"].astype(jnp.float64)}
        wide = walk(tx, wide_p, [wide_p])
        assert wide[2]["w"].dtype == jnp.float64
        np.testing.assert_allclose(wide[2]["w"], narrow[2]["w"], rtol=1e-6)
    assert_equal(walk(tx, p, [p]), narrow)


def test_constants_are_exact_in_double():
    """`1 - b2` in float32 would be off by 5e-5 at 0.9999: the difference of two near numbers."""
    tx = gradtx.scale_by_adam(b1=0.0, b2=0.9999, eps=0.0)
    g = jnp.ones(1)
    _, state = tx.update(g, tx.init(g))
    np.testing.assert_allclose(state.nu, [1e-4], rtol=2e-7)
    tx = gradtx.scale_by_rms(decay=0.9999, bias_correction=True, eps=0.0)
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], [1.0], rtol=2e-7)


@pytest.mark.parametrize("t", [1, 2, 1000, 100_000])
def test_bias_correction_is_exact_at_any_step(t):
    from gradtx.tree.moments import gathered_weight

    for decay in (0.0, 0.5, 0.9, 0.999, 0.999999):
        exact = -np.expm1(t * np.log(np.float64(decay))) if decay else 1.0
        np.testing.assert_allclose(gathered_weight(decay, jnp.int32(t)), exact, rtol=3e-7)
        held = np.float64(np.float32(decay))
        exact = -np.expm1(t * np.log(held)) if decay else 1.0
        np.testing.assert_allclose(gathered_weight(jnp.float32(decay), t), exact, rtol=3e-7)


def test_moments_keep_the_dtype_that_was_asked_for():
    params = {"w": trees.numbers((2,), 1), "h": trees.numbers((2,), 2, jnp.bfloat16)}
    tx = gradtx.store_as(gradtx.adamw(0.1, mu_dtype=jnp.bfloat16), nu=jnp.float16)
    _, state, _ = walk(tx, params, [params, params])
    assert {x.dtype for x in jax.tree.leaves(state[0].mu)} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(state[0].nu)} == {jnp.dtype(jnp.float16)}
    assert avals(state) == avals(tx.init(params))
