"""Every optimizer against the papers: three steps by hand, many in NumPy, and optax's opinion."""

import inspect
import zlib
from math import sqrt

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references

import gradtx
from gradtx import catalog

ENTRIES = catalog.entries()
STEPS = 20


def by_name(entry):
    return entry.name


def test_every_optimizer_has_a_reference_and_three_steps_by_hand():
    assert sorted(references.OPTIMIZERS) == catalog.names()
    assert sorted(BY_HAND) == catalog.names()


def test_every_scale_piece_has_a_reference():
    pieces = {name for name in vars(gradtx) if name.startswith("scale_by_")} | {"trace"}
    assert set(references.PIECES) == pieces


# ---- Three steps by hand --------------------------------------------------------------------

# All with the gradients 2, 4, -2, the learning rates 0.1, 0.2, 0.3 where nothing else is said, and
# decays of 1/2, whose averages are
#   m = 1/2 m + 1/2 g:     1, 5/2, 1/4      weights 1 - 1/2^t: 1/2, 3/4, 7/8 (then 15/16)
#   v = 1/2 v + 1/2 g^2:   2, 9, 13/2       m_hat: 2, 10/3, 2/7     v_hat: 4, 12, 52/7
GRADIENTS = (2.0, 4.0, -2.0)
DECAYS = {"b1": 0.5, "b2": 0.5}

# x after two steps, with a decay of 1/2; it starts at 1.
# Beside Adam's direction 10/3 / sqrt(12) = 5 / sqrt(27):
X_ADAMW = 1 - 0.1 * (1 + 0.5) - 0.2 * (5 / sqrt(27) + 0.5 * 0.85)  # 0.85 - 0.2774500897 = 0.5725...
# beside AdaMax's 10/3 / 4 = 5/6:
X_ADAMAXW = 1 - 0.1 * (1 + 0.5) - 0.2 * (5 / 6 + 0.5 * 0.85)
# beside NAdam's, see there:
X_NADAMW = 1 - 0.1 * (4 / 3 + 0.5) - 0.2 * (86 / 21 / sqrt(12) + 0.5 * (1 - 11 / 60))

