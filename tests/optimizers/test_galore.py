"""GaLore: what it projects and when, what it stores, and what its steps do not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import trees
from references.galore import HALVES, PLAIN, projectors
from test_bad_inputs import refused
from trees import assert_equal, avals

import gradtx
from gradtx import GaLoreDimensionNumbers, MaskedNode

LIBRARIES = [gradtx, optax.contrib]


def draw(shape, seed, dtype=np.float64):
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape)
    return (x + 1j * random.standard_normal(shape) if dtype is complex else x).astype(dtype)


def steps_of(tx, params, gradients):
    """All updates, from one compiled scan over stacked gradients; and the last state."""

    @jax.jit
    def scan(gradients):
        def step(state, g):
            updates, state = tx.update(g, state, params)
            return state, updates

        return jax.lax.scan(step, tx.init(params), gradients)

    state, updates = scan(gradients)
    return updates, state


# ---- The method -------------------------------------------------------------------------------


def test_three_steps_of_a_matrix_by_hand(x64):
    """With decays of 1/2 and a projector that is renewed at the third step."""
    gradients = [
        [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]],  # P = e1, and keeps the first row
        [[4.0, 0.0, 0.0], [0.0, 9.0, 0.0]],  # P stays, although e2 would be the larger one now
        [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]],  # P = (1, 1) / sqrt(2), which points along e1
    ]
    tx = gradtx.galore(0.1, rank=1, update_proj_gap=2, scale=0.5, base_optimizer=HALVES)
    state, steps = tx.init(jnp.zeros((2, 3))), []
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g), state, jnp.zeros((2, 3)))
        steps.append(updates)
    # low: (2, 0), (4, 0), (sqrt 2, sqrt 2), and a column of zeros
    #   m: (1, 0), (5/2, 0), (5/4 + 1/sqrt 2, 1/sqrt 2)  over 1/2, 3/4, 7/8
    #   v: (2, 0), (9, 0), (11/2, 1)
    first = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    h = 0.5**0.5
    u = np.array([(1.25 + h) / 5.5**0.5, h, 0.0]) / (7 / 8) ** 0.5
    wanted = [first, 10 / 3 / 12**0.5 * first, h * np.array([u, u])]
    for ours, w in zip(steps, wanted, strict=True):
        np.testing.assert_allclose(ours, -0.1 * 0.5 * w, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(state[0].projector, [[h], [h]], rtol=1e-14)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)], ids=str)
@pytest.mark.parametrize("library", LIBRARIES, ids=["gradtx", "optax"])
def test_a_fresh_projection_is_the_best_approximation_of_its_rank(shape, library, x64):
    """Eckart and Young (1936). optax takes singular values in float32."""
    g = draw(shape, 1)
    base = PLAIN if library is gradtx else optax.identity()
    tx = library.scale_by_galore(rank=2, base_optimizer=base)
    ours, _ = tx.update(g, tx.init(g))
    u, s, vh = np.linalg.svd(g)
    wanted = (u[:, :2] * s[:2]) @ vh[:2]
    np.testing.assert_allclose(ours, wanted, atol=1e-13 if library is gradtx else 1e-5)
    if library is not gradtx:
        assert np.max(np.abs(ours - wanted)) > 1e-9


def test_optax_agrees_on_square_matrices_to_its_float32(x64):
    """Over 100 steps with one projector, of which the signs then do not matter."""
    params = {"q": np.zeros((5, 5)), "b": np.zeros(3)}
    gradients = {n: draw((100, *x.shape), 2) for n, x in params.items()}
    ours, theirs = (
        steps_of(library.galore(0.1, rank=2, scale=0.25), params, gradients)[0]
        for library in LIBRARIES
    )
    np.testing.assert_allclose(ours["b"], theirs["b"], rtol=1e-12)
    np.testing.assert_allclose(ours["q"], theirs["q"], atol=1e-6)
    assert np.max(np.abs(ours["q"])) > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_shorter_side_is_projected_where_optax_projects_the_longer(side):
    """What is left of later gradients is `rank` of the shorter side's directions, not of 64."""
    shape = (8, 64) if side == "left" else (64, 8)
    params, later = np.zeros(shape, np.float32), draw(shape, 4, np.float32)
    kept, projectors = [], []
    for library in LIBRARIES:
        base = PLAIN if library is gradtx else optax.identity()
        tx = library.scale_by_galore(rank=4, base_optimizer=base)
        state = tx.init(params)
        _, state = tx.update(draw(shape, 3, np.float32), state)
        updates, state = tx.update(later, state)
        projectors.append(state.projector.shape)
        kept.append(float(np.sum(np.square(updates)) / np.sum(np.square(later))))
    assert projectors == [(8, 4), (64, 4)]
    assert 0.4 < kept[0] < 0.6 and kept[1] < 0.1


