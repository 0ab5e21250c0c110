"""Rules for stacks of matrices, written by strangers, over explicit axes of meshes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec as P
from meshes import (
    collectives_of,
    largest_difference,
    moved,
    numbers,
    on_many,
    on_one,
    placed,
)

import gradtx
from gradtx import MatrixAxes, Slots, matrixwise
from gradtx.state import Count, RandomKey, Slot, Statistic, Tally


class TwoSlotsState(NamedTuple):
    count: jax.Array
    rows: gradtx.Updates
    factor: gradtx.Updates


def stranger(**settings):
    """A method with a vector and a square matrix for each matrix, one of them renewed sometimes."""

    def init(p):
        n, r, _ = p.shape
        return Slots(rows=jnp.zeros((n, r)), factor=jnp.broadcast_to(jnp.eye(r), (n, r, r)))

    def update(g, s, step, p):
        rows = 0.9 * s.rows + jnp.sum(jnp.abs(g) ** 2, 2)

        def renewed():
            gram = jnp.einsum("nij,nkj->nik", g, g.conj()) + jnp.eye(g.shape[1])
            return jnp.linalg.cholesky(gram).real.astype(s.factor.dtype)

        factor = lax.cond(step % 2 == 0, renewed, lambda: s.factor)
        g = jnp.einsum("nij,njk->nik", factor.astype(g.dtype), g)
        g = g / jnp.sqrt(rows + 1)[:, :, None]
        if p is not None:
            g = g + 0.1 * p / (1 + jnp.linalg.norm(p, axis=(1, 2), keepdims=True))
        return g, Slots(rows=rows, factor=factor)

    return matrixwise(TwoSlotsState, init, update, **settings)


class MomentState(NamedTuple):
    count: Count
    rng_key: RandomKey
    mu: Slot
    basis: Statistic
    large: Tally


def keyed(**settings):
    """A method with a moment, a random basis for each matrix, noise and a count."""

    def normal(keys, *shape):
        return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)

    def init(p, keys):
        n, r, _ = p.shape
        basis = normal(keys, r, 2).astype(p.dtype)
        return Slots(mu=jnp.zeros_like(p), basis=basis, large=jnp.zeros(n, jnp.int32))

    def update(g, s, step, p):
        mu = 0.9 * s.mu + g + normal(s.rng_key, *g.shape[1:])
        u = mu - jnp.einsum("nir,njr,njk->nik", s.basis, s.basis.conj(), mu)
        large = jnp.max(jnp.abs(u), (1, 2), initial=0) > 5
        return u, Slots(mu=mu, basis=s.basis * 0.9, large=s.large + large)

    return matrixwise(MomentState, init, update, key=jax.random.key(1), **settings)


class Case(NamedTuple):
    axes: dict  # of the mesh
    shapes: dict
    specs: dict
    settings: dict | None = None


ONE, TWO = {"x": 8}, {"d": 2, "t": 4}
KINDS = [
    *(P(), P("d"), P("t"), P(None, "d"), P("d", "t"), P("t", "d")),
    *(P(("d", "t")), P(None, ("t", "d")), P("d")),
]
HEADS = MatrixAxes((0,), (1, 2))  # embedding -> heads, size


def many(n, *spec):
    return {f"m{i}": (16, 8) for i in range(n)}, {f"m{i}": P(*spec) for i in range(n)}


CASES = {
    **{f"{n} matrices": Case(ONE, *many(n, "x")) for n in (1, 5, 8, 12, 24)},
    **{f"{n} matrices 2x4": Case(TWO, *many(n, "d", "t")) for n in (1, 5, 12)},
    "tall and wide": Case(
        ONE,
        {"a": (16, 8), "b": (8, 16), "c": (8, 8)},
        dict.fromkeys("abc", P("x")),
        {"lying": True},
    ),
    "tall and wide, params": Case(
        TWO,
        {"a": (16, 8), "b": (8, 16), "c": (8, 8)},
        {"a": P("t", "d"), "b": P("d", "t"), "c": P(None, ("t", "d"))},
        {"lying": True, "params": True},
    ),
    "after": Case(
        ONE,
        {"a": (16, 8), "b": (8, 16)},
        dict.fromkeys("ab", P(None, "x")),
        {"lying": True, "after": lambda g, layout: g * layout.rows},
    ),
    "kinds of shardings in one shape": Case(
        TWO,
        {f"m{i}": (8, 8) for i in range(9)},
        {f"m{i}": spec for i, spec in enumerate(KINDS)},
    ),
    "convolution": Case(
        ONE,
        {"k": (3, 3, 8, 16), "l": (3, 3, 16, 8)},
        {"k": P(None, None, None, "x"), "l": P(None, None, "x")},
        {"axes": MatrixAxes((0, 1, 2), 3)},
    ),
    "convolution by places": Case(
        TWO, {"k": (3, 3, 8, 16)}, {"k": P(None, None, "d", "t")}, {"axes": MatrixAxes(2, 3)}
    ),
    "heads": Case(
        TWO,
        {"q": (16, 4, 8), "k": (16, 4, 8), "o": (16, 8, 4)},
        {"q": P("d", "t"), "k": P("t", None, "d"), "o": P(("d", "t"))},
        {"axes": HEADS},
    ),
    "a head each": Case(TWO, {"q": (16, 4, 8)}, {"q": P("d", "t")}, {"axes": MatrixAxes(0, 2)}),
    "heads with columns first": Case(
        ONE,
        {"q": (16, 8, 4), "k": (16, 8, 4)},
        {"q": P("x"), "k": P(None, "x")},
        {"axes": MatrixAxes((2, 1), 0)},
    ),
    "layers divided": Case(ONE, {"l": (16, 6, 4)}, {"l": P("x")}, {"axes": MatrixAxes(1, 2)}),
    "layers not divided": Case(
        ONE, {"l": (12, 8, 4)}, {"l": P(None, "x")}, {"axes": MatrixAxes(1, 2)}
    ),
    "3 layers not divided": Case(
        ONE, {"l": (3, 8, 4)}, {"l": P(None, "x")}, {"axes": MatrixAxes(1, 2)}
    ),
    "layers whole": Case(ONE, {"l": (12, 8, 4)}, {"l": P()}, {"axes": MatrixAxes(1, 2)}),
    "layers last": Case(
        ONE,
        {"l": (8, 4, 12), "m": (8, 4, 8)},
        {"l": P("x"), "m": P(None, None, "x")},
        {"axes": MatrixAxes(0, 1)},
    ),
    "experts": Case(
        TWO,
        {"e": (6, 4, 8, 16), "f": (6, 4, 8, 16)},
        {"e": P(None, "t", "d"), "f": P("d", "t")},
        {"axes": MatrixAxes(2, 3)},
    ),
    "experts over one axis": Case(
        TWO, {"e": (4, 8, 16)}, {"e": P("t")}, {"axes": MatrixAxes(1, 2)}
    ),
    "3 experts on 2": Case(
        TWO,
        {"e": (6, 8, 16), "w": (8, 16)},
        {"e": P("d", "t"), "w": P("t")},
        {"axes": {"e": MatrixAxes(1, 2), "w": None}},
    ),
    "mixed": Case(
        TWO,
        {"e": (4, 8, 16), "w": (8, 16), "o": (1, 1), "z": (0, 4), "n": (1, 8)},
        {"e": P("t"), "w": P(None, "d"), "o": P(), "z": P(), "n": P(None, "t")},
        {"axes": {"e": MatrixAxes(1, 2), "w": None, "o": None, "z": None, "n": None}},
    ),
}


def wide(dtype):
    return jnp.promote_types(dtype, jnp.float64)


def tolerance(dtype):
    return {"float64": 1e-12, "complex128": 1e-12, "float32": 2e-6, "bfloat16": 2**-7}[dtype]


def mesh_of(axes):
    return jax.make_mesh(
        tuple(axes.values()), tuple(axes), axis_types=(AxisType.Explicit,) * len(axes)
    )


MOMENTS = [
    *("5 matrices", "12 matrices 2x4", "tall and wide", "convolution", "layers last", "experts"),
    *("heads with columns first", "3 experts on 2", "mixed"),
]
USES = [
    *((stranger, name, jitted) for name in CASES for jitted in (True, False)),
    *((keyed, name, True) for name in MOMENTS),
]


@pytest.mark.parametrize(("make", "name", "jitted"), USES)
def test_strangers(make, name, jitted):
    axes, shapes, specs, settings = CASES[name]
    tx = make(**(settings or {}))
    wanted = on_one(tx, shapes)
    found = on_many(tx, mesh_of(axes), specs, shapes, jitted=jitted)
    assert largest_difference(found.updates, wanted.updates) <= 1e-12
    assert largest_difference(found.states, wanted.states) <= 1e-12
    assert largest_difference([found.params], [wanted.params]) <= 1e-12
    params = placed(numbers(shapes), mesh_of(axes), specs)
    for updates in found.updates:
        assert moved(params, updates) == []
    for state in found.states[1:]:
        assert moved(found.states[0], state) == []
    assert found.compiled[1:] == [0, 0]
    known = gradtx.state_sharding(tx, params)
    assert all(
        x.sharding.is_equivalent_to(s, x.ndim)
        for x, s in zip(jax.tree.leaves(found.states[-1]), jax.tree.leaves(known), strict=True)
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "complex128"])
@pytest.mark.parametrize(
    "name", ["5 matrices", "12 matrices", "tall and wide, params", "experts", "mixed"]
)
def test_dtypes(name, dtype):
    axes, shapes, specs, settings = CASES[name]
    tx = stranger(**(settings or {}))
    wanted = on_one(tx, shapes, jnp.dtype(dtype))
    found = on_many(tx, mesh_of(axes), specs, shapes, jnp.dtype(dtype))
    wides = [gradtx.tree.cast(x.updates, wide(dtype)) for x in (found, wanted)]
    assert largest_difference(*wides) <= tolerance(dtype)
    assert [x.dtype for x in jax.tree.leaves(found.states)] == [
        x.dtype for x in jax.tree.leaves(wanted.states)
    ]


def collectives(tx, axes, shapes, specs):
    mesh = mesh_of(axes)
    params = placed(numbers(shapes), mesh, specs)
    with jax.set_mesh(mesh):
        state = tx.init(params)
        return collectives_of(tx.update, params, state, params)


@pytest.mark.parametrize("n", [8, 12, 24])
def test_two_exchanges_for_a_kind(n):
    shapes, specs = many(n, "x")
    found = collectives(gradtx.scale_by_muon(), ONE, shapes, specs)
    # Those that remain are exchanged apart from those that each device has equally many of.
    assert found == {"all-to-all": 2 if n % 8 == 0 else 4}


def test_no_exchange_for_layers_that_are_divided():
    shapes, specs = {"l": (16, 6, 4)}, {"l": P("x")}
    tx = gradtx.scale_by_muon(weight_dimension_numbers=MatrixAxes(1, 2))
    assert collectives(tx, ONE, shapes, specs) == {}


# ---- Arrays that a rule captures -----------------------------------------------------------------


def scaled(factor, axes=None):
    """A rule that captures an array, through a function and a container."""
    held = {"factor": factor}

    def times(x):
        return held["factor"] * x

    def update(g, s, step, p):
        return times(g), Slots()

    return matrixwise(
        gradtx.EmptyState, None, update, axes=axes, after=lambda g, layout: times(g) / layout.rows
    )


def test_arrays_that_rules_capture():
    shapes, specs = many(5, "d", "t")
    host = numbers(shapes)
    mesh = mesh_of(TWO)
    params = placed(host, mesh, specs)
    wanted = jax.tree.map(lambda x: 9 * x / 16, host)
    with jax.set_mesh(mesh):
        for run in (lambda f: f, jax.jit):
            step = run(lambda f, g: scaled(f).update(g, scaled(f).init(g))[0])
            found = step(jnp.array(3.0), params)
            assert largest_difference([found], [wanted]) <= 1e-15
        tx = gradtx.inject_hyperparams(scaled)(factor=3.0)
        found, _ = tx.update(params, tx.init(params))
        assert largest_difference([found], [wanted]) <= 1e-15
        # one that is divided, and several at once
        factor = jax.device_put(jnp.ones(8), jax.NamedSharding(mesh, P("t")))
        found, _ = jax.jit(lambda f: scaled(f).update(params, gradtx.EmptyState()))(factor)
        assert largest_difference([found], [jax.tree.map(lambda x: x / 16, host)]) <= 1e-15
        step = jax.vmap(lambda f: scaled(f).update(params, gradtx.EmptyState())[0])
        third = jax.tree.map(lambda x: x[2], step(jnp.arange(3.0)))
        assert largest_difference([third], [jax.tree.map(lambda x: 4 * x / 16, host)]) <= 1e-15


@pytest.mark.parametrize(
    "make",
    [
        lambda: gradtx.muon(jnp.array(0.1), ns_coeffs=jnp.array([3.4, -4.7, 2.0])),
        lambda: gradtx.muon(0.1, consistent_rms=jnp.array(0.2), eps=jnp.array(1e-7)),
        lambda: gradtx.inject_hyperparams(gradtx.muon)(0.1, adaptive=True),
        lambda: gradtx.galore(0.1, rank=2, scale=jnp.array(0.5), update_proj_gap=jnp.array(2)),
        lambda: gradtx.inject_hyperparams(gradtx.galore, static_args=("rank",))(0.1, rank=2),
    ],
    ids=["muon", "muon's factor", "injected muon", "galore", "injected galore"],
)
@pytest.mark.parametrize("jitted", [True, False], ids=["jitted", "plain"])
def test_hyperparameters_that_are_arrays(make, jitted):
    shapes, specs = many(3, "d", "t")
    wanted = on_one(make(), shapes)
    mesh = mesh_of(TWO)
    with jax.set_mesh(mesh):
        tx = make()
    found = on_many(tx, mesh, specs, shapes, jitted=jitted)
    assert largest_difference(found.updates, wanted.updates) <= 1e-12
    assert found.compiled[1:] == [0, 0]


def test_a_rule_captures_arrays_for_a_matrix_that_is_divided_itself(monkeypatch):
    monkeypatch.setattr("gradtx._devices.lengthwise.LARGE", 64)
    shapes, specs = {"m": (128, 8)}, {"m": P("t", "d")}
    for make in (
        lambda: gradtx.inject_hyperparams(gradtx.muon)(0.1, adaptive=True),
        lambda: gradtx.muon(0.1, consistent_rms=jnp.array(0.2)),
        lambda: stranger(params=True, lying=True),
    ):
        wanted = on_one(make(), shapes)
        mesh = mesh_of(TWO)
        with jax.set_mesh(mesh):
            tx = make()
        found = on_many(tx, mesh, specs, shapes)
        assert largest_difference(found.updates, wanted.updates) <= 1e-12
        assert moved(found.states[0], found.states[-1]) == []
