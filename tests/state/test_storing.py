"""States stored as codes: which arrays, in how many bytes, and around which transformations."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import avals, needed, numbers

import gradtx
from gradtx import catalog
from gradtx.codecs import CODECS, Coded, is_coded
from gradtx.state import Slot, UnsignedSlot

PARAMS = {
    "embed": {"kernel": numbers((16, 24), 1)},
    "body": {"kernel": numbers((24, 24), 2), "bias": numbers((24,), 3)},
}
GRADS = jax.tree.map(lambda p: jnp.sin(7 * p) + 0.1, PARAMS)
EIGHT = {"mu": "int8", "nu": "uint8"}

SAME = gradtx.Codec("same", lambda x, bits: {"codes": x}, lambda parts, shape: parts["codes"], 0.0)
"""A codec without error."""


def loss(params):
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(params)) / 2


def two_steps(tx, entry=None):
    """The updates of two steps and the state, in one program."""

    @jax.jit
    def run(params):
        found, state = [], tx.init(params)
        structure = jax.tree.structure(state)
        for _ in range(2):
            g = jax.grad(loss)(params)
            extra = needed(entry, loss, params, g) if entry else {}
            updates, state = tx.update(g, state, params, **extra)
            assert jax.tree.structure(state) == structure
            params = gradtx.apply_updates(params, updates)
            found.append(updates)
        return found, state

    return run(PARAMS)


def coded_in(state):
    """The codes of a state, by the fields in which they are."""
    found = jax.tree.leaves_with_path(state, is_leaf=is_coded)
    return {jax.tree_util.keystr(path): x for path, x in found if is_coded(x)}


WRAPPERS = {
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2).gradient_transformation(),
    "partition": lambda tx: gradtx.partition(
        {"a": tx, "b": gradtx.sgd(0.1, momentum=0.9)}, gradtx.by_path({"embed": "b"}, "a")
    ),
    "masked": lambda tx: gradtx.masked(tx, gradtx.by_path({"bias": False}, True)),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "optax": lambda tx: optax.chain(tx, optax.trace(0.9)),
}


@pytest.mark.parametrize("name", ["adamw", "muon", "shampoo", "prodigy", "lbfgs", *WRAPPERS])
def test_arithmetic_stays_as_it_is(name):
    """With a codec that has no error: for rules, methods on matrices, coupled ones and wrappers."""
    entry = None if name in WRAPPERS else catalog.get(name)
    tx = WRAPPERS[name](gradtx.adamw(0.1)) if entry is None else entry.make()
    stored = gradtx.store(tx, {"*": SAME}, min_size=1)
    (wanted, _), (found, state) = two_steps(tx, entry), two_steps(stored, entry)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    held = jax.tree.leaves(state, is_leaf=is_coded)
    assert sum(map(is_coded, held)) > 0
    assert all(
        is_coded(x) or not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim == 0 for x in held
    )


SOAP = {
    **{"mu": "int8", "nu": "uint8", "left": "int8", "right": "int8"},
    "*_basis": "int4_nearest",
}
FEW = {
    "shampoo": {"statistic": "int8", "slot": "bfloat16"},
    "soap": SOAP,
    "lbfgs": {"diff_*": "int8_nearest"},
}


@pytest.mark.parametrize("name", FEW)
def test_factors_eigenvectors_and_memories_in_few_bits(name):
    """Least squares, whose loss comes within a hundredth of the least one."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(48, 16)) * np.geomspace(0.1, 1, 16), jnp.float32)
    y = jnp.asarray(random.normal(size=(48, 32)), jnp.float32)

    def squares(w):
        return jnp.mean((x @ w - y) ** 2)

    rate = gradtx.schedules.cosine_decay_schedule(0.1, 100)
    tx = gradtx.lbfgs() if name == "lbfgs" else getattr(gradtx, name)(rate)
    tx, entry = gradtx.store(tx, FEW[name], min_size=1), catalog.get(name)

    @jax.jit
    def train(w):
        def step(carry, _):
            w, state = carry
            g = jax.grad(squares)(w)
            updates, state = tx.update(g, state, w, **needed(entry, squares, w, g))
            return (gradtx.apply_updates(w, updates), state), None

        return squares(jax.lax.scan(step, (w, tx.init(w)), length=100)[0][0])

    start = jnp.zeros((16, 32))
    least = squares(jnp.linalg.lstsq(x, y)[0])
    assert train(start) - least < 0.01 * (squares(start) - least)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", catalog.names())
