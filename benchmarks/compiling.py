"""Tracing and compile times of all optimizers and wrappers, against optax's of the same names.

The subjects are the optimizers of the catalog, the wrappers, and the transformations that depend on
the whole pytree or on whole leaves; `first_use.py catalog` prints the times.
"""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from speed import transformer

import gradtx

LEAVES_OF_A_LAYER = 12


class Names:
    """The names of a library, from its top level or its `contrib`."""

    def __init__(self, library: Any):
        self._places = (library.contrib, library)

    def __getattr__(self, name: str) -> Any:
        for place in self._places:
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(name)


LIBRARIES = {"gradtx": Names(gradtx), "optax": Names(optax)}


def _norm(tree: Any) -> Any:
    return jnp.sqrt(sum(jnp.sum(x * x) for x in jax.tree.leaves(tree)))


def _every_other(tree: Any) -> Any:
    return [i % 2 == 0 for i, _ in enumerate(tree)]


def _labels(tree: Any) -> Any:
    return ["ab"[i % 2] for i, _ in enumerate(tree)]


# The factories of subjects, as functions of either library's names.
BESIDE_THE_CATALOG: dict[str, Callable[[Any], Any]] = {
    "clip + adamw + schedule": lambda of: of.chain(
        of.clip_by_global_norm(1.0),
        of.adamw(of.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)),
    ),
    "adamw + schedule": lambda of: of.adamw(of.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)),
    "adaptive_grad_clip": lambda of: of.adaptive_grad_clip(0.1),
    "add_noise": lambda of: of.add_noise(0.1, 0.5, key=0),
    "apply_every": lambda of: of.apply_every(2),
    "apply_if_finite": lambda of: of.apply_if_finite(of.adam(1e-3), 3),
    "centralize": lambda of: of.centralize(),
    "clip": lambda of: of.clip(1.0),
    "clip_by_block_rms": lambda of: of.clip_by_block_rms(1.0),
    "clip_by_global_norm": lambda of: of.clip_by_global_norm(1.0),
    "conditionally_mask": lambda of: of.conditionally_mask(of.adam(1e-3), lambda step: step < 9),
    "conditionally_transform": lambda of: of.conditionally_transform(
        of.adam(1e-3), lambda step: step < 9
    ),
    "counted": lambda of: of.counted(of.clip_by_global_norm(1.0)),
    "dpsgd": lambda of: of.dpsgd(0.1, 1.0, 0.1, seed=0),
    "ema": lambda of: of.ema(0.9),
    "flatten": lambda of: of.flatten(of.adam(1e-3)),
    "freeze": lambda of: of.freeze(True),
    "hutchinson_estimator_diag_hessian": lambda of: of.hutchinson_estimator_diag_hessian(),
    "inject_hyperparams": lambda of: of.inject_hyperparams(of.adamw)(1e-3),
    "keep_params_nonnegative": lambda of: of.keep_params_nonnegative(),
    "layerwise_decay": lambda of: of.layerwise_decay(0.9, r"(\d)"),
    "lookahead": lambda of: of.lookahead(of.adam(1e-3), 5, 0.5),
    "masked": lambda of: of.masked(of.adam(1e-3), _every_other),
    "measure_with_ema": lambda of: of.monitor({"norm": of.measure_with_ema(_norm, 0.9)}),
    "mechanize": lambda of: of.mechanize(of.adam(1e-3)),
    "monitor": lambda of: of.monitor({"norm": _norm}),
    "MultiSteps": lambda of: of.MultiSteps(of.adam(1e-3), 2),
    "MultiSteps, clipped": lambda of: of.MultiSteps(
        of.chain(of.clip_by_global_norm(1.0), of.adam(1e-3)), 2
    ),
    "normalize": lambda of: of.normalize(),
    "normalize_by_update_norm": lambda of: of.normalize_by_update_norm(),
    "partition": lambda of: of.partition({"a": of.adam(1e-3), "b": of.sgd(1e-3)}, _labels),
    "reduce_on_plateau": lambda of: of.chain(of.adam(1e-3), of.reduce_on_plateau()),
    "sam": lambda of: of.sam(of.adam(1e-3), of.chain(of.normalize(), of.sgd(0.1))),
    "scale_by_backtracking_linesearch": lambda of: of.chain(
        of.sgd(1.0), of.scale_by_backtracking_linesearch(10)
    ),
    "scale_by_distance_over_gradients": lambda of: of.scale_by_distance_over_gradients(),
    "scale_by_param_block_norm": lambda of: of.scale_by_param_block_norm(),
    "scale_by_param_block_rms": lambda of: of.scale_by_param_block_rms(),
    "scale_by_trust_ratio": lambda of: of.scale_by_trust_ratio(),
    "scale_by_zoom_linesearch": lambda of: of.chain(of.sgd(1.0), of.scale_by_zoom_linesearch(10)),
    "schedule_free": lambda of: of.schedule_free(of.sgd(0.1), 0.1),
    "selective_transform": lambda of: of.selective_transform(of.adam(1e-3), freeze_mask=False),
    "snapshot": lambda of: of.snapshot("norm", _norm),
    "split_real_and_imaginary": lambda of: of.split_real_and_imaginary(of.adam(1e-3)),
    "trace": lambda of: of.trace(0.9),
    "watch": lambda of: of.watch(of.adam(1e-3)),
    "zero_nans": lambda of: of.zero_nans(),
}
PER_EXAMPLE = ("dpsgd",)
"""The subjects that receive the gradients of four examples, on a first axis."""
NEEDS: dict[str, tuple[str, ...]] = {
    "hutchinson_estimator_diag_hessian": ("obj_fn",),
    "reduce_on_plateau": ("value",),
    "scale_by_backtracking_linesearch": ("value", "grad", "value_fn"),
    "scale_by_zoom_linesearch": ("value", "grad", "value_fn"),
}
"""The extra arguments that subjects outside the catalog need."""


