"""Every term and its weight in TensorBoard: python examples/tensorboard_log.py runs, then tensorboard --logdir runs"""

from __future__ import annotations

import sys

import torch
from made_images import discs
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import lossmith as ls


def train(folder: str, epochs: int = 5) -> None:
    torch.manual_seed(0)
    images, labels = discs(32)
    model = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 5, padding=2))
    weight = ls.ramp(start=0.0, step=0.25, stop=1.0)
    loss = ls.CrossEntropyLoss() + weight * ls.LovaszSoftmaxLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with SummaryWriter(folder) as writer:
        for epoch in range(epochs):
            for part in torch.randperm(len(images)).split(8):
                optimizer.zero_grad()
                loss(model(images[part]), labels[part]).backward()
                optimizer.step()
            terms = loss.parts(model(images), labels)  # detached, each times its weight: they add up to the loss
            writer.add_scalar("loss", sum(terms.values()), epoch)
            for name, value in terms.items():
                writer.add_scalar(f"term/{name}", value, epoch)
            writer.add_scalar("weight/lovasz", weight.value, epoch)
            writer.add_text("loss", f"`{loss!r}`", epoch)  # what was trained with, as a text that `ls.parse` reads
            loss.step()


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "runs")
