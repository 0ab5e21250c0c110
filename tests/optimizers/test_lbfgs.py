"""L-BFGS: its matrix, its memory, and how well it minimizes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from classic_problems import PROBLEMS, beale, himmelblau, powell, rosenbrock
from hypothesis import given, settings, strategies as st
from references.lbfgs import InverseHessian
from representatives import first, moved_one_by_one
from test_conformance import counted_traces
from trees import assert_equal, avals, numbers

import gradtx


def minimize(tx, f, x, steps):
    """Gives the point, the state, and the largest number of evaluations that a search took."""

    @jax.jit
    def run(x):
        def step(carry, _):
            x, state = carry
            value, grad = jax.value_and_grad(f)(x)
            grad = jax.tree.map(jnp.conj, grad)
            updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
            return (gradtx.apply_updates(x, updates), state), value

        return jax.lax.scan(step, (x, tx.init(x)), length=steps)

    (x, state), values = run(x)
    return x, state, values


# ---- The matrix -------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("memory_size", [1, 3, 10])
def test_the_memory_stands_for_the_matrix_of_bfgs(memory_size, scaled, x64):
    """Each direction is the dense matrix times the gradient, on a path of random pairs."""
    random = np.random.default_rng(memory_size)
    x = random.normal(size=5)
    hessian = (lambda a: a @ a.T + 0.1 * np.eye(5))(random.normal(size=(5, 5)))
    tx, dense = gradtx.scale_by_lbfgs(memory_size, scaled), InverseHessian(memory_size, scaled)
    state = tx.init(jnp.asarray(x))
    for _ in range(8):
        g = hessian @ x
        direction, state = tx.update(jnp.asarray(g), state, jnp.asarray(x))
        np.testing.assert_allclose(direction, dense.direction(x, g), rtol=1e-9)
        x = x + random.normal(size=5)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    curvatures=st.lists(st.floats(0.1, 10.0), min_size=4, max_size=4),
    seed=st.integers(0, 2**20),
)
def test_every_pair_is_a_secant(curvatures, seed):
    """`H y = s` for the latest pair, and `H` stays positive, whatever path is taken."""
    with jax.enable_x64(True):
        random = np.random.default_rng(seed)
        c, x = jnp.asarray(curvatures), jnp.asarray(random.normal(size=4))
        tx = gradtx.scale_by_lbfgs(3)
        state = tx.init(x)
        for _ in range(5):
            direction, state = tx.update(c * x, state, x)
            assert float(jnp.vdot(direction, c * x)) > 0
            last, x = x, x + jnp.asarray(random.normal(size=4))
        _, state = tx.update(c * x, state, x)
        s, y = x - last, c * (x - last)
        np.testing.assert_allclose(_times_h(state, y, (s @ y) / (y @ y)), s, rtol=1e-8)


def _times_h(state, v, gamma):
    """`H v` from what the state holds, pair by pair as matrices."""
    size, memory = len(v), len(state.weights_memory)
    newest = (int(state.count) - 2) % memory
    order = [(newest - i) % memory for i in range(memory)][::-1]
    h = gamma * np.eye(size)
    for i in order:
        w = float(state.weights_memory[i])
        s, y = np.asarray(state.diff_params_memory[i]), np.asarray(state.diff_updates_memory[i])
        left = np.eye(size) - w * np.outer(s, y)
        h = left @ h @ left.T + w * np.outer(s, s)
    return h @ np.asarray(v)


def test_where_pairs_stand_in_the_memory(x64):
    """At optax's places, so that its checkpoints mean the same."""
    mine, theirs = gradtx.scale_by_lbfgs(3), optax.scale_by_lbfgs(3)
    x = jnp.array([1.0, 2.0])
    state, other = mine.init(x), theirs.init(x)
    assert state._fields == other._fields
    for _ in range(6):
        g = 4 * x**3
        direction, state = mine.update(g, state, x)
        wanted, other = theirs.update(g, other, x)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), tuple(state), tuple(other)
        )
        np.testing.assert_allclose(direction, wanted, rtol=1e-12)
        x = x - 0.01 * g


