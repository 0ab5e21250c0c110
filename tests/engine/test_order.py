"""What may follow a part of a chain whose updates are those of the parameters."""

import jax.numpy as jnp
import pytest

import gradtx

SGD = gradtx.sgd(0.1)
LAST = {
    "kahan": gradtx.kahan(SGD),
    "master_weights": gradtx.master_weights(SGD),
    "stochastic_round": gradtx.stochastic_round(),
    "keep_params_nonnegative": gradtx.keep_params_nonnegative(),
    "params_ema": gradtx.params_ema(0.9),
    "params_mean": gradtx.params_mean(),
    "lawa": gradtx.lawa(2, 1),
}
CHANGING = {
    "scale": gradtx.scale(0.5),
    "sgd": SGD,
    "kahan": gradtx.kahan(SGD),
    "add_independent_decay": gradtx.add_independent_decay(0.1),
    "keep_params_nonnegative": gradtx.keep_params_nonnegative(),
}
AROUND = {
    "nothing": lambda tx: tx,
    "chain": lambda tx: gradtx.chain(tx, gradtx.identity()),
    "masked": lambda tx: gradtx.masked(tx, True),
    "partition": lambda tx: gradtx.partition({1: tx, 2: SGD}, {"a": 1, "b": 2}),
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "store": lambda tx: gradtx.store(tx, {"*": None}),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(gradtx.strict(tx), 3),
    "flatten": gradtx.flatten,
}


@pytest.mark.parametrize("last", LAST)
def test_nothing_may_change_the_updates_of_what_must_be_last(last):
    for around in AROUND.values():
        for name, tx in CHANGING.items():
            told = rf"^chain: {last} \(argument 1\) must be last, .*{name}.* \(argument 2\) would"
            with pytest.raises(ValueError, match=told):
                gradtx.chain(SGD, around(LAST[last]), tx)
    with pytest.raises(ValueError, match=rf"^named_chain: {last} \('a'\) .* scale \('b'\) would"):
        gradtx.named_chain(("a", LAST[last]), ("b", gradtx.scale(0.5)))
    with pytest.raises(ValueError, match=rf"chain: {last} .* but a transformation \(argument 1\)"):
        gradtx.chain(
            LAST[last], gradtx.GradientTransformation(SGD.init, lambda *args: SGD.update(*args))
        )


@pytest.mark.parametrize("last", LAST)
def test_what_may_follow(last):
    """What does not change updates, or only rounds them, or what acts on other leaves."""
    for tx in (
        gradtx.stochastic_round(),
        gradtx.params_ema(0.9),
        gradtx.lawa(2, 1),
        gradtx.set_to_zero(),
        gradtx.freeze({"a": True, "b": False}),
        gradtx.identity(),
        gradtx.snapshot("norm", gradtx.global_norm),
        gradtx.monitor({"norm": gradtx.global_norm, "average": gradtx.measure_with_ema(abs, 0.5)}),
        gradtx.store(gradtx.params_ema(0.9), {"*": None}),
    ):
        gradtx.chain(SGD, LAST[last], tx)
    gradtx.chain(
        gradtx.masked(LAST[last], {"a": True, "b": False}),
        gradtx.masked(gradtx.scale(0.5), {"a": False, "b": True}),
    )
    gradtx.kahan(gradtx.chain(SGD, LAST[last]))  # of the parameters that it sees
    gradtx.chain(gradtx.monitor({"norm": gradtx.global_norm}), gradtx.scale(0.5))


def test_rounding_after_a_constraint():
    """Numbers that are not negative are not rounded to negative ones."""
    tx = gradtx.chain(SGD, gradtx.keep_params_nonnegative(), gradtx.stochastic_round())
    w = jnp.full(100, 1e-3, jnp.bfloat16)
    updates, _ = tx.update(jnp.linspace(0, 1, 100, dtype=w.dtype), tx.init(w), w)
    moved = gradtx.apply_updates(w, updates)
    assert bool((moved >= 0).all()) and bool((moved == 0).any())
