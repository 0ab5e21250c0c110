"""Projections: the nearest point of a set, which is what is tested; optax as a second opinion."""

import inspect
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from representatives import first
from test_house import check_docstring

from gradtx import check_gradients, projections
from gradtx.projections import (
    projection_box,
    projection_halfspace,
    projection_hypercube,
    projection_hyperplane,
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_linf_ball,
    projection_non_negative,
    projection_simplex,
    projection_vector,
)

RNG = np.random.default_rng(0)
A = np.array([0.5, -1.5, 2.0, 0.25, 1.0])


def within(*conditions):
    return lambda p: all(condition(p) for condition in conditions)


def equal(f, value):
    return lambda p: np.isclose(f(p), value, rtol=1e-5, atol=1e-5)


def at_most(f, value):
    return lambda p: f(p) <= value + 1e-5


def l1(p):
    return np.abs(p).sum()


def largest(p):
    return np.abs(p).max()


def normed(points, norm, scale):
    """Points scaled onto a sphere, the ones inside of the ball left alone where it is a ball."""
    return points / norm(points)[:, None] * scale


def exponentials(n):
    return RNG.exponential(size=(400, n))


def normals(n):
    return RNG.normal(size=(400, n)) * RNG.exponential(size=(400, 1))


def on_plane(points):
    return points - np.outer((points @ A - 0.7) / (A @ A), A)


# For each projection: a call of it, whether a point is in the set, and random points of the set.
SETS = {
    "box": (
        lambda x: projection_box(x, -0.5, 1.25),
        within(at_most(lambda p: -p.min(), 0.5), at_most(np.max, 1.25)),
        lambda n: RNG.uniform(-0.5, 1.25, size=(400, n)),
    ),
    "non_negative": (projection_non_negative, lambda p: (p >= 0).all(), exponentials),
    "hypercube": (
        lambda x: projection_hypercube(x, 0.8),
        within(lambda p: (p >= 0).all(), at_most(np.max, 0.8)),
        lambda n: RNG.uniform(0, 0.8, size=(400, n)),
    ),
    "linf_ball": (
        lambda x: projection_linf_ball(x, 0.6),
        at_most(largest, 0.6),
        lambda n: RNG.uniform(-0.6, 0.6, size=(400, n)),
    ),
    "simplex": (
        lambda x: projection_simplex(x, 1.5),
        within(lambda p: (p >= 0).all(), equal(np.sum, 1.5)),
        lambda n: 1.5 * RNG.dirichlet(np.full(n, 0.5), size=400),
    ),
    "l1_sphere": (
        lambda x: projection_l1_sphere(x, 1.5),
        equal(l1, 1.5),
        lambda n: 1.5 * RNG.dirichlet(np.full(n, 0.5), size=400) * RNG.choice([-1, 1], (400, n)),
    ),
    "l1_ball": (
        lambda x: projection_l1_ball(x, 1.5),
        at_most(l1, 1.5),
        lambda n: (
            1.5
            * RNG.uniform(size=(400, 1))
            * RNG.dirichlet(np.full(n, 0.5), size=400)
            * RNG.choice([-1, 1], (400, n))
        ),
    ),
    "l2_sphere": (
        lambda x: projection_l2_sphere(x, 1.5),
        equal(np.linalg.norm, 1.5),
        lambda n: normed(normals(n), lambda x: np.linalg.norm(x, axis=-1), 1.5),
    ),
    "l2_ball": (
        lambda x: projection_l2_ball(x, 1.5),
        at_most(np.linalg.norm, 1.5),
        lambda n: (
            RNG.uniform(size=(400, 1))
            * normed(normals(n), lambda x: np.linalg.norm(x, axis=-1), 1.5)
        ),
    ),
    "vector": (
        lambda x: projection_vector(x, A),
        equal(lambda p: np.linalg.norm(p - A * (p @ A) / (A @ A)), 0),
        lambda n: RNG.normal(size=(400, 1)) * A,
    ),
    "hyperplane": (
        lambda x: projection_hyperplane(x, A, 0.7),
        equal(lambda p: p @ A, 0.7),
        lambda n: on_plane(normals(n)),
    ),
    "halfspace": (
        lambda x: projection_halfspace(x, A, 0.7),
        at_most(lambda p: p @ A, 0.7),
        lambda n: on_plane(normals(n)) - RNG.exponential(size=(400, 1)) * A,
    ),
}
each = pytest.mark.parametrize("name", SETS)
points = arrays(
    np.float32,
    5,
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)


