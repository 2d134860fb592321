"""Entropy, cross-entropy and divergence as functions of probabilities, and what their losses refuse."""

from __future__ import annotations

import math

import pytest
import torch

import lossmith as ls

HALF = torch.tensor([0.5, 0.5])


def slopes(function, *given: list[float]) -> tuple[float, list[list[float]]]:
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in given]
    value = function(*leaves)
    return value.item(), [x.tolist() for x in torch.autograd.grad(value, leaves)]


def test_an_impossible_event_has_a_finite_slope():
    assert slopes(ls.kl_divergence, [0.0, 1.0], [0.0, 1.0]) == (0, [[0, 1], [0, -1]])
    assert slopes(ls.cross_entropy, [0.0, 1.0], [0.0, 1.0]) == (0, [[0, 0], [0, -1]])
    assert slopes(ls.entropy, [0.0, 1.0]) == (0, [[0, -1]])
    log2 = math.log(2)
    assert slopes(ls.cross_entropy, [0.0, 1.0], [0.5, 0.5]) == (log2, [[log2, log2], [0, -2]])  # ∂/∂p = −ln q
    assert slopes(ls.kl_divergence, [0.0, 1.0], [0.5, 0.5]) == (log2, [[log2, 1 + log2], [0, -2]])


def test_slopes_through_a_softmax():
    """Of the logits: −p (ln p + H), q − p, p (ln p − ln q − KL), with a class that is impossible to both."""
    z = torch.tensor([0.3, -1.2, 0.7, -torch.inf], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([0.2, 0.5, 0.3, 0.0], dtype=torch.float64)
    p = z.softmax(0)
    (found,) = torch.autograd.grad(ls.entropy(p), z, retain_graph=True)
    own, h = p[:3].detach(), ls.entropy(p.detach())
    torch.testing.assert_close(found[:3], -own * (own.log() + h))
    assert found[3] == 0
    for function in (ls.cross_entropy, ls.kl_divergence):
        (found,) = torch.autograd.grad(function(other, p), z, retain_graph=True)
        torch.testing.assert_close(found, p.detach() - other)
    (found,) = torch.autograd.grad(ls.kl_divergence(p, other), z)
    ratio = (own / other[:3]).log()
    torch.testing.assert_close(found[:3], own * (ratio - ls.kl_divergence(p.detach(), other)))
    assert found[3] == 0


def test_the_base_is_a_unit():
    p, q = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    for function, given in ((ls.entropy, (p,)), (ls.cross_entropy, (p, q)), (ls.kl_divergence, (p, q))):
        torch.testing.assert_close(function(*given, base=2) * math.log(2), function(*given))


def test_the_infinite_and_the_broken_stay_visible():
    assert ls.kl_divergence(HALF, torch.tensor([1.0, 0.0])) == math.inf
    assert ls.cross_entropy(HALF, torch.tensor([1.0, 0.0])) == math.inf
    broken = torch.tensor([math.nan, 1.0])
    for pair in ((broken, HALF), (HALF, broken), (torch.tensor([0.0, 1.0]), broken)):
        assert ls.kl_divergence(*pair).isnan()
        assert ls.cross_entropy(*pair).isnan()
    assert ls.entropy(broken).isnan()


def test_eps_keeps_the_divergence_finite():
    sure = torch.tensor([1.0, 0.0])
    for eps in (1e-3, 1e-12, 1e-40):
        torch.testing.assert_close(
            ls.kl_divergence(HALF.double(), sure.double(), eps=eps).item(), -math.log(2) - math.log(eps) / 2
        )
    assert slopes(lambda p, q: ls.kl_divergence(p, q, eps=0.25), [0.0, 1.0], [0.0, 1.0]) == (
        0,
        [[math.log(4), 1], [0, -1]],
    )
    near = torch.tensor([1 - 1e-4, 1e-4], dtype=torch.float64)
    assert -math.log1p(2e-2) <= ls.kl_divergence(near, near, eps=1e-2) < 0
    assert ls.kl_divergence(near, near, eps=1e-4) == 0
    assert ls.kl_divergence(HALF, torch.tensor([math.nan, 1.0]), eps=0.1).isnan()
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"kl_divergence: eps must lie in \[0, 1\), got"):
            ls.kl_divergence(HALF, HALF, eps=wrong)


def test_the_divergence_is_0_at_the_target_and_nowhere_less(engine):
    """Σ_k w_k r_k ln(r_k / p_k) is below 0 at w = (1, 0.1), p = (0.9, 0.1), r = (½, ½): hence no class weights."""
    with pytest.raises(TypeError, match="KLDivergenceLoss takes no class_weight: weighted, it is neither >= 0"):
        ls.KLDivergenceLoss(class_weight=[1.0, 0.1])
    logits = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    target = logits.detach().softmax(1)
    value = ls.KLDivergenceLoss()(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    assert abs(value.item()) < 1e-12
    assert gradient.abs().max() < 1e-12
    assert (ls.KLDivergenceLoss(reduction="none")(torch.randn(50, 3, dtype=torch.float64), target) > 0).all()
