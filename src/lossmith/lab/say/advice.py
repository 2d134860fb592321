"""What to try, from what was measured: every rule in one table. suggestions.py makes commands of them.

A rule names losses that deserve a trial, never a winner: which of them learns best is what `compare` finds out. Rules
that were written to name one loss alone picked .31 and .12 of Dice below the best on two of three sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Facts = dict[str, Any]  # as in fingerprint.json
Reading = tuple[float, str]  # a measured number, and the sentence that says it


# ------------------------------------------------------------------------------------------------ what is looked at


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _foreground(facts: Facts) -> list[dict[str, Any]]:
    return [c for c in facts.get("classes", []) if c["label"] > 0 and c.get("pixels")]


def rarest(facts: Facts) -> Reading | None:
    """The class with the smallest share; None where nothing is labelled."""
    whole = facts["kind"] == "classification"
    classes = [c for c in facts.get("classes", []) if c.get("pixels")] if whole else _foreground(facts)
    if not classes:
        return None
    least = min(classes, key=lambda c: c["share"])
    return least["share"], f"{least['name']!r} has {_percent(least['share'])} of the {'images' if whole else 'pixels'}"


def _empty(facts: Facts) -> Reading | None:
    share = facts["foreground"]["empty_share"]
    return share, f"{_percent(share)} of the images hold background only"


def _crops(facts: Facts) -> Reading | None:
    share = facts["foreground"]["crops_without"]
    return None if share is None else (share, f"{_percent(share)} of the crops to train on hold background only")


def _boundary(facts: Facts) -> Reading | None:
    classes = [c for c in _foreground(facts) if c["boundary_share"] is not None]
    if not classes:
        return None
    most = max(classes, key=lambda c: c["boundary_share"])
    return most["boundary_share"], f"{_percent(most['boundary_share'])} of {most['name']!r} lies on its boundary"


def _objects(facts: Facts) -> Reading | None:
    number = facts["foreground"]["objects"]["per_image"]
    return None if number is None else (number, f"{number:.3g} objects an image, where there are any")


def _small(facts: Facts) -> Reading | None:
    objects = facts["foreground"]["objects"]
    if objects["small"] is None:
        return None
    return objects["small"], f"{_percent(objects['small'])} of the objects have under {objects['small_means']} pixels"


def _uneven(facts: Facts) -> Reading | None:
    shares = [c["share"] for c in _foreground(facts)]
    if len(shares) < 2:
        return None
    return max(shares) / min(
        shares
    ), f"the largest class has {max(shares) / min(shares):.3g} times the pixels of the least"


def _threshold(facts: Facts) -> Reading | None:
    one = facts["foreground"]["threshold"]
    return None if one is None else (one["dice"], f"one threshold on grey alone reaches a Dice of {one['dice']:.2f}")


def _difficulty(facts: Facts) -> Reading | None:
    """How many of the three things that make a loss matter are there."""
    rare, empty, small = rarest(facts), _empty(facts), _small(facts)
    if rare is None or empty is None:
        return None
    found = (rare[0] < 0.05) + (empty[0] > 0) + (small is not None and small[0] > 0.2)
    said = f"{rare[1]}, {empty[1]}" + (f", {small[1]}" if small else "")
    return float(found), said


def _positive(facts: Facts) -> Reading | None:
    share = facts["boxes"]["positive_share"]
    return None if share is None else (share, f"{_percent(share)} of the points of the grid are to find a box")


def _small_boxes(facts: Facts) -> Reading | None:
    share = facts["boxes"]["small"]
    return None if share is None else (share, f"{_percent(share)} of the boxes are smaller than 32 x 32 pixels")


def _elongated(facts: Facts) -> Reading | None:
    share = facts["boxes"]["elongated"]
    return (
        None if share is None else (share, f"{_percent(share)} of the boxes are three times as long as wide, or more")
    )


# ---------------------------------------------------------------------------------------------------------- the rules


@dataclass(frozen=True)
class Rule:
    """If a measured number passes a threshold, losses deserve a trial beside the control."""

    name: str
    kind: str
    read: Callable[[Facts], Reading | None]
    sign: Literal["under", "from"]
    threshold: float
    unit: Literal["%", ""]
    losses: tuple[str, ...]  # beside those of ALWAYS
    reason: str
    source: str
    alone: bool = False  # only where no rule before it speaks
    says: str = ""  # the threshold, where the number alone says little

    def limit(self) -> str:
        """The threshold, in words."""
        return self.says or f"{self.sign} {_percent(self.threshold) if self.unit else format(self.threshold, 'g')}"

    def fires(self, value: float) -> bool:
        """Whether a number passes the threshold."""
        return value < self.threshold if self.sign == "under" else value >= self.threshold


# What stands in every command: the control first, then what won most often where it was measured.
ALWAYS = {
    "segmentation": ("ce", "dice", "dice + ce"),
    "classification": ("ce",),
    "detection": ("ce + giou", "focal + giou"),
}

_NONE_OF = "none of: a class under 5 %, an empty image, over 20 % of the objects small"

RULES = (
    Rule(
        "empty images",
        "segmentation",
        _empty,
        "from",
        0.2,
        "%",
        ("tversky",),
        "On these a loss scores well by finding nothing at all; overlap losses price what they miss in the others.",
        "measured here: slices of CT with a rare tumour, 58 % empty: Dice pooled by patient .126 with dice, .089 with "
        "tversky, .015 with lovasz, .008 with dice + ce, .000 with ce and with focal",
    ),
    Rule(
        "rare class",
        "segmentation",
        rarest,
        "under",
        0.05,
        "%",
        ("tversky", "focal"),
        "Each pixel counts alike in cross-entropy, so the background owns most of its gradient; overlap losses measure "
        "a class against itself, and focal quiets what is easy.",
        "Milletari et al. 2016, arXiv 1606.04797; Salehi et al. 2017, arXiv 1706.05721; Lin et al. 2017, arXiv "
        "1708.02002; measured here: bacteria that cover 0.94 %, 3 seeds at the rate 3e-3: dice .885, ce .717; with the "
        "rate chosen for each (2 seeds) .82 and .81",
    ),
    Rule(
        "thin",
        "segmentation",
        _boundary,
        "from",
        0.4,
        "%",
        ("lovasz",),
        "Where much of a class is boundary, its score is decided there; Lovász follows the IoU itself.",
        "Berman et al. 2018, arXiv 1705.08790; measured here: bacteria after 30 steps: lovasz .83, dice .80, ce .51, "
        "but three times as long on smaller crops: dice .76, lovasz .66",
    ),
    Rule(
        "many objects",
        "segmentation",
        _objects,
        "from",
        20,
        "",
        ("lovasz",),
        "Many objects mean many boundaries: the same candidates as for thin ones.",
        "Berman et al. 2018, arXiv 1705.08790; measured here on one set of many objects, as for thin ones",
    ),
    Rule(
        "small objects",
        "segmentation",
        _small,
        "from",
        0.5,
        "%",
        ("tversky", "dice + focal"),
        "A small object is missed at little cost among large ones; Tversky makes a miss dearer than a false alarm.",
        "Salehi et al. 2017, arXiv 1706.05721; Zhu et al. 2019, arXiv 1808.05238; not measured here",
    ),
    Rule(
        "uneven classes",
        "segmentation",
        _uneven,
        "from",
        10,
        "",
        ("dice + focal", "gdl"),
        "Small classes stand beside large ones; overlap losses give each class a term of its own.",
        "Zhu et al. 2019, arXiv 1808.05238 (Dice + focal, for small organs beside large); Sudre et al. 2017, arXiv "
        "1707.03237 (generalised Dice); not measured here",
    ),
    Rule(
        "empty crops",
        "segmentation",
        _crops,
        "from",
        0.5,
        "%",
        ("dice(per_image=false) + ce",),
        "In a crop without the class one false positive costs half of all there is with Dice by image; with Dice over "
        "the batch it costs what it is.",
        "Isensee et al. 2021, nnU-Net (batch Dice); the price of a false positive is computed in docs/losses.md; no "
        "training was measured here",
    ),
    Rule(
        "nothing unusual",
        "segmentation",
        _difficulty,
        "under",
        1,
        "",
        (),
        "No class under 5 %, no empty images, few small objects: the default compound dice + ce, and do not bother.",
        "Isensee et al. 2021, nnU-Net, whose default it is; that no other loss is better here was not measured",
        alone=True,
        says=_NONE_OF,
    ),
    Rule(
        "little unusual",
        "segmentation",
        _difficulty,
        "from",
        1,
        "",
        ("tversky",),
        "Nothing here passes a threshold; the compound and its parts are the usual candidates.",
        "Isensee et al. 2021, nnU-Net, for dice + ce; not measured here",
        alone=True,
        says=_NONE_OF.replace("none", "one or more"),
    ),
    Rule(
        "one threshold",
        "segmentation",
        _threshold,
        "from",
        0.9,
        "",
        (),
        "Grey alone nearly solves it, so losses will differ little; read every score against this one.",
        "measured on this data",
    ),
    Rule(
        "rare class",
        "classification",
        rarest,
        "under",
        0.1,
        "%",
        ("focal", 'ce(class_weight="effective")', "dice + ce", 'ce(class_weight="inverse")'),
        "The frequent classes own most of the gradient of cross-entropy; weights, focal and Dice shift it to the rare.",
        "Cui et al. 2019, arXiv 1901.05555 (effective number of samples); Lin et al. 2017, arXiv 1708.02002; not "
        "measured here",
    ),
    Rule(
        "balanced classes",
        "classification",
        rarest,
        "from",
        0.1,
        "%",
        ("ce(label_smoothing=0.1)", "focal"),
        "No class is rare: cross-entropy, and do not bother; smoothing is the one change that costs nothing.",
        "Szegedy et al. 2016, arXiv 1512.00567; not measured here",
    ),
    Rule(
        "few points",
        "detection",
        _positive,
        "under",
        0.05,
        "%",
        ("qfl + 2*giou + 0.25*dfl", "vfl + giou"),
        "Nearly all points are easy background; these scores quiet it, and the last two rank a box by its fit.",
        "Lin et al. 2017, arXiv 1708.02002; Li et al. 2020, arXiv 2006.04388; Zhang et al. 2021, arXiv 2008.13367; not "
        "measured here",
    ),
    Rule(
        "elongated boxes",
        "detection",
        _elongated,
        "from",
        0.3,
        "%",
        ("focal + ciou",),
        "CIoU has a term for the ratio of the sides.",
        "Zheng et al. 2022, arXiv 2005.03572; `lossmith lab box-regression` repeats the simulation of boxes alone",
    ),
    Rule(
        "small boxes",
        "detection",
        _small_boxes,
        "from",
        0.3,
        "%",
        ("focal + diou",),
        "Small boxes often miss their target altogether; DIoU still pulls the centres together.",
        "Zheng et al. 2020, arXiv 1911.08287; `lossmith lab box-regression` repeats the simulation of boxes alone",
    ),
    Rule(
        "boxes",
        "detection",
        _positive,
        "from",
        0.05,
        "%",
        ("qfl + 2*giou + 0.25*dfl",),
        "Nothing unusual: the two common pairs.",
        "Lin et al. 2017, arXiv 1708.02002; Li et al. 2020, arXiv 2006.04388; not measured here",
    ),
)
