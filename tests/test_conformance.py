"""The contract that every optimizer of the catalog keeps. Nothing is left out by name."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
import trees
from representatives import (
    ENTRIES,
    build,
    each,
    each_build,
    each_engine,
    each_entry,
    engines_of,
    first_of_each,
)
from trees import Layer, Pair, assert_equal, assert_ulps, avals, extras, needed

import gradtx

# CI compiles these cases as users do. Then NovoGrad's first moment, where its terms cancel, has 11
# ulps of difference between constants and arguments, of which one ulp is a term's.
each_engine_here = each(first_of_each(engines_of, first_of_each(build, ENTRIES, pytest.mark.slow)))


def magnified(entry):
    """How many ulps a method makes of a rounding, where it must lose more than most."""
    return references.OPTIMIZERS[entry.name].ulps or 0


def walk(tx, params, gradients, entry=None, extra=extras):
    """Takes a step for each gradient; gives the last updates, the state and the parameters."""
    state, updates = tx.init(params), None
    for g in gradients:
        more = extra(entry, g, params) if entry else {}
        updates, state = tx.update(g, state, params, **more)
        params = gradtx.apply_updates(params, updates)
    return updates, state, params


def step_of(entry, tx):
    """The optimizer's `update` with the extra arguments that it cannot do without."""
    return lambda g, state, params, **more: tx.update(
        g, state, params, **extras(entry, g, params), **more
    )


def with_zero_eps(entry):
    """The optimizer, and itself without an eps to lean on where it has one."""
    yield entry.make()
    found = [name for name in ("eps", "initial_accumulator_value") if name in entry.hyperparameters]
    if found:
        yield entry.make(**dict.fromkeys(found, 0.0))


# ---- The state ------------------------------------------------------------------------------

NARROW = ("float32", "bfloat16", "float16")
MIXED = [(d, d) for d in NARROW] + [
    ("bfloat16", "float32"),
    ("float32", "bfloat16"),
    ("float16", "float32"),
]
WIDE = [*MIXED, ("float64", "float64"), ("float64", "float32"), ("float32", "float64")]


@pytest.mark.parametrize(
    "pairs",
    [pytest.param(MIXED, id="x32"), pytest.param(WIDE, id="x64", marks=pytest.mark.slow)],
)
@each_engine
def test_the_state_is_a_fixed_point(entry, pairs):
    """Structure, shapes, dtypes and weak types stay, whatever dtypes meet."""
    with jax.enable_x64(pairs is WIDE):
        pairs = pairs + [("complex64", "complex64")] * entry.takes_complex
        params = {f"{p}, gradients {g}": trees.numbers((2,), 1, p) for p, g in pairs}
        gradients = {f"{p}, gradients {g}": trees.numbers((2,), 2, g) for p, g in pairs}
        tx = entry.make()
        first = tx.init(params)
        assert avals(jax.eval_shape(tx.init, params)) == avals(first)
        assert not any(weak for *_, weak in avals(first)[1])
        updates, state = step_of(entry, tx)(gradients, first, params)
        assert avals(state) == avals(first)
        assert avals(updates) == avals(gradients)
        again = jax.eval_shape(step_of(entry, tx), updates, state, params)
        assert avals(again) == avals((updates, first))
        assert avals(gradtx.apply_updates(params, updates)) == avals(params)
        assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates))


@each_build
def test_init_of_shapes_returns_the_shapes_of_the_state(entry):
    """Also where the state has the parameters' values, of which there are none yet."""
    params = trees.small()
    shapes = jax.eval_shape(lambda: params)
    for tx in (
        entry.make(),
        gradtx.MultiSteps(entry.make(), 2),
        gradtx.masked(entry.make(), True),
        gradtx.partition({"all": entry.make()}, "all"),
        gradtx.chain(gradtx.clip_by_global_norm(1.0), optax.identity(), entry.make()),
    ):
        found = tx.init(shapes)
        assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(found))
        assert avals(found) == avals(tx.init(params))


