"""Micro-batches against the whole batch, and against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from representatives import moved_one_by_one

import gradtx
from gradtx.microbatching import (
    AccumulationType,
    Accumulator,
    micro_grad,
    micro_vmap,
    microbatch,
    reshape_batch_axis,
)

MEAN, SUM, RUNNING, CONCAT = (
    AccumulationType.MEAN,
    AccumulationType.SUM,
    AccumulationType.RUNNING_MEAN,
    AccumulationType.CONCAT,
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype(np.float32)
Y = RNG.normal(size=(12,)).astype(np.float32)


# ---- microbatch -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12, None])
def test_every_kind_equals_the_whole_batch(size):
    def fun(scale, x, y):
        return {
            "sum": (x * scale).sum(0),
            "mean": (jnp.mean(x), jnp.mean(y)),
            "running": jnp.mean(x, axis=0),
            "each": (x * y[:, None], y),
        }

    kinds = {"sum": SUM, "mean": MEAN, "running": RUNNING, "each": CONCAT}
    got = jax.jit(microbatch(fun, (1, 2), size, kinds))(2.0, X, Y)
    want = fun(2.0, X, Y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    assert jax.tree.structure(got) == jax.tree.structure(want)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(0, 0), (1, 0), (0, -1), (-2, 1)]), st.integers(0, 2**31 - 1))
def test_batch_axes_anywhere(axes, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 6, 3)).astype(np.float32)
    want = np.concatenate([x + 1, y], axis=1)

    def fun(x, *, y):
        return jnp.concatenate([jnp.moveaxis(x, axes[0], 0) + 1, jnp.moveaxis(y, axes[1], 0)], 1)

    placed = np.moveaxis(x, 0, axes[0]), np.moveaxis(y, 0, axes[1])
    run = microbatch(fun, 0, 2, CONCAT, argnames="y", in_axes=axes)
    np.testing.assert_allclose(run(placed[0], y=placed[1]), want)


def test_arguments_by_position_by_name_and_from_the_end():
    def fun(a, b, c=1.0, *, d):
        return jnp.sum(a + b * c + d)

    want = fun(X, X, 2.0, d=Y[:, None])
    for got in (
        microbatch(fun, (0, 1), 3, argnames="d")(X, X, 2.0, d=Y[:, None]),
        microbatch(fun, 0, 3, argnames=("b", "d"))(X, b=X, c=2.0, d=Y[:, None]),
        microbatch(fun, (), 3, argnames=("d", "a", "b"))(a=X, b=X, c=2.0, d=Y[:, None]),
        microbatch(fun, (-3, -2), 3, argnames="d")(X, X, 2.0, d=Y[:, None]),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_trees_as_batches():
    batch = {"x": X, "y": (Y, None)}
    got = microbatch(lambda b: jnp.sum(b["x"].T * b["y"][0]), 0, 4)(batch)
    np.testing.assert_allclose(got, (X.T * Y).sum(), rtol=1e-5)


@pytest.mark.parametrize(("run", "traced"), list(moved_one_by_one([3, 0, 1, 4], [False, True])))
def test_fewer_micro_batches_than_the_batch_has(run, traced):
    """Micro-batch `i` of 4 has the examples i, i + 4, i + 8."""

    def several(n):
        def fun(x):
            return jnp.sum(x), jnp.mean(x), jnp.mean(x), x

        return microbatch(fun, 0, 3, (SUM, MEAN, RUNNING, CONCAT), num_real_microbatches=n)(Y)

    total, mean, running, each = jax.jit(several)(run) if traced else several(run)
    kept = Y * (np.arange(12) % 4 < run)
    np.testing.assert_allclose(total, kept.sum(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean, kept.sum() / 12, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(running, kept.sum() / max(3 * run, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(each, kept)
    theirs = optax.microbatch(jnp.sum, 0, 3, num_real_microbatches=run)(jnp.array(Y))
    np.testing.assert_allclose(total, theirs, rtol=1e-6, atol=1e-6)


def test_more_micro_batches_than_there_are():
    traced = jax.jit(lambda n: microbatch(jnp.mean, 0, 3, RUNNING, num_real_microbatches=n)(Y))
    np.testing.assert_allclose(traced(99), Y.mean(), rtol=1e-5)  # nan in optax
    with pytest.raises(ValueError, match=r"num_real_microbatches is 5.* 4"):
        microbatch(jnp.mean, 0, 3, num_real_microbatches=5)(Y)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_added_in_single(dtype):
    ones = jnp.ones(4096, dtype)
    total = microbatch(jnp.sum, 0, 1)(ones)
    assert total == 4096 and total.dtype == dtype  # 256 and 2048 in optax
    large = jnp.full(64, 30_000, dtype)
    for kind in (MEAN, RUNNING):
        mean = microbatch(jnp.mean, 0, 2, kind)(large)
        assert mean == large[0] and mean.dtype == dtype  # inf for float16 MEAN in optax
    assert micro_vmap(lambda x: x, microbatch_size=2, accumulator=MEAN)(large) == large[0]


def test_integers_and_booleans():
    x = jnp.arange(12)
    assert microbatch(jnp.sum, 0, 3)(x) == 66
    assert microbatch(jnp.sum, 0, 3)(x).dtype == jnp.int32
    for kind in (MEAN, RUNNING):
        np.testing.assert_allclose(microbatch(lambda x: x.sum(), 0, 3, kind)(x), 66 / 4)
    assert microbatch(lambda x: x > 5, 0, 3, CONCAT)(x).tolist() == (np.arange(12) > 5).tolist()
    assert micro_vmap(lambda x: x > 5, microbatch_size=3, accumulator=SUM)(x) == 6


def largest():
    def fold(tree_fn):
        return lambda *trees: jax.tree.map(tree_fn, *trees)

    return Accumulator(
        init=fold(lambda s: jnp.full(s.shape, -jnp.inf, s.dtype)),
        update=lambda c, v, i: jax.tree.map(jnp.maximum, c, v),
        finalize=lambda c: ("largest", c),
        aggregate=fold(lambda v: v.max(0)),
    )


def test_an_accumulator_of_ones_own_gets_its_whole_part():
    got = microbatch(
        lambda x: {"a": (x.max(), -x.min()), "b": x.sum()}, 0, 3, {"a": largest(), "b": SUM}
    )(Y)
    assert got["a"] == ("largest", (Y.max(), -Y.min()))
    np.testing.assert_allclose(got["b"], Y.sum(), rtol=1e-5)
    assert micro_vmap(lambda x: (x, -x), microbatch_size=3, accumulator=largest())(Y) == (
        "largest",
        (Y.max(), -Y.min()),
    )


def test_the_index_counts_micro_batches():
    seen = Accumulator(
        init=lambda s: jnp.zeros(4, jnp.int32),
        update=lambda c, v, i: c.at[i].set(i + 1),
        finalize=lambda c: c,
        aggregate=lambda v: v,
    )
    assert microbatch(jnp.sum, 0, 3, seen)(Y).tolist() == [1, 2, 3, 4]


def loss(w, x, y):
    return jnp.mean((jnp.tanh(x @ w) - y) ** 2)


def test_gradients_of_and_through_micro_batches():
    w = jnp.array([0.5, -1.0, 2.0])
    want = jax.grad(loss)(w, X, Y)
    np.testing.assert_allclose(
        microbatch(jax.grad(loss), (1, 2), 3, MEAN)(w, X, Y), want, rtol=1e-4, atol=1e-6
    )
    through = microbatch(loss, (1, 2), 3, MEAN)
    np.testing.assert_allclose(jax.grad(through)(w, X, Y), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(through)(w, X, Y), want, rtol=1e-4, atol=1e-6)
    batches = jnp.stack([X, 2 * X])
    mapped = jax.vmap(through, (None, 0, None))(w, batches, Y)
    np.testing.assert_allclose(mapped, [loss(w, X, Y), loss(w, 2 * X, Y)], rtol=1e-5)


def test_memory_is_that_of_one_micro_batch():
    """Per-example gradients of 512 examples: 64 times less at a time, and nothing that grows."""
    w, x = jnp.ones((64, 64)), jnp.ones((512, 64))

    def clipped(w, x, size):
        return micro_grad(
            lambda w, x: jnp.sum(jnp.tanh(x @ w)),
            transform_fn=lambda g: g / jnp.linalg.norm(g),
            microbatch_size=size,
        )(w, x)[0]

    def temporary(n, size):
        lowered = jax.jit(clipped, static_argnums=2).lower(w, x[:n], size)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(512, 8) < temporary(512, None) / 16
    assert temporary(512, 8) < temporary(64, 8) + 512 * 64 * 4 * 2  # the batch itself, rearranged


def test_the_function_is_traced_a_fixed_number_of_times():
    traces = []

    def fun(x):
        traces.append(0)
        return jnp.sum(x)

    for n in (3, 12):
        traces.clear()
        microbatch(fun, 0, 1)(jnp.ones(n))
        assert len(traces) <= 2  # its shapes, and the loop


@pytest.mark.parametrize("kind", list(AccumulationType))
def test_an_empty_batch(kind):
    out = microbatch(lambda x: x * 2 if kind is CONCAT else jnp.sum(x), 0, 4, kind)(
        jnp.ones((0, 3))
    )
    assert out.shape == ((0, 3) if kind is CONCAT else ()) and (out == 0).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: microbatch(jnp.sum, 0, 5)(X), r"microbatch.*12 is not divisible.*5"),
        (lambda: microbatch(jnp.sum, 0, 24)(X), r"12 is not divisible.*24"),
        (lambda: microbatch(jnp.sum, 0, 0)(X), r"microbatch_size is 0"),
        (lambda: microbatch(jnp.add, (0, 1), 2)(X, X[:6]), r"argument 0.*12.*argument 1.*6"),
        (lambda: microbatch(jnp.sum, 2, 2)(X), r"argument 2, and there are 1"),
        (lambda: microbatch(jnp.sum, 0, 2, argnames="b")(X), r"argnames names 'b'"),
        (lambda: microbatch(jnp.sum, (), 2)(X), r"no argument has a batch axis"),
        (lambda: microbatch(jnp.sum, 0, 2, in_axes=(0, 1))(X), r"2 axes.* 1"),
        (lambda: microbatch(jnp.sum, 0, 2, in_axes=2)(X), r"\(12, 3\), and no axis 2"),
        (lambda: microbatch(jnp.sum, 0, 2)({"a": 1.0}), r"\['a'\] has the shape \(\)"),
        (lambda: microbatch(jnp.sum, 0, 2, "sum")(X), r"'sum' is neither"),
        (lambda: microbatch(jnp.sum, 0, 2, {"a": SUM})(X), r"not a prefix"),
        (lambda: microbatch(jnp.sum, 0, 2, CONCAT)(X), r"CONCAT needs results with an axis"),
        (lambda: reshape_batch_axis({"a": X}, 5), r"\['a'\].*12 is not divisible.*5"),
        (lambda: micro_vmap(jnp.sum, (0, 0), microbatch_size=2)(X), r"2 axes.* 1 positional"),
        (lambda: micro_grad(loss, batch_argnums=3)(X, X, Y), r"argument 3.* 3 positional"),
    ],
)
def test_what_is_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_top_level_name():
    assert gradtx.microbatch is microbatch


# ---- reshape_batch_axis -----------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_reshape_batch_axis(axis):
    x = RNG.normal(size=(6, 6)).astype(np.float32)
    got = np.moveaxis(reshape_batch_axis({"x": x}, 2, axis)["x"], axis % 2, 0)
    if axis % 2:  # the two new axes stand where the old one was
        got = np.moveaxis(got, 2, 1)
    columns = np.moveaxis(x, axis, 0)
    for i in range(3):
        np.testing.assert_array_equal(got[i], columns[[i, i + 3]])


def test_reshape_batch_axis_is_optaxs():
    x = {"a": jnp.arange(24).reshape(12, 2)}
    theirs = optax.microbatching.reshape_batch_axis(x, 3)
    np.testing.assert_array_equal(reshape_batch_axis(x, 3)["a"], theirs["a"])


# ---- micro_vmap -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "size"),
    list(moved_one_by_one([0, (0, None), (None, 0), (0, -1), [0, 1]], [3, None, 1])),
)
def test_micro_vmap_is_vmap(axes, size):
    args = (X, RNG.normal(size=(12, 12)).astype(np.float32))

    def fun(x, y):
        return x.sum() * y, {"mean": y.mean()}

    vmap_axes = tuple(axes) if isinstance(axes, list) else axes
    want = jax.vmap(fun, vmap_axes)(*args)
    got = micro_vmap(fun, axes, microbatch_size=size)(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    sums = micro_vmap(fun, axes, microbatch_size=size, accumulator=(SUM, MEAN))(*args)
    np.testing.assert_allclose(sums[0], want[0].sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums[1]["mean"], want[1]["mean"].mean(0), rtol=1e-4, atol=1e-6)


def test_micro_vmap_maps_keyword_arguments_and_uses_the_vmap_given():
    used = []

    def vmap(*args, **kwargs):
        used.append(kwargs)
        return jax.vmap(*args, **kwargs)

    got = micro_vmap(lambda x, *, y: x.sum() + y, microbatch_size=4, vmap_fn=vmap)(X, y=Y)
    np.testing.assert_allclose(got, X.sum(1) + Y, rtol=1e-5, atol=1e-6)
    assert len(used) == 1
    with pytest.raises(NotImplementedError, match="out_axes is 1"):
        micro_vmap(jnp.sum, out_axes=1)


# ---- micro_grad -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 1, 4])
@pytest.mark.parametrize("keep", [True, False])
def test_micro_grad_takes_gradients_one_by_one(size, keep):
    w = jnp.array([0.5, -1.0, 2.0])

    def with_aux(w, x, y):
        assert x.ndim == 1 + keep and y.ndim == keep
        prediction = x @ w
        return jnp.mean((prediction - y) ** 2), jnp.sum(prediction)

    run = micro_grad(
        with_aux,
        has_aux=True,
        batch_argnums=(1, 2),
        keep_batch_dim=keep,
        microbatch_size=size,
        accumulator=(SUM, MEAN),
        transform_fn=lambda g: (g, g * g),
        metrics_fn=jnp.linalg.norm,
    )
    (total, squares), aux = jax.jit(run)(w, X, Y)
    residual = X @ np.asarray(w) - Y
    each = 2 * residual[:, None] * X
    np.testing.assert_allclose(total, each.sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(squares, (each**2).mean(0), rtol=1e-4)
    np.testing.assert_allclose(aux.values, residual**2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(aux.metrics, np.linalg.norm(each, axis=1), rtol=1e-4)
    np.testing.assert_allclose(aux.aux, X @ np.asarray(w), rtol=1e-5, atol=1e-6)


def test_micro_grad_by_several_arguments_and_without_extras():
    def fun(a, b, x):
        return jnp.sum(a * b * x)

    grads, aux = micro_grad(fun, argnums=(0, 1), batch_argnums=2, microbatch_size=3)(2.0, 3.0, Y)
    np.testing.assert_allclose(grads, (3 * Y.sum(), 2 * Y.sum()), rtol=1e-5)
    assert aux.metrics is None and aux.aux is None
    grads, aux = micro_grad(fun, batch_argnums=2, microbatch_size=3, num_real_microbatches=1)(
        2.0, 3.0, Y
    )
    np.testing.assert_allclose(grads, 3 * Y[[0, 4, 8]].sum(), rtol=1e-5)
    np.testing.assert_allclose(aux.values, 6 * Y * (np.arange(12) % 4 == 0), rtol=1e-5)
