"""The Lovász losses beyond the catalogue, whose problems are small and therefore sorted: here the histograms.

The judge is a brute force of its own: the pixels in order, one by one, with sets counted anew.
"""

from __future__ import annotations

import itertools
import math
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

import lossmith as ls
from lossmith.engine.contract import Levels, Order, Ranking
from lossmith.engine.images import Images
from lossmith.engine.numba import order as by_numba
from lossmith.engine.plain import order as ranking
from lossmith.engine.problem import Problem
from lossmith.engine.triton import order as by_triton
from problems import IGNORE, IGNORED, PROBLEMS, calls, chances_of, labels_of, logits_of, shared_settings

LOSSES = [ls.LovaszSoftmaxLoss, ls.LovaszHingeLoss]
CASES = [(cls, p) for cls in LOSSES for p in PROBLEMS if p.task in cls.tasks]
by_case = pytest.mark.parametrize(("cls", "problem"), CASES, ids=lambda x: getattr(x, "name", "").replace(" ", "-"))
by_loss = pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.name)


def valued(loss: ls.Loss, logits: Tensor, target: Tensor, **call: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(logits, target, **call)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def number(x: float | list[float]) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def jaccard_loss(wrong: set[int], foreground: set[int], weight: list[float]) -> float:
    union = sum(weight[i] for i in wrong | foreground)
    return sum(weight[i] for i in wrong) / union if wrong else 0.0


def brute_force(
    errors: list[float], inside: list[bool], weight: list[float] | None = None
) -> tuple[float, list[float]]:
    """The extension and the charge of each pixel."""
    weight = weight or [1.0] * len(errors)
    foreground = {i for i, yes in enumerate(inside) if yes}
    wrong: set[int] = set()
    charges = [0.0] * len(errors)
    for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
        charges[i] = jaccard_loss(wrong | {i}, foreground, weight) - jaccard_loss(wrong, foreground, weight)
        wrong.add(i)
    return sum(c * e for c, e in zip(charges, errors, strict=True)), charges


def random_errors(seed: int, pixels: int = 40, share: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(pixels, generator=generator, dtype=torch.float64)
    return p, (torch.rand(pixels, generator=generator) < share).long()


# ---- against the brute force ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_sorting_is_the_brute_force(share):
    for seed in range(5):
        p, y = random_errors(seed, share=share)
        e = torch.where(y == 1, 1 - p, p)
        value, charges = brute_force(e.tolist(), (y == 1).tolist())
        loss = ls.LovaszSoftmaxLoss(exact=True, absent="keep")
        found, gradient = valued(loss, p.logit()[None, None], y[None])
        close(found, number(value), 1e-12)
        close(gradient.flatten(), number(charges) * torch.where(y == 1, -1, 1) * p * (1 - p), 1e-12)

        z = p.logit()
        margin = 1 - z * (2 * y - 1)
        value, charges = brute_force(margin.clamp(min=0).tolist(), (y == 1).tolist())
        found, gradient = valued(ls.LovaszHingeLoss(exact=True), z[None, None], y[None])
        close(found, number(value), 1e-12)
        close(gradient.flatten(), -number(charges) * (2 * y - 1) * (margin > 0), 1e-12)


def test_it_is_a_choquet_integral():
    """The mean over all thresholds of the Jaccard loss of the pixels whose error reaches the threshold."""
    p, y = random_errors(3)
    e = torch.where(y == 1, 1 - p, p)
    edges = [0.0, *sorted(e.tolist())]
    area = 0.0
    for low, high in itertools.pairwise(edges):
        wrong = {i for i, x in enumerate(e.tolist()) if x >= high}
        area += (high - low) * jaccard_loss(wrong, set(y.nonzero().flatten().tolist()), [1.0] * len(e))
    close(ls.LovaszSoftmaxLoss(exact=True)(p.logit()[None, None], y[None]), number(area), 1e-12)


def test_hard_predictions_cost_the_jaccard_loss(engine):
    y, guess = labels_of(3, 1, 9, 9, ignore=False), labels_of(3, 1, 9, 9, seed=5, ignore=False)
    logits = 200.0 * torch.nn.functional.one_hot(guess, 3).movedim(-1, 1)
    hit = [((y == c) & (guess == c)).sum() / ((y == c) | (guess == c)).sum() for c in range(3)]
    for bins in (7, 4096):
        value = ls.LovaszSoftmaxLoss(bins=bins)(logits, y)
        close(value, 1 - torch.stack(hit).mean(), 1e-6)


@pytest.mark.parametrize("bins", [1, 2, 8, 50, 1000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_rounding_moves_the_value_by_half_a_bin_at_most(bins, share, engine):
    for seed in range(3):
        p, y = random_errors(seed, 1500, share)
        z, y = p.logit()[None, None], y[None]
        for dtype in (torch.float64, torch.float32):
            for cls in LOSSES:
                exact = cls(exact=True, absent="keep")(z, y)
                largest = 1.0 if cls is ls.LovaszSoftmaxLoss else float((1 - z[:, 0] * (2 * y - 1)).max())
                value = cls(bins=bins, absent="keep")(z.to(dtype), y)
                assert (value - exact).abs() <= largest * (0.5 / bins + 1e-6)


def test_the_bound_is_reached(engine):
    """Pixels with an error just below half a bin count as right, from there on as wrong by one bin."""
    for error, expected in [(0.0624, 0.0), (0.0626, 0.125), (0.1874, 0.125), (0.1876, 0.25)]:
        logits = torch.full((1, 1, 9), 1 - error).logit()
        close(ls.LovaszSoftmaxLoss(bins=8)(logits, torch.ones(1, 9, dtype=torch.long)), torch.tensor(expected), 1e-6)


def test_it_is_exact_on_the_levels(engine):
    """Where every error is a multiple of 1 / bins, and at 0 and 1."""
    y = labels_of(2, 1, 400, ignore=False)
    e = torch.randint(0, 9, (1, 400)) / 8
    p = torch.where(y == 1, 1 - e, e).double()
    value, _ = brute_force(e[0].tolist(), (y[0] == 1).tolist())
    close(ls.LovaszSoftmaxLoss(bins=8)(p.logit().clamp(-80, 80)[:, None].float(), y), number(value), 1e-6)


# ---- the gradient ---------------------------------------------------------------------------------------------------


def charges(bins: int, p: Tensor, y: Tensor) -> Tensor:
    """∂L/∂e, from the gradient by the logit."""
    _, gradient = valued(ls.LovaszSoftmaxLoss(bins=bins, absent="keep"), p.logit()[None, None].float(), y[None])
    return gradient.flatten().double() / (torch.where(y == 1, -1, 1) * p * (1 - p))


@pytest.mark.parametrize("bins", [1, 3, 16, 256])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 1.0])
def test_charges_are_a_subgradient(bins, share, engine):
    """None is negative, they sum to 1 (Δ of everything), and pixels that share a level and a label share a charge."""
    p, y = random_errors(11, 900, share)
    p = 0.02 + 0.96 * p
    g = charges(bins, p, y)
    assert (g >= 0).all()
    close(g.sum(), torch.tensor(1.0), 1e-5)
    level = torch.where(y == 1, 1 - p, p).mul(bins).round()
    for k in level.unique():
        for label in (0, 1):
            some = g[(level == k) & (y == label)]
            assert not len(some) or some.max() - some.min() <= 1e-5 * g.max()


def test_charges_are_the_mean_of_the_two_orders(engine):
    """Six pixels on one level: the average of "foreground first" and "background first"."""
    inside = [True] * 2 + [False] * 4
    first, last = (number(brute_force([e, e, 1.0, 1.0, 1.0, 1.0], inside)[1]) for e in (2.0, 0.0))
    expected = (first + last) / 2
    found = charges(2, torch.full((6,), 0.5, dtype=torch.float64), number(inside).long())
    for some in (slice(0, 2), slice(2, 6)):
        close(found[some], expected[some].mean().expand_as(found[some]), 1e-5)


@by_loss
def test_gradient_follows_sorting(cls, engine):
    logits, y = logits_of(1, 1, 300, 300), labels_of(2, 1, 300, 300)
    _, exact = valued(cls(exact=True, **IGNORE), logits, y)
    _, found = valued(cls(**IGNORE), logits.float(), y)
    assert (found - exact).norm() <= 3e-4 * exact.norm()


@pytest.mark.slow
def test_gradient_of_a_volume(engine):
    """2×3×96³, the default bins: within 2e-4 of sorting in float64, the value within half a bin."""
    logits, y = logits_of(2, 3, 96, 96, 96, scale=1.0), labels_of(3, 2, 96, 96, 96, ignore=False)
    value, gradient = valued(ls.LovaszSoftmaxLoss(exact=True), logits, y)
    found, mine = valued(ls.LovaszSoftmaxLoss(), logits.float(), y)
    assert (found - value).abs() <= 0.5 / 4096
    assert (mine - gradient).norm() <= 2e-4 * gradient.norm()


def test_second_derivative_is_that_of_fixed_charges():
    logits, y = logits_of(1, 3, 8, 9).float(), labels_of(3, 1, 8, 9)
    loss = ls.LovaszSoftmaxLoss(bins=16, **IGNORE)
    found = []
    for choice in ("plain", "auto"):
        with ls.use_engine(choice):
            z = logits.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(z, y), z, create_graph=True)
            found.append(torch.autograd.grad(gradient.square().sum(), z)[0])
    close(found[0], found[1], 1e-6)
    assert found[0].abs().max() > 0


# ---- golden values --------------------------------------------------------------------------------------------------


def test_golden_gradients():
    p, y = torch.tensor([0.1, 0.3, 0.6, 0.8], dtype=torch.float64), torch.tensor([1, 0, 0, 1])
    value, gradient = valued(ls.LovaszSoftmaxLoss(), p.logit()[None, None], y[None])
    close(value, torch.tensor(0.625), 1e-12)
    close(gradient.flatten() / (p * (1 - p)), torch.tensor([-1 / 2, 1 / 12, 1 / 6, -1 / 4]), 1e-6)
    absent = torch.tensor([0.3, 0.7, 0.2]).logit()[None, None]
    close(ls.LovaszSoftmaxLoss(absent="keep")(absent, torch.zeros(1, 3, dtype=torch.long)), torch.tensor(0.7), 1e-6)
    assert ls.LovaszSoftmaxLoss(absent="skip")(absent, torch.zeros(1, 3, dtype=torch.long)) == 0
    value, gradient = valued(
        ls.LovaszHingeLoss(), torch.tensor([[[2.0, -1.0, 0.5, -3.0]]]), torch.tensor([[1, 0, 0, 1]])
    )
    assert value == 2.25
    close(gradient.flatten(), torch.tensor([0, 0, 1 / 6, -1 / 2]), 1e-6)


# ---- the two engines ------------------------------------------------------------------------------------------------


def test_kernels_are_used(answered):
    """Where a group is larger than the histogram; "fused" insists on them, and sorting is none of theirs."""
    logits, y = logits_of(2, 2, 50).float(), labels_of(2, 2, 50, ignore=False)
    for bins, per_image, times in [(99, False, 1), (100, False, 1), (49, True, 2), (50, True, 2)]:
        ls.LovaszSoftmaxLoss(bins=bins, per_image=per_image)(logits, y)
        assert answered.count(("numba", Order)) == times
    with ls.use_engine("fused"):
        ls.LovaszSoftmaxLoss(bins=9)(logits, y)
        assert answered.count(("numba", Order)) == 3
        with pytest.raises(RuntimeError, match="sorted"):
            ls.LovaszSoftmaxLoss(exact=True)(logits, y)


@pytest.mark.one_in(3)
@by_case
@pytest.mark.parametrize("bins", [1, 6])
def test_fused_is_plain(cls, problem, bins):
    """Value and gradient, for every setting and weight. Plain in float64: at so few bins no error is near an edge."""
    for more in [*shared_settings(problem, cls), {"absent": "keep"}, {"absent": "skip"}]:
        loss = cls(bins=bins, **{**problem.settings, **more})
        for call in calls(problem, cls):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                logits = problem.logits.to(dtype)
                with ls.use_engine("plain"):
                    value, gradient = valued(loss, logits.double(), problem.target, **call)
                found, mine = valued(loss, logits, problem.target, **call)
                close(found, value, 2e-6)
                step = max(torch.finfo(dtype).eps, 2e-6)
                last = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
                atol = max(2e-6 * float(gradient.abs().max()), last)
                torch.testing.assert_close(mine.double(), gradient, rtol=step, atol=atol)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 255, 256, 257, 1000, 40_000])
