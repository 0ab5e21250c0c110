"""Speed of SOAP and Shampoo: stacks of matrices in gradtx, single leaves in PyTorch, in one run.

    python benchmarks/matrices.py [--width 64] [--packages FOLDER]
    python benchmarks/matrices.py --compile-only [NAME ...]   # all methods of the catalog

The parameters are the 48 matrices, of 4 shapes, of a transformer with 12 layers. Bases and roots
are computed every 10 steps, and a step's time is the mean of 10 consecutive ones. Five sets of
gradients take turns, so that the second moments of the longer sides have full rank. The programs in
PyTorch are those of pytorch-optimizer and heavyball, if they can be imported; FOLDER is a
site-packages folder to look for them.

LAPACK runs on one thread, because OpenBLAS's threads wait in loops, and take a hundred times longer
if other programs use the same cores.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when JAX is imported

import argparse
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import machine, report, side_by_side, timed
from speed import transformer

import gradtx
from gradtx.linear_algebra.eigenbases import next_eigenbases

EVERY = 10
METHODS: dict[str, Callable[[], Any]] = {
    "SOAP": lambda: gradtx.soap(1e-3, precondition_frequency=EVERY),
    "SOAP, staggered": lambda: gradtx.soap(1e-3, precondition_frequency=EVERY, stagger=True),
    "Shampoo": lambda: gradtx.shampoo(1e-3, precondition_frequency=EVERY),
    "AdamW": lambda: gradtx.adamw(1e-3),
}


def matrices(width: int, layers: int = 12, seed: int = 0) -> list[np.ndarray]:
    """Returns the matrices, with random elements."""
    random = np.random.default_rng(seed)
    shapes = [x.shape for x in jax.tree.leaves(transformer(layers, width)) if x.ndim == 2]
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def lowered(tx: Any, params: list[jax.Array], state: Any) -> Any:
    """Returns the lowered training step: update and apply."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)).trace(params, state, params).lower()


def of_the_catalog() -> dict[str, Callable[[], Any]]:
    """Returns the optimizers that act on matrices, with their defaults, AdamW, and optax's Muon."""
    found: dict[str, Callable[[], Any]] = {
        entry.name: lambda entry=entry: entry.factory(1e-3)
        for entry in gradtx.catalog.entries()
        if entry.acts_on == "matrices" or entry.name == "adamw"
    }
    try:
        from optax import contrib
    except ImportError:
        return found
    return found | {"optax_muon": lambda: contrib.muon(1e-3)}


def moved(params: list[jax.Array], state: Any, grads: list[jax.Array]) -> Any:
    """Joins the parameters and the matrices of a state to stacks, and cuts them out again.

    These are the inputs and outputs of a step, without slots that are a vector for each matrix. No
    method that computes on stacks can have less to be compiled for its leaves. One addition to each
    stack stands for what is computed.
    """

    def rule(x: jax.Array, *_: Any) -> tuple[jax.Array, Any]:
        return x + 1, gradtx.Slots()

    leaves, treedef = jax.tree.flatten((params, state))
    where = [i for i, x in enumerate(leaves) if x.ndim >= 2 and x.dtype == jnp.float32]
    tables = [leaves[i].reshape(leaves[i].shape[-2:]) for i in where]
    tx = gradtx.matrixwise(gradtx.EmptyState, None, rule)
    found, _ = tx.update(tables, tx.init(tables))
    for i, x in zip(where, found, strict=True):
        leaves[i] = x.reshape(leaves[i].shape)
    params, state = treedef.unflatten(leaves)
    return gradtx.apply_updates(params, grads), state


def compilation(width: int, methods: dict[str, Callable[[], Any]]) -> None:
    """Prints CPU seconds to trace and compile, for two numbers of layers, and LAPACK's calls.

    The last line is how much more 48 layers take to compile than 12, for the method, and for its
    inputs and outputs alone.
    """
    for name, make in methods.items():
        print(f"  {name}")
        taken, taken_alone = [], []
        for layers in (12, 48):
            params = [jnp.asarray(x) for x in matrices(width, layers)]
            tx = make()
            state = jax.jit(tx.init)(params)
            jax.clear_caches()
            start = time.process_time()
            low = lowered(tx, params, state)
            middle = time.process_time()
            compiled = low.compile()
            end = time.process_time()
            calls = Counter(re.findall(r'custom_call_target="(\w+)"', compiled.as_text()))
            print(
                f"    {layers} layers: trace + lower {middle - start:.2f} s, compile "
                f"{end - middle:.2f} s, calls {dict(calls)}"
            )
            taken.append(end - middle)
            alone = jax.jit(moved, donate_argnums=(0, 1)).lower(params, state, params)
            start = time.process_time()
            alone.compile()
            taken_alone.append(time.process_time() - start)
        more, more_alone = taken[1] - taken[0], taken_alone[1] - taken_alone[0]
        print(f"    more: {more:.2f} s, inputs and outputs alone {more_alone:.2f} s", flush=True)