def at_the_last_count(state, count):
    """The state with a number in place of every integer: as if that many steps had been taken."""
    return jax.tree.map(lambda x: jnp.full_like(x, count) if x.dtype == jnp.int32 else x, state)


WRAPPERS = {
    "apply_every": lambda: gradtx.apply_every(1),
    "apply_if_finite": lambda: gradtx.apply_if_finite(gradtx.adam(0.1), 3),
    "ema": lambda: gradtx.ema(0.9),
    "inject_hyperparams": lambda: gradtx.inject_hyperparams(gradtx.adamw)(
        lambda count: 1 / (1 + count / 100)
    ),
    "watch": lambda: gradtx.watch(gradtx.adam(0.1)),
    "params_mean": lambda: gradtx.params_mean(),
}


@pytest.mark.parametrize(
    "entry",
    [
        *first_of_each(engines_of, ENTRIES),
        *(pytest.param(make, id=name) for name, make in WRAPPERS.items()),
    ],
    ids=lambda entry: getattr(entry, "name", None),
)
def test_a_count_that_can_rise_no_further_changes_nothing(entry):
    """The step at the largest count is the one before it; counts stay there."""
    last = int(jnp.iinfo(jnp.int32).max)
    listed = entry in ENTRIES
    tx, params = entry.make() if listed else entry(), trees.small()
    step = step_of(entry, tx) if listed else tx.update
    _, state = step(trees.like(params, 7), tx.init(params), params)
    now, after = (step(params, at_the_last_count(state, n), params) for n in (last - 1, last))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), after[0], now[0])
    counts = [x for x in jax.tree.leaves(after[1]) if x.dtype == jnp.int32]
    assert all(bool(jnp.all(x >= 0)) for x in counts)


@pytest.mark.parametrize(
    ("make", "period"),
    [
        (lambda: gradtx.sophia(0.1, update_interval=3), 3),
        (lambda: gradtx.scale_by_galore(2, 3, base_optimizer=gradtx.trace(0.9)), 3),
        (lambda: gradtx.scale_by_lbfgs(3), 3),
        (lambda: gradtx.grokfast_ma(3), 3),
        (lambda: gradtx.momentum_reset(gradtx.trace(0.9), 3, 2), 3),
        (lambda: gradtx.skip_outliers(gradtx.identity(), 4, 0.1), 4),
        (lambda: gradtx.lawa(2, 2), 4),
    ],
    ids=["sophia", "galore", "lbfgs", "grokfast_ma", "momentum_reset", "skip_outliers", "lawa"],
)
def test_what_is_due_every_few_steps_is_due_after_the_largest_count(make, period):
    """The trajectory through the largest count is that through a small one, bit for bit."""
    last, k = int(jnp.iinfo(jnp.int32).max), 7 * period
    tx, start = make(), {"w": trees.numbers((3, 4), 1)}
    curvature = jnp.arange(1.0, 13.0).reshape(3, 4)

    def loss(p):
        return jnp.sum(curvature * p["w"] ** 2) / 2 + jnp.sum(p["w"] ** 4)

    def trajectory(count):
        state = tx.init(start)
        alone = hasattr(state, "_fields")
        first = state if alone else state[0]
        first = first._replace(count=jnp.int32(count))

        def step(carry, _):
            p, state = carry
            u, state = tx.update(jax.grad(loss)(p), state, p, obj_fn=loss)
            counted = state if alone else state[0]
            p = jax.tree.map(lambda x, y: x - 0.01 * y, p, u)
            return (p, state), (p["w"], counted.count)

        state = first if alone else (first, *state[1:])
        return jax.lax.scan(step, (start, state), length=4 * period)[1]

    before = last - period
    far, counts = trajectory(before)
    near, small = trajectory(k + before % period)
    np.testing.assert_array_equal(far, near)
    np.testing.assert_array_equal(counts % period, small % period)
    assert bool(jnp.all(counts >= before)) and int(counts[2 * period]) <= last


