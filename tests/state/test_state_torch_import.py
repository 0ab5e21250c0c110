"""PyTorch's optimizer states: trajectories that go on in gradtx as they would have in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

torch = pytest.importorskip("torch")

LR, STEPS, MORE = 0.05, 5, 20
NAMES = ["layer/kernel", "layer/bias", "scale"]
AXES = {"kernel": (1, 0)}


def torch_params():
    random = np.random.default_rng(0)
    return [
        torch.nn.Parameter(torch.tensor(random.normal(size=shape), dtype=torch.float32))
        for shape in ((2, 3), (2,), ())
    ]


def ours(tensors):
    kernel, bias, scale = (jnp.array(t.detach().numpy()) for t in tensors)
    return {"layer": {"kernel": kernel.T, "bias": bias}, "scale": scale}


def gradients(step):
    """Of several sizes, with zeros, and growing smaller, so that a maximum stays behind."""
    random = np.random.default_rng(100 + step)
    found = [random.normal(size=shape) * 2.0 ** (-step / 4) for shape in ((2, 3), (2,), ())]
    found[1][0] = 0.0
    return [torch.tensor(g, dtype=torch.float32) for g in found]


def run_torch(params, optimizer, steps, scheduler=None):
    for step in steps:
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = g
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def goes_on(make, tx, count=None, schedule=None, names=NAMES):
    """Trains in PyTorch, imports, and trains on in both."""
    tensors = torch_params()
    optimizer = make(tensors)
    scheduler = schedule and torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    run_torch(tensors, optimizer, range(STEPS), scheduler)

    params = ours(tensors)
    template = jax.eval_shape(tx.init, params)
    state = gradtx.load_torch(template, optimizer.state_dict(), names, axes=AXES, count=count)
    assert all(gradtx.tree.get_all_with_path(state, "learning_rate"))
    update = jax.jit(tx.update)
    for step in range(STEPS, STEPS + MORE):
        updates, state = update(ours(gradients(step)), state, params)
        params = gradtx.apply_updates(params, updates)

    run_torch(tensors, optimizer, range(STEPS, STEPS + MORE), scheduler)
    moved = [float(jnp.abs(a - b).max()) for a, b in _pairs(params, ours(torch_params()))]
    assert min(moved) > 1e-3
    for a, b in _pairs(params, ours(tensors)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def _pairs(a, b):
    return zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd(nesterov, weight_decay):
    goes_on(
        lambda p: torch.optim.SGD(p, LR, 0.9, weight_decay=weight_decay, nesterov=nesterov),
        gradtx.chain(gradtx.add_decayed_weights(weight_decay), gradtx.sgd(LR, 0.9, nesterov)),
        count=STEPS,
    )


def test_sgd_without_momentum():
    goes_on(lambda p: torch.optim.SGD(p, LR), gradtx.sgd(LR), count=STEPS)


def test_the_velocity_of_the_textbooks():
    """The learning rate is inside of it, so that it has another sign and size."""
    for tx, nesterov in ((gradtx.momentum(LR, 0.9), False), (gradtx.nesterov(LR, 0.9), True)):
        goes_on(lambda p, n=nesterov: torch.optim.SGD(p, LR, 0.9, nesterov=n), tx, count=STEPS)


def halve(count):
    return 0.5 ** (count / 5)


def test_schedules_go_on():
    rate = lambda count: LR * halve(count)  # noqa: E731
    goes_on(lambda p: torch.optim.SGD(p, LR, 0.9), gradtx.sgd(rate, 0.9), STEPS, halve)
    goes_on(lambda p: torch.optim.Adam(p, LR), gradtx.adam(rate), None, halve)
    tx = gradtx.chain(
        gradtx.scale_by_rms(0.9, 1e-6, eps_in_sqrt=False),
        gradtx.trace(0.9),
        gradtx.scale_by_learning_rate(rate),
    )
    goes_on(
        lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, eps=1e-6, momentum=0.9), tx, None, halve
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam(weight_decay):
    goes_on(
        lambda p: torch.optim.Adam(p, LR, (0.8, 0.95), 1e-6, weight_decay),
        gradtx.chain(gradtx.add_decayed_weights(weight_decay), gradtx.adam(LR, 0.8, 0.95, 1e-6)),
    )
    goes_on(
        lambda p: torch.optim.AdamW(p, LR, (0.8, 0.95), 1e-6, weight_decay),
        gradtx.adamw(LR, 0.8, 0.95, 1e-6, weight_decay=weight_decay),
    )


def test_amsgrad():
    """PyTorch takes the largest average before its correction, as `amsgrad` does if asked to."""
    b1, b2 = 0.8, 0.95
    goes_on(
        lambda p: torch.optim.Adam(p, LR, (b1, b2), 1e-3, amsgrad=True),
        gradtx.amsgrad(LR, b1, b2, 1e-3, raw_maximum=True),
    )
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        goes_on(
            lambda p: torch.optim.Adam(p, LR, (b1, b2), amsgrad=True), gradtx.amsgrad(LR, b1, b2)
        )


def test_nadam():
    goes_on(
        lambda p: torch.optim.NAdam(p, LR, momentum_decay=0.1),
        gradtx.nadam(LR, momentum_decay=0.1),
    )


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop(centered, momentum):
    goes_on(
        lambda p: torch.optim.RMSprop(p, LR, 0.9, 1e-3, momentum=momentum, centered=centered),
        gradtx.rmsprop(
            LR, 0.9, 1e-3, eps_in_sqrt=False, centered=centered, momentum=momentum or None
        ),
    )


def test_adagrad():
    goes_on(
        lambda p: torch.optim.Adagrad(p, LR, lr_decay=0.1, initial_accumulator_value=0.01),
        gradtx.adagrad(lambda t: LR / (1 + 0.1 * t), eps=1e-10, eps_in_sqrt=False),
    )


def test_groups_are_parts_of_a_partition():
    """Two groups of other rates, of which one came later; each counts and decays for itself."""
    tensors = torch_params()
    optimizer = torch.optim.Adam([tensors[0], tensors[2]], 0.1)
    run_torch(tensors, optimizer, range(2))
    optimizer.add_param_group({"params": [tensors[1]], "lr": 0.01})
    run_torch(tensors, optimizer, range(2, STEPS))
    params = ours(tensors)
    tx = gradtx.partition(
        {"slow": gradtx.adam(0.01), "fast": gradtx.adam(0.1)},
        gradtx.by_path({"bias": "slow"}, "fast"),
    )
    names = ["layer/kernel", "scale", "layer/bias"]
    state = gradtx.load_torch(tx.init(params), optimizer.state_dict(), names, axes=AXES)
    flat = gradtx.state_dict(state)
    assert int(flat["slow/scale_by_adam/count"]) == 3
    assert int(flat["fast/scale_by_learning_rate/count"]) == STEPS
    assert float(flat["slow/scale_by_learning_rate/learning_rate"]) == np.float32(0.01)
    for step in range(STEPS, STEPS + MORE):
        updates, state = tx.update(ours(gradients(step)), state, params)
        params = gradtx.apply_updates(params, updates)
    run_torch(tensors, optimizer, range(STEPS, STEPS + MORE))
    for a, b in _pairs(params, ours(tensors)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"got \[23, 25\] from PyTorch; a partition has one"):
        gradtx.load_torch(gradtx.adam(0.1).init(params), optimizer.state_dict(), names, axes=AXES)


def test_names_of_torch_half_precision_and_guards():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)).bfloat16()
    optimizer = torch.optim.Adam(list(model.named_parameters()), LR)
    model(torch.ones(4, 3).bfloat16()).sum().backward()
    optimizer.step()
    params = {
        "first": {"kernel": jnp.zeros((3, 2), jnp.bfloat16), "bias": jnp.zeros(2, jnp.bfloat16)},
        "head": {"bias": jnp.zeros(1, jnp.bfloat16)},
    }
    tx = gradtx.apply_if_finite(
        gradtx.chain(gradtx.clip(1.0), gradtx.masked(gradtx.adam(LR), True)), 3
    )
    names = {
        "0.weight": "first/kernel",
        "0.bias": "first/bias",
        "1.weight": None,
        "1.bias": "head/bias",
    }
    state = gradtx.load_torch(tx.init(params), optimizer.state_dict(), names, axes=AXES)
    flat = gradtx.state_dict(state)
    assert flat["scale_by_adam/mu/first/kernel"].dtype == jnp.float32
    theirs = optimizer.state[model[0].weight]["exp_avg"].float().numpy()
    np.testing.assert_array_equal(flat["scale_by_adam/mu/first/kernel"], theirs.T)
    assert int(flat["apply_if_finite/total_notfinite"]) == 0
    assert int(flat["scale_by_adam/count"]) == 1


def test_labels_may_be_called_like_pieces():
    saved = {
        "state": {0: {"momentum_buffer": np.full(2, 3.0)}},
        "param_groups": [{"lr": LR, "params": [0]}],
    }
    tx = gradtx.partition({"trace": gradtx.sgd(LR, 0.9)}, "trace")
    state = gradtx.load_torch(tx.init({"trace": jnp.ones(2)}), saved, ["trace"], count=7)
    assert [name for name in gradtx.state_dict(state)][1] == "trace/trace/trace/trace"
    np.testing.assert_array_equal(gradtx.tree.get(state, "trace", filtering=_is_array)["trace"], 3)


def _is_array(path, value):
    return isinstance(value, dict) and set(value) == {"trace"} and hasattr(value["trace"], "shape")


# ---- What is refused ----------------------------------------------------------------------------

W = {"w": jnp.ones((2, 3))}


def saved(torch_optimizer, steps=1, shape=(2, 3), **settings):
    tensor = torch.nn.Parameter(torch.ones(shape))
    optimizer = torch_optimizer([tensor], lr=LR, **settings)
    for _ in range(steps):
        tensor.grad = torch.ones(shape)
        optimizer.step()
    return optimizer.state_dict()


SGD, ADAM = torch.optim.SGD, torch.optim.Adam


@pytest.mark.parametrize(
    ("tx", "state", "more", "words"),
    [
        (gradtx.adam(LR), saved(ADAM, maximize=True), {}, "PyTorch's maximize is not supported: "),
        (
            gradtx.sgd(LR, 0.9),
            saved(SGD, momentum=0.9, dampening=0.5),
            {"count": 1},
            "PyTorch's dampening is not supported: ",
        ),
        (
            gradtx.adam(LR),
            {"step": 1},
            {},
            r"the state_dict\(\) of a PyTorch .*, got keys \['step'\]",
        ),
        (
            gradtx.sgd(LR),
            saved(SGD),
            {},
            "needs count= for scale_by_learning_rate/count, .* no step",
        ),
        (gradtx.adam(LR), saved(ADAM), {"count": 7}, "count must be PyTorch's 1 for .*, got 7"),
        (gradtx.lion(LR), saved(ADAM), {}, "no place for exp_avg of 'w', exp_avg_sq of 'w'"),
        (gradtx.adam(LR), saved(ADAM, amsgrad=True), {}, "no place for max_exp_avg_sq of 'w'"),
        (gradtx.amsgrad(LR), saved(ADAM), {}, "scale_by_amsgrad/nu_max/w needs max_exp_avg_sq"),
        (gradtx.sgd(LR), saved(SGD, momentum=0.9), {"count": 1}, "no place for momentum_buffer"),
        (
            gradtx.adam(LR),
            saved(ADAM, shape=(3, 2)),
            {},
            r"see axes[^$]*mu/w: saved float32\[3, 2\], needs float32\[2, 3\]",
        ),
        (
            gradtx.adam(LR),
            saved(ADAM),
            {"axes": {"w": (0, 1, 2)}},
            r"axes must permute the shape \(2, 3\) of exp_avg of 'w' in PyTorch, got \(0, 1, 2\)",
        ),
        (
            gradtx.adam(LR),
            saved(ADAM),
            {"names": []},
            "needs 1 name for PyTorch's parameters, got 0",
        ),
        (
            gradtx.adam(LR),
            saved(ADAM),
            {"names": ["v"]},
            "names must have the parameter of scale_by_adam/mu/w",
        ),
        (
            gradtx.adam(LR),
            saved(ADAM),
            {"names": {}},
            r"names must have PyTorch's parameters \[0\]",
        ),
        (
            gradtx.adam(LR),
            saved(ADAM),
            {"names": {0: "w", "b": "b"}},
            r"must be among PyTorch's parameters \[0\], got \['b'\]",
        ),
        (
            gradtx.chain(gradtx.trace(0.9), gradtx.sgd(LR, 0.9)),
            saved(SGD, momentum=0.9),
            {"count": 1},
            "trace/trace/w and trace#2/trace/w both correspond to momentum_buffer of 'w'",
        ),
        (
            gradtx.named_chain(("rate", gradtx.scale_by_learning_rate(LR)), ("v", gradtx.trace(1))),
            saved(SGD, momentum=0.9),
            {"count": 1},
            "v/trace/trace/w includes the learning rate, because rate/scale_by_learning_rate",
        ),
    ],
)
def test_errors(tx, state, more, words):
    with pytest.raises(ValueError, match=f"load_torch: .*{words}"):
        gradtx.load_torch(tx.init(W), state, **{"names": ["w"], **more})


def test_a_state_that_took_no_step():
    state = gradtx.load_torch(gradtx.adam(LR).init(W), saved(ADAM, steps=0), ["w"], count=0)
    assert int(state[0].count) == 0 and not state[0].mu["w"].any()


def changed(*keys, value):
    """Adam's state with one value replaced."""
    state = saved(ADAM)
    inner = state
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return state


