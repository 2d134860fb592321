"""What MONAI's segmentation losses have in common: how they read a prediction and a target, and what they return.

A prediction is (B, C, *S): logits with `sigmoid` or `softmax`, else probabilities, or what `other_act` makes such. A
target is shaped like it, or with `to_onehot_y` holds labels (B, 1, *S).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ...engine.problem import Task
from ...inputs.call import unwrapped
from ..peer import Peer, logits_of, matching, perfect

Weight = Sequence[float] | float | int | Tensor | None


class Call(NamedTuple):
    """What our loss is called with."""

    logits: Tensor
    target: Tensor
    keywords: dict[str, Any]


class Segmentation(Peer):
    """A loss of a prediction and a target.

    Raises:
        TypeError: other_act is no function.
        ValueError: more than one activation; a reduction that there is not; at a call, without an activation, numbers
            that are no probabilities.
        AssertionError: at a call, a target whose shape does not fit.
    """

    misfit: ClassVar[type[Exception]] = AssertionError  # what theirs raises for a shape

    def __init__(
        self,
        reduction: Any,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        batch: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        who = self._who()
        if other_act is not None and not callable(other_act):
            raise TypeError(f"{who}: other_act must be a function, got {type(other_act).__name__}")
        if sum((sigmoid, softmax, other_act is not None)) > 1:
            raise ValueError(f"{who}: sigmoid, softmax and other_act exclude each other; give one of them")
        self.reduction = str(getattr(reduction, "value", reduction))
        if self.reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{who}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.activation = "sigmoid" if sigmoid else "softmax" if softmax else other_act
        self.include_background, self.to_onehot_y = include_background, to_onehot_y
        self.batch, self.ignore_index = batch, ignore_index

    def task(self, channels: int) -> Task:
        """What the channels are."""
        return "binary" if channels == 1 else "multiclass" if self.activation == "softmax" else "multilabel"

    def kept(self, channels: int) -> int:
        """How many classes count."""
        return channels if self.include_background or channels == 1 else channels - 1

    def labelled(self, channels: int) -> bool:
        """Whether the target holds labels, which ours compares with `ignore_index`."""
        return channels == 1 or self.to_onehot_y

    def shared(self, channels: int) -> dict[str, Any]:
        """The settings that ours has in common with all others."""
        settings: dict[str, Any] = {"task": self.task(channels), "reduction": self.reduction}
        return settings | (self.ignoring() if self.labelled(channels) else {})

    def by_class(self, channels: int) -> dict[str, Any]:
        """The same, of a loss with one value per class."""
        rest = {} if self.kept(channels) == channels else {"include_background": False}
        return self.shared(channels) | {"per_image": not self.batch} | rest

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss.

        Args:
            input: the prediction, (B, C, *S).
            target: shaped like it, or labels (B, 1, *S).
        """
        return self.answer(input.shape[1], self.read(input, target))

    def answer(self, channels: int, call: Call) -> Tensor:
        """Our value as theirs."""
        value: Tensor = self.built(channels, call.logits.device)(call.logits, call.target, **call.keywords)
        if not isinstance(self.activation, str):
            value = perfect(value)
        return self.returned(value, call.logits)

    def read(self, input: Tensor, target: Tensor) -> Call:
        """The call as ours takes it."""
        input, target = unwrapped(self._who(), (input, target))
        channels = input.shape[1]
        labels = self.to_onehot_y and channels > 1
        if channels == 1:
            self.warn_of_one_channel()
        shaped = input[:, :1] if labels else input
        fix = ", with one channel" if labels else "; labels (B, 1, *S) want to_onehot_y=True" if channels > 1 else ""
        matching(self._who(), shaped, target, fix, self.misfit)
        keywords: dict[str, Any] = {}
        if self.ignore_index is not None and not self.labelled(channels):
            keywords["weight"] = counted(target, self.ignore_index).to(input)
        return Call(self.logits(input), target, keywords)

    def logits(self, input: Tensor) -> Tensor:
        """The prediction as logits."""
        if self.activation == "sigmoid" or (self.activation == "softmax" and input.shape[1] > 1):
            return input
        p = self.activation(input) if callable(self.activation) else input
        return logits_of(self._who(), p, "logits want sigmoid=True or softmax=True")

    def warn_of_one_channel(self) -> None:
        """Says what has no effect."""
        given = {
            "softmax=True": self.activation == "softmax",
            "to_onehot_y=True": self.to_onehot_y,
            "include_background=False": not self.include_background,
        }
        for setting in [setting for setting, said in given.items() if said]:
            warnings.warn(f"{self._who()}: {setting} has no effect on one channel", UserWarning, stacklevel=5)

    def returned(self, value: Tensor, logits: Tensor) -> Tensor:
        """Our value in their shape; with reduction="none" (B, K), or (K,) of the batch, with an axis of 1 for each of
        space."""
        if self.reduction != "none":
            return value
        value = value.squeeze(0) if self.batch else value
        return value.reshape(*value.shape, *[1] * (logits.ndim - 2))


def counted(target: Tensor, ignore_index: int) -> Tensor:
    """Which pixels of a one-hot target count, (B, *S): not those of the class, or where there is no such class, those
    that have none."""
    if 0 <= ignore_index < target.shape[1]:
        return 1 - target[:, ignore_index].float()
    return target.sum(1) > 0


class ClassWeight:
    """MONAI's weights of classes: factors of the values, that the mean does not divide by.

    Raises:
        ValueError: a negative weight; at a call, another number of weights than of classes.
    """

    def __init__(self, who: str, given: Weight) -> None:
        read = None if given is None else torch.as_tensor(given, dtype=torch.float64, device="cpu").detach()
        if read is not None and bool((read < 0).any()):
            raise ValueError(f"{who}: weights must be >= 0, got {given}")
        self.who, self.given = who, read

    def of(self, classes: int) -> list[float] | None:
        """One for each class that counts."""
        if self.given is None:
            return None
        if self.given.ndim and len(self.given) != classes:
            raise ValueError(
                f"{self.who}: {len(self.given)} weights for {classes} classes; one for each that counts, without the "
                "background if include_background=False"
            )
        return self.given.expand(classes).tolist()
