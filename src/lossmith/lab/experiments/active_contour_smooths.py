"""Claim 18: in the active contour loss length and region pull against each other; the result is smoother."""

from __future__ import annotations

import torch
from torch import Tensor

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import COLOURS, Chart, Panel, Series

_SIDE, _RADIUS, _NOISE, _SEEDS = 48, 14, 0.12, (0, 1, 2)
_FULL_STEPS, _FAST_STEPS = 500, 100
_LOSSES = {
    "ce": ls.CrossEntropyLoss(),
    **{f"region weight {w:g}": ls.ActiveContourLoss(region_weight=w) for w in (3, 1, 0.5, 0.1)},
}
_ACROSS = torch.arange(_SIDE) - _SIDE // 2
_DISC = (_ACROSS[:, None] ** 2 + _ACROSS**2 <= _RADIUS**2).long()[None]


def _noisy(seed: int) -> Tensor:
    """The disc with 12 % of its labels wrong."""
    generator = torch.Generator().manual_seed(seed)
    return _DISC ^ (torch.rand(_DISC.shape, generator=generator) < _NOISE).long()


def _length(labels: Tensor) -> list[int]:
    """Sides of pixels between the two classes, in each picture."""
    return [int((of.diff(dim=0) != 0).sum() + (of.diff(dim=1) != 0).sum()) for of in labels]


def _opposed(logits: Tensor) -> tuple[float, float]:
    """The share of pixels where length and region have gradients of opposite signs: beside the disc's contour, and
    elsewhere."""
    logits = logits.double()[None].requires_grad_()
    (length,) = torch.autograd.grad(ls.ActiveContourLoss(region_weight=0.0)(logits, _DISC), logits)
    (both,) = torch.autograd.grad(ls.ActiveContourLoss()(logits, _DISC), logits)
    opposed, beside = (length * (both - length) < 0)[0], torch.zeros_like(_DISC, dtype=torch.bool)
    for axis in (1, 2):
        for shift in (1, -1):
            beside |= _DISC.roll(shift, axis) != _DISC
    return opposed[beside].double().mean().item(), opposed[~beside].double().mean().item()


def _region_slope(p: float) -> float:
    """∂loss/∂p for a foreground that is p everywhere, where the length has no slope; times the number of pixels."""
    logits = torch.full((1, 1, 8, 8), p, dtype=torch.float64).logit().requires_grad_()
    (gradient,) = torch.autograd.grad(ls.ActiveContourLoss()(logits, torch.ones(1, 8, 8).long()), logits)
    return float(gradient.sum()) / (p * (1 - p))


