"""Every optimizer against the papers: three steps by hand, many in NumPy, and optax's opinion."""

import collections
import dataclasses
import inspect
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import OPTIMIZERS, PIECES
from references.common import GRADIENTS, MASK, MOVED, STORAGE, mask_of, tenths, wave
from representatives import ENTRIES, each_build, each_engine, engines_of, first_of_each
from trees import extras

import gradtx
from gradtx import catalog
from gradtx.crosschecking import known_differences, sample_loss
from gradtx.engine.pipeline import pipeline_of
from gradtx.schedules.made import MadeSchedule

STEPS = 20


def by_name(entry):
    return entry.name


def test_every_optimizer_has_a_reference_and_three_steps_by_hand():
    assert sorted(OPTIMIZERS) == catalog.names()
    assert all(len(OPTIMIZERS[name].by_hand[1]) == len(GRADIENTS) for name in OPTIMIZERS)


def test_every_scale_piece_has_a_reference():
    pieces = {name for name in dir(gradtx) if name.startswith("scale_by_")} | {"trace"}
    assert set(PIECES) == pieces


# ---- Three steps by hand --------------------------------------------------------------------


def by_hand(entry):
    """The hyperparameters, and the three steps."""
    hyperparameters, wanted = OPTIMIZERS[entry.name].by_hand
    return {entry.rate: tenths, **hyperparameters}, wanted


@pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
def test_three_steps_of_the_reference_by_hand(entry):
    hyperparameters, wanted = by_hand(entry)
    gradients = [np.float64(g) for g in GRADIENTS]
    by_numpy = OPTIMIZERS[entry.name].function(gradients, np.float64(1), **hyperparameters)
    np.testing.assert_allclose(by_numpy, wanted, rtol=1e-14)


@each_build  # every optimizer is compared with its reference, and that with the steps by hand
def test_three_steps_by_hand(entry, x64):
    hyperparameters, wanted = by_hand(entry)
    gradients = [jnp.asarray(g) for g in GRADIENTS]
    ours = run(entry.factory(**hyperparameters), gradients, jnp.ones(()), entry)
    np.testing.assert_allclose(np.stack(ours), wanted, rtol=1e-14)


def test_rprop_after_a_change_of_sign(x64):
    # The gradient that changed its sign counts as 0, so the next one finds the size 0.06 unchanged,
    # and the one after that has its sign: 0.06 * 1.2.
    gradients = [jnp.asarray(g) for g in (2.0, 4.0, -2.0, -3.0, -1.0)]
    steps = run(gradtx.rprop(0.1), gradients, jnp.zeros(()))
    np.testing.assert_allclose(np.stack(steps), [-0.1, -0.12, 0.0, 0.06, 0.072], rtol=1e-14)


# ---- Many steps against NumPy ---------------------------------------------------------------


def moves(reference, parameters):
    """The settings to try: the plain one, and each hyperparameter moved in turn."""
    yield {}
    for parameter in parameters:
        if parameter in STORAGE:
            continue
        for value in {**MOVED, **reference.moved}[parameter]:
            yield value if isinstance(value, dict) else {parameter: value}


def told(x):
    if isinstance(x, gradtx.GradientTransformation):  # whose functions print their addresses
        return "+".join(link.name for link in pipeline_of(x).links) or "identity"
    return getattr(x, "__name__", x)


def label(x):
    if isinstance(x, dict):
        return ",".join(f"{k}={told(v)}" for k, v in x.items()) or "plain"
    return getattr(x, "name", str(x)).replace(" ", "")


CASES = [
    (entry, move)
    for entry in ENTRIES
    for move in moves(OPTIMIZERS[entry.name], entry.hyperparameters)
]
IN_DOUBLE = [
    (entry, {name: value})
    for entry in ENTRIES
    for name, values in OPTIMIZERS[entry.name].in_double.items()
    for value in values
]
PLAIN = [(entry, move) for entry, move in CASES if not move]
# Of a hyperparameter that several optimizers have, the first of them represents the others. What
# one has alone is moved in CI, as the tests of single methods are.
OWNERS = collections.Counter(name for entry in ENTRIES for name in entry.hyperparameters)
IN_SEVERAL = [case for case in CASES if case[1] and any(OWNERS[name] > 1 for name in case[1])]
IN_ONE = [case for case in CASES if case[1] and all(OWNERS[name] == 1 for name in case[1])]


