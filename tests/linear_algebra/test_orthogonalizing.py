"""Orthogonalization: every iteration against the singular value decomposition."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from representatives import first

import gradtx

# Amsel et al., arXiv:2505.16932: what they print for the lower bound 1e-3, before the safety factor
PUBLISHED = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
)


def matrix(rows, columns, smallest=None, seed=0):
    """A matrix of random numbers, or with singular values from 1 down to the smallest."""
    random = np.random.default_rng(seed)
    g = random.standard_normal((rows, columns))
    if smallest is None:
        return g
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    return u * np.geomspace(1, smallest, len(vh)) @ vh


def exact(g):
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    return u @ vh


def singular_values(g):
    return np.linalg.svd(np.asarray(g, np.float64), compute_uv=False)


def through(table, s):
    """What the polynomials make of singular values."""
    for a, b, c in table:
        s = a * s + b * s**3 + c * s**5
    return s


# ---- Polar Express --------------------------------------------------------------------------


def test_the_papers_coefficients():
    found = gradtx.polar_express(len(PUBLISHED), 1e-3, safety=1)
    np.testing.assert_allclose(found, PUBLISHED, rtol=1e-12)
    stretched = np.array(gradtx.polar_express(len(PUBLISHED), 1e-3, safety=1.01))
    np.testing.assert_allclose(stretched[:-1], PUBLISHED[:-1] / 1.01 ** np.array([1, 3, 5]))
    np.testing.assert_allclose(stretched[-1], PUBLISHED[-1])


@pytest.mark.parametrize("low", [1e-6, 1e-3, 0.1, 0.9, 1 - 1e-4, 1.0])
def test_polar_express_converges_on_its_interval(low):
    x = np.linspace(low, 1, 2001)
    spread = [
        np.max(np.abs(1 - through(gradtx.polar_express(steps, low, safety=1), x)))
        for steps in range(1, 17)
    ]
    assert all(b <= a + 1e-14 for a, b in itertools.pairwise(spread))
    assert spread[-1] < 1e-14


@pytest.mark.parametrize("low", [0.03, 0.3])
def test_no_other_polynomial_is_nearer_to_1(low):
    """The error has its largest size at four points, with alternating signs: Chebyshev's theorem"""
    x = np.linspace(low, 1, 20001)
    error = 1 - through(gradtx.polar_express(1, low, safety=1), x)
    largest = np.max(np.abs(error))
    at = np.sign(error[np.abs(error) > (1 - 1e-6) * largest])
    assert list(at[np.append(True, at[1:] != at[:-1])]) == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"lower_bound": 0.0}, r"lower_bound must be in \(0, 1\], got 0.0"),
        ({"lower_bound": math.nan}, r"lower_bound must be in \(0, 1\], got nan"),
        ({"safety": 0.9}, "safety must be finite and at least 1, got 0.9"),
    ],
    ids=str,
)
def test_polar_express_says_what_is_out_of_range(given, told):
    with pytest.raises(ValueError, match=f"^polar_express: {told}"):
        gradtx.polar_express(**given)


# ---- Matrices -------------------------------------------------------------------------------

FORMS = ("direct", "gram", "svd")
SHAPES = [(6, 6), (4, 9), (9, 4), (1, 5), (5, 1)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_forms_converge_to_the_polar_factor(form, shape, x64):
    g = matrix(*shape)
    found = gradtx.orthogonalize(g, "polar_express", 12, form=form)
    np.testing.assert_allclose(found, exact(g), atol=1e-12)


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "schatten", "aol"])
def test_the_gram_form_computes_the_same(preconditioning, x64):
    g = np.stack([matrix(4, 9, seed=i) for i in range(3)])
    for coefficients in (
        "standard",
        "dion",
        "polar_express",
        ((2.0, -1.5, 0.5),),
        np.zeros((0, 3)),
    ):
        direct, gram = (
            gradtx.orthogonalize(g, coefficients, form=f, preconditioning=preconditioning)
            for f in ("direct", "gram")
        )
        np.testing.assert_allclose(gram, direct, rtol=1e-10, atol=1e-12)


def test_coefficients_say_where_singular_values_go(x64):
    g = matrix(5, 7, 1e-2)
    for coefficients, table in (
        ("standard", ((3.4445, -4.775, 2.0315),) * 3),
        ("polar_express", gradtx.polar_express(3)),
    ):
        found = gradtx.orthogonalize(g, coefficients, 3, eps=0.0)
        wanted = through(table, singular_values(g) / np.linalg.norm(g))
        np.testing.assert_allclose(singular_values(found), np.sort(wanted)[::-1], rtol=1e-10)


