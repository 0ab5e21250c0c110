"""Schedules against their equations in float64 NumPy, and against optax where both have them."""

import inspect
import math
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from representatives import first_of_each

from gradtx import schedules
from gradtx.engine.base import Scalar
from gradtx.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    cosine_restarts_schedule,
    exponential_decay,
    inverse_time_decay_schedule,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    natural_exp_decay_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    rectified_schedule,
    sgdr_schedule,
    step_decay_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule,
)

LAST = 2**31 - 1

# ---- The equations, one number at a time, as written in the papers --------------------------


def ref_constant(t, value):
    return value


def ref_polynomial(t, init_value, end_value, power, transition_steps, transition_begin=0):
    if transition_steps <= 0:
        return init_value
    p = min(max((t - transition_begin) / transition_steps, 0.0), 1.0)
    return end_value + (init_value - end_value) * (1 - p) ** power


def ref_linear(t, init_value, end_value, transition_steps, transition_begin=0):
    return ref_polynomial(t, init_value, end_value, 1, transition_steps, transition_begin)


def ref_exponential(
    t,
    init_value,
    transition_steps,
    decay_rate,
    transition_begin=0,
    staircase=False,
    end_value=None,
):
    if transition_steps <= 0 or decay_rate == 0:
        return init_value
    p = max(t - transition_begin, 0) / transition_steps
    value = init_value * decay_rate ** (math.floor(p) if staircase else p)
    if end_value is None:
        return value
    return max(value, end_value) if decay_rate < 1 else min(value, end_value)


def ref_cosine(t, init_value, decay_steps, alpha=0.0, exponent=1.0):
    w = (1 + math.cos(math.pi * min(t, decay_steps) / decay_steps)) / 2
    return init_value * ((1 - alpha) * w**exponent + alpha)


def ref_warmup_constant(t, init_value, peak_value, warmup_steps):
    if t >= warmup_steps:
        return peak_value
    return init_value + (peak_value - init_value) * t / warmup_steps


def ref_warmup_cosine(
    t, init_value, peak_value, warmup_steps, decay_steps, end_value=0.0, exponent=1.0
):
    if t < warmup_steps:
        return ref_warmup_constant(t, init_value, peak_value, warmup_steps)
    if peak_value == 0:
        return 0.0
    p = min((t - warmup_steps) / (decay_steps - warmup_steps), 1.0)
    return end_value + (peak_value - end_value) * ((1 + math.cos(math.pi * p)) / 2) ** exponent


