"""A training run in a folder: started or resumed, displayed, and saved."""

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gradtx._arguments import counted
from gradtx.train.data import Data, load
from gradtx.train.epoch import steps_per_epoch
from gradtx.train.errors import CheckpointError, DivergenceError, TrainingError, extra
from gradtx.train.folder import RunFolder
from gradtx.train.loop import Progress, begin, fit
from gradtx.train.models import MODELS, Model, count_parameters
from gradtx.train.optimizer import Recipe, build_optimizer, check_trains, default_learning_rate
from gradtx.train.options import Options, flag
from gradtx.train.report import Display, display, durations, loss_text, summary
from gradtx.train.schedules import Length, same_until

_SOME_STEPS = 10**6
"""A number of steps in an epoch, to check schedules before the data are loaded."""


class Job(NamedTuple):
    """A run, prepared from its options.

    Attributes:
      options: the options.
      data: the data set.
      model: the classifier.
      batch_size: the number of examples in a mini-batch.
      length: the numbers of epochs and steps.
      recipe: the optimizer.
      template: the shapes and dtypes of the run's progress.
      config: the configuration of the run, saved in the checkpoint.
    """

    options: Options
    data: Data
    model: Model
    batch_size: int
    length: Length
    recipe: Recipe
    template: Progress
    config: dict[str, Any]


def run(
    options: Options,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Progress:
    """Trains a classifier, with checkpoint, metrics and curves in a folder and progress on stdout.

    Args:
      options: the options of the run.
      out: the folder. Default: `options.folder`, in `runs`.
      resume: whether to continue the run in the folder. It ends with the parameters of an
        uninterrupted run, bit for bit. Its learning rate may be changed, which the checkpoint
        records. If the folder has no run, a new one is started. Default: no.
      overwrite: whether an existing run in the folder may be replaced. Default: no.

    Returns:
      The progress after the last epoch.

    Raises:
      TrainingError: the options, the data, or the folder are invalid, or another run writes in the
        folder; the subclasses distinguish them.
      DivergenceError: the loss or the parameters are not finite. The folder keeps the last finite
        checkpoint.

    Example:
      >>> import tempfile
      >>> from gradtx import train
      >>> options = train.Options(model="softmax", optimizer="sgd", epochs=2)
      >>> end = train.run(options, tempfile.mkdtemp())
      data       digits: 1437 training and 360 test examples of shape 8x8
      ...
      >>> end.epoch
      2
    """
    began = time.perf_counter()
    folder = RunFolder(options.folder if out is None else out)
    _recipe(options, Length(options.epochs, _SOME_STEPS))  # wrong settings, before the data
    _resumes(folder, resume, overwrite)  # before the data are loaded
    extra("matplotlib.figure", "to draw the curves")  # before hours of training
    job = prepare(options)
    with folder.locked():
        if _resumes(folder, resume, overwrite):
            job, start = _resumed(job, folder)
        else:
            folder.clear()
            start = begin(job.model, job.data, job.recipe.tx, seed=options.seed)
            folder.save(start, job.config)
        folder.rewrite_metrics()
        return _trained(job, folder, start, began)


def _resumes(folder: RunFolder, resume: bool, overwrite: bool) -> bool:
    """Returns whether there is a run to resume, or raises if a run would be replaced unasked."""
    resume = resume and folder.checkpoint.exists()
    if (found := folder.existing()) and not (resume or overwrite):
        raise TrainingError(
            f"{folder.path} already has a run ({', '.join(p.name for p in found)}): "
            "continue it with --resume, replace it with --overwrite, or choose another --out"
        )
    return resume


def _trained(job: Job, folder: RunFolder, start: Progress, began: float) -> Progress:
    """Trains from a start, with checkpoints and display."""
    options = job.options
    with display(options.epochs, start.epoch) as shown:
        _introduce(job, folder, start, shown)

        def on_epoch(progress: Progress) -> None:
            folder.save(progress, job.config)
            folder.append(progress.history[-1])
            shown.epoch(progress.history[-1])

        try:
            end = fit(
                job.model,
                job.data,
                job.recipe.tx,
                epochs=options.epochs,
                batch_size=job.batch_size,
                seed=options.seed,
                start=start,
                on_epoch=on_epoch,
            )
        except (KeyboardInterrupt, DivergenceError):
            folder.finish(options.title)
            raise
        folder.finish(options.title)
        elapsed = time.perf_counter() - began
        shown.table(
            f"{options.title}, {count_parameters(end.state.params):,} parameters",
            summary(end.history),
            f"{job.recipe.summary}{_earlier(job.config)}\n"
            f"{durations(end.history, start.epoch, elapsed)}; see {folder.path}"
            f"{_remark(end.history[-1].train_loss, job.data.classes)}",
        )
    return end


def _remark(loss: float, classes: int) -> str:
    """Returns a line on a final loss that is worse than that of equal probabilities, or nothing."""
    guessing = math.log(classes)
    if loss <= guessing:
        return ""
    return (
        f"\nthe final loss, {loss_text(loss)}, is above that of equal probabilities, "
        f"{guessing:.2f}: try a smaller --learning-rate, or more --epochs"
    )


def prepare(options: Options) -> Job:
    """Loads the data, builds model and optimizer, and checks that they fit together.

    Args:
      options: the options of the run.

    Raises:
      TrainingError: the options are invalid, or do not fit together.
    """
    data = load(options.data)
    examples = len(data.y_train)
    batch_size = examples if options.batch == "full" else int(options.batch)
    if batch_size > examples:
        raise TrainingError(
            f"--batch must be at most {examples}, the number of training examples, got {batch_size}"
        )
    model = MODELS[options.model]()
    length = Length(options.epochs, steps_per_epoch(examples, batch_size))
    recipe = _recipe(options, length)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), data.shape, data.classes))
    check_trains(options.optimizer, recipe.tx, params)
    template = jax.eval_shape(lambda: begin(model, data, recipe.tx))
    config = {
        # As JSON returns them, so that they can be compared.
        "options": json.loads(json.dumps(dataclasses.asdict(options))),
        "data": data.fingerprint(),
        "versions": {name: version(name) for name in ("jax", "jaxlib")},
        "device": jax.devices()[0].device_kind,
        "earlier_rates": [],
    }
    return Job(options, data, model, batch_size, length, recipe, template, config)


