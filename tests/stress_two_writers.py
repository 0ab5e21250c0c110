"""Two writers of one file and of one folder: run `python tests/stress_two_writers.py` (a minute).

First, two processes save checkpoints to one path as fast as they can, while this one reads it.
Then two runs of `gradtx train` start in one folder again and again; the one that holds the lock is
killed, and the run is resumed to its end.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from small_data import write_small

from gradtx.train import CheckpointError, checkpoint

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
SAVES = 100

WRITER = f"""
import sys
import numpy as np
from gradtx.train import checkpoint
failed = 0
for i in range({SAVES}):
    try:
        checkpoint.save(sys.argv[1], {{"w": np.full(200_000, int(sys.argv[2]))}}, {{"save": i}})
    except OSError:
        failed += 1
sys.exit(failed)
"""


def start(*command, **more):
    return subprocess.Popen([sys.executable, *map(str, command)], env=ENVIRONMENT, **more)


def of_one_file(folder):
    """Returns how many saves failed, and of how many reads how many found a damaged file."""
    path, reads, damaged = folder / "checkpoint.npz", 0, 0
    checkpoint.save(path, {"w": np.zeros(200_000, int)}, {"save": 0})
    writers = [start("-c", WRITER, path, number) for number in (1, 2)]
    while reads < SAVES or any(writer.poll() is None for writer in writers):
        reads += 1
        try:
            checkpoint.read_extra(path)
        except CheckpointError as error:
            damaged += 1
            print(error)
    failed = sum(writer.wait() for writer in writers)
    left = [p.name for p in folder.iterdir() if p != path]
    print(f"{2 * SAVES} saves, {failed} failed; {reads} reads, {damaged} damaged; left: {left}")
    return failed + damaged + len(left)


def of_one_folder(folder, rounds=3):
    """Returns how many of the rounds did not end with one run, whole after a kill."""
    options = ("--data", write_small(folder), "--model", "softmax", "--batch", 16, "--epochs", 60)
    whole, shared, wrong = folder / "whole", folder / "shared", 0
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    train = ("-m", "gradtx", "train", *options)
    assert start(*train, "--out", whole, **quiet).wait() == 0
    for _ in range(rounds):
        shutil.rmtree(shared, ignore_errors=True)
        runs = [start(*train, "--epochs", 10**6, "--out", shared, **quiet) for _ in range(2)]
        while all(run.poll() is None for run in runs):
            time.sleep(0.05)
        loser, winner = sorted(runs, key=lambda run: run.poll() is None)
        words = loser.stderr.read()
        print(loser.returncode, words.strip())
        refused = loser.returncode == 2 and f"process {winner.pid} on" in words
        while not (shared / "metrics.jsonl").exists():
            time.sleep(0.05)
        winner.send_signal(signal.SIGKILL)
        winner.wait()
        shutil.rmtree(shared)
        run = start(*train, "--out", shared, **quiet)
        while not (shared / "metrics.jsonl").exists():
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        code = start("-m", "gradtx", "train", "--resume", "--out", shared, **quiet).wait()
        same = leaves(shared) == leaves(whole)
        files = {p.name for p in shared.iterdir()}
        print(f"refused: {refused}, resumed with {code}, the same bits: {same}, files: {files}")
        wrong += not (refused and code == 0 and same and len(files) == 3)
    return wrong


def leaves(folder):
    with np.load(folder / "checkpoint.npz") as file:
        return {name: file[name].tobytes() for name in file.files if name != "header"}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "file").mkdir()
        sys.exit(of_one_file(Path(name) / "file") + of_one_folder(Path(name)))
