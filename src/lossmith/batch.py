"""Batch: the one place where logits meet labels. Validated once, measured once by the engine, shared by all terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from . import engine
from .distance import signed_distances
from .engine import Curve, Event, Problem, Ranking, Want
from .engine.field import labels_and_valid, probabilities, whole
from .engine.mapped import Error, mapped
from .engine.plain import floating, like, likeliest, validated
from .engine.tensors import can_look, indices, recorded
from .validation import check_range, checked_denominator, checked_distance, checked_mask, fit, merged, split_weight

if TYPE_CHECKING:
    from .loss import Dense

T = TypeVar("T")


class _Once(Generic[T]):
    """A property that is worked out when it is first asked for. That of functools takes a lock in Python 3.11, which
    torch.compile cannot trace."""

    def __init__(self, func: Callable[[Any], T]) -> None:
        self.func, self.__doc__ = func, func.__doc__

    def __get__(self, batch: Any, owner: type) -> T:
        if batch is None:
            return self  # type: ignore[return-value]
        value = self.func(batch)
        setattr(batch, self.func.__name__, value)
        return value


@dataclass(frozen=True)
class Sums:
    """Per-class sums over the pixels of a group (an image, or the batch): each field is (G, C).

    n   weight of all valid pixels          t    weight of the class in the target; tt: of its square
    fp  soft false positives, Σ (1−r) p     fn   soft false negatives, Σ r (1−p)
    fp2, fn2  the same with (p)² and (1−p)² of the prediction, for losses that square
    """

    n: Tensor
    t: Tensor
    tt: Tensor
    fp: Tensor
    fn: Tensor
    fp2: Tensor | None = None
    fn2: Tensor | None = None

    @property
    def tp(self) -> Tensor:
        """Soft true positives, Σ r p."""
        return self.t - self.fn

    @property
    def squared_error(self) -> Tensor:
        """Σ (p − r)²."""
        assert self.fp2 is not None
        assert self.fn2 is not None
        return self.fp2 + self.fn2 - (self.t - self.tt)

    def both(self) -> Sums:
        """From the sums of a single foreground channel, (G, 1), those of background and foreground, (G, 2)."""

        def pair(background: Tensor | None, foreground: Tensor | None) -> Tensor | None:
            return None if background is None or foreground is None else torch.cat([background, foreground], 1)

        def known(background: Tensor, foreground: Tensor) -> Tensor:
            return torch.cat([background, foreground], 1)

        return Sums(
            n=known(self.n, self.n),
            t=known(self.n - self.t, self.t),
            tt=known(self.n - 2 * self.t + self.tt, self.tt),
            fp=known(self.fn, self.fp),  # what the foreground misses, the background claims
            fn=known(self.fp, self.fn),
            fp2=pair(self.fn2, self.fp2),
            fn2=pair(self.fp2, self.fn2),
        )

    def pooled(self, sample: Tensor | None) -> Sums:
        """One group of the whole batch, its images weighted by `sample`."""
        return self._each(lambda x: (x if sample is None else x * sample.unsqueeze(1)).sum(0, keepdim=True))

    def of(self, classes: Sequence[int]) -> Sums:
        """Some of the classes."""
        return self._each(lambda x: x[:, list(classes)])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Sums:
        known = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return Sums(**{name: change(x) for name, x in known.items()})


class Batch:
    """Logits and a target that fit each other, and everything the engine measured on them.

    Args:
        terms: the losses that will read it; they agree on `task` and `ignore_index`.
        logits: (N, C, *S), floating point.
        target: labels or a map, see `Loss`.
        weight: per sample (N,) or per pixel (N, *S).
        denominator: what a mean divides by instead of the weight of the valid pixels.
        distance: symmetric signed distance maps of the target, (N, C, *S), for losses that would make them otherwise.
        label_mask: (N, C), which classes were annotated in each image.

    Raises:
        TypeError, ValueError: when shapes, dtypes or values do not fit; the text names the loss and the likely fix.
    """

    def __init__(
        self,
        terms: Sequence[Dense],
        who: str,
        logits: Tensor,
        target: Tensor | None,
        *,
        weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
        distance: Tensor | None = None,
        label_mask: Tensor | None = None,
    ) -> None:
        first = terms[0]
        self.who, self.denominator = who, checked_denominator(who, denominator)
        unlabelled = target is None and not any(term.needs_target for term in terms)
        if unlabelled and isinstance(logits, Tensor) and logits.ndim > 1:
            target = torch.full_like(logits[:, 0], int(first.ignore_index == 0), dtype=torch.long)  # any valid label
        guess = next((term.assumes for term in terms if term.assumes is not None), None)
        target, self.task = fit(who, logits, target, first.task, guess)
        for term in terms:
            if self.task not in term.tasks:
                raise ValueError(
                    f"{who}: {term.name} is defined for {' and '.join(sorted(term.tasks))} targets, and the "
                    f"{logits.shape[1]} classes of {self.task!r} exclude each other; "
                    "use one channel, or task='multilabel'"
                )
        self.sample, per_pixel = split_weight(who, logits, weight)
        want = reduce(or_, (term.wants() for term in terms), Want())
        problem = Problem(logits, target, per_pixel, self.sample, self.task, first.ignore_index, want)
        self.annotated = None if label_mask is None else checked_mask(who, logits, label_mask, self.task)
        self._given = problem
        if self.annotated is not None:
            problem = merged(problem, self.annotated)
        self.n_classes, self.space = logits.shape[1], logits.shape[2:]
        self._given_distance = checked_distance(who, logits, distance)
        self.problem = problem
        self._ranked: dict[Ranking, tuple[Tensor, Tensor]] = {}
        self.stats = engine.statistics(problem)
        check_range(who, self._given, self.stats)
        if self.sample is not None:
            self.sample = self.sample.to(self.stats.n)

    @property
    def softmax(self) -> bool:
        """Whether one label wins at each pixel; otherwise every channel is a yes or no of its own."""
        return self.task == "multiclass"

    @property
    def n_labels(self) -> int:
        """How many labels compete: the classes, or no and yes."""
        return self.n_classes if self.softmax else 2

    @property
    def sums(self) -> Sums:
        """The per-class sums of each image, (N, C)."""
        s = self.stats
        assert s.fp is not None
        assert s.fn is not None
        return Sums(s.n, s.t, s.tt, s.fp, s.fn, s.fp2, s.fn2)

    def curve(self, curve: Curve) -> Tensor:
        """Σ w f(u) per image and label: (N, C) under a softmax, (N, C, 2) under a sigmoid. So are all label sums."""
        return self.stats.curves[curve]

    @property
    def spread(self) -> Tensor:
        """Σ w u_k of every label k that competes over every pixel, whatever its label is; a label sum."""
        assert self.stats.spread is not None
        compete = self._competing
        return self.stats.spread if compete is None else self.stats.spread.masked_fill(~compete, 0.0)

    @property
    def events(self) -> list[Event]:
        """The possible labels of the pixels and how surprising each is."""
        return self.stats.events

    @property
    def every(self) -> list[Event]:
        """All labels that compete, with how surprising each would be: what label smoothing spreads over."""
        compete, space = self._competing, [1] * len(self.space)
        if compete is None:
            return self.stats.every
        return [
            Event(u.masked_fill(~compete[:, label].reshape(-1, *space), 0.0), label, chance)
            for u, label, chance in self.stats.every
        ]

    @property
    def _competing(self) -> Tensor | None:
        """The labels that a softmax has left in each image, (N, C). None: all."""
        return self.annotated if self.softmax else None

    def shared_out(self, amount: float, to: Tensor) -> Tensor | float:
        """An amount divided by the number of labels that compete: one for all, or one per image, shaped for `to`."""
        compete = self._competing
        if compete is None:
            return amount / self.n_labels
        return (amount / compete.sum(1).to(to)).reshape(-1, *[1] * (to.ndim - 1))

    @property
    def label_weight(self) -> Tensor:
        """The weight of the pixels with each label; a label sum."""
        s = self.stats
        return s.t if self.softmax else torch.stack([s.n - s.t, s.t], 2)

    @property
    def pixel_weight(self) -> Tensor:
        """The weight of each pixel, 0 where it is ignored, with the weight of its image: shaped like u."""
        assert self.stats.weight is not None
        return self.of_images(self.stats.weight)

    def ranked(self, ranking: Ranking) -> tuple[Tensor, Tensor]:
        """The Lovász extension of the Jaccard loss and the weight of the foreground, per group and class, (G, C)."""
        if ranking not in self._ranked:
            self._ranked[ranking] = engine.ranked(self.problem, ranking)
        return self._ranked[ranking]

    @_Once
    def field(self) -> Tensor:
        """The probability of every class, (N, C, *S); no gradient reaches an ignored pixel."""
        return probabilities(self.problem, self.valid)

    @_Once
    def whole_field(self) -> Tensor:
        """The same, of ignored pixels too, and of all classes: no labels are asked for, so none are missing."""
        return whole(self._given)

    def over_map(self, price: Tensor, error: Error) -> Tensor:
        """Σ price · error over the pixels of each image, (N, C); `price` is (N, C, *S)."""
        mass, z = self.mass, floating(self.problem.logits)
        price = price.to(z)
        if mass is not None:
            price = torch.where(mass == 0, 0.0, price * mass)  # whatever a given map holds there
        hard = self.problem.hard
        target = self.labels[0] if hard else validated(self.problem, like(self.problem.target, z), 1)[0]
        return mapped(self.problem, target, self.valid, price, error).to(self.stats.n)

    @_Once
    def valid(self) -> Tensor | None:
        """Which labels count, bool like u. None: all, and that is plain to see."""
        return None if self._all_count else self.labels[1]

    @_Once
    def _all_count(self) -> bool:
        """Whether it is plain to see that no pixel is ignored or weighed: n is the weight of the valid ones."""
        n = self.stats.n
        return self.problem.weight is None and can_look(n) and bool((n == math.prod(self.space)).all())

    @property
    def mass(self) -> Tensor | None:
        """What each pixel weighs in its image, 0 where it is ignored: (N, 1 or C, *S). None where all weigh 1."""
        valid, weight = self.valid, self.problem.weight
        if valid is None:
            return None
        valid = valid.unsqueeze(1) if self.softmax else valid
        dtype = torch.float64 if self.problem.logits.dtype == torch.float64 else torch.float32
        return valid.to(dtype) if weight is None else torch.where(valid, weight.unsqueeze(1).to(dtype), 0.0)

    def over_pixels(self, values: Tensor) -> Tensor:
        """Values (N, C, *S) summed over the pixels of each image, (N, C)."""
        return values.reshape(*values.shape[:2], math.prod(values.shape[2:])).sum(2).to(self.stats.n)

    @_Once
    def labels(self) -> tuple[Tensor, Tensor]:
        """Hard labels, 0 where ignored, and which are valid: (N, *S), or (N, C, *S) of no and yes under a sigmoid."""
        if self._all_count and self.softmax and self.problem.hard:
            target = self.problem.target
            return target.long(), torch.ones((), dtype=torch.bool, device=target.device).expand(target.shape)
        return labels_and_valid(self.problem)

    @property
    def masks(self) -> tuple[Tensor, Tensor]:
        """The pixels of each class and the valid ones, both (N, C, *S) and bool. Only what needs geometry asks."""
        labels, valid = self.labels
        if not self.softmax:
            return labels > 0, valid
        classes = indices(self.n_classes, labels, len(self.space))
        return (labels.unsqueeze(1) == classes) & valid.unsqueeze(1), valid.unsqueeze(1).expand_as(self.problem.logits)

    def distance(self, spacing: Sequence[float] | None) -> Tensor:
        """The symmetric signed distance map of each class, (N, C, *S): as given, or made from the labels."""
        if self._given_distance is not None:
            return self._given_distance
        return self._distances(self.masks[0], spacing)

    def predicted_distance(self, spacing: Sequence[float] | None) -> Tensor:
        """The same of the prediction: of its likeliest class, or where p > ½. A constant."""
        if recorded():
            raise RuntimeError(
                f"{self.who}: torch.jit.trace cannot record the distance transform of a prediction; use one_sided=True"
            )
        with torch.no_grad():
            p = probabilities(self.problem, self.valid)  # not `field`: that one has a gradient
        best = torch.zeros_like(p, dtype=torch.bool).scatter(1, likeliest(p), True)
        return self._distances(best if self.softmax else p > 0.5, spacing)

    def _distances(self, masks: Tensor, spacing: Sequence[float] | None) -> Tensor:
        if not self.space:
            return torch.zeros_like(self.problem.logits)  # a single pixel has no boundary
        if len(self.space) > 3:
            raise ValueError(
                f"{self.who}: distances are measured along one to three axes, and logits "
                f"{tuple(self.problem.logits.shape)} have {len(self.space)}: fold one into the batch, as for frames "
                "logits.movedim(2, 1).flatten(0, 1), and the target likewise"
            )
        double = self.problem.logits.dtype == torch.float64
        return signed_distances(masks, self.masks[1], spacing, double=double).to(self.problem.logits.device)

    def of_images(self, values: Tensor) -> Tensor:
        """Multiplies values of images by the weights of the images."""
        return (
            values
            if self.sample is None
            else values * self.sample.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
        )

    def natural(self, values: Tensor) -> Tensor:
        """Values of pixels in the shape of the labels: one channel is no axis."""
        return values.squeeze(1) if self.task == "binary" else values

    def label_price(self, per_class: Tensor | None, name: str) -> Tensor | None:
        """A factor per label from one per class: (C,) under a softmax, (C, 2) under a sigmoid.

        With a single channel the classes are no and yes; with several independent channels they are the channels.
        """
        if per_class is None:
            return None
        price = per_class.to(self.stats.n)
        expected = 2 if self.task == "binary" else self.n_classes
        if price.shape != (expected,):
            meaning = "(negative, positive)" if self.task == "binary" else f"one per class, C = {self.n_classes}"
            raise ValueError(f"{self.who}: {name} needs {expected} values, {meaning}, got {tuple(price.shape)}")
        if self.softmax:
            return price
        return price.unsqueeze(0) if self.task == "binary" else price.unsqueeze(1).expand(-1, 2)

    def per_channel(self, given: Tensor | float, name: str) -> Tensor:
        """What is one number, or one for each channel of yes and no, as (C,)."""
        if not isinstance(given, Tensor):
            return self.stats.n.new_full((self.n_classes,), given)
        numbers = given.to(self.stats.n).flatten()
        if len(numbers) != self.n_classes:
            raise ValueError(
                f"{self.who}: {name} needs one number, or one per channel ({self.n_classes}), got {len(numbers)}"
            )
        return numbers

    def at_labels(self, price: Tensor, label: Tensor | int) -> Tensor:
        """A factor per label, or per image and label, of every pixel: shaped like u, or ready to broadcast."""
        space = [1] * len(self.space)
        if self.softmax:
            if isinstance(label, int):
                return price[..., label].reshape(-1, *space)
            if price.ndim == 1:
                return price.index_select(0, label.flatten()).view_as(label)
            return price.gather(1, label.reshape(len(label), -1)).view_as(label)
        channels = price.expand(*price.shape[:-2], self.n_classes, 2).reshape(-1, self.n_classes, *space, 2)
        if isinstance(label, int):
            return channels[..., label]
        return torch.where(label > 0, channels[..., 1], channels[..., 0])

    @property
    def information(self) -> Tensor:
        """Σ w r ln r of the labels of a soft target, 0 for hard ones; a label sum."""
        if self.problem.hard or not self.problem.target.is_floating_point():
            return torch.zeros_like(self.label_weight)
        share, weight, _ = validated(self.problem, self.problem.target.to(self.stats.n), 1)
        weight = share.new_ones(()) if weight is None else weight
        weight = weight.unsqueeze(1) if 0 < weight.ndim < share.ndim else weight
        labels = [share] if self.softmax else [1 - share, share]
        sums = [self.over_pixels(weight * torch.xlogy(r, r)) for r in labels]
        return sums[0] if self.softmax else torch.stack(sums, 2)
