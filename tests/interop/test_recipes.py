"""The calls of `docs/recipes.md` give the numbers of the libraries that they stand for."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()

# What the calls of the page name, moved from the defaults of both libraries.
VALUES = {
    "lr": 0.03, "m": 0.8, "d": 0.3, "wd": 0.07, "b1": 0.85, "b2": 0.97, "eps": 1e-3, "rho": 0.8,
    "a": 0.2, "k": 0.1, "small": 1e-3, "large": 0.05, "lambd": 0.02, "alpha": 0.6, "t0": 3, "psi": 0.3,
}  # fmt: skip


def rows(library):
    """The calls of a library's table, each with the call of gradtx."""
    (table,) = re.findall(rf"<!-- {library} -->(.*?)<!-- /{library} -->", PAGE, re.DOTALL)
    return re.findall(r"^\| `(.*?)` \| `(.*?)` \|", table, re.MULTILINE)


def gradients(step, params):
    """Of the order of 1, some of which change their signs and sizes from step to step."""
    random = np.random.default_rng(step)
    return [p + random.normal(size=p.shape) * 2.0 ** (step % 3) for p in params]


def ours(call, params):
    tx = eval(call, {**vars(gradtx), "jnp": jnp, **VALUES})
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(10):
        updates, state = update([*map(jnp.asarray, gradients(step, params))], state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state


@pytest.fixture
def torch(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # Muon rounds to it
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # in which NAdam and ASGD keep numbers
    yield torch
    torch.set_default_dtype(usual)


def test_torch(torch):
    first = [np.random.default_rng(9).normal(size=shape) for shape in ((3, 2), (4,))]
    for call, equal in rows("torch"):
        shapes = 
