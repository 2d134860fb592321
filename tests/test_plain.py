"""The plain engine: its answers do not depend on the pieces that the pixels are worked on in, nor on how far-fetched
the logits are."""

from __future__ import annotations

import math

import pytest
import torch

import lossmith as ls
from lossmith.engine.contract import Order, Pass, Ranking, Want
from lossmith.engine.curves import Focal, Power
from lossmith.engine.images import Images
from lossmith.engine.plain import order, sums
from lossmith.engine.problem import Problem
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
    longer = logits_of(2, 3, 257)
    for most in (1, SMALL):
        monkeypatch.setattr(sums, "_PIECE", most)
        assert [part.shape[2] for (part,) in sums.cut(longer)] == [64, 64, 64, 64, 1]
        assert sums._pieces(longer) == 5
    monkeypatch.setattr(sums, "_PIECE", 128)
    assert [part.shape[2] for (part,) in sums.cut(z[:1, :1])] == [128, 93]
    assert sums._pieces(z[:1, :1]) == 2
    for empty in (z[:, :, :0], z[:0], z[:, :0]):
        assert torch.cat([part for (part,) in sums.cut(empty)], 2).shape == empty.shape


@pytest.mark.parametrize("text", ["dice(squared=true) + tversky + ce + focal(gamma=0.7)", "boundary", "hausdorff"])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_answer_does_not_depend_on_the_pieces(text, weighed, monkeypatch):
    logits, labels = logits_of(*SHAPE), labels_of(3, 2, 13, 17, ignore=weighed)
    call = {"weight": torch.rand(2, 13, 17, dtype=torch.float64)} if weighed else {}
    loss = ls.parse(text, ignore_index=IGNORED)
    with ls.use_engine("plain"):
        expected = valued(loss, logits, labels, **call)
        for most in (SMALL, 2 * SMALL):
            monkeypatch.setattr(sums, "_PIECE", most)
            found = valued(loss, logits, labels, **call)
            for one, other in zip(found, expected, strict=True):
                close(one, other)


@pytest.mark.parametrize(
    "text",
    [
        *("dice", "dice(squared=true)", "ce", "focal(gamma=0.7)", "power_ce", "conservative", "boundary", "hausdorff"),
        *("dice + ce", "dice(squared=true) + focal + tversky", "dice + dice(squared=true) + power_ce + ce + focal"),
    ],
)
@pytest.mark.parametrize("target", ["labels", "shares"])
def test_the_closed_form_of_a_gradient_is_what_autograd_finds(text, target):
    """A weight that requires a gradient leaves all to autograd."""
    logits, y = logits_of(*SHAPE), labels_of(3, 2, 13, 17, ignore=False)
    y = y if target == "labels" else logits_of(*SHAPE, seed=3).softmax(1)
    loss, ones = ls.parse(text, task="multiclass"), torch.ones(2, 13, 17, dtype=torch.float64)
    with ls.use_engine("plain"):
        for weight in (None, torch.rand_like(ones)):
            followed = (ones if weight is None else weight).clone().requires_grad_()
            for one, other in zip(
                valued(loss, logits, y, weight=weight), valued(loss, logits, y, weight=followed), strict=True
            ):
                close(one, other)


@pytest.mark.parametrize("weighed", [False, True])
def test_each_sum_has_the_gradient_of_its_definition(weighed):
    logits, labels = logits_of(*SHAPE), labels_of(3, 2, 13, 17, ignore=False)
    weight = torch.rand(2, 13, 17, dtype=torch.float64) if weighed else None
    kinds = [Focal(0.0), Focal(2.0), Power(1.5)]
    want = Want(errors=True, squares=True, curves=tuple(kinds), u=True)

    def by_definition(z):
        p, r = z.softmax(1), torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).double()
        w = torch.ones(2, 1, 13, 17).double() if weight is None else weight.unsqueeze(1)
        u = -(r * z.log_softmax(1)).sum(1, keepdim=True)
        pixels = [(1 - r) * p, r * (1 - p), (1 - r) * p**2, r * (1 - p) ** 2, *(r * curve(u) for curve in kinds)]
        return [(w * x).flatten(2).sum(2) for x in pixels] + [u.squeeze(1)]

    def measured(z):
        found = sums.measured(Pass(Problem(z, labels, weight, None, "multiclass", IGNORED), want))
        errors = found.sums.fp, found.sums.fn, found.sums.fp2, found.sums.fn2
        return [*errors, *(found.curves[curve] for curve in kinds), found.events[0].u]

    for at in range(8):
        z = logits.clone().requires_grad_()
        one, other = measured(z)[at], by_definition(z)[at]
        close(one, other)
        upstream = logits_of(*one.shape, seed=at)
        for x, y in zip(torch.autograd.grad(one, z, upstream), torch.autograd.grad(other, z, upstream), strict=True):
            close(x, y)


