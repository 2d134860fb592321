"""Claim 22: near the optimum L2 converges faster than L1."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_START, _STEPS = 1.03, 400
_RATES = (0.3, 0.1, 0.03)
_LAST = 10  # steps that have to be within a tolerance too
_TOLERANCES = (*_RATES, 0.01, 0.001)


def _walk(name: str, rate: float) -> list[float]:
    """|x| after each step of gradient descent from 1.03 towards 0."""
    x, goal, distance = torch.tensor([_START], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), []
    for _ in range(_STEPS):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(ls.parse(name)(x, goal), x)
        x = (x - rate * gradient).detach()
        distance.append(x.abs().item())
    return distance


def _steps(walk: list[float], tolerance: float) -> int | None:
    """After how many steps the distance stays within the tolerance, if it does; the last alone may be so by chance."""
    outside = [step for step, distance in enumerate(walk, 1) if distance > tolerance]
    stays = 1 + max(outside, default=0)
    return stays if stays + _LAST <= len(walk) + 1 else None


def _said(steps: int | None) -> str:
    return "never" if steps is None else f"after {steps}"


class L2NearTheOptimum(Experiment):
    """Gradient descent on one number from 1.03 towards 0, 400 steps at a fixed rate, with L1, L2 (half the square) and
    smooth L1, at the rates .3, .1 and .03, float64. Counted are the steps after which the distance stays within a
    tolerance, for 10 steps at least. L1 steps by the rate whatever the distance, so that it may be the first to come
    within one rate, where it then goes to and fro; the claim is judged nearer to the optimum, by the steps to within
    .001.
    """

    name = "l2-near-the-optimum"
    title = "L1 and L2 near the optimum"
    claims = (22,)
    claim = "L2 converges faster than L1 near the optimum."
    document = "002"
    seconds = (2, 2)

    def compute(self, work: Work) -> Data:
        losses = ("l1", "l2", "smooth_l1")
        return {f"{rate:g}": {name: _walk(name, rate) for name in losses} for rate in _RATES}

    def judge(self, data: Data) -> Finding:
        finest = _TOLERANCES[-1]
        holds, said = True, []
        for rate, of in data.items():
            near = {name: _steps(walk, finest) for name, walk in of.items()}
            first = {name: _steps(walk, float(rate)) for name, walk in of.items()}
            holds &= near["l2"] is not None and (near["l1"] is None or near["l2"] < near["l1"])
            said.append(
                f"at the rate {rate} L1 is within {rate} {_said(first['l1'])} steps and L2 {_said(first['l2'])}, "
                f"within {finest:g} L1 {_said(near['l1'])} and L2 {_said(near['l2'])}, and L1's distance at the end "
                f"goes up to {max(of['l1'][-_LAST:]):.2g}"
            )
        return Finding("confirmed" if holds else "refuted", f"From {_START}, {'; '.join(said)}.")

    def draw(self, data: Data) -> list[Figure]:
        names = list(next(iter(data.values())))
        colour = colours(names)
        panels = [
            Panel(
                [
                    Series(list(range(1, _STEPS + 1)), walk, colour[name], name, width=2, dash=DASHES[i])
                    for i, (name, walk) in enumerate(of.items())
                ],
                title=f"Rate {rate}",
                x_title="step",
                y_title="distance to the optimum",
                from_zero=True,
            )
            for rate, of in data.items()
        ]
        legend = {name: (colour[name], DASHES[i]) for i, name in enumerate(names)}
        caption = "L1 falls in a straight line and then goes to and fro; L2 slows down as it comes near."
        return [Figure("walks", caption, Chart(panels, legend, narrow=True))]

    def tables(self, data: Data) -> list[Table]:
        rows = [
            [f"{name}, rate {rate}", *(_said(_steps(walk, tolerance)) for tolerance in _TOLERANCES)]
            for rate, of in data.items()
            for name, walk in of.items()
        ]
        return [Table("The step after which the distance stays within", ["", *map(str, _TOLERANCES)], rows)]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
x, goal, steps = torch.tensor([{_START}], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0
while x.abs() > 0.001:
    x, steps = x - 0.1 * torch.func.grad(ls.L2Loss())(x, goal), steps + 1
print(f"L2 after {{steps}}")"""
        return ByHand(code, f"L2 {_said(_steps(data['0.1']['l2'], 0.001))}")


EXPERIMENT = L2NearTheOptimum()
