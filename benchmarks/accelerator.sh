#!/usr/bin/env bash
# All measurements on an accelerator: first the correctness of steps, and then the benchmarks.
#
#     benchmarks/accelerator.sh [PYTHON]
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_MEM_FRACTION=0.6

$python -c "import jax, optax; print(jax.__version__, optax.__version__, jax.devices())"
timeout 120 $python -m gradtx crosscheck adam adamw lion muon prodigy lbfgs --steps 20
timeout 100 $python benchmarks/speed.py jitted_step_small jitted_step_large
timeout 60 $python benchmarks/muon.py
timeout 100 $python benchmarks/first_use.py --quick un_jitted jitted scan init
timeout 60 $python benchmarks/first_use.py --quick six_optimizers
timeout 100 $python benchmarks/race.py --single 2 --rounds 1
