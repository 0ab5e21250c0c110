"""The engine for rules of stacks of matrices: layouts, stacks, states, masks, errors."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from hypothesis import given, settings, strategies as st
from trees import assert_equal, avals

import gradtx
from gradtx import EmptyState, MaskedNode, MatrixAxes, Slots, matrixwise
from gradtx.matrices.layout import layout_of
from gradtx.state import Count, RandomKey, Slot, Statistic, Tally

# ---- Layouts ----------------------------------------------------------------------------------


@st.composite
def tensors_and_axes(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    order = draw(st.permutations(range(len(shape))))
    a = draw(st.integers(1, len(shape) - 1))
    b = draw(st.integers(1, len(shape) - a))
    signs = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    named = [x - len(shape) if s else x for x, s in zip(order, signs, strict=True)]
    return tuple(shape), MatrixAxes(tuple(named[:a]), tuple(named[a : a + b]))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tensors_and_axes())
def test_what_is_taken_apart_is_put_together_again(case):
    shape, axes = case
    layout = layout_of(shape, axes)
    x = jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(shape)
    matrices = layout.take_apart(x)
    rank = len(shape)
    rows, columns = ([a % rank for a in part] for part in axes)
    assert matrices.shape == (
        math.prod(shape) // math.prod(shape[a] for a in rows + columns),
        math.prod(shape[a] for a in rows),
        math.prod(shape[a] for a in columns),
    )
    np.testing.assert_array_equal(layout.put_together(matrices), x)


def test_layouts_by_hand():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    heads = layout_of((2, 3, 4), MatrixAxes(1, 2)).take_apart(x)  # two matrices 3 x 4
    np.testing.assert_array_equal(heads, x)
    flat = layout_of((2, 3, 4), MatrixAxes(0, (1, 2))).take_apart(x)
    np.testing.assert_array_equal(flat[0], x.reshape(2, 12))
    tall = layout_of((2, 3, 4), MatrixAxes(-1, 0)).take_apart(x)  # three matrices 4 x 2
    np.testing.assert_array_equal(tall[1], x[:, 1, :].T)


@pytest.mark.parametrize(
    ("shape", "axes", "told"),
    [
        ((3,), None, "has shape (3,), which is not a matrix"),
        ((2, 3, 4), None, "has shape (2, 3, 4), which is not a matrix"),
        (
            (2, 3),
            MatrixAxes(0, 2),
            "has 2 axes, so output_axis in axes must be from -2 to 1, got 2",
        ),
        ((2, 3), MatrixAxes((), 1), "axes must be different axes of rows and columns, got"),
        ((2, 3), MatrixAxes(0, -2), "axes must be different axes"),
    ],
)
def test_layouts_that_do_not_fit(shape, axes, told):
    with pytest.raises(ValueError) as caught:
        layout_of(shape, axes)
    assert told in str(caught.value)


# ---- The engine -------------------------------------------------------------------------------


class RowsState(NamedTuple):
    count: jax.Array
    total: gradtx.Updates


def by_rows(seen=None, **settings):
    """AdaGrad with one accumulator a row: a rule with a slot that is smaller than its leaf."""

    def init(p):
        return Slots(total=jnp.zeros(p.shape[:2]))

    def update(g, s, step, p):
        if seen is not None:
            seen.append(g.shape)
        total = s.total + jnp.sum(g * g, 2)
        return g / jnp.sqrt(total + 1e-30)[:, :, None], Slots(total=total)

    return matrixwise(RowsState, init, update, **settings)


def test_matrices_of_one_shape_travel_together():
    seen = []
    params = {
        "a": trees.numbers((2, 3), 1),
        "b": {"c": trees.numbers((2, 3), 2), "d": trees.numbers((3, 2), 3)},
        "none": None,
        "t": trees.numbers((5, 2, 3), 4),
    }
    axes = {"a": None, "b": None, "none": None, "t": MatrixAxes(1, 2)}
    tx = by_rows(seen, axes=axes)
    state = tx.init(params)
    updates, new = jax.jit(tx.update)(params, state)
    assert sorted(seen) == [(1, 3, 2), (7, 2, 3)]
    assert avals(new) == avals(state) and avals(updates) == avals(params)
    assert new.total["t"].shape == (5, 2) and new.total["a"].shape == (1, 2)
    for path in ("a", "t"):
        g = np.asarray(params[path]).reshape(-1, 2, 3)
        wanted = g / np.sqrt(np.sum(g * g, 2, keepdims=True))
        np.testing.assert_allclose(updates[path].reshape(-1, 2, 3), wanted, rtol=1e-6)
        np.testing.assert_allclose(new.total[path], np.sum(g * g, 2), rtol=1e-6)
    assert int(new.count) == 1


def test_lying_rules_see_tall_matrices_transposed():
    seen = []

    def update(g, s, step, p):
        seen.append(g.shape)
        return g * jnp.arange(1.0, 3.0)[:, None], Slots()  # by the row

    tx = matrixwise(EmptyState, None, update, lying=True)
    params = {"wide": jnp.ones((2, 3)), "tall": jnp.ones((3, 2)), "square": jnp.ones((2, 2))}
    updates, _ = tx.update(params, tx.init(params))
    assert sorted(seen) == [(1, 2, 2), (2, 2, 3)]
    np.testing.assert_array_equal(updates["wide"], [[1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(updates["tall"], [[1, 2], [1, 2], [1, 2]])
    np.testing.assert_array_equal(updates["square"], [[1, 1], [2, 2]])


def test_what_comes_after_sees_each_leafs_own_shape():
    tx = matrixwise(
        EmptyState,
        None,
        lambda g, s, step, p: (g, Slots()),
        lying=True,
        after=lambda g, layout: g * layout.rows,
    )
    params = {"wide": jnp.ones((2, 3)), "tall": jnp.ones((3, 2))}
    updates, _ = tx.update(params, tx.init(params))
    assert float(updates["wide"][0, 0]) == 2 and float(updates["tall"][0, 0]) == 3


def test_dtypes_are_kept_and_arithmetic_is_wide():
    seen = []

    def update(g, s, step, p):
        seen.append((g.dtype, p.dtype))
        return g * g, Slots()

    tx = matrixwise(EmptyState, None, update, params=True)
    params = {d: jnp.full((2, 2), 300.0, d) for d in ("float16", "bfloat16", "float32")}
    g = jax.tree.map(lambda x: x / 300 * 2, params)
    updates, _ = tx.update(g, tx.init(params), params)
    assert set(seen) == {(jnp.dtype("float32"),) * 2} and len(seen) == 1
    assert avals(updates) == avals(params)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(g, tx.init(params))


def test_masked_leaves_pass_by_and_need_no_layout():
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "i": jnp.arange(4)}
    mask = {"w": True, "b": False, "i": False}
    for way in (mask, lambda tree: mask):
        tx = gradtx.masked(gradtx.chain(by_rows(), gradtx.scale(2.0)), way)
        state = tx.init(params)
        updates, new = tx.update(params, state)
        assert_equal(updates["b"], params["b"])
        assert_equal(updates["i"], params["i"])
        assert avals(new) == avals(state)
        rows = new.inner_state[0]
        assert rows.total["b"] == MaskedNode() and rows.total["w"].shape == (1, 2)
    labels = {"w": "rows", "b": "rest", "i": "frozen"}
    parts = {"rows": by_rows(), "rest": gradtx.sgd(0.1), "frozen": gradtx.set_to_zero()}
    tx = gradtx.partition(parts, labels)
    updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_allclose(updates["b"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["w"], 3**-0.5, rtol=1e-6)


def test_functions_of_the_tree_see_the_whole_tree():
    """Under masks too: a user's function asks leaves for their rank."""

    def axes(tree):
        return {k: MatrixAxes(1, 2) if x.ndim == 3 else None for k, x in tree.items()}

    params = {"t": jnp.ones((2, 3, 4)), "w": jnp.ones((3, 4)), "b": jnp.ones(3)}
    labels = {"t": "rows", "w": "rows", "b": "rest"}
    tx = gradtx.partition({"rows": by_rows(axes=axes), "rest": gradtx.sgd(0.1)}, labels)
    updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_allclose(updates["t"], 0.5, rtol=1e-6)


