"""Train with the boundary loss on one of its paper's two schedules: python examples/boundary_schedule.py rebalance

The boundary loss alone may settle on an empty prediction, so it is added to a region loss with a weight a that grows
by 0.01 an epoch. "increase" keeps the region loss, "rebalance" takes from it what the boundary loss gets. The distance
maps depend on the labels alone: they are made once, here before training, in practice in the Dataset's workers.
"""

from __future__ import annotations

import sys

import torch
from made_images import discs
from torch import nn

import lossmith as ls

EPOCHS = 40


def losses() -> dict[str, ls.Loss]:
    """The loss of each schedule."""
    region, boundary = ls.GeneralizedDiceLoss(), ls.BoundaryLoss(include_background=False)
    a, b = ls.ramp(0.01, 0.01, 1.0), ls.ramp(0.01, 0.01, 1.0)
    return {"increase": region + a * boundary, "rebalance": (1 - b) * region + b * boundary}


def train(schedule: str, epochs: int = EPOCHS) -> list[float]:
    """The Dice score on new discs, after every epoch."""
    torch.manual_seed(0)
    loss = losses()[schedule]
    images, labels = discs(32)
    new_images, new_labels = discs(32)
    maps = ls.distance.signed_distance_map(labels, num_classes=2)
    model = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 5, padding=2))
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    scores = []
    for epoch in range(epochs):
        for part in torch.randperm(len(images)).split(8):
            optimiser.zero_grad()
            loss(model(images[part]), labels[part], distance=maps[part]).backward()
            optimiser.step()
        with torch.no_grad():
            found = model(new_images).argmax(1)
        scores.append(float(2 * (found * new_labels).sum() / (found + new_labels).sum()))
        if epoch % 10 == 9:
            parts = loss.parts(model(images), labels, distance=maps)
            terms = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
            print(f"{schedule} epoch {epoch + 1}: Dice {scores[-1]:.3f}, weighted {terms}")
        loss.step()  # a grows by 0.01
    return scores


if __name__ == "__main__":
    torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other
    for name in sys.argv[1:] or losses():
        train(name)
