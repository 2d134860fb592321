"""Call-time `label_mask`: which classes were annotated in each image."""

import math

import pytest
import torch

import lossmith as ls
from problems import IGNORE, IGNORED, labels_of, logits_of
from test_catalogue import close, valued

LOSSES = ["ce", "focal", "dice", "gdl", "dice + ce", "lovasz", "ohem", "explog"]
SINGLE = ["ce", "focal", "dice", "lovasz"]


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


@pytest.mark.parametrize("text", SINGLE)
def test_classes_that_nobody_annotated_are_part_of_the_background(text):
    """As if the network had fewer classes, of which the background has the probability of all that are missing."""
    logits, labels = logits_of(2, 4, 5, 6), labels_of(2, 2, 5, 6)  # 0 and 1 are annotated, 2 and 3 are not
    loss = ls.parse(text, **IGNORE)
    mask = torch.tensor([[1, 1, 0, 0]] * 2)
    value, gradient = valued(loss, logits, labels, label_mask=mask)
    z = logits.clone().requires_grad_()
    merged = torch.cat([z[:, [0, 2, 3]].logsumexp(1, keepdim=True), z[:, 1:2]], 1)
    expected = loss(merged, labels)
    close(value, expected, 1e-10)
    close(gradient, torch.autograd.grad(expected, z)[0], 1e-10)


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


@pytest.mark.parametrize("text", SINGLE)
def test_soft_labels_are_merged(text):
    logits, share = logits_of(2, 4, 5, 6), logits_of(2, 4, 5, 6, seed=3).softmax(1)
    loss, mask = ls.parse(text, task="multiclass"), torch.tensor([[1, 1, 0, 0]] * 2)
    merged = torch.cat([share[:, [0, 2, 3]].sum(1, keepdim=True), share[:, 1:2], torch.zeros(2, 2, 5, 6)], 1)
    close(loss(logits, share, label_mask=mask), loss(logits, merged, label_mask=mask), 1e-10)


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
