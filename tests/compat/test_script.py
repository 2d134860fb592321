"""TorchScript of what stands for other libraries' losses: refused at once, in one line that says what to use."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import pytest
import torch

from lossmith.compat import kornia, monai, torchvision
from lossmith.compat.peer import NO_SCRIPT, TABLE

MODULES = {"segmentation_models_pytorch": "smp", "nnunetv2": "nnunet"}
for _library in ("smp", "nnunet"):
    import_module(f"lossmith.compat.{_library}")
SAID = "ours are no TorchScript; use torch.compile or torch.jit.trace"
HERE = [row for row in TABLE.values() if row.ours]


def refusal(of: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is deprecated
        try:
            torch.jit.script(of)
        except RuntimeError as error:
            return str(error)
    raise AssertionError("it compiled")


@pytest.mark.parametrize("row", HERE, ids=lambda row: row.theirs)
def test_torchscript_is_refused_by_name(row):
    peer = getattr(import_module(f"lossmith.compat.{MODULES.get(row.library, row.library)}"), row.name)
    assert NO_SCRIPT.items() <= row.refuses.items()
    said = refusal(peer.__new__(peer) if isinstance(peer, type) else peer)
    assert said.removeprefix("TorchScript error: ") == f"{row.name}: {SAID}"


def test_torchscript_is_refused_of_what_a_loss_is_part_of():
    assert refusal(torch.nn.Sequential(monai.DiceLoss(sigmoid=True))) == f"DiceLoss: {SAID}"


def test_the_way_out_is_one():
    """torch.jit.trace and torch.compile take a class and a function."""
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    one = (z > 0).float()
    for loss in (monai.DiceLoss(sigmoid=True), torchvision.sigmoid_focal_loss, kornia.BinaryFocalLossWithLogits(0.25)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(loss, (z, one))
        torch.testing.assert_close(traced(z / 2, one), loss(z / 2, one))
        torch.testing.assert_close(torch.compile(loss, backend="eager")(z, one), loss(z, one))
