"""Muon: the polynomial, its scalings, which leaves it takes, and how they travel."""

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest
import trees
from references.common import rate
from references.muon import polar, scale_by_muon
from representatives import first
from trees import assert_equal, avals

import gradtx

EXACT = ((2.0, -1.5, 0.5),) * 25
"""A polynomial whose fixed point is 1: `2 - 3/2 + 1/2 = 1`, and flat there: `2 - 9/2 + 5/2 = 0`."""
SHAPES = {"wide": (4, 6), "tall": (6, 4), "square": (5, 5), "again": (4, 6)}


def problem(steps=5, dtype=np.float64):
    random = np.random.default_rng(3)

    def draw():
        return {n: random.standard_normal(s).astype(dtype) for n, s in SHAPES.items()}

    return draw(), [draw() for _ in range(steps)]


def run(tx, params, gradients):
    state, steps = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(g, state, params)
        params = gradtx.apply_updates(params, updates)
        steps.append(updates)
    return steps


SETTINGS = [
    {},
    {"nesterov": False},
    {"adaptive": True},
    {"beta": 0.5},
    {"eps": 0.1},
    {"ns_steps": 3},
    {"ns_coeffs": EXACT},
    {"preconditioning": "spectral", "eps": 0.1},
    {"preconditioning": "schatten"},
    {"preconditioning": "aol"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_directions_against_the_papers_algebra(settings, x64):
    params, gradients = problem()
    steps = run(gradtx.scale_by_muon(**settings), params, gradients)
    for name in SHAPES:
        wanted = scale_by_muon([g[name] for g in gradients], **settings)
        for ours, w in zip(steps, wanted, strict=True):
            np.testing.assert_allclose(ours[name], w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, lambda r, c: max(1.0, c / r) ** 0.5),
        ({"consistent_rms": 0.2}, lambda r, c: 0.2 * max(r, c) ** 0.5),
    ],
    ids=["width", "rms"],
)
def test_steps_of_matrices(settings, factor, x64):
    def schedule(count):
        return 0.1 / (count + 1)

    params, gradients = problem()
    tx = gradtx.muon(schedule, weight_decay=0.3, **settings)
    steps = run(tx, params, gradients)
    for name, shape in SHAPES.items():
        x = params[name]
        for t, u in enumerate(scale_by_muon([g[name] for g in gradients])):
            step = -rate(schedule, t) * (factor(*shape) * u + 0.3 * x)
            np.testing.assert_allclose(steps[t][name], step, rtol=1e-10, atol=1e-12)
            x = x + step


def test_singular_values_become_1(x64):
    params, gradients = problem(1)
    (step,) = run(gradtx.scale_by_muon(EXACT), params, gradients)
    for name, g in gradients[0].items():
        u, _, vh = np.linalg.svd(g, full_matrices=False)
        np.testing.assert_allclose(step[name], u @ vh, atol=1e-9)
    # and with Jordan's coefficients between 0.6 and 1.3
    (step,) = run(gradtx.scale_by_muon(), params, gradients)
    for o in step.values():
        singular = np.linalg.svd(o, compute_uv=False)
        assert singular.min() > 0.5 and singular.max() < 1.3


def test_complex_matrices(x64):
    random = np.random.default_rng(1)
    g = random.standard_normal((4, 3)) + 1j * random.standard_normal((4, 3))
    tx = gradtx.scale_by_muon(EXACT)
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], u @ vh, atol=1e-9)
    adaptive = gradtx.scale_by_muon(EXACT, adaptive=True, nesterov=False)
    nuclear = np.sum(np.linalg.svd(g, compute_uv=False))
    np.testing.assert_allclose(adaptive.update(g, adaptive.init(g))[0], nuclear * u @ vh, atol=1e-7)


def test_tensors_are_stacks_of_matrices(x64):
    random = np.random.default_rng(2)
    params = {"heads": random.standard_normal((3, 4, 6)), "conv": random.standard_normal((2, 4, 3))}
    axes = {
        "heads": gradtx.MuonDimensionNumbers(1, 2),
        "conv": gradtx.MuonDimensionNumbers((0, 1), 2),
    }
    for given in (axes, lambda tree: axes):
        tx = gradtx.scale_by_muon(nesterov=False, weight_dimension_numbers=given)
        updates, _ = tx.update(params, tx.init(params))
        for i in range(3):
            alone = polar(params["heads"][i], (3.4445, -4.775, 2.0315), 5, "frobenius", 1e-8)
            np.testing.assert_allclose(updates["heads"][i], alone, rtol=1e-10, atol=1e-12)
        flat = polar(params["conv"].reshape(8, 3), (3.4445, -4.775, 2.0315), 5, "frobenius", 1e-8)
        np.testing.assert_allclose(updates["conv"].reshape(8, 3), flat, rtol=1e-10, atol=1e-12)


