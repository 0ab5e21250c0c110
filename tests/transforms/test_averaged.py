"""Averages of parameters read from states: in masks, partitions, wrappers, and dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def walked(tx, params, steps=3):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = gradtx.apply_updates(params, updates)
    return state, params


PARAMS = {"a": jnp.zeros(2), "b": jnp.zeros(3), "none": None}
MEAN = (1 + 2 + 3) / 3  # of the parameters after three steps of -1, with the sign changed


def test_parameters_without_an_average_are_themselves():
    averaging = gradtx.masked(gradtx.params_mean(), {"a": True, "b": False, "none": False})
    state, params = walked(gradtx.chain(gradtx.sgd(1.0), averaging), PARAMS)
    found = gradtx.averaged_params(state, params)
    np.testing.assert_allclose(found["a"], -MEAN)
    np.testing.assert_allclose(found["b"], -3)
    assert found["none"] is None
    with pytest.raises(ValueError, match="averaged_params: 'b' has no average; to use the param"):
        gradtx.averaged_params(state)


def test_the_averages_of_partitions_are_one():
    def part(piece):
        return gradtx.chain(gradtx.sgd(1.0), piece)

    tx = gradtx.partition(
        {
            "mean": part(gradtx.params_mean()),
            "gpa": gradtx.primal_averaging(gradtx.sgd(1.0), 0.5, 0.5),
        },
        {"a": "mean", "b": "gpa", "none": "mean"},
    )
    state, params = walked(gradtx.MultiSteps(tx, 1), PARAMS)
    found = jax.jit(gradtx.averaged_params)(state, params)
    np.testing.assert_allclose(found["a"], -MEAN)
    z, x = 0.0, 0.0
    for _ in range(3):
        z -= 1
        x = (x + z) / 2
    np.testing.assert_allclose(found["b"], x)
    with pytest.raises(ValueError, match="call averaged_params"):
        gradtx.averaged_params(state)


def test_schedule_free_and_names():
    state, params = walked(gradtx.schedule_free_sgd(1.0), PARAMS)
    jax.tree.map(
        np.testing.assert_array_equal,
        gradtx.averaged_params(state, params),
        gradtx.schedule_free_eval_params(state, params),
    )
    two = gradtx.chain(gradtx.sgd(1.0), gradtx.params_ema(0.9), gradtx.lawa(2, 1))
    state, params = walked(two, PARAMS)
    np.testing.assert_allclose(gradtx.averaged_params(state, name="lawa")["a"], -2.5)
    with pytest.raises(ValueError, match="'a' has the averages params_ema, lawa; choose one by"):
        gradtx.averaged_params(state)
    with pytest.raises(ValueError, match="an average named 'swa', got params_ema, lawa"):
        gradtx.averaged_params(state, name="swa")
    with pytest.raises(ValueError, match="an average of the parameters, got none"):
        gradtx.averaged_params(gradtx.adam(0.1).init(PARAMS))
    with pytest.raises(ValueError, match=r"averaged_params: .*'c'"):
        gradtx.averaged_params(state, {**params, "c": jnp.zeros(1)}, name="lawa")


def test_dtypes():
    """An average of bfloat16 parameters moves in float32, where bfloat16 would stand still."""
    params = {"h": jnp.ones(2, jnp.bfloat16)}

    def after(dtype):
        tx = gradtx.params_ema(0.999, warmup=False, accumulator_dtype=dtype)
        zero, state = {"h": jnp.zeros(2, jnp.bfloat16)}, tx.init({"h": 0 * params["h"]})
        step = lambda s, _: (tx.update(zero, s, params)[1], None)  # noqa: E731
        return jax.jit(lambda s: jax.lax.scan(step, s, length=1000)[0])(state)

    state = after(None)
    assert state.average["h"].dtype == jnp.float32
    np.testing.assert_allclose(state.average["h"], 1 - 0.999**1000, rtol=1e-4)
    assert gradtx.averaged_params(state, params)["h"].dtype == jnp.bfloat16
    stored = after(jnp.bfloat16)
    assert gradtx.averaged_params(stored)["h"].dtype == jnp.bfloat16
    assert float(stored.average["h"][0]) < 0.6


def test_names_survive_files():
    tx = gradtx.chain(gradtx.adam(0.1), gradtx.params_ema(0.9), gradtx.lawa(2, 1))
    state, _ = walked(tx, PARAMS)
    saved = gradtx.state_dict(state)
    back = gradtx.load_state_dict(tx.init(PARAMS), saved)
    jax.tree.map(np.testing.assert_array_equal, back, state)
