"""Draws docs/dfl.svg: what distribution focal loss asks of an edge, from computed values. `python docs/draw_dfl.py`."""

from __future__ import annotations

from pathlib import Path

import torch

import lossmith as ls

TARGET = 2.3
LOGITS = [0.0, 1.0, 2.0, 1.0, 0.0]
WIDTH, PANEL, LEFT, TOP, HEIGHT = 760, 230, 30, 52, 150
INK, QUIET, BAR, ASKED = "#222", "#777", "#4c78a8", "#e45756"


def bars(x: float, values: list[float], scale: float, colour: str) -> list[str]:
    """One bar a bin, upwards or downwards from the line of 0, with its value."""
    zero = TOP + HEIGHT * (0.5 if min(values) < 0 else 1.0)
    out = [f'<line x1="{x}" x2="{x + PANEL - 30}" y1="{zero}" y2="{zero}" stroke="{QUIET}"/>']
    for i, value in enumerate(values):
        at, size = x + 10 + 38 * i, abs(value) * scale
        top = zero - size if value >= 0 else zero
        out.append(f'<rect x="{at}" y="{top:.1f}" width="26" height="{size:.1f}" fill="{colour}"/>')
        label = top - 5 if value >= 0 else top + size + 13
        out.append(text(at + 13, label, f"{value:.2f}".replace("-", "−"), 11, "middle"))
        out.append(text(at + 13, TOP + HEIGHT + 18, str(i), 12, "middle", QUIET))
    return out


def text(x: float, y: float, words: str, size: int = 13, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def marker(x: float, where: float, words: str, colour: str) -> list[str]:
    """A position among the bins."""
    at = x + 23 + 38 * where
    line = f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{TOP + HEIGHT}" stroke="{colour}"'
    return [line + ' stroke-dasharray="4 3"/>', text(at, TOP - 13, words, 12, "middle", colour)]


def draw() -> str:
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    loss = ls.DistributionFocalLoss()(logits, torch.tensor(TARGET, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss, logits)
    chances = logits.detach().softmax(0)
    asked = chances - gradient
    decoded = float(ls.integral(logits.detach()))
    x = [LEFT, LEFT + PANEL + 20, LEFT + 2 * (PANEL + 20)]
    parts = [text(x[0], 20, "predicted: a chance for each bin"), *bars(x[0], chances.tolist(), 170, BAR)]
    parts += [*marker(x[0], decoded, f"decoded: {decoded:.2f}", BAR)]
    parts += [text(x[1], 20, "asked for: the target’s neighbours"), *bars(x[1], asked.tolist(), 170, ASKED)]
    parts += [*marker(x[1], TARGET, f"target: {TARGET}", ASKED)]
    parts += [text(x[2], 20, "slope of the loss: their difference"), *bars(x[2], gradient.tolist(), 250, QUIET)]
    parts += [text(x[2], TOP + HEIGHT + 38, f"loss {loss.item():.3f}", 12)]
    parts += [text(x[0], TOP + HEIGHT + 38, "distance to the edge, in strides", 12, "start", QUIET)]
    body = "\n".join(parts)
    size = f'width="{WIDTH}" height="{TOP + HEIGHT + 50}"'
    box = f'viewBox="0 0 {WIDTH} {TOP + HEIGHT + 50}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} font-family="system-ui, sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_name("dfl.svg").write_text(draw(), encoding="utf-8")
