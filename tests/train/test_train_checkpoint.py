"""Checkpoints: every bit back, damage never unnoticed, and no moment at which there is none."""

import copy
import os
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays_in_files import npy_bytes, rewrite, traced_memory

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


def test_float64_is_not_rounded_without_a_word(path):
    with jax.enable_x64(True):
        checkpoint.save(path, {"w": jnp.full(3, 0.1, "float64")}, {})
    with pytest.raises(CheckpointError, match=r"w has dtype float64 .* needs float32"):
        checkpoint.restore(path, {"w": jnp.ones(3)})


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


# ---- Right checksums, wrong content -----------------------------------------------------------


def leaf(**changes):
    return lambda header, arrays: header["leaves"]["w"].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h, a: h.update(format=7), "its format is 7, but this version reads 'gradtx ch"),
        (lambda h, a: h.pop("format") and None, "its format is None, but this version reads"),
        (lambda h, a: h.pop("extra") and None, "header must have the fields .*; it lacks extra"),
        (lambda h, a: h.update(extra=[1]), r"header\.extra must be a mapping, got \[1\]"),
        (lambda h, a: h.update(leaves=["w"]), r"header\.leaves must be a mapping, got \['w'\]"),
        (lambda h, a: h["leaves"].update(w=3), r"header\.leaves\.w must be a mapping, got 3"),
        (lambda h, a: h["leaves"].update(b=h["leaves"]["w"]), r"those of the file, \['b'\] differ"),
        (lambda h, a: a.update(b=a["w"]), r"must be those of the file, \['b'\] differ"),
        (lambda h, a: h["leaves"]["w"].pop("dtype") and None, r"leaves\.w .* it lacks dtype"),
        (lambda h, a: a.update(w=a["w"][:2]), r"w: the header says float32 of shape \(3,\), the "),
        (lambda h, a: a.update(w=a["w"].astype("f8")), r"the entry has float64 of shape \(3,\)"),
        (lambda h, a: [1], r"header must be a mapping, got \[1\]"),
        (lambda h, a: b"[" * 100_000, "the JSON is nested too deeply"),
        (lambda h, a: b"\xff", "codec can't decode"),
        (leaf(dtype="foo"), "w: data type 'foo' not understood"),
        (leaf(dtype="object"), "w must have a dtype of numbers, got object"),
        (
            leaf(dtype="float64"),
            r"w: the header says float64 of shape \(3,\), the entry has float3",
        ),
        (leaf(dtype="bfloat16"), "w: the header says bfloat16 .*, the entry has float32"),
        (leaf(shape="abc"), r"header\.leaves\.w\.shape must be a list, got 'abc'"),
        (leaf(shape=["a"]), r"header\.leaves\.w\.shape\[0\] must be an integer, got 'a'"),
        (leaf(shape=[3.0]), r"shape\[0\] must be an integer, got 3\.0"),
        (leaf(shape=[-3]), r"w: the lengths of an array must be at least 0, got \(-3,\)"),
        (leaf(shape=[1] * 65), "w: an array must have at most 64 dimensions, got 65"),
        (leaf(shape=[0, 2**40, 2**40]), r"w: an array must have less than 2\*\*63 bytes"),
        (leaf(key=3), r"header\.leaves\.w\.key must be a string or null, got 3"),
        (leaf(key="words"), "w is not a random key: unrecognized PRNG implementation"),
        (leaf(key="rbg"), "w is not a random key: "),
    ],
)
def test_a_right_checksum_does_not_excuse_wrong_content(path, change, words):
    checkpoint.save(path, {"w": jnp.ones(3)}, {"epoch": 1})
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.restore(path, {"w": jnp.ones(3)})
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("shape", [[4], [2, 2], [], [-3]])
def test_bytes_of_another_shape_are_refused(path, shape):
    checkpoint.save(path, {"w": jnp.ones(3, jnp.bfloat16)}, {})
    rewrite(path, leaf(shape=shape))
    with pytest.raises(CheckpointError, match="w: the "):
        checkpoint.restore(path, {"w": jnp.ones(3, jnp.bfloat16)})


def test_entries_that_would_inflate_are_refused_before_they_are_read(path):
    np.savez_compressed(path, header=np.zeros(2**24, np.uint8))
    with (
        traced_memory() as peak,
        pytest.raises(CheckpointError, match="header must be stored, got compression method 8"),
    ):
        checkpoint.read_extra(path)
    assert peak() < 2**21


def test_entries_that_share_their_bytes_are_refused(path):
    """Many entries of the directory that are one stretch of the file."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy_bytes("|u1", (2**16,), bytes(2**16)))
        for name in "bcd":
            info = copy.copy(archive.infolist()[0])
            info.filename = f"{name}.npy"
            archive.filelist.append(info)
    with pytest.raises(CheckpointError, match=r"damaged checkpoint: it announces .* more than it "):
        checkpoint.read_extra(path)


def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in ((tmp_path / "pipe", "is a pipe"), ("/dev/zero", "is a device")):
        with pytest.raises(CheckpointError, match=f"must be a regular file, {words}"):
            checkpoint.read_extra(name)
