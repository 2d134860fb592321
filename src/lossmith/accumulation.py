"""Accumulation: the exact loss of a batch that is too large for the memory, from micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .engine.images import Across
from .engine.tensors import widest
from .loss import Loss
from .plan import Plan
from .supervision import DeepSupervision

APART = 1e-3  # by which the sums of the two passes may differ: kernels that add in another order do, a little


def accumulate(
    loss: Loss | DeepSupervision,
    forward: Callable[[Any], Any],
    batches: Iterable[Any],
    *,
    model: nn.Module | None = None,
    backward: Callable[[Tensor], Any] = Tensor.backward,
) -> Tensor:
    """The loss of all micro-batches as one batch, with its gradients added to the parameters: exact, and in the memory
    of one micro-batch.

    A mean of the losses of micro-batches is another loss: Dice is a ratio of sums, and so is every mean over the valid
    pixels. Here the micro-batches are read twice. The first pass, without a graph, adds up the sums S of all of them.
    From these follow the value V(S) and how it changes with each sum; the second pass sends ∂V/∂S · S_m back through
    each micro-batch m.

    Args:
        loss: a loss, a sum of losses or `DeepSupervision`; with a `group`, the batch is that of all processes.
        forward: from a micro-batch to what the loss is called with: (logits, target), or with a dictionary of keywords
            (logits, target, {"weight": ...}). It is called twice for each, with the same state of torch's random
            generators, so that dropout drops the same; other randomness belongs before it.
        batches: the micro-batches, on the device or not. They are kept until the end.
        model: the module that `forward` runs, for what a second pass would do twice: its buffers (the running
            statistics of batch norm) are put back before it, and wrapped by DistributedDataParallel it synchronises
            once. Batch norm itself still sees micro-batches.
        backward: what starts the backward pass, `lambda x: scaler.scale(x).backward()` or a trainer's own. The number
            that it is called with has the gradient of the loss, not its value.

    Returns:
        the loss, detached.

    Raises:
        TypeError: something else than a loss of this library.
        ValueError: no micro-batches; a loss that has to see all pixels at once (order statistics: OHEM, top-k, Lovász
            over the batch; reduction="none"; split="space").
        RuntimeError: the second pass saw something else than the first; gradients are switched off.

    >>> import torch, lossmith as ls
    >>> model, loss = torch.nn.Conv2d(1, 2, 3, padding=1), ls.parse("dice(per_image=false) + ce")
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> def forward(batch):
    ...     images, labels = batch
    ...     return model(images), labels
    >>> for _ in range(2):
    ...     batches = [(torch.randn(2, 1, 8, 8), torch.randint(2, (2, 8, 8))) for _ in range(4)]
    ...     optimizer.zero_grad()
    ...     value = ls.accumulate(loss, forward, batches, model=model)  # forward and backward, twice four
    ...     optimizer.step()
    """
    own = loss.loss if isinstance(loss, DeepSupervision) else loss
    if not isinstance(own, Loss):
        raise TypeError(f"accumulate: loss must be a loss of this library, got {type(loss).__name__}")
    if not torch.is_grad_enabled():
        raise RuntimeError("accumulate: gradients are switched off (no_grad, inference_mode); call the loss itself")
    plan = _plan(own)
    batches = list(batches)
    if not batches:
        raise ValueError(f"accumulate: there are no micro-batches of {plan.who}")
    states, first = [], _Total()
    with torch.no_grad(), _Buffers(model) as buffers:
        for batch in batches:
            states.append(_random_state())
            pending = _pending(loss, plan, forward(batch))
            first.add(pending.items)
        sums: list[Any] = first.items if plan.processes is None else plan.processes.totals(first.items, plan.who)
    leaves = [x.requires_grad_() for x in sums]
    with torch.enable_grad():
        value = pending.then(*leaves)
        slopes = torch.autograd.grad(value, leaves, allow_unused=True)
    factor = 1 if plan.processes is None else plan.processes.factor(plan.who)

    buffers.put_back()
    second = _Total()
    for number, (batch, state) in enumerate(zip(batches, states, strict=True), start=1):
        with _unsynchronised(model, number < len(batches)):
            _set_random_state(state)
            items = _pending(loss, plan, forward(batch)).items
            second.add(items)
            pairs = [(s, x) for s, x in zip(slopes, items, strict=True) if s is not None and isinstance(x, Tensor)]
            parts = [(s.to(x) * x).sum() for s, x in pairs if x.requires_grad]
            if parts:
                backward(factor * torch.stack([x.to(parts[0]) for x in parts]).sum())
    if first.differs(second):
        raise RuntimeError(
            f"accumulate: {plan.who} saw something else in the second pass than in the first, and the gradients are "
            "wrong: `forward` must give the same twice (torch's random generators are put back; other randomness, such "
            "as NumPy's, belongs into the micro-batches)"
        )
    result: Tensor = value.detach()
    return result


def _plan(loss: Loss) -> Plan:
    shares = loss.shares
    if shares.group is not None and shares.split == "space":
        raise ValueError("accumulate: micro-batches are of images, and split='space' gives every process parts of them")
    return Plan.of(loss, "images")


def _pending(loss: Loss | DeepSupervision, plan: Plan, given: Any) -> Across[Tensor]:
    """What the loss of a micro-batch needs of all."""
    if isinstance(given, dict):
        inputs, call = (), given
    else:
        given = tuple(given) if isinstance(given, tuple | list) else (given,)
        inputs, call = (given[:-1], given[-1]) if isinstance(given[-1], dict) else (given, {})
    pending = loss.pending(plan, inputs, call)
    whole = all(term.reduction != "none" for _, term in plan.terms)
    if (
        not whole
        or not isinstance(pending, Across)
        or not all(isinstance(x, Tensor | int | float) for x in pending.items)
    ):
        raise ValueError(
            f"accumulate: {plan.who} has to see all pixels of the batch at once (reduction='none', the hardest pixels, "
            "errors in order over the batch); leave that term out, or give it per_image=True"
        )
    return pending


class _Total:
    """The sums of micro-batches, added up."""

    def __init__(self) -> None:
        self.items: list[Tensor] = []

    def add(self, items: Sequence[Any]) -> None:
        device = next(x for x in items if isinstance(x, Tensor)).device
        new = [torch.as_tensor(x, dtype=widest(device), device=device).detach() for x in items]
        self.items = [a + b for a, b in zip(self.items, new, strict=True)] if self.items else new

    def differs(self, other: _Total) -> bool:
        pairs = zip(self.items, other.items, strict=True)
        return not all(torch.allclose(a, b, APART, 1e-6, equal_nan=True) for a, b in pairs)


class _Buffers:
    """The buffers of a model as its first forward pass finds them, which for DistributedDataParallel is after those of
    the first process have been handed round."""

    def __init__(self, model: nn.Module | None) -> None:
        self.model, self.kept = model, dict[str, Tensor]()
        self.handle: Any = None

    def __enter__(self) -> Self:
        if self.model is not None:
            self._keep()
            self.handle = getattr(self.model, "module", self.model).register_forward_pre_hook(lambda *_: self._again())
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            self.handle.remove()

    def _again(self) -> None:
        self.__exit__()
        self._keep()

    def _keep(self) -> None:
        self.kept = {name: x.detach().clone() for name, x in self._there() if not is_lazy(x)}

    def put_back(self) -> None:
        """What the first pass has changed."""
        with torch.no_grad():
            for name, x in self._there():
                if name in self.kept:
                    x.copy_(self.kept[name])

    def _there(self) -> list[tuple[str, Tensor]]:
        return [] if self.model is None else list(self.model.named_buffers())


def _unsynchronised(model: nn.Module | None, wanted: bool) -> AbstractContextManager[Any]:
    """Whether a wrapped model is to keep its gradients to itself for now."""
    no_sync = getattr(model, "no_sync", None)
    return no_sync() if wanted and no_sync is not None else nullcontext()


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda._initialized else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
