"""What the cross-check knows beforehand of each optimizer: where optax's is another on purpose."""

import dataclasses
from collections.abc import Mapping

from gradtx import catalog
from gradtx.crosschecking.samples import sample_tree


@dataclasses.dataclass(frozen=True)
class Known:
    """What the cross-check knows beforehand of an optimizer.

    Attributes:
      always: how optax's optimizer of this name differs, and why ours is right; empty if it agrees.
      when: the same for hyperparameters that have to be moved for it, and for "complex" parameters.
      refuses: what optax's cannot take: leaves of the sample tree, hyperparameters as the
        cross-check moves them, and "complex" parameters.
      amplifies: how many times the usual error of rounding the optimizer's equations make, if they
        enlarge differences.
    """

    always: str = ""
    when: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refuses: tuple[str, ...] = ()
    amplifies: float = 1.0


_MOMO_DECAY = {"weight_decay": "optax shrinks the parameters only, the paper the step as well"}
_SCHEDULE_FREE_STEPS = {
    "learning_rate": "optax weighs each step by the schedule's value at the next",
    "warmup_steps": "optax's rate is 0 at the first step, the paper's 1 / warmup_steps of the peak",
}

KNOWN: Mapping[str, Known] = {
    "acprop": Known("optax centres by the average without this gradient, the paper with it"),
    "adadelta": Known(when={"complex": "optax squares gradients without conjugating them"}),
    "adafactor": Known("optax rounds the decay 1 - t**-0.8 to float32 in float64 too"),
    "adan": Known("optax weighs gradient differences by 1 - b2 (0.08), the paper by b2 (0.92)"),
    "adopt": Known(refuses=("complex",)),
    "cocob": Known(when={"complex": "optax depends on where angles are counted from"}),
    "dadapt_adamw": Known(refuses=("float16",)),  # beside bfloat16
    "dog": Known(refuses=("float16",)),  # beside bfloat16
    "dowg": Known(refuses=("float16",)),  # beside bfloat16
    "galore": Known("optax projects the longer side, and in float32"),
    "madgrad": Known(
        "optax adds eps to the rate, and keeps the rate in float32 always", refuses=("complex",)
    ),
    # float16 beside bfloat16, and an adaptive bound beside either
    "momo": Known(when=_MOMO_DECAY, refuses=("float16", "adapt_lower_bound", "complex")),
    "momo_adam": Known(when=_MOMO_DECAY, refuses=("float16", "adapt_lower_bound")),
    # A polynomial's slope is 3.4 at small singular values; 21 ulps were seen.
    "muon": Known(amplifies=4.0),
    "polyak_sgd": Known(
        when={"scaling": "optax divides the rate by it, where its formula multiplies"}
    ),
    "prodigy": Known(refuses=("float16",)),  # beside bfloat16
    "rprop": Known("optax steps by the previous gradient's sign"),
    "schedule_free_adamw": Known(when=_SCHEDULE_FREE_STEPS, refuses=("float16",)),
    "schedule_free_sgd": Known(when=_SCHEDULE_FREE_STEPS, refuses=("float16",)),  # beside bfloat16
    "simplified_ademamix": Known(
        when={"complex": "optax squares complex gradients without conjugation"}
    ),
    "sm3": Known(refuses=("scalar", "learning_rate", "complex")),
    "sophia": Known(
        "optax divides mu by 1 - b1**t, and by nu without the latest estimate",
        refuses=("float16", "bfloat16"),  # beside float32
    ),
    "yogi": Known("optax starts the first moment at 1e-6, and so moves without gradients"),
}
"""By the optimizer's name; one that is not here agrees with optax's everywhere."""


def known_differences(name: str) -> Known:
    """Gives what is known beforehand of an optimizer of the catalog.

    Args:
      name: its name.

    Raises:
      UnknownOptimizer: it is not in the catalog.

    Example:
      >>> from gradtx.crosschecking import known_differences
      >>> known_differences("rprop").always
      "optax steps by the previous gradient's sign"
      >>> known_differences("adam").always
      ''
    """
    return KNOWN.get(catalog.get(name).name, Known())


def check_known(table: Mapping[str, Known]) -> None:
    """Checks that all names in a table of differences are those of something.

    Args:
      table: what is known, by the optimizer's name.

    Raises:
      ValueError: the catalog has no optimizer of this name, or the optimizer no hyperparameter, and
        the sample tree no leaf.
    """
    leaves = set(sample_tree())
    for name, known in table.items():
        if name not in catalog.names():
            raise ValueError(f"known differences: no optimizer is named {name!r}")
        own = {*catalog.get(name).hyperparameters, "complex"}
        for word in {*known.when} - own:
            raise ValueError(f"known differences: {name} has no hyperparameter {word!r}")
        for word in {*known.refuses} - own - leaves:
            raise ValueError(
                f"known differences: {word!r} is no hyperparameter of {name}, and no sample leaf"
            )
