"""Whether what a call hands over fits: shapes, dtypes and values of logits, target and weight, and the errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import checks
from ..checks import shape
from ..engine.problem import SLACK, Problem, Task
from ..engine.tensors import can_look, wide


def fit(
    who: str, logits: Tensor, target: Tensor | None, task: Task | None, guess: Task | None, ignore_index: int
) -> tuple[Tensor, Task]:
    """The target in the shape an engine takes, and the task that logits and target imply.

    `guess`: what a target shaped like the logits means to a loss that only makes sense for one task.
    """
    checks.floating(who, "logits", logits)
    if logits.ndim < 2 or logits.shape[1] == 0:
        raise ValueError(f"{who}: logits must be (N, C, *S) with C >= 1, got {shape(logits)}")
    if not isinstance(target, Tensor):
        raise TypeError(f"{who}: the target must be a tensor, got {type(target).__name__}; call loss(logits, target)")
    checks.together(who, "logits are", logits, "target", target)
    if target.is_complex():
        raise TypeError(f"{who}: the target must hold integers or real numbers, got {target.dtype}")
    n, c, *space = logits.shape
    if c == 1:
        if task == "multiclass":
            raise ValueError(
                f"{who}: logits {shape(logits)} have one channel, which is always binary, but the loss was built with "
                "task='multiclass'; use two channels, or drop the task"
            )
        return binary(who, logits, target), "binary"
    if task == "binary":
        raise ValueError(
            f"{who}: task='binary' needs logits with one channel, got {shape(logits)}; "
            "use task='multilabel' for independent channels"
        )
    labels, full = (n, *space), tuple(logits.shape)
    if tuple(target.shape) == full:
        task = task or guess
        if task is None:
            raise ValueError(
                f"{who}: a target shaped like the logits, {shape(logits)}, is ambiguous: build the loss with "
                "task='multiclass' (soft labels that sum to 1 over the classes) or task='multilabel' "
                f"(independent yes or no in each channel). Classes are on axis 1, here {c}: logits without that axis, "
                "one number per pixel, want loss(logits.unsqueeze(1), target)"
            )
        return target, task
    if tuple(target.shape) not in (labels, (n, 1, *space)):
        raise ValueError(
            f"{who}: logits {shape(logits)} need labels {labels} or {(n, 1, *space)}, or a map {full}, "
            f"got a target {shape(target)}{_axes(logits, target)}"
        )
    if target.dtype == torch.bool and c > 2:
        mask = "mask" if target.ndim == logits.ndim else "mask.unsqueeze(1)"
        raise ValueError(
            f"{who}: a bool mask {shape(target)} for {c} classes is ambiguous: as labels of the classes 0 and 1 it is "
            f"mask.long(); one mask for all {c} channels is {mask}.expand_as(logits) with task='multilabel'"
        )
    target = target if target.shape == labels else target.reshape(labels)
    if target.is_floating_point():
        target = _whole(who, target, c, ignore_index)
    return target, task or "multiclass"


def _axes(logits: Tensor, target: Tensor) -> str:
    """What may be wrong with axes that do not fit, and what mends it."""
    n, c, *space = logits.shape
    if space and target.shape == logits.shape[:-1]:
        return "; classes are on axis 1: if yours are last, use logits.movedim(-1, 1)"
    if tuple(target.shape) == (n, *space, c):
        return "; classes are on axis 1: use target.movedim(-1, 1)"
    if target.shape == logits.shape[1:]:
        return "; axis 0 is the batch: without one, use logits.unsqueeze(0) and target.unsqueeze(0)"
    return ""


def _whole(who: str, labels: Tensor, n_classes: int, ignore_index: int) -> Tensor:
    """Labels that a pipeline made floating point, as integers. One that is not whole is an error where looking is free,
    and elsewhere a label that no class has, which makes the loss NaN."""
    labels = wide(labels.detach())
    strange = (labels != labels.floor()) | ~labels.isfinite()
    if can_look(labels):
        if bool(strange.any()):
            raise TypeError(
                f"{who}: labels {shape(labels)} for {n_classes} classes must be whole numbers, got "
                f"{float(labels[strange][0]):g}, which is no label: use target.round().long() if it is one with an "
                "error, or soft labels (N, C, *S)"
            )
        return labels.clamp(-(2.0**31), 2.0**31).long()
    nobody = n_classes + 1 if ignore_index != n_classes + 1 else n_classes + 2
    return labels.clamp(-(2.0**31), 2.0**31).nan_to_num(0.0).long().masked_fill(strange, nobody)


def binary(who: str, logits: Tensor, target: Tensor) -> Tensor:
    n, _, *space = logits.shape
    if tuple(target.shape) not in ((n, *space), (n, 1, *space)):
        raise ValueError(
            f"{who}: logits {shape(logits)} have one channel, so the target must be {(n, *space)} or "
            f"{(n, 1, *space)}, got {shape(target)}{_axes(logits, target)}"
        )
    return target.reshape(n, 1, *space)


def split_weight(who: str, logits: Tensor, weight: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The weight as (per sample, per pixel); at most one of them is there."""
    if weight is None:
        return None, None
    n, _, *space = logits.shape
    checks.weights(who, weight, "logits are", logits)
    if space and tuple(weight.shape) in ((n, *space), (n, 1, *space)):
        return None, weight.reshape(n, *space)
    if tuple(weight.shape) == (n,):
        return weight, None
    raise ValueError(
        f"{who}: weight must be {(n,)}, one per sample, or {(n, *space)}, one per pixel, got {shape(weight)}"
    )


def check_range(who: str, problem: Problem, span: tuple[float, float] | None) -> None:
    """Labels outside of the classes are an error where looking is free; elsewhere they have made the loss NaN."""
    if span is None:
        return
    low, high = span
    c, hard = problem.logits.shape[1], problem.hard
    top = (c if problem.task == "multilabel" else max(c - 1, 1)) if hard else 1
    slack = SLACK if problem.target.is_floating_point() else 0
    if (low >= -slack and high <= top + slack) or math.isnan(low) or math.isnan(high):
        return
    bad = high if high > top else low
    allowed = f"0 to {top}" if hard else "0 to 1"
    hint = "a mask of 0 and 255 wants (mask > 0)" if bad == 255 and c <= 2 else f"is {bad:g} an ignore_index?"
    if bad == 255 and c > 2:
        hint = "255 often marks ignored pixels: ignore_index=255; a mask of 0 and 255 wants (mask > 0)"
    elif not bad.is_integer():  # an ignore_index is a whole number
        teacher = "softmax(1)" if problem.task == "multiclass" else "sigmoid()"
        hint = f"logits of a teacher want target.{teacher}, what a cubic interpolation overshot target.clamp(0, 1)"
    raise ValueError(
        f"{who}: the target holds {bad:g}, but with C = {c} and task={problem.task!r} its values must lie in {allowed} "
        f"(ignore_index is {problem.ignore_index}); {hint}"
    )
