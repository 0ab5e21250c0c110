"""A transformer language model on a mesh of devices, in one process or several.

    python examples/sharded_transformer.py --processes 2 --devices-per-process 4 --mesh 2x4
    python examples/sharded_transformer.py --devices-per-process 8 --mesh 1x8 --resume

The first command starts itself twice on this computer, and the second goes on from its last
checkpoint in one process and on another mesh. The model predicts characters of Python's own help
texts. A mesh of 2x4 has the axes data = 2 and fsdp = 4: the batch is divided over both, and each
array of parameters and of the optimizer's state over fsdp, so that no device holds a whole one.

Started by hand on several computers, each gets the address of the first:
`--processes 2 --process 1 --coordinator host:port`.
"""

import argparse
import contextlib
import functools
import json
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec as P

import gradtx

TEXT = "\n".join(topics[name] for name in sorted(topics))
ALPHABET = sorted(set(TEXT))
TOKENS = np.searchsorted(ALPHABET, list(TEXT)).astype(np.int32)


def sizes(text):
    data, fsdp = map(int, text.split("x"))
    return data, fsdp


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--steps", type=int, default=200, help="of the whole run (default: 200)")
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--batch", type=int, default=32, help="number of sequences in a batch")
    parser.add_argument("--context", type=int, default=64, help="characters in a sequence")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/sharded_transformer"))
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--mesh", type=sizes, help="data x fsdp, such as 2x4 (default: 1 x all devices)"
    )
    parser.add_argument("--devices-per-process", type=int, help="virtual devices, on CPUs")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, help="the number of this one, started by hand")
    parser.add_argument("--coordinator", help="host:port of process 0")
    args = parser.parse_args()
    args.out = args.out.absolute()  # orbax takes no other paths
    if args.out.exists() and any(args.out.iterdir()) and not args.resume and args.process is None:
        parser.error(f"{args.out} has a run: go on with it (--resume), or choose another (--out)")
    return args


# ---- The model: parameters are a dict of arrays, the forward pass is a function -----------------


def init(key, args):
    """Returns the parameters."""

    def matrix(rows, columns):
        nonlocal key
        key, now = jax.random.split(key)
        return jax.random.normal(now, (rows, columns)) / math.sqrt(rows)

    d = args.width
    return {
        "embedding": {"token": matrix(len(ALPHABET), d), "position": matrix(args.context, d)},
        "blocks": [
            {
                "attention": {"norm": jnp.ones(d), "qkv": matrix(d, 3 * d), "out": matrix(d, d)},
                "mlp": {"norm": jnp.ones(d), "up": matrix(d, 4 * d), "down": matrix(4 * d, d)},
            }
            for _ in range(args.layers)
        ],
        "head": {"norm": jnp.ones(d), "logits": matrix(d, len(ALPHABET))},
    }