def test_every_optimizer_in_8_bits(name, dtype):
    """The state of two steps has the structure, the shapes and the dtypes of the first one."""
    entry = catalog.get(name)
    params = {"w": jnp.ones((16, 24), dtype), "b": jnp.ones(24, dtype)}
    plain = jax.eval_shape(entry.make().init, params)
    if not any(x.ndim for x in jax.tree.leaves(plain)):
        return  # it has no arrays
    tx = gradtx.store(entry.make(), {"*": "int8"}, min_size=17)

    def steps(params):
        states = [tx.init(params)]
        for _ in range(2):
            g = jax.grad(loss)(params)
            extra = needed(entry, loss, params, g)
            updates, state = tx.update(g, states[-1], params, **extra)
            params = gradtx.apply_updates(params, updates)
            states.append(state)
        return states

    first, *later = jax.eval_shape(steps, params)
    assert all(avals(state) == avals(first) for state in later)
    held = [x.size * x.dtype.itemsize for x in jax.tree.leaves(first) if x.dtype != "uint32"]
    assert sum(held) < 0.6 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(plain)) + 400


@pytest.mark.parametrize(
    ("name", "rounded"),
    [("adasmooth", {"path": 0.1, "start": 9.0}), ("vsgd", {"drift": 0.0, "noise": 0.0})],
)
def test_what_only_rounding_makes_possible(name, rounded):
    """Distances above the length of the way, and 0 for estimates that are always positive."""
    tx, params = catalog.get(name).make(), jnp.ones(3)
    _, state = tx.update(params, tx.init(params), params)
    first = state[0]._replace(**{field: jnp.full(3, x) for field, x in rounded.items()})
    for _ in range(2):
        updates, (first, *_) = tx.update(0.1 * params, (first, *state[1:]), params)
        assert bool(jnp.all(jnp.isfinite(updates)))


def test_which_arrays():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))

    def named(codecs, min_size=100):
        state = gradtx.store(tx, codecs, min_size).init(PARAMS)
        return {path.split(".")[1]: x.codec.name for path, x in coded_in(state).items()}

    mu, nu = "mu['{}']['kernel']", "nu['{}']['kernel']"
    of_embed, of_body = (mu.format("embed"), nu.format("embed")), (mu.format("body"),)
    assert named({"*/mu": "int8"}) == dict.fromkeys([of_embed[0], *of_body], "int8")
    assert named({"slot/*/embed": "bfloat16"}) == dict.fromkeys(of_embed, "bfloat16")
    found = named({"nu/body": "uint8", "slot": "bfloat16", "embed/*": None})
    assert found == {nu.format("body"): "uint8", mu.format("body"): "bfloat16"}
    assert len(named({re.compile("mu|nu"): "float16"}, min_size=1)) == 6
    assert named({"*": "int8"}, min_size=577) == {}
    with pytest.raises(ValueError, match=r"store: 'moo' matches no array .*'slot/scale_by_adam/mu"):
        named({"moo": "int8"})


def test_bytes_and_memory():
    """At most 2.06 bytes a parameter, and decoded moments do not all exist at once."""
    params = {f"w{i}": jnp.zeros((256, 256)) for i in range(4)}
    peak = {}
    for name, tx in {
        "float32": gradtx.adamw(0.1),
        "8": gradtx.store(gradtx.adamw(0.1), EIGHT),
    }.items():
        state = tx.init(params)

        def step(params, state, grads, tx=tx):
            updates, state = tx.update(grads, state, params)
            return gradtx.apply_updates(params, updates), state

        plan = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
        plan = plan.memory_analysis()
        peak[name] = plan.argument_size_in_bytes + plan.output_size_in_bytes
        peak[name] += plan.temp_size_in_bytes - plan.alias_size_in_bytes
    assert sum(x.nbytes for x in jax.tree.leaves(state)) <= 2.06 * 4 * 256**2
    assert peak["8"] <= 1.25 * peak["float32"]


