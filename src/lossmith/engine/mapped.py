"""Sums over the pixels of what is predicted times a map: a price of its own for every pixel of every class.

A question of its own, like a ranking, and of torch for either engine: the map has to be read besides the logits, and it
is worked on in pieces as in `plain`, with the gradient in closed form and nothing kept in between.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from . import Problem
from .plain import computed, cut, floating, likeliest, missed_by_every_class, put, total
from .tensors import can_look, forward_mode

Error = Literal["chance", "residual", "square"]  # p, p − r, (p − r)²


def mapped(problem: Problem, target: Tensor, valid: Tensor | None, price: Tensor, error: Error) -> Tensor:
    """Σ price · error over the pixels of each image, (N, C).

    Args:
        problem: the logits and the task; what it asks for is of no matter.
        target: labels (N, *S) of a hard softmax, otherwise r of every class, (N, C, *S); 0 where ignored.
        valid: which labels count, bool like u. None: all.
        price: (N, C, *S), 0 wherever a label does not count.
        error: of what.
    """
    space = problem.logits.shape[2:]

    def flat(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.ndim - len(space)], math.prod(space))

    z, r, v, factor = flat(problem.logits), flat(target), None if valid is None else flat(valid), flat(price)
    softmax = problem.task == "multiclass"
    # Derivatives of a soft target or a weight, or carried forward: then all is left to autograd.
    tracked = forward_mode() or target.requires_grad or price.requires_grad
    measure: Any = _sums if tracked else _MapSums.apply
    sums: Tensor = measure(z, r, v, factor, softmax, error)
    return sums


def _sums(z: Tensor, target: Tensor, valid: Tensor | None, price: Tensor, softmax: bool, error: Error) -> Tensor:
    e = _errors(z, target, valid, softmax, error)[1]
    return total(price * (e.square() if error == "square" else e))


class _MapSums(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, target: Tensor, valid: Tensor | None, price: Tensor, softmax: bool, error: Error) -> Tensor:
        sums = torch.zeros((), dtype=computed(z), device=z.device)
        for part, r, v, factor in cut(z, target, valid, price):
            sums = sums + _sums(part, r, v, factor, softmax, error)
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.settings = inputs[4:]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        z, target, valid, price = ctx.saved_tensors
        softmax, error = ctx.settings
        g = upstream.to(computed(z)).unsqueeze(2)
        if torch.is_grad_enabled() or not can_look(z, target, valid, price, upstream):
            return _gradient(g, z, target, valid, price, softmax, error).to(z.dtype), *[None] * 5
        out = torch.empty_like(z, dtype=computed(z), memory_format=torch.contiguous_format)
        for part, r, v, factor, here in cut(z, target, valid, price, out):
            _gradient(g, part, r, v, factor, softmax, error, here)
        return out.to(z.dtype), *[None] * 5


def _errors(
    z: Tensor, target: Tensor, valid: Tensor | None, softmax: bool, error: Error
) -> tuple[Tensor, Tensor, Tensor]:
    """p, p or p − r, and the logits. p − r is (1 − r) p − r (1 − p), with a 1 − p that does not cancel."""
    z = floating(z)
    if valid is not None:
        z = z.masked_fill(~(valid if valid.ndim == z.ndim else valid.unsqueeze(1)), 0.0)
    p = z.softmax(1) if softmax else z.sigmoid()
    if error == "chance":
        return p, p, z
    if target.ndim < z.ndim:
        others = p.scatter(1, target.unsqueeze(1), 0.0)
        return p, put(-others.sum(1), target, others), z
    return p, (1 - target) * p - target * (missed_by_every_class(p) if softmax else (-z).sigmoid()), z


def _gradient(
    upstream: Tensor,
    z: Tensor,
    target: Tensor,
    valid: Tensor | None,
    price: Tensor,
    softmax: bool,
    error: Error,
    out: Tensor | None = None,
) -> Tensor:
    """∂/∂z, in `out` if it is given. Under a softmax p_k (q_k − Σ p q): q may be shifted by any number, and less that
    of the label, or of the likeliest class, nothing cancels for it."""
    p, e, z = _errors(z, target, valid, softmax, error)
    q = upstream * price
    q = 2 * q * e if error == "square" else q
    if not softmax:
        return torch.mul(q * p, (-z).sigmoid(), out=out)
    q = q - q.gather(1, target.unsqueeze(1) if target.ndim < z.ndim else likeliest(p))
    return torch.mul(p, q - (p * q).sum(1, keepdim=True), out=out)