def test_complex_matrices(x64):
    g = matrix(4, 9) + 1j * matrix(4, 9, seed=1)
    for form in FORMS:
        found = gradtx.orthogonalize(g, "polar_express", 12, form=form)
        np.testing.assert_allclose(found, exact(g), atol=1e-12)


def products(form, shape, **settings):
    """The number of matrix products."""
    with jax.disable_jit():  # so that loops are unrolled
        jaxpr = jax.make_jaxpr(lambda g: gradtx.orthogonalize(g, form=form, **settings))
        return str(jaxpr(jnp.ones(shape))).count("dot_general[")


def test_the_gram_form_takes_two_products_of_the_whole_matrix():
    assert products("direct", (8, 8)) == products("gram", (8, 8)) == 15
    assert products("gram", (8, 13)) == 19  # 17 of them small
    # the norm comes from the first of them
    assert products("gram", (8, 13), preconditioning="schatten") == 19
    assert products("direct", (8, 13), preconditioning="schatten") == 15


def largest_error(form, smallest, dtype):
    g = jnp.asarray(matrix(16, 64, smallest), jnp.float32)
    found = gradtx.orthogonalize(g, "polar_express", 5, form=form, dtype=dtype)
    table = gradtx.polar_express(5)
    wanted = np.sort(through(table, singular_values(g) / np.linalg.norm(g)))[::-1]
    assert found.dtype == g.dtype
    return np.max(np.abs(singular_values(found) - wanted))


@pytest.mark.parametrize("smallest", [0.3, 1e-2, 1e-4])
def test_the_gram_form_is_stable(smallest):
    # float32: the polynomials' slope, 400, squared, magnifies the rounding of the eigenvalues
    assert largest_error("gram", smallest, jnp.float32) < 2e-3
    # bfloat16 loses small singular values in either form, but none grow beyond the largest
    for form in ("direct", "gram"):
        assert largest_error(form, smallest, jnp.bfloat16) < 0.6
    assert largest_error("gram", 0.3, jnp.bfloat16) < 0.1


def test_precision_that_the_user_reduced_starts_anew():
    with jax.default_matmul_precision("bfloat16"):
        assert products("gram", (8, 13)) == 18  # two starts
    assert products("gram", (8, 13), dtype=jnp.bfloat16) == 18


@pytest.mark.parametrize("form", list(first(FORMS)))
def test_zero_and_large_and_small_matrices(form):
    g = jnp.asarray(matrix(4, 9), jnp.float32)
    unit = gradtx.orthogonalize(g, form=form)
    for size in (1e-15, 1e18, 1e35):
        found = gradtx.orthogonalize(g * size, form=form, eps=0.0)
        np.testing.assert_allclose(found, unit, rtol=1e-3, atol=1e-4)
    for dtype in ("float32", "bfloat16", "float16"):
        zeros = jnp.zeros((2, 4, 9), dtype)
        np.testing.assert_array_equal(gradtx.orthogonalize(zeros, form=form), zeros)
    for shape in ((0, 3), (3, 0), (0, 2, 3)):
        assert gradtx.orthogonalize(jnp.zeros(shape), form=form).shape == shape


def test_singular_vectors_of_0_are_left_out(x64):
    """They are not unique: the result would depend on the linear algebra library."""
    g = np.outer([3.0, 4.0], [1.0, 0.0, 0.0])
    wanted = np.outer([0.6, 0.8], [1.0, 0.0, 0.0])
    for form in FORMS:
        found = gradtx.orthogonalize(g, "polar_express", 8, form=form)
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_stacks_and_integers():
    g = np.arange(24).reshape(2, 2, 2, 3)
    found = gradtx.orthogonalize(g)
    assert found.shape == g.shape and found.dtype == jnp.float32
    np.testing.assert_allclose(found[1, 0], gradtx.orthogonalize(g[1, 0]), rtol=1e-6)


def test_gradients_are_finite():
    for g in (jnp.zeros((2, 3)), jnp.ones((2, 3))):
        for form in ("direct", "gram"):
            d = jax.grad(lambda x, f=form: jnp.sum(gradtx.orthogonalize(x, form=f)))(g)
            assert bool(jnp.all(jnp.isfinite(d)))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"matrices": jnp.ones(3)}, r"needs matrices, got the shape \(3,\)"),
        (
            {"coefficients": "fast"},
            "must be one of 'standard', 'dion', 'polar_express', got 'fast'",
        ),
        ({"form": "fast"}, "form must be one of 'direct', 'gram'"),
        ({"preconditioning": "l1"}, "preconditioning must be one of 'frobenius'"),
    ],
    ids=str,
)
def test_messages(given, told):
    with pytest.raises(ValueError, match=f"^orthogonalize: .*{told}"):
        gradtx.orthogonalize(**{"matrices": jnp.eye(2), **given})
