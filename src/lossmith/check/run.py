"""`check`: every property asked of one loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..settings import nearest
from .properties import PROPERTIES, Property, raised
from .report import Report, Result
from .smallest import Fault, smallest
from .subject import FORMS, Form, Subject, Task, known_task


def check(
    loss: Callable[..., Tensor],
    *,
    task: Task = "multiclass",
    classes: int = 3,
    size: Sequence[int] = (6, 5),
    target: Form | None = None,
    ignore_index: int | None = None,
    weight: str | None = None,
    only: Sequence[str] | None = None,
    slow: bool = False,
) -> Report:
    """Asks a loss, ours or anybody's, for what a loss should keep, and shows the smallest input on which it does not.

    The loss is called as loss(logits, target) with logits (2, C, *size) in float64, float32 and half precision, and has
    to return one number. What it cannot express, such as ignored pixels, is "not asked" of it, and no fault.

    Args:
        loss: a module, a function, or anything else that can be called.
        task: "multiclass", "binary" (one channel) or "multilabel".
        classes: C, unless the task is binary.
        size: of the images; () for one label a sample.
        target: the form that it reads: "labels" (N, *S), "channel" (N, 1, *S), "one-hot" (N, C, *S); in a binary or
            multilabel task "real" (N, C, *S) in floating point, in a multilabel one "map" of integers. None: the first
            of them with which a call gives a number.
        ignore_index: the label of ignored pixels, which the loss was built with or a function takes as a keyword.
            None: what the loss says of itself.
        weight: the keyword of a call that takes a weight per sample (N,). None: what our losses say of themselves.
        only: names of properties; None: all.
        slow: whether to compile it too, which takes seconds.

    Returns:
        a report, which prints as a table; `holds`, `failed`, `to_dict()`.

    Raises:
        TypeError: it cannot be called, or is a class.
        ValueError: a call gives no number that depends on the logits; an argument has no such value.

    Limits: what holds on small images with fixed random numbers is not proved. Values are compared to 1e-5, derivatives
    to 1e-3, so that losses that compute in float32 pass.

    >>> import torch, lossmith as ls
    >>> report = ls.check(torch.nn.CrossEntropyLoss(), only=["large_logits", "all_ignored"])
    >>> print(report)
    CrossEntropyLoss(), multiclass, target as labels: 1 hold, 1 fail, 0 not asked
      holds      large_logits  value and gradient are finite for logits of ±10,000 in float32
      fails      all_ignored   where every pixel is ignored the value is finite and the gradient 0
                               the value is nan
                                 z = torch.tensor([[[[0.0]], [[0.0]]]], dtype=torch.float64)
                                 y = torch.tensor([[[-100]]])
                                 loss(z, y)
    """
    if isinstance(loss, type):
        raise TypeError(f"check: {loss.__name__} is a class; build it: check({loss.__name__}(...))")
    if not callable(loss):
        raise TypeError(f"check: a loss is called as loss(logits, target), and {type(loss).__name__} cannot be called")
    forms = FORMS[known_task(task)]
    if target is not None and target not in forms:
        raise ValueError(f"check: the target of a {task} task is one of {', '.join(forms)}, got {target!r}")
    names = [known.name for known in PROPERTIES]
    for name in only or ():
        if name not in names:
            raise ValueError(f"check: no property is called {name!r}; {nearest(name, names)}")
    subject = Subject(loss, ignore_index, weight)
    z, y = start(task, classes, tuple(size))
    subject.settle(z, y, (target,) if target else forms)
    asked = [known for known in PROPERTIES if only is None or known.name in only]
    results = [one(known, subject, z, y, slow or only is not None) for known in asked]
    return Report(subject.name, task, subject.form, tuple(results))


def start(task: Task, classes: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits and labels to start from, in which every class is there."""
    chance = torch.Generator().manual_seed(0)
    channels = 1 if task == "binary" else classes
    z = 1.5 * torch.randn(2, channels, *size, generator=chance, dtype=torch.float64, device="cpu")
    shape = (2, channels, *size) if task == "multilabel" else (2, *size)
    labels = classes if task == "multiclass" else 2
    y = torch.randint(labels, shape, generator=chance, dtype=torch.int64, device="cpu")
    return z, y


def one(known: Property, subject: Subject, z: Tensor, y: Tensor, slow: bool) -> Result:
    why = not_asked(known, subject, z, slow)
    if why:
        return Result(known.name, known.means, "not asked", why)

    def probe(z: Tensor, y: Tensor) -> Fault | None:
        try:
            return known.ask(subject, z, y)
        except Exception as error:  # whatever the code of the loss raises
            return raised(error, subject.code(), dict(zip("zy", subject.last, strict=True)))

    if known.ignoring:
        chance = torch.Generator().manual_seed(1)
        hidden = torch.empty_like(y, dtype=torch.float32).uniform_(generator=chance) < 0.3
        y = y.masked_fill(hidden, subject.ignored or 0)
    fault = probe(z, y)
    if fault is None:
        return Result(known.name, known.means, "holds")
    found = fault if known.slow else smallest(probe, fault, z, y)
    return Result(known.name, known.means, "fails", found.seen, found.example())


def not_asked(known: Property, subject: Subject, z: Tensor, slow: bool) -> str:
    """Why a property means nothing here; empty if it does."""
    if known.needs == "ignored" and subject.ignored is None:
        marks = f"a target as {subject.form} cannot mark pixels" if subject.form in ("one-hot", "real") else ""
        return marks or "it says of no label that it is ignored: ignore_index"
    if known.needs == "weight" and subject.weight is None:
        return "it says of no keyword that it takes weights of samples: weight"
    if known.needs == "names" and z.shape[1] == 1:
        return "there is one channel"
    if known.needs == "state" and subject.stateless:
        return "a function has no state"
    if known.slow and not slow:
        return "it takes seconds: slow=True"
    return ""