def normalized(x, scale):
    return scale * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def attention(p, x, heads=4):
    batch, length, width = x.shape
    qkv = (normalized(x, p["norm"]) @ p["qkv"]).reshape(batch, length, 3, heads, width // heads)
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return mixed.reshape(batch, length, width) @ p["out"]


def mlp(p, x):
    return jax.nn.gelu(normalized(x, p["norm"]) @ p["up"]) @ p["down"]


def loss(params, tokens, divided):
    """Returns the mean cross entropy of each character after those before it.

    Args:
      params: the parameters.
      tokens: sequences of characters' numbers, `[batch, context + 1]`.
      divided: the sharding of the batch. The compiler could place everything in between by itself;
        it moves the least when it is told to leave activations where their sequences are, and to
        gather the parameters of a block when they are used.
    """
    stay = functools.partial(jax.lax.with_sharding_constraint, shardings=divided)
    gathered = functools.partial(
        jax.lax.with_sharding_constraint, shardings=NamedSharding(divided.mesh, P())
    )
    seen, next_ones = tokens[:, :-1], tokens[:, 1:]
    embedding, head = gathered(params["embedding"]), gathered(params["head"])
    x = stay(embedding["token"][seen] + embedding["position"])
    for block in map(gathered, params["blocks"]):
        x = stay(x + attention(block["attention"], x))
        x = stay(x + mlp(block["mlp"], x))
    logits = normalized(x, head["norm"]) @ head["logits"]
    return gradtx.softmax_cross_entropy_with_integer_labels(logits, next_ones).mean()


# ---- The optimizer, and the shardings -----------------------------------------------------------


def optimizer(args):
    peak = {"adamw": 3e-3, "muon": 1e-2}[args.optimizer]
    warmup = max(args.steps // 10, 1)
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, peak, warmup, args.steps)
    if args.optimizer == "muon":  # for the matrices of the blocks, and AdamW for the rest
        matrix = gradtx.contrib.MuonDimensionNumbers()
        inner = gradtx.by_path({"blocks/*/norm": None, "blocks": matrix}, None)
        tx = gradtx.contrib.muon(schedule, muon_weight_dimension_numbers=inner)
    else:
        tx = gradtx.adamw(schedule, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
    return gradtx.watch(gradtx.chain(gradtx.clip_by_global_norm(1.0), tx))


def sharding_of(leaf, mesh):
    """Returns the sharding of a parameter: its longest axis that divides, over fsdp."""
    fits = [axis for axis, size in enumerate(leaf.shape) if size % mesh.shape["fsdp"] == 0]
    longest = max(fits, key=lambda axis: leaf.shape[axis], default=None)
    return NamedSharding(mesh, P(*("fsdp" if i == longest else None for i in range(leaf.ndim))))


def typed(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


# ---- Training -----------------------------------------------------------------------------------


def batch_of(step, args, divided):
    """Returns the batch of a step.

    It depends on the seed and the step and on nothing else, so that a resumed run sees the same
    ones, with however many processes. Each process makes only the rows of its own devices.
    """
    starts = np.random.default_rng([args.seed, step]).integers(
        len(TOKENS) - args.context, size=(args.batch, 1)
    )
    index = starts + np.arange(args.context + 1)
    return jax.make_array_from_callback(index.shape, divided, lambda part: TOKENS[index[part]])


def train(args):
    devices = jax.device_count()
    data, fsdp = args.mesh or (1, devices)
    if data * fsdp != devices:
        return f"--mesh {data}x{fsdp} must have as many places as there are devices, {devices}"
    if args.batch % devices:
        return f"--batch {args.batch} must be a multiple of {devices}, the number of devices"
    types = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=types)
    divided, whole = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P())
    say = print if jax.process_index() == 0 else lambda *_, **__: None

    # Shapes first: the shardings are known before anything is allocated. With `shard`, Muon divides
    # its matrices over the devices, and every optimizer's state is sharded like the parameters.
    shapes = jax.eval_shape(lambda: init(jax.random.key(args.seed), args))
    of_params = jax.tree.map(lambda leaf: sharding_of(leaf, mesh), shapes)
    types = jax.tree.map(typed, shapes, of_params)
    tx = gradtx.shard(optimizer(args), types)
    shardings = {"params": of_params, "state": gradtx.state_sharding(tx, types)}
    say(gradtx.summary(tx, types))

    # Jitted with its shardings, so that no device ever holds more than its part.
    @functools.partial(jax.jit, out_shardings=shardings)
    def begin(key):
        params = init(key, args)
        return {"params": params, "state": tx.init(params)}

    @functools.partial(jax.jit, out_shardings=(shardings, whole), donate_argnums=0)
    def step(at, tokens):
        value, grads = jax.value_and_grad(loss)(at["params"], tokens, divided)
        updates, state = tx.update(grads, at["state"], at["params"])
        return {"params": gradtx.apply_updates(at["params"], updates), "state": state}, value

    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(args.out / "checkpoints", options=options) as manager:
        done = manager.latest_step() or 0 if args.resume else 0
        if done:  # orbax places each part where the shardings want it, whoever wrote it
            like = jax.tree.map(typed, jax.eval_shape(begin, jax.random.key(0)), shardings)
            at = manager.restore(done, args=ocp.args.StandardRestore(like))
        else:
            at = begin(jax.random.key(args.seed))
        say(f"{jax.process_count()} processes, {devices} devices, mesh data x fsdp = {data} x "
            f"{fsdp}, from step {done}", flush=True)  # fmt: skip

        file = args.out / "metrics.jsonl"
        if jax.process_index() == 0:  # without what a killed run wrote after its last checkpoint
            lines = file.read_text().splitlines(keepends=True) if done else []
            file.write_text("".join(lines[:done]))
        values, began = {}, time.perf_counter()
        for number in range(done + 1, args.steps + 1):
            at, values[number] = step(at, batch_of(number, args, divided))
            if number % args.every and number < args.steps:
                continue  # reading the loss would wait for the devices at every step
            lines = [json.dumps({"step": n, "loss": float(v)}) + "\n" for n, v in values.items()]
            if jax.process_index() == 0:
                with file.open("a") as out:
                    out.writelines(lines)
            manager.save(number, args=ocp.args.StandardSave(at))
            told = gradtx.hyperparams(at["state"]) | gradtx.metrics(at["state"])
            rate = next(x for name, x in told.items() if name.endswith("learning_rate"))
            seconds = (time.perf_counter() - began) / len(values)
            say(f"step {number}: loss {values[number]:.4f}, rate {rate:.2e}, gradient norm "
                f"{told['gradient_norm']:.3f}, {seconds:.3f} s a step", flush=True)  # fmt: skip
            values, began = {}, time.perf_counter()
    return 0


# ---- Processes ----------------------------------------------------------------------------------


def start_all(args):
    """Starts the processes on this computer; stops all of them if one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, *sys.argv, "--coordinator", address, "--process"]
    children = [subprocess.Popen([*command, str(i)]) for i in range(args.processes)]
    try:
        while None in (codes := [child.poll() for child in children]) and not any(codes):
            time.sleep(0.1)
    finally:  # one alone would wait for the other for ever
        for child in children:
            child.kill()
            child.wait()
    failed = [f"process {i} ended with exit code {code}" for i, code in enumerate(codes) if code]
    return f"{', '.join(failed)}; all were stopped" if failed else 0


def main():
    args = arguments()
    if args.processes > 1 and args.process is None:
        return start_all(args)
    if args.devices_per_process:
        jax.config.update("jax_num_cpu_devices", args.devices_per_process)
    if args.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")  # no effect on accelerators
        jax.distributed.initialize(args.coordinator, args.processes, args.process)
    # gloo prints each of its connections to file 1, the standard output; our lines go around it.
    with os.fdopen(os.dup(1), "w") as out, contextlib.redirect_stdout(out):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return train(args)


if __name__ == "__main__":
    sys.exit(main())
