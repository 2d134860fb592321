"""The losses of PyTorch, MONAI and kornia that have a counterpart here: what they give, and what makes the two equal.

One table for the page of losses, the rivals of the benchmark and the tests. The words in `why` are ours. `equal` is
verified: theirs is `factor` times the loss (or the losses, added) that the text describes, where no pixel is ignored
and no class absent.
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
from tables import number
from torch import Tensor

import lossmith as ls
from lossmith.names import ALIASES

Call = Callable[..., Tensor]  # (logits, target), and ignore_index= if it ignores; MONAI's: losses= another module


@dataclass(frozen=True)
class Rival:
    library: str
    theirs: str  # as a user writes it
    ours: str  # text for `parse`
    call: Call
    equal: str  # text for `parse`; empty if no setting of ours gives their value
    why: str
    factor: Callable[[Tensor], float] = lambda z: 1.0  # of the logits
    task: str = "multiclass"  # which fixture: multiclass, binary, soft, multilabel, large, boxes, numbers
    ignores: bool = False


def monai(name: str, onehot: bool = True, **settings: Any) -> Call:
    @functools.cache
    def loss(losses: str = "monai.losses", **ignore: Any) -> Any:
        return getattr(import_module(losses), name)(**({"to_onehot_y": True} if onehot else {}), **settings, **ignore)

    def call(z: Tensor, y: Tensor, **ignore: Any) -> Tensor:
        value: Tensor = loss(**ignore)(z, y.unsqueeze(1) if y.ndim < z.ndim else y)
        return value

    return call


def kornia(name: str, before: Callable[[Tensor], Tensor] = lambda x: x, **settings: Any) -> Call:
    def call(z: Tensor, y: Tensor, **ignore: Any) -> Tensor:
        import kornia.losses

        return getattr(kornia.losses, name)(before(z), y, **settings, **ignore)

    return call


def one_hot(y: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(y, like.shape[1]).movedim(-1, 1).to(like)


def two_channels(z: Tensor) -> Tensor:
    """One logit as two, with the same probability of yes."""
    return torch.cat([-z, z], 1) / 2


def softmax(z: Tensor) -> Tensor:
    return z.softmax(1)


def PER_CLASS(z: Tensor) -> float:  # stands in the table
    return 1 / z.shape[1]


def PIXELS(z: Tensor) -> float:
    return float(math.prod(z.shape[2:]))


ONE: dict[str, Any] = {"softmax": True, "smooth_nr": 1.0, "smooth_dr": 1.0}
BINARY: dict[str, Any] = {"onehot": False, "sigmoid": True, "smooth_nr": 1.0, "smooth_dr": 1.0}

RIVALS = [
    Rival("torch", "cross_entropy(z, y)", "ce", F.cross_entropy, "ce", "The same, but 0/0 when all is ignored.",
          ignores=True),
    Rival("torch", "cross_entropy(label_smoothing=0.1)", "ce(label_smoothing=0.1)",
          lambda z, y, **k: F.cross_entropy(z, y, label_smoothing=0.1, **k), "ce(label_smoothing=0.1)",
          "The same.", ignores=True),
    Rival("torch", "cross_entropy(weight=[1, 2, 4])", "ce(class_weight=[1, 2, 4])",
          lambda z, y, **k: F.cross_entropy(z, y, weight=torch.tensor([1.0, 2.0, 4.0]).to(z), **k),
          "ce(class_weight=[1, 2, 4])", "The same: both divide by Σ w.", ignores=True),
    Rival("torch", "cross_entropy(z, r, weight=[1, 2, 4]), soft r", "ce(class_weight=[1, 2, 4])",
          lambda z, r: F.cross_entropy(z, r, weight=torch.tensor([1.0, 2.0, 4.0]).to(z)), "",
          "With soft targets PyTorch divides by the pixels, ours by Σ r w, as both do with labels.", task="soft"),
    Rival("torch", "binary_cross_entropy_with_logits", "bce", lambda z, y: F.binary_cross_entropy_with_logits(
        z, y.unsqueeze(1).to(z)), "bce", "The same.", task="binary"),
    Rival("torch", "kl_div(z.log_softmax(1), r, reduction='batchmean')", "kl",
          lambda z, r: F.kl_div(z.log_softmax(1), r, reduction="batchmean"), "kl",
          "batchmean divides by the images and adds up their 64 pixels.", PIXELS, task="soft"),
    Rival("torch", "kl_div(z.log_softmax(1), r), reduction='mean'", "kl",
          lambda z, r: F.kl_div(z.log_softmax(1), r, reduction="none").mean(), "kl",
          "mean divides by all elements, classes too: PyTorch itself warns of it.", PER_CLASS, task="soft"),
    Rival("torch", "mse_loss(z.softmax(1), one_hot(y))", "quadratic",
          lambda z, y: F.mse_loss(z.softmax(1), one_hot(y, z)), "quadratic(half=false)", "Ours has the ½."),
    Rival("torch", "mse_loss(z.sigmoid(), y)", "quadratic",
          lambda z, y: F.mse_loss(z.sigmoid(), y.unsqueeze(1).to(z)), "quadratic(half=false)", "Ours has the ½.",
          task="binary"),
    Rival("MONAI", "DiceLoss(softmax=True, smooth_nr=1, smooth_dr=1)", "dice", monai("DiceLoss", **ONE), "dice",
          "The same with the smoothing made equal.", ignores=True),
    Rival("MONAI", "DiceLoss(softmax=True)", "dice", monai("DiceLoss", softmax=True), "dice(smooth=1e-5)",
          "Its smoothing is 1e-5: on an absent class the first false positive costs all there is.", ignores=True),
    Rival("MONAI", "DiceLoss()", "dice", monai("DiceLoss"), "",
          "No activation by default: logits are taken for probabilities, without a warning.", ignores=True),
    Rival("MONAI", "DiceLoss(softmax=True, squared_pred=True, smooth_nr=1, smooth_dr=1)", "dice(squared=true)",
          monai("DiceLoss", squared_pred=True, **ONE), "dice(squared=true)", "The same.", ignores=True),
    Rival("MONAI", "DiceLoss(softmax=True, jaccard=True, smooth_nr=1, smooth_dr=1)", "jaccard",
          monai("DiceLoss", jaccard=True, **ONE), "jaccard(smooth=0.5)",
          "Its ratio is doubled, 2 I over 2 U, its smoothing is not: it is half as strong.", ignores=True),
    Rival("MONAI", "GeneralizedDiceLoss(softmax=True)", "gdl", monai("GeneralizedDiceLoss", softmax=True), "",
          "It adds 1e-5 above and below the line; ours adds nothing. See the next row."),
    Rival("MONAI", "GeneralizedDiceLoss(softmax=True), a half-hit class of 10,000 pixels", "gdl",
          monai("GeneralizedDiceLoss", softmax=True), "",
          "The weighted sums shrink like 1/R, its 1e-5 does not: the larger the classes, the smaller the loss.",
          task="large"),
    Rival("MONAI", "TverskyLoss(softmax=True, alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1)", "tversky",
          monai("TverskyLoss", alpha=0.3, beta=0.7, **ONE), "tversky",
          "The same: its alpha is `fp_weight`, its beta `fn_weight`; its defaults are ½ and ½, ours 0.3 and 0.7.",
          ignores=True),
    Rival("MONAI", "FocalLoss(use_softmax=True, gamma=2)", "focal", monai("FocalLoss", use_softmax=True, gamma=2.0),
          "focal", "A mean over pixels and classes, C − 1 of which are 0; with `ignore_index` it divides by pixels "
          "alone, and is C times as large.", PER_CLASS, ignores=True),
    Rival("MONAI", "FocalLoss(use_softmax=True, gamma=0.5)", "focal(gamma=0.5)",
          monai("FocalLoss", use_softmax=True, gamma=0.5), "focal(gamma=0.5)", "As above.", PER_CLASS, ignores=True),
    Rival("MONAI", "FocalLoss(gamma=2), C = 1", "focal", monai("FocalLoss", onehot=False, gamma=2.0), "focal",
          "The same.", task="binary", ignores=True),
    Rival("MONAI", "FocalLoss(gamma=2, alpha=0.25), C = 1", "focal(alpha=0.25)",
          monai("FocalLoss", onehot=False, gamma=2.0, alpha=0.25), "focal(alpha=0.25)", "The same.", task="binary",
          ignores=True),
    Rival("MONAI", "FocalLoss(gamma=2)", "focal", monai("FocalLoss", gamma=2.0), "focal(task='multilabel')",
          "By default a sigmoid per class: one-against-the-rest, another function than softmax focal.", ignores=True),
    Rival("MONAI", "DiceCELoss(softmax=True, smooth_nr=1, smooth_dr=1)", "dice_ce", monai("DiceCELoss", **ONE),
          "dice_ce", "The same."),
    Rival("MONAI", "DiceCELoss(sigmoid=True, smooth_nr=1, smooth_dr=1), C = 1", "dice_ce",
          monai("DiceCELoss", **BINARY), "dice_ce", "The same.", task="binary"),
    Rival("MONAI", "DiceCELoss(sigmoid=True, smooth_nr=1, smooth_dr=1), multilabel", "dice_ce(task='multilabel')",
          monai("DiceCELoss", **BINARY), "",
          "The Dice half takes the sigmoid, the other half softmax cross-entropy of targets that do not exclude each "
          "other; ours is BCE.", task="multilabel"),
    Rival("MONAI", "DiceFocalLoss(softmax=True, smooth_nr=1, smooth_dr=1)", "dice_focal",
          monai("DiceFocalLoss", **ONE), "dice; focal(task='multilabel')",
          "The Dice half takes the softmax, the focal half the sigmoid: `use_softmax` is not handed on."),
    Rival("MONAI", "HausdorffDTLoss(softmax=True, include_background=True)", "hausdorff",
          monai("HausdorffDTLoss", softmax=True, include_background=True), "",
          "It takes each class where p > ½, ours where the class is the likeliest; it has no pixel spacing."),
    Rival("MONAI", "HausdorffDTLoss(sigmoid=True)(z, y.float()), C = 1", "hausdorff",
          lambda z, y, **k: monai("HausdorffDTLoss", onehot=False, sigmoid=True, include_background=True)(
              z, y.to(z), **k),
          "hausdorff", "The same, to its float32 maps.", task="binary"),
    Rival("MONAI", "HausdorffDTLoss(sigmoid=True)(z, y), C = 1, y integer", "hausdorff",
          monai("HausdorffDTLoss", onehot=False, sigmoid=True, include_background=True), "",
          "Its map has the target's dtype: with integer labels the distances are cut to whole pixels.", task="binary"),
    Rival("MONAI", "BoundaryLoss(softmax=True)", "boundary", monai("BoundaryLoss", softmax=True), "boundary",
          "The same; it has no pixel spacing."),
    Rival("MONAI", "AsymmetricUnifiedFocalLoss()(p, y), p = softmax, C = 2", "unified_focal(delta=0.7)",
          lambda z, y, **k: monai("AsymmetricUnifiedFocalLoss")(two_channels(z).softmax(1), y, **k),
          "0.25*unified_focal(delta=0.7, lam=1) + 0.5*unified_focal(delta=0.7, lam=0, smooth=1e-7)",
          "Its focal half is a mean over pixels and both classes, half as much; its smoothing is 1e-7.", task="binary",
          ignores=True),
    Rival("MONAI", "AsymmetricUnifiedFocalLoss()(z, y), C = 2", "unified_focal(delta=0.7)",
          lambda z, y, **k: monai("AsymmetricUnifiedFocalLoss")(two_channels(z), y, **k), "",
          "Its text asks for logits and promises a sigmoid; there is none, they are cut to [0, 1].", task="binary",
          ignores=True),
    Rival("kornia", "dice_loss(z, y)", "dice", kornia("dice_loss"), "gdl(weighting='uniform')",
          "'micro': one ratio over all classes, which a frequent class owns; smoothing 1e-8 below the line only.",
          ignores=True),
    Rival("kornia", "dice_loss(z, y, average='macro')", "dice", kornia("dice_loss", average="macro"),
          "dice(smooth=0, absent='skip')", "Over the classes that the image has; an image without a valid pixel "
          "counts as 1.", ignores=True),
    Rival("kornia", "focal_loss(z, y, alpha=None, gamma=2, reduction='mean')", "focal",
          kornia("focal_loss", alpha=None, gamma=2.0, reduction="mean"), "focal",
          "A mean over pixels and classes; ignored pixels stay in it, so that more void is less loss.", PER_CLASS,
          ignores=True),
    Rival("kornia", "focal_loss(z, y, alpha=None, gamma=0.5, reduction='mean')", "focal(gamma=0.5)",
          kornia("focal_loss", alpha=None, gamma=0.5, reduction="mean"), "focal(gamma=0.5)", "As above.", PER_CLASS,
          ignores=True),
    Rival("kornia", "binary_focal_loss_with_logits(alpha=0.25, gamma=2, reduction='mean')", "focal(alpha=0.25)",
          lambda z, y, **k: kornia("binary_focal_loss_with_logits", alpha=0.25, gamma=2.0, reduction="mean")(
              z, y.unsqueeze(1).to(z), **k), "focal(alpha=0.25)", "The same; but ignored pixels stay in the mean.",
          task="binary", ignores=True),
    Rival("kornia", "tversky_loss(z, y, alpha=0.3, beta=0.7)", "tversky",
          kornia("tversky_loss", alpha=0.3, beta=0.7), "tversky(smooth=0, absent='skip')",
          "Over the classes that the image has; an image without a valid pixel counts as 1.", ignores=True),
    Rival("kornia", "lovasz_softmax_loss(z, y)", "lovasz", kornia("lovasz_softmax_loss"),
          "lovasz(per_image=true, absent='keep')",
          "Per image, and absent classes stay in the mean, the largest error standing for each."),
    Rival("kornia", "lovasz_hinge_loss(z, y)", "lovasz_hinge", kornia("lovasz_hinge_loss"), "lovasz_hinge",
          "The same.", task="binary"),
    Rival("kornia", "kl_div_loss_2d(z.softmax(1), r)", "kl", kornia("kl_div_loss_2d", softmax), "",
          "The divergence of each channel's map over the pixels, for heat maps; ours is over the classes of a pixel.",
          task="soft"),
    Rival("torch", "l1_loss", "l1", F.l1_loss, "l1", "The same.", task="numbers"),
    Rival("torch", "mse_loss", "l2", F.mse_loss, "l2(half=false)", "Ours has the ½.", task="numbers"),
    Rival("torch", "smooth_l1_loss(beta=0.5)", "smooth_l1(beta=0.5)", lambda z, y: F.smooth_l1_loss(z, y, beta=0.5),
          "smooth_l1(beta=0.5)", "The same.", task="numbers"),
    Rival("torch", "huber_loss(delta=0.5)", "huber(delta=0.5)", lambda z, y: F.huber_loss(z, y, delta=0.5),
          "huber(delta=0.5)", "The same.", task="numbers"),
    Rival("MONAI", "BoxGIoULoss()", "giou", monai("BoxGIoULoss", onehot=False), "giou",
          "The same.", task="boxes"),
]  # fmt: skip


# ---- measured ------------------------------------------------------------------------------------------------------


def fixture(task: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

    if task == "numbers":
        return normal(5, 4), normal(5, 4)
    if task == "boxes":
        corners, other = (normal(5, 2).abs() for _ in range(2))
        return torch.cat([corners, corners + 2], 1), torch.cat([other, other + 3], 1)
    if task == "large":
        return torch.zeros(1, 2, 100, 200).double(), torch.arange(100).remainder(2).view(1, -1, 1).expand(1, 100, 200)
    z = normal(2, 1 if task == "binary" else 3, 8, 8)
    if task == "soft":
        return z, normal(2, 3, 8, 8).softmax(1)
    if task == "multilabel":
        return z, (normal(2, 3, 8, 8) > 0.5).long()
    seen = normal(2, 1 if task == "binary" else 3, 8, 8) + 0.5 * z  # labels that have something to do with the logits
    return z, (seen[:, 0] > 0.8).long() if task == "binary" else seen.argmax(1)


def ours(rival: Rival, text: str, z: Tensor, y: Tensor, **ignore: Any) -> Tensor:
    shared = {"task": "multiclass", **ignore} if rival.task == "soft" else ignore
    return torch.stack([ls.parse(part, **shared)(z, y) for part in text.split("; ")]).sum()


def measured(call: Callable[..., Tensor], z: Tensor, y: Tensor, **ignore: Any) -> float | str:
    """The value, or what went wrong instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(call(z, y, **ignore))
    except ModuleNotFoundError:
        return "not installed"
    except Exception as error:
        return f"{type(error).__name__}"