@each_entry
def test_half_precision_is_averaged_in_float32(entry):
    params = {d: trees.numbers((2,), 1, d) for d in ("bfloat16", "float16")}
    for path, x in jax.tree.leaves_with_path(jax.eval_shape(entry.make().init, params)):
        if jnp.issubdtype(x.dtype, jnp.inexact):
            assert x.dtype == jnp.float32, jax.tree_util.keystr(path)


def test_second_moments_of_half_precision_do_not_stall():
    """In bfloat16, `0.999 * nu + 0.001` stands still from 0.25 on; 1 - 0.999**3000 is 0.9503."""
    tx = gradtx.adam(1e-3, b2=0.999)
    params = jnp.zeros(2, jnp.bfloat16)

    def step(state, _):
        return tx.update(jnp.ones(2, jnp.bfloat16), state)[1], None

    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=3000))(tx.init(params))
    np.testing.assert_allclose(state[0].nu, 1 - 0.999**3000, rtol=1e-3)
    assert int(state[0].count) == 3000


# ---- What JAX does to functions ---------------------------------------------------------------


@each_engine_here
def test_eager_equals_jitted(entry):
    tx, params = entry.make(), trees.small(entry.takes_complex)
    update = jax.jit(step_of(entry, tx))
    state = tx.init(params)
    assert_equal(jax.jit(tx.init)(params), state)
    for i in range(3):
        g = trees.like(params, i)
        eager, new_state = step_of(entry, tx)(g, state, params)
        # The loss of the tests is itself rounded otherwise when it is compiled with the step; and
        # so is the step of an optimizer within another, whose differences lose digits.
        loses = bool(entry.needs or magnified(entry))
        ulps = 4 if loses else 1
        assert_ulps(update(g, state, params), (eager, new_state), ulps, of_largest=loses)
        state, params = new_state, gradtx.apply_updates(params, eager)


@each_engine
def test_disabled_jit_equals_jit(entry):
    """Without any compilation at all, for those who debug."""
    tx, params = entry.make(), {"w": trees.numbers((2,))}
    gradients = [trees.like(params, i) for i in (1, 2)]
    compiled = walk(tx, params, gradients, entry)
    with jax.disable_jit():
        plain = walk(tx, params, gradients, entry)
    # XLA may leave out a rounding where it multiplies and adds at once.
    assert_ulps(plain, compiled, max(4, magnified(entry)), of_largest=True)


@each_engine
def test_scan_with_donated_buffers(entry):
    """A training loop as people write it; every buffer given away is used, and none twice."""
    tx, params = entry.make(), trees.small(entry.takes_complex)
    gradients = [trees.like(params, i) for i in range(4)]
    _, state_by_hand, params_by_hand = walk(tx, params, gradients, entry)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *gradients)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(params, state, gradients):
        def step(carry, g):
            params, state = carry
            updates, state = step_of(entry, tx)(g, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), gradients)[0]

    state = tx.init(params)
    given = jax.tree.leaves((params, state))
    params, state = train(params, state, stacked)
    assert all(x.is_deleted() for x in given if x.size)
    ulps = max(4, magnified(entry))
    assert_ulps((params, state), (params_by_hand, state_by_hand), ulps, of_largest=True)


@each_engine
def test_donation_step_by_step(entry):
    tx, params = entry.make(), trees.small(entry.takes_complex)
    state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def step(g, params, state):
        updates, state = step_of(entry, tx)(g, state, params)
        return gradtx.apply_updates(params, updates), state

    gradients = [trees.like(params, i) for i in range(3)]
    for g in gradients:
        params, state = step(g, params, state)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(params))
    # An eager step's results may be given away too: nothing that it returns is there twice.
    updates, state = step_of(entry, tx)(gradients[0], state, params)
    step(gradients[0], gradtx.apply_updates(params, updates), state)


