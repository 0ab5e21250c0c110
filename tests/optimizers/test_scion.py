"""Scion: norms by leaf, sizes, bounds, and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {
    "embed": {"embedding": (10, 4)},
    "mlp": {"kernel": (4, 6), "bias": (6,)},
    "conv": {"kernel": (3, 3, 2, 5)},
    "head": {"kernel": (4, 10)},
}


def tree(seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.standard_normal(shape)),
        PARAMS,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def sizes(updates):
    """Each leaf in its norm, of arXiv:2502.07529, for rows that are inputs."""

    def spectral(g):
        rows, columns = g.shape
        return np.linalg.norm(g, 2) * (rows / columns) ** 0.5

    return {
        "embed": np.max(np.abs(updates["embed"]["embedding"])) * 10,
        "mlp": spectral(updates["mlp"]["kernel"]),
        "bias": np.sqrt(np.mean(updates["mlp"]["bias"] ** 2)),
        "conv": spectral(updates["conv"]["kernel"].reshape(18, 5)),
        "head": np.max(np.abs(updates["head"]["kernel"])) * 4,
    }


def test_each_leaf_has_the_size_of_its_radius(x64):
    params = tree()
    tx = gradtx.scale_by_scion(radius=2.0, sign_radius=7.0, ns_form="svd")
    updates, _ = tx.update(tree(1), tx.init(params), params)
    found = sizes(updates)
    wanted = {"embed": 7.0, "mlp": 2.0, "bias": 2.0, "conv": 2.0, "head": 7.0}
    assert found == pytest.approx(wanted, rel=1e-10)


def test_parameters_stay_within_their_bounds(x64):
    tx = gradtx.scion(0.3, radius=2.0, sign_radius=7.0, ns_form="svd")
    params = jax.tree.map(lambda x: 0.01 * x, tree())
    state = tx.init(params)
    for seed in range(20):
        updates, state = tx.update(tree(seed), state, params)
        params = gradtx.apply_updates(params, updates)
        found = sizes(params)
        assert max(found["embed"], found["head"]) <= 7 and max(found.values()) <= 7
        assert max(found["mlp"], found["conv"], found["bias"]) <= 2
    free = gradtx.scion(0.3, constrained=False)
    updates, _ = free.update(params, free.init(params))  # without parameters


def test_the_spectral_direction_turns_with_the_problem(x64):
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.standard_normal((n, n)))[0] for n in (6, 4))
    a, b = random.standard_normal(6), random.standard_normal(4)
    tx = gradtx.scale_by_scion(norms="spectral")
    g = np.outer(a, b)  # of rank 1
    u = tx.update(g, tx.init(g))[0]
    turned = tx.update(left @ g @ right, tx.init(g))[0]
    np.testing.assert_allclose(turned, left @ u @ right, atol=1e-10)


def test_norms_by_a_function_or_a_tree():
    params = {"w": jnp.eye(2), "b": jnp.array([3.0, -3.0])}
    for norms in ({"w": "outputs", "b": "rms"}, gradtx.by_path({"w": "outputs"}, "rms")):
        tx = gradtx.scale_by_scion(norms=norms)
        updates, _ = tx.update(params, tx.init(params))
        np.testing.assert_allclose(updates["w"], np.eye(2) / 2**0.5, rtol=1e-6)
        np.testing.assert_allclose(updates["b"], [1, -1], rtol=1e-6)


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"params\['b'\] has the label 'max', which is not among"):
        gradtx.scion(0.1, norms="max").init({"b": jnp.ones(2)})
    with pytest.raises(
        ValueError, match=r"scion \(scale_by_scion\): params\['b'\] has shape \(2,\)"
    ):
        gradtx.scion(0.1, norms="spectral").init({"b": jnp.ones(2)})
