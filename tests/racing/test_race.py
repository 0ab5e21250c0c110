"""The race: its runs against single ones and NumPy, its file, its standings, its pictures."""

import json
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from representatives import each_build
from small_data import small

import gradtx
from gradtx import catalog, train
from gradtx.racing import (
    Entrant,
    Race,
    Record,
    Row,
    classification,
    enter,
    make_grid,
    make_start,
    own_problem,
    progress,
    rate_range,
    record,
    run,
    usual_rates,
)
from gradtx.racing.devices import divided, division, local_devices
from gradtx.train import files

ROOT = Path(__file__).parents[2]
DATA = small()
SOFTMAX = train.softmax()
TRAPS = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]])  # three batches of two


def parabola(p, batch):
    """Whose gradient is the parameters' distance from the batch's mean."""
    return jnp.mean((p - batch) ** 2) / 2


def start_at(key):
    return jax.random.normal(key, ())


def short_race(optimizers, **more):
    settings = {"learning_rates": [0.1, 0.3], "seeds": 2, "epochs": 2} | more
    return gradtx.race(parabola, start_at, list(TRAPS), optimizers, **settings)


# ---- The runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["polyak_sgd", *(pytest.param(x, marks=pytest.mark.slow) for x in ("momentum", "adam"))]
)
def test_a_run_is_the_one_that_fit_makes(name):
    """Shuffling, short last batches, and extra arguments included."""
    problem = classification(SOFTMAX, DATA, 16)
    field = enter([name], [0.03, 0.5])
    result = run.run_race(problem, field, seeds=[3, 5], epochs=3)
    for row in result.rows:
        tx = field[0].make(row.learning_rate)
        fit = train.fit(SOFTMAX, DATA, tx, epochs=3, batch_size=16, seed=row.seed)
        assert row.steps == (0, *(r.step for r in fit.history)) == (0, 4, 8, 12)
        np.testing.assert_allclose(row.loss[1:], [r.train_loss for r in fit.history], rtol=2e-4)
        np.testing.assert_allclose(row.accuracy[1:], [r.test_accuracy for r in fit.history])
    assert [(r.learning_rate, r.seed) for r in result.rows] == [
        (0.03, 3), (0.03, 5), (0.5, 3), (0.5, 5),
    ]  # fmt: skip


def test_a_loss_of_ones_own_in_numpy():
    result = gradtx.race(
        parabola, jnp.array(7.0), [TRAPS], ["sgd"], learning_rates=[0.1, 0.5], seeds=1, epochs=3
    )
    for row in result.rows:
        p, losses = 7.0, []
        for _ in range(4):
            losses.append(np.mean((p - TRAPS) ** 2) / 2)
            p -= row.learning_rate * np.mean(p - TRAPS)
        np.testing.assert_allclose(row.loss, losses, rtol=1e-6)
        assert row.steps == (0, 1, 2, 3) and row.accuracy is None


def test_every_batch_once_an_epoch_in_an_order_of_the_seed():
    """With the loss `p * batch`, sgd adds the batches up; momentum remembers their order."""

    def slope(p, batch):
        return p * batch

    def accuracy(p):
        return p

    batches = list(jnp.array([1.0, 10.0, 100.0, 1000.0]))
    settings = {"learning_rates": [1e-4], "seeds": 4, "epochs": 2, "accuracy": accuracy}
    field = {"sum": gradtx.sgd, "order": lambda rate: gradtx.sgd(rate, 0.5)}
    result = gradtx.race(slope, jnp.array(0.0), batches, field, **settings)
    for row in result.runs_of("sum"):
        np.testing.assert_allclose(row.accuracy, [0, -0.1111, -0.2222], rtol=1e-5)
    orders = [row.accuracy for row in result.runs_of("order")]
    assert len(set(orders)) == 4
    assert all(a[2] - a[1] != pytest.approx(a[1]) for a in orders)  # nor are two epochs alike


def test_all_optimizers_meet_the_same_start_and_order():
    result = short_race({"a": "sgd", "b": gradtx.sgd, "c": lambda rate: gradtx.sgd(rate)})
    same = [
        [(r.learning_rate, r.seed, r.loss) for r in result.runs_of(name)]
        for name in result.optimizers
    ]
    assert same[0] == same[1] == same[2]
    firsts = {row.seed: row.loss[0] for row in result.rows}
    assert firsts[0] != firsts[1]
    assert all(row.loss[0] == firsts[row.seed] for row in result.rows)


