"""The examples train to their thresholds, and end after restoring as if nothing had happened."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
CLIENTS = ["equinox_training", "flax_nnx", "flax_train_state", "plain_jax"]


def test_every_example_is_tested():
    elsewhere = ["sharded_transformer"]  # test_processes.py
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(CLIENTS + elsewhere)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CLIENTS)
def test_an_example(name, tmp_path, monkeypatch, capsys):
    """Its own asserts say that it learned, and that the restored run ended alike."""
    saved, save = {}, np.savez

    def savez(file, **arrays):
        saved.update(arrays)
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", savez)
    monkeypatch.chdir(tmp_path)
    path = EXAMPLES / f"{name}.py"
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    epochs = [line.split(":")[0] for line in lines[:-1]]
    assert epochs == [f"epoch {n}" for n in (*range(1, 11), *range(6, 11))]
    assert "learning rate 0.0098" in lines[0] and "learning rate 0.0000" in lines[-2]
    assert lines[5:10] == lines[10:15]
    assert any("scale_by_adam/mu/" in name for name in saved)
    assert not list(tmp_path.iterdir())  # it leaves no files behind
    assert len(path.read_text().splitlines()) < 65
