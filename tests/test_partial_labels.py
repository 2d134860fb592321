"""Call-time `label_mask`: which classes were annotated in each image."""

import math

import pytest
import torch

import lossmith as ls
from problems import IGNORE, IGNORED, ROWS, labels_of, logits_of, nudges
from test_catalogue import close, valued

LOSSES = ["ce", "focal", "dice", "gdl", "dice + ce", "lovasz", "ohem", "explog"]
SINGLE = ["ce", "ce(label_smoothing=0.1)", "quadratic", "focal", "dice", "lovasz"]


@pytest.mark.parametrize("text", LOSSES)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_everything_annotated_is_no_mask(text, task):
    logits, labels = logits_of(2, 4, 5, 6), labels_of(4, 2, 5, 6)
    loss = ls.parse(text, task=task, **IGNORE)
    everything = torch.ones(2, 4, dtype=torch.bool)
    for one, other in zip(
        valued(loss, logits, labels, label_mask=everything), valued(loss, logits, labels), strict=True
    ):
        close(one, other, 1e-10)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.cls.target != "none" and "multiclass" in r.cls.tasks], ids=lambda row: row.name
)
def test_classes_that_nobody_annotated_are_part_of_the_background(row, engine):
    """As if the network had fewer classes, of which the background has the probability of all that are missing."""
    logits, labels = logits_of(2, 4, 5, 6), labels_of(2, 2, 5, 6)  # 0 and 1 are annotated, 2 and 3 are not
    mask = torch.tensor([[1, 1, 0, 0]] * 2)
    knobs = [k for k in nudges(row.cls, "multiclass", 4) if not any(isinstance(v, list) for v in k.values())]
    pixelwise = [{"reduction": "none"}] if row.cls.family in ("pixel", "information") else []
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
        z = logits.to(dtype).requires_grad_()
        for more in ({}, *knobs, *({**knob, **none} for knob in ({}, *knobs) for none in pixelwise)):
            loss = row.cls(**IGNORE, **more)
            merged = torch.cat([z[:, [0, 2, 3]].logsumexp(1, keepdim=True), z[:, 1:2]], 1)
            expected = loss(merged, labels)
            value, gradient = valued(loss, z, labels, label_mask=mask)
            close(value, expected, tolerance)
            close(gradient, torch.autograd.grad(expected.sum(), z)[0], tolerance)


@pytest.mark.parametrize("text", [*LOSSES, "ce(label_smoothing=0.1)", "quadratic"])
def test_the_background_is_always_annotated(text, engine):
    logits, labels = logits_of(2, 4, 5, 6), labels_of(4, 2, 5, 6)
    loss, mask = ls.parse(text, **IGNORE), torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0]])
    without = mask.clone()
    without[:, 0] = 0
    close(loss(logits, labels, label_mask=without), loss(logits, labels, label_mask=mask), 0.0)


@pytest.mark.parametrize("text", SINGLE)
def test_a_label_of_a_missing_class_is_background(text):
    logits, labels = logits_of(1, 4, 5, 6), labels_of(4, 1, 5, 6)
    loss, mask = ls.parse(text, **IGNORE), torch.tensor([[1, 1, 0, 1]])
    close(
        loss(logits, labels, label_mask=mask), loss(logits, labels.masked_fill(labels == 2, 0), label_mask=mask), 1e-12
    )


@pytest.mark.parametrize("text", SINGLE)
def test_masks_differ_from_image_to_image(text):
    """The mean over two images is that of each alone, for a loss that takes images one by one."""
    if text == "lovasz":
        text = "lovasz(per_image=true)"
    logits, labels = logits_of(2, 4, 5, 6), labels_of(4, 2, 5, 6, ignore=False)
    loss, mask = ls.parse(text, **IGNORE), torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0]])
    alone = [loss(logits[i : i + 1], labels[i : i + 1], label_mask=mask[i : i + 1]) for i in range(2)]
    close(loss(logits, labels, label_mask=mask), torch.stack(alone).mean(), 1e-10)


