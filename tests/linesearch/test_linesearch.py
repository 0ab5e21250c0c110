"""Line searches: the conditions that they promise, what they evaluate, and where they work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from classic_problems import PROBLEMS, himmelblau, rippled, rosenbrock
from hypothesis import given, settings, strategies as st
from references.linesearch import Wolfe, search
from representatives import first
from test_conformance import counted_traces
from trees import assert_equal, assert_ulps, avals, numbers

import gradtx

# ---- Problems ---------------------------------------------------------------------------------


each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda f: f.__name__)
ZOOM = functools.partial(gradtx.scale_by_zoom_linesearch, 30)
BACKTRACK = functools.partial(gradtx.scale_by_backtracking_linesearch, 60)
each_search = pytest.mark.parametrize(
    "make", [ZOOM, functools.partial(BACKTRACK, store_grad=True)], ids=["zoom", "backtracking"]
)


def starts(problem):
    """Points, and directions that lead downhill from there, at small and at large rates."""
    random = np.random.default_rng(len(problem.__name__))
    for size in (0.01, 0.3, 10.0):
        x = jnp.asarray(random.normal(size=PROBLEMS[problem]))
        weights = random.uniform(0.1, 1, x.shape)
        yield x, -size * weights * jax.grad(problem)(x)


@functools.lru_cache
def slope_of(f):
    return jax.jit(jax.value_and_grad(f))


def step(tx, f, x, u, state=None, **more):
    """One search."""
    value, grad = jax.value_and_grad(f)(x)
    grad = jax.tree.map(jnp.conj, grad)
    state = tx.init(x) if state is None else state
    return tx.update(u, state, x, value=value, grad=grad, value_fn=f, **more)


def along(f, x, u):
    """Loss and slope along a direction, in NumPy's hands."""

    def phi(rate):
        value, grad = slope_of(f)(x + rate * u)
        return float(value), float(jnp.vdot(grad, u))

    return phi


def recorded(f):
    """The same function, and a list that gets every point that it is called with."""
    seen = []

    def watched(x):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return f(x)

    return watched, seen


# ---- What is promised -------------------------------------------------------------------------


@pytest.mark.parametrize("curv_rtol", [0.9, 0.1, 0.001])
@each_problem
def test_zoom_fulfils_the_strong_wolfe_conditions(problem, curv_rtol, x64):
    for x, u in starts(problem):
        tx = ZOOM(curv_rtol=curv_rtol, approx_dec_rtol=None, stepsize_precision=0.0)
        watched, seen = recorded(problem)
        updates, state = step(tx, watched, x, u)
        phi, rate = along(problem, x, u), float(state.learning_rate)
        (before, slope), (after, slope_after) = phi(0.0), phi(rate)
        assert after <= before + 1e-4 * rate * slope
        assert abs(slope_after) <= curv_rtol * abs(slope)
        assert float(state.info.decrease_error) == float(state.info.curvature_error) == 0
        np.testing.assert_allclose(updates, rate * u, rtol=1e-15)
        # The first call is that of the caller, who wants the gradient at the start.
        jax.effects_barrier()
        assert len(seen) == 1 + int(state.info.num_linesearch_steps)


@each_problem
def test_zoom_tries_what_the_textbook_tries(problem, x64):
    """The same rates in the same order as two procedures in NumPy, and then the same choice."""

    def loss(x):
        value, grad = slope_of(problem)(jnp.asarray(x))
        return float(value), np.asarray(grad)

    for x, u in starts(problem):
        for curv_rtol in (0.9, 0.01):
            wolfe = Wolfe(loss, np.asarray(x), np.asarray(u), 1e-4, curv_rtol, 0.0, 1e-6)
            wanted = search(wolfe, 1.0, 30, np.inf, 2.0, 1e-5)
            _, state = step(ZOOM(curv_rtol=curv_rtol), problem, x, u)
            assert int(state.info.num_linesearch_steps) == len(wolfe.tried)
            np.testing.assert_allclose(state.learning_rate, wanted, rtol=1e-9)


