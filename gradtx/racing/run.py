"""The functions that run a race."""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._arguments import counted
from gradtx.engine.base import Array, Params, PyTree
from gradtx.engine.numerics import default_float
from gradtx.racing.devices import divided, division, local_devices, on_all
from gradtx.racing.entrants import ADDED, WIDENINGS, Entrant, Factory, enter, wider
from gradtx.racing.grid import Curves, Problem, Start, make_grid, make_start
from gradtx.racing.leaderboard import Race
from gradtx.racing.problems import own_problem
from gradtx.racing.progress import Display, display
from gradtx.racing.record import Record
from gradtx.racing.results import Results, Row
from gradtx.train.errors import TrainingError


def race(
    loss: Callable[[Params, PyTree], Array],
    init: Params | Callable[[Array], Params],
    batches: Iterable[PyTree],
    optimizers: Iterable[str] | Mapping[str, str | Factory],
    *,
    learning_rates: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    seeds: int | Sequence[int] = 3,
    epochs: int = 10,
    accuracy: Callable[[Params], Array] | None = None,
    target: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    devices: int | None = None,
) -> Race:
    """Compares optimizers on any loss function, with several learning rates and seeds each.

    All learning rates and seeds of an optimizer run in one compiled program. The seed decides the
    initial parameters and the order of the batches, so they are the same for all rates and
    optimizers. A loss that is not finite is recorded as infinity. On a terminal, a progress bar is
    shown.

    The runs are divided over the devices of the process, which do not communicate. The results are
    those of one device, except that rounding may depend on how many runs a device batches; on CPUs
    they are the same bit for bit if only the seeds are divided, as 8 seeds over 8 devices.

    Args:
      loss: `loss(params, batch)`, a scalar.
      init: `init(key) -> params`, or the initial parameters themselves, for all seeds.
      batches: a list of batches, each a pytree of arrays, all of the same shapes. Every epoch uses
        each batch once. For a problem without batches, pass `[None]`: an epoch is then one step.
      optimizers: names of the catalog, or a mapping from any names to names of the catalog or to
        functions from a learning rate to an optimizer.
      learning_rates: the rates of all optimizers except learning-rate-free ones; or a mapping from
        names to rates. Default: nine rates, half a decade apart, around the optimizer's usual rate;
        five for learning-rate-free optimizers; see `gradtx.racing.enter`. While the best of these
        is the smallest or the largest, three rates are added beyond it, up to four times.
      seeds: the number of seeds, counted from 0, or a sequence of seeds. Default: 3.
      epochs: the number of epochs. Default: 10.
      accuracy: `accuracy(params)`, from 0 to 1, where higher is better, such as the fraction of
        test examples that are classified correctly. Default: none.
      target: the target accuracy or, without `accuracy`, the target loss. Default: none.
      out: a folder for the results, as JSON lines in `race.jsonl`. Rates of an optimizer that are
        finished in it are not run again, and its results are included. Default: no file.
      overwrite: whether an existing race in the folder may be replaced. Default: no.
      devices: the number of devices. Default: all of this process.

    Returns:
      The results: `rows`, `standings()`, `table()`, and the figures `curves()` and `rates()`.

    Raises:
      TrainingError: the loss, the batches, an optimizer, or the folder is invalid; the message
        says which.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import gradtx
      >>> def loss(params, batch):
      ...     x, y = batch
      ...     return jnp.mean((x @ params["w"] - y) ** 2)
      >>> x = jax.random.normal(jax.random.key(0), (8, 32, 4))
      >>> batches = list(zip(x, x @ jnp.arange(4.0)))
      >>> race = gradtx.race(loss, lambda key: {"w": jax.random.normal(key, (4,))}, batches,
      ...                    {"sgd": gradtx.sgd, "heavy ball": lambda r: gradtx.sgd(r, 0.9)},
      ...                    learning_rates=[0.001, 0.01, 0.1], epochs=3, target=0.1)
      >>> [(s.optimizer, s.learning_rate, s.steps_to_target) for s in race.standings()]
      [('sgd', 0.1, 16.0), ('heavy ball', 0.1, inf)]
    """
    field = enter(optimizers, learning_rates)
    problem = own_problem(loss, init, batches, accuracy)
    return run_race(
        problem,
        field,
        seeds=seeds,
        epochs=epochs,
        target=target,
        out=out,
        overwrite=overwrite,
        devices=devices,
    )


