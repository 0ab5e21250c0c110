"""Speed of AdamW: gradtx against optax, PyTorch and the memory-copy limit, in one run.

    python benchmarks/speed.py [CASE ...]

To add a case, decorate a function with `@case`.
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from harness import machine, parser, report, side_by_side, timed

import gradtx

LIBRARIES = {
    "optax": (optax.adamw(1e-3), optax.apply_updates),
    "gradtx": (gradtx.adamw(1e-3), gradtx.apply_updates),
}
CASES: dict[str, Callable[[], None]] = {}


def case(function: Callable[[], None]) -> Callable[[], None]:
    """Registers a function as one of the cases."""
    CASES[function.__name__] = function
    return function


def transformer(layers: int = 12, width: int = 64) -> dict:
    """Returns the parameters of a transformer's layers: 144 leaves by default."""

    def layer() -> dict:
        return {
            "attention": {
                "qkv": jnp.ones((width, 3 * width)),
                "qkv_bias": jnp.zeros(3 * width),
                "out": jnp.ones((width, width)),
                "out_bias": jnp.zeros(width),
            },
            "mlp": {
                "up": jnp.ones((width, 4 * width)),
                "up_bias": jnp.zeros(4 * width),
                "down": jnp.ones((4 * width, width)),
                "down_bias": jnp.zeros(width),
            },
            "norm1": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
            "norm2": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        }

    return {f"layer{i}": layer() for i in range(layers)}


def step_of(name: str) -> Callable:
    """Returns the training step of a library: update and apply."""
    tx, apply = LIBRARIES[name]

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return apply(params, updates), state

    return step


@case
def trace_and_lower() -> None:
    """Tracing and lowering a step, with empty and with full JAX caches."""
    params = transformer()
    states = {name: tx.init(params) for name, (tx, _) in LIBRARIES.items()}

    def run(name: str, cold: bool) -> float:
        if cold:
            jax.clear_caches()
        step = step_of(name)
        return timed(lambda: jax.jit(step).trace(params, states[name], params).lower() and 0)

    for cold in (True, False):
        found = side_by_side({name: lambda n=name, c=cold: run(n, c) for name in LIBRARIES}, 21)
        report(
            f"trace + lower, {len(jax.tree.leaves(params))} leaves, caches "
            + ("empty" if cold else "full"),
            found,
            "optax",
            "at most 0.333" if cold else "",
        )


@case
def eager_step() -> None:
    """One step outside of jit: update and apply."""
    params = transformer()
    runs = {}
    for name, (tx, _) in LIBRARIES.items():
        state, step = tx.init(params), step_of(name)
        runs[name] = lambda s=state, f=step: timed(lambda: f(params, s, params), 20)
    report("un-jitted step, 144 leaves", side_by_side(runs, 21, warm=2), "optax", "at most 0.1")


def _jitted(name: str, params: dict) -> Callable[[], float]:
    tx, _ = LIBRARIES[name]
    compiled = jax.jit(step_of(name), donate_argnums=(0, 1))
    grads = jax.tree.map(lambda x: 0.1 * x, params)
    carry = [jax.tree.map(jnp.copy, params), tx.init(params)]

    def once() -> object:
        carry[:] = compiled(*carry, grads)
        return carry[0]

    return lambda: timed(once, 20)


@case
def jitted_step_small() -> None:
    """A jitted step over many small leaves, buffers donated."""
    params = transformer()
    runs = {name: _jitted(name, params) for name in LIBRARIES}
    report("jitted step, 144 small leaves", side_by_side(runs, 41), "optax", "at most 1")


@case
def jitted_step_large() -> None:
    """A jitted step over 32 million parameters in 8 leaves, and a copy of as many bytes."""
    params = {f"w{i}": jnp.ones((2048, 2048)) for i in range(8)}
    n = gradtx.tree.size(params)
    runs = {name: _jitted(name, params) for name in LIBRARIES}
    # In float32 AdamW reads 16 bytes per parameter and writes 12. Reading and writing 14 bytes in
    # place moves as many.
    buffer = [jnp.ones((14 * n // 4,), jnp.float32)]
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy_once() -> object:
        buffer[0] = copy(buffer[0])
        return buffer[0]

    runs["28 bytes/parameter in place"] = lambda: timed(copy_once, 5)
    try:
        runs["PyTorch (fused)"] = _torch_step(params)
    except ImportError:
        print("\nPyTorch is not installed; its row is left out")
    found = side_by_side(runs, 11)
    report(f"jitted step, {n / 1e6:.0f} million parameters", found, "optax", "at most 1")


def _torch_step(params: dict) -> Callable[[], float]:
    import torch

    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise ImportError("this PyTorch has no CUDA")
    device = "cuda" if on_gpu else "cpu"
    weights = [torch.nn.Parameter(torch.ones(x.shape, device=device)) for x in params.values()]
    for w in weights:
        w.grad = torch.full_like(w, 0.1)
    adamw = torch.optim.AdamW(weights, lr=1e-3, weight_decay=1e-4, fused=True)

    def step() -> None:
        adamw.step()
        if on_gpu:
            torch.cuda.synchronize()

    return lambda: timed(step, 5)


def main() -> None:
    """Runs the cases named on the command line, or all cases."""
    options = parser(__doc__)
    options.add_argument("cases", nargs="*", help=f"some of {', '.join(CASES)} (default: all)")
    chosen = options.parse_args().cases
    unknown = [name for name in chosen if name not in CASES]
    if unknown:
        sys.exit(f"no case is named {unknown[0]!r}; there are {', '.join(CASES)}")
    print(machine("jax", "optax", "gradtx", "numpy", "torch"))
    for name in chosen or CASES:
        CASES[name]()


if __name__ == "__main__":
    main()
