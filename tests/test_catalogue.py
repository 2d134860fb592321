"""The properties that every loss of the catalogue has, whatever its formula. A loss added tomorrow is tested as it is.

Exemptions stand in one table with their reasons; there are none for a loss that is not named there.
"""

from __future__ import annotations

import copy
import functools
import math
import pickle
import re
import zlib
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import lossmith as ls
from lossmith.losses.dense import ClassLoss
from lossmith.names import SHARED
from problems import (
    IGNORE,
    IGNORED,
    PROBLEMS,
    REAL,
    ROWS,
    Problem,
    allowed,
    build,
    calls,
    fits,
    labels_of,
    logits_of,
    make,
    needed,
    nudges,
    pairs,
    shared_settings,
    with_rows,
)
from reference import REFERENCES

pytestmark = pytest.mark.one_in(8)  # problems, dtypes and numbers of channels, with each loss and engine

WHERE = "it looks at where a pixel is"
UNSUPERVISED = "it reads no labels and sees every pixel, ignored or not"
PAIRS = "it has a price for every two classes, which would have to follow them"
EXEMPT: dict[tuple[str, str], str] = {  # (loss, property): reason. It has to fail, in every case but those of HOLDS
    **{
        (name, "pixel_order_does_not_matter"): WHERE
        for name in (
            *("boundary", "hausdorff", "active_contour", "boundary_f1", "nonadjacency"),
            *("boundary_ce", "distance_penalty", "border_ce"),
        )
    },
    **{(name, "weight_2_is_repeating_the_sample"): "counts pixels: weights only mask" for name in ("ohem", "topk")},
    **{
        ("wce", name): "its weight depends on the prediction and is a constant to the gradient, as the paper means it"
        for name in ("gradcheck", "gradgradcheck")
    },
    **{(name, "class_names_do_not_matter"): "class 0 is the background" for name in ("unified_focal", "border_ce")},
    ("quadratic", "impossible_classes_have_no_gradient"): "a mean over all C classes, impossible ones included",
    ("quadratic", "perfect_and_worst_reach_the_range"): "the worst of several classes is 1/C",
    ("ss", "perfect_and_worst_reach_the_range"): "false positives are shared among the absent classes",
    ("explog", "perfect_and_worst_reach_the_range"): "grows as the power 0.3 of a logarithm: not past 10 here",
    ("power_ce", "perfect_and_worst_reach_the_range"): "grows as the power 0.3 of a logarithm: not past 10 here",
    ("log_dice", "perfect_and_worst_reach_the_range"): "grows as the power 0.3 of a logarithm: not past 10 here",
    ("entropy", "perfect_and_worst_reach_the_range"): "knows no truth: any certain answer is perfect, uniform is worst",
    ("conservative", "perfect_and_worst_reach_the_range"): "is not 0 when perfect but at p = 1/a: test_identities",
    **{
        (name, "fused_serves_hard_targets"): "no kernel writes p, or −ln p, of every class at every pixel"
        for name in ("entropy", "active_contour", "boundary_f1", "nonadjacency")
    },
    **{
        (name, "impossible_classes_have_no_gradient"): "its channels do not compete: −inf elsewhere is no certainty"
        for name in ("dice2", "lovasz_hinge")
    },
    ("dice2", "perfect_and_worst_reach_the_range"): "one class against several others shares its false positives",
    ("combo", "tiny_errors_are_seen"): "is −½ near perfection",
    ("boundary", "perfect_and_worst_reach_the_range"): "perfect is below 0, and how far depends on the image",
    ("hausdorff", "perfect_and_worst_reach_the_range"): "its worst grows with the image, not with the logits",
    ("active_contour", "perfect_and_worst_reach_the_range"): "perfect is the length of the contour, not 0",
    ("active_contour", "tiny_errors_are_seen"): "perfect is the length of the contour: near it the loss is not small",
    ("active_contour", "half_precision_is_rounding"): "where p is flat, ∂p / √ε shows the rounding of p to float32",
    ("boundary_f1", "perfect_and_worst_reach_the_range"): "wrong labels have their boundaries where the right ones do",
    ("boundary_f1", "tiny_errors_are_seen"): "a soft boundary is a difference of two probabilities near 1",
    ("nonadjacency", "class_names_do_not_matter"): PAIRS,
    ("nonadjacency", "impossible_classes_have_no_gradient"): PAIRS,
    ("nonadjacency", "ignoring_is_deleting"): UNSUPERVISED,
    ("nonadjacency", "ignoring_a_channel_is_leaving_it_out"): UNSUPERVISED,
    ("nonadjacency", "ignored_pixels_are_inert"): UNSUPERVISED,
    ("nonadjacency", "labels_out_of_range_are_seen"): UNSUPERVISED,
    ("nonadjacency", "nan_in_a_weight_is_seen"): UNSUPERVISED + "; weights of images are in test_spatial.py",
    ("nonadjacency", "weight_0_is_ignoring"): UNSUPERVISED + "; weights of images are in test_spatial.py",
    ("nonadjacency", "perfect_and_worst_reach_the_range"): UNSUPERVISED,
    ("nonadjacency", "degenerate_inputs_are_finite"): UNSUPERVISED + "; finite it is, in test_spatial.py",
    ("nonadjacency", "tiny_errors_are_seen"): UNSUPERVISED,
    ("lovasz_hinge", "tiny_errors_are_seen"): "exactly 0 once every margin is 1",
}
HOLDS: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = {  # where it has the property all the same
    ("boundary_ce", "pixel_order_does_not_matter"): {"problem": ("three classes, 3-D",)},  # all pixels are near others
    ("topk", "weight_2_is_repeating_the_sample"): {"problem": ("two classes, 1-D", "classification")},  # k = 1
    **{(name, "perfect_and_worst_reach_the_range"): {"channels": (1, 2)} for name in ("quadratic", "ss", "dice2")},
    **{
        ("nonadjacency", name): {"problem": ("classification",)}  # nothing has a neighbour
        for name in ("weight_0_is_ignoring", "nan_in_a_weight_is_seen")
    },
    ("wce", "gradgradcheck"): {  # the difference is below its tolerance
        "problem": ("five classes, 2-D", "three classes, 3-D", "soft labels")
    },
}

