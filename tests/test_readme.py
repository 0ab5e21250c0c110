"""The Python of the README and of the pages under `docs/` runs as it stands there."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from gradtx import catalog

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


# By the tests below.
RUN = {
    *("README.md", "catalog.md", "checkpoints.md", "choosing.md", "debugging.md", "devices.md"),
    *("matrices.md", "memory.md", "optax.md", "pieces.md", "speed.md", "start.md", "state.md"),
    "writing.md",
}


def blocks(page):
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


def block(page):
    """The one block of Python of a page."""
    (found,) = blocks(page)
    return found


def anchors(page):
    """The anchors of a page's headings, as they are made on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_every_page_is_in_the_contents_of_the_site():
    index = (ROOT / "docs" / "index.md").read_text()
    contents = "".join(re.findall(r"```{toctree}(.*?)```", index, re.S))
    listed = {f"{name}.md" for name in re.findall(r"^([\w-]+)$", contents, re.M)}
    assert listed == {page.name for page in PAGES[1:]} - {"index.md"}


def test_every_notebook_is_in_the_course():
    listed = set(re.findall(r"notebooks/(\w+)", (ROOT / "docs" / "learn.md").read_text()))
    assert listed == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_every_page_with_python_is_run():
    assert {page.name for page in PAGES if blocks(page)} == RUN


def test_every_picture_is_shown():
    shown = {
        link for page in PAGES for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
    }
    pictures = {path.name for path in (ROOT / "docs").glob("*.png")}
    assert {pathlib.Path(link).name for link in shown} == pictures


def test_the_readme_is_short():
    assert len(PAGES[0].read_text().splitlines()) <= 150


def table_of_the_readme():
    """The cells of the README's table against other libraries, by the first cell of their row."""
    _, text = PAGES[0].read_text().split("## Why not optax or torch.optim?")
    rows = [line.strip("|").split("|") for line in text.split("![")[0].splitlines() if "|" in line]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}


def test_figures_of_the_readme_stand_among_the_figures():
    table, figures = table_of_the_readme(), (ROOT / "docs" / "figures.md").read_text()
    found = {x for row in table.values() for cell in row for x in re.findall(r"\d+\.\d+", cell)}
    assert len(found) > 10
    missing = {x for x in found if not re.search(rf"(?<![\d.]){re.escape(x)}(?![\d.])", figures)}
    assert not missing


def test_number_of_optimizers():
    names = catalog.names()
    theirs = [name for name in names if hasattr(optax, name) or hasattr(optax.contrib, name)]
    ours, of_these, _ = table_of_the_readme()["number of optimizers"]
    assert (ours, of_these) == (str(len(names)), f"{len(theirs)} of these")


def test_the_training_step_descends():
    params = {"w": jnp.array([3.0, -2.0])}
    names = {"params": params, "loss": lambda p, batch: jnp.sum((p["w"] - batch) ** 2)}
    exec(block("README.md"), names)
    state = names["state"]
    before = names["loss"](params, 1.0)
    for _ in range(200):
        params, state = names["step"](params, state, 1.0)
    assert names["loss"](params, 1.0) < before
    assert state[1][-1].learning_rate > 0


