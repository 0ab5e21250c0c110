"""Pieces against the equations of their papers, in float64; each runs as one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import pieces

import gradtx

STEPS = 9


def rate(t):
    return 0.1 / (t + 1)


@functools.cache
def problem():
    """Gradients and parameters at each step, with a few gradients much larger than the others."""
    random = np.random.default_rng(3)

    def draw(shape, with_imaginary=False):
        x = random.standard_normal((STEPS, *shape))
        return x + 1j * random.standard_normal(x.shape) if with_imaginary else x

    def tree():
        return {"w": draw((2, 3)), "b": draw((3,)), "z": draw((2,), True)}

    g, x = tree(), tree()
    for name in g:
        g[name][6] *= 30
    return g, x


def run(tx):
    """All updates, and the last state."""
    g, x = problem()

    @jax.jit
    def scan(g, x):
        def step(state, now):
            updates, state = tx.update(now[0], state, now[1])
            return state, updates

        first = jax.tree.map(lambda a: a[0], x)
        return jax.lax.scan(step, tx.init(first), (g, x))

    state, updates = scan(g, x)
    return updates, state


def leaf(tree, name):
    return list(np.asarray(tree[name]))


EMA = functools.partial(gradtx.ema, 0.8)
# The piece, its settings, and what it wraps.
CASES = {
    "grokfast_ema": (dict(alpha=0.7, lamb=3.0), None),
    "grokfast_ma": (dict(window=3, lamb=3.0), None),
    "grams": (dict(finished=False), EMA),
    "stable_rms_clip": (dict(b2=0.7, eps=1e-3), EMA),
    "spike_aware_clip": (dict(threshold=3.0, b2=0.7), None),
    "adaptive_spike_clip": (dict(decay=0.6), None),
    "adaptive_gradient_norm": (dict(b1=0.7, b2=0.8, eps=1e-3), None),
    "add_independent_decay": (dict(weight_decay=rate), None),
    "add_corrected_decay": (
        dict(weight_decay=0.3, learning_rate=rate, max_learning_rate=0.2), None,
    ),
    "add_cautious_decay": (dict(weight_decay=0.3), None),
    "add_decay_to_initial": (dict(weight_decay=0.3), None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_updates(name, x64):
    settings, inner = CASES[name]
    piece, paper = getattr(gradtx, name), getattr(pieces, name)
    found, _ = run(piece(**settings) if inner is None else piece(inner(), **settings))
    g, x = problem()
    of_inner = None if inner is None else run(inner())[0]
    for k in g:
        more = () if inner is None else (leaf(of_inner, k),)
        more += (leaf(x, k),) if name.startswith("add_") else ()
        np.testing.assert_allclose(found[k], paper(leaf(g, k), *more, **settings), rtol=1e-12)


def test_grams_of_steps_descend(x64):
    (found, _), (wanted, _) = (
        run(gradtx.chain(gradtx.grams(gradtx.sgd(0.1, momentum=0.9)))),
        run(gradtx.chain(gradtx.grams(gradtx.trace(0.9), finished=False), gradtx.scale(-0.1))),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, wanted)


def test_momentum_reset(x64):
    found, _ = run(gradtx.momentum_reset(EMA(), every=4, warmup=3))
    for k, g in problem()[0].items():
        wanted = pieces.momentum_reset(list(g), every=4, warmup=3, b1=0.8)
        np.testing.assert_allclose(found[k], wanted, rtol=1e-12)


AVERAGES = {
    "params_ema": dict(decay=0.6),
    "params_ema#2": dict(decay=0.9, warmup=False),
    "params_mean": dict(start=2),
    "params_mean#2": dict(start=3, every=2),
    "lawa": dict(window=3, every=2),
    "lawa#2": dict(window=9, every=4),
}


def test_several_averages_at_once(x64):
    made = [getattr(gradtx, name.split("#")[0])(**s) for name, s in AVERAGES.items()]
    found, state = run(gradtx.chain(*made))
    g, x = problem()
    for name, settings in AVERAGES.items():
        average = gradtx.averaged_params(state, name=name)
        for k in g:
            np.testing.assert_array_equal(found[k], g[k])
            wanted = getattr(pieces, name.split("#")[0])(leaf(g, k), leaf(x, k), **settings)
            np.testing.assert_allclose(average[k], wanted, rtol=1e-12)


def test_primal_averaging(x64):
    base = gradtx.chain(gradtx.add_decayed_weights(0.3), gradtx.sgd(rate))
    tx = gradtx.primal_averaging(base, mu_x=0.7, mu_y=0.6)
    g, x = problem()
    start = jax.tree.map(lambda a: jnp.asarray(a[0]), x)

    @jax.jit
    def scan(start, g):
        def step(carry, now):
            p, state = carry
            updates, state = tx.update(now, state, p)
            p = gradtx.apply_updates(p, updates)
            return (p, state), p

        (p, state), points = jax.lax.scan(step, (start, tx.init(start)), g)
        return points, gradtx.averaged_params(state, p)

    points, average = scan(start, g)
    for k in g:
        y, last = pieces.primal_averaging(g[k], x[k][0], 0.7, 0.6, rate, 0.3)
        np.testing.assert_allclose(points[k], y, rtol=1e-12)
        np.testing.assert_allclose(average[k], last, rtol=1e-12)


@pytest.mark.parametrize("name", ["adaptive_spike_clip", "adaptive_gradient_norm"])
def test_what_is_not_finite_is_returned_and_forgotten(name):
    """Guards can see it, and the averages of norms go on."""
    tx, g = getattr(gradtx, name)(), jnp.array([1.0, -2.0])
    _, state = tx.update(g, tx.init(g))
    for bad in (jnp.inf, jnp.nan):
        updates, after = tx.update(jnp.array([bad, 1.0]), state)
        np.testing.assert_array_equal(updates, [bad, 1.0])
        assert jax.tree.leaves(after)[1:] == jax.tree.leaves(state)[1:]