def test_every_projection_is_here():
    public = {n for n, x in vars(projections).items() if inspect.isfunction(x)}
    assert public == {f"projection_{name}" for name in SETS}
    assert public == {n for n in dir(optax.projections) if n.startswith("projection_")}


@each
def test_documented(name):
    check_docstring(getattr(projections, f"projection_{name}"))


@each
@given(x=points)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_nearest_point_of_the_set(name, x):
    project, is_in, draw = SETS[name]
    p = np.asarray(project(x), float)
    assert is_in(p), p
    np.testing.assert_allclose(project(p.astype(np.float32)), p, atol=2e-5)
    others = draw(len(x))
    assert all(is_in(q) for q in others[:20])
    distance = np.linalg.norm(p - x)
    assert distance <= np.linalg.norm(others - x, axis=-1).min() + 1e-5
    if is_in(x.astype(float)):
        np.testing.assert_allclose(p, x, atol=2e-5)


@each
def test_optax_agrees(name, x64):
    calls = {  # the same as above, by optax
        "box": lambda x: optax.projections.projection_box(x, -0.5, 1.25),
        "vector": lambda x: optax.projections.projection_vector(x, A),
        "hyperplane": lambda x: optax.projections.projection_hyperplane(x, A, 0.7),
        "halfspace": lambda x: optax.projections.projection_halfspace(x, A, 0.7),
        "non_negative": optax.projections.projection_non_negative,
    }
    scale = {"hypercube": 0.8, "linf_ball": 0.6}.get(name, 1.5)
    theirs = calls.get(name, lambda x: getattr(optax.projections, f"projection_{name}")(x, scale))
    x = RNG.normal(size=(20, 5)) * RNG.exponential(size=(20, 1))
    got, wanted = (jax.jit(jax.vmap(project))(x) for project in (SETS[name][0], theirs))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


@each
def test_a_tree_is_one_vector(name):
    """Leaves of any shape, `None` among them, dtypes kept, and the same under jit and vmap."""
    project = SETS[name][0]
    a = jnp.asarray(A, jnp.float32)
    x = RNG.normal(size=5).astype(np.float32) * 2

    def cut(v):
        return {"a": v[:4].reshape(2, 2), "b": None, "c": (v[4], jnp.zeros((0, 3)))}

    whole = {
        "vector": lambda t: projection_vector(t, cut(a)),
        "hyperplane": lambda t: projection_hyperplane(t, cut(a), 0.7),
        "halfspace": lambda t: projection_halfspace(t, cut(a), 0.7),
    }.get(name, project)
    tree = cut(jnp.asarray(x))
    for f in (whole, jax.jit(whole)):
        got = f(tree)
        assert jax.tree.structure(got) == jax.tree.structure(tree)
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(got)])
        np.testing.assert_allclose(flat, project(x), rtol=1e-5, atol=1e-6)
    rows = RNG.normal(size=(3, 5)).astype(np.float32)
    want = np.stack([project(row) for row in rows])
    np.testing.assert_allclose(jax.jit(jax.vmap(project))(rows), want, rtol=1e-5, atol=1e-6)


