"""`lr_range_test`: the curve step by step, what is suggested, and that it trains."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from representatives import first

import gradtx
from gradtx import lr_range_test, train

DATA = train.digits()
MODEL = train.mlp((64,))
SIZE = 64


def loss(params, batch):
    return train.classification_loss(MODEL)(params, batch, jnp.ones(SIZE, bool))


def digit_batches(epochs=1):
    """Shuffled mini-batches, stacked; what does not fill one is left out of each epoch."""
    rng = np.random.default_rng(0)
    n = len(DATA.y_train) // SIZE
    order = [rng.permutation(len(DATA.y_train))[: n * SIZE] for _ in range(epochs)]
    order = np.concatenate(order).reshape(-1, SIZE)
    return DATA.x_train[order], DATA.y_train[order]


def start():
    return MODEL.init(jax.random.key(0), DATA.shape, DATA.classes)


def parabola(p, batch):
    """Curvatures 1 and 4; rates below 0.5 are stable."""
    return jnp.sum(jnp.array([0.5, 2.0]) * (p - batch) ** 2)


POINT, TARGETS = jnp.array([3.0, -2.0]), [jnp.array([1.0, 1.0])]


def test_each_step_by_hand():
    found = lr_range_test(
        parabola, POINT, TARGETS, gradtx.sgd(123.0), lowest=1e-3, highest=1.0, steps=31
    )
    p, losses = np.array(POINT, np.float64), []
    for k in range(31):
        losses.append(0.5 * (p[0] - 1) ** 2 + 2 * (p[1] - 1) ** 2)
        p = p - 1e-3 * 1e3 ** (k / 30) * np.array([1, 4]) * (p - 1)
    np.testing.assert_allclose(found.losses, losses[: len(found.losses)], rtol=1e-4)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 1, 31)[: len(found.rates)])
    assert found.lowest_at == found.rates[np.argmin(found.smoothed)]
    assert found.suggestion < found.lowest_at and found.suggestion in found.rates


def test_smoothing_is_an_average_without_a_lag():
    wide = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1), steps=50, smoothing=3.0)
    x, at = np.arange(len(wide.smoothed)), 20
    weights = np.exp(-((x - at) ** 2) / (2 * 3.0**2))
    want = np.sum(weights * wide.losses[x]) / np.sum(weights)
    np.testing.assert_allclose(wide.smoothed[at], want, rtol=1e-6)
    raw = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1), steps=50, smoothing=1e-3)
    np.testing.assert_array_equal(raw.smoothed, raw.losses[: len(raw.smoothed)])


def test_it_stops_when_the_loss_rises():
    usual = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1))
    assert usual.diverged and 0.5 < usual.rates[-1] < 10 and "had risen" in usual.why
    on = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1), rise=np.inf)
    assert len(on.losses) > len(usual.losses)
    np.testing.assert_array_equal(on.losses[: len(usual.losses)], usual.losses)


def test_it_stops_at_what_is_not_finite():
    found = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1), highest=1e12, rise=np.inf)
    assert found.diverged and not np.isfinite(found.losses[-1])
    assert len(found.smoothed) == len(found.losses) - 1 and np.isfinite(found.smoothed).all()
    assert found.suggestion is not None


def test_it_suggests_nothing_where_nothing_helps():
    too_small = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1), highest=1e-5)
    assert not too_small.diverged
    noise = [jnp.array([x]) for x in np.random.default_rng(0).normal(size=100)]
    found = lr_range_test(
        lambda p, b: jnp.mean(b) + 0 * p, jnp.array(1.0), noise, gradtx.sgd(0.1), rise=np.inf
    )
    assert found.suggestion is None and str(found).startswith("No rate is suggested")
    assert found.picture() is not None


def test_still_falling_is_said():
    found = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1), highest=0.1)
    assert not found.diverged and "a larger highest rate" in found.why


def test_one_step_is_compiled_and_batches_are_used_again():
    traced, seen = [], []

    def counted(p, batch):
        traced.append(1)
        jax.debug.callback(lambda b: seen.append(float(b[0])), batch)
        return parabola(p, batch)

    generator = (jnp.array([float(i), 1.0]) for i in range(4))
    lr_range_test(counted, POINT, generator, gradtx.adam(0.1), steps=10)
    jax.effects_barrier()
    assert len(traced) == 1
    assert seen == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


TAKES = ("sgd", "adamw", "lion", "muon", "prodigy", "polyak_sgd", "schedule_free_sgd", "sophia")


@pytest.mark.parametrize("name", TAKES)
def test_optimizers_of_the_catalog(name):
    params = {"w": POINT, "m": jnp.ones((2, 3))}
    tx = gradtx.catalog.get(name).make()

    def f(p, batch):
        return parabola(p["w"], batch) + jnp.sum(p["m"] ** 2)

    found = lr_range_test(f, params, TARGETS, tx, steps=15, rise=np.inf)
    assert len(found.losses) == 15 and found.losses[-1] != found.losses[0]


def test_a_schedule_gives_way_and_accumulation_works():
    fixed = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1))
    schedule = gradtx.cosine_decay_schedule(5.0, 10)
    np.testing.assert_array_equal(
        lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(schedule)).losses, fixed.losses
    )
    every_other = gradtx.MultiSteps(gradtx.sgd(0.1), 2).gradient_transformation()
    assert lr_range_test(parabola, POINT, TARGETS, every_other, steps=25).suggestion


NOT_HEEDED = {
    "a line search": gradtx.lbfgs(),
    "optax": optax.adam(0.1),
    "optax, injected": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    "no rate": gradtx.scale(-0.1),
}


@pytest.mark.parametrize("name", NOT_HEEDED)
def test_a_rate_that_is_not_heeded_is_found_out(name):
    with pytest.raises(ValueError, match=r"does not take its learning rate from update\(\.\.\."):
        lr_range_test(
            lambda p, b: jnp.sum(p**2), POINT, TARGETS, NOT_HEEDED[name], steps=10, rise=np.inf
        )


@pytest.mark.parametrize("name", list(first(["sgd", "adam"])))
def test_the_suggestion_trains_and_its_tenfold_does_not(name):
    """Six epochs of the digits' MLP, with the suggested rate, its tenfold and its hundredth."""
    tx = getattr(gradtx, name)(1.0)
    found = lr_range_test(loss, start(), zip(*digit_batches(), strict=True), tx)
    factors = np.array([1.0, 10.0, 0.01])

    def trained(rate):
        def step(carry, batch):
            params, state = carry
            updates, state = tx.update(
                jax.grad(loss)(params, batch), state, params, learning_rate=rate
            )
            return (gradtx.apply_updates(params, updates), state), None

        params = start()
        carry = (params, tx.init(params))
        (params, _), _ = jax.lax.scan(step, carry, digit_batches(epochs=6))
        return train.make_evaluation(MODEL)(params, DATA.x_test, DATA.y_test)

    losses, accuracies = jax.jit(lambda r: jax.lax.map(trained, r))(found.suggestion * factors)
    good, tenfold, hundredth = losses
    assert accuracies[0] > 0.94 and good < 0.25, (found.why, losses, accuracies)
    assert tenfold > 1.5 * good and hundredth > 3 * good, (found.why, losses, accuracies)


