"""Claim 6: L1 has a corner at 0, L2 is ruled by outliers, smooth L1 sits between."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_LOSSES = ("l1", "l2", "smooth_l1")
_SAMPLE = [0.1, 0.4, 0.2, 0.3, 0.0, 8.0]  # the last is the outlier
_STEP = 1e-3


def _slope(name: str, residual: float) -> float:
    x = torch.tensor([residual], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(ls.parse(name)(x, torch.zeros_like(x)), x)
    return float(gradient.item())


def _best(name: str) -> float:
    """The one number that is nearest to the sample: where the slope of the mean loss changes sign."""
    low, high, sample = -1.0, 9.0, torch.tensor(_SAMPLE, dtype=torch.float64)
    for _ in range(60):
        middle = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(ls.parse(name)(middle.expand(len(_SAMPLE)), sample), middle)
        low, high = (middle.item(), high) if gradient < 0 else (low, middle.item())
    return low


class CornersAndOutliers(Experiment):
    """The slope of each loss just below and above a residual of 0 (∓.001) and at 8, from autograd in float64; and the
    number that minimises the mean loss over the sample .1 .4 .2 .3 0 and the outlier 8, found by halving the interval.
    Without the outlier mean and median are both .2. With it any number from .2 to .3 minimises L1; shown is the lowest.
    """

    name = "corners-and-outliers"
    title = "L1, L2 and smooth L1"
    claims = (6,)
    claim = "L1 has a corner at 0, L2 is ruled by outliers, smooth L1 sits between."
    document = "002"
    seconds = (2, 2)

    def compute(self, work: Work) -> Data:
        residuals = [-3 + 6 * i / 120 for i in range(121)]
        return {
            name: {
                "below": _slope(name, -_STEP),
                "above": _slope(name, _STEP),
                "far": _slope(name, 8.0),
                "best": _best(name),
                "x": residuals,
                "slope": [_slope(name, x) for x in residuals],
            }
            for name in _LOSSES
        }

    def judge(self, data: Data) -> Finding:
        jump = {name: of["above"] - of["below"] for name, of in data.items()}
        best = {name: of["best"] for name, of in data.items()}
        corner = jump["l1"] > 1 and max(jump["l2"], jump["smooth_l1"]) < 0.01
        ruled = best["l2"] > 1 and best["l1"] <= best["smooth_l1"] + 1e-6 < best["l2"]
        jumps, answers = (", ".join(f"{of[name]:.3f} with {name}" for name in data) for of in (jump, best))
        return Finding(
            "confirmed" if corner and ruled else "refuted",
            f"Across 0 the slope jumps by {jumps}; the best single number for five values around .2 and an outlier at "
            f"8 is {answers}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(data))
        slopes = [Series(of["x"], of["slope"], colour[n], n, 2.2, DASHES[i]) for i, (n, of) in enumerate(data.items())]
        best = [Series([of["best"]], [i], colour[n], n, symbol="circle") for i, (n, of) in enumerate(data.items())]
        values = Series(_SAMPLE, [3] * len(_SAMPLE), "#7d8590", "the sample", symbol="bar", size=14)
        panels = [
            Panel(slopes, title="Slope", x_title="residual", y_title="∂loss/∂prediction"),
            Panel([*best, values], title="What minimises the loss", x_title="value", rows=[*data, "the sample"]),
        ]
        legend = {name: (colour[name], DASHES[i]) for i, name in enumerate(data)}
        caption = "L1 jumps at 0, L2 grows without end; the outlier pulls L2's answer to where no value is."
        return [Figure("slopes_and_answers", caption, Chart(panels, legend))]

    def tables(self, data: Data) -> list[Table]:
        rows = [
            [n, f"{o['below']:.3f}", f"{o['above']:.3f}", f"{o['far']:.1f}", f"{o['best']:.3f}"]
            for n, o in data.items()
        ]
        return [Table("Slopes and answers", ["", "slope at −.001", "at .001", "at 8", "best number"], rows)]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
sample = torch.tensor({_SAMPLE}, dtype=torch.float64)
numbers = [i / 1000 for i in range(9000)]
print(f"{{min(numbers, key=lambda x: ls.L2Loss()(torch.full_like(sample, x), sample)):.3f}}")"""
        return ByHand(code, f"{data['l2']['best']:.3f}")


EXPERIMENT = CornersAndOutliers()
