"""Scores and edges: quality focal, varifocal, distribution focal and generalised focal loss, and the decoding."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import golden_boxes as golden
import lossmith as ls
from lossmith.names import SHARED
from problems import nudges
from reference_boxes import SCORES, Lie, dfl, integral, integral_slope, sigmoid

ROWS = [row for row in ls.catalogue() if row.family == "distribution"]
HEADS = [row for row in ROWS if row.cls.slot == "score" and row.name != "gfl"]  # a formula over a score
by_head = pytest.mark.parametrize("row", HEADS, ids=lambda row: row.name)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def valued(loss: Any, logits: Tensor, target: Any, **call: Any) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target, **call)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


def close(a: Tensor, b: Any, tolerance: float = 1e-12) -> None:
    b = torch.as_tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def scores_of(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and qualities of which some are 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    quality = (1.4 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.3).clamp(0, 1)
    return logits, quality


def edges_of(*shape: int, bins: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*shape, bins, generator=generator, dtype=torch.float64)
    target = (bins - 1) * torch.rand(*shape, generator=generator, dtype=torch.float64)
    target.view(-1)[:3] = torch.tensor([0.0, bins - 1, 2.0])
    return logits, target


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_every_loss_has_a_reference():
    assert {row.name for row in ROWS} == SCORES.keys() | {"dfl", "gfl"}


@by_head
def test_value_is_the_reference(row):
    logits, target = scores_of(40, 5)
    for more in [{}, *nudges(row.cls, "binary", 2)]:
        pairs = zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True)
        found = torch.tensor([SCORES[row.name](z, y, **more) for z, y in pairs], dtype=torch.float64).reshape(40, 5)
        loss = row.cls(reduction="none", **more)
        close(loss(logits, target), found, 1e-12)
        rounded = zip(logits.float().flatten().tolist(), target.float().flatten().tolist(), strict=True)
        found = torch.tensor([SCORES[row.name](z, y, **more) for z, y in rounded]).reshape(40, 5)
        close(loss(logits.float(), target.float()), found, 2e-6)
        close(row.cls(**more)(logits, target), loss(logits, target).mean(), 1e-12)
        close(row.cls(reduction="sum", **more)(logits, target), loss(logits, target).sum(), 1e-12)


def test_golden_scores():
    for table, name in ((golden.QFL, "qfl"), (golden.VFL, "vfl")):
        for (z, y), value in table.items():
            given = torch.tensor([z], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
            close(ls.parse(name)(*given), value, 1e-12)
            close(ls.parse(name)(*(x.float() for x in given)), value, 2e-6)
    z, y = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    close(valued(ls.QualityFocalLoss(), z, y)[1][0], golden.QFL_SLOPE, 1e-12)
    close(valued(ls.QualityFocalLoss(), y.logit(), y)[0], 0.0, 1e-30)  # the least value is where σ = y


def test_quality_focal_is_focal_for_hard_targets():
    logits, labels = scores_of(30, 1)[0], torch.arange(30) % 2
    close(ls.QualityFocalLoss()(logits, labels.double().unsqueeze(1)), ls.FocalLoss()(logits, labels), 1e-12)
    close(
        ls.QualityFocalLoss(beta=0.0)(*scores_of(9, 4)),
        F.binary_cross_entropy_with_logits(*scores_of(9, 4)),
        1e-12,
    )


@by_head
def test_labels_and_qualities(row):
    logits, quality = scores_of(12, 3)[0], scores_of(12, seed=5)[1]
    labels = torch.arange(12) % 4  # 3 is background
    dense = torch.zeros(12, 3, dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        if label < 3:
            dense[i, label] = quality[i]
    loss = row.cls(reduction="none")
    for kind in (torch.int64, torch.int32, torch.uint8):
        close(loss(logits, (labels.to(kind), quality)), loss(logits, dense), 0.0)
    quality[labels == 3] = math.nan  # what stands at the background does not matter
    close(loss(logits, [labels, quality]), loss(logits, dense), 0.0)
    close(
        loss(logits.reshape(2, 6, 3), (labels.reshape(2, 6), quality.reshape(2, 6))), loss(logits, dense).view(2, 6, 3)
    )
    close(loss(score=(logits, (labels, quality))), loss(logits, dense), 0.0)


@by_head
def test_weights(row):
    logits, target = scores_of(10, 4)
    by_row, by_element = torch.arange(10.0).double(), torch.arange(40.0).double().reshape(10, 4)
    each = row.cls(reduction="none")(logits, target)
    for weight in (by_row, by_element):
        full = weight.unsqueeze(1).expand(10, 4) if weight.ndim == 1 else weight
        close(row.cls()(logits, target, weight=weight), (each * full).sum() / full.sum(), 1e-12)
        close(row.cls()(logits, target, weight=weight, denominator=3.0), (each * full).sum() / 3, 1e-12)
        broken = logits.masked_fill(full == 0, math.nan)
        value, gradient = valued(row.cls(), broken, target.masked_fill(full == 0, math.nan), weight=weight)
        close(value, (each * full).sum() / full.sum(), 1e-12)
        assert (gradient[full == 0] == 0).all()


@by_head
@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_an_ignored_point_may_have_any_label(row, kind):
    logits, quality = scores_of(12, 3)[0], scores_of(12, seed=5)[1]
    labels, weight = torch.arange(12) % 4, torch.ones(12)
    weight[::5] = 0
    strange = labels.masked_fill(weight == 0, 200 if kind == torch.uint8 else -1).to(kind)
    partly = weight.unsqueeze(1).repeat(1, 3)
    for some in (weight, partly):
        for reduction in ("mean", "sum", "none"):
            loss = row.cls(reduction=reduction)
            expected = loss(logits, (labels, quality), weight=some)
            close(loss(logits, (strange, quality), weight=some), expected, 0.0)
            images = [x.reshape(2, 6, *x.shape[1:]) for x in (logits, strange, quality, some)]
            found = loss(images[0], (images[1], images[2]), weight=images[3])
            close(found.reshape(expected.shape), expected)
    partly[0, 0] = 1
    with pytest.raises(ValueError, match="the labels hold"):
        row.cls()(logits, (strange, quality), weight=partly)
    each = torch.func.vmap(lambda z, y, q, w: row.cls(reduction="sum")(z, (y, q), weight=w))
    close(each(logits, strange, quality, weight), each(logits, labels, quality, weight))


@by_head
@by_dtype
def test_extreme_scores_are_finite(row, dtype):
    logits = torch.tensor([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4]).to(dtype)
    for y in (0.0, 0.3, 1.0):
        for more in [{}, *nudges(row.cls, "binary", 2)]:
            target = torch.full_like(logits, y)
            value, gradient = valued(row.cls(reduction="none", **more), logits, target)
            assert value.isfinite().all()
            assert gradient.isfinite().all()
            assert gradient.dtype == dtype
            exact = [SCORES[row.name](z, float(t), **more) for z, t in zip(logits.tolist(), target, strict=True)]
            close(value, exact, 2e-6)
    certain = torch.tensor([[-math.inf, math.inf]], dtype=dtype)
    value, gradient = valued(row.cls(), certain, torch.tensor([[0.0, 1.0]], dtype=dtype))
    assert value == 0
    assert (gradient == 0).all()
    for shape in ((0, 4), (3, 0)):
        value, gradient = valued(row.cls(), torch.zeros(shape, dtype=dtype), torch.zeros(shape))
        assert value == 0
    assert valued(row.cls(), torch.tensor([math.nan, 0.0], dtype=dtype), torch.zeros(2))[0].isnan()


@by_head
def test_torch_transforms(row):
    logits, target = scores_of(6, 3)
    assert torch.autograd.gradcheck(lambda z: row.cls()(z, target), logits.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(lambda z: row.cls()(z, target), logits.clone().requires_grad_())
    found = torch.func.vmap(torch.func.grad(lambda z, y: row.cls(reduction="sum")(z, y)))(logits, target)
    close(found, valued(row.cls(reduction="sum"), logits, target)[1])
    labels, quality = torch.arange(6) % 4, target[:, 0]
    one = torch.func.vmap(lambda z, y, q: row.cls(reduction="sum")(z, (y, q)))(logits, labels, quality)
    close(one, row.cls(reduction="none")(logits, (labels, quality)).sum(1))
    outside = torch.func.vmap(lambda z, y, q: row.cls()(z, (y, q)))(logits, labels + 9, quality)
    assert outside.isnan().all()  # where looking would cost


@by_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounding(row, dtype):
    logits, target = scores_of(30, 4)
    logits = logits.to(dtype)
    value, gradient = valued(row.cls(reduction="sum"), logits, target)
    exact, exact_gradient = valued(row.cls(reduction="sum"), logits.double(), target)
    close(value, exact, 2e-6)
    torch.testing.assert_close(gradient, exact_gradient.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_tiny_errors_of_scores_are_seen():
    """A sure and right score still has a loss: nothing is lost to 1 − σ."""
    for z, y in ((-20.0, 0.0), (20.0, 1.0)):
        given = torch.tensor([z]), torch.tensor([y])
        close(ls.QualityFocalLoss(beta=1.0)(*given) * 1e17, sigmoid(-20.0) * math.log1p(math.exp(-20.0)) * 1e17, 1e-5)


# ---- edges ----------------------------------------------------------------------------------------------------------


def test_edges_are_the_reference(engine):
    for bins in (2, 6, 17):
        logits, target = edges_of(20, 4, bins=bins)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
            z, y = logits.to(dtype), target.to(dtype)
            rows = zip(z.reshape(-1, bins).tolist(), y.flatten().tolist(), strict=True)
            found = torch.tensor([dfl(a, b) for a, b in rows], dtype=torch.float64).reshape(20, 4)
            close(ls.DistributionFocalLoss(reduction="none")(z, y), found, tolerance)
            close(ls.DistributionFocalLoss()(z, y), found.mean(), tolerance)


def test_golden_edges(engine):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        logits = torch.tensor([golden.EDGE], dtype=dtype)
        for y, value in golden.DFL.items():
            close(ls.DistributionFocalLoss()(logits, torch.tensor([y], dtype=dtype)), value, tolerance)
        _, gradient = valued(ls.DistributionFocalLoss(), logits, torch.tensor([2.3], dtype=dtype))
        close(gradient[0], golden.DFL_SLOPE, tolerance)
        best = torch.tensor([[0.0, 0.0, 0.7, 0.3, 0.0]], dtype=dtype).log()
        close(ls.DistributionFocalLoss()(best, torch.tensor([2.3], dtype=dtype)), golden.DFL_LEAST, tolerance)


def test_edges_are_cross_entropy_against_the_two_weights(engine):
    logits, target = edges_of(50)
    left = target.floor().clamp(max=4).long()
    soft = torch.zeros(50, 6, dtype=torch.float64)
    soft.scatter_(1, left.unsqueeze(1), (left + 1 - target).unsqueeze(1))
    soft.scatter_(1, left.unsqueeze(1) + 1, (target - left).unsqueeze(1))
    value, gradient = valued(ls.DistributionFocalLoss(reduction="sum"), logits, target)
    close(value, F.cross_entropy(logits, soft, reduction="sum"), 1e-12)
    close(gradient, logits.softmax(1) - soft, 1e-12)


def test_edges_beyond_the_bins_are_clamped(engine):
    logits, _ = edges_of(4)
    far = torch.tensor([-3.0, 5.0, 5.5, 1e6], dtype=torch.float64)
    loss = ls.DistributionFocalLoss(reduction="none")
    close(loss(logits, far), loss(logits, far.clamp(0, 5)), 0.0)
    close(loss(logits[1:2], far[1:2])[0], -logits[1].log_softmax(0)[5], 1e-12)  # the top edge is the last bin alone


@by_dtype
def test_extreme_edges(dtype, engine):
    loss = ls.DistributionFocalLoss(reduction="none")
    logits = torch.zeros(6, 5, dtype=dtype)
    logits[:, 0], logits[:, 4] = 1e4, -1e4
    target = torch.tensor([0.0, 0.5, 1.0, 2.5, 3.9, 4.0])
    value, gradient = valued(loss, logits, target)
    close(value, [dfl(z, float(y)) for z, y in zip(logits.tolist(), target, strict=True)], 1e-5)
    assert gradient.isfinite().all()
    assert gradient.dtype == dtype
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    hidden = (weight == 0).unsqueeze(1)
    dirty, dirty_gradient = valued(
        ls.DistributionFocalLoss(),
        logits.masked_fill(hidden, math.nan),
        target.masked_fill(weight == 0, math.nan),
        weight=weight,
    )
    close(dirty, value[weight != 0].mean(), 1e-5)
    assert (dirty_gradient[weight == 0] == 0).all()
    for broken in ((logits.masked_fill(hidden, math.nan), target), (logits, target.masked_fill(weight == 0, math.nan))):
        assert loss(*broken).isnan().tolist() == [False, True, False, False, True, False]
    empty, gradient = valued(ls.DistributionFocalLoss(), logits[:0], target[:0])
    assert empty == 0


def test_weights_of_edges_are_per_edge_or_per_box(engine):
    logits, target = edges_of(7, 4)
    each = ls.DistributionFocalLoss(reduction="none")(logits, target)
    boxes, edges = torch.arange(7.0).double(), torch.arange(28.0).double().reshape(7, 4)
    close(ls.DistributionFocalLoss()(logits, target, weight=edges), (each * edges).sum() / edges.sum(), 1e-12)
    expected = (each.mean(1) * boxes).sum() / boxes.sum()
    close(ls.DistributionFocalLoss()(logits, target, weight=boxes), expected, 1e-12)


def test_edges_under_transforms(engine):
    logits, target = edges_of(6)
    target = target.clamp(0.01, 4.99) + 0.003
    loss = ls.DistributionFocalLoss()
    leaf = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, target), leaf)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, target), leaf)
    found = torch.func.vmap(torch.func.grad(lambda z, y: loss(z, y)))(logits, target)
    close(found, valued(ls.DistributionFocalLoss(reduction="sum"), logits, target)[1])


def test_integral_decodes():
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        logits = torch.tensor(golden.OTHER_EDGE, dtype=dtype, requires_grad=True)
        where = ls.integral(logits)
        (gradient,) = torch.autograd.grad(where, logits)
        close(where.detach(), golden.INTEGRAL, tolerance)
        close(gradient, golden.INTEGRAL_SLOPE, tolerance)
        sides = ls.integral(logits.detach().expand(4, 5))
        box = ls.box.decode_distances(torch.full((2,), 10.0, dtype=dtype), sides, 1.0)
        close(box, golden.DECODED, tolerance)
    logits, _ = edges_of(3, 4)
    close(ls.integral(logits).flatten(), [integral(z) for z in logits.reshape(-1, 6).tolist()], 1e-12)
    slopes = [integral_slope(z) for z in logits.reshape(-1, 6).tolist()]
    leaf = logits.clone().requires_grad_()
    ls.integral(leaf).sum().backward()
    close(leaf.grad.reshape(-1, 6), slopes, 1e-12)
    assert ls.integral(logits.half()).dtype == torch.float32


def test_unified_form():
    """Quality focal, focal and distribution focal loss are cases of it."""
    p = torch.tensor(0.7, dtype=torch.float64)
    close(ls.generalized_focal(1 - p, p, 0.0, 1.0, torch.tensor(1.0).double()), golden.UNIFIED_AS_FOCAL, 1e-12)
    logits, target = scores_of(20)
    p = logits.sigmoid()
    for beta in (1.0, 2.0):
        unified = ls.generalized_focal(1 - p, p, 0.0, 1.0, target, beta)
        close(unified, ls.QualityFocalLoss(beta=beta, reduction="none")(logits, target), 1e-10)
    logits, target = edges_of(20)
    left = target.floor().clamp(max=4).long()
    chances = logits.softmax(1)
    near, far = chances.gather(1, left.unsqueeze(1))[:, 0], chances.gather(1, left.unsqueeze(1) + 1)[:, 0]
    unified = ls.generalized_focal(near, far, left, left + 1, target, beta=0.0)
    close(unified, ls.DistributionFocalLoss(reduction="none")(logits, target), 1e-12)
    p, q = chances[:, 0], chances[:, 1]
    miss = (0.4 - (0.3 * p + 1.7 * q)).abs()
    by_hand = miss**1.5 * (-1.3 * p.log() - 0.1 * q.log())
    close(ls.generalized_focal(p, q, 0.3, 1.7, torch.tensor(0.4, dtype=torch.float64), 1.5), by_hand, 1e-12)
    sure = ls.generalized_focal(torch.tensor(0.0), torch.tensor(1.0), 0.0, 1.0, torch.tensor(1.0))
    assert sure == 0


# ---- the whole detector ---------------------------------------------------------------------------------------------


def head(points: int = 14, n_classes: int = 3, n: int = 8, seed: int = 0) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    logits, edges = 4 * rand(points, n_classes) - 2, 4 * rand(points, 4, n + 1) - 2
    at, stride = 100 * rand(points, 2), torch.tensor([8.0, 16.0])[torch.arange(points) % 2].double()
    labels = torch.arange(points) % (n_classes + 1)
    boxes = torch.cat([at - 60 * rand(points, 2), at + 60 * rand(points, 2)], 1)
    return logits, edges, at, stride, labels, boxes


def by_hand(logits, edges, at, stride, labels, boxes, box_weight=2.0, dfl_weight=0.25) -> dict[str, float]:
    """The three terms with loops."""
    n_classes, top = logits.shape[1], edges.shape[-1] - 1
    total = {"qfl": 0.0, "giou": 0.0, "dfl": 0.0}
    positives, trust = 0, 0.0
    for i in range(len(logits)):
        z, label, s = logits[i].tolist(), int(labels[i]), float(stride[i])
        quality = 0.0
        if label < n_classes:
            d = [integral(edges[i, k].tolist()) * s for k in range(4)]
            x, y = at[i].tolist()
            box = boxes[i].tolist()
            lie = Lie((x - d[0], y - d[1], x + d[2], y + d[3]), box)
            quality, best = lie.iou, sigmoid(max(z))
            positives, trust = positives + 1, trust + best
            total["giou"] += best * (1 - lie.iou + (lie.hull - lie.union) / lie.hull)
            sides = [(x - box[0]) / s, (y - box[1]) / s, (box[2] - x) / s, (box[3] - y) / s]
            total["dfl"] += best * sum(dfl(edges[i, k].tolist(), min(max(v, 0), top)) for k, v in enumerate(sides)) / 4
        total["qfl"] += sum(SCORES["qfl"](v, quality if k == label else 0.0) for k, v in enumerate(z))
    trust = trust or 1.0
    return {
        "qfl": total["qfl"] / max(positives, 1),
        "giou": box_weight * total["giou"] / trust,
        "dfl": dfl_weight * total["dfl"] / trust,
    }


def test_the_whole_detector_is_the_sum_by_hand(engine):
    for seed in range(3):
        outputs = head(seed=seed)
        found = by_hand(*outputs)
        loss = ls.GeneralizedFocalLoss()
        parts = loss.parts(*outputs)
        assert list(parts) == ["qfl", "giou", "dfl"]
        for name, value in parts.items():
            close(value, found[name], 1e-10)
        close(loss(*outputs), sum(found.values()), 1e-10)
        close(loss(*(x.float() if x.is_floating_point() else x for x in outputs)), sum(found.values()), 1e-5)
        logits, edges, *rest = outputs
        close(loss(logits, edges.reshape(14, -1), *rest), sum(found.values()), 1e-10)
        images = [x.reshape(2, 7, *x.shape[1:]) for x in outputs]
        close(loss(*images), sum(found.values()), 1e-10)


def test_the_detector_is_the_sum_with_slots(engine):
    logits, edges, at, stride, labels, boxes = head()
    decoded = ls.box.decode_distances(at, ls.integral(edges), stride)
    quality = ls.box.pairwise_iou(decoded, boxes).diagonal()
    trust = torch.where(labels < 3, logits.max(1).values.sigmoid(), 0.0)
    slots = {
        "score": (logits, (labels, quality)),
        "box": (decoded, boxes),
        "edge": (edges, ls.box.encode_distances(at, boxes, stride)),
        "weight": {"box": trust, "edge": trust},
        "denominator": {"score": float((labels < 3).sum())},
    }
    value = ls.GeneralizedFocalLoss()(logits, edges, at, stride, labels, boxes)
    close(ls.parse("qfl + 2*giou + 0.25*dfl")(**slots), value, 1e-10)
    close(ls.GeneralizedFocalLoss()(**slots), value, 1e-10)
    close((2 * ls.GeneralizedFocalLoss())(**slots), 2 * value, 1e-10)


def test_normalisers_make_any_split_the_whole(engine):
    """Two processes that average their normalisers, and then their losses and gradients."""
    outputs = head(seed=4)
    loss = ls.GeneralizedFocalLoss()
    parts = [[x[:5] for x in outputs], [x[5:] for x in outputs]]
    each = [loss.normalisers(logits, labels) for logits, _, _, _, labels, _ in parts]
    mean = {name: (each[0][name] + each[1][name]) / 2 for name in each[0]}
    value, gradient = valued(lambda z, rest: loss(z, *rest), outputs[0], outputs[1:])
    split = [valued(lambda z, rest: loss(z, *rest, denominator=mean), p[0], p[1:]) for p in parts]
    close((split[0][0] + split[1][0]) / 2, value, 1e-12)
    close(torch.cat([split[0][1], split[1][1]]) / 2, gradient, 1e-12)


@by_dtype
def test_background_and_ignored_points(dtype, engine):
    outputs = [x.to(dtype) if x.is_floating_point() else x for x in head()]
    logits, edges, at, stride, labels, boxes = outputs
    loss = ls.GeneralizedFocalLoss()
    background = labels == 3
    broken = edges.masked_fill(background.reshape(-1, 1, 1), math.nan)
    no_box = boxes.masked_fill(background.unsqueeze(1), math.nan)
    value, gradient = valued(lambda e, _: loss(logits, e, at, stride, labels, boxes), edges, None)
    dirty, dirty_gradient = valued(lambda e, _: loss(logits, e, at, stride, labels, no_box), broken, None)
    assert torch.equal(value, dirty)
    assert torch.equal(gradient, dirty_gradient)
    assert gradient.dtype == dtype
    nothing = torch.full_like(labels, 3)
    leaf = edges.clone().requires_grad_()
    value = loss(logits, leaf, at, stride, nothing, boxes)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert (gradient == 0).all()
    assert loss.parts(logits, edges, at, stride, nothing, boxes)["giou"] == 0
    close(value.detach(), ls.QualityFocalLoss(reduction="sum")(logits, torch.zeros_like(logits)), 1e-5)
    weight = torch.ones(14)
    weight[::2] = 0
    kept = [x[1::2] for x in outputs]
    lost = logits.masked_fill((weight == 0).unsqueeze(1), math.nan)
    close(loss(lost, edges, at, stride, labels, boxes, weight=weight), loss(*kept), 1e-5)
    assert loss(*[x[:0] for x in outputs]) == 0
    double = torch.full((14,), 2.0)
    double[:6] = 1
    doubled = loss.parts(*outputs, weight=double)
    twice = loss.parts(*(torch.cat([x, x[6:]]) for x in outputs))
    for name, value in doubled.items():
        close(value, twice[name], 1e-5)


@by_dtype
def test_a_positive_whose_scores_vanish_still_counts(dtype, engine):
    """σ(−120) is 0 in float32: the worst error of all must not drop out of the mean, nor its box."""
    logits, edges, at, stride, labels, boxes = head(points=2)
    labels = torch.tensor([0, 1])
    loss = ls.GeneralizedFocalLoss()
    for lost in ([1], [0, 1]):
        logits = logits.clone()
        logits[lost] = -120.0
        outputs = [x.to(dtype) if x.is_floating_point() else x for x in (logits, edges, at, stride, labels, boxes)]
        assert loss.normalisers(outputs[0], labels)["score"] == 2
        assert loss.normalisers(outputs[0], labels, torch.tensor([1.0, 3.0]))["score"] == 4
        found = by_hand(*(x.double() if x.is_floating_point() else x for x in outputs))
        for name, value in loss.parts(*outputs).items():
            close(value, found[name], 1e-5)
        leaves = [x.clone().requires_grad_() for x in outputs[:2]]
        scores, sides = torch.autograd.grad(loss(*leaves, *outputs[2:]), leaves)
        assert (scores[lost, labels[lost]] != 0).all()
        assert len(lost) == 1 or (sides.flatten(1) != 0).any(1).all()  # beside a point that is trusted, e⁻⁸⁰ of a box


def test_an_ignored_point_of_the_detector_may_have_any_label(engine):
    outputs = head()
    labels, weight = outputs[4], torch.ones(14)
    weight[::3] = 0
    strange = labels.masked_fill(weight == 0, -1)
    loss = ls.GeneralizedFocalLoss()
    expected, found = (loss.parts(*outputs[:4], y, outputs[5], weight=weight) for y in (labels, strange))
    for name, value in found.items():
        close(value, expected[name], 0.0)
    with pytest.raises(ValueError, match="the labels hold -1"):
        loss(*outputs[:4], strange, outputs[5])


def test_box_loss_of_the_detector(engine):
    outputs = head()
    loss = ls.parse("gfl(box=ciou(gate=0.5), box_weight=1, dfl_weight=3)")
    assert list(loss.parts(*outputs)) == ["qfl", "ciou", "dfl"]
    assert ls.parse(repr(loss)).settings()["box"].settings() == {"fmt": "xyxy", "gate": 0.5, "reduction": "mean"}
    assert repr(ls.parse(repr(loss))) == repr(loss)
    assert repr(ls.GeneralizedFocalLoss()) == "GeneralizedFocalLoss()"
    assert ls.GeneralizedFocalLoss().box is not ls.GeneralizedFocalLoss().box
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        close(other(*outputs), loss(*outputs), 0.0)
    base = ls.GeneralizedFocalLoss()(*outputs)
    for change in ({"box_weight": 1.0}, {"dfl_weight": 1.0}, {"beta": 1.0}, {"box": ls.DIoULoss()}):
        assert ls.GeneralizedFocalLoss(**change)(*outputs) != base


def test_scores_do_not_train_boxes_nor_boxes_scores():
    logits, edges, *rest = head()
    loss = ls.GeneralizedFocalLoss(box_weight=0.0, dfl_weight=0.0)
    leaf = edges.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, leaf, *rest), leaf)
    assert (gradient == 0).all()
    quiet = ls.GeneralizedFocalLoss()
    a = valued(lambda z, _: quiet(z, edges, *rest), logits, None)[1]
    b = valued(lambda z, _: loss(z, edges, *rest), logits, None)[1]
    close(a, b, 1e-12)


def test_detector_under_transforms():
    outputs = head()
    loss = ls.GeneralizedFocalLoss()
    images = [x.reshape(2, 7, *x.shape[1:]) for x in outputs]
    found = torch.func.vmap(lambda *x: loss(*x))(*images)
    close(found, [loss(*(x[i] for x in images)) for i in range(2)], 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qfl", "vfl", "dfl", "gfl"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_compile_without_graph_breaks(name):
    outputs = [x.float() if x.is_floating_point() else x for x in head()]
    given = {"gfl": outputs, "dfl": edges_of(6, 4)}.get(name) or (outputs[0], (outputs[4], outputs[3] / 16))
    given = [x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in given]
    torch._dynamo.reset()
    compiled = torch.compile(ls.parse(name), fullgraph=True, backend="aot_eager")
    leaf = given[0].clone().requires_grad_()
    value = compiled(leaf, *given[1:])
    (gradient,) = torch.autograd.grad(value, leaf)
    other = given[0].clone().requires_grad_()
    expected = ls.parse(name)(other, *given[1:])
    close(value.detach(), expected.detach(), 2e-6)
    close(gradient, torch.autograd.grad(expected, other)[0], 2e-6)


# ---- names and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_is_documented(row):
    text = row.cls.__doc__ or ""
    for section in ("Shapes:", "Range:", "Limits:", "Paper:", ">>>"):
        assert section in text, section
    for name in row.cls.fields.keys() - SHARED:
        assert f"{name}:" in text, f"{name} is not explained"
    assert row.summary.endswith(".")
    assert ls.parse(repr(row.cls())).settings().keys() == row.cls().settings().keys()
    assert not row.cls().state_dict()


@by_head
def test_every_knob_changes_the_value(row):
    logits, target = scores_of(20, 3)
    for change in nudges(row.cls, "binary", 2):
        assert row.cls(**change)(logits, target) != row.cls()(logits, target), change
    numbers = [k for k, v in row.cls.fields.items() if isinstance(v, float)]
    for a, b in itertools.combinations(numbers, 2):
        assert row.cls(**{a: 0.2, b: 0.9})(logits, target) != row.cls(**{a: 0.9, b: 0.2})(logits, target)


Z, Q = torch.zeros(5, 3), torch.zeros(5)
Y = torch.zeros(5, dtype=torch.long)
E = torch.zeros(5, 4, 9)
GFL = (Z, E, torch.zeros(5, 2), 8.0, Y, torch.zeros(5, 4))


def changed(index: int, value: Any) -> tuple[Any, ...]:
    return (*GFL[:index], value, *GFL[index + 1 :])


ERRORS = [
    ("qfl", (Z.long(), Z), TypeError, ["QualityFocalLoss", "logits must be a floating-point tensor", "torch.int64"]),
    ("qfl", (Z, Y), ValueError, ["logits (5, 3) need a target (5, 3), got (5,)"]),
    ("qfl", (Z,), TypeError, ["the target must be a real tensor, got NoneType"]),
    ("qfl", (Z, Z + 1.5), ValueError, ["qualities must lie in [0, 1], got 1.5"]),
    ("vfl", (Z, Z - 0.5), ValueError, ["VarifocalLoss", "qualities must lie in [0, 1], got -0.5"]),
    ("qfl", (Z, (Y, Q, Q)), TypeError, ["a pair (labels, quality)"]),
    ("qfl", (Z, (Q, Q)), TypeError, ["labels must be integers, got torch.float32; use labels.long()"]),
    ("qfl", (Z, (Y[:4], Q)), ValueError, ["need labels and qualities (5,), got (4,) and (5,)"]),
    (
        "qfl",
        (Z, (torch.tensor([0, 4, 7, 0, 0]), Q)),
        ValueError,
        ["the labels hold 4", "0 to 2, or 3 for background", "weight 0"],
    ),
    ("qfl", (Z, (Y - 1, Q)), ValueError, ["the labels hold -1"]),
    ("dfl", (E, torch.zeros(5)), ValueError, ["logits (5, 4, 9) need a target (5, 4), got (5,)"]),
    ("dfl", (E[..., :1], E[..., 0]), ValueError, ["logits must be (…, n + 1) with n >= 1, got (5, 4, 1)"]),
    ("gfl", (Z, E), TypeError, ["call loss(logits, edges, points, strides, labels, boxes), got 2 arguments"]),
    ("gfl", changed(1, E[:, :3]), ValueError, ["logits (5, 3) need edges (5, 4, 9), got (5, 3, 9)"]),
    ("gfl", changed(2, torch.zeros(5, 3)), ValueError, ["need points (5, 2), got (5, 3)"]),
    ("gfl", changed(4, Y[:2]), ValueError, ["need labels (5,), got (2,)"]),
    ("gfl", changed(4, Y + 7), ValueError, ["GeneralizedFocalLoss", "the labels hold 7"]),
    ("gfl", changed(5, None), ValueError, ["need boxes (5, 4), got NoneType"]),
]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: f"{case[0]} {case[3][-1][:40]}")
def test_wrong_call(case):
    name, inputs, kind, words = case
    with pytest.raises(kind) as error:
        ls.parse(name)(*inputs)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_settings():
    with pytest.raises(ValueError, match="box must have fmt='xyxy' and reduction='mean', got GIoULoss"):
        ls.GeneralizedFocalLoss(box=ls.GIoULoss(fmt="xywh"))
    with pytest.raises(TypeError, match="box must be a BoxLoss"):
        ls.GeneralizedFocalLoss(box=ls.DiceLoss())
    with pytest.raises(TypeError, match="takes no reduction: it is one number"):
        ls.GeneralizedFocalLoss(reduction="sum")
    with pytest.raises(ValueError, match="read the input 'score' in different ways and cannot be added"):
        ls.QualityFocalLoss() + ls.DiceLoss()
    with pytest.raises(TypeError, match="integral: logits must be a floating-point tensor"):
        ls.integral(Y)