ENTRY, GROUP = ("state", 0), ("param_groups", 0)
UNKNOWN = {"step": torch.tensor(1.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([1], r"saved must be the state_dict\(\) of a PyTorch optimizer, got list"),
        (changed("state", value=[1]), r"saved\['state'\] must be a mapping, got list"),
        (changed("state", 0, value=[1]), r"saved\['state'\]\[0\] must be a mapping, got list"),
        (changed("state", 7, value=UNKNOWN), r"must have parameters of a group, got \[7\]"),
        (changed("param_groups", value={}), r"saved\['param_groups'\] must be a list, got dict"),
        (changed("param_groups", value="ab"), r"\['param_groups'\] must be a list, got str"),
        (changed(*GROUP, value=3), r"saved\['param_groups'\]\[0\] must be a mapping, got int"),
        (changed(*GROUP, "params", value=0), r"\[0\]\['params'\] must be a list, got int"),
        (changed(*GROUP, "params", value=[[0]]), "must be an integer or a name, got list"),
        (changed(*GROUP, "lr", value="fast"), "lr must be numeric, got str"),
        (changed(*GROUP, "lr", value=np.nan), "lr must be a finite number, got nan"),
        (changed(*GROUP, "lr", value=np.ones(2)), r"lr must be a finite number, got \[1\. 1\.\]"),
        (changed(*ENTRY, "step", value=torch.tensor(5.5)), "step of 'w' .* 2147483647, got 5.5"),
        (changed(*ENTRY, "step", value=-5), "step of 'w' must be a whole number from 0 .* got -5"),
        (changed(*ENTRY, "step", value=np.nan), "step of 'w' must be a whole number .* got nan"),
        (changed(*ENTRY, "step", value=2**31), "step of 'w' must be .*, got 2147483648"),
        (changed(*ENTRY, "step", value=np.ones(2)), r"step of 'w' must be .*, got \[1\. 1\.\]"),
        (changed(*ENTRY, "step", value="5"), "step of 'w' must be numeric, got str"),
        (changed(*ENTRY, "step", value=None), "step of 'w' must be numeric, got NoneType"),
        (changed(*ENTRY, "exp_avg", value="x"), "exp_avg of 'w' must be numeric, got str"),
        (changed(*ENTRY, "exp_avg", value={}), "exp_avg of 'w' must be numeric, got dict"),
        (changed(*ENTRY, "exp_avg", value=[[1], [1, 2]]), "exp_avg of 'w' must be numeric: "),
        (changed(*ENTRY, "exp_avg", value=torch.ones(2, 3) > 0), "must be numeric, got bool"),
        (changed(*GROUP, "amsgrad", value=True), "no place for max_exp_avg_sq .* amsgrad needs"),
    ],
)
def test_states_of_wrong_types_and_impossible_values(state, words):
    with pytest.raises(ValueError, match=f"load_torch: .*{words}"):
        gradtx.load_torch(gradtx.adam(LR).init(W), state, ["w"])


