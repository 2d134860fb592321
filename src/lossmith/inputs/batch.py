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
from ..engine.contract import Error, Event, Field, Levels, MapSums, Measured, Order, Pass, Ranking, Sums, Want
from ..engine.curves import Curve
from ..engine.images import Count, Images, Split, pooled
from ..engine.plain.order import ranked_across
from ..engine.problem import Once, Problem, Task, hard_labels
from ..engine.tensors import computed, flat, indices, likeliest, recorded, wide
from .fit import check_range, fit, split_weight
from .groups import Groups
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
    split         what others hold of the batch, see `Images`
    """

    who: str
    want: Want
    task: Task | None
    assumes: Task | None
    ignore_index: int
    needs_target: bool
    fits: tuple[tuple[str, frozenset[Task]], ...]
    split: Split | None = None


class Batch(Groups):
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
        who = reading.who
        if target is None and not reading.needs_target and isinstance(logits, Tensor) and logits.ndim > 1:
            some_label = int(reading.ignore_index == 0)
            target = torch.full_like(logits[:, 0], some_label, dtype=torch.long)
        by = checks.denominator(who, denominator)
        target, task = fit(who, logits, target, reading.task, reading.assumes, reading.ignore_index)
        for name, tasks in reading.fits:
            if task not in tasks:
                raise ValueError(
                    f"{who}: {name} is defined for {' and '.join(sorted(tasks))} targets, and the "
                    f"{logits.shape[1]} classes of {task!r} exclude each other; "
                    "use one channel, or task='multilabel'"
                )
        sample, per_pixel = split_weight(who, logits, weight)
        given = problem = Problem(logits, target, per_pixel, sample, task, reading.ignore_index)
        annotated = None
        if label_mask is not None:
            annotated = annotated_classes(who, logits, label_mask, task)
            problem = merged(given, annotated)
        self._given, self._want = given, reading.want
        self._maps = {name: CHECKS[name](who, given, map_) for name, map_ in maps.items() if map_ is not None}
        self._made: dict[Hashable, Any] = {}
        measured = ask(Pass(problem, reading.want))
        check_range(who, given, measured.span)
        images = Images(None if sample is None else wide(sample), reading.split)
        super().__init__(who, problem, measured, annotated, images, by)

    def grouped(self, per_image: bool, curves: Sequence[Curve] = (), **more: Tensor) -> Any:
        """The sums of the images, or of all as one group; an `Across` where others hold a part of a group.

        `more` are further sums of the groups, by name. Of the curves those that are asked for.
        """
        split = self.images.split
        if per_image and split != "space":
            return self.having(**more) if more else self

        def table(name: Hashable, x: Tensor) -> Tensor:  # the same one for all who ask
            def make() -> Tensor:  # in any case an object of its own: of hard labels t is tt
                return x.view_as(x) if per_image else pooled(self.images.weighed(x))

            return self._once((name, per_image), make)

        known = {"n": self.sums.n, **self.sums.known}
        if split is not None:  # what is asked follows from what is wanted, not from what an engine found
            known = {name: getattr(self.sums, name) for name in self._want.names}
        sums = [*(table(name, x) for name, x in known.items()), *more.values()]
        known |= more
        of_curves = [table(curve, self.curve(curve)) for curve in curves]
        annotated = self.annotated
        if annotated is None and split is not None:
            annotated = torch.ones_like(self.sums.t)
        marks = [] if annotated is None else [table("annotated", annotated.to(self.dtype))]

        def groups(*found: Any) -> Groups:
            *rest, denominator = found
            measured = Measured(
                Sums(**dict(zip(known, rest, strict=False))),
                dict(zip(curves, rest[len(known) :], strict=False)),
                complete=self.complete,
            )
            images = Images(self.images.sample if per_image else None)
            mark = rest[-1] if marks else None
            return Groups(self.who, self.problem, measured, mark, images, None if by is None else denominator)

        by = self.denominator
        assert not isinstance(by, Count)
        return self.images.across(groups, *sums, *of_curves, *marks, 0.0 if by is None else by)

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

    def natural(self, values: Tensor) -> Tensor:
        """Values of pixels in the shape of the labels: one channel is no axis."""
        return values.squeeze(1) if self.task == "binary" else values

    def at_labels(self, price: Tensor, label: Tensor | int) -> Tensor:
        """A factor per label, or per image and label, of every pixel: shaped like u, or ready to broadcast."""
        space = [1] * len(self.space)
        if self.exclusive:
            if isinstance(label, int):
                return price[..., label].reshape(-1, *space)
            if price.ndim == 1:
                return price.index_select(0, label.flatten().long()).view_as(label)
            return price.gather(1, flat(label, label.ndim - 1).long()).view_as(label)
        channels = price.expand(*price.shape[:-2], self.n_classes, 2).reshape(-1, self.n_classes, *space, 2)
        if isinstance(label, int):
            return channels[..., label]
        return torch.where(label > 0, channels[..., 1], channels[..., 0])

    # ---- questions of their own --------------------------------------------------------------------------------------

    def ranked(self, ranking: Ranking) -> Any:
        """The Lovász extension of the Jaccard loss and the weight of the foreground, per group and class, (G, C); an
        `Across` where others hold a part of a group."""
        question = Order(self.problem, ranking, self.images)
        if self.images.split == "space" or (self.images.split is not None and not ranking.per_image):
            return ranked_across(question, lambda: ask(Levels(self.problem, ranking, self.images)))
        return self._once(ranking, lambda: ask(question))

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
        self._whole("distance=", "ls.distance.signed_distance_map")
        return self._once(("distance", spacing), lambda: self._distances(self.masks[0], spacing))

    def predicted_distance(self, spacing: Sequence[float] | None) -> Tensor:
        """The same of the prediction: of its likeliest class, or where p > ½, which is where z > 0. A constant."""
        if recorded():
            raise RuntimeError(
                f"{self.who}: torch.jit.trace cannot record the distance transform of a prediction; use one_sided=True"
            )
        if self.images.split == "space":
            raise ValueError(
                f"{self.who}: split='space' gives every process a part of each image, and distances in a prediction "
                "need all of it: use one_sided=True with distance=, or split the batch by images"
            )
        z = self.problem.logits.detach()
        yes = torch.zeros_like(z, dtype=torch.bool).scatter(1, likeliest(z), True) if self.exclusive else z > 0
        return self._distances(yes, spacing)

    def gap(self, spacing: Sequence[float] | None) -> Tensor:
        """The distances to the nearest object and the second, added, shaped like u: as given, or of the labels."""
        given = self._maps.get("gap")
        if given is not None:
            return given
        self._whole("gap=", "ls.distance.gap_map")
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

    def _whole(self, keyword: str, maker: str) -> None:
        if self.images.split == "space":
            raise ValueError(
                f"{self.who}: split='space' gives every process a part of each image, and distances need all of it: "
                f"make the map of the whole labels with {maker}, and give {keyword} this process's part"
            )

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