def test_a_grid_is_one_program_whatever_its_size():
    problem = own_problem(parabola, start_at, list(TRAPS))
    sizes = []
    for rates, seeds in ((1, 1), (5, 3)):
        start = make_start(problem)(jnp.arange(seeds), problem.data)
        grid = jax.jit(make_grid(problem, gradtx.adam, 2))
        for low in (0.1, 0.2):  # other rates compile nothing
            curves = grid(jnp.linspace(low, 1.0, rates), start, problem.data)
        assert curves.loss.shape == (seeds, 2, rates) and grid._cache_size() == 1
        traced = grid.trace(jnp.linspace(0.1, 1.0, rates), start, problem.data)
        sizes.append(len(re.findall(r" = ", str(traced.jaxpr))))
    assert sizes[0] == sizes[1]


def test_all_runs_at_once_are_what_one_seed_or_run_after_the_other_is(monkeypatch):
    """The first is what accelerators do, the last what they do where a run fills them."""
    problem = classification(SOFTMAX, DATA, 16)
    start = make_start(problem)(jnp.arange(2), problem.data)
    rates, found = jnp.array([0.01, 0.1]), []
    for backend, large in (("cpu", False), ("gpu", False), ("gpu", True)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        grid = jax.jit(make_grid(problem._replace(large=large), gradtx.adam, 2))
        found.append(grid(rates, start, problem.data))
    for other in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found[0], other)


def test_a_branch_is_not_computed_for_runs_that_do_not_take_it():
    """As the eigenvectors of SOAP, of which every tenth step computes new ones."""
    problem = own_problem(parabola, start_at, list(TRAPS))
    taken = []

    def make(rate):
        def update(updates, state, params=None):
            new = lambda: jax.debug.callback(lambda: taken.append(1))  # noqa: E731
            jax.lax.cond(state % 3 == 0, new, lambda: None)
            return jax.tree.map(lambda g: -rate * g, updates), state + 1

        return gradtx.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

    result = run.run_race(problem, [Entrant("mine", make, (0.1, 0.3))], seeds=1, epochs=2)
    jax.effects_barrier()
    assert len(taken) == 2 * 2  # of 2 runs with 6 steps
    sgd = run.run_race(problem, enter(["sgd"], [0.1, 0.3]), seeds=1, epochs=2)
    for a, b in zip(result.rows, sgd.rows, strict=True):
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-6)


def test_the_host_hears_of_every_epoch():
    problem = own_problem(parabola, start_at, list(TRAPS))
    start = make_start(problem)(jnp.arange(2), problem.data)
    heard = []
    grid = jax.jit(make_grid(problem, gradtx.sgd, 3, lambda losses: heard.append(losses)))
    curves = grid(jnp.array([0.1, 0.2]), start, problem.data)
    jax.effects_barrier()
    assert len(heard) == 2 * 3
    np.testing.assert_array_equal(np.sort(np.ravel(heard)), np.sort(np.ravel(curves.loss)))


@pytest.mark.parametrize(
    ("seeds", "rates", "devices", "parts"),
    [
        (1, 1, 1, (1, 1)),
        (8, 9, 8, (8, 1)),  # nothing is padded
        (4, 16, 8, (4, 2)),
        (1, 8, 8, (1, 8)),
        (3, 9, 8, (4, 2)),  # 5 runs on a device, where 27 / 8 is the least
        (3, 5, 6, (3, 2)),
        (2, 9, 7, (1, 7)),  # 4 runs on a device instead of 9
        (2, 2, 8, (4, 2)),  # more devices than runs
    ],
)
def test_the_division_over_devices(seeds, rates, devices, parts):
    assert division(seeds, rates, devices) == parts


DIVIDED = """
import contextlib, re
import jax, jax.numpy as jnp, numpy as np
from small_data import small
from gradtx import train
from gradtx.racing import classification, devices, enter, make_grid, make_start, run

problem = classification(train.softmax(), small(), 16)
field = enter(["adam", "muon"], [0.01, 0.02, 0.03, 0.1, 0.3])

class Bar:
    live, done = True, 0.0
    def say(self, text):
        pass
    def step(self, name, doing, done=0):
        self.done += done

def raced(number, seeds):
    bar = Bar()
    run.display = lambda epochs, lines: contextlib.nullcontext(bar)
    rows = run.run_race(problem, field, seeds=seeds, epochs=2, devices=number).rows
    np.testing.assert_allclose(bar.done, 2 * seeds * len(field))
    return np.array([(row.loss, row.accuracy) for row in rows])

# Seeds alone are divided: bit for bit. Then seeds and rates, 3 and 5 padded to 4 and 6.
np.testing.assert_array_equal(raced(1, 8), raced(None, 8))
np.testing.assert_allclose(raced(1, 3), raced(8, 3), rtol=1e-5)

# What the program does: each device its own runs, and nothing is sent.
everywhere = devices.local_devices(None)
data = devices.on_all(problem.data, everywhere)
start = jax.jit(make_start(problem))(jnp.arange(4), data)
grid = devices.divided(make_grid(problem, field[0].make, 2), (4, 2), everywhere)
arguments = jnp.linspace(0.01, 0.1, 6), start, data
compiled = jax.jit(grid).lower(*arguments).compile()
assert not re.findall("all-gather|all-reduce|all-to-all|collective", compiled.as_text())
shards = compiled(*arguments).loss.addressable_shards
assert {shard.data.shape for shard in shards} == {(1, 2, 3)} and len(shards) == 8
print("the same")
"""


