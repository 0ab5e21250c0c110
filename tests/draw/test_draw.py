"""Pictures: the numbers behind them, what is said in them, bad input, and the command."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import draw, problems
from gradtx.__main__ import main
from gradtx.draw import gallery, plane
from gradtx.draw.panels import best_azimuth
from gradtx.draw.style import finish, line_styles, new_figure, png

BOX = ((-1.0, 1.0), (-1.0, 1.0))


def bowl(x):
    return x[0] ** 2 + 4 * x[1] ** 2


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ---- Paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_path_is_that_of_a_plain_loop(name):
    tx = {
        "momentum": gradtx.sgd(1e-3, momentum=0.9),
        "adam": gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 20)),
    }[name]
    path = draw.descend(problems.rosenbrock, (-1.2, 1.0), tx, 20)
    x = jnp.array([-1.2, 1.0])
    state, points = tx.init(x), [x]
    for _ in range(20):
        updates, state = tx.update(jax.grad(problems.rosenbrock.fun)(x), state, x)
        x = gradtx.apply_updates(x, updates)
        points.append(x)
    np.testing.assert_allclose(path.points, np.array(points), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(path.values, [problems.rosenbrock(p) for p in points], rtol=1e-3)
    assert not path.diverged


def test_a_path_that_diverges_stops_and_says_so():
    path = draw.descend(lambda x: jnp.sum(x**4), (2.0, 1.0), gradtx.sgd(1.0), 50)
    assert path.diverged and np.isfinite(path.points).all() and path.story(BOX) == "diverges"


def test_what_leaves_the_picture_is_cut_and_said():
    out = draw.Descent(
        np.array([[0.5, 0.0], [0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), np.ones(4), False
    )
    assert out.story(BOX) == "leaves the window at step 2"
    np.testing.assert_array_equal(out.visible(BOX), out.points[:3])
    np.testing.assert_array_equal(plane.cut(out.visible(BOX), BOX)[-1], [1.0, 0.0])
    corners = np.array([[0.5, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    back = draw.Descent(corners, np.array([1, 9, 9, 0.5]), False)
    assert back.story(BOX) == "0.5 (outside in 2 steps)"
    np.testing.assert_array_equal(
        plane.cut(back.visible(BOX), BOX), [[0.5, 0], [1, 0], [np.nan] * 2, [0, 1], [0, 0]]
    )
    assert out._replace(points=out.points + 5).story(BOX) == "leaves the window at step 0"


@pytest.mark.parametrize("seed", range(2))
def test_cutting_keeps_exactly_what_is_inside(seed):
    """Against points laid densely on the path."""
    points = np.random.default_rng(seed).normal(size=(15, 2)) * 1.5
    dense = points[:-1, None] + np.linspace(0, 1, 300)[:, None] * np.diff(points, axis=0)[:, None]
    dense = dense.reshape(-1, 2)
    inside = dense[~plane.outside(dense, BOX)]
    shown = plane.cut(points, BOX)
    assert (np.abs(shown[~np.isnan(shown).any(1)]) <= 1 + 1e-12).all()
    fine = plane.along(shown, BOX, pieces=500)
    fine = fine[~np.isnan(fine).any(1)]
    apart = np.linalg.norm(inside[::7, None] - fine, axis=-1).min(1)
    assert apart.max() < 0.01
    length = np.nansum(np.linalg.norm(np.diff(shown, axis=0), axis=1))
    steps = np.linalg.norm(np.diff(dense, axis=0), axis=1)
    there = ~plane.outside(dense, BOX)
    assert length == pytest.approx(steps[there[1:] & there[:-1]].sum(), rel=0.02)


# ---- Surfaces ---------------------------------------------------------------------------------


def test_levels_rise_by_equal_ratios_from_the_least_value():
    surface = plane.on_grid("t", lambda x: bowl(x) - 3, BOX, 51, -3.0)
    above = surface.levels() + 3
    np.testing.assert_allclose(above[1:] / above[:-1], above[1] / above[0])
    assert above[-1] == pytest.approx(5.0)
    assert 0 < np.mean(surface.values + 3 < above[0]) < 0.02
    np.testing.assert_allclose(surface.values[:, 25], 4 * surface.y**2 - 3, atol=1e-6)  # rows are y


def test_heights_are_logarithms_where_most_is_flat():
    steep = plane.on_grid("t", lambda x: jnp.exp(5 * jnp.sum(x)), BOX, 41, 0.0)
    heights, logarithmic = steep.heights()
    assert logarithmic and heights.max() == pytest.approx(10 / np.log(10), rel=1e-5)
    heights, logarithmic = plane.on_grid("t", lambda x: x[0], BOX, 41, None).heights()
    assert not logarithmic
    np.testing.assert_allclose(heights, np.linspace(-1, 1, 41)[None].repeat(41, 0), atol=1e-6)


def test_interpolation_is_exact_for_planes():
    surface = plane.on_grid("t", lambda x: 2 * x[0] - 3 * x[1], ((-1, 1), (0, 5)), 7, None)
    points = np.random.default_rng(0).uniform((-1, 0), (1, 5), (50, 2))
    got = plane.interpolated(surface, surface.values, np.concatenate([points, [[np.nan, 1.0]]]))
    np.testing.assert_allclose(got[:-1], points @ [2, -3], atol=1e-5)
    assert np.isnan(got[-1])


def test_the_view_is_from_the_lower_side_with_x_to_the_right():
    x = np.linspace(-1, 1, 20)
    for slope, left in (([1, 0.3], True), ([-1, 0.3], False), ([0.5, 1], True)):
        azimuth = np.radians(best_azimuth(slope[0] * x + slope[1] * x[:, None]))
        assert (np.cos(azimuth) < 0) == left and np.sin(azimuth) < -0.8


# ---- The loss around parameters ---------------------------------------------------------------

PARAMS = {
    "conv": jnp.arange(1.0, 25.0).reshape(2, 3, 4),
    "dense": jnp.array([[3.0, 0.0], [4.0, 0.0]]),
    "bias": jnp.ones(2),
    "scale": jnp.ones((3, 2), jnp.bfloat16),
}


def quadratic(params):
    return sum(jnp.sum(jnp.asarray(p, jnp.float32) ** 2) for p in jax.tree.leaves(params))


def test_directions_have_the_filters_norms():
    d = draw.random_direction(jax.random.key(1), PARAMS)
    for name in ("conv", "dense", "scale"):
        ours, theirs = (
            np.linalg.norm(np.asarray(t[name], np.float64).reshape(-1, t[name].shape[-1]), axis=0)
            for t in (d, PARAMS)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_array_equal(d["bias"], 0)
    assert np.std(d["conv"] / jnp.linalg.norm(d["conv"], axis=(0, 1))) > 0.1


def test_the_surface_is_the_loss_over_the_plane():
    plane_ = tuple(draw.random_direction(jax.random.key(i), PARAMS) for i in (1, 2))
    traced = []

    def loss(params):
        traced.append(1)
        return quadratic(params)

    surface = draw.surface_around(loss, PARAMS, plane_, 0.5, 5)
    assert len(traced) == 1
    assert surface.values[2, 2] == pytest.approx(float(quadratic(PARAMS)))
    for i, j in ((0, 0), (4, 1), (1, 3)):
        there = moved(surface.x[j], surface.y[i], *plane_)
        assert surface.values[i, j] == pytest.approx(float(quadratic(there)), rel=1e-4)


def moved(x, y, a, b):
    return jax.tree.map(lambda p, u, v: (p + x * u + y * v).astype(p.dtype), PARAMS, a, b)


def line_to_the_end(weights):
    """Points that approach `PARAMS` along two known directions."""
    a, b = (draw.random_direction(jax.random.key(i), PARAMS) for i in (5, 6))
    return [moved(x, y, a, b) for x, y in weights], (a, b)


WAY = [(2.0, -1.0), (1.0, 0.5), (0.25, 0.5), (0.0, 0.0)]


@pytest.mark.parametrize("stacked", [False, True])
def test_a_trajectory_is_projected_and_ends_at_the_centre(stacked):
    rows, directions = line_to_the_end(WAY)
    given = jax.tree.map(lambda *x: jnp.stack(x), *rows) if stacked else rows
    where, share = draw.projected(PARAMS, given, directions)
    np.testing.assert_allclose(where, WAY, atol=0.02)  # one leaf is bfloat16
    np.testing.assert_array_equal(where[-1], 0)
    assert share == pytest.approx(1, abs=1e-3)
    elsewhere = tuple(draw.random_direction(jax.random.key(i), PARAMS) for i in (1, 2))
    assert draw.projected(PARAMS, given, elsewhere)[1] < 0.6


def test_principal_directions_hold_a_plane_path():
    float32 = {name: jnp.asarray(p, jnp.float32) for name, p in PARAMS.items()}
    rows, _ = line_to_the_end(WAY)
    rows = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), row) for row in rows[:-1]]
    rows.append(float32)
    first, second = draw.path_directions(float32, rows)
    where, share = draw.projected(float32, rows, (first, second))
    assert share == pytest.approx(1, abs=1e-3)
    assert np.abs(where).max(0) == pytest.approx([1, 1], rel=1e-4)
    assert where.max(0) == pytest.approx([1, 1], rel=1e-4)  # the farthest is on the right
    lengths = [np.sqrt(quadratic(d)) for d in (first, second)]
    inner = sum(np.vdot(first[k], second[k]) for k in first)
    assert lengths[0] > lengths[1] and abs(inner) < 1e-4 * lengths[0] * lengths[1]


def test_the_picture_of_a_trajectory():
    rows, _ = line_to_the_end(WAY)
    figure = draw.loss_surface(quadratic, PARAMS, trajectory=rows, points=7, title="here")
    assert "% of the path is in this plane" in figure.axes[0].get_title()
    assert figure.axes[0].child_axes == [] and figure.get_suptitle() == "here"
    tiny = [jax.tree.map(lambda p: p * 1.001, PARAMS), PARAMS]
    flat, _ = draw.loss_surface(quadratic, PARAMS, trajectory=tiny, points=7).axes
    (corner,) = flat.child_axes  # magnified
    assert corner.get_xlim()[1] < 0.1
    along = draw.loss_surface(quadratic, PARAMS, trajectory=rows, directions="path", points=7)
    assert along.axes[0].get_title() == "all of the path is in this plane"
    assert png(along).startswith(b"\x89PNG")


# ---- Batches ----------------------------------------------------------------------------------

X = jnp.array([[1.0, 0.0], [0.5, 1.0], [-1.0, 2.0], [0.0, 1.0], [2.0, 1.0]])
Y = jnp.array([1.0, 2.0, 0.0, 1.0, 3.0])


def squares(w, batch):
    x, y = batch
    return jnp.mean((x @ w - y) ** 2)


def test_gradient_evaluations_are_counted():
    """By a loss that reports the size of each batch that it is differentiated on."""
    sizes = []

    def loss(w, batch):
        size = len(batch[1])

        @jax.custom_jvp
        def watched(w):
            return squares(w, batch)

        @watched.defjvp
        def _(primals, tangents):
            jax.debug.callback(lambda: sizes.append(size))
            return jax.jvp(lambda w: squares(w, batch), primals, tangents)

        return watched(w)

    for size, steps in ((5, 6), (4, 7)):
        sizes.clear()
        run = draw.batch_curve(
            loss, jnp.zeros(2), (X, Y), gradtx.sgd(0.05), size, epochs=6, key=jax.random.key(0)
        )
        jax.effects_barrier()
        assert sizes == [size] * steps
        assert run.evaluations[-1] == size * steps == sum(sizes) and run.steps[-1] == steps
        np.testing.assert_array_equal(run.evaluations, run.steps * size)
        np.testing.assert_allclose(run.epochs, run.evaluations / 5)


def test_batch_descent_by_hand():
    run = draw.batch_curve(
        squares, jnp.zeros(2), (X, Y), gradtx.sgd(0.1), 5, epochs=4, key=jax.random.key(3)
    )
    x, y, w, losses = np.asarray(X, float), np.asarray(Y, float), np.zeros(2), []
    for _ in range(5):
        losses.append(np.mean((x @ w - y) ** 2))
        w = w - 0.1 * 2 * x.T @ (x @ w - y) / 5
    np.testing.assert_allclose(run.loss, losses, rtol=1e-5)
    np.testing.assert_array_equal(run.steps, range(5))


def test_every_epoch_visits_every_example_once():
    seen = []

    def loss(w, batch):
        jax.debug.callback(lambda b: seen.append(b.tolist()), batch)
        return jnp.mean((w - batch) ** 2)

    tx = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None: (jnp.zeros_like(u), s))
    key = jax.random.key(0)
    draw.batch_curve(loss, jnp.array(0.0), jnp.arange(6.0), tx, 2, epochs=3, key=key)
    jax.effects_barrier()
    steps = np.array([b for b in seen if len(b) == 2])
    assert len(steps) == 9
    np.testing.assert_array_equal(np.sort(steps.reshape(3, 6)), [range(6)] * 3)
    assert (steps.reshape(3, 6)[0] != steps.reshape(3, 6)[1]).any()


def test_the_picture_of_batches():
    sizes = {5: 0.1, 1: 100.0}
    figure = draw.batch_sizes(
        squares, jnp.zeros(2), (X, Y), lambda size: gradtx.sgd(sizes[size]), list(sizes), epochs=30
    )
    assert legend(figure) == [
        *("batch, all 5, rate 0.1", "stochastic, 1, rate 100 (diverges)", "start"),
    ]  # fmt: skip
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log", "log"]
    lines = [axes.lines[0].get_xdata()[-1] for axes in figure.axes]
    assert lines == [30, 150, 30]  # epochs, gradients, steps
    assert figure.axes[0].get_ylim()[1] < 10 and png(figure, 256).startswith(b"\x89PNG")


# ---- Descents, rates, schedules ---------------------------------------------------------------


def test_the_picture_of_descents():
    optimizers = {"slow": gradtx.sgd(0.01), "wild": gradtx.sgd(0.3)}
    figure = draw.descent(bowl, optimizers, start=(0.9, 0.5), steps=20, window=BOX, title="a bowl")
    flat, view = figure.axes
    assert legend(figure)[0] == "start" and legend(figure)[1].startswith("slow, rate 0.01: 0.")
    assert legend(figure)[2].startswith("wild, rate 0.3: leaves the window at step ")
    assert (flat.get_xlim(), flat.get_ylim()) == BOX and view.name == "3d"
    assert figure.get_suptitle() == "a bowl" and png(figure).startswith(b"\x89PNG")
    assert "minimum" in legend(draw.descent(problems.booth, {"sgd": gradtx.sgd(0.05)}, steps=3))


def test_marks_and_axes_of_descents():
    """Saddle points are marked, ends in one place surround one another, and views agree."""
    optimizers = {"lbfgs": gradtx.lbfgs(), "slow": gradtx.sgd(0.1), "other": gradtx.sgd(0.1)}
    figure = draw.descent(gallery.SADDLE, optimizers, steps=60)
    flat, view = figure.axes
    assert "saddle point" in legend(figure) and legend(figure)[3].startswith("lbfgs: ")
    ends = [line for line in flat.lines if line.get_zorder() == 5]
    assert [line.get_markersize() for line in ends][1:] == [13, 8]
    assert all(line.get_markerfacecolor() == "none" for line in ends)
    assert -180 < view.azim < 0 and abs(view.azim + 90) <= 45  # x to the right, y away


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: jnp.log(x[0] + 0.5) + x[1],  # not a number on a quarter of the window
        lambda x: 0 * x[0] + 3.0,
        lambda x: x[0] - 1e6,
        lambda x: jnp.exp(60 * x[0]),
    ],
    ids=["partly", "constant", "negative", "steep"],
)
def test_functions_of_any_kind_are_drawn(fun):
    figure = draw.descent(fun, {"sgd": gradtx.sgd(0.01)}, start=(0.5, 0.5), steps=5, window=BOX)
    assert png(figure).startswith(b"\x89PNG")


def test_the_picture_of_learning_rates():
    rates = {"too small": 0.01, "good": 0.1, "too large": 0.3}
    figure = draw.learning_rates(
        bowl, gradtx.sgd, rates, start=(0.9, 0.5), window=BOX, steps=20, title="rates"
    )
    *panels, losses = [axes for part in figure.subfigs for axes in part.axes]
    assert [axes.get_title().split("\n")[0] for axes in panels] == [
        *("too small: 0.01", "good: 0.1", "too large: 0.3"),
    ]  # fmt: skip
    assert panels[2].get_title().split("\n")[1].startswith("leaves the window at step ")
    for line, rate in zip(losses.lines, rates.values(), strict=True):
        x, y = 0.9 * (1 - 2 * rate) ** np.arange(21), 0.5 * (1 - 8 * rate) ** np.arange(21)
        least = plane.on_grid("t", bowl, BOX, 161, None).least
        np.testing.assert_allclose(line.get_ydata(), x**2 + 4 * y**2 - least, rtol=2e-3)
    assert png(figure).startswith(b"\x89PNG")


def test_the_picture_of_schedules():
    lines = {"constant": 0.5, "halving": gradtx.exponential_decay(1.0, 10, 0.5, staircase=True)}
    lines |= {str(i): gradtx.linear_schedule(1.0, 0.0, 10 * i) for i in range(1, 4)}
    figure = draw.schedules(lines, 30, title="five")
    assert [axes.get_title() for axes in figure.axes] == list(lines)
    own = [axes.lines[-1].get_ydata() for axes in figure.axes]
    np.testing.assert_array_equal(own[0], [0.5] * 31)
    np.testing.assert_array_equal(own[1][[0, 9, 10, 20, 30]], [1, 1, 0.5, 0.25, 0.125])
    np.testing.assert_allclose(own[4], np.linspace(1, 0, 31), atol=1e-6)


def test_28_lines_look_different():
    styles = line_styles(map(str, range(28)))
    assert len({tuple(style.items()) for style in styles.values()}) == 28


SGD = {"sgd": gradtx.sgd(0.1)}
BAD = {
    "no function": (lambda: draw.descent(3, SGD), TypeError, "problem must be .*, got 3"),
    "no start": (lambda: draw.descent(bowl, SGD, window=BOX), ValueError, "start must be given"),
    "no window": (lambda: draw.descent(bowl, SGD, start=(0, 0)), ValueError, "window must be"),
    "not plane": (lambda: draw.descent(problems.wood, SGD), ValueError, "because wood has none"),
    "start": (
        lambda: draw.descent(bowl, SGD, start=(0, 0, 0), window=BOX),
        ValueError,
        r"start must be two finite numbers, got \(0, 0, 0\)",
    ),
    "window": (
        lambda: draw.descent(bowl, SGD, start=(0, 0), window=((1, 0), (0, 1))),
        ValueError,
        "window must be two ranges with low < high, got",
    ),
    "nothing finite": (
        lambda: draw.descent(lambda x: x[0] * jnp.nan, SGD, start=(0, 0), window=BOX),
        ValueError,
        "descent: the function must be finite somewhere",
    ),
    "no optimizers": (lambda: draw.descent(problems.booth, {}), ValueError, "a non-empty mapping"),
    "an optimizer": (
        lambda: draw.descent(problems.booth, {"sgd": 0.1}),
        TypeError,
        r"descent: optimizers\['sgd'\] must be a transformation",
    ),
    "steps": (lambda: draw.descent(problems.booth, SGD, steps=0), ValueError, "at least 1, got 0"),
    "no rates": (
        lambda: draw.learning_rates(problems.booth, gradtx.sgd, []),
        ValueError,
        "learning_rates: rates must not be empty",
    ),
    "a rate": (
        lambda: draw.learning_rates(problems.booth, gradtx.sgd, [-1.0]),
        ValueError,
        "rates must be positive and finite, got -1.0",
    ),
    "no schedules": (lambda: draw.schedules([], 5), ValueError, "must be a non-empty mapping"),
    "schedule steps": (lambda: draw.schedules({"a": 1.0}, 0), ValueError, "at least 1, got 0"),
    "no filters": (
        lambda: draw.loss_surface(quadratic, {"w": jnp.ones(3)}),
        ValueError,
        "must have an array of two or more axes",
    ),
    "directions": (
        lambda: draw.loss_surface(quadratic, PARAMS, directions="pca"),
        ValueError,
        "directions must be .*, got 'pca'",
    ),
    "no path": (
        lambda: draw.loss_surface(quadratic, PARAMS, directions="path"),
        ValueError,
        "needs a trajectory",
    ),
    "a short path": (
        lambda: draw.loss_surface(quadratic, PARAMS, directions="path", trajectory=[PARAMS]),
        ValueError,
        "must span a plane",
    ),
    "an empty path": (
        lambda: draw.loss_surface(quadratic, PARAMS, trajectory=[]),
        ValueError,
        "the trajectory must not be empty",
    ),
    "another path": (
        lambda: draw.loss_surface(quadratic, PARAMS, trajectory=[{"w": jnp.ones(3)}]),
        ValueError,
        "params and point 0 of the trajectory have different structures",
    ),
    "a path's shape": (
        lambda: draw.loss_surface(
            quadratic, PARAMS, trajectory=[{**PARAMS, "dense": jnp.ones((2, 3))}]
        ),
        ValueError,
        r"point 0 .* got \(2, 3\) at \['dense'\] instead of \(2, 2\)",
    ),
    "a path lost": (
        lambda: draw.loss_surface(
            quadratic, PARAMS, trajectory=[PARAMS, {**PARAMS, "bias": jnp.ones(2) * jnp.nan}]
        ),
        ValueError,
        "the trajectory must be finite, and point 1 is not",
    ),
    "span": (lambda: draw.loss_surface(quadratic, PARAMS, span=0.0), ValueError, "span .* got 0.0"),
    "points": (
        lambda: draw.loss_surface(quadratic, PARAMS, points=2), ValueError, "points .*, got 2"),
    "no sizes": (
        lambda: draw.batch_sizes(squares, jnp.zeros(2), (X, Y), SGD["sgd"], [], epochs=1),
        ValueError,
        "sizes must not be empty",
    ),
    "a size": (
        lambda: draw.batch_sizes(squares, jnp.zeros(2), (X, Y), SGD["sgd"], [6], epochs=1),
        ValueError,
        "sizes must be integers from 1 to 5, the number of examples, got 6",
    ),
    "epochs": (
        lambda: draw.batch_sizes(squares, jnp.zeros(2), (X, Y), SGD["sgd"], [5], epochs=0),
        ValueError,
        "epochs must be an integer of at least 1, got 0",
    ),
    "examples": (
        lambda: draw.batch_sizes(squares, jnp.zeros(2), (X, Y[:3]), SGD["sgd"], [1], epochs=1),
        ValueError,
        r"of the same length, .* got \[\(3,\), \(5,\)\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


# ---- The command ------------------------------------------------------------------------------


def test_the_command_writes_and_says_so(tmp_path, capsys, monkeypatch):
    drawn = []

    def small(name):
        drawn.append(name)
        return new_figure(1, 1)

    monkeypatch.setattr(
        gallery, "GALLERY", {name: lambda n=name: small(n) for name in gallery.GALLERY}
    )
    monkeypatch.setattr("gradtx.draw.command.GALLERY", gallery.GALLERY)
    out = tmp_path / "deep" / "pictures"
    assert main(["draw", "--out", str(out)]) == 0
    names = ["descent", "saddle", "learning-rates", "batch-sizes", "softmax"]
    names += ["gradient-check", "heads", "loss-surface", "training-path", "schedules"]
    told, err = capsys.readouterr()
    assert told.splitlines() == [f"wrote {out / name}.png" for name in names] and err == ""
    assert {p.name for p in out.iterdir()} == {f"{name}.png" for name in names} and drawn == names
    assert (out / "saddle.png").read_bytes().startswith(b"\x89PNG")

    drawn.clear()
    assert main(["draw", "schedules", "saddle", "schedules", "--out", str(out)]) == 0
    assert drawn == ["schedules", "saddle"]


@pytest.mark.slow
@pytest.mark.parametrize("name", gallery.GALLERY)
def test_textbook_pictures(name):
    assert len(png(gallery.GALLERY[name](), 256)) < 150_000


def test_plain_descent_stalls_at_the_saddle_and_momentum_does_not():
    problem = gallery.SADDLE
    for minimum in problem.minima:
        assert problem(jnp.array(minimum)) == problem.least
    slow = draw.descend(problem, problem.start, gradtx.sgd(0.05), 80)
    fast = draw.descend(problem, problem.start, gradtx.sgd(0.05, momentum=0.9), 80)
    assert abs(slow.values[-1]) < 0.01 and fast.values[-1] < -0.24


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shedules"], "no figure is named 'shedules'; did you mean 'schedules'?"),
        (["xyz"], "no figure is named 'xyz'; the figures are descent, saddle, learning-rates"),
        (["schedules", "--out", "FILE"], "FILE: cannot create the folder"),
    ],
)
def test_bad_commands_get_one_message(arguments, words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = [str(tmp_path / "file") if a == "FILE" else a for a in arguments]
    assert main(["draw", *arguments]) == 2
    out, err = capsys.readouterr()
    assert words.replace("FILE", str(tmp_path / "file")) in err and out == ""
    assert err.startswith("gradtx draw: ") and err.count("\n") == 1


def test_ticks_of_short_logarithmic_axes_are_numbers():
    figure = new_figure(3, 3)
    short, long = figure.subplots(2)
    for axes, highest in ((short, 9.0), (long, 1e4)):
        axes.plot([1.0, 2.0], [4.0, highest])
        axes.set_yscale("log")
    finish(short, long)
    figure.draw_without_rendering()
    told = [x.get_text() for x in short.get_yticklabels(which="both") if x.get_text()]
    assert {float(x) for x in told} >= {4.0, 6.0}
    assert any("10^" in x.get_text() for x in long.get_yticklabels())