def test_the_rule_is_lion():
    import gradtx

    names = {}
    rule, matrix, wrapper, codec, values = blocks("docs/writing.md")
    exec(rule, names)
    tx = gradtx.chain(names["scale_by_lion"](), gradtx.scale_by_learning_rate(0.1))
    state = tx.init(jnp.zeros(2))
    for g in ([1.0, -2.0], [-0.05, 3.0]):
        updates, state = jax.jit(tx.update)(jnp.array(g), state)
    # mu is (0.01, -0.02) after the first step; 0.9 * mu + 0.1 * g is (0.004, 0.282) at the second.
    np.testing.assert_allclose(updates, [-0.1, -0.1], rtol=1e-6)

    for skeleton in (matrix, wrapper, codec):
        exec(skeleton, names)
    g, square = jnp.array([[3.0, 4.0], [0.0, 2.0]]), names["scale_by_row_norm"]()
    rows, _ = jax.jit(square.update)(g, square.init(g))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)
    state = names["tx"].init(g)
    for factor in (1.0, 3.0, 9.0):
        updates, state = names["tx"].update(factor * g, state)
    np.testing.assert_allclose(updates, -0.9 * g, rtol=1e-6)
    assert gradtx.metrics(state) == {"long_steps": 2}
    moments = gradtx.decoded(names["small"].update(g, names["small"].init(g))[1])[0].mu
    np.testing.assert_allclose(moments, 0.1 * g, rtol=2**-7)

    exec(values, names)
    one, two = gradtx.sgd(0.1), gradtx.sgd(0.1)
    updates, _ = names["step"](one, jnp.ones(1), one.init(jnp.ones(1)), jnp.ones(1))
    names["step"](two, jnp.ones(1), two.init(jnp.ones(1)), jnp.ones(1))
    assert names["step"]._cache_size() == 1
    np.testing.assert_allclose(updates, [-0.1])


def test_a_plateau_reduces_a_learning_rate_that_is_too_large(capsys):
    names = {}
    exec(block("docs/catalog.md"), names)
    gradtx, booth = names["gradtx"], names["gradtx"].problems.booth
    assert names["value"] < 1e-6
    assert gradtx.hyperparams(names["state"])["plateau_scale"] == 0.5
    assert capsys.readouterr().out.rstrip().endswith(" 0.5")
    tx, params = gradtx.sgd(0.12), jnp.array([3.0, -2.0])
    state = tx.init(params)
    for _ in range(100):
        updates, state = tx.update(jax.grad(booth)(params), state, params)
        params = gradtx.apply_updates(params, updates)
    assert booth(params) > 1e6  # alone, it diverges


def test_a_state_is_seen_steered_saved_and_restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("docs/state.md"), names)
    gradtx, tx, params = names["gradtx"], names["tx"], names["params"]
    _, state = names["step"](params, tx.init(params), params)
    _, state = names["step"](params, state, params, learning_rate=5e-4)
    readings = gradtx.hyperparams(state)
    assert readings == {"train/count": 2, "train/learning_rate": np.float32(5e-4)}
    told = {"gradient_norm", "update_norm", "update_ratio", "skipped", "clipped"}
    assert set(gradtx.metrics(state)) == told and gradtx.metrics(state)["clipped"] == 2
    summary = gradtx.summary(tx, params)
    assert [group.frozen for group in summary.rows].count(True) == 1
    report = names["report"]
    assert len(report.loaded) == 17 and not (report.unexpected or report.reshaped)
    assert {name.split("/")[0] for name in report.missing} == {"apply_if_finite"}


def test_states_in_little_memory(capsys):
    names = {}
    first, *rest = blocks("docs/memory.md")
    exec(first, names)
    params, summary = names["params"], names["gradtx"].summary(names["tx"], names["params"])
    assert {"float32", "uint8"} <= set(summary.total.state_bytes)
    for found in rest:
        exec(found, names)
    held = sum(x.nbytes for x in jax.tree.leaves((names["half"], names["state"])))
    assert held < 5.1 * sum(x.size for x in jax.tree.leaves(params))


def test_the_bytes_of_all_optimizers_are_told():
    """Those that the table's command finds, of one matrix."""
    text = (ROOT / "docs" / "memory.md").read_text()
    (table,) = re.findall(r"<!-- bytes -->(.*?)<!-- /bytes -->", text, re.DOTALL)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert [*rows] == catalog.names()
    assert rows["adamw"] == "8.00 | 4.00 | 2.03 | 1.06"


def test_three_compositions(capsys):
    names = {}
    long_run, fine_tuning, ranger = blocks("docs/pieces.md")
    exec(long_run, names)
    gradtx, batch = names["gradtx"], jax.random.normal(jax.random.key(7), (99, 4))
    assert int(gradtx.metrics(names["state"])["skipped"]) == 1
    assert names["loss"](names["params"], batch) < 0.02
    exec(fine_tuning, names)
    found = [
        gradtx.averaged_params(names["state"], names["params"], name=name)
        for name in ("params_ema", "lawa")
    ]
    assert all(abs(x["bias"] - names["params"]["bias"]) < 0.05 for x in found)
    exec(ranger, names)
    np.testing.assert_array_equal(names["both"].slow["w"], names["both"].fast["w"])
    assert "lawa" in capsys.readouterr().out


