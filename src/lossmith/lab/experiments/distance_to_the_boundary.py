"""Claim 11: which losses look at the distance of a pixel to the boundary of the target, and how."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_SIDE, _RADIUS = 33, 9
_LOSSES = ("distance_penalty", "boundary_ce", "boundary", "dice", "tversky", "ce")
_NEAR, _FAR = 1, 7  # distances at which the losses are compared


def _same(a: float, b: float) -> bool:
    return abs(a - b) < 1e-9


class DistanceToTheBoundary(Experiment):
    """A disc of radius 9 in a picture of 33 by 33, one logit of 0 at each pixel, float64. The size of ∂loss/∂logit is
    averaged over pixels of equal distance (rounded) to the nearest pixel of the other side, inside and outside by
    itself, and divided by the largest mean of that side. For the boundary loss it is also divided by the size of the
    authors' map at every pixel (outside the distance, inside one less, so that the inner ring has 0): the same number
    everywhere says that the distance is the weight.
    """

    name = "distance-to-the-boundary"
    title = "Losses and the boundary"
    claims = (11,)
    claim = (
        "Distance-map penalty and boundary-pixel cross-entropy weight pixels near the boundary most, the boundary loss "
        "weights a pixel by its distance, region losses ignore distance."
    )
    document = "003"
    seconds = (2, 2)

    def compute(self, work: Work) -> Data:
        across = torch.arange(_SIDE) - _SIDE // 2
        target = (across[:, None] ** 2 + across**2 <= _RADIUS**2).long()[None]
        signed = ls.distance.signed_distance_map(target, num_classes=1)[0, 0].double()
        sides = {"inside": target[0] == 1, "outside": target[0] == 0}
        distance = signed.abs().round()
        at = {side: sorted(set(distance[of].tolist())) for side, of in sides.items()}
        gradients: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
        for name in _LOSSES:
            logits = torch.zeros(1, 1, _SIDE, _SIDE, dtype=torch.float64, requires_grad=True)
            (gradient,) = torch.autograd.grad(ls.parse(name)(logits, target), logits)
            size = gradient[0, 0].abs()
            for side, of in sides.items():
                means = [size[of & (distance == d)].mean().item() for d in at[side]]
                gradients[side][name] = [mean / max(means) for mean in means]
            if name == "boundary":
                weight = torch.where(sides["inside"], -signed - 1, signed)
                by_distance = size[weight > 0.5] / weight[weight > 0.5]
        return {
            "distance": at,
            "gradient": gradients,
            "uneven": ((by_distance.max() - by_distance.min()) / by_distance.max()).item(),
        }

    def judge(self, data: Data) -> Finding:
        at = {
            side: {name: [of[data["distance"][side].index(d)] for d in (_NEAR, _FAR)] for name, of in by_loss.items()}
            for side, by_loss in data["gradient"].items()
        }
        holds = data["uneven"] < 1e-6 and all(
            all(of[name][0] == 1 and of[name][1] < 0.9 for name in ("distance_penalty", "boundary_ce"))
            and of["boundary"][0] + 0.1 < of["boundary"][1]
            and all(_same(*of[name]) for name in ("dice", "tversky"))
            for of in at.values()
        )
        inside, outside = at.values()
        flat = [name for name, pair in inside.items() if _same(*pair) and _same(*outside[name])]
        said = ", ".join(
            f"{name} {near:.2f} and {far:.2f} ({outside[name][0]:.2f} and {outside[name][1]:.2f})"
            for name, (near, far) in inside.items()
            if name not in flat
        )
        return Finding(
            "confirmed" if holds else "refuted",
            f"Of its largest gradient inside a disc (outside) each loss has, {_NEAR} and {_FAR} pixels from the edge: "
            f"{said}, and the same at both distances, with {', '.join(flat) or 'none'}; that of the boundary loss is "
            f"its map times a number that varies by {data['uneven']:.0e}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(_LOSSES))
        legend = {name: (colour[name], DASHES[i % 4]) for i, name in enumerate(colour)}
        panels = [
            Panel(
                [
                    Series(x, of, colour[name], name, width=2.2, dash=DASHES[i % 4], symbol="circle", size=6)
                    for i, (name, of) in enumerate(data["gradient"][side].items())
                ],
                title=side,
                x_title=f"pixels to the nearest {'outside' if side == 'inside' else 'inside'}",
                y_title="gradient, share of the largest",
                from_zero=True,
            )
            for side, x in data["distance"].items()
        ]
        kinds: dict[str, list[str]] = {"fall with the distance": [], "rise with it": [], "are flat": []}
        for name, of in data["gradient"]["inside"].items():
            flat = _same(min(of), max(of))
            kinds["are flat" if flat else "fall with the distance" if of[0] > of[-1] else "rise with it"].append(name)
        said = "; ".join(f"{kind}: {', '.join(names) or 'none'}" for kind, names in kinds.items())
        caption = f"Inside, {said}."
        return [Figure("by_distance", caption, Chart(panels, legend))]

    def tables(self, data: Data) -> list[Table]:
        return [
            Table(
                f"Gradient by distance, {side}",
                ["pixels", *by_loss],
                [
                    [f"{d:g}", *(f"{of[i]:.3f}" for of in by_loss.values())]
                    for i, d in enumerate(data["distance"][side])
                ],
            )
            for side, by_loss in data["gradient"].items()
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
across = torch.arange({_SIDE}) - {_SIDE // 2}
target = (across[:, None] ** 2 + across**2 <= {_RADIUS}**2).long()[None]
logits = torch.zeros(1, 1, {_SIDE}, {_SIDE}, dtype=torch.float64, requires_grad=True)
ls.parse("distance_penalty")(logits, target).backward()
depth = -ls.distance.signed_distance_map(target, num_classes=1)[0, 0].round()
size = logits.grad[0, 0].abs()
print(f"{{size[depth == {_FAR}].mean() / size[depth == {_NEAR}].mean():.3f}}")"""
        at = data["distance"]["inside"].index(_FAR)
        return ByHand(code, f"{data['gradient']['inside']['distance_penalty'][at]:.3f}")


EXPERIMENT = DistanceToTheBoundary()