@pytest.mark.parametrize("dtype", [float, complex])
def test_steps_turn_with_the_gradients(dtype, x64):
    """`U @ g` for an orthogonal `U` gives `U @ step`, whatever signs the singular vectors had.

    With optax the signs of new vectors are any, and the momentum of the old ones is taken for that
    of the new ones, or for its opposite.
    """
    gradients = draw((12, 4, 4), 5, dtype) + 2 * draw((4, 4), 6, dtype)
    turn = np.linalg.qr(draw((4, 4), 7, dtype))[0]

    def gap(library):
        tx = library.galore(1.0, rank=2, update_proj_gap=2)
        zero = np.zeros((4, 4), dtype)
        plain, turned = steps_of(tx, zero, gradients)[0], steps_of(tx, zero, turn @ gradients)[0]
        return np.max(np.abs(turned - turn @ plain))

    assert gap(gradtx) < 1e-10
    if dtype is float:
        assert gap(optax.contrib) > 0.1


def test_new_vectors_point_along_those_that_they_replace(x64):
    gradients = draw((3, 4, 6), 8) + 2 * draw((4, 6), 9)
    tx = gradtx.scale_by_galore(rank=3, update_proj_gap=1)
    state, old = tx.init(gradients[0]), np.eye(4)[:, :3]
    for g, wanted in zip(gradients, projectors(gradients, 3, 1), strict=True):
        _, state = tx.update(g, state)
        p = np.asarray(state.projector)
        np.testing.assert_allclose(p, wanted, atol=1e-12)
        np.testing.assert_allclose(p.T @ p, np.eye(3), atol=1e-13)
        assert np.all(np.sum(old * p, axis=0) > 0)
        old = p


def test_a_rank_above_the_shorter_side_shrinks_the_longer_one():
    """A gradient that makes the projector lies in it; a later one need not."""
    params = {"wide": draw((3, 5), 1, np.float32), "tall": draw((5, 3), 2, np.float32)}
    tx = gradtx.scale_by_galore(rank=128, update_proj_gap=2, base_optimizer=PLAIN)
    updates, state = tx.update(params, tx.init(params))
    trees.assert_ulps(updates, params, 8, of_largest=True)
    assert {x.shape for x in jax.tree.leaves(state.projector)} == {(5, 3)}
    p, g = (np.asarray(x, np.float64) for x in (state.projector["tall"], params["tall"] + 1))
    updates, state = tx.update({"wide": params["wide"], "tall": params["tall"] + 1}, state)
    np.testing.assert_allclose(updates["tall"], p @ p.T @ g, atol=1e-5)


def test_training_goes_down_by_steps_of_low_rank():
    """Two factors of full rank 12, by steps of rank 4, to 1e-4 of the loss (Adam: 4e-6)."""
    a, b = draw((12, 12), 1, np.float32), draw((12, 20), 2, np.float32)
    x = draw((12, 100), 3, np.float32)

    def loss(w):
        return jnp.mean(jnp.square(w["out"].T @ (w["in"] @ x) - b.T @ (a @ x)))

    def train(tx):
        def step(carry, _):
            w, state = carry
            updates, state = tx.update(jax.grad(loss)(w), state, w)
            return (gradtx.apply_updates(w, updates), state), None

        start = {"in": a + draw((12, 12), 4, np.float32) / 2, "out": b * 0.5}
        w, _ = jax.lax.scan(step, (start, tx.init(start)), length=500)[0]
        return loss(w) / loss(start)

    schedule = gradtx.cosine_decay_schedule(0.03, 500)
    assert jax.jit(lambda: train(gradtx.galore(schedule, rank=4, update_proj_gap=10)))() < 1e-3


# ---- When and where ---------------------------------------------------------------------------


def test_the_projector_is_renewed_every_gap_steps():
    gradients = draw((8, 4, 5), 1, np.float32)
    tx = gradtx.scale_by_galore(rank=2, update_proj_gap=3)
    state, renewed = tx.init(gradients[0]), []
    for t, g in enumerate(gradients):
        _, new = tx.update(g, state)
        if np.any(new.projector != state.projector):
            renewed.append(t)
        state = new
    assert renewed == [0, 3, 6] and int(state.count) == 8


