"""Any split of a batch is the whole batch: of every loss, by images and in space, without processes.

What the parts of a batch ask of each other is answered here by hand, so that this runs anywhere and is quick; that
processes answer it the same is in `test_processes.py`. A loss that is added to the catalogue is tried as it is.
"""

from __future__ import annotations

import random
import zlib

import pytest
import torch
from torch import Tensor

import lossmith as ls
from lossmith.losses.dense import ClassLoss
from problems import IGNORE, MANY, PROBLEMS, labels_of, logits_of, with_rows
from process_cases import Call
from splits import cuts, drawn, in_space, near, parts_of, together

DRAWS = 6


def compare(whole: Call, parts: list[Call], split: str, axis: int = 0) -> None:
    value, gradient = whole.made()
    values, slopes = together(parts, split)
    about = f"{whole.name} {whole.settings} {list(whole.keywords)} {[tuple(p.inputs[0].shape) for p in parts]}"
    if value.ndim:  # what is not reduced: the images of each part, or one group that all of them share
        shared = isinstance(whole.loss(), ClassLoss) and whole.settings.get("per_image", True) is False
        if split == "images":
            assert all(near(v, value) for v in values) if shared else near(torch.cat(values), value), about
        return
    assert all(near(v, value) for v in values), f"{about}: {values} for {value}"
    assert near(torch.cat(slopes, axis), gradient), f"{about}: {(torch.cat(slopes, axis) - gradient).abs().max()}"


@pytest.mark.parametrize("members", [2, 3])
@with_rows()
def test_any_split_by_images(row, members):
    draw = random.Random(zlib.crc32(f"{row.name} {members}".encode()))
    for _ in range(DRAWS):
        whole = drawn(row, draw)
        compare(whole, parts_of(whole, cuts(draw, len(whole.inputs[0]), members)), "images")


@with_rows()
def test_any_split_in_space(row):
    draw, done = random.Random(zlib.crc32(row.name.encode())), 0
    while done < DRAWS and "space" in row.cls.splits:
        whole = drawn(row, draw, [p for p in PROBLEMS if p.axes > 1])
        whole, parts = in_space(row, whole, cuts(draw, whole.inputs[0].shape[2], 2))
        compare(whole, parts, "space", axis=2)
        done += 1


EDGES = {
    "ties": ("ohem(thresh=0, min_kept=7)", {"scale": 0.0}),
    "ties of weights": ("topk(percent=30, class_weight=[1, 2, 3])", {"scale": 0.0}),
    "more than all": ("ohem(thresh=0, min_kept=10000)", {}),
    "none": ("ohem(thresh=0, min_kept=0)", {}),
    "all": ("topk(percent=100)", {}),
    "the first": ("topk(percent=0)", {}),
    "levels": ("lovasz(bins=7)", {}),
    "sorted": ("lovasz(exact=true, bins=7)", {}),
    "sorted, each image": ("lovasz(exact=true, bins=7, per_image=true)", {}),
    "few enough to be sorted": ("lovasz(bins=40, per_image=true)", {}),
    "all pixels count": ("ce + dice + focal", {"ignore": False}),
}


@pytest.mark.parametrize("split", ["images", "space"])
@pytest.mark.parametrize("about", EDGES)
def test_edges_of_what_is_ranked(about, split):
    text, given = EDGES[about]
    z, y = logits_of(4, 3, 6, 5, scale=given.get("scale", 2.0)), labels_of(3, 4, 6, 5, ignore=given.get("ignore", True))
    whole = Call(text, IGNORE, (z, y), {})
    for at in ([0, 0, 4], [0, 1, 4], [0, 4, 4]):
        if split == "images":
            compare(whole, parts_of(whole, at), split)
        else:
            compare(whole, in_space(None, whole, [*at[:2], 6])[1], split, axis=2)


@pytest.mark.parametrize("split", ["images", "space"])
def test_margins_on_levels(split):
    """The largest error may be anybody's."""
    z, y = logits_of(4, 3, 6, 5), labels_of(4, 4, 6, 5)
    for per_image in (True, False):
        whole = Call("lovasz_hinge", {"bins": 11, "per_image": per_image, **MANY, **IGNORE}, (z, y), {})
        if split == "images":
            compare(whole, parts_of(whole, [0, 1, 4]), split)
        else:
            compare(whole, in_space(None, whole, [0, 5, 6])[1], split, axis=2)


@pytest.mark.parametrize("text", ["power_ce", "wce", "ce", "topk"])
def test_denominators_are_added_up(text):
    whole = Call(text, IGNORE, (logits_of(4, 3, 6, 5), labels_of(3, 4, 6, 5)), {"denominator": 7.0})
    compare(whole, parts_of(whole, [0, 1, 4]), "images")
    compare(whole, in_space(None, whole, [0, 2, 6])[1], "space", axis=2)


@pytest.mark.parametrize("split", ["images", "space"])
@pytest.mark.parametrize("text", ["ohem(thresh=0, min_kept=7)", "topk(percent=30)"])
def test_equals_of_channels(text, split):
    """Of equally hard pixels those are kept that come first in the whole batch, channel by channel."""
    z, y = logits_of(2, 3, 4, 5, scale=0.0), labels_of(4, 2, 4, 5, ignore=False)
    whole = Call(text, MANY, (z, y), {})
    compare(whole, parts_of(whole, [0, 1, 2]), "images")
    compare(whole, in_space(None, whole, [0, 1, 4])[1], "space", axis=2)


@pytest.mark.parametrize("text", ["lovasz(bins=7)", "lovasz(bins=7, per_image=true)", "lovasz", "dice", "ce"])
def test_gradients_of_weights(text):
    z, y = logits_of(4, 3, 6, 5), labels_of(3, 4, 6, 5, ignore=False)
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)

    def value(weight: Tensor) -> Tensor:
        return ls.parse(text)(z, y, weight=weight)

    assert torch.autograd.gradcheck(value, weight.clone().requires_grad_())
    whole = weight.clone().requires_grad_()
    value(whole).backward()
    own = weight.clone().requires_grad_()
    parts = [Call(text, {}, (z[a:b], y[a:b]), {"weight": own[a:b]}) for a, b in ((0, 1), (1, 4))]
    together(parts, "images")
    assert near(own.grad, whole.grad)


def test_nan_is_seen_by_everybody():
    z, y = logits_of(4, 3, 6, 5), labels_of(3, 4, 6, 5, ignore=False)
    z[0, 0, 0, 0] = torch.nan
    weight = torch.ones(4, 6, 5)
    weight[0, 1, 1] = torch.nan
    for text in (
        "dice",
        "dice(per_image=false)",
        "ce",
        "ohem(min_kept=5)",
        "topk",
        "lovasz",
        "lovasz(bins=7)",
        "topk(reduction='sum')",
    ):
        for keywords, logits in (({}, z), ({"weight": weight}, logits_of(4, 3, 6, 5))):
            whole = Call(text, {}, (logits, y), keywords)
            values, slopes = together(parts_of(whole, [0, 1, 4]), "images")
            assert all(value.isnan() for value in values), (text, list(keywords))
            assert text != "topk" or not keywords or all(slope.isnan().any() for slope in slopes)
