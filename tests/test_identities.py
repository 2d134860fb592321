"""What the losses are to each other and to torch, and the values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import golden
import lossmith as ls
from lossmith.arithmetic import power
from lossmith.engine.plain.maps import _errors
from lossmith.inputs.batch import Batch
from problems import IGNORED, PROBLEMS, labels_of, logits_of


def batch_of(loss, logits, target):
    return Batch(loss.reading([loss], ""), logits, target)


def assert_same(a, b, tolerance=1e-10):
    torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


KNOWN = {row.name for row in ls.catalogue()}


@pytest.mark.parametrize("case", [case for case in golden.CASES if case.loss in KNOWN], ids=lambda case: case.name)
def test_golden(case):
    task = {} if case.task == "binary" else {"task": case.task}
    call = {k: torch.as_tensor(v) for k, v in case.call.items()}
    loss = ls.parse(case.loss, **{**task, **case.settings})
    logits = torch.tensor(case.logits, requires_grad=True)
    value = loss(logits, torch.as_tensor(case.target), **call)
    exact = 2e-7 if "distance" in loss.takes else 1e-12  # distance maps are float32
    np.testing.assert_allclose(value.detach().numpy(), case.value, rtol=exact, atol=1e-300)
    if case.gradient is not None:
        value.sum().backward()
        known = ~np.isnan(case.gradient)
        np.testing.assert_allclose(logits.grad.numpy()[known], case.gradient[known], rtol=max(1e-9, exact), atol=1e-17)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torch(reduction, smoothing, weighted, engine):
    logits, labels = logits_of(3, 5, 4, 6).float(), labels_of(5, 3, 4, 6)
    weight = torch.linspace(0.5, 3.0, 5) if weighted else None
    ours = ls.CrossEntropyLoss(
        ignore_index=IGNORED, class_weight=weight, reduction=reduction, label_smoothing=smoothing
    )(logits, labels)
    theirs = F.cross_entropy(
        logits, labels, weight, ignore_index=IGNORED, reduction=reduction, label_smoothing=smoothing
    )
    assert_same(ours, theirs, 2e-6)


def test_binary_cross_entropy_is_torch(engine):
    logits, chances = logits_of(3, 1, 4, 6), logits_of(3, 1, 4, 6, seed=9).sigmoid()
    assert_same(ls.CrossEntropyLoss()(logits, chances), F.binary_cross_entropy_with_logits(logits, chances))
    many = ls.CrossEntropyLoss(task="multilabel")
    logits, chances = logits_of(3, 4, 6), logits_of(3, 4, 6, seed=9).sigmoid()
    assert_same(many(logits, chances), F.binary_cross_entropy_with_logits(logits, chances))


def test_soft_cross_entropy_is_torch(engine):
    logits, shares = logits_of(3, 4, 6), logits_of(3, 4, 6, seed=9).softmax(1)
    assert_same(ls.CrossEntropyLoss(task="multiclass")(logits, shares), F.cross_entropy(logits, shares))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("weight", ["none", "sample", "pixel"])
@pytest.mark.parametrize("class_weight", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_focal_with_gamma_0_is_cross_entropy(channels, weight, class_weight, reduction, ignore, dtype, engine):
    classes = max(channels, 2)
    logits, labels = logits_of(3, channels, 4, 6).to(dtype), labels_of(classes, 3, 4, 6, ignore=ignore)
    call = {"none": {}, "sample": {"weight": torch.tensor([1.0, 0.0, 2.0])}, "pixel": {"weight": torch.rand(3, 4, 6)}}
    more = {"ignore_index": IGNORED, "reduction": reduction}
    if class_weight:
        more["class_weight"] = torch.linspace(0.5, 2.0, classes).tolist()
    a, b = ls.FocalLoss(gamma=0.0, **more), ls.CrossEntropyLoss(**more)
    for denominator in ({}, {"denominator": 5.0}) if reduction == "mean" else ({},):
        assert torch.equal(
            a(logits, labels, **call[weight], **denominator), b(logits, labels, **call[weight], **denominator)
        )


def test_alpha_per_channel_is_alpha_of_each_channel(engine):
    logits, labels = logits_of(2, 3, 5, 5), labels_of(2, 2, 3, 5, 5, ignore=False)
    alphas = [0.125, 0.5, 0.75]  # exact in float32, which settings are kept in
    together = ls.FocalLoss(alpha=alphas, task="multilabel")(logits, labels)
    each = [ls.FocalLoss(alpha=a)(logits[:, k : k + 1], labels[:, k]) for k, a in enumerate(alphas)]
    assert_same(together, torch.stack(each).mean())


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5, 1.0, 1.5, 2.0])
def test_power_has_a_finite_slope_at_0(exponent):
    x = torch.tensor([0.0, 1e-35, 1e-20, 0.3, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    value = power(x, exponent)
    torch.testing.assert_close(value[2:], x[2:] ** exponent)
    assert value[0] == 0**exponent
    (slope,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(
        slope[2:], exponent * x.detach()[2:] ** (exponent - 1) if exponent else torch.zeros(4).double()
    )
    assert slope.isfinite().all()
    if 0 < exponent < 1:
        torch.testing.assert_close(slope[:2], torch.full((2,), 1e-30 ** (exponent - 1), dtype=torch.float64))
        torch.testing.assert_close(value[1], x[1] * 1e-30 ** (exponent - 1))


def test_tversky_is_dice_and_jaccard(engine):
    logits, labels = logits_of(2, 3, 6, 6), labels_of(3, 2, 6, 6, ignore=False)
    half = ls.TverskyLoss(fp_weight=0.5, fn_weight=0.5, smooth=0.5)
    assert_same(half(logits, labels), ls.DiceLoss(smooth=1.0)(logits, labels))
    whole = ls.TverskyLoss(fp_weight=1.0, fn_weight=1.0)
    assert_same(whole(logits, labels), ls.JaccardLoss()(logits, labels))


def test_dice_and_jaccard_order_predictions_alike(engine):
    logits, labels = logits_of(2, 3, 6, 6), labels_of(3, 2, 6, 6, ignore=False)
    d = ls.DiceLoss(smooth=0.0, reduction="none")(logits, labels)
    j = ls.JaccardLoss(smooth=0.0, reduction="none")(logits, labels)
    assert_same(1 - d, 2 * (1 - j) / (2 - j))


def test_uniform_generalized_dice_of_equal_sizes_is_dice(engine):
    logits, labels = logits_of(2, 2, 6, 6), (torch.arange(72) % 2).reshape(2, 6, 6)
    for weighting in ("square", "simple", "uniform"):
        pooled = ls.GeneralizedDiceLoss(weighting=weighting)(logits, labels)
        assert_same(pooled, ls.GeneralizedDiceLoss(weighting="uniform")(logits, labels))


def test_two_classes_are_one_channel(engine):
    """softmax(0, z) is the sigmoid of z: every loss that counts both labels agrees."""
    z, labels = logits_of(2, 1, 5, 5), labels_of(2, 2, 5, 5)
    two = torch.cat([torch.zeros_like(z), z], 1)
    for text in ("ce", "focal", "gdl", "ce(label_smoothing=0.2)", "focal(gamma=0.5)"):
        loss = ls.parse(text, ignore_index=IGNORED)
        assert_same(loss(z, labels), loss(two, labels))
    for text in ("dice", "jaccard", "tversky", "dice(squared=true)"):
        one = ls.parse(text, ignore_index=IGNORED)
        other = ls.parse(text, ignore_index=IGNORED, classes=[1])
        assert_same(one(z, labels), other(two, labels))


def test_background_follows_from_the_foreground():
    """`Sums.both` is algebra: it gives what two channels would have measured."""
    z, labels = logits_of(2, 1, 5, 5), labels_of(2, 2, 5, 5)
    two = torch.cat([torch.zeros_like(z), z], 1)
    loss = ls.DiceLoss(squared=True, ignore_index=IGNORED)
    both, counted = batch_of(loss, z, labels).sums.both(), batch_of(loss, two, labels).sums
    for name in ("n", "t", "tt", "fp", "fn", "fp2", "fn2", "tp", "squared_error"):
        assert_same(getattr(both, name), getattr(counted, name))
    shares = logits_of(2, 1, 5, 5, seed=4).sigmoid()
    soft = ls.DiceLoss(squared=True, task="multiclass")
    both = batch_of(loss, z, shares).sums.both()
    counted = batch_of(soft, two, torch.cat([1 - shares, shares], 1)).sums
    for name in ("n", "t", "tt", "fp", "fn", "fp2", "fn2", "squared_error"):
        assert_same(getattr(both, name), getattr(counted, name))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_residuals_are_differences(problem):
    """p − r, which keeps its digits near perfection."""
    loss = ls.HausdorffDTLoss(**problem.settings)
    batch = batch_of(loss, problem.logits, problem.target)
    masks, valid = batch.masks
    r = problem.target.double() if problem.target.is_floating_point() else masks.double()
    price = torch.rand(problem.logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    residual = torch.where(valid, batch.field - r, 0.0)
    assert_same(batch.over_map(price, "residual"), batch.over_pixels(price * residual))
    assert_same(batch.over_map(price, "square"), batch.over_pixels(price * residual.square()))
    if not problem.target.is_floating_point():
        sure = 40.0 * (2 * masks.double() - 1) * valid
        labels = batch.problem.labels
        near = _errors(sure, labels.target, labels.valid, batch.exclusive, "residual")[1]
        assert (near[valid] != 0).all()


@pytest.mark.parametrize("error", ["chance", "residual", "square"])
def test_gradients_over_a_map_keep_their_digits_near_perfection(error):
    labels = torch.arange(98).reshape(2, 7, 7) % 4
    z, price = logits_of(2, 4, 7, 7).float(), logits_of(2, 4, 7, 7, seed=1).exp()
    z = z.double().scatter_(1, labels.unsqueeze(1), 30.0)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = z.to(dtype).clone().requires_grad_()
        batch_of(ls.BoundaryLoss(), leaf, labels).over_map(price.to(dtype), error).sum().backward()
        gradients.append(leaf.grad.double())
    assert gradients[1].abs().max() < 1e-8
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=0.0)


WITH_MAPS = ["ce", "dice(squared=true)", "focal", "boundary(shifted=true)", "hausdorff(one_sided=true)"]


def given_map(loss, labels):
    return {"distance": ls.distance.signed_distance_map(labels, 3).double()} if "distance" in loss.takes else {}


@pytest.mark.parametrize("text", WITH_MAPS)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_weights_and_soft_targets_have_gradients(text, task):
    loss, logits, labels = ls.parse(text, task=task), logits_of(2, 3, 5), labels_of(3, 2, 5, ignore=False)
    soft, weight = logits_of(2, 3, 5, seed=1).softmax(1), logits_of(2, 5, seed=2).exp()
    call = given_map(loss, labels)
    assert torch.autograd.gradcheck(lambda w: loss(logits, labels, weight=w, **call), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda r: loss(logits, r, weight=weight.detach(), **call), soft.requires_grad_())


@pytest.mark.parametrize("text", WITH_MAPS)
def test_many_gradients_at_once(text):
    """Autograd's own batches, and labels in batches beside logits that are not."""
    loss, logits, labels = ls.parse(text), logits_of(2, 3, 5).requires_grad_(), labels_of(3, 2, 5, ignore=False)
    call = given_map(loss, labels)
    one, many = loss(logits, labels, **call), torch.stack([labels, (labels + 1) % 3])
    (single,) = torch.autograd.grad(one, logits, retain_graph=True)
    two = torch.stack([one, 2 * one])
    (both,) = torch.autograd.grad(two, logits, torch.eye(2, dtype=torch.double), is_grads_batched=True)
    assert_same(both, torch.stack([single, 2 * single]))
    batched = torch.vmap(lambda y: loss(logits, y, **call))(many)
    (found,) = torch.autograd.grad(batched.sum(), logits)
    (expected,) = torch.autograd.grad(sum(loss(logits, y, **call) for y in many), logits)
    assert_same(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_soft_targets_keep_their_digits_beside_logits_in_half(dtype):
    logits = logits_of(2, 3, 6, 7).to(dtype)
    loss = ls.BoundaryLoss(shifted=True, task="multilabel")
    assert abs(loss(logits, logits.float().sigmoid(), distance=torch.ones(2, 3, 6, 7))) < 1e-7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
@pytest.mark.parametrize("dynamic", [None, pytest.param(True, marks=pytest.mark.thorough)])
def test_compiled_for_any_size(dynamic):
    loss = ls.parse("dice + focal + ce")
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="eager")
    for size in (16, 24, 31):
        logits, labels = logits_of(2, 3, size, size + 1), labels_of(3, 2, size, size + 1, ignore=False)
        assert_same(compiled(logits, labels), loss(logits, labels))


