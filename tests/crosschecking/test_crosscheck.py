"""The cross-check finds what differs, and passes what does not."""

import re
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import catalog
from gradtx.__main__ import main
from gradtx.crosschecking import (
    KNOWN,
    Comparison,
    Known,
    check_known,
    comparison_table,
    crosscheck_catalog,
    factory_of,
    known_differences,
    sample_loss,
    settings,
)
from gradtx.interop.importing import VERSION

PARAMS = {"w": jnp.ones((2, 3)), "half": jnp.ones(4, jnp.bfloat16), "none": None}
BOTH = [entry.name for entry in catalog.entries() if factory_of(optax, entry.name)]


# Masks, dtypes, words and transformations, and what only another one gives a meaning.
STAY = {
    *("mask", "weight_decay_mask", "mu_dtype", "accumulator_dtype", "dtype_momentum"),
    *("variant", "linesearch", "seed", "weight_decay_rate", "betas", "init_step", "ns_coeffs"),
    *("preconditioning", "muon_weight_dimension_numbers", "clip_value_fn"),
    *("warmup_steps", "state_dtype", "hessian_diagonal_fn"),
    *("base_optimizer", "weight_dimension_numbers"),
}


@pytest.mark.slow  # tests/test_references.py compares float64 trajectories in less time
@pytest.mark.parametrize("name", BOTH)
def test_agrees_with_optax_in_float64_or_differs_as_documented(name):
    (row,) = crosscheck_catalog(optax, [name])
    assert row.ok, comparison_table([row])
    assert row.agrees == (not known_differences(name).always)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_every_hyperparameter_moved_in_turn(name):
    rows = crosscheck_catalog(optax, [name], every_setting=True)
    entry = catalog.get(name)
    flags = {name for name, x in entry.hyperparameters.items() if isinstance(x, bool)}
    moved = set(entry.hyperparameters) - (STAY - flags) - set(known_differences(name).refuses)
    assert {row.name.split()[-1].split("=")[0] for row in rows[1:]} == moved
    assert all(row.ok for row in rows), comparison_table(rows)


def test_a_loss_gives_each_its_own_gradients():
    """What is off by a factor takes another way, and meets other gradients there."""
    params = {"w": jnp.zeros(3), "h": jnp.zeros(2, jnp.bfloat16)}
    same = gradtx.crosscheck(gradtx.lbfgs(), optax.lbfgs(), params, steps=20, loss=sample_loss)
    assert same.ok and same.float64 < 1e-12
    row = gradtx.crosscheck(gradtx.sgd(0.01), optax.sgd(0.02), params, steps=20, loss=sample_loss)
    assert not row.ok


def test_finds_one_wrong_digit_in_a_hyperparameter():
    row = gradtx.crosscheck(gradtx.adam(1e-3), optax.adam(1e-3, b2=0.99900001), PARAMS, steps=20)
    assert not row.ok
    assert 1e-10 < row.float64 < 1e-4
    assert "DIFFERS at params" in str(row)


def test_finds_a_step_count_that_is_off_by_one():
    mine = gradtx.adam(lambda count: 0.1 / (count + 1))
    theirs = optax.adam(lambda count: 0.1 / (count + 2))
    row = gradtx.crosscheck(mine, theirs, PARAMS, steps=5)
    assert not row.ok
    assert row.where.endswith("step 0")  # the ratio of rates is farthest from 1 there


def test_a_documented_difference_that_is_not_there_fails():
    row = gradtx.crosscheck(gradtx.sgd(0.1), optax.sgd(0.1), PARAMS, steps=5, note="is faster")
    assert row.agrees
    assert not row.ok


def test_nan_is_no_agreement():
    poison = gradtx.stateless(lambda u, p: {**u, "w": u["w"] * jnp.nan})
    row = gradtx.crosscheck(gradtx.identity(), poison, PARAMS, steps=2)
    assert not row.ok
    assert row.float64 == np.inf
    row = gradtx.crosscheck(poison, gradtx.identity(), PARAMS, steps=2)
    assert not row.ok


def test_poor_rounding_of_ours_fails():
    def coarse(updates, params):
        rounded = updates["w"].astype(jnp.bfloat16) if updates["w"].dtype == jnp.float32 else None
        return updates if rounded is None else {**updates, "w": rounded.astype(jnp.float32)}

    row = gradtx.crosscheck(gradtx.stateless(coarse), gradtx.identity(), PARAMS, steps=3)
    assert row.agrees
    assert row.single_errors[0] > 1000
    assert not row.ok


def test_refuses_integers_by_name():
    params = {"n": jnp.arange(3)}
    with pytest.raises(TypeError, match=r"params\['n'\] must be floating, got int32"):
        gradtx.crosscheck(gradtx.identity(), gradtx.identity(), params)