def test_whole_images_may_have_labels_that_are_partial():
    logits, labels, mask = logits_of(3, 4), torch.tensor([0, 1, 3]), torch.tensor([[1, 1, 0, 1]] * 3)
    flat = ls.DiceLoss()(logits, labels, label_mask=mask)
    close(flat, ls.DiceLoss()(logits.unsqueeze(2), labels.unsqueeze(1), label_mask=mask), 1e-12)
    assert ls.CrossEntropyLoss()(logits[:0], labels[:0], label_mask=mask[:0]) == 0


@pytest.mark.parametrize("text", SINGLE)
def test_soft_labels_are_merged(text):
    logits, share = logits_of(2, 4, 5, 6), logits_of(2, 4, 5, 6, seed=3).softmax(1)
    loss, mask = ls.parse(text, task="multiclass"), torch.tensor([[1, 1, 0, 0]] * 2)
    fewer = torch.cat([share[:, [0, 2, 3]].sum(1, keepdim=True), share[:, 1:2]], 1)
    z = torch.cat([logits[:, [0, 2, 3]].logsumexp(1, keepdim=True), logits[:, 1:2]], 1)
    close(loss(logits, share, label_mask=mask), loss(z, fewer), 1e-10)


@pytest.mark.parametrize("text", SINGLE)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_masks_go_with_any_type(text, task, engine):
    labels, mask = labels_of(2, 2, 5, 6, ignore=False), torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1]])
    loss, logits = ls.parse(text, task=task), logits_of(2, 4, 5, 6).half()
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
    for target in (labels, one_hot):
        expected = loss(logits.double(), target, label_mask=mask)
        for dtype in (
            torch.uint8,
            torch.int16,
            *([torch.bool] if target is one_hot else []),
        ):  # bool names no class of 4
            close(loss(logits, target.to(dtype), label_mask=mask), expected, 2e-6)


@pytest.mark.parametrize("text", LOSSES)
def test_ignored_pixels_of_soft_labels_stay_ignored(text, engine):
    """Their entries are no shares: they are not added up. Nor do the slips of several shares add up to an error."""
    logits, share = logits_of(2, 4, 5, 6).float(), logits_of(2, 4, 5, 6, seed=3).softmax(1)
    loss, mask = ls.parse(text, task="multiclass"), torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]])
    hidden = share.clone()
    hidden[:, :, :, 4:] = -100
    expected = loss(logits[..., :4], share[..., :4], label_mask=mask)
    close(loss(logits, hidden, label_mask=mask), expected, 2e-6)
    sure = torch.zeros_like(share)
    sure[:, 2] = 1
    slipped = sure + torch.where(sure == 1, 9e-5, -9e-5)
    close(loss(logits, slipped, label_mask=mask), loss(logits, sure, label_mask=mask), 1e-12)
    coarse = sure * 0.501
    coarse[:, 3] = 0.501
    close(loss(logits[:1], coarse[:1], label_mask=mask[:1]), loss(logits[:1], sure[:1], label_mask=mask[:1]), 1e-12)


@pytest.mark.parametrize("ignored", [0, 1, IGNORED])
def test_what_is_ignored_among_labels_may_be_a_yes_or_a_no(ignored, engine):
    """One against the rest: labels become yes and no, of which neither is ignored."""
    logits, labels = logits_of(2, 4, 5, 6), labels_of(4, 2, 5, 6, ignore=False)
    loss = ls.parse("dice + ce", task="multilabel", ignore_index=ignored)
    for mask, kept in ((torch.ones(2, 4), [0, 1, 2, 3]), (torch.tensor([[1, 1, 0, 1]] * 2), [0, 1, 3])):
        yes = (labels.unsqueeze(1) == torch.tensor(kept).reshape(-1, 1, 1)).long()
        yes = yes.masked_fill((labels == ignored).unsqueeze(1), 7)
        expected = ls.parse("dice + ce", task="multilabel", ignore_index=7)(logits[:, kept], yes)
        close(loss(logits, labels, label_mask=mask), expected, 1e-10)


