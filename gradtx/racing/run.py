"""The race itself."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.engine.base import Array, Params
from gradtx.engine.numerics import default_float
from gradtx.racing.entrants import Entrant, enter
from gradtx.racing.grid import Curves, Problem, Start, make_grid, make_start
from gradtx.racing.leaderboard import Race
from gradtx.racing.problems import own_problem
from gradtx.racing.progress import Display, display
from gradtx.racing.record import Record
from gradtx.racing.results import Row
from gradtx.train.errors import TrainingError


def race(
    loss: Callable[[Params, Any], Array],
    init: Any,
    batches: Iterable[Any],
    optimizers: Iterable[str] | Mapping[str, Any],
    *,
    learning_rates: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    seeds: int | Sequence[int] = 3,
    epochs: int = 10,
    accuracy: Callable[[Params], Array] | None = None,
    target: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Race:
    """Races optimizers with several learning rates and seeds on a loss of one's own.

    All learning rates and seeds of an optimizer are one compiled program. The seed decides the
    initial parameters and the order of the batches, so all meet the same ones. A run whose loss is
    no longer finite goes on with an infinite one. On a terminal, the progress is shown.

    Args:
      loss: `loss(params, batch)`, a scalar.
      init: `init(key) -> params`, or the initial parameters themselves, for all seeds.
      batches: a list of batches, each a pytree of arrays, all of one shape. In every epoch each is
        seen once. Of a problem without batches, give `[None]`: an epoch is then a step.
      optimizers: names of the catalog, or a mapping from names of one's own to names of the catalog
        or to functions of the learning rate that make an optimizer.
      learning_rates: the rates of all of them but those that find their step size themselves; or a
        mapping from names to rates. Default: nine half a decade apart, around the optimizer's usual
        rate; five for those that find their step size themselves; see `gradtx.racing.enter`.
      seeds: how many, counted from 0, or which. Default: 3.
      epochs: how often all batches are seen. Default: 10.
      accuracy: `accuracy(params)`, a share from 0 to 1 in which more is better, such as that of
        held-out examples that are classified rightly. Default: none is measured.
      target: the accuracy to be reached or, without `accuracy`, the loss. Default: none.
      out: a folder for the results, as JSON lines in `race.jsonl`. An optimizer that is finished in
        it is not run again, and what it holds of others is among the results. Default: no file.
      overwrite: whether a race in the folder may be lost. Default: no.

    Returns:
      The results: `rows`, `standings()`, `table()`, and the pictures `curves()` and `rates()`.

    Raises:
      TrainingError: the loss, the batches, an optimizer, or the folder is not right; the message
        says what.

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
        problem, field, seeds=seeds, epochs=epochs, target=target, out=out, overwrite=overwrite
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
    lines: bool = False,
) -> Race:
    """Races on a problem that is made up already; for the rest as `race` says.

    Args:
      problem: what is raced on.
      field: who races.
      seeds: how many, counted from 0, or which.
      epochs: how many epochs are trained.
      target: the accuracy or loss to be reached. Default: none.
      out: a folder for the results. Default: no file.
      overwrite: whether a race in the folder may be lost. Default: no.
      lines: whether a line is printed for each optimizer where no bar can be shown. Default: no.

    Raises:
      TrainingError: an optimizer cannot train this, or something else is not right.
    """
    numbers = _seeds(seeds)
    if not (isinstance(epochs, int) and epochs >= 1):
        raise TrainingError(f"race: epochs must be a whole number, at least 1, got {epochs!r}")
    config = {**problem.config, "epochs": epochs, "seeds": numbers}
    record = None if out is None else Record(out, config)
    held = record.begin(overwrite) if record else []
    _check_rates(field, held, record)
    known = {row.optimizer for row in held}
    waiting = [entrant for entrant in field if entrant.name not in known]

    found = {name: [row for row in held if row.optimizer == name] for name in known}
    with display(epochs * len(numbers) * len(waiting), lines) as shown:
        shown.say(
            f"{problem.title or 'race'}: {epochs} epochs of {problem.steps} steps, "
            f"{len(numbers)} seeds"
        )
        for name in (entrant.name for entrant in field if entrant.name in known):
            shown.say(f"{name}: finished earlier")
        if waiting:
            start = jax.jit(make_start(problem))(jnp.asarray(numbers, jnp.int32), problem.data)
            # All are traced before any runs: what cannot work is heard of at once.
            grids = [_Grid(entrant, problem, start, epochs, shown) for entrant in waiting]
            for grid in grids:
                found[grid.entrant.name] = grid.run(numbers)
                if record:
                    record.save([row for rows in found.values() for row in rows])
    order = dict.fromkeys([*(entrant.name for entrant in field), *(row.optimizer for row in held)])
    return Race(tuple(row for name in order for row in found[name]), target, problem.title)


class _Grid:
    """An entrant's grid, traced, and to be run once."""

    def __init__(
        self, entrant: Entrant, problem: Problem, start: Start, epochs: int, shown: Display
    ) -> None:
        self.entrant, self.problem, self.start, self.shown = entrant, problem, start, shown
        self.steps = tuple(problem.steps * epoch for epoch in range(epochs + 1))
        shown.step(entrant.name, "tracing")
        began = time.perf_counter()
        grid = make_grid(problem, entrant.make, epochs, self._on_epoch if shown.live else None)
        self.arguments = (jnp.asarray(entrant.rates, default_float()), start, problem.data)
        try:
            self.traced = jax.jit(grid).trace(*self.arguments)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"race: {entrant.name} cannot train this: {error}") from error
        self.tracing = time.perf_counter() - began

    def _on_epoch(self, losses: Any) -> None:
        self.shown.step(self.entrant.name, f"best loss {np.min(losses):.3g}", 1)

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
            f"{name}: {runs} runs, {len(rates)} rates from {rates[0]:.3g} to {rates[-1]:.3g}, in "
            f"{training:.2f} s and {compiling:.2f} s for compilation"
        )

        def curve(first: Any, later: Any, i: int, j: int) -> tuple[float, ...]:
            return (float(first[i]), *(float(x) for x in np.asarray(later)[i, :, j]))

        first = self.start.curves
        return [
            Row(
                name,
                rate,
                seed,
                self.steps,
                curve(first.loss, curves.loss, i, j),
                None if curves.accuracy is None else curve(first.accuracy, curves.accuracy, i, j),
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
            "race: seeds must be a number of seeds, at least 1, or different whole numbers from 0 "
            f"to 2147483647, got {seeds!r}"
        )
    return [int(s) for s in numbers]


def _check_rates(field: Sequence[Entrant], held: Sequence[Row], record: Record | None) -> None:
    """What is finished is not run again, so it must be what is asked for."""
    for entrant in field:
        rates = sorted({r.learning_rate for r in held if r.optimizer == entrant.name})
        if record and rates and rates != list(entrant.rates):
            raise TrainingError(
                f"{record.path} holds {entrant.name} with the learning rates {rates}, now "
                f"{list(entrant.rates)}: give those, another name, or another folder"
            )