BY_HAND = {
    # u1 = sqrt(0 + 1) / sqrt(2 + 1) * 2, whose square 4/3 makes e_x = 2/3;
    # u2 = sqrt(2/3 + 1) / sqrt(9 + 1) * 4 = 4 / sqrt(6), whose square 8/3 makes e_x = 5/3;
    # u3 = sqrt(5/3 + 1) / sqrt(13/2 + 1) * -2 = -2 sqrt(16/45)
    "adadelta": (
        {"rho": 0.5, "eps": 1.0},
        (-0.1 * 2 / sqrt(3), -0.2 * 4 / sqrt(6), 0.3 * 8 / sqrt(45)),
    ),
    # sums from 1: 5, 21, 25
    "adagrad": (
        {"initial_accumulator_value": 1.0, "eps": 0.0},
        (-0.1 * 2 / sqrt(5), -0.2 * 4 / sqrt(21), 0.3 * 2 / 5),
    ),
    # m_hat / (sqrt(v_hat) + 1)
    "adam": (
        {**DECAYS, "eps": 1.0},
        (-0.1 * 2 / 3, -0.2 * 10 / 3 / (sqrt(12) + 1), -0.3 * 2 / 7 / (sqrt(52 / 7) + 1)),
    ),
    # u = max(u / 2, |g|): 2, 4, 2
    "adamax": (
        {**DECAYS, "eps": 0.0},
        (-0.1 * 2 / 2, -0.2 * 10 / 3 / 4, -0.3 * 2 / 7 / 2),
    ),
    "adamaxw": (
        {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
        (-0.15, -0.2 * (5 / 6 + 0.425), -0.3 * (1 / 7 + 0.5 * X_ADAMAXW)),
    ),
    # x: 1, 0.85, X_ADAMW; the direction's third is 2/7 / sqrt(52/7) = 1 / sqrt(91)
    "adamw": (
        {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
        (-0.15, -0.2 * (5 / sqrt(27) + 0.425), -0.3 * (1 / sqrt(91) + 0.5 * X_ADAMW)),
    ),
    # the largest v_hat: 4, 12, 12
    "amsgrad": (
        {**DECAYS, "eps": 0.0},
        (-0.1 * 2 / 2, -0.2 * 5 / sqrt(27), -0.3 * 2 / 7 / sqrt(12)),
    ),
    # v = -0.2; -0.1 - 0.8; -0.45 + 0.6
    "momentum": ({"decay": 0.5}, (-0.2, -0.9, 0.15)),
    # m_hat = m/2 / (1 - 1/2^(t+1)) + g/2 / (1 - 1/2^t): 2/3 + 2; 10/7 + 8/3; 2/15 - 8/7
    "nadam": (
        {**DECAYS, "eps": 0.0},
        (-0.1 * 8 / 3 / 2, -0.2 * 86 / 21 / sqrt(12), 0.3 * 106 / 105 / sqrt(52 / 7)),
    ),
    # the same; the first step is 0.1 * (4/3 + 1/2) = 11/60, which takes x to 49/60
    "nadamw": (
        {**DECAYS, "eps": 0.0, "weight_decay": 0.5},
        (
            -11 / 60,
            -0.2 * (86 / 21 / sqrt(12) + 49 / 120),
            0.3 * (106 / 105 / sqrt(52 / 7) - 0.5 * X_NADAMW),
        ),
    ),
    # v as in momentum; v/2 - lr g: -0.1 - 0.2; -0.45 - 0.8; 0.075 + 0.6
    "nesterov": ({"decay": 0.5}, (-0.3, -1.25, 0.675)),
    # v + 1: 3, 10, 15/2
    "rmsprop": (
        {"decay": 0.5, "eps": 1.0},
        (-0.1 * 2 / sqrt(3), -0.2 * 4 / sqrt(10), 0.3 * 2 / sqrt(7.5)),
    ),
    # sizes 0.1; 0.1 * 1.2 for the same sign; then the sign changes, and nothing moves
    "rprop": ({"learning_rate": 0.1}, (-0.1, -0.12, 0.0)),
    # v = 2; 1 + 4; 5/2 - 2
    "sgd": ({"momentum": 0.5}, (-0.1 * 2, -0.2 * 5, -0.3 * 0.5)),
    # m / sqrt(v)
    "uncorrected_adam": (
        {**DECAYS, "eps": 0.0},
        (-0.1 * 1 / sqrt(2), -0.2 * 2.5 / 3, -0.3 * 0.25 / sqrt(6.5)),
    ),
}


def tenths(count):
    return 0.1 * (count + 1)


@pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
def test_three_steps_by_hand(entry, x64):
    hyperparameters, wanted = BY_HAND[entry.name]
    hyperparameters = {"learning_rate": tenths, **hyperparameters}
    by_numpy = references.OPTIMIZERS[entry.name](
        [np.float64(g) for g in GRADIENTS], np.float64(1), **hyperparameters
    )
    np.testing.assert_allclose(by_numpy, wanted, rtol=1e-14)
    ours = run(entry.factory(**hyperparameters), [jnp.asarray(g) for g in GRADIENTS], jnp.ones(()))
    np.testing.assert_allclose(np.stack(ours), wanted, rtol=1e-14)


def test_rprop_after_a_change_of_sign(x64):
    # The gradient that changed its sign counts as 0, so the next one finds the size 0.06 unchanged,
    # and the one after that has its sign: 0.06 * 1.2.
    gradients = [jnp.asarray(g) for g in (2.0, 4.0, -2.0, -3.0, -1.0)]
    steps = run(gradtx.rprop(0.1), gradients, jnp.zeros(()))
    np.testing.assert_allclose(np.stack(steps), [-0.1, -0.12, 0.0, 0.06, 0.072], rtol=1e-14)


# ---- Many steps against NumPy ---------------------------------------------------------------


def wave(count):
    return 0.03 + 0.02 * (count % 3)


# What each hyperparameter is moved to, alone; a dict moves others with it, without which it would
# change nothing. A new hyperparameter that is missing here fails a test.
SCALED = {"momentum": 0.7}
DECAYING = {"weight_decay": 0.3}
MASK = {"b": False, "w": True, "z": True}
MOVED = {
    "learning_rate": [0.02, wave],
    "momentum": [None, 0.5],
    "nesterov": [{"nesterov": True}, {"nesterov": False}],
    "decay": [0.5, 0.0],
    "rho": [0.5],
    "b1": [0.5, 0.0],
    "b2": [0.9],
    "eps": [1e-2],
    "eps_root": [1e-2],
    "eps_in_sqrt": [{"eps_in_sqrt": False, "eps": 1e-2}],
    "initial_scale": [0.5],
    "initial_accumulator_value": [0.0, 2.0],
    "bias_correction": [True],
    "bias_correction_mu": [False],
    "bias_correction_nu": [False],
    "centered": [True],
    "weight_decay": [0.3],
    "mask": [{"mask": MASK, **DECAYING}, {"mask": lambda params: MASK_OF(params), **DECAYING}],
    "weight_decay_mask": [{"weight_decay_mask": MASK, **DECAYING}],
    "eta_minus": [0.3],
    "eta_plus": [1.5],
    "min_step_size": [0.04],
    "max_step_size": [0.055],
    "step_size_fn": [lambda count: 2.0 / (count + 1)],
    "flip_sign": [False],
}
STORAGE = ("mu_dtype", "accumulator_dtype")
"""Hyperparameters that the papers do not know; they have a test of their own."""
ALONE = {
    ("rprop", "learning_rate"): [0.02],  # a first step size, not a schedule
    ("scale_by_rprop", "learning_rate"): [0.02],
    # The variance is exactly 0 at the first step, where rounding is all there is of it.
    ("scale_by_stddev", "bias_correction"): [{"bias_correction": True, "eps": 100.0}],
    ("rmsprop", "nesterov"): [{"nesterov": True, **SCALED}],  # without momentum it says nothing
}


def MASK_OF(params):
    return {name: MASK[name] for name in params}


def moves(name, parameters):
    """The settings to try: the plain one, and each hyperparameter moved in turn."""
    yield {}
    for parameter in parameters:
        if parameter in STORAGE:
            continue
        for value in ALONE.get((name, parameter)) or MOVED[parameter]:
            yield value if isinstance(value, dict) else {parameter: value}


def label(x):
    if isinstance(x, dict):
        return ",".join(f"{k}={getattr(v, '__name__', v)}" for k, v in x.items()) or "plain"
    return getattr(x, "name", str(x)).replace(" ", "")


CASES = [(entry, move) for entry in ENTRIES for move in moves(entry.name, entry.hyperparameters)]

REQUIRED = {  # arguments of pieces that have no default
    "scale_by_rprop": {"learning_rate": 0.05},
    "scale_by_schedule": {"step_size_fn": wave},
    "scale_by_learning_rate": {"learning_rate": 0.1},
    "trace": {"decay": 0.9},
}
PIECE_CASES = [
    (name, move)
    for name in sorted(references.PIECES)
    for move in moves(name, inspect.signature(getattr(gradtx, name)).parameters)
]


def make_problem(name, dtype, with_complex, one_sign=False):
    """A start and gradients of widely different sizes, reproducibly; all float32 numbers.

    With `one_sign`, no sum of them cancels, so that every result has a relative error of its own.
    """
    random = np.random.default_rng(zlib.crc32(name.encode()))

    def draw(complex_too, shift):
        x = random.standard_normal(3) * 10.0 ** random.uniform(-1, 1, 3)
        x = (np.abs(x) + shift) if one_sign else x
        return (x + 1j * draw(False, shift) if complex_too else x).astype(np.complex64)

    def tree(shift):
        found = {"w": draw(False, shift).real, "b": draw(False, shift).real}
        if with_complex:
            found["z"] = draw(True, shift)
        return {k: v.astype(np.result_type(dtype, v.dtype)) for k, v in found.items()}

    return tree(5.0), [tree(0.0) for _ in range(STEPS)]


def run(tx, gradients, params, **extra):
    """Gives the steps that a transformation takes, one after another, called as users do."""
    state, steps = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(g, state, params, **extra)
        params = gradtx.apply_updates(params, updates)
        steps.append(updates)
    return steps


def wanted_steps(reference, gradients, start, settings):
    """Runs a reference on each leaf of a tree, in double."""
    settings = dict(settings)
    mask = next((settings.pop(k) for k in ("mask", "weight_decay_mask") if k in settings), None)
    mask = mask(start) if callable(mask) else mask
    steps = {}
    for name, x in start.items():
        wide = np.complex128 if np.iscomplexobj(x) else np.float64
        mine = settings if mask is None or mask[name] else {**settings, "weight_decay": 0.0}
        steps[name] = reference([g[name].astype(wide) for g in gradients], x.astype(wide), **mine)
    return [{name: steps[name][t] for name in start} for t in range(len(gradients))]


def assert_close(ours, wanted, relative):
    """Compares step by step; a complex number has one error, not one in each part."""
    assert len(ours) == len(wanted)
    for t, (a, b) in enumerate(zip(ours, wanted, strict=True)):
        assert sorted(a) == sorted(b)
        for name in b:
            np.testing.assert_allclose(
                np.asarray(a[name]), b[name], rtol=relative, err_msg=f"step {t}, leaf {name}"
            )


@pytest.mark.parametrize(("entry", "move"), CASES, ids=label)
def test_float64_agrees_with_the_reference(entry, move, x64):
    start, gradients = make_problem(entry.name, np.float64, entry.takes_complex)
    move = restrict_mask(move, start)
    settings = {**entry.probe, **move}
    ours = run(entry.factory(**settings), gradients, start)
    reference = references.OPTIMIZERS[entry.name]
    assert_close(ours, wanted_steps(reference, gradients, start, settings), 1e-12)


def restrict_mask(move, start):
    return {k: MASK_OF(start) if v is MASK else v for k, v in move.items()}


# An average of positive numbers takes four roundings of half an ulp a step (two products, their
# sum, and the decay itself as a float32 number), and carries them on with its own weight: over 20
# steps at most 40 ulps in a first moment, and half of that in the root of a second. RProp's sizes
# are products of up to 19 rounded factors: at most 19 ulps. Roundings go either way, though, and
# what is seen is below 8.
ULPS = 8


@pytest.mark.parametrize(("entry", "move"), CASES, ids=label)
def test_float32_agrees_with_the_reference_to_rounding(entry, move):
    start, gradients = make_problem(entry.name, np.float32, entry.takes_complex, one_sign=True)
    move = restrict_mask(move, start)
    settings = {**entry.probe, **move}
    ours = run(entry.factory(**settings), gradients, start)
    wanted = wanted_steps(references.OPTIMIZERS[entry.name], gradients, start, settings)
    assert all(u.dtype == x.dtype for u, x in zip(ours[0].values(), start.values(), strict=True))
    assert_close(ours, wanted, ULPS * float(np.finfo(np.float32).eps))


@pytest.mark.parametrize(("name", "move"), PIECE_CASES, ids=label)
def test_pieces_agree_with_their_references(name, move, x64):
    start, gradients = make_problem(name, np.float64, "rprop" not in name)
    settings = {**REQUIRED.get(name, {}), **move}
    ours = run(getattr(gradtx, name)(**settings), gradients, start)
    reference = references.PIECES[name]
    wanted = wanted_steps(lambda g, x, **kw: reference(g, **kw), gradients, start, settings)
    assert_close(ours, wanted, 1e-12)


@pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
def test_the_learning_rate_can_be_overridden_at_the_call(entry, x64):
    """The rate of that call takes the constant's place, or the schedule's."""
    start, gradients = make_problem(entry.name, np.float64, entry.takes_complex)
    tx = entry.make()
    state, params, steps = tx.init(start), start, []
    overrides = [None, 0.02, 0.07, None] * (STEPS // 4)
    for g, override in zip(gradients, overrides, strict=True):
        extra = {} if override is None else {"learning_rate": override}
        updates, state = tx.update(g, state, params, **extra)
        params = gradtx.apply_updates(params, updates)
        steps.append(updates)
        if (rates := rates_in(state)) and override is not None:
            assert rates == [override]

    constant = entry.probe.get("learning_rate", entry.hyperparameters["learning_rate"])

    def used(count):
        return constant if overrides[count] is None else overrides[count]

    takes_schedule = bool(rates_in(state))  # for RProp the rate is the first step's size only
    settings = {**entry.probe, "learning_rate": used} if takes_schedule else entry.probe
    wanted = wanted_steps(references.OPTIMIZERS[entry.name], gradients, start, settings)
    assert_close(steps, wanted, 1e-12)


def rates_in(state):
    """The learning rates that stand in a state."""
    found, _ = jax.tree_util.tree_flatten_with_path(state)
    return [float(x) for path, x in found if getattr(path[-1], "name", "") == "learning_rate"]


@pytest.mark.parametrize(
    ("entry", "parameter"),
    [(e, p) for e in ENTRIES for p in e.hyperparameters if p in STORAGE],
    ids=label,
)
def test_storage_in_fewer_bits_costs_their_rounding_only(entry, parameter, x64):
    start, gradients = make_problem(entry.name, np.float64, False, one_sign=True)
    tx = entry.make(**{parameter: jnp.float32})
    slot = {"mu_dtype": "mu", "accumulator_dtype": "trace"}[parameter]
    found, _ = jax.tree_util.tree_flatten_with_path(tx.init(start))
    dtypes = {(str(path), x.dtype) for path, x in found if f"name='{slot}'" in str(path)}
    assert len(dtypes) == 2 and {dtype for _, dtype in dtypes} == {np.dtype(np.float32)}

    ours = run(tx, gradients, start)
    wanted = wanted_steps(references.OPTIMIZERS[entry.name], gradients, start, entry.probe)
    # Each step rounds the slot once, by half an ulp; 20 steps make at most 10.
    assert_close(ours, wanted, 10 * float(np.finfo(np.float32).eps))
    with pytest.raises(AssertionError):  # and it does cost that
        assert_close(ours, wanted, 1e-12)


# ---- What optax says ------------------------------------------------------------------------

SHARED = [entry for entry in ENTRIES if hasattr(optax, entry.name)]


@pytest.mark.parametrize("entry", SHARED, ids=by_name)
def test_signatures_are_those_of_optax(entry):
    def parameters(function):
        return [
            (p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()
        ]

    assert parameters(entry.factory) == parameters(getattr(optax, entry.name))


@pytest.mark.parametrize("name", sorted(references.PIECES))
def test_signatures_of_pieces_are_those_of_optax(name):
    if not hasattr(optax, name):
        assert name == "scale_by_uncorrected_adam"  # ours alone
        return
    # A piece may take more than optax's, behind it.
    theirs = list(inspect.signature(getattr(optax, name)).parameters.values())
    ours = list(inspect.signature(getattr(gradtx, name)).parameters.values())
    kept = [(p.name, p.kind) for p in ours[: len(theirs)]]
    assert kept == [(p.name, p.kind) for p in theirs]
    defaults = {p.name: p.default for p in ours}
    for p in theirs:
        if p.default is not p.empty:
            assert defaults[p.name] == p.default


def steps_of(tx, start, gradients):
    """All steps in one compiled call; gives them and the last parameters."""

    @jax.jit
    def scan(start, gradients):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (jax.tree.map(jnp.add, params, updates), state), updates

        (params, _), steps = jax.lax.scan(step, (start, tx.init(start)), gradients)
        return steps, params

    return scan(start, gradients)


def long_problem(name, with_complex):
    start, gradients = make_problem(name, np.float64, with_complex)
    repeated = [{k: g[k] * (1 + i / 7) for k in g} for i in range(5) for g in gradients]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *repeated)
    return start, stacked


# Where optax is another rule; what the difference is has a test of its own.
DIFFERENT = {"rprop"}
DIFFERENT_ON_COMPLEX = {"adadelta"}


@pytest.mark.parametrize(
    ("entry", "settings"),
    [
        (e, {**e.probe, **more})
        for e in SHARED
        if e.name not in DIFFERENT
        for more in ({}, {"learning_rate": wave})
    ],
    ids=label,
)
def test_optax_agrees_over_100_steps(entry, settings, x64):
    with_complex = entry.takes_complex and entry.name not in DIFFERENT_ON_COMPLEX
    start, gradients = long_problem(entry.name, with_complex)
    ours = steps_of(entry.factory(**settings), start, gradients)
    theirs = steps_of(getattr(optax, entry.name)(**settings), start, gradients)
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
