"""Arguments that cannot be right are refused where an optimizer is made, or at its first call."""

import inspect
import math
import pickle
import re
from typing import NamedTuple

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from representatives import each_engine, each_entry, each_needs
from test_bad_inputs import PARAMS, more, refused
from test_conformance import walk
from test_house import PIECES, ROOT
from trees import assert_ulps, extras, loss_around

import gradtx
from gradtx._arguments import MEANINGS, NUMBER, RANGES, Range, Requirements
from gradtx._arguments.requirements import TRANSFORMATION
from gradtx.engine.coupled import coupled

PREFIX = {"w": True, "b": False}


def numbers_of(entry):
    """The hyperparameters that are numbers, with what they must be."""
    for name, required in entry.factory.requirements.of.items():
        if required.range is not None:
            yield name, required


def outside(range_: Range):
    """Numbers beside a range, as a user might write them."""
    yield math.nan
    if range_.low > -math.inf:
        yield -1.0 if range_.low >= 0 else -2.0
    if range_.high < math.inf:
        yield math.inf
    if range_.high <= 1:
        yield from (1.5, 2)
    if range_.high < 1:
        yield 1.0
    if range_.whole:
        yield range_.low + 0.5
    if range_.low > 0:
        yield 0.0


# ---- The table --------------------------------------------------------------------------------


@each_entry
def test_numbers_out_of_range(entry):
    for name, required in numbers_of(entry):
        for wrong in outside(required.range):
            for kind in (lambda x: x, np.float32, jnp.float32):
                with refused(ValueError, entry.name, name, required.range.told):
                    entry.make(**{name: kind(wrong)})


@each_entry
def test_values_of_a_wrong_kind(entry):
    required = entry.factory.requirements
    for name, what in required.of.items():
        wrong = {"the string 'no'": "no", "a dict": PARAMS, "an array of shape (2,)": np.ones(2)}
        if what.kind == "a function":
            wrong["0.5"] = 0.5
        if what.range is not None and "schedule" not in what.kind:
            way_out = "the function" if what.range.whole else "use inject_hyperparams"
            wrong[way_out] = lambda count: 0.5
        if entry.hyperparameters[name] is not None and not what.accepts(None):
            wrong["None"] = None
        if "dtype" in what.kind:
            wrong["int8"] = jnp.int8
            del wrong["an array of shape (2,)"]  # which has a dtype
        if what.kind.startswith("one of"):
            wrong["'no'"] = wrong.pop("the string 'no'")
        for told, value in wrong.items():
            with refused((TypeError, ValueError), entry.name, name, told.split(" of ")[0]):
                entry.make(**{name: value})


@each_entry
def test_arguments_that_do_not_exist(entry):
    rate = entry.rate
    with refused(TypeError, f"{entry.name}: no argument is named {rate}s; did you mean {rate}?"):
        entry.factory(**{f"{rate}s": 0.1})
    with refused(TypeError, f"{entry.name}: no argument is named xyz; the arguments are", rate):
        entry.factory(xyz=1)


@each_entry
def test_rates_that_are_none_or_negative(entry):
    rate = entry.factory.requirements.of[entry.rate]
    assert rate.range is RANGES["learning_rate"]
    with refused(ValueError, entry.name, entry.rate, "-0.1", "gradtx.maximize"):
        entry.make(**{entry.rate: -0.1})
    with refused(TypeError, entry.name, entry.rate, "a dict"):
        entry.make(**{entry.rate: PARAMS})


@each_entry
def test_traced_values_are_not_examined(entry):
    """Also where they are out of range: they may be known at another place only."""
    found = [n for n, r in numbers_of(entry) if not r.range.whole]

    @jax.jit
    def make(x):
        for name in found:
            entry.make(**{name: x})
        return x

    make(jnp.float32(-3.0))


@each_entry
def test_defaults_and_probes_are_in_range(entry):
    required = entry.factory.requirements
    for name, what in required.of.items():
        default = entry.hyperparameters[name]
        assert default is None or what.accepts(default), (name, default)
    required.check((), dict(entry.probe))


