"""The value and the gradient of any loss, on what its family reads: a small picture, a box that slides, a residual …

A picture is predicted from badly to well. Every pixel gives its true class the probability q, the other classes share
the rest; q runs from 0.001 to 0.999. The picture is mostly background (a pixel of every 16 belongs to each further
class's cell), so that those losses can be drawn the same way that look at pixels, and those that look at regions. All
other kinds are in `CANVASES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import lossmith as ls
from lossmith.box import BoxLoss
from lossmith.loss import Loss, Sum
from lossmith.losses.distribution import DistributionFocalLoss, ScoreLoss
from lossmith.losses.distribution_gfl import GeneralizedFocalLoss
from lossmith.losses.regression import RegressionLoss

_CELL = 16
_SQUARE = 4
_POINTS = 81
_FINE = 241  # where curves have kinks: a step is 1/60 of a box, 1/40 of a residual
_MOST_CLASSES = 64
_QUALITY = 0.7
_POSITION, _LAST_BIN = 3.7, 8


@dataclass(frozen=True)
class PictureCurve:
    """One loss over q: its value, the sum of |∂loss/∂logit|, and the foreground's share of that sum."""

    q: list[float]
    value: list[float]
    gradient: list[float]
    foreground: list[float | None]
    foreground_pixels: float

    @property
    def x(self) -> list[float]:
        return self.q


@dataclass(frozen=True)
class LineCurve:
    """One loss over what its kind of input is moved along."""

    x: list[float]
    value: list[float]
    gradient: list[float]


@dataclass(frozen=True)
class Canvas:
    """What losses that read the same input are drawn on: the words of the figure, and how a point x of it is made.

    `inputs` turns x and the loss into what the gradient is taken by, and what the loss is called with.
    """

    name: str
    heading: str
    caption: str
    axis: str
    gradient: str
    ends: tuple[float, float]
    inputs: Callable[[float, Loss], tuple[Tensor, tuple[Any, ...]]] | None = None
    points: int = _POINTS


@dataclass(frozen=True)
class Drawn:
    """A curve, and what of its input was chosen for this loss alone, in words; "" if nothing was."""

    canvas: Canvas
    curve: PictureCurve | LineCurve
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        about = {
            "kind": self.canvas.name,
            "axis": self.canvas.axis,
            "gradient_axis": self.canvas.gradient,
            "note": self.note,
        }
        return {**about, "x": self.curve.x, **asdict(self.curve)}


def draw(text: str) -> dict[str, Drawn]:
    """The curve of a loss by its text; a sum over several inputs has one for each of them, named "text: input".

    Raises a `ValueError` or a `TypeError` whose first line says what to write instead.
    """
    loss = ls.parse(text)
    slots = [""] if isinstance(loss, GeneralizedFocalLoss) else list(dict.fromkeys(t.slot for _, t in loss.terms))
    return {text if len(slots) == 1 else f"{text}: {slot}": _drawn(text, loss, slot) for slot in slots}


def sample(loss: nn.Module, classes: int = 1, pixels: bool = True, multilabel: bool = False) -> PictureCurve:
    """Draw `loss` for binary labels (`classes=1`) or for a number of classes.

    `pixels=False` hands the pixels over as that many images with one label each, (N, C) and (N,).
    Raises whatever the loss raises for such input.
    """
    label = _picture(max(2, classes))
    label = label if pixels else label.flatten()
    foreground = label > 0
    curve = PictureCurve([], [], [], [], float(foreground.double().mean()))
    for q in _steps((0.001, 0.999), _POINTS):
        logits = _logits(label, q, classes, multilabel).requires_grad_()
        value = loss(logits, label)
        (gradient,) = torch.autograd.grad(value, logits)
        size = gradient.abs().sum(1)
        total = float(size.sum())
        curve.q.append(q)
        curve.value.append(value.item())
        curve.gradient.append(total)
        curve.foreground.append(float(size[foreground].sum()) / total if 0 < total < math.inf else None)
    return curve


def _drawn(text: str, loss: Loss, slot: str) -> Drawn:
    part = _part(loss, slot)
    canvas = _canvas(part)
    if canvas.inputs is None:
        return _on_a_picture(text, part, slot)
    line = LineCurve(_steps(canvas.ends, canvas.points), [], [])
    for x in line.x:
        knob, given = canvas.inputs(x, part)
        value = part(*given)
        (gradient,) = torch.autograd.grad(value, knob)
        line.value.append(value.item())
        line.gradient.append(float(gradient.sum() if knob.numel() == 1 else gradient.abs().sum()))
    return Drawn(canvas, line, _GFL_NOTE if isinstance(part, GeneralizedFocalLoss) else "")


def _part(loss: Loss, slot: str) -> Loss:
    """The terms of a sum that read one of its inputs; a loss with one input as it is."""
    terms = [(weight, term) for weight, term in loss.terms if term.slot == slot]
    return loss if not slot or len(terms) == len(loss.terms) else Sum(terms)


