"""Claim 16: the weight of weighted cross-entropy equalises the two classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Mark, Panel, Series, colours

_PIXELS = 10_000
_SHARES = (0.001, 0.01, 0.1, 0.3)
_PREDICTED = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)  # by a model that says the same everywhere
_RARE = 0.01
_HELD, _DIFFERENTIATED = "wce, weight held constant", "wce, weight differentiated"
_LABELS = "wce, weight from labels"
Loss = Callable[[Tensor, Tensor], Tensor]


def _differentiated(logits: Tensor, label: Tensor) -> Tensor:
    """The document's formula to the letter, with the weight a part of what is differentiated."""
    p = logits[:, 0].sigmoid()
    weight = (1 - p).sum() / p.sum()
    return -(weight * label * p.log() + (1 - label) * (1 - p).log()).mean()


def _slopes(loss: Loss, share: float, logit: float) -> tuple[float, float]:
    """Σ ∂loss/∂logit over the foreground and over the background, where every logit is the same."""
    label = (torch.arange(_PIXELS) < share * _PIXELS).long()[None]
    logits = torch.full((1, 1, _PIXELS), logit, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(logits, label), logits)
    return float(gradient[0, 0][label[0] == 1].sum()), float(gradient[0, 0][label[0] == 0].sum())


def _parts(loss: Loss, p: float) -> dict[str, float]:
    """The foreground's part of the weights of all pixels, and of the gradient."""
    foreground, background = map(abs, _slopes(loss, _RARE, math.log(p / (1 - p))))
    weight, other = foreground / (1 - p), background / p  # a slope is the weight times |p − r|
    return {"weight": weight / (weight + other), "gradient": foreground / (foreground + background)}


def _settles(loss: Loss, share: float) -> float:
    """The probability at which a model that says the same everywhere comes to rest."""
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_slopes(loss, share, middle)) < 0 else (low, middle)
    return 1 / (1 + math.exp(-low))


class WCEEqualClasses(Experiment):
    """10,000 pixels of which a share is foreground, and a model that says the same probability p everywhere. The losses
    are cross-entropy, weighted cross-entropy with its weight from the predictions, and the same with its weight from
    the labels. What the document's formula means for the gradient is not said: lossmith holds a weight from the
    predictions constant, and to the letter it would be differentiated too, so both are shown. Where does the model
    come to rest, found by halving the interval on Σ ∂loss/∂logit (float64)? Where the classes are equal it does at one
    half. And where the weight is a constant: the gradient of a pixel is its weight times |p − r|; what part of the
    weights of all pixels has the foreground, and what part of the gradient, by p? The claim is confirmed if the model
    rests within .05 of one half with both, with a correction if with one of them.
    """

    name = "wce-equal-classes"
    title = "Does WCE's weight equalise the classes?"
    claims = (16,)
    claim = "WCE's weight w = (N − Σp) / Σp equalises the two classes; the document itself doubts it."
    document = "001"
    correction = (
        "The doubt is right. Taken from the predictions the weight balances what the model says; that is what there "
        "is only where Σp = Σr. Taken from the labels, (N − Σr) / Σr, it equalises the classes whatever the model says."
    )
    seconds = (3, 3)

    def compute(self, work: Work) -> Data:
        losses: dict[str, Loss] = {
            "ce": ls.CrossEntropyLoss(),
            _HELD: ls.WeightedCrossEntropyLoss(),
            _DIFFERENTIATED: _differentiated,
            _LABELS: ls.WeightedCrossEntropyLoss(weight_from="target"),
        }
        return {
            "settles": {name: [_settles(loss, share) for share in _SHARES] for name, loss in losses.items()},
            "parts": {
                name: [_parts(loss, p) for p in _PREDICTED]
                for name, loss in losses.items()
                if loss is not _differentiated
            },
        }

    def judge(self, data: Data) -> Finding:
        def far(name: str) -> float:
            return max(abs(float(p) - 0.5) for p in data["settles"][name])

        rest = {name: of[_SHARES.index(_RARE)] for name, of in data["settles"].items()}
        equal = [far(name) < 0.05 for name in (_HELD, _DIFFERENTIATED)]
        part = {p: parts["weight"] for p, parts in zip(_PREDICTED, data["parts"][_HELD], strict=True)}
        return Finding(
            "confirmed" if all(equal) else "confirmed with a correction" if any(equal) else "refuted",
            f"With {_RARE:.0%} of foreground a model that says the same everywhere comes to rest at p = "
            f"{rest['ce']:.4f} under CE, at {rest[_HELD]:.4f} under WCE with its weight from the predictions, held "
            f"constant ({rest[_DIFFERENTIATED]:.4f} if it is differentiated), and at {rest[_LABELS]:.4f} with the "
            f"weight from the labels (equal classes: 0.5). Held constant, the weights of the foreground's pixels are "
            f"{part[0.5]:.1%} of all weights where the model says 0.5, and {part[_RARE]:.1%} where it says {_RARE}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(data["settles"]))
        legend = {name: (colour[name], DASHES[i]) for i, name in enumerate(colour)}

        def lines(x: Sequence[float], of: dict[str, list[float]]) -> list[Series]:
            return [
                Series(x, y, colour[name], name, 2.2, DASHES[i], "circle", 7) for i, (name, y) in enumerate(of.items())
            ]

        weights = {name: [part["weight"] for part in of] for name, of in data["parts"].items()}
        equal = [Mark("y", 0.5, "equal")]
        panels = [
            Panel(lines(_SHARES, data["settles"]), "A constant model comes to rest", "share of foreground", "p"),
            Panel(lines(_PREDICTED, weights), f"{_RARE:.0%} of foreground", "p everywhere", "its part of the weights"),
        ]
        panels = [replace(panel, x_log=True, y_range=(-0.02, 1.02), marks=equal) for panel in panels]
        halved = max(
            abs(p / (1 - p) - (share / (1 - share)) ** 0.5)
            for share, p in zip(_SHARES, data["settles"][_HELD], strict=True)
        )
        caption = (
            "Equal classes have one half. With the weight held constant the odds of the resting place are the square "
            f"root of the odds of the foreground, to {halved:.0e}."
        )
        return [Figure("rest_and_weights", caption, Chart(panels, legend))]

    def tables(self, data: Data) -> list[Table]:
        def by_p(what: str) -> list[list[str]]:
            return [[name, *(f"{part[what]:.1%}" for part in of)] for name, of in data["parts"].items()]

        rest = [[name, *(f"{p:.4f}" for p in of)] for name, of in data["settles"].items()]
        said = ["", *(f"p = {p}" for p in _PREDICTED)]
        return [
            Table("Where a constant model comes to rest", ["", *(f"{share:.1%}" for share in _SHARES)], rest),
            Table(f"The foreground's part of the weights, {_RARE:.0%} of the pixels", said, by_p("weight")),
            Table(f"The foreground's part of the gradient, {_RARE:.0%} of the pixels", said, by_p("gradient")),
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
label = (torch.arange({_PIXELS}) < {_RARE * _PIXELS:.0f}).long()[None]
z = torch.zeros(1, 1, {_PIXELS}, dtype=torch.float64)
for _ in range(60):  # down the slope of the one number that such a model has
    z.requires_grad_()
    (slope,) = torch.autograd.grad(ls.WeightedCrossEntropyLoss()(z, label), z)
    z = (z - 4 * slope.sum()).detach()
print(f"{{z.sigmoid()[0, 0, 0].item():.4f}}")"""
        return ByHand(code, f"{data['settles'][_HELD][_SHARES.index(_RARE)]:.4f}")


EXPERIMENT = WCEEqualClasses()
