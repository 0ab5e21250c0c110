"""Smoothing a function by noise, so that it has gradients."""

from gradtx.perturbations.noise import Gumbel as Gumbel, Normal as Normal
from gradtx.perturbations.smoothing import make_perturbed_fun as make_perturbed_fun
