"""What an audit says: the summary in the terminal, and the page."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from lossmith.lab.audit import sides
from lossmith.lab.page.templates import render

_SHOWN = 20  # rows of a list on the page; fingerprint.json has all

Facts = dict[str, Any]


def percent(share: float | None) -> str:
    """Three digits of a share."""
    return "–" if share is None else f"{100 * share:.3g} %"


def extent(facts: Facts) -> str:
    """What was measured: all, or a sample."""
    noun = "volumes" if facts["dimensions"] == 3 else "images"
    if facts["complete"]:
        return f"all {facts['measured']:,} {noun} measured"
    return f"a seeded sample: {facts['measured']:,} of {facts['found']:,} {noun} measured; --all measures every one"


def headline(facts: Facts) -> str:
    """How imbalanced it is, whether something is wrong, what to try: one sentence each."""
    return " ".join([imbalance(facts), trouble(facts), trying(facts)])


def imbalance(facts: Facts) -> str:
    """The rarest class, and what holds none."""
    if facts["kind"] == "detection":
        boxes = facts["boxes"]
        number = sum(boxes["number"].values())
        counted = f"{number:,} {'box' if number == 1 else 'boxes'}"
        return f"{counted}; {percent(boxes['positive_share'])} of the detector's points are to find one."
    classes = [c for c in facts.get("classes", []) if c["pixels"]]
    whole = facts["kind"] == "classification"
    rare = [c for c in classes if whole or c["label"] > 0]
    if not rare:
        return "No label could be measured."
    least = min(rare, key=lambda c: c["share"])
    said = f"{least['name']!r} has {percent(least['share'])} of the {'images' if whole else 'pixels'}"
    empty = 0 if whole else facts["foreground"]["empty_images"]
    return said + (
        f", and {percent(facts['foreground']['empty_share'])} of the images hold none of any class." if empty else "."
    )


def trouble(facts: Facts) -> str:
    """How many faults there are."""
    fatal = sum(fault["fatal"] for fault in facts["faults"])
    others = len(facts["faults"]) - fatal
    if not facts["faults"]:
        return "Nothing wrong was found." if facts["complete"] else "Nothing wrong was found in the sample."
    counted = [f"{fatal} {'fault stops' if fatal == 1 else 'faults stop'} a comparison"] if fatal else []
    counted += [f"{others} {'thing needs' if others == 1 else 'things need'} a look"] if others else []
    return f"{' and '.join(counted)}."


def trying(facts: Facts) -> str:
    """The candidates."""
    suggestions = facts["suggestions"]
    if not suggestions:
        return "There is nothing to suggest yet."
    control, *losses = suggestions[0]["losses"]
    return f"Try {', '.join(losses)} beside {control}."


def class_lines(facts: Facts) -> list[list[str]]:
    """A table of the classes, for the terminal; the first row is its head."""
    if facts["kind"] == "detection":
        return []
    whole = facts["kind"] == "classification"
    head = ["class", "share", "train", "held back", "images"] + ([] if whole else ["objects", "on boundary"])
    rows = [head]
    for c in facts.get("classes", []):
        row = [c["name"], percent(c["share"]), percent(c["share_train"]), percent(c["share_validation"])]
        row.append(f"{c['images']:,}")
        if not whole:
            row += [f"{c['objects']['number']:,}", percent(c["boundary_share"])] if c["label"] > 0 else ["", ""]
        rows.append(row)
    return rows


def notes(facts: Facts) -> list[str]:
    """What is not wrong and yet worth a line."""
    said = []
    if facts.get("numbered"):
        said.append("The masks seem to number objects: everything above 0 is measured as one class (--task binary).")
    for name, side in facts.get("one_sided", {}).items():
        other = "validation" if side == "train" else "train"
        said.append(f"{name!r} stands in {side} and not in {other}.")
    for c in facts.get("classes", []):
        if sides.far_apart(c.get("ratio")):
            said.append(
                f"{c['name']!r} has {percent(c['share_train'])} of the pixels to train on and "
                f"{percent(c['share_validation'])} of those held back."
            )
    said += [
        f"Held-back images are {'brighter' if d['shift'] > 0 else 'darker'}: by {abs(d['shift']):.1f} standard "
        f"deviations of an image's mean (channel {d['channel']})."
        for d in facts["drift"]
        if d["differs"]
    ]
    if facts.get("ignored_share"):
        said.append(f"{percent(facts['ignored_share'])} of the pixels are ignored.")
    spacings = [tuple(each["value"]) for each in facts["spacings"]]
    if len(spacings) > 1:
        said.append(
            f"The spacing of the voxels differs, as {_size(spacings[0])} and {_size(spacings[1])}, "
            "which training does not read."
        )
    elif spacings and max(spacings[0]) > 1.5 * min(spacings[0]):
        said.append(f"Voxels are {_size(spacings[0])}: longer one way than another, and training does not read that.")
    groups = facts["groups"]
    if groups["how"] == "guessed":
        both = len(groups["both_sides"])
        said.append(
            f"The names look like {groups['number']} groups, a guess, of which {both} would stand in train and in "
            f"validation. If they are: --group-by '{groups['pattern']}'."
        )
    return said


def _size(sides_of: tuple[float, ...]) -> str:
    return " x ".join(f"{side:g}" for side in sides_of)


def need(facts: Facts) -> str:
    """What a comparison would take."""
    cost = facts["cost"]
    if not cost:
        return ""
    said = f"A trial of {cost['steps']} steps takes about {cost['seconds_per_trial']:.0f} s, {cost['at_once']} at once"
    return f"{said}; the data are {cost['bytes'] / 2**30:.2g} GiB ({cost['how']})."


def _objects(facts: Facts) -> list[tuple[str, Facts]]:
    """The classes above 0, and all of them as one where there are several."""
    if "foreground" not in facts or facts["kind"] == "classification":
        return []
    rows = [(c["name"], c) for c in facts["classes"] if c["label"] > 0]
    return rows if len(rows) == 1 else [*rows, ("any of them", facts["foreground"])]


def page(facts: Facts) -> str:
    """audit.html, in one file."""
    return render(
        '{% extends "audit.html" %}',
        plots=False,
        facts=facts,
        headline=headline(facts),
        trouble=trouble(facts),
        extent=extent(facts),
        notes=notes(facts),
        need=need(facts),
        percent=percent,
        rows=_objects(facts),
        grey=list(zip_longest(facts["grey"], facts["drift"])),
        shown=_SHOWN,
        largest=max((c["share"] for c in facts.get("classes", []) if c["label"] > 0 and "share" in c), default=1) or 1,
    )