def test_states_over_all_devices(tmp_path):
    names = {"folder": tmp_path}
    for found in blocks("docs/devices.md"):
        exec(found, names)
    gradtx, restored = names["gradtx"], names["restored"]
    assert gradtx.hyperparams(restored)["count"] == 1
    jax.tree.map(np.testing.assert_array_equal, names["state"], restored)
    devices, mu = jax.device_count(), restored[0].mu["up"]
    assert mu.sharding.is_equivalent_to(names["sharding"], 2)
    for name in ("state", "zero_state", "state_of_host"):
        for x in jax.tree.leaves(names[name]):
            part = x.size // devices if x.ndim else 1
            assert x.addressable_shards[0].data.size == part
            kind = "pinned_host" if x.ndim and name == "state_of_host" else "device"
            assert x.sharding.memory_kind == kind
    # The step of ZeRO is that of AdamW with the gradient of the mean.
    tx, params = gradtx.adamw(1e-3), {n: 0.1 * jnp.ones(s) for n, s in names["shapes"].items()}
    grads = jax.grad(names["loss_of_one"])(params, jnp.ones((32, 16)))
    updates, _ = tx.update(grads, tx.init(params), params)
    want = gradtx.apply_updates(params, updates)
    for name, x in names["whole"].items():
        np.testing.assert_allclose(x, want[name], rtol=1e-5)


@pytest.mark.thorough
def test_states_over_eight_devices():
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", __file__]
    flags = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    found = subprocess.run(
        [*command, "-k", "test_states_over_all_devices"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "1 passed" in found.stdout, found.stdout


def test_a_race_a_range_test_and_a_minimum(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("docs/choosing.md"), names)
    assert names["race"].optimizers == ["sgd", "momentum", "adam"]
    assert names["race"].standings()[0].loss < 0.1
    assert names["found"].why.startswith("converged")
    told = capsys.readouterr().out
    assert f"{names['test'].suggestion:.2g} is suggested" in told
    assert 0.02 < names["test"].suggestion < 0.1 and 25 < names["found"].steps < 50
    assert {path.name for path in tmp_path.iterdir()} == {"rates.png", "range.png"}


def test_the_first_optimizer(capsys):
    names = {}
    first, chained = blocks("docs/start.md")
    exec(first, names)
    assert names["value"] < 1e-5
    np.testing.assert_allclose(names["params"]["w"], [1.0, -2.0, 0.5, 3.0], atol=1e-2)
    exec(chained, names)
    assert names["gradtx"].hyperparams(names["state"]) == {"count": 1, "learning_rate": 0.0}


def test_coming_from_optax(capsys):
    names = {}
    for found in blocks("docs/optax.md"):
        exec(found, names)
    assert names["gradtx"].hyperparams(names["state"])["count"] == 0


def test_a_run_is_saved_and_its_optimizer_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    one, changed = blocks("docs/checkpoints.md")
    exec(one, names)
    assert names["run"]["epoch"] == 3
    jax.tree.map(np.testing.assert_array_equal, names["run"]["optimizer"], names["state"])
    exec(changed, names)
    assert not names["report"].unexpected
    assert {x.split("/")[0] for x in names["report"].missing} == {"apply_if_finite"}


def test_debugging(capsys):
    names = {}
    watched, *rest = blocks("docs/debugging.md")
    exec(watched, names)
    told = names["gradtx"].metrics(names["state"])
    assert int(told["skipped"]) == 1 and int(told["clipped"]) >= 10
    for found in rest:
        exec(found, names)
    assert "did you mean learning_rate?" in capsys.readouterr().out


def test_speed():
    names = {}
    for found in blocks("docs/speed.md"):
        exec(found, names)
    np.testing.assert_array_equal(names["counts"], range(1, 101))
