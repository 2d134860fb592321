"""What each process does in `test_processes.py`: functions that a pool of processes can import."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import lossmith as ls


class Call(NamedTuple):
    """A loss, how it is built, and what one process calls it with. The first input has the gradient."""

    name: str
    settings: dict[str, Any]
    inputs: tuple[Any, ...]
    keywords: dict[str, Any]

    def loss(self, **more: Any) -> ls.Loss:
        rows = {row.name: row for row in ls.catalogue()}
        settings = self.settings | more
        return rows[self.name].cls(**settings) if self.name in rows else ls.parse(self.name, **settings)

    def made(self, **more: Any) -> tuple[Tensor, ...]:
        """The value and the gradient, or with reduction="none" that of the sum of squares."""
        first = self.inputs[0].clone().requires_grad_()
        value = self.loss(**more)(first, *self.inputs[1:], **self.keywords)
        scalar = value if value.ndim == 0 else value.square().sum()
        scalar.backward()
        assert first.grad is not None
        return value.detach(), first.grad


def makes(rank: int, group: Any, cases: list[list[Call]], how: dict[str, Any]) -> list[tuple[Tensor, ...]]:
    """The value and the gradient of this process's part of each case."""
    return [parts[rank].made(group=group, **how) for parts in cases]


def with_kernels(
    rank: int, group: Any, cases: list[list[Call]], engine: str, how: dict[str, Any]
) -> list[tuple[Tensor, ...]]:
    with ls.use_engine(engine):
        return makes(rank, group, cases, how)


def refuses(rank: int, group: Any, call: Call, how: dict[str, Any]) -> str:
    """The error of a call."""
    try:
        call.made(group=group, **how)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{call.name} took {how}")


def world(rank: int, group: Any, text: str, parts: list[tuple[Tensor, Tensor]]) -> float:
    """By the name of all processes."""
    return ls.parse(text, group="world")(*parts[rank]).item()