def _canvas(loss: Loss) -> Canvas:
    if isinstance(loss, GeneralizedFocalLoss):
        return CANVASES[GeneralizedFocalLoss]
    terms = [term for _, term in loss.terms]
    return next((canvas for cls, canvas in CANVASES.items() if any(isinstance(term, cls) for term in terms)), PICTURE)


def _steps(ends: tuple[float, float], points: int) -> list[float]:
    low, high = ends
    return [low + (high - low) * i / (points - 1) for i in range(points)]


# ------------------------------------------------------------------------------------------------------ the picture


def _on_a_picture(text: str, part: Loss, slot: str) -> Drawn:
    """With one channel if the loss takes that, else with as many classes as its settings speak of, else with two."""
    owners = [term for _, term in [*part.addends, *part.terms]]
    _refuse(owners)
    pairs = any("forbidden" in term.counts and term.settings()["forbidden"] is None for term in owners)
    numbers = [n for n in dict.fromkeys([1, *_numbers(owners), 2, 3]) if n >= 3 or not pairs]
    written = next((term.task for term in owners if getattr(term, "task", None)), None)
    problems = []
    for task in [written] if written else [None, "multilabel"]:
        for classes in numbers:
            shared: dict[str, Any] = {"task": task} if task else {}
            if pairs:
                shared["forbidden"] = _apart(classes)
            try:
                loss = _part(ls.parse(text, **shared), slot)
                curve = sample(loss, classes, multilabel=task == "multilabel")
            except (ValueError, TypeError, RuntimeError) as error:
                problems.append((classes, str(error).splitlines()[0]))
                continue
            note = f"{classes} {'channels, multilabel' if task == 'multilabel' else 'classes'}" if classes > 1 else ""
            return Drawn(PICTURE, curve, f"{note}, forbidden={_apart(classes)}" if pairs else note)
    raise ValueError(_reason(owners, problems))


def _refuse(owners: list[Loss]) -> None:
    if any(term.reduction == "none" for term in owners):
        raise ValueError("reduction='none' gives many numbers, and a curve is of one; drop it")
    for term in owners:
        spacing = term.settings().get("spacing")
        if spacing and len(spacing) != 2:
            raise ValueError(
                f"{_setting('spacing', spacing)} is not for the two axes that are drawn here; "
                f"write {_setting('spacing', (*spacing, *spacing)[-2:])}"
            )
    for setting, highest in _named(owners).items():
        if highest >= _MOST_CLASSES:
            raise ValueError(f"{setting} names class {highest}, and plot draws classes 0 to {_MOST_CLASSES - 1}")


def _lists(owners: list[Loss]) -> dict[str, int]:
    """The settings with a value per class, as they are written, and how many classes they are for."""
    return {_setting(k, v): len(v) for term in owners for k, v in term.settings().items() if isinstance(v, list)}


def _named(owners: list[Loss]) -> dict[str, int]:
    """The settings that name classes, as they are written, and the highest class."""
    given = [(k, term.settings().get(k)) for term in owners for k in ("classes", "rare")]
    return {_setting(k, v): max(v) for k, v in given if v}


def _numbers(owners: list[Loss]) -> list[int]:
    return sorted({*_lists(owners).values(), *(highest + 1 for highest in _named(owners).values())})


def _reason(owners: list[Loss], problems: list[tuple[int, str]]) -> str:
    """Why a loss cannot be drawn, by what was written: the shapes of a picture that nobody sees explain nothing."""
    lists, named = _lists(owners), _named(owners)
    least = min(lists.values(), default=math.inf)
    if len({*lists.values()}) > 1 or any(highest >= least for highest in named.values()):
        said = [f"{setting} is for {n} classes" for setting, n in lists.items()]
        said += [f"{setting} names class {highest}" for setting, highest in named.items()]
        return f"{' but '.join(said)}; make them agree on the number of classes"
    hidden = {n: tuple(_picture(max(2, n)).shape[1:]) for n, _ in problems}
    clear = [text for n, text in problems if ", ".join(map(str, hidden[n])) not in text]
    return clear[0] if clear else "no number of classes suits all of its settings"


def _setting(name: str, value: Any) -> str:
    return f"{name}={_plain(value)}"


def _plain(value: Any) -> str:
    return f"[{', '.join(map(_plain, value))}]" if isinstance(value, list | tuple) else f"{value:g}"


def _apart(classes: int) -> list[list[int]]:
    """Forbids each two classes to touch but the background: in the picture they do not."""
    return [[int(0 < i != j > 0) for j in range(classes)] for i in range(classes)]


def _picture(classes: int) -> Tensor:
    """Labels (1, H, W): one cell per class from 1 up, a square of the class in the middle of each."""
    columns = math.ceil(math.sqrt(classes - 1))
    rows = math.ceil((classes - 1) / columns)
    label = torch.zeros(1, rows * _CELL, columns * _CELL, dtype=torch.long)
    start = (_CELL - _SQUARE) // 2
    for k in range(1, classes):
        top, left = (k - 1) // columns * _CELL + start, (k - 1) % columns * _CELL + start
        label[0, top : top + _SQUARE, left : left + _SQUARE] = k
    return label