@each_problem
def test_the_state_holds_loss_and_gradient_at_the_end(problem, x64):
    for x, u in starts(problem):
        for tx in (ZOOM(), BACKTRACK(store_grad=True)):
            updates, state = step(tx, problem, x, u)
            value, grad = slope_of(problem)(x + updates)
            np.testing.assert_allclose(state.value, value, rtol=1e-13)
            np.testing.assert_allclose(state.grad, grad, rtol=1e-12)


@pytest.mark.parametrize("store_grad", [False, True])
@each_problem
def test_backtracking_takes_the_first_rate_that_decreases_enough(problem, store_grad, x64):
    for x, u in starts(problem):
        watched, seen = recorded(problem)
        updates, state = step(BACKTRACK(store_grad=store_grad), watched, x, u)
        phi, tried = along(problem, x, u), 1.0
        value, slope = phi(0.0)
        steps = 1
        while not phi(tried)[0] <= value + 1e-4 * tried * slope:
            tried, steps = 0.8 * tried, steps + 1
        np.testing.assert_allclose(state.learning_rate, tried, rtol=1e-14)
        np.testing.assert_allclose(updates, tried * u, rtol=1e-14)
        jax.effects_barrier()
        assert int(state.info.num_linesearch_steps) == steps == len(seen) - 1
        assert float(state.info.decrease_error) == 0


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    curvatures=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=4),
    size=st.floats(1e-3, 1e3),
    curv_rtol=st.floats(0.05, 0.95),
)
def test_random_quadratics(curvatures, size, curv_rtol):
    """On `c x^2 / 2` from 1 along the negative gradient, the slope is known at every rate."""
    with jax.enable_x64(True):
        c = jnp.asarray(curvatures)
        x, u = jnp.ones(len(curvatures)), -size * c
        loss = _quadratic(len(curvatures))
        tx = gradtx.scale_by_zoom_linesearch(60, curv_rtol=curv_rtol, stepsize_precision=0.0)
        value, grad = 0.5 * jnp.sum(c), c
        _, state = tx.update(u, tx.init(x), x, value=value, grad=grad, value_fn=loss, c=c)
        slope, bend = -size * np.sum(c**2), size**2 * np.sum(c**3)
        rate = float(state.learning_rate)
        assert abs(slope + rate * bend) <= curv_rtol * abs(slope) * (1 + 1e-12)
        # Hager and Zhang's form of the first condition allows this much.
        assert rate * slope + rate**2 * bend / 2 <= max(1e-4 * rate * slope, 1e-6 * value)


@functools.lru_cache
def _quadratic(size):
    return lambda x, c: 0.5 * jnp.sum(c * x**2)


def test_low_precision_near_the_minimum():
    """Where rounding makes a loss seem to rise, the slope still tells that it falls."""
    x = jnp.array([1.0 + 1e-4])
    ulp = float(jnp.finfo(jnp.float32).eps) * 1000

    def loss(y):
        return 1000.0 + jnp.sum((y - 1) ** 2) + jnp.where(y[0] == x[0], 0, ulp)

    u = -0.45 * jax.grad(loss)(x)
    _, state = step(ZOOM(), loss, x, u)
    assert float(state.learning_rate) == 1 and float(state.value) > float(loss(x))
    assert float(state.info.decrease_error) == float(state.info.curvature_error) == 0
    _, strict = step(ZOOM(approx_dec_rtol=None), loss, x, u)
    assert float(strict.learning_rate) < 1e-6 and float(strict.info.curvature_error) > 0


# ---- When there is no such rate ---------------------------------------------------------------


