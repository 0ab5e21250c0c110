"""Random numbers of leaves that have one shape and are divided in several ways."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec as P
from meshes import collectives_of, in_context, largest_difference, moved, numbers, placed

import gradtx

SPECS = {"a": P("d"), "b": P(None, "t"), "c": P(), "d": P("d", "t"), "e": P("d"), "f": P()}
SHAPES = dict.fromkeys(SPECS, (16, 8))
DRAWN_IN_INIT = {
    "gravity": lambda: gradtx.gravity(0.1),
    "dion": lambda: gradtx.dion(0.1, rank=2),
    "rbg": lambda: gradtx.gravity(0.1, key=jax.random.key(3, impl="rbg")),
}
DRAWN_IN_STEPS = {
    "adahessian": lambda: gradtx.adahessian(0.1),
    "add_noise": lambda: gradtx.add_noise(0.1, 0.5, key=0),
    "hutchinson": lambda: gradtx.hutchinson_estimator_diag_hessian(0),
}
KINDS = pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])


def loss(params):
    return sum(jnp.sum(x**3) for x in jax.tree.leaves(params))


def on_mesh(kind):
    mesh = jax.make_mesh((2, 4), ("d", "t"), axis_types=(kind, kind))
    return mesh, placed(numbers(SHAPES), mesh, SPECS)


@KINDS
@pytest.mark.parametrize("name", DRAWN_IN_INIT)
def test_jitted_init(kind, name):
    tx = DRAWN_IN_INIT[name]()
    wanted = tx.init(jax.tree.map(jnp.asarray, numbers(SHAPES)))
    mesh, params = on_mesh(kind)
    with in_context(mesh):
        found = jax.jit(tx.init)(params)
        if name != "dion" or kind == AxisType.Auto:  # over explicit axes, matrices are exchanged
            assert collectives_of(tx.init, params) == {}
    assert largest_difference([found], [wanted]) <= 1e-12
    for slots in jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, dict)):
        if isinstance(slots, dict) and jax.tree.map(jnp.shape, slots) == SHAPES:
            assert moved(params, slots) == []


@KINDS
@pytest.mark.parametrize("name", DRAWN_IN_STEPS)
def test_steps(kind, name):
    tx = DRAWN_IN_STEPS[name]()

    def step(params, state):
        return tx.update(params, state, params, obj_fn=loss)

    one = jax.tree.map(jnp.asarray, numbers(SHAPES))
    wanted, _ = step(one, tx.init(one))
    mesh, params = on_mesh(kind)
    with in_context(mesh):
        state = tx.init(params)
        found, _ = jax.jit(step)(params, state)
        assert collectives_of(step, params, state) == {}
    assert largest_difference([found], [wanted]) <= 1e-12
    assert moved(params, found) == []