@each
@pytest.mark.parametrize("dtype", list(first([jnp.bfloat16, jnp.float16])))
def test_half_precision_is_rounded_once(name, dtype):
    project = SETS[name][0]
    for x in RNG.normal(size=(5, 5)) * 2:
        x = jnp.asarray(x, dtype)
        got, want = project(x), project(x.astype(jnp.float32))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want.astype(dtype))
    mixed = {
        "vector": lambda t: projection_vector(t, (A[:3], A[3:])),
        "hyperplane": lambda t: projection_hyperplane(t, (A[:3], A[3:]), 0.7),
        "halfspace": lambda t: projection_halfspace(t, (A[:3], A[3:]), 0.7),
    }.get(name, project)((x[:3], x[3:].astype(jnp.float32)))
    assert [leaf.dtype for leaf in mixed] == [dtype, jnp.float32]


@each
def test_gradients(name):
    project, w = SETS[name][0], jnp.asarray(RNG.normal(size=5))
    for x in RNG.normal(size=(3, 5)) * 2:
        weighed = jax.jit(lambda x: jnp.sum(jnp.asarray(w, x.dtype) * project(x)))
        check_gradients(weighed, jnp.asarray(x), show=False).raise_if_bad()


@each
def test_gradients_are_finite_everywhere(name):
    """At the origin, on corners and edges, and where values tie."""
    project = SETS[name][0]
    backward, forward = jax.jit(jax.jacrev(project)), jax.jit(jax.jacfwd(project))
    for x in (0 * A, np.ones(5), np.array([1.5, 0, 0, 0, 0]), np.array([2.0, 2, 0, 0, -2])):
        x = jnp.asarray(x, jnp.float32)
        assert np.isfinite(project(x)).all()
        assert np.isfinite(backward(x)).all()
        assert np.isfinite(forward(x)).all()


# ---- The simplex and the sum norm ---------------------------------------------------------------


def simplex_by_enumeration(x, scale):
    """The best of the projections onto all faces of the simplex."""
    best = None
    for size in range(1, len(x) + 1):
        for face in itertools.combinations(range(len(x)), size):
            p = np.zeros(len(x))
            p[list(face)] = x[list(face)] - (x[list(face)].sum() - scale) / size
            if (p >= 0).all() and (
                best is None or np.linalg.norm(p - x) < np.linalg.norm(best - x)
            ):
                best = p
    return best


@given(x=points, scale=st.floats(0.1, 10))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_simplex_is_the_best_of_its_faces(x, scale):
    want = simplex_by_enumeration(x.astype(float), scale)
    np.testing.assert_allclose(projection_simplex(x, scale), want, atol=1e-5)
    want = np.where(x < 0, -1, 1) * simplex_by_enumeration(np.abs(x.astype(float)), scale)
    np.testing.assert_allclose(projection_l1_sphere(x, scale), want, atol=1e-5)
    want = x if np.abs(x.astype(float)).sum() <= scale else want
    np.testing.assert_allclose(projection_l1_ball(x, scale), want, atol=1e-5)


def test_simplex_jacobian():
    """`I - 1/n` among the elements that are positive, and 0 elsewhere."""
    x = jnp.array([0.9, 0.8, -1.0, 0.3, -2.0])
    support = np.array([1.0, 1, 0, 0, 0])
    want = np.diag(support) - np.outer(support, support) / 2
    np.testing.assert_allclose(projection_simplex(x), [0.55, 0.45, 0, 0, 0], rtol=1e-6)
    for jacobian in (jax.jacrev, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(jacobian(projection_simplex))(x), want, atol=1e-6)
    slope = jax.jit(jax.grad(lambda s: projection_simplex(x, s)[0]))(1.0)
    np.testing.assert_allclose(slope, 0.5)


def test_simplex_of_large_values_and_of_many():
    x = np.array([1e6, 1e6 - 0.25, 1e6 - 4], np.float32)
    np.testing.assert_allclose(projection_simplex(x), [0.625, 0.375, 0], atol=1e-6)
    x = jnp.asarray(RNG.normal(size=100_000), jnp.float32)
    p = np.asarray(projection_simplex(x, 100.0), float)
    np.testing.assert_allclose(p.sum(), 100, rtol=1e-5)
    tau = (x - p)[p > 0]
    np.testing.assert_allclose(tau, np.full(len(tau), tau[0]), atol=1e-5)