def test_what_is_taken_when_evaluations_run_out():
    """The best rate with sufficient decrease; optax takes the last, however much worse it is."""

    def parabola(x):
        return (x - 10.0) ** 2

    x, u = jnp.zeros(()), jnp.ones(())
    _, state = step(gradtx.scale_by_zoom_linesearch(5, curv_rtol=1e-3), parabola, x, u)
    assert float(state.learning_rate) == 8.0  # of 1, 2, 4, 8, 16
    assert float(state.value) == 4.0
    assert float(state.info.decrease_error) == 0
    np.testing.assert_allclose(state.info.curvature_error, 4.0 - 1e-3 * 20.0, rtol=1e-6)
    theirs = optax.scale_by_zoom_linesearch(5, curv_rtol=1e-3)
    _, other = theirs.update(u, theirs.init(x), x, value=100.0, grad=-20.0, value_fn=parabola)
    assert float(other.learning_rate) == 16.0


def test_directions_that_lead_uphill():
    x, u = jnp.array([3.0]), jnp.array([1.0])

    def loss(x):
        return jnp.sum(x**2)

    updates, state = step(gradtx.scale_by_zoom_linesearch(18), loss, x, u)
    assert 0 < float(updates[0]) < 1e-4 and float(state.info.decrease_error) > 0
    updates, state = step(gradtx.scale_by_backtracking_linesearch(18), loss, x, u)
    np.testing.assert_allclose(updates, [0.8**18], rtol=1e-5)
    assert float(state.info.decrease_error) > 0
    np.testing.assert_allclose(state.value, loss(x + updates), rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize(
    "make",
    [ZOOM, BACKTRACK, functools.partial(BACKTRACK, store_grad=True)],
    ids=["zoom", "backtracking", "with gradient"],
)
def test_losses_that_are_no_numbers(make, bad):
    """They are too large; and where there is nothing else, the parameters stay as they are."""

    def wall(x):
        return jnp.where(x[0] < -1, bad, x[0])

    x, u = jnp.zeros(1), jnp.array([-5.0])
    updates, state = step(make(), wall, x, u)
    assert -1 <= float(updates[0]) < 0
    assert float(state.value) == float(updates[0])

    def hole(x):
        return jnp.where(x[0] != 0, bad, x[0])

    def gradient_only(tx):
        return tx.update(u, tx.init(x), x, value=0.5, grad=jnp.ones(1), value_fn=hole)

    tx = make()
    updates, state = gradient_only(tx)
    assert_equal(updates, jnp.zeros(1))
    assert float(state.value) == 0.5 and float(state.learning_rate) == 0
    assert state.grad is None or float(state.grad[0]) == 1
    assert not np.isfinite(state.info.decrease_error)
    # The next search does not start from 0.
    _, state = step(tx, lambda x: jnp.sum((x + 1) ** 2), x, u, state)
    assert float(state.learning_rate) > 0


def test_the_largest_rate():
    def loss(x):
        return (x - 60.0) ** 2

    x, u = jnp.zeros(()), jnp.ones(())
    _, state = step(ZOOM(curv_rtol=0.5, max_learning_rate=10.0), loss, x, u)
    assert float(state.learning_rate) == 10.0
    assert int(state.info.num_linesearch_steps) == 5  # 1, 2, 4, 8, 10
    _, state = step(BACKTRACK(max_learning_rate=0.25), loss, x, u)
    assert float(state.learning_rate) == 0.25


def test_first_guesses():
    def loss(x):
        return (x - 3.0) ** 2

    x, u = jnp.zeros(()), jnp.ones(())
    first = ZOOM().init(x)._replace(learning_rate=jnp.float32(2.0))
    for strategy, rate in (("keep", 2.0), ("one", 1.0)):
        _, state = step(ZOOM(initial_guess_strategy=strategy), loss, x, u, first)
        assert float(state.learning_rate) == rate
    with pytest.raises(ValueError, match="must be one of 'keep', 'one', got 'two'"):
        ZOOM(initial_guess_strategy="two")
    last = BACKTRACK().init(x)._replace(learning_rate=jnp.float32(0.4))
    for factor, rate in ((1.5, 0.6), (1.0, 0.4), (np.inf, 1.0)):
        _, state = step(BACKTRACK(increase_factor=factor), loss, x, u, last)
        np.testing.assert_allclose(state.learning_rate, rate, rtol=1e-6)


def test_zero_evaluations():
    x = jnp.ones(2)
    updates, state = step(gradtx.scale_by_zoom_linesearch(0), rippled, x, -x)
    assert_equal(updates, -jnp.zeros(2))
    assert float(state.value) == float(rippled(x))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jitted"])
def test_failures_are_told_if_wanted(compiled, capfd):
    x, u = jnp.array([3.0]), jnp.array([1.0])
    for make in (ZOOM, BACKTRACK):
        for verbose, direction, told in ((True, u, True), (True, -u, False), (False, u, False)):
            tx = make(verbose=verbose)
            run = functools.partial(step, tx, lambda x: jnp.sum(x**2))
            (jax.jit(run) if compiled else run)(x, direction)
            jax.effects_barrier()
            assert ("no rate" in capfd.readouterr().out) == told


# ---- What reaches the loss --------------------------------------------------------------------


def test_further_arguments_reach_the_loss_that_has_them():
    def loss(x, target, *, weight=1.0):
        return weight * jnp.sum((x - target) ** 2)

    def anything(x, **kwargs):
        assert set(kwargs) == {"target", "weight", "batch"}
        return loss(x, kwargs["target"], weight=kwargs["weight"])

    x, target = jnp.zeros(2), jnp.array([1.0, 2.0])
    for tx in (ZOOM(), BACKTRACK()):
        chained = gradtx.chain(gradtx.sgd(0.5), tx)
        for f in (loss, functools.partial(loss), jax.jit(loss), anything):
            more = {"target": target, "weight": 1.0, "batch": 7}
            value, grad = jax.value_and_grad(loss)(x, target)
            updates, _ = chained.update(
                grad, chained.init(x), x, value=value, grad=grad, value_fn=f, **more
            )
            np.testing.assert_allclose(updates, target, rtol=1e-6)


def test_losses_that_are_not_scalars_are_refused():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match=r"value_fn must return a scalar, got shape \(2,\)"):
        BACKTRACK().update(-x, BACKTRACK().init(x), x, value=1.0, grad=x, value_fn=lambda x: x)