def test_codes_of_constants_are_not_computed_by_the_compiler():
    """Which would take it long; so the codes of `init` are results of operations."""
    init = jax.jit(gradtx.store(gradtx.adagrad(0.1), {"slot": "uint8"}).init)
    text = init.lower(jax.ShapeDtypeStruct((256, 256), jnp.float32)).compile().as_text()
    assert "u8[256,256]{1,0} fusion" in text or "u8[256,256]{1,0} convert" in text


def test_rounded_to_nearest_a_second_moment_does_not_decay():
    """And stochastically it does: the reason for the default."""
    zero, found = jnp.zeros((64, 64)), {}
    for name in ("uint8", "uint8_nearest"):
        tx = gradtx.store(gradtx.scale_by_adam(), {"nu": name})

        def step(state, _, tx=tx):
            return tx.update(zero, state)[1], None

        def run(state, step=step):
            return jax.lax.scan(step, state, length=1000)[0]

        _, state = tx.update(jnp.ones((64, 64)), tx.init(zero))
        found[name] = float(gradtx.decoded(jax.jit(run)(state)).nu.mean())
    assert found["uint8_nearest"] > 0.9e-3
    np.testing.assert_allclose(found["uint8"], 1e-3 * 0.999**1000, rtol=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_8_bits_train_as_32_do(dtype):
    """A quadratic: the distance after 300 steps is small in both."""
    target = jnp.linspace(-1, 1, 64 * 64).reshape(64, 64)
    left = {}
    for name, codecs in {"32": {}, "8": EIGHT}.items():
        tx = gradtx.adam(gradtx.schedules.cosine_decay_schedule(0.05, 300))
        tx = gradtx.store(tx, codecs) if codecs else tx

        def step(carry, _, tx=tx):
            w, state = carry
            updates, state = tx.update(w - target.astype(dtype), state, w)
            return (gradtx.apply_updates(w, updates), state), None

        def run(carry, step=step):
            return jax.lax.scan(step, carry, length=300)[0][0]

        w = jnp.zeros((64, 64), dtype)
        left[name] = float(abs(jax.jit(run)((w, tx.init(w))) - target).mean())
    assert left["8"] < (0.01 if dtype == "float32" else 1.5 * left["32"] + 0.005)


def test_saved_in_one_codec_and_loaded_in_another():
    ways = {"32": {}, "8": EIGHT, "16": {"mu": "bfloat16", "nu": "bfloat16"}, "same": {"*": SAME}}
    txs = {
        name: gradtx.store(gradtx.adam(0.1), codecs, 100) if codecs else gradtx.adam(0.1)
        for name, codecs in ways.items()
    }
    states = {name: tx.update(GRADS, tx.init(PARAMS))[1] for name, tx in txs.items()}
    exact = states["32"][0].nu["body"]["kernel"]
    for name, state in states.items():
        saved = {key: np.asarray(x) for key, x in gradtx.state_dict(state).items()}
        for other, tx in txs.items():
            if name == "same" != other:
                continue  # another program does not know its codec
            for template in (tx.init(PARAMS), jax.eval_shape(tx.init, PARAMS)):
                found = gradtx.load_state_dict(template, saved)
                assert jax.tree.structure(found) == jax.tree.structure(template)
            nu = gradtx.decoded(found)[0].nu["body"]["kernel"]
            np.testing.assert_allclose(nu, exact, rtol=0.3)
        again = gradtx.load_state_dict(txs[name].init(PARAMS), saved)
        for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(x, y)
    assert "scale_by_adam/nu/body/kernel/uint8/codes" in gradtx.state_dict(states["8"])
    larger = jax.tree.map(lambda x: jnp.concatenate([x, x]), PARAMS)
    with pytest.raises(gradtx.StateMismatch, match="missing: scale_by_adam/mu/body/kernel/int8"):
        gradtx.load_state_dict(txs["8"].init(larger), gradtx.state_dict(states["32"]))


def test_codes_in_files_of_numpy(tmp_path):
    """Which have neither bfloat16 nor float8."""
    plain = gradtx.adam(0.1)
    for codecs in ({"mu": "bfloat16", "nu": "float8_e5m2"}, {"*": "float8_e4m3fn"}):
        tx = gradtx.store(plain, codecs, min_size=1)
        _, state = tx.update(GRADS, tx.init(PARAMS))
        np.savez(tmp_path / "state.npz", **gradtx.state_dict(state))
        for other in (tx, plain):
            with np.load(tmp_path / "state.npz") as file:
                found = gradtx.load_state_dict(other.init(PARAMS), file)
            exact = state if other is tx else gradtx.decoded(state)
            for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
                np.testing.assert_array_equal(x, y)


def test_codes_stand_for_their_array():
    tx = gradtx.store(gradtx.adam(0.1), EIGHT, min_size=1)
    _, state = tx.update(GRADS, tx.init(PARAMS))
    mu = state[0].mu["body"]["kernel"]
    assert isinstance(mu, Coded) and repr(mu) == "Coded(int8, float32[24, 24])"
    assert (mu.shape, mu.ndim, mu.size, mu.dtype) == ((24, 24), 2, 576, jnp.float32)
    np.testing.assert_allclose(jnp.sum(mu), np.sum(mu.value()), rtol=1e-6)
    np.testing.assert_allclose(mu, 0.1 * GRADS["body"]["kernel"], rtol=0.13)
    assert mu.parts["seed"] != state[0].nu["body"]["kernel"].parts["seed"]


def test_functions_of_trees_take_codes_for_their_arrays():
    tx = gradtx.store(gradtx.adam(0.1), EIGHT, min_size=1)
    _, state = tx.update(GRADS, tx.init(PARAMS))
    mu, exact = state[0].mu, gradtx.decoded(state)[0].mu
    for reduce in (gradtx.global_norm, gradtx.tree.sum, gradtx.tree.max, gradtx.tree.size):
        np.testing.assert_allclose(reduce(mu), reduce(exact), rtol=1e-6)
    np.testing.assert_allclose(gradtx.tree.norm(mu, jnp.inf), gradtx.tree.norm(exact, jnp.inf))
    twice = jax.tree.map(lambda x: 2 * x, exact)
    for found in (gradtx.tree.scale(2.0, mu), gradtx.tree.add(mu, mu)):
        assert avals(found) == avals(twice)
        for x, y in zip(*map(jax.tree.leaves, (found, twice)), strict=True):
            np.testing.assert_array_equal(x, y)
    assert avals(gradtx.tree.zeros_like(mu)) == avals(twice)

    # What is set or mapped is stored as before.
    mapped = gradtx.tree.map_params(tx, lambda x: 2 * x, state)
    for found in (gradtx.tree.set(state, mu=twice), mapped):
        assert jax.tree.structure(found) == jax.tree.structure(state)
        for x, y in zip(coded_in(found[0].mu).values(), jax.tree.leaves(twice), strict=True):
            np.testing.assert_array_equal(x, y)
    same = gradtx.tree.map_params(tx, lambda x: x, state)
    for x, y in zip(jax.tree.leaves(same), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, y)

    # What is no array, such as a sharding, is for codes and scales, and not for the seed.
    names = jax.tree.map(lambda p: f"{p.ndim} axes", PARAMS)
    for each in (state, jax.eval_shape(lambda: state)):
        found = gradtx.tree.map_params(
            tx, lambda x, name: name, each, names, transform_non_params=lambda x: "seed"
        )
        parts = found[0].nu["body"]["kernel"].parts
        assert parts == {"codes": "2 axes", "scale": "2 axes", "seed": "seed"}
    shapes = gradtx.tree.map_params(tx, lambda x: x, jax.eval_shape(lambda: state))
    assert avals(shapes) == avals(state)


def test_averages_are_read_from_codes():
    average = gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.5, warmup=False))
    free = gradtx.schedule_free(gradtx.sgd(0.1), 0.1)
    for tx, read in (
        (average, gradtx.averaged_params),
        (free, lambda state: gradtx.schedule_free_eval_params(state, PARAMS)),
    ):
        found = []
        for each in (tx, gradtx.store(tx, {"slot": "bfloat16"}, min_size=1)):
            found.append(read(each.update(GRADS, each.init(PARAMS), PARAMS)[1]))
        for x, y in zip(*map(jax.tree.leaves, found), strict=True):
            np.testing.assert_allclose(x, y, rtol=2**-6)


