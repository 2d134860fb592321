"""What training and held-back images say of each other: the same image or patient on both, classes, drift."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from lossmith.lab import UserError
from lossmith.lab.audit.tally import PixelTally, Tally
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.index import Index

SIDES = ("train", "validation")
_SHIFT = 1.0  # standard deviations of an image's mean grey
_FEWEST = 4  # images on a side before its grey is judged
_RATIO = 2.0  # between the shares of a class
# A number at the end counts images of something; what stands before it may be that something.
_COUNTED = re.compile(
    r"^(.*?[A-Za-z0-9])[ _.\-]*(?:slice|frame|image|img|tile|layer|[szftxy])?[ _.\-]*\d+$", re.IGNORECASE
)


def duplicates(tally: Tally) -> list[dict[str, Any]]:
    """The images that hold the same pixels, those on both sides first."""
    found = [
        {"images": stems, "both_sides": len({tally.parts[s] for s in stems}) > 1}
        for stems in tally.digests.values()
        if len(stems) > 1
    ]
    return sorted(found, key=lambda each: not each["both_sides"])


def group_images(stems: Iterable[str], regex: str | None) -> tuple[dict[str, str], str]:
    """The patient, or whatever groups images, of each stem; and "asked", "guessed" or "" where none is seen.

    A regex gives its first group, or all that it matches. A guess drops the number at the end of a stem, and is one
    only if that leaves several groups of several images.
    """
    stems = list(stems)
    if regex is not None:
        try:
            pattern = re.compile(regex)
        except re.error as error:
            raise UserError(f"--group-by {regex}: {error}; use a regular expression, as in '^(p[0-9]+)_'") from error
        found = {stem: pattern.search(stem) for stem in stems}
        missed = [stem for stem, match in found.items() if match is None]
        if missed:
            raise UserError(f"--group-by {regex}: does not match the image {missed[0]!r}; it must match every stem")
        return {stem: match[1 if pattern.groups else 0] for stem, match in found.items() if match}, "asked"
    counted = {stem: _COUNTED.match(stem) for stem in stems}
    groups = {stem: match[1] for stem, match in counted.items() if match}
    several = len(set(groups.values()))
    if len(groups) < len(stems) or several < 2 or several > len(stems) / 2:
        return {}, ""
    return groups, "guessed"


def group_facts(tally: Tally, groups: dict[str, str], how: str) -> dict[str, Any]:
    """How many groups there are, which stand on both sides, and how many of them hold each label."""
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
        "number": len(parts),
        "both_sides": sorted(group for group, on in parts.items() if len(on) > 1),
        "holding": {str(k): sum(k in held for held in labels.values()) for k in every},
    }


def side_faults(tally: Tally, index: Index, groups: dict[str, Any], found: list[dict[str, Any]]) -> list[Fault]:
    """What must not stand on both sides and does; and what stands on one only."""
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
    both = groups["both_sides"]
    if both:
        guess = "guessed from the names, " if groups["how"] == "guessed" else ""
        what = f"{len(both)} of {groups['number']} groups ({guess}as {both[0]!r}) stand in train and in validation"
        fix = "write split.csv so that each group is on one side, or the scores flatter"
        table = index.folder / "split.csv"
        faults.append(Fault(table if table.is_file() else index.folder, what, fix, fatal=False))
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