@pytest.mark.parametrize("missing", ["value", "grad", "value_fn"])
def test_missing_arguments(missing):
    x = jnp.ones(2)
    known = {"value": 1.0, "grad": x, "value_fn": rippled}
    del known[missing]
    for tx in (ZOOM(), BACKTRACK()):
        with pytest.raises(TypeError, match=rf"linesearch: needs .*{missing}=\.\.\."):
            tx.update(-x, tx.init(x), x, **known)
        with pytest.raises(ValueError, match="needs the parameters"):
            tx.update(-x, tx.init(x), value=1.0, grad=x, value_fn=rippled)


# ---- The state --------------------------------------------------------------------------------

DTYPES = ("float32", "bfloat16", "float16", "complex64")


@each_search
def test_the_state_is_a_fixed_point(make):
    """Also with gradients of other dtypes than the parameters, and from the first step."""

    def loss(p):
        return sum(jnp.sum(jnp.abs(x.astype(jnp.complex64)) ** 2) for x in jax.tree.leaves(p))

    for others in (DTYPES, ("float32", "float32", "float32", "complex64")):
        params = {d: numbers((2,), 1, d) for d in DTYPES}
        u = {d: numbers((2,), 2, other) for d, other in zip(DTYPES, others, strict=True)}
        tx = make()
        state = tx.init(params)
        assert avals(jax.eval_shape(tx.init, params)) == avals(state)
        for value in (jnp.bfloat16(3.0), 3.0):
            updates, new = tx.update(u, state, params, value=value, grad=u, value_fn=loss)
            assert avals(new) == avals(state)
            assert avals(updates) == avals(u)