def test_simplex_edges():
    p = projection_simplex(jnp.array([0.0, 0.0, -jnp.inf]))
    np.testing.assert_array_equal(p, [0.5, 0.5, 0])
    np.testing.assert_array_equal(projection_simplex(jnp.array([3.0, -1.0]), 0), [0, 0])
    np.testing.assert_array_equal(projection_l1_ball(jnp.array([3.0, -1.0]), 0), [0, 0])
    assert np.isnan(projection_simplex(jnp.array([1.0, jnp.nan]))).all()
    np.testing.assert_allclose(projection_simplex({"w": jnp.array([2.5, 3.2]), "b": 0.5})["b"], 0)


def test_spheres_can_be_reached_from_the_origin():
    for project, norm in ((projection_l1_sphere, 1), (projection_l2_sphere, 2)):
        p = project({"a": jnp.zeros(3), "b": 0.0}, 2.0)
        whole = np.concatenate([p["a"], p["b"][None]])
        np.testing.assert_allclose(np.linalg.norm(whole, norm), 2, rtol=1e-6)
        np.testing.assert_allclose(whole, np.full(4, whole[0]))


# ---- The Euclidean norm -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_no_square_overflows_or_vanishes(size):
    x = np.array([3, -4], np.float32) * np.float32(size)
    np.testing.assert_allclose(projection_l2_sphere(x), [0.6, -0.8], rtol=1e-6)
    want = x if size < 1 else [0.6, -0.8]
    np.testing.assert_allclose(projection_l2_ball(x), want, rtol=1e-6)
    np.testing.assert_allclose(projection_vector(np.ones(2, np.float32), x), [-0.12, 0.16], 1e-5)
    b = np.float32(size)
    np.testing.assert_allclose(projection_hyperplane(np.zeros(2), x, b), [0.12, -0.16], 1e-5)
    hundred = jnp.full(100, 300.0, jnp.float16)
    np.testing.assert_allclose(projection_l2_ball(hundred), np.full(100, 0.1), rtol=1e-3)


def test_gradient_through_a_ball_at_the_origin():
    for project in (projection_l2_ball, projection_l1_ball, projection_linf_ball):
        assert jax.jit(jax.grad(project))(0.0) == 1
    np.testing.assert_array_equal(
        jax.jit(jax.jacobian(projection_l2_sphere))(jnp.zeros(3)), np.zeros((3, 3))
    )


def test_complex_vectors():
    x, a = RNG.normal(size=(2, 4)) + 1j * RNG.normal(size=(2, 4))
    x, a = jnp.asarray(x, jnp.complex64), jnp.asarray(a, jnp.complex64)
    np.testing.assert_allclose(np.linalg.norm(projection_l2_sphere(x, 2.0)), 2, rtol=1e-6)
    p = projection_vector(x, a)
    np.testing.assert_allclose(np.vdot(a, x - p), 0, atol=1e-5)
    p = projection_hyperplane(x, a, 0.5)
    np.testing.assert_allclose(np.vdot(a, p), 0.5, atol=1e-5)
    p = projection_halfspace(x, a, -20.0)
    np.testing.assert_allclose(np.vdot(a, p).real, -20, rtol=1e-5)
    np.testing.assert_allclose(np.vdot(a, p).imag, np.vdot(a, x).imag, rtol=1e-4)
    with pytest.raises(TypeError, match="x is real, but a is complex; cast x to complex"):
        projection_vector(x.real, a)
    with pytest.raises(
        TypeError, match="projection_l1_ball: tree must be real, got dtype complex64"
    ):
        projection_l1_ball(x)


