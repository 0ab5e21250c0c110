"""Links of a chain answer for themselves: what they tell, what they keep, what they declare."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from trees import assert_equal, avals

import gradtx
from gradtx import EmptyState, Slots

PARAMS = {"embed": jnp.ones((8, 4)), "block": {"w": jnp.ones((4, 4)), "bias": jnp.ones(4)}}


NO_BIAS = gradtx.by_path({"bias": False}, True)


def parts():
    """An optimizer that treats three groups of parameters in three ways."""
    return gradtx.chain(
        gradtx.partition(
            {
                "train": gradtx.adamw(0.1, weight_decay=0.5, mask=NO_BIAS),
                "hold": gradtx.set_to_zero(),
            },
            gradtx.by_path({"embed": "hold"}, "train"),
        ),
        gradtx.multiply_by_path({"bias": 0.5}),
    )  # fmt: skip


class DoubledState(NamedTuple):
    inner_state: object
    calls: jax.Array


def doubled(inner):
    """A stranger's wrapper, which knows of `gradtx.wrapped` only."""

    def init(params):
        return DoubledState(inner.init(params), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **extra):
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        return jax.tree.map(lambda u: 2 * u, updates), DoubledState(inner_state, state.calls + 1)

    return gradtx.wrapped(init, update, inner)


WRAPPERS = {
    "a stranger's": doubled,
    "watch": gradtx.watch,
    "counted": gradtx.counted,
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "conditionally_transform": lambda tx: gradtx.conditionally_transform(tx, lambda step: step < 2),
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "inject_hyperparams": lambda tx: gradtx.inject_hyperparams(lambda: tx)(),
    "two": lambda tx: doubled(gradtx.watch(tx)),
}


def told(tx, params=PARAMS):
    found = gradtx.summary(tx, params)
    return [
        (g.rule, g.paths, g.optimizer, g.frozen, g.weight_decay, g.rate_multiplier)
        for g in found.rows
    ]


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_show_what_is_within(name):
    wrap, title = WRAPPERS[name], {"a stranger's": "", "two": "watch"}.get(name, name)

    def titled(group):
        optimizer = group[2] and (f"{title}({group[2]})" if title else group[2])
        return (*group[:2], optimizer, *group[3:])

    plain = told(parts())
    assert len(plain) == 3
    assert told(wrap(parts())) == [titled(group) for group in plain]
    assert told(gradtx.chain(gradtx.clip(1.0), wrap(parts()))) != told(wrap(parts()))
    mask = gradtx.by_path({"bias": False}, True)
    inside = told(gradtx.masked(gradtx.adamw(0.1), mask))
    assert told(gradtx.masked(wrap(gradtx.adamw(0.1)), mask)) == [titled(x) for x in inside]


def test_injected_hyperparameters_hide_nothing():
    tx = gradtx.inject_hyperparams(gradtx.adamw)(gradtx.linear_schedule(0.1, 0.0, 9), b1=0.8)
    (group,) = gradtx.summary(tx, PARAMS).rows
    assert group.optimizer == "inject_hyperparams(adamw)" and group.weight_decay == pytest.approx(
        1e-4
    )


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_masks_around_wrappers_reach_what_is_within(wrap):
    mask = {"embed": False, "block": {"w": True, "bias": True}}
    tx = gradtx.masked(wrap(gradtx.adam(0.1)), mask)
    state = tx.init(PARAMS)
    updates, new = tx.update(PARAMS, state, PARAMS)
    assert_equal(updates["embed"], PARAMS["embed"])
    assert avals(new) == avals(state)
    sizes = {x.shape for x in jax.tree.leaves(state)}
    assert (8, 4) not in sizes and (4, 4) in sizes


# ---- One way to carry a learning rate -----------------------------------------------------------


class RatedState(NamedTuple):
    """A state whose count and rate the engine keeps."""

    total: jax.Array
    count: object = None
    learning_rate: object = None


def by_coupled(rate):
    def update(updates, state, params, *, learning_rate, **extra):
        size = sum(jnp.sum(u) for u in jax.tree.leaves(updates))
        moved = jax.tree.map(lambda u: -learning_rate * u, updates)
        return moved, state._replace(total=state.total + size)

    return gradtx.coupled(
        RatedState, lambda params: RatedState(jnp.zeros(())), update, name="by_coupled", rate=rate
    )


class LeafState(NamedTuple):
    count: jax.Array
    learning_rate: jax.Array


def by_leafwise(rate):
    def update(g, s, step, p):
        return -s.learning_rate * g, Slots()

    return gradtx.leafwise(LeafState, None, update, rate=rate, name="by_leafwise")


@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("make", [by_coupled, by_leafwise])
def test_the_engine_keeps_the_rate_as_it_keeps_the_count(make, how):
    tx = make(lambda count: 0.5 / (count + 1))
    params = {"w": jnp.ones(2)}
    state, update = tx.init(params), how(tx.update)
    assert float(state.learning_rate) == 0.5 and int(state.count) == 0
    for count, override, rate in ((1, None, 0.5), (2, 0.125, 0.125), (3, None, 0.5 / 3)):
        extra = {} if override is None else {"learning_rate": override}
        updates, new = update(params, state, **extra)
        assert avals(new) == avals(state)
        state = new
        assert int(state.count) == count
        assert float(state.learning_rate) == pytest.approx(rate)
        assert float(updates["w"][0]) == pytest.approx(-rate)
    told = gradtx.hyperparams(state)
    assert int(told["count"]) == 3 and float(told["learning_rate"]) == pytest.approx(0.5 / 3)


# ---- Declared, not guessed ----------------------------------------------------------------------


def test_init_does_not_run_the_rule():
    def update(g, s, step, p):
        raise AssertionError("the rule was run")

    for integers in (False, True):
        tx = gradtx.leafwise(EmptyState, None, update, integers=integers, name="rule")
        tx.init({"w": jnp.ones(2)})
        if integers:
            tx.init({"n": jnp.ones(2, jnp.int32)})
        else:
            with pytest.raises(TypeError, match=r"rule: params\['n'\] is int32"):
                tx.init({"n": jnp.ones(2, jnp.int32)})


def test_rules_for_integers_keep_them_if_the_scalars_are_integers():
    whole = {"n": jnp.arange(4)}
    for tx, wanted in (
        (gradtx.scale(2), jnp.arange(4) * 2),
        (gradtx.scale_by_schedule(lambda count: 3), jnp.arange(4) * 3),
        (gradtx.clip(2), jnp.minimum(jnp.arange(4), 2)),
        (gradtx.scale_by_sign(), jnp.sign(jnp.arange(4))),
        (gradtx.set_to_zero(), jnp.zeros(4, jnp.int32)),
        (gradtx.zero_nans(), jnp.arange(4)),
    ):
        updates, _ = tx.update(whole, tx.init(whole))
        assert_equal(updates["n"], wanted)
        assert updates["n"].dtype == jnp.int32
    for tx in (gradtx.scale(0.5), gradtx.clip(0.5), gradtx.scale_by_schedule(lambda count: 0.5)):
        with pytest.raises(TypeError, match=r"params\['n'\] is int32"):
            tx.init(whole)


def test_partitions_tell_their_labels():
    labels = {row[1]: row[0].split(", ")[0] for row in told(parts())}
    assert labels == {("embed",): "hold", ("block/w",): "train", ("block/bias",): "train"}


def test_transformations_are_told_shortly():
    assert (
        len(repr(gradtx.chain(gradtx.adamw(0.1, mask=jnp.ones(1000)), doubled(gradtx.muon(0.1)))))
        < 300
    )