@pytest.mark.slow
@each_entry
def test_vmap_over_parameters_and_state(entry):
    tx = entry.make()
    rows = [trees.small(entry.takes_complex) for _ in range(3)]
    rows = [trees.like(row, 10 * i) for i, row in enumerate(rows)]
    gradients = [trees.like(row, 10 * i + 5) for i, row in enumerate(rows)]
    one_by_one = [walk(tx, row, [g, g], entry) for row, g in zip(rows, gradients, strict=True)]

    def stack(many):
        return jax.tree.map(lambda *xs: jnp.stack(xs), *many)

    together = jax.vmap(lambda p, g: walk(tx, p, [g, g], entry))(stack(rows), stack(gradients))
    assert_ulps(together, stack(one_by_one), max(4, magnified(entry)), of_largest=True)


@pytest.mark.parametrize("hardest", [True, pytest.param(False, marks=pytest.mark.slow)])
@each_engine
def test_gradients_through_an_update_are_finite_at_zero(entry, hardest):
    """Without an eps to lean on where there is one; with it in the slow set."""
    params = jax.tree.map(jnp.zeros_like, trees.small(entry.takes_complex))
    makes = list(with_zero_eps(entry))
    for tx in makes[-1:] if hardest else makes[:-1]:
        state = tx.init(params)

        def total(g, params, tx=tx, state=state):
            for _ in range(2):
                updates, state = step_of(entry, tx)(g, state, params)
                params = gradtx.apply_updates(params, updates)
            return sum(jnp.sum(x.real + x.imag) for x in jax.tree.leaves(params))

        slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(params, params)
        for path, slope in jax.tree.leaves_with_path(slopes):
            assert bool(jnp.all(jnp.isfinite(slope))), jax.tree_util.keystr(path)


# ---- How often things are compiled ------------------------------------------------------------


