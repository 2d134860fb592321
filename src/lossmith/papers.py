"""What the papers state: the settings with which a loss is the one of its paper. `ls.FocalLoss.paper()` reads them.

A setting that is not named here keeps its default: the paper does not have it, or gives it no value. Numbers that the
authors' code alone has are said to be of the code; "our reading" means that the paper's text was not at hand.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Paper(NamedTuple):
    """The settings that a paper states, where it does, and what else one should know."""

    settings: dict[str, Any]
    source: str
    remark: str = ""


NO_SETTINGS = "its formula has no settings"

PAPERS: dict[str, Paper] = {
    # ---- pixel, information ------------------------------------------------------------------------------------------
    "wce": Paper(
        {"weight_from": "prediction"},
        "Sudre et al. 2017, section 2",
        "the bounds of the weight are ours: the paper's has none and is infinite where nothing is predicted",
    ),
    "focal": Paper(
        {"gamma": 2.0, "alpha": 0.25},
        "Lin et al. 2017, section 5.1 and table 1b",
        "of one channel or task='multilabel'; the paper divides by the number of positives: denominator= in the call",
    ),
    "power_ce": Paper(
        {"exponent": 0.3},
        "Wong et al. 2018",
        "frequencies= takes the counts of the labels in the training set, as the paper has them",
    ),
    "conservative": Paper(
        {"lam": 5.0, "base": math.e},
        "Zhu et al. 2018, as reviews transcribe it",
        "our reading: the formula as printed has no absolute value, form='signed'",
    ),
    "quadratic": Paper(
        {"half": True},
        "Nielsen 2015, chapter 3",
        "Brier 1950 sums over the labels and does not halve",
    ),
    "border_ce": Paper(
        {"w0": 10.0, "sigma": 5.0},
        "Ronneberger et al. 2015, section 3",
        "class_weight= takes its w_c, which balance the frequencies of the classes",
    ),
    "kl": Paper({}, "Kullback & Leibler 1951", NO_SETTINGS),
    "entropy": Paper({}, "Shannon 1948", NO_SETTINGS),
    # ---- region, sorted ----------------------------------------------------------------------------------------------
    "dice": Paper(
        {"squared": True, "smooth": 0.0},
        "Milletari et al. 2016, section 3",
        "Drozdzal et al. 2016 do not square: squared=False",
    ),
    "jaccard": Paper({"smooth": 0.0}, "Rahman & Wang 2016"),
    "tversky": Paper(
        {"fp_weight": 0.3, "fn_weight": 0.7, "smooth": 0.0},
        "Salehi et al. 2017, table 1: the best of the five",
        "their α is fp_weight; Abraham & Khan call fn_weight α",
    ),
    "focal_tversky": Paper(
        {"fp_weight": 0.3, "fn_weight": 0.7, "exponent": 0.75, "smooth": 1.0},
        "Abraham & Khan 2018, section 2; smooth from the authors' code",
        "their γ = 4/3 is the exponent 1/γ; they sum over the classes",
    ),
    "gdl": Paper(
        {"weighting": "square"}, "Sudre et al. 2017, section 2", "what an absent class weighs the paper leaves open"
    ),
    "dice2": Paper(
        {"balanced": False},
        "Sudre et al. 2017, section 2",
        "ε has no value there; negative where the target is empty and found to be",
    ),
    "logcosh_dice": Paper({"smooth": 1.0}, "Jadon 2020, the formulas of Dice and of log-cosh Dice"),
    "ss": Paper(
        {"sensitivity": 0.05},
        "Sudre et al. 2017, section 2, after Brosch et al. 2015",
        "Brosch et al. find 0.01 to 0.1 alike; ε has no value there",
    ),
    "log_dice": Paper({"exponent": 0.3, "smooth": 1.0}, "Wong et al. 2018"),
    "lovasz": Paper(
        {"per_image": False, "absent": "skip"},
        "Berman et al. 2018 and the authors' code",
        "the paper sorts: exact=True; our levels move the value by 1 / (2 · bins) at most",
    ),
    "lovasz_hinge": Paper(
        {"per_image": True, "absent": "keep"},
        "the code of Berman et al. 2018",
        "the paper sorts: exact=True",
    ),
    # ---- map, field --------------------------------------------------------------------------------------------------
    "boundary": Paper(
        {"symmetric": False, "shifted": False},
        "the code of Kervadec et al. 2019",
        "the paper adds it to a region loss: (1 − a) gdl + a boundary, a = 0.01 and 0.01 more each epoch, see ls.ramp; "
        "its formula is symmetric where the border runs through pixels",
    ),
    "hausdorff": Paper(
        {"alpha": 2.0, "one_sided": False},
        "Karimi & Salcudean 2019",
        "the paper adds Dice, with a weight that makes both alike in each epoch",
    ),
    "active_contour": Paper(
        {"region_weight": 1.0, "inside_weight": 1.0, "eps": 1e-8},
        "the code of Chen et al. 2019",
        "their sums grow with the image, our means do not: λ is not the same number in another size",
    ),
    "nonadjacency": Paper(
        {"window": 3, "include_center": True},
        "the code of Ganaye et al. 2018",
        "forbidden= has to be given; `from_labels` learns it",
    ),
    "boundary_f1": Paper(
        {"theta0": 3, "theta": 5},
        "Bokhovkin & Burnaev 2019",
        "θ is at most the smallest gap between two objects: 5 to 7 there",
    ),
    # ---- boxes, numbers ----------------------------------------------------------------------------------------------
    "iou_box": Paper({"form": "log"}, "Yu et al. 2016"),
    "giou": Paper({}, "Rezatofighi et al. 2019", NO_SETTINGS),
    "diou": Paper({}, "Zheng et al. 2020", NO_SETTINGS),
    "ciou": Paper(
        {"gate": 0.5},
        "the code of Zheng et al. 2022",
        "their paper of 2020, where it first stands, is without a gate: gate=None",
    ),
    "eiou": Paper(
        {"focal": 0.5},
        "Zhang et al. 2022, their focal form (our reading)",
        "their EIoU alone is focal=0.0",
    ),
    "siou": Paper({"theta": 4.0}, "Gevorgyan 2022", "the paper says: around 4, from 2 to 6"),
    "l1": Paper({}, "Laplace 1774", NO_SETTINGS),
    "l2": Paper({"half": False}, "Legendre 1805", "he adds up the squares; the mean is over the elements"),
    "smooth_l1": Paper(
        {"beta": 1.0}, "Girshick 2015, equation 3", "the code of Faster R-CNN has 1/9 for its region proposals"
    ),
    # ---- distribution ------------------------------------------------------------------------------------------------
    "qfl": Paper({"beta": 2.0}, "Li et al. 2020, section 3 and their table of β", "divided by the number of positives"),
    "dfl": Paper({}, "Li et al. 2020", NO_SETTINGS + "; its n is the head's, 16 in the authors' code"),
    "gfl": Paper(
        {"box_weight": 2.0, "dfl_weight": 0.25, "beta": 2.0},
        "Li et al. 2020, section 3",
        "its box loss is GIoU, the default",
    ),
    "vfl": Paper({"alpha": 0.75, "gamma": 2.0}, "Zhang et al. 2021, section 3 and their table of α and γ"),
    # ---- recipes -----------------------------------------------------------------------------------------------------
    "dice_ce": Paper(
        {"dice_weight": 1.0, "ce_weight": 1.0},
        "Isensee et al. 2018",
        "they subtract the Dice score: the same gradient, one less",
    ),
    "dice_focal": Paper(
        {"focal_weight": 0.5, "gamma": 2.0},
        "Zhu et al. 2019 (our reading)",
        "they try 0.1, 0.5 and 1, and add Dice up over the classes: dice_weight= their number",
    ),
    "combo": Paper(
        {"alpha": 0.5, "beta": 0.5, "smooth": 1.0, "shift": False},
        "the code of Taghanaki et al. 2019",
        "their code has a sign error that the paper and this loss have not",
    ),
    "explog": Paper(
        {"dice_weight": 0.8, "ce_weight": 0.2, "gamma": 0.3},
        "Wong et al. 2018",
        "frequencies= takes the counts of the labels in the training set, as the paper has them",
    ),
    "unified_focal": Paper(
        {"lam": 0.5, "delta": 0.6, "gamma": 0.5, "asymmetric": True, "smooth": 1e-7},
        "the code of Yeung et al. 2022",
        "the paper tunes γ between 0 and 1, and prints the powers of the symmetric form exchanged",
    ),
}

UNSTATED = {
    "ce": "Good 1952 has none, and Szegedy et al. 2016 smooth with label_smoothing=0.1",
    "ohem": "Shrivastava et al. 2016 choose regions, not pixels; thresh and min_kept are those of later code",
    "topk": "Wu et al. 2016 count pixels; 10 percent is nnU-Net's",
    "boundary_ce": "it has no paper",
    "distance_penalty": "Caliva et al. 2019 leave the normalisation of the map open",
    "huber": "Huber 1964 leaves δ open",
}


def stated(name: str, who: str) -> dict[str, Any]:
    """The settings of the paper of a loss.

    Raises:
        ValueError: there is no paper, or none that states them; the text says why.
    """
    if name not in PAPERS:
        raise ValueError(
            f"{who}: no settings of a paper are known: {UNSTATED.get(name, 'it is not in lossmith.papers')}; "
            f"build {who}() with your own"
        )
    return dict(PAPERS[name].settings)
