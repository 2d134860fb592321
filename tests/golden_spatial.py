"""Golden values of the losses that look at where a pixel is, and of the recipes."""

from __future__ import annotations

import numpy as np

from golden_fixtures import (
    BINARY,
    MULTICLASS,
    P_BOTH,
    P_TARGET,
    Q_TARGET,
    Golden,
    P,
    Q,
    logit,
    through_sigmoid,
)

# S: 5 × 5, a block of 3 × 3 with p = .8 in a background of .1, and a false positive of .7 in the corner.
S_TARGET = np.zeros((1, 5, 5), dtype=np.int64)
S_TARGET[0, 1:4, 1:4] = 1
S_PROBABILITY = np.where(S_TARGET[0] == 1, 0.8, 0.1)
S_PROBABILITY[0, 0] = 0.7
S = logit(S_PROBABILITY)[None, None]
S_BOTH = np.log(np.stack([1.0 - S_PROBABILITY, S_PROBABILITY]))[None]  # as a softmax
S_PERFECT = np.where(S_TARGET == 1, 2000.0, -2000.0)[:, None]


def image(by_probability):
    return through_sigmoid(by_probability, S_PROBABILITY).reshape(1, 1, 5, 5)


# ---- prices from the label map -------------------------------------------------------------------------------------

MAX, INNER = {"norm": "max"}, {"side": "inner"}
PRICES = [
    Golden("dmp", "distance_penalty", {}, BINARY, S, S_TARGET, 0.31368588397715247),
    Golden("dmp_softmax", "distance_penalty", {}, MULTICLASS, S_BOTH, S_TARGET, 0.31368588397715247),
    Golden("dmp_max", "distance_penalty", MAX, BINARY, S, S_TARGET, 0.24222237092321788),
    Golden("gtb", "boundary_ce", {}, BINARY, S, S_TARGET, 0.19039703957112533),
    Golden("gtb_softmax", "boundary_ce", {}, MULTICLASS, S_BOTH, S_TARGET, 0.19039703957112533),
    # 24 pixels, all but the one in the middle.
    Golden("gtb_sum", "boundary_ce", {"reduction": "sum"}, BINARY, S, S_TARGET, 24 * 0.19039703957112533),
    Golden("gtb_inner", "boundary_ce", INNER, BINARY, S, S_TARGET, 0.2231435513142097),
    Golden("gtb_inner_sum", "boundary_ce", {**INNER, "reduction": "sum"}, BINARY, S, S_TARGET, 8 * 0.2231435513142097),
]

# ---- maps ----------------------------------------------------------------------------------------------------------

R2 = 1.4142135623730951
PHI = np.array([[R2, 1, 1, 1, R2], [1, 0, 0, 0, 1], [1, 0, -1, 0, 1], [1, 0, 0, 0, 1], [R2, 1, 1, 1, R2]])
FIELD = np.array([[R2, 1, 1, 1, R2], [1, 1, 1, 1, 1], [1, 1, 2, 1, 1], [1, 1, 1, 1, 1], [R2, 1, 1, 1, R2]])
FIELD_OF_PREDICTION = FIELD.copy()
FIELD_OF_PREDICTION[0, 0] = 1.0
S_GAP = S_PROBABILITY - S_TARGET[0]
BOTH_SIDES_SLOPE = 2.0 * S_GAP * (FIELD**2 + FIELD_OF_PREDICTION**2) / 25
SYMMETRIC = {"symmetric": True}
MAPS = [
    Golden("bd", "boundary", {}, BINARY, S, S_TARGET, 0.0725685424949238, gradient=image(PHI / 25)),
    Golden("bd_perfect", "boundary", {}, BINARY, S_PERFECT, S_TARGET, -0.04),
    Golden("bd_shifted", "boundary", {"shifted": True}, BINARY, S, S_TARGET, 0.11256854249492382,
           gradient=image(PHI / 25)),
    Golden("bd_symmetric", "boundary", SYMMETRIC, BINARY, S, S_TARGET, -0.21543145750507628),
    Golden("bd_symmetric_perfect", "boundary", SYMMETRIC, BINARY, S_PERFECT, S_TARGET, -0.4),
    Golden("bd_two_channels", "boundary", {}, MULTICLASS, S_BOTH, S_TARGET, 0.051431457505076175),
    Golden("hd", "hausdorff", {}, BINARY, S, S_TARGET, 0.11159999999999998, gradient=image(BOTH_SIDES_SLOPE)),
    Golden("hd_one_sided", "hausdorff", {"one_sided": True}, BINARY, S, S_TARGET, 0.06559999999999999,
           gradient=image(2.0 * S_GAP * FIELD**2 / 25)),
    Golden("hd_alpha1", "hausdorff", {"alpha": 1.0}, BINARY, S, S_TARGET, 0.09231269837220807),
]  # fmt: skip

# ---- fields --------------------------------------------------------------------------------------------------------

LENGTH = 0.5524298570910571
# Q as 2 × 2 pixels: every window sees them all, so that a_ij = S_i S_j / 36, S = 1.5, 1.3, 1.2.
Q_SQUARE = Q.reshape(1, 3, 2, 2)
Q_SQUARE_TARGET = Q_TARGET.reshape(1, 2, 2)
Q_ADJACENT = np.outer([1.5, 1.3, 1.2], [1.5, 1.3, 1.2]) / 36
NOT_0_2 = [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def pair(i, j):
    return np.eye(3)[i][:, None] * np.eye(3)[j]


def first_pixel():
    """∂G/∂p of the first pixel was given, through the softmax."""
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.03333333333333333, 0.0, 0.041666666666666664])
    gradient = np.full((1, 3, 2, 2), np.nan)
    gradient[0, :, 0, 0] = p * (q - p @ q)
    return gradient


