"""What optax keeps in `optax.contrib`; here it lives with the other optimizers, by family."""

from gradtx.optimizers import (
    COCOBState as COCOBState,
    DAdaptAdamWState as DAdaptAdamWState,
    DoGState as DoGState,
    DoWGState as DoWGState,
    MomoAdamState as MomoAdamState,
    MomoState as MomoState,
    MuonDimensionNumbers as MuonDimensionNumbers,
    MuonState as MuonState,
    ProdigyState as ProdigyState,
    cocob as cocob,
    dadapt_adamw as dadapt_adamw,
    dog as dog,
    dowg as dowg,
    momo as momo,
    momo_adam as momo_adam,
    muon as muon,
    prodigy as prodigy,
    scale_by_cocob as scale_by_cocob,
    scale_by_muon as scale_by_muon,
)
from gradtx.transforms import (
    MechanicState as MechanicState,
    ReduceLROnPlateauState as ReduceLROnPlateauState,
    mechanize as mechanize,
    reduce_on_plateau as reduce_on_plateau,
)
