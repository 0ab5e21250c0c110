"""Flags with which XLA compiles the programs of tests.

Tests compile thousands of programs, each for a few small arrays and to run once. XLA's own settings
are for programs that run long: with these, LLVM does not optimize, XLA makes no MLIR of its
fusions, and does not cut programs into modules for its threads. That takes a third of the time.
`XLA_FLAGS= pytest` compiles as users do; CI does so for the tests of numbers.
"""

import jax

CHEAP = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version__.startswith("0.10."):  # later versions end the process: they do not know it
    CHEAP.append("--xla_cpu_use_fusion_emitters=false")
