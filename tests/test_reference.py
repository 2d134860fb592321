"""The references give the golden values, gradients, PyTorch's cross-entropy, printed formulas and the contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import golden
from reference import REFERENCES
from reference_rows import event


def loss(name, logits, target, task="multiclass", **settings):
    return REFERENCES[name](logits, target, task=task, **settings)


def slope(f, at, h=1e-3):
    """Fourth-order central difference."""
    return (8.0 * (f(at + h) - f(at - h)) - (f(at + 2.0 * h) - f(at - 2.0 * h))) / (12.0 * h)


def gradient(f, z, wanted):
    """∂f/∂z, element by element, where it is wanted."""
    result = np.full(z.shape, np.nan)
    for at in np.ndindex(*z.shape):

        def moved(value, at=at):
            changed = z.copy()
            changed[at] = value
            return f(changed)

        if wanted[at]:
            result[at] = slope(moved, z[at])
    return result


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@by_name(golden.CASES)
def test_golden_value(case):
    value = loss(case.loss, case.logits, case.target, case.task, **case.call, **case.settings)
    np.testing.assert_allclose(value, np.array(case.value), rtol=1e-12, atol=0)


HELD = {"wce"}  # its derivative holds the price, which depends on the prediction: a difference of values does not


@by_name([case for case in golden.CASES if case.gradient is not None and case.loss not in HELD])
def test_golden_gradient(case):
    def f(z):
        return loss(case.loss, z, case.target, case.task, **case.call, **case.settings)

    found = gradient(f, case.logits, ~np.isnan(case.gradient))
    np.testing.assert_allclose(found, case.gradient, rtol=1e-9, atol=1e-11)


def test_golden_gradient_of_wce():
    case = next(case for case in golden.CASES if case.name == "wce")
    found = gradient(lambda z: loss("wce", z, case.target, "binary"), case.logits, np.full(case.logits.shape, True))
    moving = np.add(golden.WCE_SLOPE, golden.WCE_SLOPE_OF_WEIGHT)
    np.testing.assert_allclose(found, golden.through_sigmoid(moving, golden.P_PROBABILITY), rtol=1e-9)


def test_golden_fused_gradient_from_its_sums():
    """q_k = r_k ∂L/∂I_k + ∂L/∂P_k, then ∂L/∂z_k = p_k (q_k − Σ_j p_j q_j), on all pixels."""
    p, r = np.array(golden.M_PROBABILITY), np.eye(3)[golden.M_TARGET[0]]
    q = (r * golden.FUSED_M_BY_HIT + golden.FUSED_M_BY_SIZE) / 3
    expected = golden.channels_first(p * (q - (p * q).sum(1, keepdims=True)))
    found = gradient(lambda z: loss("dice", z, golden.M_TARGET, smooth=0.0), golden.M, np.full((1, 3, 4), True))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(golden.FUSED_M_GRADIENT[0, :, 0], expected[0, :, 0], rtol=1e-12)


def test_golden_names_are_unique():
    assert len({case.name for case in golden.CASES}) == len(golden.CASES)


# ---- one pixel ----------------------------------------------------------------------------------------------------


def test_event_is_exact_at_both_ends():
    assert event([0.0, 1000.0], 1) == (0.0, 1.0, 0.0)
    assert event([0.0, 1000.0], 0) == (1000.0, 0.0, 1.0)
    u, p, miss = event([40.0, 0.0, 0.0], 0)
    assert u == pytest.approx(2 * math.exp(-40), rel=1e-15)
    assert p == 1.0
    assert miss == pytest.approx(2 * math.exp(-40), rel=1e-15)
    assert event([1.0, -math.inf], 0) == (0.0, 1.0, 0.0)
    assert event([1.0, -math.inf, -math.inf], 1) == (math.inf, 0.0, 1.0)
    assert all(math.isnan(value) for value in event([-math.inf, math.nan], 0))


def test_event_is_a_softmax():
    z = np.random.default_rng(0).normal(0, 3, 5)
    p = np.exp(z) / np.exp(z).sum()
    for k in range(5):
        np.testing.assert_allclose(event(z.tolist(), k), (-np.log(p[k]), p[k], 1 - p[k]), rtol=1e-13)


# ---- against PyTorch -----------------------------------------------------------------------------------------------


@pytest.fixture
def batch():
    """Two images of 2 × 3 pixels, three classes, one pixel ignored."""
    rng = np.random.default_rng(1)
    logits, target = rng.normal(0, 2, (2, 3, 2, 3)), rng.integers(0, 3, (2, 2, 3))
    target[1, 0, 2] = -100
    return logits, target


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weight", [None, (1.0, 2.0, 4.0)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ce_is_pytorch(batch, smoothing, class_weight, reduction):
    logits, target = batch
    settings = {"label_smoothing": smoothing, "reduction": reduction}
    weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float64)
    expected = F.cross_entropy(torch.tensor(logits), torch.tensor(target), weight, **settings)
    np.testing.assert_allclose(
        loss("ce", logits, target, class_weight=class_weight, **settings), expected.numpy(), rtol=1e-12
    )


def test_soft_ce_is_pytorch(batch):
    logits, _ = batch
    soft = np.random.default_rng(2).dirichlet(np.ones(3), (2, 2, 3)).transpose(0, 3, 1, 2)
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(torch.tensor(logits), torch.tensor(soft), label_smoothing=smoothing)
        assert loss("ce", logits, soft, label_smoothing=smoothing) == pytest.approx(expected.item(), rel=1e-12)


def test_bce_is_pytorch():
    rng = np.random.default_rng(3)
    z, y = rng.normal(0, 3, (2, 1, 4)), rng.random((2, 1, 4))
    expected = F.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(y)).item()
    assert loss("ce", z, y, "binary") == pytest.approx(expected, rel=1e-12)
    assert loss("ce", z, y[:, 0], "binary") == pytest.approx(expected, rel=1e-12)
    smooth = F.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(y * 0.9 + 0.05)).item()
    assert loss("ce", z, y, "binary", label_smoothing=0.1) == pytest.approx(smooth, rel=1e-12)
    factor = F.binary_cross_entropy_with_logits(
        torch.tensor(z), torch.tensor(y), pos_weight=torch.tensor(3.0), reduction="sum"
    )
    assert loss("ce", z, y, "binary", class_weight=(1, 3), reduction="sum") == pytest.approx(factor.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["ce", "focal"])
def test_multilabel_class_weights_go_by_channel(batch, name):
    logits, _ = batch
    y = np.random.default_rng(6).random(logits.shape)
    alone = [loss(name, logits[:, c : c + 1], y[:, c], "binary") for c in range(3)]
    found = loss(name, logits, y, "multilabel", class_weight=(1, 2, 5))
    assert found == pytest.approx(np.dot(alone, [1, 2, 5]) / 8, rel=1e-13)


# ---- against the formulas as printed -------------------------------------------------------------------------------


def printed(name, I, P, R, Q, S, e):  # noqa: E741
    return {
        "dice": 1 - (2 * I + e) / (P + R + e),
        "squared": 1 - (2 * I + e) / (Q + S + e),
        "jaccard": 1 - (I + e) / (P + R - I + e),
        "tversky": 1 - (I + e) / (I + 0.3 * (P - I) + 0.7 * (R - I) + e),
    }[name]


@pytest.mark.parametrize("name", ["dice", "squared", "jaccard", "tversky"])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("per_image", [True, False])
def test_region_losses_are_as_printed(batch, name, smooth, per_image):
    logits, _ = batch
    r = np.random.default_rng(4).dirichlet(np.ones(3), (2, 2, 3)).transpose(0, 3, 1, 2)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    axes = (2, 3) if per_image else (0, 2, 3)
    sums = [np.sum(term, axis=axes) for term in (p * r, p, r, p * p, r * r)]
    settings = {"smooth": smooth, "per_image": per_image} | ({"squared": True} if name == "squared" else {})
    value = loss("dice" if name == "squared" else name, logits, r, **settings)
    assert value == pytest.approx(np.mean(printed(name, *sums, smooth)), rel=1e-12)


@pytest.mark.parametrize(("weighting", "power"), [("square", 2), ("simple", 1), ("uniform", 0)])
def test_gdl_is_as_printed(batch, weighting, power):
    logits, _ = batch
    target = np.array([[[0, 1, 2], [2, 2, 1]], [[0, 0, 1], [1, 2, 0]]])
    r = np.eye(3)[target].transpose(0, 3, 1, 2)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    w = r.sum((2, 3)) ** -float(power)
    expected = 1 - 2 * (w * (p * r).sum((2, 3))).sum(1) / (w * (p + r).sum((2, 3))).sum(1)
    np.testing.assert_allclose(loss("gdl", logits, target, weighting=weighting, reduction="none"), expected, rtol=1e-12)
    assert loss("gdl", logits, target, weighting=weighting) == pytest.approx(expected.mean(), rel=1e-12)
