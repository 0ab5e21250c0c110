"""Reading data: exact values back, and a clear word on everything that can be wrong with them."""

import gzip
import os
import struct
import zipfile

import numpy as np
import pytest
from arrays_in_files import npy_bytes, traced_memory
from idx_files import CODES, idx_bytes, write_idx, write_mnist

from gradtx.train import DataError, arrays as reader, digits, load, mnist, npz, read_idx


def sample(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 5, 4), np.uint8), rng.integers(0, 10, count).astype("u1")


@pytest.fixture
def folder(tmp_path):
    write_mnist(tmp_path / "mnist", sample(12), sample(7, 1))
    return tmp_path / "mnist"


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 5), ()])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_gives_back_what_was_written(tmp_path, dtype, shape, ending):
    array = np.random.default_rng(0).uniform(-100, 100, shape).astype(dtype)
    write_idx(tmp_path / f"array{ending}", array)
    read = read_idx(tmp_path / f"array{ending}")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_idx_sees_compression_by_content(tmp_path):
    array = np.arange(5, dtype=np.uint8)
    (tmp_path / "plain.gz").write_bytes(idx_bytes(array))
    (tmp_path / "packed").write_bytes(gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), array)
    np.testing.assert_array_equal(read_idx(tmp_path / "packed"), array)


GOOD = idx_bytes(np.zeros((2, 3, 4), np.uint8))


def packed(content):
    """Compressed, without the time: names of tests are made of it, the same in all processes."""
    return gzip.compress(content, mtime=0)


