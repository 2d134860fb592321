"""The value and the gradient of any loss along an axis: the probability of the true class, an overlap, a shift …

What losses are drawn against, and on what, is in `axes.AXES`. Here a loss finds its axis, and its number of classes.
Everything is computed by the losses themselves, with autograd, in plain torch: nothing is compiled for a picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import lossmith as ls
from lossmith.lab.say.axes import AXES, PICTURE, Axis
from lossmith.lab.say.points import QUALITY, Reading
from lossmith.loss import Loss, Sum
from lossmith.losses.distribution_gfl import GeneralizedFocalLoss

_MOST_CLASSES = 64
_GFL_NOTE = f"its box has the IoU {QUALITY} and stays"


@dataclass(frozen=True)
class Curve:
    """One loss over x: the lines of its axis by their keys, and the foreground's share of the pixels, if there are any.

    A line has None where it has no value: a share of a gradient of 0.
    """

    x: list[float]
    lines: dict[str, list[float | None]]
    pixels: list[float]


@dataclass(frozen=True)
class Drawn:
    """A curve, and what of its input was chosen for this loss alone, in words; "" if nothing was."""

    axis: Axis
    curve: Curve
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {"x": self.curve.x, **self.curve.lines}
        if self.axis is PICTURE:
            numbers |= {"q": self.curve.x, "foreground_pixels": self.curve.pixels[0]}
        elif self.curve.pixels:
            numbers["foreground_pixels"] = self.curve.pixels
        return {
            "kind": self.axis.kind,
            "against": self.axis.name,
            "axis": self.axis.title,
            "gradient_axis": next(line.title for line in self.axis.lines if line.key == "gradient"),
            "caption": self.axis.caption,
            "note": self.note,
            **numbers,
        }


def check_axis(name: str) -> None:
    """Raises a `ValueError` that names all axes, if this is none of them."""
    if all(name != axis.name for axis in AXES):
        raise ValueError(f"no axis is called {name!r}; there are {', '.join(_names(AXES))}")


def draw(text: str, against: str | None = None) -> dict[str, Drawn]:
    """The curve of a loss by its text; a sum over several inputs has one for each of them, named "text: input".

    Args:
        text: as `lossmith.parse` reads it.
        against: the name of an axis; without it each loss has the usual one of what it reads. Of a sum over several
            inputs only those are drawn that have the axis.

    Raises:
        ValueError, TypeError: the text cannot be read, or the loss cannot be drawn so; the first line of the message
            says what to write instead.
    """
    loss = ls.parse(text)
    slots = [""] if isinstance(loss, GeneralizedFocalLoss) else list(dict.fromkeys(t.slot for _, t in loss.terms))
    axes = {slot: _axis(_part(loss, slot), against) for slot in slots}
    drawn = {
        text if len(slots) == 1 else f"{text}: {slot}": _drawn(text, loss, slot, axis)
        for slot, axis in axes.items()
        if axis is not None
    }
    if not drawn:
        wanted = next(axis for axis in AXES if axis.name == against)
        known = [axis for axis in AXES if any(axis.fits(_terms(_part(loss, slot))) for slot in slots)] or [PICTURE]
        raise ValueError(f"{against} is for {wanted.takes}; draw this one against {_one_of(_names(known))}")
    return drawn


def sample(loss: nn.Module, classes: int = 1, pixels: bool = True) -> Curve:
    """Draw `loss` on the picture for binary labels (`classes=1`) or for a number of classes.

    `pixels=False` hands the pixels over as that many images with one label each, (N, C) and (N,).
    Raises whatever the loss raises for such input.
    """
    return _trace(loss, PICTURE, Reading(classes, pixels=pixels))


def _names(axes: Any) -> list[str]:
    return list(dict.fromkeys(axis.name for axis in axes))


def _one_of(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _terms(loss: Loss) -> list[Loss]:
    return [loss] if isinstance(loss, GeneralizedFocalLoss) else [term for _, term in loss.terms]


def _axis(loss: Loss, against: str | None) -> Axis | None:
    terms = _terms(loss)
    if against is not None:
        return next((axis for axis in AXES if axis.name == against and axis.fits(terms)), None)
    return next((axis for axis in AXES if any(isinstance(term, axis.usual) for term in terms)), PICTURE)


def _part(loss: Loss, slot: str) -> Loss:
    """The terms of a sum that read one of its inputs; a loss with one input as it is."""
    terms = [(weight, term) for weight, term in loss.terms if term.slot == slot]
    return loss if not slot or len(terms) == len(loss.terms) else Sum(terms)


def _drawn(text: str, loss: Loss, slot: str, axis: Axis) -> Drawn:
    part = _part(loss, slot)
    if axis.kind == "picture":
        return _on_a_picture(text, part, slot, axis)
    fmt = next((term.settings()["fmt"] for term in _terms(part) if "fmt" in term.fields), "xyxy")
    note = _GFL_NOTE if isinstance(part, GeneralizedFocalLoss) else ""
    return Drawn(axis, _trace(part, axis, Reading(fmt=fmt)), note)


def _trace(loss: nn.Module, axis: Axis, reading: Reading) -> Curve:
    """Value and gradient at every point: the slope where one number is moved, else the sum of |∂loss/∂input|."""
    curve = Curve(list(axis.points), {line.key: [] for line in axis.lines}, [])
    with ls.use_engine("plain"):  # kernels would be compiled first, for longer than all of this takes
        for x in axis.points:
            for end, point in axis.at(x, reading).items():
                value = loss(*point.given)
                (gradient,) = torch.autograd.grad(value, point.knob)
                total = float(gradient.sum() if gradient.numel() == 1 else gradient.abs().sum())
                curve.lines[f"value{end}"].append(value.item())
                curve.lines[f"gradient{end}"].append(total)
                if "foreground" in curve.lines and point.foreground is not None:
                    on = gradient.abs().sum(1)[point.foreground]
                    curve.lines["foreground"].append(float(on.sum()) / total if 0 < total < math.inf else None)
                    curve.pixels.append(float(point.foreground.double().mean()))
    return curve


# ------------------------------------------------------------------------------------------------------ the picture


def _on_a_picture(text: str, part: Loss, slot: str, axis: Axis) -> Drawn:
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
                curve = _trace(loss, axis, Reading(classes, task == "multilabel"))
            except (ValueError, TypeError, RuntimeError) as error:
                problems.append((classes, str(error).splitlines()[0]))
                continue
            note = f"{classes} {'channels, multilabel' if task == 'multilabel' else 'classes'}" if classes > 1 else ""
            return Drawn(axis, curve, f"{note}, forbidden={_apart(classes)}" if pairs else note)
    raise ValueError(_reason(owners, axis, problems))


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


def _reason(owners: list[Loss], axis: Axis, problems: list[tuple[int, str]]) -> str:
    """Why a loss cannot be drawn, by what was written: the shapes of a picture that nobody sees explain nothing."""
    lists, named = _lists(owners), _named(owners)
    least = min(lists.values(), default=math.inf)
    if len({*lists.values()}) > 1 or any(highest >= least for highest in named.values()):
        said = [f"{setting} is for {n} classes" for setting, n in lists.items()]
        said += [f"{setting} names class {highest}" for setting, highest in named.items()]
        return f"{' but '.join(said)}; make them agree on the number of classes"
    hidden = {n: axis.at(axis.points[0], Reading(n))[""].given[1].shape[1:] for n, _ in problems}
    clear = [text for n, text in problems if ", ".join(map(str, hidden[n])) not in text]
    return clear[0] if clear else "no number of classes suits all of its settings"


def _setting(name: str, value: Any) -> str:
    return f"{name}={_plain(value)}"


def _plain(value: Any) -> str:
    return f"[{', '.join(map(_plain, value))}]" if isinstance(value, list | tuple) else f"{value:g}"


def _apart(classes: int) -> list[list[int]]:
    """Forbids each two classes to touch but the background: in the picture they do not."""
    return [[int(0 < i != j > 0) for j in range(classes)] for i in range(classes)]