@contextlib.contextmanager
def counted_traces():
    """Counts what JAX traces, in its own words."""
    found = []

    def listen(event, seconds, **kwargs):
        if event.endswith("jaxpr_trace_duration"):
            found.append(kwargs.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_traces_are_counted():
    with counted_traces() as found:
        jax.jit(lambda x: x + 1)(jnp.ones(3))
    assert found


@each_engine
def test_nothing_is_compiled_at_the_second_step(entry):
    tx, params = entry.make(), trees.small(entry.takes_complex)
    g, step = trees.like(params), step_of(entry, tx)

    def two_steps(params, rate):
        state = tx.init(params)
        for _ in range(2):
            updates, state = step(g, state, params)
            params = gradtx.apply_updates(params, updates)
        return step(g, state, params, learning_rate=rate)

    two_steps(params, 0.1)
    with counted_traces() as found:
        two_steps(params, 0.2)  # another number for the rate, and every step for the second time
    assert found == []


@each_engine
def test_jitted_steps_are_traced_once(entry):
    tx, params = entry.make(), trees.small(entry.takes_complex)
    traced = []

    @jax.jit
    def step(g, params, state, **extra):
        traced.append(sorted(extra))
        updates, state = step_of(entry, tx)(g, state, params, **extra)
        return gradtx.apply_updates(params, updates), state

    state = tx.init(params)
    for i in range(3):
        params, state = step(trees.like(params, i), params, state)
    for rate in (0.1, 0.2, 0.0):
        g = trees.like(params)
        params, state = step(g, params, state, learning_rate=rate)
    assert traced == [[], ["learning_rate"]]


def test_an_optimizer_made_again_compiles_nothing():
    params = trees.small()
    walk(gradtx.adamw(0.1, b1=0.8), params, [params])
    with counted_traces() as found:
        walk(gradtx.adamw(0.1, b1=0.8), params, [params])
    assert found == []


# ---- Trees ------------------------------------------------------------------------------------


@each_engine
@pytest.mark.parametrize("tree", [{}, (), [], {"a": None}], ids=repr)
def test_trees_without_leaves(entry, tree):
    tx = entry.make()
    updates, state, params = walk(tx, tree, [tree, tree], entry)
    assert updates == tree and params == tree
    assert avals(state) == avals(tx.init(tree))


@each_engine
def test_any_tree_gives_what_its_leaves_give(entry):
    """Tuples, lists, named tuples, dataclasses, `None`, scalars, arrays without elements."""
    scalar, vector, matrix = trees.numbers((), 5), trees.numbers((3,), 6), trees.numbers((2, 3), 7)
    tree = {
        "empty": jnp.zeros((0, 3)),
        "pair": Pair((scalar, None), [vector, {}]),
        "layers": [Layer(matrix, vector), Layer(matrix, None, label="without bias")],
        "none": None,
        "nothing": (),
    }
    tx = entry.make()
    updates, state, params = walk(tx, tree, [trees.like(tree, i) for i in (1, 2)], entry)
    assert jax.tree.structure(updates) == jax.tree.structure(params) == jax.tree.structure(tree)
    assert avals(state) == avals(tx.init(tree))

    leaves = jax.tree.leaves(tree)
    flat = [jax.tree.leaves(trees.like(tree, i)) for i in (1, 2)]
    assert_equal(jax.tree.leaves(updates), walk(tx, leaves, flat, entry)[0])

    (place,) = [i for i, leaf in enumerate(leaves) if leaf.shape == ()]
    if not entry.couples_leaves:
        alone, _, _ = walk(tx, scalar, [g[place] for g in flat], entry)
        assert_ulps(alone, jax.tree.leaves(updates)[place])


@each_engine
def test_numpy_arrays_and_python_floats_are_leaves_too(entry):
    ours = trees.small()
    theirs = jax.tree.map(np.asarray, ours)
    tx = entry.make()
    assert_equal(walk(tx, theirs, [theirs], entry), walk(tx, ours, [ours], entry))
    # A state that was saved and restored as NumPy arrays is as good as the first.
    state = tx.init(ours)
    restored = jax.tree.map(lambda x: x if trees.is_key(x) else np.asarray(x), state)
    updates, new = step_of(entry, tx)(theirs, restored, theirs)
    assert avals(new) == avals(state)
    assert_equal((updates, new), step_of(entry, tx)(ours, state, ours))
    updates, state = step_of(entry, tx)({"x": 2.0}, tx.init({"x": 1.0}), {"x": 1.0})
    assert avals(state) == avals(tx.init({"x": 1.0}))
    assert updates["x"].dtype == jnp.float32 and np.isfinite(updates["x"])


@each_engine
def test_masked_leaves_pass_by_and_cost_nothing(entry):
    params, mask = trees.small(), {"a": True, "b": False, "c": {"d": True}}

    def kept(tree):
        return {"a": tree["a"], "c": tree["c"]}

    def of_kept(entry, g, params):
        """A loss of the leaves that are not masked, so that it is the same with the others."""
        more = extras(entry, kept(g), kept(params))
        if "grad" in more:
            more["grad"] = g
        for name in {"value_fn", "obj_fn"} & set(more):
            more[name] = lambda q, loss=more[name]: loss(kept(q))
        return more

    g = trees.like(params)
    for given in (mask, lambda tree: mask):
        tx = gradtx.masked(entry.make(), given)
        updates, state, _ = walk(tx, params, [g, g], entry, of_kept)
        assert avals(state) == avals(tx.init(params))
        np.testing.assert_array_equal(updates["b"], g["b"])
        alone = walk(entry.make(), kept(params), [kept(g), kept(g)], entry)
        assert_equal(kept(updates), alone[0])
        assert_equal(jax.tree.leaves(state), jax.tree.leaves(alone[1]))


# ---- Numbers ----------------------------------------------------------------------------------


@each_engine
def test_zero_gradients_give_zero_updates(entry):
    dtypes = ["float32", "bfloat16", "float16"] + ["complex64"] * entry.takes_complex
    zeros = {d: jnp.zeros(2, d) for d in dtypes}
    ones = {d: jnp.ones(2, d) for d in dtypes}
    for tx in with_zero_eps(entry):
        updates, _, params = walk(tx, zeros, [zeros, zeros], entry)
        assert_equal(updates, zeros)
        assert_equal(params, zeros)
        # and nothing breaks when a gradient comes, and then none
        updates, _, _ = walk(tx, ones, [zeros, ones, zeros], entry)
        assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates))


