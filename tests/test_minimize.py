"""`minimize`: published minima, honest counts, and every reason to stop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from test_conformance import each_entry

import gradtx
from gradtx import Stop, minimize
from gradtx.problems import PROBLEMS, booth, himmelblau, rosenbrock

MOST = max(len(p.start) for p in PROBLEMS.values())
each_problem = pytest.mark.parametrize("name", PROBLEMS)


def any_problem(x, which):
    """All problems as one function, which is compiled once; what `x` has too much is not used."""
    branches = [
        lambda x, p=p: jnp.asarray(p(x[: len(p.start)]), x.dtype) for p in PROBLEMS.values()
    ]
    return lax.switch(which, branches, x)


@functools.cache
def solved(name, wide):
    problem = PROBLEMS[name]
    start = jnp.zeros(MOST).at[: len(problem.start)].set(jnp.array(problem.start))
    return minimize(any_problem, start, args=(list(PROBLEMS).index(name),))


def reaches(problem, value, rtol, atol):
    """Whether a value is the least, or that of another minimum, to the digits published."""
    published = (problem.least, *problem.elsewhere)
    return any(abs(value - known) <= max(rtol * known, atol) for known in published)


@pytest.mark.slow
@each_problem
def test_published_minima_in_float64(name, x64):
    check(PROBLEMS[name], solved(name, True))


@pytest.mark.parametrize("name", ["rosenbrock", "kowalik_osborne"])
def test_two_of_them_in_float64(name, x64):
    check(PROBLEMS[name], minimize(PROBLEMS[name], jnp.array(PROBLEMS[name].start)))


def check(problem, found):
    # Six digits are published. Where the least value is 0, what is left is at most rounding.
    assert reaches(problem, float(found.value), rtol=5e-6, atol=1e-15), found
    # Some problems are so badly scaled that no gradient as small as asked for can be represented.
    assert found.converged or found.stop == Stop.LINE_SEARCH
    if problem.minima and not problem.elsewhere:
        x = np.asarray(found.x)[: len(problem.start)]
        distances = [np.max(np.abs(x - m) / (1 + np.abs(m))) for m in problem.minima]
        assert min(distances) < 1e-5, (x, problem.minima)


# Curvatures of these differ by more than the square of float32's precision resolves.
TOO_HARD_FOR_FLOAT32 = {"powell_badly_scaled", "meyer", "osborne"}


@pytest.mark.slow
@each_problem
def test_published_minima_in_float32(name):
    problem, found = PROBLEMS[name], solved(name, False)
    assert found.x.dtype == found.value.dtype == jnp.float32
    assert found.value < problem(jnp.array(problem.start))
    if not reaches(problem, float(found.value), rtol=1e-4, atol=1e-7):
        assert name in TOO_HARD_FOR_FLOAT32
        assert int(found.stop) in (Stop.VALUE, Stop.LINE_SEARCH)  # it does not claim the gradient


def test_problems_are_stated_right(x64):
    """The published minima are minima: no point around them is lower, and they are the least."""
    rng = np.random.default_rng(0)
    known = [(i, p, m) for i, p in enumerate(PROBLEMS.values()) for m in p.minima]
    points = np.zeros((len(known), 41, MOST))
    for row, (_, _, m) in zip(points, known, strict=True):
        around = (1 + np.abs(m)) * rng.uniform(-1, 1, size=(40, len(m))) * 1e-2
        row[:, : len(m)] = np.vstack([m, m + around])
    over = jax.vmap(jax.vmap(any_problem, (0, None)))
    values = jax.jit(over)(points, np.array([i for i, _, _ in known]))
    for (_, p, m), v in zip(known, values, strict=True):
        assert len(m) == len(p.start)
        np.testing.assert_allclose(v[0], p.least, rtol=5e-6, atol=1e-15, err_msg=p.name)
        assert (v[1:] > v[0]).all(), p.name
    for name, p in PROBLEMS.items():
        assert p.name == name and p.source and p.fun.__doc__
        if p.window is not None:
            low, high = np.array(p.window).T
            assert all(((low <= x) & (x <= high)).all() for x in (p.start, *p.minima))


# ---- Counts -----------------------------------------------------------------------------------

SEARCHES = {
    "lbfgs": gradtx.lbfgs(),
    "zoom, then halved": gradtx.chain(
        gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20), gradtx.scale(0.5)
    ),
    "backtracking": gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(30)),
    "backtracking, gradient kept": gradtx.chain(
        gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(30, store_grad=True)
    ),
    "optax": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(20)),
    "adam": gradtx.adam(0.1),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_evaluations_are_counted(name):
    """Against a function that counts its calls, and those of its gradient, when it runs."""
    called = {"value": 0, "grad": 0}

    def count(kind):
        called[kind] += 1

    @jax.custom_vjp
    def f(x):
        jax.debug.callback(count, "value")
        return booth(x)

    def forward(x):
        jax.debug.callback(count, "value")
        return booth(x), x

    def backward(x, ct):
        jax.debug.callback(count, "grad")
        return (ct * jax.grad(booth.fun)(x),)

    f.defvjp(forward, backward)
    found = minimize(f, jnp.array(booth.start), SEARCHES[name], max_steps=20)
    jax.effects_barrier()
    assert found.steps > 3
    assert called["grad"] == found.gradient_evaluations
    assert called["value"] == found.function_evaluations


def test_what_is_evaluated_out_of_sight_is_not_made_up():
    sam = gradtx.sam(gradtx.sgd(0.01), gradtx.sgd(0.01), opaque_mode=True)
    found = minimize(booth, jnp.array(booth.start), sam, max_steps=500)
    assert found.function_evaluations == found.gradient_evaluations == -1
    assert "evaluations unknown" in str(found)
    np.testing.assert_allclose(found.x, [1, 3], atol=0.05)


# ---- Why it stops -----------------------------------------------------------------------------


def bowl(x):
    return 1 + jnp.sum(jnp.square(x))


def test_it_stops_for_the_gradient():
    found = minimize(bowl, jnp.array([3.0, 4.0]), gradtx.sgd(0.25), tol=0.01)
    assert found.stop == Stop.GRADIENT and found.converged
    # Each step halves x, and the gradient is 2 x: 10 at first.
    assert found.steps == 10 and found.gradient_norm == 10 / 2**10
    already = minimize(bowl, jnp.zeros(2), gradtx.sgd(0.25), tol=0.01)
    assert (already.stop, already.steps, already.function_evaluations) == (Stop.GRADIENT, 0, 1)


def test_it_stops_for_the_step():
    found = minimize(lambda x: -x, 1.0, gradtx.sgd(0.01), step_tol=0.005, patience=3)
    assert found.stop == Stop.STEP and found.converged
    # The step is 0.01, and x = 1 + 0.01 k: 0.01 <= 0.005 x from k = 100 on, three times.
    assert abs(int(found.steps) - 102) <= 1


def test_it_stops_for_the_value():
    found = minimize(bowl, 1.0, gradtx.sgd(0.25), tol=0.0, value_tol=1e-3, patience=4)
    # The value is 1 + 4**-k; it falls by less than a thousandth at k = 6, after 4 such steps ends.
    assert found.stop == Stop.VALUE and found.steps == 6 + 3
    assert minimize(bowl, 1.0, gradtx.sgd(0.0), max_steps=50).stop == Stop.OUT_OF_STEPS


def test_it_runs_out_of_steps():
    found = minimize(rosenbrock, jnp.array(rosenbrock.start), gradtx.sgd(1e-4), max_steps=7)
    assert found.stop == Stop.OUT_OF_STEPS and found.steps == 7 and not found.converged
    assert found.why == str(Stop.OUT_OF_STEPS)


def test_it_stops_before_what_is_not_finite():
    found = minimize(lambda x: x**4, 3.0, gradtx.sgd(1.0))
    assert found.stop == Stop.NOT_FINITE and not found.converged
    assert jnp.isfinite(found.x) and jnp.isfinite(found.value) and jnp.isfinite(found.gradient_norm)
    start = minimize(jnp.log, -1.0, gradtx.sgd(1.0))
    assert (start.stop, start.steps, start.x) == (Stop.NOT_FINITE, 0, -1)
    # A line search steers clear of it.
    found = minimize(lambda x: x - jnp.log(x), 0.01)
    assert found.stop == Stop.GRADIENT and abs(found.x - 1) < 1e-4


@pytest.mark.parametrize(
    "search", [None, gradtx.scale_by_backtracking_linesearch(20)], ids=["zoom", "backtracking"]
)
def test_the_edge_of_a_domain_is_no_lack_of_precision(search):
    tx = search and gradtx.chain(gradtx.sgd(1.0), search)
    found = minimize(lambda x: jnp.sum(jnp.sqrt(x)), jnp.array([1.0, 2.0]), tx)
    assert found.stop == Stop.DOMAIN and not found.converged and jnp.isfinite(found.value)
    assert "NaN or infinite" in found.why and "precision" not in found.why


def test_it_stops_where_the_line_search_fails():
    @jax.custom_jvp
    def wrong(x):
        return bowl(x)

    wrong.defjvp(lambda x, t: (bowl(*x), -2 * jnp.sum(x[0] * t[0])))
    start = jnp.array([3.0, 4.0])
    search = gradtx.scale_by_zoom_linesearch(20)
    found = minimize(wrong, start, gradtx.chain(gradtx.sgd(1.0), search))
    assert found.stop == Stop.LINE_SEARCH and not found.converged
    np.testing.assert_array_equal(found.x, start)
    assert found.value == bowl(start) and "gradient wrong" in found.why


# ---- Transformations and trees ----------------------------------------------------------------


@pytest.mark.slow
@each_entry
def test_every_optimizer_gets_what_it_needs(entry):
    found = jax.eval_shape(
        lambda x: minimize(lambda x: jnp.sum((x["w"] - 1) ** 2), x, entry.make(), max_steps=5),
        {"w": jnp.zeros((2, 3))},
    )
    assert found.x["w"].shape == (2, 3) and found.steps.dtype == jnp.int32


def test_a_step_is_the_transformations():
    tx, x = gradtx.adam(0.3), {"a": jnp.array([0.5, -1.0]), "b": jnp.array(2.0)}

    def f(x):
        return rosenbrock(x["a"]) + (x["b"] - 1) ** 2

    found = minimize(f, x, tx, max_steps=5)
    state = tx.init(x)
    for _ in range(5):
        updates, state = tx.update(jax.grad(f)(x), state)
        x = gradtx.apply_updates(x, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.x, x)
    np.testing.assert_allclose(found.value, f(x), rtol=1e-5)
    np.testing.assert_allclose(found.gradient_norm, gradtx.global_norm(jax.grad(f)(x)), rtol=1e-5)


@pytest.mark.parametrize("tx", [None, gradtx.sgd(0.02)], ids=["lbfgs", "sgd"])
def test_complex_numbers(tx):
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(5, 3)) + 1j * rng.normal(size=(5, 3))).astype(np.complex64)
    b = (rng.normal(size=5) + 1j * rng.normal(size=5)).astype(np.complex64)
    found = minimize(lambda z: jnp.sum(jnp.abs(a @ z - b) ** 2), jnp.zeros(3, jnp.complex64), tx)
    np.testing.assert_allclose(found.x, np.linalg.lstsq(a, b)[0], atol=1e-4)


def test_half_precision_scalars_and_none():
    def f(x):
        return (x["a"] - 3.0) ** 2 + jnp.sum((x["b"].astype(jnp.float32) + 2) ** 2)

    found = minimize(f, {"a": 0.0, "b": jnp.zeros(3, jnp.bfloat16), "none": None}, gradtx.sgd(0.25))
    assert found.x["b"].dtype == jnp.bfloat16 and found.x["none"] is None
    np.testing.assert_allclose(found.x["a"], 3, atol=0.02)
    np.testing.assert_allclose(found.x["b"].astype(jnp.float32), -2, atol=0.02)
    assert found.converged


# ---- One compiled loop ------------------------------------------------------------------------


def test_it_is_compiled_once():
    traced, sgd = [], gradtx.sgd(0.25)

    def f(x, center):
        traced.append(x)
        return jnp.sum((x - center) ** 2)

    first = minimize(f, jnp.zeros(2), sgd, args=(jnp.ones(2),), tol=1e-4)
    times = len(traced)
    second = minimize(f, jnp.ones(2), sgd, args=(jnp.zeros(2),), max_steps=50, tol=1e-3)
    assert len(traced) == times
    np.testing.assert_allclose(first.x, 1, atol=1e-4)
    np.testing.assert_allclose(second.x, 0, atol=1e-3)


def test_a_function_that_cannot_be_hashed():
    class Loss:
        __hash__ = None

        def __call__(self, x):
            return bowl(x)

    assert abs(minimize(Loss(), 2.0, gradtx.sgd(0.25)).x) < 1e-4


def test_vmap_over_starts_is_each_alone():
    starts = jnp.array([[0.0, 0.0], [-3.0, 3.0], [-4.0, -4.0], [3.0, 2.0]])
    many = jax.vmap(lambda x: minimize(himmelblau, x))(starts)
    for i, start in enumerate(starts):
        one = minimize(himmelblau, start)
        # Sums may round in another order; the paths are the same.
        np.testing.assert_allclose(many.x[i], one.x, atol=1e-4)
        assert many.stop[i] == one.stop == Stop.GRADIENT
        assert abs(int(many.steps[i]) - int(one.steps)) <= 1
    assert many.steps[3] == 0 and many.function_evaluations[3] == 1
    assert many.why == [str(Stop.GRADIENT)] * 4 and len(str(many).split("\n")) == 4


def test_jit_and_vmap_over_hyperparameters_and_arguments():
    @jax.jit
    def f(rate, center):
        return minimize(
            lambda x, c: (x - c) ** 2, 0.0, gradtx.sgd(rate), args=(center,), max_steps=3
        ).x

    # x goes by the factor 1 - 2 rate towards the center.
    rates, centers = jnp.array([0.1, 0.25, 0.5]), jnp.array([1.0, 2.0, 3.0])
    want = centers * (1 - (1 - 2 * rates) ** 3)
    np.testing.assert_allclose(jax.vmap(f)(rates, centers), want, rtol=1e-5)


def test_the_trajectory():
    start, sgd = jnp.array([4.0, -1.0]), gradtx.sgd(0.25)
    found = minimize(bowl, start, sgd, tol=0.1, trajectory=True, max_steps=20)
    steps, path = int(found.steps), found.trajectory
    assert steps == 7 and found.stop == Stop.GRADIENT
    halved = start * 0.5 ** np.minimum(np.arange(21), 7)[:, None]
    np.testing.assert_allclose(path.x, halved, rtol=1e-6)
    np.testing.assert_array_equal(path.x[steps:], np.broadcast_to(found.x, (14, 2)))
    np.testing.assert_allclose(path.value, 1 + np.sum(halved**2, 1), rtol=1e-6)
    np.testing.assert_allclose(path.gradient_norm, 2 * np.linalg.norm(halved, axis=1), rtol=1e-6)
    assert minimize(bowl, start, sgd).trajectory is None


# ---- What is refused --------------------------------------------------------------------------

BAD = {
    "fun": (TypeError, "fun must be a function of x, got 3", lambda: minimize(3, 1.0)),
    "integers": (
        TypeError,
        r"x0\['w'\] must be floating, got int32",
        lambda: minimize(bowl, {"w": jnp.arange(3)}),
    ),
    "vector": (
        TypeError,
        r"real floating scalar, got float32\[2\]",
        lambda: minimize(lambda x: x, jnp.ones(2)),
    ),
    "complex value": (
        TypeError,
        r"real floating scalar, got complex64\[\]",
        lambda: minimize(lambda x: x * 1j, jnp.ones(())),
    ),
    "tree": (TypeError, "floating scalar", lambda: minimize(lambda x: (x, x), jnp.ones(()))),
    "tx": (
        TypeError,
        r"must be a transformation, such as gradtx.lbfgs\(\), got",
        lambda: minimize(bowl, 1.0, gradtx.adam),
    ),
    "max_steps": (
        ValueError,
        "max_steps must be an integer of at least 1, got 0",
        lambda: minimize(bowl, 1.0, max_steps=0),
    ),
    "steps": (
        ValueError,
        "max_steps must be an integer of at least 1, got 2.5",
        lambda: minimize(bowl, 1.0, max_steps=2.5),
    ),
    "tol": (
        ValueError,
        "tol must be finite and at least 0, got -1",
        lambda: minimize(bowl, 1.0, tol=-1),
    ),
    "value_tol": (
        ValueError,
        "value_tol must be finite and at least 0, got nan",
        lambda: minimize(bowl, 1.0, value_tol=np.nan),
    ),
    "patience": (
        ValueError,
        "patience must be finite and at least 1, got 0",
        lambda: minimize(bowl, 1.0, patience=0),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    kind, message, call = BAD[case]
    with pytest.raises(kind, match=f"minimize: .*{message}"):
        call()
