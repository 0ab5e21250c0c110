"""The gradient check: right gradients pass, wrong ones are found where they are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.gradcheck import GradientReport, check_gradients


def row_at(report, path):
    (row,) = [r for r in report.rows if r.path == path]
    return row


def scaled_backward(f, factor):
    """The function `f` of one array, whose gradient is multiplied by `factor`, an array."""

    @jax.custom_vjp
    def wrong(x):
        return f(x)

    def backward(x, g):
        return (jax.vjp(f, x)[1](g)[0] * factor,)

    wrong.defvjp(lambda x: (f(x), x), backward)
    return wrong


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: jax.Array
    b: jax.Array | None


def network(layers, x):
    for layer in layers:
        x = x @ layer.w
        x = jnp.tanh(x if layer.b is None else x + layer.b)
    return jnp.mean(jnp.square(x))


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return (Layer(draw(3, 4), draw(4)), Layer(draw(4, 2), None))


X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


# ---- Right gradients -----------------------------------------------------------------------------


def test_a_network_passes_in_float64(layers):
    report = check_gradients(network, layers, X)
    assert report.ok and report.dtype == np.float64
    paths = [row.path for row in report.rows]
    assert paths == ["args[0][0].w", "args[0][0].b", "args[0][1].w"]
    assert [row.shape for row in report.rows] == [(3, 4), (4,), (4, 2)]
    # Central differences in float64 have about ten digits of the function's value, which is 0.7.
    assert all(0 < abs(row.analytic - row.numeric) < 1e-10 for row in report.rows)
    expected = jax.grad(network)(layers, X)
    for row, leaf in zip(report.rows, jax.tree.leaves(expected), strict=True):
        assert row.checked == leaf.size
        np.testing.assert_allclose(row.analytic, leaf[row.index], rtol=1e-4)
        np.testing.assert_allclose(row.numeric, leaf[row.index], rtol=1e-4)
    assert not jax.config.jax_enable_x64  # the caller's mode is as it was
    with jax.enable_x64(True):
        assert check_gradients(network, layers, X) == report


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def softmax_slope(logits, labels):
    """The textbook's gradient of the mean cross-entropy: `(softmax - onehot) / n`."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p / len(labels)


@pytest.mark.parametrize("right", [True, False])
def test_the_hand_derived_softmax_gradient(right):
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(4, 5)), np.array([0, 3, 3, 1])

    @jax.custom_vjp
    def by_hand(logits):
        return cross_entropy(logits, labels)

    def backward(logits, g):
        slope = jax.nn.softmax(logits) - jax.nn.one_hot(labels, 5)
        return (g * slope / (len(labels) if right else 1),)  # or forget the mean's 1 / n

    by_hand.defvjp(lambda logits: (by_hand(logits), logits), backward)
    (row,) = check_gradients(by_hand, logits).rows
    assert row.ok == right
    np.testing.assert_allclose(row.numeric, softmax_slope(logits, labels)[row.index], rtol=1e-8)
    if not right:
        np.testing.assert_allclose(row.error, 0.75, rtol=1e-6)  # |4 - 1| / 4
    else:
        np.testing.assert_allclose(row.analytic, row.numeric, rtol=1e-8)


def test_scalars_and_several_arguments():
    def f(a, b, c):
        return a**3 * b["x"] + jnp.sum(c) * 0

    report = check_gradients(f, 2.0, {"x": 5.0}, jnp.arange(3), argnums=(1, 0))
    assert [row.path for row in report.rows] == ["args[0]", "args[1]['x']"]
    assert report.ok
    np.testing.assert_allclose([r.analytic for r in report.rows], [60.0, 8.0], rtol=1e-12)
    np.testing.assert_allclose([r.numeric for r in report.rows], [60.0, 8.0], rtol=1e-8)
    assert [row.index for row in report.rows] == [(), ()]
    assert [r.path for r in check_gradients(f, 2.0, {"x": 5.0}, X, argnums=-1).rows] == ["args[2]"]


