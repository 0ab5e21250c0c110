"""Data sets so small that what trains on them is done at once."""

import numpy as np

from gradtx import train


def small(examples=50, shape=(4, 4), classes=3):
    """Noisy prototypes: a problem that any optimizer can learn, and no two examples are alike."""
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(classes, *shape))

    def draw(n):
        y = np.arange(n) % classes
        x = prototypes[y] + rng.normal(size=(n, *shape)) / 2
        return x.astype(np.float32), y.astype(np.int32)

    return train.Data("small", *draw(examples), *draw(20), classes=classes)


def write_small(folder):
    """60 training and 30 test examples of 16 features in 3 classes; gives the file's path."""
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(3, 4, 4))
    arrays = {}
    for part, n in (("train", 60), ("test", 30)):
        y = np.arange(n) % 3
        arrays |= {f"x_{part}": prototypes[y] + rng.normal(size=(n, 4, 4)) / 2, f"y_{part}": y}
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"