def test_second_derivatives_and_samples_apart_do_not_depend_on_the_pieces(monkeypatch):
    loss, labels = ls.parse("dice(squared=true) + focal"), labels_of(3, 2, 13, 17, ignore=False)

    def answers():
        z = logits_of(*SHAPE).requires_grad_()
        (first,) = torch.autograd.grad(loss(z, labels), z, create_graph=True)
        one = torch.func.grad(lambda x, y: loss(x[None], y[None]))
        return [*torch.autograd.grad(first.square().sum(), z), torch.func.vmap(one)(z.detach(), labels)]

    with ls.use_engine("plain"):
        expected = answers()
        monkeypatch.setattr(sums, "_PIECE", SMALL // 2)
        for one, other in zip(answers(), expected, strict=True):
            close(one, other)


@pytest.mark.parametrize("text", ["ce", "focal(gamma=0.7)", "ce(label_smoothing=0.1)"])
def test_values_of_pixels_do_not_depend_on_the_pieces(text, monkeypatch):
    logits, labels = logits_of(*SHAPE), labels_of(3, 2, 13, 17)
    loss = ls.parse(text, reduction="none", ignore_index=IGNORED)
    with ls.use_engine("plain"):
        expected = valued(loss, logits, labels)
        for most in (SMALL, 2 * SMALL):
            monkeypatch.setattr(sums, "_PIECE", most)
            found = valued(loss, logits, labels)
            for one, other in zip(found, expected, strict=True):
                close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_label_whose_chance_cannot_be_written_beside_equals(dtype):
    """The likeliest classes share what there is, so that the surprise is not the difference of the logits alone."""
    logits = torch.tensor([[0.0, 0.0, -200.0], [0.0, -150.0, 0.0]], dtype=dtype).unsqueeze(2)
    labels = torch.tensor([[2], [1]])
    expected = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    assert expected.flatten().tolist() == pytest.approx([200 + math.log(2), 150 + math.log(2)], rel=1e-12)
    soft = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).to(dtype)
    loss = ls.CrossEntropyLoss(reduction="none", task="multiclass")
    with ls.use_engine("plain"):
        for target in (labels, soft):
            torch.testing.assert_close(loss(logits, target).double(), expected, rtol=1e-6, atol=0)


def test_what_is_impossible_costs_nothing_however_surprising():
    logits = torch.tensor([[[torch.inf, -torch.inf]]])
    with ls.use_engine("plain"):
        assert ls.CrossEntropyLoss()(logits, torch.tensor([[[1.0, 0.0]]])) == 0


def test_what_is_sorted_is_what_a_histogram_would_not_make_smaller():
    problem = Problem(logits_of(2, 3, 60), labels_of(3, 2, 60), None, None, "multiclass", IGNORED)
    for bins, exact, per_image, expected in [
        *((59, False, True, False), (60, False, True, True), (119, False, False, False), (120, False, False, True)),
        *((59, True, True, True), (59, True, False, True)),
    ]:
        ranking = Ranking(bins=bins, exact=exact, per_image=per_image, hinge=False)
        assert order.sorts(Order(problem, ranking, Images())) == expected


@pytest.mark.parametrize("text", ["ce", "ce(label_smoothing=0.2)", "focal", "ce(label_smoothing=0.2) + focal"])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_of_pixels_add_up_to_the_sum(text, channels):
    logits, labels = logits_of(2, channels, 5, 6), labels_of(max(channels, 2), 2, 5, 6)
    settings = {"class_weight": [1.0, 3.0, 0.5][: max(channels, 2)], "ignore_index": IGNORED}
    with ls.use_engine("plain"):
        whole = ls.parse(text, reduction="sum", **settings)(logits, labels)
        pixels = [ls.parse(part, reduction="none", **settings)(logits, labels) for part in text.split(" + ")]
    close(sum(x.sum() for x in pixels), whole)


def test_labels_of_more_channels_than_pixels():
    logits, labels = logits_of(1, 5, 2), torch.tensor([[4, 5]])
    loss = ls.parse("dice + ce", task="multilabel")
    with ls.use_engine("plain"):
        yes = labels.unsqueeze(1) == torch.arange(5).reshape(1, 5, 1)
        close(loss(logits, labels), loss(logits, yes.double()))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_soft_target_in_half_precision_is_computed_with_in_full(channels):
    logits, target = logits_of(2, channels, 5, 6).float(), logits_of(2, channels, 5, 6, seed=3).sigmoid().bfloat16()
    loss = ls.parse("dice(squared=true) + ce + focal", task="binary" if channels == 1 else "multilabel")
    with ls.use_engine("plain"):
        for one, other in zip(valued(loss, logits, target), valued(loss, logits, target.float()), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [1.0, 3.0, 0.5]])
def test_cross_entropy_with_prices_and_smoothing_is_torchs(reduction, smoothing, weight):
    logits, labels = logits_of(2, 3, 5, 6), labels_of(3, 2, 5, 6)
    given = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(
        logits, labels, given, ignore_index=IGNORED, reduction=reduction, label_smoothing=smoothing
    )
    loss = ls.CrossEntropyLoss(
        class_weight=weight, ignore_index=IGNORED, reduction=reduction, label_smoothing=smoothing
    )
    with ls.use_engine("plain"):
        close(loss(logits, labels), expected)
