"""Lightning: the loss is a submodule, its terms are in the log: python examples/lightning_loop.py"""

from __future__ import annotations

import pytorch_lightning as pl  # or `lightning.pytorch`, the same classes
import torch
from made_images import discs
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lossmith as ls


class Segmenter(pl.LightningModule):
    def __init__(self, loss: ls.Loss, classes: int = 2, lr: float = 1e-2) -> None:
        super().__init__()
        self.loss, self.lr = loss, lr  # with class weights it goes to the device with the rest
        self.net = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, classes, 5, padding=2))

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        images, labels = batch
        return self.loss(self.net(images), labels)

    def validation_step(self, batch: list[Tensor], number: int) -> None:
        """Here the terms cost a pass where nobody waits for it. Each times its weight: they add up to `val/loss`."""
        images, labels = batch
        parts = self.loss.parts(self.net(images), labels)
        self.log_dict({f"val/{name}": x for name, x in parts.items()}, batch_size=len(images))
        self.log("val/loss", sum(parts.values()), batch_size=len(images))

    def on_train_epoch_end(self) -> None:
        self.loss.step()  # for weights that are an `ls.ramp`; a checkpoint keeps where they are

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


class Printer(pl.Callback):
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        found = {name: f"{value:.4f}" for name, value in trainer.callback_metrics.items()}
        print(f"epoch {trainer.current_epoch + 1}:", *(f"{name} {value}" for name, value in found.items()))


def train(epochs: int = 5) -> pl.Trainer:
    pl.seed_everything(0, verbose=False)
    loss = ls.CrossEntropyLoss() + ls.ramp(0.25, 0.25, 1.0) * ls.DiceLoss()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, callbacks=[Printer()], **quiet)
    trainer.fit(Segmenter(loss), *(DataLoader(TensorDataset(*discs(32)), batch_size=8) for _ in range(2)))
    return trainer


if __name__ == "__main__":
    train()