def primitives(jaxpr, inside=()):
    """The names of a program's operations, each with those that it stands in."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield name, inside
        for x in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(x):
                yield from primitives(getattr(x, "jaxpr", x), (*inside, name))


def is_jaxpr(x):
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def test_singular_values_are_taken_in_one_branch_and_once_for_each_shape():
    shapes = [(4, 6), (6, 4), (4, 6), (5, 5), (2, 4, 6)]
    params = [jnp.ones(s) for s in shapes]
    axes = [GaLoreDimensionNumbers(-2, -1)] * len(shapes)
    tx = gradtx.scale_by_galore(rank=2, weight_dimension_numbers=axes)
    found = list(primitives(jax.make_jaxpr(tx.update)(params, tx.init(params)).jaxpr))
    taken = [inside for name, inside in found if name == "svd"]
    assert len(taken) == 2  # (4, 6), transposed or not and twice in a tensor, and (5, 5)
    assert all("cond" in inside for inside in taken)
    compiled = jax.jit(tx.update).lower(params, tx.init(params)).compile().as_text()
    assert compiled.count(" conditional(") == 1


def test_tensors_are_stacks_of_matrices(x64):
    """As each would be alone, wherever its axes are, and tall ones like their transposes."""
    g = draw((6, 3, 4, 5), 1)  # 3 * 5 matrices of 6 x 4
    tx = gradtx.galore(0.1, rank=2, weight_dimension_numbers=GaLoreDimensionNumbers(0, 2))
    gradients = np.stack([g, draw(g.shape, 2)])
    together, state = steps_of(tx, g, gradients)
    assert state[0].projector.shape == (3, 5, 4, 2)
    assert state[0].base_optimizer_state.mu.shape == (3, 5, 6, 2)
    alone, _ = steps_of(gradtx.galore(0.1, rank=2), g[:, 1, :, 2], gradients[:, :, 1, :, 2])
    np.testing.assert_allclose(together[:, :, 1, :, 2], alone, rtol=1e-9, atol=1e-14)
    turned, _ = steps_of(
        gradtx.galore(0.1, rank=2), g[:, 1, :, 2].T, gradients[:, :, 1, :, 2].transpose(0, 2, 1)
    )
    np.testing.assert_allclose(turned, alone.transpose(0, 2, 1), rtol=1e-9, atol=1e-14)
    flat = GaLoreDimensionNumbers((0, 1), (3, -2))  # one matrix of 18 x 20
    tx = gradtx.scale_by_galore(rank=2, weight_dimension_numbers=flat)
    assert tx.init(g).projector.shape == (18, 2)


def test_what_is_projected():
    params = {"w": jnp.ones((3, 4)), "t": jnp.ones((2, 3, 4)), "b": jnp.ones(4), "n": None}
    numbers = GaLoreDimensionNumbers(1, 2)
    cases = [
        (None, {"w"}),
        ({"w": None, "t": numbers, "b": None, "n": None}, {"t"}),
        (lambda tree: {k: numbers if k == "t" else None for k in tree}, {"t"}),
        (GaLoreDimensionNumbers(-1, -2), {"w", "t"}),  # one for all that have two axes
    ]
    for axes, wanted in cases:
        tx = gradtx.scale_by_galore(
            rank=1, base_optimizer=PLAIN, scale=3.0, weight_dimension_numbers=axes
        )
        state = tx.init(params)
        assert avals(jax.eval_shape(tx.init, params)) == avals(state)
        projected = {k for k, x in state.projector.items() if hasattr(x, "shape")}
        assert projected == wanted and state.projector["n"] is None
        assert all(state.projector[k] == MaskedNode() for k in {"w", "t", "b"} - wanted)
        updates, _ = tx.update(params, state)
        for k in ("w", "t", "b"):  # matrices of ones have rank 1
            np.testing.assert_allclose(updates[k], 3.0 if k in wanted else 1.0, rtol=1e-6)


def test_the_state_is_as_small_as_the_paper_says():
    params = {"wide": jnp.zeros((64, 256)), "tall": jnp.zeros((256, 64))}

    def numbers(tx):
        return sum(x.size for x in jax.tree.leaves(tx.init(params)) if x.ndim)

    m, n, rank = 64, 256, 4
    assert numbers(gradtx.galore(1e-3, rank=rank)) == 2 * (m * rank + 2 * n * rank)
    assert numbers(gradtx.adam(1e-3)) == 2 * (2 * m * n)  # 14 times as many
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    state = gradtx.galore(1e-3, rank=rank).init(half)
    assert {x.dtype for x in jax.tree.leaves(state) if x.ndim} == {jnp.dtype("float32")}


# ---- Gradients that tell nothing --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (5, 3)], ids=str)
@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_no_direction_is_taken_from_zeros_or_what_is_not_finite(wrong, shape):
    """And other matrices of the stack do not notice."""
    good = draw(shape, 1, np.float32)
    bad = good.copy() if wrong else np.zeros_like(good)
    bad[0, 1] = wrong
    tx = gradtx.scale_by_galore(rank=2, base_optimizer=PLAIN)
    state = tx.init({"a": good, "b": good})
    first = np.asarray(state.projector["b"])
    updates, state = tx.update({"a": good, "b": bad}, state)
    alone, _ = tx.update({"a": good}, tx.init({"a": good}))
    np.testing.assert_array_equal(updates["a"], alone["a"])
    np.testing.assert_array_equal(state.projector["b"], first)
    assert np.all(np.isfinite(updates["b"])) == (wrong == 0)  # it stays visible
    updates, _ = tx.update({"a": good, "b": good}, state)
    assert np.all(np.isfinite(updates["b"])) and np.any(updates["b"] != 0)


def test_optax_keeps_nan_for_the_whole_gap():
    """With infinity it does not come back at all: LAPACK's gesdd goes on forever."""
    good = draw((3, 5), 1, np.float32)
    theirs = optax.contrib.scale_by_galore(rank=2, base_optimizer=optax.identity())
    _, state = theirs.update(good * np.nan, theirs.init(good))
    updates, _ = theirs.update(good, state)
    assert np.all(np.isnan(updates))