def test_all_usual_names_are_in_the_table():
    """Others have a range of their own, or must only be numbers, which these may."""
    free = {
        *("alpha", "f_min", "lower_bound", "gamma", "decay_offset", "weight_lr_power", "optimism"),
        *("consistent_rms", "scale", "smooth_beta", "min_norm", "rank", "nu", "nu1", "nu2"),
    }
    for entry in gradtx.catalog.entries():
        for name, number in numbers_of(entry):
            own = number.range != NUMBER
            assert own or name in RANGES or name in free, (entry.name, name)


def test_all_dtypes_are_checked():
    for entry in gradtx.catalog.entries():
        for name in entry.hyperparameters:
            if "dtype" in name:
                with pytest.raises(TypeError, match=f"{entry.name}: {name} must be a floating"):
                    entry.make(**{name: "float33"})


@pytest.mark.parametrize("name", PIECES)
def test_defaults_of_pieces_are_in_range(name):
    required = getattr(getattr(gradtx, name), "requirements", None)
    if required is None:
        return
    parameters = inspect.signature(getattr(gradtx, name)).parameters
    for n, what in required.of.items():
        default = parameters[n].default
        assert default in (None, inspect.Parameter.empty) or what.accepts(default), n


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: gradtx.clip(-1.0), "clip: max_delta must not be negative, got -1.0"),
        (
            lambda: gradtx.clip_by_global_norm(-1.0),
            "clip_by_global_norm: max_norm must not be negative, got -1.0",
        ),
        (
            lambda: gradtx.apply_every(0),
            "apply_every: k must be a whole number, at least 1, got 0",
        ),
        (
            lambda: gradtx.MultiSteps(gradtx.sgd(0.1), 1.5),
            "MultiSteps: every_k_schedule must be a whole number, at least 1, got 1.5",
        ),
        (lambda: gradtx.adam(0.1, b1=1.0), "adam: b1 must be in [0, 1), got 1.0"),
        (lambda: gradtx.sgd(0.1, momentum=1.5), "sgd: momentum must be in (-1, 1], got 1.5"),
        (
            lambda: gradtx.layerwise_decay(2.0, r"x(\d)"),
            "layerwise_decay: decay must be in [0, 1], got 2.0",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.adam)(0.1, b2=2.0),
            "adam: b2 must be in [0, 1), got 2.0",
        ),
        (
            lambda: gradtx.adam(-0.1),
            "adam: learning_rate must be finite and not negative, got -0.1; to ascend, wrap the "
            "optimizer, with a positive rate, in gradtx.maximize",
        ),
        (
            lambda: gradtx.prodigy(betas=(0.9, 1.5)),
            "prodigy: betas must be a tuple of 2 numbers, each of which must be in [0, 1), got "
            "(0.9, 1.5)",
        ),
        (
            lambda: gradtx.adam(0.1, mu_dtype=int),
            "adam: mu_dtype must be a floating dtype or None, got int",
        ),
        (
            lambda: gradtx.nero(0.1, output_axis=0.5),
            "nero: output_axis must be an integer, got 0.5",
        ),
        (
            lambda: gradtx.muon(0.1, (1.0, 2.0)),
            "muon: coefficients must be three numbers, or three for each step, got (1.0, 2.0)",
        ),
        (
            lambda: gradtx.kron(0.1, key="first"),
            "scale_by_kron: key must be an integer or a random key, got the string 'first'",
        ),
        (
            lambda: gradtx.adam(0.1, nesterov="no"),
            "adam: nesterov must be True or False, got the string 'no'",
        ),
        (
            lambda: gradtx.adam("0.1"),
            "adam: learning_rate must be a number, a scalar array or a schedule, got the string "
            "'0.1'",
        ),
        (
            lambda: gradtx.adam(0.1, b1=gradtx.constant_schedule(0.9)),
            "adam: b1 must be a number or a scalar array, got the function schedule; to schedule "
            "it, use inject_hyperparams(adam)(..., b1=schedule)",
        ),
        (
            lambda: gradtx.scale(gradtx.constant_schedule(0.9)),
            "scale: step_size must be a number or a scalar array, got the function schedule; to "
            "schedule it, use scale_by_schedule(schedule)",
        ),
        (
            lambda: gradtx.galore(0.1, rank=gradtx.constant_schedule(4.0)),
            "galore: rank must be a number or a scalar array, got the function schedule",
        ),
        (
            lambda: gradtx.polyak_sgd(variant="sps++"),
            "polyak_sgd: variant must be one of 'sps', 'sps+', got 'sps++'",
        ),
        (
            lambda: gradtx.MultiSteps(gradtx.adam, 2),
            f"MultiSteps: opt must be {TRANSFORMATION}, got the function adam; call it: adam(...)",
        ),
        (
            lambda: gradtx.masked(PREFIX, gradtx.sgd(0.1)),
            f"masked: inner must be {TRANSFORMATION}, got a dict; the order of arguments is "
            "masked(inner, mask)",
        ),
        (
            lambda: gradtx.partition({"x": gradtx.sgd}, PREFIX),
            f"partition: transforms['x'] must be {TRANSFORMATION}, got the function sgd; call it: "
            "sgd(...)",
        ),
        (
            lambda: gradtx.summary(PARAMS, gradtx.sgd(0.1)),
            f"summary: tx must be {TRANSFORMATION}, got a dict; the order of arguments is "
            "summary(tx, params)",
        ),
        (
            lambda: gradtx.chain([gradtx.sgd(0.1), gradtx.sgd(0.1)]),
            f"chain: argument 0 must be {TRANSFORMATION}, got a list; write chain(*list)",
        ),
        (
            lambda: gradtx.selective_transform(gradtx.sgd, freeze_mask=True),
            f"selective_transform: optimizer must be {TRANSFORMATION}, got the function sgd; call "
            "it: sgd(...)",
        ),
        (
            lambda: gradtx.with_extra_args_support(gradtx.sgd),
            f"with_extra_args_support: tx must be {TRANSFORMATION}, got the function sgd; call "
            "it: sgd(...)",
        ),
        (
            lambda: gradtx.add_noise(0.1, 0.5, 1.5),
            "add_noise: key must be an integer or a random key, got float32",
        ),
        (
            lambda: gradtx.named_chain(3),
            "named_chain: argument 0 must be a pair (name, transformation), got 3",
        ),
        (
            lambda: gradtx.named_chain(("a", gradtx.scale(1.0)), "abcde"),
            "named_chain: argument 1 must be a pair (name, transformation), got the string 'abcde'",
        ),
        (
            lambda: gradtx.named_chain(("a", gradtx.scale(1.0), 3)),
            "named_chain: argument 0 must be a pair (name, transformation), got a tuple",
        ),
        (
            lambda: gradtx.named_chain(gradtx.scale(1.0)),
            "named_chain: argument 0 must be a pair (name, transformation), got a transformation",
        ),
        (
            lambda: gradtx.named_chain(("a", 3)),
            f"named_chain: 'a' must be {TRANSFORMATION}, got 3",
        ),
        (
            lambda: gradtx.racing.enter([gradtx.adam(0.1)]),
            "race: optimizers must be names of the catalog, got a transformation; name others in a "
            'mapping, such as {"mine": lambda rate: gradtx.sgd(rate, 0.9)}',
        ),
        (
            lambda: gradtx.load_state_dict((), "state.npz"),
            "load_state_dict: flat must be a mapping from names to arrays, got str; np.load(path) "
            "reads one from a file",
        ),
    ],
)
def test_messages_where_it_is_made(make, told):
    with pytest.raises((ValueError, TypeError, gradtx.train.TrainingError)) as caught:
        make()
    assert str(caught.value) == told