def known() -> list[Rival]:
    """Those whose counterpart is in the catalogue."""
    names = {row.name for row in ls.catalogue()} | set(ALIASES)
    return [rival for rival in RIVALS if set(re.findall(r"[a-z]\w*", rival.ours.split("(")[0])) <= names]


def comparison(rival: Rival) -> dict[str, Any]:
    """Ours and theirs on the fixture, and, for labels of images, where the input is unusual: ours; theirs.

    Raises an AssertionError if what is said to equal theirs does not.
    """
    z, y = fixture(rival.task)
    other = measured(rival.call, z, y)
    if rival.equal and isinstance(other, float):
        mine = rival.factor(z) * float(ours(rival, rival.equal, z, y))
        assert math.isclose(mine, other, rel_tol=1e-6), f"{rival.theirs} is {other}, not {rival.equal}, {mine}"
    found: dict[str, Any] = {"ours_value": float(ours(rival, rival.ours, z, y)), "theirs_value": other, "unusual": {}}
    if rival.task in ("multiclass", "binary"):
        hidden = y.masked_fill(torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.2, 255)
        found["unusual"] = {
            "20 % ignored": both(rival, z, hidden),
            "a class absent": both(rival, z, torch.where(y == y.max(), 0, y)),
            "all ignored": both(rival, z, torch.full_like(y, 255)),
            "gradient at ±10,000": slopes(rival, z, y),
            "float16, 512²": halves(rival, z, y),
        }
    return found


