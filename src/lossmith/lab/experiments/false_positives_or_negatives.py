"""Claim 9: combo's beta and Tversky's weights trade false positives against false negatives."""

from __future__ import annotations

from itertools import pairwise

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_SETTINGS = (0.1, 0.3, 0.5, 0.7, 0.9)
_MISS = [2.0, -2.0, -2.0, -2.0]  # of the labels 1 1 0 0
_EXTRA = [2.0, 2.0, 2.0, -2.0]


_EACH, _BIASES = 200, [i / 10 for i in range(-40, 41)]


def _costs(loss: ls.Loss) -> dict[str, float]:
    label = torch.tensor([[1, 1, 0, 0]])
    given = {"miss": _MISS, "extra": _EXTRA}
    return {name: loss(torch.tensor([[z]], dtype=torch.float64), label).item() for name, z in given.items()}


def _errors(loss: ls.Loss) -> dict[str, float]:
    """The shares that are missed and found too many with the bias that the loss likes best."""
    spread = torch.special.ndtri((torch.arange(_EACH) + 0.5).double() / _EACH)
    score, label = 2 * torch.cat([spread - 1, spread + 1]), (torch.arange(2 * _EACH) >= _EACH).long()
    bias = min(_BIASES, key=lambda b: loss((score + b)[None, None], label[None]).item())
    found = score + bias > 0
    return {
        "miss": (~found[label == 1]).double().mean().item(),
        "extra": found[label == 0].double().mean().item(),
    }


class FalsePositivesOrNegatives(Experiment):
    """Four pixels with the labels 1 1 0 0 and logits of ±2: one prediction misses a pixel of the foreground, the other
    finds one too many. The value of combo without its Dice part (α = 1) by β, and of Tversky by the weight of
    false negatives (that of false positives is 1 minus it), float64. Then what comes of it: 200 pixels of each class
    with scores that overlap (normal, 2 standard deviations apart; twice the score is its logit) and one bias for all,
    of −4 to 4 the one with the smallest loss (combo with its Dice part, α = ½); what is then missed, and what is found
    too many.
    """

    name = "false-positives-or-negatives"
    title = "False positives or false negatives"
    claims = (9,)
    claim = (
        "Combo's β and the Tversky weights trade false positives against false negatives; β above ½ penalises false "
        "positives."
    )
    document = "003"
    correction = (
        "They do trade one for the other. But combo's β multiplies the foreground's term: above ½ it penalises what is "
        "missed, false negatives."
    )
    seconds = (2, 2)

    def compute(self, work: Work) -> Data:
        tversky = {f"{w:g}": ls.TverskyLoss(fp_weight=1 - w, fn_weight=w) for w in _SETTINGS}
        return {
            "costs": {
                "combo": {f"{b:g}": _costs(ls.ComboLoss(alpha=1.0, beta=b)) for b in _SETTINGS},
                "tversky": {w: _costs(loss) for w, loss in tversky.items()},
            },
            "errors": {
                "combo": {f"{b:g}": _errors(ls.ComboLoss(beta=b)) for b in _SETTINGS},
                "tversky": {w: _errors(loss) for w, loss in tversky.items()},
            },
        }

    def judge(self, data: Data) -> Finding:
        def change(of: dict[str, dict[str, float]], what: str) -> float:
            return of["0.7"][what] - of["0.3"][what]

        costs, errors = data["costs"], data["errors"]
        traded = all(change(of, "miss") * change(of, "extra") < 0 for of in [*costs.values(), *errors.values()])
        combo, left, tversky = costs["combo"], errors["combo"], errors["tversky"]
        as_said = combo["0.7"]["extra"] > combo["0.7"]["miss"]
        return Finding(
            "refuted" if not traded else "confirmed" if as_said else "confirmed with a correction",
            f"Combo's cross-entropy of four pixels is, with β = .7, {combo['0.7']['miss']:.3f} where one is missed and "
            f"{combo['0.7']['extra']:.3f} where one is too many, with β = .3 {combo['0.3']['miss']:.3f} and "
            f"{combo['0.3']['extra']:.3f}; from β = .3 to .7 the best bias goes from {left['0.3']['miss']:.1%} missed "
            f"and {left['0.3']['extra']:.1%} too many to {left['0.7']['miss']:.1%} and {left['0.7']['extra']:.1%}, and "
            f"with Tversky's weight of false negatives from .3 to .7 from {tversky['0.3']['miss']:.1%} and "
            f"{tversky['0.3']['extra']:.1%} to {tversky['0.7']['miss']:.1%} and {tversky['0.7']['extra']:.1%}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        names = {"miss": "missed", "extra": "too many"}
        colour = colours(list(names.values()))
        legend = {name: (colour[name], DASHES[i]) for i, name in enumerate(colour)}
        figures = []
        for of, title in (("errors", "share of the class"), ("costs", "loss of one error")):
            panels, crossings = [], []
            for loss, axis in (("combo", "β"), ("tversky", "weight of false negatives")):
                x = [float(setting) for setting in data[of][loss]]
                lines = {what: [c[what] for c in data[of][loss].values()] for what in names}
                series = [
                    Series(x, lines[what], colour[name], name, 2.2, DASHES[i], "circle", 7)
                    for i, (what, name) in enumerate(names.items())
                ]
                panels.append(Panel(series, title=loss, x_title=axis, y_title=title, from_zero=True))
                apart = [miss - extra for miss, extra in zip(lines["miss"], lines["extra"], strict=True)]
                crossings += [
                    f"for {loss} at {a + (b - a) * p / (p - q):.2f}"
                    for (a, p), (b, q) in pairwise(zip(x, apart, strict=True))
                    if min(p, q) < 0 <= max(p, q)
                ]
            caption = f"What is missed and what is too many cross {' and '.join(crossings) or 'nowhere'}."
            figures.append(Figure(of, caption, Chart(panels, legend)))
        return figures

    def tables(self, data: Data) -> list[Table]:
        def rows(of: str, form: str) -> list[list[str]]:
            return [
                [f"{loss}, {setting}", format(c["miss"], form), format(c["extra"], form)]
                for loss, by in data[of].items()
                for setting, c in by.items()
            ]

        head = ["loss, setting", "missed", "too many"]
        return [
            Table("What one error of four pixels costs", head, rows("costs", ".4f")),
            Table("What is left with the best bias", head, rows("errors", ".1%")),
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = f"""import torch, lossmith as ls
z, label = torch.tensor([[{_MISS}]], dtype=torch.float64), torch.tensor([[1, 1, 0, 0]])
print(f"{{ls.ComboLoss(alpha=1.0, beta=0.7)(z, label):.3f}}")"""
        return ByHand(code, f"{data['costs']['combo']['0.7']['miss']:.3f}")


EXPERIMENT = FalsePositivesOrNegatives()
