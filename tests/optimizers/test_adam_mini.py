"""The blocks of Adam-mini: which leaf has which, and what is refused."""

import pickle

import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"b": jnp.ones(3), "none": None, "q": {"kernel": jnp.ones((4, 6))}}


def shapes(blocks):
    parts = gradtx.adam_mini(1e-3, blocks=blocks).init(PARAMS)[0].inner_states
    return {name: [x.shape for x in jax.tree.leaves(s[0].nu)] for name, s in parts.items()}


def test_the_first_pattern_in_a_path_has_the_leaf():
    blocks = [("q/", (2, -1)), ("none", (7,)), ("kernel", (1, 1))]
    expected = {"q/": [(2, 6)], "none": [], "kernel": [], "one block": [(1,)]}
    assert shapes(blocks) == expected
    assert shapes(blocks[::-1])["kernel"] == [(1, 1)]


@pytest.mark.parametrize(
    ("pattern", "counts", "told"),
    [
        ("(", (1,), r"blocks must begin with regular expressions, got '\(': missing"),
        ("q", (1,), r"leaf q/kernel has shape \(4, 6\), .* of 'q' must .*, got \(1,\)"),
        ("q", (1, 5), r"leaf q/kernel .* a number that divides its size, or -1, got \(1, 5\)"),
        ("b", (0,), r"leaf b has shape \(3,\)"),
    ],
)
def test_blocks_that_do_not_fit(pattern, counts, told):
    with pytest.raises(ValueError, match=f"adam_mini: .*{told}"):
        gradtx.adam_mini(1e-3, blocks=[(pattern, counts)]).init(PARAMS)


def test_it_is_a_value():
    one, other = (gradtx.adam_mini(1e-3, blocks=[("q", [1, n])]) for n in (-1, 2))
    assert one == gradtx.adam_mini(1e-3, blocks=[("q", [1, -1])]) == pickle.loads(pickle.dumps(one))
    assert one != other


def test_blocks_of_no_elements_have_no_nan():
    params = {"w": jnp.zeros((0, 3))}
    for blocks in (None, [("w", (-1, 1))]):
        tx = gradtx.adam_mini(0.1, blocks=blocks)
        state = tx.update(params, tx.init(params), params)[1]
        assert not any(bool(jnp.any(jnp.isnan(x))) for x in jax.tree.leaves(state))