by_row = with_rows()
by_class_loss = pytest.mark.parametrize(
    "row", [row for row in ROWS if issubclass(row.cls, ClassLoss) and row.family != "sum"], ids=lambda row: row.name
)
by_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name.replace(" ", "-"))
hard = [p for p in PROBLEMS if not p.target.is_floating_point()]
by_hard_problem = pytest.mark.parametrize("problem", hard, ids=lambda p: p.name.replace(" ", "-"))
soft = [p for p in PROBLEMS if p.target.is_floating_point()]
by_soft_problem = pytest.mark.parametrize("problem", soft, ids=lambda p: p.name.replace(" ", "-"))


@pytest.fixture(autouse=True)
def _exemptions(request: pytest.FixtureRequest) -> None:
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    row, problem = params.get("row"), params.get("problem")
    if row and problem and problem.task not in row.cls.tasks:
        pytest.skip(f"{row.name} is not defined for {problem.task} targets: test_errors")
    if row:
        about = row.name, request.node.originalname.removeprefix("test_")
        named = {name: value.name if isinstance(value, Problem) else value for name, value in params.items()}
        if about in EXEMPT and not any(named[name] in values for name, values in HOLDS.get(about, {}).items()):
            request.node.add_marker(pytest.mark.xfail(reason=EXEMPT[about], strict=True))


def rotated(options: list[Any], row: Any, number: int) -> Any:
    """One of the options, another for the next loss and the next number: all of them times all would take an hour."""
    return options[(ROWS.index(row) + number) % len(options)]


def valued(loss: ls.Loss, logits: Tensor, target: Tensor, **call: Any) -> tuple[Tensor, Tensor]:
    """The value and the gradient of its sum."""
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(logits, target, **call)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def same(a: Tensor, b: Tensor, engine: str) -> None:
    """What no rounding but that of the order of sums may tell apart: 1e-10 in float64. In float32 each side is rounded
    where it is written, and what it is made of was: 2 steps each."""
    close(a, b, 1e-10 if engine == "plain" else 4 * torch.finfo(torch.float32).eps)


def problem(name: str) -> Problem:
    return next(p for p in PROBLEMS if p.name == name)


@functools.cache
def reference(name: str, problem_name: str, text: str, number: int) -> Tensor:
    """The slow answer to a problem, its loss given as text and its call by number: asked for by many tests."""
    p, loss = problem(problem_name), ls.parse(text)
    settings = {k: v for k, v in loss.settings().items() if k != "task"}
    call = calls(p, type(loss))[number]
    given = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in call.items()}
    value = REFERENCES[name](p.logits.numpy(), p.target.numpy(), task=p.task, **settings, **given)
    return torch.as_tensor(np.asarray(value), dtype=torch.float64)


# ---- the value is right ---------------------------------------------------------------------------------------------


@pytest.mark.one_in(2)
@by_row
@by_problem
def test_value_is_the_reference(row, problem, engine):
    """In float64 to 1e-10, in float32 with either engine to 2e-6, for every knob, setting and weight."""
    n_classes = problem.logits.shape[1]
    for more in [*shared_settings(problem, row.cls), *nudges(row.cls, problem.task, n_classes, problem.axes)]:
        loss = build(row, problem, **more)
        for number, call in enumerate(calls(problem, row.cls)):
            if not fits(more, call):
                continue
            expected = reference(row.name, problem.name, repr(loss), number)
            exact = 1e-7 if "distance" in row.cls.takes else 1e-10  # distance maps are float32
            both = [(torch.float32, 2e-6), (torch.float64, exact)]
            for dtype, tolerance in both[: 2 if engine == "plain" else 1]:  # the kernels take no float64
                value = loss(problem.logits.to(dtype), problem.target, **call)
                assert value.dtype == dtype
                assert value.shape == expected.shape, (more, call)
                torch.testing.assert_close(
                    value.double(), expected, rtol=tolerance, atol=tolerance, msg=lambda m, s=(more, call): f"{s}: {m}"
                )


@by_row
@by_problem
def test_gradcheck(row, problem):
    for more in [{}, *nudges(row.cls, problem.task, problem.logits.shape[1], problem.axes)]:
        loss = build(row, problem, **more)
        logits = problem.logits[:2].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda z, f=loss: f(z, problem.target[:2]), logits, fast_mode=True)


