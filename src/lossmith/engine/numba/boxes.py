"""The fields of an overlap for float32 boxes on a CPU, and their gradients. `plain/overlap.py` says what they are.

Boxes are worked on in blocks of 256. A block is turned into rows of one coordinate each in flat scratch that stays in
the L1 cache, and each field is one small loop over these rows: with fixed distances between rows and a fixed length,
LLVM makes vector instructions of it. A field is two functions of eight coordinates: its value, and its pull on the four
of the prediction. The rest of a block that is not full is padded with empty boxes. A NaN survives `0 if x < t else x`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .arithmetic import EXACT as INNER
from .arithmetic import HALF, LANES, ONE, TWO, ZERO
from .cache import kernel

L = LANES
X1, Y1, X2, Y2, LEFT, TOP, RIGHT, BOTTOM, VALUE, PULL, ROWS = *range(10), 13  # four rows of PULL, one a coordinate
KERNEL: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "fastmath": {"contract"}, "nogil": True}
TINY = np.float32(1e-37)


@njit(**INNER)
def positive(x):
    return ZERO if x < TINY else x


@njit(**INNER)
def sign(x):
    return ONE if x > ZERO else (-ONE if x < ZERO else ZERO)


@njit(**INNER)
def over(a, b):
    """a / b, and 0 where b is 0."""
    nothing = abs(b) < TINY
    quotient = a / (ONE if nothing else b)
    return ZERO if nothing else quotient


@njit(**INNER)
def shared(low, high, other_low, other_high):
    """The common part of two intervals, negative where there is a gap."""
    return (high if high < other_high else other_high) - (low if low > other_low else other_low)


@njit(**INNER)
def around(low, high, other_low, other_high):
    return (high if high > other_high else other_high) - (low if low < other_low else other_low)


@njit(**INNER)
def hull(low, high, other_low, other_high):
    size, centres = around(low, high, other_low, other_high), abs(shift(low, high, other_low, other_high))
    return positive(centres if size < centres else size)


@njit(**INNER)
def shift(low, high, other_low, other_high):
    return ((low - other_low) + (high - other_high)) * HALF


@njit(**INNER)
def pulls(size, common, whole, centre, low, high, other_low, other_high):
    """From the gradients of an axis' size, common part, hull and shift to those of its two coordinates.

    An edge that is in the common part is not in the hull; where two coincide, half of each.
    """
    length, both = high - low, shared(low, high, other_low, other_high)
    size = size if (length >= TINY) | (length == ZERO) else ZERO
    common = common if (both >= TINY) | (both == ZERO) else ZERO
    space, offset = around(low, high, other_low, other_high), shift(low, high, other_low, other_high)
    edges = HALF if space == abs(offset) else (ONE if space > abs(offset) else ZERO)
    inner_low = HALF if low == other_low else (ONE if low > other_low else ZERO)
    inner_high = HALF if high == other_high else (ONE if high < other_high else ZERO)
    centre = (centre + (ONE - edges) * sign(offset) * whole) * HALF
    whole = edges * whole
    at_low = centre - size - inner_low * common - (ONE - inner_low) * whole
    at_high = centre + size + inner_high * common + (ONE - inner_high) * whole
    return at_low, at_high


@njit(**INNER)
def areas(x1, y1, x2, y2, left, top, right, bottom):
    """Sizes and common parts of both axes; U − I and U."""
    w, h, other_w, other_h = positive(x2 - x1), positive(y2 - y1), positive(right - left), positive(bottom - top)
    iw, ih = positive(shared(x1, x2, left, right)), positive(shared(y1, y2, top, bottom))
    missed = (w - iw) * h + iw * (h - ih) + ((other_w - iw) * other_h + iw * (other_h - ih))
    return w, h, other_w, other_h, iw, ih, missed, missed + iw * ih


@njit(**INNER)
def lack(x1, y1, x2, y2, left, top, right, bottom):
    _, _, _, _, _, _, missed, union = areas(x1, y1, x2, y2, left, top, right, bottom)
    return ONE if abs(union) < TINY else over(missed, union)


@njit(**INNER)
def iou(x1, y1, x2, y2, left, top, right, bottom):
    _, _, _, _, iw, ih, _, union = areas(x1, y1, x2, y2, left, top, right, bottom)
    return over(iw * ih, union)


@njit(**INNER)
def iou_pull(g, x1, y1, x2, y2, left, top, right, bottom):
    w, h, _, _, iw, ih, _, union = areas(x1, y1, x2, y2, left, top, right, bottom)
    share = over(iw * ih, union)
    g = over(g, union)
    low_x, high_x = pulls(-g * share * h, g * (ONE + share) * ih, ZERO, ZERO, x1, x2, left, right)
    low_y, high_y = pulls(-g * share * w, g * (ONE + share) * iw, ZERO, ZERO, y1, y2, top, bottom)
    return low_x, low_y, high_x, high_y


@njit(**INNER)
def lack_pull(g, x1, y1, x2, y2, left, top, right, bottom):
    return iou_pull(-g, x1, y1, x2, y2, left, top, right, bottom)


@njit(**INNER)
def spare(x1, y1, x2, y2, left, top, right, bottom):
    w, h, other_w, other_h, iw, ih, _, _ = areas(x1, y1, x2, y2, left, top, right, bottom)
    cw, ch = hull(x1, x2, left, right), hull(y1, y2, top, bottom)
    a, b, c, d = w - iw, other_w - iw, h - ih, other_h - ih
    cover = iw + a + b
    corners = a * d + b * c + (cw - cover) * ch + (ch - (ih + c + d)) * cover
    return over(corners, cw * ch)


@njit(**INNER)
def spare_pull(g, x1, y1, x2, y2, left, top, right, bottom):
    """1 − U/A."""
    w, h, _, _, iw, ih, _, union = areas(x1, y1, x2, y2, left, top, right, bottom)
    cw, ch = hull(x1, x2, left, right), hull(y1, y2, top, bottom)
    g, full = over(g, cw * ch), over(union, cw * ch)
    low_x, high_x = pulls(-g * h, g * ih, g * full * ch, ZERO, x1, x2, left, right)
    low_y, high_y = pulls(-g * w, g * iw, g * full * cw, ZERO, y1, y2, top, bottom)
    return low_x, low_y, high_x, high_y


@njit(**INNER)
def drift(x1, y1, x2, y2, left, top, right, bottom):
    dx, dy = shift(x1, x2, left, right), shift(y1, y2, top, bottom)
    cw, ch = hull(x1, x2, left, right), hull(y1, y2, top, bottom)
    return over(dx * dx + dy * dy, cw * cw + ch * ch)


@njit(**INNER)
def drift_pull(g, x1, y1, x2, y2, left, top, right, bottom):
    dx, dy = shift(x1, x2, left, right), shift(y1, y2, top, bottom)
    cw, ch = hull(x1, x2, left, right), hull(y1, y2, top, bottom)
    diagonal = cw * cw + ch * ch
    g, share = TWO * over(g, diagonal), over(dx * dx + dy * dy, diagonal)
    low_x, high_x = pulls(ZERO, ZERO, -g * share * cw, g * dx, x1, x2, left, right)
    low_y, high_y = pulls(ZERO, ZERO, -g * share * ch, g * dy, y1, y2, top, bottom)
    return low_x, low_y, high_x, high_y


@njit(**INNER)
def angle(w, h):
    """atan(w / h) for sizes, 0 for a point: atan of the smaller over the larger, by its series about 0 or tan(π/8)."""
    small, large = (w, h) if w < h else (h, w)
    t = over(small, large)
    far = t > np.float32(0.41421356)
    r = (t - ONE) / (t + ONE) if far else t
    z = r * r
    q = np.float32(8.05374449538e-2)
    q = q * z - np.float32(1.38776856032e-1)
    q = q * z + np.float32(1.99777106478e-1)
    q = q * z - np.float32(3.33329491539e-1)
    a = q * z * r + r
    a = a + np.float32(0.78539816) if far else a
    a = np.float32(1.5707963268) - a if w > h else a
    return ZERO if w * w + h * h < TINY else a


@njit(**INNER)
def turn(x1, y1, x2, y2, left, top, right, bottom):
    return angle(positive(right - left), positive(bottom - top)) - angle(positive(x2 - x1), positive(y2 - y1))


@njit(**INNER)
def turn_pull(g, x1, y1, x2, y2, left, top, right, bottom):
    w, h = positive(x2 - x1), positive(y2 - y1)
    g = over(g, w * w + h * h)
    low_x, high_x = pulls(-g * h, ZERO, ZERO, ZERO, x1, x2, left, right)
    low_y, high_y = pulls(g * w, ZERO, ZERO, ZERO, y1, y2, top, bottom)
    return low_x, low_y, high_x, high_y


@njit(**INNER)
def saturated(x):
    """1 − e^−x for x in [0, 2]: of x/4 by its polynomial of best fit, then 1 − (1 − m)² twice: nothing cancels."""
    y = x * np.float32(0.25)
    m = np.float32(-0.0011234042) * y + np.float32(0.0081896136)
    m = m * y - np.float32(0.0416300728)
    m = m * y + np.float32(0.1666624187)
    m = m * y - np.float32(0.4999998188)
    m = (m * y + ONE) * y
    m = m * (TWO - m)
    return m * (TWO - m)


@njit(**INNER)
def detour(x1, y1, x2, y2, left, top, right, bottom):
    dx, dy = shift(x1, x2, left, right), shift(y1, y2, top, bottom)
    rx, ry = over(dx, hull(x1, x2, left, right)), over(dy, hull(y1, y2, top, bottom))
    steep = TWO - over(TWO * abs(dx) * abs(dy), dx * dx + dy * dy)
    return saturated(steep * rx * rx) + saturated(steep * ry * ry)


@njit(**INNER)
def detour_pull(g, x1, y1, x2, y2, left, top, right, bottom):
    dx, dy = shift(x1, x2, left, right), shift(y1, y2, top, bottom)
    cw, ch = hull(x1, x2, left, right), hull(y1, y2, top, bottom)
    rx, ry, size = over(dx, cw), over(dy, ch), dx * dx + dy * dy
    slant = over(TWO * abs(dx) * abs(dy), size)
    steep = TWO - slant
    gx = g * rx * (ONE - saturated(steep * rx * rx))
    gy = g * ry * (ONE - saturated(steep * ry * ry))
    turned = TWO * over(-(gx * rx + gy * ry), size)
    gx, gy = TWO * steep * over(gx, cw), TWO * steep * over(gy, ch)
    at_x, at_y = turned * (sign(dx) * abs(dy) - slant * dx), turned * (sign(dy) * abs(dx) - slant * dy)
    low_x, high_x = pulls(ZERO, ZERO, -gx * rx, gx + at_x, x1, x2, left, right)
    low_y, high_y = pulls(ZERO, ZERO, -gy * ry, gy + at_y, y1, y2, top, bottom)
    return low_x, low_y, high_x, high_y


@njit(**INNER)
def grown(low, high, other_low, other_high):
    more = positive(high - low) - positive(other_high - other_low)
    return over(more, hull(low, high, other_low, other_high))


@njit(**INNER)
def grown_pull(g, low, high, other_low, other_high):
    whole = hull(low, high, other_low, other_high)
    g, share = over(g, whole), over(positive(high - low) - positive(other_high - other_low), whole)
    return pulls(g, ZERO, -g * share, ZERO, low, high, other_low, other_high)


@njit(**INNER)
def shape(low, high, other_low, other_high):
    size, other = positive(high - low), positive(other_high - other_low)
    return saturated(over(abs(size - other), size if size > other else other))


@njit(**INNER)
def shape_pull(g, low, high, other_low, other_high):
    size, other = positive(high - low), positive(other_high - other_low)
    larger = size if size > other else other
    misfit = over(abs(size - other), larger)
    g = over(g * (ONE - saturated(misfit)), larger)
    own = HALF if size == other else (ONE if size > other else ZERO)
    return pulls(g * (sign(size - other) - own * misfit), ZERO, ZERO, ZERO, low, high, other_low, other_high)


@njit(**INNER)
def each(field, s):
    for i in range(LANES):
        s[VALUE * L + i] = field(
            s[i], s[L + i], s[2 * L + i], s[3 * L + i], s[4 * L + i], s[5 * L + i], s[6 * L + i], s[7 * L + i]
        )


@njit(**INNER)
def along(field, s, axis):
    for i in range(LANES):
        s[VALUE * L + i] = field(s[axis * L + i], s[(axis + 2) * L + i], s[(axis + 4) * L + i], s[(axis + 6) * L + i])


@njit(**INNER)
def each_pull(pull, s):
    for i in range(LANES):
        a, b, c, d = pull(
            s[VALUE * L + i],
            s[i],
            s[L + i],
            s[2 * L + i],
            s[3 * L + i],
            s[4 * L + i],
            s[5 * L + i],
            s[6 * L + i],
            s[7 * L + i],
        )
        s[PULL * L + i] += a
        s[(PULL + 1) * L + i] += b
        s[(PULL + 2) * L + i] += c
        s[(PULL + 3) * L + i] += d


@njit(**INNER)
def along_pull(pull, s, axis):
    for i in range(LANES):
        a, b = pull(
            s[VALUE * L + i], s[axis * L + i], s[(axis + 2) * L + i], s[(axis + 4) * L + i], s[(axis + 6) * L + i]
        )
        s[(PULL + axis) * L + i] += a
        s[(PULL + 2 + axis) * L + i] += b


@njit(**INNER)
def spread(boxes, count, s, row):
    for i in range(count):
        s[row * L + i] = boxes[4 * i]
        s[(row + 1) * L + i] = boxes[4 * i + 1]
        s[(row + 2) * L + i] = boxes[4 * i + 2]
        s[(row + 3) * L + i] = boxes[4 * i + 3]


@njit(**INNER)
def load(s, a, b, at, count):
    """A block of boxes as rows of coordinates."""
    spread(a[4 * at : 4 * (at + count)], count, s, X1)
    spread(b[4 * at : 4 * (at + count)], count, s, LEFT)
    for k in range(8):
        for i in range(count, LANES):
            s[k * L + i] = ZERO


@kernel(**KERNEL)
def fields(begin, end, s, numbers, a, b, out):
    """The fields of boxes `begin` to `end`: row k of `out` holds field `numbers[k]`."""
    boxes = len(a) // 4
    for at in range(begin, end, LANES):
        count = min(LANES, end - at)
        load(s, a, b, at, count)
        for k in range(len(numbers)):
            number = numbers[k]
            if number == 0:
                each(lack, s)
            elif number == 1:
                each(iou, s)
            elif number == 2:
                each(spare, s)
            elif number == 3:
                each(drift, s)
            elif number == 4:
                each(turn, s)
            elif number == 5:
                each(detour, s)
            elif number == 6:
                along(grown, s, 0)
            elif number == 7:
                along(grown, s, 1)
            elif number == 8:
                along(shape, s, 0)
            else:
                along(shape, s, 1)
            row = out[k * boxes + at : k * boxes + at + count]
            for i in range(count):
                row[i] = s[VALUE * L + i]


@kernel(**KERNEL)
def gradient(begin, end, s, numbers, a, b, upstream, out):
    """Σ upstream · ∂field/∂prediction over the fields, for boxes `begin` to `end`; `out` is laid out like the boxes."""
    boxes = len(a) // 4
    for at in range(begin, end, LANES):
        count = min(LANES, end - at)
        load(s, a, b, at, count)
        for i in range(PULL * LANES, ROWS * LANES):
            s[i] = ZERO
        for k in range(len(numbers)):
            number = numbers[k]
            row = upstream[k * boxes + at : k * boxes + at + count]
            for i in range(count):
                s[VALUE * L + i] = row[i]
            for i in range(count, LANES):
                s[VALUE * L + i] = ZERO
            if number == 0:
                each_pull(lack_pull, s)
            elif number == 1:
                each_pull(iou_pull, s)
            elif number == 2:
                each_pull(spare_pull, s)
            elif number == 3:
                each_pull(drift_pull, s)
            elif number == 4:
                each_pull(turn_pull, s)
            elif number == 5:
                each_pull(detour_pull, s)
            elif number == 6:
                along_pull(grown_pull, s, 0)
            elif number == 7:
                along_pull(grown_pull, s, 1)
            elif number == 8:
                along_pull(shape_pull, s, 0)
            else:
                along_pull(shape_pull, s, 1)
        whole = out[4 * at : 4 * (at + count)]
        for i in range(count):
            whole[4 * i] = s[PULL * L + i]
            whole[4 * i + 1] = s[(PULL + 1) * L + i]
            whole[4 * i + 2] = s[(PULL + 2) * L + i]
            whole[4 * i + 3] = s[(PULL + 3) * L + i]