class OneSlot(NamedTuple):
    """The state of a rule."""

    mu: jax.Array


def _rule(g, s, step, p):
    return g, s


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((dict, _rule, _rule), "state must be a NamedTuple class, got dict"),
        ((tuple, _rule, _rule), "state must be a NamedTuple class, got tuple"),
        ((OneSlot(0), _rule, _rule), "state must be a NamedTuple class, got OneSlot(mu=0)"),
        ((OneSlot, gradtx.Slots(mu=0), _rule), "init must be a function, got a Slots"),
        ((OneSlot, _rule, None), "update must be a function, got None"),
    ],
)
@pytest.mark.parametrize("lift", [gradtx.leafwise, gradtx.matrixwise, coupled])
def test_rules_are_lifted_with_functions_and_a_class_of_states(lift, arguments, told):
    with pytest.raises(TypeError) as caught:
        lift(*arguments, name="mine")
    assert str(caught.value) == f"{lift.__name__}: {told}"


CHECKED = sorted(
    name
    for name, x in inspect.getmembers(gradtx)
    if isinstance(required := getattr(x, "requirements", None), Requirements)
    if any(what.range for what in required.of.values())
)


@pytest.mark.parametrize("name", CHECKED)
def test_ranges_in_docstrings_are_those_that_are_checked(name):
    doc = inspect.getdoc(getattr(gradtx, name))
    args = re.split(r"\n\n|\n\S", doc.split("Args:", 1)[1])[0]
    for n, what in getattr(gradtx, name).requirements.of.items():
        if what.range is None:
            continue
        told = re.split(rf"^  {n}: ", args, flags=re.MULTILINE)[1]
        told = " ".join(re.split(r"^  \w+: ", told, flags=re.MULTILINE)[0].split())
        told = re.sub(r"; usually [^.]*", "", told)  # advice
        for interval in re.findall(r"\bin ([\[(]\S+, \S+?[\])])", told):
            assert what.range.told == f"be in {interval}", (n, told)
        for least in re.findall(r"[,;] at least (\d+)", told):
            assert what.range.low == int(least), (n, told)
        if re.search(r"[,;] positive", told):
            assert what.range.low > 0, (n, told)
        if re.search(r"[,;] not negative", told):
            assert what.range.low == 0 and what.range.high >= 1e300, (n, told)
        if what.range.told == "be in (-1, 1]":  # wider than usual
            assert "in (-1, 1]" in told, (n, told)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gradtx.trace(1.0),  # a sum
        lambda: gradtx.trace(-0.5),  # momentum in games
        lambda: gradtx.sgd(0.0, momentum=None),
        lambda: gradtx.adam(np.float64(0.1), b1=0, eps=0),
        lambda: gradtx.adam(jnp.float32(0.1), mu_dtype="bfloat16", nesterov=1),
        lambda: gradtx.adamw(lambda count: 0.1, weight_decay=lambda count: 0.1),
        lambda: gradtx.add_decayed_weights(-1e-4),  # after the learning rate
        lambda: gradtx.clip(math.inf),
        lambda: gradtx.sm3(0.1),
        lambda: gradtx.adamax(0.1, b2=1.0),  # the largest gradient so far
        lambda: gradtx.schedule_free(gradtx.sgd(0.1), 0.1, b1=1.0),
        lambda: gradtx.adadelta(),
        lambda: gradtx.MultiSteps(gradtx.sgd(0.1), lambda step: 2),
        lambda: gradtx.scale(-1.0),
        lambda: gradtx.sgd(0.1, momentum=False),
    ],
)
def test_unusual_values_that_have_a_meaning(make):
    make()


