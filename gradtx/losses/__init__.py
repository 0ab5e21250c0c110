"""Losses: how far a prediction is from what was wanted, one number an example."""

from gradtx.losses.classification import (
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
