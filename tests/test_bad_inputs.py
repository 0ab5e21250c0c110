"""What can't be right is refused, with the optimizer, the leaf's path and both sides named."""

import re

import jax
import jax.numpy as jnp
import pytest
from representatives import each_build, each_engine
from trees import extras

import gradtx

PARAMS = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 3))}}


def more(entry):
    """Extra arguments with which nothing is wrong."""
    return extras(entry, PARAMS, PARAMS)


def has_slots(entry):
    """Whether the state holds anything of the shape of a leaf."""
    return any(x.ndim for x in jax.tree.leaves(entry.make().init(PARAMS)))


def known_shape(entry):
    """The shape of the leaf, where a slot shows it; the sums of rows and of columns do not.

    The slots are those of the first link of a chain that has any.
    """
    state = entry.make().init(PARAMS)
    parts = state if type(state) is tuple else (state,)
    shapes = [[x.shape for x in jax.tree.leaves(part) if x.ndim] for part in parts]
    first = next(filter(None, shapes), [])
    return ["2, 3)"] if any({2, 3} <= set(shape) for shape in first) else []


def refused(error, *parts):
    """Expects an error that says all of these."""
    return pytest.raises(error, match="".join(rf"(?=[\s\S]*{re.escape(part)})" for part in parts))


@each_build
def test_integer_parameters(entry):
    for dtype in (jnp.int32, jnp.uint8, jnp.bool_):
        params = {"a": jnp.ones(2), "b": {"c": jnp.ones(2, dtype)}}
        with refused(TypeError, entry.name, "params['b']['c']", jnp.dtype(dtype).name):
            entry.make().init(params)
        with refused(TypeError, entry.name, "params['b']['c']", jnp.dtype(dtype).name):
            jax.eval_shape(entry.make().init, params)


@each_build
def test_leaves_that_are_no_arrays(entry):
    for leaf, told in (("text", "'text'"), (object(), "an object"), (jnp.sin, "function sin")):
        with refused(TypeError, entry.name, "params['b']['c']", told, "not an array"):
            entry.make().init({"a": jnp.ones(2), "b": {"c": leaf}})


@each_engine
def test_integer_gradients(entry):
    state = entry.make().init(PARAMS)
    gradients = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 3), jnp.int32)}}
    with refused(TypeError, entry.name, "updates['b']['c']", "int32"):
        entry.make().update(gradients, state, PARAMS, **more(entry))


@each_build
def test_complex_gradients_of_real_parameters(entry):
    state = entry.make().init(PARAMS)
    gradients = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 3), jnp.complex64)}}
    try:
        updates, _ = entry.make().update(gradients, state, PARAMS, **more(entry))
    except TypeError as error:
        told = str(error)
        other_side = "must be real" if "must be real" in told else "float32"
        expected = (entry.name, "updates['b']['c']", "complex64", other_side)
    else:
        # Nothing in the state of these says that the parameters are real; adding them up does.
        with pytest.raises(TypeError) as caught:
            gradtx.apply_updates(PARAMS, updates)
        told = str(caught.value)
        expected = ("apply_updates", "params['b']['c']", "complex64", "float32")
    assert all(part in told for part in expected), told


@each_build
def test_complex_parameters_where_they_are_refused(entry):
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(2, jnp.complex64)}}
    if entry.takes_complex:
        entry.make().init(params)
        return
    with refused(TypeError, entry.name, "params['b']['c']", "complex64"):
        entry.make().init(params)


@pytest.mark.parametrize(
    "tx", [gradtx.clip(1.0), gradtx.keep_params_nonnegative()], ids=["clip", "nonnegative"]
)
def test_complex_updates_where_they_are_refused(tx):
    """Also where `init` has not seen the parameters."""
    updates = {"a": jnp.ones(2, jnp.complex64)}
    name = "clip" if tx == gradtx.clip(1.0) else "keep_params_nonnegative"
    for made in (tx, gradtx.chain(gradtx.scale(1.0), tx)):
        for update in (made.update, jax.jit(made.update)):
            with refused(TypeError, f"{name}: updates['a'] is complex64, but must be real"):
                update(updates, made.init(None), updates)


def _scale_real(updates):
    """A rule of one's own that is for real numbers only."""
    tx = gradtx.leafwise(
        gradtx.EmptyState, None, lambda g, s, t, p: (g, s), real_only=True, name="real"
    )
    return tx.update(updates, tx.init(None))


def test_complex_updates_of_a_rule_of_ones_own():
    _scale_real(jnp.ones(2))
    with refused(TypeError, "real: updates is complex64, but must be real"):
        _scale_real(jnp.ones(2, jnp.complex64))


