"""The calls of `docs/recipes.md` give the numbers of the libraries that they stand for."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()

# What the calls name: moved from the defaults of all libraries.
VALUES = {
    "lr": 0.03, "m": 0.8, "d": 0.3, "wd": 0.07, "b1": 0.85, "b2": 0.97, "b3": 0.8, "eps": 1e-3,
    "psi": 0.3, "rho": 0.8, "a": 0.2, "k": 0.1, "small": 1e-3, "large": 0.05, "lambd": 0.02,
    "alpha": 0.6, "t0": 3, "l1": 0.2, "l2": 0.1, "beta": 0.5,
}  # fmt: skip
STEPS = 10


def rows(library):
    """The calls in a library's table, each with that of gradtx."""
    (table,) = re.findall(rf"<!-- {library} -->(.*?)<!-- /{library} -->", PAGE, re.DOTALL)
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    found = [re.match(r"\| `(.+?)` \| `(.+?)` \|", line) for line in lines]
    assert found and None not in found
    return [row.groups() for row in found]


def made(call, names):
    return eval(call, {**vars(names), **VALUES, "jnp": jnp})


def start(call):
    """A matrix and a vector, or two matrices; from 0 where the page asks for it."""
    random = np.random.default_rng(9)
    shapes = ((4, 2), (2, 4)) if "Muon" in call else ((4, 2), (3,))
    return [random.normal(size=shape) * ("Ftrl" not in call) for shape in shapes]


def gradients(step, params):
    """Those of a quadratic with noise, of sizes that differ from step to step."""
    random = np.random.default_rng(step)
    return [p + random.normal(size=p.shape) * 2.0 ** (step % 3) for p in params]


def ours(call, params):
    tx = made(call, gradtx)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(STEPS):
        updates, state = update([*map(jnp.asarray, gradients(step, params))], state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state


def by_torch(torch, optimizers, call):
    """Matrices are transposed: PyTorch has outputs first, gradtx inputs."""
    tensors = [torch.tensor(p.T.copy()) for p in start(call)]
    optimizer = eval(call, {**vars(optimizers), **VALUES, "params": tensors, "torch": torch})
    for step in range(STEPS):
        found = gradients(step, [t.numpy().T for t in tensors])
        for t, g in zip(tensors, found, strict=True):
            t.grad = torch.tensor(g.T.copy())
        optimizer.step()
    return [t.numpy().T for t in tensors], [optimizer.state[t].get("ax") for t in tensors]


def assert_same(call, theirs, mine):
    for want, found in zip(theirs, mine, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-12, err_msg=call)


@pytest.fixture
def torch(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # Muon would round to it
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # NAdam and ASGD would keep numbers in float32
    with jax.enable_x64(True):
        yield torch
    torch.set_default_dtype(usual)


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    monkeypatch.setattr(keras.src.ops, "mean", np.mean)  # Keras's are of float32
    monkeypatch.setattr(keras.src.ops, "norm", np.linalg.norm)
    usual = keras.config.floatx()
    keras.config.set_floatx("float64")
    with jax.enable_x64(True):
        yield keras
    keras.config.set_floatx(usual)


@pytest.mark.parametrize("library", ["torch", "timm", "keras"])
def test_every_call_makes_a_transformation(library):
    for _, equal in rows(library):
        assert isinstance(made(equal, gradtx), gradtx.GradientTransformation)


@pytest.mark.slow
def test_torch(torch):
    for call, equal in rows("torch"):
        mine, state = ours(equal, start(call))
        theirs, averages = by_torch(torch, torch.optim, call)
        assert_same(call, theirs, mine)
        if "ASGD" in call:
            assert_same(call, [ax.numpy().T for ax in averages], gradtx.averaged_params(state))


@pytest.mark.slow
def test_every_optimizer_of_torch_is_named(torch):
    _, section = PAGE.split("## PyTorch")
    section, _ = section.split("## timm")
    theirs = {name for name, x in vars(torch.optim).items() if isinstance(x, type)} - {"Optimizer"}
    assert {name for name in theirs if not re.search(rf"`{name}\b", section)} == set()


@pytest.mark.slow
def test_timm(torch):
    optimizers = pytest.importorskip("timm.optim")
    for call, equal in rows("timm"):
        theirs, _ = by_torch(torch, optimizers, call)
        assert_same(call, theirs, ours(equal, start(call))[0])


@pytest.mark.slow
def test_keras(keras):
    for call, equal in rows("keras"):
        variables = [keras.Variable(p) for p in start(call)]
        optimizer = made(call, keras.optimizers)
        for step in range(STEPS):
            found = gradients(step, [np.asarray(v.value) for v in variables])
            optimizer.apply_gradients(zip(map(jnp.asarray, found), variables, strict=True))
        assert_same(call, [v.value for v in variables], ours(equal, start(call))[0])
