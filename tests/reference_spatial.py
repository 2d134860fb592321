"""Slow references of the losses that look at where a pixel is: distances, windows and differences of neighbours.

They see valid pixels only, so that ignoring is cropping. The geometry of a target is that of its hard labels. The
distance to a set is looked for among all its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from reference_rows import Point, Row, class_mean, event, expected, over, pixel_loss, rows, split_weight, times

# ---- geometry ------------------------------------------------------------------------------------------------------


def distance(a, b, spacing) -> float:
    steps = spacing or [1.0] * len(a)
    return math.sqrt(math.fsum((step * (x - y)) ** 2 for x, y, step in zip(a, b, steps, strict=True)))


def in_window(a, b, size) -> bool:
    """Whether b is in the window of `size` pixels along each axis, `size` odd, about a."""
    return all(abs(x - y) <= size // 2 for x, y in zip(a, b, strict=True))


def to_other_side(places, inside, spacing) -> list[float] | None:
    """Distance of each place to the nearest one on the other side; None if a side is empty."""
    if all(inside) or not any(inside):
        return None
    both = list(zip(places, inside, strict=True))
    return [min(distance(a, b, spacing) for b, other in both if other != side) for a, side in both]


def label_maps(logits, target, task, weight, ignore_index) -> Iterator[list[Row]]:
    """The valid rows of each image; of each channel of it, where channels are separate."""
    maps: dict[tuple[int, int], list[Row]] = {}
    for row in rows(logits, target, task, weight, ignore_index):
        maps.setdefault((row.image, row.channel), []).append(row)
    yield from maps.values()


# ---- prices from the label map -------------------------------------------------------------------------------------


def boundary_ce(
    logits, target, *, kernel_size=3, side="both", task, weight=None, ignore_index=-100, **call
):  # fmt: skip
    """Cross-entropy on the pixels with another label in their window: Σ M ℓ / Σ M. "inner": of label > 0 only."""
    kept = set()
    for pixels in label_maps(logits, target, task, weight, ignore_index):
        for row in pixels:
            near = (other for other in pixels if in_window(row.place, other.place, kernel_size))
            if any(other.label != row.label for other in near) and (side == "both" or row.label > 0):
                kept.add(row.at)

    def price(row, cw):
        return expected(row, cw, lambda k: event(row.z, k)[0])

    call |= {"task": task, "weight": weight, "ignore_index": ignore_index}
    return pixel_loss(logits, target, price, keep=lambda row: row.at in kept, **call)


def distance_penalty(
    logits, target, *, norm="boundary", spacing=None, task, weight=None, ignore_index=-100, **call
):  # fmt: skip
    """(1 + Φ) times cross-entropy (Caliva et al. 2019), Φ a price: not in the denominator.

    With d the distance to the nearest pixel of another label, per image and label Φ = (d_max − d)/(d_max − d_min), 1 if
    they are equal; norm="max": 1 − d/d_max. Where there is no other label Φ = 0.
    """
    penalty: dict[tuple[int, ...], float] = {}
    for pixels in label_maps(logits, target, task, weight, ignore_index):
        for label in {row.label for row in pixels}:
            depth = to_other_side([row.place for row in pixels], [row.label == label for row in pixels], spacing)
            if depth is None:
                continue
            members = [(row, d) for row, d in zip(pixels, depth, strict=True) if row.label == label]
            low, high = min(d for _, d in members), max(d for _, d in members)
            for row, d in members:
                if norm == "max":
                    penalty[row.at] = 1.0 - d / high
                else:
                    penalty[row.at] = (high - d) / (high - low) if high > low else 1.0

    def price(row, cw):
        return (1.0 + penalty.get(row.at, 0.0)) * expected(row, cw, lambda k: event(row.z, k)[0])

    return pixel_loss(logits, target, price, task=task, weight=weight, ignore_index=ignore_index, **call)


def objects_of(pixels: list[Row]) -> list[list[tuple[int, ...]]]:
    """The places of each connected component of each label above 0, connected where one coordinate differs by 1."""
    left = {row.place: row.label for row in pixels if row.label > 0}
    found = []
    while left:
        place, label = left.popitem()
        members, edge = [place], [place]
        while edge:
            at = edge.pop()
            steps = [(axis, step) for axis in range(len(at)) for step in (-1, 1)]
            for beside in ((*at[:axis], at[axis] + step, *at[axis + 1 :]) for axis, step in steps):
                if left.get(beside) == label:
                    del left[beside]
                    members.append(beside)
                    edge.append(beside)
        found.append(members)
    return found


def border_ce(
    logits, target, *, w0=10.0, sigma=5.0, spacing=None, task, weight=None, ignore_index=-100, **call
):  # fmt: skip
    """Cross-entropy times w_c + w0 exp(−(d1 + d2)² / 2σ²), the second part a price (Ronneberger et al. 2015, eq. 2).

    d1 and d2 are the distances to the nearest and the second nearest object, the components of the labels above 0. A
    class of weight 0 is left out.
    """
    border: dict[tuple[int, ...], float] = {}
    for pixels in label_maps(logits, target, task, weight, ignore_index):
        objects = objects_of(pixels)
        for row in pixels if len(objects) > 1 else []:
            near = sorted(min(distance(row.place, place, spacing) for place in members) for members in objects)
            border[row.at] = w0 * math.exp(-((near[0] + near[1]) ** 2) / (2 * sigma**2))

    def price(row, cw):
        factors = [c + border.get(row.at, 0.0) if c else 0.0 for c in cw]
        return expected(row, factors, lambda k: event(row.z, k)[0])

    return pixel_loss(logits, target, price, task=task, weight=weight, ignore_index=ignore_index, **call)


# ---- maps ----------------------------------------------------------------------------------------------------------


def weighted_mean(points: list[Point], values: list[float]) -> float:
    total = math.fsum(point.w * value for point, value in zip(points, values, strict=True))
    return over(total, math.fsum(point.w for point in points))


def map_loss(logits, target, value, **call):
    """Per image, for there is no other map."""
    return class_mean(logits, target, value, per_image=True, **call)


def boundary(logits, target, *, symmetric=False, spacing=None, shifted=False, **call):
    """Mean of φ·p, φ the signed distance to the target's boundary, negative inside (Kervadec et al. 2019).

    Outside the distance d to the nearest pixel inside; inside −(d − s), d to the nearest outside, s the smallest
    spacing; symmetric: −d. shifted: φ (p − r). No pixel on one of the sides: φ = 0.
    """

    def value(c, points):
        depth = to_other_side([x.place for x in points], [x.inside for x in points], spacing)
        if depth is None:
            return math.fsum(0.0 * x.p for x in points)  # NaN stays NaN
        ring = 0.0 if symmetric else min(spacing or [1.0])
        phi = [ring - d if x.inside else d for x, d in zip(points, depth, strict=True)]
        gap = [x.p * (1.0 - x.r) - x.not_p * x.r if shifted else x.p for x in points]
        return weighted_mean(points, [f * g for f, g in zip(phi, gap, strict=True)])

    return map_loss(logits, target, value, **call)


def hausdorff(logits, target, *, alpha=2.0, one_sided=False, spacing=None, **call):
    """Mean of (p − r)² (d_p^α + d_r^α), d the distance to the other side of the mask (Karimi & Salcudean 2019).

    d_r of the target, d_p of the thresholded prediction, left out if one_sided; 0 where a mask is empty or full.
    """

    def value(c, points):
        places = [x.place for x in points]
        masks = [[x.inside for x in points]] + ([] if one_sided else [[x.guessed for x in points]])
        fields = [field for mask in masks if (field := to_other_side(places, mask, spacing)) is not None]
        terms = []
        for n, x in enumerate(points):
            gap = x.p * (1.0 - x.r) - x.not_p * x.r
            terms.append(gap * gap * math.fsum(field[n] ** alpha for field in fields))
        return weighted_mean(points, terms)

    return map_loss(logits, target, value, **call)


# ---- fields --------------------------------------------------------------------------------------------------------


def active_contour(logits, target, *, region_weight=1.0, inside_weight=1.0, eps=1e-8, **call):
    """Length + λ·region (Chen et al. 2019): mean √(|∇p|² + ε), and mean of μ p (1 − r) + (1 − p) r.

    ∇p are forward differences; it exists where a pixel and its forward neighbours are valid, along the axes which have
    more than one pixel. Such a place has the weight of its pixel.
    """
    sizes = np.shape(logits)[2:]
    axes = [axis for axis, size in enumerate(sizes) if size > 1]

    def value(c, points):
        at = {x.place: x for x in points}
        cells, lengths = [], []
        for x in points:
            ahead = [at.get(tuple(i + (k == axis) for k, i in enumerate(x.place))) for axis in axes]
            if None not in ahead:
                cells.append(x)
                lengths.append(math.sqrt(math.fsum((y.p - x.p) ** 2 for y in ahead) + eps))
        region = [inside_weight * x.p * (1.0 - x.r) + x.not_p * x.r for x in points]
        return weighted_mean(cells, lengths) + region_weight * weighted_mean(points, region)

    return map_loss(logits, target, value, **call)


def boundary_f1(logits, target, *, theta0=3, theta=5, **call):
    """1 − 2PR/(P + R) of soft boundaries (Bokhovkin & Burnaev 2019).

    The boundary of y is y^b = pool_θ0(1 − y) − (1 − y), pool the largest of a window, and its neighbourhood
    pool_θ(y^b). P = Σ p^b pool(r^b) / Σ p^b and R = Σ r^b pool(p^b) / Σ r^b. A class without a boundary in the target
    leaves the mean. Of the weights of pixels only 0 matters; those of images weigh the mean of images.
    """

    def pool(values, size):
        return {a: largest(values[b] for b in values if in_window(a, b, size)) for a in values}

    def edge(rest):  # of 1 − y
        pooled = pool(rest, theta0)
        return {place: pooled[place] - rest[place] for place in rest}

    def target_edge(points):
        return edge({x.place: 1.0 - float(x.inside) for x in points})

    def value(c, points):
        r, p = target_edge(points), edge({x.place: x.not_p for x in points})
        near_r, near_p = pool(r, theta), pool(p, theta)
        precision = over(math.fsum(p[n] * near_r[n] for n in p), math.fsum(p.values()))
        recall = over(math.fsum(r[n] * near_p[n] for n in r), math.fsum(r.values()))
        return 1.0 - over(2.0 * precision * recall, precision + recall)

    def present(points):
        return any(target_edge(points).values())

    call["absent"] = "skip"
    return map_loss(logits, target, value, present=present, **call)


def largest(values) -> float:
    some = list(values)
    return math.nan if any(math.isnan(value) for value in some) else max(some)


def nonadjacency(
    logits, target=None, *, forbidden, window=3, include_center=True, task, weight=None, denominator=None,
    ignore_index=-100, reduction="mean",
):  # fmt: skip
    """Σ_ij B_ij a_ij / Σ_ij B_ij, a_ij = 1/N Σ_n p_i(n) · (mean of p_j over the window about n) (Ganaye et al. 2018).

    B is the forbidden matrix; outside the image p = 0, which counts in the mean of the window. No pixel is masked: the
    loss does not look at the target. A binary pixel has two classes. Only weights of images mean something.
    """
    if denominator is not None:
        raise TypeError("this loss takes no denominator")
    images, channels, *space = np.shape(logits)
    sample, _ = split_weight(weight if np.ndim(weight) == 1 else None, images, tuple(space))
    b = np.asarray(forbidden, dtype=np.float64)
    values = np.zeros(images)
    for n in range(images):
        if sample[n] == 0.0:
            continue
        p = {}
        for s in np.ndindex(*space):
            z = [float(logits[(n, c, *s)]) for c in range(channels)]
            if task == "multiclass":
                p[s] = [event(z, k)[1] for k in range(channels)]
            elif task == "binary":
                p[s] = [event([0.0, z[0]], k)[1] for k in (0, 1)]
            else:
                p[s] = [event([0.0, z_c], 1)[1] for z_c in z]
        taps = window ** len(space) - (not include_center)
        terms = []
        for s in p:
            near = [t for t in p if in_window(s, t, window) and (include_center or t != s)]
            for i, j in np.ndindex(*b.shape):
                terms.append(b[i, j] * p[s][i] * over(math.fsum(p[t][j] for t in near), taps))
        values[n] = over(over(math.fsum(terms), len(p)), b.sum())
    if reduction == "none":
        return values
    total = math.fsum(times(w, value) for w, value in zip(sample, values, strict=True))
    return total if reduction == "sum" else over(total, math.fsum(sample))
