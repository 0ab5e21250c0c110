"""From options to an optimizer and a schedule: what is right is exact, what is wrong is named."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.train import (
    SCHEDULES,
    Length,
    Options,
    TrainingError,
    build_optimizer,
    default_learning_rate,
    make_schedule,
    parse_settings,
    schedule_settings,
)
from gradtx.train.optimizer import check_trains
from gradtx.train.schedules import same_until

LENGTH = Length(epochs=20, steps_per_epoch=10)


def update(tx, params=2.0, grad=0.3, **extra):
    params, grad = jnp.array([params]), jnp.array([grad])
    return float(tx.update(grad, tx.init(params), params, **extra)[0][0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-2", -2),
        ("1e-3", 1e-3),
        ("0.5", 0.5),
        ("inf", math.inf),
        ("true", True),
        ("False", False),
        ("none", None),
        ("bfloat16", "bfloat16"),
    ],
)
def test_values_have_types(text, value):
    parsed = parse_settings("--set", [f"key={text}", " other = 1 "])
    assert parsed == {"key": value, "other": 1} and type(parsed["key"]) is type(value)


@pytest.mark.parametrize("text", ["b1", "b1=", "=3", "="])
def test_settings_must_be_pairs(text):
    with pytest.raises(TrainingError, match=f"--set must be key=value, got '{text}'"):
        parse_settings("--set", [text])
    with pytest.raises(TrainingError, match="--set gives b1 twice: 1 and 2"):
        parse_settings("--set", ["b1=1", "b1=2"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"b3": 1},
            r"--set b3=1: adam has no setting 'b3'; it has b1, b2, eps, eps_root, mu_dtype",
        ),
        ({"nestrov": True}, r"has no setting 'nestrov' \(did you mean nesterov\?\)"),
        ({"b1": "hello"}, r"--set b1=hello: adam's b1 must be a number, such as 0.9"),
        ({"b1": True}, "b1=true: adam's b1 must be a number"),
        ({"nesterov": 1}, "nesterov=1: adam's nesterov must be true or false"),
        ({"mu_dtype": "float33"}, "mu_dtype=float33: adam's mu_dtype must be a dtype"),
        ({"mu_dtype": 3}, "mu_dtype=3: adam's mu_dtype must be a dtype"),
        ({"learning_rate": 0.1}, "learning_rate=0.1: use --learning-rate alone"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(TrainingError, match=words):
        build_optimizer("adam", LENGTH, settings=settings)


def test_unknown_optimizers_get_near_names():
    with pytest.raises(TrainingError, match=r"no optimizer is named 'adma'; did you mean .*'adam'"):
        build_optimizer("adma", LENGTH)


@pytest.mark.parametrize("name", gradtx.catalog.names())
def test_every_optimizer_can_be_built_and_named(name):
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    recipe = build_optimizer(name, LENGTH, clip=1.0)
    check_trains(name, recipe.tx, params)
    parameters = inspect.signature(gradtx.catalog.get(name).factory).parameters
    if "learning_rate" in parameters:
        assert recipe.rate == default_learning_rate(name) or recipe.rate is None
    assert recipe.summary.startswith(f"clip to norm 1.0 -> {name}(")


def test_settings_reach_the_factory():
    recipe = build_optimizer("adam", LENGTH, learning_rate=0.1, settings={"b1": 0.5, "eps": 0.1})
    assert update(recipe.tx) == update(gradtx.adam(0.1, b1=0.5, eps=0.1))
    state = build_optimizer("adam", LENGTH, settings={"mu_dtype": "bfloat16"}).tx.init(jnp.ones(2))
    assert "bfloat16" in str(jax.tree.map(lambda a: a.dtype, state))


def test_weight_decay_is_the_optimizers_own_or_an_l2_penalty():
    own = build_optimizer("adamw", LENGTH, learning_rate=0.1, weight_decay=0.5)
    assert update(own.tx) == update(gradtx.adamw(0.1, weight_decay=0.5))
    assert "weight decay: its own" in own.summary
    penalty = build_optimizer("sgd", LENGTH, learning_rate=0.1, weight_decay=0.5)
    assert update(penalty.tx) == pytest.approx(-0.1 * (0.3 + 0.5 * 2.0))
    assert penalty.summary == "L2 penalty 0.5 -> sgd(learning_rate=0.1)"
    with pytest.raises(TrainingError, match=r"weight_decay=0.1: use --weight-decay alone"):
        build_optimizer("adamw", LENGTH, settings={"weight_decay": 0.1}, weight_decay=0.5)


def test_clipping_comes_before_everything():
    recipe = build_optimizer("sgd", LENGTH, learning_rate=0.1, weight_decay=0.5, clip=0.1)
    assert update(recipe.tx) == pytest.approx(-0.1 * (0.1 + 0.5 * 2.0))


def test_rates_must_have_a_place_to_go(monkeypatch):
    def rateless(decay=0.9):
        return gradtx.scale(-decay)

    entry = gradtx.catalog.Entry("rateless", rateless, "", "momentum", {})
    monkeypatch.setattr(gradtx.catalog, "get", lambda name: entry)
    recipe = build_optimizer("rateless", LENGTH)
    assert recipe.rate is None and update(recipe.tx) == pytest.approx(-0.27)
    for more in ({"learning_rate": 0.1}, {"schedule": "cosine"}):
        with pytest.raises(TrainingError, match="rateless takes no learning rate"):
            build_optimizer("rateless", LENGTH, **more)


def test_what_an_optimizer_cannot_train_is_said_before_it_runs():
    def init(params):
        raise TypeError("no integers")

    with pytest.raises(TrainingError, match="fussy cannot train this model: no integers"):
        check_trains("fussy", gradtx.GradientTransformation(init, init), jnp.ones(2))


# Peak rate 0.1, 20 epochs of 10 steps: the values at some epochs, by hand.
EXPECTED = {
    "step": ({}, {0: 0.1, 4.9: 0.1, 5: 0.05, 10: 0.025, 19: 0.0125}),
    "step ": ({"factor": 0.1, "every": 10}, {9.9: 0.1, 10: 0.01}),
    "exponential": ({}, {0: 0.1, 10: 0.01, 20: 0.001}),
    "exponential ": ({"k": 0.5}, {2: 0.1 * math.exp(-1), 4: 0.1 * math.exp(-2)}),
    "inverse": ({}, {0: 0.1, 20: 0.01, 10: 0.1 / 5.5}),
    "inverse ": ({"k": 1}, {1: 0.05, 9: 0.01}),
    "polynomial": ({}, {0: 0.1, 10: 0.025, 20: 0}),
    "linear": ({"final": 0.5}, {0: 0.1, 10: 0.075, 20: 0.05}),
    "cosine": ({}, {0: 0.1, 10: 0.05, 5: 0.05 * (1 + math.sqrt(0.5)), 20: 0}),
    "warmup-cosine": ({}, {0: 0.01, 1: 0.055, 2: 0.1, 11: 0.05, 20: 0}),
    "onecycle": ({}, {0: 0.004, 6: 0.1, 20: 0.1 / 25e4}),
    "restarts": ({"cycles": 2, "mult": 1}, {0: 0.1, 5: 0.05, 10: 0.1, 15: 0.05}),
    "restarts ": ({}, {0: 0.1, 2.9: 0.1, 8.7: 0.1}),  # ceil(200 / 7) = 29 steps, then 58
    "wsd": ({}, {0: 0.01, 2: 0.1, 10: 0.1, 16: 0.1, 20: 0}),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_schedules_by_hand(case):
    settings, expected = EXPECTED[case]
    schedule = make_schedule(case.strip(), 0.1, LENGTH, settings)
    for epoch, value in expected.items():
        assert float(schedule(round(epoch * 10))) == pytest.approx(value, rel=1e-4, abs=1e-8)


def test_every_schedule_is_tested_and_reaches_the_optimizer():
    tested = {case.strip() for case in EXPECTED}
    assert tested | {"constant", "plateau"} == set(SCHEDULES)
    for name in tested:
        recipe = build_optimizer("sgd", LENGTH, learning_rate=0.1, schedule=name)
        assert update(recipe.tx, grad=1.0) == pytest.approx(-float(recipe.rate(0)))
        assert f"sgd(learning_rate={name}(peak=0.1))" in recipe.summary


def test_plateau_stands_behind_the_optimizer_and_judges_epochs():
    recipe = build_optimizer(
        "sgd", LENGTH, learning_rate=0.1, schedule="plateau", schedule_set={"patience": 1}
    )
    params = jnp.ones(1)
    state, steps = recipe.tx.init(params), []
    for _ in range(25):
        updates, state = recipe.tx.update(jnp.ones(1), state, params, value=1.0)
        steps.append(float(updates[0]))
    # Two epochs' means of ten steps are alike; from the twentieth step on the rate is halved.
    np.testing.assert_allclose(steps, [-0.1] * 19 + [-0.05] * 6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("cosine", {"power": 2}, "schedule cosine has no setting 'power'; it has final"),
        ("constant", {"final": 1}, "schedule constant has no setting 'final'; it has none"),
        ("linear", {"final": "x"}, "schedule linear's final must be a number, such as 0.0"),
        ("exponential", {"final": 0}, "schedule exponential: final must be positive, got 0"),
        ("wsd", {"warmup": 0.9, "decay": 0.3}, r"decay must be at most 1, got 0.9 \+ 0.3"),
        ("onecycle", {"warmup": 2}, "warmup must be a fraction of the run, from 0 to 1, got 2"),
        ("restarts", {"cycles": 1.5}, "cycles must be an integer of at least 1, got 1.5"),
        ("step", {"every": 0}, "schedule step: .*period"),
    ],
)
def test_wrong_schedule_settings_are_named(name, settings, words):
    with pytest.raises(TrainingError, match=words):
        make_schedule(name, 0.1, LENGTH, settings)


def test_plateau_settings_are_checked():
    with pytest.raises(TrainingError, match="factor"):
        build_optimizer("sgd", LENGTH, schedule="plateau", schedule_set={"factor": 2})


def test_schedules_that_agree_so_far():
    def made(name, epochs, **settings):
        return make_schedule(name, 0.1, Length(epochs, 10), settings)

    assert same_until(made("constant", 20), made("constant", 30), 200)
    assert same_until(made("step", 20), made("step", 30), 200)
    assert same_until(made("exponential", 20, k=0.1), made("exponential", 30, k=0.1), 200)
    assert not same_until(made("cosine", 20), made("cosine", 30), 200)
    assert same_until(made("cosine", 20), made("cosine", 30), 0)
    # A stable stretch can be made longer while it lasts: that is what it is for.
    short, long = made("wsd", 20, warmup=0.1), made("wsd", 40, warmup=0.05)
    assert same_until(short, long, 160) and not same_until(short, long, 170)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "mpl"}, "--model 'mpl' is not one of softmax, mlp, .*; did you mean 'mlp'?"),
        ({"schedule": "cosin"}, "--schedule 'cosin' is not one of .*did you mean 'cosine'?"),
        ({"batch": 0}, "--batch must be a positive integer or 'full', got 0"),
        ({"epochs": 0}, "--epochs must be an integer of at least 1, got 0"),
        ({"seed": -1}, "--seed must be an integer from 0 to 2147483647, got -1"),
        ({"seed": 2**31}, "--seed must be an integer from 0 to 2147483647, got 2147483648"),
        ({"learning_rate": -0.1}, "--learning-rate must be a positive number, got -0.1"),
        ({"learning_rate": math.nan}, "--learning-rate must be a positive number, got nan"),
        ({"clip": 0.0}, "--clip must be a positive number, got 0.0"),
        ({"weight_decay": -1.0}, "--weight-decay must be a number of at least 0, got -1.0"),
    ],
)
def test_options_out_of_range_are_named(options, words):
    with pytest.raises(TrainingError, match=words):
        Options(**options)


def test_settings_of_schedules_are_listed():
    assert schedule_settings("step") == {"factor": 0.5, "every": 5}
