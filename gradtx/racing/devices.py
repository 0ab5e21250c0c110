"""A grid divided over devices: seeds by rates, as a mesh is, with no communication."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from gradtx.engine.base import Array, PyTree
from gradtx.racing.grid import Curves, Start
from gradtx.train.errors import TrainingError

Grid = Callable[[Array, Start, PyTree], Curves]


def local_devices(number: int | None) -> np.ndarray:
    """Returns the devices of this process that a race uses.

    Args:
      number: their number; `None` for all.

    Raises:
      TrainingError: there are not so many.

    Example:
      >>> from gradtx.racing.devices import local_devices
      >>> len(local_devices(1))
      1
    """
    devices = np.array(jax.local_devices())
    if number is None:
        return devices
    if not (isinstance(number, int) and 1 <= number <= len(devices)):
        raise TrainingError(
            f"race: devices must be an integer from 1 to {len(devices)}, the number of devices of "
            f"this process, got {number!r}"
        )
    return devices[:number]


def division(seeds: int, rates: int, devices: int) -> tuple[int, int]:
    """Returns the numbers of parts into which seeds and rates are divided.

    Their product is `devices`. It is the division with the fewest runs on a device, padding
    included. Of several, it is the one with the fewest parts of the rates, because runs of one seed
    share the gathering of examples.

    Args:
      seeds: the number of seeds.
      rates: the number of rates.
      devices: the number of devices.

    Example:
      >>> from gradtx.racing.devices import division
      >>> division(seeds=4, rates=9, devices=8)
      (4, 2)
      >>> division(seeds=1, rates=9, devices=8)
      (1, 8)
    """
    choices = [(devices // b, b) for b in range(1, devices + 1) if devices % b == 0]
    return min(choices, key=lambda parts: -(-seeds // parts[0]) * -(-rates // parts[1]))


def on_all(tree: PyTree, devices: np.ndarray) -> PyTree:
    """Returns a pytree of arrays with a copy of each on every device.

    Args:
      tree: the pytree.
      devices: the devices.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.racing.devices import local_devices, on_all
      >>> on_all(jnp.ones(2), local_devices(None)).is_fully_replicated
      True
    """
    return jax.device_put(tree, NamedSharding(Mesh(devices, ("runs",)), P()))


def divided(grid: Grid, parts: tuple[int, int], devices: np.ndarray) -> Grid:
    """Returns a grid with its runs divided over devices.

    Seeds and rates that do not divide are padded by repeating the last one, and the results of
    these are dropped. On a CPU, where seeds follow one another, the results of a grid whose rates
    are not divided are bit for bit those of one device. Otherwise they differ in rounding, because
    a device batches fewer runs.

    Args:
      grid: the result of `make_grid`.
      parts: the number of parts of the seeds, and that of the rates; see `division`.
      devices: the devices; their number is the product of `parts`.

    Returns:
      A function like `grid`, to be compiled. Its arguments must be on all of the devices.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> from gradtx.racing import make_grid, make_start, own_problem
      >>> from gradtx.racing.devices import divided, local_devices
      >>> problem = own_problem(lambda p, x: jnp.mean((p - x) ** 2), jnp.zeros(()), [jnp.ones(4)])
      >>> start = make_start(problem)(jnp.arange(1), problem.data)
      >>> grid = divided(make_grid(problem, gradtx.sgd, epochs=2), (1, 1), local_devices(1))
      >>> print(jax.jit(grid)(jnp.array([0.25, 0.5]), start, problem.data).loss)
      [[[0.25   0.    ]
        [0.0625 0.    ]]]
    """
    mesh = Mesh(devices.reshape(parts), ("seeds", "rates"))
    each = jax.shard_map(
        grid,
        mesh=mesh,
        in_specs=(P("rates"), P("seeds"), P()),
        out_specs=P("seeds", None, "rates"),
        check_vma=False,  # a loop's state, equal at first, would need a mark of that it will differ
    )

    def run(rates: Array, start: Start, data: PyTree) -> Curves:
        seeds = len(start.curves.loss)
        padded = jax.tree.map(lambda x: _padded(x, parts[0]), start)
        curves = each(_padded(rates, parts[1]), padded, data)
        return jax.tree.map(lambda x: x[:seeds, :, : len(rates)], curves)

    return run


def _padded(x: Array, parts: int) -> Array:
    """Returns an array whose first axis divides into equal parts."""
    size = len(x)
    return x[jnp.minimum(jnp.arange(-(-size // parts) * parts), size - 1)]
