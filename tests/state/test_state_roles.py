"""Roles: what states declare of their fields, and what `roles` makes of it for each array."""

import collections
import dataclasses
import importlib
import pkgutil
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from representatives import ENTRIES, moved_one_by_one

import gradtx
from gradtx._roles import declaration_of, declared
from gradtx.state import Count, Hyperparameter, Inner, Shared, Slot, Statistic, Told, roles
from gradtx.tree.walking import parts

OF_PARAMETERS = ("slot", "statistic")
OF_NONE = ("shared", "count", "rate", "hyperparameter", "key", "reading")


def tree_of(entry=None, factor=1):
    """Leaves of many shapes and dtypes; the sides of all but the scalars times a factor."""
    n = factor
    tree = {
        "w": jnp.ones((2 * n, 3 * n)),
        "b": jnp.ones(3 * n, jnp.bfloat16),
        "scalar": jnp.ones(()),
        "deep": {"tensor": jnp.ones((2 * n, 2 * n, 3 * n)), "none": None},
        "list": [jnp.ones((3 * n, 3 * n), jnp.float16), jnp.ones((n, 5 * n))],
    }
    if entry is not None and entry.takes_complex:
        tree["complex"] = jnp.ones((2 * n, 2 * n), jnp.complex64)
    return tree


def of(tree, path):
    """The leaf at a path that `roles` tells."""
    (leaf,) = [x for name, x in leaves_by_path(tree) if name == path]
    return leaf


def leaves_by_path(tree):
    for path, x in jax.tree.leaves_with_path(tree):
        yield "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path), x


def is_matrix(tree):
    return jax.tree.map(lambda p: p.ndim > 1, tree)


def labels(tree):
    return jax.tree.map(lambda p: "of matrices" if p.ndim > 1 else "of others", tree)


AROUND = {
    "alone": lambda tx, tree: tx,
    "masked": lambda tx, tree: gradtx.masked(tx, is_matrix(tree)),
    "masked by a function": lambda tx, tree: gradtx.masked(tx, is_matrix),
    "partitioned": lambda tx, tree: gradtx.partition(
        {"of matrices": tx, "of others": gradtx.adam(0.1)}, labels(tree)
    ),
}


# ---- What is declared -------------------------------------------------------------------------


def state_classes():
    """All NamedTuples in gradtx that are states by their name or because they were declared."""
    for module in pkgutil.walk_packages(gradtx.__path__, "gradtx."):
        if module.name in ("gradtx.__main__", "gradtx.as_optax"):  # programs
            continue
        for x in vars(importlib.import_module(module.name)).values():
            own = isinstance(x, type) and x.__module__ == module.name and hasattr(x, "_fields")
            if own and declaration(x) is not None:
                yield x


def declaration(state):
    return declaration_of(state(*state._fields))


STATES = sorted(set(state_classes()), key=lambda x: x.__name__)


def test_the_states_are_found():
    assert {gradtx.EmptyState, gradtx.TraceState, gradtx.ApplyEvery} <= set(STATES)
    assert len(STATES) > 50


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_field_of_every_state_is_declared(state):
    """By itself, and for other libraries' states of its name."""
    namesake = collections.namedtuple(state.__name__, state._fields)
    own = declaration(state)
    assert own == declaration(namesake) and set(own.roles) == set(state._fields)
    assert all(role.kind != "unknown" for role in own.roles.values())


def test_a_field_without_a_role_is_refused():
    with pytest.raises(TypeError, match=r"HalfState: needs roles for \['b'\]"):

        @declared
        class HalfState(NamedTuple):
            a: Slot
            b: Any


# ---- Every array of every optimizer -----------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "around"),
    list(moved_one_by_one(ENTRIES, [*AROUND])),
    ids=lambda x: getattr(x, "name", x),
)
def test_every_array_has_one_role_that_fits(entry, around):
    tree, other = tree_of(entry), tree_of(entry, 2)
    state = jax.eval_shape(AROUND[around](entry.make(), tree).init, tree)
    found = roles(state, tree)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    names = [name for name in gradtx.state_dict(jax.tree.map(zeros, state)) if name != "version"]
    assert [role.name for role in jax.tree.leaves(found)] == names
    larger = jax.eval_shape(AROUND[around](entry.make(), other).init, other)
    leaves = zip(*map(jax.tree.leaves, (found, state, larger)), strict=True)
    for role, leaf, in_larger in leaves:
        if role.kind in OF_PARAMETERS:
            assert role.parameter in role.name
            parameter = of(tree, role.parameter)
            assert role.kind != "slot" or leaf.shape == parameter.shape, role
        else:
            assert role.kind in OF_NONE and role.parameter is None
            assert leaf.shape == in_larger.shape, f"{role} depends on the parameters"
            assert leaf.shape == () or role.kind in ("shared", "key")
    assert found == roles(state), "what the state says by itself"