@pytest.mark.parametrize("channels", [1, 2, 17])
def test_engines_agree_at_every_size(size, channels):
    logits, y = logits_of(2, channels, size).float(), labels_of(max(channels, 2), 2, size)
    for loss in (ls.LovaszSoftmaxLoss(bins=1, **IGNORE), ls.LovaszHingeLoss(bins=1, task="multilabel", **IGNORE)):
        with ls.use_engine("plain"):
            value, gradient = valued(loss, logits.double(), y)
        found, mine = valued(loss, logits, y)
        close(found, value, 1e-5)
        assert (mine - gradient).norm() <= 1e-3 * gradient.norm() + 1e-12


@pytest.mark.parametrize("weighted", ["no", "pixel", "sample"])
@by_loss
def test_number_of_threads_changes_nothing(cls, weighted):
    """Not a bit of it: counts are whole numbers."""
    logits, y = logits_of(4, 1, 250, 250).float(), labels_of(2, 4, 250, 250)
    weight = {"no": None, "pixel": chances_of(4, 250, 250).float(), "sample": torch.tensor([0.3, 1.7, 0.0, 1e-3])}
    before = torch.get_num_threads()
    try:
        for per_image in (False, True):
            loss = cls(per_image=per_image, **IGNORE)
            torch.set_num_threads(1)
            expected = valued(loss, logits, y, weight=weight[weighted])
            for threads in (2, 3, 7):
                torch.set_num_threads(threads)
                for one, other in zip(valued(loss, logits, y, weight=weight[weighted]), expected, strict=True):
                    assert torch.equal(one, other)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", ["channels last", "sliced", "transposed"])