PIECE_CASES = [
    (name, move)
    for name in sorted(PIECES)
    for move in moves(PIECES[name], inspect.signature(getattr(gradtx, name)).parameters)
]
# These are also compared within an optimizer.
IN_OPTIMIZERS = {link.name for entry in ENTRIES for link in pipeline_of(entry.make()).links}


def default_thorough_or_slow(name, move):
    """The marks of a piece's case: moved ones are slow."""
    if move:
        return pytest.mark.slow
    return pytest.mark.thorough if name in IN_OPTIMIZERS else ()


def make_problem(name, dtype, with_complex, one_sign=False):
    """A start and gradients of widely different sizes, reproducibly; all float32 numbers.

    With `one_sign`, no sum of them cancels, so that every result has a relative error of its own.
    """
    random = np.random.default_rng(zlib.crc32(name.encode()))
    known = {**OPTIMIZERS, **PIECES}.get(name)
    shape = known.shape if known else (3,)

    def draw(complex_too, shift):
        x = random.standard_normal(shape) * 10.0 ** random.uniform(-1, 1, shape)
        x = (np.abs(x) + shift) if one_sign else x
        return (x + 1j * draw(False, shift) if complex_too else x).astype(np.complex64)

    def tree(shift):
        found = {"w": draw(False, shift).real, "b": draw(False, shift).real}
        if with_complex:
            found["z"] = draw(True, shift)
        return {k: v.astype(np.result_type(dtype, v.dtype)) for k, v in found.items()}

    return tree(5.0), [tree(0.0) for _ in range(STEPS)]


def run(tx, gradients, params, entry=None, extra=extras):
    """Gives the steps that a transformation takes, one after another, called as users do."""
    state, steps = tx.init(params), []
    for g in gradients:
        more = extra(entry, g, params) if entry else {}
        updates, state = tx.update(g, state, params, **more)
        params = gradtx.apply_updates(params, updates)
        steps.append(updates)
    return steps


def last_state(tx, gradients, params, entry):
    """Gives the state after all steps."""
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update(g, state, params, **extras(entry, g, params))
        params = gradtx.apply_updates(params, updates)
    return state


def wanted_steps(reference, gradients, start, settings):
    """Runs a reference on each leaf of a tree, or on all in one vector, in double."""
    if reference.coupled:
        return coupled_steps(reference.function, gradients, start, settings)
    settings = dict(settings)
    mask = next((settings.pop(k) for k in ("mask", "weight_decay_mask") if k in settings), None)
    mask = mask(start) if callable(mask) else mask
    steps = {}
    for leaf, (name, x) in enumerate(sorted(start.items())):
        wide = np.complex128 if np.iscomplexobj(x) else np.float64
        mine = settings if mask is None or mask[name] else {**settings, "weight_decay": 0.0}
        mine = {**mine, "leaf": leaf, "dtype": x.dtype} if reference.draws else mine
        steps[name] = reference.function(
            [g[name].astype(wide) for g in gradients], x.astype(wide), **mine
        )
    return [{name: steps[name][t] for name in start} for t in range(len(gradients))]


def coupled_steps(function, gradients, start, settings):
    """Runs a reference on all leaves as one vector; complex numbers are two real ones."""
    leaves, treedef = jax.tree.flatten(start)
    sizes = [x.size * (1 + np.iscomplexobj(x)) for x in leaves]
    cuts = np.cumsum(sizes)[:-1]

    def flat(x):
        return np.ravel(x).view(x.real.dtype)

    def back(part, x):
        return part.view(np.complex128 if np.iscomplexobj(x) else np.float64).reshape(x.shape)

    def join(tree):
        return np.concatenate([flat(np.asarray(x)) for x in jax.tree.leaves(tree)]).astype(float)

    steps = function([join(g) for g in gradients], join(start), **settings)
    return [
        treedef.unflatten(map(back, np.split(np.ascontiguousarray(step), cuts), leaves))
        for step in steps
    ]