def parts_of(rank: int, group: Any, text: str, parts: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return ls.parse(text, group=group).parts(*parts[rank], per_class=True)


# ---- how often the others are asked ----------------------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[list[str]]:
    """The collectives that are called meanwhile."""
    seen: list[str] = []
    names = "all_reduce", "all_gather", "all_gather_object", "broadcast", "barrier", "all_to_all"
    kept = {name: getattr(dist, name) for name in names}

    def spy(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            seen.append(name)
            return kept[name](*arguments, **keywords)

        return call

    for name in names:
        setattr(dist, name, spy(name))
    try:
        yield seen
    finally:
        for name in names:
            setattr(dist, name, kept[name])


def collectives(rank: int, group: Any, text: str, parts: list[tuple[Tensor, Tensor]]) -> tuple[list[str], list[str]]:
    """Those of the way forward, and of the way back."""
    logits = parts[rank][0].clone().requires_grad_()
    with counted() as forward:
        value = ls.parse(text, group=group)(logits, parts[rank][1])
    with counted() as backward:
        value.backward()
    return forward, backward


def supervised(rank: int, group: Any, parts: list[tuple[list[Tensor], Tensor]]) -> tuple[float, list[str]]:
    """Deep supervision asks once for all heads."""
    loss = ls.DeepSupervision(ls.parse("dice(per_image=false) + ce", group=group))
    with counted() as asked:
        value = loss(*parts[rank])
    return value.item(), asked


# ---- training --------------------------------------------------------------------------------------------------------


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(dropout), nn.Tanh(), nn.Conv2d(4, 3, 1)
    return nn.Sequential(*layers).double()


class Step(nn.Module):
    """A network and its loss as one module, with a layer that is not used if `spare`."""

    def __init__(self, loss: nn.Module, spare: bool = False) -> None:
        super().__init__()
        self.net, self.loss = network(), loss
        self.spare = nn.Linear(2, 2).double() if spare else None

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.net(images), labels)


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def step(text: str, images: Tensor, labels: Tensor) -> tuple[float, list[Tensor]]:
    """One process with everything."""
    model = network()
    value = ls.parse(text)(model(images), labels)
    value.backward()
    return value.item(), gradients(model)


def ddp(rank: int, group: Any, text: str, cuts: list[int], images: Tensor, labels: Tensor, how: str) -> Any:
    """One step of data-parallel training."""
    images, labels = images[cuts[rank] : cuts[rank + 1]], labels[cuts[rank] : cuts[rank + 1]]
    inner: Any = Step(ls.parse(text, group=group), spare=how == "unused")
    step = torch.compile(inner, fullgraph=True, backend="eager") if how == "compiled" else inner
    model = DistributedDataParallel(step, process_group=group, find_unused_parameters=how == "unused")
    seen: list[Tensor] = []
    if how == "hooks":
        inner.net.register_full_backward_hook(lambda module, given, upstream: seen.append(upstream[0]))
        for p in inner.parameters():
            p.register_hook(lambda slope: 2 * slope)
    if how == "no_sync":  # two steps of which the first keeps its gradients to itself
        with model.no_sync():
            (model(images, labels) / 2).backward()
    value = model(images, labels)
    (value / 2 if how in ("no_sync", "hooks") else value).backward()
    assert how != "hooks" or len(seen) == 1
    return value.item(), gradients(model)


def accumulated(rank: int, group: Any, text: str, cuts: list[int], images: Tensor, labels: Tensor) -> Any:
    """Micro-batches of one image in every process."""
    model = DistributedDataParallel(network(), process_group=group)
    batches = [(images[i : i + 1], labels[i : i + 1]) for i in range(cuts[rank], cuts[rank + 1])]
    value = ls.accumulate(ls.parse(text, group=group), lambda batch: (model(batch[0]), batch[1]), batches, model=model)
    return value.item(), gradients(model)


class Moving(nn.Module):
    """Takes the mean that it has seen so far off its input."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        out = self.net(images - self.mean)
        self.mean.mul_(0.5).add_(0.5 * images.mean() + 0.1)
        return out


def moving(rank: int, group: Any, cuts: list[int], images: Tensor, labels: Tensor) -> list[float]:
    """The losses of a few steps."""
    model, loss = DistributedDataParallel(Moving(), process_group=group), ls.parse("ce", group=group)
    batches = [(images[i : i + 1] + i, labels[i : i + 1]) for i in range(cuts[rank], cuts[rank + 1])]
    return [
        ls.accumulate(loss, lambda batch: (model(batch[0]), batch[1]), batches, model=model).item() for _ in range(3)
    ]


def sharded(rank: int, group: Any, text: str, logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """The recipe for logits that are a DTensor: the part of this process, and the group of its mesh."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = DeviceMesh.from_group(group, "cpu")
    z = distribute_tensor(logits, mesh, [Shard(0)]).requires_grad_()
    y = distribute_tensor(target, mesh, [Shard(0)])
    loss = ls.parse(text, group=mesh.get_group(), gradient="sum")
    value = loss(z.to_local(), y.to_local())
    value.backward()
    assert z.grad is not None
    return value.item(), z.grad.full_tensor()


def whole_dtensor(rank: int, group: Any, logits: Tensor, target: Tensor) -> str:
    """The error of a call with a DTensor and a group."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = DeviceMesh.from_group(group, "cpu")
    try:
        ls.parse("dice + ce", group=group)(*(distribute_tensor(x, mesh, [Shard(0)]) for x in (logits, target)))
    except ValueError as error:
        return str(error)
    raise AssertionError("the batch was counted twice")


def page(rank: int, group: Any, blocks: list[str]) -> bool:
    """The blocks of docs/scale.md, one after the other, among what they take for granted."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = DeviceMesh.from_group(group, "cpu")
    z, y = torch.randn(4, 3, 6, 6, dtype=torch.float64), torch.randint(3, (4, 6, 6))
    net = network()
    scope: dict[str, Any] = {
        **{
            "ls": ls,
            "group": group,
            "mesh": mesh,
            "net": net,
            "halo": 1,
            "DistributedDataParallel": DistributedDataParallel,
        },
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.1),
        "loader": [(torch.randn(2, 1, 6, 6, dtype=torch.float64), y[:2])],
        "volume": torch.randn(2, 1, 6, 6, dtype=torch.float64),  # with the labels of the loop before
        "logits": distribute_tensor(z, mesh, [Shard(0)]).requires_grad_(),
        "target": distribute_tensor(y, mesh, [Shard(0)]),
    }
    for block in blocks:
        exec(block, scope)
    return scope["logits"].grad is not None and all(p.grad is not None for p in net.parameters())


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def alone(rank: int, group: Any, text: str, call: tuple[Tensor, Tensor], seconds: float) -> str:
    """One process asks, and the others do not come."""
    hasty = dist.new_group(list(range(dist.get_world_size(group))), timeout=timedelta(seconds=seconds))
    if rank > 0:
        time.sleep(2 * seconds)
        return ""
    try:
        ls.parse(text, group=hasty)(*call)
    except RuntimeError as error:
        return str(error)
    raise AssertionError("nobody answered, and there is a value")


