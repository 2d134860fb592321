"""What the elements of an input are: which class each belongs to, how right the answer is, which are ignored.

An element is what a loss has one number for: a pixel, a channel of a pixel, a score, an edge, a box, a number. Whatever
is asked of a gradient is asked of Σ |∂L/∂z| over the numbers of one element.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..engine import ask
from ..engine.contract import Field, Overlap, Residuals
from ..engine.contract import Scores as Said
from ..engine.problem import Problem
from ..engine.tensors import likeliest, wide
from ..inputs.batch import Batch
from ..inputs.heads import EdgePair, ScorePair
from ..inputs.pair import Pair, corners

EASY, RIGHT = 0.8, 0.5
LEVELS = ("easy", "hard", "wrong")
IGNORED = "ignored"
_OF_LABEL = f"easy: the label has p >= {EASY}; hard: less, but p >= {RIGHT}; wrong: p < {RIGHT}"


class View:
    """The elements of one input of a loss.

    kind        what they are, in words; `many`: how several are called
    tensor      what gradients are taken of
    names       of the classes that elements belong to; none: they have no classes
    hidden      which elements are ignored; why: how many, by the reason
    p           how right the answer is, 0 to 1; wrong: which answers are wrong
    rule        what easy, hard and wrong mean here
    """

    kind, many, rule = "", "elements", _OF_LABEL
    names: tuple[str, ...] = ()
    logits = True  # whether it holds logits: what is undecided at 0

    def __init__(self, tensor: Tensor, hidden: Tensor, p: Tensor, wrong: Tensor | None = None) -> None:
        self.tensor, self.hidden, self.p = tensor, hidden, p
        self.wrong = (~(p >= RIGHT) if wrong is None else wrong) & ~hidden
        self.why: dict[str, int] = {}

    @property
    def elements(self) -> int:
        """How many there are."""
        return self.hidden.numel()

    @property
    def counted(self) -> int:
        """How many of them count."""
        return self.elements - int(self.hidden.sum())

    def of_element(self, x: Tensor) -> Tensor:
        """Something of every number of the tensor, added up over each element."""
        return x if x.shape == self.hidden.shape else x.sum(-1)

    def hides(self, x: Tensor) -> Tensor | None:
        """Which numbers of another tensor of the call belong to ignored elements; None: not known."""
        hidden = self.hidden
        if x.shape == hidden.shape:
            return hidden
        if x.shape[:-1] == hidden.shape:
            return hidden.unsqueeze(-1).expand(x.shape)
        return hidden.all(-1) if hidden.ndim and x.shape == hidden.shape[:-1] else None

    def by_level(self, x: Tensor) -> dict[str, float]:
        """Something of every element, added up over the easy, the hard and the wrong."""
        easy = (self.p >= EASY) & ~self.wrong & ~self.hidden
        hard = ~easy & ~self.wrong & ~self.hidden
        return self._with_ignored(x, {n: _total(x, of) for n, of in zip(LEVELS, (easy, hard, self.wrong), strict=True)})

    def by_class(self, x: Tensor) -> dict[str, float]:
        """The same over the classes; of a soft label each class has its share."""
        return self._with_ignored(x, dict(zip(self.names, self.of_classes(x), strict=True)))

    def of_classes(self, x: Tensor) -> list[float]:
        """Something of every element that counts, added up over each class."""
        return []

    def _with_ignored(self, x: Tensor, found: dict[str, float]) -> dict[str, float]:
        return {**found, IGNORED: _total(x, self.hidden)} if found and bool(self.hidden.any()) else found

    def absent(self) -> list[str]:
        """The classes of a target that no element has."""
        return []


def _total(x: Tensor, of: Tensor) -> float:
    return float(wide(x).masked_fill(~of, 0.0).sum())


class _Dense(View):
    """Logits (N, C, *S) against labels."""

    def __init__(self, batch: Batch, told: bool) -> None:
        problem = batch.problem.but(logits=batch.problem.logits.detach())
        self.exclusive, self.told = problem.exclusive, told
        valid = problem.labels.valid
        labels = batch.labels[0]
        p = ask(Field(problem))
        best = likeliest(problem.logits).squeeze(1)
        if self.exclusive:
            labels = labels if told else best
            p, wrong = p.gather(1, labels.unsqueeze(1)).squeeze(1), best != labels
        else:
            labels = labels if told else (problem.logits > 0).long()
            p = torch.where(labels > 0, p, 1 - p)
            wrong = ~(p >= RIGHT)
        hidden = torch.zeros_like(wrong) if valid is None else ~valid
        super().__init__(batch._given.logits, hidden, p, wrong)
        target = problem.labels.target
        self.share = target.to(p.dtype) if told and target.ndim == problem.logits.ndim else None
        self.label, self.kind = labels, problem.task
        count = batch.n_classes
        self.names = ("0", "1") if count == 1 else tuple(map(str, range(count)))
        self.why = self._reasons(batch, told)
        if self.exclusive:
            self.many = "pixels" if batch.space else "rows"
            self.rule = f"easy: right, with p >= {EASY}; hard: right, with less; wrong: another label is likelier"
        else:
            self.many = "pixels" if count == 1 else "yes or no"
            self.names += ("no",) * (count > 1)
        if not told:
            self.rule = f"without labels: easy: the likeliest has p >= {EASY}; hard: less"

    def _reasons(self, batch: Batch, told: bool) -> dict[str, int]:
        """How many elements are ignored for which reason; one that has two is counted with the first."""
        given, left, found = batch._given, self.hidden, {}
        reasons: dict[str, Tensor] = {}
        if told:
            marked = given.target == given.ignore_index
            marked = marked if given.hard or not self.exclusive else marked.any(1)
            reasons[f"ignore_index={given.ignore_index}"] = marked
        if given.sample is not None:
            reasons["weight=0"] = (given.sample == 0).reshape(-1, *[1] * (left.ndim - 1))
        if given.weight is not None:
            reasons["weight=0"] = given.weight == 0
        for reason, of in reasons.items():
            lacks_channels = of.ndim < left.ndim
            here = left & (of.unsqueeze(1) if lacks_channels else of)
            found[reason] = int(here.sum())
            left = left & ~here
        return {k: n for k, n in {**found, "not annotated": int(left.sum())}.items() if n}

    def of_element(self, x: Tensor) -> Tensor:
        return x.sum(1) if self.exclusive else x

    def hides(self, x: Tensor) -> Tensor | None:
        hidden = self.hidden
        if x.shape == self.tensor.shape:
            return hidden.unsqueeze(1).expand(x.shape) if self.exclusive else hidden
        if x.numel() == hidden.numel():
            return hidden.reshape(x.shape)
        pixels = hidden if self.exclusive else hidden.all(1)
        return pixels.reshape(x.shape) if x.numel() == pixels.numel() else None

    def absent(self) -> list[str]:
        counts = self.by_class(torch.ones_like(self.p)) if self.told else {}
        return [name for name, count in counts.items() if not count and name != "no"]

    def of_classes(self, x: Tensor) -> list[float]:
        x = wide(x).masked_fill(self.hidden, 0.0)
        if not self.exclusive:
            return _yes_and_no(x.movedim(1, -1), (self.label if self.share is None else self.share).movedim(1, -1))
        if self.share is None:
            total = torch.zeros(len(self.names), dtype=x.dtype, device=x.device)
            sums: list[float] = total.index_add(0, self.label.flatten(), x.flatten()).tolist()
            return sums
        share = wide(self.share).clamp(min=0.0)
        whole = share.sum(1, keepdim=True)
        share = torch.where(whole > 0, share / torch.where(whole > 0, whole, 1.0), 1 / len(self.names))
        sums = (share * x.unsqueeze(1)).movedim(1, 0).flatten(1).sum(1).tolist()
        return sums


def _yes_and_no(x: Tensor, r: Tensor) -> list[float]:
    """What belongs to the yes of each channel and to the no of all; of one channel, no and yes. Channels are last."""
    r = r.to(x)
    yes, no = (x * r).reshape(-1, r.shape[-1]).sum(0).tolist(), float((x * (1 - r)).sum())
    return [no, *yes] if len(yes) == 1 else [*yes, no]


class _Score(View):
    """Logits (…, C) against qualities: the class of a score above 0, or "no"."""

    kind, many = "scores", "scores"
    rule = f"easy: the score is within {1 - EASY:g} of the quality; hard: within {1 - RIGHT:g}; wrong: farther"

    def __init__(self, given: ScorePair) -> None:
        logits, self.target = given.logits.detach(), given.target.detach()
        super().__init__(given.logits, _weightless(given, logits), 1 - ask(Said(logits, self.target)).miss.abs())
        count = logits.shape[-1] if logits.ndim else 1
        self.names = ("0", "1") if count == 1 else (*map(str, range(count)), "no")

    def of_classes(self, x: Tensor) -> list[float]:
        return _yes_and_no(wide(x).masked_fill(self.hidden, 0.0), self.target > 0)


class _Edge(View):
    """Logits (…, n + 1) over bins against positions: how much lies on the two bins beside."""

    kind, many = "edges", "edges"
    rule = f"easy: the two bins beside have p >= {EASY}; hard: less, but p >= {RIGHT}; wrong: p < {RIGHT}"

    def __init__(self, given: EdgePair) -> None:
        logits, target = given.logits.detach(), given.target.detach()
        rows = logits.reshape(-1, logits.shape[-1])
        p = ask(Field(Problem(rows, torch.zeros_like(rows[:, 0]).long(), None, None, "multiclass", -100)))
        left = target.clamp(0, rows.shape[1] - 1).floor().clamp(max=rows.shape[1] - 2).nan_to_num(0.0).long()
        at = left.reshape(-1, 1)
        near = (p.gather(1, at) + p.gather(1, at + 1)).reshape(target.shape)
        super().__init__(given.logits, _weightless(given, target), near)


class _Box(View):
    """Boxes (…, 4): how much they overlap."""

    kind, many, logits = "boxes", "boxes", False
    rule = f"easy: IoU >= {EASY}; hard: less, but IoU >= {RIGHT}; wrong: IoU < {RIGHT}"

    def __init__(self, given: Pair, fmt: Any) -> None:
        boxes = [corners(x.detach(), fmt) for x in (given.prediction, given.target)]
        iou = ask(Overlap(boxes[0], boxes[1], ("iou",))).iou
        super().__init__(given.prediction, _weightless(given, iou), iou)


class _Number(View):
    """Numbers: how far off they are, against the others."""

    kind, many, logits = "numbers", "numbers", False
    rule = "easy: no farther off than the median; hard: up to three times that; wrong: farther, an outlier"

    def __init__(self, given: Pair) -> None:
        off = ask(Residuals(given.prediction.detach(), given.target.detach()))
        hidden = _weightless(given, off)
        known = off[~hidden & off.isfinite()]
        middle = known.median() if known.numel() else off.new_zeros(())
        p = torch.where(off <= middle, 1.0, torch.where(off <= 3 * middle, RIGHT, 0.0))
        super().__init__(given.prediction, hidden, p)


def _weightless(given: Any, like: Tensor) -> Tensor:
    """Which elements have weight 0."""
    if given.weight is None:
        return torch.zeros_like(like, dtype=torch.bool)
    hidden: Tensor = given.weight == 0
    return hidden if hidden.ndim == like.ndim else hidden.unsqueeze(-1).expand(like.shape)


def view(batch: Any, reading: Any, told: bool) -> View:
    """Of what a loss has read. `told`: whether there was a target.

    Raises:
        TypeError: an input of a kind that nothing is known of.
    """
    with torch.no_grad():
        if isinstance(batch, Batch):
            return _Dense(batch, told)
        if isinstance(batch, ScorePair | EdgePair):
            found: View = _Score(batch) if isinstance(batch, ScorePair) else _Edge(batch)
        elif isinstance(batch, Pair):
            found = _Box(batch, reading.fmt) if reading.reads else _Number(batch)
        else:
            raise TypeError(f"explain knows logits, scores, edges, boxes and numbers, not a {type(batch).__name__}")
        hidden = int(found.hidden.sum())
        found.why = {"weight=0": hidden} if hidden else {}
        return found
