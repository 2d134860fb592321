"""What each process does in `test_nnunet.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lossmith.compat import nnunet


def share(rank: int, group: Any, settings: dict[str, Any], z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of this process's half of a batch, and its gradient."""
    z, y = z.chunk(2)[rank].clone().requires_grad_(), y.chunk(2)[rank]
    value = nnunet.DC_and_CE_loss(**settings)(z, y)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient
