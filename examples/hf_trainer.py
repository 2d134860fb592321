"""Hugging Face's Trainer with `compute_loss_func` and accumulation, exact: python examples/hf_trainer.py

transformers is not among what the tests install. `Trainer` is a double of `transformers.Trainer`, of the part that
counts the items of a step and calls the function; `Net` answers as SegformerForSemanticSegmentation does, at a quarter
of the labels' side. Yours: `Trainer(model, args, train_dataset=…, compute_loss_func=compute_loss)`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from made_images import discs
from torch import Tensor, nn

import lossmith as ls

LOSS = ls.FocalLoss(gamma=1.0, ignore_index=-100)  # -100: what Trainer does not count


def compute_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """The share of these images in the mean over all pixels of the step, whose number Trainer hands in."""
    logits = nn.functional.interpolate(outputs.logits, labels.shape[-2:], mode="bilinear")
    return LOSS(logits, labels, denominator=num_items_in_batch)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 4, stride=4), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.layers(pixel_values))


class Trainer:
    """The double: no optimizer, one step."""

    def __init__(self, model: nn.Module, compute_loss_func: Callable[..., Tensor]) -> None:
        self.model, self.compute_loss_func = model, compute_loss_func

    def step(self, batches: list[dict[str, Tensor]]) -> Tensor:
        num_items = sum(batch["labels"].ne(-100).sum() for batch in batches)  # as `get_batch_samples` counts
        losses = []
        for batch in batches:
            outputs = self.model(batch["pixel_values"])
            losses.append(self.compute_loss_func(outputs, batch["labels"], num_items_in_batch=num_items))
            losses[-1].backward()  # not divided by their number, because the function has been told of all
        return torch.stack(losses).sum().detach()


if __name__ == "__main__":
    torch.manual_seed(0)
    images, labels = discs(8)
    labels[:2, 4:] = -100
    trainer = Trainer(Net(), compute_loss)
    for count in (1, 2, 4):
        parts = zip(images.chunk(count), labels.chunk(count), strict=True)
        print(f"{count} micro-batches: {trainer.step([{'pixel_values': x, 'labels': y} for x, y in parts]):.6f}")
