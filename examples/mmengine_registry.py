"""Losses in a configuration of MMSegmentation's kind, `loss_decode=dict(type=…)`: python examples/mmengine_registry.py

`Registry` and `DecodeHead` are doubles of mmengine's and of MMSegmentation's `BaseDecodeHead`, of as much as a loss
sees of them: mmengine wants OpenCV, which the tests do not install. Yours: `from mmseg.registry import MODELS`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import lossmith as ls


class Registry:
    """The double of `mmengine.Registry`."""

    def __init__(self, name: str) -> None:
        self.name, self.modules = name, dict[str, type]()

    def register_module(self, name: str | None = None, force: bool = False, module: type | None = None) -> Any:
        def keep(cls: type) -> type:
            return self.modules.setdefault(name or cls.__name__, cls)

        return keep if module is None else keep(module)

    def build(self, cfg: dict[str, Any]) -> Any:
        return self.modules[cfg["type"]](**{name: value for name, value in cfg.items() if name != "type"})


MODELS = Registry("model")


@MODELS.register_module()
class Lossmith(nn.Module):
    """A loss as a text. MMSegmentation adds up the terms of its log whose names begin with "loss"."""

    def __init__(self, loss: str, loss_name: str = "loss_lossmith", **settings: Any) -> None:
        super().__init__()
        self.loss, self.loss_name, self.settings = loss, loss_name, settings

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int = 255) -> Tensor:
        # The head knows which label to ignore and says so in every call; to build a loss costs no pass over the pixels.
        return ls.parse(self.loss, ignore_index=ignore_index, **self.settings)(logits, labels, weight=weight)


class DecodeHead:
    """The double: what `BaseDecodeHead.loss_by_feat` does with `loss_decode`."""

    def __init__(self, loss_decode: list[dict[str, Any]], ignore_index: int = 255) -> None:
        self.losses, self.ignore_index = [MODELS.build(cfg) for cfg in loss_decode], ignore_index

    def loss_by_feat(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = nn.functional.interpolate(logits, labels.shape[2:], mode="bilinear")
        return {x.loss_name: x(logits, labels.squeeze(1), None, ignore_index=self.ignore_index) for x in self.losses}


if __name__ == "__main__":
    torch.manual_seed(0)
    head = DecodeHead([{"type": "Lossmith", "loss": "dice(per_image=false) + 0.5*focal"}])
    print(head.loss_by_feat(torch.randn(2, 3, 8, 8), torch.randint(3, (2, 1, 32, 32))))
