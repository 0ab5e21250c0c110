"""Optimizers, one family a file."""

from gradtx.optimizers._a2grad import A2GradState as A2GradState, a2grad as a2grad
from gradtx.optimizers._acprop import acprop as acprop, scale_by_acprop as scale_by_acprop
from gradtx.optimizers._adabelief import (
    ScaleByBeliefState as ScaleByBeliefState,
    adabelief as adabelief,
    scale_by_belief as scale_by_belief,
)
from gradtx.optimizers._adabound import adabound as adabound, amsbound as amsbound
from gradtx.optimizers._adadelta import (
    ScaleByAdaDeltaState as ScaleByAdaDeltaState,
    adadelta as adadelta,
    scale_by_adadelta as scale_by_adadelta,
)
from gradtx.optimizers._adafactor import (
    FactoredState as FactoredState,
    adafactor as adafactor,
    scale_by_factored_rms as scale_by_factored_rms,
)
from gradtx.optimizers._adagrad import (
    ScaleByRssState as ScaleByRssState,
    adagrad as adagrad,
    scale_by_rss as scale_by_rss,
)
from gradtx.optimizers._adahessian import (
    AdaHessianState as AdaHessianState,
    adahessian as adahessian,
)
from gradtx.optimizers._adai import AdaiState as AdaiState, adai as adai
from gradtx.optimizers._adam import (
    ScaleByAdamState as ScaleByAdamState,
    adam as adam,
    adamw as adamw,
    nadam as nadam,
    nadamw as nadamw,
    scale_by_adam as scale_by_adam,
    scale_by_uncorrected_adam as scale_by_uncorrected_adam,
    uncorrected_adam as uncorrected_adam,
)
from gradtx.optimizers._adam_mini import AdamMiniState as AdamMiniState, adam_mini as adam_mini
from gradtx.optimizers._adamax import (
    adamax as adamax,
    adamaxw as adamaxw,
    scale_by_adamax as scale_by_adamax,
)
from gradtx.optimizers._adamc import adamc as adamc
from gradtx.optimizers._adamg import AdamGState as AdamGState, adamg as adamg
from gradtx.optimizers._adamod import AdaModState as AdaModState, adamod as adamod
from gradtx.optimizers._adamp import adamp as adamp, sgdp as sgdp
from gradtx.optimizers._adan import (
    ScaleByAdanState as ScaleByAdanState,
    adan as adan,
    scale_by_adan as scale_by_adan,
)
from gradtx.optimizers._adanorm import AdaNormState as AdaNormState, adanorm as adanorm
from gradtx.optimizers._adashift import AdaShiftState as AdaShiftState, adashift as adashift
from gradtx.optimizers._adasmooth import AdaSmoothState as AdaSmoothState, adasmooth as adasmooth
from gradtx.optimizers._ademamix import (
    ScaleByAdemamixState as ScaleByAdemamixState,
    ScaleBySimplifiedAdEMAMixState as ScaleBySimplifiedAdEMAMixState,
    ademamix as ademamix,
    scale_by_ademamix as scale_by_ademamix,
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    simplified_ademamix as simplified_ademamix,
)
from gradtx.optimizers._adopt import adopt as adopt, scale_by_adopt as scale_by_adopt
from gradtx.optimizers._aggmo import AggMoState as AggMoState, aggmo as aggmo
from gradtx.optimizers._aida import aida as aida
from gradtx.optimizers._alice import (
    ScaleByAliceState as ScaleByAliceState,
    alice as alice,
    scale_by_alice as scale_by_alice,
)
from gradtx.optimizers._amos import AmosState as AmosState, amos as amos
from gradtx.optimizers._amsgrad import (
    ScaleByAmsgradState as ScaleByAmsgradState,
    amsgrad as amsgrad,
    scale_by_amsgrad as scale_by_amsgrad,
)
from gradtx.optimizers._ano import ano as ano
from gradtx.optimizers._apollo import (
    ScaleByApolloState as ScaleByApolloState,
    apollo as apollo,
    apollo_mini as apollo_mini,
    scale_by_apollo as scale_by_apollo,
)
from gradtx.optimizers._apollo_qn import ApolloQNState as ApolloQNState, apollo_qn as apollo_qn
from gradtx.optimizers._avagrad import AvaGradState as AvaGradState, avagrad as avagrad
from gradtx.optimizers._bcos import BCOSState as BCOSState, bcos as bcos
from gradtx.optimizers._came import ConfidenceState as ConfidenceState, came as came
from gradtx.optimizers._cautious import (
    cautious_adamw as cautious_adamw,
    cautious_lion as cautious_lion,
)
from gradtx.optimizers._cocob import (
    COCOBState as COCOBState,
    cocob as cocob,
    scale_by_cocob as scale_by_cocob,
)
from gradtx.optimizers._conda import (
    ScaleByCondaState as ScaleByCondaState,
    conda as conda,
    scale_by_conda as scale_by_conda,
)
from gradtx.optimizers._dadapt import (
    DAdaptAdamWState as DAdaptAdamWState,
    dadapt_adamw as dadapt_adamw,
)
from gradtx.optimizers._diffgrad import DiffGradState as DiffGradState, diffgrad as diffgrad
from gradtx.optimizers._dion import (
    ScaleByDion2State as ScaleByDion2State,
    ScaleByDionState as ScaleByDionState,
    dion as dion,
    dion2 as dion2,
    scale_by_dion as scale_by_dion,
    scale_by_dion2 as scale_by_dion2,
)
from gradtx.optimizers._dog import (
    DoGState as DoGState,
    DoWGState as DoWGState,
    dog as dog,
    dowg as dowg,
)
from gradtx.optimizers._exadam import exadam as exadam
from gradtx.optimizers._fadam import FAdamState as FAdamState, fadam as fadam
from gradtx.optimizers._fira import (
    ScaleByFiraState as ScaleByFiraState,
    fira as fira,
    scale_by_fira as scale_by_fira,
)
from gradtx.optimizers._focus import FocusState as FocusState, focus as focus
from gradtx.optimizers._fromage import fromage as fromage
from gradtx.optimizers._ftrl import FTRLState as FTRLState, ftrl as ftrl
from gradtx.optimizers._galore import (
    GaLoreDimensionNumbers as GaLoreDimensionNumbers,
    GaLoreState as GaLoreState,
    galore as galore,
    scale_by_galore as scale_by_galore,
)
from gradtx.optimizers._gpa import gpa_adamw as gpa_adamw
from gradtx.optimizers._grams import grams_adamw as grams_adamw
from gradtx.optimizers._gravity import GravityState as GravityState, gravity as gravity
from gradtx.optimizers._kate import KateState as KateState, kate as kate
from gradtx.optimizers._kl_shampoo import (
    ScaleByKLShampooState as ScaleByKLShampooState,
    kl_shampoo as kl_shampoo,
    scale_by_kl_shampoo as scale_by_kl_shampoo,
)
from gradtx.optimizers._kl_soap import (
    ScaleByKLSoapState as ScaleByKLSoapState,
    kl_soap as kl_soap,
    scale_by_kl_soap as scale_by_kl_soap,
)
from gradtx.optimizers._kron import (
    ScaleByKronState as ScaleByKronState,
    kron as kron,
    scale_by_kron as scale_by_kron,
)
from gradtx.optimizers._laprop import laprop as laprop
from gradtx.optimizers._lars import lamb as lamb, lars as lars
from gradtx.optimizers._lbfgs import (
    ScaleByLBFGSState as ScaleByLBFGSState,
    lbfgs as lbfgs,
    scale_by_lbfgs as scale_by_lbfgs,
)
from gradtx.optimizers._lion import (
    ScaleByLionState as ScaleByLionState,
    lion as lion,
    scale_by_lion as scale_by_lion,
)
from gradtx.optimizers._madgrad import (
    MadgradState as MadgradState,
    madgrad as madgrad,
    scale_by_madgrad as scale_by_madgrad,
)
from gradtx.optimizers._mars import (
    mars_adamw as mars_adamw,
    mars_lion as mars_lion,
    mars_muon as mars_muon,
)
from gradtx.optimizers._momo import (
    MomoAdamState as MomoAdamState,
    MomoState as MomoState,
    momo as momo,
    momo_adam as momo_adam,
)
from gradtx.optimizers._msvag import msvag as msvag
from gradtx.optimizers._muon import (
    MuonDimensionNumbers as MuonDimensionNumbers,
    muon as muon,
    scale_by_muon as scale_by_muon,
)
from gradtx.optimizers._nero import NeroState as NeroState, nero as nero
from gradtx.optimizers._noisy_sgd import noisy_sgd as noisy_sgd
from gradtx.optimizers._normuon import (
    ScaleByAdaMuonState as ScaleByAdaMuonState,
    ScaleByNorMuonState as ScaleByNorMuonState,
    adamuon as adamuon,
    normuon as normuon,
    scale_by_adamuon as scale_by_adamuon,
    scale_by_normuon as scale_by_normuon,
)
from gradtx.optimizers._novograd import (
    ScaleByNovogradState as ScaleByNovogradState,
    novograd as novograd,
    scale_by_novograd as scale_by_novograd,
)
from gradtx.optimizers._optimistic import (
    ScaleByOptimisticGradientState as ScaleByOptimisticGradientState,
    optimistic_adam as optimistic_adam,
    optimistic_adam_v2 as optimistic_adam_v2,
    optimistic_gradient_descent as optimistic_gradient_descent,
    scale_by_optimistic_gradient as scale_by_optimistic_gradient,
)
from gradtx.optimizers._orthogonal_momentum import MuonState as MuonState
from gradtx.optimizers._padam import padam as padam
from gradtx.optimizers._pid import PIDState as PIDState, pid as pid
from gradtx.optimizers._pnm import (
    AdaPNMState as AdaPNMState,
    PNMState as PNMState,
    adapnm as adapnm,
    pnm as pnm,
)
from gradtx.optimizers._polyak import polyak_sgd as polyak_sgd, scale_by_polyak as scale_by_polyak
from gradtx.optimizers._prodigy import ProdigyState as ProdigyState, prodigy as prodigy
from gradtx.optimizers._qh import qhadam as qhadam, qhm as qhm
from gradtx.optimizers._racs import (
    ScaleByRacsState as ScaleByRacsState,
    racs as racs,
    scale_by_racs as scale_by_racs,
)
from gradtx.optimizers._radam import radam as radam, scale_by_radam as scale_by_radam
from gradtx.optimizers._rmsprop import (
    ScaleByRmsState as ScaleByRmsState,
    ScaleByRStdDevState as ScaleByRStdDevState,
    rmsprop as rmsprop,
    scale_by_rms as scale_by_rms,
    scale_by_stddev as scale_by_stddev,
)
from gradtx.optimizers._rprop import (
    ScaleByRpropState as ScaleByRpropState,
    rprop as rprop,
    scale_by_rprop as scale_by_rprop,
)
from gradtx.optimizers._schedule_free import (
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_sgd as schedule_free_sgd,
)
from gradtx.optimizers._scion import scale_by_scion as scale_by_scion, scion as scion
from gradtx.optimizers._sgd import momentum as momentum, nesterov as nesterov, sgd as sgd
from gradtx.optimizers._shampoo import (
    ScaleByShampooState as ScaleByShampooState,
    scale_by_shampoo as scale_by_shampoo,
    shampoo as shampoo,
)
from gradtx.optimizers._sign import (
    scale_by_sign as scale_by_sign,
    sign_sgd as sign_sgd,
    signum as signum,
    tiger as tiger,
)
from gradtx.optimizers._sm3 import (
    ScaleBySM3State as ScaleBySM3State,
    scale_by_sm3 as scale_by_sm3,
    sm3 as sm3,
)
from gradtx.optimizers._soap import (
    ScaleBySoapState as ScaleBySoapState,
    scale_by_soap as scale_by_soap,
    soap as soap,
)
from gradtx.optimizers._sophia import SophiaState as SophiaState, sophia as sophia
from gradtx.optimizers._spam import spam as spam, stable_spam as stable_spam
from gradtx.optimizers._splus import (
    ScaleBySPlusState as ScaleBySPlusState,
    scale_by_splus as scale_by_splus,
    splus as splus,
)
from gradtx.optimizers._srmm import SRMMState as SRMMState, srmm as srmm
from gradtx.optimizers._stable_adamw import stable_adamw as stable_adamw
from gradtx.optimizers._swats import SWATSState as SWATSState, swats as swats
from gradtx.optimizers._tam import (
    AdaTAMState as AdaTAMState,
    TAMState as TAMState,
    adatam as adatam,
    tam as tam,
)
from gradtx.optimizers._vsgd import VSGDState as VSGDState, vsgd as vsgd
from gradtx.optimizers._yogi import scale_by_yogi as scale_by_yogi, yogi as yogi