def _recipe(options: Options, length: Length) -> Recipe:
    return build_optimizer(
        options.optimizer,
        length,
        learning_rate=options.learning_rate,
        settings=options.set,
        schedule=options.schedule,
        schedule_set=options.schedule_set,
        weight_decay=options.weight_decay,
        clip=options.clip,
    )


def peak_rate(options: Options) -> float | None:
    """Returns the peak learning rate of a run, or `None` if its optimizer has none.

    Args:
      options: the options of the run.
    """
    given = options.learning_rate
    return default_learning_rate(options.optimizer) if given is None else given


def _resumed(job: Job, folder: RunFolder) -> tuple[Job, Progress]:
    """Reads the checkpoint, after checking that its run agrees with this one so far.

    Returns:
      The job, with the learning rates that were used before, and the progress.
    """
    saved = folder.config()
    _check_same_run(job.config, saved, folder)
    progress = folder.restore(job.template.state)
    if job.length.epochs < progress.epoch:
        raise CheckpointError(
            f"{folder.path} has trained {counted(progress.epoch, 'epoch')}, more than "
            f"--epochs {job.length.epochs}"
        )
    planned = Length(saved["options"]["epochs"], job.length.steps_per_epoch)
    before, now = _recipe(job.options, planned).rate, job.recipe.rate
    if not same_until(before, now, progress.epoch * planned.steps_per_epoch):
        raise CheckpointError(
            f"{folder.path}: the schedule {job.options.schedule} depends on the number of epochs: "
            f"the run was started with --epochs {planned.epochs}, and with "
            f"--epochs {job.length.epochs} the rates until epoch {progress.epoch} differ; "
            f"resume it with --epochs {planned.epochs}"
        )
    earlier = list(saved.get("earlier_rates", []))
    rate, rate_now = peak_rate(Options(**saved["options"])), peak_rate(job.options)
    changed = rate != rate_now
    if changed and progress.epoch == job.length.epochs:
        raise CheckpointError(
            f"{folder.path} has trained {counted(progress.epoch, 'epoch')}, which is all: to "
            "continue at another learning rate, give a larger --epochs, too"
        )
    if changed and progress.epoch > max((row["until"] for row in earlier), default=0):
        earlier.append({"until": progress.epoch, "learning_rate": rate})
    job = job._replace(config={**job.config, "earlier_rates": earlier})
    if changed:  # so that the run has its new rate even if it is stopped in the first epoch
        folder.save(progress, job.config)
    return job, progress