def test_layout_does_not_matter(layout):
    logits, y = logits_of(2, 3, 20, 30).float(), labels_of(3, 2, 20, 30)
    if layout == "channels last":
        other = logits.to(memory_format=torch.channels_last)
    elif layout == "sliced":
        other = torch.full((2, 5, 22, 32), torch.nan)[:, 1:4, 1:21, 1:31].copy_(logits)
    else:
        other = logits.transpose(0, 3).contiguous().transpose(0, 3)
    for loss in (ls.LovaszSoftmaxLoss(bins=64, **IGNORE), ls.LovaszHingeLoss(bins=64, task="multilabel", **IGNORE)):
        for one, two in zip(valued(loss, other, y), valued(loss, logits, y), strict=True):
            close(one, two, 1e-6)


# ---- weights and degenerate cases -----------------------------------------------------------------------------------


@by_loss
def test_a_weight_is_a_number_of_pixels(cls, engine):
    """Per pixel; also 2^k of everything changes nothing, however large or small."""
    logits, y = logits_of(1, 1, 50).float(), labels_of(2, 1, 50)
    weight = torch.randint(0, 4, (1, 50))
    repeated = weight[0].repeat_interleave(weight[0]) * 0 + torch.arange(50).repeat_interleave(weight[0])
    for bins in (5, 4096):
        loss = cls(bins=bins, **IGNORE)
        value, gradient = valued(loss, logits, y, weight=weight)
        expected, parts = valued(loss, logits[:, :, repeated], y[:, repeated])
        close(value, expected, 1e-6)
        if bins == 5:  # sorted ones share a tie at random
            close(gradient, torch.zeros_like(logits).index_add(2, repeated, parts), 1e-6)
        for factor in (1e-30, 1e-3, 3.0, 1e30):
            scaled, same = valued(loss, logits, y, weight=weight * factor)
            close(scaled, value, 1e-6)
            close(same, gradient, 1e-6)


