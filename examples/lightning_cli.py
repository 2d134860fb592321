"""LightningCLI builds the loss: python examples/lightning_cli.py --model.loss=lossmith.FocalLoss --model.loss.gamma=3

In a file (`--config mine.yaml`) the same is

    model:
      loss:
        class_path: lossmith.FocalLoss
        init_args: {gamma: 3}

Names, types and bounds come from the loss's signature: `--model.loss.gama=3` is refused, and `--help` has them all.
"""

from __future__ import annotations

import torch
from lightning_loop import Segmenter
from pytorch_lightning.cli import LightningCLI

import lossmith as ls


class CLI(LightningCLI):
    def add_arguments_to_parser(self, parser) -> None:
        parser.set_defaults({"model.loss": {"class_path": "lossmith.DiceCELoss", "init_args": {"ignore_index": 255}}})


def loss_of_command_line() -> ls.Loss:
    """With `run=False` only the model is built; without it the same words train: `fit --model.loss=…`."""
    return CLI(Segmenter, run=False, save_config_callback=None, seed_everything_default=False).model.loss


if __name__ == "__main__":
    torch.manual_seed(0)
    loss = loss_of_command_line()
    print(f"{loss(torch.randn(2, 2, 16, 16), torch.randint(2, (2, 16, 16))):.4f}  {loss!r}")
