"""Losses, projections, trees, linear algebra: rows of `docs/differences.md`, from both sides.

Where the right answer is not plain to see, the file of the function's own tests derives it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

A = jnp.array
ZEROS, ONES = jnp.zeros(2), jnp.ones(2)
LARGE = jnp.full(100, 300, jnp.float16)
ANCHOR, NEAR, FAR = A([[1.0, 0.0]]), A([[2.0, 1.0]]), A([[1.0, 3.0]])
EYE = A([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
IMPROBABLE = A([[[0.0, -3e5, -3e5]]])
PADDED = A([[[0.0, 1.0], [jnp.nan, jnp.nan]]])
NAN = np.nan
CASES = {  # what is asked, what optax says, what gradtx says
    "log_cosh of a small error": (lambda x: x.losses.log_cosh(A(1e-4), A(0.0)), 0.0, 5e-9),
    "cosine_similarity to zeros": (lambda x: x.losses.cosine_similarity(ZEROS, ONES), NAN, 0.0),
    "cosine_similarity of small vectors": (
        lambda x: x.losses.cosine_similarity(1e-30 * ONES, ONES),
        np.inf,
        1.0,
    ),
    "triplet_margin_loss with an odd degree": (
        lambda x: x.losses.triplet_margin_loss(ANCHOR, NEAR, FAR, norm_degree=1),
        2.0,
        0.0,  # distances 2 and 3, and a margin of 1
    ),
    "ntxent without a pair": (lambda x: x.losses.ntxent(EYE, A([0, 1, 2])), NAN, 0.0),
    "sparsemax_loss of a label between 0 and 1": (
        lambda x: x.losses.sparsemax_loss(A(0.3), A(0.5)),
        0.1225,
        0.0225,
    ),
    "multiclass_hinge_loss of a label that is no class": (
        lambda x: x.losses.multiclass_hinge_loss(jnp.zeros((1, 3)), A([7])),
        1.0,
        NAN,  # as in the cross-entropies
    ),
    "ctc_loss of an improbable label": (
        lambda x: x.ctc_loss(IMPROBABLE, jnp.zeros((1, 1)), A([[1]]), jnp.zeros((1, 1))),
        1e5,
        3e5,
    ),
    "ctc_loss with NaN in the padding": (
        lambda x: x.ctc_loss(PADDED, A([[0.0, 1.0]]), A([[1]]), jnp.zeros((1, 1))),
        NAN,
        np.log1p(np.exp(-1)),
    ),
    "softmax_cross_entropy at logit -inf": (
        lambda x: x.softmax_cross_entropy(A([0.0, -jnp.inf]), A([1.0, 0.0])),
        NAN,
        0.0,
    ),
    "projection_simplex of size 0": (
        lambda x: x.projections.projection_simplex(ONES, 0.0),
        NAN,
        0.0,
    ),
    "projection_l1_ball of size 0": (lambda x: x.projections.projection_l1_ball(ONES, 0.0), NAN, 0),
    "projection_l1_sphere of the origin": (
        lambda x: jnp.sum(x.projections.projection_l1_sphere(ZEROS, 1.0)),
        0.0,
        1.0,
    ),
    "projection_l2_sphere of the origin": (
        lambda x: jnp.linalg.norm(x.projections.projection_l2_sphere(ZEROS, 1.0)),
        NAN,
        1.0,
    ),
    "tree.norm of float16": (lambda x: x.tree.norm(LARGE), np.inf, 3000.0),
    "tree.vdot of float16": (lambda x: x.tree.vdot(LARGE, LARGE), np.inf, 9e6),
    "safe_norm of float16": (lambda x: x.safe_norm(LARGE, 0.0), np.inf, 3000.0),
    "safe_root_mean_squares of float16": (
        lambda x: x.safe_root_mean_squares(LARGE, 0.0),
        np.inf,
        300.0,
    ),
    "power_iteration of zeros": (lambda x: x.power_iteration(jnp.zeros((2, 2)))[0], NAN, 0.0),
    "a bfloat16 sum over micro-batches": (
        lambda x: x.microbatching.microbatch(jnp.sum, 0, 4)(jnp.ones(4096, jnp.bfloat16)),
        1024.0,
        4096.0,
    ),
    "polyak_sgd(scaling=0.5) at a loss of 2 with a unit gradient": (
        lambda x: first_update(x.polyak_sgd(10.0, scaling=0.5), A([1.0]), value=2.0),
        -4.0,
        -1.0,
    ),
    "momo: decay and step in one": (  # optax: p/(1+0.1) - 1, the proximal step: (p - 1)/(1+0.1)
        lambda x: first_update(x.contrib.momo(1.0, weight_decay=0.1), A([1.0]), value=2.0),
        1 / 1.1 - 2,
        -1.0,
    ),
    "prodigy, first gradient zero": (
        lambda x: first_update(x.contrib.prodigy(), A([0.0])),
        NAN,
        0.0,
    ),
    "muon(weight_decay_mask=False)": (
        lambda x: first_update(
            x.contrib.muon(0.1, adam_weight_decay=0.1, weight_decay_mask=False), A([0.0])
        ),
        -0.01,
        0.0,
    ),
}


def first_update(tx, gradient, **extra):
    params = jnp.ones(1)
    return tx.update(gradient, tx.init(params), params, **extra)[0]


@pytest.mark.parametrize("case", CASES)
def test_both_sides(case):
    ask, theirs, ours = CASES[case]
    for library, wanted in ((optax, theirs), (gradtx, ours)):
        answer = np.asarray(jax.jit(lambda library=library: ask(library))(), float)
        np.testing.assert_allclose(answer, np.broadcast_to(wanted, answer.shape), 1e-5)


@pytest.mark.parametrize(
    ("ask", "theirs"),
    [
        (lambda x: x.losses.huber_loss(jnp.ones((3, 1)), jnp.ones(3)).shape, (3, 3)),
        (lambda x: x.losses.hinge_loss(jnp.ones((3, 1)), jnp.ones(3)).shape, (3, 3)),
        (lambda x: x.projections.projection_l2_ball(ONES, -1.0)[0], -(0.5**0.5)),
        (lambda x: x.incremental_update(A([3]), A([0]), 0.5), 1.5),
    ],
    ids=["[n,1] with [n]", "[n,1] with [n], hinge", "a negative radius", "an average of integers"],
)
def test_what_is_refused(ask, theirs):
    np.testing.assert_allclose(ask(optax), theirs, 1e-6)
    with pytest.raises((ValueError, TypeError)):
        ask(gradtx)


def test_averages_keep_the_dtype_of_what_is_averaged():
    new, old = jnp.ones(1), jnp.zeros(1, jnp.bfloat16)
    assert optax.incremental_update(new, old, 0.1).dtype == jnp.float32
    assert gradtx.incremental_update(new, old, 0.1).dtype == jnp.bfloat16
    with pytest.raises(TypeError):
        optax.periodic_update(new, old, 0, 2)
    assert gradtx.periodic_update(new, old, 0, 2).dtype == jnp.bfloat16


def test_dice_losses_may_be_jitted():
    p = A([[[[1.0, 0.0, 0.0]]]])
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(lambda p: optax.losses.dice_loss(p, p, apply_softmax=False))(p)
    loss = jax.jit(lambda p: gradtx.losses.dice_loss(p, p, apply_softmax=False))(p)
    np.testing.assert_allclose(loss, 0, atol=1e-6)


def test_power_iteration_takes_complex_matrices():
    a = A([[2, 1j], [-1j, 2]], jnp.complex64)
    with pytest.raises(ValueError):
        optax.power_iteration(a)
    np.testing.assert_allclose(gradtx.power_iteration(a)[0], 3, rtol=1e-5)
