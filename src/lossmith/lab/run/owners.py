"""Who owns the gradient: how much of a loss's pull on the logits falls on which class, and on easy or hard pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lossmith.loss import Loss

EASE = (0.1, 0.5, 0.9)  # probabilities of the true class between which a pixel counts as harder or easier


@torch.no_grad()
def owners(logits: Tensor, gradient: Tensor, label: Tensor, ignore_index: int) -> dict[str, list[float]]:
    """Shares of Σ|∂loss/∂logit|, and of the labelled pixels beside them; empty where the gradient is zero.

    Args:
        logits: (N, C, *S), or (N, 1, *S) for a binary task.
        gradient: of the loss, by them.
        label: (N, *S), whole numbers.
        ignore_index: pixels with this label have a gradient for losses that read no labels: the shares may not reach 1.

    Returns:
        `class` and `class_pixels` by the true class, `ease` and `ease_pixels` by its probability: up to 0.1, to 0.5,
        to 0.9, above.
    """
    valid = label != ignore_index
    truth = torch.where(valid, label, 0).long()
    size = gradient.abs().sum(1, dtype=torch.float32)
    total = float(size.sum())
    if not total or not bool(valid.any()):
        return {}
    classes = max(2, logits.shape[1])
    if logits.shape[1] == 1:
        foreground = logits[:, 0].float().sigmoid()
        probability = torch.where(truth > 0, foreground, 1 - foreground)
    else:
        probability = logits.float().softmax(1).gather(1, truth[:, None])[:, 0]
    ease = torch.bucketize(probability, probability.new_tensor(EASE))
    size, truth, ease = size[valid], truth[valid], ease[valid]
    shares = {}
    for name, which, count in (("class", truth, classes), ("ease", ease, len(EASE) + 1)):
        shares[name] = (torch.bincount(which, size, count) / total).tolist()
        shares[f"{name}_pixels"] = (torch.bincount(which, minlength=count) / len(which)).tolist()
    return shares


def parts(loss: nn.Module, *inputs: Tensor) -> dict[str, float]:
    """The weighted terms of a sum by name; empty for a loss that is not a sum, or does not tell its terms."""
    if not isinstance(loss, Loss) or len(loss.terms) < 2:
        return {}
    return {name: float(value) for name, value in loss.parts(*inputs).items()}
