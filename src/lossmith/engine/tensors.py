"""What kind of tensor this is, and what may be done with it: read, written to, handed to a kernel; and products.

Tensors come in disguise: a subclass that carries metadata (tv_tensors, MONAI's MetaTensor) is an ordinary tensor under
another name, a DTensor is a part of a larger one, a FakeTensor has no values at all, a wrapper of torch.func stands for
many. The ordinary ones are unwrapped where a call comes in, by `ordinary`; the rest of the library asks `can_look`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def ordinary(x: Any) -> Any:
    """A tensor without its metadata, a DTensor as the whole that it is a part of; anything else as it is.

    Gradients go the other way: to the subclass, to each process its part.
    """
    if type(x) in (Tensor, torch.nn.Parameter) or not isinstance(x, Tensor) or torch.compiler.is_compiling():
        return x
    if distributed(x):
        return x.full_tensor()  # type: ignore[attr-defined]
    if dispatches(x):
        return x
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


def everywhere(value: Tensor, given: Any) -> Tensor:
    """A value that every process has, as a DTensor where the input was one: so that it adds to other terms."""
    if not distributed(given):
        return value
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(value, given.device_mesh, [Replicate()] * given.device_mesh.ndim, run_check=False)


def distributed(x: Any) -> bool:
    """Whether it is a DTensor; asking imports nothing."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def dispatches(x: Tensor) -> bool:
    """Whether a class of its own answers every operation: a FakeTensor, which has no values, is such."""
    return bool(type(x).__torch_dispatch__ != Tensor.__torch_dispatch__)


def can_look(*tensors: Tensor | None) -> bool:
    """Whether values may steer the code, and memory be written to: on a CPU, neither traced nor transformed."""
    return not torch.compiler.is_compiling() and all(
        x is None or (x.device.type == "cpu" and not transformed(x) and not dispatches(x) and not recorded())
        for x in tensors
    )


def transformed(x: Tensor) -> bool:
    """Whether a functional transform (vmap, grad, jvp) is looking at this tensor, or autograd at many of its kind."""
    functorch = torch._C._functorch
    return functorch.is_functorch_wrapped_tensor(x) or functorch.is_legacy_batchedtensor(x)


def recorded() -> bool:
    """Whether torch.jit.trace is writing down operations, for inputs with other values."""
    return torch._C._get_tracing_state() is not None


def forward_mode() -> bool:
    """Whether derivatives are being carried forward (jvp, Hessians), which only torch's own operations know how to."""
    return forward_ad._current_level >= 0


def indices(count: int, like: Tensor, axes: int = 0) -> Tensor:
    """0, 1, … along an axis that `axes` others follow: the classes, to be compared with labels."""
    return torch.arange(count, dtype=torch.long, device=like.device).reshape(-1, *[1] * axes)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of matrices (N, …), in the precision they have: autocast would round them, forward and backward."""
    measure: Any = _Product.forward if forward_mode() else _Product.apply
    result: Tensor = measure(a, b)
    return result


class _Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            return torch.bmm(a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return product(upstream, b.mT), product(a.mT, upstream)


def computed(x: Tensor) -> torch.dtype:
    """Nothing is computed in half precision."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def floating(x: Tensor) -> Tensor:
    """float32, or float64 where it is given."""
    return x.to(computed(x))


def wide(x: Tensor) -> Tensor:
    """float64, where the device has it: sums of many pixels lose digits otherwise."""
    return x.to(widest(x.device))


def widest(device: torch.device) -> torch.dtype:
    """float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def flat(x: Tensor, axes: int) -> Tensor:
    """The last axes, over pixels, as one."""
    return x.reshape(*x.shape[: x.ndim - axes], math.prod(x.shape[x.ndim - axes :]))


def likeliest(p: Tensor) -> Tensor:
    """The class with the largest value, (N, 1, …). On a CPU torch's argmax takes ten times as long."""
    return p.max(1, keepdim=True).indices


def pixel_stride(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The one stride with which the spatial dimensions can be walked, if there is one."""
    stride, walked = None, 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if stride is None:
            stride = step
        elif step != stride * walked:
            return None
        walked *= size
    return 1 if stride is None else stride