PACKED = packed(idx_bytes(np.random.default_rng(0).integers(0, 256, (9, 9), np.uint8)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an IDX header has 4 bytes, the file has 0"),
        (b"\x00\x00\x08", "an IDX header has 4 bytes, the file has 3"),
        (b"\x89PNG" + GOOD, "begins with bytes 89 50, not 00 00"),
        (b"\x00\x00\x0a\x01" + GOOD[4:], "dtype code 0x0a is not one of IDX's"),
        (GOOD[:10], r"3 dimensions, so 16 bytes of header; the file has 10"),
        (GOOD[:-1], r"truncated: the header announces shape \(2, 3, 4\), 24 bytes.* has 23"),
        (GOOD + b"!", r"trailing bytes: .* 24 bytes of data; the file has 25"),
        (PACKED[:-12], "damaged gzip file"),
        (PACKED[:30] + b"\x55\xaa\x55" + PACKED[33:], "damaged gzip file"),
        (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "damaged gzip file: CRC"),
        (PACKED + b"more", "damaged gzip file"),
        (packed(GOOD[:-1]), r"truncated: the header announces .* 24 bytes.* has 23"),
        (packed(GOOD + b"!!"), r"trailing bytes: .* 24 bytes of data; the file has 25 or m"),
        (packed(GOOD[:10]), r"3 dimensions, so 16 bytes of header; the file has 10"),
        (b"\0\0\x08\xff" + 255 * b"\0\0\0\1" + b"!", "must have at most 64 dimensions, got 255"),
        (b"\0\0\x08\4" + bytes(4) + 12 * b"\xff", r"less than 2\*\*63 bytes, got shape \(0, 42949"),
        (b"\0\0\x08\1\x40" + bytes(3), "truncated: .* 1073741824 bytes of data; the file has 0"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, content, words):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def packed_idx(shape, zeros):
    """A compressed file that announces bytes of a shape, and inflates to many zeros."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    return gzip.compress(header + bytes(zeros))


def test_no_more_is_read_than_the_header_announces(tmp_path):
    (tmp_path / "x.gz").write_bytes(packed_idx((2,), 2**25))
    with traced_memory() as peak, pytest.raises(DataError, match="2 bytes of data; the file has 3"):
        read_idx(tmp_path / "x.gz")
    assert peak() < 2**22


def test_what_would_inflate_too_much_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x.gz"
    path.write_bytes(packed_idx((2**25,), 2**25))
    assert read_idx(path).shape == (2**25,)  # 1000 times its size, but not much
    monkeypatch.setattr(reader, "ALWAYS_READ", 2**20)
    with (
        traced_memory() as peak,
        pytest.raises(DataError, match=r"would inflate from 3\d+ to 33554432 bytes, more than 100"),
    ):
        read_idx(path)
    assert peak() < 2**22


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for read in (read_idx, npz):
        for name, words in (("pipe", "is a pipe"), ("zeros", "is a device")):
            with pytest.raises(DataError, match=f"{name}: must be a regular file, {words}"):
                read(tmp_path / name)


def test_not_gzip_in_spite_of_its_name(tmp_path):
    (tmp_path / "x.gz").write_bytes(b"<html>")
    with pytest.raises(DataError, match="damaged gzip file: it begins with bytes 3c 68, not 1f 8b"):
        read_idx(tmp_path / "x.gz")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_idx(tmp_path / "y.gz")


@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_in_every_spelling(tmp_path, dash, ending):
    train, test = sample(12), sample(7, 1)
    write_mnist(tmp_path / "mnist", train, test, dash=dash, ending=ending)
    data = load(tmp_path / "mnist")
    assert (data.classes, data.shape) == (10, (5, 4))
    for x, y, (images, labels) in (
        (data.x_train, data.y_train, train),
        (data.x_test, data.y_test, test),
    ):
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(x, images.astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(y, labels)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        (LABELS, sample(11)[1], f"{IMAGES} has 12 images, .*{LABELS} has 11 labels"),
        (LABELS, np.full(12, 10, np.uint8), f"{LABELS}: labels must be 0 to 9, the largest is 10"),
        (LABELS, sample(12)[0], rf"{LABELS}: expected unsigned bytes in 1 dim.*uint8 in 3"),
        (IMAGES, sample(12)[1], rf"{IMAGES}: expected unsigned bytes in 3 dim.*uint8 in 1"),
        (LABELS, np.zeros(12, np.int32), "unsigned bytes in 1 dimension, found int32"),
        (IMAGES, np.zeros((12, 9, 9), np.uint8), r"have shape \(9, 9\), test examples \(5, 4\)"),
    ],
)
def test_mnist_files_that_do_not_fit(folder, name, array, words):
    write_idx(folder / name, array)
    with pytest.raises(DataError, match=words):
        mnist(folder)


def test_mnist_without_images_or_files(folder):
    write_idx(folder / IMAGES, np.zeros((0, 5, 4), np.uint8))
    write_idx(folder / LABELS, np.zeros(0, np.uint8))
    with pytest.raises(DataError, match=r"x_train is empty: its shape is \(0, 5, 4\)"):
        mnist(folder)
    (folder / LABELS).unlink()
    with pytest.raises(DataError, match=rf"none of the files {LABELS}, .*ubyte.gz is there"):
        mnist(folder)


def arrays(**changes):
    images, labels = sample(12)
    made = {"x_train": images, "y_train": labels, "x_test": images[:5], "y_test": labels[:5]}
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def test_npz_bytes_and_floats(tmp_path):
    np.savez(tmp_path / "bytes.npz", **arrays())
    data = load(tmp_path / "bytes.npz")
    np.testing.assert_array_equal(data.x_train, sample(12)[0] / np.float32(255))
    assert data.classes == sample(12)[1].max() + 1
    features = np.random.default_rng(0).normal(size=(12, 3))
    np.savez(tmp_path / "floats.npz", **arrays(x_train=features, x_test=features[:5]))
    np.testing.assert_array_equal(load(tmp_path / "floats.npz").x_train, features.astype("f4"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None, "x_test": None}, "lacks x_test, y_test; it has x_train, y_train"),
        ({"y_train": np.zeros(11, int)}, "x_train has 12 examples, y_train has 11"),
        (
            {"y_train": np.zeros((12, 1), int)},
            r"y_train \[examples\], got \(12, 5, 4\) and \(12, 1",
        ),
        ({"x_test": np.zeros((5, 3, 3))}, r"have shape \(5, 4\), test examples \(3, 3\)"),
        ({"x_test": np.zeros((0, 5, 4)), "y_test": np.zeros(0, int)}, "x_test is empty"),
        ({"y_train": np.zeros(12)}, "y_train must hold integers, not float64"),
        ({"y_train": np.full(12, -1)}, "y_train: labels must be at least 0, got -1"),
        ({"y_train": np.full(12, 10**9)}, "the largest is 1000000000, more than there are"),
        ({"x_train": np.zeros((12, 5, 4), int)}, "unsigned bytes .* or floating-point, not int64"),
        (
            {"x_train": np.full((12, 5, 4), np.nan)},
            "x_train has 240 values that are NaN or infinite",
        ),
        (
            {"x_train": np.full((12, 5, 4), 1e300)},
            "x_train has 240 values that are NaN or infinite",
        ),
        ({"x_train": np.full((12, 5, 4), None)}, "not a readable .npz file"),
    ],
)
def test_npz_files_that_do_not_fit(tmp_path, changes, words):
    np.savez(tmp_path / "data.npz", **arrays(**changes))
    with pytest.raises(DataError, match=words) as caught:
        npz(tmp_path / "data.npz")
    assert str(tmp_path / "data.npz") in str(caught.value)


def test_npz_damaged(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    content = (tmp_path / "data.npz").read_bytes()
    for damaged in (b"", b"rubbish", content[:-100], content[:200] + b"????" + content[204:]):
        (tmp_path / "data.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"not a readable .npz file"):
            npz(tmp_path / "data.npz")


def write_entries(path, compression=zipfile.ZIP_STORED, **entries):
    """A zip file with the four arrays, and entries that replace them or stand beside them."""
    right = npy_bytes("|u1", (1, 1), b"x")
    with zipfile.ZipFile(path, "w", compression) as archive:
        names = ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy")
        for name, content in {**dict.fromkeys(names, right), **entries}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"words", "x_train is not an array in NumPy's format: EOF: .* expected 8 bytes got 5"),
        (b"P" * 100, "x_train is not an array in NumPy's format: the magic string is not correct"),
        (
            npy_bytes("<f8", (2**40,), b""),
            "x_train: the header announces .* the file has 0",
        ),
        (npy_bytes("<f8", (2,), bytes(24)), "float64, 16 bytes; the file has 24"),
        (npy_bytes("<f8", (-1, -2), bytes(16)), r"must be at least 0, got \(-1, -2\)"),
        (npy_bytes("<f8", (0, 2**40, 2**40), b""), r"must have less than 2\*\*63 bytes"),
        (npy_bytes("<f8", (1,) * 65, bytes(8)), "must have at most 64 dimensions, got 65"),
        (npy_bytes("<f8", "words", bytes(8)), "x_train is not an array .*shape is not valid"),
        (npy_bytes("words", (1,), bytes(8)), "x_train is not an array .*descr is not a valid"),
        (npy_bytes("|O", (1,), bytes(8)), "x_train must hold numbers, not Python objects"),
        (
            npy_bytes("<f8", (1,), bytes(8), version=9),
            r"must be 1\.0 or 2\.0, got \(9, 0\)",
        ),
    ],
)
def test_entries_that_are_no_arrays_are_named(tmp_path, content, words):
    path = tmp_path / "data.npz"
    write_entries(path, **{"x_train.npy": content})
    with pytest.raises(DataError, match=words) as caught:
        npz(path)
    assert str(caught.value).startswith(f"{path}: not a readable .npz file: ")


def test_entries_that_nobody_asked_for_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "ALWAYS_READ", 2**20)
    path, zeros = tmp_path / "data.npz", bytes(2**22)
    label = npy_bytes("|u1", (1,), b"\1")
    right = {"y_train.npy": label, "y_test.npy": label}
    more = {"notes.txt": zeros, "more.npy": b"words"}
    write_entries(path, zipfile.ZIP_DEFLATED, **right, **more)
    assert npz(path).classes == 2
    image = npy_bytes("|u1", (1, 2**22), zeros)
    write_entries(path, zipfile.ZIP_DEFLATED, **{"x_train.npy": image})
    with (
        traced_memory() as peak,
        pytest.raises(DataError, match=r"would inflate from .*; if that is right, store it wi"),
    ):
        npz(path)
    assert peak() < 2**21


@pytest.mark.parametrize(("method", "number"), [(zipfile.ZIP_BZIP2, 12), (zipfile.ZIP_LZMA, 14)])
def test_other_compression_is_refused(tmp_path, method, number):
    write_entries(tmp_path / "data.npz", method)
    words = f"x_train must be stored or deflated, got compression method {number}"
    with pytest.raises(DataError, match=words):
        npz(tmp_path / "data.npz")


def test_two_arrays_of_one_name_are_refused(tmp_path):
    write_entries(tmp_path / "data.npz", x_train=b"")
    with pytest.raises(DataError, match="it has two entries of the same name"):
        npz(tmp_path / "data.npz")


def test_a_source_that_is_nothing(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder; the data are 'digits'"):
        load(tmp_path / "nowhere")
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"neither a folder with MNIST's IDX files nor a .npz"):
        load(tmp_path / "data.csv")


def test_digits_are_split_fairly_and_always_alike():
    from sklearn.datasets import load_digits

    data, again = digits(), digits()
    assert (data.x_train.shape, data.x_test.shape) == ((1437, 8, 8), (360, 8, 8))
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert np.abs(np.bincount(data.y_test) - np.bincount(load_digits().target) / 5).max() < 1
    # Every image is there once: the same multiset as the source's.
    both = np.concatenate([data.x_train, data.x_test]).reshape(1797, -1) * 16
    source = load_digits().data
    np.testing.assert_array_equal(both[np.lexsort(both.T)], source[np.lexsort(source.T)])
    assert data.fingerprint() == again.fingerprint()


def test_the_fingerprint_sees_every_change():
    data = digits()
    moved = data.x_test.copy()
    moved[5, 3, 3] += 1e-6
    relabelled = data.y_train.copy()
    relabelled[7] += 1
    seen = {
        d.fingerprint()
        for d in (data, data._replace(x_test=moved), data._replace(y_train=relabelled))
    }
    assert len(seen) == 3