def test_false_positives_on_an_absent_class(engine):
    """ "smooth" lets them cost, "skip" does not see them."""
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    quiet, loud = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    quiet[:, 0], loud[:, 0], loud[:, 2] = 9.0, 9.0, 9.0
    for name in ("dice", "jaccard", "tversky"):
        smooth, skip = ls.parse(name), ls.parse(name, absent="skip")
        assert smooth(loud, labels) > smooth(quiet, labels) + 0.2
        assert skip(loud, labels) == pytest.approx(float(ls.parse(name, classes=[0])(loud, labels)), rel=1e-6)


def test_frequencies_of_no_and_yes(engine):
    """The same for every channel: √(total / frequency) of each label, and nothing for one that was never seen."""
    logits, labels = logits_of(2, 3, 5, 5), labels_of(2, 2, 3, 5, 5, ignore=False)
    each = ls.parse("power_ce(frequencies=[1, 1])", task="multilabel", reduction="none")(logits, labels) / 2**0.5
    for frequencies, prices in [([3, 1], (4 / 3, 4.0)), ([0, 5], (0.0, 1.0))]:
        expected = (each * torch.tensor(prices, dtype=torch.float64).sqrt()[labels]).mean()
        loss = ls.PowerCrossEntropyLoss(frequencies=frequencies, task="multilabel")
        assert_same(loss(logits, labels), expected)
        one = torch.stack(
            [ls.PowerCrossEntropyLoss(frequencies=frequencies)(logits[:, k : k + 1], labels[:, k]) for k in range(3)]
        )
        assert_same(one.mean(), expected)