def test_vmap_and_gradients():
    tx = gradtx.store(gradtx.adam(0.1), EIGHT, min_size=1)
    several = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), GRADS)

    @jax.jit
    def run(several):
        updates, _ = jax.vmap(lambda g: tx.update(g, tx.init(PARAMS)))(several)
        slope = jax.grad(
            lambda rate: loss(
                gradtx.store(gradtx.adam(rate), EIGHT, min_size=1).update(
                    GRADS, tx.init(PARAMS), PARAMS
                )[0]
            )
        )(0.1)
        return updates, slope

    updates, slope = run(several)
    np.testing.assert_allclose(
        updates["body"]["kernel"][0], updates["body"]["kernel"][1], rtol=1e-3
    )
    np.testing.assert_allclose(
        slope, 2 * loss(jax.tree.map(lambda u: u[0], updates)) / 0.1, rtol=1e-3
    )


def test_the_states_of_several_models_are_decoded():
    tx = gradtx.store(gradtx.adam(0.1), EIGHT, min_size=1)
    several = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), GRADS)
    step = jax.vmap(lambda g: tx.update(g, tx.init(PARAMS))[1])
    state = step(several)
    each = [tx.update(g, tx.init(PARAMS))[1] for g in (GRADS, gradtx.tree.scale(2.0, GRADS))]
    wanted = jax.tree.map(lambda *xs: jnp.stack(xs), *map(gradtx.decoded, each))
    assert avals(gradtx.decoded(state)) == avals(wanted)
    for x, y in zip(*map(jax.tree.leaves, (gradtx.decoded(state), wanted)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    # Powers of two change the scales alone.
    mapped = gradtx.tree.map_params(tx, lambda x: 4 * x, state)
    for x, y in zip(
        *map(jax.tree.leaves, (gradtx.decoded(mapped)[0].nu, wanted[0].nu)), strict=True
    ):
        np.testing.assert_allclose(x, 4 * y, rtol=1e-6)


def test_the_summary_shows_the_bytes_of_codes():
    tx = gradtx.store(gradtx.adam(0.1), EIGHT, min_size=100)
    before, after = (gradtx.summary(x, PARAMS).total.state_bytes for x in (gradtx.adam(0.1), tx))
    n = 16 * 24 + 24 * 24
    assert before["float32"] == 2 * 4 * (n + 24) + 4
    assert after["float32"] == 2 * 4 * 24 + 4 and 2 * n < after["uint8"] <= 2 * n * (1 + 1 / 24)
    found = gradtx.summary(tx, PARAMS)
    whole, stored = found.roles["slot"]
    assert whole == 2 * 4 * (n + 24)
    assert stored == 2 * 4 * 24 + after["uint8"] + after["uint32"]
    assert re.search(r"role +as arrays +stored\n(.*\n)+slot +7.87 kB +2.2\d kB", str(found))
    assert "role" not in str(gradtx.summary(gradtx.adam(0.1), PARAMS))


def test_mistakes():
    with pytest.raises(TypeError, match="store: tx must be a transformation"):
        gradtx.store({}, EIGHT)
    with pytest.raises(TypeError, match=r"codecs must be a mapping .*, got the string 'int8'"):
        gradtx.store(gradtx.adamw(0.1), "int8")
    with pytest.raises(ValueError, match="min_size must be a whole number, not negative, got -1"):
        gradtx.store(gradtx.adamw(0.1), EIGHT, min_size=-1)
    with pytest.raises(TypeError, match=r"store: a pattern must be a string or .*, got 3"):
        gradtx.store(gradtx.adamw(0.1), {3: "int8"})
    with pytest.raises(ValueError, match=r"store: a codec must be .*, got \['int8'\]"):
        gradtx.store(gradtx.adamw(0.1), {"mu": ["int8"]})
    with pytest.raises(ValueError, match=r"'count' .* could be stored .* are 'slot/scale_by_adam"):
        gradtx.store(gradtx.adamw(0.1), {"count": "int8"}).init(PARAMS)
    tx = gradtx.store(gradtx.adamw(0.1), EIGHT, min_size=1)
    less = {"embed": GRADS["embed"]}
    paths = r"only state.mu has state.mu\['body'\]\['bias'\], state.mu\['body'\]\['kernel'\](\n|$)"
    with pytest.raises(ValueError, match=paths):
        tx.update(less, tx.init(PARAMS), less)
    with pytest.raises(ValueError, match=r"^adamw: .*only params has params"):
        tx.update(GRADS, tx.init(PARAMS), {"other": 1.0})


@pytest.mark.parametrize(
    ("encode", "decode", "told"),
    [
        (lambda x, bits: x, lambda parts, shape: parts, "encode must return a mapping from names"),
        (
            lambda x, bits: {"first": x[0]},
            lambda parts, shape: parts["first"],
            "decode must return an array of shape (3,), got ()",
        ),
    ],
)
def test_what_the_functions_of_a_codec_return_is_checked(encode, decode, told):
    mine = gradtx.Codec("mine", encode, decode, relative=1.0)
    tx, p = gradtx.store(gradtx.adam(0.1), {"mu": mine}, min_size=1), jnp.ones(3)
    with pytest.raises((TypeError, ValueError), match=f"Codec 'mine': {re.escape(told)}"):
        tx.update(p, tx.init(p))


def test_all_codecs_have_names():
    assert all(name == codec.name for name, codec in CODECS.items())


# ---- Numbers that are never negative ------------------------------------------------------------

NOT_DECLARED = {
    "alice": {"matrices/scale_by_alice/tracked"},  # a matrix, here of one entry
    "ftrl": {"ftrl/excess"},  # 0 unless there is a regularization
    **{  # eigenvalues, which rounding may make negative
        name: {
            f"matrices/scale_by_{name.replace('_', '')}/{side}_values" for side in ("left", "right")
        }
        for name in ("kl_shampoo", "kl_soap")
    },
    "sophia": {"sophia/nu"},  # the estimates of a Hessian that happens to be positive
    "tam": {"tam/correlation"},  # a cosine
}
"""Fields that are not negative in the test, but may be elsewhere."""


@pytest.mark.thorough
@pytest.mark.parametrize("name", catalog.names())
def test_what_is_never_negative_is_declared(name):
    """Exactly the fields that are declared to be unsigned have no negative entry in a noisy run."""
    entry = catalog.get(name)
    tx = entry.make()
    start = {"w": numbers((6, 4), 1), "b": numbers((5,), 2)}

    @jax.jit
    def run(params):
        def step(carry, i):
            params, state = carry
            g = jax.grad(loss)(params)
            g = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(i), x.shape), g)
            updates, state = tx.update(g, state, params, **needed(entry, loss, params, g))
            return (gradtx.apply_updates(params, updates), state), state

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(8))[1]

    states = run(start)
    roles = gradtx.state.roles(jax.tree.map(lambda x: x[-1], states), start)
    least: dict[tuple[str, bool], float] = {}
    for role, x in zip(jax.tree.leaves(roles), jax.tree.leaves(states), strict=True):
        if role.kind in ("slot", "statistic") and jnp.issubdtype(x.dtype, jnp.floating):
            field = role.name.removesuffix(f"/{role.parameter}"), role.signed
            least[field] = min(least.get(field, 0.0), float(jnp.min(x, initial=0)))
    assert not [field for (field, signed), x in least.items() if x < 0 and not signed]
    odd = {field for (field, signed), x in least.items() if x == 0 and signed}
    assert odd == NOT_DECLARED.get(name, set())


