"""Equinox: train on handwritten digits, save, restore, and continue bit for bit."""

import tempfile

import equinox as eqx
import jax
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, train_size=1500, random_state=0)

schedule = gradtx.cosine_decay_schedule(0.01, decay_steps=300)
tx = gradtx.adamw(schedule, mask=gradtx.by_path({"bias": False}, default=True))


def create():
    """Returns a new model and the initial state of its optimizer."""
    model = eqx.nn.MLP(64, 10, width_size=32, depth=1, key=jax.random.key(0))
    return model, tx.init(eqx.filter(model, eqx.is_array))


def loss(model, x, y):
    logits = jax.vmap(model)(x)
    return gradtx.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@eqx.filter_jit
def step(model, state, x, y):
    params = eqx.filter(model, eqx.is_array)
    updates, state = tx.update(eqx.filter_grad(loss)(model, x, y), state, params)
    return eqx.apply_updates(model, updates), state


def train(model, state, epochs):
    for epoch in epochs:
        for batch in np.random.default_rng(epoch).permutation(1500).reshape(30, 50):
            model, state = step(model, state, x_train[batch], y_train[batch])
        accuracy = np.mean(jax.vmap(model)(x_test).argmax(1) == y_test)
        rate = gradtx.hyperparams(state)["learning_rate"]
        print(f"epoch {epoch + 1}: learning rate {rate:.4f}, test accuracy {accuracy:.3f}")
    return model, state, accuracy


model, state, _ = train(*create(), range(5))
# Only the arrays are saved; the functions of the model are part of the program.
arrays = eqx.filter((model, state), eqx.is_array)
template, functions = eqx.partition(create(), eqx.is_array)
with tempfile.TemporaryDirectory() as folder:  # in a program of yours, one that stays
    file = f"{folder}/checkpoint.npz"
    np.savez(file, **gradtx.state_dict(arrays))
    saved = eqx.combine(gradtx.load_state_dict(template, np.load(file)), functions)
model, state, accuracy = train(model, state, range(5, 10))
assert accuracy > 0.95

again, _, _ = train(*saved, range(5, 10))
assert eqx.tree_equal(again, model)
print("The restored run ended bit for bit like the other.")
