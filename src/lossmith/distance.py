"""Exact signed distance maps: how far each pixel is from the boundary of a class, and on which side of it.

    d(n) = + distance from n to the nearest valid pixel of the class      outside of it
           − distance from n to the nearest valid pixel of the rest       inside of it

Distances run between pixel centres, so the layers next to the boundary are +h and −h with h the spacing, and none is 0.
Everything else follows from this map: its absolute value is the two-sided field of the Hausdorff loss, and
`zero_ring` makes the boundary loss's map of it.

`gap_map` measures between objects instead: how far each pixel is from the nearest two of them together.

Ignored pixels belong to neither side: nothing is measured to them, and their own value is 0. Ignoring a margin is
therefore the same as cropping it away. A class that is absent, or that has no valid pixel outside, has no boundary:
its map is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .engine.choice import on_device

Array = np.ndarray[Any, Any]


def signed_distance_map(
    labels: Tensor | Array,
    num_classes: int,
    spacing: Sequence[float] | None = None,
    ignore_index: int = -100,
    *,
    batched: bool = True,
) -> Tensor:
    """The signed distance map of every class: positive outside, negative inside, 0 where there is no boundary.

    A map depends on the labels alone, so a Dataset can make it in its workers, after the image was augmented:
    `signed_distance_map(label, num_classes, batched=False)` of one sample; the DataLoader stacks the maps to what
    `distance=` of a loss takes. Inside a worker it keeps to one core, since torch does.

    Args:
        labels: integers or bool, a tensor or an array, (N, *S) with one to three axes S; with `batched=False` one
            sample, (*S). Never with a channel axis.
        num_classes: C. With 1, the labels are 0 and 1, and the one map is that of the 1.
        spacing: the size of a pixel along each axis of S, in the axes' order (SimpleITK names them in reverse);
            the distances have its unit. None: 1 each, distances in pixels.
        ignore_index: the label of pixels that do not count.
        batched: whether the first axis of `labels` runs over samples.

    Returns:
        float32, (N, C, *S), or (C, *S) with `batched=False`, on the device of `labels`. Computed on the CPU, by the
        package `edt` if it is installed, else by scipy; in a time that grows with C times the number of pixels.

    Raises:
        TypeError: labels that are not integers.
        ValueError: a wrong number of axes, a label out of range, a spacing that is not one positive number per axis.

    >>> import torch, lossmith as ls
    >>> ls.distance.signed_distance_map(torch.tensor([[0, 0, 1, 1, 1, 0]]), num_classes=1)
    tensor([[[ 2.,  1., -1., -2., -1.,  1.]]])
    """
    who = "signed_distance_map"
    device = labels.device if isinstance(labels, Tensor) else torch.device("cpu")
    given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if given.dtype.kind not in "iub":
        raise TypeError(f"{who}: labels must be integers, got {given.dtype}; use labels.long() or labels.astype(int)")
    if num_classes < 1:
        raise ValueError(f"{who}: num_classes must be at least 1, got {num_classes}")
    if not 1 <= given.ndim - batched <= 3:
        expected = "(N, *S), or one sample (*S) with batched=False" if batched else "one sample (*S), or batched=True"
        raise ValueError(f"{who}: labels must be {expected}, with one to three axes S, got {given.shape}")
    if not batched:
        given = given[None]
    valid = given != ignore_index
    top = max(num_classes - 1, 1)
    strange = given[valid & ((given < 0) | (given > top))]
    if strange.size:
        raise ValueError(
            f"{who}: the labels hold {strange[0]}, but with num_classes={num_classes} they must lie in 0 to {top} "
            f"(ignore_index is {ignore_index}); is {strange[0]} an ignore_index?"
        )
    classes = [1] if num_classes == 1 else range(num_classes)
    masks = np.stack([given == k for k in classes], 1)
    step = _checked_spacing(who, spacing, given.ndim - 1)
    maps = torch.from_numpy(_signed(masks, valid[:, None], step)).to(device)
    return maps if batched else maps[0]


def signed_distances(
    mask: Tensor, valid: Tensor | None = None, spacing: Sequence[float] | None = None, *, double: bool = False
) -> Tensor:
    """The signed distance map of every mask, for masks that overlap or that a model has predicted.

    Works under `torch.compile` and `torch.vmap`. Has no gradient, as masks have none.

    Args:
        mask: bool, (N, C, *S) with one to three axes S.
        valid: bool, (N, C, *S) or (N, 1, *S): which pixels count. None: all.
        spacing: see `signed_distance_map`.
        double: in float64, by scipy.

    Returns:
        float32 or float64, (N, C, *S), on the device of `mask`.

    Raises:
        TypeError: masks that are not bool.
        ValueError: shapes that do not fit, or a wrong spacing.

    >>> import torch
    >>> signed_distances(torch.tensor([[[True, True, False, False]]]), spacing=(0.5,))
    tensor([[[-1.0000, -0.5000,  0.5000,  1.0000]]])
    """
    who = "signed_distances"
    for name, given in (("mask", mask), ("valid", valid)):
        if given is not None and given.dtype != torch.bool:
            raise TypeError(f"{who}: {name} must be bool, got {given.dtype}")
    n, c, *space = mask.shape if mask.ndim > 1 else (0, 0)
    if not 1 <= len(space) <= 3:
        raise ValueError(f"{who}: mask must be (N, C, *S) with one to three axes S, got {tuple(mask.shape)}")
    if valid is not None and tuple(valid.shape) not in ((n, c, *space), (n, 1, *space)):
        raise ValueError(
            f"{who}: a mask {tuple(mask.shape)} needs valid {(n, c, *space)} or {(n, 1, *space)}, "
            f"got {tuple(valid.shape)}"
        )
    valid = mask.new_ones((n, 1, *space)) if valid is None else valid
    maps: Tensor = _opaque(mask, valid, list(_checked_spacing(who, spacing, len(space))), double)
    return maps


def zero_ring(distance: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
    """The map of the boundary loss's authors: inside, −(d − h) instead of −d, with h the smallest spacing.

    The first layer inside is 0 then, and the first outside is +1: there is no gradient on the inner ring.

    >>> import torch
    >>> zero_ring(torch.tensor([2.0, 1.0, -1.0, -2.0]))
    tensor([ 2.,  1.,  0., -1.])
    """
    h = 1.0 if spacing is None else min(spacing)
    return distance.clamp(-h, 0.0).neg_().add_(distance)  # one new map, not two: that is what its time goes to


def gap_map(
    objects: Tensor | Array, spacing: Sequence[float] | None = None, ignore_index: int = -100, *, batched: bool = True
) -> Tensor:
    """How wide the gap between objects is at every pixel: the distance to the nearest object plus that to the second.

    What `border_ce` takes as `gap=`. Made of instance labels it tells touching objects apart, which no map of classes
    can; like a distance map it can be made in the workers of a DataLoader.

    Args:
        objects: integers, (N, *S) with one to three axes S, or one sample (*S) with `batched=False`: a number above 0
            for each object, 0 for what is none.
        spacing: the size of a pixel along each axis of S. None: 1 each.
        ignore_index: the label of pixels that do not count.
        batched: whether the first axis runs over samples.

    Returns:
        float32, shaped like `objects`, on their device: 0 + d inside an object, d to the nearest other; infinite where
        there are fewer than two objects, and at ignored pixels.

    Raises:
        TypeError: objects that are not integers.
        ValueError: a wrong number of axes, a negative number that is not `ignore_index`, a wrong spacing.

    >>> import torch, lossmith as ls
    >>> ls.distance.gap_map(torch.tensor([[1, 1, 0, 0, 2]]))
    tensor([[4., 3., 3., 3., 3.]])
    """
    who = "gap_map"
    device = objects.device if isinstance(objects, Tensor) else torch.device("cpu")
    given = objects.detach().cpu().numpy() if isinstance(objects, Tensor) else np.asarray(objects)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{who}: objects must be integers, one number each, got {given.dtype}")
    if not 1 <= given.ndim - batched <= 3:
        expected = "(N, *S), or one sample (*S) with batched=False" if batched else "one sample (*S), or batched=True"
        raise ValueError(f"{who}: objects must be {expected}, with one to three axes S, got {given.shape}")
    given = given if batched else given[None]
    valid = given != ignore_index
    if (given[valid] < 0).any():
        raise ValueError(f"{who}: objects are numbered from 1, 0 is none, got {given[valid].min()}; is it ignored?")
    step = _checked_spacing(who, spacing, given.ndim - 1)
    maps = torch.from_numpy(np.stack([_gaps(one, ok, step) for one, ok in zip(given, valid, strict=True)])).to(device)
    return maps if batched else maps[0]


def gaps(labels: Tensor, valid: Tensor, spacing: Sequence[float] | None = None, *, double: bool = False) -> Tensor:
    """`gap_map` of the connected components of each class above 0, faces connecting; two classes are two objects.

    Args:
        labels: integers, (K, *S) with one to three axes S.
        valid: bool, like the labels: which pixels count.
        double: in float64.
    """
    maps: Tensor = _opaque_gaps(labels, valid, list(_checked_spacing("gaps", spacing, labels.ndim - 1)), double)
    return maps


def _components(labels: Array) -> Array:
    """A number above 0 for each connected component of each class above 0."""
    from scipy.ndimage import label  # type: ignore[import-untyped]

    objects = np.zeros(labels.shape, np.int64)
    for k in np.unique(labels[labels > 0]):
        found, _ = label(labels == k)
        objects = np.where(found > 0, found + objects.max(), objects)
    return objects


def _gaps(objects: Array, valid: Array, spacing: tuple[float, ...], double: bool = False) -> Array:
    """The distance to the nearest object plus that to the second, exactly, by a few distance transforms.

    The object that is second at a pixel is a neighbour of the nearest one: their areas of influence touch. So let
    neighbours have different colours; then it is the nearest of the objects that do not have the colour of the first.
    """
    from scipy.ndimage import distance_transform_edt

    maps = np.full(objects.shape, np.inf, np.float64 if double else np.float32)
    if not maps.size:
        return maps
    numbers, objects = np.unique(np.where(valid & (objects > 0), objects, 0), return_inverse=True)
    objects = objects.reshape(maps.shape)  # 0 for none, if there is such a pixel
    if numbers[0] != 0:
        objects, numbers = objects + 1, np.concatenate([[0], numbers])
    if len(numbers) < 3:
        return maps
    first, at = distance_transform_edt(objects == 0, sampling=spacing, return_indices=True)
    colours = _colours(objects[tuple(at)], len(numbers))
    mine = colours[objects[tuple(at)]]
    for colour in range(colours.max() + 1):
        others = (objects > 0) & (colours[objects] != colour)
        second = distance_transform_edt(~others, sampling=spacing)
        maps = np.where(mine == colour, first + second, maps)
    return np.where(valid, maps, np.inf).astype(maps.dtype if double else np.float32)


def _colours(owner: Array, count: int) -> Array:
    """A colour for each number below `count`, another for numbers that lie within two pixels of each other."""
    beside: list[set[int]] = [set() for _ in range(count)]
    for step in np.ndindex((5,) * owner.ndim):
        shift = [k - 2 for k in step]
        here = owner[tuple(slice(max(0, -k), owner.shape[i] - max(0, k)) for i, k in enumerate(shift))]
        there = owner[tuple(slice(max(0, k), owner.shape[i] - max(0, -k)) for i, k in enumerate(shift))]
        differ = here != there
        for a, b in set(zip(here[differ].tolist(), there[differ].tolist(), strict=True)):
            beside[a].add(b)
    colours = np.zeros(count, np.int64)
    for number in range(1, count):
        taken = {colours[other] for other in beside[number] if other < number}
        colours[number] = next(colour for colour in range(count) if colour not in taken)
    return colours


# One operator to torch: compilers do not look inside.
@torch.library.custom_op(
    "lossmith::signed_distances",
    mutates_args=(),
    schema="(Tensor mask, Tensor valid, float[] spacing, bool double) -> Tensor",
)
def _opaque(mask: Tensor, valid: Tensor, spacing: list[float], double: bool) -> Tensor:
    if double:
        return _by_cpu(mask, valid, spacing, double)  # the kernels know float32 only
    return on_device(mask.device, "distance.signed", _by_cpu, mask, valid, spacing)


def _by_cpu(mask: Tensor, valid: Tensor, spacing: Sequence[float], double: bool = False) -> Tensor:
    maps = _signed(mask.cpu().numpy(), valid.cpu().numpy(), tuple(spacing), double)
    return torch.from_numpy(maps).to(mask.device)


@_opaque.register_fake
def _(mask: Tensor, valid: Tensor, spacing: list[float], double: bool) -> Tensor:
    return mask.new_empty(mask.shape, dtype=torch.float64 if double else torch.float32)


@_opaque.register_vmap
def _(
    info: Any, axes: tuple[int | None, ...], mask: Tensor, valid: Tensor, spacing: list[float], double: bool
) -> tuple[Tensor, int]:
    masks, valids = _batched(info, axes, mask, valid)
    maps: Tensor = _opaque(masks.flatten(0, 1), valids.flatten(0, 1), spacing, double)
    return maps.reshape(masks.shape), 0


@torch.library.custom_op(
    "lossmith::gaps", mutates_args=(), schema="(Tensor labels, Tensor valid, float[] spacing, bool double) -> Tensor"
)
def _opaque_gaps(labels: Tensor, valid: Tensor, spacing: list[float], double: bool) -> Tensor:
    each = zip(labels.cpu().numpy(), valid.cpu().numpy(), strict=True)
    maps = [_gaps(_components(np.where(ok, one, 0)), ok, tuple(spacing), double) for one, ok in each]
    empty = np.zeros(labels.shape, np.float64 if double else np.float32)
    return torch.from_numpy(np.stack(maps) if maps else empty).to(labels.device)


@_opaque_gaps.register_fake
def _(labels: Tensor, valid: Tensor, spacing: list[float], double: bool) -> Tensor:
    return labels.new_empty(labels.shape, dtype=torch.float64 if double else torch.float32)


@_opaque_gaps.register_vmap
def _(
    info: Any, axes: tuple[int | None, ...], labels: Tensor, valid: Tensor, spacing: list[float], double: bool
) -> tuple[Tensor, int]:
    some = _batched(info, axes, labels, valid)
    maps: Tensor = _opaque_gaps(*(x.flatten(0, 1) for x in some), spacing, double)
    return maps.reshape(some[0].shape), 0


def _batched(info: Any, axes: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """The axis that vmap runs over in front of each."""
    return [
        x.expand(info.batch_size, *x.shape) if axis is None else x.movedim(axis, 0)
        for x, axis in zip(tensors, axes, strict=False)
    ]


def _signed(mask: Array, valid: Array, spacing: tuple[float, ...], double: bool = False) -> Array:
    distance_to = _transform(double)
    maps = np.zeros(mask.shape, np.float64 if double else np.float32)
    valid = np.broadcast_to(valid, mask.shape)
    for one in np.ndindex(mask.shape[:2]):
        inside, outside = mask[one] & valid[one], ~mask[one] & valid[one]
        if inside.any() and outside.any():  # a transform without any point to measure to returns nonsense
            maps[one] = np.where(inside, -distance_to(outside, spacing), distance_to(inside, spacing)) * valid[one]
    return maps


def _transform(double: bool = False) -> Callable[[Array, tuple[float, ...]], Array]:
    """The distance of every pixel to the nearest of some points, by the faster of the packages that are installed."""
    if double:
        return _by_scipy  # edt knows float32 only
    try:
        from edt import edt  # type: ignore[import-not-found]
    except ImportError:
        return _by_scipy

    def transform(points: Array, spacing: tuple[float, ...]) -> Array:
        # edt adds up steps along the last axis in float32. Steps of 1 add up exactly, steps of 0.1 lose digits.
        unit = spacing[-1]
        steps = tuple(h / unit for h in spacing)
        away: Array = edt(
            np.ascontiguousarray(~points),
            anisotropy=steps if len(steps) > 1 else steps[0],
            black_border=False,  # what lies beyond the image is not outside of the class
            parallel=torch.get_num_threads() if points.ndim == 3 else 1,  # planes are over before threads start
        )
        return away * unit

    return transform


def _by_scipy(points: Array, spacing: tuple[float, ...]) -> Array:
    from scipy.ndimage import distance_transform_edt

    away: Array = distance_transform_edt(~points, sampling=spacing)
    return away


def _checked_spacing(who: str, spacing: Sequence[float] | None, axes: int) -> tuple[float, ...]:
    if spacing is None:
        return (1.0,) * axes
    try:
        steps = tuple(map(float, spacing))
    except (TypeError, ValueError):
        steps = ()
    if len(steps) != axes or not all(0 < h < math.inf for h in steps):
        example = ", ".join(["0.5"] * axes) + ("," if axes == 1 else "")
        raise ValueError(f"{who}: spacing needs {axes} positive numbers, one per axis, as ({example}), got {spacing!r}")
    return steps