FIELDS = [
    Golden("ac", "active_contour", {}, BINARY, S, S_TARGET, 0.712429857091057),
    Golden("ac_length", "active_contour", {"region_weight": 0.0}, BINARY, S, S_TARGET, LENGTH),
    Golden("ac_out", "active_contour", {"inside_weight": 0.0}, BINARY, S, S_TARGET, LENGTH + 0.072),
    Golden("ac_in", "active_contour", {"inside_weight": 2.0}, BINARY, S, S_TARGET, LENGTH + 2 * 0.088 + 0.072),
    Golden("ac_two_channels", "active_contour", {"region_weight": 0.0}, MULTICLASS, S_BOTH, S_TARGET, LENGTH),
    Golden("ac_flat", "active_contour", {"region_weight": 0.0}, BINARY, np.zeros((1, 1, 5, 5)), S_TARGET, 0.0001),
    Golden("bf1", "boundary_f1", {}, BINARY, S, S_TARGET, 0.17647058823529416),
    Golden("bf1_theta3", "boundary_f1", {"theta": 3}, BINARY, S, S_TARGET, 0.17647058823529416),
    Golden("bf1_perfect", "boundary_f1", {}, BINARY, S_PERFECT, S_TARGET, 0.0),
    Golden("na", "nonadjacency", {"forbidden": NOT_0_2}, MULTICLASS, Q_SQUARE, Q_SQUARE_TARGET, 0.05,
           gradient=first_pixel()),
    *(Golden(f"na_{i}{j}", "nonadjacency", {"forbidden": pair(i, j).tolist()}, MULTICLASS, Q_SQUARE, Q_SQUARE_TARGET,
             Q_ADJACENT[i, j]) for i, j in np.ndindex(3, 3)),
    Golden("na_nothing_forbidden", "nonadjacency", {"forbidden": np.zeros((3, 3)).tolist()}, MULTICLASS, Q_SQUARE,
           Q_SQUARE_TARGET, 0.0),
]  # fmt: skip

# ---- recipes -------------------------------------------------------------------------------------------------------

HALF = {"focal_weight": 0.5}
LOG_1 = {"gamma": 1.0}
# One false negative and one false positive of four pixels, in the cross-entropy half alone.
ONE_FN, ONE_FP = logit([0.1, 0.9, 0.1, 0.1])[None, None], logit([0.9, 0.9, 0.9, 0.1])[None, None]


def beta(value):
    return {"alpha": 1.0, "beta": value}


UFL = {"smooth": 0.0}
SYMMETRIC_UFL = {**UFL, "asymmetric": False}
RECIPES = [
    Golden("dice_ce", "dice_ce", {}, BINARY, P, P_TARGET, 0.4028392182656299),
    Golden("dice_focal", "dice_focal", {}, BINARY, P, P_TARGET, 0.1898579297087375),
    Golden("dice_focal_half", "dice_focal", HALF, BINARY, P, P_TARGET, 0.17826229818770206),
    Golden("combo", "combo", {}, BINARY, P, P_TARGET, -0.3576235287669259),
    Golden("combo_shift", "combo", {"shift": True}, BINARY, P, P_TARGET, 0.5 - 0.3576235287669259),
    Golden("combo_b7", "combo", {"beta": 0.7}, BINARY, P, P_TARGET, -0.35043147695563137),
    Golden("combo_b3", "combo", {"beta": 0.3}, BINARY, P, P_TARGET, -0.3648155805782204),
    Golden("combo_fn_b7", "combo", beta(0.7), BINARY, ONE_FN, P_TARGET, 0.4371945588627515),
    Golden("combo_fp_b7", "combo", beta(0.7), BINARY, ONE_FP, P_TARGET, 0.21747210112912962),
    Golden("combo_fn_b3", "combo", beta(0.3), BINARY, ONE_FN, P_TARGET, 0.2174721011291296),
    Golden("combo_fp_b3", "combo", beta(0.3), BINARY, ONE_FP, P_TARGET, 0.43719455886275155),
    Golden("explog", "explog", {}, MULTICLASS, Q, Q_TARGET, 0.8922822212443312),
    Golden("explog_given", "explog", {"frequencies": (1.0, 2.0, 1.0)}, MULTICLASS, Q, Q_TARGET, 0.8922822212443312),
    Golden("explog_gamma1", "explog", LOG_1, MULTICLASS, Q, Q_TARGET, 0.522933492751319),
    Golden("ufl", "unified_focal", UFL, BINARY, P, P_TARGET, 0.21546936823598453),
    Golden("ufl_softmax", "unified_focal", UFL, MULTICLASS, P_BOTH, P_TARGET, 0.21546936823598453),
    Golden("ufl_focal", "unified_focal", {**UFL, "lam": 1.0}, BINARY, P, P_TARGET, 0.1057389959524439),
    Golden("ufl_tversky", "unified_focal", {**UFL, "lam": 0.0}, BINARY, P, P_TARGET, 0.32519974051952516),
    Golden("ufl_symmetric", "unified_focal", SYMMETRIC_UFL, BINARY, P, P_TARGET, 0.2571680635503759),
    Golden("ufl_symmetric_g02", "unified_focal", {**SYMMETRIC_UFL, "gamma": 0.2}, BINARY, P, P_TARGET,
           0.1865743136522923),
]  # fmt: skip

CASES = [*PRICES, *MAPS, *FIELDS, *RECIPES]