STRANGE = [  # task, channels, target, what is said of it
    ("multiclass", 4, torch.full((2, 5, 6), 255), "holds 255, but with C = 4 .* 0 to 3"),
    ("multiclass", 4, torch.full((2, 5, 6), -1), "holds -1, but with C = 4 .* 0 to 3"),
    ("multiclass", 4, torch.tensor([0, 0, 1.5, 0]).expand(2, 5, 6, 4).movedim(-1, 1), "holds 1.5, .* C = 4 .* 0 to 1"),
    ("multilabel", 4, torch.full((2, 5, 6), 255), "holds 255, but with C = 4 .* 0 to 4"),
    ("multilabel", 4, torch.full((2, 5, 6), 5), "holds 5, but with C = 4 .* 0 to 4"),
    ("multilabel", 4, torch.full((2, 5, 6), -1), "holds -1, but with C = 4 .* 0 to 4"),
    ("multilabel", 4, torch.full((2, 4, 5, 6), 255), "holds 255, but with C = 4 .* 0 to 1"),
    ("multilabel", 4, torch.full((2, 4, 5, 6), -0.5), "holds -0.5, but with C = 4 .* 0 to 1"),
    ("binary", 1, torch.full((2, 5, 6), 255, dtype=torch.uint8), r"holds 255, but with C = 1 .* \(mask > 0\)"),
]


@pytest.mark.parametrize(("task", "channels", "target", "words"), STRANGE)
def test_labels_out_of_range_are_seen_through_the_mask(task, channels, target, words, engine):
    """As an error that names the loss; as NaN where looking would cost."""
    logits, mask = logits_of(2, channels, 5, 6).float(), torch.ones(2, channels)
    mask[:, 2:] = 0
    for loss in (ls.DiceLoss(task=task), ls.CrossEntropyLoss(task=task)):
        with pytest.raises(ValueError, match=f"{type(loss).__name__}: the target {words}"):
            loss(logits, target, label_mask=mask)
        each = torch.func.vmap(lambda z, r, m, f=loss: f(z[None], r[None], label_mask=m[None]))
        assert each(logits, target, mask).isnan().all()


@pytest.mark.parametrize("text", SINGLE)
def test_a_channel_that_nobody_annotated_is_left_out(text):
    logits, target = logits_of(2, 4, 5, 6), (logits_of(2, 4, 5, 6, seed=4) > 0).long()
    loss, mask = ls.parse(text, task="multilabel", **IGNORE), torch.tensor([[1, 0, 1, 1]] * 2)
    value, gradient = valued(loss, logits, target, label_mask=mask)
    close(value, loss(logits[:, [0, 2, 3]], target[:, [0, 2, 3]]), 1e-10)
    assert (gradient[:, 1] == 0).all()


@pytest.mark.parametrize("text", LOSSES)
def test_ignored_pixels_stay_inert(text):
    logits, labels = logits_of(2, 4, 5, 6), labels_of(4, 2, 5, 6)
    loss, mask = ls.parse(text, **IGNORE), torch.tensor([[1, 1, 0, 1], [1, 0, 1, 0]])
    value, gradient = valued(loss, logits, labels, label_mask=mask)
    broken = logits.masked_fill((labels == IGNORED).unsqueeze(1), math.nan)
    other, other_gradient = valued(loss, broken, labels, label_mask=mask)
    close(other, value, 1e-12)
    close(other_gradient, gradient, 1e-12)


def test_a_wrong_mask_is_an_error():
    logits, labels = logits_of(2, 4, 5, 6), labels_of(4, 2, 5, 6, ignore=False)
    with pytest.raises(ValueError, match=r"CrossEntropyLoss: label_mask says which classes .* \(2, 4\), got \(2, 3\)"):
        ls.CrossEntropyLoss()(logits, labels, label_mask=torch.ones(2, 3))


def test_under_a_sigmoid_the_first_channel_is_like_any_other():
    logits, yes = logits_of(2, 3, 5, 6), (logits_of(2, 3, 5, 6, seed=3) > 0).long()
    mask = torch.tensor([[0, 1, 1], [0, 1, 1]])
    for text in ("ce", "focal"):
        loss = ls.parse(text, task="multilabel")
        close(loss(logits, yes, label_mask=mask), loss(logits[:, 1:], yes[:, 1:]), 1e-12)
