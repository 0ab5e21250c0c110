"""Classic test problems for minimizers, with their starting points and published minima."""

from gradtx.problems.more_garbow_hillstrom import (
    bard as bard,
    biggs as biggs,
    box as box,
    brown_badly_scaled as brown_badly_scaled,
    brown_dennis as brown_dennis,
    freudenstein_roth as freudenstein_roth,
    gaussian as gaussian,
    gulf as gulf,
    helical_valley as helical_valley,
    jennrich_sampson as jennrich_sampson,
    kowalik_osborne as kowalik_osborne,
    meyer as meyer,
    osborne as osborne,
    powell_badly_scaled as powell_badly_scaled,
    powell_singular as powell_singular,
    watson as watson,
    wood as wood,
)
from gradtx.problems.plane import (
    beale as beale,
    booth as booth,
    himmelblau as himmelblau,
    rosenbrock as rosenbrock,
)
from gradtx.problems.problem import PROBLEMS as PROBLEMS, Problem as Problem
