"""What the tallies say, as plain JSON: the fingerprint of a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossmith.lab.audit import sides
from lossmith.lab.audit.pixels import lower_edge
from lossmith.lab.audit.survey import Survey
from lossmith.lab.audit.tally import SMALL, ClassTally, PixelTally, SceneTally, Tally
from lossmith.lab.data.classes import name_classes, one_sided
from lossmith.lab.data.faults import Fault

Array = np.ndarray[Any, Any]

RECORD = 1  # what fingerprint.json looks like


def fingerprint(found: Survey, tally: Tally) -> dict[str, Any]:
    """Everything but what a comparison would need, and what to try."""
    faults = [*found.faults, *tally.faults]
    classes: list[str] = found.index.classes
    if isinstance(tally, PixelTally):
        classes, more = _names(found, tally)
        faults += more
    same = sides.duplicates(tally)
    faults += sides.duplicate_faults(found.index, same)
    facts = {
        "record": RECORD,
        "data": found.asked.data,
        "kind": found.kind.name,
        "task": found.asked.task,
        "ignore_index": found.asked.ignore_index,
        "complete": found.complete,
        "measured": len(found.jobs),
        "found": len(found.index.images),
        "images": {part: tally.images[part] for part in ("train", "validation", "unused")},
        "unreadable": tally.unreadable,
        "dimensions": found.dimensions,
        "channels": found.channels,
        "crop": found.crop,
        "shapes": _most_common(tally.shapes),
        "dtypes": _most_common(tally.dtypes),
        "spacings": _most_common(tally.spacings),
        "grey": _grey(tally),
        "drift": sides.drift(tally),
        "duplicates": same,
        "groups": sides.group_facts(tally, found.index),
        "source": found.index.source,
    }
    facts |= _of_pixels(tally, classes) if isinstance(tally, PixelTally) else {}
    facts |= _of_boxes(tally, classes) if isinstance(tally, SceneTally) else {}
    return {**facts, "faults": [_as_json(fault) for fault in dict.fromkeys(faults)]}


def _as_json(fault: Fault) -> dict[str, Any]:
    return {
        "path": str(fault.path),
        "line": fault.line,
        "what": fault.what,
        "fix": fault.fix,
        "fatal": fault.fatal,
        "text": str(fault),
    }


def _names(found: Survey, tally: PixelTally) -> tuple[list[str], list[Fault]]:
    """What the labels are called, and what is wrong with them where all of them were seen."""
    labelled = {stem for stem in tally.seen if stem in found.index.partners}
    if not labelled:
        return found.index.classes, []
    seen = {stem: tally.seen[stem] for stem in labelled}
    if not set().union(*seen.values()) - {found.asked.ignore_index}:
        where = next(iter(found.index.partners.values()))
        return found.index.classes, [Fault(where.parent, "every pixel is ignored, nothing to learn")]
    names, faults = name_classes(seen, found.index, found.asked.task, found.asked.ignore_index)
    if len(labelled) == len(found.index.images):
        if found.kind.name == "segmentation" and not any(fault.fatal for fault in faults):
            split = found.index.split
            sides = {side: [seen[s] for s in seen if split.get(s) == side] for side in ("train", "validation")}
            faults += one_sided(found.index.folder, {k: v for k, v in sides.items() if v}, found.asked.ignore_index)
        return names, faults
    # Of some images nobody knows what all hold; a label that is too large is one all the same.
    return names, [fault for fault in faults if fault.fatal and not found.complete]


def _most_common(counter: Any) -> list[dict[str, Any]]:
    return [{"value": value, "images": n} for value, n in counter.most_common(5)]


def _grey(tally: Tally) -> list[dict[str, Any]]:
    """By channel, of the images on both sides."""
    images = tally.grey["train"] + tally.grey["validation"]
    return [
        {
            "least": min(grey[c].least for grey in images),
            "most": max(grey[c].most for grey in images),
            "mean": float(np.mean([grey[c].mean for grey in images])),
            "deviation": float(np.mean([grey[c].deviation for grey in images])),
        }
        for c in range(min((len(grey) for grey in images), default=0))
    ]


# ------------------------------------------------------------------------------------------------------------- labels


def _of_pixels(tally: PixelTally, names: list[str]) -> dict[str, Any]:
    labels = sorted(set(tally.classes["train"]) | set(tally.classes["validation"]))
    if tally.numbered:  # of the images that do not number their objects, the labels mean the same
        names = ["background", "object"]
    called = {k: names[k] if k < len(names) else f"label {k}" for k in labels}
    one = sides.one_sided(tally)
    classes = [
        {"label": k, "name": called[k], **_class(tally, {s: tally.classes[s].get(k) for s in sides.SIDES}, k > 0)}
        for k in labels
    ]
    total = sum(tally.valid.values()) + sum(tally.ignored.values())
    return {
        "numbered": tally.numbered,
        "classes": classes,
        "foreground": _class(tally, dict(tally.foreground), True),
        "one_sided": {called[k]: side for k, side in one.items()},
        "ignored_share": sum(tally.ignored.values()) / total if total else 0.0,
        "labelled": {part: tally.labelled[part] for part in sides.SIDES},
    }


def _class(tally: PixelTally, parts: dict[str, ClassTally | None], objects: bool) -> dict[str, Any]:
    """One class on both sides; of the background how much of it there is."""
    known = {part: one or ClassTally() for part, one in parts.items()}
    share = {part: known[part].pixels / tally.valid[part] if tally.valid[part] else None for part in known}
    pixels, valid = sum(one.pixels for one in known.values()), sum(tally.valid.values())
    images, labelled = sum(one.images for one in known.values()), sum(tally.labelled.values())
    shares = [s for one in known.values() for s in one.shares]
    facts: dict[str, Any] = {
        "pixels": pixels,
        "share": pixels / valid if valid else 0.0,
        "share_train": share["train"],
        "share_validation": share["validation"],
        "ratio": share["validation"] / share["train"] if share["train"] and share["validation"] else None,
        "images": images,
        "empty_images": labelled - images,
        "empty_share": 1 - images / labelled if labelled else 0.0,
        "share_in_image": _spread(shares),
    }
    if not objects:
        return facts
    sizes = known["train"].sizes
    joined = type(sizes)()
    for one in known.values():
        joined.join(one.sizes)
    train, held = known["train"], tally.labelled["train"]
    return {
        **facts,
        "boundary_share": sum(one.boundary for one in known.values()) / pixels if pixels else None,
        "objects": {
            "number": joined.count,
            "per_image": joined.count / images if images and joined.count else None,
            "smallest": joined.smallest,
            "median": joined.quantile(0.5),
            "largest": joined.largest,
            "small": joined.small / joined.count if joined.count else None,
            "small_means": SMALL,
        },
        "crops_without": (train.crops_without + held - train.images) / held if held else None,
        "threshold": _threshold(tally, known),
    }


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"least": min(values), "median": float(np.median(values)), "most": max(values)}


def _threshold(tally: PixelTally, parts: dict[str, ClassTally]) -> dict[str, Any] | None:
    """The threshold on one channel that finds the class best in the training images, and its Dice on those held back.

    On grey as the network sees it: each image brought to mean 0 and standard deviation 1.
    """
    total = {side: sum((c.grey for c in tally.classes[side].values() if c.grey.size), np.zeros(())) for side in parts}
    mine = {side: one.grey for side, one in parts.items()}
    if not mine["train"].size or not mine["train"].sum():
        return None
    above, below = (_dice(mine["train"], total["train"], up) for up in (True, False))
    up = bool(above.max() >= below.max())
    channel, at = (int(i) for i in np.unravel_index((above if up else below).argmax(), above.shape))
    judged = "validation" if mine["validation"].size and mine["validation"].sum() else "train"
    dice = float(_dice(mine[judged], total[judged], up)[channel, at])
    return {"dice": dice, "channel": channel, "at": lower_edge(at), "above": up, "judged_on": judged}


def _dice(mine: Array, total: Array, above: bool) -> Array:
    """Of a class, (channels, bins): all at or above the lower edge of a bin is called the class, or all below."""
    hit, called = (x[:, ::-1].cumsum(1)[:, ::-1] for x in (mine, total))
    if not above:
        hit, called = mine.cumsum(1) - mine, total.cumsum(1) - total
    return np.asarray(2 * hit / (mine.sum(1, keepdims=True) + called))


# -------------------------------------------------------------------------------------------------------------- boxes


def _of_boxes(tally: SceneTally, names: list[str]) -> dict[str, Any]:
    number = {side: sum(map(len, tally.sides[side])) for side in sides.SIDES}
    each = [len(here) for side in sides.SIDES for here in tally.sides[side]]
    boxes = np.concatenate([here for side in sides.SIDES for here in tally.sides[side]] or [np.zeros((0, 2))])
    points = sum(tally.points.values())
    facts: dict[str, Any] = {
        "number": number,
        "ignored": tally.ignored,
        "empty_images": each.count(0),
        "per_image": _spread([float(n) for n in each]),
        "cells": points,
        "positive_share": sum(tally.positive.values()) / points if points else None,
        **dict.fromkeys(("side", "aspect", "small", "elongated")),
    }
    if len(boxes):
        side, longer = np.sqrt(boxes.prod(1)), boxes.max(1) / np.maximum(boxes.min(1), 1e-6)
        facts["side"] = {f"p{q}": float(np.percentile(side, q)) for q in (0, 10, 50, 90, 100)}
        facts["aspect"] = {f"p{q}": float(np.percentile(longer, q)) for q in (50, 90, 100)}
        facts["small"] = float((side < 32).mean())
        facts["elongated"] = float((longer >= 3).mean())
    return {
        "boxes": facts,
        "classes": [{"label": k, "name": name} for k, name in enumerate(names or ["background", "object"])],
    }