@pytest.mark.thorough
def test_eight_devices_race_as_one_does():
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-W", "error", "-c", DIVIDED]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.stdout, result.stderr) == ("the same\n", "")


def test_diverged_runs_are_infinite():
    problem = classification(SOFTMAX, DATA, 16)
    result = run.run_race(problem, enter(["sgd"], [0.1, 1e38]), seeds=1, epochs=3, target=0.5)
    good, bad = result.rows
    assert not good.diverged and bad.diverged
    assert bad.loss[1:] == (math.inf,) * 3 and bad.accuracy[1:] == (0.0,) * 3
    assert math.isfinite(bad.loss[0]) and bad.accuracy[0] == good.accuracy[0]
    (standing,) = result.standings()
    assert (standing.learning_rate, standing.diverged, standing.runs) == (0.1, 1, 2)


@each_build
def test_every_optimizer_of_the_catalog_can_race(entry):
    """Traced with a runtime rate, on matrices and vectors, as one device's part of a grid; the slow
    test runs them."""
    problem = classification(SOFTMAX, DATA, 16)
    start = jax.eval_shape(make_start(problem), jnp.arange(2), problem.data)
    (entrant,) = enter([entry.name])
    grid = divided(make_grid(problem, entrant.make, 2), (1, 1), local_devices(1))
    curves = jax.eval_shape(grid, jnp.asarray(entrant.rates), start, problem.data)
    assert curves.loss.shape == curves.accuracy.shape == (2, 2, len(entrant.rates))


@pytest.mark.slow
def test_every_optimizer_of_the_catalog_learns():
    problem = classification(SOFTMAX, DATA, 16)
    result = run.run_race(problem, enter(catalog.names()), seeds=2, epochs=10)
    first = np.median([row.loss[0] for row in result.rows])
    assert len(result.standings()) == len(catalog.entries())
    for standing in result.standings():
        assert standing.loss < 0.8 * first, standing


@pytest.mark.slow
def test_the_digits_are_learned():
    problem = classification(train.mlp(), train.load(), 64)
    result = run.run_race(
        problem, enter(["sgd", "adam"], rate_range(1e-4, 1, 9)), seeds=2, epochs=5, target=0.95
    )
    adam, sgd = result.standings()
    assert (adam.optimizer, sgd.optimizer) == ("adam", "sgd")
    assert 1e-3 < adam.learning_rate < 0.1 < sgd.learning_rate and adam.accuracy > 0.95
    assert adam.steps_to_target <= 115


# ---- Who races --------------------------------------------------------------------------------


def test_rates_by_default_given_to_all_and_given_to_one():
    field = {"mine": lambda rate: gradtx.sgd(rate), "ours": gradtx.adam, "free": "prodigy"}

    def rates(given):
        return {e.name: e.rates for e in enter(field, given)}

    free = usual_rates("prodigy")
    assert rates(None) == {
        "mine": rate_range(1e-4, 1, 9), "ours": rate_range(1e-5, 1e-1, 9), "free": free,
    }  # fmt: skip
    assert rates([0.3, 0.1]) == {"mine": (0.1, 0.3), "ours": (0.1, 0.3), "free": free}
    assert rates({"free": [2], "ours": np.array([0.25])}) == {
        "mine": rate_range(1e-4, 1, 9), "ours": (0.25,), "free": (2.0,),
    }  # fmt: skip


def test_the_rate_that_each_optimizer_races_with():
    """Also where it has another name, and where other hyperparameters have no default."""
    for name, parameter in (("adam", "learning_rate"), ("polyak_sgd", "scaling")):
        (entrant,) = enter([name])
        g, p, extra = {"x": jnp.array([0.5, -2.0])}, {"x": jnp.ones(2)}, {"value": 3.0}
        ours = entrant.make(0.125)
        entry = catalog.get(name)
        needed = {"max_learning_rate": 1.0} if name == "polyak_sgd" else {}
        theirs = entry.factory(**{parameter: 0.125}, **needed)
        a, b = (tx.update(g, tx.init(p), p, **extra)[0]["x"] for tx in (ours, theirs))
        np.testing.assert_array_equal(a, b)
    assert len(enter(catalog.names())) == len(catalog.entries())


