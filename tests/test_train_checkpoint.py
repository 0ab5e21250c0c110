"""Checkpoints: every bit back, damage never unnoticed, and no moment at which there is none."""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.train import CheckpointError, checkpoint

DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int32",
    "uint32",
    "float16",
    "float32",
    "bfloat16",
    "float8_e4m3fn",
    "complex64",
]


class Pair(NamedTuple):
    first: object
    second: object


def numbers(dtype, shape):
    """Random bits: NaNs with payloads, infinities and subnormal numbers among them."""
    dtype = jnp.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    raw = raw & 1 if dtype.kind == "b" else raw
    return jnp.array(np.frombuffer(raw.tobytes(), dtype).reshape(shape))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape, x.weak_type) == (y.dtype, y.shape, y.weak_type)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.npz"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 5)])
def test_every_bit_of_every_dtype_comes_back(path, dtype, shape):
    tree = {"a": numbers(dtype, shape)}
    checkpoint.save(path, tree, {})
    same(checkpoint.restore(path, jax.eval_shape(lambda: tree))[0], tree)


def test_float64_comes_back(path, x64):
    tree = [numbers("float64", (5,)), numbers("int64", (2, 2))]
    checkpoint.save(path, tree, {})
    same(checkpoint.restore(path, tree)[0], tree)


def test_trees_of_every_kind(path):
    tree = Pair({"b": (jnp.ones(2), None, ()), "a": [Pair(jnp.zeros(1), {})]}, jnp.asarray(2.5))
    assert tree.second.weak_type
    checkpoint.save(path, tree, {"note": "näh", "list": [1, 2.5, None, {"x": True}]})
    restored, extra = checkpoint.restore(path, jax.eval_shape(lambda: tree))
    same(restored, tree)
    assert extra == {"note": "näh", "list": [1, 2.5, None, {"x": True}]}
    assert checkpoint.read_extra(path) == extra


def test_random_keys_come_back(path):
    tree = {"threefry": jax.random.key(3), "rbg": jax.random.split(jax.random.key(1, impl="rbg"))}
    checkpoint.save(path, tree, {})
    restored, _ = checkpoint.restore(path, tree)
    for name, key in tree.items():
        assert restored[name].dtype == key.dtype
        np.testing.assert_array_equal(jax.random.key_data(restored[name]), jax.random.key_data(key))


def test_numpy_reads_it(path):
    checkpoint.save(path, {"params": {"w": jnp.arange(3.0)}}, {})
    with np.load(path) as file:
        np.testing.assert_array_equal(file["params/w"], [0, 1, 2])


def test_no_byte_can_change_unnoticed(path):
    tree = {"w": numbers("float32", (4,)), "h": numbers("bfloat16", (3,))}
    checkpoint.save(path, tree, {"epoch": 1})
    content = path.read_bytes()
    refused = 0
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            restored, extra = checkpoint.restore(path, tree)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # the byte means nothing: a time stamp or a flag of the zip format
            same(restored, tree)
            assert extra == {"epoch": 1}
    assert refused > len(content) / 3 / 2


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -30])
def test_cut_files_are_refused(path, kept):
    checkpoint.save(path, {"w": jnp.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        checkpoint.restore(path, {"w": jnp.ones(100)})


def test_a_changed_number_with_a_right_crc_is_refused(path):
    checkpoint.save(path, {"w": jnp.ones(3)}, {})
    with np.load(path) as file:
        arrays = dict(file)
    arrays["w"] = arrays["w"] * 2
    np.savez(path, **arrays)
    with pytest.raises(CheckpointError, match=r"its checksum is .*, it should be"):
        checkpoint.restore(path, {"w": jnp.ones(3)})


def test_other_files_are_refused(path):
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        checkpoint.restore(path, {})
    np.savez(path, w=np.ones(3))
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        checkpoint.restore(path, {"w": jnp.ones(3)})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"w": jnp.ones(3), "b": jnp.ones(1)}, r"lacks \['b'\], and has nothing in excess"),
        ({}, r"lacks nothing, and has \['w'\] in excess"),
        ({"w": jnp.ones(4)}, r"w has dtype float32 and shape \(3,\), .* needs float32 and \(4,\)"),
        ({"w": jnp.ones(3, jnp.bfloat16)}, "w has dtype float32 .* needs bfloat16"),
    ],
)
def test_trees_that_differ_are_named(path, template, words):
    checkpoint.save(path, {"w": jnp.ones(3)}, {})
    with pytest.raises(CheckpointError, match=words):
        checkpoint.restore(path, template)


def test_leaves_must_have_different_paths(path):
    with pytest.raises(ValueError, match="must have different paths"):
        checkpoint.save(path, {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, {})


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, call, error):
    checkpoint.save(path, {"w": jnp.ones(3)}, {"epoch": 1})

    def fail(*args):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        checkpoint.save(path, {"w": jnp.zeros(3)}, {"epoch": 2})
    restored, extra = checkpoint.restore(path, {"w": jnp.ones(3)})
    assert extra == {"epoch": 1} and restored["w"][0] == 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_new_file_is_on_disk_before_it_has_its_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=real: (calls.append(n), f(*a))[1])
    checkpoint.write_atomically(path, b"content")
    assert calls == ["fsync", "replace", "fsync"]
    assert path.read_bytes() == b"content"