def ref_warmup_exponential(
    t,
    init_value,
    peak_value,
    warmup_steps,
    transition_steps,
    decay_rate,
    transition_begin=0,
    staircase=False,
    end_value=None,
):
    if t < warmup_steps:
        return ref_warmup_constant(t, init_value, peak_value, warmup_steps)
    decay = (peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return ref_exponential(t - warmup_steps, *decay)


def ref_piecewise_constant(t, init_value, boundaries_and_scales=None):
    value = init_value
    for boundary, scale in (boundaries_and_scales or {}).items():
        value *= scale if t >= boundary else 1
    return value


def ref_through(t, interpolate_type, points):
    """Through `(step, value)` points in order; of two at one step, the later holds."""
    for (a, start), (b, end) in pairwise(points):
        if a <= t < b:
            p = (t - a) / (b - a)
            c = p if interpolate_type == "linear" else (1 - math.cos(math.pi * p)) / 2
            return start + (end - start) * c
    return points[-1][1]


def ref_piecewise_interpolate(t, interpolate_type, init_value, boundaries_and_scales=None):
    points = [(0, init_value)]
    for boundary, scale in sorted((boundaries_and_scales or {}).items()):
        points.append((boundary, points[-1][1] * scale))
    return ref_through(t, interpolate_type, points)


def ref_linear_onecycle(
    t,
    transition_steps,
    peak_value,
    pct_start=0.3,
    pct_final=0.85,
    div_factor=25.0,
    final_div_factor=1e4,
):
    first = peak_value / div_factor
    up, down = int(pct_start * transition_steps), int(pct_final * transition_steps)
    end = (transition_steps, first / final_div_factor)
    return ref_through(t, "linear", [(0, first), (up, peak_value), (down, first), end])


def ref_cosine_onecycle(
    t, transition_steps, peak_value, pct_start=0.3, div_factor=25.0, final_div_factor=1e4
):
    first = peak_value / div_factor
    peak = (int(pct_start * transition_steps), peak_value)
    end = (transition_steps, first / final_div_factor)
    return ref_through(t, "cosine", [(0, first), peak, end])


def ref_sgdr(t, cosine_kwargs):
    for kwargs in cosine_kwargs[:-1]:
        if t < kwargs["decay_steps"]:
            return ref_warmup_cosine(t, **kwargs)
        t -= kwargs["decay_steps"]
    return ref_warmup_cosine(t, **cosine_kwargs[-1])


def ref_restarts(t, peak_value, period, period_mult=1, end_value=0.0):
    """Unrolled: subtracts one period after another."""
    if period_mult == 1:
        t %= period
    while t >= period:
        t -= period
        period *= period_mult
    return end_value + (peak_value - end_value) * (1 + math.cos(math.pi * t / period)) / 2


def ref_wsd(
    t,
    init_value,
    peak_value,
    warmup_steps,
    stable_steps,
    decay_steps,
    end_value=0.0,
    decay_type="sqrt",
):
    if t < warmup_steps + stable_steps:
        return ref_warmup_constant(t, init_value, peak_value, warmup_steps)
    p = min((t - warmup_steps - stable_steps) / decay_steps, 1.0)
    if decay_type == "exponential":
        return peak_value * (end_value / peak_value) ** p
    c = {
        "linear": 1 - p,
        "sqrt": 1 - math.sqrt(p),
        "cosine": (1 + math.cos(math.pi * p)) / 2,
    }[decay_type]
    return end_value + (peak_value - end_value) * c


def ref_step_decay(t, init_value, period, factor=0.5):
    return init_value * factor ** (t // period)


def ref_natural_exp(t, init_value, rate):
    return init_value * math.exp(-rate * t)


def ref_inverse_time(t, init_value, rate):
    return init_value / (1 + rate * t)


def ref_rectified(t, value, b2):
    """Liu et al., arXiv:1908.03265: the length of the plain average of the same mean age."""
    ages, weights = np.arange(1, t + 2), float(b2) ** np.arange(t + 1)
    rho, rho_inf = 2 * np.sum(ages * weights) / np.sum(weights) - 1, 2 / (1 - b2) - 1
    if rho <= 4:
        return 0.0
    r = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    return value * math.sqrt(r)


# ---- What is tried: a setting, and each of its arguments moved in turn ----------------------

CYCLES = [
    {
        "init_value": 0.0,
        "peak_value": 1.6,
        "warmup_steps": 3,
        "decay_steps": 10,
        "end_value": 0.1,
    },
    {"init_value": 0.1, "peak_value": 0.8, "warmup_steps": 0, "decay_steps": 7, "exponent": 2.0},
    {"init_value": 0.0, "peak_value": 0.4, "warmup_steps": 5, "decay_steps": 20},
]
TABLE = {
    constant_schedule: (ref_constant, {"value": 0.3}, {"value": [0, 1, -2.5]}),
    polynomial_schedule: (
        ref_polynomial,
        {"init_value": 0.3, "end_value": 0.1, "power": 2, "transition_steps": 20},
        {
            "init_value": [0.0, -1.0, 2],
            "end_value": [0.0, -1.0, 2],
            "power": [0, 0.5, 1, 1.7, 3],
            "transition_steps": [-1, 0, 1, 2, 33, 12.5],
            "transition_begin": [1, 7],
        },
    ),
    linear_schedule: (
        ref_linear,
        {"init_value": 0.3, "end_value": 0.1, "transition_steps": 20},
        {
            "init_value": [0.0, -1.0, 2],
            "end_value": [0.0, 0.3, 2],
            "transition_steps": [-1, 0, 1, 2, 33],
            "transition_begin": [1, 7],
        },
    ),
    exponential_decay: (
        ref_exponential,
        {"init_value": 0.3, "transition_steps": 5, "decay_rate": 0.7},
        {
            "init_value": [0.0, -1.0, 2],
            "transition_steps": [-1, 0, 1, 2, 33, 2.5],
            "decay_rate": [0, 0.0, 0.1, 1.0, 1.1],
            "transition_begin": [1, 7],
            "staircase": [True],
            "end_value": [0.0, 0.1, 0.3, 1.0],
        },
    ),
    cosine_decay_schedule: (
        ref_cosine,
        {"init_value": 0.3, "decay_steps": 20},
        {
            "init_value": [0.0, -1.0, 2],
            "decay_steps": [1, 2, 33, 12.5],
            "alpha": [0.1, 1.0, 2.0],
            "exponent": [0, 0.5, 2, 3.3],
        },
    ),
    warmup_constant_schedule: (
        ref_warmup_constant,
        {"init_value": 0.1, "peak_value": 0.3, "warmup_steps": 10},
        {"init_value": [0.0, 1.0], "peak_value": [0.0, -1.0], "warmup_steps": [0, 1, 2, 31]},
    ),
    warmup_cosine_decay_schedule: (
        ref_warmup_cosine,
        {"init_value": 0.1, "peak_value": 0.3, "warmup_steps": 10, "decay_steps": 30},
        {
            "init_value": [0.0, 1.0],
            "peak_value": [0.0, -1.0],
            "warmup_steps": [0, 1, 29],
            "decay_steps": [11, 12, 40],
            "end_value": [0.05, 1.0],
            "exponent": [0, 0.5, 2],
        },
    ),
    warmup_exponential_decay_schedule: (
        ref_warmup_exponential,
        {
            "init_value": 0.1,
            "peak_value": 0.3,
            "warmup_steps": 10,
            "transition_steps": 5,
            "decay_rate": 0.7,
        },
        {
            "init_value": [0.0, 1.0],
            "peak_value": [0.0, -1.0],
            "warmup_steps": [0, 1, 31],
            "transition_steps": [-1, 0, 1, 2.5],
            "decay_rate": [0, 1.0, 1.1],
            "transition_begin": [1, 7],
            "staircase": [True],
            "end_value": [0.0, 0.1, 1.0],
        },
    ),
    piecewise_constant_schedule: (
        ref_piecewise_constant,
        {"init_value": 0.3, "boundaries_and_scales": {5: 0.5, 20: 0.1}},
        {
            "init_value": [0.0, -1.0, 2],
            "boundaries_and_scales": [None, {}, {0: 2.0, 1: 3}, {20: 2, 7: 0.0}, {2.5: 0.1}],
        },
    ),
    piecewise_interpolate_schedule: (
        ref_piecewise_interpolate,
        {
            "interpolate_type": "linear",
            "init_value": 0.3,
            "boundaries_and_scales": {5: 0.5, 20: 3.0},
        },
        {
            "interpolate_type": ["cosine"],
            "init_value": [0.0, -1.0, 2],
            "boundaries_and_scales": [None, {}, {0: 2.0, 1: 3}, {20: 2, 7: 0.0}, {2.5: 0.1}],
        },
    ),
    linear_onecycle_schedule: (
        ref_linear_onecycle,
        {"transition_steps": 30, "peak_value": 0.3},
        {
            "transition_steps": [1, 2, 3, 7, 41],
            "peak_value": [0.0, -1.0, 2],
            "pct_start": [0.0, 0.5, 0.85],
            "pct_final": [0.3, 0.5, 1.0],
            "div_factor": [0.5, 1, 10.0],
            "final_div_factor": [0.5, 1, 10.0],
        },
    ),
    cosine_onecycle_schedule: (
        ref_cosine_onecycle,
        {"transition_steps": 30, "peak_value": 0.3},
        {
            "transition_steps": [1, 2, 3, 7, 41],
            "peak_value": [0.0, -1.0, 2],
            "pct_start": [0.0, 0.5, 1.0],
            "div_factor": [0.5, 1, 10.0],
            "final_div_factor": [0.5, 1, 10.0],
        },
    ),
    sgdr_schedule: (
        ref_sgdr,
        {"cosine_kwargs": CYCLES},
        {"cosine_kwargs": [CYCLES[:1], CYCLES[1:], CYCLES[::-1]]},
    ),
    cosine_restarts_schedule: (
        ref_restarts,
        {"peak_value": 0.3, "period": 6},
        {
            "peak_value": [0.0, -1.0, 2],
            "period": [1, 2, 50],
            "period_mult": [2, 3],
            "end_value": [0.1, 0.3],
        },
    ),
    warmup_stable_decay_schedule: (
        ref_wsd,
        {
            "init_value": 0.1,
            "peak_value": 0.3,
            "warmup_steps": 5,
            "stable_steps": 12,
            "decay_steps": 20,
            "end_value": 0.01,
        },
        {
            "init_value": [0.0, 1.0],
            "peak_value": [0.0, -1.0],
            "warmup_steps": [0, 1],
            "stable_steps": [0, 1],
            "decay_steps": [1, 2],
            "end_value": [0.0, 0.3],
            "decay_type": ["linear", "cosine", "exponential"],
        },
    ),
    step_decay_schedule: (
        ref_step_decay,
        {"init_value": 0.3, "period": 6},
        {"init_value": [0.0, -1.0, 2], "period": [1, 2, 2.5, 50], "factor": [0, 0.1, 1.0, 2]},
    ),
    natural_exp_decay_schedule: (
        ref_natural_exp,
        {"init_value": 0.3, "rate": 0.1},
        {"init_value": [0.0, -1.0, 2], "rate": [0, 0.01, 3.0]},
    ),
    inverse_time_decay_schedule: (
        ref_inverse_time,
        {"init_value": 0.3, "rate": 0.1},
        {"init_value": [0.0, -1.0, 2], "rate": [0, 0.01, 3.0]},
    ),
    rectified_schedule: (
        ref_rectified,
        {"value": 0.3, "b2": 0.9},
        {"value": [0.0, -1.0, 2], "b2": [0.0, 0.5, 0.7, 0.99]},
    ),
}
STEPS = range(46)  # past every boundary of the table, and each of them


def moved(factory):
    """The table's setting for a schedule, then each argument moved in turn."""
    _, base, moves = TABLE[factory]
    return [base, *({**base, name: x} for name, values in moves.items() for x in values)]


def changed(factory, kwargs):
    """The schedule, with the arguments in which a setting differs from the table's."""
    base = TABLE[factory][1]
    return factory, *(name for name, x in kwargs.items() if x is not base.get(name))


CASES = [
    pytest.param(factory, kwargs, id=f"{factory.__name__}-{i}")
    for factory in TABLE
    for i, kwargs in enumerate(moved(factory))
]
BASE_CASES = list(first_of_each(lambda factory, kwargs: factory, CASES))
BASES = [pytest.param(f, TABLE[f][1], id=f.__name__) for f in TABLE]


def many(schedule, steps, dtype=jnp.int32):
    return jax.jit(jax.vmap(schedule))(jnp.asarray(steps, dtype))


def test_table_has_every_public_schedule():
    public = {x for x in vars(schedules).values() if inspect.isfunction(x)}
    wrappers = {x for x in public if x.__module__ == "gradtx.schedules.inject"}  # of optimizers
    assert public - wrappers == {*TABLE, join_schedules}


@pytest.mark.parametrize(("factory", "kwargs"), list(first_of_each(changed, CASES)))
def test_is_its_equation(factory, kwargs):
    reference = [TABLE[factory][0](t, **kwargs) for t in STEPS]
    with jax.enable_x64(True):
        values = many(factory(**kwargs), STEPS)
        assert values.dtype == np.float64
    # In float64 the equation itself has a rounding error of 1e-16 of the greatest value.
    scale = np.max(np.abs(reference))
    np.testing.assert_allclose(values, reference, rtol=1e-12, atol=1e-16 * scale)

    single = many(factory(**kwargs), STEPS)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, reference, rtol=2e-6, atol=1e-7 * scale)


def differs_from_optax(factory, kwargs):
    """Says where optax is not followed on purpose."""
    if factory is warmup_constant_schedule:
        return kwargs["warmup_steps"] == 0  # optax stays at init_value for good
    if factory in (linear_onecycle_schedule, cosine_onecycle_schedule):
        # When two turns of the cycle fall on one step, optax forgets the first: the peak is never
        # reached, and the cycle ends at some other value than the one asked for.
        given = {"pct_start": 0.3, "pct_final": 0.85, **kwargs}
        names = ["pct_start", "pct_final"] if factory is linear_onecycle_schedule else ["pct_start"]
        turns = [int(given[n] * given["transition_steps"]) for n in names]
        turns.append(given["transition_steps"])
        return len(set(turns)) < len(turns)
    return False


@pytest.mark.parametrize(
    ("factory", "kwargs"), [c for c in BASE_CASES if hasattr(optax, c.values[0].__name__)]
)
def test_agrees_with_optax(factory, kwargs):
    with jax.enable_x64(True):
        ours = many(factory(**kwargs), STEPS)
        # With int32 counts optax computes some schedules in float32, whatever the mode. Its
        # polynomials of fractional powers, compiled, are NaN past their end: a base is negative.
        schedule = getattr(optax, factory.__name__)(**kwargs)
        theirs = jax.vmap(schedule)(jnp.asarray(STEPS, jnp.int64))
    same = np.isclose(ours, theirs, rtol=1e-12, atol=1e-16 * np.max(np.abs(theirs)))
    if differs_from_optax(factory, kwargs):
        assert not same.all()  # if optax changes its mind, this list should say so
    else:
        np.testing.assert_array_equal(ours[~same], theirs[~same])


@pytest.mark.parametrize("factory", [f for f in TABLE if hasattr(optax, f.__name__)])
def test_signature_is_optax_s(factory):
    def described(function):
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    assert described(factory) == described(getattr(optax, factory.__name__))


# ---- As functions of the count --------------------------------------------------------------


def as_it_is(schedule):
    return schedule


@pytest.mark.parametrize("way", [jax.jit, pytest.param(as_it_is, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("factory", "kwargs"), BASES)
def test_any_kind_of_count(factory, kwargs, way):
    schedule = factory(**kwargs)
    expected = many(schedule, STEPS)
    call = way(schedule)
    for t in (0, 1, 5, 20, 45):
        value = schedule(t)
        assert value.shape == () and value.dtype == jnp.float32 and not value.weak_type
        for same in (call(jnp.int32(t)), call(np.int64(t)), call(float(t)), call(t)):
            assert same.dtype == jnp.float32
            np.testing.assert_allclose(same, value, rtol=2e-6, atol=1e-9)
        np.testing.assert_allclose(expected[t], value, rtol=1e-6, atol=1e-9)
    whole_range = call(jnp.arange(46))  # an array of counts, without vmap
    np.testing.assert_allclose(whole_range, expected, rtol=1e-6, atol=1e-9)
    with jax.enable_x64(True):
        assert call(3).dtype == call(jnp.int32(3)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("schedule", "first", "end", "last"),
    [
        (linear_schedule(0.3, 0.1, 20), 0.3, 20, 0.1),
        (polynomial_schedule(0.3, 0.1, 3, 20, 5), 0.3, 25, 0.1),
        (cosine_decay_schedule(0.3, 20), 0.3, 20, 0.0),
        (cosine_decay_schedule(0.7, 20, alpha=0.5, exponent=2), 0.7, 20, 0.35),
        (cosine_decay_schedule(0.7, 1), 0.7, 1, 0.0),
        (exponential_decay(0.7, 3, 0.5, end_value=0.1), 0.7, 9, 0.1),
        (warmup_constant_schedule(0.1, 0.7, 9), 0.1, 9, 0.7),
        (warmup_cosine_decay_schedule(0.1, 0.7, 9, 20, 0.01), 0.1, 20, 0.01),
        (warmup_exponential_decay_schedule(0.1, 0.7, 9, 2, 0.5, end_value=0.3), 0.1, 12, 0.3),
        (piecewise_constant_schedule(0.7, {9: 0.5}), 0.7, 9, 0.35),
        (piecewise_interpolate_schedule("cosine", 0.7, {9: 0.5}), 0.7, 9, 0.35),
        (linear_onecycle_schedule(20, 0.7, div_factor=7, final_div_factor=10), 0.1, 20, 0.01),
        (cosine_onecycle_schedule(20, 0.7, div_factor=7, final_div_factor=10), 0.1, 20, 0.01),
        (sgdr_schedule(CYCLES), 0.0, 37, 0.0),
        *(
            (warmup_stable_decay_schedule(0.1, 0.7, 3, 5, 7, 0.01, kind), 0.1, 15, 0.01)
            for kind in ("linear", "sqrt", "cosine", "exponential")
        ),
    ],
)
def test_ends_are_exact_and_held(schedule, first, end, last):
    assert schedule(0) == jnp.float32(first)
    held = np.asarray(many(schedule, [end, end + 1, 2 * end, 10**6, 2**30, LAST - 1, LAST]))
    np.testing.assert_array_equal(held, np.float32(last))


@pytest.mark.parametrize(("factory", "kwargs"), BASE_CASES)
def test_last_count_is_finite(factory, kwargs):
    assert jnp.isfinite(factory(**kwargs)(jnp.int32(LAST)))


@pytest.mark.parametrize(
    ("factory", "kwargs"),
    [
        (polynomial_schedule, {"power": 2, "init_value": 1.0, "end_value": 0.1}),
        (linear_schedule, {"init_value": 1.0, "end_value": 0.0}),
    ],
)
@pytest.mark.parametrize(
    ("steps", "begin"), [(2**31 + 2**30, 0), (10, LAST - 6), (10, 2**24 + 1), (10**10, 2**40)]
)
def test_late_transitions_are_accurate(factory, kwargs, steps, begin):
    schedule = factory(**kwargs, transition_steps=steps, transition_begin=begin)
    for t in (0, 2**24, 2**24 + 2, 2**24 + 6, 2**24 + 12, LAST - 6, LAST - 3, LAST):
        reference = TABLE[factory][0](t, **kwargs, transition_steps=steps, transition_begin=begin)
        np.testing.assert_allclose(schedule(jnp.int32(t)), reference, rtol=3e-6)


@pytest.mark.parametrize(
    ("factory", "kwargs"),
    [
        (exponential_decay, {"init_value": 1.0, "transition_steps": 10**9, "decay_rate": 0.5}),
        (
            exponential_decay,
            {
                "init_value": 1.0,
                "transition_steps": 10,
                "decay_rate": 0.5,
                "transition_begin": LAST - 25,
                "staircase": True,
            },
        ),
        (step_decay_schedule, {"init_value": 1.0, "period": LAST - 3}),
        (step_decay_schedule, {"init_value": 1.0, "period": 2**33}),
        (natural_exp_decay_schedule, {"init_value": 1.0, "rate": 1e-9}),
        (inverse_time_decay_schedule, {"init_value": 1.0, "rate": 1e-9}),
        (cosine_decay_schedule, {"init_value": 1.0, "decay_steps": 3 * 10**9}),
        (
            warmup_cosine_decay_schedule,
            {
                "init_value": 0.0,
                "peak_value": 1.0,
                "warmup_steps": LAST - 10,
                "decay_steps": LAST + 20,
            },
        ),
        (
            piecewise_interpolate_schedule,
            {
                "interpolate_type": "cosine",
                "init_value": 1.0,
                "boundaries_and_scales": {LAST - 9: 0.5, LAST: 0.1},
            },
        ),
        (piecewise_constant_schedule, {"init_value": 1.0, "boundaries_and_scales": {LAST: 0.1}}),
        (linear_onecycle_schedule, {"transition_steps": LAST, "peak_value": 1.0}),
        (cosine_onecycle_schedule, {"transition_steps": 2**33, "peak_value": 1.0}),
        (
            warmup_stable_decay_schedule,
            {
                "init_value": 0.0,
                "peak_value": 1.0,
                "warmup_steps": 10,
                "stable_steps": LAST - 20,
                "decay_steps": 20,
            },
        ),
    ],
)
def test_large_counts_are_accurate(factory, kwargs):
    schedule = factory(**kwargs)
    for t in (0, 1, 10**8, 2**30 + 1, LAST - 13, LAST - 9, LAST - 3, LAST - 1, LAST):
        reference = TABLE[factory][0](t, **kwargs)
        np.testing.assert_allclose(schedule(jnp.int32(t)), reference, rtol=3e-6, atol=1e-9)


# ---- Hyperparameters that are arrays or tracers ---------------------------------------------

NEVER_TRACED = {
    linear_onecycle_schedule: {"transition_steps", "pct_start", "pct_final"},
    cosine_onecycle_schedule: {"transition_steps", "pct_start"},
    cosine_restarts_schedule: {"period", "period_mult"},
}


def traceable(factory, kwargs):
    never = NEVER_TRACED.get(factory, set())
    return {
        name: x
        for name, x in kwargs.items()
        if isinstance(x, (int, float)) and not isinstance(x, bool) and name not in never
    }


@pytest.mark.parametrize(
    ("factory", "kwargs"),
    [c for c in BASE_CASES if traceable(*c.values)],
)
def test_traced_hyperparameters(factory, kwargs):
    steps = jnp.asarray([0, 1, 5, 9, 10, 17, 30, 45])
    numbers = traceable(factory, kwargs)
    rest = {name: x for name, x in kwargs.items() if name not in numbers}
    with jax.enable_x64(True):
        expected = many(factory(**kwargs), steps)
        arrays = {name: jnp.asarray(x) for name, x in numbers.items()}

        def traced(arrays):  # no Python decision hangs on their values
            return many(factory(**arrays, **rest), steps)

        np.testing.assert_allclose(jax.jit(traced)(arrays), expected, rtol=1e-12, atol=1e-16)
        floats = jax.tree.map(lambda x: x.astype(float), arrays)
        slopes = jax.jit(jax.jacrev(traced))(floats)
        for name, slope in slopes.items():
            assert np.isfinite(slope).all(), name


@pytest.mark.parametrize(("factory", "kwargs"), [c for c in BASES if traceable(*c.values)])
def test_gradients_with_respect_to_hyperparameters(factory, kwargs):
    values = {name: x for name, x in traceable(factory, kwargs).items() if isinstance(x, float)}
    rest = {name: x for name, x in kwargs.items() if name not in values}
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(lambda v, t: factory(**v, **rest)(t)))
        for t in (2, 7, 11, 44):
            slopes = gradient(values, t)
            for name, slope in slopes.items():
                h = 1e-6
                up, down = (
                    TABLE[factory][0](t, **{**kwargs, name: values[name] + d}) for d in (h, -h)
                )
                np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-6, atol=1e-9)


def test_vmap_over_hyperparameters_and_steps():
    rates = jnp.array([0.1, 0.2, 0.4])
    lengths = jnp.array([10, 0, 40])

    def curve(rate, length):  # without jit: to the bit
        return jax.vmap(linear_schedule(rate, 0.0, length))(jnp.asarray(STEPS))

    for row, rate, length in zip(jax.vmap(curve)(rates, lengths), rates, lengths, strict=True):
        np.testing.assert_array_equal(row, curve(rate, int(length)))


def test_half_precision_hyperparameters_are_not_arithmetic_in_half():
    start, end = jnp.bfloat16(1.0), jnp.bfloat16(0.01)
    value = linear_schedule(start, end, 100)(50)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, (1.0 + float(end)) / 2, rtol=1e-6)


