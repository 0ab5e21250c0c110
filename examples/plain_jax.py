"""Plain JAX: train on handwritten digits, save, restore, and continue bit for bit."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, train_size=1500, random_state=0)

schedule = gradtx.cosine_decay_schedule(0.01, decay_steps=300)
decayed = gradtx.by_path({"bias": False}, default=True)
tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(schedule, mask=decayed))


def layer(seed, ins, outs):
    kernel = jax.random.normal(jax.random.key(seed), (ins, outs)) / ins**0.5
    return {"kernel": kernel, "bias": jnp.zeros(outs)}


def logits(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["output"]["kernel"] + params["output"]["bias"]


def loss(params, x, y):
    return gradtx.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


@jax.jit
def step(params, state, x, y):
    updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
    return gradtx.apply_updates(params, updates), state


def train(params, state, epochs):
    for epoch in epochs:
        for batch in np.random.default_rng(epoch).permutation(1500).reshape(30, 50):
            params, state = step(params, state, x_train[batch], y_train[batch])
        accuracy = np.mean(logits(params, x_test).argmax(1) == y_test)
        rate = gradtx.hyperparams(state)["learning_rate"]
        print(f"epoch {epoch + 1}: learning rate {rate:.4f}, test accuracy {accuracy:.3f}")
    return params, state, accuracy


params = {"hidden": layer(0, 64, 32), "output": layer(1, 32, 10)}
template = {"params": params, "optimizer": tx.init(params)}
params, state, _ = train(params, tx.init(params), range(5))
with tempfile.TemporaryDirectory() as folder:  # in a program of yours, one that stays
    file = f"{folder}/checkpoint.npz"
    np.savez(file, **gradtx.state_dict({"params": params, "optimizer": state}))
    saved = gradtx.load_state_dict(template, np.load(file))
params, state, accuracy = train(params, state, range(5, 10))
assert accuracy > 0.95

again, _, _ = train(saved["params"], saved["optimizer"], range(5, 10))
jax.tree.map(np.testing.assert_array_equal, again, params)
print("The restored run ended bit for bit like the other.")
