"""Gradient transformations for JAX.

Every optimizer is a pure pair of functions `(init, update)`, composed of small transformations.
"""

import importlib as _importlib
import typing as _typing

from gradtx import (
    catalog as catalog,
    codecs as codecs,
    engine as engine,
    linear_algebra as linear_algebra,
    linesearch as linesearch,
    losses as losses,
    numerics as numerics,
    optimizers as optimizers,
    projections as projections,
    schedules as schedules,
    state as state,
    transforms as transforms,
    tree as tree,
    tree_utils as tree_utils,
)
from gradtx._apply import (
    apply_updates as apply_updates,
    incremental_update as incremental_update,
    periodic_update as periodic_update,
)
from gradtx._distributions import (
    MultiNormalDiagFromLogScale as MultiNormalDiagFromLogScale,
    multi_normal as multi_normal,
)
from gradtx.codecs import Codec as Codec, decoded as decoded
from gradtx.engine.base import (
    EmptyState as EmptyState,
    GradientTransformation as GradientTransformation,
    GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    MaskOrFn as MaskOrFn,
    OptState as OptState,
    Params as Params,
    PyTree as _PyTree,
    ScalarOrSchedule as ScalarOrSchedule,
    Schedule as Schedule,
    TransformInitFn as TransformInitFn,
    TransformUpdateExtraArgsFn as TransformUpdateExtraArgsFn,
    TransformUpdateFn as TransformUpdateFn,
    Updates as Updates,
    init_empty_state as init_empty_state,
    with_extra_args_support as with_extra_args_support,
)
from gradtx.engine.coupled import coupled as coupled
from gradtx.engine.leafwise import leafwise as leafwise, piece as piece
from gradtx.engine.numerics import (
    safe_increment as safe_increment,
    safe_int32_increment as safe_int32_increment,
)
from gradtx.engine.pipeline import wrapped as wrapped
from gradtx.engine.rules import Slots as Slots
from gradtx.linear_algebra import (
    matrix_inverse_pth_root as matrix_inverse_pth_root,
    nnls as nnls,
    orthogonalize as orthogonalize,
    polar_express as polar_express,
    power_iteration as power_iteration,
)
from gradtx.linesearch import (
    ScaleByBacktrackingLinesearchState as ScaleByBacktrackingLinesearchState,
    ScaleByZoomLinesearchState as ScaleByZoomLinesearchState,
    ZoomLinesearchInfo as ZoomLinesearchInfo,
    scale_by_backtracking_linesearch as scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch as scale_by_zoom_linesearch,
    value_and_grad_from_state as value_and_grad_from_state,
)
from gradtx.losses import (
    convex_kl_divergence as convex_kl_divergence,
    cosine_distance as cosine_distance,
    cosine_similarity as cosine_similarity,
    ctc_loss as ctc_loss,
    ctc_loss_with_forward_probs as ctc_loss_with_forward_probs,
    generalized_kl_divergence as generalized_kl_divergence,
    hinge_loss as hinge_loss,
    huber_loss as huber_loss,
    kl_divergence as kl_divergence,
    l2_loss as l2_loss,
    log_cosh as log_cosh,
    ntxent as ntxent,
    safe_softmax_cross_entropy as safe_softmax_cross_entropy,
    sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy,
    sigmoid_focal_loss as sigmoid_focal_loss,
    smooth_labels as smooth_labels,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
    squared_error as squared_error,
)
from gradtx.matrices.layout import MatrixAxes as MatrixAxes
from gradtx.matrices.matrixwise import matrixwise as matrixwise
from gradtx.optimizers import *
from gradtx.schedules import (
    InjectHyperparamsState as InjectHyperparamsState,
    InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    WrappedSchedule as WrappedSchedule,
    constant_schedule as constant_schedule,
    cosine_decay_schedule as cosine_decay_schedule,
    cosine_onecycle_schedule as cosine_onecycle_schedule,
    cosine_restarts_schedule as cosine_restarts_schedule,
    exponential_decay as exponential_decay,
    inject_hyperparams as inject_hyperparams,
    inject_stateful_hyperparams as inject_stateful_hyperparams,
    inverse_time_decay_schedule as inverse_time_decay_schedule,
    join_schedules as join_schedules,
    linear_onecycle_schedule as linear_onecycle_schedule,
    linear_schedule as linear_schedule,
    natural_exp_decay_schedule as natural_exp_decay_schedule,
    piecewise_constant_schedule as piecewise_constant_schedule,
    piecewise_interpolate_schedule as piecewise_interpolate_schedule,
    polynomial_schedule as polynomial_schedule,
    rectified_schedule as rectified_schedule,
    sgdr_schedule as sgdr_schedule,
    step_decay_schedule as step_decay_schedule,
    warmup_constant_schedule as warmup_constant_schedule,
    warmup_cosine_decay_schedule as warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule as warmup_stable_decay_schedule,
)
from gradtx.state import (
    LoadReport as LoadReport,
    StateMismatch as StateMismatch,
    Summary as Summary,
    add_decay_by_path as add_decay_by_path,
    by_path as by_path,
    hyperparams as hyperparams,
    layerwise_decay as layerwise_decay,
    load_matching as load_matching,
    load_optax as load_optax,
    load_state_dict as load_state_dict,
    load_torch as load_torch,
    metrics as metrics,
    multiply_by_path as multiply_by_path,
    optax_layout as optax_layout,
    state_dict as state_dict,
    state_sharding as state_sharding,
    store as store,
    summary as summary,
)
from gradtx.transforms import (
    AdaptiveGradClipState as AdaptiveGradClipState,
    AdaptiveGradientNormState as AdaptiveGradientNormState,
    AdaptiveSpikeClipState as AdaptiveSpikeClipState,
    AddDecayedWeightsState as AddDecayedWeightsState,
    AddDecayToInitialState as AddDecayToInitialState,
    AddNoiseState as AddNoiseState,
    ApplyEvery as ApplyEvery,
    ApplyIfFiniteState as ApplyIfFiniteState,
    ClipByGlobalNormState as ClipByGlobalNormState,
    ClipState as ClipState,
    ConditionallyMaskState as ConditionallyMaskState,
    ConditionallyTransformState as ConditionallyTransformState,
    CountedState as CountedState,
    DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    EmaState as EmaState,
    GrokfastEmaState as GrokfastEmaState,
    GrokfastMaState as GrokfastMaState,
    HutchinsonState as HutchinsonState,
    KahanState as KahanState,
    LawaState as LawaState,
    LookaheadParams as LookaheadParams,
    LookaheadState as LookaheadState,
    MarsState as MarsState,
    MaskedNode as MaskedNode,
    MaskedState as MaskedState,
    MasterWeightsState as MasterWeightsState,
    MechanicState as MechanicState,
    MomentumResetState as MomentumResetState,
    MonitorState as MonitorState,
    MultiSteps as MultiSteps,
    MultiStepsState as MultiStepsState,
    MultiTransformState as MultiTransformState,
    NonNegativeParamsState as NonNegativeParamsState,
    NormalizeState as NormalizeState,
    ParamsEmaState as ParamsEmaState,
    ParamsMeanState as ParamsMeanState,
    PartitionState as PartitionState,
    PrimalAveragingState as PrimalAveragingState,
    ReduceLROnPlateauState as ReduceLROnPlateauState,
    SAMState as SAMState,
    ScaleByDistanceOverGradientsState as ScaleByDistanceOverGradientsState,
    ScaleByLearningRateState as ScaleByLearningRateState,
    ScaleByScheduleState as ScaleByScheduleState,
    ScaleByTensorShampooState as ScaleByTensorShampooState,
    ScaleByTrustRatioState as ScaleByTrustRatioState,
    ScaleState as ScaleState,
    ScheduleFreeState as ScheduleFreeState,
    ShouldSkipUpdateFunction as ShouldSkipUpdateFunction,
    SkipOutliersState as SkipOutliersState,
    SnapshotState as SnapshotState,
    SpikeAwareClipState as SpikeAwareClipState,
    SplitRealAndImaginaryState as SplitRealAndImaginaryState,
    StableRmsClipState as StableRmsClipState,
    StochasticRoundState as StochasticRoundState,
    TraceState as TraceState,
    WatchState as WatchState,
    WeightDecayState as WeightDecayState,
    ZeroNansState as ZeroNansState,
    adaptive_grad_clip as adaptive_grad_clip,
    adaptive_gradient_norm as adaptive_gradient_norm,
    adaptive_spike_clip as adaptive_spike_clip,
    add_cautious_decay as add_cautious_decay,
    add_corrected_decay as add_corrected_decay,
    add_decay_to_initial as add_decay_to_initial,
    add_decayed_weights as add_decayed_weights,
    add_independent_decay as add_independent_decay,
    add_noise as add_noise,
    apply_every as apply_every,
    apply_if_finite as apply_if_finite,
    averaged_params as averaged_params,
    cautious as cautious,
    centralize as centralize,
    chain as chain,
    clip as clip,
    clip_by_block_rms as clip_by_block_rms,
    clip_by_global_norm as clip_by_global_norm,
    conditionally_mask as conditionally_mask,
    conditionally_transform as conditionally_transform,
    counted as counted,
    differentially_private_aggregate as differentially_private_aggregate,
    dpsgd as dpsgd,
    ema as ema,
    extra_args as extra_args,
    flatten as flatten,
    freeze as freeze,
    gauss_newton_bartlett_estimator as gauss_newton_bartlett_estimator,
    graft as graft,
    grams as grams,
    grokfast_ema as grokfast_ema,
    grokfast_ma as grokfast_ma,
    hidden_matrices as hidden_matrices,
    hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
    identity as identity,
    kahan as kahan,
    keep_params_nonnegative as keep_params_nonnegative,
    lawa as lawa,
    lookahead as lookahead,
    mars as mars,
    masked as masked,
    master_weights as master_weights,
    maximize as maximize,
    measure_with_ema as measure_with_ema,
    mechanize as mechanize,
    momentum_reset as momentum_reset,
    monitor as monitor,
    multi_transform as multi_transform,
    named_chain as named_chain,
    normalize as normalize,
    normalize_by_update_norm as normalize_by_update_norm,
    offload as offload,
    params_ema as params_ema,
    params_mean as params_mean,
    partition as partition,
    per_example_global_norm_clip as per_example_global_norm_clip,
    per_example_layer_norm_clip as per_example_layer_norm_clip,
    primal_averaging as primal_averaging,
    reduce_on_plateau as reduce_on_plateau,
    sam as sam,
    scale as scale,
    scale_by_distance_over_gradients as scale_by_distance_over_gradients,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_param_block_norm as scale_by_param_block_norm,
    scale_by_param_block_rms as scale_by_param_block_rms,
    scale_by_schedule as scale_by_schedule,
    scale_by_tensor_shampoo as scale_by_tensor_shampoo,
    scale_by_trust_ratio as scale_by_trust_ratio,
    schedule_free as schedule_free,
    schedule_free_eval_params as schedule_free_eval_params,
    selective_transform as selective_transform,
    set_to_zero as set_to_zero,
    shard as shard,
    skip_large_updates as skip_large_updates,
    skip_not_finite as skip_not_finite,
    skip_outliers as skip_outliers,
    snapshot as snapshot,
    spike_aware_clip as spike_aware_clip,
    split_real_and_imaginary as split_real_and_imaginary,
    stable_rms_clip as stable_rms_clip,
    stochastic_round as stochastic_round,
    store_as as store_as,
    strict as strict,
    trace as trace,
    watch as watch,
    zero as zero,
    zero_nans as zero_nans,
)
from gradtx.transforms.without_state import (
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
)
from gradtx.tree import (
    bias_correction as bias_correction,
    map_params as tree_map_params,
    update_infinity_moment as update_infinity_moment,
    update_moment as update_moment,
    update_moment_per_elem_norm as update_moment_per_elem_norm,
)
from gradtx.tree.gradients import scale_gradient as scale_gradient
from gradtx.tree.norms import (
    global_norm as global_norm,
    safe_norm as safe_norm,
    safe_root_mean_squares as safe_root_mean_squares,
)

