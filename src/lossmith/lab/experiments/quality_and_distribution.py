"""Claim 8: QFL is smallest at σ = y; DFL pulls mass to the two bins around the target; the integral decode follows."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import COLOURS, DASHES, Chart, Mark, Panel, Series, colours

_QUALITIES = (0.1, 0.3, 0.7, 0.9)
_TARGETS, _BINS = (2.3, 0.6, 3.0, 4.5), 6
_RATE, _STEPS = 0.5, 1000


class QualityAndDistribution(Experiment):
    """Quality focal loss over 999 scores from .001 to .999 for each of four qualities, and where it is smallest. Then
    gradient descent on the logits of six bins (all 0 at first, the rate .5, 1000 steps) by distribution focal loss for
    the targets 2.3, 0.6, 3 and 4.5: the probabilities of the bins and the integral, Σ k S_k. Float64.
    """

    name = "quality-and-distribution"
    title = "Quality and distribution focal loss"
    claims = (8,)
    claim = "QFL's minimum is at σ = y; DFL pulls mass to the two bins around the target; the integral decode follows."
    document = "004"
    seconds = (3, 3)

    def compute(self, work: Work) -> Data:
        p = torch.arange(1, 1000, dtype=torch.float64) / 1000
        curves = {}
        for y in _QUALITIES:
            loss = ls.QualityFocalLoss(reduction="none")(
                p.logit()[:, None], torch.full((999, 1), y, dtype=torch.float64)
            )
            curves[f"{y:g}"] = loss.flatten().tolist()
        logits, target = torch.zeros(len(_TARGETS), _BINS).double(), torch.tensor(_TARGETS, dtype=torch.float64)
        dfl, decoded = ls.DistributionFocalLoss(reduction="sum"), [ls.integral(torch.zeros(1, _BINS)).tolist() * 4]
        for _ in range(_STEPS):
            logits.requires_grad_()
            (gradient,) = torch.autograd.grad(dfl(logits, target), logits)
            logits = (logits - _RATE * gradient).detach()
            decoded.append(ls.integral(logits).tolist())
        return {
            "p": p.tolist(),
            "qfl": curves,
            "bins": logits.softmax(1).tolist(),
            "decoded": [list(of) for of in zip(*decoded, strict=True)],
        }

    def judge(self, data: Data) -> Finding:
        lowest = {y: data["p"][min(range(999), key=of.__getitem__)] for y, of in data["qfl"].items()}
        beside = [sum(bins[int(y) : int(y) + 2]) for y, bins in zip(_TARGETS, data["bins"], strict=True)]
        last = [decoded[-1] for decoded in data["decoded"]]
        holds = (
            all(abs(p - float(y)) < 1e-3 for y, p in lowest.items())
            and min(beside) > 0.9
            and max(abs(at - y) for at, y in zip(last, _TARGETS, strict=True)) < 0.02
        )
        said = ", ".join(f"{p:.3f} for y = {y}" for y, p in lowest.items())
        decoded = ", ".join(f"{at:.3f} for {y:g}" for at, y in zip(last, _TARGETS, strict=True))
        return Finding(
            "confirmed" if holds else "refuted",
            f"QFL is smallest at {said}; DFL brings {min(beside):.1%} or more of the mass to the two bins around the "
            f"target, for {_TARGETS[0]} {data['bins'][0][2]:.3f} and {data['bins'][0][3]:.3f}, and the integral goes "
            f"from {data['decoded'][0][0]:.2f} to {decoded}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(data["qfl"]))
        curves = [
            Series(data["p"], of, colour[y], f"y = {y}", 2, DASHES[i]) for i, (y, of) in enumerate(data["qfl"].items())
        ]
        walks = [
            Series(list(range(_STEPS + 1)), decoded, COLOURS[i], f"target {y:g}", 2.2)
            for i, (y, decoded) in enumerate(zip(_TARGETS, data["decoded"], strict=True))
        ]
        bins = [Series([mass], [k], COLOURS[0], bars=0.3) for k, mass in enumerate(data["bins"][0])]
        panels = [
            Panel(curves, title="QFL", x_title="σ", y_title="loss", x_range=(0, 1), y_range=(0, 1)),
            Panel(
                bins,
                title=f"DFL: the mass at last, target {_TARGETS[0]}",
                x_title="share",
                rows=[f"bin {k}" for k in range(_BINS)],
            ),
            Panel(walks, title="DFL: the integral", x_title="step", marks=[Mark("y", y, f"{y:g}") for y in _TARGETS]),
        ]
        legend = {f"y = {y}": (colour[y], DASHES[i]) for i, y in enumerate(data["qfl"])}
        floor = max(min(of) for of in data["qfl"].values())
        caption = f"The curves' smallest values are at most {floor:.0e}; the integrals end on their dotted lines."
        return [Figure("minimum_and_mass", caption, Chart(panels, legend))]

    def tables(self, data: Data) -> list[Table]:
        rows = [[f"{y:g}", *(f"{mass:.4f}" for mass in bins)] for y, bins in zip(_TARGETS, data["bins"], strict=True)]
        return [Table("Mass of the bins by DFL", ["target", *(f"bin {k}" for k in range(_BINS))], rows)]

    def by_hand(self, data: Data) -> ByHand:
        code = """import torch, lossmith as ls
p = torch.arange(1, 1000, dtype=torch.float64) / 1000
loss = ls.QualityFocalLoss(reduction="none")(p.logit()[:, None], torch.full((999, 1), 0.7, dtype=torch.float64))
print(f"{p[loss.argmin()].item():.3f} for y = 0.7")"""
        found = data["p"][min(range(999), key=data["qfl"]["0.7"].__getitem__)]
        return ByHand(code, f"{found:.3f} for y = 0.7")


EXPERIMENT = QualityAndDistribution()
