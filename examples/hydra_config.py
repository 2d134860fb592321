"""A loss in a configuration of Hydra's, and changed on its command line: python examples/hydra_config.py loss.gamma=3

Hydra 1.3 does not go with the OmegaConf of the tests. `instantiate` is a double of `hydra.utils.instantiate`, of its
`_target_` and `_args_`; the configuration, its interpolation and its command line are OmegaConf's own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

import lossmith as ls

CONFIG = """
void: 255
loss:                     # one loss: its class and its settings
  _target_: lossmith.FocalLoss
  gamma: 2
  class_weight: [1, 5]
  ignore_index: ${void}
loss_as_text:             # a sum: the text of it
  _target_: lossmith.parse
  _args_: ["dice(per_image=false) + 0.5*focal(gamma=${loss.gamma})"]
  ignore_index: ${void}
"""


def instantiate(config: DictConfig) -> Any:
    """The double. Hydra's also reads `_partial_`, `_recursive_` and `_convert_`."""
    given = {name: instantiate(x) if isinstance(x, DictConfig) else x for name, x in config.items()}
    module, name = given.pop("_target_").rsplit(".", 1)
    return getattr(import_module(module), name)(*given.pop("_args_", ListConfig([])), **given)


def losses(overrides: list[str]) -> tuple[ls.Loss, ls.Loss]:
    config = OmegaConf.merge(OmegaConf.create(CONFIG), OmegaConf.from_dotlist(overrides))
    return instantiate(config.loss), instantiate(config.loss_as_text)


if __name__ == "__main__":
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 16, 16), torch.randint(2, (2, 16, 16))
    for loss in losses(sys.argv[1:]):
        print(f"{loss(logits, labels):.4f}  {loss!r}")