def assert_close(ours, wanted, relative, reference=None):
    """Compares step by step; a complex number has one error, not one in each part.

    Where leaves act on each other, an error is relative to the largest number in all of them; where
    digits cancel, to the largest step of the leaf.
    """
    assert len(ours) == len(wanted)
    largest_steps = {n: max(np.max(np.abs(b[n]), initial=0) for b in wanted) for n in wanted[0]}
    cancels = reference is not None and reference.cancels
    for t, (a, b) in enumerate(zip(ours, wanted, strict=True)):
        assert sorted(a) == sorted(b)
        together = reference is not None and reference.coupled
        largest = max(np.max(np.abs(x)) for x in b.values()) if together else 0
        for name in b:
            size = largest_steps[name] if cancels else largest
            np.testing.assert_allclose(
                np.asarray(a[name]),
                b[name],
                rtol=0 if together or cancels else relative,
                atol=relative * size,
                err_msg=f"step {t}, leaf {name}",
            )


@pytest.mark.parametrize(
    ("entry", "move"),
    [
        *(pytest.param(*case) for case in PLAIN),
        *first_of_each(lambda entry, move: frozenset(move), IN_SEVERAL),
        *(pytest.param(*case) for case in IN_DOUBLE),
        *(pytest.param(*case, marks=pytest.mark.thorough) for case in IN_ONE),
    ],
    ids=label,
)
def test_float64_agrees_with_the_reference(entry, move, x64):
    start, gradients = make_problem(entry.name, np.float64, entry.takes_complex)
    move = restrict_mask(move, start)
    settings = {**entry.probe, **move}
    ours = run(entry.factory(**settings), gradients, start, entry)
    reference = OPTIMIZERS[entry.name]
    assert_close(ours, wanted_steps(reference, gradients, start, settings), 1e-12, reference)


def restrict_mask(move, start):
    return {k: mask_of(start) if v is MASK else v for k, v in move.items()}


# An average of positive numbers takes four roundings of half an ulp a step (two products, their
# sum, and the decay itself as a float32 number), and carries them on with its own weight: over 20
# steps at most 40 ulps in a first moment, and half of that in the root of a second. RProp's sizes
# are products of up to 19 rounded factors: at most 19 ulps. Roundings go either way, though, and
# what is seen is below 8.
ULPS = 8


@pytest.mark.parametrize(
    ("entry", "move"),
    [
        *first_of_each(lambda entry, move: engines_of(entry), PLAIN),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES if case[1]),
    ],
    ids=label,
)
def test_float32_agrees_with_the_reference_to_rounding(entry, move):
    start, gradients = make_problem(entry.name, np.float32, entry.takes_complex, one_sign=True)
    move = restrict_mask(move, start)
    settings = {**entry.probe, **move}
    ours = run(entry.factory(**settings), gradients, start, entry)
    reference = OPTIMIZERS[entry.name]
    wanted = wanted_steps(reference, gradients, start, settings)
    assert all(u.dtype == x.dtype for u, x in zip(ours[0].values(), start.values(), strict=True))
    ulps = max([reference.ulps or ULPS, *(reference.wider.get(name, 0) for name in move)])
    assert_close(ours, wanted, ulps * float(np.finfo(np.float32).eps), reference)


def downhill(link, updates, params):
    """The extra arguments of a piece, from a loss that falls along the updates."""
    return extras(link, jax.tree.map(jnp.negative, updates), params) if link.needs else {}


@pytest.mark.parametrize(
    ("name", "move"),
    [pytest.param(*case, marks=default_thorough_or_slow(*case)) for case in PIECE_CASES],
    ids=label,
)
def test_pieces_agree_with_their_references(name, move, x64):
    start, gradients = make_problem(name, np.float64, "rprop" not in name)
    reference = PIECES[name]
    settings = {**reference.required, **move}
    tx = getattr(gradtx, name)(**settings)
    ours = run(tx, gradients, start, pipeline_of(tx).links[0], downhill)
    takes_start = "start" in inspect.signature(reference.function).parameters
    on_directions = dataclasses.replace(
        reference,
        function=lambda g, x, **settings: reference.function(g, *[x] * takes_start, **settings),
    )
    wanted = wanted_steps(on_directions, gradients, start, settings)
    assert_close(ours, wanted, 1e-12, reference)


