"""Minimizing a deterministic function.

`loop` has `minimize`, `result` what it returns, and `searches` what it reads off line searches.
"""

from gradtx._minimizing.loop import minimize as minimize
from gradtx._minimizing.result import Minimum as Minimum, Stop as Stop, Trajectory as Trajectory
