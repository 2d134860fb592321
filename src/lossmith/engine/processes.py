"""Processes that hold parts of one batch: what an `Across` asks is asked of all of them, in one collective a round.

With S = Σ_r S_r, the sums of all processes r, everybody works out the same V(S). As ∂V/∂θ = Σ_r ∂V/∂S · ∂S_r/∂θ, each
process needs its own addend alone, so that going backward asks nobody. Data-parallel training takes the mean of the
processes' gradients: each is multiplied by their number first. Trainers that add gradients up say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .images import Across, Each, Everything, Gathered, Item, Own
from .tensors import transformed, widest

if TYPE_CHECKING or dist.is_available():
    from torch.distributed import ProcessGroup
else:

    class ProcessGroup:
        """Nothing is one where torch was built without them."""


Gradient = Literal["mean", "sum"]
Group = Literal["world"] | ProcessGroup | None


class Processes(NamedTuple):
    """The processes that share a batch, and what becomes of their gradients afterwards."""

    group: Any  # "world", or a group of torch.distributed
    gradient: Gradient

    def settled(self, value: Any, who: str) -> Any:
        """A value with all that it asks answered.

        Raises:
            RuntimeError: there are no processes, or one of them did not take part.
        """
        if not isinstance(value, Across):
            return value
        group = self._there(who)
        compiling = torch.compiler.is_compiling()
        if not compiling and any(transformed(_values(x)) for x in value.items if not isinstance(x, int | float)):
            raise RuntimeError(f"{who}: transforms of torch.func do not reach other processes; leave the group out")
        while isinstance(value, Across):
            value = value.then(*self._answers(value.items, group, who))
        return value

    def totals(self, items: Sequence[Tensor], who: str) -> list[Tensor]:
        """Sums of this process's images, added up over the processes, without a gradient."""
        with torch.no_grad():
            return self._answers(tuple(items), self._there(who), who)

    def factor(self, who: str) -> int:
        """What the gradient of this process's share is multiplied by."""
        return self._factor(self._there(who))

    def _factor(self, group: Any) -> int:
        return dist.get_world_size(group) if self.gradient == "mean" else 1

    def _there(self, who: str) -> Any:
        """The group itself."""
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError(
                f"{who}: group={'world' if self.group == 'world' else '...'!r} shares the batch among processes, and "
                "there are none: call torch.distributed.init_process_group first, or leave the group out"
            )
        group = dist.group.WORLD if self.group == "world" else self.group
        if dist.get_rank(group) < 0:
            raise RuntimeError(f"{who}: this process is not part of the loss's group")
        return group

    def _answers(self, items: tuple[Item, ...], group: Any, who: str) -> list[Any]:
        members, rank, factor = dist.get_world_size(group), dist.get_rank(group), self._factor(group)
        told = [item for item in items if not isinstance(item, Own)]
        asked: list[Item] = []  # tables of sums, which terms share, once; single numbers may be one object by chance
        for item in told:
            table = isinstance(item, Tensor) and item.ndim > 0
            if not (table and any(item is other for other in asked)):
                asked.append(item)
        answers: list[Any] = []
        if asked:
            device = next(_values(item) for item in asked if not isinstance(item, int | float)).device
            sent = [_sent(item, device, members, rank) for item in asked]
            flat = torch.cat([part.reshape(-1) for part in sent])
            gathers = any(isinstance(item, Everything) for item in asked)
            exchange: Any = _Gathered if gathers else _Summed
            found = exchange.apply(flat, group, factor, who)
            parts = found.split([part.numel() for part in sent], -1)
            answers = [_read(*pair, gathers, rank) for pair in zip(asked, parts, strict=True)]

        def answer(item: Item) -> Any:
            if isinstance(item, Own):
                return _Own.apply(item.values, factor)  # type: ignore[no-untyped-call]
            return next(found for other, found in zip(asked, answers, strict=True) if other is item)

        return [answer(item) for item in items]