def test_half_precision_sees_the_parameters_that_it_will_get():
    """The loss is that at the rounded parameters, not at those that they are rounded from."""

    def loss(x):
        return jnp.sum((x.astype(jnp.float32) - 0.3) ** 2)

    x = jnp.ones(3, jnp.bfloat16)
    u = -jax.grad(loss)(x).astype(jnp.float32)
    updates, state = step(ZOOM(), loss, x, u)
    assert float(state.value) == float(loss(gradtx.apply_updates(x, updates)))


def test_complex_parameters_are_pairs_of_real_ones(x64):
    matrix = numbers((3, 2), 1, jnp.complex128)
    z, w = numbers((2,), 2, jnp.complex128), jnp.abs(numbers((2,), 3, jnp.float64))

    def loss(z):
        return jnp.sum(jnp.abs(matrix @ z - 1) ** 3)

    def pair(z):
        return jnp.stack([z.real, z.imag])

    def of_pair(x):
        return loss(x[0] + 1j * x[1])

    for tx in (ZOOM(curv_rtol=0.01), BACKTRACK(store_grad=True)):
        u = -w * jnp.conj(jax.grad(loss)(z))
        updates, state = step(tx, loss, z, u)
        real, real_state = step(tx, of_pair, pair(z), pair(u))
        np.testing.assert_allclose(pair(updates), real, rtol=1e-9)
        np.testing.assert_allclose(pair(jnp.conj(state.grad)), real_state.grad, rtol=1e-8)
        np.testing.assert_allclose(state.grad, jax.grad(loss)(z + updates), rtol=1e-10)
        assert state.info.num_linesearch_steps == real_state.info.num_linesearch_steps


# ---- What JAX does to functions ---------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [functools.partial(ZOOM, curv_rtol=0.1), BACKTRACK], ids=["zoom", "backtracking"]
)
@pytest.mark.parametrize("problem", list(first(PROBLEMS)), ids=lambda f: f.__name__)
def test_many_problems_at_once(problem, make, x64):
    """Each stops at its own rate, though together they go on until the last one stops."""
    rows = list(starts(problem))
    run = functools.partial(step, make(), problem)
    together = jax.jit(jax.vmap(run))(*(jnp.stack(column) for column in zip(*rows, strict=True)))
    alone = [run(*row) for row in rows]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *alone)
    counts = {int(state.info.num_linesearch_steps) for _, state in alone}
    assert len(counts) > 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), together, stacked)


def test_a_loss_over_rows_of_integers_under_vmap():
    """What the loss closes over is mapped, and is no number to take derivatives by."""
    table = jnp.arange(12.0).reshape(4, 3)

    def search_for(row):
        def loss(x):
            return jnp.sum((x - table[row]) ** 2)

        return step(ZOOM(curv_rtol=0.1), loss, jnp.zeros(3), 4 * table[row])[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(search_for))(jnp.arange(4)), table, rtol=1e-6)


def test_a_loss_may_be_defined_anew_at_every_step_and_read_what_changes():
    """Outside of jit the loss is called, not kept."""
    tx, x = gradtx.chain(gradtx.sgd(0.5), ZOOM()), jnp.zeros(2)
    batch = jnp.ones(2)

    def on_batch(x):
        return jnp.sum((x - batch) ** 2)

    state = tx.init(x)
    for target in (1.0, 2.0, 3.0):
        batch = jnp.full(2, target)
        x, state = _take(tx, on_batch, x, state)
        np.testing.assert_allclose(x, batch, rtol=1e-6)
    with counted_traces() as found:
        for target in (4.0, 5.0):
            batch = jnp.full(2, target)
            x, state = _take(tx, lambda x, batch=batch: jnp.sum((x - batch) ** 2), x, state)
    assert found == []