def dying(rank: int, group: Any, text: str, call: tuple[Tensor, Tensor]) -> None:
    """One process ends before it is asked."""
    if rank == 1:
        os._exit(1)
    ls.parse(text, group=group)(*call)


def second_derivative(rank: int, group: Any, text: str, parts: list[tuple[Tensor, Tensor]]) -> Tensor | str:
    """The slope of the squared slope, or why there is none."""
    logits = parts[rank][0].clone().requires_grad_()
    value = ls.parse(text, group=group)(logits, parts[rank][1])
    (slope,) = torch.autograd.grad(value, logits, create_graph=True)
    try:
        slope.square().sum().backward()
    except RuntimeError as error:
        return str(error)
    assert logits.grad is not None
    return logits.grad


def transformed(rank: int, group: Any, call: tuple[Tensor, Tensor]) -> str:
    loss = ls.parse("dice + ce", group=group)
    try:
        torch.func.grad(lambda z: loss(z, call[1]))(call[0])
    except RuntimeError as error:
        return str(error)
    raise AssertionError("a transform that nobody else has seen")


def kept(rank: int, group: Any, call: tuple[Tensor, Tensor]) -> bool:
    """A copy has the same group; what says "world" is pickled as that."""
    loss = ls.parse("dice + ce", group=group)
    copied = copy.deepcopy(loss)
    assert copied.terms[0][1].group is group
    assert torch.equal(copied(*call), loss(*call))
    assert pickle.loads(pickle.dumps(ls.DiceLoss(group="world"))).group == "world"
    return True


# ---- mutants ---------------------------------------------------------------------------------------------------------


METHODS = FunctionType, staticmethod, classmethod, property


def mutated(rank: int, group: Any, module: str, old: str, new: str, case: Any, *arguments: Any) -> Any:
    """What a case returns, or the error that it ends with, where a line of the library is another."""
    target = importlib.import_module(module)
    source = inspect.getsource(target)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module}"
    scope = dict(vars(target))
    exec(compile(source.replace(old, new), str(target.__file__), "exec"), scope)
    undo: list[tuple[Any, str, Any]] = []
    library = [m for name, m in list(sys.modules.items()) if name.startswith("lossmith")]
    for name, before in list(vars(target).items()):
        after = scope[name]
        if isinstance(before, type) and before.__module__ == module:  # others inherit from it: its methods change
            for method, body in list(vars(before).items()):
                if isinstance(body, METHODS) and method in vars(after):
                    undo.append((before, method, body))
                    setattr(before, method, vars(after)[method])
        elif isinstance(before, FunctionType) and before.__module__ == module:
            for other in library:
                if vars(other).get(name) is before:
                    undo.append((other, name, before))
                    setattr(other, name, after)
    try:
        return case(rank, group, *arguments)
    except Exception as error:
        return repr(error)
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)