@pytest.mark.one_in(5)
@by_row
@by_problem
def test_fused_is_plain(row, problem):
    """In value and gradient, for every setting and weight: no further from plain in float64 than rounding, or than
    twice what plain is in the same dtype, where torch's softmax is off by up to 20 steps."""
    dtype = rotated([torch.float32, torch.bfloat16, torch.float16], row, PROBLEMS.index(problem))
    logits = problem.logits.to(dtype)
    for more in [
        *shared_settings(problem, row.cls),
        *nudges(row.cls, problem.task, problem.logits.shape[1], problem.axes),
    ]:
        loss = build(row, problem, **more)
        for call in (c for c in calls(problem, row.cls) if fits(more, c)):
            with ls.use_engine("plain"):
                value, gradient = valued(loss, logits.double(), problem.target, **call)
                narrow, narrow_gradient = valued(loss, logits, problem.target, **call)
            with ls.use_engine("auto"):
                fused, fused_gradient = valued(loss, logits, problem.target, **call)
            close(fused, value, max(2e-6, 2 * float((narrow - value).abs().max())))
            allowed = 2 * float((narrow_gradient - gradient).abs().max())
            gradient = gradient.to(dtype)
            step = max(torch.finfo(dtype).eps, 2e-6)
            last = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # one step among the smallest numbers
            atol = max(2e-6 * float(gradient.abs().max()), last, allowed)
            torch.testing.assert_close(fused_gradient, gradient, rtol=2 * step, atol=atol)


@by_row
def test_fused_serves_hard_targets(row, answered):
    """ "auto" may fall back without a word; this shows that it does not have to."""
    with ls.use_engine("fused"):
        for p in hard:
            build(row, p, **({"bins": 1, "per_image": False} if "bins" in row.cls.fields else {}))(
                p.logits.float(), p.target
            )
    assert {name for name, _ in answered} == {"numba"}


@by_row
def test_the_engine_of_a_property_is_the_one_it_names(row, engine, answered):
    """With "fused" the kernels answer, at least what is summed over pixels."""
    logits = logits_of(2, 3, 4, 5).to(REAL[engine])
    make(row, logits, **IGNORE, task="multilabel")(logits, labels_of(2, 2, 3, 4, 5))
    names = {name for name, _ in answered}
    if engine == "plain":
        assert names == {"plain"}
    elif (row.name, "fused_serves_hard_targets") not in EXEMPT:
        assert {"fused": "numba", "triton": "triton"}[engine] in names


@by_row
@by_hard_problem
def test_layout_does_not_matter(row, problem, engine):
    layout = rotated(["channels last", "sliced", "transposed", "offset"], row, PROBLEMS.index(problem))
    logits, target = problem.logits.float(), problem.target
    expected, expected_gradient = valued(build(row, problem), logits, target)
    if layout == "channels last":
        other = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "sliced":
        wide = torch.full([s + 2 for s in logits.shape], torch.nan)
        other = wide[tuple(slice(1, s + 1) for s in logits.shape)]
        other.copy_(logits)
    elif layout == "transposed":
        other = logits.transpose(0, -1).contiguous().transpose(0, -1)
    else:
        other = torch.cat([torch.full((1,), torch.nan), logits.flatten()])[1:].reshape(logits.shape)
    assert torch.equal(other, logits)
    value, gradient = valued(build(row, problem), other, target)
    close(value, expected, 1e-6)
    close(gradient, expected_gradient, 1e-6)


@by_row
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool], ids=str)
def test_labels_of_any_integer_type(row, dtype, engine):
    for shape in [(2, 1, 3, 5), (2, 2, 3, 5)]:
        logits, labels = logits_of(*shape).float(), labels_of(2, 2, 3, 5, ignore=False)
        close(make(row, logits)(logits, labels.to(dtype)), make(row, logits)(logits, labels), 0.0)


@by_row
def test_labels_are_widened_before_they_are_compared(row, engine):
    """A uint8 156 is not −100, and 0 is not 256, also where values of pixels are asked for."""
    logits, labels = logits_of(1, 200, 2).float(), torch.tensor([[156, 0]])
    for reduction in get_args(row.cls.hints["reduction"]):
        for ignore in (-100, 256):
            loss = make(row, logits, reduction=reduction, ignore_index=ignore)
            close(loss(logits, labels.to(torch.uint8)), loss(logits, labels), 0.0)


@by_row
def test_settings_keep_their_digits(row, engine):
    """In float64 as they were given; `.half()` on the loss, or on a model that contains it, does not round them."""
    logits, labels = logits_of(2, 3, 5).to(REAL[engine]), labels_of(3, 2, 5)
    for name in ("class_weight", "alpha"):
        hint = row.cls.hints.get(name)
        if Tensor in (hint, *get_args(hint)):
            values = [1e5, 0.1, 1 / 3]
            exact = make(row, logits, **{name: torch.tensor(values, dtype=torch.float64)}, **IGNORE)(logits, labels)
            for loss in (
                make(row, logits, **{name: values}, **IGNORE),
                make(row, logits, **{name: np.array(values)}, **IGNORE).half(),
            ):
                close(loss(logits, labels), exact, 0.0)
                assert ls.parse(repr(loss)).settings() == loss.settings()


# ---- symmetries: what must change nothing ---------------------------------------------------------------------------


@by_row
@by_hard_problem
def test_pixel_order_does_not_matter(row, problem, engine):
    if problem.logits.ndim < 3:
        pytest.skip("no pixels to permute")
    space = problem.logits.shape[2:]
    order = torch.randperm(math.prod(space))

    def permuted(x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(space)]
        return x.reshape(*lead, -1)[..., order].reshape(*lead, *space)

    loss, logits = build(row, problem), problem.logits.to(REAL[engine])
    same(loss(permuted(logits), permuted(problem.target)), loss(logits, problem.target), engine)


