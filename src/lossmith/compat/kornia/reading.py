"""What kornia's losses have in common: shapes, weights of classes, images without a valid pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...checks import shape
from ...inputs.call import unwrapped
from ..peer import Peer

IGNORED = "ignore_index; None is -100, which no label is"
REFUSES = {"a weight that learns": "weights of classes are constants here"}
ONE_CHANNEL = {"a softmax of one channel": "it is 1 everywhere; two channels, or BinaryFocalLossWithLogits"}


class Labelled(Peer):
    """A loss of logits (B, C, *S) and labels (B, *S)."""

    def read(self, pred: Any, target: Any, axes: int | None = None) -> tuple[Tensor, Tensor]:
        """The call as ours takes it, with shapes that kornia takes."""
        who = self._who()
        for name, x in (("pred", pred), ("target", target)):
            if not isinstance(x, Tensor):
                raise TypeError(f"{who}: {name} type is not a torch.Tensor. Got {type(x).__name__}")
        pred, target = unwrapped(who, (pred, target))
        if pred.ndim < 2 or axes not in (None, pred.ndim - 2):
            wanted = "BxNxHxW" if axes == 2 else "BxNx*"
            raise ValueError(f"{who}: Invalid pred shape, we expect {wanted}. Got: {shape(pred)}")
        if pred.device != target.device:
            raise ValueError(
                f"{who}: pred and target must be in the same device. Got: {pred.device} and {target.device}; "
                "give target.to(pred.device)"
            )
        if target.shape != pred[:, 0].shape:
            raise ValueError(
                f"{who}: pred and target shapes must be the same. Got: {shape(pred)} and {shape(target)}; "
                "the target has no axis of channels"
            )
        return pred, target

    def soft(self, pred: Tensor) -> Tensor:
        """The same where a softmax has something to say."""
        if pred.shape[1] == 1:
            raise ValueError(
                f"{self._who()}: a softmax of one channel is 1 everywhere; use two channels, or "
                "BinaryFocalLossWithLogits"
            )
        return pred

    def with_void(self, value: Tensor, target: Tensor) -> Tensor:
        """The mean with images that have no valid pixel, which cost 1."""
        if self.ignore_index is None:
            return value
        void = (target == self.ignore_index).flatten(1).all(1).to(value.dtype).mean()
        return value * (1 - void) + void


def weights(who: str, given: Tensor | None, classes: int, name: str = "weight") -> list[float]:
    """One number for each class."""
    if given is None:
        return [1.0] * classes
    if tuple(given.shape[:1]) != (classes,) or given.numel() != classes:
        raise ValueError(f"{who}: {name} must hold one number for each of {classes} classes, got {shape(given)}")
    numbers: list[float] = given.detach().double().reshape(-1).tolist()
    return numbers


def constant(who: str, given: Tensor | None, name: str = "weight") -> Tensor | None:
    """A weight that stays as it is."""
    if given is not None and not isinstance(given, Tensor):
        raise TypeError(f"{who}: {name} must be a tensor, got {type(given).__name__}")
    if given is not None and given.requires_grad:
        raise ValueError(f"{who}: {name} requires a gradient, but weights are constants here: give {name}.detach()")
    return given


def at_labels(value: Tensor, target: Tensor, classes: int) -> Tensor:
    """What pixels cost, (B, *S), in the channels of their labels, (B, C, *S)."""
    channels = torch.arange(classes, dtype=target.dtype, device=target.device).view(-1, *[1] * (target.ndim - 1))
    return torch.where(target.unsqueeze(1) == channels, value.unsqueeze(1), 0.0)  # of a loss of ∞ too


__all__ = ["IGNORED", "ONE_CHANNEL", "REFUSES", "Labelled", "at_labels", "constant", "weights"]