def test_arguments_of_pieces_and_schedules_that_do_not_exist():
    with refused(TypeError, "cosine_decay_schedule: no argument is named step; the arguments are"):
        gradtx.cosine_decay_schedule(0.1, step=10)  # type: ignore
    with refused(TypeError, "MultiSteps: no argument is named k; the arguments are opt, every_k"):
        gradtx.MultiSteps(gradtx.sgd(0.1), k=2)  # type: ignore

    @gradtx.piece
    def lenient(**settings: float):
        return gradtx.scale(settings["by"])

    lenient(by=2.0)  # any name is right


def test_a_piece_of_ones_own_is_checked_by_its_annotations():
    def double(decay: float, anything, flag: bool = False) -> gradtx.GradientTransformation:
        return gradtx.scale(2.0)

    piece = gradtx.piece(double)
    piece(0.5, "any")
    with refused(ValueError, "double: decay must be in [0, 1), got 2.0"):
        piece(2.0, "any")
    with refused(TypeError, "double: flag must be True or False, got the string 'no'"):
        piece(0.5, "any", flag="no")
    gradtx.piece(double, ranges={"decay": None})(2.0, "any")


def test_arrays_that_cannot_be_read_are_not_examined():
    deleted = jnp.float32(0.5) + 0
    deleted.delete()
    required = Requirements(gradtx.adam, "adam", {})
    required.check((deleted,), {})
    rate = jnp.float32(0.5)
    with jax.transfer_guard("disallow"):  # the value is read by an explicit transfer
        required.check((rate,), {})


