"""Every slow reference keeps the call contract: what is ignored, what weights mean, which classes count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reference import REFERENCES
from reference_rows import rows

NEEDS = {"nonadjacency": {"forbidden": 1.0 - np.eye(3)}}
MULTILABEL = {"dice2", "lovasz_hinge"}  # no softmax
COUNTS = {"ohem", "topk"}  # a weight is a mask: 2 is not repeating
UNSUPERVISED = {"nonadjacency"}  # looks at ignored pixels too
SPATIAL = {
    "boundary_ce",
    "border_ce",
    "distance_penalty",
    "boundary",
    "hausdorff",
    "active_contour",
    "nonadjacency",
    "boundary_f1",
}
ONE_IMAGE = SPATIAL - {"boundary_ce", "border_ce", "distance_penalty"}  # no per_image


def loss(name, logits, target, task="multiclass", **settings):
    settings = NEEDS.get(name, {}) | settings
    return REFERENCES[name](logits, target, task="multilabel" if name in MULTILABEL else task, **settings)


@pytest.fixture
def batch():
    """Two images of 2 × 3 pixels, three classes, one pixel ignored."""
    rng = np.random.default_rng(1)
    logits, target = rng.normal(0, 2, (2, 3, 2, 3)), rng.integers(0, 3, (2, 2, 3))
    target[1, 0, 2] = -100
    return logits, target


ALL = sorted(REFERENCES)
REGION = ["dice", "gdl", "jaccard", "tversky", "dice2", "focal_tversky", "ss", "log_dice", "logcosh_dice", "lovasz"]

CLASSES = [*REGION, "boundary", "hausdorff", "active_contour"]


def but(*some):
    return [name for name in ALL if name not in set().union(*some)]


@pytest.mark.parametrize("name", ALL)
def test_nothing_valid_is_zero(batch, name):
    logits, target = batch
    if name not in UNSUPERVISED:
        assert loss(name, logits, np.full_like(target, -100)) == 0.0
    assert loss(name, logits * np.nan, target, weight=np.zeros(2)) == 0.0


@pytest.mark.parametrize("name", but(UNSUPERVISED))
def test_ignoring_is_cropping(batch, name):
    logits, target = batch
    hidden, broken = target.copy(), logits.copy()
    hidden[:, :, 2] = -100
    broken[:, :, :, 2] = np.nan
    expected = loss(name, logits[..., :2], target[..., :2])
    assert loss(name, broken, hidden) == pytest.approx(expected, rel=1e-14)
    assert loss(name, broken, target, weight=hidden != -100) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", but(COUNTS))
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weight_two_is_repeating_the_sample(batch, name, reduction):
    logits, target = batch
    again = [0, 1, 1]
    expected = loss(name, logits[again], target[again], reduction=reduction)
    assert loss(name, logits, target, weight=np.array([1.0, 2.0]), reduction=reduction) == pytest.approx(expected)
    if name in ONE_IMAGE:
        return
    pooled = loss(name, logits[again], target[again], per_image=False)
    assert loss(name, logits, target, weight=np.array([1.0, 2.0]), per_image=False) == pytest.approx(pooled)


@pytest.mark.parametrize("name", but(COUNTS, SPATIAL))
def test_pixel_weight_two_is_repeating_the_pixel(batch, name):
    logits, target = (np.reshape(a, (*a.shape[:-2], 6)) for a in batch)
    again = [0, 1, 2, 2, 3, 4, 5]
    weight = np.tile([1.0, 1.0, 2.0, 1.0, 1.0, 1.0], (2, 1))
    expected = loss(name, logits[..., again], target[..., again])
    assert loss(name, logits, target, weight=weight) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", but(UNSUPERVISED))
def test_an_image_without_a_valid_pixel_leaves_the_mean(batch, name):
    logits, target = batch
    target = target.copy()
    target[1] = -100
    assert loss(name, logits, target) == pytest.approx(loss(name, logits[:1], target[:1]), rel=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_one_hot_is_the_hard_label(batch, name):
    logits, target = batch
    one_hot = np.stack([target == k for k in range(3)], 1).astype(float)
    one_hot[:, 1][target == -100] = -100.0
    if name not in MULTILABEL:
        assert loss(name, logits, one_hot) == pytest.approx(loss(name, logits, target), rel=1e-14)
    labels = np.where(target == 0, 3, target)  # 3 is none of the three
    dense = np.stack([np.where(labels == -100, -100, labels == k) for k in range(3)], 1)
    expected = loss(name, logits, dense, "multilabel")
    assert loss(name, logits, labels, "multilabel") == pytest.approx(expected, rel=1e-14)


def test_two_classes_are_one(batch):
    """A softmax of (0, z) is a sigmoid of z: pixel losses and GDL agree."""
    logits, _ = batch
    z, y = logits[:, :1], np.random.default_rng(5).integers(0, 2, (2, 2, 3))
    pair = np.concatenate([np.zeros_like(z), z], 1)
    for name, binary, multiclass in [
        ("ce", {"class_weight": (1, 3), "label_smoothing": 0.1}, {"class_weight": (1, 3), "label_smoothing": 0.1}),
        ("focal", {"alpha": 0.3}, {"alpha": (0.7, 0.3)}),
        ("gdl", {}, {}),
    ]:
        assert loss(name, z, y, "binary", **binary) == pytest.approx(loss(name, pair, y, **multiclass), rel=1e-14)
    assert loss("dice", z, y, "binary") == pytest.approx(loss("dice", pair, y, include_background=False), rel=1e-14)


WORST = {"log_dice": math.inf, "logcosh_dice": math.log(math.cosh(1.0))}


@pytest.mark.parametrize("name", REGION)
def test_perfect_is_zero_and_empty_is_zero(name):
    perfect = np.array([[[2000.0, -2000.0], [-2000.0, 2000.0]]])
    settings = {} if name in ("gdl", "lovasz") else {"smooth": 0.0}
    assert loss(name, perfect, np.array([[0, 1]]), **settings) == 0.0
    assert loss(name, np.full((1, 2, 2), -2000.0), np.array([[2, 2]]), "multilabel", **settings) == 0.0
    assert loss(name, perfect, np.array([[1, 0]]), **settings) == pytest.approx(WORST.get(name, 1.0), rel=1e-15)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in MULTILABEL])
def test_class_choices(batch, name):
    logits, target = batch
    per_image = {} if name in ONE_IMAGE else {"per_image": True}
    chosen = loss(name, logits, target, classes=(1, 2), **per_image)
    assert loss(name, logits, target, include_background=False, **per_image) == pytest.approx(chosen, rel=1e-14)
    if name != "gdl":
        each = loss(name, logits, target, reduction="none", classes=(1, 2), **per_image)
        assert each.shape == (2, 2)
        assert chosen == pytest.approx(each.mean(), rel=1e-14)
    if name not in ("gdl", "log_dice"):
        weighted = loss(name, logits, target, classes=(1, 2), class_weight=(9, 1, 3), **per_image)
        assert weighted == pytest.approx((each @ [0.25, 0.75]).mean(), rel=1e-14)
    chosen = loss(name, logits, target, "multilabel", classes=(1, 2), **per_image)
    assert loss(name, logits, target, "multilabel", include_background=False, **per_image) == chosen


def test_absent_classes():
    z = np.zeros((1, 3, 4))
    labels = np.array([[0, 0, 1, 1]])
    assert loss("dice", z, labels, absent="skip") == pytest.approx(loss("dice", z, labels, classes=(0, 1)))
    assert loss("dice", z, labels, absent="skip", classes=(2,)) == 0.0
    assert loss("dice", z, labels, classes=(2,)) == pytest.approx(1 - 1 / (4 / 3 + 1))
    assert loss("gdl", z, labels, absent="skip") == pytest.approx(loss("gdl", z, labels, classes=(0, 1)))
    assert (
        loss("gdl", z, labels, classes=(2,)) == 1.0
    )  # no finite weight to borrow: the false positives are all there is
    # Weights ¼, ¼ and, for the absent class, ¼: 1 − 2(⅔ + ⅔)/(3 · 4/3 + 4).
    assert loss("gdl", z, labels) == pytest.approx(1 - 2 * (4 / 3) / 8)


def test_ignored_elements_of_a_float_target():
    z = np.array([[[0.3, -1.0]], [[0.7, 2.0]]])
    y = np.array([[[0.2, -100.0]], [[1.0, 0.0]]])
    assert [(row.image, row.at[-1]) for row in rows(z, y, "binary")] == [(0, 0), (1, 0), (1, 1)]
    soft = np.array([[[0.2, -100.0], [0.8, 0.0]]])
    assert [row.at for row in rows(np.zeros((1, 2, 2)), soft, "multiclass")] == [(0, 0)]
    assert [row.at for row in rows(np.zeros((1, 2, 2)), soft, "multilabel")] == [(0, 0, 0), (0, 1, 0), (0, 1, 1)]


def test_impossible_labels_without_a_chance_cost_nothing():
    z = np.array([[[0.0], [0.0], [-np.inf]]])
    assert loss("ce", z, np.array([[0]])) == pytest.approx(math.log(2))
    assert loss("focal", z, np.array([[1]])) == pytest.approx(math.log(2) / 4)
    assert loss("ce", z, np.array([[2]])) == math.inf


@pytest.mark.parametrize("name", ALL)
def test_nan_in_a_valid_pixel_propagates(batch, name):
    logits, target = batch
    logits = logits.copy()
    logits[0, 0, 0, 0] = np.nan
    assert math.isnan(loss(name, logits, target))
