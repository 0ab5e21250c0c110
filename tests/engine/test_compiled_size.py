"""A compiled step grows with the number of leaves, and never with its square.

XLA copies the computation of a number that all leaves use into each leaf's kernel, unless it comes
as `tree.scalars.finished` hands it over. What grows with the square of the leaves takes minutes to
compile for a model of a thousand; here it is told by counting instructions, which repeats exactly.
"""

import jax
import jax.numpy as jnp
import pytest
import trees
from representatives import ENTRIES, each, engines_of, first, first_of_each

import gradtx
from gradtx.engine.scalars import finished, total


def loss(params):
    return total([jnp.sum(x * x) for x in jax.tree.leaves(params)])


ADAM, CLIP = gradtx.adam(1e-3), gradtx.clip_by_global_norm(1.0)
PER_EXAMPLE = "dpsgd"
BESIDE_THE_CATALOG = {
    "adaptive_grad_clip": (gradtx.adaptive_grad_clip(0.1), ()),
    "add_noise": (gradtx.add_noise(0.1, 0.5, key=0), ()),
    "apply_every": (gradtx.apply_every(2), ()),
    "apply_if_finite": (gradtx.apply_if_finite(gradtx.chain(CLIP, ADAM), 3), ()),
    "clip_by_block_rms": (gradtx.clip_by_block_rms(1.0), ()),
    "clip_by_global_norm": (CLIP, ()),
    "conditionally_transform": (gradtx.conditionally_transform(CLIP, lambda t: t > 1), ()),
    "counted": (gradtx.counted(CLIP), ()),
    PER_EXAMPLE: (gradtx.dpsgd(0.1, 1.0, 0.1, seed=0), ()),
    "hutchinson": (gradtx.hutchinson_estimator_diag_hessian(0), ("obj_fn",)),
    "mechanize": (gradtx.mechanize(ADAM), ()),
    "MultiSteps": (gradtx.MultiSteps(gradtx.chain(CLIP, ADAM), 2), ()),
    "normalize": (gradtx.normalize(), ()),
    "reduce_on_plateau": (gradtx.chain(ADAM, gradtx.reduce_on_plateau()), ("value",)),
    "sam": (gradtx.sam(ADAM, gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1))), ()),
    "scale_by_backtracking_linesearch": (
        gradtx.scale_by_backtracking_linesearch(9, store_grad=True),
        ("value", "grad", "value_fn"),
    ),
    "schedule": (
        gradtx.chain(CLIP, gradtx.adamw(gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 9, 99))),
        (),
    ),
    "schedule_free": (gradtx.schedule_free(gradtx.sgd(0.1), 0.1), ()),
    "watch": (gradtx.watch(gradtx.chain(CLIP, ADAM)), ()),
}


def instructions(function, *args):
    """How many instructions there are in a compiled program."""
    return jax.jit(function).lower(*args).compile().as_text().count(" = ")


def growth(of_leaves):
    """How many times as much 12 leaves add as 6: 2, or up to 3.2.

    With 8 leaves, XLA compiles the offsets of stacks to other instructions than with 12 and more.
    """
    few, more, many = map(of_leaves, (12, 18, 30))
    return (many - more) / (more - few)


def growth_of_a_step(tx, needs, examples=()):
    def of_leaves(leaves):
        params = [jnp.ones((2, 3))] * leaves
        gradients = [jnp.ones((*examples, 2, 3))] * leaves
        state = jax.eval_shape(tx.init, params)

        def step(params, state, g):
            known = {"value": 1.0, "grad": g, "value_fn": loss, "obj_fn": loss}
            updates, state = tx.update(g, state, params, **{n: known[n] for n in needs})
            return gradtx.apply_updates(params, updates), state

        return instructions(step, params, state, gradients)

    return growth(of_leaves)


@each(first_of_each(engines_of, ENTRIES))
def test_an_optimizer(entry):
    assert growth_of_a_step(entry.make(), entry.needs) < 2.1


@pytest.mark.thorough
@pytest.mark.parametrize("name", BESIDE_THE_CATALOG)
def test_what_is_beside_the_catalog(name):
    examples = (4,) if name == PER_EXAMPLE else ()
    assert growth_of_a_step(*BESIDE_THE_CATALOG[name], examples) < 2.1


REDUCTIONS = {
    "sum": gradtx.tree.sum,
    "in pairs": lambda x: gradtx.tree.sum(x, associative_reduction=True),
    "norm": gradtx.tree.norm,
    "largest": lambda x: gradtx.tree.norm(x, jnp.inf),
    "max": gradtx.tree.max,
    "min": gradtx.tree.min,
    "vdot": lambda x: gradtx.tree.vdot(x, x),
}
CHANGES = {
    "as it is": lambda f: f,
    "vmap": jax.vmap,
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
}


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize(
    "change",
    list(first(pytest.param(change, id=name) for name, change in CHANGES.items())),
)
def test_what_somebody_spreads_over_leaves(reduce, change):
    def spread(x):
        factor = reduce(x)
        factor = jnp.where(factor > 2, 2 / jnp.where(factor > 2, factor, 1), 1)
        return [factor * leaf for leaf in x]

    assert growth(lambda n: instructions(change(spread), [jnp.ones((2, 3))] * n)) < 2.1


PROJECTIONS = {
    "simplex": gradtx.projections.projection_simplex,
    "l1_sphere": gradtx.projections.projection_l1_sphere,
    "l1_ball": gradtx.projections.projection_l1_ball,
    "l2_sphere": gradtx.projections.projection_l2_sphere,
    "l2_ball": gradtx.projections.projection_l2_ball,
    "vector": lambda x: gradtx.projections.projection_vector(x, x),
    "hyperplane": lambda x: gradtx.projections.projection_hyperplane(x, x, 1.0),
    "halfspace": lambda x: gradtx.projections.projection_halfspace(x, x, 1.0),
}


@pytest.mark.thorough
@pytest.mark.parametrize("project", PROJECTIONS.values(), ids=PROJECTIONS)
def test_a_projection(project):
    assert growth(lambda n: instructions(project, [jnp.ones((2, 3))] * n)) < 2.1


# ---- The same numbers ---------------------------------------------------------------------------


def test_a_total_is_the_sum():
    parts = [trees.numbers((3,), i) for i in range(5)]
    trees.assert_ulps(total(parts), sum(parts), 2)
    trees.assert_ulps(jax.jit(total)(parts), sum(parts), 2)
    assert total([]) == 0
    assert total([jnp.int32(2), jnp.int32(3)]).dtype == jnp.int32


@pytest.mark.parametrize(
    "x",
    [jnp.float32(3), jnp.nan, -jnp.inf, 2 + 1j, jnp.int32(7), True, False, jax.random.key(3)],
    ids=str,
)
def test_what_is_finished_is_the_same(x):
    x = jnp.asarray(x)
    trees.assert_equal(jax.jit(finished)(x), x)
    trees.assert_equal(finished(x), x)
    trees.assert_equal(jax.jit(jax.vmap(finished))(jnp.stack([x, x])), jnp.stack([x, x]))


def test_what_is_finished_has_the_slope_of_one():
    assert jax.grad(lambda x: 2 * finished(x))(3.0) == 2
    assert jax.jvp(jax.jit(finished), (3.0,), (2.0,)) == (3, 2)