def test_errors_name_the_rule_and_the_leaf():
    params = {"a": {"b": jnp.ones(3)}, "w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=r"by_rows: params\['a'\]\['b'\] has shape \(3,\)"):
        by_rows().init(params)
    state = by_rows().init({"w": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match=r"by_rows: .*only updates has updates\['a'\]\['b'\]"):
        by_rows().update({"a": {"b": jnp.ones((2, 2))}, "w": jnp.ones((2, 2))}, state)
    with pytest.raises(TypeError, match=r"by_rows: .*update\(updates, state, params\)"):
        by_rows().update(params, params)
    tx = by_rows(axes={"v": None})
    with pytest.raises(ValueError, match=r"only axes has axes"):
        tx.init({"w": jnp.ones((2, 2))})


def test_eager_equals_jitted_and_compiles_once():
    params = [trees.numbers((2, 3), i) for i in range(4)]
    tx = by_rows()
    state = tx.init(params)
    trees.assert_ulps(tx.update(params, state), jax.jit(tx.update)(params, state))
    assert avals(jax.eval_shape(tx.init, params)) == avals(state)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        listen := lambda event, _, **kwargs: compiled.append(event)
    )
    try:
        tx.update(params, state)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "trace" in event]


def test_vmap_over_everything():
    params = {"w": trees.numbers((4, 2, 3), 1)}
    tx = by_rows()
    many = jax.vmap(lambda p: tx.update(p, tx.init(p))[0])(params)
    one = [tx.update({"w": p}, tx.init({"w": p}))[0]["w"] for p in params["w"]]
    np.testing.assert_allclose(many["w"], jnp.stack(one), rtol=1e-6)