def test_the_rest_is_adamws():
    params = {"w": trees.numbers((3, 4), 1), "b": trees.numbers((4,), 2), "none": None}
    tx = gradtx.muon(0.1, adam_learning_rate=0.01, adam_weight_decay=0.5, adam_b1=0.8)
    updates, state = tx.update(params, tx.init(params), params)
    adamw = gradtx.adamw(0.01, b1=0.8, weight_decay=0.5, nesterov=True)
    rest = {"b": params["b"]}
    alone, _ = adamw.update(rest, adamw.init(rest), rest)
    trees.assert_ulps(updates["b"], alone["b"], 2)
    assert updates["none"] is None
    inner = state.inner_states["muon"].inner_state[0]
    assert isinstance(inner, gradtx.MuonState) and inner.mu["b"] == gradtx.MaskedNode()


def test_tensors_need_axes_or_go_to_adamw():
    params = {"w": jnp.ones((2, 2)), "t": jnp.ones((2, 3, 4))}
    tx = gradtx.muon(0.1)  # takes what has two axes
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["t"], updates["t"][0, 0, 0])
    with pytest.raises(ValueError, match=r"scale_by_muon: params\['t'\] has shape \(2, 3, 4\)"):
        gradtx.scale_by_muon().init(params)
    # a function of the user's sees whole trees, though Muon and AdamW share them
    tx = gradtx.muon(
        0.1,
        muon_weight_dimension_numbers=lambda tree: {
            k: gradtx.MuonDimensionNumbers(1, 2) if x.ndim == 3 else None for k, x in tree.items()
        },
    )
    state = tx.init(params)
    updates, new = tx.update(params, state, params)
    assert avals(new) == avals(state)
    assert state.inner_states["muon"].inner_state[0].mu["w"] == gradtx.MaskedNode()


def test_settings_that_are_not_known():
    with pytest.raises(
        ValueError, match="must be one of 'standard', 'dion', 'polar_express', got 'fast'"
    ):
        gradtx.muon(0.1, ns_coeffs="fast")
    with pytest.raises(ValueError, match="muon: preconditioning must be one of 'frobenius'"):
        gradtx.muon(0.1, preconditioning="l1")


@pytest.mark.parametrize(
    "preconditioning", list(first(["frobenius", "spectral", "schatten", "aol"]))
)
def test_zero_gradients_give_zero_updates(preconditioning):
    for dtype in ("float32", "float16", "bfloat16"):
        zeros = {"w": jnp.zeros((3, 4), dtype), "tall": jnp.zeros((4, 3), dtype)}
        tx = gradtx.scale_by_muon(preconditioning=preconditioning)
        updates, _ = tx.update(zeros, tx.init(zeros))
        assert_equal(updates, zeros)


def test_one_iteration_a_shape_and_not_a_leaf():
    params = {f"w{i}": jnp.ones((2 + i % 3, 4)) for i in range(12)}
    tx = gradtx.muon(0.1)
    text = jax.jit(tx.update).lower(params, tx.init(params), params).as_text()
    assert text.count("stablehlo.dot_general") == 3 * 3  # products of an iteration


@pytest.mark.slow
def test_trajectories_are_those_of_optax(x64):
    params, gradients = problem()
    for settings in ({}, {"ns_coeffs": "dion"}, {"weight_decay": 0.1, "adam_b1": 0.5}):
        ours = run(gradtx.muon(0.1, **settings), params, gradients)
        theirs = run(optax.contrib.muon(0.1, **settings), params, gradients)
        for a, b in zip(ours, theirs, strict=True):
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), a, b)


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "schatten", "aol"])
@pytest.mark.parametrize("size", [1e12, 1e20, 1e36])
def test_large_momentum_has_the_direction_of_small(preconditioning, size):
    g = trees.numbers((3, 4), 1)
    tx = gradtx.contrib.scale_by_muon(preconditioning=preconditioning)
    small, large = (tx.update(x, tx.init(g), g)[0] for x in (g, g * size))
    np.testing.assert_allclose(large, small, rtol=1e-4, atol=1e-5)


def test_momentum_that_is_not_finite_does_not_become_a_step():
    g = trees.numbers((3, 4), 1).at[0, 0].set(jnp.nan)
    tx = gradtx.contrib.scale_by_muon()
    assert bool(jnp.all(jnp.isnan(tx.update(g, tx.init(g), g)[0])))
