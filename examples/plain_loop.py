"""A training loop of your own, and what the loss tells its log: python examples/plain_loop.py"""

from __future__ import annotations

import torch
from made_images import discs
from torch import Tensor, nn

import lossmith as ls


def dice_score(found: Tensor, labels: Tensor) -> float:
    """Of class 1, over all images."""
    return float(2 * (found * labels).sum() / (found + labels).sum())


def train(epochs: int = 10) -> list[float]:
    """The Dice score on new images, after every epoch."""
    torch.manual_seed(0)
    images, labels = discs(64)
    labels[:, :2] = 255  # rows that nobody has labelled: they weigh nothing
    new_images, new_labels = discs(32)
    model = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 5, padding=2))  # no softmax
    # Cross-entropy first, which learns from every pixel, and Dice more from epoch to epoch.
    loss = ls.CrossEntropyLoss(ignore_index=255) + ls.ramp(0.2, 0.2, 1.0) * ls.DiceLoss(ignore_index=255)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scores = []
    for epoch in range(1, epochs + 1):
        for part in torch.randperm(len(images)).split(8):
            optimizer.zero_grad()
            loss(model(images[part]), labels[part]).backward()
            optimizer.step()
        with torch.no_grad():
            scores.append(dice_score(model(new_images).argmax(1), new_labels))
            logits = model(images)
        # The terms as they are weighed, without a gradient; they cost a pass of their own, so not in every step.
        terms = " + ".join(f"{name} {value:.4f}" for name, value in loss.parts(logits, labels).items())
        print(f"epoch {epoch}: loss {loss(logits, labels):.4f} = {terms}; Dice score on new images {scores[-1]:.3f}")
        loss.step()  # moves the ramp
    background, disc = loss.parts(logits, labels, per_class=True)["dice"].tolist()
    print(f"Dice loss of the background {background:.4f}, of the discs {disc:.4f}")
    return scores


if __name__ == "__main__":
    train()
