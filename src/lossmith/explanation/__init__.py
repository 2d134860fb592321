"""`explain`: where the value and the gradient of a loss come from, and what is wrong with them."""

from __future__ import annotations

import math
from typing import Any

from ..loss import Loss
from ..supervision import DeepSupervision
from .diagnosis import diagnosis
from .measure import Broken, Group, Input, Measured, Term, measure
from .page import html, text

__all__ = ["Broken", "Explanation", "Group", "Input", "Term", "explain"]


class Explanation:
    """What `explain` found: text where it is printed, a table in a notebook, numbers in `to_dict()`.

    value       of the loss
    terms       each term of the loss, and "total" where several read one input
    inputs      what was given: how many elements, how many ignored for which reason, which classes are absent
    broken      the tensors that are not finite everywhere, by name: how much, and where first
    diagnosis   what the numbers show, in a line each
    """

    def __init__(self, loss: str, value: float, found: Measured) -> None:
        self.loss, self.value, self._found = loss, value, found
        self.terms, self.inputs, self.broken = found.terms, found.inputs, found.broken
        self.diagnosis = diagnosis(value, found)

    def __str__(self) -> str:
        return text(self._title, self._found, self.diagnosis)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self._title, self._found, self.diagnosis)

    @property
    def _title(self) -> str:
        loss = self.loss if len(self.loss) <= 200 else f"{self.loss[:197]}..."
        return f"{loss} = {self.value:.6g}"

    def to_dict(self) -> dict[str, float]:
        """Numbers by name, for a logger: "value", "dice/value", "dice/gradient", "dice/wrong/share",
        "dice/class 1/value", "score/ignored", "broken/target"."""
        found = {"value": self.value}
        for term in self.terms:
            found |= {f"{term.name}/value": term.value, f"{term.name}/gradient": term.norm}
            groups = {**{f"class {name}": group for name, group in term.classes.items()}, **term.levels}
            for name, group in groups.items():
                found |= {f"{term.name}/{name}/gradient": group.norm, f"{term.name}/{name}/share": group.share}
                if group.value is not None:
                    found[f"{term.name}/{name}/value"] = group.value
        for given in self.inputs:
            found |= {f"{given.slot}/counted": float(given.counted)}
            found |= {f"{given.slot}/ignored": float(given.elements - given.counted)}
        return found | {f"broken/{name}": float(b.nan + b.inf) for name, b in self.broken.items()}


def explain(loss: Loss | DeepSupervision, *inputs: Any, **call: Any) -> Explanation:
    """Why value and gradient of a loss are what they are: called like the loss, `explain(loss, logits, target)`.

    For every term, and in it for every class and for easy, hard and wrong elements: value, norm of the gradient, share
    of the gradient; what was ignored and why; what is not finite, and where first; absent classes; and in a line each,
    why the loss is NaN, zero, negative or stuck, where the numbers show it.

    An element is a pixel (with independent channels a channel of one), a score, an edge, a box, a number. Its class is
    that of its label; of a soft label each class has its share; with independent channels a yes belongs to its channel
    and every no to "no". Easy are elements whose label has p ≥ 0.8 (boxes: IoU, scores: 1 − |quality − p|), wrong those
    where another label is likelier (below ½), hard the rest; numbers are easy up to the median error and wrong beyond
    three times that.

    A share is of Σ |∂L/∂z|, so that shares add up to 1. The value of a class is, where a loss has one number an
    element, the mean over the elements of the class, otherwise what the loss itself takes the mean of over classes.
    Gradients are those of what a term reads: logits, boxes, numbers. reduction="none" is explained as its sum.

    Nothing is left behind: no gradient in a tensor that was given, no change of the loss, of a random generator or of
    anything in training. Costs a few backward passes. With `group=` it is this process's part that is explained.

    Raises:
        TypeError: no loss of this library.
        What the loss raises where a call does not fit.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 255]])
    >>> found = ls.explain(ls.CrossEntropyLoss(ignore_index=255), p.logit(), target)
    >>> {name: round(group.share, 3) for name, group in found.terms[0].classes.items()}
    {'0': 0.286, '1': 0.714, 'ignored': 0.0}
    >>> print(found.inputs[0].ignored)
    {'ignore_index=255': 1}
    """
    if isinstance(loss, DeepSupervision):
        outputs, target = (*inputs, None)[:2]
        found = Measured()
        for number, share, given, options in loss._heads(outputs, target, call):
            one = measure(loss.loss, given, options, f"head{number}.", share)
            found.inputs += one.inputs
            found.terms += one.terms
            found.broken |= one.broken
            found.negative += one.negative
    elif isinstance(loss, Loss):
        found = measure(loss, inputs, call)
    else:
        raise TypeError(f"explain takes a loss of this library, got {type(loss).__name__}")
    value = math.fsum(term.value for term in found.terms if not term.total)
    return Explanation(repr(loss), value, found)