def test_empty_trees_and_matrices_without_elements():
    tx = by_rows()
    for tree in ({}, (), {"a": None}, {"a": jnp.zeros((0, 3))}, {"a": jnp.zeros((3, 0))}):
        updates, state = tx.update(tree, tx.init(tree))
        assert avals(updates) == avals(tree) and avals(state) == avals(tx.init(tree))


# ---- Moments, random keys and counts ------------------------------------------------------------


class MomentState(NamedTuple):
    count: Count
    rng_key: RandomKey
    mu: Slot
    basis: Statistic
    large: Tally


def keyed(key=0, **settings):
    """Momentum with noise; a basis drawn at random; the number of large elements, counted."""

    def normal(keys, *shape):
        return jax.vmap(lambda k: jax.random.normal(k, shape))(keys)

    def init(p, keys):
        n, r, _ = p.shape
        return Slots(mu=jnp.zeros_like(p), basis=normal(keys, r), large=jnp.zeros(n, jnp.int32))

    def update(g, s, step, p):
        mu = s.mu + g
        large = s.large + jnp.sum(g > 1, (1, 2), dtype=jnp.int32)
        return mu + normal(s.rng_key, *g.shape[1:]), Slots(mu=mu, basis=s.basis, large=large)

    return matrixwise(MomentState, init, update, key=jax.random.key(key), lying=True, **settings)


MOMENTS = {"w": jnp.ones((4, 6)), "t": 2 * jnp.ones((6, 4)), "h": jnp.ones((3, 6, 4), jnp.bfloat16)}
LAST = MatrixAxes(-2, -1)


def test_a_slot_has_the_shape_of_its_parameter_and_other_fields_an_entry_for_each_matrix():
    state = keyed(axes=LAST).init(MOMENTS)
    assert avals(state.mu) == avals(jax.tree.map(lambda x: x.astype(jnp.float32), MOMENTS))
    assert {n: x.shape for n, x in state.basis.items()} == {"w": (1, 4), "t": (1, 4), "h": (3, 4)}
    assert {n: x.shape for n, x in state.large.items()} == {"w": (1,), "t": (1,), "h": (3,)}
    _, new = keyed(axes=LAST).update(MOMENTS, state)
    np.testing.assert_array_equal(new.mu["t"], MOMENTS["t"])  # turned, and turned back
    assert avals(new) == avals(state)


