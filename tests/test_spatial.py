"""Losses that look at where a pixel is: what the catalogue's tests and the golden values do not say of them already."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lossmith as ls
from lossmith.distance import signed_distance_map
from lossmith.losses.field import _along_axes, largest_near
from problems import IGNORE, IGNORED, labels_of, logits_of

NOT_0_2 = [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
MAPS = [ls.BoundaryLoss, ls.HausdorffDTLoss]
SPACE = [ls.ActiveContourLoss, ls.BoundaryF1Loss, *MAPS]


def certain(labels: Tensor, n_classes: int, size: float = 80.0) -> Tensor:
    return size * F.one_hot(labels, n_classes).movedim(-1, 1).double()


def disc(size: int, radius: float, at: tuple[float, float] | None = None) -> Tensor:
    row, column = at or (size / 2, size / 2)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((y - row).square() + (x - column).square() < radius**2).long().unsqueeze(0)


def gradient(loss: ls.Loss, logits: Tensor, *target: Tensor, **call: Tensor) -> Tensor:
    logits = logits.detach().clone().requires_grad_()
    loss(logits, *target, **call).sum().backward()
    assert logits.grad is not None
    return logits.grad


# ---- maps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", MAPS)
@pytest.mark.parametrize("spacing", [None, (2.0, 0.5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_cached_map_is_the_made_one(cls, spacing, channels, engine):
    logits, labels = logits_of(2, channels, 7, 9).float(), labels_of(max(channels, 2), 2, 7, 9)
    cached = signed_distance_map(labels, channels, spacing, IGNORED)
    loss = cls(spacing=spacing, **IGNORE)
    torch.testing.assert_close(loss(logits, labels, distance=cached), loss(logits, labels), rtol=1e-6, atol=1e-6)
    found = gradient(loss, logits, labels, distance=cached)
    torch.testing.assert_close(found, gradient(loss, logits, labels), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cls", [*MAPS, ls.DistanceMapPenaltyLoss])
@pytest.mark.parametrize("filler", [math.nan, math.inf, -math.inf])
def test_a_map_is_not_read_at_ignored_pixels(cls, filler, engine):
    """Nor where the weight is 0."""
    logits, labels = logits_of(2, 3, 7, 9).float(), labels_of(3, 2, 7, 9)
    weight = torch.ones(2, 7, 9)
    weight[0, 2:4] = 0
    unread = (labels == IGNORED) | (weight == 0)
    cached = signed_distance_map(labels.masked_fill(weight == 0, IGNORED), 3, None, IGNORED)
    broken = cached.masked_fill(unread.unsqueeze(1), filler)
    loss = cls(**IGNORE)
    value = loss(logits, labels, weight=weight, distance=cached)
    assert value.isfinite()
    assert torch.equal(loss(logits, labels, weight=weight, distance=broken), value)
    found = gradient(loss, logits, labels, weight=weight, distance=broken)
    assert torch.equal(found, gradient(loss, logits, labels, weight=weight, distance=cached))


@pytest.mark.parametrize("cls", MAPS)
def test_a_map_that_does_not_fit(cls):
    logits, labels = logits_of(2, 3, 4, 5), labels_of(3, 2, 4, 5, ignore=False)
    with pytest.raises(ValueError, match="distance must be shaped like the logits"):
        cls()(logits, labels, distance=torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="spacing needs 2 positive numbers"):
        cls(spacing=(1.0, 1.0, 1.0))(logits, labels)
    with pytest.raises(ValueError, match="spacing must be positive numbers, one per spatial axis"):
        cls(spacing=(1.0, 0.0))
    with pytest.raises(TypeError, match="takes no per_image: a map belongs to one image"):
        cls(per_image=False)
    with pytest.raises(TypeError, match="takes no 'distance' in a call"):
        ls.DiceLoss()(logits, labels, distance=torch.zeros(2, 3, 4, 5))


def test_a_sum_hands_the_map_to_the_term_that_takes_it(engine):
    logits, labels = logits_of(2, 3, 6, 7), labels_of(3, 2, 6, 7)
    cached = signed_distance_map(labels, 3, ignore_index=IGNORED)
    dice, boundary = ls.DiceLoss(**IGNORE), ls.BoundaryLoss(**IGNORE)
    both = (dice + 0.5 * boundary)(logits, labels, distance=cached)
    torch.testing.assert_close(both, dice(logits, labels) + 0.5 * boundary(logits, labels, distance=cached))


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_without_a_boundary_has_no_map(label, engine):
    """Absent or everywhere: distances to nothing are not a number, nor infinite, and leave no trace."""
    logits, labels = logits_of(2, 1, 5, 6), torch.full((2, 5, 6), label)
    for loss in (ls.BoundaryLoss(), ls.BoundaryLoss(symmetric=True), ls.HausdorffDTLoss(one_sided=True)):
        assert loss(logits, labels) == 0
        assert (gradient(loss, logits, labels) == 0).all()
    assert ls.HausdorffDTLoss()(logits, labels) > 0  # the prediction has a boundary


def test_boundary_is_lowest_when_perfect():
    labels = disc(16, 5.0)
    perfect = certain(labels, 2)
    loss = ls.BoundaryLoss(symmetric=True)
    least = loss(perfect, labels)
    assert least < 0
    assert (ls.BoundaryLoss(symmetric=True, shifted=True)(perfect, labels)).abs() < 1e-12
    for seed in range(20):
        assert loss(logits_of(1, 2, 16, 16, seed=seed), labels) > least


@pytest.mark.parametrize("symmetric", [False, True])
def test_shifting_changes_the_value_by_a_constant(symmetric, engine):
    logits, labels = logits_of(2, 3, 6, 7), labels_of(3, 2, 6, 7)
    plain = ls.BoundaryLoss(symmetric=symmetric, **IGNORE)
    shifted = ls.BoundaryLoss(symmetric=symmetric, shifted=True, **IGNORE)
    constant = plain(certain(labels.clamp(max=2), 3), labels)
    torch.testing.assert_close(shifted(logits, labels), plain(logits, labels) - constant)
    torch.testing.assert_close(gradient(shifted, logits, labels), gradient(plain, logits, labels))
    assert shifted(logits, labels) >= 0


def test_the_authors_map_has_no_gradient_on_the_inner_ring():
    labels = torch.tensor([[0, 0, 1, 1, 1, 1, 0]])
    slope = gradient(ls.BoundaryLoss(), torch.zeros(1, 1, 7), labels)[0, 0]
    assert slope[[2, 5]].tolist() == [0, 0]
    assert (slope[[3, 4]] < 0).all()
    assert (gradient(ls.BoundaryLoss(symmetric=True), torch.zeros(1, 1, 7), labels)[0, 0, 2:6] < 0).all()


def test_spacing_is_a_unit(engine):
    """Twice the spacing: twice the boundary loss, four times the Hausdorff loss with its square of distances."""
    logits, labels = logits_of(2, 3, 4, 5, 6), labels_of(3, 2, 4, 5, 6)
    one, two = (1.0, 0.25, 2.0), (2.0, 0.5, 4.0)
    for cls, factor, more in [
        (ls.BoundaryLoss, 2, {}),
        (ls.HausdorffDTLoss, 4, {}),
        (ls.HausdorffDTLoss, 1, {"alpha": 0.0}),
    ]:
        values = [cls(spacing=spacing, **IGNORE, **more)(logits, labels) for spacing in (one, two)]
        torch.testing.assert_close(values[1], factor * values[0])


@pytest.mark.parametrize("norm", ["boundary", "max"])
def test_the_distance_penalty_has_no_unit(norm, engine):
    """Distances are divided by the deepest; an ignored pixel is not the deepest where all are below 1."""
    logits, labels = logits_of(2, 3, 6, 7), labels_of(3, 2, 6, 7)
    whole = ls.DistanceMapPenaltyLoss(norm=norm, **IGNORE)(logits, labels)
    small = ls.DistanceMapPenaltyLoss(norm=norm, spacing=(0.125, 0.125), **IGNORE)(logits, labels)
    torch.testing.assert_close(small, whole, rtol=1e-6, atol=0)


def test_hausdorff_prices_a_far_error_more():
    labels = disc(32, 5.0, (10, 10))
    near, far = labels.clone(), labels.clone()
    near[0, 10, 16], far[0, 28, 28] = 1, 1
    for alpha in (0.5, 1.0, 2.0):
        loss = ls.HausdorffDTLoss(alpha=alpha, one_sided=True)
        assert loss(certain(far, 2), labels) > loss(certain(near, 2), labels) > 0
    assert ls.HausdorffDTLoss()(certain(labels, 2), labels) < 1e-20


# ---- ignored pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", SPACE)
@pytest.mark.parametrize("space", [(9,), (6, 7), (4, 5, 6)])
def test_ignoring_a_margin_is_cropping(cls, space, engine):
    """Of every axis, whatever the fill below it, and by weight as by label."""
    logits, labels = logits_of(2, 3, *space), labels_of(3, 2, *space, ignore=False)
    inner = tuple(slice(1, size - 1) for size in space)
    hidden = torch.full_like(labels, IGNORED)
    hidden[:, *inner] = labels[:, *inner]
    weight = (hidden != IGNORED).double()
    dirty = logits.masked_fill((weight == 0).unsqueeze(1), math.nan)
    loss = cls(**IGNORE)
    cropped = loss(logits[:, :, *inner].contiguous(), labels[:, *inner])
    for value in (loss(dirty, hidden), loss(dirty, labels, weight=weight)):
        torch.testing.assert_close(value, cropped, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", [*SPACE, ls.BoundaryCrossEntropyLoss, ls.DistanceMapPenaltyLoss])
def test_narrow_labels_may_be_ignored(cls, engine):
    logits, labels = logits_of(2, 3, 6, 7), labels_of(3, 2, 6, 7, ignore=False)
    labels[:, 2] = 255
    loss = cls(ignore_index=255)
    assert torch.equal(loss(logits, labels.to(torch.uint8)), loss(logits, labels))
    assert torch.equal(gradient(loss, logits, labels.to(torch.uint8)), gradient(loss, logits, labels))


# ---- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 5, 7])
@pytest.mark.parametrize("space", [(9,), (6, 5), (4, 3, 5)])
def test_windows_one_axis_at_a_time_are_boxes(space, window):
    x = logits_of(2, 3, *space)
    largest = getattr(F, f"max_pool{len(space)}d")(x, window, 1, window // 2)
    assert torch.equal(largest_near(x, window), largest)
    padded = F.pad(x, [window // 2] * (2 * len(space)))
    mean = getattr(F, f"avg_pool{len(space)}d")(padded, window, 1)
    found = _along_axes(x, lambda lines: F.avg_pool2d(lines, (window, 1), 1, (window // 2, 0)))
    torch.testing.assert_close(found, mean)


def test_active_contour_measures_the_contour(engine):
    """A square of side 6 in 16 × 16: 4 · 6 differences of 1, two of them in one cell; nothing is wrong."""
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[0, 4:10, 4:10] = 1
    logits = certain(labels, 2, 200.0)[:, 1:] * 2 - 200.0
    length = (22 + math.sqrt(2)) / 15**2
    torch.testing.assert_close(float(ls.ActiveContourLoss(eps=0.0)(logits, labels)), length)
    flat = torch.full_like(logits, -200.0)
    torch.testing.assert_close(float(ls.ActiveContourLoss()(flat, labels)), 1e-4 + 36 / 256)


def test_active_contour_in_half_precision(engine):
    """As exact as p is in float32: measured by the largest slope."""
    for dtype in (torch.bfloat16, torch.float16):
        logits, labels = logits_of(2, 3, 20, 30).to(dtype), labels_of(3, 2, 20, 30)
        loss = ls.ActiveContourLoss(**IGNORE)
        exact = gradient(loss, logits.double(), labels)
        error = (gradient(loss, logits, labels).double() - exact).abs().max()
        assert error <= torch.finfo(dtype).eps * exact.abs().max()


def test_boundary_f1_forgives_a_shift_of_the_window(engine):
    labels, moved = disc(32, 8.0), disc(32, 8.0, (16, 18))
    values = {theta: float(ls.BoundaryF1Loss(theta=theta)(certain(moved, 2), labels)) for theta in (1, 3, 5)}
    assert values[1] > values[3] > values[5]
    assert values[5] < 1e-12
    far = disc(32, 3.0, (4, 4)), disc(32, 3.0, (26, 26))
    torch.testing.assert_close(float(ls.BoundaryF1Loss()(certain(far[0], 2), far[1])), 1.0)


def test_boundary_f1_leaves_out_classes_without_a_boundary(engine):
    """A third class that the target lacks changes nothing, and an image of one class counts as 0."""
    labels = disc(12, 4.0)
    logits = torch.cat([logits_of(1, 2, 12, 12), torch.full((1, 1, 12, 12), -math.inf, dtype=torch.float64)], 1)
    loss = ls.BoundaryF1Loss()
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, :2], labels))
    assert loss(logits_of(1, 3, 12, 12), torch.ones_like(labels)) == 0
    assert ls.BoundaryF1Loss(reduction="none")(logits, labels)[0, 2] == 0


@pytest.mark.parametrize("size", [0, 2, 2.0, -1])
def test_windows_are_odd(size):
    for make in (lambda: ls.BoundaryF1Loss(theta=size), lambda: ls.NonAdjacencyLoss(window=size)):
        kind = TypeError if isinstance(size, float) else ValueError
        with pytest.raises(kind, match=r"must be an (odd number >= 1|integer)"):
            make()


# ---- non-adjacency --------------------------------------------------------------------------------------------------


def test_nonadjacency_under_autocast_on_a_large_image(engine):
    """Rounded to half before its division, the sum over the pixels was infinite, and the loss NaN."""
    logits, loss = logits_of(1, 3, 512, 512).float(), ls.NonAdjacencyLoss(forbidden=NOT_0_2)
    expected = loss(logits)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            assert torch.equal(loss(logits), expected)


def test_nonadjacency_needs_no_target(engine):
    for channels, forbidden in [(3, NOT_0_2), (1, [[0, 1], [1, 0]])]:
        logits = logits_of(2, channels, 6, 7)
        loss = ls.NonAdjacencyLoss(forbidden=forbidden)
        value = loss(logits)
        assert value == loss(logits, labels_of(2, 2, 6, 7, ignore=False))
        assert value == loss(logits, torch.full((2, 6, 7), -100))
        assert list(loss.parts(logits)) == ["nonadjacency"]


def test_semi_supervised_sum(engine):
    """An image without labels: the supervised term skips it, non-adjacency reads it, both in one call."""
    logits, labels = logits_of(3, 3, 6, 7), labels_of(3, 3, 6, 7)
    labels[2] = IGNORED
    dice, constraint = ls.DiceLoss(**IGNORE), ls.NonAdjacencyLoss(forbidden=NOT_0_2, **IGNORE)
    expected = dice(logits[:2], labels[:2]) + 0.3 * constraint(logits)
    torch.testing.assert_close((dice + 0.3 * constraint)(logits, labels), expected)
    assert (gradient(dice + 0.3 * constraint, logits, labels)[2] != 0).any()
    assert constraint(logits) != constraint(logits[:2])


def test_classes_that_were_not_annotated_are_predicted_still(engine):
    logits, labels = logits_of(2, 3, 6, 7), labels_of(2, 2, 6, 7)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    constraint = ls.NonAdjacencyLoss(forbidden=NOT_0_2, **IGNORE)
    assert constraint(logits, labels, label_mask=mask) == constraint(logits)


def test_weights_of_images(engine):
    logits = logits_of(3, 3, 5, 6)
    loss = ls.NonAdjacencyLoss(forbidden=NOT_0_2)
    each = ls.NonAdjacencyLoss(forbidden=NOT_0_2, reduction="none")(logits)
    weight = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    expected = (each * weight).sum() / 4
    broken = logits.clone()
    broken[0] = math.nan
    for z in (logits, broken):
        torch.testing.assert_close(loss(z, weight=weight), expected)
        assert (gradient(loss, z, weight=weight)[0] == 0).all()
    assert loss(broken).isnan()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_nonadjacency_is_finite(dtype, engine):
    loss = ls.NonAdjacencyLoss(forbidden=NOT_0_2)
    for scale in (0.0, 1.0, 1e4):
        logits = (logits_of(2, 3, 6, 7).clamp(-1, 1) * scale).to(dtype)
        assert loss(logits).isfinite()
        assert gradient(loss, logits).isfinite().all()
    for shape in [(0, 3, 4, 4), (2, 3, 0, 4), (0, 3), (1, 3), (1, 3, 1)]:
        value = loss(torch.ones(shape, dtype=dtype))
        assert value.isfinite()
    assert ls.NonAdjacencyLoss(forbidden=torch.zeros(3, 3))(logits_of(1, 3, 4, 4)) == 0
    assert ls.NonAdjacencyLoss(forbidden=NOT_0_2, window=1, include_center=False)(logits_of(1, 3, 4, 4)) == 0


def test_nonadjacency_without_a_matrix_says_how_to_make_one():
    with pytest.raises(ValueError, match=r"from_labels\(labels, num_classes=3\)"):
        ls.parse("nonadjacency")(logits_of(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"forbidden is \(3, 3\), but there are 4 classes: it must be \(4, 4\)"):
        ls.NonAdjacencyLoss(forbidden=NOT_0_2)(logits_of(1, 4, 4, 4))
    with pytest.raises(ValueError, match="but there are 2 classes"):
        ls.NonAdjacencyLoss(forbidden=NOT_0_2)(logits_of(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"forbidden must be a square matrix, \(C, C\)"):
        ls.NonAdjacencyLoss(forbidden=[0.0, 1.0])
    with pytest.raises(TypeError, match="takes no class_weight: the entries of `forbidden` are its weights"):
        ls.NonAdjacencyLoss(class_weight=[1.0, 2.0])


def brute_force(images: list[np.ndarray], n_labels: int, window: int, ignored: int) -> list[list[float]]:
    """Every pixel against every other in its window."""
    touch, seen = np.eye(n_labels, dtype=bool), np.zeros(n_labels, bool)
    for labels in images:
        for a in np.ndindex(labels.shape):
            for b in np.ndindex(labels.shape):
                near = max(abs(i - j) for i, j in zip(a, b, strict=True)) <= window // 2
                if near and labels[a] != ignored and labels[b] != ignored:
                    touch[labels[a], labels[b]] = seen[labels[a]] = True
    return [[float(seen[i] and seen[j] and not touch[i, j]) for j in range(n_labels)] for i in range(n_labels)]


@pytest.mark.parametrize("window", [1, 3, 5, 9])
@pytest.mark.parametrize("space", [(7,), (4, 5), (2, 3, 4)])
def test_forbidden_pairs_are_counted_right(space, window):
    for seed in range(4):
        generator = np.random.default_rng(seed)
        images = [generator.choice([0, 1, 2, 3, 4, 9], space, p=[0.4, 0.2, 0.1, 0.05, 0.05, 0.2]) for _ in range(2)]
        loss = ls.NonAdjacencyLoss.from_labels(images, 6, window, ignore_index=9)
        assert loss.settings()["forbidden"] == brute_force(images, 6, window, 9)
        assert (loss.window, loss.ignore_index) == (window, 9)


def test_labels_of_independent_channels_are_masks():
    logits, labels = logits_of(2, 3, 5, 4), labels_of(4, 2, 5, 4, ignore=False)
    masks = torch.stack([labels == k for k in range(3)], 1)
    loss = ls.BoundaryF1Loss(task="multilabel")
    torch.testing.assert_close(loss(logits, labels), loss(logits, masks))


def test_one_channel_has_two_labels():
    assert ls.NonAdjacencyLoss.from_labels([[[0, 0]], [[1, 1]]], 1).settings()["forbidden"] == [[0, 1], [1, 0]]


def test_labels_come_in_one_after_the_other():
    images = [torch.tensor([[0, 1, 1, 2], [0, 1, 1, 2]]), np.array([[4, 4]], np.uint8), torch.tensor([True, True])]
    expected = [[0, 0, 1, 0, 1], [0, 0, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]]
    made = ls.NonAdjacencyLoss.from_labels((image for image in images), 5)
    assert made.settings()["forbidden"] == expected  # 3 was never seen; True is 1
    pairs = [(torch.zeros(3), image, "name") for image in images]
    again = ls.NonAdjacencyLoss.from_labels(pairs, 5, reduction="sum", include_center=False)
    assert again.settings()["forbidden"] == expected
    assert (again.reduction, again.include_center) == ("sum", False)
    assert ls.parse(repr(again)).settings() == again.settings()


def test_labels_that_cannot_be_counted():
    make = ls.NonAdjacencyLoss.from_labels
    with pytest.raises(ValueError, match="image 1 holds 3, but with num_classes=3 labels must lie in 0 to 2"):
        make([[[0, 1]], [[1, 3]]], 3)
    with pytest.raises(ValueError, match="image 0 holds 255"):
        make([np.array([0, 255], np.uint8)], 2)
    with pytest.raises(ValueError, match="no labels were given, or all were ignored"):
        make([], 3)
    with pytest.raises(TypeError, match="must be integer labels"):
        make([torch.rand(3, 3)], 3)
    with pytest.raises(ValueError, match="window must be an odd number"):
        make([[[0, 1]]], 2, window=2)