def test_the_hardest_are_no_more_than_asked_for(engine):
    """Of equals the first are taken, and only as many as are missing."""
    logits, labels = torch.full((1, 1, 16), 1.0), torch.ones(1, 16, dtype=torch.long)
    logits[..., [5, 9]] = -1.0
    for loss in (ls.TopKCrossEntropyLoss(percent=25.0), ls.OhemCrossEntropyLoss(thresh=0.5, min_kept=4)):
        shown = logits.clone().requires_grad_()
        loss(shown, labels).backward()
        assert shown.grad.flatten().nonzero().flatten().tolist() == [0, 1, 5, 9]


def test_divergence_of_ignored_samples(engine):
    logits, shares = logits_of(5, 3), logits_of(5, 3, seed=9).softmax(1)
    hidden = shares.clone()
    hidden[1] = IGNORED
    loss, kept = ls.KLDivergenceLoss(ignore_index=IGNORED), [0, 2, 3, 4]
    assert_same(loss(logits, hidden), loss(logits[kept], shares[kept]))


def test_values_of_classes_are_weighted_means_over_images(engine):
    logits, labels = logits_of(3, 3, 6, 6), labels_of(3, 3, 6, 6, ignore=False)
    weight = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    each = ls.DiceLoss(reduction="none")(logits, labels)
    found = ls.DiceLoss().parts(logits, labels, per_class=True, weight=weight)["dice"]
    assert_same(found, (each * weight.unsqueeze(1)).sum(0) / 2.5)


