"""Claim 23: the non-adjacency loss sees which classes touch, not where."""

from __future__ import annotations

import torch
from torch import Tensor

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Work
from lossmith.lab.page.panels import COLOURS, Chart, Panel, Series

_SIDE, _CERTAIN = 24, 30.0
_FORBIDDEN = [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]  # 0 and 2 must not touch


def _picture(*pixels: tuple[int, int, int]) -> Tensor:
    labels = torch.full((1, _SIDE, _SIDE), 3)
    for label, row, column in pixels:
        labels[0, row, column] = label
    return labels


def _value(labels: Tensor) -> float:
    logits = _CERTAIN * torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).double()
    return float(ls.NonAdjacencyLoss(forbidden=torch.tensor(_FORBIDDEN))(logits))


class NonAdjacencySeesPairs(Experiment):
    """Pictures of 24 by 24 of class 3, with one pixel of class 0 beside one of class 2, the pair that must not touch.
    The contact is put at every second place (fourth in the short form) in all eight directions, at the border of the
    picture too; then the pair that touches is exchanged for each other pair, and the two are moved apart by one pixel
    more than touches (a window of 3 by 3). Predictions are certain (a logit of 30), float64.
    """

    name = "non-adjacency-sees-pairs"
    title = "Non-adjacency: pairs, not positions"
    claims = (23,)
    claim = "Non-adjacency sees pairs of classes, not positions."
    document = "003"
    seconds = (3, 8)

    def compute(self, work: Work) -> Data:
        places = range(0, _SIDE, 4 if work.fast else 2)
        around = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
        values = [
            _value(_picture((0, row, column), (2, row + down, column + right)))
            for row in places
            for column in places
            for down, right in around
            if 0 <= row + down < _SIDE and 0 <= column + right < _SIDE
        ]
        pairs = {f"{a} beside {b}": _value(_picture((a, 12, 12), (b, 12, 13))) for a, b in ((0, 2), (0, 1), (1, 2))}
        return {"values": values, "pairs": pairs, "apart": _value(_picture((0, 12, 12), (2, 12, 14)))}

    def judge(self, data: Data) -> Finding:
        values, pairs = data["values"], data["pairs"]
        spread = (max(values) - min(values)) / max(values)
        seen, *unseen = pairs.values()
        costs = f"{1e3 * min(values):.4f}" if spread < 1e-6 else f"{1e3 * min(values):.4f} to {1e3 * max(values):.4f}"
        holds = spread < 1e-6 and seen > 1e-4 and max(*unseen, data["apart"]) < 1e-9
        return Finding(
            "confirmed" if holds else "refuted",
            f"At {len(values)} places and directions the same contact costs {costs} "
            f"thousandths, while by the pair that touches it is "
            f"{', '.join(f'{1e3 * value:.4f} for {name}' for name, value in pairs.items())}, and "
            f"{1e3 * data['apart']:.4f} for 0 and 2 with a pixel between them.",
        )

    def draw(self, data: Data) -> list[Figure]:
        places = Series(list(range(len(data["values"]))), data["values"], COLOURS[0], symbol="circle", size=4)
        pairs = [
            Series([value], [row], COLOURS[row], name, symbol="square", size=11)
            for row, (name, value) in enumerate(data["pairs"].items())
        ]
        panels = [
            Panel([places], title="One contact, moved and turned", x_title="place", y_title="loss", from_zero=True),
            Panel(pairs, title="Which classes touch", x_title="loss", rows=list(data["pairs"])),
        ]
        spread = max(data["values"]) - min(data["values"])
        paying = [name for name, value in data["pairs"].items() if value > 1e-9]
        caption = (
            f"Moved and turned, the loss differs by {spread:.0e}; of the pairs what costs anything is "
            f"{', '.join(paying) or 'nothing'}."
        )
        return [Figure("places_and_pairs", caption, Chart(panels))]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
labels = torch.full((1, 24, 24), 3)
labels[0, 12, 12], labels[0, 12, 13] = 0, 2
logits = 30 * torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).double()
print(f"{{1e3 * ls.NonAdjacencyLoss(forbidden=torch.tensor({_FORBIDDEN}))(logits):.4f}}")"""
        return ByHand(code, f"{1e3 * data['pairs']['0 beside 2']:.4f}")


EXPERIMENT = NonAdjacencySeesPairs()
