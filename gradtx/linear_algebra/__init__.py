"""Linear algebra that optimizers need: a dominant eigenvalue, inverse roots, least squares."""

from gradtx.linear_algebra.eigen import power_iteration as power_iteration
from gradtx.linear_algebra.least_squares import nnls as nnls
from gradtx.linear_algebra.roots import matrix_inverse_pth_root as matrix_inverse_pth_root
