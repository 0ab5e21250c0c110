"""gradtx in the place of optax, and as an instance of optax's classes."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.interop import command, importing

ROOT = Path(__file__).parents[2]

# What published programs import from private modules, and what optax's public modules are.
PROGRAM = """
import importlib.metadata, importlib.util, sys
import jax.numpy as jnp
import optax
import optax.contrib
import optax.losses as losses
from optax import tree_utils
from optax._src import base, utils
from optax._src.base import (
    EmptyState, GradientTransformation, GradientTransformationExtraArgs, OptState, Params, Updates,
    init_empty_state,
)
from optax._src.combine import chain
from optax._src.numerics import abs_sq, safe_int32_increment, safe_norm
from optax._src.transform import ScaleByAdamState, add_decayed_weights, scale_by_learning_rate
from optax._src.update import apply_updates
from optax._src.utils import canonicalize_dtype
from optax._src.wrappers import MultiStepsState
from optax.contrib._muon import MuonDimensionNumbers, muon, orthogonalize_via_newton_schulz
from optax.experimental import aggregating
from optax.transforms._masking import MaskedNode
import gradtx

assert optax.adam is gradtx.adam and optax.contrib.muon is muon is gradtx.muon
assert losses.l2_loss is optax.losses.l2_loss is gradtx.losses.l2_loss
assert optax.tree.norm is tree_utils.tree_norm is gradtx.tree.norm
assert MaskedNode is gradtx.MaskedNode
assert aggregating is optax.experimental.aggregating
assert aggregating.process is gradtx.experimental.aggregating.process
assert optax._src.transform.ScaleByAdamState is ScaleByAdamState is gradtx.ScaleByAdamState
assert isinstance(optax.adam(1.0), (GradientTransformation, GradientTransformationExtraArgs))
assert base.NO_PARAMS_MSG and canonicalize_dtype(None) is None
assert canonicalize_dtype(float) == utils.cast_tree(jnp.ones(()), "float32").dtype
x = orthogonalize_via_newton_schulz(jnp.diag(jnp.array([3.0, -1.0])), ((2, -1.5, 0.5),) * 10)
assert jnp.allclose(x, jnp.diag(jnp.array([1.0, -1.0])), atol=1e-5)
assert optax.__version__ == importlib.metadata.version("optax") == "0.2.8"
assert importlib.util.find_spec("optax") and not importlib.util.find_spec("optax.absent")
assert not hasattr(optax, "absent") and not hasattr(optax, "_private")
gradtx.as_optax()  # changes nothing
assert isinstance(gradtx.to_optax(optax.sgd(1.0)), optax.GradientTransformationExtraArgs)
assert __name__ == "__main__" and sys.argv[1:] == ["-m", "x"], sys.argv
print("all is well")
sys.exit(3)
"""


def run(*arguments, folder):
    argv = [sys.executable, "-m", "gradtx.as_optax", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(argv, capture_output=True, text=True, cwd=folder, env=environment)
    return result.returncode, result.stdout, result.stderr


def test_a_program_gets_gradtx_for_optax(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    code, out, err = run("program.py", "-m", "x", folder=tmp_path)
    assert (code, out) == (3, "all is well\n"), err


def test_a_module_gets_gradtx_for_optax(tmp_path):
    (tmp_path / "beside.py").write_text("import optax; name = optax.adam.__module__")
    (tmp_path / "module.py").write_text("import sys, beside; print(beside.name, sys.argv[1:])")
    code, out, err = run("-m", "module", "-x", folder=tmp_path)
    assert (code, out) == (0, "gradtx.optimizers._adam ['-x']\n"), err


@pytest.mark.parametrize(
    "arguments, said",
    [([], "usage: "), (["-m"], "usage: "), (["absent.py"], "there is no file absent.py")],
)
def test_without_a_program(arguments, said, capsys):
    assert command.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_as_optax_comes_too_late():
    finders = [*sys.meta_path]
    with pytest.raises(RuntimeError, match=r"already imported, from .*optax/__init__\.py; call"):
        gradtx.as_optax()
    assert sys.meta_path == finders


def test_to_optax_has_optax_class():
    params, grads = jnp.ones(3), jnp.array([1.0, -2.0, 0.5])
    tx = gradtx.adam(0.1)
    theirs = gradtx.to_optax(tx)
    assert isinstance(theirs, optax.GradientTransformationExtraArgs)
    assert (theirs.init, theirs.update) == (tx.init, tx.update)
    state = theirs.init(params)
    assert jnp.array_equal(
        theirs.update(grads, state, params, value=1.0)[0], tx.update(grads, state, params)[0]
    )
    chained = optax.chain(theirs, gradtx.to_optax(optax.scale(2.0)))
    updates, _ = chained.update(grads, chained.init(params), params, value=1.0)
    assert jnp.allclose(updates, 2 * tx.update(grads, state, params)[0])


def test_to_optax_without_optax(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match="to_optax: needs optax"):
        gradtx.to_optax(gradtx.adam(0.1))


def test_the_name_of_pytrees():
    assert gradtx.ArrayTree is gradtx.engine.base.PyTree


def test_the_version_is_that_of_the_oracle():
    assert importing.VERSION == optax.__version__ == importlib.metadata.version("optax")


class Variable:
    """A container of an array, as flax's mutable variables are: JAX cannot compile for it."""

    shape, dtype, ndim, size = (2, 2), jnp.dtype("float32"), 2, 4

    def __jax_array__(self):
        return jnp.ones((2, 2))


@pytest.mark.parametrize("name", ["adam", "sgd", "lion", "adafactor", "muon", "prodigy", "dog"])
def test_variables_as_parameters(name):
    """`init` sees the variables of a model, `update` the arrays in them."""
    tx = getattr(gradtx, name)(0.1)
    state, wanted = tx.init({"w": Variable()}), tx.init({"w": jnp.ones((2, 2))})
    assert jax.tree.structure(state) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert jnp.array_equal(x, y) and x.dtype == y.dtype