ArrayTree = _PyTree  # its name in optax

__version__ = "0.1.0"  # the only place: pyproject.toml reads it here

# What no optimizer needs is imported when it is used first: modules, and the names that `gradtx`
# has from them.
_LATER: dict[str, tuple[str, ...]] = {
    "_minimizing": ("Minimum", "Stop", "minimize"),
    "_range_test": ("RangeTest", "lr_range_test"),
    "assignment": (),
    "contrib": (),
    "crosschecking": ("Comparison", "crosscheck"),
    "draw": (),
    "experimental": (),
    "gradcheck": ("GradientReport", "check_gradients"),
    "interop": ("as_optax", "to_optax"),
    "microbatching": ("microbatch",),
    "perturbations": (),
    "problems": (),
    "racing": ("Race", "race"),
    "second_order": (),
    "train": (),
}
if _typing.TYPE_CHECKING:  # the same, for type checkers
    from gradtx import (
        assignment as assignment,
        contrib as contrib,
        crosschecking as crosschecking,
        draw as draw,
        experimental as experimental,
        gradcheck as gradcheck,
        interop as interop,
        microbatching as microbatching,
        perturbations as perturbations,
        problems as problems,
        racing as racing,
        second_order as second_order,
        train as train,
    )
    from gradtx._minimizing import Minimum as Minimum, Stop as Stop, minimize as minimize
    from gradtx._range_test import RangeTest as RangeTest, lr_range_test as lr_range_test
    from gradtx.crosschecking import Comparison as Comparison, crosscheck as crosscheck
    from gradtx.gradcheck import (
        GradientReport as GradientReport,
        check_gradients as check_gradients,
    )
    from gradtx.interop import as_optax as as_optax, to_optax as to_optax
    from gradtx.microbatching import microbatch as microbatch
    from gradtx.racing import Race as Race, race as race
else:

    def __getattr__(name: str) -> object:
        for module, names in _LATER.items():
            if name == module or name in names:
                found = _importlib.import_module(f"gradtx.{module}")
                value = globals()[name] = found if name == module else getattr(found, name)
                return value
        here = _importlib.import_module(__name__)
        raise AttributeError(f"module 'gradtx' has no attribute {name!r}", name=name, obj=here)

    def __dir__() -> list[str]:
        later = (x for module, names in _LATER.items() for x in (module, *names))
        return sorted({*globals(), *later})

    __all__ = [x for x in __dir__() if not x.startswith("_")]  # for `from gradtx import *`