def init_of_two(key):
    return {"w": jax.random.normal(key, (2,))}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizers": ["adma"]}, "no optimizer is named 'adma'; did you mean"),
        ({"optimizers": []}, "no optimizer is given"),
        ({"optimizers": ["sgd", "sgd"]}, "'sgd' is given twice"),
        (
            {"optimizers": {"x": gradtx.sgd(0.1)}},
            "'x' must be .* got a GradientTransformation",
        ),
        ({"optimizers": {"x": 3}}, "'x' must be a name of the catalog or a function .*, got a int"),
        ({"learning_rates": []}, "must be positive numbers, at least one"),
        ({"learning_rates": [0.1, -1]}, r"positive numbers, at least one, got \[-1.0, 0.1\]"),
        ({"learning_rates": [0.1, 0.1]}, r"learning rates must differ, got \[0.1, 0.1\]"),
        ({"learning_rates": ["fast"]}, "sgd's learning rates must be numbers, got"),
        ({"learning_rates": {"adam": [1]}}, "given for 'adam', but the optimizers are sgd"),
        ({"seeds": 0}, "seeds must be a number of seeds, at least 1.*got 0"),
        ({"seeds": [1, 1]}, "distinct integers"),
        ({"seeds": [-1]}, "from 0 to 2147483647"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"devices": 0}, "devices must be an integer from 1 to 1, the number of devices .*, got 0"),
        ({"devices": 2}, "devices must be an integer from 1 to 1, .*, got 2"),
        ({"batches": []}, "there are no batches"),
        ({"batches": TRAPS}, "must be a list of batches, .*, got ndarray"),
        (
            {"batches": (TRAPS, TRAPS)},
            "got tuple; give a single batch as .batch.",
        ),
        (
            {"batches": [TRAPS, TRAPS[:2]]},
            r"\[3, 2\] for batch 0 and .*\[2, 2\] for batch 1",
        ),
        ({"loss": lambda p, batch: p - batch}, r"must be a scalar, got an array of shape \(2,\)"),
        ({"loss": lambda p, batch: (p, p)}, r"loss\(params, batch\) must be a scalar, got \("),
        ({"accuracy": lambda p: jnp.ones(2)}, r"accuracy\(params\) must be a scalar"),
        ({"init": lambda key: jnp.array(1)}, "sgd cannot train this problem: .*"),
    ],
)
def test_bad_input_is_told(changes, words):
    settings = {
        "loss": parabola,
        "init": start_at,
        "batches": list(TRAPS),
        "optimizers": ["sgd"],
        "learning_rates": None,
        "seeds": 1,
        "epochs": 1,
    }
    with pytest.raises(train.TrainingError, match=words):
        gradtx.race(**{**settings, **changes})


def test_a_loss_without_batches():
    result = gradtx.race(
        lambda p, _: jnp.sum((p["w"] - 3) ** 2), init_of_two, [None], ["sgd"],
        learning_rates=[0.25], seeds=1, epochs=4,
    )  # fmt: skip
    loss = np.array(result.rows[0].loss)
    np.testing.assert_allclose(loss[1:] / loss[:-1], 0.25, rtol=1e-6)


# ---- The file ---------------------------------------------------------------------------------


def without_seconds(rows):
    return [row._replace(seconds=0, compile_seconds=0) for row in rows]


def refused(rate):
    raise AssertionError("it was run again")


def test_what_is_finished_is_not_run_again(tmp_path):
    first = short_race({"a": "sgd", "wild": "sgd"}, learning_rates=[0.1, 1e30], out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "race.jsonl").read_text().splitlines()]
    assert lines[0]["race"]["epochs"] == 2 and lines[0]["race"]["seeds"] == [0, 1]
    assert len(lines) == 1 + 2 * 2 * 2 and lines[-1]["loss"][-1] is None  # JSON has no infinity
    again = short_race({"a": refused, "wild": refused}, learning_rates=[0.1, 1e30], out=tmp_path)
    assert again.rows == first.rows
    more = short_race({"b": "adam", "a": refused}, learning_rates=[0.1, 1e30], out=tmp_path)
    assert more.optimizers == ["b", "a", "wild"]  # what the file holds of others is among them
    assert set(first.rows) < set(more.rows)


