"""The gradient of a batch that does not fit into memory: python examples/accumulation.py

The mean of the losses of micro-batches, which frameworks call gradient accumulation, is another loss wherever the
batch's is not a mean over images: Dice over the batch is a ratio of sums, and cross-entropy divides by the pixels that
count. `ls.accumulate` reads the micro-batches twice, in the memory of one, and is exact.
"""

from __future__ import annotations

import torch
from made_images import discs
from torch import Tensor, nn

import lossmith as ls

LOSSES = ("ce", "dice", "dice(per_image=false)", "dice(per_image=false) + focal")


def gradient(model: nn.Module) -> Tensor:
    """Of all parameters; they are left without."""
    found = torch.cat([x.grad.flatten() for x in model.parameters()])
    model.zero_grad()
    return found


def compare(text: str) -> tuple[float, float]:
    """How far the gradient of both kinds of accumulation is from that of the whole batch, relative to its length."""
    torch.manual_seed(0)
    images, labels = discs(8)
    labels[:2, 4:] = 255  # of two images hardly anything is labelled
    batches = list(zip(images.split(2), labels.split(2), strict=True))
    model = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 5, padding=2))
    loss = ls.parse(text, ignore_index=255)

    loss(model(images), labels).backward()
    whole = gradient(model)

    ls.accumulate(loss, lambda batch: (model(batch[0]), batch[1]), batches, model=model)
    exact = gradient(model)

    for micro, target in batches:
        (loss(model(micro), target) / len(batches)).backward()
    mean = gradient(model)
    return tuple(float((other - whole).norm() / whole.norm()) for other in (exact, mean))


if __name__ == "__main__":
    print("gradient's error        ls.accumulate   mean of four losses")
    for text in LOSSES:
        exact, mean = compare(text)
        print(f"{text:30}  {exact:.0e}   {mean:.1%}")
