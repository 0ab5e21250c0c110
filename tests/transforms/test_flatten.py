"""A tree handled as one vector."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees
from test_bad_inputs import refused
from test_conformance import walk
from trees import assert_equal, assert_ulps, avals

import gradtx

PARAMS = trees.small()
GRADIENTS = [trees.like(PARAMS, i) for i in range(3)]


def ravel(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", ["adamw", "adadelta", "rprop", "sgd", "amsgrad"])
def test_an_optimizer_sees_one_vector(name):
    tx = gradtx.catalog.get(name).make()
    updates, state, params = walk(gradtx.flatten(tx), PARAMS, GRADIENTS)
    vector = walk(tx, ravel(PARAMS), [ravel(g) for g in GRADIENTS])
    assert_ulps((ravel(updates), state, ravel(params)), vector, 4, of_largest=True)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)
    assert avals(updates) == avals(PARAMS)


def test_leaves_become_one_block():
    tx = gradtx.flatten(gradtx.clip_by_block_rms(1.0))
    g = GRADIENTS[0]
    updates, _ = tx.update(g, tx.init(PARAMS), PARAMS)
    rms = np.sqrt(np.mean(np.square(ravel(g))))
    assert_ulps(updates, jax.tree.map(lambda x: x * jnp.float32(1 / rms), g), 4)


DTYPES = [
    (["bfloat16"], "bfloat16"),
    (["bfloat16", "float32"], "float32"),
    (["bfloat16", "float16"], "float32"),
    (["float16", "complex64", "float32"], "complex64"),
]
WIDE = [(["float32", "float64"], "float64"), (["float64", "complex64"], "complex128")]


@pytest.mark.parametrize(("dtypes", "wanted"), DTYPES + WIDE, ids=str)
def test_leaves_keep_their_dtypes(dtypes, wanted):
    """optax's updates are float32 for bfloat16 leaves that stand beside float32 ones."""
    seen = []

    def spy(updates, state, params=None):
        seen.append((updates.dtype.name, params.dtype.name))
        return updates, state

    with jax.enable_x64((dtypes, wanted) in WIDE):
        params = {d: trees.numbers((3,), i, d) for i, d in enumerate(dtypes)}
        tx = gradtx.flatten(gradtx.GradientTransformation(gradtx.init_empty_state, spy))
        updates, _ = tx.update(params, tx.init(params), params)
        assert seen == [(wanted, wanted)]
        assert_equal(updates, params)  # to the bit

        # A rule for elements gives what it gives leaf by leaf.
        flat, state, moved = walk(gradtx.flatten(gradtx.adamw(0.1)), params, [params, params])
        plain, _, params_by_leaf = walk(gradtx.adamw(0.1), params, [params, params])
        assert_ulps((flat, moved), (plain, params_by_leaf), 4)
        assert avals(flat) == avals(params)
        assert all(not jnp.issubdtype(x.dtype, jnp.float16) for x in jax.tree.leaves(state))


def test_gradients_of_other_dtypes_than_the_parameters():
    params = {"h": trees.numbers((3,), 1, jnp.bfloat16), "w": trees.numbers((2,), 2)}
    gradients = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    tx = gradtx.flatten(gradtx.adamw(0.1))
    first = tx.init(params)
    updates, state = tx.update(gradients, first, params)
    assert avals(state) == avals(first)
    assert avals(updates) == avals(gradients)


def test_integers():
    mixed = {"a": jnp.ones(2), "n": jnp.array([1, 2])}
    with refused(TypeError, "flatten", "params['n']", "int32", "float32"):
        gradtx.flatten(gradtx.sgd(0.1)).init(mixed)
    with refused(TypeError, "int32"):
        gradtx.flatten(gradtx.adam(0.1)).init({"n": jnp.array([1, 2])})
    g = {"n": jnp.array([1, 2]), "m": jnp.array(3)}
    trees.assert_equal(gradtx.flatten(gradtx.identity()).update(g, gradtx.EmptyState())[0], g)
    frozen = gradtx.selective_transform(
        gradtx.flatten(gradtx.sgd(0.1)), freeze_mask={"a": False, "n": True}
    )
    frozen.update(mixed, frozen.init(mixed), mixed)  # what is masked is not in the vector


def test_trees_that_differ():
    tx = gradtx.flatten(gradtx.sgd(0.1))
    state = tx.init(PARAMS)
    with refused(ValueError, "only updates has updates['a']"):
        tx.update(PARAMS, state, {k: PARAMS[k] for k in "bc"})
    turned = {**PARAMS, "a": PARAMS["a"].T}  # as long as the other
    with refused(ValueError, "flatten", "['a']", "(2, 3)", "(3, 2)"):
        tx.update(PARAMS, state, turned)
    with refused(ValueError, "flatten", "params['b'] has shape (3,)", "updates['b'] has no array"):
        tx.update({**PARAMS, "b": None}, state, PARAMS)


def test_extra_arguments_and_schedules():
    tx = gradtx.flatten(gradtx.sgd(lambda count: 0.5 / (count + 1)))
    state = tx.init(PARAMS)
    _, state = tx.update(PARAMS, state, PARAMS)
    updates, _ = tx.update(PARAMS, state, PARAMS)
    assert_equal(updates, jax.tree.map(lambda x: -0.25 * x, PARAMS))
    updates, _ = tx.update(PARAMS, state, PARAMS, learning_rate=2.0, other=None)
    assert_equal(updates, jax.tree.map(lambda x: -2 * x, PARAMS))


def test_optax_inside_and_outside():
    wanted, _, _ = walk(optax.flatten(optax.adamw(0.1)), PARAMS, GRADIENTS)
    for tx in (
        gradtx.flatten(gradtx.adamw(0.1)),
        gradtx.flatten(optax.adamw(0.1)),
        optax.flatten(gradtx.adamw(0.1)),
        optax.chain(gradtx.flatten(gradtx.adamw(0.1))),
    ):
        updates, _, _ = walk(tx, PARAMS, GRADIENTS)
        # optax's bias corrections have lost some digits in float32
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), updates, wanted
        )
