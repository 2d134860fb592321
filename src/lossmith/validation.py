"""What a call may hand to a dense loss, and the errors that say what is wrong: shapes, dtypes, values, masks."""

from __future__ import annotations

import math
import numbers
from dataclasses import replace

import torch
from torch import Tensor

from .engine import Problem, Stats, Task
from .engine.field import labels_and_valid
from .engine.plain import SLACK, out_of_range
from .engine.tensors import can_look, indices

NO_LABEL = -(2**31)  # marks what is ignored among yes and no, which any other number might be


def fit(
    who: str, logits: Tensor, target: Tensor | None, task: Task | None, guess: Task | None = None
) -> tuple[Tensor, Task]:
    """The target in the shape an engine takes, and the task that logits and target imply.

    `guess`: what a target shaped like the logits means to a loss that only makes sense for one task.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"{who}: logits must be a floating-point tensor, got {kind}")
    if logits.ndim < 2 or logits.shape[1] == 0:
        raise ValueError(f"{who}: logits must be (N, C, *S) with C >= 1, got {shape(logits)}")
    if not isinstance(target, Tensor):
        raise TypeError(f"{who}: the target must be a tensor, got {type(target).__name__}; call loss(logits, target)")
    if target.device != logits.device:
        raise ValueError(f"{who}: logits are on {logits.device}, the target on {target.device}; move one of them")
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
    target = target.reshape(labels)
    if target.is_floating_point():
        raise TypeError(
            f"{who}: labels {labels} for {c} classes must be integers, got {target.dtype}; {_as_integers(target)}"
        )
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


def _as_integers(target: Tensor) -> str:
    """How to make integers of labels that are floats, without rounding one away."""
    if not can_look(target) or bool((target == target.round()).all()):
        return "use target.long()"
    strange = float(target[target != target.round()][0].detach())
    return f"{strange:g} is no label: use target.round().long() if it is one with an error, or soft labels (N, C, *S)"


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
    if not isinstance(weight, Tensor) or weight.is_complex():
        raise TypeError(f"{who}: weight must be a real tensor, got {getattr(weight, 'dtype', type(weight).__name__)}")
    if weight.device != logits.device:
        raise ValueError(f"{who}: logits are on {logits.device}, the weight on {weight.device}; move one of them")
    if can_look(weight) and bool((weight < 0).any()):
        raise ValueError(f"{who}: weights must be >= 0, got {float(weight.min()):g}")
    if space and tuple(weight.shape) in ((n, *space), (n, 1, *space)):
        return None, weight.reshape(n, *space)
    if tuple(weight.shape) == (n,):
        return weight, None
    raise ValueError(
        f"{who}: weight must be {(n,)}, one per sample, or {(n, *space)}, one per pixel, got {shape(weight)}"
    )


def checked_distance(who: str, logits: Tensor, distance: Tensor | None) -> Tensor | None:
    if distance is None:
        return None
    if not isinstance(distance, Tensor) or not distance.is_floating_point():
        raise TypeError(f"{who}: distance must be a floating-point tensor, got {type(distance).__name__}")
    if distance.shape != logits.shape:
        raise ValueError(
            f"{who}: distance must be shaped like the logits, {shape(logits)}, got {shape(distance)}; "
            "make it with ls.distance.signed_distance_map(labels, num_classes)"
        )
    return distance.detach()


def checked_mask(who: str, logits: Tensor, mask: Tensor, task: Task) -> Tensor:
    """Which classes were annotated, bool, (N, C): under a softmax the background always."""
    if not isinstance(mask, Tensor) or tuple(mask.shape) != tuple(logits.shape[:2]):
        found = shape(mask) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"{who}: label_mask says which classes were annotated in each image: {shape(logits)[:2]}, got {found}"
        )
    annotated = mask.to(logits.device) != 0
    return annotated | (indices(logits.shape[1], logits) == 0) if task == "multiclass" else annotated


def merged(problem: Problem, annotated: Tensor) -> Problem:
    """Partial labels. Under a sigmoid, a channel that was not annotated is ignored. Under a softmax, the classes that
    were not annotated are part of the background: their probability is added to its, nothing is asked of them alone.

    Values out of range are left as they are for the engine to see.
    """
    labels, valid = labels_and_valid(problem)
    target = problem.target if problem.target.is_floating_point() else problem.target.long()
    space = [1] * len(problem.logits.shape[2:])
    if problem.task != "multiclass":
        ignored = problem.ignore_index
        if problem.hard:
            target, ignored = target.unsqueeze(1), NO_LABEL
            target = torch.where(out_of_range(target, problem.logits.shape[1]), target, labels)
        unknown = ~(annotated.reshape(*annotated.shape, *space) & valid)
        return replace(problem, target=target.masked_fill(unknown, ignored), ignore_index=ignored)
    hidden = ~annotated
    at = hidden.reshape(*hidden.shape, *space)
    background = torch.zeros_like(hidden)
    background[:, 0] = True
    pooled = at | background.reshape(at.shape)
    z = problem.logits if problem.logits.dtype == torch.float64 else problem.logits.float()
    z = z.masked_fill(~valid.unsqueeze(1), 0.0)  # or a NaN there would reach the gradient
    first = z.masked_fill(~pooled, -torch.inf).logsumexp(1, keepdim=True)
    z = torch.cat([first, z.masked_fill(at, -torch.inf)[:, 1:]], 1)
    if problem.hard:
        lost = hidden.gather(1, labels.reshape(len(labels), math.prod(labels.shape[1:]))).view_as(labels) & (
            labels == target
        )
        return replace(problem, logits=z, target=torch.where(lost, 0, target))
    share = target.clamp(min=0)
    share = torch.cat([(share * pooled).sum(1, keepdim=True).clamp(max=1), share.masked_fill(at, 0)[:, 1:]], 1)
    target = torch.where(out_of_range(target, 1).any(1, keepdim=True), target, share)
    return replace(problem, logits=z, target=target.masked_fill(~valid.unsqueeze(1), problem.ignore_index))


def checked_denominator(who: str, denominator: Tensor | float | None) -> Tensor | float | None:
    """One number, not negative; a tensor on an accelerator is taken as it is."""
    if isinstance(denominator, Tensor) and denominator.numel() == 1 and not denominator.is_complex():
        denominator = denominator.detach().reshape(())
        fits = not can_look(denominator) or bool((denominator >= 0) & denominator.isfinite())
    else:
        fits = denominator is None or (isinstance(denominator, numbers.Real) and 0 <= denominator < math.inf)
    if not fits:
        single = denominator is not None and (not isinstance(denominator, Tensor) or denominator.ndim == 0)
        infinite = single and denominator == math.inf
        more = ", which would make every loss 0" if infinite else ""
        raise ValueError(f"{who}: the denominator must be one number >= 0, got {denominator!r}{more}")
    return denominator


def check_range(who: str, problem: Problem, stats: Stats) -> None:
    """Labels outside of the classes are an error where looking is free; elsewhere they have made the loss NaN."""
    if stats.target_range is None:
        return
    low, high = stats.target_range
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


def shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