@each_engine
def test_the_learning_rate_can_be_overridden_at_the_call(entry, x64):
    """The rate of that call takes the constant's place, or the schedule's."""
    start, gradients = make_problem(entry.name, np.float64, entry.takes_complex)
    tx = entry.make()
    state, params, steps = tx.init(start), start, []
    overrides = [None, 0.02, 0.07, None] * (STEPS // 4)
    for g, override in zip(gradients, overrides, strict=True):
        extra = {} if override is None else {"learning_rate": override}
        updates, state = tx.update(g, state, params, **extra, **extras(entry, g, params))
        params = gradtx.apply_updates(params, updates)
        steps.append(updates)
        if (rates := rates_in(state)) and override is not None:
            assert set(rates) == {override}  # each part of a partition has one

    constant = {**entry.hyperparameters, **entry.probe}[entry.rate]

    def used(count):
        return constant if overrides[count] is None else overrides[count]

    takes_schedule = bool(rates_in(state))  # for RProp the rate is the first step's size only
    settings = {**entry.probe, entry.rate: used} if takes_schedule else entry.probe
    reference = OPTIMIZERS[entry.name]
    wanted = wanted_steps(reference, gradients, start, settings)
    assert_close(steps, wanted, 1e-12, reference)


def rates_in(state):
    """The learning rates that stand in a state, without those that a search found."""
    roles = zip(jax.tree.leaves(gradtx.state.roles(state)), jax.tree.leaves(state), strict=True)
    return [float(x) for role, x in roles if role.kind == "rate"]


@pytest.mark.parametrize(
    ("entry", "parameter"),
    list(
        first_of_each(
            lambda entry, parameter: parameter,
            [(e, p) for e in ENTRIES for p in e.hyperparameters if p in STORAGE],
        )
    ),
    ids=label,
)
def test_storage_in_fewer_bits_costs_their_rounding_only(entry, parameter, x64):
    start, gradients = make_problem(entry.name, np.float64, False, one_sign=True)
    tx = entry.make(**{parameter: jnp.float32})

    def slots(state):
        found, _ = jax.tree_util.tree_flatten_with_path(state)
        return [x for path, x in found if any(f"'{n}'" in str(path) for n in STORAGE[parameter])]

    first = slots(tx.init(start))
    assert first and {x.dtype for x in first} == {np.dtype(np.float32)}
    assert len(first) % len(start) == 0  # each slot of each leaf

    ours, reference = run(tx, gradients, start, entry), OPTIMIZERS[entry.name]
    wanted = wanted_steps(reference, gradients, start, entry.probe)
    # Each step rounds the slot once, by half an ulp; 20 steps make at most 10.
    bound = 10 * float(np.finfo(np.float32).eps)
    assert_close(ours, wanted, bound, reference)
    exact = slots(last_state(entry.make(), gradients, start, entry))
    for x, y in zip(slots(last_state(tx, gradients, start, entry)), exact, strict=True):
        np.testing.assert_allclose(x, y, rtol=bound)
        assert np.any(x != y)  # and it does cost that


# ---- What optax says ------------------------------------------------------------------------


def of_optax(name):
    return getattr(optax, name, None) or getattr(optax.contrib, name, None)


SHARED = [entry for entry in ENTRIES if of_optax(entry.name)]


# Arguments that optax's main branch has since the release with which we are compared.
SINCE = {
    "adabelief": {"weight_decay", "weight_decay_mask"},
    "prodigy": {"weight_decay_mask"},
}


@pytest.mark.parametrize("entry", SHARED, ids=by_name)
def test_signatures_are_those_of_optax(entry):
    def default(p):
        if hasattr(p.default, "update"):
            return "a transformation"
        known_schedule = isinstance(p.default, MadeSchedule)
        return "a function" if inspect.isfunction(p.default) or known_schedule else p.default

    def parameters(function):
        return [
            (p.name, p.kind, default(p)) for p in inspect.signature(function).parameters.values()
        ]

    since = SINCE.get(entry.name, set())
    ours, theirs = parameters(entry.factory), parameters(of_optax(entry.name))
    kept = [p for p in ours if p[0] not in since]
    assert kept[: len(theirs)] == theirs
    # An optimizer may take more than optax's, by name.
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in kept[len(theirs) :])