def test_known_differences_are_of_something_that_is_there():
    check_known(KNOWN)
    assert known_differences("rprop").always and known_differences("adam") == Known()
    with pytest.raises(catalog.UnknownOptimizer, match="did you mean"):
        known_differences("adma")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"adma": Known()}, "no optimizer is named 'adma'"),
        ({"adam": Known(when={"beta1": "is another"})}, "adam has no hyperparameter 'beta1'"),
        ({"adam": Known(refuses=("float8",))}, "'float8' is neither a hyperparameter of adam nor"),
    ],
)
def test_known_differences_of_nothing_are_refused(table, message, monkeypatch):
    with pytest.raises(ValueError, match=message):
        check_known(table)
    monkeypatch.setattr("gradtx.crosschecking.library.KNOWN", table)
    with pytest.raises(ValueError, match=message):
        crosscheck_catalog(optax, ["sgd"])


def test_settings_move_each_hyperparameter_once():
    labels = [label for label, _ in settings(catalog.get("rmsprop"))]
    assert labels[0] == ""
    moved = [label.split("=")[0] for label in labels[1:]]
    assert moved == list(catalog.get("rmsprop").hyperparameters)
    assert ("memory_size=6", {**catalog.get("lbfgs").probe, "memory_size": 6}) in settings(
        catalog.get("lbfgs")
    )
    base, *variants = (setting for _, setting in settings(catalog.get("adam")))
    for name, variant in zip(catalog.get("adam").hyperparameters, variants, strict=False):
        changed = {k for k in {*base, *variant} if base.get(k) != variant.get(k)}
        assert changed == {name} or name == "mu_dtype"


def test_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["crosscheck", "sgd", "rprop", "--steps", "5"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^sgd .* agrees$", out, re.M)
    assert re.search(r"^rprop .* inf .* optax steps by the previous gradient's sign$", out, re.M)
    assert out.count("\ninf: updates that are not finite, or not zero where they should be.") == 1
    assert main(["crosscheck", "sgd", "--steps", "5"]) == 0
    assert "inf" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adma"], "did you mean"),
        (["momentum"], "optax has no optimizer named 'momentum'"),
        (["adam", "--steps", "0"], "--steps must be at least 1, got 0"),
    ],
)
def test_command_says_what_is_wrong(arguments, message, capsys):
    assert main(["crosscheck", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_version_of_optax_is_named_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optax", None)
    assert main(["crosscheck", "adam"]) == 2
    err = capsys.readouterr().err
    assert f"pip install 'gradtx[crosscheck]', or optax=={VERSION}, the version" in err
    pinned = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'crosscheck = ["optax=={VERSION}"]' in pinned and pinned.count("optax==") == 1
    other = types.SimpleNamespace(__version__="0.1", sgd=optax.sgd)
    monkeypatch.setitem(sys.modules, "optax", other)
    assert main(["crosscheck", "sgd", "--steps", "2"]) == 0
    assert f"this is optax 0.1; the known differences are those of optax {VERSION}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_comparison_fits_into_the_terminal(width, monkeypatch, capsys):
    rows = [Comparison("optimistic_adam_v2", 1e-9, "", 9.5, (1, 1e9), (2, np.inf), note="as " * 9)]
    monkeypatch.setattr("gradtx.__main__.crosscheck_catalog", lambda *args, **kwargs: rows)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["crosscheck"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    words = re.findall(r"[^\s-]+", out)
    assert {"optimistic_adam_v2", "inf:", "Ulps", "trajectory."} <= set(words)
    assert words.count("as") >= 9


def test_command_fails_if_a_row_fails(monkeypatch, capsys):
    monkeypatch.setattr(optax, "sgd", lambda **kwargs: optax.adam(0.1))
    assert main(["crosscheck", "sgd", "--steps", "3"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 50, 200])
def test_list_shows_the_catalog(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= columns
    entries = text.strip().split("\n\n")
    assert [entry.split()[0] for entry in entries] == catalog.names()
    for told, entry in zip(entries, catalog.entries(), strict=True):
        words = " ".join(told.split())  # nothing is cut, only wrapped
        assert words.endswith(f"{entry.summary} {entry.source}")
        assert all(need in words for need in entry.needs)
        assert ("only real" in words) != entry.takes_complex
    assert main(["list", "--markdown"]) == 0
    assert f"| `{catalog.names()[0]}` |" in capsys.readouterr().out


def test_list_shows_what_is_named(capsys):
    assert main(["list", "adam", "lion"]) == 0
    out = capsys.readouterr().out
    assert catalog.get("lion").source.split(",")[0] in out and "adamw" not in out
    assert main(["list", "--markdown", "lion"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert main(["list", "adma"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gradtx list: no optimizer is named 'adma'; did you mean")


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"gradtx {gradtx.__version__}\n"