@by_row
def test_class_names_do_not_matter(row, engine):
    logits, labels = logits_of(2, 4, 5, 6), labels_of(4, 2, 5, 6)
    order = torch.tensor([2, 0, 3, 1])  # none keeps its name
    place = order.argsort()
    renamed = torch.where(labels == IGNORED, IGNORED, place[labels.clamp(max=3)])
    loss = make(row, logits, **IGNORE)
    for dtype, tolerance in [(torch.float64, 1e-10), (torch.float32, 2e-6)]:
        z = logits.to(dtype)
        close(loss(z[:, order], renamed), loss(z, labels), tolerance)


@by_row
def test_image_order_does_not_matter(row, engine):
    logits, labels = logits_of(3, 4, 5, 6).to(REAL[engine]), labels_of(4, 3, 5, 6)
    loss = make(row, logits, **IGNORE)
    same(loss(logits.flip(0), labels.flip(0)), loss(logits, labels), engine)


@by_row
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_ignoring_is_deleting(row, channels, engine):
    logits = logits_of(2, channels, 4, 6).to(REAL[engine])
    labels = labels_of(max(channels, 2), 2, 4, 6, ignore=False)
    hidden = labels.clone()
    hidden[:, :, 4:] = IGNORED
    loss = make(row, logits, **IGNORE)
    value, gradient = valued(loss, logits, hidden)
    cropped, cropped_gradient = valued(loss, logits[..., :4].contiguous(), labels[:, :, :4])
    same(value, cropped, engine)
    same(gradient[..., :4], cropped_gradient, engine)


@by_row
def test_ignoring_a_channel_is_leaving_it_out(row, engine):
    """In the whole batch, or in one image: then each image has the channels that it has."""
    logits, yes = logits_of(2, 3, 8, 8), labels_of(2, 2, 3, 8, 8, ignore=False)
    everywhere, once = yes.clone(), yes.clone()
    everywhere[:, 1] = IGNORED
    once[0, 1] = IGNORED
    skip = {"absent": "skip"} if "absent" in row.cls.fields else {}
    pooled = {"per_image": False} if "per_image" in row.cls.fields else {}
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
        z = logits.to(dtype)
        for more in ({}, skip, pooled):
            loss = make(row, logits, task="multilabel", **IGNORE, **more)
            value, gradient = valued(loss, z, everywhere)
            expected, expected_gradient = valued(loss, z[:, [0, 2]], yes[:, [0, 2]])
            close(value, expected, tolerance)
            close(gradient[:, [0, 2]], expected_gradient, tolerance)
            assert (gradient[:, 1] == 0).all()


@by_class_loss
def test_ignoring_a_channel_in_one_image(row, engine):
    """Each image has the channels that it has; one without any that is asked for leaves the mean."""
    logits, yes = logits_of(2, 3, 8, 8), labels_of(2, 2, 3, 8, 8, ignore=False)
    once = yes.clone()
    once[0, 1] = IGNORED
    each = {"per_image": True} if "per_image" in row.cls.fields else {}
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
        z, loss = logits.to(dtype), make(row, logits, task="multilabel", **IGNORE, **each)
        alone = [loss(z[:1, [0, 2]], yes[:1, [0, 2]]), loss(z[1:], yes[1:])]
        close(loss(z, once), torch.stack(alone).mean(), tolerance)
        only = make(row, logits, task="multilabel", **IGNORE, **each, classes=(1,))
        close(only(z, once), only(z[1:], yes[1:]), tolerance)


@by_row
@by_hard_problem
def test_ignored_pixels_are_inert(row, problem, engine):
    """Whatever their logits are; their gradient is exactly 0."""
    if problem.settings.get("ignore_index") is None:
        pytest.skip("nothing is ignored here")
    target = problem.target
    hidden = target == IGNORED
    if hidden.ndim == problem.logits.ndim:
        hidden = hidden.expand(problem.logits.shape)
    else:
        hidden = hidden.unsqueeze(1).expand(problem.logits.shape)
    assert hidden.any()
    for number, dtype in enumerate((torch.float64, torch.float32, torch.bfloat16)):
        filler = rotated([math.nan, math.inf, -math.inf, 1e30], row, PROBLEMS.index(problem) + number)
        clean = problem.logits.to(dtype)
        value, gradient = valued(build(row, problem), clean, target)
        dirty, dirty_gradient = valued(build(row, problem), clean.masked_fill(hidden, filler), target)
        assert torch.equal(value, dirty)
        assert torch.equal(gradient, dirty_gradient)
        assert (dirty_gradient[hidden] == 0).all()


@by_row
@by_hard_problem
def test_weight_0_is_ignoring(row, problem, engine):
    """Per pixel and per sample, NaN logits included."""
    n, _, *space = problem.logits.shape
    loss = build(row, problem)
    weight = torch.ones(n)
    weight[0] = 0
    for dtype in (torch.float64, torch.float32):
        logits = problem.logits.to(dtype)
        broken = logits.clone()
        broken[0] = math.nan
        value, gradient = valued(loss, broken, problem.target, weight=weight)
        close(value, loss(logits[1:], problem.target[1:]), 1e-6)
        assert (gradient[0] == 0).all()
        if space:
            pixel = torch.ones(n, *space)
            pixel[0] = 0
            value, gradient = valued(loss, broken, problem.target, weight=pixel)
            close(value, loss(logits[1:], problem.target[1:]), 1e-6)
            assert (gradient[0] == 0).all()


