"""The contract that pieces and wrappers keep, as optimizers do."""

import functools
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
import trees
from representatives import engines, first_of_each
from test_bad_inputs import refused
from test_conformance import MIXED, WIDE, counted_traces, walk
from trees import Layer, Pair, assert_equal, assert_ulps, avals

import gradtx


def of_vectors(tree):
    """A mask: what has one axis at most."""
    return jax.tree.map(lambda x: jnp.ndim(x) <= 1, tree)


NEAREST = {"mu": "int8_nearest", "nu": "uint8_nearest"}
PIECES = {
    "clip": lambda: gradtx.clip(0.8),
    "clip_by_global_norm": lambda: gradtx.clip_by_global_norm(1.0),
    "clip_by_block_rms": lambda: gradtx.clip_by_block_rms(0.8),
    "adaptive_grad_clip": lambda: gradtx.adaptive_grad_clip(0.1),
    "centralize": lambda: gradtx.centralize(),
    "ema": lambda: gradtx.ema(0.9),
    "zero_nans": lambda: gradtx.zero_nans(),
    "keep_params_nonnegative": lambda: gradtx.keep_params_nonnegative(),
    "set_to_zero": lambda: gradtx.set_to_zero(),
    "freeze": lambda: gradtx.freeze(of_vectors),
    "selective_transform": lambda: gradtx.selective_transform(
        gradtx.adamw(0.1), freeze_mask=of_vectors
    ),
    "flatten": lambda: gradtx.flatten(gradtx.adamw(0.1)),
    "snapshot": lambda: gradtx.snapshot("it", lambda updates: updates),
    "monitor": lambda: gradtx.monitor(
        {
            "norm": gradtx.global_norm,
            "number": lambda updates: 3,
            "average": gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 1, 0.9),
            "sent": gradtx.sgd(0.1, momentum=0.9),
        }
    ),
    "watch": lambda: gradtx.watch(gradtx.adam(0.1)),
    "counted": lambda: gradtx.counted(gradtx.clip_by_global_norm(1.0)),
    "master_weights": lambda: gradtx.master_weights(gradtx.adamw(0.1)),
    "kahan": lambda: gradtx.kahan(gradtx.sgd(0.1)),
    "stochastic_round": lambda: gradtx.stochastic_round(),
    "store": lambda: gradtx.store(gradtx.adamw(0.1), NEAREST, min_size=1),
    "scale_by_tensor_shampoo": lambda: gradtx.scale_by_tensor_shampoo(eps=0.1),
    "grokfast_ema": lambda: gradtx.grokfast_ema(),
    "grokfast_ma": lambda: gradtx.grokfast_ma(window=2),
    "grams": lambda: gradtx.grams(gradtx.adam(0.1)),
    "stable_rms_clip": lambda: gradtx.stable_rms_clip(gradtx.adam(0.1)),
    "spike_aware_clip": lambda: gradtx.spike_aware_clip(2.0, b2=0.5),
    "adaptive_spike_clip": lambda: gradtx.adaptive_spike_clip(0.9),
    "adaptive_gradient_norm": lambda: gradtx.adaptive_gradient_norm(),
    "momentum_reset": lambda: gradtx.momentum_reset(gradtx.scale_by_adam(), every=2, warmup=2),
    "skip_outliers": lambda: gradtx.skip_outliers(gradtx.adam(0.1), window=2),
    "add_independent_decay": lambda: gradtx.add_independent_decay(0.01, of_vectors),
    "add_corrected_decay": lambda: gradtx.add_corrected_decay(0.1, lambda t: 1 / (t + 2), 1.0),
    "add_cautious_decay": lambda: gradtx.add_cautious_decay(0.1),
    "add_decay_to_initial": lambda: gradtx.add_decay_to_initial(0.1),
    "params_ema": lambda: gradtx.params_ema(),
    "params_mean": lambda: gradtx.params_mean(start=1),
    "lawa": lambda: gradtx.lawa(window=2, every=1),
}
MODULES = (
    "adaptive_clipping averaging centering clipping constraining decay_kinds flattening freezing "
    "gradient_norms gradient_signs grokfast low_precision monitoring outliers params_averaging "
    "resetting spikes tensor_shampoo update_clipping watching"
)
OF_STATE = {"store"}  # of gradtx.state
REAL_ONLY = {"clip", "keep_params_nonnegative", "master_weights", "kahan", "stochastic_round"}
NEED_PARAMS = {
    *("adaptive_grad_clip", "keep_params_nonnegative", "selective_transform", "flatten", "store"),
    *("master_weights", "kahan", "stochastic_round"),
    *("momentum_reset", "add_independent_decay", "add_corrected_decay", "add_cautious_decay"),
    *("add_decay_to_initial", "params_ema", "params_mean", "lawa"),
}
each_piece = pytest.mark.parametrize("name", PIECES)


