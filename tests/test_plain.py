"""The plain engine: that its answers do not depend on the pieces in which the pixels are worked on."""

from __future__ import annotations

import pytest
import torch

import lossmith as ls
from lossmith.engine.plain import sums
from problems import IGNORED, labels_of, logits_of
from test_catalogue import close, valued

SHAPE = 2, 3, 13, 17  # four pieces of 64 pixels, the last one shorter
SMALL = 2 * 3 * 64


def test_pieces_are_all_pixels_and_hold_no_more_than_they_may(monkeypatch):
    z, labels = logits_of(2, 3, 221), labels_of(3, 2, 221)
    assert [tuple(part.shape) for part, *_ in sums.cut(z, labels)] == [(2, 3, 221)]
    four = [64, 64, 64, 29]
    for most, sizes in [(1, four), (SMALL, four), (2 * SMALL + 1, [128, 93]), (2 * 3 * 221, [192, 29])]:
        monkeypatch.setattr(sums, "_PIECE", most)
        parts = list(sums.cut(z, None, labels))
        assert sums._pieces(z) == len(parts)
        assert [part.shape[2] for part, _, _ in parts] == sizes
        assert torch.equal(torch.cat([part for part, _, _ in parts], 2), z)
        assert torch.equal(torch.cat([own for _, _, own in parts], 1), labels)
        assert {nothing for _, nothing, _ in parts} == {None}
    for empty in (z[:, :, :0], z[:0], z[:, :0]):
        assert [part.shape for part, in sums.cut(empty)] == [empty.shape]


@pytest.mark.parametrize("text", ["dice(squared=true) + tversky + ce + focal(gamma=0.7)", "boundary", "hausdorff"])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_answer_does_not_depend_on_the_pieces(text, weighed, monkeypatch):
    logits, labels = logits_of(*SHAPE), labels_of(3, 2, 13, 17, ignore=weighed)
    call = {"weight": torch.rand(2, 13, 17, dtype=torch.float64)} if weighed else {}
    loss = ls.parse(text, ignore_index=IGNORED)
    with ls.use_engine("plain"):
        expected = valued(loss, logits, labels, **call)
        monkeypatch.setattr(sums, "_PIECE", SMALL)
        found = valued(loss, logits, labels, **call)
    for one, other in zip(found, expected, strict=True):
        close(one, other)


@pytest.mark.parametrize("text", ["ce", "focal(gamma=0.7)", "ce(label_smoothing=0.1)"])
def test_values_of_pixels_do_not_depend_on_the_pieces(text, monkeypatch):
    logits, labels = logits_of(*SHAPE), labels_of(3, 2, 13, 17)
    loss = ls.parse(text, reduction="none", ignore_index=IGNORED)
    with ls.use_engine("plain"):
        expected = valued(loss, logits, labels)
        monkeypatch.setattr(sums, "_PIECE", SMALL)
        found = valued(loss, logits, labels)
    for one, other in zip(found, expected, strict=True):
        close(one, other)
