"""The epoch and the loop: each step against NumPy, each example once, resumed runs bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from representatives import first
from small_data import small
from trees import without_key_type

import gradtx
from gradtx import train
from gradtx.train import checkpoint

DATA = small()
SOFTMAX = train.softmax()


def bits(tree):
    plain = jax.tree.map(without_key_type, tree)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(plain)]


def numpy_gradient(w, b, x, y):
    z = x @ w + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return x.T @ p / len(y), p.mean(0)


@pytest.mark.parametrize("batch_size", list(first([8, 1, 25, 49, 50])))
def test_an_epoch_is_sgd_in_numpy(batch_size):
    """The short last batch included: 50 = 6 * 8 + 2 = 49 + 1."""
    state = train.begin(SOFTMAX, DATA, gradtx.sgd(0.1)).state
    epoch = train.make_epoch(train.classification_loss(SOFTMAX), gradtx.sgd(0.1), batch_size)
    key = jax.random.key(7)
    after, steps = jax.jit(epoch)(state, key, (DATA.x_train, DATA.y_train))

    w, b = (np.asarray(state.params["logits"][n], np.float64) for n in ("kernel", "bias"))
    x, y = DATA.x_train.reshape(50, -1).astype(np.float64), DATA.y_train
    order = np.asarray(jax.random.permutation(key, 50))
    losses = []
    for start in range(0, 50, batch_size):
        batch = order[start : start + batch_size]
        z = x[batch] @ w + b
        z -= np.log(np.exp(z).sum(1, keepdims=True))
        losses.append(-z[np.arange(len(batch)), y[batch]].mean())
        dw, db = numpy_gradient(w, b, x[batch], y[batch])
        w, b = w - 0.1 * dw, b - 0.1 * db
    np.testing.assert_allclose(after.params["logits"]["kernel"], w, atol=1e-5)
    np.testing.assert_allclose(after.params["logits"]["bias"], b, atol=1e-5)
    np.testing.assert_allclose(steps.loss, losses, atol=1e-5)
    assert steps.finite.all() and len(steps.finite) == train.steps_per_epoch(50, batch_size)


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 3), (10, 5), (10, 10), (1, 1), (7, 1)])
def test_every_example_counts_once(examples, batch_size):
    index, counted = train.batches(jax.random.permutation(jax.random.key(0), examples), batch_size)
    assert index.shape == counted.shape == (train.steps_per_epoch(examples, batch_size), batch_size)
    assert sorted(np.asarray(index)[np.asarray(counted)]) == list(range(examples))


def test_evaluation_does_not_depend_on_its_batches():
    params = SOFTMAX.init(jax.random.key(0), DATA.shape, 3)
    logits = np.asarray(SOFTMAX.apply(params, DATA.x_train), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    want = -log_p[np.arange(50), DATA.y_train].mean(), (logits.argmax(1) == DATA.y_train).mean()
    for batch_size in (1, 7, 50, 1000):
        got = train.make_evaluation(SOFTMAX, batch_size)(params, DATA.x_train, DATA.y_train)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_an_epoch_maps_over_seeds_and_rates():
    """What a sweep needs: `vmap` over runs gives what single runs give."""
    loss, examples = train.classification_loss(SOFTMAX), (DATA.x_train, DATA.y_train)

    def one(rate, seed):
        tx = gradtx.adam(rate)
        params = SOFTMAX.init(jax.random.key(seed), DATA.shape, 3)
        epoch = train.make_epoch(loss, tx, 8)
        return epoch(train.TrainState(params, tx.init(params)), jax.random.key(seed), examples)

    rates, seeds = jnp.array([0.1, 0.01, 0.001]), jnp.array([0, 1, 2])
    together = jax.jit(jax.vmap(one))(rates, seeds)
    for i in range(3):
        alone = jax.jit(one)(rates[i], seeds[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5), together, alone
        )


def test_it_learns_and_tells_the_truth():
    run = train.fit(SOFTMAX, DATA, gradtx.adam(0.05), epochs=20, batch_size=16)
    assert [row.epoch for row in run.history] == list(range(1, 21))
    assert [row.step for row in run.history] == [4 * e for e in range(1, 21)]
    last = run.history[-1]
    assert last.train_accuracy > 0.95 and last.train_loss < run.history[0].train_loss / 3
    assert last.learning_rate == pytest.approx(0.05)
    evaluate = train.make_evaluation(SOFTMAX)
    params = run.state.params
    for part, x, y in (("train", *DATA[1:3]), ("test", *DATA[3:5])):
        loss, accuracy = evaluate(params, x, y)
        assert getattr(last, f"{part}_loss") == pytest.approx(float(loss), rel=1e-5)
        assert getattr(last, f"{part}_accuracy") == pytest.approx(float(accuracy))


def test_seeds_decide():
    def run(seed):
        return bits(train.fit(SOFTMAX, DATA, gradtx.sgd(0.1), epochs=2, seed=seed, batch_size=8))

    assert run(0)[:2] == run(0)[:2] != run(1)[:2]


def test_shuffles_differ_from_epoch_to_epoch(monkeypatch):
    orders = []

    def spy(order, batch_size):
        jax.debug.callback(lambda o: orders.append(tuple(o.tolist())), order)
        return train.batches(order, batch_size)

    monkeypatch.setattr("gradtx.train.epoch.batches", spy)
    tx = gradtx.sgd(0.1)
    epoch = jax.jit(train.make_epoch(train.classification_loss(SOFTMAX), tx, 8))
    monkeypatch.setattr("gradtx.train.loop._compiled_epoch", lambda *_: _measured(epoch))
    train.fit(SOFTMAX, DATA, tx, epochs=5, batch_size=8)
    jax.effects_barrier()
    assert len(set(orders)) == 5 and all(sorted(o) == list(range(50)) for o in orders)


def _measured(epoch):
    def advance(state, key, examples, held_back):
        state, steps = epoch(state, key, examples)
        return state, steps, (jnp.zeros(()),) * 4

    return advance


@pytest.mark.slow
@pytest.mark.parametrize("name", gradtx.catalog.names())
def test_resumed_runs_end_bit_for_bit_alike(name, tmp_path):
    tx = gradtx.catalog.get(name).make()
    saved = tmp_path / "checkpoint.npz"

    def on_epoch(progress):
        if progress.epoch == 2:
            checkpoint.save(saved, progress.state._asdict(), {})

    def run(epochs, **more):
        return train.fit(SOFTMAX, DATA, tx, epochs=epochs, batch_size=8, **more)

    whole = run(5, on_epoch=on_epoch)
    template = jax.eval_shape(lambda: train.begin(SOFTMAX, DATA, tx).state._asdict())
    state, _ = checkpoint.restore(saved, template)
    start = train.Progress(train.TrainState(**state), whole.history[:2])
    resumed = run(5, start=start)
    assert bits(resumed.state) == bits(whole.state)
    without_seconds = [[r._replace(seconds=0) for r in p.history] for p in (resumed, whole)]
    assert without_seconds[0] == without_seconds[1]
    bits(start.state)  # what was resumed from is left intact


def test_one_compiled_call_for_all_epochs_with_buffers_donated():
    model_calls = []
    counted = train.Model(
        "counted", SOFTMAX.init, lambda p, x: (model_calls.append(1), SOFTMAX.apply(p, x))[1]
    )
    tx, seen = gradtx.adam(0.1), []

    def on_epoch(progress):
        seen.append(progress.state)

    run = train.fit(counted, DATA, tx, epochs=4, batch_size=8, on_epoch=on_epoch)
    traced = len(model_calls)
    assert 3 <= traced < 8  # the step and two evaluations, once or twice as JAX sees fit
    for state in seen[:-1]:
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    train.fit(counted, DATA, tx, epochs=6, batch_size=8, start=run)
    assert len(model_calls) == traced


def exploding(at):
    """Gradient descent that makes one parameter infinite at a step, counted from 1."""

    def init(params):
        return jnp.zeros((), jnp.int32)

    def update(grads, count, params=None, **extra):
        step = jnp.where(count + 1 == at, -jnp.inf, -0.01)
        return jax.tree.map(lambda g: step * jnp.ones_like(g), grads), count + 1

    return gradtx.GradientTransformation(init, update)


@pytest.mark.parametrize("at", list(first([8, 1, 3, 7, 20])))
def test_divergence_names_the_step(at):
    with pytest.raises(train.DivergenceError, match=rf"step {at}, .*parameters were not f") as e:
        train.fit(SOFTMAX, DATA, exploding(at), epochs=4, batch_size=8)
    assert (e.value.step, e.value.epoch) == (at, (at - 1) // 7 + 1)


def test_divergence_of_the_loss_names_the_step():
    # Parameters so large that finite ones give infinite logits: after step 1 all is still finite.
    def update(grads, state, params=None, **extra):
        return jax.tree.map(lambda g: jnp.full_like(g, 3e38) * jnp.sign(g), grads), state

    tx = gradtx.GradientTransformation(lambda params: (), update)
    with pytest.raises(train.DivergenceError, match="diverged at step 2, step 2 of 7 in epoch 1"):
        train.fit(SOFTMAX, DATA, tx, epochs=1, batch_size=8)
    with pytest.raises(train.DivergenceError, match="whole data set was not finite after it"):
        train.fit(SOFTMAX, DATA, tx, epochs=1, batch_size=50)


def test_batches_must_fit():
    for batch_size in (0, 51):
        words = f"from 1 to 50, the number of training examples, got {batch_size}"
        with pytest.raises(train.TrainingError, match=words):
            train.fit(SOFTMAX, DATA, gradtx.sgd(0.1), epochs=1, batch_size=batch_size)


def test_plateau_is_fed_and_read():
    tx = gradtx.chain(
        gradtx.sgd(1e-9),
        gradtx.reduce_on_plateau(factor=0.5, patience=2, accumulation_size=5, rtol=0.01),
    )
    run = train.fit(SOFTMAX, DATA, tx, epochs=6, batch_size=10)
    rates = [row.learning_rate / 1e-9 for row in run.history]
    # The first epoch is the best; two more in a row without improvement halve the rate.
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.5, 0.25, 0.25], rtol=1e-6)


def test_learning_rates_are_found_wherever_they_stand():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    adam, sgd = gradtx.adam(0.1), gradtx.sgd(0.2)
    labels = {"a": "adam", "b": "sgd"}
    for tx, want in (
        (adam, 0.1),
        (gradtx.chain(gradtx.clip(1.0), gradtx.chain(adam)), 0.1),
        (gradtx.named_chain(("first", sgd)), 0.2),
        (gradtx.partition({"adam": adam, "sgd": sgd}, labels), 0.1),
        (gradtx.scale(0.1), None),
    ):
        assert train.learning_rate(tx.init(params)) == (want and pytest.approx(want))
