"""`gradtx race` as a person uses it: its words, its files, a race that goes on, bad input."""

import json
import re

import pytest
from small_data import write_small

from gradtx.__main__ import main
from gradtx.racing import language_model
from gradtx.train import files


def race(*arguments):
    return main(["race", *map(str, arguments)])


@pytest.fixture
def small(tmp_path):
    options = ("--data", write_small(tmp_path), "--model", "softmax", "--batch", 16)
    return (*options, "--seeds", 2, "--epochs", 2, "--rates", "0.01:1:3")


def rows(folder):
    return [json.loads(line) for line in (folder / "race.jsonl").read_text().splitlines()][1:]


def test_a_race_leaves_its_files_and_goes_on(small, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "race"
    monkeypatch.setenv("COLUMNS", "200")
    assert race("sgd", *small, "--out", folder) == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out and "\r" not in out
    assert {p.name for p in folder.iterdir()} == {"race.jsonl", "curves.png", "rates.png"}
    assert all((folder / n).read_bytes()[:4] == b"\x89PNG" for n in ("curves.png", "rates.png"))
    assert "2 epochs of 4 steps, 2 seeds" in out and "sgd: 6 runs, 3 rates from 0.01 to 1" in out
    assert re.search(r"^1 +sgd +(0\.\d+|1 >) ", out, re.MULTILINE) and "steps to 95 %" in out

    monkeypatch.setenv("COLUMNS", "80")
    assert race("sgd", *small, "--out", folder) == 0
    narrow = capsys.readouterr().out.split("\n\n", 1)[1].split("\nsee ")[0]
    assert max(map(len, narrow.splitlines())) <= 80
    wide = out.split("\n\n", 1)[1].split("\nsee ")[0]
    assert sorted(re.findall(r"[^\s-]+", narrow)) == sorted(re.findall(r"[^\s-]+", wide))

    found = rows(folder)
    assert [(r["learning_rate"], r["seed"]) for r in found] == [
        (rate, seed) for rate in (0.01, 0.1, 1.0) for seed in (0, 1)
    ]
    assert all(r["steps"] == [0, 4, 8] and len(r["accuracy"]) == 3 for r in found)

    assert race("dog", "sgd", *small, "--out", folder) == 0
    out, _ = capsys.readouterr()
    assert "sgd: 3 rates from 0.01 to 1 finished earlier" in out
    assert "dog: 10 runs, 5 rates from 0.1 to 10" in out
    assert [r for r in rows(folder) if r["optimizer"] == "sgd"] == found
    assert "dog: the largest of 5 rates from 0.1 to 10 is best, 3 more are added" in out
    assert len(rows(folder)) == 6 + 10 + 6

    before = (folder / "race.jsonl").read_bytes()
    assert race("sgd", *small, "--epochs", 3, "--out", folder) == 2
    assert "has another race: epochs was 2, now 3" in capsys.readouterr().err
    assert (folder / "race.jsonl").read_bytes() == before
    assert race("sgd", *small, "--epochs", 3, "--out", folder, "--overwrite") == 0
    assert len(rows(folder)) == 6 and rows(folder)[0]["steps"] == [0, 4, 8, 12]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("adma",), "no optimizer is named 'adma'; did you mean"),
        (("--problem", "txt"), "--problem 'txt' is not one of digits, text; did you mean 'text'"),
        (("--problem", "text"), "--data .*: the problem text has its own; leave --data out"),
        (("--rates", "1:2"), "--rates must be LOW:HIGH:COUNT, such as 1e-4:1:9, got '1:2'"),
        (("--rates", "1:0.1:3"), "must have 0 < low < high .* got 3 from 1 to 0.1"),
        (("--rates", "0.1,fast"), "--rates must be a number, got 'fast'"),
        (("--rates", "0.1,-1"), "must be positive numbers"),
        (("--rates", "-1:1:3"), "must have 0 < low < high .* got 3 from -1 to 1"),
        (("--rates", "-.1,0.1"), "must be positive numbers"),
        (("--seeds", "some"), "--seeds must be an integer, got 'some'"),
        (("--seeds", "0"), "seeds must be a number of seeds, at least 1"),
        (("--epochs", "0"), "--epochs must be an integer of at least 1, got 0"),
        (("--devices", "0"), "devices must be an integer from 1 to 1, the number of devices"),
        (("--devices", "all"), "--devices must be an integer, got 'all'"),
        (("--target", "all"), "--target must be a number, got 'all'"),
        (("--model", "cnn"), "--model 'cnn' is not one of"),
        (("--data", "/nowhere"), "/nowhere: no such file or folder"),
        (("--batch", "61"), "must be from 1 to 60, the number of training examples, got 61"),
        (("--batch", "half"), "--batch must be an integer, got 'half'"),
    ],
)
def test_bad_input_gets_one_message(small, tmp_path, arguments, words, capsys):
    assert race(*small, "--out", tmp_path / "race", *arguments) == 2
    out, err = capsys.readouterr()
    assert re.search(words, err), err
    assert err.startswith("gradtx race: ") and err.count("\n") == 1 and out == ""
    assert not (tmp_path / "race").exists()


def test_rates_that_do_not_apply_are_told(small, tmp_path, capsys):
    assert race("dog", "sgd", *small, "--epochs", 1, "--out", tmp_path / "race") == 0
    err = capsys.readouterr().err
    assert "gradtx race: dog is learning-rate-free, so that --rates do not apply" in err
    assert "sgd is" not in err
    found = rows(tmp_path / "race")
    assert {x["learning_rate"] for x in found if x["optimizer"] == "sgd"} == {0.01, 0.1, 1.0}
    assert {0.1, 1.0, 10.0} <= {x["learning_rate"] for x in found if x["optimizer"] == "dog"}


def test_a_race_on_text(tmp_path, monkeypatch, capsys):
    small = language_model(width=16, layers=1, heads=2, context=8, batch_size=32, examples=64)
    monkeypatch.setattr("gradtx.racing.command.language_model", lambda: small)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    settings = ("--problem", "text", "--seeds", 1, "--epochs", 1, "--rates", "0.1,1")
    assert race("sgd", *settings) == 0
    out, err = capsys.readouterr()
    assert err == "" and "loss (nats a character)" in out and "steps to 2.2" in out
    assert "the mean cross entropy on text that is not trained on" in out.replace("\n", " ")
    assert {p.name for p in (tmp_path / "runs" / "race-text").iterdir()} == {
        *("race.jsonl", "curves.png", "rates.png"),
    }
    assert race("sgd", *settings, "--batch", "full") == 2
    assert "--batch must be an integer, got 'full'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(small, tmp_path, capsys):
    assert race("sgd", *small, "--out", tmp_path / "data.npz") == 2
    assert "data.npz: cannot create the folder" in capsys.readouterr().err


def test_two_races_do_not_write_in_one_folder(small, tmp_path, capsys):
    with files.locked(tmp_path / "race", ()):
        assert race("sgd", *small, "--out", tmp_path / "race") == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"gradtx race: {tmp_path / 'race'}: another run writes in this folder")
    assert err.count("\n") == 1


def test_a_damaged_record_gets_one_message(small, tmp_path, capsys):
    (tmp_path / "race.jsonl").write_bytes(b"\xff\n")
    assert race("sgd", *small, "--out", tmp_path) == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"gradtx race: {tmp_path / 'race.jsonl'}: not the record of a race")
    assert err.count("\n") == 1
