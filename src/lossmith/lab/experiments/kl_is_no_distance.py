"""Claim 1: the KL divergence is never negative, not symmetric, and no distance; it is cross-entropy minus entropy."""

from __future__ import annotations

import torch

import lossmith as ls
from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Work
from lossmith.lab.page.panels import COLOURS, Chart, Dash, Panel, Series

_DIRECT, _VIA = ([0.5, 0.5], [0.1, 0.9]), [0.25, 0.75]  # P and R, and Q between them


class KLIsNoDistance(Experiment):
    """100,000 triples P, Q, R (2,000 in the short form) of distributions over five outcomes, drawn from a flat
    Dirichlet distribution: KL(P, Q) both ways, beside Σ P log(P / Q) and CE(P, Q) − H(P), and KL(P, P'), where P' is P
    but for one part in 10⁹, so that only rounding (float64) is left. If KL were a distance, no direct way KL(P, R)
    could be longer than the way through Q: for how many triples it is, and three coins to check by hand.
    """

    name = "kl-is-no-distance"
    title = "The KL divergence"
    claims = (1,)
    claim = "KL is never negative, not symmetric, breaks the triangle inequality, and KL = CE − H."
    document = "000"
    seconds = (2, 3)

    def compute(self, work: Work) -> Data:
        torch.manual_seed(0)
        flat = torch.distributions.Dirichlet(torch.ones(5).double())
        p, q, r = flat.sample(torch.Size((3, 2_000 if work.fast else 100_000)))
        close = p * (1 + 1e-9 * torch.randn_like(p))
        forth, back = ls.kl_divergence(p, q), ls.kl_divergence(q, p)
        written = (p * (p / q).log()).sum(-1)
        p_coin, r_coin, q_coin = torch.tensor([*_DIRECT, _VIA], dtype=torch.float64)
        return {
            "pairs": len(p),
            "smallest": forth.min().item(),
            "smallest_close": ls.kl_divergence(p, close / close.sum(-1, keepdim=True)).min().item(),
            "apart": (forth - back).abs().median().item(),
            "off": max((forth - to).abs().max().item() for to in (written, ls.cross_entropy(p, q) - ls.entropy(p))),
            "longer": (ls.kl_divergence(p, r) > forth + ls.kl_divergence(q, r)).double().mean().item(),
            "direct": ls.kl_divergence(p_coin, r_coin).item(),
            "via": (ls.kl_divergence(p_coin, q_coin) + ls.kl_divergence(q_coin, r_coin)).item(),
            "forth": forth[:400].tolist(),
            "back": back[:400].tolist(),
        }

    def judge(self, data: Data) -> Finding:
        never_negative = data["smallest"] >= 0 and data["smallest_close"] > -1e-12
        broken = data["longer"] > 0 and data["direct"] > data["via"]
        holds = never_negative and data["apart"] > 0.01 and data["off"] < 1e-9 and broken
        sign = ">" if data["direct"] > data["via"] else "≤"
        return Finding(
            "confirmed" if holds else "refuted",
            f"Of {data['pairs']:,} pairs the smallest KL is {data['smallest']:.1g} ({data['smallest_close']:.1g} where "
            f"P and P' are equal but for rounding), the two directions differ by {data['apart']:.2f} (median), and KL, "
            f"Σ p log(p / q) and CE − H differ by at most {data['off']:.0e}; in {data['longer']:.0%} of the triples "
            f"the direct way is longer than the way past a third, as for three coins: {data['direct']:.3f} {sign} "
            f"{data['via']:.3f}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        longest = max(*data["forth"], *data["back"])
        points = Series(data["forth"], data["back"], COLOURS[0], "KL(Q, P)", symbol="circle", size=4, opacity=0.5)
        diagonal = Series([0, longest], [0, longest], COLOURS[1], width=1.4, dash="dash")
        panel = Panel([points, diagonal], x_title="KL(P, Q)", y_title="KL(Q, P)")
        legend: dict[str, tuple[str, Dash]] = {
            "a pair of distributions": (COLOURS[0], "solid"),
            "if it were symmetric": (COLOURS[1], "dash"),
        }
        off = sum(abs(f - b) > 0.01 for f, b in zip(data["forth"], data["back"], strict=True))
        caption = f"Of {len(data['forth'])} pairs {off} are off the line: their divergences differ by more than 0.01."
        return [Figure("both_ways", caption, Chart([panel], legend))]

    def tables(self, data: Data) -> list[Table]:
        reason = ["KL is never negative because log is convex", "because −log is"]
        return [Table("Elsewhere in the document", ["what it says", "what is right"], [reason])]

    def by_hand(self, data: Data) -> ByHand:
        (p, r), q = _DIRECT, _VIA
        code = f"""import torch, lossmith as ls
p, q, r = torch.tensor([{p}, {q}, {r}], dtype=torch.float64)
print(f"{{ls.kl_divergence(p, r):.3f}} > {{ls.kl_divergence(p, q) + ls.kl_divergence(q, r):.3f}}")"""
        return ByHand(code, f"{data['direct']:.3f} > {data['via']:.3f}")


EXPERIMENT = KLIsNoDistance()
