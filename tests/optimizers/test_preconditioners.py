"""SOAP, Shampoo and their relatives: rotations, null spaces, bad gradients, staggered bases."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

# What has two bases and does not depend on the axes of either.
ROTATING = {
    "soap": gradtx.scale_by_soap(precondition_frequency=3),
    "soap, eigh": gradtx.scale_by_soap(precondition_frequency=3, eigenbasis="eigh"),
    "soap, first step skipped": gradtx.scale_by_soap(precondition_frequency=3, skip_first=True),
    "shampoo": gradtx.scale_by_shampoo(precondition_frequency=3),
    "shampoo, sums": gradtx.scale_by_shampoo(precondition_frequency=3, accumulation="sum"),
    "kl_shampoo": gradtx.scale_by_kl_shampoo(precondition_frequency=3),
    "kl_soap": gradtx.scale_by_kl_soap(precondition_frequency=3),
    "splus": gradtx.scale_by_splus(precondition_frequency=3),
}


def normals(seed, *shape, dtype=np.float64):
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape)
    return (x + 1j * random.standard_normal(shape) if dtype is complex else x).astype(dtype)


def orthogonal(seed, n, dtype=np.float64):
    return np.linalg.qr(normals(seed, n, n, dtype=dtype))[0]


def steps(tx, gradients, update=None):
    """All updates of one matrix, and the last state."""
    state, found = tx.init(jnp.zeros_like(gradients[0])), []
    for g in gradients:
        u, state = (update or jax.jit(tx.update))(jnp.asarray(g), state)
        found.append(np.asarray(u))
    return found, state


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, complex], ids=["real", "complex"])
@pytest.mark.parametrize("name", ROTATING)
def test_a_rotated_problem_has_rotated_updates(name, shape, dtype, x64):
    """Also while statistics have null spaces, whose bases are arbitrary."""
    tx = ROTATING[name]
    rows, columns = (orthogonal(i, n, dtype) for i, n in enumerate(shape))
    gradients = [normals(10 + i, *shape, dtype=dtype) for i in range(8)]
    for i in range(3):  # of rank 1, so that the second bases have null spaces as well
        gradients[i] = gradients[i][:, :1] @ gradients[i][:1]
    plain, _ = steps(tx, gradients)
    rotated, _ = steps(tx, [rows @ g @ columns for g in gradients])
    for u, v in zip(plain, rotated, strict=True):
        np.testing.assert_allclose(v, rows @ u @ columns, atol=1e-8)


def test_two_steps_by_hand():
    """Of a diagonal matrix, whose bases are the axes, longest first."""
    tx = gradtx.scale_by_soap(0.5, 0.5, eps=0.0)
    found, state = steps(tx, [jnp.diag(jnp.array([1.0, 3.0]))] * 2)
    # All squares are replaced by their mean, 10/4.
    np.testing.assert_allclose(found[0], np.diag([1, 3]) / np.sqrt(2.5), rtol=1e-6, atol=1e-7)
    # nu: 1/2 * 10/8 + 1/2 * (1, 9), over 3/4
    wanted = np.diag([1 / np.sqrt(9 / 6), 3 / np.sqrt(41 / 6)])
    np.testing.assert_allclose(found[1], wanted, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.abs(state.left_basis[0]), [[0, 1], [1, 0]], atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_gradient_does_not_reach_the_preconditioner(bad):
    """It is one of zeros for its matrix, whatever it is for the others; and it is counted."""
    tx = gradtx.scale_by_soap(precondition_frequency=1)
    params = {"a": jnp.zeros((3, 2)), "b": jnp.zeros((3, 2))}
    good = {n: jnp.asarray(normals(i, 3, 2), jnp.float32) for i, n in enumerate(params)}
    zero = {**good, "a": jnp.zeros((3, 2))}
    worse = {**good, "a": good["a"].at[1, 1].set(bad)}
    _, state = tx.update(good, tx.init(params))
    wanted, wanted_state = tx.update(zero, state)
    found, new = tx.update(worse, state)
    for x, y in zip(jax.tree.leaves(new), jax.tree.leaves(wanted_state), strict=True):
        if x.dtype == jnp.float32:
            np.testing.assert_allclose(x, y, atol=1e-6)
    assert int(gradtx.metrics(new)["rejected"]) == 1
    seen = ~np.isfinite(worse["a"])
    np.testing.assert_array_equal(np.asarray(found["a"])[seen], np.asarray(worse["a"])[seen])
    np.testing.assert_allclose(np.asarray(found["a"])[~seen], np.asarray(wanted["a"])[~seen])
    np.testing.assert_allclose(found["b"], wanted["b"], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_a_bad_gradient_does_not_reach_the_grafted_method(bad):
    tx = gradtx.shampoo(0.1)
    good = jnp.asarray(normals(0, 3, 2), jnp.float32)
    update, state = jax.jit(tx.update), tx.init(good)
    for g in (good, good.at[1, 1].set(bad), good):
        u, state = update(g, state, good)
    assert jnp.all(jnp.isfinite(u))
    assert jnp.all(u != 0)


def test_staggered_bases_are_as_old_as_allowed():
    """After the first step, each of the seven matrices has its turn once in three steps."""
    params = jnp.zeros((7, 4, 3))
    axes = gradtx.MatrixAxes(1, 2)
    tx = gradtx.scale_by_soap(precondition_frequency=3, stagger=True, weight_dimension_numbers=axes)
    state, update, turns = tx.init(params), jax.jit(tx.update), []
    for i in range(7):
        last = state.left_basis
        _, state = update(jnp.asarray(normals(i, 7, 4, 3), jnp.float32), state)
        turns.append(np.flatnonzero(np.any(np.asarray(last != state.left_basis), (1, 2))))
    assert [len(x) for x in turns] == [7, 3, 3, 3, 3, 3, 3]
    for i in range(1, 5):
        assert set(np.concatenate(turns[i : i + 3])) == set(range(7))


def test_bases_are_computed_for_shapes_not_for_leaves():
    def calls(layers):
        params = {f"{i}": jnp.zeros((4, 3)) for i in range(layers)}
        params |= {f"wide {i}": jnp.zeros((3, 4)) for i in range(layers)}
        tx = gradtx.soap(0.1)
        text = jax.jit(tx.update).lower(params, tx.init(params), params).compile().as_text()
        return text.count("custom_call_target")

    assert calls(1) == calls(5) > 0


def test_the_authors_first_step_moves_nothing():
    tx = gradtx.soap(0.1, weight_decay=0.5, skip_first=True)
    params = {"w": jnp.ones((3, 2))}
    g = {"w": jnp.asarray(normals(0, 3, 2), jnp.float32)}
    updates, state = tx.update(g, tx.init(params), params)
    assert not np.any(updates["w"])
    updates, _ = tx.update(g, state, params)
    assert np.all(updates["w"])


def test_sides_without_a_basis():
    """Neither has one: Adam. One has: its own second moment is all there is."""
    shape = (3, 2)
    gradients = [jnp.asarray(normals(i, *shape), jnp.float32) for i in range(5)]
    adam, _ = steps(gradtx.scale_by_adam(0.95, 0.95), gradients)
    none, state = steps(gradtx.scale_by_soap(max_dim=1), gradients)
    np.testing.assert_allclose(none, adam, rtol=1e-5)
    assert state.left.shape == state.right_basis.shape == (1, 0, 0)
    _, state = steps(gradtx.scale_by_soap(max_dim=2), gradients)
    assert {state.left.shape, state.right.shape} == {(1, 0, 0), (1, 2, 2)}


def test_an_unknown_method_of_grafting_is_refused():
    with pytest.raises(ValueError, match=r"shampoo: grafting must be one of 'adam',.* got 'lion'"):
        gradtx.shampoo(0.1, grafting="lion")


ON_MATRICES = [
    entry
    for entry in gradtx.catalog.entries()
    if "weight_dimension_numbers" in inspect.signature(entry.factory).parameters
]


@pytest.mark.parametrize("entry", ON_MATRICES, ids=lambda entry: entry.name)
def test_a_function_of_the_parameters_may_give_the_axes(entry):
    """It sees all leaves, also those that another optimizer updates."""

    def axes(params):
        return {k: gradtx.MatrixAxes(0, 1) if x.ndim == 2 else None for k, x in params.items()}

    params = {"w": jnp.asarray(normals(0, 4, 3), jnp.float32), "b": jnp.ones(3)}
    found = []
    for given in (axes, axes(params)):
        tx = entry.factory(**{**entry.probe, "weight_dimension_numbers": given})
        found.append(jax.eval_shape(lambda p, tx=tx: tx.update(p, tx.init(p), p), params))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "entry", [e for e in ON_MATRICES if "key" not in e.hyperparameters], ids=lambda e: e.name
)
def test_layers_in_one_leaf_are_updated_as_leaves_of_their_own(entry, x64):
    """One of them has gradients of zero, and one has a gradient that is not finite.

    Methods with random keys have other keys for the matrices of one leaf than for several leaves.
    """
    rows, columns, steps = 5, 3, 3
    gradients = normals(0, steps, 4, rows, columns) * np.array([1, 10, 0, 0.1])[:, None, None]
    gradients[1, 3, 0, 0] = np.nan
    params = normals(1, 4, rows, columns)
    found = []
    for axes, of in ((gradtx.MatrixAxes(1, 2), jnp.asarray), (gradtx.MatrixAxes(), list)):
        tx = entry.factory(**{**entry.probe, "weight_dimension_numbers": axes})
        state, updates = tx.init(of(params)), []
        step = jax.jit(tx.update)
        for g in gradients:
            u, state = step(of(g), state, of(params))
            updates.append(jnp.stack(list(u)))
        found.append(np.stack(updates))
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)
    assert np.isfinite(found[0][:, :3]).all() and np.abs(found[0][:, :2]).min() > 0


@pytest.mark.parametrize("dtype", [np.float64, complex], ids=["real", "complex"])
def test_a_matrix_is_a_tensor_of_two_axes(dtype, x64):
    settings = {"precondition_frequency": 2, "eps": 0.1}
    steps = []
    for tx in (gradtx.scale_by_shampoo(**settings), gradtx.scale_by_tensor_shampoo(**settings)):
        state = tx.init(jnp.zeros((5, 3), dtype))
        for seed in range(3):
            u, state = tx.update(jnp.asarray(normals(seed, 5, 3, dtype=dtype)), state)
            steps.append(u)
    np.testing.assert_allclose(steps[:3], steps[3:], rtol=1e-10)


def test_a_rotated_tensor_has_rotated_updates(x64):
    """Each axis has a root of its own, so that rotations along all axes pass through."""
    q = [np.linalg.qr(normals(i, n, n))[0] for i, n in enumerate((4, 2, 3))]
    tx = gradtx.scale_by_tensor_shampoo()
    states, updates = [tx.init(jnp.zeros((4, 2, 3)))] * 2, [None, None]
    for seed in range(3):
        g = normals(seed, 4, 2, 3)
        for k, x in enumerate((g, np.einsum("ia,jb,kc,abc->ijk", *q, g))):
            updates[k], states[k] = tx.update(jnp.asarray(x), states[k])
    np.testing.assert_allclose(
        np.einsum("ia,jb,kc,abc->ijk", *q, updates[0]), updates[1], rtol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_gradient_does_not_reach_the_moments_of_tensors(bad):
    tx = gradtx.scale_by_tensor_shampoo(precondition_frequency=1)
    p = jnp.zeros((2, 3, 2))
    good = jnp.asarray(normals(0, 2, 3, 2), jnp.float32)
    updates, state = tx.update(good.at[0, 0, 0].set(bad), tx.init(p))
    wanted = 0.0 if np.isfinite(bad) else bad
    np.testing.assert_array_equal(updates[0, 0, 0], wanted)
    assert int(gradtx.metrics(state)["rejected"]) == 1
    updates, _ = tx.update(good, state)
    assert np.isfinite(updates).all() and np.abs(updates).max() > 0