def _logits(label: Tensor, q: float, classes: int, multilabel: bool) -> Tensor:
    """Logits whose softmax (sigmoid for one channel) gives the true class the probability q; multilabel each channel's
    sigmoid the true answer."""
    if classes == 1 or multilabel:
        own = label[:, None] > 0 if classes == 1 else nn.functional.one_hot(label, classes).movedim(-1, 1) > 0
        return torch.where(own, _logit(q), -_logit(q)).float()
    margin = math.log(q * (classes - 1) / (1 - q))
    return margin * nn.functional.one_hot(label, classes).movedim(-1, 1).float()


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


# -------------------------------------------------------------------------------------------------- all other kinds


def _knob(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def _slide(shift: float, loss: Loss) -> tuple[Tensor, tuple[Any, ...]]:
    """A box of width and height 1, and the same at the target; moving it moves corners or a centre, never the size."""
    fmt = next(term.settings()["fmt"] for _, term in loss.terms if "fmt" in term.fields)
    box, moves = {
        "xyxy": ([0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]),
        "xywh": ([0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]),
        "cxcywh": ([0.5, 0.5, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]),
    }[fmt]
    knob = _knob(shift)
    target = torch.tensor([box], dtype=torch.float64)
    return knob, (target + knob * torch.tensor([moves], dtype=torch.float64), target)


def _residual(residual: float, loss: Loss) -> tuple[Tensor, tuple[Any, ...]]:
    knob = _knob([residual])
    return knob, (knob, torch.zeros_like(knob))


def _score(p: float, loss: Loss) -> tuple[Tensor, tuple[Any, ...]]:
    knob = _knob([[_logit(p)]])
    return knob, (knob, torch.full_like(knob, _QUALITY))


def _edge(position: float, loss: Loss) -> tuple[Tensor, tuple[Any, ...]]:
    knob = _knob([_peak(position, _LAST_BIN)])
    return knob, (knob, torch.tensor([_POSITION], dtype=torch.float64))


def _peak(position: float, last: int) -> list[float]:
    """Logits over the bins 0 to last of a bell one bin wide."""
    return [-((k - position) ** 2) / 2 for k in range(last + 1)]


def _head(p: float, loss: Loss) -> tuple[Tensor, tuple[Any, ...]]:
    """A point whose box is as high as its target and 0.7 times as wide."""
    knob = _knob([[_logit(p)]])
    sides = (10 * _QUALITY, 10, 10 * _QUALITY, 10)
    edges = torch.tensor([[_peak(side, 16) for side in sides]], dtype=torch.float64)
    point, box = torch.tensor([[10.0, 10.0]]).double(), torch.tensor([[0.0, 0.0, 20.0, 20.0]]).double()
    return knob, (knob, edges, point, 1.0, torch.tensor([0]), box)


PICTURE = Canvas(
    "picture",
    "Pixels and regions",
    "One small picture in which every pixel gives its true class the same probability, from 0.001 to 0.999. Left: the "
    "loss. Middle: the sum of |∂loss/∂logit| over all pixels. Right: the part of it that falls on foreground pixels; "
    "the dotted line is their share of the pixels.",
    "probability of the true class",
    "Size of the gradient",
    (0.001, 0.999),
)
_SCORES = Canvas(
    "score",
    f"Scores, for a target quality of {_QUALITY}",
    f"One score p, the sigmoid of a logit, that should be the quality {_QUALITY}. Left: the loss. Right: its slope "
    "along the logit.",
    "score p",
    "Gradient ∂loss/∂logit",
    (0.001, 0.999),
    _score,
)
_GFL_NOTE = f"its box has the IoU {_QUALITY} and stays"
CANVASES: dict[
    type[Loss], Canvas
] = {  # the first that a term of the loss belongs to; all others are drawn on the picture
    BoxLoss: Canvas(
        "box",
        "Boxes",
        "A box as large as its target that slides over it along one axis, and beyond: they overlap for shifts between "
        "−1 and 1. Left: the loss. Right: its slope along the shift.",
        "shift in widths of the box",
        "Gradient ∂loss/∂shift",
        (-2.0, 2.0),
        _slide,
        _FINE,
    ),
    RegressionLoss: Canvas(
        "residual",
        "Regression",
        "One number. Left: the loss. Right: its slope along the prediction.",
        "residual, prediction − target",
        "Gradient ∂loss/∂prediction",
        (-3.0, 3.0),
        _residual,
        _FINE,
    ),
    GeneralizedFocalLoss: replace(_SCORES, inputs=_head),
    ScoreLoss: _SCORES,
    DistributionFocalLoss: Canvas(
        "edge",
        f"Edges as distributions, for a target at {_POSITION}",
        f"A bell, one bin wide, over the bins 0 to {_LAST_BIN}, that moves past its target at {_POSITION}. Left: the "
        "loss. Right: the sum of |∂loss/∂logit| over the bins.",
        "peak of the distribution, in bins",
        "Size of the gradient",
        (0.0, float(_LAST_BIN)),
        _edge,
    ),
}
