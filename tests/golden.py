"""Values worked out apart from any implementation, for the losses on logits: fixtures and a table of cases.

Each case says which loss, under which settings, gives which value (and gradient, where one was worked out) on which
input. Inputs are logits, shape (N, C, *S): a fixture given in probabilities enters as ln p (softmax) or ln p/(1 − p)
(sigmoid). Values are float64; tests compare at 1e-12 relative (float32: 2e-6). Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Golden:
    name: str
    loss: str  # catalogue name
    settings: dict[str, Any]  # of the constructor
    task: str
    logits: np.ndarray
    target: np.ndarray
    value: float | list  # a list is the map of reduction="none"
    call: dict[str, Any] = field(default_factory=dict)  # weight=, denominator=
    gradient: np.ndarray | None = None  # of the value by the logits, shaped like them; NaN where not worked out


def logit(p):
    p = np.asarray(p, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def channels_first(table):
    """(pixels, classes) as one image with one axis of pixels: (1, classes, pixels)."""
    return np.asarray(table, dtype=np.float64).T[None].copy()


# ---- fixtures ----------------------------------------------------------------------------------------------------

# B: four binary logits.
B = np.array([[[2.0, -1.0, 0.5, -3.0]]])
B_TARGET = np.array([[1, 0, 0, 1]])

# P: four binary probabilities; I = 1.5, P = 1.8, R = 2, Σp² = 1.22.
P_PROBABILITY = np.array([0.9, 0.6, 0.2, 0.1])
P = logit(P_PROBABILITY)[None, None]
P_TARGET = np.array([[1, 1, 0, 0]])

# P with one small object.
P_SMALL = logit([0.6, 0.2, 0.1, 0.1])[None, None]
P_SMALL_TARGET = np.array([[1, 0, 0, 0]])

# M: four pixels, three classes, logits.
M = channels_first([[2, 1, 0], [0, 1, 0.5], [1, -1, 3], [0.2, 0.1, -0.3]])
M_TARGET = np.array([[0, 1, 2, 1]])
M_TARGET_LAST_IGNORED = np.array([[0, 1, 2, -100]])

# Q: four pixels, three classes, probabilities; I = .7, .9, .6, P = 1.5, 1.3, 1.2, R = 1, 2, 1.
Q = np.log(channels_first([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]]))
Q_TARGET = np.array([[0, 1, 2, 1]])
Q_TARGET_LAST_IGNORED = np.array([[0, 1, 2, -100]])
Q_TARGET_NO_2 = np.array([[0, 1, 0, 1]])

# Two binary images of two pixels: I = 1.8 and .3, P = 1.8 and .4, R = 2 and 1. Only the two Dice losses were given
# (per image 1/19 and 4/7, pooled 5/26); the sums follow from them, their division among the pixels does not matter.
PAIR = logit([[0.9, 0.9], [0.3, 0.1]])[:, None]
PAIR_TARGET = np.array([[1, 1], [1, 0]])

BINARY, MULTICLASS, MULTILABEL = "binary", "multiclass", "multilabel"


def one(z):
    """One binary pixel."""
    return np.array([[[float(z)]]])


def row(*z):
    """One pixel of several classes; also its soft target."""
    return np.array(z, dtype=np.float64)[None, :, None]


def label(y):
    return np.array([[y]])


def grad_row0(*values):
    """Known for pixel 0 of fixture M only."""
    gradient = np.full((1, 3, 4), np.nan)
    gradient[0, :, 0] = values
    return gradient


def through_sigmoid(by_probability, p):
    """A gradient by p as one by the logit, one row of pixels: ∂p/∂z = p(1 − p)."""
    p = np.asarray(p, dtype=np.float64)
    return (np.asarray(by_probability) * p * (1.0 - p)).reshape(1, 1, -1)


# ---- pixel losses --------------------------------------------------------------------------------------------------

NONE, SUM = {"reduction": "none"}, {"reduction": "sum"}

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

# ---- region losses -------------------------------------------------------------------------------------------------

BARE = {"smooth": 0.0}
BARE_SQUARE = {"smooth": 0.0, "squared": True}
DICE_SQUARE_SLOPE = [0.1003047721924308, 0.27390918560240735, -0.11573627560665102, -0.05786813780332551]  # ∂D/∂p
FUSED_M_GRADIENT = grad_row0(-0.06022537738109349, 0.04185835317483216, 0.0183670242062613)
# The same loss through its sums: ∂L_c/∂I_c and ∂L_c/∂P_c of linear Dice, ε = 0, before the mean over three classes.
FUSED_M_BY_HIT = [-0.844928409869944, -0.6395125957662514, -0.7982267122825788]
FUSED_M_BY_SIZE = [0.23745909556815886, 0.17724565254563035, 0.2761519416235621]


def scalar_dice(name, p, t, slope, settings):
    """One pixel with a soft label; `slope` is that of the score by p."""
    size = p * p + t * t if settings["squared"] else p + t
    return Golden(name, "dice", {**settings, "smooth": 0.0}, BINARY, one(logit(p)), label(t), 1.0 - 2.0 * p * t / size,
                  gradient=through_sigmoid([-slope], [p]))  # fmt: skip


LINEAR, SQUARE = {"squared": False}, {"squared": True}
DICE = [
    Golden("dice_lin", "dice", BARE, BINARY, P, P_TARGET, 0.21052631578947367),
    Golden("dice_lin_e1", "dice", {}, BINARY, P, P_TARGET, 0.16666666666666663),
    Golden("dice_sq", "dice", BARE_SQUARE, BINARY, P, P_TARGET, 0.06832298136645953,
           gradient=through_sigmoid(-np.array(DICE_SQUARE_SLOPE), P_PROBABILITY)),
    Golden("dice_sq_e1", "dice", SQUARE, BINARY, P, P_TARGET, 0.05213270142180093),
    Golden("dice_Q_each", "dice", {**BARE, **NONE}, MULTICLASS, Q, Q_TARGET,
           [[0.44000000000000006, 0.4545454545454546, 0.4545454545454546]]),
    Golden("dice_Q_mean", "dice", BARE, MULTICLASS, Q, Q_TARGET, 0.4496969696969697),
    Golden("dice_absent_all_e1", "dice", {}, MULTICLASS, Q, Q_TARGET_NO_2, 0.42402317751154966),
    Golden("dice_absent_each_e1", "dice", NONE, MULTICLASS, Q, Q_TARGET_NO_2,
           [[0.37777777777777777, 0.34883720930232565, 0.5454545454545454]]),
    Golden("dice_absent_all_e1em5", "dice", {"smooth": 1e-5}, MULTICLASS, Q, Q_TARGET_NO_2, 0.6467495472794732),
    Golden("dice_absent_present", "dice", {**BARE, "absent": "skip"}, MULTICLASS, Q, Q_TARGET_NO_2,
           0.4701298701298702),
    Golden("dice_absent_chosen", "dice", {**BARE, "classes": (0, 1)}, MULTICLASS, Q, Q_TARGET_NO_2,
           0.4701298701298702),
    Golden("dice_sq_ignored", "dice", SQUARE, MULTICLASS, Q, Q_TARGET_LAST_IGNORED, 0.0863899409614981),
    Golden("dice_img", "dice", BARE, BINARY, PAIR, PAIR_TARGET, 0.3120300751879699),
    Golden("dice_batch", "dice", {**BARE, "per_image": False}, BINARY, PAIR, PAIR_TARGET, 0.1923076923076923),
    scalar_dice("d_dice_sq_0.9_1.0", 0.9, 1.0, 0.1159915753487378, SQUARE),
    scalar_dice("d_dice_lin_0.9_1.0", 0.9, 1.0, 0.554016620498615, LINEAR),
    scalar_dice("d_dice_sq_0.001_0.01", 0.001, 0.01, 194.09861778257036, SQUARE),
    scalar_dice("d_dice_lin_0.001_0.01", 0.001, 0.01, 1.6528925619834713, LINEAR),
    Golden("fusedM", "dice", BARE, MULTICLASS, M, M_TARGET, 0.3972302158290845, gradient=FUSED_M_GRADIENT),
]  # fmt: skip

OVERLAP = [
    Golden("jacc", "jaccard", BARE, BINARY, P, P_TARGET, 0.34782608695652173),
    Golden("jacc_e1", "jaccard", {}, BINARY, P, P_TARGET, 0.24242424242424243),
    Golden("jacc_Q_mean", "jaccard", BARE, MULTICLASS, Q, Q_TARGET, 0.6203703703703703),
    Golden("tversky_37", "tversky", BARE, BINARY, P, P_TARGET, 0.22680412371134018),
    Golden("tversky_73", "tversky", {**BARE, "fp_weight": 0.7, "fn_weight": 0.3}, BINARY, P, P_TARGET,
           0.19354838709677413),
    Golden("tversky_55", "tversky", {**BARE, "fp_weight": 0.5, "fn_weight": 0.5}, BINARY, P, P_TARGET,
           0.21052631578947367),
    Golden("tversky_11", "tversky", {**BARE, "fp_weight": 1.0, "fn_weight": 1.0}, BINARY, P, P_TARGET,
           0.34782608695652173),
]  # fmt: skip

TWO_CLASSES = np.log(channels_first(np.stack([1.0 - P_PROBABILITY, P_PROBABILITY], 1)))  # fixture P as a softmax
GDL = [
    Golden("gdl_bin", "gdl", {}, BINARY, P, P_TARGET, 0.19999999999999996),
    Golden("gdl_bin_softmax", "gdl", {}, MULTICLASS, TWO_CLASSES, P_TARGET, 0.19999999999999996),
    Golden("gdl_imb", "gdl", {}, BINARY, P_SMALL, P_SMALL_TARGET, 0.33333333333333337),
    Golden("gdl_Q", "gdl", {}, MULTICLASS, Q, Q_TARGET, 0.44796380090497745),
    Golden("gdl_absent_max", "gdl", {}, MULTICLASS, Q, Q_TARGET_NO_2, 0.55),
    Golden("gdl_absent_skip", "gdl", {"absent": "skip"}, MULTICLASS, Q, Q_TARGET_NO_2, 0.47058823529411764),
]

CASES: list[Golden] = [*BINARY_CE, *MULTICLASS_CE, *FOCAL, *DICE, *OVERLAP, *GDL]