def test_has_aux():
    report = check_gradients(lambda x: (jnp.sum(x**2), "anything"), jnp.ones(3), has_aux=True)
    report.raise_if_bad()
    assert report.rows[0].analytic == 2.0


def test_other_arguments_stay_as_they_are():
    def f(x, power, flag, key, label):
        assert label == "label"
        noise = jax.random.normal(key, x.shape)
        return jnp.sum((x + noise) ** power) if flag else jnp.sum(x)

    assert check_gradients(f, jnp.ones(3), 2, True, jax.random.key(0), "label").ok


def test_functions_that_cannot_be_traced():
    def f(x):
        return x[0] ** 2 if x[0] > 1 else -x[0]  # jax.grad can, jax.jit cannot

    report = check_gradients(f, jnp.array([3.0]))
    assert report.ok and report.rows[0].analytic == 6.0


def test_complex_leaves_follow_the_convention_of_jax_grad():
    z = jnp.array([1 + 2j, -3 + 0.5j])
    report = check_gradients(lambda z: jnp.sum(jnp.abs(z) ** 2), z)
    (row,) = report.rows
    expected = 2 * np.conj(np.asarray(z))[row.index]  # df/dx - i df/dy of x**2 + y**2
    np.testing.assert_allclose([row.analytic, row.numeric], [expected] * 2, rtol=1e-8)
    assert report.ok and report.dtype == np.float64
    wrong = scaled_backward(lambda z: jnp.sum(jnp.abs(z) ** 2), np.array([1, 1j]))
    (row,) = check_gradients(wrong, z).rows
    assert not row.ok and row.index == (1,)


def test_empty_leaves_hold_nothing_to_check():
    report = check_gradients(
        lambda p: jnp.sum(p["a"]) + jnp.sum(p["b"]), {"a": jnp.zeros((0, 3)), "b": 1.0, "c": None}
    )
    empty, full = report.rows
    assert report.ok and empty.checked == 0 and empty.index is None and full.checked == 1
    assert "args[0]['a']" in str(report)


def test_zero_gradients_and_zero_functions_pass():
    assert check_gradients(lambda x: 0 * jnp.sum(x), jnp.ones(3)).ok
    assert check_gradients(lambda x: jnp.sum(jnp.cos(x)) + 5.0, jnp.zeros(3)).ok
    assert check_gradients(lambda x: jnp.sum(x**2), jnp.zeros(3)).ok


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_function_does_not_matter(scale):
    x = jnp.array([0.3, 1.2])
    assert check_gradients(lambda x: scale * jnp.sum(jnp.sin(x)), x).ok
    wrong = scaled_backward(lambda x: scale * jnp.sum(jnp.sin(x)), np.array([1, 1.001]))
    assert not check_gradients(wrong, x).ok


# ---- Wrong gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 1.0001, -1.0, 2.0])
def test_finds_a_planted_error_at_its_leaf_and_element(factor):
    factors = np.ones((3, 4))
    factors[1, 2] = factor
    square = scaled_backward(lambda x: x**2, factors)

    def loss(p):
        return jnp.sum(square(p["b"]["w"])) + jnp.sum(jnp.sin(p["a"]))

    rng = np.random.default_rng(3)
    params = {"a": jnp.arange(3.0), "b": {"w": rng.uniform(1, 2, size=(3, 4))}}
    report = check_gradients(loss, params)
    good, bad = report.rows
    assert good.ok and not report.ok
    assert (bad.path, bad.index, bad.ok) == ("args[0]['b']['w']", (1, 2), False)
    truth = 2 * params["b"]["w"][1, 2]
    np.testing.assert_allclose(bad.numeric, truth, rtol=1e-8)
    np.testing.assert_allclose(bad.analytic, factor * truth, rtol=1e-8)
    np.testing.assert_allclose(bad.error, abs(factor - 1) / max(abs(factor), 1), rtol=1e-4)
    with pytest.raises(AssertionError, match=r"wrong gradient at args\[0\]\['b'\]\['w'\]\n"):
        report.raise_if_bad()