def both(rival: Rival, z: Tensor, y: Tensor) -> str:
    ignore = {"ignore_index": 255} if (y == 255).any() else {}
    mine = float(ours(rival, rival.ours, z, y, **ignore))
    if ignore and not rival.ignores:
        return f"{number(mine)}; no `ignore_index`"
    return f"{number(mine)}; {number(measured(rival.call, z, y, **ignore))}"


def slopes(rival: Rival, z: Tensor, y: Tensor) -> str:
    """Whether the gradient is finite at logits of ±10,000 in float32, ours and theirs."""

    def finite(call: Callable[..., Tensor]) -> str:
        x = (10_000 * z.sign()).float().requires_grad_()

        def sized(x: Tensor, y: Tensor) -> Tensor:
            (gradient,) = torch.autograd.grad(call(x, y), x)
            return gradient.abs().sum()

        found = measured(sized, x, y)
        return found if isinstance(found, str) else "finite" if math.isfinite(found) else "NaN"

    return f"{finite(lambda z, y: ours(rival, rival.ours, z, y))}; {finite(rival.call)}"


def halves(rival: Rival, z: Tensor, y: Tensor) -> str:
    """Values in float16 on the first image, tiled to 512 × 512; where they are off by 1 %, what they should be."""
    if rival.ours in ("hausdorff", "boundary"):
        return "–"  # distance maps of that size take seconds
    wide = z[:1].repeat(1, 1, 64, 64), y[:1].repeat(1, 64, 64)

    def value(call: Callable[..., Tensor]) -> str:
        right, half = (measured(call, x, wide[1]) for x in (wide[0], wide[0].half()))
        if isinstance(right, str) or isinstance(half, str):
            return number(half)
        return number(half) + ("" if abs(half - right) < 0.01 * abs(right) else f" instead of {number(right)}")

    return f"{value(lambda z, y: ours(rival, rival.ours, z, y))}; {value(rival.call)}"


def installed(name: str) -> str:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return "(not installed)"
