"""The language model of races: what it predicts from, that it learns, that it is the same again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.racing import language_model
from gradtx.racing.text import _losses
from gradtx.train.errors import TrainingError

SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 8, "batch_size": 32, "examples": 640}


def test_it_learns_and_is_the_same_again():
    problem, again = language_model(**SMALL), language_model(**SMALL)
    assert again.config == problem.config  # with a digest of the data
    tx = gradtx.adam(0.02)
    batches = problem.data[0].reshape(problem.steps, 32, -1)

    @jax.jit
    def losses(params):
        """On the test set, before and after an epoch."""

        def step(carry, batch):
            params, state = carry
            grads = jax.grad(problem.loss)(params, batch, jnp.ones(32, bool))
            updates, state = tx.update(grads, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        (last, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
        return [problem.measure(p, problem.data)[0] for p in (params, last)]

    before, after = losses(problem.init(jax.random.key(0)))
    # uniform predictions of 96 characters have 4.6 nats, their frequencies 3.3
    assert before > 4
    assert after < 3.5
    assert losses(again.init(jax.random.key(0))) == [before, after]


def test_a_character_is_predicted_from_those_before_it():
    problem = language_model(**SMALL)
    params = problem.init(jax.random.key(0))
    text = np.asarray(problem.data[1][:1])
    other = text.copy()
    other[0, 5] = (other[0, 5] + 1) % 90
    losses = jax.jit(lambda x: _losses(params, x, 2))
    changed = losses(text)[0] != losses(other)[0]
    # the loss of a character is at the place of the one before it
    np.testing.assert_array_equal(changed[:4], False)
    assert changed[4:].all()


def test_settings_that_do_not_fit():
    with pytest.raises(TrainingError, match="width 30 is not a multiple of heads, 4"):
        language_model(width=30)
    with pytest.raises(TrainingError, match="got batch_size 32 and examples 8"):
        language_model(examples=8)
