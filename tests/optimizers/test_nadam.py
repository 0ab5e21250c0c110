"""NAdam's schedule of momentum."""

import jax.numpy as jnp
import pytest

import gradtx


@pytest.mark.parametrize("speed", [4e-3, 1.0])
def test_the_product_of_all_decay_rates_is_good_at_every_step(speed):
    """It has no place in the state. In float32, against a product of 20,000 factors in float64."""
    b1, product = 0.999, 1.0
    tx = gradtx.nadam(1.0, b1, 0.0, 0.0, momentum_decay=speed)
    first = tx.init(jnp.zeros(1))

    def rate(t):
        return b1 * (1 - 0.5 * 0.96 ** (t * speed))

    for t in range(1, 20_001):
        product *= rate(t)
        if t in (1, 2, 30, 1000, 20_000):
            # With b2 = 0 and all gradients 1, the denominator is 1.
            adam = first[0]._replace(count=jnp.int32(t - 1), mu=jnp.ones(1), nu=jnp.ones(1))
            updates, _ = tx.update(jnp.ones(1), (adam, *first[1:]))
            want = rate(t + 1) / (1 - product * rate(t + 1)) + (1 - rate(t)) / (1 - product)
            assert float(updates[0]) == pytest.approx(-want, rel=3e-7)


def test_a_schedule_needs_nesterov_momentum():
    for name in ("nadam", "nadamw"):
        with pytest.raises(ValueError, match=rf"{name}: momentum_decay was given with nesterov=F"):
            getattr(gradtx, name)(0.1, nesterov=False, momentum_decay=4e-3)