def engines_of(name):
    """The engines that a piece uses."""
    return engines(PIECES[name])


each_engine = pytest.mark.parametrize("name", list(first_of_each(engines_of, PIECES)))


def test_all_are_here():
    modules = [importlib.import_module(f"gradtx.transforms.{name}") for name in MODULES.split()]
    found = {
        name
        for module in modules
        for name, x in vars(module).items()
        if inspect.isfunction(x) and x.__module__ == module.__name__
        if inspect.signature(x).return_annotation is gradtx.GradientTransformation
        if not name.startswith("_")
    }
    # It gives a measurement in the place of updates, and stands in a monitor.
    assert found == set(PIECES) - OF_STATE | {"measure_with_ema"}
    assert all(getattr(gradtx, name) is getattr(gradtx.transforms, name) for name in found)


def magnified(name):
    """How many ulps a piece makes of a rounding, where it must lose more than most."""
    known = references.PIECES.get(name)
    return (known and known.ulps) or 0


def small(name):
    return trees.small(name not in REAL_ONLY)


@pytest.mark.parametrize(
    "pairs",
    [pytest.param(MIXED, id="x32"), pytest.param(WIDE, id="x64", marks=pytest.mark.thorough)],
)
@each_piece
def test_the_state_is_a_fixed_point(name, pairs):
    with jax.enable_x64(pairs is WIDE):
        pairs = pairs + [("complex64", "complex64")] * (name not in REAL_ONLY)
        params = {f"{p}, gradients {g}": trees.numbers((2, 2), 1, p) for p, g in pairs}
        gradients = {f"{p}, gradients {g}": trees.numbers((2, 2), 2, g) for p, g in pairs}
        tx = PIECES[name]()
        first = tx.init(params)
        assert avals(jax.eval_shape(tx.init, params)) == avals(first)
        assert not any(weak for *_, weak in avals(first)[1])
        updates, state = tx.update(gradients, first, params)
        assert avals(state) == avals(first)
        assert avals(updates) == avals(gradients)
        assert avals(jax.eval_shape(tx.update, updates, state, params)) == avals((updates, first))
        assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates))


@pytest.mark.slow
@each_piece
def test_the_state_is_a_fixed_point_around_and_inside_of_adamw(name):
    params = {"a": trees.numbers((2, 2), 1), "h": trees.numbers((2,), 2, jnp.bfloat16)}
    gradients = jax.tree.map(lambda x: x.astype(jnp.float32), trees.like(params, 5))
    for tx in (
        gradtx.chain(PIECES[name](), gradtx.adamw(0.1)),
        gradtx.chain(gradtx.adamw(0.1), PIECES[name]()),
        gradtx.masked(PIECES[name](), {"a": True, "h": False}),
        gradtx.partition({"x": PIECES[name](), "y": gradtx.sgd(0.1)}, {"a": "x", "h": "y"}),
        gradtx.flatten(gradtx.chain(PIECES[name](), gradtx.adamw(0.1))),
        optax.chain(PIECES[name](), gradtx.sgd(0.1)),
    ):
        state = tx.init(params)
        for _ in range(2):
            updates, new = tx.update(gradients, state, params)
            assert avals(new) == avals(state)
            assert avals(updates) == avals(gradients)
            state = new


