"""Claim 4: Dice's gradient where prediction and target are both tiny, by the probability and by the logit."""

from __future__ import annotations

import math

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Verdict, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_LOSSES = {
    "Dice": ls.DiceLoss(smooth=0.0),
    "squared Dice": ls.DiceLoss(smooth=0.0, squared=True),
    "CE": ls.CrossEntropyLoss(),
}
_TARGET = 0.01
_PREDICTIONS = [10 ** (-4 + i / 20) for i in range(61)]  # .0001 to .1
_AT = 20  # of these: .001
_LOGITS = (-15.0, -12.0, -9.0, -6.0, -4.0, -2.0, 0.0)  # of a pixel whose target is 1
Slopes = dict[str, list[float]]


def _slopes(name: str, logits: torch.Tensor, target: float) -> Slopes:
    """Of each logit by itself, in an image of one pixel."""
    z = logits.double().reshape(-1, 1, 1).requires_grad_()
    loss = _LOSSES[name](z, torch.full_like(z, target)) * len(z)  # the mean over images
    (gradient,) = torch.autograd.grad(loss, z)
    p = torch.sigmoid(z.detach())
    return {"z": gradient.flatten().tolist(), "p": (gradient / (p * (1 - p))).flatten().tolist()}


def _range(slopes: list[float]) -> float:
    return max(slopes) - min(slopes)


def _factor(times: float) -> str:
    return f"{times:,.1f} times wider" if times > 1 else f"{1 / times:,.1f} times narrower"


def _rounded(slope: float) -> str:
    """A slope of a table, 0 where there is nothing but rounding."""
    return f"{slope:.2g}" if abs(slope) > 1e-12 else "0"


class TinyDiceGradient(Experiment):
    """One pixel, Dice without smoothing: 1 − 2pt / (p + t), and squared, 1 − 2pt / (p² + t²). First prediction and
    target are both tiny: t = .01, p from .0001 to .1. Then a pixel of the foreground, t = 1, with logits from −15 on.
    The slope by the logit z is from autograd in float64; the one by the probability p is that, divided by p(1 − p).
    A slope is large and unstable if, over these p, its greatest size and its range are both more than those of
    cross-entropy's slope by the same variable. The claim is confirmed if both forms of Dice are, by p and by z, with a
    correction if one of them is.
    """

    name = "tiny-dice-gradient"
    title = "Dice where all is tiny"
    claims = (4,)
    claim = "Dice's gradient is large and unstable when prediction and target are both tiny; CE's is p − t."
    document = "000"
    correction = (
        "It is true of squared Dice, by the probability and by the logit: its slope depends on hardly more than p / t, "
        "however tiny both are, and changes sign at p = t. Dice without squares is steadier than cross-entropy by "
        "either, but by the logit it vanishes where the network is wrong and sure of it. The document compares Dice's "
        "slope by the probability with cross-entropy's by the logit, p − t; by the probability that is "
        "(p − t) / (p (1 − p)), which is large itself."
    )
    seconds = (2, 2)

    def compute(self, work: Work) -> Data:
        tiny, wrong = torch.tensor(_PREDICTIONS, dtype=torch.float64).logit(), torch.tensor(_LOGITS)
        return {
            "p": _PREDICTIONS,
            "tiny": {name: _slopes(name, tiny, _TARGET) for name in _LOSSES},
            "z": list(_LOGITS),
            "wrong": {name: _slopes(name, wrong, 1.0) for name in _LOSSES},
        }

    @staticmethod
    def _times(data: Data, name: str, by: str, ce_by: str) -> tuple[float, float]:
        """How much larger the slope gets than cross-entropy's, and how much wider its range is."""
        slopes, ce = data["tiny"][name][by], data["tiny"]["CE"][ce_by]
        return max(map(abs, slopes)) / max(map(abs, ce)), _range(slopes) / _range(ce)

    def judge(self, data: Data) -> Finding:
        tiny, wrong = data["tiny"], data["wrong"]
        both = ("Dice", "squared Dice")
        unstable = [all(min(self._times(data, name, by, by)) > 1 for by in ("p", "z")) for name in both]
        off = max(abs(s - (p - _TARGET)) for p, s in zip(data["p"], tiny["CE"]["z"], strict=True))
        verdict: Verdict = "refuted"
        if off < 1e-6 and any(unstable):
            verdict = "confirmed" if all(unstable) else "confirmed with a correction"
        ranges = {by: ", ".join(f"{_range(of[by]):.3g} with {name}" for name, of in tiny.items()) for by in ("p", "z")}
        times = {name: " and ".join(_factor(self._times(data, name, by, by)[1]) for by in ("p", "z")) for name in both}
        unlike = " and ".join(_factor(self._times(data, name, "p", "z")[1]) for name in both)
        return Finding(
            verdict,
            f"For t = {_TARGET:g} and p from {data['p'][0]:g} to {data['p'][-1]:g} the range of the slope by p is "
            f"{ranges['p']}, by the logit {ranges['z']}. Against cross-entropy's, by p and by the logit, Dice's is "
            f"{times['Dice']}, squared Dice's {times['squared Dice']}; only Dice's by p against cross-entropy's by the "
            f"logit, as in the document, gives {unlike}. Cross-entropy's by the logit is p − t to {off:.0e}. At "
            f"z = {data['z'][0]:g} and t = 1 Dice's by the logit is {wrong['Dice']['z'][0]:.0e} and cross-entropy's "
            f"{wrong['CE']['z'][0]:.2f}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(_LOSSES))
        dashes = dict(zip(_LOSSES, DASHES, strict=False))
        panels = [
            Panel(
                [Series(x, of["z"], colour[name], name, 2.2, dashes[name]) for name, of in data[key].items()],
                title=title,
                x_title=x_title,
                y_title="slope by the logit",
            )
            for key, x, title, x_title in (
                ("tiny", [math.log10(p) for p in data["p"]], f"Both tiny, t = {_TARGET:g}", "log₁₀ p"),
                ("wrong", data["z"], "Foreground, t = 1", "logit"),
            )
        ]
        squared = data["tiny"]["squared Dice"]["z"]
        caption = (
            f"While all is tiny squared Dice's slope goes from {min(squared):.2f} to {max(squared):.2f}; where t = 1, "
            "at the left end, the network is wrong and sure of it."
        )
        return [Figure("slopes", caption, Chart(panels, {name: (colour[name], dashes[name]) for name in _LOSSES}))]

    def tables(self, data: Data) -> list[Table]:
        head = [f"{name} by {by}" for name in _LOSSES for by in ("p", "z")]
        found = []
        for title, first, key, x, step in (
            (f"Slopes where t = {_TARGET:g}", "p", "tiny", data["p"], 10),
            ("Slopes where t = 1", "logit z", "wrong", data["z"], 1),
        ):
            columns = [of[by] for of in data[key].values() for by in ("p", "z")]
            rows = [[f"{x[i]:.2g}", *(_rounded(of[i]) for of in columns)] for i in range(0, len(x), step)]
            found.append(Table(title, [first, *head], rows))
        return found

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
z = torch.tensor([[[0.001]]], dtype=torch.float64).logit().requires_grad_()
ls.DiceLoss(smooth=0.0, squared=True)(z, torch.full_like(z, {_TARGET})).backward()
print(f"{{z.grad.item():.2g}}")"""
        return ByHand(code, f"{data['tiny']['squared Dice']['z'][_AT]:.2g}")


EXPERIMENT = TinyDiceGradient()