# ---- Joining --------------------------------------------------------------------------------


def test_join_follows_each_from_its_own_start():
    parts = [linear_schedule(0.0, 1.0, 4), constant_schedule(2.0), lambda t: 0.5**t]
    values = many(join_schedules(parts, [4, 7]), range(10))
    np.testing.assert_allclose(values, [0, 0.25, 0.5, 0.75, 2, 2, 2, 1, 0.5, 0.25], rtol=1e-6)


def test_join_traced_and_far_boundaries():
    parts = [constant_schedule(x) for x in (1.0, 2.0, 3.0)]

    def at(boundaries, t):
        return join_schedules(parts, boundaries)(t)

    for t in range(8):
        expected = 1.0 + (t >= 3) + (t >= 5)
        assert jax.jit(at)([jnp.int32(3), jnp.int32(5)], t) == expected
        assert at([2.5, 5.0], t) == expected
    assert at([LAST, 2**40], LAST - 1) == 1.0
    assert at([LAST, 2**40], LAST) == 2.0
    assert at([0, 0], 0) == 3.0


def test_join_never_asks_for_a_negative_step():
    inverse_sqrt = lambda t: 1 / jnp.sqrt(t + 1.0)  # noqa: E731
    rate = join_schedules([linear_schedule(0.0, 1.0, 4), inverse_sqrt], [4])
    slope = jax.grad(lambda scale: scale * rate(1) + rate(5) * 0)(1.0)
    assert slope == 0.25
    seen = []

    def watched(t):
        seen.append(int(t))
        return 0.0

    join_schedules([constant_schedule(1.0), watched], [5])(jnp.int32(2))
    assert seen == [0]