@pytest.mark.parametrize("size", [3e38, 1e25, 1e-25, 1e-33])
def test_gradients_of_any_size_have_directions(size):
    g = jnp.asarray(draw((3, 5), 1, np.float32))
    g = g / jnp.max(jnp.abs(g))
    tx = gradtx.scale_by_galore(rank=2)
    (_, plain), (updates, state) = (tx.update(x, tx.init(g)) for x in (g, g * np.float32(size)))
    np.testing.assert_allclose(state.projector, plain.projector, atol=1e-5)
    assert not np.any(np.isnan(updates))


def test_gradients_of_lower_rank_come_through_whole():
    g = jnp.outer(jnp.arange(1.0, 5), jnp.arange(1.0, 7))
    tx = gradtx.scale_by_galore(rank=3, base_optimizer=PLAIN)
    updates, state = tx.update(g, tx.init(g))
    trees.assert_ulps(updates, g, 8, of_largest=True)
    p = np.asarray(state.projector)
    np.testing.assert_allclose(p.T @ p, np.eye(3), atol=1e-6)


def test_empty_matrices_pass_by():
    for shape in ((0, 3), (3, 0), (0, 0)):
        tree = {"a": jnp.zeros(shape), "b": None}
        tx = gradtx.galore(0.1, rank=2)
        updates, state = tx.update(tree, tx.init(tree), tree)
        assert avals(updates) == avals(tree) and avals(state) == avals(tx.init(tree))


# ---- What stands inside -----------------------------------------------------------------------


def test_the_base_optimizer_sees_projected_parameters(x64):
    """Decay inside of the projection is that of `P @ P.H @ p`; optax gives it no parameters."""
    p, g = draw((4, 6), 1), draw((4, 6), 2)
    tx = gradtx.scale_by_galore(rank=2, base_optimizer=gradtx.add_decayed_weights(0.1))
    updates, state = tx.update(g, tx.init(p), p)
    basis = np.asarray(state.projector)
    np.testing.assert_allclose(updates, basis @ basis.T @ (g + 0.1 * p), rtol=1e-12)
    with refused(ValueError, "scale_by_galore (add_decayed_weights)", "needs the parameters"):
        tx.update(g, tx.init(p))
    theirs = optax.contrib.scale_by_galore(rank=2, base_optimizer=optax.add_decayed_weights(0.1))
    with pytest.raises(ValueError):
        theirs.update(g, theirs.init(p), p)


