"""Calls that compile one program, where each operation of a call without `jit` compiles its own."""

import functools
import inspect

import jax
import numpy as np


def one_program(function):
    """The function under `jit`; arguments that are not arrays stay the Python values that they are.

    The tests of the losses compile 2,000 programs with it, and 4,400 without it. Calls of each loss
    without `jit` are compared in tests/losses/test_losses.py.
    """

    @functools.cache
    def compiled(settings):
        return jax.jit(lambda arrays: function(**arrays, **dict(settings)))

    @functools.wraps(function)
    def call(*args, **kwargs):
        given = inspect.signature(function).bind(*args, **kwargs).arguments.items()
        arrays = {
            name: x for name, x in given if isinstance(x, (jax.Array, np.ndarray, np.generic))
        }
        return compiled(tuple((name, x) for name, x in given if name not in arrays))(arrays)

    return call
