"""How pieces are made: what compiled code is kept by, who shares it, and what stays."""

import functools
import gc
import weakref
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from representatives import ENTRIES, each, engines_of, first_of_each
from trees import assert_equal, assert_ulps, needed

import gradtx
from gradtx import Slots, numerics
from gradtx.engine.made import Freezer, Opaque, is_known

COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts the programs that are compiled while it is entered."""

    def __enter__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, event, _, **kwargs):
        self.count += event == COMPILED

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)


@gradtx.piece
def scale_by_array(factor):
    """A piece that makes an array from a hyperparameter."""
    array = jnp.asarray(numerics.value_of(factor))

    def update(g, s, step, p):
        return array * g, Slots()

    return gradtx.leafwise(gradtx.EmptyState, None, update, name="scale_by_array")


def step(tx, g=2.0):
    g = jnp.full(2, g)
    return tx.update(g, tx.init(g))[0]


# ---- Factories that make arrays, wherever they are called ---------------------------------------


def test_a_factory_may_make_arrays_inside_of_jit_and_be_used_outside_later():
    with trees.checking_leaks():
        inside = jax.jit(lambda: step(scale_by_array(0.5)))()
        outside = step(scale_by_array(0.5))
        again = jax.jit(lambda: step(scale_by_array(0.5)))()
    for found in (inside, outside, again):
        assert_equal(found, jnp.ones(2))


def test_arrays_in_default_arguments_and_behind_wraps_are_no_constants():
    def times(array):
        @gradtx.piece
        def by_default(unused=None, factor=array):
            return scale_by_array(factor)

        def plain(g, s, step, p):
            return array * g, Slots()

        @functools.wraps(plain)
        def update(g, s, step, p, array=array):
            return plain(g, s, step, p)

        wrapped = gradtx.leafwise(gradtx.EmptyState, None, update)
        return by_default(), wrapped

    for factor in (2.0, 3.0):
        for tx in times(jnp.float32(factor)):
            assert_equal(step(tx), jnp.full(2, 2 * factor))


def test_factories_may_need_the_value_of_a_number():
    @gradtx.piece
    def scale_by_root(x):
        factor = jnp.sqrt(x) if x > 1 else x

        def update(g, s, step, p):
            return factor * g, Slots()

        return gradtx.leafwise(gradtx.EmptyState, None, update)

    for x, root in ((4.0, 2.0), (0.25, 0.25), (9.0, 3.0), (4.0, 2.0)):
        np.testing.assert_allclose(step(scale_by_root(x)), 2 * root)
        np.testing.assert_allclose(jax.jit(lambda x=x: step(scale_by_root(x)))(), 2 * root)


def test_functions_carry_no_marks():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    step_of = tx.update.pipeline.links[1].kernel.update
    assert vars(step_of) == {}


# ---- Who shares compiled code -------------------------------------------------------------------


def moved(settings):
    """Other values for all numbers: near the first ones, so that all are allowed."""

    def move(x):
        return x * 0.99 if isinstance(x, float) and x not in (0.0, 1.0) else x

    return jax.tree.map(move, settings)


# An un-jitted step that is given a function is no compiled call.
GIVEN_ARRAYS = [entry for entry in ENTRIES if not {"value_fn", "obj_fn"} & {*entry.needs}]


@each(first_of_each(engines_of, GIVEN_ARRAYS))
def test_optimizers_that_differ_in_numbers_share_their_code(entry):
    params = {"w": trees.numbers((3, 2), 1), "b": trees.numbers((2,), 2)}

    def loss(x):
        return sum(jnp.sum(jnp.square(leaf - 1.0)) for leaf in jax.tree.leaves(x))

    g = jax.grad(loss)(params)
    extra = needed(entry, loss, params, g)
    settings = {**entry.hyperparameters, **entry.probe}
    numbers = {n: x for n, x in settings.items() if isinstance(x, (float, tuple))}
    settings = {n: x for n, x in numbers.items() if n not in entry.constants}

    def steps(**more):
        tx = entry.make(**more)
        state = tx.init(params)
        _, state = tx.update(g, state, params, **extra)
        return tx.update(g, state, params, **extra)

    steps(**settings)
    with Compilations() as compiled:
        found = steps(**moved(settings))
    assert compiled.count == 0
    other = entry.make(**moved(settings))
    _, state = jax.jit(other.update)(g, other.init(params), params, **extra)
    wanted = jax.jit(other.update)(g, state, params, **extra)
    assert_ulps(found, wanted, 4, of_largest=True)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda b: gradtx.MultiSteps(gradtx.adam(0.1, b1=b), 2),
        lambda b: gradtx.watch(gradtx.adam(0.1, b1=b)),
        lambda b: gradtx.counted(gradtx.clip_by_global_norm(b)),
        lambda b: gradtx.apply_if_finite(gradtx.adam(0.1, b1=b), 3),
        lambda b: gradtx.flatten(gradtx.adam(0.1, b1=b)),
        lambda b: gradtx.split_real_and_imaginary(gradtx.adam(0.1, b1=b)),
        lambda b: gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(b), opaque_mode=False),
        lambda b: gradtx.schedule_free(gradtx.sgd(0.1), 0.1, b1=b),
        lambda b: gradtx.mechanize(gradtx.sgd(b)),
        lambda b: gradtx.masked(gradtx.adam(0.1, b1=b), {"w": True, "b": False}),
        lambda b: gradtx.masked(gradtx.adam(0.1, b1=b), lambda tree: {"w": True, "b": False}),
        lambda b: gradtx.partition(
            {"x": gradtx.adam(0.1, b1=b), "y": gradtx.sgd(b)}, {"w": "x", "b": "y"}
        ),
        lambda b: gradtx.masked(gradtx.clip_by_global_norm(b), {"w": True, "b": False}),
        lambda b: gradtx.adam(lambda count: 0.1 * b),
        lambda b: gradtx.adam(gradtx.warmup_cosine_decay_schedule(0.0, 0.1 * b, 10, 100)),
        lambda b: gradtx.store_as(gradtx.scale_by_adam(b), mu=jnp.bfloat16),
        lambda b: gradtx.named_chain(("a", gradtx.clip(b)), ("b", gradtx.adam(b))),
        lambda b: gradtx.scale_by_adam(jnp.float32(b)),
    ],
)
def test_wrappers_made_again_share_their_code(wrap):
    params = {"w": trees.numbers((3, 2), 1), "b": trees.numbers((2,), 2)}

    def steps(b):
        tx = wrap(b)
        state = tx.init(params)
        _, state = tx.update(params, state, params)
        return tx.update(params, state, params)

    steps(0.9)
    with Compilations() as compiled:
        found = steps(0.8)
    assert compiled.count == 0
    other = wrap(0.8)
    _, state = jax.jit(other.update)(params, other.init(params), params)
    assert_ulps(found, jax.jit(other.update)(params, state, params), 8, of_largest=True)


def test_schedules_of_others_are_called_at_every_step():
    """Any Python function may be one: it is not frozen into compiled code."""
    rates = {0: 0.5, 1: 0.25}
    tx = gradtx.sgd(lambda count: rates[int(count)])
    state = tx.init(jnp.ones(1))
    for count in (0, 1):
        updates, state = tx.update(jnp.ones(1), state)
        assert float(updates[0]) == -rates[count] and float(state[-1].learning_rate) == rates[count]


# ---- Numbers as arguments -----------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.5, 0.9, 0.999, 0.99999, 1 - 1e-7])
def test_numbers_lose_nothing_as_arguments(decay):
    def weights(decay):
        t = jnp.arange(1, 2000, 37)
        number = decay if isinstance(decay, float) else numerics.Number(*decay)
        left = jnp.asarray(numerics.value_of(1 - number), jnp.float32)
        return left, jax.vmap(lambda t: numerics.gathered_weight(number, t))(t)

    as_constant = jax.jit(lambda: weights(decay))()
    as_argument = jax.jit(weights)(numerics.Number.parts(decay))
    assert_ulps(as_argument, as_constant, 1)


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.999, 1 - 1e-7])
def test_roots_of_numbers_are_numbers(decay):
    root = jax.jit(lambda parts: numerics.Number(*parts) ** 0.5)(numerics.Number.parts(decay))
    np.testing.assert_allclose(root.value, decay**0.5, rtol=1e-6)
    np.testing.assert_allclose(root.complement, (1 - decay) / (1 + decay**0.5), rtol=1e-6)
    assert_ulps(numerics.gathered_weight(root, 3), numerics.gathered_weight(decay**0.5, 3), 4)


def test_numbers_stand_in_operators():
    x = jnp.array([2.0, 3.0])

    @jax.jit
    def both(*parts):
        n = numerics.Number(*parts)
        return [n + x, x + n, n - x, x - n, n * x, x * n, n / x, x / n, n**x, x**n, -n, abs(n)], [
            n > x, n >= x, n < x, n <= x, n == x, n != x,
        ]  # fmt: skip

    n = np.float32(2.5)
    reals, truths = both(*numerics.Number.parts(2.5))
    wanted = [n + x, x + n, n - x, x - n, n * x, x * n, n / x, x / n, n**x, x**n, -n, abs(n)]
    assert_ulps(reals, [jnp.asarray(w) for w in wanted], 2)
    assert_equal(truths, [n > x, n >= x, n < x, n <= x, n == x, n != x])
    number = numerics.Number(*map(jnp.float32, numerics.Number.parts(0.5)))
    for use in (bool, float, int, np.asarray):
        with pytest.raises(numerics.NeedsConstant):
            use(number)


# ---- Values -------------------------------------------------------------------------------------


def frozen(x, **how):
    freezer = Freezer(**how)
    return freezer.freeze(x), freezer.numbers


def test_what_is_equal_when_frozen():
    one, other = gradtx.adam(0.1, b1=0.9), gradtx.adam(0.2, b1=0.8)
    assert frozen(one)[0] == frozen(other)[0] and hash(frozen(one)[0]) == hash(frozen(other)[0])
    assert frozen(one)[1] != frozen(other)[1]
    assert frozen(one)[0] != frozen(gradtx.adam(0.1, nesterov=True))[0]
    assert frozen(one)[0] != frozen(gradtx.nadam(0.1))[0]
    for a, b in ((1, True), (1, 1.0), (0, False), ("1", 1), (None, 0)):
        assert frozen(a, constant=True)[0] != frozen(b, constant=True)[0]
    assert frozen(0.0, constant=True)[0] != frozen(-0.0, constant=True)[0]


def test_what_is_no_value():
    for x in (lambda count: 0.1, object(), {"f": lambda: 0}, gradtx.adam(lambda count: 0.1)):
        assert not is_known(x)
        with pytest.raises(Opaque):
            frozen(x)
    for x in (0.1, jnp.ones(2), None, {"a": (1, "b")}, gradtx.constant_schedule(0.1)):
        assert is_known(x)


# ---- What stays ---------------------------------------------------------------------------------


def test_nothing_outlives_its_user():
    kept = []

    class State(NamedTuple):
        count: jax.Array

    def closure(array):
        def update(g, s, step, p):
            return array * g, Slots()

        return gradtx.leafwise(State, None, update)

    for make in (
        lambda: gradtx.adamw(0.1),
        lambda: gradtx.adam(lambda count: 0.1),
        lambda: gradtx.MultiSteps(gradtx.muon(0.1), 2).gradient_transformation(),
        lambda: closure(jnp.ones(2)),
    ):
        tx = make()
        step_params = jnp.ones(2)
        tx.update(step_params, tx.init(step_params), step_params)
        kept.append(weakref.ref(tx.update.pipeline))
        del tx, make
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)


def test_clearing_jaxs_caches_frees_the_code():
    step(gradtx.adam(0.1))
    with Compilations() as compiled:
        step(gradtx.adam(0.3))
    assert compiled.count == 0
    jax.clear_caches()
    with Compilations() as compiled:
        step(gradtx.adam(0.3))
    assert compiled.count > 0


class Counted(NamedTuple):
    count: jax.Array


def test_transformations_of_others_are_not_compiled():
    """Their functions may print, or branch on values."""
    seen = []

    def update(updates, state, params=None):
        seen.append(float(updates[0]))
        return updates, Counted(state.count + 1)

    pair = gradtx.GradientTransformation(lambda params: Counted(jnp.int32(0)), update)
    tx = gradtx.chain(gradtx.scale(2.0), pair, gradtx.sgd(0.5))
    g = jnp.ones(1)
    state = tx.init(g)
    for _ in range(2):
        updates, state = tx.update(g, state)
    assert seen == [2.0, 2.0] and float(updates[0]) == -1.0 and int(state[1].count) == 2
