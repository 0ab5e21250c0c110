"""Which leaves are matrices: by the names and shapes of four libraries of layers."""

import pickle

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import MatrixAxes


def of(rows, columns):
    return MatrixAxes(tuple(rows), tuple(columns))


FLAX = {
    "params": {
        "Embed_0": {"embedding": (100, 8)},
        "wpe": {"embedding": (16, 8)},
        "block": {
            "attention": {
                "query": {"kernel": (8, 2, 4), "bias": (2, 4)},
                "out": {"kernel": (2, 4, 8), "bias": (8,)},
            },
            "LayerNorm_0": {"scale": (8,), "bias": (8,)},
            "output": {"dense": {"kernel": (8, 32)}},
        },
        "Conv_0": {"kernel": (3, 3, 4, 8)},
        "experts": {"kernel": (5, 8, 32)},
        "lm_head": {"kernel": (8, 100)},
        "output": {"kernel": (8, 100)},
    }
}
IN_FLAX = {
    "params/block/attention/query/kernel": of([0], [1, 2]),
    "params/block/attention/out/kernel": of([0, 1], [2]),
    "params/block/output/dense/kernel": of([0], [1]),
    "params/Conv_0/kernel": of([0, 1, 2], [3]),
    "params/experts/kernel": of([1], [2]),
}
HAIKU = {
    "transformer/embed": {"embeddings": (100, 8)},
    "transformer/h0/query": {"w": (8, 8), "b": (8,)},
    "transformer/conv2_d": {"w": (3, 3, 4, 8)},
    "logits": {"w": (8, 100)},
}
IN_HAIKU = {
    "transformer/h0/query/w": of([0], [1]),
    "transformer/conv2_d/w": of([0, 1, 2], [3]),
}


def found(shapes, **settings):
    tree = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    axes = gradtx.hidden_matrices(**settings)(tree)
    assert jax.tree.structure(axes, is_leaf=is_axes) == jax.tree.structure(tree)
    flat = jax.tree.leaves_with_path(axes, is_leaf=is_axes)
    return {"/".join(str(k.key) for k in path): x for path, x in flat if x is not None}


def is_axes(x):
    return x is None or isinstance(x, MatrixAxes)


def test_names_of_flax_and_haiku():
    assert found(FLAX) == IN_FLAX
    assert found(HAIKU) == IN_HAIKU


def test_heads_apart():
    apart = found(FLAX, heads="split")
    assert apart["params/block/attention/query/kernel"] == of([0], [2])
    assert apart["params/block/attention/out/kernel"] == of([1], [2])
    rest = {k for k in IN_FLAX if "attention" not in k}
    assert {k: apart[k] for k in rest} == {k: IN_FLAX[k] for k in rest}


def test_scanned_layers_have_one_axis_more():
    scanned = jax.tree.map(
        lambda shape: (6, *shape), FLAX["params"]["block"], is_leaf=lambda x: isinstance(x, tuple)
    )
    axes = found({"layers": scanned, "head": {"kernel": (6, 8, 9)}}, scanned="^layers/")
    assert axes == {
        "layers/attention/query/kernel": of([1], [2, 3]),
        "layers/attention/out/kernel": of([1, 2], [3]),
        "layers/output/dense/kernel": of([1], [2]),
    }


def test_outputs_first_where_leaves_are_called_weight():
    """Equinox and PyTorch; and the paths of nnx's variables."""
    shapes = {
        "mlp": {"weight": (32, 8), "bias": (32,)},
        "conv": {"weight": (8, 4, 3, 3)},
        "experts": {"weight": (5, 32, 8)},
        "embedding": {"weight": (100, 8)},
        "dense": {"kernel": {"value": (8, 32)}},
    }
    assert found(shapes) == {
        "mlp/weight": of([1], [0]),
        "conv/weight": of([1, 2, 3], [0]),
        "experts/weight": of([2], [1]),
        "dense/kernel/value": of([0], [1]),
    }


def test_users_leave_out_more():
    assert found(FLAX, others="experts|Conv") == {
        k: x for k, x in IN_FLAX.items() if "experts" not in k and "Conv" not in k
    }


def test_embeddings_and_outputs_if_the_method_takes_them():
    more = found(FLAX, embeddings_and_outputs=True)
    assert set(more) - set(IN_FLAX) == {
        "params/Embed_0/embedding",
        "params/wpe/embedding",
        "params/lm_head/kernel",
        "params/output/kernel",
    }
    in_equinox = {"embedding": {"weight": (100, 8)}, "head": {"weight": (100, 8)}}
    assert found(in_equinox, embeddings_and_outputs=True) == {
        "embedding/weight": of([0], [1]),
        "head/weight": of([1], [0]),
    }


def test_the_function_is_a_value():
    once, again = gradtx.hidden_matrices(scanned="layers"), gradtx.hidden_matrices(scanned="layers")
    assert once == again and hash(once) == hash(again)
    assert once != gradtx.hidden_matrices()
    assert pickle.loads(pickle.dumps(once)) == once
    assert gradtx.muon(0.1, muon_weight_dimension_numbers=once) == gradtx.muon(
        0.1, muon_weight_dimension_numbers=again
    )


def test_an_optimizer_of_matrices_with_it():
    params = {
        "embed": {"embedding": jnp.ones((5, 2))},
        "mlp": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    }
    tx = gradtx.muon(0.1, muon_weight_dimension_numbers=gradtx.hidden_matrices())
    state = tx.init(params)
    updates, new = jax.jit(tx.update)(params, state, params)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    of_muon = state.inner_states["muon"].inner_state[0].mu
    assert of_muon["embed"]["embedding"] == gradtx.MaskedNode()
    assert of_muon["mlp"]["kernel"].shape == (2, 3)
    # the first step of NAdam has one size
    assert float(jnp.ptp(updates["embed"]["embedding"])) == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"heads": "joined"}, "heads must be one of 'fused', 'split'"),
        ({"scanned": "("}, "scanned must be a regular expression, got '\\('"),
        ({"others": "["}, "others must be a regular expression, got '\\['"),
    ],
    ids=str,
)
def test_messages(given, told):
    with pytest.raises(ValueError, match=f"^hidden_matrices: {told}"):
        gradtx.hidden_matrices(**given)