@each_build
def test_parameters_and_state_in_each_others_place(entry):
    tx = entry.make()
    state = tx.init(PARAMS)
    with refused(TypeError, entry.name, "a dict", "update(updates, state, params)"):
        tx.update(PARAMS, PARAMS, state, **more(entry))
    with refused(TypeError, entry.name, "a dict", "update(updates, state, params)"):
        tx.update(state, PARAMS, PARAMS, **more(entry))
    with refused(TypeError, entry.name, "the state is None"):
        tx.update(PARAMS, None, PARAMS, **more(entry))


@each_build
def test_the_state_of_another_optimizer(entry):
    tx = entry.make()
    other = gradtx.chain(*[gradtx.scale(1.0)] * 6).init(PARAMS)
    with refused(TypeError, entry.name, "a tuple of EmptyState, EmptyState, EmptyState, E"):
        tx.update(PARAMS, other, PARAMS, **more(entry))
    inner = gradtx.masked(tx, True).init(PARAMS)
    with refused(TypeError, entry.name, "a MaskedState"):
        tx.update(PARAMS, inner, PARAMS, **more(entry))


@each_engine
def test_trees_that_differ(entry):
    tx = entry.make()
    state = tx.init(PARAMS)
    less, longer = {"a": PARAMS["a"]}, {**PARAMS, "d": jnp.ones(1)}
    other = {"a": PARAMS["a"], "b": [PARAMS["b"]["c"]]}
    # the gradients' tree is not the state's
    if has_slots(entry):
        with refused(ValueError, entry.name, "state.", "['b']['c']"):
            tx.update(less, state, less, **more(entry))
        with refused(ValueError, entry.name, "updates['d']"):
            tx.update(longer, state, longer, **more(entry))
        with refused(ValueError, entry.name, "updates['b'][0]", "['b']['c']"):
            tx.update(other, state, other, **more(entry))
    # the parameters' tree is not the gradients'
    if entry.needs_params:
        with refused(ValueError, entry.name, "only updates has updates['b']['c']"):
            tx.update(PARAMS, state, less, **more(entry))
        with refused(ValueError, entry.name, "only params has params['d']"):
            tx.update(PARAMS, state, longer, **more(entry))


@each_engine
def test_a_none_where_an_array_is_in_the_other_tree(entry):
    tx = entry.make()
    state = tx.init(PARAMS)
    # A gradient that is missing leaves its parameter and its slots alone.
    holed = {"a": PARAMS["a"], "b": {"c": None}}
    updates, new_state = tx.update(holed, state, PARAMS, **more(entry))
    assert updates["b"]["c"] is None
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    # A gradient for what has no slots is a mistake.
    if has_slots(entry):
        with refused(ValueError, entry.name, "updates['b']['c']", "no array"):
            tx.update(PARAMS, tx.init(holed), PARAMS, **more(entry))


@each_engine
def test_shapes_that_differ(entry):
    tx = entry.make()
    state = tx.init(PARAMS)
    wrong = {"a": jnp.ones(2), "b": {"c": jnp.ones((3, 2))}}
    broadcastable = {"a": jnp.ones(2), "b": {"c": jnp.ones((1, 3))}}
    if has_slots(entry):
        with refused(ValueError, entry.name, "updates['b']['c']", "(3, 2)", *known_shape(entry)):
            tx.update(wrong, state, wrong, **more(entry))
        with refused(ValueError, entry.name, "updates['b']['c']", "(1, 3)", *known_shape(entry)):
            tx.update(broadcastable, state, broadcastable, **more(entry))
    if entry.needs_params:
        with refused(ValueError, entry.name, "['b']['c']", "(2, 3)", "(3, 2)"):
            tx.update(PARAMS, state, wrong, **more(entry))


@each_engine
def test_errors_under_jit_say_the_same(entry):
    tx = entry.make()
    state = tx.init(PARAMS)
    wrong = {"a": jnp.ones(2), "b": {"c": jnp.ones((3, 2))}}
    if has_slots(entry):
        with refused(ValueError, entry.name, "updates['b']['c']", "(3, 2)", *known_shape(entry)):
            jax.jit(lambda g, s: tx.update(g, s, g, **more(entry)))(wrong, state)
    integers = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 3), int)}}
    with refused(TypeError, entry.name, "updates['b']['c']", "int32"):
        jax.jit(lambda g, s: tx.update(g, s, PARAMS, **more(entry)))(integers, state)


@each_build
def test_missing_parameters(entry):
    tx = entry.make()
    state = tx.init(PARAMS)
    if entry.needs_params:
        with refused(ValueError, entry.name, "update(updates, state, params)"):
            tx.update(PARAMS, state, **more(entry))
    else:
        tx.update(PARAMS, state, **more(entry))


