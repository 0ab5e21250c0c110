"""Linear algebra that optimizers need: eigenvalues, roots, orthogonalization, least squares."""

from gradtx.linear_algebra.eigen import power_iteration as power_iteration
from gradtx.linear_algebra.least_squares import nnls as nnls
from gradtx.linear_algebra.orthogonalizing import orthogonalize as orthogonalize
from gradtx.linear_algebra.polynomials import polar_express as polar_express
from gradtx.linear_algebra.roots import matrix_inverse_pth_root as matrix_inverse_pth_root
