"""Calls of any loss of the catalogue, drawn at random, and cut into parts: for processes, micro-batches and slabs."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import lossmith as ls
from problems import PROBLEMS, Problem, calls, fits, needed, nudges, shared_settings
from process_cases import Call

EXACT = 1e-9


def near(a: Any, b: Any) -> bool:
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    return torch.allclose(a, b, rtol=EXACT, atol=EXACT, equal_nan=True)


def cut(x: Any, at: list[int], axis: int = 0) -> list[Any]:
    """A tensor in parts along an axis; anything else is the same for all."""
    if not isinstance(x, Tensor) or x.ndim <= axis:
        return [x] * (len(at) - 1)
    return [x.narrow(axis, a, b - a) for a, b in pairwise(at)]


def parts_of(whole: Call, at: list[int]) -> list[Call]:
    """A call in parts of its images. A denominator is shared out."""
    members, total = len(at) - 1, at[-1]
    inputs = zip(*(cut(x, at) for x in whole.inputs), strict=True)
    keywords: list[dict[str, Any]] = [{} for _ in range(members)]
    for name, value in whole.keywords.items():
        shares = cut(value, at)
        if name == "denominator":
            shares = [value * (b - a) / total for a, b in pairwise(at)]
        for own, share in zip(keywords, shares, strict=True):
            own[name] = share
    return [Call(whole.name, whole.settings, tuple(own), kw) for own, kw in zip(inputs, keywords, strict=True)]


def cuts(draw: random.Random, count: int, members: int) -> list[int]:
    """Any split; now and then somebody has nothing."""
    return [0, *sorted(draw.randint(0, count) for _ in range(members - 1)), count]


def drawn(row: Any, draw: random.Random) -> Call:
    """A call of a loss: a problem, settings and keywords."""
    problem: Problem = draw.choice([p for p in PROBLEMS if p.task in row.cls.tasks])
    n_classes = problem.logits.shape[1]
    base = needed(row.cls, problem.logits) | {k: v for k, v in problem.settings.items() if k in row.cls.fields}
    own = draw.choice([{}, *nudges(row.cls, problem.task, n_classes, problem.axes)])
    settings = base | own | draw.choice(shared_settings(problem, row.cls))
    given = [call for call in calls(problem, row.cls) if fits(settings, call)]
    if n_classes > 1 and problem.task != "multilabel" and not problem.target.is_floating_point():
        mask = torch.ones(len(problem.logits), n_classes, dtype=torch.bool)
        mask[:, 1] = torch.arange(len(mask)) % 2 == 0
        given.append({"label_mask": mask})
    return Call(row.name, settings, (problem.logits, problem.target), draw.choice(given))


def ranks_over_the_batch(loss: ls.Loss) -> bool:
    """Whether it has to see all pixels at once."""
    kept = (ls.OhemCrossEntropyLoss, ls.TopKCrossEntropyLoss)
    return any(isinstance(term, kept) or (term.family == "sorted" and not term.per_image) for _, term in loss.terms)