def test_no_direction():
    """Of a normal of zeros nothing can be moved along."""
    x, a = jnp.array([1.0, 2.0]), jnp.zeros(2)
    np.testing.assert_array_equal(projection_vector(x, a), a)
    np.testing.assert_array_equal(projection_hyperplane(x, a, 0.0), x)
    np.testing.assert_array_equal(projection_halfspace(x, a, 1.0), x)
    assert np.isfinite(jax.jacobian(projection_vector, 1)(x, a)).all()


# ---- Boxes --------------------------------------------------------------------------------------


def test_bounds_are_numbers_arrays_or_trees():
    x = {"a": jnp.array([-1.0, 0.5, 3.0]), "b": (jnp.array(5.0), None)}
    want = {"a": [0.0, 0.5, 2.0], "b": 2.0}
    for lower, upper in (
        (0, 2.0),
        (jnp.array(0.0), {"a": jnp.full(3, 2.0), "b": (2.0, None)}),
        ({"a": 0.0, "b": (jnp.array(0.0), None)}, 2),
    ):
        got = projection_box(x, lower, upper)
        np.testing.assert_array_equal(got["a"], want["a"])
        assert got["b"] == (want["b"], None)
    np.testing.assert_array_equal(projection_box(x["a"], None, 2), [-1, 0.5, 2])
    np.testing.assert_array_equal(projection_box(x["a"], jnp.array([0, 1, 2]), None), [0, 1, 3])
    np.testing.assert_array_equal(
        projection_hypercube(x["a"], jnp.array([1, 0.25, 2])), [0, 0.25, 2]
    )
    np.testing.assert_array_equal(projection_linf_ball((x["a"],), (0.5,))[0], [-0.5, 0.5, 0.5])


def test_integers_become_floats():
    for name in SETS:
        got = SETS[name][0](jnp.array([3, -2, 1, 0, 1]))
        assert got.dtype == jnp.float32
        want = SETS[name][0](jnp.array([3.0, -2, 1, 0, 1]))
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: projection_simplex(x, -1.0), ValueError, "scale must not be negative, got -1"),
        (
            lambda x: projection_l2_ball(x, np.ones(2)),
            ValueError,
            r"a scalar, got the shape \(2,\)",
        ),
        (lambda x: projection_hypercube(x, -2), ValueError, "scale must not be negative, got -2"),
        (lambda x: projection_linf_ball(x, -2), ValueError, "scale must not be negative, got -2"),
        (lambda x: projection_simplex({}), ValueError, "projection_simplex: there is nothing"),
        (
            lambda x: projection_l2_sphere(x[:0]),
            ValueError,
            "projection_l2_sphere: there is nothing",
        ),
        (lambda x: projection_box(x, 2.0, 1.0), ValueError, r"lower=2\.0 and upper=1\.0"),
        (
            lambda x: projection_box(x, np.ones(2), 1.0),
            ValueError,
            r"lower of shape \(2,\) .*\(3,\)",
        ),
        (lambda x: projection_box({"a": x}, {"b": 1.0}, 2.0), ValueError, r"projection_box: .*'b'"),
        (
            lambda x: projection_box({"a": x}, 0, {"a": x[None]}),
            ValueError,
            r"tree\['a'\] of shape",
        ),
        (lambda x: projection_vector(x, x[:, None]), ValueError, r"\(3,\), a is of shape \(3, 1\)"),
        (lambda x: projection_vector({"w": x}, {"v": x}), ValueError, "only x has x.*'w'"),
        (lambda x: projection_hyperplane((x, x), (x, None), 1.0), ValueError, r"a\[1\] is None"),
        (lambda x: projection_halfspace(x, x, x), ValueError, r"b must be a scalar, got .*\(3,\)"),
        (
            lambda x: projection_l1_ball({"m": x > 0}),
            TypeError,
            r"tree\['m'\] must be numeric, got dtype bool",
        ),
    ],
)
def test_errors_name_both_sides(call, error, words):
    with pytest.raises(error, match=words):
        call(jnp.array([1.0, 2.0, 3.0]))
