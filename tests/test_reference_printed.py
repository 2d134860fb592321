"""What the golden values leave open in the references, against vector formulas, SciPy and PyTorch."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

import golden
from reference import REFERENCES

NONE = {"reduction": "none"}


def loss(name, logits, target, task="multiclass", **settings):
    return REFERENCES[name](logits, target, task=task, **settings)


def softmax(logits):
    shares = np.exp(logits)
    return shares / shares.sum(1, keepdims=True)


def one_hot(target, classes=3):
    return np.moveaxis(np.eye(classes)[target], -1, 1)


@pytest.fixture
def batch():
    """Two images of 4 × 5 pixels, three classes in patches; the second image lacks one."""
    rng = np.random.default_rng(9)
    target = np.repeat(np.repeat(rng.integers(0, 3, (2, 2, 3)), 2, 1), 2, 2)[:, :, :5]
    return rng.normal(0, 2, (2, 3, 4, 5)), target


# ---- prices --------------------------------------------------------------------------------------------------------


def test_wce_of_two_classes_is_another_function_than_binary():
    assert loss("wce", golden.P_BOTH, golden.P_TARGET) == pytest.approx(0.2555, abs=5e-5)
    p, r = golden.P_PROBABILITY, golden.P_TARGET[0]
    w_no, w_yes = 1.8 / 2.2, 2.2 / 1.8
    expected = np.mean(-w_yes * r * np.log(p) - w_no * (1 - r) * np.log(1 - p))
    assert loss("wce", golden.P_BOTH, golden.P_TARGET) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight_from", ["prediction", "target"])
def test_wce_has_a_price_per_image_and_class(batch, weight_from):
    logits, target = batch
    p, r = softmax(logits), one_hot(target)
    size = (p if weight_from == "prediction" else r).sum((2, 3), keepdims=True)
    with np.errstate(divide="ignore"):
        w = np.clip((20 - size) / size, 1e-3, 1e3)
    expected = -(w * r * np.log(p)).sum() / 40
    assert loss("wce", logits, target, weight_from=weight_from) == pytest.approx(expected, rel=1e-12)


def test_wce_is_clamped():
    assert loss("wce", np.array([[[0.0, 0.0]]]), np.zeros((1, 2)), "binary") == pytest.approx(math.log(2))
    assert loss("wce", np.full((1, 1, 2), -2000.0), np.array([[1, 0]]), "binary") == pytest.approx(1e3 * 2000 / 2)
    sure = np.full((1, 1, 2), 30.0)
    assert loss("wce", sure, np.ones((1, 2)), "binary") == pytest.approx(1e-3 * math.exp(-30), rel=1e-9)
    assert loss("wce", sure, np.ones((1, 2)), "binary", clamp=(2, 3)) == pytest.approx(2 * math.exp(-30), rel=1e-9)


@pytest.mark.parametrize("name", ["ohem", "topk"])
def test_hardest_of_the_batch_with_class_weights(batch, name):
    logits, target = batch
    u, cw = -np.log((softmax(logits) * one_hot(target)).sum(1)), np.array([1.0, 2.0, 5.0])
    settings = {"min_kept": 7, "thresh": 0.0} if name == "ohem" else {"percent": 19.9}
    kept = u >= np.sort(u.ravel())[-7]
    expected = (kept * cw[target] * u).sum() / (kept * cw[target]).sum()
    assert loss(name, logits, target, class_weight=cw, **settings) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(loss(name, logits, target, **settings, **NONE), np.where(kept, u, 0.0), rtol=1e-12)
    mask = loss(name, logits, target, weight=np.array([0.3, 8.0]), **settings)
    assert mask == pytest.approx((kept * u).sum() / 7, rel=1e-12)


def test_multilabel_ranks_ties_in_the_order_of_the_map():
    z = np.zeros((1, 2, 3))
    found = loss("topk", z, np.zeros((1, 2, 3)), "multilabel", percent=50, **NONE)
    np.testing.assert_allclose(found, np.log(2) * np.array([[[1, 1, 1], [0, 0, 0]]]))


def test_power_prices():
    z, y = np.zeros((1, 1, 4)), np.array([[1, 0, 0, 0]])
    u = math.log(2) ** 0.3
    assert loss("power_ce", z, y, "binary") == pytest.approx(u * (2 + 3 * math.sqrt(4 / 3)) / 4)
    assert loss("power_ce", z, y, "binary", frequencies=(9, 1)) == pytest.approx(
        u * (math.sqrt(10) + 3 * math.sqrt(10 / 9)) / 4
    )
    assert loss("power_ce", z, y, "binary", frequencies=(1, 0)) == pytest.approx(u * 3 / 4)
    both = np.concatenate([z, z], 1)
    dense = np.array([[[1, 0, 0, 0], [1, 1, 1, 1]]])
    expected = u * (2 + 3 * math.sqrt(4 / 3) + 4) / 8
    assert loss("power_ce", both, dense, "multilabel") == pytest.approx(expected)
    weight = np.array([[3.0, 1.0, 1.0, 1.0]])
    assert loss("power_ce", z, y, "binary", weight=weight) == pytest.approx(u * math.sqrt(2))


def test_conservative_base():
    assert loss("conservative", golden.one(0), golden.label(1), "binary", base=2.0) == 0.0
    p = 0.2
    v = -math.log2(p)
    expected = 3 * (1 - v) ** 2 * math.log2(v)
    z = golden.one(golden.logit(p))
    assert loss("conservative", z, golden.label(1), "binary", base=2.0, lam=3.0) == pytest.approx(expected)
    assert math.isfinite(loss("conservative", golden.one(2000), golden.label(1), "binary"))


def test_quadratic_of_three_classes(batch):
    logits, target = batch
    expected = ((softmax(logits) - one_hot(target)) ** 2).mean()
    assert loss("quadratic", logits, target, half=False) == pytest.approx(expected, rel=1e-12)
    assert loss("quadratic", logits, target) == pytest.approx(expected / 2, rel=1e-12)


def test_kl_and_entropy_are_pytorch(batch):
    logits, target = batch
    r = np.random.default_rng(8).dirichlet(np.ones(3), (2, 4, 5)).transpose(0, 3, 1, 2)
    expected = F.kl_div(torch.tensor(logits).log_softmax(1), torch.tensor(r), reduction="sum").item() / 40
    assert loss("kl", logits, r) == pytest.approx(expected, rel=1e-12)
    assert loss("kl", logits, target) == pytest.approx(loss("ce", logits, target), rel=1e-14)
    own = torch.distributions.Categorical(logits=torch.tensor(logits).movedim(1, -1)).entropy()
    np.testing.assert_allclose(loss("entropy", logits, None, **NONE), own, rtol=1e-12)
    each = torch.distributions.Bernoulli(logits=torch.tensor(logits)).entropy()
    np.testing.assert_allclose(loss("entropy", logits, None, "multilabel", **NONE), each, rtol=1e-12)


# ---- regions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("hard", [False, True])
def test_region_losses_are_as_printed(batch, smooth, hard):
    logits, _ = batch
    p, rng = softmax(logits), np.random.default_rng(9)
    r = one_hot(rng.integers(0, 3, (2, 4, 5))) if hard else rng.dirichlet(np.ones(3), (2, 4, 5)).transpose(0, 3, 1, 2)
    I, P, R = ((term).sum((2, 3)) for term in (p * r, p, r))  # noqa: E741
    N, e = 20, smooth
    settings = {"smooth": smooth, "reduction": "none"}
    dice = (2 * I + e) / (P + R + e)
    tversky = (I + e) / (I + 0.3 * (P - I) + 0.7 * (R - I) + e)
    printed = {
        "logcosh_dice": np.log(np.cosh(1 - dice)),
        "log_dice": (-np.log(dice)) ** 0.3,
        "focal_tversky": (1 - tversky) ** 0.75,
        "ss": 0.05 * (r * (1 - p) ** 2).sum((2, 3)) / (R + e) + 0.95 * ((1 - r) * p**2).sum((2, 3)) / (N - R + e),
    }
    for name, expected in printed.items():
        np.testing.assert_allclose(loss(name, logits, r, **settings), expected, rtol=1e-11, err_msg=name)
    # Two-class Dice sees sigmoids.
    p = 1 / (1 + np.exp(-logits))
    I, P = (p * r).sum((2, 3)), p.sum((2, 3))  # noqa: E741
    back = N - P - R + I
    for balanced, up in [(True, e / 2), (False, e)]:
        expected = 1 - (I + up) / (P + R + e) - (back + up) / (2 * N - P - R + e)
        found = loss("dice2", logits, r, "multilabel", balanced=balanced, **settings)
        np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_log_dice_of_a_binary_image_has_two_classes():
    for name in ("log_dice", "explog", "unified_focal"):
        binary = loss(name, golden.P, golden.P_TARGET, "binary")
        assert binary == pytest.approx(loss(name, golden.P_BOTH, golden.P_TARGET), rel=1e-12)


# ---- Lovász --------------------------------------------------------------------------------------------------------


def choquet(errors, inside, w):
    """∫ Δ(errors ≥ t) dt: between two errors Δ does not change."""
    steps = np.unique(np.concatenate([[0.0], errors]))
    total = 0.0
    for low, high in pairwise(steps):
        wrong = errors >= high
        total += (high - low) * w[wrong].sum() / w[wrong | inside].sum()
    return total


def test_lovasz_is_a_choquet_integral(batch):
    logits, target = batch
    w = np.random.default_rng(10).uniform(0.2, 3, (2, 4, 5))
    r, p = one_hot(target), softmax(logits)
    e = abs(r - p)
    pooled = [choquet(e[:, k].ravel(), r[:, k].ravel() == 1, w.ravel()) for k in range(3) if r[:, k].any()]
    assert loss("lovasz", logits, target, weight=w) == pytest.approx(np.mean(pooled), rel=1e-12)
    hinge = np.maximum(1 - logits * (2 * r - 1), 0)
    each = [[choquet(hinge[n, k].ravel(), r[n, k].ravel() == 1, w[n].ravel()) for k in range(3)] for n in range(2)]
    np.testing.assert_allclose(loss("lovasz_hinge", logits, r, "multilabel", weight=w, **NONE), each, rtol=1e-12)


# ---- space ---------------------------------------------------------------------------------------------------------

SPACING = (0.7, 2.5)


def edt(mask):
    """Distance to the other side, both sides; 0 where there is only one."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    return distance_transform_edt(mask, SPACING) + distance_transform_edt(~mask, SPACING)