def test_weights_are_worth_many_digits(engine):
    """A foreground pixel that weighs a millionth is still foreground."""
    logits = torch.tensor([[[1.0, -1.0, 0.3, 2.0, 0.1, -0.4, 0.9]]])
    y, weight = torch.tensor([[1, 0, 0, 0, 0, 0, 0]]), torch.tensor([[1e-6, 1, 1, 1, 1, 1, 1]])
    e = torch.where(y == 1, (-logits[:, 0]).sigmoid(), logits[:, 0].sigmoid()).double()
    e = (e * 5).round() / 5
    value, _ = brute_force(e[0].tolist(), (y[0] == 1).tolist(), weight[0].tolist())
    close(ls.LovaszSoftmaxLoss(bins=5)(logits, y, weight=weight), number(value), 1e-5)


@by_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_degenerate_inputs_are_finite(cls, dtype, engine):
    y = labels_of(2, 2, 8, 9, ignore=False)
    targets = [torch.full_like(y, IGNORED), torch.zeros_like(y), torch.ones_like(y), y]
    for channels in (1, 3):
        for target in targets:
            for scale in (0.0, 1.0, 1e4):
                for absent in ("skip", "keep"):
                    logits = (logits_of(2, channels, 8, 9).clamp(-1, 1) * scale).to(dtype)
                    task = {} if channels == 1 else {"task": "multilabel"}
                    loss = cls(bins=9, absent=absent, **task, **IGNORE)
                    value, gradient = valued(loss, logits, target)
                    assert value.isfinite()
                    assert gradient.isfinite().all()
                    if (target == IGNORED).all():
                        assert value == 0
                        assert (gradient == 0).all()


