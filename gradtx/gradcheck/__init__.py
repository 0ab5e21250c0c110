"""Checking gradients against central differences, leaf by leaf."""

from gradtx.gradcheck.check import check_gradients as check_gradients
from gradtx.gradcheck.report import GradientReport as GradientReport, GradientRow as GradientRow