@each_engine
def test_no_gradient_is_too_large_or_too_small(entry):
    """Squares of the largest and smallest numbers are no numbers; updates still are."""
    for dtype in ("float32", "bfloat16", "float16"):
        info = jnp.finfo(dtype)
        for size in (info.max / 100, info.tiny, info.smallest_subnormal):
            g = {"w": jnp.asarray([size, -size, 0], dtype)}
            zero = jax.tree.map(jnp.zeros_like, g)
            updates, state, _ = walk(entry.make(), zero, [g, g, zero], entry)
            for leaf in jax.tree.leaves((updates, state)):
                assert not bool(jnp.any(jnp.isnan(leaf))), (dtype, size)


def assert_steps_are_seen(entry, wrap):
    """An optimizer with a schedule for its rate, wrapped: the schedule is asked for 0, 1, 2."""
    seen = []

    def schedule(count):
        assert jnp.shape(count) == () and jnp.result_type(count) == jnp.int32
        seen.append(int(count))
        return 0.1 / (count + 1)

    params = {"w": trees.numbers((2,))}
    tx = wrap(entry.make(**{entry.rate: schedule}))
    state = tx.init(params)
    assert seen == [0] * len(seen)
    seen.clear()
    for _ in range(3):
        _, state = step_of(entry, tx)(params, state, params)
    assert list(dict.fromkeys(seen)) == [0, 1, 2]  # each part of a partition asks


@each_build
def test_schedules_see_every_step_from_zero(entry):
    if entry.fixed_rate:
        with pytest.raises(TypeError, match=rf"{entry.name}: .*schedule"):
            entry.make(**{entry.rate: lambda count: 0.1})
        return
    assert_steps_are_seen(entry, lambda tx: tx)


@each_engine
def test_schedules_see_every_step_under_wrappers(entry):
    if entry.fixed_rate:
        return
    for wrap in (
        lambda tx: gradtx.chain(gradtx.identity(), tx),
        lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
        lambda tx: gradtx.named_chain(("it", tx)),
        lambda tx: gradtx.masked(tx, {"w": True}),
        lambda tx: gradtx.masked(gradtx.chain(gradtx.clip_by_global_norm(1.0), tx), {"w": True}),
        lambda tx: gradtx.partition({"all": tx}, {"w": "all"}),
    ):
        assert_steps_are_seen(entry, wrap)


@each_engine
def test_complex_parameters_descend_along_the_conjugate_gradient(entry):
    target = trees.numbers((3,), 8, jnp.complex64)

    def loss(z):
        return jnp.sum(jnp.abs(z - target) ** 2)

    tx, z = entry.make(), jnp.zeros(3, jnp.complex64)
    if not entry.takes_complex:
        with pytest.raises(TypeError, match=rf"{entry.name}.*complex64"):
            tx.init(z)
        return

    @jax.jit
    def train(z):
        def step(carry, _):
            z, state = carry
            slope = jax.grad(loss)(z)
            g = jnp.conj(slope)
            updates, state = tx.update(g, state, z, **needed(entry, loss, z, g))
            return (gradtx.apply_updates(z, updates), state), None

        return jax.lax.scan(step, (z, tx.init(z)), length=300)[0][0]

    assert loss(train(z)) < 0.1 * loss(z)
