"""An optimizer's grid as one program, against single runs in a loop, side by side.

    python benchmarks/race.py [--epochs N] [--single N] [--rounds N]

The MLP on digits, Adam, 16 learning rates x 4 seeds. Three ways to compute the same 64 runs:

- `race`: the grid of `gradtx.race`. Two programs are compiled, the start and the grid.
- `fit in a loop`: `gradtx.train.fit` 64 times. Its epoch is jitted, and compiled once for each run,
  because each run has a different optimizer; so is the start.
- `compiled once`: the same epoch with the rate as an argument, compiled once for all runs. This is
  the best that a loop written by hand can do.

All times include tracing and compilation. JAX's caches are emptied before each of the three, and
nothing is cached on disk.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, report, side_by_side

import gradtx
from gradtx import train
from gradtx.racing import classification, make_grid, make_start, rate_range

RATES, SEEDS, BATCH = rate_range(1e-4, 0.1, 16), range(4), 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--single", type=int, default=64, help="number of single runs to measure")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    data, model = train.load(), train.mlp()
    problem = classification(model, data, BATCH)
    pairs = [(rate, seed) for rate in RATES for seed in SEEDS]
    # A subset that still covers the rates and the seeds.
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, args.single).astype(int)]
    found: dict[str, dict[tuple[float, int], float]] = {}

    def race() -> float:
        jax.clear_caches()
        began = time.perf_counter()
        start = jax.jit(make_start(problem))(jnp.array(SEEDS), problem.data)
        grid = jax.jit(make_grid(problem, gradtx.adam, args.epochs))
        losses = jax.block_until_ready(grid(jnp.array(RATES), start, problem.data)).loss
        seconds = time.perf_counter() - began
        final = np.asarray(losses)[:, -1]
        found["race"] = {(r, s): float(final[j, i]) for i, r in enumerate(RATES) for j, s in
                         enumerate(SEEDS)}  # fmt: skip
        return seconds

    def fit_in_a_loop() -> float:
        jax.clear_caches()
        began = time.perf_counter()
        found["fit in a loop"] = {
            (rate, seed): train.fit(
                model, data, gradtx.adam(rate), epochs=args.epochs, batch_size=BATCH, seed=seed
            )
            .history[-1]
            .train_loss
            for rate, seed in chosen
        }
        return (time.perf_counter() - began) * len(pairs) / len(chosen)

    def compiled_once() -> float:
        jax.clear_caches()
        began = time.perf_counter()
        start = jax.jit(make_start(problem))

        @jax.jit
        def begin(params, rate):
            return train.TrainState(params, gradtx.adam(rate).init(params))

        @jax.jit
        def epoch(state, rate, key, number, data):
            step = train.make_epoch(problem.loss, gradtx.adam(rate), BATCH)
            state, _ = step(state, jax.random.fold_in(key, number), data[0])
            return state, problem.measure(state.params, data)

        losses = {}
        for rate, seed in pairs:
            first = jax.tree.map(lambda x: x[0], start(jnp.array([seed]), problem.data))
            state = begin(first.params, rate)
            for number in range(args.epochs):
                state, measured = epoch(state, rate, first.shuffle, number, problem.data)
                losses[rate, seed] = float(measured[0])
        found["compiled once"] = losses
        return time.perf_counter() - began

    print(machine("jax", "jaxlib", "gradtx"))
    ways = {"race": race, "fit in a loop": fit_in_a_loop, "compiled once": compiled_once}
    seconds = side_by_side(ways, args.rounds, warm=0)
    title = f"{len(pairs)} runs of {args.epochs} epochs"
    if len(chosen) < len(pairs):
        title += f"; fit was timed on {len(chosen)} of them, and its time scaled up"
    report(title, seconds, "fit in a loop", "race at most 0.25")
    worst = max(
        abs(losses[run] / found["race"][run] - 1)
        for losses in (found["fit in a loop"], found["compiled once"])
        for run in losses
        if run[0] <= 0.01  # larger rates amplify rounding errors
    )
    print(f"  final losses differ by {worst:.1e} of their size at most (rates up to 0.01)")


if __name__ == "__main__":
    main()