# ---- Calls ------------------------------------------------------------------------------------


def wrappers():
    adam = gradtx.adam(0.1)
    return {
        "MultiSteps": gradtx.MultiSteps(adam, 2),
        "apply_if_finite": gradtx.apply_if_finite(adam, 2),
        "inject_hyperparams": gradtx.inject_hyperparams(gradtx.adam)(0.1),
        "watch": gradtx.watch(adam),
        "counted": gradtx.counted(adam),
        "lookahead": gradtx.lookahead(adam, 2, 0.5),
        "sam": gradtx.sam(adam, adam),
        "split_real_and_imaginary": gradtx.split_real_and_imaginary(adam),
        "conditionally_mask": gradtx.conditionally_mask(adam, lambda step: step < 1),
        "conditionally_transform": gradtx.conditionally_transform(adam, lambda step: step < 1),
        "reduce_on_plateau": gradtx.reduce_on_plateau(),
        "partition": gradtx.partition({"x": adam}, "x"),
        "monitor": gradtx.monitor({"norm": gradtx.global_norm}),
    }


@pytest.mark.parametrize("name", wrappers())
def test_states_given_to_a_wrapper(name):
    tx, adam = wrappers()[name], gradtx.adam(0.1)
    params = gradtx.LookaheadParams.init_synced(PARAMS) if name == "lookahead" else PARAMS
    mine = type(tx.init(params)).__name__
    for wrong, told in (
        (adam.init(PARAMS), "a tuple of ScaleByAdamState, ScaleByLearningRateState"),
        (PARAMS, "a dict"),
    ):
        order = "update(updates, state, params)"
        with refused(TypeError, name, f"the state is {told}", mine, order, "tx.init(params)"):
            tx.update(PARAMS, wrong, params, value=1.0)


@pytest.mark.parametrize("library", [gradtx, optax])
@pytest.mark.parametrize(
    "read",
    [
        gradtx.hyperparams,
        gradtx.metrics,
        gradtx.averaged_params,
        gradtx.state_dict,
        gradtx.state.roles,
        lambda tx: gradtx.load_state_dict(tx, {}),
        lambda tx: gradtx.load_matching(tx, {}),
    ],
)
def test_a_transformation_in_place_of_its_state(library, read):
    with refused(TypeError, "state", "tx.init(params)"):
        read(library.adam(1e-3))


def test_states_that_differ_inside():
    def make(first, second):
        return gradtx.partition({"x": first, "y": second}, {"a": "x", "b": "y"})

    tx = make(gradtx.adam(0.1), gradtx.sgd(0.1))
    state = make(gradtx.sgd(0.1), gradtx.adam(0.1)).init(PARAMS)
    with refused(
        TypeError,
        "partition: the state is a PartitionState of dict of x: MaskedState of tuple of EmptyState",
        "but init returns a PartitionState of dict of x: MaskedState of tuple of ScaleByAdam",
    ):
        tx.update(PARAMS, state, PARAMS)


@each_engine
def test_updates_that_are_no_gradients(entry):
    tx = entry.make()
    state = tx.init(PARAMS)
    with refused(TypeError, entry.name, "updates is the function", "jax.grad(loss)(params)"):
        tx.update(jax.grad(lambda p: 1.0), state, PARAMS, **more(entry))
    with refused(TypeError, entry.name, "updates is None"):
        tx.update(None, state, PARAMS, **more(entry))
    broadcasting = {"a": jnp.ones(2), "b": {"c": jnp.ones((1, 3))}}
    with refused(ValueError, entry.name, "updates['b']['c']", "(1, 3)", "(2, 3)"):
        tx.update(broadcasting, state, PARAMS, **more(entry))


