"""Numerical comparison of optimizers, above all with another library's."""

from gradtx.crosschecking.comparing import crosscheck as crosscheck
from gradtx.crosschecking.differences import (
    KNOWN as KNOWN,
    Known as Known,
    check_known as check_known,
    known_differences as known_differences,
    known_rows as known_rows,
)
from gradtx.crosschecking.library import (
    crosscheck_catalog as crosscheck_catalog,
    factory_of as factory_of,
    settings as settings,
)
from gradtx.crosschecking.samples import sample_loss as sample_loss, sample_tree as sample_tree
from gradtx.crosschecking.verdicts import (
    Comparison as Comparison,
    comparison_table as comparison_table,
)
