"""Random calls of a peer's losses: settings from the lists of their arguments, tensors that fit them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

SENTINEL = 9


class Draw(NamedTuple):
    """One call: what the loss is built with, and what it is given."""

    settings: dict[str, Any]
    input: Tensor
    target: Tensor
    more: tuple[Tensor, ...] = ()
    before: Callable[[Tensor], Tensor] = torch.clone  # what a network ends with


def tensors(settings: dict[str, Any], choose: random.Random, logits: bool, channels: int, soft: bool = False) -> Draw:
    """A prediction and a target for the settings, small; with labels that are ignored where there is an index."""
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    n, space = choose.choice([1, 2, 3]), choose.choice([(5, 4), (3, 4, 2)])
    z = 2 * torch.randn(n, channels, *space, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, max(channels, 2), (n, 1, *space), generator=generator)
    if choose.random() < 0.2:
        labels[0] = 0  # classes that are absent
    ignore = settings.get("ignore_index")
    if ignore is not None and (channels == 1 or settings.get("to_onehot_y")):
        labels = labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.3, ignore)
    target: Tensor = labels
    if channels > 1 and not settings.get("to_onehot_y"):
        target = torch.zeros(z.shape).scatter_(1, labels, 1.0)
        if not settings.get("softmax") and not settings.get("use_softmax") and choose.random() < 0.5:
            target = (torch.rand(z.shape, generator=generator) < 0.4).float()  # classes that do not exclude each other
        if ignore is not None and ignore >= channels:
            target = target * (torch.rand(labels.shape, generator=generator) < 0.7)
    if soft:
        target = torch.rand(z.shape, generator=generator).softmax(1) if channels > 1 else torch.rand(z.shape)
    return Draw(settings, z if logits else z.sigmoid(), target.to(choose.choice([torch.float32, torch.float64])))


ACTIVATIONS: list[dict[str, Any]] = [{"softmax": True}, {"sigmoid": True}, {}, {"other_act": torch.sigmoid}]


def common(
    choose: random.Random, channels: int, reductions: tuple[str, ...] = ("mean", "sum", "none")
) -> dict[str, Any]:
    """The arguments that most of MONAI's losses have, some of them left out."""
    some: dict[str, Any] = {
        "include_background": choose.choice([True, False]),
        "to_onehot_y": choose.choice([True, True, False]),
        "batch": choose.choice([True, False]),
        "reduction": choose.choice(reductions),
    }
    settings = {name: value for name, value in some.items() if choose.random() < 0.7}
    activation = dict(choose.choice(ACTIVATIONS))
    return settings | ({"sigmoid": True} if channels == 1 and "softmax" in activation else activation)


def smoothing(choose: random.Random) -> dict[str, Any]:
    return choose.choice(
        [
            {},
            {"smooth_nr": 1.0, "smooth_dr": 1.0},
            {"smooth_nr": 0.0, "smooth_dr": 1e-5},
            {"smooth_nr": 0.5, "smooth_dr": 2},
        ]
    )


def weights(choose: random.Random, settings: dict[str, Any], channels: int) -> dict[str, Any]:
    kept = channels - (settings.get("include_background") is False and channels > 1)
    several = [round(choose.uniform(0.1, 3), 3) for _ in range(kept)]
    return choose.choice([{}, {"weight": 2.5}] + [{"weight": several}] * (kept > 1))


Drawer = Callable[[random.Random], Draw]


def takes_logits(settings: dict[str, Any]) -> bool:
    return bool(settings.keys() & {"softmax", "sigmoid", "other_act"})


def _dice(choose: random.Random) -> Draw:
    channels = choose.choice([1, 2, 3, 4])
    settings = common(choose, channels) | smoothing(choose)
    settings |= weights(choose, settings, channels)
    settings |= choose.choice([{}, {"squared_pred": True}, {"jaccard": True}, {"squared_pred": True, "jaccard": True}])
    settings |= choose.choice([{}, {}, {"soft_label": True}])
    settings |= choose.choice([{}, {}, {"ignore_index": 1}, {"ignore_index": SENTINEL}])
    soft = not settings.get("to_onehot_y") and "ignore_index" not in settings and choose.random() < 0.4
    return tensors(settings, choose, takes_logits(settings), channels, soft)


def _tversky(choose: random.Random) -> Draw:
    channels = choose.choice([1, 2, 3, 4])
    settings = common(choose, channels) | smoothing(choose) | choose.choice([{}, {"alpha": 0.3, "beta": 0.7}])
    settings |= choose.choice([{}, {}, {"soft_label": True}])
    settings |= choose.choice([{}, {}, {"ignore_index": 1}, {"ignore_index": SENTINEL}])
    soft = not settings.get("to_onehot_y") and "ignore_index" not in settings and choose.random() < 0.4
    return tensors(settings, choose, takes_logits(settings), channels, soft)


def _generalized(choose: random.Random) -> Draw:
    channels = choose.choice([1, 2, 3, 4])
    settings = common(choose, channels) | smoothing(choose)
    settings |= choose.choice([{}, {"w_type": "simple"}, {"w_type": "uniform"}, {"soft_label": True}])
    return tensors(settings, choose, takes_logits(settings), channels)


