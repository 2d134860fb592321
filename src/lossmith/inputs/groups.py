"""Groups: the sums over the pixels of the images, or of all images as one, and what multiplies them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..checks import Denominator
from ..engine.contract import Measured, Sums
from ..engine.curves import Curve
from ..engine.images import Images
from ..engine.problem import Once, Problem
from ..engine.tensors import widest


class Groups:
    """What was measured of G groups of pixels: the images of a batch, or everything as one group.

    Sums of labels are (G, C) under a softmax, (G, C, 2) of no and yes under a sigmoid.

    Args:
        who: the losses that read it, for errors.
        problem: logits and target that were measured.
        measured: the sums, one row for each group.
        annotated: (G, C), above 0 for the classes that were annotated. None: all.
        images: the weights of the groups, and who holds others.
        denominator: what a mean divides by instead of the weight of the valid pixels.
    """

    def __init__(
        self,
        who: str,
        problem: Problem,
        measured: Measured,
        annotated: Tensor | None,
        images: Images,
        denominator: Denominator,
    ) -> None:
        self.who, self.problem, self.measured, self.annotated = who, problem, measured, annotated
        self.images, self.denominator = images, denominator
        self.sums: Sums = measured.sums
        self.task = problem.task
        self.exclusive = problem.exclusive  # one label wins at each pixel; else every channel is a yes or no
        logits = problem.logits
        self.n_classes, self.space = logits.shape[1], logits.shape[2:]
        self.device = logits.device
        self.dtype = widest(logits.device)  # of sums and of what multiplies them
        self.n_pixels = len(logits) * math.prod(self.space)
        self.n_labels = self.n_classes if self.exclusive else 2  # how many labels compete: the classes, or no and yes

    @property
    def complete(self) -> bool:
        """Whether it is known that all pixels count and weigh 1, also those that others hold."""
        return self.measured.complete and self.images.split is None

    def having(self, **more: Tensor) -> Groups:
        """The same with further sums (G, C), by name."""
        measured = replace(self.measured, sums=Sums(**self.sums.known, **more))
        return Groups(self.who, self.problem, measured, self.annotated, self.images, self.denominator)

    # ---- sums of labels ----------------------------------------------------------------------------------------------

    def curve(self, curve: Curve) -> Tensor:
        """Σ w f(u) per group and label; (G, 1) where no loss asked for labels."""
        return self.measured.curves[curve]

    @Once
    def label_weight(self) -> Tensor:
        """The weight of the pixels with each label; (G, 1) where no loss asked for labels."""
        s = self.sums
        if self.exclusive:
            if not s.known:  # nobody asked, and all pixels count
                pixels = math.prod(self.space)
                return torch.full((len(self.problem.logits), 1), pixels, dtype=self.dtype, device=self.device)
            return s.t if "t" in s.known else s.n
        return torch.stack([s.n - s.t, s.t], 2)

    @property
    def valid_weight(self) -> Tensor:
        """What the valid pixels weigh, whatever their labels, to be added up: shares need not sum to 1 to the digit."""
        return self.label_weight if self.problem.hard or not self.exclusive else self.sums.n[:, :1]

    @Once
    def spread(self) -> Tensor:
        """Σ w u_k of every label k that competes over every pixel, whatever its label is."""
        spread, compete = self.measured.spread, self._competing
        assert spread is not None
        return spread if compete is None else spread.masked_fill(~compete, 0.0)

    @property
    def _competing(self) -> Tensor | None:
        """The labels that a softmax has left in each image, (N, C). None: all."""
        return self.annotated if self.exclusive else None

    def shared_out(self, amount: float, to: Tensor) -> Tensor | float:
        """An amount divided by the number of labels that compete: one for all, or one per image, shaped for `to`."""
        compete = self._competing
        if compete is None:
            return amount / self.n_labels
        return (amount / compete.sum(1).to(to)).reshape(-1, *[1] * (to.ndim - 1))

    # ---- factors of labels -------------------------------------------------------------------------------------------

    def label_price(self, per_class: Tensor | None, name: str) -> Tensor | None:
        """A factor per label from one per class: (C,) under a softmax, (C, 2) under a sigmoid.

        With a single channel the classes are no and yes; with several independent channels they are the channels.
        """
        if per_class is None:
            return None
        price = per_class.to(self.device, self.dtype)
        expected = 2 if self.task == "binary" else self.n_classes
        if price.shape != (expected,):
            meaning = "(negative, positive)" if self.task == "binary" else f"one per class, C = {self.n_classes}"
            raise ValueError(f"{self.who}: {name} needs {expected} values, {meaning}, got {tuple(price.shape)}")
        if self.exclusive:
            return price
        return price.unsqueeze(0) if self.task == "binary" else price.unsqueeze(1).expand(-1, 2)

    def per_channel(self, given: Tensor | float, name: str) -> Tensor:
        """What is one number, or one for each channel of yes and no, as (C,)."""
        if not isinstance(given, Tensor):
            return torch.full((self.n_classes,), given, dtype=self.dtype, device=self.device)
        numbers = given.to(self.device, self.dtype).flatten()
        if len(numbers) != self.n_classes:
            raise ValueError(
                f"{self.who}: {name} needs one number, or one per channel ({self.n_classes}), got {len(numbers)}"
            )
        return numbers