def test_class_weights_of_annotated_classes(engine):
    """A mask takes classes out of the mean; the others keep their weights."""
    logits, labels = logits_of(2, 4, 6, 6), labels_of(4, 2, 6, 6, ignore=False)
    mask = torch.tensor([[True, True, False, True], [True, False, True, True]])
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    each = ls.DiceLoss(reduction="none")(logits, labels, label_mask=mask)
    expected = ((each * weight * mask).sum(1) / (weight * mask).sum(1)).mean()
    assert_same(ls.DiceLoss(class_weight=weight)(logits, labels, label_mask=mask), expected)


def test_two_sides_of_one_channel_are_skipped_like_classes(engine):
    """Background and foreground, for losses that count both: an image without one of them counts the other."""
    z, labels = logits_of(3, 1, 5, 5), labels_of(2, 3, 5, 5, ignore=False)
    labels[0], labels[1] = 1, 0
    two = torch.cat([torch.zeros_like(z), z], 1)
    for text in ("log_dice", "unified_focal", "unified_focal(class_weight=[0.5, 2.0])"):
        for absent in ("smooth", "skip"):
            loss = ls.parse(text, absent=absent)
            assert_same(loss(z, labels), loss(two, labels))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 3),
    channels=st.integers(1, 4),
    space=st.lists(st.integers(0, 4), max_size=3),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 5),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_any_shape_gives_a_finite_value_and_gradient(n, channels, space, scale, ignored, seed, dtype):
    logits = (logits_of(n, channels, *space, seed=seed).clamp(-1, 1) * scale).to(dtype).requires_grad_()
    labels = labels_of(max(channels, 2), n, *space, seed=seed, ignore=False)
    labels = labels.masked_fill(
        torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) < ignored, IGNORED
    )
    loss = ls.parse("ce + focal(gamma=0.5) + dice + jaccard + tversky + gdl", ignore_index=IGNORED)
    with ls.use_engine("plain"):
        expected = loss(logits, labels)
        (expected_gradient,) = torch.autograd.grad(expected, logits)
    value = loss(logits, labels)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert_same(value.detach(), expected.detach(), 2e-6)
    step = max(torch.finfo(dtype).eps, 2e-6)
    torch.testing.assert_close(
        logits.grad.double(),
        expected_gradient.double(),
        rtol=2 * step,
        atol=2e-6 * float(expected_gradient.abs().amax() if logits.numel() else 0) + 1e-30,
    )


