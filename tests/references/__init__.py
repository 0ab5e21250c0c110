"""What the papers say, as plain NumPy in float64; one family a file."""

import importlib
import pkgutil

from references.common import OPTIMIZERS, PIECES, Reference

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"references.{_module.name}")