def test_arrays_that_are_never_negative_get_unsigned_codes():
    class State(NamedTuple):
        squares: UnsignedSlot
        sums: Slot

    def rule(g, s, step, p):
        return g, gradtx.Slots(squares=g**2, sums=g)

    def init(p):
        return gradtx.Slots(squares=p, sums=p)

    own = gradtx.leafwise(State, init, rule, name="own")
    w = numbers((64, 64), 1)
    for tx, unsigned in ((gradtx.adamw(0.1), "nu"), (optax.adamw(0.1), "nu"), (own, "squares")):
        for name, other in (("int8", "uint8"), ("int4_nearest", "uint4_nearest")):
            for pattern in ("*", unsigned):
                state = gradtx.store(tx, {pattern: name}).init(w)
                found = {key.split(".")[-1]: x.codec.name for key, x in coded_in(state).items()}
                assert found.pop(unsigned) == other
                assert set(found.values()) <= {name}
        state = gradtx.store(tx, {"*": "bfloat16"}).init(w)
        assert {x.codec.name for x in coded_in(state).values()} == {"bfloat16"}
        state = gradtx.store(tx, {"*": CODECS["int8"]}, min_size=1).init(w)
        assert coded_in(state)


def test_small_second_moments_stay_positive_whatever_the_pattern():
    g = jnp.full((64, 64), 1e-4).at[0, 0].set(1.0)
    tx = gradtx.store(gradtx.scale_by_adam(), {"*": "int8"})
    _, state = tx.update(g, tx.init(g))
    assert bool(jnp.all(gradtx.decoded(state).nu > 0))


