"""Claim 2: with a sigmoid the quadratic cost learns slowest where it is most wrong; cross-entropy does not."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_LOSSES = ("quadratic", "ce")
_STARTS = ((0.6, 0.9), (2.0, 2.0))  # w and b of a neuron that should say 0 at x = 1
_RATE, _STEPS = 0.15, 300
_LATE = 0.9  # an output that has hardly begun to move


def _learn(name: str, w: float, b: float) -> dict[str, list[float]]:
    """One neuron σ(w + b) by gradient descent: its output after 0, 1, ... steps, and the slope by b."""
    knobs = torch.tensor([w, b], dtype=torch.float64)
    output, slope = [], []
    for _ in range(_STEPS + 1):
        knobs.requires_grad_()
        logit = knobs.sum().reshape(1, 1)
        (gradient,) = torch.autograd.grad(ls.parse(name)(logit, torch.tensor([0])), knobs)
        output.append(torch.sigmoid(logit).item())
        slope.append(gradient[1].item())
        knobs = (knobs - _RATE * gradient).detach()
    return {"output": output, "slope": slope}


class QuadraticLearnsSlowly(Experiment):
    """One neuron σ(wx + b) with x = 1 that should answer 0, from two starts: w = .6, b = .9 (it says .82) and
    w = b = 2 (it says .98, which is more wrong). Gradient descent at the rate .15 for 300 steps, float64.
    """

    name = "quadratic-learns-slowly"
    title = "Quadratic cost and cross-entropy"
    claims = (2,)
    claim = "With a sigmoid, quadratic cost learns slowest where it is most wrong; cross-entropy does not."
    document = "004"
    seconds = (4, 4)

    def compute(self, work: Work) -> Data:
        return {name: {f"{w:g}, {b:g}": _learn(name, w, b) for w, b in _STARTS} for name in _LOSSES}

    def judge(self, data: Data) -> Finding:
        first = {name: [walk["slope"][0] for walk in of.values()] for name, of in data.items()}
        near, far = first["quadratic"]
        ce_near, ce_far = first["ce"]
        output = [walk["output"][0] for walk in data["ce"].values()]
        return Finding(
            "confirmed" if far < near and ce_far > ce_near else "refuted",
            f"Where the neuron says {output[0]:.2f} instead of 0 the quadratic cost's slope is {near:.4f}, and where "
            f"it says {output[1]:.2f}, more wrong, {far:.4f}, {near / far:.1f} times less; cross-entropy's are "
            f"{ce_near:.3f} and {ce_far:.3f}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(data))
        panels = []
        for start in data["ce"]:
            series = [
                Series(list(range(_STEPS + 1)), of[start]["output"], colour[name], name, width=2.4, dash=DASHES[i])
                for i, (name, of) in enumerate(data.items())
            ]
            title = f"w, b = {start}"
            panels.append(Panel(series, title=title, x_title="step", y_title="output, should be 0", y_range=(0, 1)))
        legend = {name: (colour[name], DASHES[i]) for i, name in enumerate(data)}
        late = {
            name: sum(output > _LATE for output in list(of.values())[-1]["output"][:_STEPS])
            for name, of in data.items()
        }
        caption = (
            f"From the worse start the neuron says more than {_LATE:g} for {late['quadratic']} of "
            f"{_STEPS} steps with the quadratic cost and for {late['ce']} with cross-entropy."
        )
        return [Figure("learning", caption, Chart(panels, legend))]

    def tables(self, data: Data) -> list[Table]:
        rows = [
            [
                f"{name}, w, b = {start}",
                f"{walk['output'][0]:.4f}",
                f"{walk['slope'][0]:.4f}",
                f"{walk['output'][-1]:.4f}",
            ]
            for name, of in data.items()
            for start, walk in of.items()
        ]
        return [
            Table(
                f"Before the first step, and after {_STEPS}",
                ["", "output before", "slope by b before", "output after"],
                rows,
            )
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = """import math
a = 1 / (1 + math.exp(-4))
print(f"{a * a * (1 - a):.4f}")  # the error a, times the sigmoid's own slope"""
        return ByHand(code, f"{data['quadratic']['2, 2']['slope'][0]:.4f}")


EXPERIMENT = QuadraticLearnsSlowly()
