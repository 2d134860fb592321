"""A small one-stage detector: one stride, no anchors, one class. What trains where boxes are drawn.

One map of channels per point of a grid of stride 8: the class's logit, the logit of a quality, four distances to the
box's sides, and the same four as distributions over bins. All heads are always built, so that every loss starts from
the same weights; those that a loss does not read learn nothing.

Points are assigned to boxes by ATSS on one level (Zhang et al. 2020, arXiv 1912.02424): of each box the 9 points
nearest to its centre are candidates; those become positive that lie inside it and whose square of side 40 px has an
IoU with it of at least the candidates' mean plus standard deviation. A point wanted by several goes to the highest IoU.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lossmith as ls
from lossmith.box import decode_distances, encode_distances, hard_examples, pairwise_iou
from lossmith.lab.settings import Quality
from lossmith.losses.distribution import ScoreLoss, integral

Array = np.ndarray[Any, Any]

STRIDE = 8
BINS = 16  # an edge lies at most this many strides from its point
SCORE, QUALITY, DISTANCES, EDGES = slice(0, 1), slice(1, 2), slice(2, 6), slice(6, 6 + 4 * (BINS + 1))
MOST_BOXES = 100
_CANDIDATES = 9
_SQUARE = 5.0  # side of the squares of ATSS, in strides; the paper's 8 suit larger things
_START = 0.01  # probability of an object at the start, so that the background does not drown the first steps
_LEAST_SCORE = 0.01
_BEFORE_SUPPRESSION = 400
_SUPPRESSION = 0.6


class Detector(nn.Module):
    """(N, channels, H, W) to (N, 74, H/8, W/8); H and W are multiples of 8. Sees about 200 px around a point."""

    def __init__(self, channels: int, features: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (channels, *features)
        halvings = [_convolution(a, b, stride=2) for a, b in pairwise(sizes)]
        width = features[-1]
        self.body = nn.Sequential(*halvings, *(_Block(width, dilation) for dilation in (1, 2, 1, 2)))
        self.score_tower, self.box_tower = _convolution(width, width), _convolution(width, width)
        self.score = nn.Conv2d(width, 1, 3, padding=1)
        self.rest = nn.Conv2d(width, EDGES.stop - 1, 3, padding=1)
        nn.init.constant_(self.score.bias, -np.log(1 / _START - 1))  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        seen = self.body(image)
        return torch.cat([self.score(self.score_tower(seen)), self.rest(self.box_tower(seen))], 1)


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*(_convolution(width, width, dilation=dilation) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolutions(x)  # type: ignore[no-any-return]


def _convolution(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    convolution = nn.Conv2d(before, after, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(min(8, after), after), nn.ReLU())


def grid(height: int, width: int) -> Tensor:
    """The points (height · width, 2) of a grid, x and y in strides, row by row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5


def assign(boxes: Tensor, ignore: Tensor, height: int, width: int) -> Tensor:
    """What each point of a grid is to say, (5, height, width): 1 object, 0 none, −1 ignored; and its box.

    Args:
        boxes: (M, 4) in strides.
        ignore: (M,): points in such a box are ignored unless another box takes them.
    """
    points = grid(height, width)
    target = torch.zeros(len(points), 5)
    if bool(ignore.any()):
        cut = (encode_distances(points[:, None], boxes[ignore], 1) > 0).all(-1).any(1)
        target[cut, 0] = -1
    boxes = boxes[~ignore]
    if len(boxes):
        squares = torch.cat([points - _SQUARE / 2, points + _SQUARE / 2], 1)
        overlap = pairwise_iou(squares, boxes)
        distance = torch.cdist(points, (boxes[:, :2] + boxes[:, 2:]) / 2)
        nearest = distance.topk(min(_CANDIDATES, len(points)), 0, largest=False).indices
        candidates = overlap.gather(0, nearest)
        candidate = torch.zeros_like(overlap, dtype=torch.bool).scatter_(0, nearest, True)
        inside = (encode_distances(points[:, None], boxes, 1) > 0).all(-1)
        positive = candidate & inside & (overlap >= candidates.mean(0) + candidates.std(0))
        best, which = overlap.masked_fill(~positive, -1).max(1)
        target[best >= 0, 0] = 1
        target[best >= 0, 1:] = boxes[which[best >= 0]]
    return target.T.reshape(5, height, width)