@by_loss
@pytest.mark.parametrize("bins", [16, 4096])
def test_impossible_classes_cost_nothing(cls, bins, engine):
    logits, y = logits_of(1, 3, 90).float(), labels_of(3, 1, 90)
    more = torch.cat([logits, torch.full((1, 1, 90), -math.inf)], 1)
    task = {} if "multiclass" in cls.tasks else {"task": "multilabel"}
    value, gradient = valued(cls(bins=bins, **task, **IGNORE), logits, y)
    found, mine = valued(cls(bins=bins, classes=(0, 1, 2), **task, **IGNORE), more, y)
    close(found, value, 1e-6)
    close(mine[:, :3], gradient, 1e-6)
    assert (mine[:, 3] == 0).all()
    assert cls(bins=bins, absent="keep", classes=(3,), **task, **IGNORE)(more, y) == 0


@by_loss
@pytest.mark.parametrize("channels", [1, 3])
def test_nan_is_seen_in_valid_pixels_only(cls, channels, engine):
    y = labels_of(2, 2, 60)
    task = {} if channels == 1 else {"task": "multilabel"}
    for per_image in (False, True):
        loss = cls(bins=16, per_image=per_image, **task, **IGNORE)
        clean = logits_of(2, channels, 60).float()
        value, gradient = valued(loss, clean, y)
        hidden = (y == IGNORED).unsqueeze(1).expand(clean.shape)
        found, mine = valued(loss, clean.masked_fill(hidden, math.nan), y)
        assert torch.equal(found, value)
        assert torch.equal(mine, gradient)
        shown = clean.clone()
        shown[1, 0, int((y[1] != IGNORED).nonzero()[0])] = math.nan
        found, mine = valued(loss, shown, y)
        assert found.isnan()
        assert mine.isnan().any()


def test_nan_weight_and_target_are_seen(engine):
    logits, y = logits_of(1, 1, 60).float(), labels_of(2, 1, 60, ignore=False)
    weight = torch.ones(1, 60)
    weight[0, 3] = math.nan
    assert ls.LovaszSoftmaxLoss(bins=8)(logits, y, weight=weight).isnan()
    soft = chances_of(1, 1, 60).float()
    soft[0, 0, 5] = math.nan
    assert ls.LovaszSoftmaxLoss(bins=8)(logits, soft).isnan()


def test_the_hinge_is_not_for_a_softmax():
    with pytest.raises(ValueError, match="task='multilabel'"):
        ls.LovaszHingeLoss()(logits_of(1, 3, 9), labels_of(3, 1, 9, ignore=False))
    for bins in (0, 2**21, 4.0):
        with pytest.raises(TypeError if isinstance(bins, float) else ValueError, match="bins must be"):
            ls.LovaszSoftmaxLoss(bins=bins)


def test_vmap_and_functional_gradients():
    logits, y = logits_of(3, 2, 40).float(), labels_of(2, 3, 40, ignore=False)
    loss = ls.LovaszSoftmaxLoss(bins=8)
    found = torch.func.vmap(torch.func.grad(lambda z, t: loss(z[None], t[None])))(logits, y)
    expected = torch.stack([valued(loss, z[None], t[None])[1][0] for z, t in zip(logits, y, strict=True)])
    close(found, expected, 1e-6)