def test_any_base_optimizer_and_its_extra_arguments():
    params = {"w": draw((4, 6), 1, np.float32), "b": draw((6,), 2, np.float32)}
    for base in (
        optax.scale_by_adam(),  # a pair of another library
        gradtx.masked(gradtx.scale_by_muon(ns_steps=1), {"w": True, "b": False}),
        gradtx.scale_by_factored_rms(min_dim_size_to_factor=2),
    ):
        tx = gradtx.scale_by_galore(rank=2, base_optimizer=base)
        state = tx.init(params)
        updates, new = tx.update(params, state, params)
        assert avals(new) == avals(state) and avals(updates) == avals(params)
    tx = gradtx.galore(1.0, rank=2, base_optimizer=gradtx.reduce_on_plateau(0.5, 1))
    state = tx.init(params)
    for value in (1.0, 2.0):
        updates, state = tx.update(params, state, params, value=value)
    np.testing.assert_allclose(updates["b"], -0.5 * params["b"], rtol=1e-6)


def test_derivatives_take_the_projector_for_a_constant(x64):
    g = draw((3, 5), 1)
    tx = gradtx.scale_by_galore(rank=2, base_optimizer=PLAIN)
    state, weights = tx.init(g), draw((3, 5), 2)
    basis = np.asarray(tx.update(g, state)[1].projector)
    slope = jax.grad(lambda g: jnp.sum(weights * tx.update(g, state)[0]))(g)
    np.testing.assert_allclose(slope, basis @ basis.T @ weights, rtol=1e-12)
    slope = jax.grad(lambda g: jnp.sum(weights * tx.update(g, state)[0]))(np.zeros((3, 5)))
    assert np.all(np.isfinite(slope))


def test_half_precision_is_projected_in_float32():
    g = jnp.asarray(draw((4, 6), 1, np.float32)).astype(jnp.bfloat16)
    wide = g.astype(jnp.float32)
    tx = gradtx.scale_by_galore(rank=2)
    (ours, state), (exact, _) = (tx.update(x, tx.init(x)) for x in (g, wide))
    assert ours.dtype == jnp.bfloat16 and state.projector.dtype == jnp.float32
    np.testing.assert_array_equal(ours, exact.astype(jnp.bfloat16))


def test_under_vmap():
    params = draw((3, 4, 6), 1, np.float32)
    tx = gradtx.galore(0.1, rank=2)
    many = jax.vmap(lambda p: tx.update(p, tx.init(p), p)[0])(params)
    one = jnp.stack([tx.update(p, tx.init(p), p)[0] for p in params])
    np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-5)


def test_masked_and_partitioned():
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(4), "i": jnp.arange(3)}
    labels = {"w": "low", "b": "rest", "i": "frozen"}
    parts = {
        "low": gradtx.galore(0.1, rank=1, base_optimizer=PLAIN),
        "rest": gradtx.sgd(0.2),
        "frozen": gradtx.set_to_zero(),
    }
    tx = gradtx.partition(parts, labels)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.2, rtol=1e-6)
    assert_equal(updates["i"], jnp.zeros(3, params["i"].dtype))


# ---- What is refused --------------------------------------------------------------------------


def test_hyperparameters_that_cannot_be():
    with refused(ValueError, "scale_by_galore: rank must be a whole number, at least 1, got 0"):
        gradtx.scale_by_galore(rank=0)
    with refused(ValueError, "galore: rank must be a whole number, at least 1, got 2.5"):
        gradtx.galore(0.1, rank=2.5)
    with refused(
        ValueError, "scale_by_galore: update_proj_gap must be a whole number, at least 1, got 0"
    ):
        gradtx.scale_by_galore(update_proj_gap=0)


def test_leaves_that_do_not_fit():
    axes = {"a": GaLoreDimensionNumbers(0, 1)}
    tx = gradtx.galore(0.1, weight_dimension_numbers=axes)
    with refused(ValueError, "galore", "params['a'] has 1 axis", "output_axis", "got 1"):
        tx.init({"a": jnp.ones(3)})
    with refused(ValueError, "galore", "weight_dimension_numbers", "['b']"):
        tx.init({"b": jnp.ones((3, 3))})
    tx = gradtx.galore(0.1, rank=2)
    state = tx.init({"a": jnp.ones((3, 4))})
    with refused(ValueError, "galore", "updates['a'] has shape (5, 4)", "(3, 2)", "(2, 4) there"):
        tx.update({"a": jnp.ones((5, 4))}, state)
    with refused(TypeError, "galore", "updates['a'] is complex64", "float32"):
        tx.update({"a": jnp.ones((3, 4), jnp.complex64)}, state)