class ActiveContourSmooths(Experiment):
    """A disc of radius 14 in 48 by 48, of which 12 % of the labels are flipped, three times (seeds 0 to 2). Free logits
    that begin at the noisy labels (±1) are trained by Adam (rate .1, 500 steps, 100 in the short form) on cross-entropy
    and on the active contour loss with the region weights 3, 1, .5 and .1, and the sides between predicted classes are
    counted. Conflict: the share of pixels where the gradients of the length alone (region weight 0) and of the region
    alone (the difference at weight 1) have opposite signs, beside a side of the clean disc's contour and elsewhere, for
    a prediction that is the disc (logits ±1), and for a soft one (the logit is half the distance to the contour). What
    is elsewhere is no evidence: there the length has no slope for a hard prediction, and for a soft one the signs agree
    or not as by chance. Last the slope of the region by p, which a squared error would make smaller where p is nearly
    right. With the region weight .1 the number of steps matters: after 500 the disc is gone.
    """

    name = "active-contour-smooths"
    title = "Active contour: length against region"
    claims = (18,)
    claim = "In the active contour loss length and region conflict at the boundary; the result is smoother."
    document = "003"
    seconds = (10, 45)

    def compute(self, work: Work) -> Data:
        steps = _FAST_STEPS if work.fast else _FULL_STEPS
        noisy = torch.cat([_noisy(seed) for seed in _SEEDS])
        lengths, wrong = {}, {}
        for i, (name, loss) in enumerate(_LOSSES.items()):
            logits = (2.0 * noisy - 1)[:, None].clone().requires_grad_()
            optimizer = torch.optim.Adam([logits], lr=0.1)
            for _ in range(steps):
                optimizer.zero_grad()
                loss(logits, noisy).backward()
                optimizer.step()
            found = (logits.detach()[:, 0] > 0).long()
            lengths[name] = _length(found)
            wrong[name] = (found != _DISC).double().mean().item()
            work.watch(i + 1, len(_LOSSES))
        soft = -ls.distance.signed_distance_map(_DISC, num_classes=1)[:, 0] / 2
        return {
            "steps": steps,
            "noisy": _length(noisy),
            "clean": _length(_DISC)[0],
            "length": lengths,
            "wrong": wrong,
            "opposed": {"hard": _opposed(2.0 * _DISC - 1), "soft": _opposed(soft)},
            "region_slope": {f"{p}": _region_slope(p) for p in (0.2, 0.8)},
        }

    def judge(self, data: Data) -> Finding:
        by_ce, contours = data["length"]["ce"], data["length"]["region weight 1"]
        smoother = all(2 * contour < ce for contour, ce in zip(contours, by_ce, strict=True))
        hard, soft = (data["opposed"][of] for of in ("hard", "soft"))
        in_full = "" if data["steps"] == _FULL_STEPS else f" ({_FULL_STEPS} in full)"
        return Finding(
            "confirmed" if smoother and min(hard[0], soft[0]) > 0.5 else "refuted",
            f"Beside the contour length and region have opposite gradients at {hard[0]:.0%} of the pixels for a hard "
            f"prediction and at {soft[0]:.0%} for a soft one; after {data['steps']} steps{in_full} on noisy labels the "
            f"contour has {_span(by_ce)} sides by ce and {_span(contours)} by active contour (the clean disc "
            f"{data['clean']}).",
        )

    def draw(self, data: Data) -> list[Figure]:
        rows = ["noisy labels", *data["length"], "the clean disc"]
        values = [data["noisy"], *data["length"].values(), [data["clean"]]]
        series = [
            Series([length], [row], COLOURS[row % 8], f"{rows[row]}, seed {seed}", symbol="circle", size=9, opacity=0.7)
            for row, lengths in enumerate(values)
            for seed, length in zip(_SEEDS, lengths, strict=False)
        ]
        panel = Panel(series, x_title="sides of pixels between the classes", rows=rows, from_zero=True)
        least = min(data["wrong"], key=data["wrong"].__getitem__)
        caption = (
            f"A point for each of {len(_SEEDS)} seeds, after {data['steps']} steps; the fewest pixels are wrong with "
            f"{least} ({data['wrong'][least]:.1%}), with {rows[-2]} {data['wrong'][rows[-2]]:.1%}."
        )
        return [Figure("contours", caption, Chart([panel]))]

    def tables(self, data: Data) -> list[Table]:
        rows = [[name, _span(data["length"][name]), f"{data['wrong'][name]:.1%}"] for name in data["length"]]
        opposed = [[f"{name} prediction", *(f"{share:.0%}" for share in of)] for name, of in data["opposed"].items()]
        slopes = " and ".join(f"{slope:.2f} at p = {p}" for p, slope in data["region_slope"].items())
        squared = ["the region term is a squared error of the prediction", f"|p − r|: its slope by p is {slopes}"]
        return [
            Table("Contour, and what is wrong against the clean disc", ["", "sides", "pixels wrong"], rows),
            Table("Pixels with opposite gradients", ["", "beside the contour", "elsewhere"], opposed),
            Table("Elsewhere in the document", ["what it says", "what is right, for labels of 0 and 1"], [squared]),
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
across = torch.arange({_SIDE}) - {_SIDE // 2}
disc = (across[:, None] ** 2 + across**2 <= {_RADIUS}**2).long()[None]
z = (2.0 * disc - 1)[None].double().requires_grad_()
(length,) = torch.autograd.grad(ls.ActiveContourLoss(region_weight=0.0)(z, disc), z)
(both,) = torch.autograd.grad(ls.ActiveContourLoss()(z, disc), z)
opposed = length * (both - length) < 0
print(f"{{opposed[length != 0].double().mean():.0%}}")  # of the pixels that the length moves at all"""
        return ByHand(code, f"{data['opposed']['hard'][0]:.0%}")


def _span(lengths: list[int]) -> str:
    return f"{min(lengths):,} to {max(lengths):,}"


EXPERIMENT = ActiveContourSmooths()
