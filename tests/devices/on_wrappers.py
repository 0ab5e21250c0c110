"""Wrappers around an optimizer, over explicit and automatic axes."""

import functools

import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from meshes import SETTINGS, largest_difference, moved, on_many, on_one, share

import gradtx

LABELS = {"w": 1, "v": 2, "s": 2, "b": 1}
SOME = {"w": True, "v": False, "s": True, "b": True}
WRAPPERS = {
    "apply_every": lambda tx: gradtx.chain(tx, gradtx.apply_every(2)),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "centralize": lambda tx: gradtx.chain(gradtx.centralize(), tx),
    "cautious": gradtx.cautious,
    "clip": lambda tx: gradtx.chain(gradtx.clip_by_global_norm(0.5), tx),
    "clip_by_block_rms": lambda tx: gradtx.chain(gradtx.clip_by_block_rms(0.5), tx),
    "adaptive_grad_clip": lambda tx: gradtx.chain(gradtx.adaptive_grad_clip(0.1), tx),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, lambda step: step > 0),
    "conditionally_transform": lambda tx: gradtx.conditionally_transform(tx, lambda step: step < 2),
    "counted": gradtx.counted,
    "ema": lambda tx: gradtx.chain(tx, gradtx.ema(0.9)),
    "graft": lambda tx: gradtx.graft(gradtx.scale_by_sign(), tx),
    "freeze": lambda tx: gradtx.chain(tx, gradtx.freeze({**SOME, "v": True, "w": False})),
    "inject_hyperparams": lambda tx: gradtx.chain(
        tx, gradtx.inject_hyperparams(gradtx.scale)(step_size=0.5)
    ),
    "keep_params_nonnegative": lambda tx: gradtx.chain(tx, gradtx.keep_params_nonnegative()),
    "mars": lambda tx: gradtx.chain(gradtx.mars(), tx),
    "masked": lambda tx: gradtx.masked(tx, SOME),
    "maximize": gradtx.maximize,
    "mechanize": gradtx.contrib.mechanize,
    "monitor": lambda tx: gradtx.chain(tx, gradtx.monitor({"norm": gradtx.tree.norm})),
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "named_chain": lambda tx: gradtx.named_chain(("a", tx), ("b", gradtx.scale(0.5))),
    "normalize": lambda tx: gradtx.chain(gradtx.normalize(), tx),
    "optax_layout": gradtx.optax_layout,
    "partition": lambda tx: gradtx.partition({1: tx, 2: gradtx.sgd(0.1, momentum=0.9)}, LABELS),
    "sam": lambda tx: gradtx.contrib.sam(tx, gradtx.sgd(0.1)),
    "scale_by_trust_ratio": lambda tx: gradtx.chain(tx, gradtx.scale_by_trust_ratio()),
    "schedule_free": lambda tx: gradtx.contrib.schedule_free(tx, 0.1, b1=0.9),
    "selective_transform": lambda tx: gradtx.selective_transform(
        tx, freeze_mask={name: not chosen for name, chosen in SOME.items()}
    ),
    "snapshot": lambda tx: gradtx.chain(tx, gradtx.snapshot("norm", gradtx.tree.norm)),
    "split_real_and_imaginary": gradtx.contrib.split_real_and_imaginary,
    "strict": gradtx.strict,
    "watch": gradtx.watch,
    "zero_nans": lambda tx: gradtx.chain(gradtx.zero_nans(), tx),
    "offload": gradtx.offload,
    "pieces": lambda tx: gradtx.chain(
        gradtx.adaptive_spike_clip(),
        gradtx.adaptive_gradient_norm(),
        gradtx.spike_aware_clip(2.0),
        gradtx.grokfast_ma(2),
        tx,
        gradtx.add_decay_to_initial(0.1),
        gradtx.params_ema(),
        gradtx.lawa(2, 1),
    ),
    "pieces around others": lambda tx: gradtx.momentum_reset(
        gradtx.stable_rms_clip(gradtx.skip_outliers(gradtx.grams(tx), 2)), 2, 2
    ),
    "primal_averaging": gradtx.primal_averaging,
}
OPTIMIZERS = {
    "adamw": lambda: gradtx.adamw(0.1),
    "muon": lambda: gradtx.muon(0.1),
}


@functools.cache
def reference(wrapper, optimizer):
    return on_one(WRAPPERS[wrapper](OPTIMIZERS[optimizer]()), number=4)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("optimizer", "way", "jitted"),
    [
        ("adamw", "explicit", True),
        ("adamw", "explicit", False),
        ("adamw", "automatic", True),
        ("adamw", "shard", False),
        ("muon", "explicit", True),
    ],
)
def test_wrappers(wrapper, optimizer, jitted, way):
    setting = SETTINGS["2x4"]
    mesh = setting.mesh(AxisType.Explicit if way == "explicit" else AxisType.Auto)
    tx = WRAPPERS[wrapper](OPTIMIZERS[optimizer]())
    if way == "shard":
        tx = functools.partial(gradtx.shard, tx)
    found = on_many(tx, mesh, setting.specs, jitted=jitted, number=4)
    wanted = reference(wrapper, optimizer)
    assert largest_difference(found.updates, wanted.updates) <= 1e-12
    for updates in found.updates:
        for name, u in updates.items():
            lies = NamedSharding(mesh, setting.specs[name])
            # Zeros depend on nothing, and the compiler does not divide them.
            decided = way == "automatic" and not jnp.any(u)
            assert decided or u.sharding.is_equivalent_to(lies, u.ndim), (name, u.sharding)
    start = 1 if way == "automatic" else 0
    for state in found.states[start + 1 :]:
        assert moved(found.states[start], state) == []
    assert share(found.states[0]) <= 0.18
    # Outside of `jit`, Python branches, and a branch is compiled when it is first taken.
    first = start + 1 if jitted else 3
    assert found.compiled[first:] == [0] * (4 - first)


# What needs whole leaves on each device. Roots of matrices magnify roundings.
WHOLE = {
    "flatten": (lambda: gradtx.flatten(gradtx.adam(0.1)), 1e-12),
    "scale_by_tensor_shampoo": (lambda: gradtx.scale_by_tensor_shampoo(eps=0.1), 1e-10),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("way", ["explicit", "shard"])
def test_leaves_are_gathered_and_divided_again(way, name):
    make, tolerance = WHOLE[name]
    setting, tx = SETTINGS["2x4"], make()
    mesh = setting.mesh(AxisType.Explicit if way == "explicit" else AxisType.Auto)
    over = functools.partial(gradtx.shard, tx) if way == "shard" else tx
    found = on_many(over, mesh, setting.specs)
    assert largest_difference(found.updates, on_one(tx).updates) <= tolerance
    for leaf, u in found.updates[0].items():
        assert u.sharding.is_equivalent_to(NamedSharding(mesh, setting.specs[leaf]), u.ndim)
    assert moved(found.states[0], found.states[-1]) == []