@by_row
@by_soft_problem
def test_targets_of_weight_0_are_inert(row, problem, engine):
    """Whatever a map of the target holds there."""
    n, _, *space = problem.logits.shape
    hidden = torch.zeros(n, *space, dtype=torch.bool)
    hidden[0, 1], hidden[1] = True, True
    weight = torch.ones(n)
    weight[1] = 0
    for number, dtype in enumerate((torch.float64, torch.float32, torch.bfloat16)):
        filler = rotated([math.nan, math.inf, -math.inf, 7.0], row, PROBLEMS.index(problem) + number)
        logits, loss = problem.logits.to(dtype), build(row, problem)
        for given, at in (((~hidden).float(), hidden), (weight, hidden & (weight == 0)[:, None, None])):
            call = {"weight": given}
            value, gradient = valued(loss, logits, problem.target, **call)
            dirty = problem.target.masked_fill(at.unsqueeze(1), filler)
            found, found_gradient = valued(loss, logits, dirty, **call)
            assert torch.equal(found, value)
            assert torch.equal(found_gradient, gradient)


@by_row
@by_problem
def test_weight_2_is_repeating_the_sample(row, problem, engine):
    n, logits = len(problem.logits), problem.logits.to(REAL[engine])
    weight = torch.ones(n, dtype=torch.float64)
    weight[1] = 2
    repeated = [0, *range(1, n), 1]
    for reduction in ("mean", "sum"):
        loss = build(row, problem, reduction=reduction)
        expected = loss(logits[repeated], problem.target[repeated])
        same(loss(logits, problem.target, weight=weight), expected, engine)


@by_row
def test_soft_targets_at_0_and_1_are_labels(row, engine):
    labels = labels_of(3, 2, 4, 5, ignore=False)
    one_hot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    logits = logits_of(2, 3, 4, 5).to(REAL[engine])
    if "multiclass" in row.cls.tasks:
        soft = make(row, logits, task="multiclass")
        same(soft(logits, one_hot.double()), make(row, logits)(logits, labels), engine)
        same(soft(logits, one_hot), make(row, logits)(logits, labels), engine)
    many = make(row, logits, task="multilabel")
    same(many(logits, one_hot.double()), many(logits, labels), engine)
    binary, truth = logits[:, :1], labels.clamp(max=1)
    one = make(row, binary)
    same(one(binary, truth.unsqueeze(1).double()), one(binary, truth), engine)


@by_row
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_soft_targets_just_outside_are_at_0_and_1(row, task, engine):
    """Interpolation and normalisation leave [0, 1] by a little: eagerly and under vmap it is as if they had not."""
    if task not in row.cls.tasks:
        pytest.skip(f"{row.name} is not defined for {task} targets: test_errors")
    labels, channels = labels_of(3, 2, 8, 8, ignore=False), 1 if task == "binary" else 4  # class 3 is absent
    labels = labels.clamp(max=1) if task == "binary" else labels
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).double()
    target = labels.unsqueeze(1).double() if task == "binary" else one_hot
    outside = target + torch.where(target == 1, 1e-5, -1e-5)
    for dtype in (torch.float64, torch.float32):
        for logits in (logits_of(2, channels, 8, 8).to(dtype), certain(labels, channels, 40.0).to(dtype)):
            loss = make(row, logits, task=task)
            value, gradient = valued(loss, logits, target)
            found, found_gradient = valued(loss, logits, outside)
            close(found, value, 1e-12)
            close(found_gradient, gradient, 1e-12)
            one = make(row, logits, task=task, reduction="sum")
            many = torch.func.vmap(lambda z, r, f=one: f(z[None], r[None]))
            close(many(logits, outside), many(logits, target), 1e-12)


# ---- knobs ----------------------------------------------------------------------------------------------------------


@by_row
def test_every_knob_changes_the_value(row, engine):
    """On a case where a class is absent, and one image is emptier than the other."""
    logits = logits_of(2, 4, 9, 9).to(REAL[engine])
    labels = labels_of(3, 2, 9, 9)
    changes = nudges(row.cls, "multiclass", 4)
    binary = logits[:, :1], labels.masked_fill(labels == 2, 1)
    knobs = {name for change in nudges(row.cls, "binary", 2) + changes for name in change}
    own = set(row.cls.fields) - {"ignore_index", "class_weight", "task", "reduction", "per_image", "classes"}
    assert knobs >= own - {"include_background"}, "some settings are never tried"

    def steps(z: Tensor, y: Tensor, some: list[dict[str, Any]], change: dict[str, Any]) -> Iterator[float]:
        for other in [{}, *(other for other in some if other.keys() != change.keys())]:  # some matter beside another
            before, after = (make(row, z, **IGNORE, **other, **more)(z, y) for more in ({}, change))
            yield float((after - before).abs() / before.abs().clamp(min=1))

    for z, y, some in ((logits, labels, changes), (*binary, nudges(row.cls, "binary", 2))):
        for change in some:
            if z.shape[1] > 1 or change.keys() != {"absent"}:
                seen = any(step > 0 for step in steps(z, y, some, change))
                assert seen or engine != "plain", change
                if not seen:  # what float64 shows may be less than a step of float32
                    assert 0 < max(steps(z.double(), y, some, change)) < torch.finfo(torch.float32).eps, change


@by_row
def test_no_two_knobs_can_be_exchanged(row, engine):
    """Two numbers handed to the wrong knobs give another value."""
    logits, labels = logits_of(2, 3, 6, 6).to(REAL[engine]), labels_of(3, 2, 6, 6)
    numbers = [k for k, v in row.cls.fields.items() if isinstance(v, float) and not isinstance(v, bool)]
    for a, b in pairs(numbers):
        fit = [get_args(row.cls.hints[knob])[1] for knob in (a, b)]
        x, y = next((x, y) for x, y in [(0.2, 0.9), (1.2, 1.9)] if all(x in span and y in span for span in fit))
        one, other = make(row, logits, **{a: x, b: y}), make(row, logits, **{a: y, b: x})
        assert one(logits, labels.clamp(max=2)) != other(logits, labels.clamp(max=2)), (a, b)