class DetectionLoss(nn.Module):
    """A lossmith loss on what the detector says: slots score, box, edge; plus binary cross-entropy of the quality.

    All terms are divided by the number of positives; those of boxes are weighted by a quality and divided by its sum:
    by the centreness where that is predicted, by the detached score where the score is a quality (qfl, vfl), else by 1.
    """

    def __init__(self, loss: ls.Loss, quality: Quality) -> None:
        super().__init__()
        self.loss = loss
        self.slots = {term.slot for _, term in loss.terms}
        self.joint = is_joint(loss)
        self.quality: Quality = "none" if self.joint else quality

    def __repr__(self) -> str:
        branch = "" if self.quality == "none" else f" + BCE({self.quality})"
        return f"{self.loss!r}{branch}"

    def step(self) -> None:
        """The next epoch of the loss's schedules."""
        self.loss.step()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        points = grid(*output.shape[2:]).to(output.device).repeat(len(output), 1)
        rows, truth = _rows(output), _rows(target)
        positive, judged = truth[:, 0] == 1, truth[:, 0] >= 0
        points, found, boxes = points[positive], rows[positive], truth[positive, 1:]
        predicted = boxes_of(found, points, "edge" in self.slots)
        with torch.no_grad():
            overlap = 1 - ls.IoULoss(reduction="none")(predicted.detach(), boxes)
            weight = torch.ones_like(overlap)
            if self.joint:
                weight = found[:, SCORE].sigmoid().amax(1)
            elif self.quality == "centerness":
                weight = centerness(points, boxes)
        score = truth[:, :1].clone()
        if self.joint:
            score[positive, 0] = overlap
        count = positive.sum().clamp(min=1)
        inputs = {"score": (rows[judged, SCORE], score[judged]), "box": (predicted, boxes)}
        if "edge" in self.slots:
            inputs["edge"] = (_bins(found), encode_distances(points, boxes, 1))
        total = weight.sum()
        denominators = {"score": count, "box": total, "edge": 4 * total}
        weights = {slot: weight for slot in inputs if slot != "score"}
        value: Tensor = self.loss(
            **{slot: pair for slot, pair in inputs.items() if slot in self.slots},
            denominator={slot: by for slot, by in denominators.items() if slot in self.slots},
            weight={slot: by for slot, by in weights.items() if slot in self.slots},
        )
        if self.quality != "none":
            wanted = overlap if self.quality == "iou" else centerness(points, boxes)
            missed = F.binary_cross_entropy_with_logits(found[:, QUALITY.start], wanted, reduction="sum")
            value = value + missed / count
        return value


def is_joint(loss: ls.Loss) -> bool:
    """Whether the score is to be the quality of its box, as in generalised focal loss, and needs no other."""
    return any(isinstance(term, ScoreLoss) for _, term in loss.terms)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """sqrt(min(l, r)/max(l, r) · min(t, b)/max(t, b)) of points in their boxes (Tian et al. 2019, arXiv 1904.01355)."""
    sides = encode_distances(points, boxes, 1).reshape(-1, 2, 2)
    return (sides.amin(1) / sides.amax(1)).prod(1).sqrt()


def boxes_of(rows: Tensor, points: Tensor, from_edges: bool) -> Tensor:
    """Boxes (P, 4) in strides: from the distributions (P, 74), or from the plain distances."""
    if from_edges:
        return decode_distances(points, integral(_bins(rows)), 1)
    return decode_distances(points, F.softplus(rows[:, DISTANCES] + 2), 1)


def decode(output: Tensor, loss: DetectionLoss) -> Array:
    """The boxes that one output (74, H, W) means, best first: rows of x1, y1, x2, y2 in pixels, score, class score.

    The score is the class's, times the quality's where the detector has that branch; it decides who survives too.
    """
    rows = _rows(output[None])
    plain = rows[:, SCORE.start].sigmoid()
    score = plain if loss.quality == "none" else plain * rows[:, QUALITY.start].sigmoid()
    kept = score.topk(min(_BEFORE_SUPPRESSION, len(score))).indices
    kept = kept[score[kept] >= _LEAST_SCORE]
    boxes = boxes_of(rows, grid(*output.shape[1:]).to(output.device), "edge" in loss.slots)[kept] * STRIDE
    height, width = (STRIDE * n for n in output.shape[1:])
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    first = hard_examples(score[kept], boxes, MOST_BOXES, _SUPPRESSION)
    return np.asarray(torch.cat([boxes, score[kept, None], plain[kept, None]], 1)[first].cpu())


def _bins(rows: Tensor) -> Tensor:
    """The edges' logits (P, 4, bins) of rows (P, 74)."""
    return rows[:, EDGES].reshape(-1, 4, BINS + 1)


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (N · H · W, C)."""
    return maps.movedim(1, -1).flatten(0, 2)
