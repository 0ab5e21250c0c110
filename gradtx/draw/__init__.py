"""Figures of what optimizers, learning rates, batches and schedules do, made with matplotlib."""

from gradtx.draw.batches import (
    BatchCurve as BatchCurve,
    batch_curve as batch_curve,
    batch_sizes as batch_sizes,
)
from gradtx.draw.descending import Descent as Descent, descend as descend, descent as descent
from gradtx.draw.directions import (
    path_directions as path_directions,
    projected as projected,
    random_direction as random_direction,
)
from gradtx.draw.landscape import loss_surface as loss_surface, surface_around as surface_around
from gradtx.draw.rates import learning_rates as learning_rates
from gradtx.draw.scheduling import schedule_values as schedule_values, schedules as schedules