def test_large_leaves_are_sampled_and_checked_along_a_direction():
    x = np.random.default_rng(4).normal(size=(64, 64))

    def report_with(factors, **kwargs):
        loss = scaled_backward(lambda x: jnp.sum(jnp.sin(x)), factors)
        return check_gradients(loss, x, max_elements=10, **kwargs)

    right = report_with(np.ones((64, 64)))
    assert right.ok and right.rows[0].checked == 10
    assert right == report_with(np.ones((64, 64)))  # the draw is fixed
    assert right.rows[0].index != report_with(np.ones((64, 64)), seed=1).rows[0].index

    # No single element of the sample need be among those that are wrong.
    factors = np.ones((64, 64))
    factors[::7, ::5] = 1.5
    missed = [
        row for seed in range(5) for row in report_with(factors, seed=seed).rows if row.error < 1e-6
    ]
    assert not missed  # the element is searched where the draw has none
    reports = [report_with(factors, seed=seed) for seed in range(5)]
    assert {report.rows[0].checked for report in reports} == {10, 11}
    for report in reports:
        (row,) = report.rows
        assert not row.ok and factors[row.index] == 1.5 and row.error == pytest.approx(1 / 3)
        assert str(report).endswith("\nmax_elements=None compares all elements of large leaves")
    assert (
        check_gradients(lambda x: jnp.sum(jnp.sin(x)), x[:5], max_elements=None).rows[0].checked
        == 5 * 64
    )


@pytest.mark.parametrize("kind", [float, complex])
def test_a_single_wrong_element_of_a_large_leaf_is_found(kind):
    factors = np.ones((300, 200))
    factors[123, 45] = -1
    x = np.random.default_rng(5).normal(size=(2, 300, 200))
    x = x[0] + 1j * x[1] if kind is complex else x[0]
    wrong = scaled_backward(lambda x: jnp.sum(jnp.sin(jnp.real(x)) - jnp.imag(x) ** 2), factors)
    (row,) = check_gradients(wrong, x, max_elements=3).rows
    assert row.index == (123, 45) and not row.ok and row.checked == 4 and row.note == ""
    np.testing.assert_allclose(row.analytic, -row.numeric, rtol=1e-6)


def test_a_kink_is_said_to_be_one():
    x = jnp.array([1.0, 0.0, -1.0])
    report = check_gradients(lambda x: jnp.sum(jax.nn.relu(x)), x)
    (row,) = report.rows
    assert not row.ok and row.index == (1,) and row.note == "kink?"
    assert row.analytic == 0
    np.testing.assert_allclose(row.numeric, 0.5, rtol=1e-8)
    assert check_gradients(lambda x: jnp.sum(jax.nn.relu(x)), x + 0.01).ok


def test_a_gradient_that_is_not_finite_is_wrong():
    x = jnp.array([1.0, 0.0])
    report = check_gradients(lambda x: jnp.sum(jnp.sqrt(x**2)), x)
    (row,) = report.rows
    assert not row.ok and row.index == (1,) and row.note == "not finite"
    assert np.isinf(row.error)
    with pytest.raises(AssertionError, match=r"^check_gradients: wrong gradient at args\[0\]\n"):
        report.raise_if_bad()


def test_the_edge_of_a_domain_is_said_to_be_one():
    x = jnp.array([1.0, 0.0])
    (row,) = check_gradients(lambda x: jnp.sum(jnp.sqrt(x)), x).rows
    assert not row.ok and row.index == (1,) and row.note == "the function is not finite nearby"
    assert np.isinf(row.error)