@pytest.mark.parametrize("name", sorted(name for name in PIECES if of_optax(name)))
def test_signatures_of_pieces_are_those_of_optax(name):
    # A piece may take more than optax's, behind it.
    theirs = list(inspect.signature(of_optax(name)).parameters.values())
    ours = list(inspect.signature(getattr(gradtx, name)).parameters.values())
    kept = [(p.name, p.kind) for p in ours[: len(theirs)]]
    assert kept == [(p.name, p.kind) for p in theirs]
    defaults = {p.name: p.default for p in ours}
    for p in theirs:
        if callable(p.default) and p.default is not p.empty:
            assert callable(defaults[p.name])  # the same function, of another's making
        elif p.default is not p.empty:
            assert defaults[p.name] == p.default


def steps_of(tx, start, gradients, needs=()):
    """All steps in one compiled call; gives them and the last parameters.

    What needs the loss as a function gets the gradients of one, in place of those given.
    """

    @jax.jit
    def scan(start, gradients):
        def step(carry, g):
            params, state = carry
            if {"value_fn", "obj_fn"} & set(needs):
                g = jax.tree.map(jnp.conj, jax.grad(sample_loss)(params))
            known = {"value": sample_loss(params), "grad": g}
            known |= {"value_fn": sample_loss, "obj_fn": sample_loss}
            more = {name: known[name] for name in needs}
            updates, state = tx.update(g, state, params, **more)
            return (jax.tree.map(jnp.add, params, updates), state), updates

        (params, _), steps = jax.lax.scan(step, (start, tx.init(start)), gradients)
        return steps, params

    return scan(start, gradients)


def long_problem(name, with_complex):
    start, gradients = make_problem(name, np.float64, with_complex)
    repeated = [{k: g[k] * (1 + i / 7) for k in g} for i in range(5) for g in gradients]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *repeated)
    return start, stacked


@pytest.mark.parametrize(
    ("entry", "settings"),
    list(
        first_of_each(
            lambda entry, settings: engines_of(entry),
            [
                (e, {**e.probe, **more})
                for e in SHARED
                for known in [known_differences(e.name)]
                if not known.always  # what the difference is has a test of its own
                for more in [{}] + [{e.rate: wave}] * (not e.fixed_rate)
                if not set(more) & {*known.when, *known.refuses}
            ],
        )
    ),
    ids=label,
)
def test_optax_agrees_over_100_steps(entry, settings, x64):
    known = known_differences(entry.name)
    elsewhere = "complex" in {*known.refuses, *known.when}
    with_complex = entry.takes_complex and not elsewhere
    start, gradients = long_problem(entry.name, with_complex)
    ours = steps_of(entry.factory(**settings), start, gradients, entry.needs)
    theirs = steps_of(of_optax(entry.name)(**settings), start, gradients, entry.needs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), ours, theirs
    )


def test_adadelta_turns_with_a_complex_gradient_where_optax_squares_it(x64):
    """A rule for complex numbers must not depend on where their angle is counted from."""
    start, gradients = {"z": jnp.zeros(2, complex)}, {"z": jnp.array([[3.0 + 4.0j, 1.0 - 2.0j]])}
    turned = {"z": 1j * gradients["z"]}

    def step(factory, g):
        return np.asarray(steps_of(factory(1.0), start, g)[0]["z"])

    ours, theirs = step(gradtx.adadelta, gradients), step(optax.adadelta, gradients)
    np.testing.assert_allclose(step(gradtx.adadelta, turned), 1j * ours, rtol=1e-12)
    assert not np.allclose(step(optax.adadelta, turned), 1j * theirs)


def test_rprop_follows_this_gradient_where_optax_follows_the_last(x64):
    start, gradients = long_problem("rprop", False)
    ours, _ = steps_of(gradtx.rprop(0.05), start, gradients)
    theirs, _ = steps_of(optax.rprop(0.05), start, gradients)
    for name in start:
        sign, last = np.sign(gradients[name][1:]), np.sign(gradients[name][:-1])
        step, other = np.asarray(ours[name])[1:], np.asarray(theirs[name])[1:]
        moved, others_moved = step != 0, other != 0
        np.testing.assert_array_equal(np.sign(step)[moved], -sign[moved])
        np.testing.assert_array_equal(np.sign(other)[others_moved], -last[others_moved])
        assert not np.allclose(step, other)
