"""Claim 20: what each box loss looks at: overlap, centre, aspect; and that scaling both boxes changes none of them."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_LOSSES = ("iou_box", "giou", "diou", "ciou", "smooth_l1")
_GOAL = (0.0, 0.0, 4.0, 2.0)
_FACTORS = {  # two boxes that differ in one thing alone
    "overlap (inside)": ((0.5, 0.25, 3.5, 1.75), (1.0, 0.5, 3.0, 1.5)),
    "gap (apart)": ((6.0, 0.0, 10.0, 2.0), (9.0, 0.0, 13.0, 2.0)),
    "centre (inside)": ((1.5, 0.5, 2.5, 1.5), (0.0, 0.0, 1.0, 1.0)),
    "aspect (inside)": ((1.5, 0.5, 2.5, 1.5), (1.0, 0.75, 3.0, 1.25)),
}
_SCALED = {"inside": (0.5, 0.25, 3.5, 1.75), "overlapping": (3.0, 1.0, 7.0, 2.0), "apart": (6.0, 0.0, 10.0, 2.0)}
_SCALE = 10.0


def _value(name: str, box: tuple[float, ...], goal: tuple[float, ...], scale: float = 1.0) -> float:
    return float(ls.parse(name)(*(scale * torch.tensor([each], dtype=torch.float64) for each in (box, goal))))


class BoxLossesByFactor(Experiment):
    """A target of 4 by 2 and pairs of boxes that differ in one factor: the overlap, both inside the target, of its
    centre and aspect ratio; the gap, both outside; the centre, both inside and of the same area; the aspect ratio, both
    inside, of the same centre and area. A loss sees a factor if its two values differ. Then a box inside the target,
    one across its edge and one apart from it are enlarged ten times together with the target: insensitive to scale is
    a loss whose value stays. Float64.
    """

    name = "box-losses-by-factor"
    title = "Box losses by factor"
    claims = (20,)
    claim = (
        "IoU sees the overlap, GIoU the gap too, DIoU the centre too, CIoU the aspect ratio too; GIoU is insensitive "
        "to scale."
    )
    document = "002"
    seconds = (2, 2)

    def compute(self, work: Work) -> Data:
        values = {
            name: {factor: [_value(name, box, _GOAL) for box in pair] for factor, pair in _FACTORS.items()}
            for name in _LOSSES
        }
        scaled = {
            name: {
                where: [_value(name, box, _GOAL), _value(name, box, _GOAL, _SCALE)] for where, box in _SCALED.items()
            }
            for name in _LOSSES
        }
        return {"values": values, "scaled": scaled}

    @staticmethod
    def _seen(data: Data, name: str) -> list[str]:
        return [factor for factor, (a, b) in data["values"][name].items() if abs(a - b) > 1e-6]

    def judge(self, data: Data) -> Finding:
        expected = {"iou_box": 1, "giou": 2, "diou": 3, "ciou": 4}  # of the factors, in their order
        factors = list(_FACTORS)
        literally = all(self._seen(data, name) == factors[:count] for name, count in expected.items())
        said = "; ".join(f"{name} sees {', '.join(self._seen(data, name)) or 'none'}" for name in expected)
        stay = [name for name in expected if all(abs(a - b) < 1e-6 for a, b in data["scaled"][name].values())]
        giou = ", ".join(f"{where} {a:.3f} ({b:.3f})" for where, (a, b) in data["scaled"]["giou"].items())
        rough, rougher = data["scaled"]["smooth_l1"]["apart"]
        return Finding(
            "confirmed" if literally and stay == list(expected) else "refuted",
            f"By these boxes {said}. With both boxes ten times as large the value stays with "
            f"{', '.join(stay) or 'none'}: giou is {giou}. Smooth L1 of the boxes apart goes from {rough:.3f} to "
            f"{rougher:.3f}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        names = list(data["values"])[:4]
        colour = colours(names)
        panels = []
        for factor in _FACTORS:
            series = [
                Series([0, 1], data["values"][name][factor], colour[name], name, 2.2, DASHES[i], "circle", 8)
                for i, name in enumerate(names)
            ]
            panels.append(Panel(series, title=factor, x_title="first and second box", y_title="loss", from_zero=True))
        legend = {name: (colour[name], DASHES[i]) for i, name in enumerate(names)}
        caption = "A flat line is a factor that the loss does not see."
        return [Figure("factors", caption, Chart(panels, legend, narrow=True))]

    def tables(self, data: Data) -> list[Table]:
        parts = (
            ("The loss of the first and the second box", "values", _FACTORS),
            ("The loss, and with both boxes ten times as large", "scaled", _SCALED),
        )
        return [
            Table(
                title,
                ["", *columns],
                [[name, *(f"{a:.3f}, {b:.3f}" for a, b in of.values())] for name, of in data[key].items()],
            )
            for title, key, columns in parts
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
box, goal = torch.tensor([{list(_SCALED["apart"])}]), torch.tensor([{list(_GOAL)}])
print(f"apart {{ls.GIoULoss()(box, goal).item():.3f}} ({{ls.GIoULoss()(10 * box, 10 * goal).item():.3f}})")"""
        return ByHand(code, "apart {:.3f} ({:.3f})".format(*data["scaled"]["giou"]["apart"]))


EXPERIMENT = BoxLossesByFactor()