class Subject(NamedTuple):
    """A transformation to be compiled.

    Attributes:
      name: its name.
      make: its factory, a function of a library's names; raises `AttributeError` if the library
        does not have it.
      needs: the extra arguments that it needs.
    """

    name: str
    make: Callable[[Any], Any]
    needs: tuple[str, ...] = ()


def subjects() -> Iterator[Subject]:
    """Yields all optimizers of the catalog, and then the other subjects."""
    for entry in gradtx.catalog.entries():
        yield Subject(
            entry.name,
            lambda of, entry=entry: getattr(of, entry.name)(**entry.probe),
            entry.needs,
        )
    for name, make in BESIDE_THE_CATALOG.items():
        yield Subject(name, make, NEEDS.get(name, ()))


def model(leaves: int, width: int = 16) -> list[jax.Array]:
    """Returns the first `leaves` leaves of a transformer's parameters."""
    layers = -(-leaves // LEAVES_OF_A_LAYER)
    return jax.tree.leaves(transformer(layers, width))[:leaves]


def _loss(params: Any) -> Any:
    return sum(jnp.sum(x * x) for x in jax.tree.leaves(params))


class Cost(NamedTuple):
    """The cost of a first jitted step, in seconds of processor time."""

    trace: float
    compile: float


def cost(subject: Subject, library: Any, leaves: int) -> Cost:
    """Measures the times to trace and lower, and to compile, a step with donated buffers.

    Args:
      subject: the subject.
      library: the names of one of the libraries.
      leaves: the number of leaves of the parameters.
    """
    tx = library.with_extra_args_support(subject.make(library))
    params: Any = model(leaves)
    grads = params
    if subject.name in PER_EXAMPLE:
        grads = [jnp.stack([x] * 4) for x in params]
    if subject.name == "lookahead":
        params = library.LookaheadParams.init_synced(params)
    state = jax.eval_shape(tx.init, params)

    def step(params: Any, state: Any, grads: Any) -> Any:
        known = {"value": jnp.sum(grads[0]), "grad": grads, "value_fn": _loss, "obj_fn": _loss}
        extra = {name: known[name] for name in subject.needs}
        updates, state = tx.update(grads, state, params, **extra)
        return library.apply_updates(params, updates), state

    jax.clear_caches()
    gc.collect()
    start = time.process_time()
    lowered = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, grads).lower()
    middle = time.process_time()
    lowered.compile()
    return Cost(middle - start, time.process_time() - middle)


class Row(NamedTuple):
    """The costs of a subject at a number of leaves; `None` if a library lacks it or fails."""

    name: str
    leaves: int
    ours: Cost | None
    theirs: Cost | None
    told: str

    @property
    def ratio(self) -> Cost | None:
        """The ratio of our costs to theirs."""
        if self.ours is None or self.theirs is None:
            return None
        return Cost(*(a / b for a, b in zip(self.ours, self.theirs, strict=True)))

    def __str__(self) -> str:
        def laid_out(found: Cost | None, form: str) -> str:
            return "".join(f"{x:{form}}" for x in found) if found else 18 * " "

        costs = laid_out(self.ours, "9.3f") + " " + laid_out(self.theirs, "9.3f")
        return f"{self.name:<36}{self.leaves:>6}{costs} {laid_out(self.ratio, '9.2f')}  {self.told}"


HEADER = (
    f"{'':<36}{'leaves':>6}{'gradtx':>18} {'optax':>18} {'ratio':>18}\n"
    f"{'':<36}{'':>6}" + " ".join([f"{'trace':>9}{'compile':>9}"] * 3)
)


def measured(subject: Subject, leaves: int, repeats: int) -> Row:
    """Measures one subject in both libraries; returns the minimum of several repetitions."""
    found: dict[str, Cost | None] = {}
    told = []
    for name, library in LIBRARIES.items():
        found[name] = None
        try:
            tries = [cost(subject, library, leaves) for _ in range(repeats)]
            found[name] = Cost(*np.min(tries, axis=0))
        except AttributeError as error:
            told.append(f"{name} has no {error}")
        except Exception as error:  # a failure must not stop the others
            told.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:60]}")
    return Row(subject.name, leaves, found["gradtx"], found["optax"], "; ".join(told))


def walk(leaves: list[int], names: list[str], repeats: int) -> None:
    """Measures all subjects, and prints their costs at once and then sorted, worst first.

    Args:
      leaves: the numbers of leaves.
      names: the subjects to measure; if empty, all.
      repeats: the number of compilations of each.
    """
    chosen = [s for s in subjects() if not names or s.name in names]
    for n in leaves:
        measured(chosen[0], n, 1)  # the first in a process pays the common costs
        print(f"\n{n} leaves, seconds of processor time, as measured\n{HEADER}")
        rows = []
        for subject in chosen:
            rows.append(measured(subject, n, repeats))
            print(rows[-1], flush=True)
        print(f"\n{n} leaves, the worst ratio of compiling first\n{HEADER}")
        for row in sorted(rows, key=lambda r: -(r.ratio.compile if r.ratio else -1)):
            print(row)