@each_entry
def test_a_loss_that_is_not_a_scalar(entry):
    if "value" in entry.needs:
        with refused(ValueError, entry.name, "value has shape (3,); give one number, the loss"):
            entry.make().update(
                PARAMS, entry.make().init(PARAMS), PARAMS, **{**more(entry), "value": jnp.ones(3)}
            )


def test_other_losses_that_are_not_scalars():
    tx = gradtx.reduce_on_plateau()
    with refused(ValueError, "reduce_on_plateau: value has shape (3,)"):
        tx.update(PARAMS, tx.init(PARAMS), value=jnp.ones(3))
    tx, loss = gradtx.lbfgs(), loss_around(PARAMS, PARAMS)
    given = {"value": loss(PARAMS), "grad": PARAMS}
    for value_fn, error, told in (
        (lambda p: (loss(p), 0), TypeError, "value_fn must return the loss only, got a tuple"),
        (lambda p: jnp.ones(3), ValueError, "value_fn must return a scalar, got shape (3,)"),
    ):
        with refused(error, "lbfgs", told):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS, **given, value_fn=value_fn)
        with refused(error, "lbfgs", told):
            jax.jit(
                lambda f=value_fn: tx.update(PARAMS, tx.init(PARAMS), PARAMS, **given, value_fn=f)
            )()


def test_masks_of_other_containers_and_of_arrays():
    params = flax.core.freeze({"w": jnp.ones((3, 2)), "b": jnp.ones(2)})
    for tx in (gradtx.masked(gradtx.sgd(0.1), PREFIX), gradtx.adamw(0.1, mask=PREFIX)):
        with refused(ValueError, "params is a FrozenDict, the mask is a dict", "gradtx.by_path"):
            tx.init(params)
    labels = gradtx.partition({"x": gradtx.sgd(0.1)}, {"w": "x", "b": "x"})
    with refused(ValueError, "the labels is a dict", "gradtx.by_path"):
        labels.init(params)
    select = gradtx.by_path({"w": True}, False)
    gradtx.masked(gradtx.sgd(0.1), select).init(params)
    mask = {"w": jnp.ones((3, 2), bool), "b": True}
    with refused(ValueError, "the mask must be a boolean for params['w'], got an array", "(3, 2)"):
        gradtx.masked(gradtx.sgd(0.1), mask).init(dict(params))


FIRST, SECOND = gradtx.scale(1.0), gradtx.scale(2.0)
MASKED = {
    "add_cautious_decay": lambda mask: gradtx.add_cautious_decay(0.1, mask),
    "add_corrected_decay": lambda mask: gradtx.add_corrected_decay(0.1, 0.1, 0.1, mask),
    "add_decay_to_initial": lambda mask: gradtx.add_decay_to_initial(0.1, mask),
    "add_independent_decay": lambda mask: gradtx.add_independent_decay(0.1, mask),
    "add_decayed_weights": lambda mask: gradtx.add_decayed_weights(0.1, mask),
    "freeze": gradtx.freeze,
    "masked": lambda mask: gradtx.masked(gradtx.adam(0.1), mask),
    "partition": lambda mask: gradtx.partition({True: FIRST, False: SECOND}, mask),
    "selective_transform": lambda mask: gradtx.selective_transform(FIRST, freeze_mask=mask),
}


def test_all_wrappers_with_masks_are_tested():
    mask = re.compile("mask|freeze_mask|weight_decay_mask|trust_ratio_mask|param_labels")
    found = {
        getattr(gradtx, name).__name__
        for name in PIECES
        if any(map(mask.fullmatch, inspect.signature(getattr(gradtx, name)).parameters))
    }
    assert found == set(MASKED)


