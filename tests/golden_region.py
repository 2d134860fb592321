"""Golden values of the region and sorted families."""

from __future__ import annotations

import numpy as np

from golden_fixtures import (
    B_TARGET,
    BINARY,
    M_TARGET,
    MULTICLASS,
    NONE,
    P_BOTH,
    P_PROBABILITY,
    P_SMALL,
    P_SMALL_TARGET,
    P_TARGET,
    PAIR,
    PAIR_TARGET,
    Q_TARGET,
    Q_TARGET_LAST_IGNORED,
    Q_TARGET_NO_2,
    B,
    Golden,
    M,
    P,
    Q,
    grad_row,
    label,
    logit,
    one,
    through_sigmoid,
)

BARE = {"smooth": 0.0}
BARE_SQUARE = {"smooth": 0.0, "squared": True}
DICE_SQUARE_SLOPE = [0.1003047721924308, 0.27390918560240735, -0.11573627560665102, -0.05786813780332551]  # ∂D/∂p
FUSED_M_GRADIENT = grad_row(0, -0.06022537738109349, 0.04185835317483216, 0.0183670242062613)
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

GDL = [
    Golden("gdl_bin", "gdl", {}, BINARY, P, P_TARGET, 0.19999999999999996),
    Golden("gdl_bin_softmax", "gdl", {}, MULTICLASS, P_BOTH, P_TARGET, 0.19999999999999996),
    Golden("gdl_imb", "gdl", {}, BINARY, P_SMALL, P_SMALL_TARGET, 0.33333333333333337),
    Golden("gdl_Q", "gdl", {}, MULTICLASS, Q, Q_TARGET, 0.44796380090497745),
    Golden("gdl_absent_max", "gdl", {}, MULTICLASS, Q, Q_TARGET_NO_2, 0.55),
    Golden("gdl_absent_skip", "gdl", {"absent": "skip"}, MULTICLASS, Q, Q_TARGET_NO_2, 0.47058823529411764),
]

# ε = 0: balanced or not is the same.
EMPTY, EMPTY_TARGET = np.full((1, 1, 4), -2000.0), np.zeros((1, 4), dtype=np.int64)
SURE = np.array([[[2000.0, 2000.0, -2000.0, -2000.0]]])
LITERAL = {"balanced": False}
TWO_CLASS = [
    Golden("dl2", "dice2", BARE, BINARY, P, P_TARGET, 0.20050125313283207),
    Golden("dl2_literal", "dice2", {**BARE, **LITERAL}, BINARY, P, P_TARGET, 0.20050125313283207),
    Golden("dl2_e1em5", "dice2", LITERAL, BINARY, P, P_TARGET, 0.2004982431090538),
    Golden("dl2_empty", "dice2", LITERAL, BINARY, EMPTY, EMPTY_TARGET, -0.5000006249992187),
    Golden("dl2_empty_balanced", "dice2", {}, BINARY, EMPTY, EMPTY_TARGET, 0.0),
    Golden("dl2_perfect", "dice2", BARE, BINARY, SURE, P_TARGET, 0.0),
    Golden("dl2_worst", "dice2", BARE, BINARY, -SURE, P_TARGET, 1.0),
]

OTHERS = [
    Golden("logcosh_dice", "logcosh_dice", BARE, BINARY, P, P_TARGET, 0.021998875556186827),
    Golden("ftl_075", "focal_tversky", BARE, BINARY, P, P_TARGET, 0.32865346083870145),
    Golden("ftl_4_3", "focal_tversky", {**BARE, "exponent": 4 / 3}, BINARY, P, P_TARGET, 0.13831456930567237),
    Golden("ss", "ss", BARE, BINARY, P, P_TARGET, 0.028000000000000018),
    Golden("ss_swapped", "ss", {**BARE, "sensitivity": 0.95}, BINARY, P, P_TARGET, 0.08199999999999996),
    # The two channels were given as a sum, 0.11.
    Golden("ss_two_channels", "ss", BARE, MULTICLASS, P_BOTH, P_TARGET, 0.10999999999999999 / 2),
    Golden("log_dice", "log_dice", {}, MULTICLASS, Q, Q_TARGET, 0.7557130592896145),
    # Given with the focal loss added to it.
    Golden("log_dice_one_class", "log_dice", {"exponent": 1.0, "include_background": False}, MULTICLASS, P_BOTH,
           P_TARGET, 0.20551281983602546 - 0.02319126304207086),
]  # fmt: skip

# ---- sorted losses -------------------------------------------------------------------------------------------------

SORT = {"exact": True}
LOVASZ_SLOPE_P = [np.nan, -0.5, 0.16666666666666663, np.nan]  # pixels 0 and 3 tie: the slope has a corner
LOVASZ_2_PROBABILITY = np.array([0.1, 0.3, 0.6, 0.8])  # errors .9, .3, .6, .2
LOVASZ_2, LOVASZ_2_TARGET = logit(LOVASZ_2_PROBABILITY)[None, None], np.array([[1, 0, 0, 1]])
LOVASZ_2_SLOPE = [-0.5, 0.08333333333333337, 0.16666666666666663, -0.25]
NO_FOREGROUND = logit([0.3, 0.7, 0.2])[None, None]
LOVASZ = [
    Golden("lov_P", "lovasz", SORT, BINARY, P, P_TARGET, 0.26666666666666666,
           gradient=through_sigmoid(LOVASZ_SLOPE_P, P_PROBABILITY)),
    Golden("lov_ex2", "lovasz", SORT, BINARY, LOVASZ_2, LOVASZ_2_TARGET, 0.625,
           gradient=through_sigmoid(LOVASZ_2_SLOPE, LOVASZ_2_PROBABILITY)),
    Golden("lov_absent", "lovasz", {**SORT, "absent": "keep"}, BINARY, NO_FOREGROUND, np.zeros((1, 3), dtype=int), 0.7),
    Golden("lov_absent_skip", "lovasz", SORT, BINARY, NO_FOREGROUND, np.zeros((1, 3), dtype=int), 0.0),
    Golden("lov_one_pixel", "lovasz", SORT, BINARY, one(logit(0.6)), label(1), 0.4),
    Golden("lov_between_bins", "lovasz", SORT, BINARY, one(logit(0.625)), label(1), 0.375),
    Golden("lovsm_Q", "lovasz", SORT, MULTICLASS, Q, Q_TARGET, 0.45),
    Golden("lovsm_present", "lovasz", SORT, MULTICLASS, Q, Q_TARGET_NO_2, 0.5666666666666667),
    Golden("lovsm_all", "lovasz", {**SORT, "absent": "keep"}, MULTICLASS, Q, Q_TARGET_NO_2, 0.5777777777777778),
    Golden("lovsm_M", "lovasz", SORT, MULTICLASS, M, M_TARGET, 0.3904438429665061,
           gradient=grad_row(3, 0.05850745925887096, -0.06715913337520578, 0.008651674116334825)),
    # Errors −1, 0, 1.5, 4. At e = 0 the slope has a corner.
    Golden("lovhinge_B", "lovasz_hinge", SORT, BINARY, B, B_TARGET, 2.25,
           gradient=np.array([[[0.0, np.nan, 0.16666666666666663, -0.5]]])),
]  # fmt: skip

CASES = [*DICE, *OVERLAP, *GDL, *TWO_CLASS, *OTHERS, *LOVASZ]
