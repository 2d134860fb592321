"""MONAI: train on patches, look at whole volumes through a sliding window: python examples/monai_sliding_window.py

The labels are what MONAI's transforms make, float MetaTensors (N, 1, *S): neither `AsDiscrete(to_onehot=…)` nor a
softmax is needed. Windows are of logits, and so is what they are put together to: the loss of a whole volume is the
loss itself.
"""

from __future__ import annotations

import torch
from made_images import discs
from monai.data import DataLoader, Dataset
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd, ToMetaTensord
from monai.utils import set_determinism

import lossmith as ls

PATCH = (16, 16, 16)


def volumes(count: int) -> list[dict[str, torch.Tensor]]:
    """Noise with a bright ball of 0.4 % of the voxels."""
    return [{"image": x, "label": y[None].float()} for x, y in zip(*discs(count, size=32, axes=3), strict=True)]


def train(epochs: int = 4) -> list[float]:
    """The loss of new volumes, after every epoch."""
    set_determinism(0)
    keys = ["image", "label"]
    crops = Compose(
        [
            ToMetaTensord(keys),
            RandCropByPosNegLabeld(keys, label_key="label", spatial_size=PATCH, num_samples=4),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
        ]
    )
    loader = DataLoader(Dataset(volumes(8), crops), batch_size=2, shuffle=True)
    new = volumes(2)
    net = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(8, 16), strides=(2,))
    loss = ls.DiceLoss(smooth=1e-5) + ls.CrossEntropyLoss()  # the value of DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    history = []
    for epoch in range(1, epochs + 1):
        for batch in loader:
            optimizer.zero_grad()
            loss(net(batch["image"]), batch["label"]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            image, label = (torch.stack([volume[key] for volume in new]) for key in keys)
            logits = sliding_window_inference(image, PATCH, 4, net, overlap=0.25)
        net.train()
        history.append(float(loss(logits, label)))
        print(
            f"epoch {epoch}: {history[-1]:.4f}, Dice loss by class", loss.parts(logits, label, per_class=True)["dice"]
        )
    return history


if __name__ == "__main__":
    train()
