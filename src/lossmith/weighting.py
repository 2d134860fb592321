"""Class weights from the number of pixels of each class, for `class_weight=` and focal's `alpha=`.

`count_classes` counts once over the training data; a function turns the counts into weights. With n_c pixels of class
c and f_c = n_c / Σ n:

    inverse_frequency   1 / f_c, or tempered by a power
    median_frequency    the median of the classes' frequencies over the frequency, each in the images with the class
    effective_number    1 / E_c, E_c = (1 − β^n_c) / (1 − β)
    enet                1 / ln(1.02 + f_c)

A class without a pixel has weight 0. It changes no other weight, except where weights are scaled to sum to C.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .settings import plain

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """What `count_classes` counted, ignored pixels left out.

    pixels                pixels of each class, (C,)
    images                the number of images
    pixels_where_present  pixels of all images that contain the class, (C,): what median-frequency divides by
    """

    pixels: Tensor
    images: int
    pixels_where_present: Tensor


Counts = ClassCounts | Tensor | Array | Sequence[Any]


def inverse_frequency(counts: Counts, power: float = 1.0, normalise: bool = False) -> Tensor:
    """The inverse frequency of each class: 1 / f_c ** power, f_c its share of the pixels.

    Args:
        counts: `ClassCounts`, pixels per class (C,), or a table (images, C).
        power: 1 makes all classes weigh the same in total; ½ is the usual compromise; 0 weighs no class.
        normalise: scales the weights so that they sum to C, the number of classes, those without a pixel included. A
            loss with reduction="mean" is the same.

    Returns:
        float64, (C,); 0 where a class has no pixel.

    Limits: unbounded: a class of ten pixels can own the gradient.

    >>> inverse_frequency([900, 90, 10], power=0.5)
    tensor([ 1.0541,  3.3333, 10.0000], dtype=torch.float64)
    """
    who = "inverse_frequency"
    if not 0 <= power < math.inf:
        raise ValueError(f"{who}: power must be a finite number >= 0, got {power!r}")
    pixels = _pixels(who, counts)
    weight = _where_present(pixels, (pixels / pixels.sum()) ** -power)
    return _summing_to_c(weight) if normalise else weight


def median_frequency(counts: Counts) -> Tensor:
    """Median-frequency balancing: the median of the classes' frequencies, over the frequency of each.

    w_c = median_k f_k / f_c, f_c = pixels of c / pixels of all images that contain c; the median is over the classes
    that occur (of an even number, the mean of the two in the middle).

    Args:
        counts: `ClassCounts`, or a table (images, C) of pixels per image and class. Totals per class are refused: they
            do not say which images contain a class, and dividing by all images inflates the weights of rare classes.

    Returns:
        float64, (C,); 0 where a class has no pixel.

    Raises:
        TypeError: totals per class.

    Paper: Eigen & Fergus, "Predicting depth, surface normals and semantic labels", ICCV 2015, arXiv 1411.4734.

    >>> median_frequency([[80, 20, 0], [70, 30, 0], [60, 30, 10]])
    tensor([0.3810, 1.0000, 2.6667], dtype=torch.float64)
    """
    who = "median_frequency"
    if isinstance(counts, ClassCounts):
        pixels, around = _pixels(who, counts), counts.pixels_where_present.double()
    else:
        table = _table(who, counts)
        if table.ndim == 1:
            raise TypeError(
                f"{who}: {len(table)} totals per class do not say which images contain a class; "
                "give count_classes(...), or a table (images, C) of pixels"
            )
        pixels, around = _pixels(who, counts), ((table > 0) * table.sum(1, keepdim=True)).sum(0)
    frequency = pixels / around
    return _where_present(pixels, frequency[pixels > 0].quantile(0.5) / frequency)


def effective_number(counts: Counts, beta: float = 0.999) -> Tensor:
    """Class-balanced weights: the inverse of the effective number of samples, 1 / E_c, E_c = (1 − β^n_c) / (1 − β).

    Scaled so that they sum to C, the number of classes, those without a sample included.

    Args:
        counts: `ClassCounts`, samples per class (C,), or a table (images, C). The paper counts images or boxes: with
            pixels every n_c is far beyond 1 / (1 − β) and the weights come out equal, unless β is close to 1.
        beta: β in [0, 1). 0 weighs no class; towards 1 the weights become 1 / n_c.

    Returns:
        float64, (C,); 0 where a class has no sample.

    Paper: Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019, arXiv 1901.05555.

    >>> effective_number([1000, 100, 10])
    tensor([0.0422, 0.2800, 2.6778], dtype=torch.float64)
    """
    who = "effective_number"
    if not 0 <= beta < 1:
        raise ValueError(f"{who}: beta must lie in [0, 1), got {beta!r}")
    pixels = _pixels(who, counts)
    growth = math.log1p(beta - 1) if beta > 0 else -math.inf  # ln β
    number = -torch.expm1(pixels * growth) / (1 - beta)  # 1 − β^n as it stands loses its digits when β is close to 1
    return _summing_to_c(_where_present(pixels, 1 / number))


def enet(counts: Counts, c: float = 1.02) -> Tensor:
    """ENet's weights: 1 / ln(c + f_c), f_c the share of the pixels. Bounded, by 1 / ln c.

    Args:
        counts: `ClassCounts`, pixels per class (C,), or a table (images, C).
        c: at least 1; the smaller, the more a rare class weighs (50 times at most with 1.02).

    Returns:
        float64, (C,); 0 where a class has no pixel.

    Paper: Paszke et al., "ENet", 2016, arXiv 1606.02147.

    >>> enet([900, 90, 10])
    tensor([ 1.5330,  9.5822, 33.8309], dtype=torch.float64)
    """
    who = "enet"
    if not 1 <= c < math.inf:
        raise ValueError(f"{who}: c must be a finite number >= 1, or weights are negative, got {c!r}")
    pixels = _pixels(who, counts)
    return _where_present(pixels, 1 / torch.log1p((c - 1) + pixels / pixels.sum()))


def count_classes(data: Dataset[Any] | Iterable[Any], num_classes: int, ignore_index: int = -100) -> ClassCounts:
    """Counts the pixels of each class, in one pass and with the memory of one item.

    Args:
        data: one of
            a Dataset, or any iterable, of (image, target, ...) or of targets alone, each the labels of one image;
            a DataLoader of such, in whose batches the first axis runs over the images (it also reads in parallel).
            Where reading images costs time, give the targets alone: `(read_mask(path) for path in paths)`.
        num_classes: C, at least 2; a binary mask has the classes 0 and 1.
        ignore_index: the label of pixels that do not count.

    Raises:
        TypeError: an item that is not labels, or labels that are not integers.
        ValueError: no image; or a label out of range: the text names the value, the image and the pixel. Images are
            numbered from 0 in the order in which they came.

    >>> import torch, lossmith as ls
    >>> counts = ls.weighting.count_classes([torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 255, 0])], 2, 255)
    >>> counts.pixels, counts.images, counts.pixels_where_present
    (tensor([6, 1]), 2, tensor([7, 4]))
    >>> ls.CrossEntropyLoss(class_weight=ls.weighting.median_frequency(counts))
    CrossEntropyLoss(class_weight=[0.6458333333333334, 2.2142857142857144])
    """
    who = "count_classes"
    if num_classes < 2:
        raise ValueError(f"{who}: num_classes must be at least 2 (a mask has the classes 0 and 1), got {num_classes}")
    pixels, around = np.zeros((2, num_classes), np.int64)
    images = 0
    for labels in each_image(who, data):
        valid = labels != ignore_index
        kept = labels[valid]
        if kept.size and not 0 <= int(kept.min()) <= int(kept.max()) < num_classes:
            at = tuple(map(int, np.argwhere(valid & ((labels < 0) | (labels >= num_classes)))[0]))
            raise ValueError(
                f"{who}: image {images} holds {labels[at]} at {at}, but with num_classes={num_classes} labels must lie "
                f"in 0 to {num_classes - 1} (ignore_index is {ignore_index}); is {labels[at]} an ignore_index?"
            )
        counted = np.bincount(kept.astype(np.intp, copy=False), minlength=num_classes)
        pixels += counted
        around += np.where(counted > 0, kept.size, 0)
        images += 1
    if not images:
        raise ValueError(f"{who}: data holds no image; an iterator, such as a generator, can be read only once")
    return ClassCounts(torch.from_numpy(pixels), images, torch.from_numpy(around))


def each_image(who: str, data: Any) -> Iterator[Array]:
    """The labels of one image after the other."""
    batched = isinstance(data, DataLoader) and (data.batch_size is not None or data.batch_sampler is not None)
    # A Dataset without an iterator of its own need not end with an IndexError, as Python's would want: ask its length.
    items = data if hasattr(data, "__iter__") else (data[i] for i in range(len(data)))
    for number, item in enumerate(items):
        target = item[1] if isinstance(item, tuple | list) and len(item) > 1 else item
        labels = target.detach().cpu().numpy() if isinstance(target, Tensor) else np.asarray(target)
        if labels.dtype.kind not in "iub":
            what = "batch" if batched else "item"
            found = labels.dtype if labels.dtype.kind in "fc" else f"a {type(target).__name__}"
            raise TypeError(
                f"{who}: the target of {what} {number} must be integer labels, got {found}; give (image, target) pairs "
                "or labels, for example (sample['label'] for sample in data)"
            )
        yield from labels if batched else [labels]


def _table(who: str, counts: Any) -> Tensor:
    try:
        table = torch.tensor(plain(counts), dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{who}: counts must be numbers per class, got {counts!r}") from None
    if table.ndim not in (1, 2) or table.shape[-1] == 0:
        raise ValueError(f"{who}: counts must be (C,) or a table (images, C), got {tuple(table.shape)}")
    if not bool((table.isfinite() & (table >= 0)).all()):
        raise ValueError(f"{who}: counts must be finite and >= 0, got {table.tolist()}")
    return table


def _pixels(who: str, counts: Counts) -> Tensor:
    """Pixels per class, (C,), at least one of them above 0."""
    table = _table(who, counts.pixels if isinstance(counts, ClassCounts) else counts)
    pixels = table.sum(0) if table.ndim == 2 else table
    if not bool(pixels.any()):
        raise ValueError(f"{who}: no class has a pixel; is the data empty, or everything ignored?")
    return pixels


def _where_present(pixels: Tensor, weight: Tensor) -> Tensor:
    return torch.where(pixels > 0, weight, 0.0)


def _summing_to_c(weight: Tensor) -> Tensor:
    return weight * (len(weight) / weight.sum())
