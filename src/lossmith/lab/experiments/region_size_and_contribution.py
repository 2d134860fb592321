"""Claim 5: generalised Dice reduces the link between the size of a region and what it contributes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Verdict, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_SIDES = (4, 8, 16, 32, 64)  # of the small region; the large one has 64
_WIDTH = 160
_LOSSES = {
    "ce": ls.CrossEntropyLoss(),
    "gdl, equal weights": ls.GeneralizedDiceLoss(weighting="uniform"),
    "gdl, 1 / Σr": ls.GeneralizedDiceLoss(weighting="simple"),
    "gdl": ls.GeneralizedDiceLoss(),
    "dice": ls.DiceLoss(),
}
_MEASURES = (
    "gradient on its own pixels",
    "gradient in its own channel",
    "cost of missing it, logits of 8",
    "cost of missing it, logits of 2",
)
_CLEARLY = 0.9  # the most that may be left of the distance from one half


def _logits(label: Tensor, size: float) -> Tensor:
    return size * torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2).double()


def _parts(loss: ls.Loss, side: int) -> list[float]:
    """By each measure, what comes from the region of this side out of what comes from both."""
    label = torch.zeros(1, 64, _WIDTH, dtype=torch.long)
    label[0, :, :64], label[0, :side, 70 : 70 + side] = 1, 2
    start = _logits(label, 0.0).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(start, label), start)
    size = gradient.abs()
    pairs = [[size.sum(1)[label == k].sum() for k in (1, 2)], [size[:, k].sum() for k in (1, 2)]]
    for sure in (8.0, 2.0):
        perfect = loss(_logits(label, sure), label)
        pairs.append([loss(_logits(torch.where(label == k, 0, label), sure), label) - perfect for k in (1, 2)])
    return [float(small / (small + large)) for large, small in pairs]


def _said(weaker: bool) -> str:
    return "weaker" if weaker else "not weaker"


def _upper(measure: str) -> str:
    return f"{measure[0].upper()}{measure[1:]}"


class RegionSizeAndContribution(Experiment):
    """A picture with two regions: a square of 64 by 64 and one of 4 to 64. Four measures of what a region contributes:
    the gradient by the logits, in absolute values at a uniform start (logits of 0), on the region's own pixels or in
    its own channel over the whole picture; and what the loss rises by when the region is missed altogether, predicted
    as background by a network that is sure (logits of 8) or not so sure (2). Shown is the small region's part in the
    sum of both, one half where size does not matter. By a measure the link is weaker if the part at 4² that
    generalised Dice gives is nearer to one half, by a tenth at least, than those of cross-entropy and of equal weights.
    The claim is confirmed if it is so by all measures, with a correction if by most, and else refuted. Generalised Dice
    has the paper's weights 1 / (Σr)², or 1 / Σr, or equal ones; Dice is averaged over the classes. Float64.
    """

    name = "region-size-and-contribution"
    title = "Region size and contribution"
    claims = (5,)
    claim = "Generalised Dice reduces the link between region size and contribution."
    document = "001"
    correction = (
        "It does so for the gradient on a region's own pixels. What the loss loses when a region is missed goes, with "
        "the weight 1 / (Σr)², with 1 / size: the link is turned round, and the smallest region rules. Dice averaged "
        "over the classes is near one half where the network is sure, and far from it before."
    )
    seconds = (3, 3)

    def compute(self, work: Work) -> Data:
        found = {name: [_parts(loss, side) for side in _SIDES] for name, loss in _LOSSES.items()}
        return {
            measure: {name: [parts[i] for parts in of] for name, of in found.items()}
            for i, measure in enumerate(_MEASURES)
        }

    @staticmethod
    def _reduced(parts: dict[str, list[float]]) -> bool:
        off = {name: abs(of[0] - 0.5) for name, of in parts.items()}
        return off["gdl"] < _CLEARLY * min(off["ce"], off["gdl, equal weights"])

    @staticmethod
    def _power(part: float) -> float:
        """The power of the size that a contribution goes with, from the smallest region to the largest."""
        return math.log(part / (1 - part)) / math.log(_SIDES[0] ** 2 / _SIDES[-1] ** 2)

    def judge(self, data: Data) -> Finding:
        reduced = {measure: self._reduced(parts) for measure, parts in data.items()}
        verdict: Verdict = "refuted"
        if 2 * sum(reduced.values()) > len(reduced):
            verdict = "confirmed" if all(reduced.values()) else "confirmed with a correction"
        said = [
            f"{_upper(measure)}: {parts['ce'][0]:.1%} and {parts['gdl'][0]:.1%}, {_said(reduced[measure])}."
            for measure, parts in data.items()
        ]
        return Finding(
            verdict,
            f"By {sum(reduced.values())} of {len(reduced)} measures the link is weaker. These are the parts of a "
            f"region of {_SIDES[0]}² beside one of {_SIDES[-1]}², with cross-entropy and with generalised Dice; size "
            f"does not matter at 50%. {' '.join(said)}",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(_LOSSES))
        dashes = {name: DASHES[i % len(DASHES)] for i, name in enumerate(_LOSSES)}
        panels = [
            Panel(
                [Series(_SIDES, of, colour[name], name, 2.2, dashes[name], "circle", 7) for name, of in parts.items()],
                title=f"{_upper(measure)}: {_said(self._reduced(parts))}",
                x_title="side of the small region",
                y_title="its part",
                y_range=(-0.02, 1.02),
                x_log=True,
                percent=True,
            )
            for measure, parts in data.items()
        ]
        caption = "A flat line at 50 % would mean that size does not matter; above it the small region counts for more."
        return [Figure("parts", caption, Chart(panels, {name: (colour[name], dashes[name]) for name in _LOSSES}))]

    def tables(self, data: Data) -> list[Table]:
        parts_of, powers = [], []
        for measure, parts in data.items():
            nearest = min(parts, key=lambda name: abs(parts[name][0] - 0.5))
            parts_of.append([measure, *(f"{parts[name][0]:.1%}" for name in _LOSSES), nearest])
            powers.append([measure, *(f"{self._power(parts[name][0]):.2f}".replace("-", "−") for name in _LOSSES)])
        return [
            Table("The part of a region of 4² beside one of 64²", ["", *_LOSSES, "nearest to one half"], parts_of),
            Table("The power of the size that a contribution goes with: 1 is proportional", ["", *_LOSSES], powers),
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
label = torch.zeros(1, 64, {_WIDTH}, dtype=torch.long)
label[0, :, :64], label[0, :4, 70:74] = 1, 2
logits = torch.zeros(1, 3, 64, {_WIDTH}, dtype=torch.float64, requires_grad=True)
ls.GeneralizedDiceLoss()(logits, label).backward()
large, small = (logits.grad.abs().sum(1)[label == k].sum().item() for k in (1, 2))
print(f"{{small / (small + large):.1%}}")"""
        return ByHand(code, f"{data[_MEASURES[0]]['gdl'][0]:.1%}")


EXPERIMENT = RegionSizeAndContribution()
