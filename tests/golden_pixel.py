"""Golden values of the pixel and information families."""

from __future__ import annotations

import numpy as np

from golden_fixtures import (
    B_TARGET,
    BINARY,
    M_TARGET,
    M_TARGET_LAST_IGNORED,
    MULTICLASS,
    MULTILABEL,
    NONE,
    P_PROBABILITY,
    P_TARGET,
    Q_TARGET,
    SUM,
    B,
    Golden,
    M,
    P,
    Q,
    channels_first,
    label,
    logit,
    one,
    row,
    through_sigmoid,
)

BCE_EACH = [0.1269280110429725, 0.31326168751822286, 0.9740769841801067, 3.048587351573742]
BCE_PROBABILITY = np.array([0.8807970779778823, 0.2689414213699951, 0.6224593312018546, 0.04742587317756679])
CE_EACH = [0.4076059644443806, 0.6802696706417346, 0.1429316284998996, 1.0208276555532594]
M_PROBABILITY = [
    [0.6652409557748217, 0.24472847105479759, 0.09003057317038043],
    [0.18632372322584756, 0.506480391055654, 0.3071958857184984],
    [0.11731042782619835, 0.01587623997646676, 0.8668133321973348],
    [0.398189341044936, 0.3602966152405401, 0.2415140437145238],
]

BINARY_CE = [
    Golden("bce_each", "ce", NONE, BINARY, B, B_TARGET, [BCE_EACH]),
    Golden("bce_mean", "ce", {}, BINARY, B, B_TARGET, 1.115713508578761,
           gradient=(BCE_PROBABILITY - B_TARGET)[None] / 4),  # σ(z) − y
    Golden("bce_soft", "ce", {}, BINARY, one(0.5), label(0.7), 0.6240769841801067),
    # The factor 3 on positives, divided by the number of pixels.
    Golden("bce_posweight3_mean", "ce", {"class_weight": (1.0, 3.0)}, BINARY, B, B_TARGET, 2.7034711898871184,
           {"denominator": 4.0}),
    Golden("bce_P", "ce", {}, BINARY, P, P_TARGET, 0.23617255159896328),
    Golden("bce_z1000_y0", "ce", {}, BINARY, one(1000), label(0), 1000.0, gradient=one(1)),
    Golden("bce_zm1000_y1", "ce", {}, BINARY, one(-1000), label(1), 1000.0, gradient=one(-1)),
    Golden("bce_z1000_y1", "ce", {}, BINARY, one(1000), label(1), 0.0, gradient=one(0)),
    Golden("bce_z40_y1", "ce", {}, BINARY, one(40), label(1), 4.248354255291589e-18,
           gradient=one(-4.248354255291589e-18)),
    Golden("ce_p95", "ce", {}, BINARY, one(logit(0.95)), label(1), 0.05129329438755058),
    Golden("ce_p70", "ce", {}, BINARY, one(logit(0.7)), label(1), 0.35667494393873245),
    Golden("quad_a_ce", "ce", {}, BINARY, one(1.5), label(0), 1.7014132779827524, gradient=one(0.8175744761936437)),
    Golden("quad_b_ce", "ce", {}, BINARY, one(4), label(0), 4.0181499279178094, gradient=one(0.9820137900379085)),
]  # fmt: skip

