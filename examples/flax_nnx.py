"""flax.nnx with its Optimizer: train on handwritten digits, save, restore, and continue."""

import tempfile

import jax
import numpy as np
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, train_size=1500, random_state=0)


class MLP(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.output = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.output(nnx.relu(self.hidden(x)))


def create():
    """Returns a new model and its optimizer."""
    model = MLP(nnx.Rngs(0))
    schedule = gradtx.cosine_decay_schedule(0.01, decay_steps=300)
    return model, nnx.Optimizer(model, gradtx.adamw(schedule), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, x, y):
    def loss(model):
        return gradtx.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def train(model, optimizer, epochs):
    for epoch in epochs:
        for batch in np.random.default_rng(epoch).permutation(1500).reshape(30, 50):
            step(model, optimizer, x_train[batch], y_train[batch])
        accuracy = np.mean(model(x_test).argmax(1) == y_test)
        rate = float(gradtx.hyperparams(optimizer.opt_state)["learning_rate"])
        print(f"epoch {epoch + 1}: learning rate {rate:.4f}, test accuracy {accuracy:.3f}")
    return accuracy


model, optimizer = create()
train(model, optimizer, range(5))
with tempfile.TemporaryDirectory() as folder:  # in a program of yours, one that stays
    file = f"{folder}/checkpoint.npz"
    np.savez(file, **gradtx.state_dict((model, optimizer)))
    again = gradtx.load_state_dict(create(), np.load(file))
assert train(model, optimizer, range(5, 10)) > 0.95

train(*again, range(5, 10))
jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state((model, optimizer)))
print("The restored run ended bit for bit like the other.")