def test_negative_curvature_is_left_out_where_optax_climbs(x64):
    """At a hilltop the gradient grows along the way down, and `H` would point up again."""

    def loss(x):
        return jnp.sum(jnp.cos(x))

    def descend(library):
        tx = library.lbfgs(0.1, linesearch=None)
        x, losses = jnp.array([0.3, -0.2]), []
        state = tx.init(x)
        for _ in range(6):
            losses.append(float(loss(x)))
            updates, state = tx.update(jax.grad(loss)(x), state, x)
            x = x + updates
        return losses, state[0]

    ours, state = descend(gradtx)
    assert all(b < a for a, b in itertools.pairwise(ours))
    assert float(jnp.max(jnp.abs(state.weights_memory))) == 0  # no pair has been of use yet
    theirs, _ = descend(optax)
    assert theirs[2] > theirs[1]


def test_pairs_that_say_nothing_are_left_out():
    """No move, no change of the gradient, or one below rounding."""
    tx, x, g = gradtx.scale_by_lbfgs(4), jnp.array([3.0, 4.0]), jnp.array([0.3, 0.4])
    state = tx.init(x)
    moves = [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, -1e-9)]
    for move, change in [(0.0, 0.0), *moves]:
        x, g = x + jnp.array([move, 0.0]), g + jnp.array([0.0, change])
        direction, state = tx.update(g, state, x)
        assert bool(jnp.all(jnp.isfinite(direction)))
    assert_equal(state.weights_memory, jnp.zeros(4))


def test_the_first_step_is_no_longer_than_the_rate():
    for size in (0.01, 100.0):
        g = size * jnp.array([0.6, 0.8])
        tx = gradtx.scale_by_lbfgs()
        direction, _ = tx.update(g, tx.init(g), jnp.ones(2))
        np.testing.assert_allclose(direction, g * min(1, 1 / size), rtol=1e-6)


def test_the_matrix_of_many_leaves_is_one():
    """As leaves of one tree, and as one array, real or complex."""
    z = {"a": numbers((3,), 1, jnp.complex64), "b": numbers((2, 2), 2), "c": numbers((), 3)}

    def flat(tree):
        leaves = jax.tree.leaves(tree)
        parts = [[x.real, x.imag] if jnp.iscomplexobj(x) else [x] for x in leaves]
        return jnp.concatenate([jnp.ravel(x) for part in parts for x in part])

    weights = jax.tree.map(lambda x: jnp.linspace(1, 3, x.size).reshape(x.shape), z)
    tx = gradtx.scale_by_lbfgs(3)
    state, flat_state = tx.init(z), tx.init(flat(z))
    for _ in range(5):
        g = jax.tree.map(lambda w, x: w * x * jnp.abs(x), weights, z)
        direction, state = tx.update(g, state, z)
        wanted, flat_state = tx.update(flat(g), flat_state, flat(z))
        np.testing.assert_allclose(flat(direction), wanted, rtol=1e-4, atol=1e-6)
        z = jax.tree.map(lambda x, u: x - 0.1 * u, z, direction)


# ---- Minimizing -------------------------------------------------------------------------------


SEARCHES = {
    "zoom": gradtx.scale_by_zoom_linesearch(20, initial_guess_strategy="one"),
    "backtracking": gradtx.scale_by_backtracking_linesearch(30, increase_factor=jnp.inf),
}
STARTS = {
    rosenbrock: [-1.2, 1.0, -1.2, 1.0],
    himmelblau: [0.0, 0.0],
    beale: [1.0, 1.0],
    powell: [3.0, -1.0, 0.0, 1.0],
}


