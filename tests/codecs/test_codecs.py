"""Codecs: their error, what they keep exactly, and their blocks."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from declared_error import LIMITED, NORMAL, bound_of
from hypothesis import example, given, settings, strategies as st
from one_program import one_program

import gradtx
from gradtx.codecs import CODECS, blocks, nearest, random_bits

SHAPE = (2, 64)  # each row is a block of all codecs that have blocks
SHAPES = [SHAPE, (70,), (96, 5), (2, 3, 1), (4, 128), ()]
"""Whole blocks, a vector with padding, blocks of an inner axis, of one row, of 128; a scalar."""

LARGEST = float(jnp.finfo(jnp.float32).max)


def magnitudes(seed, low, span, shape):
    """Numbers from `2**low` to `2**(low + span)`, in their logarithm uniform; some are zero."""
    random = np.random.default_rng(seed)
    x = np.asarray(2.0 ** (low + span * random.uniform(size=shape)))
    x[random.uniform(size=shape) < 0.1] = 0
    x[random.uniform(size=shape) < 0.1] = 2.0**low
    return np.minimum(x, LARGEST).astype(np.float32)


few = settings(max_examples=20, deadline=None, derandomize=True)
coder = {
    name: one_program(lambda x, seed=None, codec=codec: through(codec, x, seed))
    for name, codec in CODECS.items()
}


def through(codec, x, seed):
    bits = None if seed is None else random_bits(seed, x.shape)
    return codec.decode(codec.encode(x, bits), x.shape)


def signs_of(name, x):
    return (
        x
        if name.startswith("u")
        else x * np.where(np.arange(x.size) % 3 == 0, -1, 1).reshape(x.shape).astype(x.dtype)
    )


@pytest.mark.parametrize("name", CODECS)
@few
@given(
    seed=st.integers(0, 2**32 - 1),
    low=st.integers(-126, 128),
    span=st.sampled_from([0, 1, 8, 30, 100, 250]),
    shape=st.sampled_from(SHAPES),
)
@example(seed=0, low=128, span=0, shape=SHAPE)
@example(seed=0, low=127, span=1, shape=SHAPE)
@example(seed=0, low=-126, span=0, shape=SHAPE)
def test_the_error_is_within_the_declared_one(name, seed, low, span, shape):
    """From the smallest normal number to the largest finite one."""
    codec, x = CODECS[name], magnitudes(seed, low, span, shape)
    if name.removesuffix("_stochastic") in (*LIMITED, "bfloat16"):
        x = np.minimum(x, np.float32(jnp.finfo(jnp.dtype(name.split("_st")[0])).max))
    x = signs_of(name, x)
    bound = bound_of(CODECS[name], x)
    for times, more in {1: {}, 2: {"seed": np.uint32(seed)}}.items():
        if times == 1 or codec.stochastic:
            found = np.asarray(coder[name](x=x, **more), np.float64)
            assert (np.abs(found - x) <= times * bound).all()
            if name.startswith("u"):
                assert (found[x > 0] >= NORMAL).all()


@pytest.mark.parametrize("name", CODECS)
def test_finite_numbers_stay_finite(name):
    """Those above the range of a dtype without a scale become its largest number."""
    x = signs_of(name, np.linspace(3e38, LARGEST, 128, dtype=np.float32).reshape(SHAPE))
    x[1, 0] = LARGEST
    short = name.removesuffix("_stochastic")
    most = LARGEST if "int" in name else float(jnp.finfo(jnp.dtype(short)).max)
    wanted = np.clip(x, -most, most)
    for more in ({}, *({"seed": np.uint32(seed)} for seed in range(8))):
        found = np.asarray(coder[name](x=x, **more))
        assert np.isfinite(found).all()
        error = np.abs(found.astype(np.float64) - wanted)
        assert (error <= 2 * bound_of(CODECS[name], wanted)).all()
    if short in LIMITED or short == "bfloat16":  # from the last number of the dtype to the next
        x[:] = np.linspace(1, 1 + float(jnp.finfo(short).eps) / 2, 64, endpoint=False) * most
        for seed in range(8):
            found = np.asarray(coder[name](x=np.minimum(x, LARGEST), seed=np.uint32(seed)))
            np.testing.assert_array_equal(found, np.float32(most))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("jitted", [True, False])
def test_numbers_that_are_not_normal(name, jitted):
    """XLA on CPUs takes them for zero: they become that, or at most the smallest normal number.

    Unsigned codes make them normal, so that no second moment that is positive divides by zero.
    """
    x = np.full(SHAPE, 1e-45, np.float32)
    x[0, ::3], x[0, 1::3], x[1, 5] = 1e-40, np.nextafter(np.float32(NORMAL), 0), NORMAL
    x = signs_of(name, x)
    code = jax.jit(lambda x, seed: through(CODECS[name], x, seed))
    for seed in (None, *np.arange(4, dtype=np.uint32)):
        if jitted:
            found = np.asarray(code(x, seed))
        else:
            with jax.disable_jit():
                found = np.asarray(through(CODECS[name], jnp.asarray(x), seed))
        exact, error = x.astype(np.float64), 2 * bound_of(CODECS[name], x) + NORMAL
        assert (np.abs(found.astype(np.float64) - exact) <= error).all()
        assert not np.isnan(found).any()
        if name.startswith("u"):
            assert (found >= NORMAL).all()
            assert np.isfinite(jax.jit(jax.lax.rsqrt)(found)).all()


@pytest.mark.parametrize("name", CODECS)
def test_what_is_kept_exactly(name):
    """Zeros are zero, what is rounded to nearest stays where it is, and infinity is not finite."""
    x = np.zeros(SHAPE, np.float32)
    assert not np.asarray(coder[name](x=x)).any()
    x[0] = np.geomspace(1e-3, 4, 64)
    once = coder[name](x=x)
    np.testing.assert_array_equal(once[1], 0)
    np.testing.assert_allclose(coder[name](x=once), once, rtol=2**-20)
    for special in (np.inf, np.nan):
        x[0, 3] = special
        found = np.asarray(coder[name](x=x))
        assert not np.isfinite(found[0, 3])
        np.testing.assert_array_equal(found[1], 0)
        if "8" in name and name.removeprefix("u").startswith("int"):
            np.testing.assert_equal(found[0, 3], special)
            np.testing.assert_array_equal(found[0, 4:], np.asarray(once)[0, 4:])


@pytest.mark.parametrize("name", ["uint8", "uint4"])
def test_one_huge_second_moment_leaves_the_others_positive(name):
    x = np.full(SHAPE, 1e-12, np.float32)
    x[0, 0] = 1e12
    for seed in range(8):
        assert (np.asarray(coder[name](x=x, seed=np.uint32(seed))) > 0).all()
    tiny = np.full(SHAPE, 2.0**-126, np.float32)
    assert (np.asarray(coder[name](x=tiny)) > 0).all()


@pytest.mark.parametrize("name", ["uint8", "uint4"])
def test_negative_numbers_are_no_second_moments(name):
    x = np.ones(SHAPE, np.float32)
    x[0, 0] = -1e-6  # a rounding error
    assert coder[name](x=x)[0, 0] == 0
    x[0, 1] = -0.5
    found = np.asarray(coder[name](x=x))
    assert np.isnan(found[0, 1])
    np.testing.assert_array_equal(found[1], 1)


@pytest.mark.parametrize("name", [n for n, codec in CODECS.items() if codec.stochastic])
def test_stochastic_rounding_is_unbiased(name):
    """The mean of many draws is within five standard errors of each entry."""
    draws = 4096
    x = np.broadcast_to(np.linspace(0.3, 1, 64, dtype=np.float32), SHAPE)
    each = jax.jit(jax.vmap(lambda seed: through(CODECS[name], x, seed)))
    found = np.asarray(each(jnp.arange(draws, dtype=jnp.uint32)), np.float64)
    error = np.abs(found.mean(axis=0) - x)
    assert (error <= 5 * found.std(axis=0) / draws**0.5 + 2.0**-20).all()
    assert found.std(axis=0).max() > 0
    # neighbours, and neighbouring seeds, are rounded independently
    moved = (found - found.mean(axis=0))[:, 0]
    scale = np.maximum(moved.std(axis=0), 1e-9)
    near = np.abs((moved[:, 1:] * moved[:, :-1]).mean(axis=0) / scale[1:] / scale[:-1])
    after = np.abs((moved[1:] * moved[:-1]).mean(axis=0) / scale**2)
    assert max(near.max(), after.max()) < 6 / draws**0.5


def test_random_bits_are_those_of_an_entry():
    """However long the array is, and uniform."""
    bits = np.asarray(random_bits(jnp.uint32(7), (512, 8)))
    np.testing.assert_array_equal(bits[:100], random_bits(jnp.uint32(7), (100, 8)))
    ones = np.unpackbits(bits.view(np.uint8)).reshape(-1, 8).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / bits.size**0.5


@pytest.mark.parametrize(
    ("shape", "most", "found"),
    [
        ((3, 1024), 64, (1, 64)),
        ((768, 67), 64, (0, 64)),
        ((5, 100, 3), 64, (1, 50)),
        ((3, 3, 64, 10), 64, (2, 64)),
        ((48, 20), 64, (0, 48)),
        ((7, 11), 64, (None, 64)),
        ((), 64, (None, 64)),
        ((101,), 64, (None, 64)),
        ((101,), 128, (0, 101)),
    ],
)
def test_blocks_are_parts_of_an_axis(shape, most, found):
    cut = blocks.blocks_of(shape, most)
    assert (cut.axis, cut.size) == found
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    split = cut.split(jnp.asarray(x))
    assert split.shape[cut.within] == cut.size
    np.testing.assert_array_equal(cut.join(split), x)
    largest = cut.largest(split)
    np.testing.assert_array_equal(largest, np.max(split, axis=cut.within, keepdims=True))


def test_codecs_are_values():
    """A state that was pickled has the structure of a new one."""
    assert pickle.loads(pickle.dumps(CODECS)) == CODECS
    assert len({*CODECS.values()}) == len(CODECS)
    state = gradtx.store(gradtx.adam(0.1), {"mu": "int8"}, min_size=1).init(jnp.zeros(2))
    assert jax.tree.structure(pickle.loads(pickle.dumps(state))) == jax.tree.structure(state)


def test_unknown_codecs_are_refused():
    with pytest.raises(ValueError, match=r"store: a codec must be .*bfloat16.*got 'int7'"):
        gradtx.store(gradtx.adam(0.1), {"mu": "int7"})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_rounding_to_nearest_is_that_of_conversions(dtype):
    """Of all sizes that the dtype has, those below the normal ones included, and above them."""
    random = np.random.default_rng(0)
    low = -28 if dtype == "float16" else -124
    x = (random.normal(size=4096) * 2.0 ** random.integers(low, 126, 4096)).astype(np.float32)
    ties = np.asarray(jnp.arange(2049, 4096, 2) / 2**30, np.float32)  # of float16
    x = np.concatenate([x, ties, -ties, [0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = x.astype(jnp.dtype(dtype)).astype(np.float32)
    x, wanted = (np.where(np.abs(each) < NORMAL, 0, each) for each in (x, wanted))
    found = jax.jit(lambda x: nearest(x.astype(dtype).astype(jnp.float32), dtype))(x)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(nearest(jnp.asarray(x), dtype), wanted)
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(jax.grad(lambda x: nearest(x, dtype))))(x[:9]), 1
    )
