"""Moving tensors: incremental and periodic updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trees

import gradtx

NEW = {"a": jnp.array([1.0, 5.0]), "b": (jnp.array([[2.0]]), None)}
OLD = {"a": jnp.array([3.0, 3.0]), "b": (jnp.array([[6.0]]), None)}
MOVES = {
    "incremental": lambda new, old: gradtx.incremental_update(new, old, 0.5),
    "periodic": lambda new, old: gradtx.periodic_update(new, old, 4, 2),
}
each_move = pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)


@pytest.mark.parametrize("step_size", [0.0, 0.25, 1.0, jnp.float32(0.25)], ids=str)
def test_incremental(step_size):
    moved = gradtx.incremental_update(NEW, OLD, step_size)
    wanted = jax.tree.map(lambda n, o: step_size * n + (1 - step_size) * o, NEW, OLD)
    trees.assert_ulps(moved, wanted)
    trees.assert_ulps(moved, optax.incremental_update(NEW, OLD, step_size))
    trees.assert_ulps(jax.jit(gradtx.incremental_update)(NEW, OLD, step_size), wanted)


def test_the_whole_way_and_none_of_it_are_exact():
    trees.assert_equal(gradtx.incremental_update(NEW, OLD, 1.0), NEW)
    trees.assert_equal(gradtx.incremental_update(NEW, OLD, 0.0), OLD)


def test_both_weights_are_taken_in_double():
    """A step size of `1 - 2**-30` is 1 in float32, and yet a little of the old stays."""
    moved = gradtx.incremental_update(jnp.zeros(1), jnp.ones(1), 1 - 2.0**-30)
    assert moved.tolist() == [2.0**-30]


def test_gradient_with_respect_to_the_step_size():
    g = jax.grad(lambda s: jnp.sum(gradtx.incremental_update(NEW, OLD, s)["a"]))(0.5)
    assert g == jnp.sum(NEW["a"] - OLD["a"])


def test_a_long_average_of_bfloat16_is_rounded_once_a_step():
    new, old = jnp.full(1, 1.0, jnp.bfloat16), jnp.full(1, 2.0, jnp.bfloat16)
    moved = gradtx.incremental_update(new, old, 0.005)
    assert moved.dtype == "bfloat16"
    exact = jnp.asarray(0.005 * 1 + 0.995 * 2, jnp.bfloat16)
    assert moved[0] == exact


@pytest.mark.parametrize("steps", range(7))
def test_periodic(steps):
    wanted = NEW if steps % 3 == 0 else OLD
    trees.assert_equal(gradtx.periodic_update(NEW, OLD, steps, 3), wanted)
    traced = jax.jit(gradtx.periodic_update)(NEW, OLD, steps, 3)
    trees.assert_equal(traced, wanted)
    trees.assert_equal(gradtx.periodic_update(NEW, OLD, jnp.int32(steps), jnp.int32(3)), wanted)


def test_periodic_in_a_scan_and_under_vmap():
    def step(old, i):
        new = gradtx.periodic_update(jnp.float32(i), old, i, 3)
        return new, new

    _, seen = jax.lax.scan(step, jnp.float32(-1), jnp.arange(7))
    assert seen.tolist() == [0, 0, 0, 3, 3, 3, 6]
    mapped = jax.vmap(lambda i: gradtx.periodic_update(1.0, 2.0, i, 2))(jnp.arange(3))
    assert mapped.tolist() == [1, 2, 1]


@each_move
@pytest.mark.parametrize(
    ("new", "old"),
    [("float32", "bfloat16"), ("bfloat16", "float32"), ("int32", "float32"), ("float32",) * 2],
)
def test_old_dtypes_are_kept(move, new, old):
    moved = move({"a": jnp.ones(2, new)}, {"a": jnp.ones(2, old)})["a"]
    assert moved.dtype == old and not jax.typeof(moved).weak_type
    assert moved.tolist() == [1, 1]


@each_move
def test_float64(move, x64):
    moved = move(jnp.ones(1), jnp.ones(1)), move(jnp.ones(1), jnp.ones(1, jnp.float32))
    assert [x.dtype for x in moved] == ["float64", "float32"]


@each_move
def test_none(move):
    """Nothing new leaves the old one; what is not there stays away."""
    x = jnp.full(1, 3.0)
    assert move({"a": None}, {"a": x})["a"].tolist() == [3.0]
    assert move({"a": x}, {"a": None}) == {"a": None}
    assert move(None, x).tolist() == [3.0]
    assert move(None, None) is None


@each_move
def test_complex(move):
    assert move(jnp.array([1j]), jnp.array([1j])).tolist() == [1j]
    with pytest.raises(TypeError, match=r"old_tensors\['z'\] is float32, .*would be made real"):
        move({"z": jnp.array([1j])}, {"z": jnp.ones(1)})


@each_move
def test_what_does_not_fit(move):
    with pytest.raises(ValueError, match=r"_update: .*only old_tensors has old_tensors\['b'\]"):
        move({"a": 1.0}, {"a": 1.0, "b": 2.0})
    with pytest.raises(
        ValueError,
        match=r"old_tensors\['a'\] has shape \(2,\), but in new_tensors it has shape \(3,\)",
    ):
        move({"a": jnp.ones(3)}, {"a": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"old_tensors\['a'\] is an array, but new_tensors has"):
        move({"a": {"b": jnp.ones(2)}}, {"a": jnp.ones(2)})


def test_integers():
    ones = {"n": jnp.ones(2, jnp.int32)}
    with pytest.raises(TypeError, match=r"old_tensors\['n'\] is int32, but its average .* rounded"):
        gradtx.incremental_update(ones, ones, 0.5)
    trees.assert_equal(gradtx.periodic_update(ones, ones, 0, 2), ones)
    with pytest.raises(
        TypeError, match=r"old_tensors\['n'\] is int32, but in new_tensors it is float3"
    ):
        gradtx.periodic_update({"n": jnp.ones(2)}, ones, 0, 2)


def test_an_impossible_period():
    with pytest.raises(ValueError, match="update_period must be at least 1, got 0"):
        gradtx.periodic_update(NEW, OLD, 1, 0)


def test_a_target_network_follows():
    """After n steps the distance has shrunk by `(1 - step_size)**n`."""
    target = jnp.zeros(1)
    for _ in range(20):
        target = gradtx.incremental_update(jnp.ones(1), target, 0.1)
    np.testing.assert_allclose(1 - target, [0.9**20], rtol=1e-5)
