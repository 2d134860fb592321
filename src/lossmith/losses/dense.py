"""Losses over logits: what they all have, and those with one value for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..arithmetic import ratio
from ..bounds import Classes
from ..engine.contract import Want
from ..engine.images import bind
from ..engine.problem import Task
from ..inputs.batch import Batch, Reading
from ..inputs.groups import Groups
from ..loss import Loss


class Dense(Loss):
    """Losses over logits (N, C, *S)."""

    inputs: ClassVar[Callable[..., Any]] = Batch
    takes: ClassVar[frozenset[str]] = Loss.takes | {"label_mask"}
    target: ClassVar[Literal["labels", "soft", "none"]] = "labels"  # what it learns from; "soft": probabilities
    needs = ""
    counts: ClassVar[frozenset[str]] = frozenset({"class_weight"})
    sees_ignored: ClassVar[bool] = False  # whether it looks at pixels that are ignored
    tasks: ClassVar[frozenset[Task]] = frozenset({"multiclass", "binary", "multilabel"})
    assumes: ClassVar[Task | None] = None  # what a target shaped like the logits means, where there is no choice
    ignore_index: int = -100
    class_weight: Tensor | None = None
    task: Task | None = None

    @classmethod
    def reading(cls, terms: Sequence[Dense], who: str) -> Reading:
        all_tasks = Dense.tasks
        return Reading(
            who=who,
            want=reduce(or_, (term.wants() for term in terms), Want()),
            task=terms[0].task,
            assumes=next((term.assumes for term in terms if term.assumes is not None), None),
            ignore_index=terms[0].ignore_index,
            needs_target=any(term.target != "none" for term in terms),
            fits=tuple((term.name, term.tasks) for term in terms if term.tasks != all_tasks),
        )


class ClassLoss(Dense):
    """Losses with one value per group (an image, or the batch) and class: the mean over classes, then over groups.

    A group without a valid pixel leaves the mean; so does a class that is ignored or was not annotated in it.
    """

    per_image: bool = True
    classes: Classes | None = None
    splits = frozenset({"images", "space"})
    include_background: bool = True
    absent: Literal["smooth", "skip"] = "smooth"

    def derive(self) -> None:
        super().derive()
        classes = self.settings()["classes"]
        if classes is not None and 0 in classes and not self.include_background:
            raise ValueError(
                f"{type(self).__name__}: classes={classes} names the background, class 0, and include_background=False "
                "leaves it out; give one of the two"
            )

    def wants(self) -> Want:
        return Want(labels=True)

    def suits(self, batch: Batch) -> None:
        if batch.task != "binary":
            return
        chosen = {"include_background": self.include_background is False, "classes": self.classes is not None}
        for name in [name for name, given in chosen.items() if given]:
            raise ValueError(f"{batch.who}: {name} has no effect with one channel, the foreground; drop it")
        if self.class_weight is not None:
            raise ValueError(
                f"{batch.who}: class_weight has no effect on {self.name} with one channel: its mean is over one class; "
                "drop it, or use two channels"
            )

    def groups(self, batch: Batch) -> Any:
        """The sums that it is a formula of, as `Groups`, or an `Across` that they follow from."""
        return batch.grouped(self.per_image is not False)

    def class_losses(self, batch: Batch, groups: Groups, kept: list[int]) -> Tensor | tuple[Tensor, Tensor]:
        """(G, K), one for each class in `kept`; or (G,). A second tensor (G, K) says which classes enter the mean, if
        that is not for `absent` to say."""
        raise NotImplementedError

    def present(self, groups: Groups) -> Tensor:
        """Whether a group has anything of a class, (G, C): what absent="skip" asks."""
        return groups.sums.t != 0

    def value(self, batch: Batch) -> Any:
        return bind(self.groups(batch), lambda groups: self._value(batch, groups))

    def _value(self, batch: Batch, groups: Groups) -> Any:
        losses, shares, weight = self._by_class(batch, groups)
        if self.reduction == "none":
            return losses
        if shares is None:  # every class of every group counts the same
            if self.reduction == "sum" and losses.ndim == 2:
                losses = losses.mean(1)
            return self.reduce(groups.images, losses, losses.numel())
        if losses.ndim == 2:
            losses = ratio((losses * shares).sum(1), shares.sum(1))
        return self.reduce(groups.images, losses * weight, weight)

    def class_values(self, batch: Batch) -> Any:
        return bind(self.groups(batch), lambda groups: self._class_values(batch, groups))

    def _class_values(self, batch: Batch, groups: Groups) -> Any:
        losses, shares, weight = self._by_class(batch, groups)
        if losses.ndim == 1:
            return self._value(batch, groups)
        if shares is None:
            return losses.mean(0)
        weights = weight.unsqueeze(1) * (shares > 0)
        return groups.images.across(ratio, (losses * weights).sum(0), weights.sum(0))

    def _by_class(self, batch: Batch, groups: Groups) -> tuple[Tensor, Tensor | None, Tensor]:
        """Losses (G, K) or (G,), the share of each class in their mean (G, K), the weight of each group (G,)."""
        kept = self._included(batch)
        losses, counted = self.class_losses(batch, groups, kept), None
        if isinstance(losses, tuple):
            losses, counted = losses
        prices = batch.label_price(self.class_weight, "class_weight")
        skips = self.absent == "skip"
        if groups.complete and prices is None and groups.annotated is None and not skips and counted is None:
            return losses, None, losses
        n, t = (picked(x, kept) for x in (groups.sums.n, groups.sums.t))
        shares = (n != 0).to(losses)  # also where n is NaN: a broken input must not drop out of the mean
        weight = (n != 0).any(1).to(losses)
        if prices is not None and batch.task != "binary":  # one channel is one class: its weight would cancel
            shares = shares * (prices if batch.exclusive else prices[:, 0])[kept].to(shares)
        if groups.annotated is not None:
            shares = shares * picked(groups.annotated != 0, kept)
        if skips:
            counted = picked(self.present(groups), kept)
        if counted is not None:
            shares = shares * counted
        if losses.ndim == 2 and losses.shape[1] > len(kept):  # background and foreground of one channel
            shares = torch.cat([(n != t).to(losses) if skips else torch.ones_like(shares), shares], 1)
            shares = shares if prices is None else shares * prices.to(shares)
        losses = losses if losses.ndim == 1 or counted is None else losses * (shares != 0)
        return losses, shares, groups.images.weighed(weight)

    def _included(self, batch: Batch) -> list[int]:
        if self.classes is not None:
            for k in self.classes:
                if not 0 <= k < batch.n_classes:
                    raise ValueError(f"{batch.who}: classes={self.classes} names class {k}, but C = {batch.n_classes}")
            return list(self.classes)
        return list(range(0 if self.include_background else 1, batch.n_classes))


def picked(x: Tensor, classes: list[int]) -> Tensor:
    """Some of the classes of (G, C): a view where they lie side by side."""
    first, count = classes[0] if classes else 0, len(classes)
    if classes == list(range(first, first + count)):
        return x if count == x.shape[1] else x.narrow(1, first, count)
    return x[:, classes]