def run_race(
    problem: Problem,
    field: Sequence[Entrant],
    *,
    seeds: int | Sequence[int],
    epochs: int,
    target: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    devices: int | None = None,
    lines: bool = False,
    finish: Callable[[Race], None] | None = None,
) -> Race:
    """Runs a race on a `Problem`; see `race`.

    Args:
      problem: the problem.
      field: the entrants.
      seeds: the number of seeds, counted from 0, or a sequence of seeds.
      epochs: the number of epochs.
      target: the target accuracy or loss. Default: none.
      out: a folder for the results. Default: no file.
      overwrite: whether an existing race in the folder may be replaced. Default: no.
      devices: the number of devices over which the runs are divided. Default: all of this process.
      lines: whether to print a line for each optimizer where no bar can be shown. Default: no.
      finish: a callback that receives the results while the folder is still locked. Default: none.

    Returns:
      The results.

    Raises:
      TrainingError: an optimizer cannot train this problem, or an argument is invalid.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.racing import enter, own_problem, run_race
      >>> def loss(params, batch):
      ...     return jnp.mean((batch @ params - 1) ** 2)
      >>> problem = own_problem(loss, lambda key: jnp.zeros(2), [jnp.eye(2)])
      >>> race = run_race(problem, enter(["sgd"], {"sgd": (0.1, 0.5)}), seeds=1, epochs=2)
      >>> [(row.learning_rate, round(row.loss[-1], 4)) for row in race.rows]
      [(0.1, 0.6561), (0.5, 0.0625)]
    """
    numbers = _seeds(seeds)
    if not (isinstance(epochs, int) and epochs >= 1):
        raise TrainingError(f"race: epochs must be an integer of at least 1, got {epochs!r}")
    using = local_devices(devices)
    config = {**problem.config, "epochs": epochs, "seeds": numbers}
    record = None if out is None else Record(out, config)
    with record.begin(overwrite) if record else nullcontext([]) as held:
        found: dict[str, list[Row]] = {}
        for row in held:
            found.setdefault(row.optimizer, []).append(row)
        waiting = [e for e in (_unfinished(e, found.get(e.name, [])) for e in field) if e.rates]
        with display(epochs * len(numbers) * len(waiting), lines) as shown:
            shown.say(
                f"{problem.title or 'race'}: {counted(epochs, 'epoch')} of "
                f"{counted(problem.steps, 'step')}, {counted(len(numbers), 'seed')}"
                f"{f', {len(using)} devices' if len(using) > 1 else ''}"
            )
            for name in (entrant.name for entrant in field if entrant.name in found):
                shown.say(f"{name}: {_rates(found[name])} finished earlier")
            trace = _tracer(problem, numbers, epochs, using, shown)
            # All are traced before any of them runs, so that errors are raised at once.
            grids = {entrant.name: trace(entrant) for entrant in waiting}

            def further(entrant: Entrant) -> _Grid | None:
                rates = _beyond(entrant, found[entrant.name], shown)
                if not rates:
                    return None
                shown.more(epochs * len(numbers))
                return trace(entrant._replace(rates=rates))

            for entrant in field:
                rows = found.setdefault(entrant.name, [])
                grid = grids.pop(entrant.name, None) or further(entrant)
                while grid:
                    rows += grid.run(numbers)
                    rows.sort(key=lambda row: row.learning_rate)  # the seeds stay in order
                    if record:
                        record.save([row for rows in found.values() for row in rows])
                    grid = further(entrant)
        order = dict.fromkeys([*(entrant.name for entrant in field), *found])
        runs = tuple(row for name in order for row in found[name])
        result = Race(runs, target, problem.title, problem.unit)
        if finish is not None:
            finish(result)
    return result


def _tracer(
    problem: Problem, seeds: Sequence[int], epochs: int, devices: np.ndarray, shown: Display
) -> Callable[[Entrant], "_Grid"]:
    """Returns the function that traces an entrant's grid.

    The start of all runs is computed when the first grid is traced.
    """

    @functools.cache
    def begun() -> tuple[Problem, Start]:
        there = problem
        if len(devices) > 1:
            there = problem._replace(data=on_all(problem.data, devices))
        return there, jax.jit(make_start(there))(jnp.asarray(seeds, jnp.int32), there.data)

    return lambda entrant: _Grid(entrant, *begun(), epochs, devices, shown)