TWO_HOT = row(0, 0, 0.7, 0.3, 0)  # 2.3 between its neighbours 2 and 3
MULTICLASS_CE = [
    Golden("ce_each", "ce", NONE, MULTICLASS, M, M_TARGET, [CE_EACH]),
    Golden("ce_mean", "ce", {}, MULTICLASS, M, M_TARGET, 0.5629087297848185,
           gradient=(channels_first(M_PROBABILITY) - np.eye(3)[M_TARGET[0]].T) / 4),  # p − r
    Golden("ce_ignore_last", "ce", {}, MULTICLASS, M, M_TARGET_LAST_IGNORED, 0.41026908786200494),
    Golden("ce_ignore_last_255", "ce", {"ignore_index": 255}, MULTICLASS, M,
           np.array([[0, 1, 2, 255]], dtype=np.uint8), 0.41026908786200494),
    Golden("ce_weight_0_last", "ce", {}, MULTICLASS, M, M_TARGET, 0.41026908786200494,
           {"weight": np.array([[1.0, 1.0, 1.0, 0.0]])}),
    Golden("ce_ignore_last_div4", "ce", {}, MULTICLASS, M, M_TARGET_LAST_IGNORED, 0.3077018158965037,
           {"denominator": 4.0}),
    Golden("ce_soft", "ce", {}, MULTICLASS, M[:, :, 1:2], row(0.1, 0.7, 0.2), 0.8802696706417346),
    Golden("ce_weighted_mean", "ce", {"class_weight": (1.0, 2.0, 4.0)}, MULTICLASS, M, M_TARGET, 0.4868363478704408),
    Golden("ce_weighted_div_n", "ce", {"class_weight": (1.0, 2.0, 4.0)}, MULTICLASS, M, M_TARGET, 1.0953817827084917,
           {"denominator": 4.0}),
    Golden("ce_PQ", "ce", {}, MULTICLASS, np.log(row(0.7, 0.2, 0.1)), row(0.5, 0.25, 0.25), 1.1563432233264028,
           gradient=row(0.2, -0.05, -0.15)),
    Golden("ce_of_itself", "ce", {}, MULTICLASS, np.log(row(0.5, 0.25, 0.25)), row(0.5, 0.25, 0.25),
           1.0397207708399179, gradient=row(0, 0, 0)),  # the entropy
    Golden("ce_uniform_3", "ce", {}, MULTICLASS, row(0, 0, 0), label(1), 1.0986122886681098),
    Golden("ce_uniform_4", "ce", {}, MULTICLASS, row(7, 7, 7, 7), label(3), 1.3862943611198906),
    # A distribution loss is cross-entropy with two neighbouring labels.
    Golden("ce_two_hot", "ce", {}, MULTICLASS, row(0, 1, 2, 1, 0), TWO_HOT, 0.9963567487889984,
           gradient=row(0.0674508058663448, 0.18335029990140383, -0.20160221153549762, -0.11664970009859615,
                        0.0674508058663448)),
    Golden("ce_two_hot_edge", "ce", {}, MULTICLASS, row(0, 1, 2, 1, 0), label(4), 2.6963567487889986),
    Golden("ce_two_hot_3p9", "ce", {}, MULTICLASS, row(0, 1, 2, 1, 0), row(0, 0, 0, 0.1, 0.9), 2.5963567487889985),
]  # fmt: skip

ALPHA = {"gamma": 2.0, "alpha": 0.25}
FOCAL_EACH = [0.0004508907088100938, 0.016993543131350496, 0.28305870064455735, 0.6915701102563158]
FOCAL_GRADIENT = np.array([[[-0.0012177350488481917, 0.039435847483170465, 0.3946138664059373, -0.2816874701587222]]])
FOCAL_SOFTMAX_EACH = [0.045677798967884965, 0.16568757241471838, 0.0025354196319527646, 0.41774352243567514]
FOCAL = [
    Golden("alphace_mean", "focal", {"gamma": 0.0, "alpha": 0.25}, BINARY, B, B_TARGET, 0.43984571110698145),
    Golden("focal_each", "focal", {**ALPHA, **NONE}, BINARY, B, B_TARGET, [FOCAL_EACH]),
    Golden("focal_mean", "focal", ALPHA, BINARY, B, B_TARGET, 0.2480183111852584, gradient=FOCAL_GRADIENT / 4),
    Golden("focal_sum", "focal", {**ALPHA, **SUM}, BINARY, B, B_TARGET, 4 * 0.2480183111852584,
           gradient=FOCAL_GRADIENT),
    Golden("focal_sum_over_npos", "focal", ALPHA, BINARY, B, B_TARGET, 0.4960366223705168, {"denominator": 2.0},
           FOCAL_GRADIENT / 2),
    Golden("focal_noalpha_mean", "focal", {}, BINARY, B, B_TARGET, 0.7920384155570951),
    Golden("focal_P", "focal", {}, BINARY, P, P_TARGET, 0.02319126304207086),
    Golden("focal_gamma0", "focal", {"gamma": 0.0}, MULTICLASS, M, M_TARGET, 0.5629087297848185),
    Golden("focal_zm1000_y1", "focal", ALPHA, BINARY, one(-1000), label(1), 250.0, gradient=one(-0.25)),
    Golden("focal_z1000_y1", "focal", ALPHA, BINARY, one(1000), label(1), 0.0, gradient=one(0)),
    Golden("focal_p95", "focal", {}, BINARY, one(logit(0.95)), label(1), 0.00012823323596887647),
    Golden("focal_p70", "focal", {}, BINARY, one(logit(0.7)), label(1), 0.03210074495448593),
    Golden("focal_negative", "focal", {}, BINARY, one(0.5), label(0), 0.3774116008594098),
    Golden("focal_negative_alpha", "focal", ALPHA, BINARY, one(0.5), label(0), 0.28305870064455735),
    Golden("focal_negative_zm2", "focal", ALPHA, BINARY, one(-2), label(0), 0.0013526721264302813),
    Golden("focalsm_each", "focal", NONE, MULTICLASS, M, M_TARGET, [FOCAL_SOFTMAX_EACH]),
    Golden("focalsm_mean", "focal", {}, MULTICLASS, M, M_TARGET, 0.1579110783625578),
    Golden("focalsm_alpha_mean", "focal", {"alpha": (0.25, 0.5, 0.75)}, MULTICLASS, M, M_TARGET, 0.07625914047278315),
    Golden("focal_ovr_sum", "focal", {**ALPHA, **SUM}, MULTILABEL, M, M_TARGET, 1.911542224148116),
    Golden("focal_ovr_mean", "focal", ALPHA, MULTILABEL, M, M_TARGET, 0.15929518534567633),
    Golden("focal_ovr_mean_one_hot", "focal", ALPHA, MULTILABEL, M, np.eye(3)[M_TARGET[0]].T[None],
           0.15929518534567633),
]  # fmt: skip

