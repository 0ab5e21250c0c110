"""The transformations of which optimizers are made."""

from gradtx.engine.rules import (
    MaskedNode as MaskedNode,
)
from gradtx.transforms.accumulation import (
    ApplyEvery as ApplyEvery,
    MultiSteps as MultiSteps,
    MultiStepsState as MultiStepsState,
    apply_every as apply_every,
)
from gradtx.transforms.adaptive_clipping import (
    AdaptiveGradClipState as AdaptiveGradClipState,
    adaptive_grad_clip as adaptive_grad_clip,
    unitwise_clip as unitwise_clip,
    unitwise_norm as unitwise_norm,
)
from gradtx.transforms.averaged import (
    averaged_params as averaged_params,
)
from gradtx.transforms.averaging import (
    EmaState as EmaState,
    ema as ema,
)
from gradtx.transforms.caution import (
    cautious as cautious,
)
from gradtx.transforms.centering import (
    centralize as centralize,
)
from gradtx.transforms.clipping import (
    ClipByGlobalNormState as ClipByGlobalNormState,
    ClipState as ClipState,
    clip as clip,
    clip_by_block_rms as clip_by_block_rms,
    clip_by_global_norm as clip_by_global_norm,
)
from gradtx.transforms.combining import (
    chain as chain,
    identity as identity,
    named_chain as named_chain,
)
from gradtx.transforms.constraining import (
    NonNegativeParamsState as NonNegativeParamsState,
    ZeroNansState as ZeroNansState,
    keep_params_nonnegative as keep_params_nonnegative,
    zero_nans as zero_nans,
)
from gradtx.transforms.decay import (
    AddDecayedWeightsState as AddDecayedWeightsState,
    add_decayed_weights as add_decayed_weights,
)
from gradtx.transforms.decay_kinds import (
    AddDecayToInitialState as AddDecayToInitialState,
    WeightDecayState as WeightDecayState,
    add_cautious_decay as add_cautious_decay,
    add_corrected_decay as add_corrected_decay,
    add_decay_to_initial as add_decay_to_initial,
    add_independent_decay as add_independent_decay,
)
from gradtx.transforms.distance import (
    ScaleByDistanceOverGradientsState as ScaleByDistanceOverGradientsState,
    scale_by_distance_over_gradients as scale_by_distance_over_gradients,
)
from gradtx.transforms.extra_arguments import (
    extra_args as extra_args,
    strict as strict,
)
from gradtx.transforms.flattening import (
    flatten as flatten,
)
from gradtx.transforms.freezing import (
    freeze as freeze,
    selective_transform as selective_transform,
    set_to_zero as set_to_zero,
)
from gradtx.transforms.gauss_newton import (
    gauss_newton_bartlett_estimator as gauss_newton_bartlett_estimator,
)
from gradtx.transforms.gradient_norms import (
    AdaptiveGradientNormState as AdaptiveGradientNormState,
    adaptive_gradient_norm as adaptive_gradient_norm,
)
from gradtx.transforms.gradient_signs import (
    grams as grams,
)
from gradtx.transforms.grafting import (
    graft as graft,
)
from gradtx.transforms.grokfast import (
    GrokfastEmaState as GrokfastEmaState,
    GrokfastMaState as GrokfastMaState,
    grokfast_ema as grokfast_ema,
    grokfast_ma as grokfast_ma,
)
from gradtx.transforms.guards import (
    ApplyIfFiniteState as ApplyIfFiniteState,
    ConditionallyMaskState as ConditionallyMaskState,
    ConditionallyTransformState as ConditionallyTransformState,
    ConditionFn as ConditionFn,
    ShouldSkipUpdateFunction as ShouldSkipUpdateFunction,
    apply_if_finite as apply_if_finite,
    conditionally_mask as conditionally_mask,
    conditionally_transform as conditionally_transform,
    skip_large_updates as skip_large_updates,
    skip_not_finite as skip_not_finite,
)
from gradtx.transforms.hutchinson import (
    HutchinsonState as HutchinsonState,
    hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
)
from gradtx.transforms.iterate_averaging import (
    PrimalAveragingState as PrimalAveragingState,
    ScheduleFreeState as ScheduleFreeState,
    primal_averaging as primal_averaging,
    schedule_free as schedule_free,
    schedule_free_eval_params as schedule_free_eval_params,
)
from gradtx.transforms.looking_ahead import (
    LookaheadParams as LookaheadParams,
    LookaheadState as LookaheadState,
    lookahead as lookahead,
)
from gradtx.transforms.low_precision import (
    KahanState as KahanState,
    MasterWeightsState as MasterWeightsState,
    StochasticRoundState as StochasticRoundState,
    kahan as kahan,
    master_weights as master_weights,
    stochastic_round as stochastic_round,
)
from gradtx.transforms.masking import (
    MaskedState as MaskedState,
    masked as masked,
)
from gradtx.transforms.matrices import (
    hidden_matrices as hidden_matrices,
)
from gradtx.transforms.maximizing import (
    maximize as maximize,
)
from gradtx.transforms.mechanic import (
    MechanicState as MechanicState,
    mechanize as mechanize,
)
from gradtx.transforms.momentum import (
    TraceState as TraceState,
    trace as trace,
)
from gradtx.transforms.monitoring import (
    MonitorState as MonitorState,
    SnapshotState as SnapshotState,
    measure_with_ema as measure_with_ema,
    monitor as monitor,
    snapshot as snapshot,
)
from gradtx.transforms.noise import (
    AddNoiseState as AddNoiseState,
    add_noise as add_noise,
)
from gradtx.transforms.normalizing import (
    NormalizeState as NormalizeState,
    normalize as normalize,
    normalize_by_update_norm as normalize_by_update_norm,
)
from gradtx.transforms.offloading import (
    offload as offload,
)
from gradtx.transforms.outliers import (
    SkipOutliersState as SkipOutliersState,
    skip_outliers as skip_outliers,
)
from gradtx.transforms.param_scale import (
    scale_by_param_block_norm as scale_by_param_block_norm,
    scale_by_param_block_rms as scale_by_param_block_rms,
)
from gradtx.transforms.params_averaging import (
    LawaState as LawaState,
    ParamsEmaState as ParamsEmaState,
    ParamsMeanState as ParamsMeanState,
    lawa as lawa,
    params_ema as params_ema,
    params_mean as params_mean,
)
from gradtx.transforms.partitioning import (
    MultiTransformState as MultiTransformState,
    PartitionState as PartitionState,
    multi_transform as multi_transform,
    partition as partition,
)
from gradtx.transforms.per_example import (
    per_example_global_norm_clip as per_example_global_norm_clip,
    per_example_layer_norm_clip as per_example_layer_norm_clip,
)
from gradtx.transforms.plateau import (
    ReduceLROnPlateauState as ReduceLROnPlateauState,
    reduce_on_plateau as reduce_on_plateau,
)
from gradtx.transforms.privacy import (
    DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    differentially_private_aggregate as differentially_private_aggregate,
    dpsgd as dpsgd,
)
from gradtx.transforms.resetting import (
    MomentumResetState as MomentumResetState,
    momentum_reset as momentum_reset,
)
from gradtx.transforms.scaling import (
    ScaleByLearningRateState as ScaleByLearningRateState,
    ScaleByScheduleState as ScaleByScheduleState,
    ScaleState as ScaleState,
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_schedule as scale_by_schedule,
)
from gradtx.transforms.sharding import (
    shard as shard,
    zero as zero,
)
from gradtx.transforms.sharpness import (
    SAMState as SAMState,
    sam as sam,
)
from gradtx.transforms.spikes import (
    AdaptiveSpikeClipState as AdaptiveSpikeClipState,
    SpikeAwareClipState as SpikeAwareClipState,
    adaptive_spike_clip as adaptive_spike_clip,
    spike_aware_clip as spike_aware_clip,
)
from gradtx.transforms.splitting import (
    RealAndImaginary as RealAndImaginary,
    SplitRealAndImaginaryState as SplitRealAndImaginaryState,
    split_real_and_imaginary as split_real_and_imaginary,
)
from gradtx.transforms.storing import (
    store_as as store_as,
)
from gradtx.transforms.tensor_shampoo import (
    ScaleByTensorShampooState as ScaleByTensorShampooState,
    scale_by_tensor_shampoo as scale_by_tensor_shampoo,
)
from gradtx.transforms.trust_ratio import (
    ScaleByTrustRatioState as ScaleByTrustRatioState,
    scale_by_trust_ratio as scale_by_trust_ratio,
)
from gradtx.transforms.update_clipping import (
    StableRmsClipState as StableRmsClipState,
    stable_rms_clip as stable_rms_clip,
)
from gradtx.transforms.variance import (
    MarsState as MarsState,
    mars as mars,
)
from gradtx.transforms.watching import (
    CountedState as CountedState,
    WatchState as WatchState,
    counted as counted,
    watch as watch,
)