def test_a_race_that_was_killed_goes_on(tmp_path, monkeypatch):
    whole = short_race(["sgd", "adam"])
    original = run._Grid.run

    def killed(grid, seeds):
        if grid.entrant.name == "adam":
            raise KeyboardInterrupt
        return original(grid, seeds)

    with monkeypatch.context() as patched:
        patched.setattr(run._Grid, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            short_race(["sgd", "adam"], out=tmp_path)
    resumed = short_race({"sgd": refused, "adam": "adam"}, out=tmp_path)
    assert without_seconds(resumed.rows) == without_seconds(whole.rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3}, "has another race: epochs was 2, now 3"),
        ({"seeds": 3}, r"seeds was \[0, 1\], now \[0, 1, 2\]"),
    ],
)
def test_another_race_is_not_mixed_in(tmp_path, changes, words):
    short_race(["sgd"], out=tmp_path)
    before = (tmp_path / "race.jsonl").read_bytes()
    with pytest.raises(train.TrainingError, match=words):
        short_race(["sgd"], out=tmp_path, **changes)
    assert (tmp_path / "race.jsonl").read_bytes() == before
    assert short_race(["sgd"], out=tmp_path, **changes, overwrite=True).rows


def test_rates_that_are_not_finished_are_added(tmp_path):
    short_race(["sgd"], learning_rates=[0.1, 0.3], out=tmp_path)
    more = short_race(["sgd"], learning_rates=[0.03, 0.2, 0.3], out=tmp_path)
    assert more.rates_of("sgd") == [0.03, 0.1, 0.2, 0.3]
    whole = short_race(["sgd"], learning_rates=[0.03, 0.1, 0.2, 0.3])
    for a, b in zip(more.rows, whole.rows, strict=True):
        assert a[:3] == b[:3]
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-6)


def test_another_loss_or_other_batches_are_another_race(tmp_path):
    short_race(["sgd"], out=tmp_path)
    settings = {"learning_rates": [0.1, 0.3], "seeds": 2, "epochs": 2, "out": tmp_path}
    with pytest.raises(train.TrainingError, match=r"loss was .*, now"):
        gradtx.race(lambda p, b: 2 * parabola(p, b), start_at, list(TRAPS), ["sgd"], **settings)
    with pytest.raises(train.TrainingError, match=r"batches was .*, now"):
        gradtx.race(parabola, start_at, list(TRAPS[::-1]), ["sgd"], **settings)


def widened(loss, out, make=gradtx.sgd, lines=False):
    problem = own_problem(loss, start_at, list(TRAPS))
    field = [Entrant("mine", make, (0.001, 0.01), widen=True)]
    return run.run_race(problem, field, seeds=1, epochs=2, out=out, lines=lines)


def test_a_race_adds_rates_until_the_best_is_not_at_an_edge(tmp_path, capsys):
    whole = widened(parabola, tmp_path / "whole", lines=True)
    assert whole.rates_of("mine") == [0.001, 0.01, 0.1, 1.0, 10.0]
    (standing,) = whole.standings()
    assert standing.learning_rate in (0.1, 1.0) and not standing.at_edge
    assert "the largest of 2 rates from 0.001 to 0.01 is best, 3 more" in capsys.readouterr().out
    assert widened(parabola, tmp_path / "whole", refused).rows == whole.rows

    # killed before they were added
    config = head(tmp_path / "whole")["race"]
    with Record(tmp_path / "half", config).begin(overwrite=False):
        Record(tmp_path / "half", config).save(whole.rows[:2])
    assert without_seconds(widened(parabola, tmp_path / "half").rows) == without_seconds(whole.rows)


def test_rates_are_added_a_bounded_number_of_times(tmp_path, capsys):
    """The loss `p` has no best rate."""
    for make in (gradtx.sgd, refused):
        endless = widened(lambda p, batch: p, tmp_path, make, lines=True)
        (standing,) = endless.standings()
        assert len(endless.rates_of("mine")) == 2 + 4 * 3 and standing.at_edge == "high"
        said = "mine: unfinished, the largest of 14 rates from 0.001 to 1e+10 is best"
        assert said in capsys.readouterr().out


def test_finished_optimizers_keep_their_places(tmp_path):
    """In the file and in the results, whatever the seed of Python's hashes."""
    first = short_race(["sgd"], out=tmp_path)
    names = ["e", "b", "g", "a", "f", "d", "c"]
    rows = [row._replace(optimizer=name) for name in names for row in first.rows]
    Record(tmp_path, head(tmp_path)["race"]).save(rows)
    again = short_race({"c": refused, "new": "sgd", "a": refused}, out=tmp_path)
    assert [row["optimizer"] for row in lines(tmp_path)[1:]] == [
        name for name in [*names, "new"] for _ in range(4)
    ]
    assert again.optimizers == ["c", "new", "a", "e", "b", "g", "f", "d"]