@by_row
def test_shared_settings_change_the_value(row, engine):
    logits, labels = logits_of(3, 4, 6, 6).to(REAL[engine]), labels_of(4, 3, 6, 6)
    labels[0, :4] = IGNORED
    changes: dict[str, Any] = {
        "class_weight": [0.5, 1.0, 2.0, 3.0],
        "reduction": "sum",
        "per_image": not row.cls.fields.get("per_image", True),
        "classes": [1, 2],
        **({"task": "multilabel", "include_background": False} if "multiclass" in row.cls.tasks else {}),
    }
    for name, value in changes.items():
        if name in row.cls.fields:
            one_by_one = {"per_image": True} if name == "reduction" and "per_image" in row.cls.fields else {}
            base = make(row, logits, **IGNORE, **one_by_one)(logits, labels)
            assert make(row, logits, **{**IGNORE, **one_by_one, name: value})(logits, labels) != base, name


# ---- ranges and extremes --------------------------------------------------------------------------------------------


def certain(labels: Tensor, channels: int, size: float, right: bool = True) -> Tensor:
    """Logits that are sure of the labels, or sure of something else."""
    if channels == 1:
        return (size * (labels.double() * 2 - 1) * (1 if right else -1)).unsqueeze(1)
    shown = labels if right else (labels + 1) % channels
    return size * (torch.nn.functional.one_hot(shown, channels).movedim(-1, 1).double() - 0.5)  # sure of no as well


@by_row
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_perfect_and_worst_reach_the_range(row, channels, engine):
    labels = labels_of(max(channels, 2), 2, 24, 24, ignore=False)
    low, high = row.range
    for dtype in (torch.float64, torch.float32):
        right, wrong = (certain(labels, channels, 80.0, right).to(dtype) for right in (True, False))
        loss = make(row, right)
        perfect, worst = loss(right, labels), loss(wrong, labels)
        torch.testing.assert_close(float(perfect), low, rtol=0, atol=1e-6)
        if math.isfinite(high):
            assert high - 0.02 < worst <= high  # 1 − ε/(...) for the default smoothing
        else:
            assert worst > 10


@by_row
def test_range_holds_on_random_problems(row, engine):
    low, high = row.range
    for seed in range(20):
        logits, labels = logits_of(2, 3, 5, 5, seed=seed, scale=5.0), labels_of(3, 2, 5, 5, seed=seed)
        value = make(row, logits, **IGNORE)(logits.to(REAL[engine]), labels)
        slack = 1e-12 if engine == "plain" else torch.finfo(torch.float32).eps  # a rounding at 1
        assert low - slack <= value <= high + slack


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@by_row
@pytest.mark.parametrize("channels", [1, 2, 3, 150])
def test_degenerate_inputs_are_finite(row, channels, engine):
    dtype = rotated(DTYPES, row, channels + (engine != "plain"))
    """No NaN and no infinity, in value and gradient, whatever is empty."""
    classes = max(channels, 2)
    labels = labels_of(classes, 2, 6, 7, ignore=False)
    half_ignored = labels.clone()
    half_ignored[0] = IGNORED
    targets = {
        "all ignored": torch.full_like(labels, IGNORED),
        "one image ignored": half_ignored,
        "empty": torch.zeros_like(labels),
        "full": torch.ones_like(labels),
        "one class": torch.full_like(labels, classes - 1),
        "as they are": labels,
    }
    least = get_args(row.cls.hints["smooth"])[1].low if "smooth" in row.cls.fields else 0.0
    settings: list[dict[str, Any]] = [{}, {"per_image": False}, {"absent": "skip"}, {"smooth": least}, {"gamma": 0.5}]
    for name, target in targets.items():
        for more in [s for s in settings if s.keys() <= row.cls.fields.keys()]:
            for scale in (0.0, 1.0, 1e4):
                logits = (logits_of(2, channels, 6, 7, scale=1.0).clamp(-1, 1) * scale).to(dtype)
                loss = make(row, logits, ignore_index=IGNORED, **more)
                value, gradient = valued(loss, logits, target)
                assert value.isfinite(), (name, more, scale)
                assert gradient.isfinite().all(), (name, more, scale)
                assert gradient.dtype == dtype
                if name == "all ignored":
                    assert value == 0
                    assert (gradient == 0).all()
    for shape in [(0, channels, 4, 4), (2, channels, 0, 4), (0, channels), (1, channels), (1, channels, 1)]:
        logits = torch.ones(shape, dtype=dtype)
        target = torch.zeros(shape[0], *shape[2:], dtype=torch.long)
        value, gradient = valued(make(row, logits), logits, target)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert logits.numel() or value == 0


@by_row
@by_dtype
@pytest.mark.parametrize("channels", [1, 3])
def test_large_logits_are_exact(row, dtype, channels, engine):
    """±1e4: right or wrong beyond doubt, and the loss says by how much."""
    labels = labels_of(max(channels, 2), 2, 5, 5, ignore=False)
    for right in (True, False):
        logits = certain(labels, channels, 1e4, right).to(dtype)
        task = "binary" if channels == 1 else "multiclass"
        settings = {"task": task} | needed(row.cls, logits)
        expected = REFERENCES[row.name](logits.double().numpy(), labels.numpy(), **settings)
        close(make(row, logits)(logits, labels), torch.tensor(expected), 2e-6)


