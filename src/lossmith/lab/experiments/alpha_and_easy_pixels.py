"""Claim 17: alpha balances the classes, but cannot tell easy from hard."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_ALPHAS = (0.1, 0.25, 0.5, 0.75, 0.9)
_GAMMAS = (0.0, 1.0, 2.0, 5.0)
_EASY, _HARD = 3.0, -1.0  # logits of two background pixels' right answer


def _slopes(gamma: float, alpha: float | None) -> tuple[float, float, float]:
    """|∂loss/∂logit| of an easy and a hard background pixel, and of a foreground pixel as hard."""
    logits = torch.tensor([[-_EASY], [-_HARD], [_HARD]], dtype=torch.float64, requires_grad=True)
    loss = ls.FocalLoss(gamma=gamma, alpha=alpha, reduction="sum")
    (gradient,) = torch.autograd.grad(loss(logits, torch.tensor([0, 0, 1])), logits)
    easy, hard, rare = gradient.abs().flatten().tolist()
    return easy, hard, rare


class AlphaAndEasyPixels(Experiment):
    """Two background pixels, one easy (p_t = .953) and one hard (p_t = .269), and a foreground pixel as hard as that.
    From autograd in float64: the easy pixel's gradient over the hard one's, and the foreground's over the background's,
    for alpha from .1 to .9 at gamma = 0, and for gamma from 0 to 5 without alpha.
    """

    name = "alpha-and-easy-pixels"
    title = "What alpha sees"
    claims = (17,)
    claim = "α balances the classes but cannot tell easy from hard."
    document = "004"
    seconds = (2, 2)

    def compute(self, work: Work) -> Data:
        def ratios(gamma: float, alpha: float | None) -> dict[str, float]:
            easy, hard, rare = _slopes(gamma, alpha)
            return {"easy": easy / hard, "classes": rare / hard}

        return {
            "alpha": {f"{alpha:g}": ratios(0.0, alpha) for alpha in _ALPHAS},
            "gamma": {f"{gamma:g}": ratios(gamma, None) for gamma in _GAMMAS},
        }

    def judge(self, data: Data) -> Finding:
        def ends(of: str, what: str) -> tuple[float, float]:
            values = [ratios[what] for ratios in data[of].values()]
            return min(values), max(values)

        (blind, also), (least, most) = ends("alpha", "easy"), ends("alpha", "classes")
        low, high = ends("gamma", "easy")
        stays = f"stays at {blind:.4g}" if also - blind < 1e-6 else f"goes from {blind:.4g} to {also:.4g}"
        holds = also - blind < 1e-6 and most > 2 * least
        return Finding(
            "confirmed" if holds else "refuted",
            f"As α goes from {_ALPHAS[0]} to {_ALPHAS[-1]} the foreground's gradient over the background's goes from "
            f"{least:.2f} to {most:.2f}, and an easy pixel's over a hard one's of its class {stays}; "
            f"γ from {_GAMMAS[0]:g} to {_GAMMAS[-1]:g} takes it from {high:.4g} to {low:.1e}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(["easy over hard", "foreground over background"])
        panels = []
        for of, title in (("alpha", "By α"), ("gamma", "By γ")):
            x = [float(value) for value in data[of]]
            series = [
                Series(x, [r[what] for r in data[of].values()], colour[name], name, 2.2, DASHES[i], "circle", 7)
                for i, (what, name) in enumerate(
                    (("easy", "easy over hard"), ("classes", "foreground over background"))
                )
            ]
            panels.append(Panel(series, title=title, x_title="α" if of == "alpha" else "γ", from_zero=True))
        legend = {name: (colour[name], DASHES[i]) for i, name in enumerate(colour)}
        moves = {
            of: {
                what: max(r[what] for r in by.values()) / min(r[what] for r in by.values())
                for what in ("classes", "easy")
            }
            for of, by in data.items()
        }
        caption = (
            f"α changes foreground over background by a factor of {moves['alpha']['classes']:.0f} and easy over hard "
            f"by {moves['alpha']['easy']:.2f}; γ by {moves['gamma']['classes']:.2f} and {moves['gamma']['easy']:.0e}."
        )
        return [Figure("ratios", caption, Chart(panels, legend))]

    def tables(self, data: Data) -> list[Table]:
        names = {"alpha": "α", "gamma": "γ"}
        rows = [
            [f"{names[of]} = {value}", f"{r['easy']:.4g}", f"{r['classes']:.2f}"]
            for of in names
            for value, r in data[of].items()
        ]
        return [Table("Ratios of gradients", ["", "easy over hard", "foreground over background"], rows)]

    def by_hand(self, data: Data) -> ByHand:
        code = """import torch, lossmith as ls
z = torch.tensor([[-3.0], [1.0]], dtype=torch.float64, requires_grad=True)  # two background pixels
ls.FocalLoss(gamma=0.0, alpha=0.9, reduction="sum")(z, torch.tensor([0, 0])).backward()
print(f"{(z.grad[0] / z.grad[1]).item():.4g}")"""
        return ByHand(code, f"{data['alpha']['0.9']['easy']:.4g}")


EXPERIMENT = AlphaAndEasyPixels()