def _values(item: Any) -> Tensor:
    values: Tensor = item if isinstance(item, Tensor) else item.values
    return values


def _sent(item: Any, device: torch.device, members: int, rank: int) -> Tensor:
    """What is told of an item: as many numbers by every process."""
    dtype = widest(device)
    if isinstance(item, int | float):
        return torch.full((1,), float(item), dtype=dtype, device=device)
    values = _values(item).to(device, dtype)
    if isinstance(item, Each):  # in a row of one's own, so that adding up keeps them apart
        rows = [values.detach() if r == rank else torch.zeros_like(values) for r in range(members)]
        return torch.stack(rows)
    if isinstance(item, Everything):
        more = max(item.counts) - values.shape[-1]
        return torch.nn.functional.pad(values, (0, more))
    return values


def _read(item: Any, found: Tensor, gathers: bool, rank: int) -> Any:
    """The answer to an item, from the numbers of all processes: added up (k,), or gathered (P, k)."""
    if isinstance(item, Everything):
        rows = found.view(len(found), *item.values.shape[:-1], max(item.counts))
        columns = [row[..., :count] for row, count in zip(rows, item.counts, strict=True)]
        start = sum(item.counts[:rank])
        return Gathered(torch.cat(columns, -1), slice(start, start + item.counts[rank]))
    found = found.sum(0) if gathers else found
    if isinstance(item, int | float):
        return found.detach().squeeze(0)
    if isinstance(item, Each):
        return found.detach().view(-1, *item.values.shape)
    found = found.view(item.shape).to(item.dtype)
    return found if item.requires_grad else found.detach()


class _Summed(torch.autograd.Function):
    """Numbers added up over the processes, each of which has the gradient of its own alone."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, group: Any, factor: int, who: str) -> Tensor:
        ctx.factor = factor
        total = flat.detach().clone()
        _exchanged(who, group, lambda: dist.all_reduce(total, group=group))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        return _Share.apply(upstream, ctx.factor), None, None, None  # type: ignore[no-untyped-call]


class _Gathered(torch.autograd.Function):
    """The numbers of all processes, (P, k)."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, group: Any, factor: int, who: str) -> Tensor:
        ctx.factor, ctx.rank = factor, dist.get_rank(group)
        members = dist.get_world_size(group)
        rows = [torch.empty_like(flat) for _ in range(members)]
        _exchanged(who, group, lambda: dist.all_gather(rows, flat.detach().contiguous(), group=group))
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        return _Share.apply(upstream[ctx.rank], ctx.factor), None, None, None  # type: ignore[no-untyped-call]


class _Own(torch.autograd.Function):
    """The same value, with the gradient that is this process's share."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return _Share.apply(upstream, ctx.factor), None  # type: ignore[no-untyped-call]


class _Share(torch.autograd.Function):
    """A gradient times a number. A second one would have to ask the others again."""

    @staticmethod
    def forward(ctx: Any, upstream: Tensor, factor: int) -> Tensor:
        return upstream * factor

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        raise RuntimeError(
            "a loss with a group= has first derivatives: a second derivative would need sums over the processes while "
            "going backward; work it out on one process, or with the group left out"
        )


def _exchanged(who: str, group: Any, exchange: Any) -> None:
    """Asks the others; a process that died or never came is an error that says which loss waited for how long."""
    if torch.compiler.is_compiling():
        exchange()
        return
    try:
        exchange()
    except RuntimeError as error:
        raise RuntimeError(
            f"{who}: a process of the group did not take part in the loss, within the group's timeout of "
            f"{_timeout(group)}: it ended, it stopped with an error of its own, or it called another loss "
            f"({next(iter(str(error).splitlines()), error)})"
        ) from error


def _timeout(group: Any) -> str:
    try:
        return f"{group._get_backend(torch.device('cpu')).options._timeout.total_seconds():g} s"
    except (AttributeError, RuntimeError):
        return "its own"