def test_join_agrees_with_optax():
    parts = [(0.0, 1.0, 5), (1.0, 0.5, 10), (0.5, 0.0, 7)]
    with jax.enable_x64(True):
        ours = join_schedules([linear_schedule(*p) for p in parts], [5, 15])
        theirs = optax.join_schedules([optax.linear_schedule(*p) for p in parts], [5, 15])
        expected = many(theirs, STEPS, jnp.int64)
        np.testing.assert_allclose(many(ours, STEPS), expected, rtol=1e-12, atol=1e-16)


# ---- The papers' and textbooks' rules -------------------------------------------------------


@pytest.mark.parametrize(("epochs", "factor"), [(5, 0.5), (20, 0.1)])
def test_step_decay_by_period_and_by_boundaries(epochs, factor):
    steps_per_epoch = 7
    by_period = step_decay_schedule(0.2, epochs * steps_per_epoch, factor)
    boundaries = {i * epochs * steps_per_epoch: factor for i in range(1, 4)}
    by_boundaries = piecewise_constant_schedule(0.2, boundaries)
    steps = np.arange(4 * epochs * steps_per_epoch)
    expected = 0.2 * factor ** (steps // steps_per_epoch // epochs)
    np.testing.assert_allclose(many(by_period, steps), expected, rtol=1e-6)
    np.testing.assert_allclose(many(by_boundaries, steps), expected, rtol=1e-6)


@pytest.mark.parametrize(("period", "period_mult"), [(1, 2), (10, 2), (7, 3), (1000, 10), (3, 1)])
def test_every_restart_is_exact_as_far_as_int32_counts(period, period_mult):
    rate = cosine_restarts_schedule(1.0, period, period_mult, end_value=0.25)
    starts, length = [0], period
    while starts[-1] + length <= LAST and len(starts) < 50:
        starts.append(starts[-1] + length)
        length *= period_mult
    assert len(starts) > 6
    np.testing.assert_array_equal(many(rate, starts), 1.0)
    for start, following in pairwise(starts):
        length = following - start
        last = 0.25 + 0.75 * math.sin(math.pi / 2 / length) ** 2
        np.testing.assert_allclose(rate(following - 1), last, rtol=1e-6)
        if length % 2 == 0:
            np.testing.assert_allclose(rate(start + length // 2), 0.625, rtol=1e-6)
    # In the cycle that int32 cuts off, against the paper's unrolled form.
    np.testing.assert_allclose(
        rate(LAST), ref_restarts(LAST, 1.0, period, period_mult, 0.25), rtol=1e-5
    )


def test_restarts_are_sgdr_with_growing_cycles():
    cycles = [
        {"init_value": 1.0, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 5 * 2**i}
        for i in range(4)
    ]
    unrolled, closed = sgdr_schedule(cycles), cosine_restarts_schedule(1.0, 5, 2)
    steps = np.arange(75)
    np.testing.assert_allclose(many(closed, steps), many(unrolled, steps), rtol=1e-5, atol=1e-9)


def test_forms_of_the_exponential_decay_agree():
    natural = natural_exp_decay_schedule(0.3, 0.07)
    per_step = exponential_decay(0.3, 1, math.exp(-0.07))
    np.testing.assert_allclose(many(natural, STEPS), many(per_step, STEPS), rtol=1e-5)


def test_near_the_end_a_cosine_keeps_its_relative_accuracy():
    # (1 + cos) / 2 in float32 is 0 here, or 50 times too large.
    value = cosine_decay_schedule(1.0, 100_000)(99_990)
    np.testing.assert_allclose(value, math.sin(math.pi / 2 * 1e-4) ** 2, rtol=1e-6)


# ---- Refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: polynomial_schedule(1.0, 0.0, -1, 10), "power"),
        (lambda: polynomial_schedule(1.0, 0.0, 1, 10, -3), "transition_begin=-3"),
        (lambda: polynomial_schedule(1.0, 0.0, 1, math.inf), "transition_steps=inf"),
        (lambda: linear_schedule(1.0, 0.0, 10, -3), "linear_schedule: transition_begin"),
        (lambda: exponential_decay(1.0, 10, -0.5), "decay_rate=-0.5"),
        (
            lambda: exponential_decay(1.0, math.nan, 0.5),
            "transition_steps must be .* got nan",
        ),
        (lambda: exponential_decay(1.0, 10, 0.5, -3), "transition_begin=-3"),
        (lambda: step_decay_schedule(1.0, 0), "period=0"),
        (lambda: step_decay_schedule(1.0, 5, -0.5), "factor=-0.5"),
        (lambda: natural_exp_decay_schedule(1.0, -0.1), "rate=-0.1"),
        (lambda: inverse_time_decay_schedule(1.0, -0.1), "rate=-0.1"),
        (lambda: cosine_decay_schedule(1.0, 0), "decay_steps=0"),
        (lambda: cosine_decay_schedule(1.0, np.int64(-1)), "decay_steps=-1"),
        (lambda: cosine_decay_schedule(1.0, 10, exponent=-1), "exponent=-1"),
        (lambda: warmup_constant_schedule(0.0, 1.0, -1), "warmup_steps=-1"),
        (lambda: warmup_cosine_decay_schedule(0.0, 1.0, -1, 10), "warmup_steps=-1"),
        (lambda: warmup_cosine_decay_schedule(0.0, 1.0, 10, 10), "warmup_steps=10"),
        (lambda: warmup_cosine_decay_schedule(0.0, 1.0, 10, math.inf), "decay_steps=inf"),
        (lambda: warmup_exponential_decay_schedule(0.0, 1.0, -1, 10, 0.5), "warmup_steps=-1"),
        (lambda: piecewise_constant_schedule(1.0, {3: -0.5}), "scale=-0.5"),
        (lambda: piecewise_constant_schedule(1.0, {-3: 0.5}), "boundary=-3"),
        (lambda: piecewise_interpolate_schedule("linear", 1.0, {3: -0.5}), "scale=-0.5"),
        (lambda: piecewise_interpolate_schedule("linar", 1.0), "'linar'"),  # type: ignore
        (lambda: linear_onecycle_schedule(0, 1.0), "transition_steps=0"),
        (lambda: linear_onecycle_schedule(10, 1.0, 0.9, 0.5), "pct_start <= pct_final"),
        (lambda: linear_onecycle_schedule(10, 1.0, div_factor=0), "div_factor=0"),
        (lambda: cosine_onecycle_schedule(0, 1.0), "transition_steps=0"),
        (lambda: cosine_onecycle_schedule(10, 1.0, 1.1), "pct_start=1.1"),
        (
            lambda: cosine_onecycle_schedule(10, 1.0, math.nan),
            "pct_start must be .* got nan",
        ),
        (lambda: join_schedules([], []), "0 schedules and 0 boundaries"),
        (lambda: join_schedules([constant_schedule(1.0)], [5]), "1 schedule and 1 boundary"),
        (lambda: join_schedules([constant_schedule(1.0)] * 3, [5, 2]), "5 before 2"),
        (lambda: join_schedules([constant_schedule(1.0)] * 2, [-5]), "boundary=-5"),
        (lambda: sgdr_schedule([]), "at least one cycle"),
        (lambda: cosine_restarts_schedule(1.0, 0), "period=0"),
        (lambda: cosine_restarts_schedule(1.0, 5, 0), "period_mult=0"),
        (lambda: warmup_stable_decay_schedule(0.0, 1.0, -1, 5, 5), "warmup_steps=-1"),
        (lambda: warmup_stable_decay_schedule(0.0, 1.0, 5, -1, 5), "stable_steps=-1"),
        (lambda: warmup_stable_decay_schedule(0.0, 1.0, 5, 5, 0), "decay_steps=0"),
        (
            lambda: warmup_stable_decay_schedule(0.0, 1.0, 5, 5, 5, decay_type="exponential"),
            "end_value=0.0",
        ),
        (
            lambda: warmup_stable_decay_schedule(0.0, 1.0, 5, 5, 5, decay_type="log"),  # type: ignore
            "'log'",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_refuses_by_type():
    with pytest.raises(TypeError, match=r"period must be a Python int, got 2\.5"):
        cosine_restarts_schedule(1.0, 2.5)  # type: ignore
    with pytest.raises(TypeError, match="transition_steps must be a Python number"):
        jax.jit(lambda n: linear_onecycle_schedule(n, 1.0)(0))(10)
    with pytest.raises(TypeError, match="decay_steps"):
        sgdr_schedule([{"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2}])


NUMBERS = [
    pytest.param(factory, name, id=f"{factory.__name__}-{name}")
    for factory in vars(schedules).values()
    if inspect.isfunction(factory)
    for name, parameter in inspect.signature(factory).parameters.items()
    if parameter.annotation is Scalar
]


@pytest.mark.parametrize(("factory", "name"), NUMBERS)
def test_refuses_what_is_no_number(factory, name):
    parameters = inspect.signature(factory).parameters
    others = {n: 1 for n, p in parameters.items() if p.default is p.empty and n != name}
    for wrong, told in (
        ("3", "the string '3'"),
        ([1.0], "[1.0]"),
        (constant_schedule(1.0), "the function schedule"),
    ):
        with pytest.raises(TypeError) as caught:
            factory(**{name: wrong, **others})
        kind = "a number or a scalar array"
        assert str(caught.value) == f"{factory.__name__}: {name} must be {kind}, got {told}"


def test_refuses_boundaries_that_are_no_mapping():
    for factory in (
        piecewise_constant_schedule,
        partial(piecewise_interpolate_schedule, "linear"),
    ):
        with pytest.raises(TypeError, match=r"must be a mapping .*, got \[100, 200\]"):
            factory(1.0, [100, 200])  # type: ignore


# ---- Whatever the numbers -------------------------------------------------------------------

values = st.floats(-10, 10, width=32)
counts = st.integers(0, LAST)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(values, values, st.floats(0, 5), st.integers(-5, 2**32), st.integers(0, 2**32)),
    counts,
)
def test_any_polynomial(arguments, t):
    value = polynomial_schedule(*arguments)(jnp.int32(t))
    scale = max(abs(arguments[0]), abs(arguments[1]))
    np.testing.assert_allclose(value, ref_polynomial(t, *arguments), rtol=1e-5, atol=1e-6 * scale)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values,
    st.dictionaries(st.integers(0, LAST), st.floats(0, 2, width=32), max_size=5),
    st.sampled_from(["linear", "cosine"]),
    counts,
    st.data(),
)
def test_any_piecewise(init_value, scales, kind, t, data):
    t = data.draw(st.sampled_from([t, *scales, *(max(b - 1, 0) for b in scales)]))
    scale = max(map(abs, [init_value * 2**5, 1.0]))
    near = {"rtol": 1e-5, "atol": 1e-6 * scale}
    constant = piecewise_constant_schedule(init_value, scales)(jnp.int32(t))
    np.testing.assert_allclose(constant, ref_piecewise_constant(t, init_value, scales), **near)
    moving = piecewise_interpolate_schedule(kind, init_value, scales)(jnp.int32(t))
    expected = ref_piecewise_interpolate(t, kind, init_value, scales)
    np.testing.assert_allclose(moving, expected, **near)
