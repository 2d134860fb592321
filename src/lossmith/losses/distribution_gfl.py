"""Generalised focal loss: a detector's three terms from the outputs of its head, in one call."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import NonNegative
from ..box import decode_distances, encode_distances
from ..engine import ask
from ..engine.contract import Overlap
from ..engine.images import Count
from ..engine.plain.scores import chance
from ..engine.tensors import floating
from ..inputs.heads import check_logits
from ..loss import Loss
from ..plan import Plan
from ..schedule import Weight
from .box import BoxLoss, GIoULoss
from .distribution import DistributionFocalLoss, QualityFocalLoss, integral


class GeneralizedFocalLoss(Loss):
    """Generalised focal loss: quality focal, box and distribution focal loss from a detector's outputs, in one call.

    Σ QFL / N₊ + (λ₀ Σ₊ s L_box + λ₁ Σ₊ s DFL) / Σ₊ s, DFL being the mean over the four edges. The target of a score is
    the IoU of its decoded box at the label's class; s is the highest score of a positive point, σ of a logit of −80 at
    least, so that no positive point is without a box. Both are held constant. Without positives the regression terms
    are 0, with a graph.

    Shapes: `loss(logits, edges, points, strides, labels, boxes)`, all with the same leading axes, say M points:
        logits (M, C); edges (M, 4, n + 1) or (M, 4 (n + 1)), logits of the distances to left, top, right and bottom
        in strides; points (M, 2), x and y; strides (M,) or a number; labels (M,), C = background; boxes (M, 4),
        corners. What edges and boxes hold at background points does not matter. `weight=` (M,): 0 ignores a point.
        `denominator=`: see `normalisers`.

    `parts` names the three terms. In a sum it is its three terms, which are called with `score=`, `box=`, `edge=`.

    Args:
        box_weight: λ₀ ≥ 0.
        dfl_weight: λ₁ ≥ 0.
        beta: β of the quality focal loss.
        box: the box loss, on corners.

    Range: [0, ∞): where all is right, λ₁ times the entropy of the edges' targets.
    Limits: the quality of a box enters as a constant, so scores do not train boxes.
    Paper: Li et al., "Generalized focal loss", NeurIPS 2020, arXiv 2006.04388.

    >>> import torch, lossmith as ls
    >>> points, boxes = torch.tensor([[8.0, 8.0], [24.0, 8.0]]), torch.tensor([[0.0, 0.0, 20.0, 16.0], [0.0] * 4])
    >>> logits, edges = torch.zeros(2, 3), torch.zeros(2, 4, 9)
    >>> parts = ls.GeneralizedFocalLoss().parts(logits, edges, points, 8.0, torch.tensor([1, 3]), boxes)
    >>> {name: round(value.item(), 4) for name, value in parts.items()}
    {'qfl': 0.9898, 'giou': 1.8438, 'dfl': 0.5493}
    """

    name = "gfl"
    family = "distribution"
    needs = "the outputs of a detector"
    range = (0.0, math.inf)
    source = "Li et al. 2020, arXiv 2006.04388"
    takes: ClassVar[frozenset[str]] = frozenset({"weight", "denominator"})
    without: ClassVar[dict[str, str]] = {"reduction": "it is one number over normalisers of its own"}
    box_weight: NonNegative = 2.0
    dfl_weight: NonNegative = 0.25
    beta: NonNegative = 2.0
    box: BoxLoss = GIoULoss()

    def derive(self) -> None:
        super().derive()
        if self.box.fmt != "xyxy" or self.box.reduction != "mean":
            raise ValueError(f"GeneralizedFocalLoss: box must have fmt='xyxy' and reduction='mean', got {self.box!r}")
        shared = {name: getattr(self, name) for name in ("group", "gradient", "split")}
        own = {name: getattr(self.box, name) for name in shared}
        if own != shared:
            if self.box.group is not None:
                raise ValueError(
                    f"GeneralizedFocalLoss: its box shares the batch otherwise than itself: {self.box!r}; give group, "
                    "gradient and split to GeneralizedFocalLoss, from where its box has them"
                )
            self._set("box", type(self.box)(**{**self.box.settings(), **shared}))
        self._terms: list[tuple[Weight, Loss]] = [
            (1.0, QualityFocalLoss(beta=self.beta, **shared)),
            (self.box_weight, self.box),
            (self.dfl_weight, DistributionFocalLoss(**shared)),
        ]

    @property
    def terms(self) -> list[tuple[Weight, Loss]]:
        return list(self._terms)

    def normalisers(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """What the call divides by, for `denominator=`: N₊ (at least 1) for scores, Σ₊ s for boxes, 4 Σ₊ s for edges.

        Between processes `group=` takes care of them. Without it, average each over the processes and hand them in: the
        mean of the processes' losses and gradients, which is what data-parallel training takes, is then that of the
        whole batch.
        """
        positive = self._positive(logits, labels, weight)
        found = self._normalisers(positive, self._trust(logits, positive, weight), weight)
        return {name: x.amount.clamp(min=x.least) if isinstance(x, Count) else x for name, x in found.items()}

    def _normalisers(self, positive: Tensor, trust: Tensor, weight: Tensor | None) -> dict[str, Any]:
        count = positive.to(trust) if weight is None else torch.where(positive, weight.to(trust), 0.0)
        return {"score": Count(count.sum(), 1.0), "box": trust.sum(), "edge": 4 * trust.sum()}

    def open(self, plan: Plan, inputs: tuple[Any, ...], call: dict[str, Any]) -> dict[str, Any]:
        if not inputs:
            return super().open(plan, inputs, call)
        if len(inputs) != 6:
            raise TypeError(
                f"{self._who()}: call loss(logits, edges, points, strides, labels, boxes), got {len(inputs)} arguments"
            )
        logits, edges, points, strides, labels, boxes = inputs
        weight, denominator = call.get("weight"), call.get("denominator")
        edges = self._fit(logits, edges, points, labels, boxes, weight)
        positive = self._positive(logits, labels, weight)
        background, trust = ~positive, self._trust(logits, positive, weight)
        edges = edges.masked_fill(background.reshape(*background.shape, 1, 1), 0.0)
        boxes = boxes.to(trust).masked_fill(background.unsqueeze(-1), 0.0)
        points = points.to(trust)
        decoded = decode_distances(points, integral(edges), strides)
        quality = ask(Overlap(decoded.detach(), boxes.detach(), ("iou",))).iou
        given = {
            "score": (logits, (labels, quality)),
            "box": (decoded, boxes),
            "edge": (edges, encode_distances(points, boxes, strides)),
            "weight": {"score": weight, "box": trust, "edge": trust},
            "denominator": self._normalisers(positive, trust, weight) if denominator is None else denominator,
        }
        rest = {key: value for key, value in call.items() if key not in ("weight", "denominator")}
        return super().open(plan, (), {**rest, **given})

    def _fit(
        self, logits: Tensor, edges: Tensor, points: Tensor, labels: Tensor, boxes: Tensor, weight: Tensor | None
    ) -> Tensor:
        """The edges as (…, 4, n + 1)."""
        who = self._who()
        check_logits(who, logits)
        check_logits(who, edges)
        lead = tuple(logits.shape[:-1])
        if edges.ndim == logits.ndim and edges.shape[-1] % 4 == 0:
            edges = edges.reshape(*lead, 4, -1) if edges.shape[:-1] == lead else edges
        shapes = {
            "edges": (edges, (*lead, 4, edges.shape[-1])),
            "points": (points, (*lead, 2)),
            "labels": (labels, lead),
            "boxes": (boxes, (*lead, 4)),
            "weight": (labels if weight is None else weight, lead),
        }
        for name, (tensor, shape) in shapes.items():
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
                got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"{who}: logits {tuple(logits.shape)} need {name} {shape}, got {got}")
        return edges

    def _positive(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        """The points that have a class and count."""
        positive = (labels >= 0) & (labels < logits.shape[-1])
        return positive if weight is None else positive & (weight != 0)

    def _trust(self, logits: Tensor, positive: Tensor, weight: Tensor | None) -> Tensor:
        """How much the box of each point counts: its highest score, times its weight; 0 where it is not positive."""
        best = floating(logits.detach()).amax(-1)
        trust = chance(best.clamp(min=-80.0))  # not 0 in float32, or Σ₊ s would be
        return torch.where(positive, trust if weight is None else trust * weight.to(trust), 0.0)

    def _who(self) -> str:
        return type(self).__name__
