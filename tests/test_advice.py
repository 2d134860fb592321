"""What an error advises is right: every hint of the library is provoked, read, followed, and its outcome checked.

A case is a hint as it stands in the source, with {} where something is filled in; a call that is wrong; and calls that
do what the hint says. The last test reads the source: a hint that is new, or has other words, needs a case here. The
lab's hints are in tests/lab/test_advice_lab.py, those of the peers' names in tests/compat.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lossmith as ls
from lossmith.settings import nearest
from problems import labels_of, logits_of

Z, Y = logits_of(2, 3, 4, 5), labels_of(3, 2, 4, 5, ignore=False)
ONE, YES = logits_of(2, 1, 4, 5), labels_of(2, 2, 4, 5, ignore=False)
A, B = torch.rand(3, 4) + torch.tensor([0, 0, 1, 1]), torch.rand(3, 4) + torch.tensor([0, 0, 1, 1])
DICE, CE = ls.DiceLoss(), ls.CrossEntropyLoss()
SETS = [(torch.zeros(4, 5), torch.zeros(4, 5, dtype=torch.long)) for _ in range(2)]

CASES: list[Any] = []


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), check_dtype=False)


def case(hint: str, wrong: Callable[[], Any], *right: Callable[[], Any]) -> None:
    """`right`: one call for each way out that the hint names; it asserts what comes out."""
    assert right
    CASES.append(pytest.param(hint, wrong, right, id=hint[:60]))


# ---- shapes and dtypes of dense losses ------------------------------------------------------------------------------

case(
    "the target must be a tensor, got {}; call loss(logits, target)",
    lambda: DICE(Z),
    lambda: same(DICE(Z, Y), ls.parse("dice")(Z, Y)),
)
case(
    "{}: {} on {}, the {} on {}; move one of them",
    lambda: DICE(Z, Y.to("meta")),
    lambda: DICE(Z, Y),
    lambda: DICE(Z.to("meta"), Y.to("meta")),
)
case(
    "{}: {} on {}, the {} on {}; move one of them",
    lambda: DICE(Z, Y, weight=torch.ones(2, device="meta")),
    lambda: same(DICE(Z, Y, weight=torch.ones(2)), DICE(Z, Y)),
)
case(
    "which is always binary, but the loss was built with task='multiclass'; use two channels, or drop the task",
    lambda: ls.FocalLoss(task="multiclass")(ONE, YES),
    lambda: same(
        ls.FocalLoss(task="multiclass")(torch.cat([torch.zeros_like(ONE), ONE], 1), YES), ls.FocalLoss()(ONE, YES)
    ),
    lambda: same(ls.FocalLoss()(ONE, YES), ls.FocalLoss(task="binary")(ONE, YES)),
)
case(
    "task='binary' needs logits with one channel, got {}; use task='multilabel' for independent channels",
    lambda: ls.CrossEntropyLoss(task="binary")(Z, YES.unsqueeze(1).expand(Z.shape)),
    lambda: same(
        ls.CrossEntropyLoss(task="multilabel")(Z, YES.unsqueeze(1).expand(Z.shape)),
        F.binary_cross_entropy_with_logits(Z, YES.unsqueeze(1).expand(Z.shape).double()),
    ),
)
case(
    "is ambiguous: build the loss with task='multiclass' (soft labels that sum to 1 over the classes) or "
    "task='multilabel' (independent yes or no in each channel). Classes are on axis 1, here {}: logits without that "
    "axis, one number per pixel, want loss(logits.unsqueeze(1), target)",
    lambda: DICE(ONE.squeeze(1), YES),
    lambda: same(DICE(ONE.squeeze(1).unsqueeze(1), YES), DICE(ONE, YES)),
    lambda: same(ls.CrossEntropyLoss(task="multiclass")(Z, Z.softmax(1)), F.cross_entropy(Z, Z.softmax(1))),
    lambda: same(
        ls.CrossEntropyLoss(task="multilabel")(Z, Z.sigmoid()), F.binary_cross_entropy_with_logits(Z, Z.sigmoid())
    ),
)
case(
    "; classes are on axis 1: if yours are last, use logits.movedim(-1, 1)",
    lambda: CE(Z.movedim(1, -1), Y),
    lambda: same(CE(Z.movedim(1, -1).movedim(-1, 1), Y), F.cross_entropy(Z, Y)),
    lambda: same(CE(Z.flatten(2).mT.movedim(-1, 1), Y.flatten(1)), F.cross_entropy(Z, Y)),  # (N, L, C) of a token head
)
case(
    "; classes are on axis 1: use target.movedim(-1, 1)",
    lambda: ls.DiceLoss(task="multilabel")(Z, F.one_hot(Y, 3)),
    lambda: same(
        ls.DiceLoss(task="multilabel")(Z, F.one_hot(Y, 3).movedim(-1, 1)), ls.DiceLoss(task="multilabel")(Z, Y)
    ),
    lambda: same(DICE(ONE, YES.unsqueeze(-1).movedim(-1, 1)), DICE(ONE, YES)),
)
case(
    "; axis 0 is the batch: without one, use logits.unsqueeze(0) and target.unsqueeze(0)",
    lambda: DICE(Z[0], Y[0]),
    lambda: same(DICE(Z[0].unsqueeze(0), Y[0].unsqueeze(0)), DICE(Z[:1], Y[:1])),
)
case(
    "logits {} need labels {} or {}, or a map {}, got a target {}{}",
    lambda: CE(Z, Y[:, :2]),
    lambda: same(CE(Z, Y), F.cross_entropy(Z, Y)),
    lambda: same(CE(Z, Y.unsqueeze(1)), F.cross_entropy(Z, Y)),
)
case(
    "have one channel, so the target must be {} or {}, got {}{}",
    lambda: CE(ONE, Y[:, :2]),
    lambda: same(CE(ONE, YES), CE(ONE, YES.unsqueeze(1))),
)
case(
    "a bool mask {} for {} classes is ambiguous: as labels of the classes 0 and 1 it is mask.long(); one mask for all "
    "{} channels is {}.expand_as(logits) with task='multilabel'",
    lambda: DICE(Z, YES.bool()),
    lambda: same(DICE(Z, YES.bool().long()), DICE(Z, YES)),
    lambda: same(
        ls.CrossEntropyLoss(task="multilabel")(Z, YES.bool().unsqueeze(1).expand_as(Z)),
        F.binary_cross_entropy_with_logits(Z, YES.unsqueeze(1).expand(Z.shape).double()),
    ),
)
case(
    "{}, which is no label: use target.round().long() if it is one with an error, or soft labels (N, C, *S)",
    lambda: CE(Z, Y * 0.99998),
    lambda: same(CE(Z, (Y * 0.99998).round().long()), CE(Z, Y)),  # .long() alone would make 0 of every 1
    lambda: same(ls.CrossEntropyLoss(task="multiclass")(Z, F.one_hot(Y, 3).movedim(-1, 1).double()), CE(Z, Y)),
)
case(
    "is defined for {} targets, and the {} classes of {} exclude each other; use one channel, or task='multilabel'",
    lambda: ls.TwoClassDiceLoss()(Z, Y),
    lambda: ls.TwoClassDiceLoss()(ONE, YES),
    lambda: ls.TwoClassDiceLoss(task="multilabel")(Z, Y),
)
case(
    "distances are measured along one to three axes, and logits {} have {}: fold one into the batch, as for frames "
    "logits.movedim(2, 1).flatten(0, 1), and the target likewise",
    lambda: ls.BoundaryLoss()(
        Z[:, :, None, None].expand(-1, -1, 2, 3, -1, -1), Y[:, None, None].expand(-1, 2, 3, -1, -1)
    ),
    lambda: same(
        ls.BoundaryLoss()(
            Z[:, :, None, None].expand(-1, -1, 2, 3, -1, -1).movedim(2, 1).flatten(0, 1),
            Y[:, None, None].expand(-1, 2, 3, -1, -1).flatten(0, 1),
        ),
        ls.BoundaryLoss()(Z[:, :, None].expand(-1, -1, 3, -1, -1), Y[:, None].expand(-1, 3, -1, -1)),
    ),
)

# ---- values of the target -------------------------------------------------------------------------------------------

case(
    "is {} an ignore_index?",
    lambda: DICE(Z, Y - 1),
    lambda: same(ls.CrossEntropyLoss(ignore_index=-1)(Z, Y - 1), F.cross_entropy(Z, Y - 1, ignore_index=-1)),
)
case(
    "a mask of 0 and 255 wants (mask > 0)",
    lambda: DICE(ONE, YES * 255),
    lambda: same(DICE(ONE, (YES * 255) > 0), DICE(ONE, YES)),
)
case(
    "255 often marks ignored pixels: ignore_index=255; a mask of 0 and 255 wants (mask > 0)",
    lambda: CE(Z, Y.masked_fill(Y == 2, 255)),
    lambda: same(
        ls.CrossEntropyLoss(ignore_index=255)(Z, Y.masked_fill(Y == 2, 255)),
        F.cross_entropy(Z, Y.masked_fill(Y == 2, 255), ignore_index=255),
    ),
    lambda: same(CE(Z, ((YES * 255) > 0).long()), CE(Z, YES)),
)
case(
    "logits of a teacher want target.{}, what a cubic interpolation overshot target.clamp(0, 1)",
    lambda: ls.KLDivergenceLoss()(Z, 1.92688 * Z),
    lambda: same(
        ls.KLDivergenceLoss()(Z, (1.92688 * Z).softmax(1)),
        ls.kl_divergence((1.92688 * Z).softmax(1), Z.softmax(1), dim=1).mean(),
    ),
    lambda: same(
        CE(ONE, (1.92688 * ONE).sigmoid()), F.binary_cross_entropy_with_logits(ONE, (1.92688 * ONE).sigmoid())
    ),
    lambda: CE(ONE, (YES.unsqueeze(1) * 1.1 - 0.05).clamp(0, 1)),
)

# ---- keywords and settings of a call --------------------------------------------------------------------------------

case(
    "distance must be shaped like the logits, {}, got {}; make it with ls.distance.signed_distance_map(labels, "
    "num_classes)",
    lambda: ls.BoundaryLoss()(Z, Y, distance=torch.zeros(2, 4, 5)),
    lambda: same(ls.BoundaryLoss()(Z, Y, distance=ls.distance.signed_distance_map(Y, 3)), ls.BoundaryLoss()(Z, Y)),
)
case(
    "{} has no effect with one channel, the foreground; drop it",
    lambda: ls.DiceLoss(include_background=False)(ONE, YES),
    lambda: DICE(ONE, YES),
)
case(
    "class_weight has no effect on {} with one channel: its mean is over one class; drop it, or use two channels",
    lambda: ls.DiceLoss(class_weight=[0, 0])(ONE, YES),
    lambda: DICE(ONE, YES),
    lambda: same(ls.DiceLoss(class_weight=[0, 1])(torch.cat([torch.zeros_like(ONE), ONE], 1), YES), DICE(ONE, YES)),
)
case(
    "classes={} names the background, class 0, and include_background=False leaves it out; give one of the two",
    lambda: ls.DiceLoss(classes=[0, 1], include_background=False),
    lambda: ls.DiceLoss(classes=[0, 1]),
    lambda: same(ls.DiceLoss(include_background=False)(Z, Y), ls.DiceLoss(classes=[1, 2])(Z, Y)),
)
case(
    "pos_weight is for a yes or no in each channel; {} classes that exclude each other have class_weight, one factor "
    "per class",
    lambda: ls.CrossEntropyLoss(pos_weight=2.0)(Z, Y),
    lambda: same(
        ls.CrossEntropyLoss(class_weight=[1, 2, 3])(Z, Y), F.cross_entropy(Z, Y, torch.tensor([1.0, 2, 3]).double())
    ),
    lambda: ls.CrossEntropyLoss(pos_weight=2.0, task="multilabel")(Z, Y),
)
case(
    "alpha={} is one number, which weights the positives of a binary task; for {} classes give one factor per class",
    lambda: ls.FocalLoss(alpha=0.25)(Z, Y),
    lambda: ls.FocalLoss(alpha=[0.25, 0.5, 0.25])(Z, Y),
    lambda: ls.FocalLoss(alpha=0.25)(ONE, YES),
)
case(
    "{} needs {} values, {}, got {}",
    lambda: ls.CrossEntropyLoss(class_weight=[1, 2])(Z, Y),
    lambda: ls.CrossEntropyLoss(class_weight=[1, 2, 3])(Z, Y),
    lambda: ls.CrossEntropyLoss(class_weight=[1, 2])(ONE, YES),
)
case(
    "{} needs one number, or one per channel ({}), got {}",
    lambda: ls.CrossEntropyLoss(pos_weight=[1, 2], task="multilabel")(Z, Y),
    lambda: ls.CrossEntropyLoss(pos_weight=[1, 2, 3], task="multilabel")(Z, Y),
    lambda: ls.CrossEntropyLoss(pos_weight=2, task="multilabel")(Z, Y),
)
case(
    "frequencies needs {} numbers, one per label, got {}",
    lambda: ls.PowerCrossEntropyLoss(frequencies=[1, 2])(Z, Y),
    lambda: ls.PowerCrossEntropyLoss(frequencies=[1, 2, 3])(Z, Y),
)
case(
    "no forbidden pairs of classes are given; NonAdjacencyLoss.from_labels(labels, num_classes={}) learns them from "
    "label maps, forbidden=[[...], ...] sets them",
    lambda: ls.NonAdjacencyLoss()(Z),
    lambda: ls.NonAdjacencyLoss.from_labels(Y, num_classes=3)(Z),
    lambda: ls.NonAdjacencyLoss(forbidden=[[0, 0, 1], [0, 0, 0], [1, 0, 0]])(Z),
)

case(
    "torch.jit.trace cannot record the distance transform of a prediction; use one_sided=True",
    lambda: torch.jit.trace(ls.HausdorffDTLoss(), (Z, Y)),
    lambda: same(
        torch.jit.trace(ls.HausdorffDTLoss(one_sided=True), (Z, Y))(Z, Y), ls.HausdorffDTLoss(one_sided=True)(Z, Y)
    ),
)

# ---- constructors ---------------------------------------------------------------------------------------------------

case(
    "did you mean {}?",
    lambda: ls.DiceLoss(smoth=1.0),
    lambda: ls.DiceLoss(smooth=1.0),
    lambda: same(nearest("weight", ls.CrossEntropyLoss.fields) == "did you mean 'class_weight'?", True),  # torch's word
)
case("there are: {}", lambda: ls.DiceLoss(zzz=1), lambda: ls.DiceLoss(squared=True, smooth=0.0, absent="skip"))
case(
    "CrossEntropyLoss has it, alone or in a sum: CrossEntropyLoss(pos_weight=...)",
    lambda: ls.DiceLoss(pos_weight=3.0),
    lambda: same(
        (DICE + ls.CrossEntropyLoss(pos_weight=3.0))(ONE, YES) - DICE(ONE, YES),
        F.binary_cross_entropy_with_logits(ONE.squeeze(1), YES.double(), pos_weight=torch.tensor(3.0)),
    ),
)
case(
    "it is on the meta device, where tensors hold no values; give a list of numbers",
    lambda: ls.CrossEntropyLoss(class_weight=torch.ones(3, device="meta")),
    lambda: ls.CrossEntropyLoss(class_weight=[1.0, 1.0, 1.0]),
)
case(
    "the terms of a sum must agree on {}: {}",
    lambda: DICE + ls.CrossEntropyLoss(ignore_index=255),
    lambda: ls.DiceLoss(ignore_index=255) + ls.CrossEntropyLoss(ignore_index=255),
)
case(
    "no loss here; write for example 'dice + 0.5*focal(gamma=2)'",
    lambda: ls.parse(""),
    lambda: ls.parse("dice + 0.5*focal(gamma=2)"),
)
case(
    "write ramp(start=0.01, step=0.01, stop=1.0)",
    lambda: ls.parse("ramp(start=0)*dice"),
    lambda: ls.parse("ramp(start=0.01, step=0.01, stop=1.0)*dice"),
)
case(
    "GeneralizedFocalLoss: box must have fmt='xyxy' and reduction='mean', got {}",
    lambda: ls.GeneralizedFocalLoss(box=ls.CIoULoss(fmt="xywh")),
    lambda: ls.GeneralizedFocalLoss(box=ls.CIoULoss(fmt="xyxy", reduction="mean")),
)
case(
    "use_engine({}) cannot serve this call: {}; use_engine('auto') falls back",
    lambda: with_engine("fused", lambda: DICE(Z, Y)),
    lambda: same(with_engine("auto", lambda: DICE(Z, Y)), DICE(Z, Y)),
)


def with_engine(choice: Any, call: Callable[[], Tensor]) -> Tensor:
    with ls.use_engine(choice):
        return call()


# ---- inputs by name, boxes, distributions ---------------------------------------------------------------------------

SLOTS = ls.QualityFocalLoss() + 2.0 * ls.GIoULoss()
Q = torch.rand(3, 2)

case(
    "give {}=(input, target) or two arguments, not both",
    lambda: DICE(Z, Y, score=(Z, Y)),
    lambda: same(DICE(score=(Z, Y)), DICE(Z, Y)),
)
case("reads {} different inputs: call loss({})", lambda: SLOTS(Q, Q), lambda: SLOTS(score=(Q, Q), box=(A, B)))
case("call loss(logits, target)", lambda: DICE(), lambda: DICE(Z, Y))
case("give {}=(input, target)", lambda: SLOTS(score=(Q, Q)), lambda: SLOTS(score=(Q, Q), box=(A, B)))
case(
    "in the format {}, but the loss takes {}; build it with fmt={}, or convert the boxes",
    lambda: ls.GIoULoss()(Named(A), Named(B)),
    lambda: same(ls.GIoULoss(fmt="xywh")(Named(A), Named(B)), ls.GIoULoss(fmt="xywh")(A, B)),
    lambda: same(
        ls.GIoULoss()(*(torch.cat([x[:, :2], x[:, :2] + x[:, 2:]], 1) for x in (A, B))),
        ls.GIoULoss(fmt="xywh")(A, B),
    ),
)
case(
    "gap must be {}, one number per pixel, got {}; make it with ls.distance.gap_map(objects)",
    lambda: ls.BorderCrossEntropyLoss()(Z, Y, gap=torch.zeros(1, 2)),
    lambda: ls.BorderCrossEntropyLoss()(Z, Y, gap=ls.distance.gap_map(Y)),
)


class Named(Tensor):
    """Boxes that say what they are, as tv_tensors do."""

    format = "XYWH"


case(
    "; call loss(prediction, target)",
    lambda: ls.GIoULoss()(A),
    lambda: ls.GIoULoss()(A, B),
)
case(
    "; use .float()",
    lambda: ls.L1Loss()(A.long(), B),
    lambda: ls.L1Loss()(A.long().float(), B),
)
case(
    "; use .float()",
    lambda: ls.box.pairwise_iou(A.long(), B),
    lambda: ls.box.pairwise_iou(A.long().float(), B),
)
case(
    "predictions {} and target {} must have the same shape; pick the target of each prediction first",
    lambda: ls.GIoULoss()(A, B[:2]),
    lambda: ls.GIoULoss()(A, B[:2][torch.tensor([0, 1, 1])]),
)
case(
    "{}: {} on {}, the {} on {}; move one of them",
    lambda: ls.GIoULoss()(A, B.to("meta")),
    lambda: ls.GIoULoss()(A, B),
)
case(
    "{}: {} on {}, the {} on {}; move one of them",
    lambda: ls.GIoULoss()(A, B, weight=torch.ones(3, device="meta")),
    lambda: ls.GIoULoss()(A, B, weight=torch.ones(3)),
)
case(
    "; call loss(logits, target)",
    lambda: ls.DistributionFocalLoss()(Q),
    lambda: ls.DistributionFocalLoss()(Q, Q[:, 0]),
)
case("labels must be integers, got {}; use labels.long()", lambda: quality(0.0), lambda: quality(0))
case(
    "background; a point to be ignored has weight 0",
    lambda: quality(7),
    lambda: quality(2),
    lambda: quality(7, weight=torch.tensor([1.0, 1.0, 0.0])),
)
case(
    "call loss(logits, edges, points, strides, labels, boxes), got {} arguments",
    lambda: ls.GeneralizedFocalLoss()(Q, Q),
    lambda: ls.GeneralizedFocalLoss()(Q, torch.rand(3, 4, 9), Q, 8.0, torch.tensor([0, 1, 2]), A),
)


def quality(label: Any, **call: Any) -> Tensor:
    return ls.QualityFocalLoss()(Q, (torch.tensor([0, 1, label]), torch.rand(3)), **call)


# ---- data -----------------------------------------------------------------------------------------------------------

case(
    "labels must be integers, got {}; use labels.long() or labels.astype(int)",
    lambda: ls.distance.signed_distance_map(Y.float(), 3),
    lambda: ls.distance.signed_distance_map(Y.float().long(), 3),
    lambda: ls.distance.signed_distance_map(Y.float().numpy().astype(int), 3),
)
case(
    "spacing needs {} positive numbers, one per axis, as ({}), got {}",
    lambda: ls.distance.signed_distance_map(Y, 3, spacing=(1.0,)),
    lambda: ls.distance.signed_distance_map(Y, 3, spacing=(0.5, 0.5)),
    lambda: ls.distance.signed_distance_map(Y.flatten(1), 3, spacing=(0.5,)),
)
case(
    "totals per class do not say which images contain a class; give count_classes(...), or a table (images, C) of "
    "pixels",
    lambda: ls.weighting.median_frequency([100, 20, 3]),
    lambda: ls.weighting.median_frequency(ls.weighting.count_classes(Y, 3)),
    lambda: ls.weighting.median_frequency([[80, 20, 0], [70, 30, 0]]),
)
case(
    "must be integer labels, got {}; give (image, target) pairs or labels, for example (sample['label'] for sample in "
    "data)",
    lambda: ls.weighting.count_classes([{"image": x, "label": y} for x, y in SETS], 2),
    lambda: ls.weighting.count_classes((sample["label"] for sample in [{"label": y} for _, y in SETS]), 2),
    lambda: ls.weighting.count_classes(SETS, 2),
)
case(
    "a stack (N, heads, C, *S) is outputs.unbind(1), and a network that has only one output (in evaluation) takes the "
    "loss itself",
    lambda: ls.DeepSupervision(DICE)(torch.stack([Z, Z], 1), Y),
    lambda: same(ls.DeepSupervision(DICE)(torch.stack([Z, Z], 1).unbind(1), Y), DICE(Z, Y)),
    lambda: same(ls.DeepSupervision(DICE).loss(Z, Y), DICE(Z, Y)),
)
case(
    "DeepSupervision: {} weights need as many outputs, got {}",
    lambda: ls.DeepSupervision(DICE, [1, 0.5])([Z], Y),
    lambda: ls.DeepSupervision(DICE, [1, 0.5])([Z, Z[..., ::2, ::2]], Y),
)
case(
    "DeepSupervision: {} outputs need as many {}, got {}",
    lambda: ls.DeepSupervision(DICE)([Z, Z[..., ::2, ::2]], [Y]),
    lambda: ls.DeepSupervision(DICE)([Z, Z[..., ::2, ::2]], [Y, Y[..., ::2, ::2]]),
)
case(
    "no settings of a paper are known: {}; build {}() with your own",
    lambda: ls.HuberLoss.paper(),
    lambda: same(ls.HuberLoss(delta=1.345)(A, B), F.huber_loss(A, B, delta=1.345)),
)
case(
    "behind '@' stands 'paper', for the settings of the paper: focal@paper",
    lambda: ls.parse("focal@code"),
    lambda: same(ls.parse("focal@paper")(ONE, YES), ls.FocalLoss(gamma=2, alpha=0.25)(ONE, YES)),
)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("hint", "wrong", "right"), CASES)
def test_advice_is_right(hint, wrong, right):
    with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
        wrong()
    text = str(error.value)
    assert re.search(re.escape(hint).replace(r"\{\}", ".*"), text), text
    assert len(text.splitlines()) in (1, 3), "one line, or three that point at a character"
    for follow in right:
        follow()


def test_what_to_install_is_what_the_package_calls_it():
    """The command line without the lab's packages says which extra brings them."""
    blocker = (
        "import sys, importlib.abc\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')\n"
        "sys.meta_path.insert(0, No())\n"
        "from lossmith.cli import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", blocker], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert 'pip install "lossmith[lab]"' in done.stderr + done.stdout
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert re.search(r'^lab = \[[^]]*"typer', project, re.M | re.S)