def test_every_matrix_and_step_has_its_own_key_and_a_seed_gives_the_same_ones():
    tx = keyed(axes=LAST)
    state = tx.init(MOMENTS)
    rows = np.concatenate([x for x in state.basis.values()])
    assert len(np.unique(rows[:, 0])) == 5
    u, state = tx.update(MOMENTS, state)
    v, _ = tx.update(MOMENTS, state)
    noises = [x - m for x, m in zip(u["h"].astype(np.float32), state.mu["h"], strict=True)]
    assert len({float(x[0, 0]) for x in noises}) == 3
    assert np.max(np.abs(v["w"] - 2 * MOMENTS["w"] - (u["w"] - MOMENTS["w"]))) > 0.1
    again = jax.jit(tx.update)(MOMENTS, tx.init(MOMENTS))[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, u)
    other, _ = keyed(1, axes=LAST).update(MOMENTS, keyed(1, axes=LAST).init(MOMENTS))
    assert np.max(np.abs(other["w"] - u["w"])) > 0.1


def test_counts_are_reported_as_their_sum():
    tx = keyed(axes=LAST)
    state = tx.update(MOMENTS, tx.init(MOMENTS))[1]
    assert {n: int(x) for n, x in gradtx.metrics(state).items()} == {"large": 24}
    assert int(jax.jit(gradtx.metrics)(state)["large"]) == 24


def test_a_slot_of_another_shape_is_refused():
    def init(p):
        return Slots(mu=jnp.zeros(p.shape[:2]))

    tx = matrixwise(SlotState, init, lambda g, s, step, p: (g, s))
    with pytest.raises(ValueError, match=r"state.mu is declared as a Slot.* \(1, 4, 6\).*\(1, 4\)"):
        tx.init({"w": MOMENTS["w"]})


class SlotState(NamedTuple):
    mu: Slot


# ---- What is refused ----------------------------------------------------------------------------


def scaled(**settings):
    """A rule without slots."""
    return matrixwise(
        EmptyState, None, lambda g, s, step, p: (2.0 * g, Slots()), name="scaled", **settings
    )


@pytest.mark.parametrize("make", [scaled, by_rows])
def test_integers_are_refused_and_not_rounded(make):
    tx, whole, real = make(), {"w": jnp.ones((2, 3), jnp.int32)}, {"w": jnp.ones((2, 3))}
    for call in (lambda: tx.init(whole), lambda: tx.update(whole, tx.init(real))):
        with pytest.raises(TypeError, match=r"(scaled|by_rows): (params|updates)\['w'\] .*int32"):
            call()
    with pytest.raises(TypeError, match=r"params\['s'\] is the string .*, not an array"):
        tx.init({"s": "a word"})


def test_real_rules_refuse_complex_matrices():
    tx = scaled(real_only=True)
    with pytest.raises(TypeError, match=r"scaled: params\['w'\] is complex64"):
        tx.init({"w": jnp.ones((2, 2), jnp.complex64)})


@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_leaves_that_do_not_fit_are_named(how):
    g = {"a": jnp.ones((2, 3)), "b": jnp.ones((4, 3))}
    tx = by_rows()
    state = tx.init(g)
    wrong = {**g, "b": jnp.ones((5, 3))}
    with pytest.raises(
        ValueError, match=r"by_rows: updates\['b'\].*\(5, 3\).*state.total.*\(1, 5\).*\(1, 4\)"
    ):
        how(tx.update)(wrong, state)
    tx = by_rows(params=True)
    with pytest.raises(
        ValueError, match=r"updates\['b'\] has shape \(5, 3\), but params\['b'\] has shape \(4, 3\)"
    ):
        how(tx.update)(wrong, state, g)
    with pytest.raises(ValueError, match=r"by_rows: needs the parameters"):
        how(tx.update)(g, state)
    with pytest.raises(
        TypeError, match=r"updates\['b'\] is complex64, but params\['b'\] is float32"
    ):
        how(tx.update)({**g, "b": 1j * g["b"]}, state, g)


def test_rules_that_break_the_contract_are_named():
    def both(p):
        return Slots(total=p[:, :, 0], other=p)

    tx = matrixwise(RowsState, both, lambda g, s, step, p: (g, Slots()), name="broken")
    with pytest.raises(
        TypeError, match=r"broken: params\[\'w\'\]: init must return .* got \['other', 'total'\]"
    ):
        tx.init({"w": jnp.ones((2, 2))})