def test_unsigned_codes_do_not_hold_arrays_that_may_be_negative():
    w = numbers((64, 64), 1)
    for pattern, name in (("mu", "uint8"), ("*", "uint4_nearest"), (re.compile("slot"), "uint4")):
        for tx in (gradtx.adamw(0.1), optax.adamw(0.1), gradtx.chain(gradtx.scale_by_adam())):
            with pytest.raises(ValueError) as caught:
                gradtx.store(tx, {pattern: name}).init(w)
            told = f"store: {pattern!r} would store slot/scale_by_adam/mu, whose numbers may be neg"
            assert str(caught.value).startswith(told)
            assert f"codec '{name}'" in str(caught.value)
            assert f"use the signed codec '{name.removeprefix('u')}'" in str(caught.value)
    with pytest.raises(ValueError, match=r"'left' would store statistic/.*left.* use .* 'int8'"):
        gradtx.store(gradtx.soap(0.1), {"left": "uint8"}, min_size=1).init({"w": w})
    for codecs in ({"mu": None, "*": "uint8"}, {"nu": "uint8"}):
        assert len(coded_in(gradtx.store(gradtx.adamw(0.1), codecs).init(w))) == 1
    small = gradtx.store(gradtx.adamw(0.1), {"*": "uint8"}, min_size=10_000)
    assert coded_in(small.init(w)) == {}


def test_what_declares_no_sign_may_have_any_codec():
    """A state of which nothing is known, and a codec of the user's."""

    class Undeclared(NamedTuple):
        sums: Any

    positive = optax.GradientTransformation(
        lambda params: Undeclared(jax.tree.map(jnp.abs, params)),
        lambda updates, state, params=None: (
            updates,
            Undeclared(jax.tree.map(lambda s, g: s + abs(g), state.sums, updates)),
        ),
    )
    bare = optax.GradientTransformation(lambda params: params, lambda g, state, params=None: (g, g))
    for tx in (positive, bare):
        w = abs(numbers((64, 64), 1))
        stored = gradtx.store(tx, {"*": "uint8"})
        (held,) = coded_in(stored.update(w, stored.init(w))[1]).values()
        assert held.codec.name == "uint8"
        assert bool(jnp.all(jnp.isfinite(held.value())))
    state = gradtx.store(gradtx.adamw(0.1), {"*": SAME}, min_size=1).init(w)
    assert len(coded_in(state)) == 2
