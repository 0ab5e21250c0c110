"""ACProp, AdEMAMix, ADOPT and MADGRAD: what is special to each, and where optax differs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import OPTIMIZERS
from test_conformance import walk
from test_references import make_problem, run, wanted_steps

import gradtx

contrib = optax.contrib


def first_steps(tx, gradients, start=0.0):
    params = jnp.full((), start)
    return np.array(run(tx, [jnp.asarray(g) for g in gradients], params))


# ---- ACProp ---------------------------------------------------------------------------------


def test_acprop_centres_by_the_average_with_this_gradient(x64):
    """The second step divides by how far the first gradient is from the average that it made."""
    settings = {"b1": 0.9, "b2": 0.5, "eps": 0.0, "eps_root": 0.0}
    ours = first_steps(gradtx.scale_by_acprop(**settings), [4.0, 4.0])
    theirs = first_steps(contrib.scale_by_acprop(**settings), [4.0, 4.0])
    np.testing.assert_allclose(ours, [4.0, 1 / 0.9], rtol=1e-14)
    np.testing.assert_allclose(theirs, [4.0, 1.0], rtol=1e-14)  # from 0, where it was before


def test_acprop_is_optax_where_the_average_stands_still(x64):
    """With a decay of 1, the average is 0 before this gradient and after it."""
    start, gradients = make_problem("acprop", np.float64, True)
    settings = {"b1": 1.0, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-2, "weight_decay": 0.1}
    ours = run(gradtx.acprop(0.1, **settings), gradients, start)
    theirs = run(contrib.acprop(0.1, **settings), gradients, start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, theirs)


def test_acprop_in_float16_after_a_zero_gradient():
    """eps_root = 1e-16 is 0 in float16, and the second step infinite; in float32 it is not."""
    g = [jnp.zeros((), jnp.float16), jnp.full((), 1e-3, jnp.float16)]
    assert np.isinf(run(contrib.acprop(1e-3), g, jnp.zeros((), jnp.float16))[-1])
    np.testing.assert_allclose(
        run(gradtx.acprop(1e-3), g, jnp.zeros((), jnp.float16))[-1], -3.16, rtol=2e-3
    )


# ---- AdEMAMix -------------------------------------------------------------------------------


def test_ademamix_keeps_the_slow_average_exactly():
    """1 - 0.9999 is taken in double: in float32 it would be off by 2e-4."""
    tx = gradtx.scale_by_ademamix(b3=0.9999)
    _, state, _ = walk(tx, jnp.ones(()), [jnp.ones(())])
    np.testing.assert_allclose(state.m2, 1e-4, rtol=2e-7)


def test_ademamix_in_bfloat16_does_not_stall():
    """A slow average of 1 in steps of 1e-4: after 3,000, 0.2592."""
    one = jnp.ones((), jnp.bfloat16)

    def slow_average(library):
        tx = library.scale_by_ademamix()
        first = tx.init(one)
        step = lambda s, _: (tx.update(one, s)[1], None)  # noqa: E731
        return float(jax.jit(lambda s: jax.lax.scan(step, s, length=3000))(first)[0].m2)

    assert slow_average(contrib) < 0.05
    np.testing.assert_allclose(slow_average(gradtx), 1 - 0.9999**3000, rtol=1e-4)


def test_ademamix_schedules_go_by_a_count_of_their_own(x64):
    """Set to 0, they begin again, as after a run with Adam; bias corrections go on."""
    settings = {"b3": lambda t: 0.5 + 0.1 * t, "alpha": lambda t: 1.0 + t}

    def third_step(library):
        tx = library.scale_by_ademamix(**settings)
        _, state, p = walk(tx, jnp.ones(()), [jnp.array(2.0), jnp.array(3.0)])
        assert int(state.count) == int(state.count_m2) == 2
        state = state._replace(count_m2=jnp.zeros((), jnp.int32))
        updates, state = tx.update(jnp.array(1.0), state, p)
        assert (int(state.count), int(state.count_m2)) == (3, 1)
        return float(updates)

    np.testing.assert_allclose(third_step(gradtx), third_step(contrib), rtol=1e-14)


def test_ademamix_stores_both_averages_in_the_dtype_that_is_asked_for():
    state = gradtx.scale_by_ademamix(mu_dtype=jnp.bfloat16).init(jnp.ones(2))
    assert (state.m1.dtype, state.m2.dtype, state.nu.dtype) == (jnp.bfloat16,) * 2 + (jnp.float32,)


def test_simplified_ademamix_turns_with_a_complex_gradient_where_optax_squares_it(x64):
    z, turn = jnp.array([3.0 + 4.0j, 1.0 - 2.0j]), np.exp(1j)

    def step(library, z):
        return np.asarray(walk(library.scale_by_simplified_ademamix(), z, [z, z])[0])

    np.testing.assert_allclose(step(gradtx, turn * z), turn * step(gradtx, z), rtol=1e-12)
    assert not np.allclose(step(contrib, turn * z), turn * step(contrib, z))


# ---- ADOPT ----------------------------------------------------------------------------------


def test_adopt_bounds_what_is_averaged():
    """A first gradient that is small by chance, and then one a million times as large."""
    gradients = [1e-6, 1.0, 1.0]
    free = first_steps(gradtx.scale_by_adopt(b1=0.0, use_clipping=False, eps=0.0), gradients)
    bound = first_steps(gradtx.scale_by_adopt(b1=0.0), gradients)
    np.testing.assert_allclose(free[:2], [0.0, 1e6], rtol=1e-5)
    np.testing.assert_allclose(bound, [0.0, 1.0, 2**0.25], rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_adopt_turns_with_complex_gradients_which_optax_refuses(nesterov, x64):
    z, turn = jnp.array([3.0 + 4.0j, 1.0 - 2.0j, 0.1j]), np.exp(1j)
    gradients = [z, 3 * z, -z / 2]
    tx = gradtx.scale_by_adopt(nesterov=nesterov)
    plain, turned = (np.array(run(tx, [c * g for g in gradients], z)) for c in (1, turn))
    np.testing.assert_allclose(turned, turn * plain, rtol=1e-12)
    assert np.all(np.abs(plain[1]) <= 0.1 + 0.9 * nesterov + 1e-12)
    with pytest.raises(ValueError, match="Complex values have no ordering"):
        run(contrib.scale_by_adopt(), gradients, z)


def test_adopt_without_eps_stays_finite_where_optax_divides_by_zero():
    gradients = [0.0, 0.0, 1.0]
    settings = {"eps": 0.0, "use_clipping": False}
    assert np.isnan(first_steps(contrib.scale_by_adopt(**settings), gradients)[1])
    assert np.all(np.isfinite(first_steps(gradtx.scale_by_adopt(**settings), gradients)))


# ---- MADGRAD --------------------------------------------------------------------------------


def test_madgrad_stands_still_at_rate_0_where_optax_adds_eps():
    p, g = jnp.ones(2), jnp.array([1.0, 8.0])

    def step(library):
        tx = library.madgrad(0.0)
        return tx.update(g, tx.init(p), p)[0]

    np.testing.assert_array_equal(step(gradtx), [0.0, 0.0])
    np.testing.assert_allclose(step(contrib), [-1.0e-5, -2.0e-5], rtol=5e-3)


def test_madgrad_is_double_in_double_where_optax_weighs_in_float32(x64):
    start, gradients = make_problem("madgrad", np.float64, False)
    settings = {"momentum": 0.5, "weight_decay": 0.01, "eps": 0.0}
    wanted = wanted_steps(
        OPTIMIZERS["madgrad"], gradients, start, {"learning_rate": 0.1, **settings}
    )

    def error(library):
        steps = run(library.madgrad(0.1, **settings), gradients, start)
        largest = max(np.max(np.abs(x)) for step in wanted for x in step.values())
        pairs = zip(jax.tree.leaves(steps), jax.tree.leaves(wanted), strict=True)
        return max(float(np.max(np.abs(a - b))) for a, b in pairs) / largest

    assert error(gradtx) < 1e-14
    assert 1e-10 < error(contrib) < 1e-7  # the rest is the same


def test_madgrad_sums_half_precision_in_float32():
    """3,000 unit gradients at rate 0.01: bfloat16 sums stop at 256 of 1096."""
    one = jnp.ones((), jnp.bfloat16)

    def total(library):
        tx = library.scale_by_madgrad(0.01)

        def step(s, _):
            new = tx.update(one, s, one)[1]
            return jax.tree.map(lambda x, old: x.astype(old.dtype), new, s), None

        first = tx.init(one)
        return float(jax.jit(lambda s: jax.lax.scan(step, s, length=3000))(first)[0].s)

    assert total(contrib) == 256
    exact = 0.01 * np.sum(np.sqrt(np.arange(1, 3001)))
    np.testing.assert_allclose(total(gradtx), exact, rtol=1e-4)


def test_madgrads_rate_can_be_read():
    tx = gradtx.madgrad(lambda count: 0.1 / (count + 1))
    _, state, _ = walk(tx, jnp.ones(()), [jnp.ones(())] * 2)
    np.testing.assert_allclose(state[-1].learning_rate, 0.05, rtol=1e-6)