@pytest.mark.parametrize(
    ("optimizer", "settings", "tx", "setting"),
    [
        (ADAM, {"amsgrad": True}, gradtx.adam(LR), "amsgrad"),
        (torch.optim.RMSprop, {"centered": True}, gradtx.rmsprop(LR), "centered"),
        (torch.optim.RMSprop, {"momentum": 0.9}, gradtx.rmsprop(LR), "momentum"),
        (SGD, {"momentum": 0.9}, gradtx.sgd(LR), "momentum"),
    ],
)
def test_settings_need_their_slots_before_the_first_step_too(optimizer, settings, tx, setting):
    state = saved(optimizer, steps=0, **settings)
    with pytest.raises(ValueError, match=f"no place for .*, which PyTorch's {setting} needs"):
        gradtx.load_torch(tx.init(W), state, ["w"], count=0)


@pytest.mark.parametrize("count", [-3, 2.5, "3", 2**31, [1, 2], None])
def test_the_given_count_is_a_whole_number(count):
    words = "needs count=" if count is None else "count must be a whole number from 0 to 2147483647"
    with pytest.raises(ValueError, match=f"load_torch: {words}"):
        gradtx.load_torch(gradtx.sgd(LR).init(W), saved(SGD), ["w"], count=count)


@pytest.mark.parametrize("names", ["w", 3, None])
def test_names_are_a_list_or_a_mapping(names):
    with pytest.raises(ValueError, match="load_torch: names must be a list or a mapping, got "):
        gradtx.load_torch(gradtx.adam(LR).init(W), saved(ADAM), names)