def zeros(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.zeros(x.shape, x.dtype)


def test_each_kind_occurs():
    tree = tree_of()
    made = [entry.make() for entry in ENTRIES] + [gradtx.watch(gradtx.add_noise(0.1, 0.5, 0))]
    states = [jax.eval_shape(tx.init, tree) for tx in made]
    seen = {role.kind for state in states for role in jax.tree.leaves(roles(state, tree))}
    assert seen == {*OF_PARAMETERS, *OF_NONE}


WRAPPERS = {
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, lambda step: step < 9),
    "inject_hyperparams": lambda tx: gradtx.inject_hyperparams(lambda r: tx)(0.1),
    "mechanize": gradtx.mechanize,
    "schedule_free": lambda tx: gradtx.contrib.schedule_free(tx, 0.1),
    "sam": lambda tx: gradtx.contrib.sam(tx, gradtx.sgd(0.5)),
    "watch": gradtx.watch,
    "counted": gradtx.counted,
    "plateau": lambda tx: gradtx.chain(tx, gradtx.reduce_on_plateau()),
    "linesearch": lambda tx: gradtx.chain(tx, gradtx.scale_by_zoom_linesearch(5)),
    "named": lambda tx: gradtx.named_chain(("one", tx), ("two", gradtx.ema(0.9))),
    "optax": lambda tx: optax.chain(optax.clip(1.0), tx),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_keep_the_roles_of_what_is_in_them(wrapper):
    tree = tree_of()
    tx = gradtx.chain(gradtx.scale_by_novograd(), gradtx.trace(0.9))
    found = jax.tree.leaves(roles(WRAPPERS[wrapper](tx).init(tree), tree))
    for inner in jax.tree.leaves(roles(tx.init(tree), tree)):
        (same,) = [role for role in found if role.name.endswith(inner.name)]
        assert (same.kind, same.parameter) == (inner.kind, inner.parameter)
    for role in found:
        assert (role.parameter is None) == (role.kind in OF_NONE)


def kinds(state, params=None):
    return {role.name: role.kind for role in jax.tree.leaves(roles(state, params))}


def owners(state, params=None):
    return {role.name: role.parameter for role in jax.tree.leaves(roles(state, params))}


def test_where_an_optimizer_sees_the_parameters_in_another_form():
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    flat = gradtx.flatten(gradtx.scale_by_adam()).init(tree)
    assert kinds(flat, tree)["scale_by_adam/mu"] == "shared"
    low = gradtx.scale_by_galore(1).init(tree)
    found = kinds(low, tree)
    assert found["galore/projector/w"] == found["scale_by_adam/mu/w"] == "statistic"
    assert owners(low, tree)["scale_by_adam/mu/w"] == "w"
    pair = gradtx.LookaheadParams(tree, tree)
    fast = gradtx.lookahead(gradtx.adam(0.1), 5, 0.5).init(pair)
    for params in (pair, None):
        assert kinds(fast, params)["scale_by_adam/mu/w"] == "slot"
        assert owners(fast, params)["scale_by_adam/mu/w"] == "fast/w"
    split = gradtx.split_real_and_imaginary(gradtx.trace(0.9)).init({"z": jnp.ones(2, complex)})
    found = roles(split, {"z": jnp.ones(2, complex)})
    assert {(role.kind, role.parameter) for role in jax.tree.leaves(found)} == {("slot", "z")}


def test_states_that_measure_something_else():
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    measures = {
        "norm": gradtx.measure_with_ema(gradtx.global_norm, 0.9),
        "all": gradtx.measure_with_ema(lambda updates: updates, 0.9),
    }
    found = kinds(gradtx.monitor(measures).init(tree), tree)
    assert found["monitor/measurements/norm"] == "reading"
    assert found["measure_states/ema/ema"] == "shared"
    assert found["measure_states/ema#2/ema/w"] == "slot"
    assert found["measure_states/ema#2/count"] == "count"


@pytest.mark.parametrize("params", [jnp.ones((2, 3)), {"a/b": jnp.ones(2)}, [jnp.ones(())], (), {}])
def test_trees_of_any_form(params):
    state = gradtx.chain(gradtx.scale_by_sm3(), gradtx.adam(0.1)).init(params)
    for found in (roles(state, params), roles(state)):
        told = jax.tree.leaves(found)
        slots = [role for role in told if role.kind == "slot"]
        assert len(slots) == 3 * len(jax.tree.leaves(params))
        assert {role.parameter for role in slots} == {path for path, _ in leaves_by_path(params)}
        assert [role.name for role in told if role.kind == "count"] == [
            "scale_by_adam/count",
            "scale_by_learning_rate/count",
        ]


# ---- Other people's states --------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda lib: lib.adamw(0.1),
        lambda lib: lib.sgd(lambda count: 0.1, momentum=0.9),
        lambda lib: lib.novograd(0.1),
        lambda lib: lib.adafactor(0.1),
        lambda lib: lib.masked(lib.adam(0.1), is_matrix),
        lambda lib: lib.partition(
            {"of matrices": lib.adam(0.1), "of others": lib.sm3(0.1)}, labels
        ),
        lambda lib: lib.MultiSteps(lib.apply_if_finite(lib.rprop(0.1), 3), 2),
        lambda lib: lib.inject_hyperparams(lib.adam)(learning_rate=lambda count: 0.1),
        lambda lib: lib.contrib.prodigy(0.1),
        lambda lib: lib.lbfgs(0.1),
        lambda lib: lib.contrib.schedule_free_adamw(0.1),
    ],
)
def test_optax_states_have_the_roles_of_ours(make):
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    theirs, ours = (kinds(make(library).init(tree), tree) for library in (optax, gradtx))
    shared = theirs.keys() & ours.keys()
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
    assert len(shared) > len(theirs) / 2
    mapped = gradtx.tree.map_params(make(optax), lambda x, p: p.shape, make(optax).init(tree), tree)
    assert {(2, 3), (3,)} & {x for x in jax.tree.leaves(mapped, is_leaf=is_shape) if is_shape(x)}