@each_engine
def test_eager_equals_jitted(name):
    tx, params = PIECES[name](), small(name)
    update = jax.jit(tx.update)
    state = tx.init(params)
    assert_equal(jax.jit(tx.init)(params), state)
    for i in range(3):
        g = trees.like(params, i)
        eager, new_state = tx.update(g, state, params)
        assert_ulps(update(g, state, params), (eager, new_state), 2)
        state, params = new_state, gradtx.apply_updates(params, eager)


@each_engine
def test_scan_with_donated_buffers(name):
    tx, params = PIECES[name](), small(name)
    gradients = [trees.like(params, i) for i in range(3)]
    _, state_by_hand, params_by_hand = walk(tx, params, gradients)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *gradients)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(params, state, gradients):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), gradients)[0]

    params, state = train(params, tx.init(params), stacked)
    assert_ulps(
        (params, state), (params_by_hand, state_by_hand), max(4, magnified(name)), of_largest=True
    )
    # and an eager step's results may be given away too
    updates, state = tx.update(trees.like(params), state, params)
    jax.jit(lambda *x: x, donate_argnums=(0, 1, 2))(updates, state, params)


@each_engine
def test_vmap_over_parameters_and_state(name):
    tx = PIECES[name]()
    rows = [trees.like(small(name), 10 * i) for i in range(3)]
    gradients = [trees.like(row, 10 * i + 5) for i, row in enumerate(rows)]
    one_by_one = [walk(tx, row, [g, g]) for row, g in zip(rows, gradients, strict=True)]

    def stack(many):
        return jax.tree.map(lambda *xs: jnp.stack(xs), *many)

    together = jax.vmap(lambda p, g: walk(tx, p, [g, g]))(stack(rows), stack(gradients))
    assert_ulps(together, stack(one_by_one), max(4, magnified(name)), of_largest=True)


@each_engine
def test_nothing_is_compiled_at_the_second_step(name):
    tx, params = PIECES[name](), small(name)
    g = trees.like(params)

    def step():
        return tx.update(g, tx.init(params), params)

    step()
    with counted_traces() as found:
        step()
    # A user's own measure is an ordinary function, looked at anew each time `init` runs.
    assert found == [] or name in ("monitor", "snapshot")
    update = tx.update
    state = tx.init(params)
    with counted_traces() as found:
        update(g, state, params)
    assert found == []


@each_engine
def test_jitted_steps_are_traced_once(name):
    tx, params, traced = PIECES[name](), small(name), []

    @jax.jit
    def step(g, params, state):
        traced.append(1)
        updates, state = tx.update(g, state, params)
        return gradtx.apply_updates(params, updates), state

    state = tx.init(params)
    for i in range(3):
        params, state = step(trees.like(params, i), params, state)
    assert traced == [1]


@pytest.mark.parametrize("tree", [{}, (), {"a": None}, {"a": jnp.zeros((0, 3))}], ids=str)
@each_engine
def test_trees_with_nothing_in_them(name, tree):
    tx = PIECES[name]()
    updates, state, params = walk(tx, tree, [tree, tree])
    assert_equal((updates, params), (tree, tree))
    assert avals(state) == avals(tx.init(tree))


@each_engine
def test_any_tree(name):
    """Tuples, lists, named tuples, dataclasses, `None`, scalars, arrays without elements."""
    scalar, vector, matrix = trees.numbers((), 5), trees.numbers((3,), 6), trees.numbers((2, 3), 7)
    tree = {
        "empty": jnp.zeros((0, 3)),
        "pair": Pair((scalar, None), [vector, {}]),
        "layers": [Layer(matrix, vector), Layer(matrix, None, label="without bias")],
        "none": None,
    }
    gradients = [trees.like(tree, i) for i in (1, 2)]
    tx = PIECES[name]()
    updates, state, params = walk(tx, tree, gradients)
    assert jax.tree.structure(updates) == jax.tree.structure(params) == jax.tree.structure(tree)
    assert avals(state) == avals(tx.init(tree))
    flat, _, _ = walk(tx, jax.tree.leaves(tree), [jax.tree.leaves(g) for g in gradients])
    assert_ulps(jax.tree.leaves(updates), flat)


