"""The terms of a one-stage detector whose head answers as Ultralytics' does: python examples/detection_head.py

Their code is under the AGPL and none of it is here. The head gives (N, 4 bins + C, cells): the distances from a cell to
the four edges of its box, as distributions, and scores. Every term is divided by the sum of the target scores, and the
box of a cell weighs as much as its score: `denominator=` and `weight=`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lossmith as ls

SIZE, STRIDE, BINS, CLASSES = 64, 8, 8, 2
CELLS = torch.cartesian_prod(*[torch.arange(SIZE // STRIDE)] * 2).flip(1) * STRIDE + STRIDE / 2  # x and y
SCORE = 0.5 * ls.CrossEntropyLoss(task="multilabel")
BOX = 7.5 * ls.CIoULoss() + 1.5 / 4 * ls.DistributionFocalLoss()  # the mean of the four edges is a quarter of their sum


def rectangles(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of a bright (class 1) or dark (class 0) rectangle, its box (count, 4) and its class."""
    corner, side, label = (
        torch.randint(4, 24, (count, 2)),
        torch.randint(16, 32, (count, 2)),
        torch.randint(2, (count,)),
    )
    boxes = torch.cat([corner, corner + side], 1).float()
    y, x = torch.meshgrid(*[torch.arange(SIZE)] * 2, indexing="ij")
    left, top, right, bottom = boxes.view(count, 4, 1, 1).unbind(1)
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return (0.3 * torch.randn(count, SIZE, SIZE) + inside * (2 * label - 1).view(-1, 1, 1)).unsqueeze(1), boxes, label


def terms(output: Tensor, boxes: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The terms by name, and the mean IoU of the cells in the box."""
    edges, scores = output.transpose(1, 2).split([4 * BINS, CLASSES], -1)  # (N, cells, 4 bins) and (N, cells, C)
    target = boxes[:, None].expand(-1, len(CELLS), -1)
    distances = ls.box.encode_distances(CELLS.expand(len(boxes), -1, -1), target, STRIDE)
    positive = distances.amin(-1) > 0  # the assigner: all cells in the box, each with what its own box is worth
    where = positive.nonzero()[:, 1]
    edge = edges[positive].unflatten(-1, (4, BINS))
    found = ls.box.decode_distances(CELLS[where], ls.integral(edge), STRIDE)
    quality = 1 - ls.IoULoss(reduction="none")(found.detach(), target[positive])
    goal = torch.zeros_like(scores)
    goal[positive] = nn.functional.one_hot(labels[:, None].expand_as(positive)[positive], CLASSES) * quality[:, None]
    total = goal.sum().clamp(min=1)
    given = {"box": (found, target[positive]), "edge": (edge, distances[positive].clamp(max=BINS - 1.01))}
    weight = {"box": quality, "edge": quality[:, None].expand(-1, 4)}
    score = SCORE(scores.flatten(0, 1), goal.flatten(0, 1), denominator=total)
    return {"score": score, "boxes": BOX(**given, weight=weight, denominator=total)}, quality.mean()


def train(steps: int = 60) -> float:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 2, 2), nn.ReLU(), nn.Conv2d(32, 32, 5, padding=2)]
    head = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(32, 4 * BINS + CLASSES, 5, padding=2), nn.Flatten(2))
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    for step in range(steps):
        images, boxes, labels = rectangles(16)
        found, iou = terms(head(images), boxes, labels)
        optimizer.zero_grad()
        sum(found.values()).backward()
        optimizer.step()
        if step % 20 == 19:
            print(f"step {step + 1}: mean IoU {iou:.3f}", *(f"{name} {x:.3f}" for name, x in found.items()))
    return float(iou)


if __name__ == "__main__":
    train()
