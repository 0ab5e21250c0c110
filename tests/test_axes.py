"""Axes that an array does not have are refused, with the function, the argument and the array."""

import inspect
import re

import jax
import jax.numpy as jnp
import pytest
from test_bad_inputs import refused

import gradtx
from gradtx import losses
from gradtx._arguments import axes_within

MATRIX = {"a": {"w": jnp.ones((2, 3))}}


def arguments(name):
    """The arguments of a public function."""
    try:
        return list(inspect.signature(getattr(gradtx, name)).parameters)
    except (TypeError, ValueError):
        return []


FUNCTIONS = [name for name in dir(gradtx) if callable(getattr(gradtx, name))]
OF_MATRICES = {
    name: argument
    for name in FUNCTIONS
    for argument in arguments(name)
    if argument.endswith("weight_dimension_numbers")
}


def call(name, **more):
    """Makes the transformation of a name, with the arguments that it requires."""
    known = {"learning_rate": 0.1, **dict.fromkeys(("direction", "magnitude"), gradtx.identity())}
    given = {n: x for n, x in known.items() if n in arguments(name)}
    return getattr(gradtx, name)(**given, **more)


def step(tx, x):
    return tx.update(x, tx.init(x), x)


@pytest.mark.parametrize("axis", [2, -3])
@pytest.mark.parametrize("name", OF_MATRICES)
def test_axes_of_matrices(name, axis):
    tx = call(name, **{OF_MATRICES[name]: gradtx.MatrixAxes(0, axis)})
    told = "has 2 axes, so output_axis in weight_dimension_numbers must be from -2 to 1, got"
    with refused(ValueError, name, "params['a']['w']", told, str(axis)):
        tx.init(MATRIX)


@pytest.mark.parametrize("name", [name for name in OF_MATRICES if name.startswith("scale_by")])
def test_leaves_that_are_no_matrices_name_the_argument(name):
    if name in ("scale_by_galore", "scale_by_scion"):
        call(name).init({"b": jnp.ones(3)})  # they leave vectors to others
    else:
        with refused(ValueError, name, "params['b']", "as MatrixAxes in weight_dimension_numbers"):
            call(name).init({"b": jnp.ones(3)})
    with refused(ValueError, name, "only weight_dimension_numbers has", "numbers['x']"):
        call(name, weight_dimension_numbers={"x": gradtx.MatrixAxes()}).init({"b": jnp.ones(3)})


def test_rules_of_ones_own_name_their_argument():
    def rule(g, s, step, p):
        return g, s

    for more, told in (({}, "as MatrixAxes in axes,"), ({"argument": "of"}, "MatrixAxes in of,")):
        tx = gradtx.matrixwise(gradtx.EmptyState, None, rule, name="mine", **more)
        with refused(ValueError, "mine: params['b']", told):
            tx.init({"b": jnp.ones(3)})


@pytest.mark.parametrize("axis", [2, -3])
@pytest.mark.parametrize(
    ("name", "argument", "more"),
    [
        ("nero", "output_axis", {}),
        ("centralize", "output_axis", {}),
        ("adamp", "channel_axis", {}),
        ("sgdp", "channel_axis", {}),
        ("adaptive_grad_clip", "axis", {"clipping": 0.1}),
    ],
)
def test_axes_of_units(name, argument, more, axis):
    tx = call(name, **{argument: axis}, **more)
    told = f"['a']['w'] has 2 axes, so {argument} must be from -2 to 1, got {axis}"
    for run in (step, jax.jit(step, static_argnums=0)):
        with refused(ValueError, name, told):
            run(tx, MATRIX)
    if argument != "axis":  # these leave vectors as they are
        step(tx, {"b": jnp.ones(3)})


def test_axes_of_kernels():
    for axes in ((0, 4), (-5, 1)):
        with refused(ValueError, "adahessian", "has 4 axes", "kernel_axes", str(axes)):
            gradtx.adahessian(0.1, kernel_axes=axes)
    x = {"k": jax.random.normal(jax.random.key(0), (2, 2, 3, 4))}
    both = [gradtx.adahessian(0.1, kernel_axes=axes) for axes in ((0, 1), (-4, -3))]
    one, other = (
        tx.update(x, tx.init(x), x, obj_fn=lambda p: jnp.sum(p["k"] ** 4))[0]["k"] for tx in both
    )
    assert jnp.array_equal(one, other)


X, LABELS = jnp.ones((2, 3)), jnp.zeros(2, jnp.int32)
OF_LOSSES = {
    "softmax_cross_entropy_with_integer_labels": (X, LABELS),
    "smooth_labels": (X, 0.1),
    "triplet_margin_loss": (X, X, X),
}


@pytest.mark.parametrize("axis", [2, -3, (0, 2)])
@pytest.mark.parametrize("name", sorted(
    name for name, f in vars(losses).items()
    if inspect.isfunction(f) and not name.startswith(("_", "convex"))
    and "axis" in inspect.signature(f).parameters
))  # fmt: skip
def test_axes_of_losses(name, axis):
    told = f"has 2 axes, so axis must be from -2 to 1, got {axis}"
    with refused(ValueError, name, told):
        getattr(losses, name)(*OF_LOSSES.get(name, (X, X)), axis=axis)


def test_axes_of_norms():
    told = "x has 2 axes, so axis must be from -2 to 1, got 2"
    with refused(ValueError, "safe_norm", told):
        gradtx.safe_norm(X, 0.1, axis=2)
    with refused(ValueError, "unitwise_norm", told):
        gradtx.transforms.unitwise_norm(X, axis=2)


def test_axes_within():
    assert axes_within(None, 3) == (0, 1, 2)
    assert axes_within((-1, 0), 3) == (2, 0)
    assert axes_within((), 0) == ()
    with pytest.raises(ValueError, match=re.escape("has 0 axes, so axis must be empty, got 0")):
        axes_within(0, 0)
