"""The folder of a run: what its checkpoint holds is checked before it is used."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays_in_files import rewrite

import gradtx
from gradtx.train import CheckpointError, Options, Progress, Row, RunFolder, TrainState

PARAMS = {"w": jnp.ones(3)}
START = TrainState(PARAMS, gradtx.adam(0.1).init(PARAMS))
ROWS = (Row(1, 4, 2.0, 0.5, 2.1, 0.4, 0.1, 1.5), Row(2, 8, 1.0, 0.75, 1.1, 0.7, None, 0.5))
CONFIG = {
    "options": json.loads(json.dumps(dataclasses.asdict(Options(batch="full", clip=1)))),
    "data": "0123456789abcdef",
    "versions": {"jax": "0.10"},
    "device": "cpu",
}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save(Progress(START, ROWS), CONFIG)
    return folder


def test_progress_and_configuration_come_back(folder):
    progress = folder.restore(jax.eval_shape(lambda: START))
    assert progress.history == ROWS and folder.config() == CONFIG
    assert jax.tree.structure(progress.state) == jax.tree.structure(START)
    assert folder.rewrite_metrics() == ROWS


def negative_count(extra, arrays):
    (name,) = (name for name in arrays if name.endswith("0/count"))
    arrays[name] = np.full_like(arrays[name], -5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e, a: e.pop("config"), "header.extra must have .* it lacks config"),
        (lambda e, a: e["config"].pop("data"), "extra.config must have .* it lacks data"),
        (lambda e, a: e["config"].update(options=3), "config.options must be a mapping, got 3"),
        (lambda e, a: e["config"]["options"].update(zeal=1), "it lacks none, and has zeal in ex"),
        (lambda e, a: e["config"]["options"].update(set=[1]), "options.set must be a mapping, got"),
        (lambda e, a: e["config"]["options"].update(clip="x"), "clip must be a finite number or n"),
        (
            lambda e, a: e["config"]["options"].update(epochs=2.5),
            "epochs must be an integer, got 2",
        ),
        (lambda e, a: e["config"]["options"].update(epochs=-2), "an integer of at least 1, got -2"),
        (lambda e, a: e.update(history=3), "header.extra.history must be a list, got 3"),
        (lambda e, a: e["history"][0].pop("step"), r"history\[0\] must have .* it lacks step"),
        (lambda e, a: e["history"][1].update(train_loss="low"), r"\[1\].train_loss must be a fin"),
        (lambda e, a: e["history"][1].update(seconds=np.nan), r"\[1\].seconds must be a finite"),
        (lambda e, a: e["history"].reverse(), r"must have the epochs 1 to 2, got \[2, 1\]"),
        (negative_count, "scale_by_adam/count must be at least 0, got -5"),
    ],
)
def test_other_content_is_named(folder, change, words):
    def changed(header, arrays):
        change(header["extra"], arrays)

    rewrite(folder.checkpoint, changed)
    with pytest.raises(CheckpointError, match=words) as caught:
        folder.restore(START)
    assert str(caught.value).startswith(f"{folder.checkpoint}: ")
    if change is not negative_count:
        for read in (folder.config, folder.rewrite_metrics):
            with pytest.raises(CheckpointError, match=words):
                read()
