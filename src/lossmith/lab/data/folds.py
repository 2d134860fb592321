"""Who is held back when nobody says: a quarter, or each image in one of several folds. Groups stay whole."""

from __future__ import annotations

from collections import Counter

import numpy as np

from lossmith.lab import UserError

_HELD_BACK = 0.25


def hold_back(stems: list[str], groups: dict[str, str]) -> dict[str, str]:
    """A seeded quarter of the images for validation, at least one: whole groups, as far as they fit into it."""
    sizes = Counter(groups.get(stem, stem) for stem in stems)
    room = max(1, round(_HELD_BACK * len(stems)))
    shuffled = np.random.default_rng(0).permutation(list(sizes)).tolist()
    held: set[str] = set()
    for group in shuffled:
        if sizes[group] <= room:
            held.add(group)
            room -= sizes[group]
    held = held or {min(shuffled, key=lambda group: sizes[group])}
    return {stem: "validation" if groups.get(stem, stem) in held else "train" for stem in stems}


def deal(rare: dict[str, bool], groups: dict[str, str], folds: int) -> dict[str, int]:
    """The fold of each image, whole groups together, seeded, about as many images in each.

    `rare` says by stem which images hold the rarest class: they are spread first. Raises `UserError` if there are
    fewer groups than folds.
    """
    images = Counter(groups.get(stem, stem) for stem in rare)
    holding = Counter(groups.get(stem, stem) for stem, holds in rare.items() if holds)
    if folds > len(images):
        what = f"{len(images)} groups of images" if groups else f"{len(images)} images"
        raise UserError(f"--folds {folds}: there are only {what} to train on and hold back; give {len(images)} at most")
    shuffled = np.random.default_rng(0).permutation(sorted(images)).tolist()
    fold: dict[str, int] = {}
    total, rares = [0] * folds, [0] * folds
    for group in sorted(shuffled, key=lambda name: (-holding[name], -images[name])):
        # Large ones first: what comes last evens the folds out.
        fold[group] = min(range(folds), key=lambda k: (rares[k] if holding[group] else 0, total[k]))
        total[fold[group]] += images[group]
        rares[fold[group]] += holding[group]
    return {stem: fold[groups.get(stem, stem)] for stem in rare}
