"""Claim 3: under imbalance easy negatives own most of cross-entropy's gradient, and focal loss gives it back."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import COLOURS, Chart, Panel, Series

_NEGATIVES, _POSITIVES = 100_000, 100
_GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
_CUT, _CUTS = 0.2, (0.05, 0.1, 0.2, 0.3, 0.5)  # below which a negative is easy
_GROUPS = ("easy negatives", "hard negatives", "positives")


def _scores() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of a detector that is half trained: sure of most background, unsure of the objects."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(_NEGATIVES + _POSITIVES, generator=generator, dtype=torch.float64)
    label = (torch.arange(_NEGATIVES + _POSITIVES) >= _NEGATIVES).long()
    return torch.where(label == 1, normal, 1.5 * normal - 4), label


class WhoOwnsTheGradient(Experiment):
    """Made scores of 100,000 negatives (logits normal, mean −4, deviation 1.5) and 100 positives (mean 0, deviation
    1), seed 0. |∂loss/∂logit| of the focal loss without α, from autograd in float64, is added up over easy negatives
    (p below .2), hard ones, and positives; γ = 0 is cross-entropy. Given back means that at γ = 2 the easy ones' share
    is less than half, the positives' more than double, and the hard negatives' larger. The shares depend on these made
    scores, and on where easy ends: the second table has other bounds than .2.
    """

    name = "who-owns-the-gradient"
    title = "Who owns the gradient"
    claims = (3,)
    claim = "Under imbalance easy negatives own most of the cross-entropy gradient; focal loss gives it back."
    document = "004"
    seconds = (3, 3)

    def compute(self, work: Work) -> Data:
        logits, label = _scores()
        p, negative = torch.sigmoid(logits), label == 0
        easy = negative & (p < _CUT)
        groups = (easy, negative & ~easy, label == 1)
        shares, cuts = {}, {}
        for gamma in _GAMMAS:
            knob = logits[:, None].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(ls.FocalLoss(gamma=gamma)(knob, label), knob)
            share = gradient[:, 0].abs() / gradient.abs().sum()
            shares[f"{gamma:g}"] = [share[group].sum().item() for group in groups]
            cuts[f"{gamma:g}"] = [share[negative & (p < cut)].sum().item() for cut in _CUTS]
        return {"easy": easy.sum().item() / len(label), "shares": shares, "cuts": cuts}

    def judge(self, data: Data) -> Finding:
        shares = data["shares"]
        before, usual, after = shares["0"], shares["2"], shares["5"]
        holds = before[0] > 0.5 and usual[0] < before[0] / 2 and usual[1] > before[1] and usual[2] > 2 * before[2]
        cuts = ", ".join(f"{s:.1%} below {c:g}" for c, s in zip(_CUTS, data["cuts"]["0"], strict=True) if c != _CUT)
        return Finding(
            "confirmed" if holds else "refuted",
            f"Easy negatives, p below {_CUT:g}, are {data['easy']:.1%} of the scores and own {before[0]:.1%} of "
            f"cross-entropy's gradient ({cuts}), {usual[0]:.1%} at γ = 2 and {after[0]:.1%} at γ = 5; the positives, "
            f"one in a thousand, go from {before[2]:.1%} to {usual[2]:.1%} and {after[2]:.1%}, hard negatives from "
            f"{before[1]:.1%} to {usual[1]:.1%} and {after[1]:.1%}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        gammas = [float(gamma) for gamma in data["shares"]]
        series = [
            Series(gammas, [s[i] for s in data["shares"].values()], COLOURS[i], group, 2.4, symbol="circle", size=7)
            for i, group in enumerate(_GROUPS)
        ]
        panel = Panel(series, x_title="γ", y_title="share of the gradient", y_range=(-0.02, 1.02), percent=True)
        legend = {group: (COLOURS[i], series[i].dash) for i, group in enumerate(_GROUPS)}
        caption = "What the easy negatives lose goes to what is hard, of either class."
        return [Figure("shares", caption, Chart([panel], legend))]

    def tables(self, data: Data) -> list[Table]:
        parts = (
            ("Share of the gradient", "shares", _GROUPS),
            ("Share of the negatives with p below a bound", "cuts", [f"{cut:g}" for cut in _CUTS]),
        )
        return [
            Table(
                title,
                ["", *head],
                [[f"γ = {gamma}", *(f"{share:.2%}" for share in s)] for gamma, s in data[key].items()],
            )
            for title, key, head in parts
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
normal = torch.randn({_NEGATIVES + _POSITIVES}, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
label = (torch.arange({_NEGATIVES + _POSITIVES}) >= {_NEGATIVES}).long()
logits = torch.where(label == 1, normal, 1.5 * normal - 4).requires_grad_()
ls.FocalLoss(gamma=0.0)(logits[:, None], label).backward()
share = logits.grad.abs() / logits.grad.abs().sum()
print(f"{{share[(label == 0) & (logits.sigmoid() < {_CUT})].sum().item():.1%}}")"""
        return ByHand(code, f"{data['shares']['0'][0]:.1%}")


EXPERIMENT = WhoOwnsTheGradient()
