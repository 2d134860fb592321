"""What training and held-back images say of each other: the same image or patient on both, classes, drift."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from lossmith.lab.audit.tally import PixelTally, Tally
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.groups import guess_groups
from lossmith.lab.data.index import Index

SIDES = ("train", "validation")
_SHIFT = 1.0  # standard deviations of an image's mean grey
_FEWEST = 4  # images on a side before its grey is judged
_RATIO = 2.0  # between the shares of a class


def duplicates(tally: Tally) -> list[dict[str, Any]]:
    """The images that hold the same pixels, those on both sides first."""
    found = [
        {"images": stems, "both_sides": len({tally.parts[s] for s in stems}) > 1}
        for stems in tally.digests.values()
        if len(stems) > 1
    ]
    return sorted(found, key=lambda each: not each["both_sides"])


def group_images(index: Index) -> tuple[dict[str, str], str, str]:
    """The patient, or whatever groups images, of each stem; "said" or "guessed"; and the pattern of a guess.

    Nothing is grouped by a guess: it only tells what there would be.
    """
    if index.groups:
        return index.groups, "said", ""
    guess = guess_groups(index.stems)
    if guess is None:
        return {}, "", ""
    pattern = guess[0]
    found = {stem: re.match(pattern, stem) for stem in index.stems}
    return {stem: match[1] for stem, match in found.items() if match}, "guessed", pattern


def group_facts(tally: Tally, index: Index) -> dict[str, Any]:
    """How many groups there are, which stand on both sides, and how many of them hold each label."""
    groups, how, pattern = group_images(index)
    parts: dict[str, set[str]] = {}
    labels: dict[str, set[int]] = {}
    for stem, group in groups.items():
        if tally.parts.get(stem) not in SIDES:
            continue
        parts.setdefault(group, set()).add(tally.parts[stem])
        if isinstance(tally, PixelTally):
            labels.setdefault(group, set()).update(tally.seen.get(stem, ()))
    every = sorted(set().union(*labels.values())) if labels else []
    return {
        "how": how,
        "pattern": pattern,
        "number": len(parts),
        "both_sides": sorted(group for group, on in parts.items() if len(on) > 1),
        "holding": {str(k): sum(k in held for held in labels.values()) for k in every},
    }


def duplicate_faults(index: Index, found: list[dict[str, Any]]) -> list[Fault]:
    """The same image twice: on both sides it flatters the scores, on one it counts twice."""
    faults = []
    for each in found:
        first, *others = each["images"]
        others_said = ", ".join(repr(s) for s in others[:3]) + (", …" if len(others) > 3 else "")
        if each["both_sides"]:
            what = f"holds the same pixels as {others_said}, and they stand in train and in validation"
            fix = "mark one of them unused in split.csv"
        else:
            what = f"holds the same pixels as {others_said}"
            fix = "remove one of them, or it counts twice"
        faults.append(Fault(index.images[first], what, fix, fatal=False))
    return faults


def one_sided(tally: PixelTally) -> dict[int, str]:
    """The classes that one side only holds, and which."""
    held = {side: {k for k, one in tally.classes[side].items() if one.pixels} for side in SIDES}
    if not all(held.values()):  # nothing is labelled on a side
        return {}
    return {k: side for side in SIDES for k in held[side] if not all(k in held[other] for other in SIDES)}


def drift(tally: Tally) -> list[dict[str, Any]]:
    """By channel: the mean grey of the images on each side, and their distance in standard deviations of images."""
    found = []
    train, validation = (tally.grey[side] for side in SIDES)
    for channel in range(min((len(grey) for grey in train + validation), default=0)):
        means = [np.array([grey[channel].mean for grey in side]) for side in (train, validation)]
        if not all(each.size for each in means):
            continue
        spread = float(np.sqrt(np.mean([each.var(ddof=1) for each in means]))) if min(map(len, means)) > 1 else 0.0
        shift = float(means[1].mean() - means[0].mean()) / spread if spread > 0 else None
        found.append(
            {
                "channel": channel,
                "train": float(means[0].mean()),
                "validation": float(means[1].mean()),
                "shift": shift,
                "differs": shift is not None and abs(shift) >= _SHIFT and min(map(len, means)) >= _FEWEST,
            }
        )
    return found


def far_apart(ratio: float | None) -> bool:
    """Whether a class is twice as frequent on one side."""
    return ratio is not None and not 1 / _RATIO <= ratio <= _RATIO