@each_build
def test_missing_extra_arguments(entry):
    tx = entry.make()
    for name in entry.needs:
        given = {n: x for n, x in more(entry).items() if n != name}
        with refused(TypeError, entry.name, f"{name}=..."):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS, **given)
    if not entry.needs:
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@each_build
def test_masks_that_do_not_fit(entry):
    for name in {"mask", "weight_decay_mask"} & set(entry.hyperparameters):
        decay = {"weight_decay": 0.1} if "weight_decay" in entry.hyperparameters else {}
        short = entry.make(**{name: {"a": True}, **decay})
        with refused(ValueError, entry.name, "mask", "params['b']['c']"):
            short.init(PARAMS)
        extra = entry.make(**{name: {"a": True, "b": {"c": True}, "d": False}, **decay})
        with refused(ValueError, entry.name, "only the mask has", "['d']"):
            extra.init(PARAMS)
    masked = gradtx.masked(entry.make(), {"a": True})
    with refused(ValueError, entry.name, "mask", "params['b']['c']"):
        masked.init(PARAMS)


def test_masks_around_what_couples_leaves():
    tx = gradtx.masked(gradtx.clip_by_global_norm(1.0), {"a": True})
    with refused(ValueError, "mask", "params['b']['c']"):
        tx.init(PARAMS)


def test_masks_of_something_else_than_booleans():
    for wrong in ("no", 2, 0.5, None):
        with refused((TypeError, ValueError), "mask", "['a']", repr(wrong)):
            gradtx.masked(gradtx.scale(1.0), {"a": wrong, "b": True}).init(PARAMS)


def test_unknown_labels():
    tx = gradtx.partition({"x": gradtx.sgd(0.1)}, {"a": "x", "b": {"c": "y"}})
    with refused(ValueError, "partition", "['b']['c']", "'y'", "['x']"):
        tx.init(PARAMS)
    nothing = gradtx.partition({"x": gradtx.sgd(0.1)}, {"a": "x", "b": {"c": None}})
    with refused(ValueError, "['b']['c']", "None"):
        nothing.init(PARAMS)
    prefix = gradtx.partition({"x": gradtx.sgd(0.1)}, {"a": "x", "b": "y"})
    with refused(ValueError, "partition", "['b']", "'y'", "['x']"):
        prefix.init(PARAMS)


def test_labels_that_are_missing():
    tx = gradtx.partition({"x": gradtx.sgd(0.1)}, {"a": "x"})
    with refused(ValueError, "params['b']['c']"):
        tx.init(PARAMS)


def test_chains_of_something_else():
    with refused(TypeError, "chain: argument 1", "0.5"):
        gradtx.chain(gradtx.scale(1.0), 0.5)
    with refused(TypeError, "chain: argument 0"):
        gradtx.chain([gradtx.scale(1.0)])
    with refused(TypeError, "named_chain", "'it'"):
        gradtx.named_chain(("it", 0.5))
    with refused(ValueError, "named_chain", "'twice'"):
        gradtx.named_chain(("twice", gradtx.scale(1.0)), ("twice", gradtx.scale(2.0)))
    with refused(TypeError, "named_chain"):
        gradtx.named_chain(gradtx.scale(1.0))


def test_reduce_on_plateau_refuses_what_it_cannot_mean():
    for wrong in (
        {"factor": 0.0},
        {"factor": 1.0},
        {"patience": 0},
        {"rtol": -1.0},
        {"atol": -1.0},
        {"cooldown": -1},
        {"accumulation_size": 0},
    ):
        ((name, value),) = wrong.items()
        with refused(ValueError, "reduce_on_plateau", name, repr(value)):
            gradtx.reduce_on_plateau(**wrong)
    tx = gradtx.reduce_on_plateau()
    with refused(ValueError, "reduce_on_plateau", "value"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_names_that_are_not_in_the_catalog():
    with refused(gradtx.catalog.UnknownOptimizer, "'adamm'", "'adam'"):
        gradtx.catalog.get("adamm")
    with pytest.raises(ValueError, match="'adam' is already registered by"):
        gradtx.catalog.optimizer("nowhere", family="Adam", probe={})(gradtx.adam)
    with refused(ValueError, "family of nothing", "'adam'", "'Adam'"):

        @gradtx.catalog.optimizer("nowhere", family="adam", probe={})
        def nothing():
            return gradtx.identity()


def test_storing_slots_that_are_not_there():
    with refused(ValueError, "store_as", "momentum", "trace"):
        gradtx.store_as(gradtx.trace(0.9), momentum=jnp.bfloat16)
    with refused(TypeError, "store_as", "leafwise"):
        gradtx.store_as(gradtx.clip_by_global_norm(1.0), mu=jnp.bfloat16)
    tx = gradtx.store_as(gradtx.trace(0.9), trace=jnp.float32)
    z = {"z": jnp.ones(2, jnp.complex64)}
    with refused(TypeError, "trace", "updates['z']", "complex64", "float32"):
        tx.update(z, tx.init(z))
