"""`gradtx train` as a person uses it: its files, its words, and runs killed and resumed."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rich.console
from idx_files import upscaled_digits, write_mnist
from small_data import write_small

from gradtx import catalog
from gradtx.__main__ import main
from gradtx.train import SCHEDULES, Row, RunFolder, draw_curves, files, job, schedule_settings
from gradtx.train.report import display
from gradtx.train.settings import show

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "MPLBACKEND": "Agg",
}
FILES = {"checkpoint.npz", "metrics.jsonl", "curves.png"}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gradtx", "train", *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def train(*arguments):
    """Runs the command in this process."""
    return main(["train", *map(str, arguments)])


def small_run(data):
    return ("--data", data, "--model", "softmax", "--batch", 16)


@pytest.fixture
def data(tmp_path):
    return write_small(tmp_path)


@pytest.fixture
def small(data):
    return small_run(data)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def leaves(folder):
    with np.load(folder / "checkpoint.npz") as file:
        return {name: file[name].tobytes() for name in file.files if name != "header"}


def without_seconds(rows):
    return [{**row, "seconds": 0} for row in rows]


def test_what_the_command_needs_is_imported_when_it_is_needed():
    code = "import gradtx.train, sys; print({'rich', 'matplotlib', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert done.stdout.strip() == b"set()"


def test_a_run_leaves_its_files_and_plain_words(small, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(*small, "--epochs", 3, "--out", folder) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.isprintable() is False and "\x1b" not in out and "\r" not in out
    assert {p.name for p in folder.iterdir()} == FILES
    rows = metrics(folder)
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 4), (2, 8), (3, 12)]
    assert set(rows[0]) == {
        *("epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
        *("learning_rate", "seconds"),
    }
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    for words in (
        "60 training and 30 test examples of shape 4x4",
        "softmax: 51 parameters",
        "adam(learning_rate=0.001)",
        "3 epochs of 4 steps on 16 examples each, the last on 12",
        f"epoch 3/3  train {rows[-1]['train_loss']:.4f}",
        "final",
        "best",
    ):
        assert words in out


def test_a_run_is_not_lost_by_accident(small, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(*small, "--epochs", 1, "--out", folder) == 0
    before = (folder / "checkpoint.npz").read_bytes()
    assert train(*small, "--epochs", 1, "--out", folder) == 2
    assert "already has a run" in capsys.readouterr().err
    # Wrong settings are wrong in any folder.
    assert train(*small, "--set", "b1=3", "--out", folder) == 2
    err = capsys.readouterr().err
    assert err == "gradtx train: adam does not accept these settings: b1 must be in [0, 1), got 3\n"
    assert (folder / "checkpoint.npz").read_bytes() == before
    (folder / "mine.txt").write_text("stays")
    assert train(*small, "--epochs", 2, "--out", folder, "--overwrite") == 0
    assert len(metrics(folder)) == 2 and (folder / "mine.txt").exists()


def test_a_resumed_run_needs_no_options_and_may_be_longer(small, tmp_path, capsys):
    long, short = tmp_path / "long", tmp_path / "short"
    assert train(*small, "--epochs", 5, "--out", long, "--set", "b1=0.8") == 0
    assert train(*small, "--epochs", 2, "--out", short, "--set", "b1=0.8") == 0
    # As a kill between checkpoint and metrics leaves it: half a line, and one too few.
    text = (short / "metrics.jsonl").read_text()
    (short / "metrics.jsonl").write_text(text[: len(text) // 2 + 20])
    capsys.readouterr()
    assert train("--resume", "--epochs", 5, "--out", short) == 0
    out = capsys.readouterr().out
    assert "resumed    after epoch 2" in out
    assert re.search(r"since epoch 2: [\d.]+ s of training, [\d.]+ s in all; all epochs: ", out)
    assert leaves(short) == leaves(long)
    assert without_seconds(metrics(short)) == without_seconds(metrics(long))
    (short / "curves.png").unlink()
    assert "all epochs are trained" not in out
    assert train("--resume", "--out", short) == 0  # nothing left to train: files are made good
    assert "all epochs are trained; give a larger --epochs" in capsys.readouterr().out
    assert {p.name for p in short.iterdir()} == FILES


def test_resume_begins_a_run_only_if_it_knows_which(small, tmp_path, capsys):
    assert train("--resume", "--out", tmp_path / "none") == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert train(*small, "--epochs", 1, "--resume", "--out", tmp_path / "new") == 0


def begin(data, folder):
    more = ("--schedule", "cosine", "--epochs", 2)
    assert train(*small_run(data), *more, "--out", folder) == 0
    return folder


@pytest.fixture
def begun(data, tmp_path, capsys):
    folder = begin(data, tmp_path / "begun")
    capsys.readouterr()
    return folder


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """A run for tests that check that nothing in its folder changes."""
    folder = tmp_path_factory.mktemp("left alone")
    return begin(write_small(folder), folder / "begun")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", "8"), "--batch was 16, now 8"),
        (("--optimizer", "sgd", "--clip", "1"), "--optimizer was adam, now sgd; --clip was not gi"),
        (("--set", "b1=0.5"), "--set was not given, now {'b1': 0.5}"),
        (("--seed", "1"), "--seed was 0, now 1"),
        (("--epochs", "1"), "has trained 2 epochs, more than --epochs 1"),
        (("--epochs", "4"), "schedule cosine depends on the number of epochs: .* with --epochs 2"),
        (("--data", "digits"), "on other data: .*data.npz with fingerprint .*, now digits with"),
        (("--overwrite",), "--resume continues a run and --overwrite replaces it"),
    ],
)
def test_a_run_is_resumed_as_it_was_begun(left_alone, arguments, words, capsys):
    before = {p: p.read_bytes() for p in left_alone.iterdir()}
    assert train("--resume", "--out", left_alone, *arguments) == 2
    assert re.search(words, capsys.readouterr().err)
    assert before == {p: p.read_bytes() for p in left_alone.iterdir()}


def test_moved_data_are_the_same_data(begun, data, tmp_path):
    data.rename(tmp_path / "elsewhere.npz")
    assert train("--resume", "--out", begun) == 2
    assert train("--resume", "--out", begun, "--data", tmp_path / "elsewhere.npz") == 0


def test_a_damaged_checkpoint_is_named(begun, capsys):
    path = begun / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert train("--resume", "--out", begun) == 2
    assert f"{path}: damaged checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("how", [(), ("--resume",), ("--overwrite",)])
def test_two_runs_do_not_write_in_one_folder(small, tmp_path, capsys, how):
    folder = tmp_path / "run"
    with files.locked(folder, ()):
        assert train(*small, "--epochs", 1, "--out", folder, *how) == 2
        assert [p.name for p in folder.iterdir()] == [".lock"]
    out, err = capsys.readouterr()
    assert err.startswith(f"gradtx train: {folder}: another run writes in this folder, process ")
    assert err.count("\n") == 1 and "--resume" not in err and out == ""
    assert train(*small, "--epochs", 1, "--out", folder, *how) == 0
    assert {p.name for p in folder.iterdir()} == FILES


def test_a_run_that_another_one_overtook_is_not_begun(small, tmp_path, capsys, monkeypatch):
    """Another run has begun and ended in the folder while this one loaded its data."""
    folder, prepare = tmp_path / "run", job.prepare

    def prepare_slowly(options):
        monkeypatch.setattr(job, "prepare", prepare)
        assert train(*small, "--epochs", 2, "--out", folder) == 0
        return prepare(options)

    monkeypatch.setattr(job, "prepare", prepare_slowly)
    assert train(*small, "--epochs", 1, "--out", folder) == 2
    assert "already has a run" in capsys.readouterr().err
    assert len(metrics(folder)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "/nowhere"), "/nowhere: no such file or folder"),
        (("--optimizer", "adma"), "no optimizer is named 'adma'; did you mean 'adam', "),
        (("--model", "cnn"), "--model 'cnn' is not one of softmax, mlp, cnn-fc, cnn-gap"),
        (("--schedule", "cosines"), "--schedule 'cosines' is not one of .*did you mean 'cosine'"),
        (("--set", "b9=1"), "adam has no setting 'b9'.*; it has b1, b2, eps"),
        (("--set", "b1=x"), "adam's b1 must be a number"),
        (("--set", "b1"), "--set must be key=value, got 'b1'"),
        (("--schedule-set", "final=1"), "schedule constant has no setting 'final'"),
        (("--learning-rate", "fast"), "--learning-rate must be a number, got 'fast'"),
        (("--learning-rate", "-1"), "--learning-rate must be a positive number, got -1"),
        (("--learning-rate", "-1e-3"), "--learning-rate must be a positive number, got -0.001"),
        (("--batch", "61"), "--batch must be at most 60, the number of training examples, got 61"),
        (("--batch", "half"), "--batch must be a number or full, got 'half'"),
        (("--epochs", "1.5"), "--epochs must be an integer, got '1.5'"),
        (("--epochs", "0"), "--epochs must be an integer of at least 1, got 0"),
        (("--seed", "-3"), "--seed must be an integer from 0 to 2147483647, got -3"),
        (("--weight-decay", "-1"), "--weight-decay must be a number of at least 0"),
        (("--clip", "0"), "--clip must be a positive number, got 0"),
        (("--model", "cnn-gap", "--data", "FEATURES"), "the examples have shape .5,."),
        (("--out", "DATA"), "cannot create the folder"),
    ],
)
def test_bad_input_gets_one_message(small, data, tmp_path, arguments, words, capsys):
    np.savez(tmp_path / "features.npz", **dict.fromkeys(("x_train", "x_test"), np.ones((9, 5))),
             **dict.fromkeys(("y_train", "y_test"), np.arange(9)))  # fmt: skip
    places = {"FEATURES": tmp_path / "features.npz", "DATA": data}
    arguments = [places.get(a, a) for a in arguments]
    if "--batch" not in arguments and places["FEATURES"] in arguments:
        arguments += ["--batch", "full"]
    assert train(*small, "--out", tmp_path / "run", *arguments) == 2
    out, err = capsys.readouterr()
    assert re.search(words, err), err
    assert err.startswith("gradtx train: ") and err.count("\n") == 1 and out == ""
    assert not (tmp_path / "run").exists()


def test_divergence_stops_and_keeps_the_last_good_checkpoint(small, tmp_path, capsys):
    folder = tmp_path / "run"
    # An L2 penalty this strong multiplies the parameters by -1e9 at each step: finite for a while.
    hot = ("--optimizer", "sgd", "--learning-rate", "1e3", "--weight-decay", "1e6")
    assert train(*small, *hot, "--epochs", 9, "--out", folder) == 1
    err = capsys.readouterr().err
    assert "diverged at step 5, step 1 of 4 in epoch 2" in err
    assert "--resume --out" not in err  # as it is, it diverges again
    advice = f"gradtx train --resume --learning-rate 100 --out {folder}\n"
    assert (
        re.search(r"\(epoch 1, train loss \d.\d\de\+\d\d\)", err)
        and f"a tenth of the rate 1000:\n{advice}" in err
    )
    assert [row["epoch"] for row in metrics(folder)] == [1]
    assert {p.name for p in folder.iterdir()} == FILES
    assert train("--resume", "--out", folder) == 1
    assert "diverged at step 5, step 1 of 4 in epoch 2" in capsys.readouterr().err
    assert train("--resume", "--learning-rate", "100", "--out", folder) == 1
    assert "--resume --learning-rate 10 --out" in capsys.readouterr().err


def test_a_run_that_learns_nothing_is_remarked(small, tmp_path, capsys):
    remark = "is above that of equal probabilities"
    # Equal images with different labels, of which each step forgets those of the last one.
    x, y = np.ones((8, 4, 4), np.float32), np.arange(8) % 2
    np.savez(tmp_path / "equal.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    arguments = ("--model", "softmax", "--optimizer", "sgd", "--epochs", 2, "--batch", 3)
    equal = ("--data", tmp_path / "equal.npz")
    assert train(*arguments, *equal, "--learning-rate", "300", "--out", tmp_path / "far") == 0
    assert remark in capsys.readouterr().out
    assert metrics(tmp_path / "far")[-1]["train_loss"] > 3
    arguments = (*small, "--optimizer", "sgd", "--epochs", 2)
    assert train(*arguments, "--learning-rate", "0.1", "--out", tmp_path / "near") == 0
    assert remark not in capsys.readouterr().out


def test_a_run_is_resumed_at_another_rate(small, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(*small, "--epochs", 2, "--out", folder) == 0
    assert train("--resume", "--learning-rate", "0.1", "--out", folder) == 2  # no epoch is left
    assert "has trained 2 epochs, which is all" in capsys.readouterr().err
    assert train("--resume", "--learning-rate", "0.1", "--epochs", 3, "--out", folder) == 0
    out = capsys.readouterr().out
    assert "resumed    after epoch 2; peak rate 0.001 until epoch 2" in out
    assert "adam(learning_rate=0.1); peak rate 0.001 until epoch 2\n" in out
    assert train("--resume", "--learning-rate", "0.1", "--epochs", 4, "--out", folder) == 0
    assert train("--resume", "--epochs", 5, "--out", folder) == 0  # it keeps the rate
    rates = [row["learning_rate"] for row in metrics(folder)]
    np.testing.assert_allclose(rates, [0.001] * 2 + [0.1] * 3, rtol=1e-6)
    config = RunFolder(folder).config()
    assert config["options"]["learning_rate"] == 0.1
    assert config["earlier_rates"] == [{"until": 2, "learning_rate": 0.001}]


def test_unknown_options_get_near_ones(capsys):
    for command, given, words in (
        ("train", ("--lr", "0.1"), "there is no option --lr; did you mean --learning-rate?"),
        ("train", ("--optimiser=sgd",), "no option --optimiser=sgd; did you mean --optimizer?"),
        ("race", ("--epoch-count", "1"), "no option --epoch-count; see `gradtx race --help`"),
        ("race", ("--lr", "0.1"), "there is no option --lr; did you mean --rates?"),
        ("race", ("--learning-rate=0.1",), "--learning-rate=0.1; did you mean --rates?"),
        ("train", ("adam",), "the argument adam is one too many; see `gradtx train --help`"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([command, *given])
        out, err = capsys.readouterr()
        assert caught.value.code == 2 and out == "" and err.count("\n") == 1
        assert err.startswith(f"gradtx {command}: ") and words in err


@pytest.mark.parametrize(
    ("command", "hint"), [("tran", "did you mean train?"), ("optimize", "see `gradtx --help`")]
)
def test_unknown_commands_get_near_ones(command, hint, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--epochs", "1"])
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == ""
    assert err == f"gradtx: there is no command {command}; {hint}\n"


def test_the_help_has_the_settings_of_all_schedules(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    listed = dict(re.findall(r"^  (\S+) +(.*=.*)$", out, re.M))
    for name in SCHEDULES:
        settings = [f"{key}={show(value)}" for key, value in schedule_settings(name).items()]
        assert listed.get(name, "").split() == settings


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_progress_line_fits_into_the_terminal(width):
    shown = io.StringIO()
    row = Row(30, 690, 1.25e-05, 0.9999, 1.234, 0.9712, 0.0009755, 12.3)
    console = rich.console.Console(file=shown, width=width, force_terminal=True)
    with display(30, 29, console) as display_:
        display_.epoch(row)
    last = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", shown.getvalue()).strip().splitlines()[-1]
    assert "loss 1.25e-05" in last and "test 97.12%" in last and "\u2026" not in last
    assert ("rate 0.0009755" in last) == (width == 100) and len(last) <= width


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["full", "1", "7"])
def test_batches_from_one_to_all(small, tmp_path, batch, capsys):
    assert train(*small, "--batch", batch, "--epochs", 1, "--out", tmp_path / "run") == 0
    steps = {"full": 1, "1": 60, "7": 9}[batch]
    told = "1 step" if steps == 1 else f"{steps} steps"
    assert f"1 epoch of {told} on" in capsys.readouterr().out
    assert metrics(tmp_path / "run")[0]["step"] == steps


def test_without_a_learning_rate_in_the_state(small, tmp_path):
    assert train(*small, "--optimizer", "rprop", "--epochs", 1, "--out", tmp_path / "run") == 0
    assert metrics(tmp_path / "run")[0]["learning_rate"] is None


@pytest.mark.slow
def test_the_default_run_reaches_its_goal(tmp_path):
    code, _, err = finish(start("--out", tmp_path / "run"))
    assert code == 0 and err == ""
    assert metrics(tmp_path / "run")[-1]["test_accuracy"] >= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_softmax_regression_on_idx_files(tmp_path, ending):
    """The text-book's run on files of MNIST's make; these hold digits, blown up to 28x28."""
    write_mnist(tmp_path / "mnist", *upscaled_digits(), ending=ending)
    textbook = ("--model", "softmax", "--optimizer", "sgd", "--learning-rate", "0.2")
    folder = tmp_path / "run"
    assert train("--data", tmp_path / "mnist", *textbook, "--epochs", 30, "--out", folder) == 0
    assert metrics(folder)[-1]["test_accuracy"] >= 0.91


def epochs_trained(folder):
    try:
        return len((folder / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return -1


def wait_for(process, folder, epochs):
    while epochs_trained(folder) < epochs and process.poll() is None:
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--optimizer", "adam", "--schedule", "cosine"),
        ("--optimizer", "rmsprop", "--set", "momentum=0.9", "--schedule", "plateau"),
        ("--optimizer", "adamw", "--weight-decay", "0.01", "--clip", "1", "--model", "mlp"),
    ],
    ids=["adam", "rmsprop", "adamw"],
)
def test_killed_at_any_moment_and_resumed_bit_for_bit(small, tmp_path, arguments):
    epochs, folder = 300, tmp_path / "killed"
    options = (*small, *arguments, "--epochs", epochs)
    assert finish(start(*options, "--out", tmp_path / "whole"))[0] == 0

    rng = np.random.default_rng(len(arguments))
    kills_while_training = 0
    for epoch in (None, 0, *sorted(rng.integers(1, epochs - 20, 3))):
        process = start(*options, "--resume", "--out", folder)
        if epoch is None:
            time.sleep(rng.uniform(0.2, 1.5))  # before anything is written, or hardly later
        else:
            wait_for(process, folder, epoch)
            time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        kills_while_training += 0 < epochs_trained(folder) < epochs
    assert kills_while_training >= 2

    assert finish(start(*options, "--resume", "--out", folder))[0] == 0
    assert leaves(folder) == leaves(tmp_path / "whole")
    assert without_seconds(metrics(folder)) == without_seconds(metrics(tmp_path / "whole"))
    assert {p.name for p in folder.iterdir()} == FILES


# One optimizer of each family; `test_resumed_runs_end_bit_for_bit_alike` has all of them.
FAMILIES = {entry.module: entry.name for entry in catalog.entries()}.values()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_killed_and_resumed_bit_for_bit(small, tmp_path, name):
    epochs, folder = 100, tmp_path / "killed"
    options = (*small, "--optimizer", name, "--epochs", epochs)
    process = start(*options, "--out", folder)
    wait_for(process, folder, 3)
    process.kill()
    process.communicate()
    assert 3 <= epochs_trained(folder) < epochs

    assert train("--resume", "--out", folder) == 0
    assert train(*options, "--out", tmp_path / "whole") == 0
    assert leaves(folder) == leaves(tmp_path / "whole")
    assert without_seconds(metrics(folder)) == without_seconds(metrics(tmp_path / "whole"))


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_can_go_on(small, tmp_path):
    options = (*small, "--epochs", 3000)
    process = start(*options, "--out", tmp_path / "run")
    wait_for(process, tmp_path / "run", 3)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err == (
        "gradtx train: interrupted\n"
        f"continue with: gradtx train --resume --out {tmp_path / 'run'}\n"
    )
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES
    done = epochs_trained(tmp_path / "run")
    assert 3 <= done < 3000
    assert train("--resume", "--epochs", done + 2, "--out", tmp_path / "run") == 0
    assert [row["epoch"] for row in metrics(tmp_path / "run")] == list(range(1, done + 3))


@pytest.mark.slow
def test_a_reader_that_goes_away_gets_no_traceback(small, tmp_path):
    process = start(*small, "--epochs", 3000, "--out", tmp_path / "run")
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=300)
    err = process.stderr.read()
    process.stderr.close()
    assert process.returncode == 1 and "output closed" in err and "Traceback" not in err


def test_curves_of_losses_that_are_all_zero(tmp_path):
    """They have no logarithm; matplotlib would warn."""
    figure = draw_curves([Row(1, 23, 0.0, 1.0, 0.0, 1.0, 0.01, 1.0)], "a run")
    figure.savefig(tmp_path / "curves.png")
    assert [axes.get_yscale() for axes in figure.axes] == ["linear"] * 3
    assert figure.axes[0].get_ylabel() == "loss"