def test_shared_settings_change_the_value(engine):
    logits, y = logits_of(3, 4, 6, 6), labels_of(4, 3, 6, 6)
    loss = ls.LovaszSoftmaxLoss(**IGNORE)
    assert loss(logits, y) == ls.LovaszSoftmaxLoss(reduction="sum", **IGNORE)(logits, y)
    changes = [{"class_weight": [0.5, 1.0, 2.0, 3.0]}, {"per_image": True}, {"classes": [1, 2]}, {"task": "multilabel"}]
    changes += [{"include_background": False}, {"per_image": True, "reduction": "sum"}, {"bins": 20}]
    values = {float(ls.LovaszSoftmaxLoss(**{**IGNORE, **more})(logits, y)) for more in [{}, *changes]}
    assert len(values) == 1 + len(changes)


def test_targets_out_of_range_become_nan_where_looking_would_cost():
    """As on an accelerator: one above the highest label, or a share above 1."""
    logits, loss = logits_of(2, 3, 8), ls.LovaszSoftmaxLoss(task="multiclass")
    labels, shares = torch.zeros(2, 8, dtype=torch.long), torch.full((2, 3, 8), 1 / 3, dtype=torch.float64)
    labels[0, 0], shares[0, 0, 0] = 3, 1.5
    for target in (labels, shares):
        value = torch.func.vmap(lambda z, t: loss(z[None], t[None]))(logits, target)
        assert value.isnan().tolist() == [True, False]


def test_equal_terms_are_ranked_once(answered):
    loss = ls.parse("lovasz + 0.5 * lovasz(absent='keep') + lovasz(bins=9)")
    loss(logits_of(1, 2, 60).float(), labels_of(2, 1, 60, ignore=False))
    assert [kind for _, kind in answered].count(Order) == 2


def test_jaccard_adds_up():
    """f·a + b·c is what the entry adds to Δ, also where weights differ by many orders."""
    f, b = (10.0 ** torch.linspace(-6, 6, 30, dtype=torch.float64)[torch.randperm(30)] for _ in range(2))
    f[::3], b[1::3] = 0, 0
    of_foreground, of_background = ranking.jaccard(f[None, None], b[None, None])
    share = (f * of_foreground + b * of_background).flatten()
    wrong, false = (f + b).cumsum(0), b.cumsum(0)
    delta = wrong / (f.sum() + false)
    np.testing.assert_allclose(share.cumsum(0), delta, rtol=1e-9)


# ---- step by step, where others hold a part --------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [by_numba, by_triton], ids=["numba", "triton"])
@pytest.mark.parametrize("weights", ["none", "sample", "pixel"])
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_kernels_count_and_charge_as_torch_does(kernels, weights, per_image, task):
    """Up to an error that is larger than all here, as another process might have one."""
    z, hinge = logits_of(3, 4, 5, 7).float(), task == "multilabel"
    labels = labels_of(4, 3, 5, 7) if task == "multiclass" else labels_of(2, 3, 4, 5, 7)
    sample = torch.tensor([0.5, 3.0, 0.0]) if weights == "sample" else None
    pixel = logits_of(3, 5, 7, seed=3).abs().float() if weights == "pixel" else None
    found = []
    for engine in (ranking.OnLevels, kernels.on_levels):
        logits = z.clone().requires_grad_()
        problem = Problem(logits, labels, pixel, sample, task, IGNORED)
        counted = engine(Levels(problem, Ranking(64, False, per_image, hinge), Images(sample)))
        span = 1.5 * counted.span if hinge else counted.span
        histogram = counted.histogram(span)
        losses, table = ranking.weigh(histogram, span)
        (slope,) = torch.autograd.grad((counted.charged(span, table) * torch.arange(1.0, 5.0)).sum(), logits)
        found.append((counted.span, histogram.sum(-1), losses, slope))
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-5)


def test_logits_are_let_go_after_the_gradient():
    """By the kernels too, step by step: a loss that is kept for the log keeps no logits."""
    z, y = logits_of(2, 3, 9, 9).float().requires_grad_(), labels_of(3, 2, 9, 9)
    logits = z * 1.0
    counted = by_numba.on_levels(
        Levels(Problem(logits, y, None, None, "multiclass", IGNORED), Ranking(16, False, False, False), Images())
    )
    _, table = ranking.weigh(counted.histogram(counted.span), counted.span)
    value = counted.charged(counted.span, table)
    known = weakref.ref(logits)
    del counted, logits
    value.sum().backward()
    assert known() is None
    assert z.grad is not None