@pytest.mark.parametrize(
    ("f", "value", "switch"),
    [
        (lambda p: jnp.sum(jnp.log(p["a"])) + jnp.sum(p["b"] ** 2), "nan", "jax_debug_nans"),
        (lambda p: jnp.sum(jnp.log(p["a"] ** 2)), "nan", "jax_debug_nans"),
        (lambda p: jnp.sum(p["b"]) / (p["a"][0] + 1), "inf", "jax_debug_infs"),
        # Finite on both sides, where the differences happen to be those of `jax.grad`:
        (lambda p: jnp.where(p["a"][0] == -1, -jnp.inf, 0.0) * 1, "-inf", "jax_debug_infs"),
    ],
)
def test_a_function_that_is_not_finite_has_no_wrong_gradient(f, value, switch):
    """It is the function that has to be mended, or the point."""
    a = jnp.array([-1.0, jnp.nan if "nan" in value else 2.0])
    report = check_gradients(f, {"a": a, "b": jnp.ones(2)})
    assert str(report.value) == value and not report.ok
    assert not any(row.ok for row in report.rows)
    told = f"the function is {value} at the given point, and has no gradient there"
    assert f"\n{told}: check another point" in str(report)
    assert str(report).endswith(f'jax.config.update("{switch}", True)')
    assert "wrong" not in str(report).lower()
    with pytest.raises(AssertionError, match=f"^check_gradients: {told}\n"):
        report.raise_if_bad()


# ---- Precision -----------------------------------------------------------------------------------


def in_float32(x):
    """Casts on the way, as mixed-precision code does, and gives what it was given."""
    return jax.nn.softmax(x.astype(jnp.float32)).astype(x.dtype)[0]


@pytest.mark.parametrize(
    ("f", "dtype"),
    [
        (in_float32, np.float32),
        (jax.jit(in_float32), np.float32),
        (lambda x: jnp.sum(jax.lax.map(lambda y: jnp.sin(y.astype(jnp.float32)), x)), np.float32),
        (lambda x: jnp.sum(jnp.sin(x.astype(jnp.bfloat16)).astype(x.dtype)), jnp.bfloat16),
        # Takes no float64 at all:
        (lambda x: jnp.sum(jax.lax.mul(jnp.sin(x), jnp.ones(4, jnp.float32))), np.float32),
        # Coarse, but not what is differentiated:
        (lambda x: jnp.sum(jnp.sin(x) * jax.nn.one_hot(2, 4, dtype=jnp.float32)), np.float64),
        (jax.jit(lambda x: jnp.sum(x**2 * jnp.ones(4, jnp.bfloat16))), np.float64),
    ],
)
def test_the_precision_that_the_function_computes_in(f, dtype):
    x = jnp.array([0.3, -0.7, 1.1, 0.2])
    report = check_gradients(f, x)
    assert report.dtype == dtype
    assert report.ok, str(report)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose([report.eps, report.rtol], [eps ** (1 / 3), eps**0.4])
    wrong = scaled_backward(f, np.array([1, 1, -1, 1]))
    assert row_at(check_gradients(wrong, x), "args[0]").ok is False


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_half_precision_leaves(dtype):
    x = jnp.array([0.3, -0.7, 1.1], dtype)
    assert check_gradients(lambda x: jnp.sum(jnp.sin(x)), x).dtype == np.float64
    fixed = lambda x: jnp.sum(jnp.sin(x * jnp.ones(3, dtype).astype(dtype)).astype(dtype))  # noqa: E731
    report = check_gradients(fixed, x)
    assert report.dtype == dtype and report.ok, str(report)


