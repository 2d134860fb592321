"""What the errors of lossmith.compat.monai advise is right: each is provoked, followed, and its outcome checked."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import lossmith as ls
from lossmith import compat
from lossmith.compat import monai
from test_advice import ADVISES, same, texts_of

Z = 2 * torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 3, (2, 1, 5, 4), generator=torch.Generator().manual_seed(1))
R = F.one_hot(Y[:, 0], 3).movedim(-1, 1).double()
ONE = {"to_onehot_y": True, "softmax": True}
DICE = ls.DiceLoss(smooth=1e-5)(Z, Y)

CASES: dict[str, tuple[Callable[[], Any], tuple[Callable[[], Any], ...]]] = {
    "logits want sigmoid=True or softmax=True": (
        lambda: monai.DiceLoss()(Z, R),
        (
            lambda: same(monai.DiceLoss(softmax=True)(Z, R), DICE),
            lambda: same(monai.DiceLoss(sigmoid=True)(Z, R), ls.DiceLoss(smooth=1e-5, task="multilabel")(Z, R)),
        ),
    ),
    "; labels (B, 1, *S) want to_onehot_y=True": (
        lambda: monai.DiceLoss(softmax=True)(Z, Y),
        (lambda: same(monai.DiceLoss(**ONE)(Z, Y), DICE),),
    ),
    ", with one channel": (
        lambda: monai.DiceLoss(**ONE)(Z, R),
        (lambda: same(monai.DiceLoss(**ONE)(Z, R.argmax(1, keepdim=True)), DICE),),
    ),
    "sigmoid, softmax and other_act exclude each other; give one of them": (
        lambda: monai.DiceLoss(sigmoid=True, softmax=True),
        (lambda: monai.DiceLoss(sigmoid=True), lambda: monai.DiceLoss(softmax=True)),
    ),
    "{} weights for {} classes; one for each that counts, without the background if include_background=False": (
        lambda: monai.DiceLoss(**ONE, include_background=False, weight=[1.0, 1.0, 1.0])(Z, Y),
        (
            lambda: monai.DiceLoss(**ONE, include_background=False, weight=[1.0, 1.0])(Z, Y),
            lambda: same(monai.DiceLoss(**ONE, weight=[1.0, 1.0, 1.0])(Z, Y), DICE),
        ),
    ),
    "a softmax of one channel is 1 everywhere; use use_softmax=False": (
        lambda: monai.FocalLoss(use_softmax=True)(Z[:, :1], R[:, :1]),
        (lambda: same(monai.FocalLoss()(Z[:, :1], R[:, :1]), ls.FocalLoss()(Z[:, :1], R[:, :1])),),
    ),
    "weights of classes need several channels; one number weighs one channel": (
        lambda: monai.FocalLoss(weight=[2.0])(Z[:, :1], R[:, :1]),
        (lambda: same(monai.FocalLoss(weight=2.0)(Z[:, :1], R[:, :1]), 2 * ls.FocalLoss()(Z[:, :1], R[:, :1])),),
    ),
    "num_classes must be 2, got {}; lossmith.UnifiedFocalLoss takes any number of classes, and logits": (
        lambda: monai.AsymmetricUnifiedFocalLoss(num_classes=3),
        (lambda: ls.UnifiedFocalLoss(delta=0.7)(Z, Y),),
    ),
    "{} channels, but it is defined for background and foreground; lossmith.UnifiedFocalLoss takes any number of "
    "classes, and logits": (
        lambda: monai.AsymmetricUnifiedFocalLoss()(Z.softmax(1), R),
        (lambda: ls.UnifiedFocalLoss(delta=0.7)(Z, Y),),
    ),
    "y_pred must hold probabilities; logits want .softmax(1), or .sigmoid()": (
        lambda: monai.AsymmetricUnifiedFocalLoss()(Z[:, :1], R[:, :1]),
        (
            lambda: monai.AsymmetricUnifiedFocalLoss()(Z[:, :1].sigmoid(), R[:, :1]),
            lambda: monai.AsymmetricUnifiedFocalLoss()(
                Z[:, :2].softmax(1), F.one_hot(R[:, 0].long(), 2).movedim(-1, 1)
            ),
        ),
    ),
    "its halves read the prediction in different ways: see first.ours and second.ours": (
        lambda: monai.DiceFocalLoss(**ONE).ours(3),
        (
            lambda: same(
                monai.DiceFocalLoss(**ONE)(Z, Y),
                monai.DiceFocalLoss(**ONE).first.ours(3)(Z, Y) + monai.DiceFocalLoss(**ONE).second.ours(3)(Z, Y),
            ),
        ),
    ),
    "boxes have 4 numbers here, got {}; use monai.losses in 3-D": (
        lambda: monai.BoxGIoULoss()(torch.rand(2, 6), torch.rand(2, 6)),
        (lambda: monai.BoxGIoULoss()(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 1, 1]])),),
    ),
    "the input is None; give a tensor, or a list of them": (
        lambda: monai.DeepSupervisionLoss(monai.DiceLoss(**ONE))(None, Y),
        (
            lambda: same(monai.DeepSupervisionLoss(monai.DiceLoss(**ONE))(Z, Y), DICE.float()),
            lambda: same(monai.DeepSupervisionLoss(monai.DiceLoss(**ONE))([Z], Y), DICE.float()),
        ),
    ),
}


@pytest.mark.parametrize("hint", CASES, ids=lambda hint: hint[:50])
def test_advice_is_right(hint):
    wrong, right = CASES[hint]
    with pytest.raises((ValueError, AssertionError)) as error, warnings.catch_warnings():
        wrong()
    assert re.search(re.escape(hint).replace(r"\{\}", ".*"), str(error.value)), str(error.value)
    assert len(str(error.value).splitlines()) == 1
    for follow in right:
        follow()


def raised(path: Path) -> list[str]:
    """The texts of the errors of a file, and what is put into them, with {} for what is filled in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        fix = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "fix"
        handed = isinstance(node, ast.Call) and ast.unparse(node.func) == "logits_of"
        if fix or handed or isinstance(node, ast.Raise):
            joined = [part for part in ast.walk(node) if isinstance(part, ast.JoinedStr)]
            inside = {id(part) for one in joined for part in ast.walk(one) if part is not one}
            strings = [part for part in ast.walk(node) if isinstance(part, ast.Constant) and id(part) not in inside]
            parts = [*joined, *strings]
            texts = [ast.literal_eval(ast.unparse(part).removeprefix("f")) for part in parts]
            found += [re.sub(r"\{[^{}]*\}", "{}", text) for text in texts if isinstance(text, str)]
    return found


def test_every_hint_has_its_case():
    for path in (Path(compat.__file__).parent / "monai").glob("*.py"):
        for text in raised(path):
            if ADVISES.search(text) and " " in text and not re.search(r"must be (\{\} or|shaped)", text):
                assert any(hint in text for hint in CASES), f"{path.name}: nothing tries the advice of {text!r}"
    everything = [text for path in (Path(compat.__file__).parent / "monai").glob("*.py") for text in texts_of(path)]
    for hint in CASES:
        assert any(hint in text for text in everything), f"no error says {hint!r} any more"
