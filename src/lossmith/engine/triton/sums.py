"""Sums over pixels by the kernels. See `operators.py` for what they are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import Event, Measured, Pass, Sums
from ..curves import Curve
from ..kernels import strange
from ..plain.several import channel_events, share_events
from ..problem import Problem, certain
from .operators import OWN, Asked, named, pass_sums, rows_of


def refuses(question: Pass) -> str | None:
    """Why the kernels cannot take logits and their target; None if they can."""
    return strange(question)


def measured(question: Pass) -> Measured:
    """The sums a problem asks for, differentiable with respect to its logits."""
    problem, want = question.problem, question.want
    asked = Asked.of(problem, want)
    table, u = pass_sums(problem.logits, problem.target, problem.weight, problem.sample, *asked)
    known = named(dict(zip(rows_of(asked, problem.hard), table.unbind(1), strict=True)), asked)
    counts = {name: known.pop(name).detach() for name in ("n", "t", "tt") if name in known}
    result = Measured(Sums(**{"tt": counts["t"], **counts}), spread=known.pop("spread", None))
    for name, value in known.items():
        if isinstance(name, Curve):
            result.curves[name] = value
        else:
            result.sums.add(name, value)
    if want.u:
        result.weight = problem.labels.weight
        result.events = _events(problem, u, asked)
        if want.spread:
            result.every = [Event(of_label, k, None) for k, of_label in enumerate(u.unbind(int(problem.exclusive)))]
    return result


def _events(problem: Problem, u: Tensor, asked: Asked) -> list[Event]:
    target = problem.labels.target
    if asked.u == OWN:
        return [Event(u, target, None)]
    if not certain(problem):
        return share_events(u, target) if problem.exclusive else channel_events(u[0], u[1], target)
    if problem.exclusive:
        return [Event(u.gather(1, target.unsqueeze(1)).squeeze(1), target, None)]
    return [Event(torch.where(target > 0, u[1], u[0]), target, None)]
