"""Several processes: the example's runs, states that no process has whole, saving and loading."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "sharded_transformer.py"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "PYTHONWARNINGS": "error",
}

pytestmark = pytest.mark.thorough

# ---- The example --------------------------------------------------------------------------------

SMALL = (
    *("--steps", "16", "--every", "4", "--batch", "8"),
    *("--context", "16", "--width", "16", "--layers", "1"),
)
ONE = ("--devices-per-process", "8")
TWO = ("--processes", "2", "--devices-per-process", "4")


def start(out, *arguments):
    """Starts the example in a session of its own, which can be killed as a whole."""
    command = [sys.executable, EXAMPLE, *SMALL, "--out", out, *arguments]
    return subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def ended(process):
    """Returns what a process printed, which has to be without errors and warnings."""
    out, err = process.communicate(timeout=300)
    lines = [line for line in err.splitlines() if "orbax-checkpoint-tmp" not in line]
    assert process.returncode == 0 and not lines, err  # orbax removes what a killed run left
    return out


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(1, 17)]
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Returns the losses of one process with 8 devices, by optimizer."""
    found = {}

    def of(optimizer):
        if optimizer not in found:
            out = tmp_path_factory.mktemp(optimizer)
            told = ended(start(out, *ONE, "--mesh", "2x4", "--optimizer", optimizer))
            assert "1 processes, 8 devices, mesh data x fsdp = 2 x 4, from step 0" in told
            found[optimizer] = losses(out)
            assert found[optimizer][-1] < found[optimizer][0] - 0.3
        return found[optimizer]

    return of


def test_two_processes_are_one_with_all_devices(uninterrupted, tmp_path):
    """To rounding: gloo and the collectives of one process add in different orders."""
    told = ended(start(tmp_path, *TWO, "--mesh", "2x4"))
    assert "2 processes, 8 devices, mesh data x fsdp = 2 x 4, from step 0" in told
    assert "Gloo" not in told and told.count("\nstep ") == 4
    np.testing.assert_allclose(losses(tmp_path), uninterrupted("adamw"), rtol=1e-6)


def killed_after_a_checkpoint(out, *arguments):
    process = start(out, *arguments)
    for _ in range(3000):
        if (out / "checkpoints" / "4").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "checkpoints" / "16").exists()


@pytest.mark.parametrize(
    ("optimizer", "first", "then"),
    [
        ("adamw", (*TWO, "--mesh", "2x4"), (*ONE, "--mesh", "1x8")),
        ("muon", ("--devices-per-process", "4", "--mesh", "4x1"), (*TWO, "--mesh", "4x2")),
    ],
)
def test_killed_and_resumed_elsewhere(uninterrupted, optimizer, first, then, tmp_path):
    """With another number of processes and devices and on another mesh, to rounding."""
    killed_after_a_checkpoint(tmp_path, *first, "--optimizer", optimizer)
    told = ended(start(tmp_path, *then, "--optimizer", optimizer, "--resume"))
    assert "from step 0" not in told
    np.testing.assert_allclose(losses(tmp_path), uninterrupted(optimizer), rtol=1e-6)


def test_a_process_that_fails_stops_the_others(tmp_path):
    process = start(tmp_path, *TWO, "--mesh", "2x3")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert "--mesh 2x3 must have as many places as there are devices, 8" in err
    assert "ended with exit code 1; all were stopped\n" in err and "Traceback" not in err


# ---- States -------------------------------------------------------------------------------------

START = """
import sys
import jax

address, number, folder = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, 2, int(number))
"""


def in_two_processes(program, folder):
    """Runs a program in two processes with two devices each; all of them must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", START + program, address]
    processes = [
        subprocess.Popen(
            [*command, str(i), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
        )
        for i in range(2)
    ]
    try:
        told = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(text.endswith("reached the end\n") for text in told), "\n".join(told)


# `w` is divided over all four devices; each process has half of it. The noise has a random key.
STATES = """
import jax.numpy as jnp, numpy as np, orbax.checkpoint as ocp
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding, PartitionSpec as P
import gradtx
from gradtx.train import checkpoint

mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
rows, columns, whole = (NamedSharding(mesh, P(*s)) for s in (("x",), (None, "x"), ()))
tx = gradtx.watch(
    gradtx.chain(
        gradtx.add_noise(0.1, 0.5, jax.random.key(3)),
        gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 10)),
    )
)
host = {"w": np.arange(32.0, dtype=np.float32).reshape(8, 4), "b": np.ones(3, np.float32)}