def by_mask(f, target, classes=3):
    return np.array([[f(image == k) for k in range(classes)] for image in target])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_boundary_is_scipy(batch, symmetric, shifted):
    logits, target = batch
    p, r = softmax(logits), one_hot(target)

    def signed(mask):
        if mask.all() or not mask.any():
            return np.zeros(mask.shape)
        return np.where(mask, (0.0 if symmetric else 0.7) - edt(mask), edt(mask))

    expected = (by_mask(signed, target) * (p - r if shifted else p)).mean((2, 3))
    settings = {"symmetric": symmetric, "shifted": shifted, "spacing": SPACING}
    np.testing.assert_allclose(loss("boundary", logits, target, **settings, **NONE), expected, rtol=1e-12)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hausdorff_is_scipy(batch, one_sided, alpha):
    logits, target = batch
    field = by_mask(edt, target) ** alpha
    if not one_sided:
        field = field + by_mask(edt, logits.argmax(1)) ** alpha
    expected = ((softmax(logits) - one_hot(target)) ** 2 * field).mean((2, 3))
    settings = {"one_sided": one_sided, "alpha": alpha, "spacing": SPACING}
    np.testing.assert_allclose(loss("hausdorff", logits, target, **settings, **NONE), expected, rtol=1e-12)


@pytest.mark.parametrize("norm", ["boundary", "max"])
def test_distance_penalty_is_scipy(batch, norm):
    logits, target = batch
    phi = np.zeros(target.shape)
    for image, result in zip(target, phi, strict=True):
        for mask in (image == k for k in np.unique(image)):
            d = edt(mask)[mask]
            low = d.min() if norm == "boundary" else 0.0
            result[mask] = (d.max() - d) / (d.max() - low) if d.max() > low else 1.0
    u = -np.log((softmax(logits) * one_hot(target)).sum(1))
    found = loss("distance_penalty", logits, target, norm=norm, spacing=SPACING, **NONE)
    np.testing.assert_allclose(found, (1 + phi) * u, rtol=1e-12)
    same = np.ones_like(target)  # one label everywhere: no boundary, no penalty
    assert loss("distance_penalty", logits, same) == pytest.approx(loss("ce", logits, same), rel=1e-14)