# ---- micro-batches ---------------------------------------------------------------------------------------------------


def accumulated(text: str, noise: Callable[[], float] = lambda: 0.0) -> Tensor:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    pairs = [(Z[:1], Y[:1]), (Z[1:], Y[1:])]
    return ls.accumulate(ls.parse(text), lambda pair: ((scale + noise()) * pair[0], pair[1]), pairs)


case(
    "`forward` must give the same twice (torch's random generators are put back; other randomness, such as NumPy's, "
    "belongs into the micro-batches)",
    lambda: accumulated("ce", np.random.default_rng(0).normal),
    lambda: accumulated("ce", lambda: torch.randn(()).item()),
)
case(
    "accumulate: {} has to see all pixels of the batch at once (reduction='none', the hardest pixels, errors in order "
    "over the batch); leave that term out, or give it per_image=True",
    lambda: accumulated("dice + lovasz"),
    lambda: same(accumulated("dice"), ls.parse("dice")(Z, Y)),
    lambda: same(accumulated("dice + lovasz(per_image=true)"), ls.parse("dice + lovasz(per_image=true)")(Z, Y)),
)


# ---- check ----------------------------------------------------------------------------------------------------------

CHECKED = ["repeatable"]
case(
    "check: {} is a class; build it: check({}(...))",
    lambda: ls.check(torch.nn.CrossEntropyLoss, only=CHECKED),
    lambda: ls.check(torch.nn.CrossEntropyLoss(), only=CHECKED),
)
case(
    "check: {} was built with ignore_index={}; build it with {}",
    lambda: ls.check(ls.CrossEntropyLoss(ignore_index=255), ignore_index=7, only=CHECKED),
    lambda: ls.check(ls.CrossEntropyLoss(ignore_index=7), ignore_index=7, only=CHECKED),
)
case(
    "returns values {}, not one number: build it with a mean or a sum",
    lambda: ls.check(torch.nn.CrossEntropyLoss(reduction="none"), only=CHECKED),
    lambda: ls.check(torch.nn.CrossEntropyLoss(reduction="mean"), only=CHECKED),
    lambda: ls.check(torch.nn.CrossEntropyLoss(reduction="sum"), only=CHECKED),
)