def _take(tx, f, x, state):
    value, grad = jax.value_and_grad(f)(x)
    updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
    return gradtx.apply_updates(x, updates), state


def test_in_a_compiled_loop_of_steps():
    tx = gradtx.chain(gradtx.sgd(1.0), ZOOM())
    x = jnp.array([-1.2, 1.0])
    traced = []

    @jax.jit
    def train(x, state):
        traced.append(1)
        return jax.lax.scan(lambda c, _: (_take(tx, rosenbrock, *c), None), (x, state), length=5)[0]

    by_hand = x, tx.init(x)
    for _ in range(5):
        by_hand = _take(tx, rosenbrock, *by_hand)
    state = tx.init(x)
    together = train(x, state)
    assert_ulps(together[0], by_hand[0], 64)
    train(*together)
    assert len(traced) == 1


@pytest.mark.slow
@each_search
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jitted"])
def test_derivatives_through_a_search(make, compiled, x64):
    """In both modes, by the direction, the parameters, and what the loss closes over."""
    x = jnp.array([0.3, -0.7, 1.1])

    def last_loss(size, shift):
        def loss(x):
            return jnp.sum((x - shift) ** 2 * jnp.array([1.0, 3.0, 10.0]) + 0.1 * (x - shift) ** 4)

        tx = gradtx.chain(gradtx.sgd(size), make())
        state, y = tx.init(x), x
        for _ in range(3):
            y, state = _take(tx, loss, y, state)
        return loss(y) + state[-1].value + jnp.sum(state[-1].grad)

    at = (jnp.asarray(0.4), jnp.asarray(0.2))
    maybe = jax.jit if compiled else (lambda f: f)
    reverse = maybe(jax.grad(last_loss, argnums=(0, 1)))(*at)
    forward = maybe(jax.jacfwd(last_loss, argnums=(0, 1)))(*at)
    h = 1e-6
    for i in range(2):
        up, down = (last_loss(*(a + s * h * (i == j) for j, a in enumerate(at))) for s in (1, -1))
        np.testing.assert_allclose(reverse[i], (up - down) / (2 * h), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(forward[i], reverse[i], rtol=1e-9)


# ---- Value and gradient from the state --------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jitted"])
@each_search
def test_nothing_is_evaluated_twice(make, compiled):
    x = jnp.array([3.0, -1.0])
    loss, seen = recorded(himmelblau)
    tx = gradtx.chain(gradtx.sgd(0.01), make())
    value_and_grad = gradtx.value_and_grad_from_state(loss)

    def take(x, state):
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=loss)
        return gradtx.apply_updates(x, updates), state, value

    take = jax.jit(take) if compiled else take
    state, evaluations = tx.init(x), 1
    for _ in range(4):
        before = himmelblau(x)
        x, state, value = take(x, state)
        np.testing.assert_allclose(value, before, rtol=1e-6)
        evaluations += int(state[-1].info.num_linesearch_steps)
    jax.effects_barrier()
    assert len(seen) == evaluations


def test_half_precision_gradients_come_back_in_half_precision():
    def loss(x):
        return jnp.sum(x.astype(jnp.float32) ** 2)

    x = jnp.ones(2, jnp.bfloat16)
    tx = gradtx.chain(gradtx.sgd(0.1), ZOOM())
    value_and_grad = jax.jit(gradtx.value_and_grad_from_state(loss))
    value, grad = value_and_grad(x, state=tx.init(x))
    assert grad.dtype == jnp.bfloat16 and float(value) == 2.0
    x, state = _take(tx, loss, x, tx.init(x))
    assert_equal(value_and_grad(x, state=state)[1], jax.grad(loss)(x))


