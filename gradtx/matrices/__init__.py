"""Transformations of matrices: rules for stacks of the matrices of one shape.

`layout` converts tensors to stacks of matrices and back, `stacks` calls a function once for all
matrices of one shape, on one device or on many, and `matrixwise` makes transformations of rules for
such stacks.
"""