def pool(x, size):
    return F.max_pool2d(torch.as_tensor(x, dtype=torch.float64), size, 1, size // 2).numpy()


@pytest.mark.parametrize("size", [3, 5])
def test_boundary_ce_is_pytorch(batch, size):
    logits, target = batch
    label = target[:, None].astype(float)
    near = (pool(label, size) != label) | (-pool(-label, size) != label)
    u = F.cross_entropy(torch.tensor(logits), torch.tensor(target), reduction="none").numpy()
    for side, mask in [("both", near[:, 0]), ("inner", near[:, 0] & (target > 0))]:
        value = loss("boundary_ce", logits, target, kernel_size=size, side=side)
        assert value == pytest.approx(u[mask].mean(), rel=1e-12)


def test_boundary_f1_is_pytorch(batch):
    logits, target = batch
    p, r = softmax(logits), one_hot(target)
    edge_p, edge_r = (pool(1 - y, 3) - (1 - y) for y in (p, r))
    hit_p, hit_r = (edge_p * pool(edge_r, 5)).sum((2, 3)), (edge_r * pool(edge_p, 5)).sum((2, 3))
    seen = edge_r.sum((2, 3)) > 0
    precision, recall = hit_p / edge_p.sum((2, 3)), hit_r / np.where(seen, edge_r.sum((2, 3)), 1)
    score = np.divide(2 * precision * recall, precision + recall, out=np.ones((2, 3)), where=seen)
    np.testing.assert_allclose(loss("boundary_f1", logits, target, **NONE), 1 - score, rtol=1e-12, atol=1e-15)
    mean = np.mean([(1 - s)[k].mean() for s, k in zip(score, seen, strict=True)])
    assert loss("boundary_f1", logits, target) == pytest.approx(mean, rel=1e-12)
    assert loss("boundary_f1", logits, np.ones_like(target)) == 0.0
    heavy = loss("boundary_f1", logits, target, weight=np.full(target.shape, 7.0))
    assert heavy == pytest.approx(mean, rel=1e-12)


def test_active_contour_is_numpy(batch):
    logits, target = batch
    p, r = softmax(logits), one_hot(target)
    down, right = np.diff(p, axis=2)[..., :-1], np.diff(p, axis=3)[:, :, :-1]
    w = np.random.default_rng(11).uniform(0.2, 3, (2, 1, 4, 5))
    length = (w[:, :, :-1, :-1] * np.sqrt(down**2 + right**2 + 0.01)).sum((2, 3)) / w[:, :, :-1, :-1].sum((2, 3))
    region = (w * (3 * p * (1 - r) + (1 - p) * r)).sum((2, 3)) / w.sum((2, 3))
    found = loss("active_contour", logits, target, region_weight=2, inside_weight=3, eps=0.01, weight=w, **NONE)
    np.testing.assert_allclose(found, length + 2 * region, rtol=1e-12)
    line = loss("active_contour", logits[:, :, :1], target[:, :1], region_weight=0, eps=0.01)
    assert line == pytest.approx(np.sqrt(np.diff(p[:, :, :1], axis=3) ** 2 + 0.01).mean(), rel=1e-12)


@pytest.mark.parametrize("include_center", [True, False])
@pytest.mark.parametrize("window", [3, 5])
def test_nonadjacency_is_pytorch(batch, include_center, window):
    logits, target = batch
    p, forbidden = softmax(logits), np.array([[0, 1, 2], [3, 0, 0.5], [0, 0, 1]])
    near = F.avg_pool2d(torch.tensor(p), window, 1, window // 2, divisor_override=1).numpy()
    near = near / window**2 if include_center else (near - p) / (window**2 - 1)
    each = np.einsum("nihw,njhw,ij->n", p, near, forbidden) / 20 / forbidden.sum()
    settings = {"forbidden": forbidden, "window": window, "include_center": include_center}
    np.testing.assert_allclose(loss("nonadjacency", logits, target, **settings, **NONE), each, rtol=1e-12)
    weight = np.array([1.0, 3.0])
    found = loss("nonadjacency", logits, None, weight=weight, **settings)
    assert found == pytest.approx(np.average(each, weights=weight), rel=1e-12)
    hidden = np.full_like(target, -100)
    assert loss("nonadjacency", logits, hidden, **settings) == pytest.approx(each.mean(), rel=1e-12)


@pytest.mark.parametrize("name", ["boundary", "hausdorff"])
def test_one_sided_masks_have_no_distance(name):
    z, y = np.array([[[3.0, 1.0, 2.0]]]), np.ones((1, 3))
    assert loss(name, z, y, "binary") == 0.0
    assert loss(name, z, 1 - y, "binary") == 0.0
    # Pixel 2 hidden: of the two left one is inside; distances 1, the inner ring at 0.
    y = np.array([[1, 0, -100]])
    p = 1 / (1 + np.exp(-z[0, 0]))
    expected = {"boundary": p[1] / 2, "hausdorff": ((1 - p[0]) ** 2 + p[1] ** 2) / 2}
    assert loss(name, z, y, "binary") == pytest.approx(expected[name], rel=1e-12)


def test_geometry_of_soft_targets_is_that_of_their_labels(batch):
    logits, target = batch
    soft = 0.4 * one_hot(target) + 0.2
    p = softmax(logits)
    u, cost = -np.log((p * one_hot(target)).sum(1)), (-np.log(p) * soft).sum(1)
    for name in ("boundary_ce", "distance_penalty"):
        price = loss(name, logits, target, **NONE) / u
        np.testing.assert_allclose(loss(name, logits, soft, **NONE), price * cost, rtol=1e-12, err_msg=name)
    for name in ("boundary", "boundary_f1"):
        assert loss(name, logits, soft) == pytest.approx(loss(name, logits, target), rel=1e-14)
    field = by_mask(edt, target) ** 2 + by_mask(edt, logits.argmax(1)) ** 2
    expected = ((p - soft) ** 2 * field).mean((2, 3))
    np.testing.assert_allclose(loss("hausdorff", logits, soft, spacing=SPACING, **NONE), expected, rtol=1e-12)
    chance, yes = np.array([[[0.5, 0.49, 0.3, 0.7]]]), np.array([[1, 0, 0, 1]])
    z = np.array([[[0.3, -1.0, 2.0, 0.1]]])
    assert loss("boundary", z, chance, "binary") == pytest.approx(loss("boundary", z, yes, "binary"), rel=1e-14)


# ---- recipes -------------------------------------------------------------------------------------------------------


def test_golden_sum_of_three():
    value = 0.5 * loss("ce", golden.M, golden.M_TARGET) + 0.3 * loss("dice", golden.M, golden.M_TARGET)
    value += 0.2 * loss("lovasz", golden.M, golden.M_TARGET)
    assert value == pytest.approx(0.4461194606526672, rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_combo_is_as_printed(batch, reduction):
    logits, target = batch
    p, r = softmax(logits), one_hot(target)
    score = ((2 * (p * r).sum((2, 3)) + 0.5) / ((p + r).sum((2, 3)) + 0.5)).mean(1)
    price = np.where(target > 0, 0.7, 0.3) * -np.log((p * r).sum(1))
    reduce = getattr(np, reduction)
    settings = {"alpha": 0.2, "beta": 0.7, "smooth": 0.5, "reduction": reduction}
    expected = 0.2 * reduce(price) - 0.8 * reduce(score)
    assert loss("combo", logits, target, **settings) == pytest.approx(expected, rel=1e-12)
    shifted = 0.2 * reduce(price) + 0.8 * reduce(1 - score)
    assert loss("combo", logits, target, shift=True, **settings) == pytest.approx(shifted, rel=1e-12)


@pytest.mark.parametrize("asymmetric", [True, False])
def test_unified_focal_is_as_printed(batch, asymmetric):
    logits, target = batch
    p, r = softmax(logits), one_hot(target)
    I, P, R = (term.sum((2, 3)) for term in (p * r, p, r))  # noqa: E741
    miss = 1 - (I + 1) / (I + 0.6 * (R - I) + 0.4 * (P - I) + 1)
    rare = np.array([False, False, True])
    power = np.where(rare | (not asymmetric), 0.8, 1.0)
    q = (p * r).sum(1)
    focus = np.where(rare[target] & asymmetric, 1.0, (1 - q) ** 0.2)
    focal = np.mean(np.where(rare[target], 0.6, 0.4) * focus * -np.log(q))
    expected = 0.3 * focal + 0.7 * (miss**power).mean()
    settings = {"lam": 0.3, "gamma": 0.2, "asymmetric": asymmetric, "rare": (2,)}
    assert loss("unified_focal", logits, target, **settings) == pytest.approx(expected, rel=1e-12)
