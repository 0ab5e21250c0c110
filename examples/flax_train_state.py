"""flax.linen with its TrainState: train on handwritten digits, save, restore, and continue."""

import tempfile

import flax.linen as nn
import jax
import numpy as np
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, train_size=1500, random_state=0)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(32)(x)))


# flax compares two states' structures by the identity of model and optimizer.
model = MLP()
tx = gradtx.adamw(gradtx.cosine_decay_schedule(0.01, decay_steps=300))


def create():
    params = model.init(jax.random.key(0), x_train)["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


@jax.jit
def step(state, x, y):
    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return gradtx.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def train(state, epochs):
    for epoch in epochs:
        for batch in np.random.default_rng(epoch).permutation(1500).reshape(30, 50):
            state = step(state, x_train[batch], y_train[batch])
        logits = state.apply_fn({"params": state.params}, x_test)
        accuracy = np.mean(logits.argmax(1) == y_test)
        rate = gradtx.hyperparams(state.opt_state)["learning_rate"]
        print(f"epoch {epoch + 1}: learning rate {rate:.4f}, test accuracy {accuracy:.3f}")
    return state, accuracy


state, _ = train(create(), range(5))
with tempfile.TemporaryDirectory() as folder:  # in a program of yours, one that stays
    file = f"{folder}/checkpoint.npz"
    np.savez(file, **gradtx.state_dict(state))
    saved = gradtx.load_state_dict(create(), np.load(file))
state, accuracy = train(state, range(5, 10))
assert accuracy > 0.95

again, _ = train(saved, range(5, 10))
jax.tree.map(np.testing.assert_array_equal, again, state)
print("The restored run ended bit for bit like the other.")
