"""Calls of any loss of the catalogue, drawn at random, and cut into parts: for processes, micro-batches and slabs."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import lossmith as ls
from lossmith.engine.images import Across, Each, Everything, Gathered, Own, Split
from lossmith.plan import Plan
from problems import PROBLEMS, Problem, calls, fits, logits_of, needed, nudges, shared_settings
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


def drawn(row: Any, draw: random.Random, problems: list[Problem] = PROBLEMS) -> Call:
    """A call of a loss: a problem, settings and keywords."""
    problem: Problem = draw.choice([p for p in problems if p.task in row.cls.tasks])
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


def slab(name: str, x: Any, logits: Tensor, at: list[int], r: int) -> Any:
    """A keyword's part of a slab: what has the axes of space is cut, a denominator shared out."""
    if name == "denominator":
        return x * (at[r + 1] - at[r]) / at[-1]
    if name == "label_mask" or x.ndim < logits.ndim - 1:
        return x
    return cut(x, at, x.ndim - (logits.ndim - 2))[r]


def given_map(row: Any, logits: Tensor) -> dict[str, Tensor]:
    """The map of the whole labels."""
    n, _, *space = logits.shape
    if "gap" in row.cls.takes:
        return {"gap": logits_of(n, *space, seed=4).abs()}
    return {"distance": logits_of(*logits.shape, seed=4)}


def in_space(row: Any, whole: Call, at: list[int]) -> tuple[Call, list[Call]]:
    """A call with the map that a loss needs for it, and its slabs along the first axis of space."""
    logits, target = whole.inputs
    keywords, settings = dict(whole.keywords), dict(whole.settings)
    if row is not None and row.cls.takes & {"distance", "gap"}:
        keywords |= given_map(row, logits)
        settings |= {"one_sided": True} if "one_sided" in row.cls.fields else {}
    whole = Call(whole.name, settings, (logits, target), keywords)
    parts = []
    for r in range(len(at) - 1):
        inputs = tuple(cut(x, at, x.ndim - (logits.ndim - 2))[r] for x in (logits, target))
        own = {name: slab(name, x, logits, at, r) for name, x in keywords.items()}
        parts.append(Call(whole.name, settings, inputs, own))
    return whole, parts


# ---- processes that are not there ------------------------------------------------------------------------------------


def together(parts: list[Call], split: Split) -> tuple[list[Tensor], list[Tensor]]:
    """The values that processes would have, one after the other, and the gradients of their parts.

    What they ask is answered with everybody's tensors, so that a graph runs through all of them; the gradient of the
    first one's value is then everybody's.
    """
    trained = [part.inputs[0].clone().requires_grad_() for part in parts]
    pending = []
    for part, z in zip(parts, trained, strict=True):
        loss = part.loss()
        pending.append(loss.pending(Plan.of(loss, split), (z, *part.inputs[1:]), part.keywords))
    steps = rounds = 0
    while any(isinstance(value, Across) for value in pending):
        steps += 1
        rounds += any(not isinstance(item, Own) for value in pending for item in value.items)
        assert rounds <= 2
        assert steps <= 4
        told = list(zip(*(value.items for value in pending), strict=True))  # the same number of all
        for items in told:
            assert len({type(item) if isinstance(item, tuple) else Tensor for item in items}) == 1
            assert len({item.shape for item in items if isinstance(item, Tensor)}) <= 1
        pending = [value.then(*(answer(items, rank) for items in told)) for rank, value in enumerate(list(pending))]
    scalars = [value if value.ndim == 0 else value.square().sum() for value in pending]
    (scalars[0] if pending[0].ndim == 0 else torch.stack(scalars).sum()).backward()
    return [value.detach() for value in pending], [
        z.grad if z.grad is not None else torch.zeros_like(z) for z in trained
    ]


def answer(items: tuple[Any, ...], rank: int) -> Any:
    """To what everybody tells of the same thing."""
    first = items[0]
    if isinstance(first, Each):
        return torch.stack([item.values.detach() for item in items])
    if isinstance(first, Own):
        return torch.stack([item.values for item in items]).sum(0)
    if isinstance(first, Everything):
        start = sum(first.counts[:rank])
        assert [item.values.shape[-1] for item in items] == first.counts
        columns = torch.cat([item.values for item in items], -1)
        return Gathered(columns, slice(start, start + first.counts[rank]))
    return sum(torch.as_tensor(item, dtype=torch.float64) for item in items)