def placed(at):
    return jax.tree.map(
        lambda x, s: jax.make_array_from_callback(x.shape, s, lambda i: x[i]), host, at
    )

def shardings(at):
    of = {"w": at, "b": whole}
    state = jax.eval_shape(tx.init, host)
    roles = gradtx.state.roles(state, host)
    return of, jax.tree.map(lambda r: of[r.parameter] if r.kind == "slot" else whole, roles)

def shapes(at):
    of = shardings(at)[1]
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(tx.init, host), of,
    )

of_params, of_state = shardings(rows)
params = placed(of_params)
init = jax.jit(tx.init, out_shardings=of_state)
step = jax.jit(lambda s, p: tx.update(p, s, p)[1], out_shardings=of_state)
state = step(step(init(params), params), params)
w = next(x for name, x in gradtx.state_dict(state).items() if name.endswith("mu/w"))
assert not w.is_fully_addressable and not w.is_fully_replicated

# Read
told = {n: float(x) for n, x in gradtx.hyperparams(state).items()}
assert told["count"] == 2 and abs(told["learning_rate"] - 0.9) < 1e-6, told
norm = float(gradtx.metrics(state)["gradient_norm"])
np.testing.assert_allclose(norm, np.sqrt(sum(np.sum(x**2) for x in host.values())), rtol=1e-6)
divided, alone = (gradtx.summary(tx, x).total for x in (params, host))
assert divided.state_bytes == alone.state_bytes and not alone.device_bytes
own = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
assert divided.device_bytes == {"device": own} and own < sum(alone.state_bytes.values())

# Save and load
flat = gradtx.state_dict(state)
everything = {n: x if n == "version" else process_allgather(x, tiled=True) for n, x in flat.items()}
assert all(isinstance(x, np.ndarray) for x in everything.values())

def form(x):
    return x.shape, x.dtype, getattr(x, "weak_type", False)

def check(found, at=rows):
    for name, x in gradtx.state_dict(found).items():
        if name.endswith(("mu/w", "nu/w")):
            assert x.sharding.is_equivalent_to(at, 2), (name, x.sharding)
        if name != "version":
            for shard in x.addressable_shards:
                np.testing.assert_array_equal(shard.data, everything[name][shard.index])
    forms = [jax.tree.map(form, s) for s in (found, state)]
    assert forms[0] == forms[1]

check(gradtx.load_state_dict(init(params), flat))              # arrays over all processes
check(gradtx.load_state_dict(init(params), everything))        # whole ones of NumPy
local = {name: jnp.asarray(x) for name, x in everything.items()}
check(gradtx.load_state_dict(init(params), local))             # whole ones on a device
check(gradtx.load_state_dict(shapes(columns), flat), columns)  # another sharding, only shapes
check(gradtx.load_state_dict(shapes(columns), everything), columns)
check(gradtx.load_state_dict(jax.eval_shape(tx.init, host), flat))  # no sharding: they keep theirs
step(gradtx.load_state_dict(tx.init(params), flat), params)    # counts of this process alone

with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder + "/state", flat)
    checkpointer.wait_until_finished()
    read = checkpointer.restore(folder + "/state", gradtx.state_dict(shapes(columns)))
check(gradtx.load_state_dict(shapes(columns), read), columns)

# What one process cannot do
def refused(words, function, *arguments):
    try:
        function(*arguments)
    except ValueError as error:
        assert all(x in str(error) for x in (*words, "process_allgather")), error
    else:
        raise AssertionError(words)

alone = jax.device_put(tx.init(host), jax.local_devices()[0])
refused(("mu/w", "on devices of this process alone"), gradtx.load_state_dict, alone, flat)
of_numpy = jax.tree.map(
    lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), tx.init(host)
)
refused(("mu/w", "a ndarray"), gradtx.load_state_dict, of_numpy, flat)
refused(("checkpoint: w is divided",), checkpoint.save, folder + "/c.npz", params, {})
below = dict(everything) | {n: -x for n, x in flat.items() if n.endswith("adam/count")}
try:
    gradtx.load_state_dict(init(params), below)
except ValueError as error:
    assert "adam/count must be at least 0, got -2" in str(error), error
else:
    raise AssertionError("a negative count was loaded")
print("reached the end", flush=True)
"""


def test_states_that_no_process_has_whole(tmp_path):
    in_two_processes(STATES, tmp_path)