WRONG = [{"a": True}, {"a": True, "b": {"c": True}, "d": False}, {"a": "no", "b": True}]


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("mask", WRONG, ids=["short", "long", "word"])
def test_wrong_masks_are_reported_by_the_wrapper_they_were_given_to(name, mask):
    outer = gradtx.chain(gradtx.scale(1.0), MASKED[name](mask), gradtx.scale(1.0))
    good = MASKED[name]({"a": True, "b": {"c": False}})
    for tx in (MASKED[name](mask), outer):
        with pytest.raises(ValueError, match=rf"^{name}( \(\w+\))?: .*(mask|label)"):
            tx.init(PARAMS)
    with pytest.raises(ValueError, match=rf"^{name}( \(\w+\))?: .*(mask|label)"):
        MASKED[name](mask).update(PARAMS, good.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    "name", ["normalize", "normalize_by_update_norm", "stateless_with_tree_map"]
)
def test_pieces_made_of_others_have_their_own_names(name):
    make = getattr(gradtx, name)
    tx = make(lambda g, p: g) if "stateless" in name else make()
    assert repr(tx.update.pipeline) == f"chain of {name}"
    assert pickle.loads(pickle.dumps(gradtx.normalize())) == gradtx.normalize()
    with pytest.raises(ValueError, match=rf"masked \({name}\): params and the mask"):
        gradtx.masked(tx, {"a": True}).init(PARAMS)


def test_wrong_masks_inside_of_an_optimizer_are_reported_by_the_optimizer():
    for tx in (
        gradtx.lars(0.1, trust_ratio_mask={"a": True}),
        gradtx.adamw(0.1, mask={"a": True}),
        gradtx.masked(gradtx.adamw(0.1, mask={"a": True}), True),
    ):
        with pytest.raises(ValueError, match=r"^(lars|adamw): params and the mask have"):
            tx.init(PARAMS)


@pytest.mark.parametrize("mask", [lambda p: True, lambda p: jax.tree.map(lambda x: x.ndim > 1, p)])
def test_masks_taken_for_schedules(mask):
    with refused(TypeError, "inject_hyperparams: mask of adamw", "'mask' to static_args"):
        gradtx.inject_hyperparams(gradtx.adamw)(0.1, mask=mask).init(jnp.ones(2))


# ---- Extra arguments --------------------------------------------------------------------------


@each_needs
def test_what_an_optimizer_reads(entry):
    tx = entry.make()
    read = gradtx.extra_args(tx)
    assert set(entry.needs) <= set(read)
    assert ("learning_rate" in read) == (not entry.fixed_rate or entry.name != "rprop")
    state = tx.init(PARAMS)
    strict = gradtx.strict(tx)
    walk(strict, PARAMS, [PARAMS], entry)
    assert jax.tree.structure(strict.init(PARAMS)) == jax.tree.structure(state)
    with refused(TypeError, "strict: nothing reads weight", *read):
        strict.update(PARAMS, state, PARAMS, **more(entry), weight=11.0)
    for around in (
        gradtx.chain(gradtx.clip(1.0), tx),
        gradtx.masked(tx, True),
        gradtx.watch(tx),
        gradtx.flatten(tx),
        gradtx.apply_if_finite(tx, 2),
        gradtx.split_real_and_imaginary(tx),
        gradtx.maximize(tx),
    ):
        assert gradtx.extra_args(around) == read
    assert gradtx.extra_args(gradtx.MultiSteps(tx, 2)) == ("weight", *read)


def test_the_documentation_says_what_is_read():
    text = (ROOT / "docs" / "state.md").read_text().split("## Extra arguments")[1]
    rows = re.findall(r"^\| (`.*?) \| .* \| (.*) \|$", text, re.MULTILINE)
    told = {
        name: re.findall(r"`(\w+)`", readers)
        for names, readers in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert set(told) >= {"learning_rate", *MEANINGS}
    for entry in gradtx.catalog.entries():
        for name in told:
            reads = name in gradtx.extra_args(entry.make())
            assert reads == ((entry.name in told[name]) != (name == "learning_rate")), entry.name
    pieces = (gradtx.reduce_on_plateau(), gradtx.hutchinson_estimator_diag_hessian(0))
    for name, piece in zip(
        ("reduce_on_plateau", "hutchinson_estimator_diag_hessian"), pieces, strict=True
    ):
        (read,) = gradtx.extra_args(piece)
        assert name in told[read]
    opaque = gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), opaque_mode=True)
    assert gradtx.extra_args(opaque) == ("grad_fn", "learning_rate")