def test_two_races_do_not_write_in_one_folder(tmp_path):
    with files.locked(tmp_path, ()):
        for overwrite in (False, True):
            with pytest.raises(train.TrainingError, match="another run writes in this folder, pro"):
                short_race(["sgd"], out=tmp_path, overwrite=overwrite)
    assert not [*tmp_path.iterdir()]


def lines(folder):
    return [json.loads(line) for line in (folder / "race.jsonl").read_text().splitlines()]


def head(folder):
    return lines(folder)[0]


def sealed(first, *others):
    """The text of a record with the right count and checksum, whatever its lines say."""
    others = [line if isinstance(line, str) else json.dumps(line) for line in others]
    config = first["race"] if isinstance(first, dict) else first
    first = {"race": config, "rows": len(others), "sha256": record._digest(config, others)}
    return "".join(f"{line}\n" for line in [json.dumps(first), *others]).encode()


CONFIG = {"epochs": 2, "seeds": [0, 1]}
RUN = {
    "optimizer": "sgd", "learning_rate": 0.1, "seed": 0, "steps": [0, 3, 6],
    "loss": [1.0, 0.5, None], "accuracy": None, "seconds": 1.0, "compile_seconds": 1.0,
}  # fmt: skip
RUNS = [RUN, RUN | {"seed": 1}]
GOOD = sealed({"race": CONFIG}, *RUNS)


def begin(folder, content):
    (folder / "race.jsonl").write_bytes(content)
    with Record(folder, CONFIG).begin(overwrite=False) as rows:
        return rows