def _earlier(config: Mapping[str, Any]) -> str:
    """Returns the learning rates before the present one, in words."""
    rates = (f"{r['learning_rate']:g} until epoch {r['until']}" for r in config["earlier_rates"])
    told = ", ".join(rates)
    return f"; peak rate {told}" if told else ""


def _check_same_run(config: Mapping[str, Any], saved: Mapping[str, Any], folder: RunFolder) -> None:
    now, then = config["options"], saved["options"]
    # The data may have moved; their fingerprint is compared below.
    free = ("epochs", "data", "learning_rate")
    changed = [n for n in now if n not in free and now[n] != then.get(n)]
    if changed:
        differences = "; ".join(
            f"{flag(n)} was {_text(then.get(n))}, now {_text(now[n])}" for n in changed
        )
        raise CheckpointError(
            f"{folder.path} has a run with other options: {differences}; resume it with its own "
            "options, or choose another --out"
        )
    if config["data"] != saved["data"]:
        raise CheckpointError(
            f"{folder.path} has a run on other data: {then['data']} with fingerprint "
            f"{saved['data']}, now {now['data']} with {config['data']}; resume it with its own "
            "data, or choose another --out"
        )


def _text(value: Any) -> str:
    return "not given" if value in (None, {}) else str(value)


def _introduce(job: Job, folder: RunFolder, start: Progress, shown: Display) -> None:
    data, params = job.data, start.state.params
    train, test = len(data.y_train), len(data.y_test)
    shape = "x".join(map(str, data.shape))
    parts = " + ".join(f"{name} {count_parameters(p):,}" for name, p in params.items())
    short = train % job.batch_size
    shown.say(
        f"data       {data.name}: {train} training and {counted(test, 'test example')} of shape "
        f"{shape}"
    )
    shown.say(f"model      {job.model.name}: {count_parameters(params):,} parameters ({parts})")
    shown.say(f"optimizer  {job.recipe.summary}")
    shown.say(
        f"run        {counted(job.length.epochs, 'epoch')} of "
        f"{counted(job.length.steps_per_epoch, 'step')} on "
        f"{counted(job.batch_size, 'example')} each" + (f", the last on {short}" if short else "")
    )
    shown.say("epochs     loss and accuracy on all examples, rate of the last step, duration")
    shown.say(f"folder     {folder.path}")
    if start.epoch:
        shown.say(f"resumed    after epoch {start.epoch}{_earlier(job.config)}")
        if start.epoch == job.length.epochs:
            shown.say("note       all epochs are trained; give a larger --epochs to train more")
        saved = folder.config()
        for name in ("versions", "device"):
            if saved[name] != job.config[name]:
                shown.say(
                    f"note       started with {saved[name]}, continued with {job.config[name]}; "
                    "the last bits may differ from those of an uninterrupted run"
                )
