"""Labelled images to train on: scikit-learn's digits, MNIST's files, or any `.npz` file."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradtx._arguments import counted
from gradtx.train.arrays import read_npz
from gradtx.train.errors import DataError, extra
from gradtx.train.files import reading
from gradtx.train.idx import read_idx


class Data(NamedTuple):
    """A classification data set, split into training and test examples.

    Attributes:
      name: its name or path, for messages.
      x_train: training inputs, float32 of shape `[examples, ...]`.
      y_train: their classes, int32 of shape `[examples]`, counted from 0.
      x_test: test inputs.
      y_test: their classes.
      classes: the number of classes.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.x_train.shape[1:]

    def fingerprint(self) -> str:
        """Returns a hash of all examples and labels, by which two runs can be compared."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def load(source: str | Path = "digits") -> Data:
    """Loads a data set by name or path.

    Args:
      source: `"digits"`, a folder with MNIST's four IDX files, or a `.npz` file.

    Raises:
      DataError: the source does not exist, or is damaged.
      TrainingError: scikit-learn is not installed, which `"digits"` needs.

    Example:
      >>> from gradtx.train import load
      >>> data = load()
      >>> data.x_train.shape, data.x_test.shape, data.classes
      ((1437, 8, 8), (360, 8, 8), 10)
    """
    path = Path(source)
    if str(source) == "digits":
        return digits()
    if path.is_dir():
        return mnist(path)
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; the data are 'digits', a folder with MNIST's IDX "
            "files, or a .npz file"
        )
    if path.suffix == ".npz":
        return npz(path)
    raise DataError(f"{path}: neither a folder with MNIST's IDX files nor a .npz file")


def digits() -> Data:
    """Loads scikit-learn's 1797 handwritten digits of 8x8 pixels; a fifth are test examples.

    The split is deterministic and stratified: the 360 test images have the class frequencies of
    the whole set. Pixels are from 0 to 1.

    Raises:
      TrainingError: scikit-learn is not installed.

    Example:
      >>> from gradtx.train import digits
      >>> int(digits().y_train.max())
      9
    """
    bunch = extra("sklearn.datasets", "for the digits").load_digits()
    split = extra("sklearn.model_selection", "for the digits").train_test_split(
        (bunch.images / 16).astype(np.float32),
        bunch.target.astype(np.int32),
        test_size=360,
        stratify=bunch.target,
        random_state=0,
    )
    x_train, x_test, y_train, y_test = split
    return Data("digits", x_train, y_train, x_test, y_test, classes=10)


def mnist(folder: str | Path) -> Data:
    """Reads MNIST's four IDX files, or others in the same format (Fashion-MNIST, KMNIST).

    Each file may be compressed, with the suffix `.gz`, and may be named `train-images.idx3-ubyte`;
    if there are several, an uncompressed one is read. Pixels are divided by 255.

    Args:
      folder: the folder of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
        `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`.

    Raises:
      DataError: a file is missing or damaged, does not hold bytes in the right number of
        dimensions, has a label above 9, or images and labels differ in number.

    Example:
      >>> from gradtx.train import mnist
      >>> mnist("/nowhere")
      Traceback (most recent call last):
      ...
      gradtx.train.errors.DataError: /nowhere: none of the files train-images-idx3-ubyte, ...
    """
    folder = Path(folder)
    train = _images_and_labels(folder, "train")
    test = _images_and_labels(folder, "t10k")
    return _checked(str(folder), *train, *test, classes=10)


def _images_and_labels(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images_path, images = _bytes(folder, f"{part}-images", 3)
    labels_path, labels = _bytes(folder, f"{part}-labels", 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {counted(len(images), 'image')}, {labels_path} has "
            f"{counted(len(labels), 'label')}"
        )
    if len(labels) and labels.max() > 9:
        raise DataError(f"{labels_path}: labels must be 0 to 9, the largest is {labels.max()}")
    return images, labels


def _bytes(folder: Path, stem: str, ndim: int) -> tuple[Path, np.ndarray]:
    spellings = [f"{stem}{dash}idx{ndim}-ubyte{gz}" for gz in ("", ".gz") for dash in "-."]
    paths = [folder / name for name in spellings if (folder / name).exists()]
    if not paths:
        raise DataError(f"{folder}: none of the files {', '.join(spellings)} is there")
    array = read_idx(paths[0])
    if array.dtype != np.uint8 or array.ndim != ndim:
        raise DataError(
            f"{paths[0]}: expected unsigned bytes in {counted(ndim, 'dimension')}, "
            f"found {array.dtype} in {array.ndim}"
        )
    return paths[0], array


def npz(path: str | Path) -> Data:
    """Reads a data set from a `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`.

    Inputs are floating-point numbers, which are used unchanged, or unsigned bytes, which are
    divided by 255. Their shape is `[examples, ...]`; the convolutional models need
    `[examples, height, width]` or `[examples, height, width, channels]`. Labels are integers from
    0. A compressed file must not inflate to more than 100 times its size, or 256 MiB if that is
    more.

    Args:
      path: the file.

    Raises:
      DataError: the file cannot be read, an array is missing, or shapes, dtypes or labels are
        invalid.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from gradtx.train import npz
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "xor.npz"
      >>> x, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0, 1, 1, 0])
      >>> np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
      >>> npz(path).classes
      2
    """
    keys = ("x_train", "y_train", "x_test", "y_test")
    with reading(path, DataError, "not a readable .npz file") as file:
        arrays = read_npz(file, keys)
    x_train, y_train, x_test, y_test = (arrays[key] for key in keys)
    return _checked(str(path), x_train, y_train, x_test, y_test)


def _checked(
    name: str,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    classes: int | None = None,
) -> Data:
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim < 2 or y.ndim != 1:
            raise DataError(
                f"{name}: x_{part} must have shape [examples, ...] and y_{part} [examples], got "
                f"{x.shape} and {y.shape}"
            )
        if len(x) != len(y):
            raise DataError(
                f"{name}: x_{part} has {counted(len(x), 'example')}, y_{part} has {len(y)}"
            )
        if x.size == 0:
            raise DataError(f"{name}: x_{part} is empty: its shape is {x.shape}")
        if not np.issubdtype(y.dtype, np.integer):
            raise DataError(f"{name}: y_{part} must hold integers, not {y.dtype}")
        if y.min() < 0:
            raise DataError(f"{name}: y_{part}: labels must be at least 0, got {y.min()}")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{name}: training examples have shape {x_train.shape[1:]}, test examples "
            f"{x_test.shape[1:]}"
        )
    largest = int(max(y_train.max(), y_test.max()))
    if largest >= len(y_train) + len(y_test):
        raise DataError(
            f"{name}: labels must be 0 to classes - 1; the largest is {largest}, more than there "
            f"are examples ({len(y_train) + len(y_test)})"
        )
    inputs = [_scaled(name, part, x) for part, x in (("x_train", x_train), ("x_test", x_test))]
    labels = [y.astype(np.int32) for y in (y_train, y_test)]
    return Data(name, inputs[0], labels[0], inputs[1], labels[1], classes or largest + 1)


def _scaled(name: str, part: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        return np.divide(x, 255, dtype=np.float32)
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"{name}: {part} must be unsigned bytes (divided by 255) or floating-point, not "
            f"{x.dtype}"
        )
    with np.errstate(over="ignore"):  # overflow in float32 becomes infinity, and is rejected below
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        bad = int(np.count_nonzero(~np.isfinite(x)))
        raise DataError(
            f"{name}: {part} has {counted(bad, 'value')} that "
            f"{'is' if bad == 1 else 'are'} NaN or infinite"
        )
    return x