@by_row
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_half_precision_is_rounding(row, dtype, channels, engine):
    """No worse than the float64 answer to the same half-precision logits, rounded."""
    logits = logits_of(2, channels, 9, 31).to(dtype)
    labels = labels_of(max(channels, 2), 2, 9, 31)
    value, gradient = valued(make(row, logits, **IGNORE), logits, labels)
    exact, exact_gradient = valued(make(row, logits, **IGNORE), logits.double(), labels)
    close(value, exact, 1e-6)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    rounded = exact_gradient.to(dtype)
    spacing = torch.maximum(rounded.abs().float() * torch.finfo(dtype).eps, torch.tensor(2.0**-24))
    assert ((gradient.float() - rounded.float()).abs() <= spacing).all()


@by_row
def test_float16_on_a_large_image(row, engine):
    """Sums of many pixels pass 65504, the largest float16."""
    logits, labels = logits_of(1, 3, 300, 300, scale=0.5).half(), labels_of(3, 1, 300, 300)
    close(make(row, logits, **IGNORE)(logits, labels), make(row, logits, **IGNORE)(logits.double(), labels), 1e-6)


@by_row
@by_dtype
def test_impossible_classes_have_no_gradient(row, dtype, engine):
    """−inf in a class that is not the target is probability 0, not NaN."""
    labels = labels_of(3, 2, 4, 5)
    logits = torch.cat([logits_of(2, 3, 4, 5), torch.full((2, 2, 4, 5), -math.inf)], 1).to(dtype)
    classes = {"classes": (0, 1, 2)} if "classes" in row.cls.fields else {}
    value, gradient = valued(make(row, logits, **IGNORE, **classes), logits, labels)
    plain_value, plain_gradient = valued(make(row, logits[:, :3], **IGNORE), logits[:, :3], labels)
    close(value, plain_value, 2e-6)
    torch.testing.assert_close(gradient[:, :3], plain_gradient)
    assert (gradient[:, 3:] == 0).all()
    only = torch.full((1, 3, 2), -math.inf, dtype=dtype)
    only[:, 1] = 0
    value, gradient = valued(make(row, only), only, torch.ones(1, 2, dtype=torch.long))
    assert value.isfinite()
    assert (gradient == 0).all()


@by_row
@by_hard_problem
def test_nan_in_a_valid_pixel_stays_visible(row, problem, engine):
    dtype = rotated(DTYPES, row, PROBLEMS.index(problem))
    logits = problem.logits.to(dtype, copy=True)
    shown = (problem.target != IGNORED).nonzero()[0]
    at = shown.tolist() if problem.target.ndim == logits.ndim else [shown[0], 0, *shown[1:].tolist()]
    if problem.target.ndim == logits.ndim and problem.target.shape[1] == 1:
        at[1] = 0
    logits[tuple(at)] = math.nan
    for more in allowed([{}, {"reduction": "none"}, {"absent": "skip"}, {"per_image": False}], row.cls):
        assert build(row, problem, **more)(logits, problem.target).isnan().any(), more
    _, gradient = valued(build(row, problem), logits, problem.target)
    assert gradient.isnan().any()


@by_row
@by_hard_problem
@pytest.mark.parametrize("label", [99, -7])
def test_labels_out_of_range_are_seen(row, problem, label, engine):
    """As an error that names the loss; as NaN where looking would cost, like on an accelerator."""
    target = problem.target.clone()
    target.view(-1)[int((target.view(-1) != IGNORED).nonzero()[-1])] = label
    logits = problem.logits.float()
    knobs = nudges(row.cls, problem.task, logits.shape[1], problem.axes)
    for more in [{"reduction": reduction} for reduction in get_args(row.cls.hints["reduction"])] + knobs:
        if more.get("exponent") == 0:
            continue  # a constant: x ** 0 is 1, of NaN too
        loss = build(row, problem, **more)
        if engine == "triton":
            assert loss(logits, target).isnan().any(), more
            continue
        with pytest.raises(ValueError, match=f"{row.cls.__name__}: the target holds {label}"):
            loss(logits, target)
        assert torch.func.vmap(lambda z, y, f=loss: f(z[None], y[None]))(logits, target).isnan().any(), more


@by_row
@by_problem
def test_nan_in_a_weight_is_seen(row, problem, engine):
    """Of a pixel, and of an image; wherever it stands."""
    n, _, *space = problem.logits.shape
    hidden = problem.target == problem.settings.get("ignore_index", -100)
    hidden = hidden.reshape(n, -1, *space).all(1) if problem.target.ndim == problem.logits.ndim else hidden
    logits = problem.logits.to(rotated(DTYPES, row, PROBLEMS.index(problem)))
    for reduction in get_args(row.cls.hints["reduction"]):
        loss = build(row, problem, reduction=reduction)
        if space:
            for at in ((~hidden).nonzero()[[0, -1]]).tolist():
                weight = torch.ones(n, *space)
                weight[tuple(at)] = torch.nan
                assert loss(logits, problem.target, weight=weight).isnan().any(), reduction
        if reduction != "none":  # of classes, values are not multiplied by weights of images
            weight = torch.ones(n)
            weight[-1] = torch.nan
            assert loss(logits, problem.target, weight=weight).isnan(), reduction


@by_row
def test_tiny_errors_are_seen(row, engine):
    """Near perfection the loss is small, not 0, and so is its gradient: no digit is lost to 1 − p."""
    labels = labels_of(3, 1, 4, 4, ignore=False)
    logits = certain(labels, 3, 30.0)
    more = {"gamma": get_args(row.cls.hints["gamma"])[1].low} if "gamma" in row.cls.fields else {}
    value, gradient = valued(make(row, logits, **more), logits.float(), labels)
    exact, exact_gradient = valued(make(row, logits, **more), logits, labels)
    assert exact > 0
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-20)


