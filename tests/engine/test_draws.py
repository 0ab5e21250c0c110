"""Random arrays for many leaves are those of separate draws, and few draws are compiled."""

import jax
import jax.numpy as jnp
import pytest
from trees import assert_equal, avals

import gradtx
from gradtx import draw, tree
from gradtx.engine.draws import drawn, type_of
from gradtx.perturbations import make_perturbed_fun

SHAPES = [(3,), (2, 3), (3,), (), (2, 3), (3,)]


def compiled_draws(function, *args):
    """How many draws there are in a compiled program; on CPUs each has a loop of its own."""
    text = jax.jit(function).lower(*args).compile().as_text()
    return sum("while(" in line and "u32[" in line for line in text.splitlines())


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_the_numbers_are_those_of_separate_draws(impl, dtype):
    keys = jax.random.split(jax.random.key(3, impl=impl), len(SHAPES))
    kinds = [type_of(jnp.zeros(shape, dtype)) for shape in SHAPES]

    def one(key, kind):
        return jax.random.normal(key, kind.shape, kind.dtype)

    wanted = [one(key, kind) for key, kind in zip(keys, kinds, strict=True)]
    found = jax.jit(lambda keys: drawn(one, keys, kinds))(keys)
    assert avals(found) == avals(wanted)
    jax.tree.map(lambda x, y: assert_close(x, y), found, wanted)
    assert_equal(drawn(one, keys, kinds), wanted)


def assert_close(x, y):
    assert jnp.allclose(x, y, rtol=1e-6, atol=0)  # erf_inv is rounded by the compiler


@pytest.mark.parametrize("sampler", [jax.random.rademacher, jax.random.bits, jax.random.bernoulli])
def test_bits_are_the_same_to_the_last(sampler):
    def one(key, shape, dtype):
        return sampler(key, shape=shape)

    params, key = [jnp.zeros(shape) for shape in SHAPES], jax.random.key(0)
    found = jax.jit(lambda key: tree.random_like(key, params, one))(key)
    assert_equal(found, tree.random_like(key, params, one))


def test_no_leaves():
    assert jax.jit(lambda key: tree.random_like(key, {"a": None}))(jax.random.key(0)) == {"a": None}
    assert drawn(jax.random.normal, jax.random.split(jax.random.key(0), 0), []) == []


def test_under_vmap_and_in_a_derivative():
    keys, params = jax.random.split(jax.random.key(0), 4), {"a": jnp.ones(3), "b": jnp.ones(3)}
    many = jax.vmap(lambda key: tree.random_like(key, params))(keys)
    jax.tree.map(
        lambda x, y: assert_close(x[2], y), many, jax.jit(tree.random_like)(keys[2], params)
    )

    def total(scale):
        def scaled(key, shape, dtype):
            return scale * jax.random.normal(key, shape, dtype)

        return gradtx.tree.sum(tree.random_like(keys[0], params, scaled))

    assert_close(jax.jit(jax.grad(total))(2.0), total(1.0))


def step_of(tx, examples=()):
    def step(params):
        g = [jnp.ones((*examples, *x.shape)) for x in params]
        return tx.update(g, tx.init(params), params, obj_fn=gradtx.tree.norm)[0]

    return step


USES = {
    "random_like": lambda params: tree.random_like(jax.random.key(0), params),
    "hutchinson": step_of(gradtx.hutchinson_estimator_diag_hessian(0)),
    "adahessian": step_of(gradtx.adahessian(0.1)),
    "dpsgd": step_of(gradtx.dpsgd(0.1, 1.0, 1.0, 0), (4,)),
    "make_perturbed_fun": lambda params: make_perturbed_fun(gradtx.tree.sum, 4)(
        jax.random.key(0), params
    ),
    "random_direction": lambda params: draw.random_direction(jax.random.key(0), params),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_number_of_compiled_draws_does_not_grow_with_the_leaves(use):
    few, many = ([jnp.ones((2, 3))] * 3, [jnp.ones((2, 3))] * 30)
    assert compiled_draws(use, many) == compiled_draws(use, few) > 0
