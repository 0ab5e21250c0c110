"""How a reference is written, and what references share.

A reference states a paper in plain NumPy, in float64, and independently of gradtx's code. A piece
takes a list of gradients of one array and gives a list of directions. An optimizer takes the
gradients and the start, and gives the steps: what is added to the parameters, one after another.
Gradients may be complex; `|g|^2` is real then. A learning rate is a number, or a function of the
step count.

Each stands in the file of its family, under one of the decorators below, which make the tests of
tests/test_references.py walk over it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the tests know of an optimizer or a piece.

    Attributes:
      function: the statement in NumPy.
      by_hand: hyperparameters, and the three steps that they give for `GRADIENTS` from 1, worked
        out by hand. Where nothing else is said, the learning rates are 0.1, 0.2, 0.3.
      required: arguments of a piece that have no default.
      moved: for some hyperparameters what they are moved to, in place of `MOVED`.
      in_double: for some hyperparameters what else they are moved to in float64, where float32
        makes too much of its rounding errors.
      coupled: whether leaves act on each other; the reference then sees them as one vector, and
        errors are relative to the largest number in it.
      cancels: whether differences of near numbers are taken, however the gradients are signed;
        errors are then relative to the largest step that the leaf takes.
      ulps: the error in float32 that passes, where a method must lose more than most.
      wider: the same where these hyperparameters are moved, and it must lose more than otherwise.
      shape: the shape of the leaves that it is tried on.
      draws: whether random numbers are drawn; the statement then takes the arguments `leaf`, the
        place of the leaf in the tree, and `dtype`, that of the leaf and of the numbers.
    """

    function: Callable[..., list[Any]]
    by_hand: tuple[Mapping[str, Any], Sequence[float]] | None = None
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    moved: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    in_double: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    coupled: bool = False
    cancels: bool = False
    ulps: float | None = None
    wider: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shape: tuple[int, ...] = (3,)
    draws: bool = False


OPTIMIZERS: dict[str, Reference] = {}
"""From the name in gradtx's catalog to the reference."""
PIECES: dict[str, Reference] = {}
"""From the name in gradtx to the reference of a piece."""


def optimizer(hyperparameters, steps, **attributes):
    """Registers the reference of the catalog's optimizer of the same name.

    Args:
      hyperparameters: a setting.
      steps: the three steps that it gives for `GRADIENTS`, by hand.
      **attributes: further attributes of its `Reference`.
    """

    def register(function):
        by_hand = (hyperparameters, steps)
        OPTIMIZERS[function.__name__] = Reference(function, by_hand, **attributes)
        return function

    return register


def piece(**attributes):
    """Registers the reference of gradtx's piece of the same name.

    Args:
      **attributes: further attributes of its `Reference`.
    """

    def register(function):
        PIECES[function.__name__] = Reference(function, **attributes)
        return function

    return register


# ---- Three steps by hand --------------------------------------------------------------------

# The averages of these gradients with decays of 1/2 are
#   m = 1/2 m + 1/2 g:     1, 5/2, 1/4      weights 1 - 1/2^t: 1/2, 3/4, 7/8 (then 15/16)
#   v = 1/2 v + 1/2 g^2:   2, 9, 13/2       m_hat: 2, 10/3, 2/7     v_hat: 4, 12, 52/7
GRADIENTS = (2.0, 4.0, -2.0)
DECAYS = {"b1": 0.5, "b2": 0.5}


def tenths(count):
    """The learning rates of the steps by hand: 0.1, 0.2, 0.3."""
    return 0.1 * (count + 1)


# ---- What papers share ----------------------------------------------------------------------


def squared(g):
    return (g * np.conj(g)).real


def rate(learning_rate, count):
    """The learning rate at a step; the count is 0 at the first."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def descend(directions, start, learning_rate, weight_decay=0.0):
    """`x <- x - lr * (u + weight_decay * x)`: decoupled decay, arXiv:1711.05101, with their eta_t
    and alpha taken together in the learning rate, as in PyTorch's AdamW."""
    x, steps = start, []
    for t, u in enumerate(directions):
        steps.append(-rate(learning_rate, t) * (u + weight_decay * x))
        x = x + steps[-1]
    return steps


def loss_around(start, gradient):
    """The loss that tests give to what measures one, as in `trees.loss_around`, for one vector.

    Returns:
      A function of the vector that gives the loss and its gradient.
    """
    p, g = np.ravel(start), np.ravel(gradient)

    def loss(q):
        d = np.ravel(q) - p
        square = d @ d
        value = 1 + p @ p + g @ d + square / 2 + square**2 / 4
        return value, np.reshape(g + d + square * d, np.shape(q))

    return loss


# ---- Hyperparameters ------------------------------------------------------------------------


def wave(count):
    return 0.03 + 0.02 * (count % 3)


MASK = {"b": False, "w": True, "z": True}
"""What takes part, of the leaves that the tests have."""


def decays_of(x, weight_decay, mask):
    """The coefficient of each entry of all leaves in one vector; `MASK` leaves out the first leaf,
    `b`, of three numbers."""
    decays = np.full(np.shape(x), float(weight_decay))
    if mask is not None:
        decays[:3] = 0
    return decays


def mask_of(params):
    """The same mask, as a function."""
    return {name: MASK[name] for name in params}


# What each hyperparameter is moved to, alone; a dict moves others with it, without which it would
# change nothing. A new hyperparameter that is missing here fails a test.
DECAYING = {"weight_decay": 0.3}
MOVED = {
    "learning_rate": [0.02, wave],
    "momentum": [None, 0.5],
    "nesterov": [{"nesterov": True}, {"nesterov": False}],
    "decay": [0.5, 0.0],
    "rho": [0.5],
    "b1": [0.5, 0.0],
    "b2": [0.9],
    "eps": [1e-2],
    "eps_root": [1e-2],
    "eps_in_sqrt": [{"eps_in_sqrt": False, "eps": 1e-2}],
    "initial_scale": [0.5],
    "initial_accumulator_value": [0.0, 2.0],
    "bias_correction": [True],
    "bias_correction_mu": [False],
    "bias_correction_nu": [False],
    "centered": [True],
    "raw_maximum": [True],
    "momentum_decay": [0.5],
    "weight_decay": [0.3],
    "mask": [{"mask": MASK, **DECAYING}, {"mask": mask_of, **DECAYING}],
    "weight_decay_mask": [{"weight_decay_mask": MASK, **DECAYING}],
    "eta_minus": [0.3],
    "eta_plus": [1.5],
    "min_step_size": [0.04],
    "max_step_size": [0.055],
    "step_size_fn": [lambda count: 2.0 / (count + 1)],
    "flip_sign": [False],
}
STORAGE = {
    "mu_dtype": ("mu", "m1", "m2"),
    "accumulator_dtype": ("trace", "ema"),
    "statistics_dtype": ("left", "right"),
}
"""Hyperparameters that the papers do not know, and the slots whose dtype they may be; they have a
test of their own."""
