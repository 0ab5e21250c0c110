"""Meshes of 8 devices, parameters that are sharded over them, and what must hold of every step."""

import contextlib
import re
from collections import Counter
from typing import NamedTuple

import conftest
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from trees import is_key, needed

import gradtx

SHAPES = {"w": (16, 8), "v": (8, 24), "s": (2, 8, 16), "b": (16,)}


class Setting(NamedTuple):
    """The lengths of a mesh's axes by name, and the parameters' specs."""

    axes: dict
    specs: dict

    def mesh(self, kind):
        kinds = (kind,) * len(self.axes)
        return jax.make_mesh(tuple(self.axes.values()), tuple(self.axes), axis_types=kinds)


SETTINGS = {
    "8": Setting({"x": 8}, {"w": P("x"), "v": P(None, "x"), "s": P(None, None, "x"), "b": P("x")}),
    "2x4": Setting(
        {"d": 2, "t": 4},
        {"w": P("d", "t"), "v": P("t"), "s": P(None, "t", "d"), "b": P(("d", "t"))},
    ),
    "replicated": Setting({"x": 8}, dict.fromkeys(SHAPES, P())),
}


def numbers(shapes=SHAPES, seed=0, dtype=np.float64):
    random = np.random.default_rng(seed)

    def one(shape):
        x = random.normal(size=shape)
        return (x + 1j * random.normal(size=shape) if np.dtype(dtype).kind == "c" else x).astype(
            dtype
        )

    return jax.tree.map(one, shapes, is_leaf=lambda x: isinstance(x, tuple))


def placed(tree, mesh, specs):
    return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), tree, specs)


def in_context(mesh):
    """The context in which JAX shards arrays that are made anew, over explicit axes."""
    explicit = AxisType.Explicit in mesh.axis_types
    return jax.set_mesh(mesh) if explicit else contextlib.nullcontext()


def loss(params):
    return sum(jnp.sum(jnp.real(x * jnp.conj(x))) for x in jax.tree.leaves(params)) / 2


def loss_in_another_order(params):
    """The same loss, by sums along the first axis, as of rows on several devices."""
    return (
        sum(jnp.sum(jnp.sum(jnp.real(x * jnp.conj(x)), 0)) for x in jax.tree.leaves(params)[::-1])
        / 2
    )


class Walk(NamedTuple):
    """What three steps gave."""

    params: dict
    updates: list
    states: list
    compiled: list


def walk(tx, params, gradients, jitted=True, entry=None, loss=loss):
    """Takes a step for each gradient, and counts what is compiled in each."""

    def step(g, state, params):
        extra = needed(entry, loss, params, g) if entry else {}
        return tx.update(g, state, params, **extra)

    step = jax.jit(step) if jitted else step
    state = (jax.jit(tx.init) if jitted else tx.init)(params)
    found = Walk(params, [], [state], [])
    for g in gradients:
        before = len(conftest.compiled)
        updates, state = step(g, state, params)
        params = gradtx.apply_updates(params, updates)
        found.compiled.append(len(conftest.compiled) - before)
        found.updates.append(updates)
        found.states.append(state)
    return found._replace(params=params)


def gradients_of(shapes=SHAPES, dtype=np.float64, number=3):
    return [numbers(shapes, seed, dtype) for seed in range(1, number + 1)]


def on_one(tx, shapes=SHAPES, dtype=np.float64, entry=None, number=3, loss=loss):
    """The steps on one device."""
    arrays = [jax.tree.map(jnp.asarray, g) for g in gradients_of(shapes, dtype, number)]
    return walk(
        tx, jax.tree.map(jnp.asarray, numbers(shapes, 0, dtype)), arrays, entry=entry, loss=loss
    )


def on_many(
    tx,
    mesh,
    specs,
    shapes=SHAPES,
    dtype=np.float64,
    entry=None,
    number=3,
    jitted=True,
    context=in_context,
):
    """The steps on all devices; `tx` may be a function of the parameters."""
    params = placed(numbers(shapes, 0, dtype), mesh, specs)
    arrays = [placed(g, mesh, specs) for g in gradients_of(shapes, dtype, number)]
    tx = tx if hasattr(tx, "init") else tx(params)
    with context(mesh):
        return walk(tx, params, arrays, jitted, entry=entry)


# ---- What must hold ---------------------------------------------------------------------------


def check_on(device, tx, params):
    """The first state is on a device, and its step is compiled once."""
    state = tx.init(params)
    for x in jax.tree.leaves(state):
        assert x.devices() == {device} and x.committed
    step = jax.jit(tx.update)
    for _ in range(2):
        _, state = step(params, state, params)
    assert step._cache_size() == 1


def arrays(tree):
    """The leaves as NumPy's arrays; random keys by their data."""
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(tree)
    ]


def collectives_of(function, *args):
    """The number of collectives of each kind in a compiled function."""
    text = jax.jit(function).lower(*args).compile().as_text()
    kinds = r"all-reduce|all-gather|reduce-scatter|collective-permute|(?:ragged-)?all-to-all"
    return Counter(re.findall(rf" ({kinds})(?:-start)?\(", text))


def largest_difference(found, wanted):
    """The largest difference of leaves of several steps, relative to the leaf's largest number.

    That is the largest of all steps: the moves of a method that converges, such as L-BFGS, become
    small, but the rounding of the numbers that they are differences of does not.
    """
    worst = 0.0
    found, wanted = ([arrays(x) for x in steps] for steps in (found, wanted))
    for xs, ys in zip(zip(*found, strict=True), zip(*wanted, strict=True), strict=True):
        size = max(np.max(np.abs(y), initial=0) for y in ys)
        for x, y in zip(xs, ys, strict=True):
            assert x.shape == y.shape and x.dtype == y.dtype
            difference = np.max(np.abs(x - y), initial=0)
            worst = max(worst, float(difference / (size or 1)))
    return worst


def same_sharding(a, b):
    return a.sharding.is_equivalent_to(b.sharding, a.ndim)


def moved(a, b):
    """The paths of leaves whose shardings differ."""
    pairs = zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True)
    return [
        f"{jax.tree_util.keystr(path)} {x.sharding.spec} {y.sharding.spec}"
        for (path, x), y in pairs
        if not same_sharding(x, y)
    ]


def share(state, least=64):
    """The part of a state's larger leaves that the first device has."""
    leaves = [x for x in jax.tree.leaves(state) if not is_key(x) and x.size >= least]
    whole = sum(x.nbytes for x in leaves)
    return sum(x.addressable_shards[0].data.nbytes for x in leaves) / whole if whole else 0.0