def test_states_without_a_line_search_or_with_several():
    x = jnp.ones(2)
    value_and_grad = gradtx.value_and_grad_from_state(rippled)
    with pytest.raises(ValueError, match="no state of a line search"):
        value_and_grad(x, state=gradtx.adam(0.1).init(x))
    with pytest.raises(KeyError, match="several line searches"):
        value_and_grad(x, state=gradtx.chain(ZOOM(), BACKTRACK()).init(x))
    with pytest.raises(ValueError, match="store_grad=True"):
        value_and_grad(x, state=BACKTRACK().init(x))


# ---- A part of the parameters -----------------------------------------------------------------

PARAMS = {"w": jnp.array([2.0, -1.0]), "b": jnp.array([0.5])}
LABELS = {"w": "search", "b": "plain"}


def coupled_loss(p, scale=1.0):
    return scale * (jnp.sum((p["w"] - p["b"]) ** 4) + jnp.sum(p["b"] ** 2))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jitted"])
@pytest.mark.parametrize(
    "inner",
    [
        gradtx.chain(gradtx.sgd(1.0), ZOOM()),
        gradtx.chain(gradtx.sgd(1.0), BACKTRACK(store_grad=True)),
        gradtx.lbfgs(),
    ],
    ids=["zoom", "backtracking", "lbfgs"],
)
def test_in_a_partition(inner, compiled):
    """The search moves its own leaves, and measures the loss with the others where they are."""
    tx = gradtx.partition({"search": inner, "plain": gradtx.sgd(0.1)}, LABELS)

    def take(p, state):
        value, grad = jax.value_and_grad(coupled_loss)(p, 2.0)
        return tx.update(
            grad, state, p, value=value, grad=grad, value_fn=coupled_loss, scale=jnp.float32(2.0)
        )

    take = jax.jit(take) if compiled else take
    p, state, alone = PARAMS, tx.init(PARAMS), inner.init(PARAMS["w"])
    for _ in range(3):
        updates, new = take(p, state)
        assert avals(new) == avals(state)

        def of_w(w, b=p["b"]):
            return coupled_loss({"w": w, "b": b}, 2.0)

        value, grad = jax.value_and_grad(of_w)(p["w"])
        mine, alone = inner.update(grad, alone, p["w"], value=value, grad=grad, value_fn=of_w)
        np.testing.assert_allclose(updates["w"], mine, rtol=1e-4)
        plain = -0.1 * jax.grad(coupled_loss)(p, 2.0)["b"]
        np.testing.assert_allclose(updates["b"], plain, rtol=1e-5)
        p, state = gradtx.apply_updates(p, updates), new


def test_frozen_integers_do_not_disturb_a_search():
    p = {"w": jnp.array([2.0, -1.0]), "n": jnp.arange(3)}
    labels = {"w": "search", "n": "frozen"}
    tx = gradtx.partition({"search": gradtx.lbfgs(), "frozen": gradtx.set_to_zero()}, labels)

    def loss(p):
        return jnp.sum((p["w"] - p["n"][1:]) ** 2)

    value, slope = jax.value_and_grad(lambda w: loss({**p, "w": w}))(p["w"])
    grad = {"w": slope, "n": jnp.zeros(3, int)}
    updates, _ = tx.update(grad, tx.init(p), p, value=value, grad=grad, value_fn=loss)
    assert loss({**p, "w": p["w"] + updates["w"]}) < value


def test_a_partition_knows_a_part_of_the_gradient_only():
    tx = gradtx.partition({"search": gradtx.lbfgs(), "plain": gradtx.sgd(0.1)}, LABELS)
    value_and_grad = gradtx.value_and_grad_from_state(coupled_loss)
    value, grad = value_and_grad(PARAMS, state=tx.init(PARAMS))
    updates, state = tx.update(
        grad, tx.init(PARAMS), PARAMS, value=value, grad=grad, value_fn=coupled_loss
    )
    p = gradtx.apply_updates(PARAMS, updates)
    exact = jax.value_and_grad(coupled_loss)(p)
    assert_equal(value_and_grad(p, state=state), exact)
