"""Racing optimizers: all learning rates and seeds of an optimizer in one compiled program."""

from gradtx.racing.entrants import (
    Entrant as Entrant,
    enter as enter,
    rate_range as rate_range,
    usual_rates as usual_rates,
)
from gradtx.racing.grid import (
    Curves as Curves,
    Problem as Problem,
    Start as Start,
    make_grid as make_grid,
    make_start as make_start,
)
from gradtx.racing.leaderboard import Race as Race
from gradtx.racing.problems import classification as classification, own_problem as own_problem
from gradtx.racing.record import Record as Record
from gradtx.racing.results import Results as Results, Row as Row, Standing as Standing
from gradtx.racing.run import race as race, run_race as run_race
from gradtx.racing.text import language_model as language_model