def _unfinished(entrant: Entrant, rows: Sequence[Row]) -> Entrant:
    """Returns the entrant with those of its rates that have no runs yet."""
    done = {row.learning_rate for row in rows}
    return entrant._replace(rates=tuple(rate for rate in entrant.rates if rate not in done))


def _beyond(entrant: Entrant, rows: Sequence[Row], shown: Display) -> tuple[float, ...]:
    """Returns the rates that are to be added to an entrant's: none once it is finished."""
    (standing,) = Results(tuple(rows)).standings()
    if not (entrant.widen and standing.at_edge):
        return ()
    rates = sorted({row.learning_rate for row in rows})
    best = f"the {'smallest' if standing.at_edge == 'low' else 'largest'} of {_rates(rows)} is best"
    # Counted from the runs, so that a race that is continued ends where it would have ended.
    if len(rates) - len(entrant.rates) >= WIDENINGS * ADDED:
        shown.say(f"{entrant.name}: unfinished, {best}")
        return ()
    shown.say(f"{entrant.name}: {best}, {ADDED} more are added")
    return wider(rates, standing.at_edge)


def _rates(rows: Sequence[Row]) -> str:
    rates = sorted({row.learning_rate for row in rows})
    return _range(rates)


def _range(rates: Sequence[float]) -> str:
    if len(rates) == 1:
        return f"the rate {rates[0]:.3g}"
    return f"{len(rates)} rates from {rates[0]:.3g} to {rates[-1]:.3g}"


class _Grid:
    """The traced grid of an entrant, to be run once."""

    def __init__(
        self,
        entrant: Entrant,
        problem: Problem,
        start: Start,
        epochs: int,
        devices: np.ndarray,
        shown: Display,
    ) -> None:
        self.entrant, self.problem, self.start, self.shown = entrant, problem, start, shown
        self.steps = tuple(problem.steps * epoch for epoch in range(epochs + 1))
        shown.step(entrant.name, "tracing")
        began = time.perf_counter()
        grid = make_grid(problem, entrant.make, epochs, self._on_epoch if shown.live else None)
        self.arguments = (jnp.asarray(entrant.rates, default_float()), start, problem.data)
        self.share = 1.0  # of a seed's epoch, when a device has finished its part of one
        if len(devices) > 1:
            seeds = len(start.curves.loss)
            parts = division(seeds, len(entrant.rates), len(devices))
            grid = divided(grid, parts, devices)
            self.share = seeds / (-(-seeds // parts[0]) * len(devices))
        try:
            self.traced = jax.jit(grid).trace(*self.arguments)
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"race: {entrant.name} cannot train this problem: {error}"
            ) from error
        self.tracing = time.perf_counter() - began

    def _on_epoch(self, losses: Array) -> None:
        self.shown.step(self.entrant.name, f"best loss {np.min(losses):.3g}", self.share)

    def run(self, seeds: Sequence[int]) -> list[Row]:
        name, rates = self.entrant.name, self.entrant.rates
        runs = len(rates) * len(seeds)
        self.shown.step(name, "compiling")
        began = time.perf_counter()
        compiled = self.traced.lower().compile()
        compiling = self.tracing + time.perf_counter() - began
        self.shown.step(name, "training")
        began = time.perf_counter()
        curves: Curves = jax.block_until_ready(compiled(*self.arguments))
        training = time.perf_counter() - began
        jax.effects_barrier()
        self.shown.say(
            f"{name}: {counted(runs, 'run')}, {_range(rates)}, in "
            f"{training:.2f} s and {compiling:.2f} s for compilation"
        )

        def curve(first: Array, later: Array, i: int, j: int) -> tuple[float, ...]:
            return (float(first[i]), *(float(x) for x in np.asarray(later)[i, :, j]))

        first = self.start.curves
        before, after = first.accuracy, curves.accuracy
        return [
            Row(
                name,
                rate,
                seed,
                self.steps,
                curve(first.loss, curves.loss, i, j),
                None if before is None or after is None else curve(before, after, i, j),
                training / runs,
                compiling / runs,
            )
            for j, rate in enumerate(rates)
            for i, seed in enumerate(seeds)
        ]


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    whole = all(isinstance(s, (int, np.integer)) and 0 <= s < 2**31 for s in numbers)
    if not numbers or not whole or len(set(numbers)) < len(numbers):
        raise TrainingError(
            "race: seeds must be a number of seeds, at least 1, or distinct integers from 0 to "
            f"2147483647, got {seeds!r}"
        )
    return [int(s) for s in numbers]