# ---- every hint has its case ----------------------------------------------------------------------------------------

ADVISES = re.compile(
    r"\b(use|build|give|call loss|write|did you mean|drop it|drop the|make it with|wants?|move one|pick|fold|has it|"
    r"have class_weight|learns them|falls back|needs? \{\}|must agree|must have fmt|is outputs\.unbind|weight 0|"
    r"need (labels|as many)|must be \{\} or|ambiguous)\b|ignore_index\?|ignore_index=255|use \.float|there are: "
)
# Texts that look like advice and only state what does not fit; what to do follows from the shapes they name.
STATEMENTS = {
    "a formula reads the sum {}, which the `wants` of its loss does not ask for",
    "{}: logits {} need a target {}, got {}",
    "{}: logits {} need labels and qualities {}, got {} and {}",
    "{}: logits {} need {} {}, got {}",
    "{}: a mask {} needs valid {} or {}, got {}",
    "{} is not a folder that only this user can write to",
}
ELSEWHERE = {
    'the command line needs the lab: pip install "lossmith[lab]"',
    # processes are in test_processes.py: what raises these, and that what they advise is exact
    "{}: split='space' gives every process a part of each image, and distances in a prediction need all of it: use "
    "one_sided=True with distance=, or split the batch by images",
    "{}: split='space' gives every process a part of each image, and distances need all of it: make the map of the "
    "whole labels with {}, and give {} this process's part",
    "{}: a DTensor is a whole, and with a group each process hands over its part: give x.to_local() and "
    "gradient='sum', or leave the group out",
    "a sum shares a batch as its terms do: give the group to them, not to {}",
    "GeneralizedFocalLoss: its box shares the batch otherwise than itself: {}; give group, gradient and split to "
    "GeneralizedFocalLoss, from where its box has them",
}
SOURCE = Path(ls.__file__).parent


def texts_of(path: Path) -> list[str]:
    """The string literals of a file that are no docstrings, with {} for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            aside.add(id(node.value))  # a docstring
        if isinstance(node, ast.JoinedStr):
            aside |= {id(part) for part in ast.walk(node) if part is not node}
    found = []
    for node in ast.walk(tree):
        if id(node) in aside:
            continue
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


TEXTS = [
    (path.name, text)
    for path in sorted(SOURCE.rglob("*.py"))
    if not {"lab", "compat"} & {*path.relative_to(SOURCE).parts}
    for text in texts_of(path)
]


def test_every_hint_has_its_case():
    """In the words of the source: a hint that is new, or that somebody changes, is tried before it advises anybody."""
    hints = [param.values[0] for param in CASES]
    for name, text in TEXTS:
        if ADVISES.search(text) and " " in text and text not in STATEMENTS | ELSEWHERE:
            assert any(hint in text for hint in hints), f"{name}: nothing tries the advice of {text!r}"
    for hint in hints:
        assert any(hint in text for _, text in TEXTS), f"no error says {hint!r} any more"