def test_a_record_by_hand(tmp_path):
    a, b = begin(tmp_path, GOOD)
    assert (a.optimizer, a.seed, b.seed, a.steps) == ("sgd", 0, 1, (0, 3, 6))
    assert a.loss == (1.0, 0.5, math.inf) and a.accuracy is None
    assert not begin(tmp_path, sealed({"race": CONFIG}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "its last line is not complete"),
        (b"{}\n", "line 1 must have the fields race, rows, sha256; it lacks race, rows, sha256"),
        (b"[1]\n", r"line 1 must be a mapping, got \[1\]"),
        (b"words\n", "Expecting value"),
        (b"\xff\xfe\n", "codec can't decode byte 0xff"),
        (b"[" * 100_000 + b"\n", "the JSON is nested too deeply"),
        (sealed({"race": CONFIG}, "[" * 100_000), "the JSON is nested too deeply"),
        (b'{"race": {}, "rows": 0, "sha256": ""}\n{"optimizer"', "its last line is not complete"),
        (GOOD[:-1], "its last line is not complete"),
        (GOOD[: GOOD.rindex(b"{")], "line 1 announces 2 runs, the file has 1"),
        (GOOD + b"{}\n", "line 1 announces 2 runs, the file has 3"),
        (GOOD.replace(b"0.5", b"0.4", 1), r"its checksum is \w+\.\.\., it should be \w+\.\.\."),
        (GOOD.replace(b'"epochs": 2', b'"epochs": 3'), r"its checksum is .*, it should be"),
        (GOOD.replace(b'"rows": 2', b'"rows": "2"'), "line 1.rows must be an integer, got '2'"),
        (sealed([1], *RUNS), r"line 1.race must be a mapping, got \[1\]"),
        (sealed({"race": CONFIG}, [1]), r"line 2 must be a mapping, got \[1\]"),
        *(
            (sealed({"race": CONFIG}, RUN | changes, RUNS[1]), words)
            for changes, words in [
                ({"loss": [1.0, math.nan, 1.0]}, r"line 2.loss\[1\] must be a finite number"),
                ({"loss": [1.0, math.inf, 1.0]}, r"line 2.loss\[1\] must be a finite number"),
                ({"loss": ["low", 1.0, 1.0]}, r"loss\[0\] must be a finite .* null, got 'low'"),
                ({"loss": 3}, "line 2.loss must be a list, got 3"),
                ({"loss": [1.0]}, r"sgd: a run must have 3 measurements .* got 1 loss at"),
                ({"accuracy": [1.0]}, "sgd: a run must have 3 measurements"),
                ({"accuracy": [0.0, None, 1.0]}, r"line 2.accuracy\[1\] must be a finite number"),
                ({"steps": [0, 6, 3]}, r"at ascending steps from 0, got .* \(0, 6, 3\)"),
                ({"steps": [0, 3.5, 6]}, r"line 2.steps\[1\] must be an integer, got 3.5"),
                ({"steps": [-3, 0, 3]}, r"at ascending steps from 0, got .* \(-3, 0, 3\)"),
                ({"optimizer": 3}, "line 2.optimizer must be a string, got 3"),
                ({"learning_rate": "x"}, "line 2.learning_rate must be a finite number, got 'x'"),
                ({"mood": 1}, "it lacks none, and has mood in excess"),
                ({"seed": 1}, r"the seeds \[0, 1\], .*got .* \(0.1, 1\) instead of \(0.1, 0\)"),
                ({"seed": 2}, r"sgd must have a run for each"),
                ({"learning_rate": 0.2}, r"got .* \(0.2, 0\) instead of \(0.1, 0\)"),
                ({"optimizer": "adam"}, "adam must have a run for each"),
            ]
        ),
        (sealed({"race": CONFIG}, RUNS[0]), r"got .* None instead of \(0.1, 1\)"),
        (sealed({"race": CONFIG}, *RUNS, *RUNS), r"got .* \(0.1, 0\) instead of None"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, content, words):
    with pytest.raises(train.TrainingError, match=words) as caught:
        begin(tmp_path, content)
    path = tmp_path / "race.jsonl"
    assert str(caught.value).startswith(
        f"{path}: not the record of a race, or damaged (to discard it: overwrite): "
    )
    assert str(caught.value).count("\n") == 0
    assert path.read_bytes() == content


def test_no_byte_can_change_unnoticed(tmp_path):
    for position in range(len(GOOD)):
        damaged = bytearray(GOOD)
        damaged[position] ^= 0x10
        with pytest.raises(train.TrainingError, match=r"race\.jsonl"):
            begin(tmp_path, bytes(damaged))


def test_only_a_regular_file_is_read(tmp_path):
    path = tmp_path / "race.jsonl"
    for make, words in (
        (os.mkfifo, "must be a regular file, is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "must be a regular file, is a device"),
        (os.mkdir, "cannot be read: Is a directory"),
    ):
        make(path)
        with (
            pytest.raises(train.TrainingError, match=f"race.jsonl: {words}"),
            Record(tmp_path, CONFIG).begin(overwrite=False),
        ):
            pass
        path.rename(tmp_path / words)


# ---- The standings and the pictures -----------------------------------------------------------


def row(name, rate, seed, *losses, accuracy=None):
    return Row(name, rate, seed, (0, 10, 20), (4.0, *losses), accuracy, 1.0, 2.0)


ROWS = (
    row("a", 0.1, 0, 2.0, 1.0),
    row("a", 0.1, 1, 3.0, 2.0),
    row("a", 0.1, 2, 3.0, 6.0),
    row("a", 1.0, 0, 0.5, 0.1),
    row("a", 1.0, 1, math.inf, math.inf),
    row("a", 1.0, 2, math.inf, math.inf),
    row("b", 0.1, 0, 3.0, 3.0),
    row("b", 1.0, 0, 0.5, 1.5),
    row("b", 10.0, 0, 3.5, 3.0),
    row("c", 0.1, 0, math.inf, math.inf),
)


def test_standings_by_hand():
    b, a, c = Race(ROWS, target=2.0).standings()
    assert (a.optimizer, a.learning_rate, a.at_edge) == ("a", 0.1, "low")
    assert (a.loss, a.loss_range, a.diverged, a.runs) == (2.0, (1.0, 6.0), 2, 6)
    assert (a.steps_to_target, a.seconds_to_target) == (20, 1.0)  # 10, 20, never
    assert (b.learning_rate, b.at_edge, b.loss, b.steps_to_target) == (1.0, "", 1.5, 10)
    assert b.seconds_to_target == 0.5
    assert (c.at_edge, c.loss, c.steps_to_target, c.accuracy) == ("", math.inf, math.inf, None)
    assert a.accuracy_range is None and Race(ROWS).standings()[0].steps_to_target is None
    assert Race(ROWS[:2]).standings()[0].loss == 1.5  # of an even number, the mean of the middle


def test_accuracy_is_a_target_to_be_exceeded():
    rows = [row("a", 0.1, s, 1.0, 0.5, accuracy=(0.1, 0.7 + s / 10, 0.9 - s / 5)) for s in range(3)]
    (a,) = Race(tuple(rows), target=0.75).standings()
    assert a.accuracy == pytest.approx(0.7) and a.accuracy_range == pytest.approx((0.5, 0.9))
    assert a.steps_to_target == 10  # 20, 10, 10


def test_the_table_says_it():
    race = Race(ROWS, target=2.0, unit="nats")
    assert str(race) == race.table()
    lines = race.table().splitlines()
    assert lines[0].split() == [
        *("optimizer", "best", "rate", "loss", "(nats)", "range", "steps", "to", "2"),
        *("time", "(s)", "diverged"),
    ]
    assert lines[2].split() == ["1", "b", "1", "1.5", "10", "0.5", "0/3"]
    assert lines[3].split() == ["2", "a", "0.1", "<", "2", "1", "to", "6", "20", "1", "2/6"]
    assert lines[4].split() == ["3", "c", "0.1", "inf", "-", "-", "1/1"]
    assert lines[5] == "< unfinished: the smallest rate of the race; try smaller rates"
    assert lines[6].startswith("time: of the steps to the target, without comp") and len(lines) == 7


def drawn(figure, tmp_path):
    figure.savefig(tmp_path / "picture.png", dpi=40)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    (legend,) = figure.legends
    return figure.axes, [text.get_text() for text in legend.get_texts()]


def test_the_curves(tmp_path):
    axes, labels = drawn(Race(ROWS, target=2.0, title="a problem").curves(), tmp_path)
    assert labels == ["b, 1", "a, 0.1", "c, 0.1 (diverged)"]
    assert len(axes) == 1 and axes[0].get_xlabel() == "step"
    assert axes[0].get_ylabel() == "loss (log scale)" and "a problem" in axes[0].get_title("left")
    np.testing.assert_array_equal(axes[0].lines[1].get_ydata(), [4.0, 3.0, 2.0])  # medians
    scored = [r._replace(accuracy=(0.1, 0.5, 0.9)) for r in ROWS]
    axes, _ = drawn(Race(tuple(scored), target=0.8).curves(), tmp_path)
    assert [a.get_ylabel() for a in axes] == ["loss (log scale)", "accuracy (%)"]
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), [10, 50, 90])
    assert axes[1].texts[0].get_text() == "target 80"


