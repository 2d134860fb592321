"""Agreement with torchvision's box losses, whose three files are read out of a wheel, since we do not depend on it.

pip download --no-deps torchvision --dest somewhere
TORCHVISION_WHEEL=somewhere/torchvision-….whl pytest tests/test_torchvision.py
"""

from __future__ import annotations

import importlib
import os
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lossmith as ls
from test_boxes import close, random_pairs

WHEEL = os.environ.get("TORCHVISION_WHEEL", "")
pytestmark = pytest.mark.skipif(not WHEEL, reason="TORCHVISION_WHEEL names no wheel")

NAMES = {
    "giou": ("giou_loss", "generalized_box_iou_loss"),
    "diou": ("diou_loss", "distance_box_iou_loss"),
    "ciou": ("ciou_loss", "complete_box_iou_loss"),
}
by_name = pytest.mark.parametrize("name", NAMES)
Theirs = dict[str, Callable[..., Tensor]]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theirs]:
    """The losses by our names, from a package that holds nothing but their files and a stub of what they log to."""
    folder = tmp_path_factory.mktemp("torchvision") / "their_box_losses" / "ops"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(Path(WHEEL)) as wheel:
        for file in ("_utils", *(file for file, _ in NAMES.values())):
            (folder / f"{file}.py").write_bytes(wheel.read(f"torchvision/ops/{file}.py"))
    stub = types.ModuleType("their_box_losses.utils")
    stub._log_api_usage_once = lambda *_: None
    before = dict(sys.modules)
    sys.path.insert(0, str(folder.parent.parent))
    sys.modules[stub.__name__] = stub
    try:
        modules = {name: importlib.import_module(f"their_box_losses.ops.{file}") for name, (file, _) in NAMES.items()}
        yield {name: getattr(modules[name], function) for name, (_, function) in NAMES.items()}
    finally:
        sys.path.remove(str(folder.parent.parent))
        for module in sys.modules.keys() - before.keys():
            del sys.modules[module]


def slope(loss: Callable[..., Tensor], boxes: Tensor, target: Tensor) -> Tensor:
    boxes = boxes.clone().requires_grad_()
    return torch.autograd.grad(loss(boxes, target).sum(), boxes)[0]


@by_name
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_ordinary_boxes_agree(theirs: Theirs, name, dtype):
    """But for their 1e-7 in the denominators."""
    boxes, target = (x.to(dtype) for x in random_pairs(1000))
    ours = ls.parse(name, reduction="none")
    close(ours(boxes, target), theirs[name](boxes, target), 2e-6)
    close(slope(ours, boxes, target), slope(theirs[name], boxes, target), 2e-5 if dtype == torch.float32 else 1e-6)


def test_boxes_without_height(theirs: Theirs):
    """Their CIoU divides by the height."""
    flat, target = torch.tensor([[0.0, 1.0, 4.0, 1.0]]), torch.tensor([[0.0, 0.0, 4.0, 3.0]])
    assert slope(theirs["ciou"], flat, target).isnan().any()
    assert slope(ls.CIoULoss(), flat, target).isfinite().all()


@by_name
def test_small_boxes(theirs: Theirs, name):
    """In shares of an image, 1e-7 is no longer nothing: a box of a thousandth of the side has an area of 1e-6."""
    target = torch.tensor([[0.0, 0.0, 1e-3, 1e-3]])
    assert ls.parse(name)(target, target) == 0
    assert theirs[name](target, target).item() > 0.05


def test_inverted_boxes(theirs: Theirs):
    """Theirs gives an inverted box an area, negative width times negative height, and calls this one perfect."""
    inverted, target = torch.tensor([[4.0, 4.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert theirs["giou"](inverted, target).item() == pytest.approx(0.0, abs=1e-6)
    assert ls.GIoULoss()(inverted, target).item() == 1.0