@pytest.mark.parametrize(
    "text",
    [
        "focal_tversky(exponent=0.001)",
        "log_dice(exponent=0.001)",
        "explog(gamma=0.001)",
        *(f"unified_focal(gamma=0.999, asymmetric={some})" for some in (True, False)),
    ],
)
def test_the_smallest_power_still_tells_perfect_from_broken(text, engine):
    """x ** 0 would be 1 for the perfect, the worst and the undefined alike: it is no setting."""
    loss, labels = ls.parse(text), labels_of(3, 2, 4, 6, ignore=False)
    right = 1e4 * F.one_hot(labels, 3).movedim(-1, 1).double()
    assert loss(right, labels) == 0
    assert loss(-right, labels) > 0.2
    right[0, 0, 0, 0] = torch.nan
    assert loss(right, labels).isnan()


def test_two_class_dice_unbalanced_falls_below_0():
    for n, eps in ((1, 1e-5), (1, 1.0), (1, 100.0), (30, 1e-5), (30, 1e6)):
        loss = ls.TwoClassDiceLoss(balanced=False, smooth=eps)
        logits, empty = torch.full((1, 1, n), -1e3, dtype=torch.float64), torch.zeros(1, n, dtype=torch.long)
        assert_same(loss(logits, empty), torch.tensor(-(n + eps) / (2 * n + eps), dtype=torch.float64))
        for target in (empty, 1 - empty, torch.arange(n)[None] % 2):
            for scale in (0.0, 1.0, -1.0):
                assert -1 < loss(scale * logits, target) <= 1
                assert 0 <= ls.TwoClassDiceLoss(smooth=eps)(scale * logits, target) <= 1


@pytest.mark.parametrize("symmetric", [False, True])
def test_shifted_boundary_is_least_where_perfect(symmetric):
    loss, labels = ls.BoundaryLoss(shifted=True, symmetric=symmetric, reduction="none"), labels_of(3, 4, 8, 9)
    assert (loss(3 * logits_of(4, 3, 8, 9), labels.clamp(min=0, max=2)) >= 0).all()


def test_the_mean_over_soft_labels_is_over_pixels():
    """Whatever their shares sum to, and whether weights of 1 are given or not."""
    shares = logits_of(2, 3, 4, 5, seed=2).softmax(1)
    shares[:, :, 1] *= 0.5
    logits, weight = logits_of(2, 3, 4, 5), torch.ones(2, 4, 5)
    for name in ("ce", "focal"):
        loss = ls.parse(name, task="multiclass")
        mean = ls.parse(name, task="multiclass", reduction="sum")(logits, shares) / weight.numel()
        torch.testing.assert_close(loss(logits, shares), mean)
        torch.testing.assert_close(loss(logits, shares, weight=weight), mean)