def test_the_rates(tmp_path):
    axes, labels = drawn(Race(ROWS, unit="nats").rates(), tmp_path)
    assert labels == ["b", "a (unfinished)", "c"]
    strip, axes = axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_ylabel() == "final loss (nats, log scale)"
    best = [(x.get_marker(), x.get_xdata()[0]) for x in axes.lines if x.get_markersize() > 9]
    assert best == [("o", 1.0), ("<", 0.1), ("o", 0.1)]
    assert "triangle: the best so far, at an edge of the rates" in strip.get_title("left")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0.1, 1.0, 10.0])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [3.0, 1.5, 3.0])
    # what diverged stands above, in a row of its own for each optimizer
    assert [list(line.get_xdata()) for line in strip.lines] == [[1.0], [0.1]]
    assert len({tuple(line.get_ydata()) for line in strip.lines}) == 2
    whole = [r for r in ROWS if not r.diverged and r.learning_rate < 1]
    assert len(drawn(Race(tuple(whole)).rates(), tmp_path)[0]) == 1


@pytest.mark.parametrize("shift", [0.0, -1.0, -2.0, -math.inf])
def test_losses_of_any_sign_and_size_are_drawn(shift, tmp_path):
    """Zeros, negative ones, and none that is finite after the first."""
    lost = math.isinf(shift)
    moved = [
        r._replace(loss=(4.0, *(math.inf if lost else x + shift for x in r.loss[1:])))
        for r in ROWS[:3]
    ]
    race = Race(tuple(moved), target=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (race.curves(), race.rates()):
            axes = drawn(figure, tmp_path)[0]
            assert all(np.isfinite(a.get_ylim()).all() for a in axes)


def test_28_entrants_look_different(tmp_path):
    rows = [row(str(i), 0.1, 0, 2.0, 1.0) for i in range(28)]
    figure = Race(tuple(rows)).curves()
    looks = {(x.get_color(), x.get_linestyle(), x.get_marker()) for x in figure.axes[0].lines}
    assert len(looks) == 28
    drawn(figure, tmp_path)


def test_a_terminal_sees_the_progress(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress.display(4, lines=False) as shown:
        assert shown.live
        shown.step("sgd", "best loss 0.5", 3)
        (task,) = shown.bar.tasks
        assert (task.completed, task.total, task.description) == (3, 4, "sgd")
    short_race(["sgd"])
    assert "sgd: 4 runs, 2 rates from 0.1 to 0.3, in" in capsys.readouterr().out


def test_elsewhere_the_library_is_silent(capsys):
    short_race(["sgd"])
    assert capsys.readouterr() == ("", "")
