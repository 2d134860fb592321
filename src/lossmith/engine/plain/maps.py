"""Sums over the pixels of what is predicted times a map: a price of its own for every pixel of every class.

The map has to be read besides the logits. It is worked on in pieces as in `sums`, with the gradient in closed form and
nothing kept in between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..contract import Error, MapSums
from ..tensors import can_look, computed, flat, floating, forward_mode, likeliest, wide
from .pixels import total
from .several import missed_by_every_class
from .sums import cut, put


def summed(question: MapSums) -> Tensor:
    """Σ price · error over the pixels of each image, (N, C)."""
    problem = question.problem
    axes = problem.logits.ndim - 2
    target, weight, _ = problem.labels
    price = question.price.to(computed(problem.logits))
    if weight is not None:
        weight = weight if weight.ndim == price.ndim else weight.unsqueeze(1)
        price = torch.where(weight == 0, 0.0, price * weight)  # whatever a given map holds there
    z, r, v, factor = (
        None if x is None else flat(x, axes) for x in (problem.logits, target, problem.labels.valid, price)
    )
    # Derivatives of a soft target or a weight, or carried forward: then all is left to autograd.
    tracked = forward_mode() or target.requires_grad or price.requires_grad
    measure: Any = _sums if tracked else _MapSums.apply
    sums: Tensor = measure(z, r, v, factor, problem.exclusive, question.error)
    return wide(sums)


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