def _masked(choose: random.Random) -> Draw:
    drawn = _dice(choose)
    drawn.settings.pop("ignore_index", None)
    again = tensors(drawn.settings, choose, takes_logits(drawn.settings), drawn.input.shape[1])
    shape = choose.choice([1, len(again.input)]), 1, *again.input.shape[2:]
    return again._replace(more=((torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6).double(),))


def _focal(choose: random.Random) -> Draw:
    channels = choose.choice([1, 2, 3, 4])
    settings: dict[str, Any] = {"gamma": choose.choice([0.5, 1.0, 2.0, 3])}
    for name, values in {"include_background": [True, False], "to_onehot_y": [True, False],
                         "reduction": ["mean", "sum", "none"]}.items():  # fmt: skip
        settings |= {name: choose.choice(values)} if choose.random() < 0.8 else {}
    settings |= choose.choice([{}, {"use_softmax": True}]) if channels > 2 else {}
    kept = channels - (settings.get("include_background") is False and channels > 1)
    settings |= choose.choice([{}, {"alpha": 0.25}, {"alpha": [round(choose.random(), 3) for _ in range(kept)]}])
    settings |= weights(choose, settings, channels)
    settings |= choose.choice([{}, {}, {"ignore_index": 1}, {"ignore_index": SENTINEL}])
    return tensors(settings, choose, True, channels)


def _sum_of_dice(
    choose: random.Random, reductions: tuple[str, ...] = ("mean", "sum", "none")
) -> tuple[int, dict[str, Any]]:
    channels = choose.choice([1, 2, 3, 4])
    settings = common(choose, channels, reductions) | smoothing(choose)
    return channels, settings | choose.choice([{}, {"squared_pred": True}, {"jaccard": True}])


def _dice_ce(choose: random.Random) -> Draw:
    channels, settings = _sum_of_dice(choose, ("mean", "sum"))
    settings |= choose.choice([{}, {"lambda_dice": 0.5, "lambda_ce": 2.0}, {"label_smoothing": 0.1}])
    one = torch.tensor([round(choose.uniform(0.1, 3), 3) for _ in range(channels)], dtype=torch.float64)
    settings |= choose.choice([{}, {"weight": one}])
    return tensors(settings, choose, takes_logits(settings), channels)


def _dice_focal(choose: random.Random) -> Draw:
    channels, settings = _sum_of_dice(choose)
    settings |= choose.choice([{}, {"lambda_dice": 0.5, "lambda_focal": 2.0}, {"gamma": 1.0, "alpha": 0.75}])
    settings |= weights(choose, settings, channels)
    return tensors(settings, choose, takes_logits(settings), channels)


def _generalized_focal(choose: random.Random) -> Draw:
    drawn = _generalized(choose)
    settings = {name: value for name, value in drawn.settings.items() if name != "soft_label"}
    settings |= choose.choice([{}, {"lambda_gdl": 0.5, "lambda_focal": 2.0, "gamma": 1.0}])
    settings |= weights(choose, settings, drawn.input.shape[1])
    return drawn._replace(settings=settings)


def _distance(choose: random.Random) -> Draw:
    channels = choose.choice([1, 2, 3])
    settings = common(choose, channels)
    return tensors(settings, choose, takes_logits(settings), channels)


def _hausdorff(choose: random.Random) -> Draw:
    drawn = _distance(choose)
    return drawn._replace(settings=drawn.settings | choose.choice([{}, {"alpha": 1.0}, {"alpha": 3.0}]))


def _unified(choose: random.Random) -> Draw:
    channels = choose.choice([1, 2])
    settings: dict[str, Any] = {"to_onehot_y": channels == 2 and choose.random() < 0.6}
    settings |= choose.choice([{}, {"gamma": 0.25, "delta": 0.6}, {"weight": 0.2}])
    drawn = tensors(settings, choose, True, channels)
    return drawn._replace(before=softmax if channels == 2 else torch.sigmoid)


def softmax(z: Tensor) -> Tensor:
    return z.softmax(1)


def _boxes(choose: random.Random) -> Draw:
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    at, size, other, more = (torch.rand(7, 2, generator=generator) for _ in range(4))
    settings = choose.choice([{}, {"reduction": "sum"}, {"reduction": "none"}])
    return Draw(settings, torch.cat([at, at + size], 1), torch.cat([other, other + more], 1))


MONAI: dict[str, Drawer] = {
    "DiceLoss": _dice,
    "MaskedDiceLoss": _masked,
    "TverskyLoss": _tversky,
    "GeneralizedDiceLoss": _generalized,
    "FocalLoss": _focal,
    "DiceCELoss": _dice_ce,
    "DiceFocalLoss": _dice_focal,
    "GeneralizedDiceFocalLoss": _generalized_focal,
    "BoundaryLoss": _distance,
    "HausdorffDTLoss": _hausdorff,
    "LogHausdorffDTLoss": _hausdorff,
    "AsymmetricUnifiedFocalLoss": _unified,
    "BoxGIoULoss": _boxes,
}