@each_piece
def test_zeros_give_zeros_and_slopes_there_are_finite(name):
    params = jax.tree.map(jnp.zeros_like, {**small(name), "h": jnp.zeros((2, 2), jnp.bfloat16)})
    tx = PIECES[name]()
    state = tx.init(params)

    def total(g, params):
        updates, _ = tx.update(g, state, params)
        return sum(jnp.sum(x.real + x.imag) for x in jax.tree.leaves(updates)), updates

    slopes, updates = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(params, params)
    assert_equal(jax.tree.map(jnp.abs, updates), zeros_like(params))
    for path, slope in jax.tree.leaves_with_path(slopes):
        assert bool(jnp.all(jnp.isfinite(slope))), jax.tree_util.keystr(path)


def zeros_like(tree):
    return jax.tree.map(lambda x: jnp.abs(jnp.zeros_like(x)), tree)


@each_piece
def test_no_gradient_is_too_large_or_too_small(name):
    for dtype in ("float32", "bfloat16", "float16"):
        info = jnp.finfo(dtype)
        for size in (info.max / 100, info.tiny, info.smallest_subnormal):
            g = {"w": jnp.asarray([[size, -size], [0, size]], dtype)}
            zero = jax.tree.map(jnp.zeros_like, g)
            updates, state, _ = walk(PIECES[name](), zero, [g, zero])
            for leaf in jax.tree.leaves((updates, state)):
                assert not bool(jnp.any(jnp.isnan(leaf))), (dtype, size)


@each_piece
def test_what_cannot_be_right_is_refused(name):
    tx = PIECES[name]()
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 3))}}
    if name in NEED_PARAMS:
        with refused(ValueError, "update(updates, state, params)"):
            tx.update(params, tx.init(params))
    if name in REAL_ONLY:
        with refused(TypeError, name, "params['z']", "complex64"):
            tx.init({"z": jnp.ones(1, jnp.complex64)})
    tx.update(params, tx.init(params), params, unknown=3)  # extra arguments pass by


@pytest.mark.parametrize("name", ["ema", "adaptive_grad_clip", "clip_by_block_rms", "centralize"])
def test_integers_that_would_be_rounded_are_refused(name):
    with refused(TypeError, name, "params['n']", "int32"):
        PIECES[name]().init({"n": jnp.ones((2, 2), jnp.int32)})


def test_pieces_may_take_arrays_and_tracers():
    g, p = jnp.array([[3.0, 1.0], [4.0, 1.0]]), jnp.ones((2, 2))
    for make in (
        lambda x: gradtx.clip_by_block_rms(x),
        lambda x: gradtx.clip_by_global_norm(x),
        lambda x: gradtx.adaptive_grad_clip(x),
        lambda x: gradtx.adaptive_grad_clip(0.1, eps=x),
        lambda x: gradtx.ema(x),
    ):

        def step(x, make=make):
            tx = make(x)
            return tx.update(g, tx.init(p), p)[0]

        values = jnp.array([0.25, 0.5])
        together = jax.jit(jax.vmap(step))(values)
        for i, x in enumerate((0.25, 0.5)):
            np.testing.assert_allclose(together[i], step(x), rtol=1e-6)
            np.testing.assert_allclose(step(values[i]), step(x), rtol=1e-6)


@pytest.mark.parametrize("state", [None, (), optax.EmptyState()], ids=str)
@pytest.mark.parametrize(
    "tx",
    [
        gradtx.clip(1.0),
        gradtx.clip_by_block_rms(1.0),
        gradtx.clip_by_global_norm(1.0),
        gradtx.normalize_by_update_norm(),
        gradtx.scale(2.0),
        gradtx.set_to_zero(),
    ],
)
def test_what_keeps_nothing_takes_any_state(tx, state):
    """optax's users call such pieces with `None`, in their own tests and in optax's."""
    updates = (jnp.array([3.0, 4.0]), jnp.array([-2.0]))
    expected = tx.update(updates, tx.init(updates))[0]
    for update in (tx.update, jax.jit(tx.update)):
        found, kept = update(updates, state)
        jax.tree.map(np.testing.assert_allclose, found, expected)
        assert kept == state