# ---- prices that depend on the batch -------------------------------------------------------------------------------

# w = (N − P)/P = 2.2/1.8, from the labels 1. The derivative keeps w; the literal one adds a constant to each ∂/∂p.
WCE_SLOPE = [-0.3395061728395062, -0.5092592592592593, 0.3125, 0.2777777777777778]
WCE_SLOPE_OF_WEIGHT = -0.19018090722957315
WCE = [
    Golden("wce", "wce", {}, BINARY, P, P_TARGET, 0.27040511490028646,
           gradient=through_sigmoid(WCE_SLOPE, P_PROBABILITY)),
    Golden("wce_multilabel", "wce", {}, MULTILABEL, np.concatenate([P, P], 1), np.stack([P_TARGET, P_TARGET], 1),
           0.27040511490028646),
    Golden("wce_from_target", "wce", {"weight_from": "target"}, BINARY, P, P_TARGET, 0.23617255159896328),
    Golden("wce_clamped", "wce", {"clamp": (1.0, 1.0)}, BINARY, P, P_TARGET, 0.23617255159896328),
]  # fmt: skip

HARD = logit([0.9, 0.6, 0.3, 0.05, 0.8])[None, None]
HARD_TARGET = np.ones((1, 5), dtype=np.int64)
EQUAL, EQUAL_TARGET = logit([0.9] * 4)[None, None], np.ones((1, 4), dtype=np.int64)
U_90, U_60, U_30, U_05 = 0.10536051565782628, 0.5108256237659907, 1.2039728043259361, 2.995732273553991
HARDEST = [
    Golden("ohem_thresh", "ohem", {"thresh": 0.7, "min_kept": 1}, BINARY, HARD, HARD_TARGET, 1.5701769005486392),
    Golden("ohem_min_kept", "ohem", {"thresh": 0.1, "min_kept": 3}, BINARY, HARD, HARD_TARGET, 1.5701769005486392),
    Golden("ohem_each", "ohem", {"thresh": 0.1, "min_kept": 3, **NONE}, BINARY, HARD, HARD_TARGET,
           [[0.0, U_60, U_30, U_05, 0.0]]),
    Golden("ohem_all", "ohem", {}, BINARY, HARD, HARD_TARGET, 1.0078069537235907),
    Golden("ohem_ties", "ohem", {"min_kept": 2}, BINARY, EQUAL, EQUAL_TARGET, U_90),
    Golden("ohem_ties_each", "ohem", {"min_kept": 2, **NONE}, BINARY, EQUAL, EQUAL_TARGET, [[U_90, U_90, 0.0, 0.0]]),
    Golden("topk_40", "topk", {"percent": 40.0}, BINARY, HARD, HARD_TARGET, 2.0998525389399636,
           gradient=np.array([[[0.0, 0.0, -0.35, -0.475, 0.0]]])),  # (p − 1)/2 on two of five
    Golden("topk_10", "topk", {}, BINARY, HARD, HARD_TARGET, U_05),  # half a pixel is one
]  # fmt: skip

# The second half of the exponential-logarithmic loss; w = 2, √2, 2.
POWER = [
    Golden("power_ce", "power_ce", {}, MULTICLASS, Q, Q_TARGET, 1.4385588690631979),
    Golden("power_ce_given", "power_ce", {"frequencies": (0.25, 0.5, 0.25)}, MULTICLASS, Q, Q_TARGET,
           1.4385588690631979),
]  # fmt: skip