def test_misspelt_arguments_and_arguments_of_others():
    tx = gradtx.sgd(0.1)
    for given, hint in (
        ("beta", "what is read: learning_rate"),
        ("lr", "did you mean learning_rate?"),
        ("learning_rte", "did you mean learning_rate?"),
    ):
        with refused(TypeError, f"nothing reads {given}; {hint}"):
            gradtx.strict(tx).update(PARAMS, tx.init(PARAMS), **{given: 0.5})
    assert gradtx.extra_args(optax.sgd(0.1)) is None
    forwarding = gradtx.conditionally_mask(tx, lambda step, **extra: True, forward_extra_args=True)
    assert gradtx.extra_args(forwarding) is None
    gradtx.strict(forwarding).update(PARAMS, forwarding.init(PARAMS), anything=1.0)


def test_arguments_of_the_loss_are_known():
    tx = gradtx.strict(gradtx.lbfgs())
    state, g = tx.init(PARAMS), PARAMS

    def loss(p, scale):
        return scale * sum(jnp.sum(x**2) for x in jax.tree.leaves(p))

    tx.update(g, state, PARAMS, value=loss(PARAMS, 0.5), grad=g, value_fn=loss, scale=0.5)
    with refused(TypeError, "nothing reads scales; did you mean scale?"):
        tx.update(g, state, PARAMS, value=1.0, grad=g, value_fn=loss, scales=0.5)


# ---- Maximizing -------------------------------------------------------------------------------


@each_needs
def test_maximizing_is_minimizing_the_negative(entry):
    down = walk(entry.make(), PARAMS, [PARAMS, PARAMS], entry)
    up = walk(gradtx.maximize(entry.make()), PARAMS, [negated(PARAMS)] * 2, entry, of_objective)
    assert_ulps(up, down, 4)


def negated(tree):
    return jax.tree.map(jnp.negative, tree)


def of_objective(entry, g, params):
    """The extra arguments for the objective whose negative is the loss of `extras`."""
    found = extras(entry, negated(g), params)
    for name, x in found.items():
        if callable(x):
            found[name] = lambda *args, f=x, **more: negated(f(*args, **more))
        elif name in ("value", "grad"):
            found[name] = negated(x)
    return found


def test_a_schedule_for_one_step_is_refused():
    """Under `jit` and without it; it is an argument of the optimizer."""
    tx, params = gradtx.adam(0.1), {"w": jnp.ones(2)}
    schedule = gradtx.cosine_decay_schedule(0.1, 10)
    told = r"adam.*learning_rate must be a number or a scalar array, got .*; a schedule is an argum"
    with pytest.raises(TypeError, match=told):
        tx.update(params, tx.init(params), params, learning_rate=schedule)
    with pytest.raises(TypeError, match=told):
        jax.jit(lambda p: tx.update(p, tx.init(p), p, learning_rate=schedule))(params)


@pytest.mark.parametrize(
    "make",
    [
        lambda f: gradtx.masked(gradtx.adam(0.1), f),
        lambda f: gradtx.adamw(0.1, mask=f),
        lambda f: gradtx.partition({True: gradtx.adam(0.1), False: gradtx.sgd(0.1)}, f),
        lambda f: gradtx.muon(0.1, muon_weight_dimension_numbers=f),
        lambda f: gradtx.lars(0.1, trust_ratio_mask=f),
    ],
    ids=["masked", "mask", "labels", "axes", "lars"],
)
def test_a_function_of_one_leaf_in_place_of_the_tree_is_explained(make):
    with pytest.raises(AttributeError) as raised:
        make(lambda p: p.ndim > 1).init({"w": jnp.ones((2, 2))})
    assert "is called with the whole pytree" in raised.value.__notes__[0]
