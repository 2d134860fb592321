"""Batch: the one place where logits meet labels. Checked once, measured once by an engine, shared by all terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import checks
from ..distance import gaps, signed_distances
from ..engine import ask
from ..engine.contract import Error, Event, Field, MapSums, Measured, Order, Pass, Ranking, Sums, Want
from ..engine.curves import Curve
from ..engine.images import Images
from ..engine.problem import Once, Problem, Task, hard_labels
from ..engine.tensors import computed, indices, likeliest, recorded, wide, widest
from .fit import check_range, fit, split_weight
from .maps import CHECKS
from .partial import annotated_classes, merged

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """What the losses that read logits want of a call, worked out before there is one.

    who           their names, for errors
    want          what the engine's pass has to find
    task          what the logits are, if a loss says so; assumes: what a target shaped like them means, if none does
    needs_target  whether any of them looks at the target
    fits          the tasks that each loss is defined for, where that is not all, by its name
    """

    who: str
    want: Want
    task: Task | None
    assumes: Task | None
    ignore_index: int
    needs_target: bool
    fits: tuple[tuple[str, frozenset[Task]], ...]


class Batch:
    """Logits and a target that fit each other, and everything the engine measured on them.

    Args:
        reading: what the losses want.
        logits: (N, C, *S), floating point.
        target: labels or a map, see `Loss`.
        weight: per sample (N,) or per pixel (N, *S).
        denominator: what a mean divides by instead of the weight of the valid pixels.
        label_mask: (N, C), which classes were annotated in each image.
        maps: what losses would make of the target otherwise, by name: see `maps`.

    Raises:
        TypeError, ValueError: when shapes, dtypes or values do not fit; the text names the loss and the likely fix.
    """

    def __init__(
        self,
        reading: Reading,
        logits: Tensor,
        target: Tensor | None,
        *,
        weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
        label_mask: Tensor | None = None,
        **maps: Tensor | None,
    ) -> None:
        who = self.who = reading.who
        self.denominator = checks.denominator(who, denominator)
        if target is None and not reading.needs_target and isinstance(logits, Tensor) and logits.ndim > 1:
            some_label = int(reading.ignore_index == 0)
            target = torch.full_like(logits[:, 0], some_label, dtype=torch.long)
        target, self.task = fit(who, logits, target, reading.task, reading.assumes, reading.ignore_index)
        for name, tasks in reading.fits:
            if self.task not in tasks:
                raise ValueError(
                    f"{who}: {name} is defined for {' and '.join(sorted(tasks))} targets, and the "
                    f"{logits.shape[1]} classes of {self.task!r} exclude each other; "
                    "use one channel, or task='multilabel'"
                )
        sample, per_pixel = split_weight(who, logits, weight)
        self._given = self.problem = Problem(logits, target, per_pixel, sample, self.task, reading.ignore_index)
        self.annotated = None
        if label_mask is not None:
            self.annotated = annotated_classes(who, logits, label_mask, self.task)
            self.problem = merged(self._given, self.annotated)
        self.exclusive = self.task == "multiclass"  # one label wins at each pixel; else every channel is a yes or no
        self.n_classes, self.space = logits.shape[1], logits.shape[2:]
        self.device = logits.device
        self.dtype = widest(logits.device)  # of sums and of what multiplies them
        self.n_pixels = len(logits) * math.prod(self.space)
        self.n_labels = self.n_classes if self.exclusive else 2  # how many labels compete: the classes, or no and yes
        self._maps = {name: CHECKS[name](who, self._given, given) for name, given in maps.items() if given is not None}
        self._made: dict[Hashable, Any] = {}
        self.measured: Measured = ask(Pass(self.problem, reading.want))
        check_range(who, self._given, self.measured.span)
        self.sums: Sums = self.measured.sums  # the per-class sums of each image, (N, C)
        self.images = Images(None if sample is None else wide(sample))

    # ---- sums of labels: (N, C) under a softmax, (N, C, 2) of no and yes under a sigmoid -----------------------------

    def curve(self, curve: Curve) -> Tensor:
        """Σ w f(u) per image and label; (N, 1) where no loss asked for labels."""
        return self.measured.curves[curve]

    @Once
    def label_weight(self) -> Tensor:
        """The weight of the pixels with each label; (N, 1) where no loss asked for labels."""
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

    @Once
    def information(self) -> Tensor:
        """Σ w r ln r of the labels of a soft target, 0 for hard ones."""
        if self.problem.hard or not self.problem.target.is_floating_point():
            return torch.zeros_like(self.label_weight)
        share, weight = self.problem.labels.target.to(self.dtype), self.mass
        labels = [share] if self.exclusive else [1 - share, share]
        parts = [torch.xlogy(r, r) for r in labels]
        sums = [self.over_pixels(x if weight is None else weight * x) for x in parts]
        return sums[0] if self.exclusive else torch.stack(sums, 2)

    # ---- values of pixels --------------------------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        """The possible labels of the pixels and how surprising each is."""
        return self.measured.events

    @property
    def every(self) -> list[Event]:
        """All labels that compete, with how surprising each would be: what label smoothing spreads over."""
        compete, space = self._competing, [1] * len(self.space)
        if compete is None:
            return self.measured.every
        return [
            Event(u.masked_fill(~compete[:, label].reshape(-1, *space), 0.0), label, chance)
            for u, label, chance in self.measured.every
        ]

    @Once
    def pixel_weight(self) -> Tensor | None:
        """The weight of each pixel, 0 where it is ignored, with the weight of its image: shaped like u. None: all 1."""
        weight = self.measured.weight
        if weight is None and self.images.sample is not None:
            weight = torch.ones_like(self.labels[0], dtype=computed(self.problem.logits))
        return None if weight is None else self.images.weighed(weight)

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

    def natural(self, values: Tensor) -> Tensor:
        """Values of pixels in the shape of the labels: one channel is no axis."""
        return values.squeeze(1) if self.task == "binary" else values

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

    def at_labels(self, price: Tensor, label: Tensor | int) -> Tensor:
        """A factor per label, or per image and label, of every pixel: shaped like u, or ready to broadcast."""
        space = [1] * len(self.space)
        if self.exclusive:
            if isinstance(label, int):
                return price[..., label].reshape(-1, *space)
            if price.ndim == 1:
                return price.index_select(0, label.flatten().long()).view_as(label)
            return price.gather(1, label.reshape(len(label), -1).long()).view_as(label)
        channels = price.expand(*price.shape[:-2], self.n_classes, 2).reshape(-1, self.n_classes, *space, 2)
        if isinstance(label, int):
            return channels[..., label]
        return torch.where(label > 0, channels[..., 1], channels[..., 0])

    # ---- questions of their own --------------------------------------------------------------------------------------

    def ranked(self, ranking: Ranking) -> tuple[Tensor, Tensor]:
        """The Lovász extension of the Jaccard loss and the weight of the foreground, per group and class, (G, C)."""
        return self._once(ranking, lambda: ask(Order(self.problem, ranking, self.images)))

    @Once
    def field(self) -> Tensor:
        """The probability of every class, (N, C, *S); no gradient reaches an ignored pixel."""
        return ask(Field(self.problem))

    @Once
    def whole_field(self) -> Tensor:
        """The same, of ignored pixels too, and of all classes: no labels are asked for, so none are missing."""
        return ask(Field(self._given, whole=True))

    def over_map(self, price: Tensor, error: Error) -> Tensor:
        """Σ price · error over the pixels of each image, (N, C); `price` is (N, C, *S)."""
        return ask(MapSums(self.problem, price, error))

    # ---- where the labels lie ----------------------------------------------------------------------------------------

    @Once
    def labels(self) -> tuple[Tensor, Tensor]:
        """Hard labels, 0 where ignored, and which are valid: (N, *S), or (N, C, *S) of no and yes under a sigmoid."""
        labels, valid = hard_labels(self.problem)
        if valid is None:
            valid = torch.ones((), dtype=torch.bool, device=labels.device).expand(labels.shape)
        return labels, valid

    @Once
    def masks(self) -> tuple[Tensor, Tensor]:
        """The pixels of each class and the valid ones, both (N, C, *S) and bool. Only what needs geometry asks."""
        labels, valid = self.labels
        if not self.exclusive:
            return (labels > 0) & valid, valid
        classes = indices(self.n_classes, labels, len(self.space))
        return (labels.unsqueeze(1) == classes) & valid.unsqueeze(1), valid.unsqueeze(1).expand_as(self.problem.logits)

    @Once
    def mass(self) -> Tensor | None:
        """What each pixel weighs in its image, 0 where it is ignored: (N, 1 or C, *S). None where all weigh 1."""
        weight = self.problem.labels.weight
        return weight.unsqueeze(1) if weight is not None and self.exclusive else weight

    def over_pixels(self, values: Tensor) -> Tensor:
        """Values (N, C, *S) summed over the pixels of each image, (N, C)."""
        return values.reshape(*values.shape[:2], math.prod(values.shape[2:])).sum(2).to(self.dtype)

    def distance(self, spacing: Sequence[float] | None) -> Tensor:
        """The symmetric signed distance map of each class, (N, C, *S): as given, or made from the labels."""
        given = self._maps.get("distance")
        if given is not None:
            return given
        return self._once(("distance", spacing), lambda: self._distances(self.masks[0], spacing))

    def predicted_distance(self, spacing: Sequence[float] | None) -> Tensor:
        """The same of the prediction: of its likeliest class, or where p > ½, which is where z > 0. A constant."""
        if recorded():
            raise RuntimeError(
                f"{self.who}: torch.jit.trace cannot record the distance transform of a prediction; use one_sided=True"
            )
        z = self.problem.logits.detach()
        yes = torch.zeros_like(z, dtype=torch.bool).scatter(1, likeliest(z), True) if self.exclusive else z > 0
        return self._distances(yes, spacing)

    def gap(self, spacing: Sequence[float] | None) -> Tensor:
        """The distances to the nearest object and the second, added, shaped like u: as given, or of the labels."""
        given = self._maps.get("gap")
        if given is not None:
            return given
        return self._once(("gap", spacing), lambda: self._gaps(spacing))

    def _gaps(self, spacing: Sequence[float] | None) -> Tensor:
        labels, valid = self.labels
        self._check_axes()
        if not self.space:
            return torch.full_like(labels, torch.inf, dtype=computed(self.problem.logits))
        double = self.problem.logits.dtype == torch.float64
        apart = labels.ndim - len(self.space) - 1
        maps = gaps(labels.flatten(0, apart), valid.flatten(0, apart), spacing, double=double)
        return maps.reshape(labels.shape)

    def _check_axes(self) -> None:
        if len(self.space) > 3:
            raise ValueError(
                f"{self.who}: distances are measured along one to three axes, and logits "
                f"{tuple(self.problem.logits.shape)} have {len(self.space)}: fold one into the batch, as for frames "
                "logits.movedim(2, 1).flatten(0, 1), and the target likewise"
            )

    def _distances(self, masks: Tensor, spacing: Sequence[float] | None) -> Tensor:
        self._check_axes()
        if not self.space:
            return torch.zeros_like(self.problem.logits)  # a single pixel has no boundary
        double = self.problem.logits.dtype == torch.float64
        return signed_distances(masks, self.masks[1], spacing, double=double).to(self.problem.logits.device)

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is worked out when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made