# ---- torch ----------------------------------------------------------------------------------------------------------


@by_row
@by_problem
def test_double_backward(row, problem, engine):
    """Also from the kernels: the second derivative is that of the plain engine."""
    logits = problem.logits[:2].float().requires_grad_()
    loss = build(row, problem)

    def curvature() -> Tensor:
        (gradient,) = torch.autograd.grad(loss(logits, problem.target[:2]), logits, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), logits)[0]

    with ls.use_engine("plain"):
        expected = curvature()
    close(curvature(), expected, 1e-5)


@by_row
@by_problem
def test_gradgradcheck(row, problem):
    logits, target = problem.logits[:2].clone().requires_grad_(), problem.target[:2]
    assert torch.autograd.gradgradcheck(lambda z: build(row, problem)(z, target), logits, fast_mode=True)


@by_row
@by_problem
def test_vmap_of_grad(row, problem):
    """Per-sample gradients by torch.func, with the default engine."""
    loss = build(row, problem, reduction="sum")

    def one(z: Tensor, y: Tensor) -> Tensor:
        return loss(z.unsqueeze(0), y.unsqueeze(0))

    logits = problem.logits.float()
    found = torch.func.vmap(torch.func.grad(one))(logits, problem.target)
    expected = torch.stack([valued(loss, z[None], y[None])[1][0] for z, y in zip(logits, problem.target, strict=True)])
    close(found, expected, 2e-6)


COMPILED = ("binary", "five classes, 2-D", "soft labels", "multilabel")


def to_compile() -> Iterator[Any]:
    """Each loss on a problem of each kind; `make test` tries one of them, another for the next loss."""
    for row in ROWS:
        there = [name for name in COMPILED if problem(name).task in row.cls.tasks]
        tried = there[zlib.crc32(row.name.encode()) % len(there)]
        for name in there:
            yield pytest.param(row, name, id=f"{name}-{row.name}", marks=() if name == tried else pytest.mark.thorough)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "name"), list(to_compile()))
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_compile_without_graph_breaks(row, name):
    p = problem(name)
    loss = build(row, p)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value, gradient = valued(compiled, p.logits.float(), p.target)
    expected, expected_gradient = valued(loss, p.logits.float(), p.target)
    close(value, expected, 2e-6)
    close(gradient, expected_gradient, 2e-6)


@by_row
@by_hard_problem
def test_callers_tensors_stay_as_they_are(row, problem, engine):
    logits, target = problem.logits.float().requires_grad_(), problem.target.clone()
    weight = torch.rand(len(target))
    before = logits.detach().clone(), target.clone(), weight.clone()
    build(row, problem)(logits, target, weight=weight).backward()
    for now, then in zip((logits.detach(), target, weight), before, strict=True):
        assert torch.equal(now, then)


@by_row
def test_it_is_a_module(row, engine):
    """Deepcopy, pickle, state_dict, .to(): a loss is a module without persistent state."""
    more = {"class_weight": [1.0, 2.0, 3.0]} if "class_weight" in row.cls.fields else {}
    logits, labels = logits_of(2, 3, 4).to(REAL[engine]), labels_of(3, 2, 4)
    loss = make(row, logits, **more, **IGNORE)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss.to(torch.float64)):
        close(other(logits, labels), loss(logits, labels), 0.0)
    assert not loss.state_dict()


# ---- names ----------------------------------------------------------------------------------------------------------


@by_row
@by_hard_problem
def test_parts_add_up(row, problem, engine):
    nudged = nudges(row.cls, problem.task, problem.logits.shape[1], problem.axes) or [{}]
    loss, logits = build(row, problem) + 0.5 * build(row, problem, **nudged[0]), problem.logits.to(REAL[engine])
    parts = loss.parts(logits, problem.target)
    names = [term.name for _, term in loss.terms]  # a recipe has several
    assert list(parts) == [name if at < len(names) // 2 else f"{name}_2" for at, name in enumerate(names)]
    same(sum(parts.values()), loss(logits, problem.target), engine)
    assert not any(part.requires_grad for part in parts.values())


@by_row
def test_repr_reads_back(row):
    for more in [{}, {"ignore_index": 3}, {"reduction": "sum"}, *nudges(row.cls, "multiclass", 3)]:
        loss = row.cls(**more)
        again = ls.parse(repr(loss))
        assert type(again) is type(loss)
        assert again.settings() == loss.settings()
        assert ls.parse(row.name).settings() == row.cls().settings()


@by_row
def test_it_is_documented(row):
    """One line, the formula, the arguments, range, limits, paper, and an example that runs."""
    text = row.cls.__doc__ or ""
    for section in ("Range:", "Limits:", "Paper:", ">>>"):
        assert section in text, section
    for name in row.cls.fields:
        if name not in SHARED:
            assert re.search(rf"\b{name}\b.*:", text), f"{name} is not explained"
    assert row.paper
    assert row.summary.endswith(".")
    assert getattr(ls, row.cls.__name__) is row.cls


def test_every_loss_has_a_reference():
    assert {row.name for row in ROWS} <= REFERENCES.keys()


def test_exemptions_are_of_something():
    """That they are needed is seen where they are used."""
    names = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    for loss, name in EXEMPT | HOLDS:
        assert loss in {row.name for row in ROWS}
        assert name in names
    assert HOLDS.keys() <= EXEMPT.keys()