# ---- curves of u ---------------------------------------------------------------------------------------------------

SIGNED = {"form": "signed"}
CONSERVATIVE_AT = {
    0.05: 21.8502239008145, 0.1: 7.075630698915694, 0.3: 0.038614918251076796, 0.5: -0.172551814175719,
    0.7: -2.1333410864394486, 0.9: -9.005742834937443, 0.99: -22.54073897496369,
}  # fmt: skip
CONSERVATIVE_SLOPE = {
    -3.0: -28.308788157256423, -1.0: -0.8972313491290909, 0.5: -2.5833630302374604, 2.0: -5.727513764678087,
    6.0: -5.117140908047009, 30.0: -5.000000000026903,
}  # fmt: skip


def conservative_slope(z, slope, form):
    """Only the slope was given: the value is the formula's."""
    u = np.log1p(np.exp(-z))
    value = 5.0 * (1.0 - u) ** 2 * np.log(u)
    value, slope = (abs(value), abs(slope) if u < 1 else slope) if form == "abs" else (value, slope)
    return Golden(f"conservative_{form}_z{z:g}", "conservative", {"form": form}, BINARY, one(z), label(1), value,
                  gradient=one(slope))  # fmt: skip


CONSERVATIVE = [
    *(Golden(f"conservative_abs_{p}", "conservative", {}, BINARY, one(logit(p)), label(1), abs(value))
      for p, value in CONSERVATIVE_AT.items()),
    *(Golden(f"conservative_signed_{p}", "conservative", SIGNED, BINARY, one(logit(p)), label(1), value)
      for p, value in CONSERVATIVE_AT.items()),
    *(conservative_slope(z, slope, form) for z, slope in CONSERVATIVE_SLOPE.items() for form in ("abs", "signed")),
]  # fmt: skip

QUADRATIC = [
    Golden("quad_a", "quadratic", {}, BINARY, one(1.5), label(0), 0.3342140120616554,
           gradient=one(0.12193833242754278)),
    Golden("quad_b", "quadratic", {}, BINARY, one(4), label(0), 0.48217554191230866,
           gradient=one(0.017345021070840114)),
    Golden("quad_a_softmax", "quadratic", {}, MULTICLASS, row(0, 1.5), label(0), 0.3342140120616554),
    Golden("quad_a_mse", "quadratic", {"half": False}, BINARY, one(1.5), label(0), 2 * 0.3342140120616554),
]  # fmt: skip

# ---- information ---------------------------------------------------------------------------------------------------

HALF_HALF, QUARTER, TENTH = (0.5, 0.5), (0.25, 0.75), (0.1, 0.9)
INFORMATION = [
    Golden("kl_PQ", "kl", {}, MULTICLASS, np.log(row(0.7, 0.2, 0.1)), row(0.5, 0.25, 0.25), 0.11662245248648477,
           gradient=row(0.2, -0.05, -0.15)),
    Golden("kl_QP", "kl", {}, MULTICLASS, np.log(row(0.5, 0.25, 0.25)), row(0.7, 0.2, 0.1), 0.09927278218459154),
    Golden("kl_zero_support", "kl", {}, MULTICLASS, np.log(row(0.7, 0.2, 0.1)), row(1, 0, 0), 0.35667494393873245),
    Golden("kl_impossible", "kl", {}, MULTICLASS, row(0, 0, -np.inf), row(0.5, 0.25, 0.25), np.inf),
    Golden("kl_detour", "kl", {}, MULTICLASS, np.log(row(*TENTH)), row(*HALF_HALF), 0.5108256237659907),
    Golden("kl_two_steps", "kl", SUM, MULTICLASS, np.log(channels_first([QUARTER, TENTH])),
           channels_first([HALF_HALF, QUARTER]), 0.23617255159896317),
    Golden("entropy_M1", "entropy", {}, MULTICLASS, M[:, :, 1:2], label(0), 1.0201913367268314),
    Golden("entropy_nats", "entropy", {}, MULTICLASS, np.log(row(0.5, 0.25, 0.25)), label(0), 1.0397207708399179),
    Golden("entropy_uniform", "entropy", {}, MULTICLASS, row(0, 0, 0), label(0), 1.0986122886681098,
           gradient=row(0, 0, 0)),
]  # fmt: skip

CASES = [*BINARY_CE, *MULTICLASS_CE, *FOCAL, *WCE, *HARDEST, *POWER, *CONSERVATIVE, *QUADRATIC, *INFORMATION]
