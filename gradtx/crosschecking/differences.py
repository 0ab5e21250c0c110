"""The documented differences of optimizers from those of the same names in optax."""

import dataclasses
from collections.abc import Mapping

from gradtx import catalog
from gradtx.crosschecking.samples import sample_tree


@dataclasses.dataclass(frozen=True)
class Known:
    """The documented differences of an optimizer from optax's.

    Attributes:
      always: how optax's optimizer differs, and why ours is right; empty if it agrees. Default:
        empty.
      when: the differences that appear when one hyperparameter is varied, by its name, and those
        with "complex" parameters. Default: empty.
      refuses: the inputs that optax's optimizer does not accept: leaves of the sample tree,
        hyperparameters as the cross-check varies them, and "complex" parameters. Default: none.
      amplifies: the factor by which the optimizer's equations amplify rounding errors. Default: 1.
    """

    always: str = ""
    when: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refuses: tuple[str, ...] = ()
    amplifies: float = 1.0


_MOMO_DECAY = {"weight_decay": "optax shrinks the parameters only, the paper the step as well"}
_SCHEDULE_FREE_STEPS = {
    "learning_rate": "optax weights each step by the schedule's value at the next",
    "warmup_steps": "optax's rate is 0 at the first step, the paper's 1 / warmup_steps of the peak",
}

KNOWN: Mapping[str, Known] = {
    "acprop": Known("optax centres by the average without this gradient, the paper with it"),
    "adabelief": Known(refuses=("weight_decay",)),  # optax 0.2.8; its main branch has it
    "adadelta": Known(when={"complex": "optax squares gradients without conjugating them"}),
    "adafactor": Known("optax rounds the decay 1 - t**-0.8 to float32 in float64 too"),
    "adagrad": Known(refuses=("eps_in_sqrt",)),
    "adan": Known("optax weights gradient differences by 1 - b2 (0.08), the paper by b2 (0.92)"),
    "adopt": Known(refuses=("complex",)),
    "amsgrad": Known(refuses=("raw_maximum",)),
    "cocob": Known(when={"complex": "optax is not invariant to complex phases"}),
    "dadapt_adamw": Known(refuses=("float16",)),  # in a tree with bfloat16
    "dog": Known(refuses=("float16",)),  # in a tree with bfloat16
    "dowg": Known(refuses=("float16",)),  # in a tree with bfloat16
    "galore": Known("optax projects the longer side, and in float32"),
    "madgrad": Known(
        "optax adds eps to the rate, and keeps the rate in float32 always", refuses=("complex",)
    ),
    # float16 in a tree with bfloat16, and an adaptive bound with either of them
    "momo": Known(when=_MOMO_DECAY, refuses=("float16", "adapt_lower_bound", "complex")),
    "momo_adam": Known(when=_MOMO_DECAY, refuses=("float16", "adapt_lower_bound")),
    # The polynomial's slope is 3.4 at small singular values; 21 ulps were measured.
    "muon": Known(amplifies=4.0),
    "nadam": Known(refuses=("momentum_decay",)),
    "nadamw": Known(refuses=("momentum_decay",)),
    "polyak_sgd": Known(
        when={"scaling": "optax divides the rate by it, where its formula multiplies"}
    ),
    "prodigy": Known(refuses=("float16",)),  # in a tree with bfloat16
    "radam": Known(refuses=("eps_uncorrected",)),
    "rprop": Known("optax steps by the previous gradient's sign"),
    "schedule_free_adamw": Known(when=_SCHEDULE_FREE_STEPS, refuses=("float16",)),
    # in a tree with bfloat16
    "schedule_free_sgd": Known(when=_SCHEDULE_FREE_STEPS, refuses=("float16",)),
    "simplified_ademamix": Known(
        when={"complex": "optax squares complex gradients without conjugation"}
    ),
    "sm3": Known(refuses=("scalar", "learning_rate", "complex")),
    "sophia": Known(
        "optax divides mu by 1 - b1**t, and by nu without the latest estimate",
        refuses=("float16", "bfloat16"),  # in a tree with float32
    ),
    "yogi": Known("optax starts the first moment at 1e-6, and so moves without gradients"),
}
"""The differences by optimizer; those not listed agree with optax's everywhere."""


def known_differences(name: str) -> Known:
    """Returns the documented differences of an optimizer of the catalog.

    Args:
      name: the optimizer's name.

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


def known_rows() -> list[tuple[str, str, str]]:
    """Returns the documented differences as rows of a table in Markdown.

    A row has the optimizer, the place of the difference (everywhere, a hyperparameter, or a kind of
    leaf), and the difference.

    Example:
      >>> from gradtx.crosschecking import known_rows
      >>> next(row for row in known_rows() if row[0] == "`rprop`")
      ('`rprop`', 'everywhere', "optax steps by the previous gradient's sign")
    """
    rows = []
    for name, known in KNOWN.items():
        rows += [(f"`{name}`", "everywhere", known.always)] if known.always else []
        rows += [(f"`{name}`", _place(word), how) for word, how in known.when.items()]
        places = ", ".join(map(_place, known.refuses))
        rows += [(f"`{name}`", places, "optax raises an error")] if places else []
    return rows


def _place(word: str) -> str:
    kinds = {"complex": "complex leaves", "scalar": "scalar leaves"}
    kinds |= {d: f"{d} leaves beside others" for d in ("float16", "bfloat16")}
    return kinds.get(word, f"`{word}`")


def check_known(table: Mapping[str, Known]) -> None:
    """Checks that all names in a table of differences exist.

    Args:
      table: the differences, by the optimizer's name.

    Raises:
      ValueError: an optimizer is not in the catalog, or a word is neither one of its
        hyperparameters nor, in `refuses`, a leaf of the sample tree.

    Example:
      >>> from gradtx.crosschecking import Known, check_known
      >>> check_known({"adam": Known("optax rounds differently")})
      >>> check_known({"adam": Known(when={"beta": "optax has another default"})})
      Traceback (most recent call last):
      ...
      ValueError: known differences: adam has no hyperparameter 'beta'
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
                f"known differences: {word!r} is neither a hyperparameter of {name} nor a leaf of "
                "the sample tree"
            )