def is_shape(x):
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x) and x != ()


class VelocityState(NamedTuple):
    """Of a user who says nothing."""

    count: Any
    velocity: Any
    rng_key: Any
    learning_rate: Any
    largest: Any


TREE = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
VELOCITY = VelocityState(jnp.int32(0), TREE, jnp.zeros(2), 0.1, jnp.zeros(()))


def test_names_that_speak_for_themselves_and_structure():
    assert kinds((VELOCITY,), TREE) == {
        "velocity/count": "count",
        "velocity/velocity/b": "slot",
        "velocity/velocity/w": "slot",
        "velocity/rng_key": "key",
        "velocity/learning_rate": "hyperparameter",
        "velocity/largest": "shared",
    }
    assert kinds((VELOCITY,)) == kinds((VELOCITY,), TREE)


class ModelState(NamedTuple):
    """Of a user who declares."""

    steps: Count
    last: Slot
    sides: Statistic
    bound: Annotated[Hyperparameter, Told("step_bound")]
    inner: Inner
    most: "Shared" = jnp.zeros(())


def test_a_users_declaration():
    sides = jax.tree.map(lambda x: [jnp.zeros(n) for n in x.shape], TREE)
    state = ModelState(jnp.int32(3), TREE, sides, jnp.float32(2), (VELOCITY, TREE))
    for params in (TREE, None):
        assert kinds(state, params)["model/steps"] == "count"
        assert kinds(state, params)["model/last/w"] == "slot"
        assert kinds(state, params)["model/sides/w/1"] == "statistic"
        assert kinds(state, params)["velocity/velocity/w"] == "slot"
        assert owners(state, params)["model/sides/w/1"] == "w"
        assert kinds(state, params)["model/most"] == "shared"
        assert kinds(state, params)["1/w"] == "slot"
    assert float(gradtx.hyperparams(state)["step_bound"]) == 2

    def init(params):
        return state._replace(
            last=params, sides=params, inner=(VELOCITY._replace(velocity=params),)
        )

    state = state._replace(inner=(VELOCITY,))
    mapped = gradtx.tree.map_params(
        init, lambda x, p: p.ndim, state, TREE, transform_non_params=lambda x: "-"
    )
    assert mapped.sides == {"w": [2, 2], "b": [1]} and mapped.steps == mapped.most == "-"


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Memory:
    total: "Slot"
    number: "Unseen" = 0  # noqa: F821


def test_dataclasses_and_annotations_that_cannot_be_read():
    assert kinds([Memory(TREE, jnp.zeros(()))], TREE) == {
        "memory/total/b": "slot",
        "memory/total/w": "slot",
        "memory/number": "shared",
    }


def test_bare_trees_are_told_by_their_structure():
    state = {"seen": 1, "copy": TREE, "norms": [{"w": 1.0, "b": 2.0}], "deep": {"w": [1.0, 2.0]}}
    found = kinds(state, TREE)
    assert found["seen"] == "shared"
    assert found["copy/w"] == "slot" and found["norms/0/w"] == found["deep/w/1"] == "statistic"
    assert kinds([jnp.ones(()), jax.random.key(0)], TREE) == {"0": "shared", "1": "key"}
    assert kinds([jnp.ones(3), jnp.ones(())], jnp.ones(3)) == {"0": "slot", "1": "shared"}


def test_parameters_that_look_like_states():
    """What is declared to be a slot is not taken apart for what its tree is made of."""
    params = VELOCITY._replace(velocity=jnp.ones(2))
    tx = gradtx.trace(0.9)
    (part,) = parts(tx.init(jax.tree.map(jnp.float32, params)))
    assert (part.piece, part.field, part.kind) == ("trace", "trace", "slot")


def test_what_a_role_prints():
    state = gradtx.trace(0.9).init(jnp.ones(2))
    assert str(roles(state).trace) == "slot of the parameter: trace/trace"