def test_the_picture():
    found = lr_range_test(parabola, POINT, TARGETS, gradtx.sgd(0.1))
    figure = found.picture("a parabola")
    (axes,) = figure.axes
    assert axes.get_title() == "a parabola" and axes.get_xscale() == "log"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"suggested: {found.suggestion:.2g}" in labels and "smoothed" in labels
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), found.smoothed)
    low, high = axes.get_ylim()
    assert low < found.losses.min() and found.losses[0] < high < 1.1 * found.losses[0]
    assert found.losses.min() - low < 0.06 * found.losses[0]  # no lower than the data
    png = io.BytesIO()
    figure.savefig(png, format="png")
    assert png.getvalue().startswith(b"\x89PNG")


BAD = {
    "order": ({"lowest": 1.0, "highest": 0.1}, "0 < lowest < highest, got 1.0 and 0.1"),
    "zero": ({"lowest": 0.0}, "0 < lowest < highest, got 0.0"),
    "steps": ({"steps": 5}, "steps must be an integer of at least 10, got 5"),
    "smoothing": ({"smoothing": -1.0}, "smoothing must be positive and finite, got -1.0"),
    "rise": ({"rise": 0.0}, "rise must be positive, got 0.0"),
    "batches": ({"batches": []}, "no batches"),
    "loss": ({"loss": lambda p, b: jnp.sum(p) * jnp.nan}, "the first loss must be finite, got nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, message = BAD[case]
    settings = {"loss": parabola, "params": POINT, "batches": TARGETS, "tx": gradtx.sgd(0.1)}
    with pytest.raises(ValueError, match=f"lr_range_test: .*{message}"):
        lr_range_test(**{**settings, **changes})