def test_given_tolerances_are_used():
    x = np.array([0.3, 1.2])
    wrong = scaled_backward(lambda x: jnp.sum(jnp.sin(x)), np.array([1, 1.001]))
    assert check_gradients(wrong, x, rtol=1e-2).ok
    assert not check_gradients(wrong, x, rtol=1e-4).ok
    assert check_gradients(wrong, x, atol=1e-3).ok
    report = check_gradients(wrong, x, eps=1e-4, rtol=1e-2)
    assert (report.eps, report.rtol) == (1e-4, 1e-2)
    np.testing.assert_allclose(report.rows[0].numeric, np.cos(1.2), rtol=1e-8)


def test_large_float32_leaf_without_float64():
    def f(w):
        return jnp.mean(jnp.tanh(w.astype(jnp.float32)) ** 2)

    w = np.random.default_rng(5).normal(size=(40, 50)).astype(np.float32)
    report = check_gradients(f, w, max_elements=20)
    assert report.dtype == np.float32 and report.ok, str(report)
    halved = functools.partial(scaled_backward, f)(np.full((40, 50), 0.5))
    assert not check_gradients(halved, w, max_elements=20).ok


# ---- The table -----------------------------------------------------------------------------------


def test_the_table_is_aligned(layers):
    report = check_gradients(network, layers, X)
    head, _, *lines, last = str(report).splitlines()
    assert head.split() == ["path", "shape", "checked", "error", "at", "jax.grad", "numeric"]
    for row, line in zip(report.rows, lines, strict=True):
        assert line.startswith(row.path + " ")
        assert line[head.index("shape") :].startswith(str(row.shape))
        assert line[head.index("checked") :].startswith(f"{row.checked} of {np.prod(row.shape)} ")
        assert line[head.index("error") :].startswith(f"{row.error:.1e} ")
        assert line.endswith(" ok")
    assert last.startswith("all leaves are right (in float64, steps of 6.1e-06")


def test_the_table_says_what_is_wrong():
    wrong = scaled_backward(lambda x: jnp.sum(jnp.sin(x)), np.array([1, 2]))
    report = check_gradients(lambda a, b: wrong(a) + b, jnp.ones(2), 1.0, argnums=(0, 1))
    assert isinstance(report, GradientReport)
    first, second = str(report).splitlines()[2:4]
    assert first.endswith("WRONG") and "[1]" in first and second.endswith("ok")
    assert "1 of 2 leaves is wrong" in str(report)


# ---- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: check_gradients(lambda p: 1.0, {"w": jnp.ones(2), "n": [jnp.arange(3)]}),
            TypeError,
            r"args\[0\]\['n'\]\[0\] is of type int32",
        ),
        (lambda: check_gradients(lambda p: 1.0, {"n": 3}), TypeError, r"\['n'\] is of type int;"),
        (lambda: check_gradients(lambda p: 1.0, {"n": "a"}), TypeError, r"\['n'\] is of type str"),
        (lambda: check_gradients(lambda x: x, jnp.ones(3)), TypeError, r"float32\[3\]"),
        (lambda: check_gradients(lambda x: jnp.sum(x) * 1j, jnp.ones(3)), TypeError, "complex64"),
        (lambda: check_gradients(lambda x: x, 1.0, argnums=1), ValueError, "argnums has 1"),
        (lambda: check_gradients(lambda x: 1.0, None), ValueError, r"nothing .* in args\[0\]"),
        (lambda: check_gradients(lambda x: 1.0, jnp.zeros(0)), ValueError, "nothing"),
        (lambda: check_gradients(lambda x: x, 1.0, eps=0), ValueError, "eps must be positive"),
        (lambda: check_gradients(lambda x: x, 1.0, rtol=-1), ValueError, "rtol must be positive"),
        (lambda: check_gradients(lambda x: x, 1.0, atol=-1), ValueError, "atol must be finite"),
        (lambda: check_gradients(lambda x: x, 1.0, max_elements=0), ValueError, "max_elements"),
        (lambda: check_gradients(lambda x: x, 1.0, eps=1e-20), ValueError, "does not change 1.0"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_errors_of_the_function_itself_are_seen():
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        check_gradients(f, 1.0)
