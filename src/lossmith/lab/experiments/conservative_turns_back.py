"""Claim 10: the conservative loss pushes back what is already good: its gradient changes sign at p = 1/a."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Work
from lossmith.lab.page.panels import COLOURS, Chart, Dash, Mark, Panel, Series

_BASES = (math.e, 4.0)


def _slopes(p: list[float], loss: ls.Loss) -> list[float]:
    """∂loss/∂logit of foreground pixels of these probabilities."""
    logits = torch.tensor(p, dtype=torch.float64).logit()[:, None].requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, torch.ones(len(p)).long()), logits)
    return [float(slope) for slope in gradient[:, 0]]


def _turns(slopes: list[float]) -> int:
    return sum(a * b < 0 for a, b in pairwise(slopes))


class ConservativeTurnsBack(Experiment):
    """The slope by the logit of one foreground pixel, from autograd in float64, for 99 probabilities from .01 to .99,
    with the bases e (the usual one) and 4; the place where it changes sign is found by halving the interval. The same
    for the formula as transcribed, λ (1 + log_a p)² log_a(−log_a p), of which lossmith takes the absolute value.
    """

    name = "conservative-turns-back"
    title = "The conservative loss turns back"
    claims = (10,)
    claim = "The conservative loss pushes back top performers: its gradient changes sign at p = 1/a."
    document = "003"
    correction = (
        "As transcribed the loss falls from p = 0 to 1 and pushes every pixel forward. It turns back if the absolute "
        "value is taken. That is our reading, which makes the claim true; it is not checked against the paper. It is "
        "the default of lossmith; form='signed' is the transcription."
    )
    seconds = (4, 4)

    def compute(self, work: Work) -> Data:
        p = [0.01 + 0.98 * i / 98 for i in range(99)]
        turns = {}
        for base in _BASES:
            low, high = 0.05, 0.95
            for _ in range(40):
                middle = (low + high) / 2
                back = _slopes([middle], ls.ConservativeLoss(base=base))[0] > 0
                low, high = (low, middle) if back else (middle, high)
            turns[f"{base:.4g}"] = low

        def curves(form: Literal["abs", "signed"]) -> dict[str, list[float]]:
            return {f"{b:.4g}": _slopes(p, ls.ConservativeLoss(base=b, form=form, reduction="sum")) for b in _BASES}

        return {
            "p": p,
            "slope": curves("abs"),
            "transcribed": curves("signed"),
            "turns": turns,
            "expected": {f"{base:.4g}": 1 / base for base in _BASES},
        }

    def judge(self, data: Data) -> Finding:
        turns, expected = data["turns"], data["expected"]
        holds = all(
            abs(turns[base] - expected[base]) < 1e-3 and _turns(of) == 1 and of[0] < 0 < of[-1]
            for base, of in data["slope"].items()
        )
        literally = all(_turns(of) == 1 and of[0] < 0 < of[-1] for of in data["transcribed"].values())
        said = " and ".join(
            f"at p = {at:.4f} for a = {base} (1/a = {expected[base]:.4f})" for base, at in turns.items()
        )
        last, transcribed = (next(iter(data[of].values())) for of in ("slope", "transcribed"))
        return Finding(
            "refuted" if not holds else "confirmed" if literally else "confirmed with a correction",
            f"With the absolute value the gradient changes sign {said}, and at p = .99 it pushes the logit down with a "
            f"slope of {last[-1]:.2f}; as transcribed it changes sign {_turns(transcribed)} times, with a slope of "
            f"{transcribed[-1]:.2f} at p = .99.",
        )

    def draw(self, data: Data) -> list[Figure]:
        series, legend = [], dict[str, tuple[str, Dash]]()
        looks: list[tuple[str, Dash, str]] = [
            ("slope", "solid", "a = {}"),
            ("transcribed", "dot", "a = {}, as transcribed"),
        ]
        for of, dash, name in looks:
            for i, (base, slopes) in enumerate(data[of].items()):
                x, y = zip(
                    *((p, slope) for p, slope in zip(data["p"], slopes, strict=True) if slope > -10), strict=True
                )
                series.append(Series(x, y, COLOURS[i], name.format(base), width=2.2, dash=dash))
                legend[name.format(base)] = (COLOURS[i], dash)
        marks = [Mark("x", at, f"1/{base}") for base, at in data["expected"].items()] + [Mark("y", 0)]
        panel = Panel(series, x_title="p of the true class", y_title="∂loss/∂logit", x_range=(0, 1), marks=marks)
        above = {base: sum(slope > 0 for slope in of) for base, of in data["slope"].items()}
        said = " and ".join(f"{count} of 99 for a = {base}" for base, count in above.items())
        literally = sum(slope > 0 for of in data["transcribed"].values() for slope in of)
        caption = f"Pushed back, above 0, are {said}, and {literally} as transcribed. Slopes below −10 are left out."
        return [Figure("slope", caption, Chart([panel], legend))]

    def by_hand(self, data: Data) -> ByHand:
        code = """import torch, lossmith as ls
z = torch.tensor([[0.99]], dtype=torch.float64).logit().requires_grad_()
ls.ConservativeLoss()(z, torch.tensor([1])).backward()
print(f"{z.grad.item():.2f}")"""
        return ByHand(code, f"{next(iter(data['slope'].values()))[-1]:.2f}")


EXPERIMENT = ConservativeTurnsBack()
