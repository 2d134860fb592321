"""Training as a MONAI tutorial has it, of which one line is changed: the import of the losses.

Before it was `from monai import losses`. Nothing else is, not the pipeline, whose labels are float32 MetaTensors
(B, 1, *S), nor the arguments; the losses that are printed are the same to 1e-5.

    python examples/monai_tutorial.py
"""

from __future__ import annotations

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirstd, RandFlipd, ScaleIntensityd
from monai.utils import set_determinism

from lossmith.compat import monai as losses

SIDE = 16


def volumes(count: int) -> list[dict[str, np.ndarray]]:
    """Two balls in noise, the smaller one inside of the larger: labels 0, 1 and 2."""
    random, found = np.random.default_rng(0), []
    axes = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")
    for _ in range(count):
        centre = random.uniform(5, SIDE - 5, 3)
        away = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
        label = (away < 5).astype(np.float32) + (away < 2.5)
        found.append({"image": label + random.normal(0, 0.5, label.shape), "label": label})
    return found


def train(epochs: int = 4) -> list[float]:
    """The loss of every step."""
    set_determinism(0)
    keys = ["image", "label"]
    prepared = Compose(
        [EnsureChannelFirstd(keys, channel_dim="no_channel"), ScaleIntensityd(["image"]), RandFlipd(keys, 0.5, 0)]
    )
    loader = DataLoader(Dataset(volumes(8), prepared), batch_size=2, shuffle=True)
    net = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=(8, 16), strides=(2,))
    criterion = losses.DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    history = []
    for epoch in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            loss = criterion(net(batch["image"].float()), batch["label"])
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        print(f"epoch {epoch + 1}: {np.mean(history[-len(loader) :]):.5f}")
    return history


if __name__ == "__main__":
    train()