def ours(make: Callable[[], Any], grads: list[list[np.ndarray]]) -> Callable[[], float]:
    """Returns a function that takes 10 steps in JAX and returns the mean seconds of one."""
    tx, given = make(), itertools.cycle([[jnp.asarray(x) for x in some] for some in grads])
    params = [jnp.asarray(x) for x in grads[0]]
    carry = [params, jax.jit(tx.init)(params)]
    compiled = lowered(tx, *carry).compile()

    def once() -> object:
        carry[:] = compiled(*carry, next(given))
        return carry[0]

    return lambda: timed(once, EVERY)


def linear_algebra(grads: list[np.ndarray], bases: bool) -> Callable[[], float]:
    """Returns a function that times the linear algebra of SOAP alone, the mean of 10 steps.

    No program of stacks in XLA can take a step in less. The matrices are stacked; there are three
    rotations into or out of both bases, and two second moments.

    Args:
      grads: the gradients.
      bases: whether the bases are computed at one of the steps, by one power iteration.
    """
    shapes = Counter(x.shape if x.shape[0] < x.shape[1] else x.shape[::-1] for x in grads)
    random = np.random.default_rng(0)

    def stack(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    stacks = [
        (stack(n, rows, rows), stack(n, rows, columns), stack(n, columns, columns))
        for (rows, columns), n in shapes.items()
    ]

    @jax.jit
    def step(stacks: list[tuple[jax.Array, ...]]) -> list[jax.Array]:
        found = []
        for ql, g, qr in stacks:
            into = [ql.mT @ x @ qr for x in (g, g + 1)]
            found += [ql @ (into[0] * into[1]) @ qr.mT, g @ g.mT, g.mT @ g]
        return found

    @jax.jit
    def rotate(stacks: list[tuple[jax.Array, ...]]) -> list[jax.Array]:
        return [next_eigenbases(q @ q.mT, q).vectors for ql, _, qr in stacks for q in (ql, qr)]

    def steps() -> float:
        turn = itertools.count()

        def once() -> object:
            due = bases and next(turn) % EVERY == 0
            return step(stacks), rotate(stacks) if due else None

        return timed(once, EVERY)

    return steps


def theirs(grads: list[list[np.ndarray]]) -> dict[str, Callable[[], float]]:
    """Returns the same for the programs in PyTorch that can be imported."""
    found: dict[str, Callable[[list], Any]] = {}
    try:
        import torch
    except ImportError:
        return {}
    try:
        import pytorch_optimizer as po

        found["pytorch-optimizer SOAP"] = lambda p: po.SOAP(p, precondition_frequency=EVERY)
        found["pytorch-optimizer Shampoo"] = lambda p: po.ScalableShampoo(
            p, preconditioning_compute_steps=EVERY, start_preconditioning_step=1
        )
    except ImportError:
        pass
    try:
        import heavyball

        found["heavyball SOAP"] = lambda p: heavyball.SOAP(p, precondition_frequency=EVERY)
    except ImportError:
        pass

    def runner(make: Callable[[list], Any]) -> Callable[[], float]:
        params = [torch.nn.Parameter(torch.tensor(x)) for x in grads[0]]
        optimizer, given = make(params), itertools.cycle(grads)

        def steps() -> float:
            def once() -> int:
                for p, g in zip(params, next(given), strict=True):
                    p.grad = torch.from_numpy(g)
                optimizer.step()
                return 0

            return timed(once, EVERY)

        return steps

    return {name: runner(make) for name, make in found.items()}


def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--packages", help="a site-packages folder with PyTorch's programs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps-only", action="store_true", help="do not time compilation")
    parser.add_argument(
        "--compile-only", nargs="*", metavar="NAME", help="time compilation, of the whole catalog"
    )
    options = parser.parse_args()
    if options.packages:
        sys.path.append(options.packages)
    print(machine("jax", "gradtx", "numpy", "torch", "pytorch_optimizer", "heavyball"))
    for width in options.width:
        print(f"\nwidth {width}")
        if options.compile_only is not None:
            known = of_the_catalog()
            compilation(width, {name: known[name] for name in options.compile_only or known})
            continue
        if not options.steps_only:
            compilation(width, METHODS)
        grads = [matrices(width, seed=seed) for seed in range(5)]
        runs = {name: ours(make, grads) for name, make in METHODS.items()} | theirs(grads)
        runs["SOAP's products alone, XLA"] = linear_algebra(grads[0], bases=False)
        runs["SOAP's products and bases alone, XLA"] = linear_algebra(grads[0], bases=True)
        against = "pytorch-optimizer SOAP" if "pytorch-optimizer SOAP" in runs else "SOAP"
        found = side_by_side(runs, options.rounds)
        report(f"mean step, width {width}", found, against, "at most 0.5")


if __name__ == "__main__":
    main()