@pytest.mark.parametrize(
    ("problem", "search"),
    list(moved_one_by_one([*STARTS], [*SEARCHES])),
    ids=lambda x: getattr(x, "__name__", x),
)
def test_classic_problems_are_solved(problem, search, x64):
    tx, start = gradtx.lbfgs(linesearch=SEARCHES[search]), jnp.asarray(STARTS[problem])
    x, _, values = minimize(tx, problem, start, 60)
    assert float(problem(x)) < 1e-10
    assert bool(jnp.all(jnp.diff(values) <= 1e-6 * jnp.abs(values[:-1])))


@pytest.mark.parametrize("problem", list(first(PROBLEMS)), ids=lambda f: f.__name__)
def test_the_same_path_as_optax(problem, x64):
    """Of the losses, until nothing is left of them."""
    x = jnp.asarray(np.random.default_rng(3).normal(size=PROBLEMS[problem]))
    _, _, ours = minimize(gradtx.lbfgs(), problem, x, 15)
    _, _, theirs = minimize(optax.lbfgs(), problem, x, 15)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_a_quadratic_is_solved_in_as_many_steps_as_it_has_curvatures(x64):
    c = jnp.array([1.0, 10.0, 100.0])
    exact = gradtx.scale_by_zoom_linesearch(
        30, curv_rtol=1e-10, initial_guess_strategy="one", stepsize_precision=0.0
    )

    def loss(x):
        return 0.5 * jnp.sum(c * x**2)

    x, _, _ = minimize(gradtx.lbfgs(linesearch=exact), loss, jnp.ones(3), 4)
    assert float(loss(x)) < 1e-15


def test_many_starts_at_once(x64):
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    run = functools.partial(minimize, gradtx.lbfgs(), himmelblau, steps=8)
    together, state, _ = jax.vmap(lambda x: run(x))(starts)
    for i, start in enumerate(starts):
        alone, alone_state, _ = run(start)
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)
        np.testing.assert_allclose(state[0].count[i], alone_state[0].count)


# ---- The state --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_state_is_a_fixed_point_with_gradients_of_another_precision():
    """What optax's state is not: its parameters and gradients take the dtypes that come."""
    for p_dtype, g_dtype in [("bfloat16", "float32"), ("float16", "float32"), ("float32",) * 2]:
        p, g = numbers((3,), 1, p_dtype), numbers((3,), 2, g_dtype)
        for tx in (gradtx.lbfgs(), gradtx.lbfgs(0.1), gradtx.lbfgs(linesearch=None)):
            state = tx.init(p)
            updates, new = tx.update(
                g, state, p, value=1.0, grad=g, value_fn=lambda x: jnp.sum(x**2)
            )
            assert avals(new) == avals(state)
            assert avals(updates) == avals(g)


def test_nothing_is_compiled_at_the_second_step():
    """Outside of jit, the loss defined anew at every step; and in it, with one trace."""
    tx, x = gradtx.lbfgs(), jnp.array([-1.2, 1.0])
    state = tx.init(x)

    def take(x, state):
        def loss(x):
            return rosenbrock(x)

        value, grad = jax.value_and_grad(loss)(x)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=loss)
        return gradtx.apply_updates(x, updates), state

    for _ in range(3):  # until a search has been through all its branches
        x, state = take(x, state)
    with counted_traces() as found:
        take(x, state)
    assert found == []
    compiled = jax.jit(take)
    x, state = compiled(x, state)
    with counted_traces() as found:
        compiled(x, state)
    assert found == []


@pytest.mark.parametrize("size", [0, -1, 2.5, 2.0, None])
def test_memory_sizes_that_are_none(size):
    with pytest.raises((ValueError, TypeError), match=rf"lbfgs: memory_size must .*, got {size}"):
        gradtx.lbfgs(memory_size=size)


def test_the_memory_of_an_optimizer_in_a_chain_with_clipping():
    """The loss and its gradient are those of the caller, whatever happens to the direction."""
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lbfgs())
    _, _, values = minimize(tx, himmelblau, jnp.array([1.0, 1.0]), 30)
    assert float(values[-1]) < 1e-6
