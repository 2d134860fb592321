"""The bounding-box regression experiment of the DIoU paper (Zheng et al. 2020, arXiv 1911.08287).

Boxes (cx, cy, w, h) walk to a target by gradient descent on a loss alone, without a network. Targets of unit area in
seven aspect ratios sit at (10, 10). Anchors are drawn uniformly in the disc of radius 3 around it, and stand there in
seven areas times seven aspect ratios: 343 cases a point, 1,715,000 with 5000 points. A step is

    box ← box − η (2 − IoU) ∂loss/∂box        η = 0.1 for 160 iterations, 0.01 for 20, 0.001 for 20

and the error of a case is |Δcx| + |Δcy| + |Δw| + |Δh| after the step.

The gradients of the authors' script are not those of the losses they are named after. Each difference is a bit of
`deviations`, so that any set of them can be run: none of them is the true gradient, `SCRIPT` has all of a loss. Only
the 1e-7 in the denominator of the script's alpha, which changes nothing, is left out.

A side can become negative when a step overshoots. Neither form does anything about it, as the script does not: such a
box overlaps nothing and goes on by the same formulas. `Course.turned` counts these cases.

The kernels stand in one file, because what is kept of them follows one file at a time.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from lossmith.engine.numba.cache import kernel

Array = np.ndarray[Any, Any]

LOSSES = ("iou", "giou", "diou", "ciou", "eiou", "siou", "smooth_l1")
IOU, GIOU, DIOU, CIOU, EIOU, SIOU, SMOOTH_L1 = range(7)

DOUBLE_STEP, UNCLAMPED, BOTH_SIDES, CENTRE_SIGN, COVER_SIGN, NO_ASPECT_NORM = 1, 2, 4, 8, 16, 32
SCRIPT = {
    "iou": DOUBLE_STEP,
    "giou": DOUBLE_STEP | UNCLAMPED,
    "diou": DOUBLE_STEP | BOTH_SIDES | CENTRE_SIGN | COVER_SIGN,
    "ciou": DOUBLE_STEP | BOTH_SIDES | CENTRE_SIGN | COVER_SIGN | NO_ASPECT_NORM,
}

RATES = np.repeat([0.1, 0.01, 0.001], [160, 20, 20])
MARKS = (1, 30, 100, 160, 200)  # the iterations at which the error of each anchor point is kept
CENTRE, RADIUS = 10.0, 3.0
AREAS = np.array([0.5, 0.67, 0.75, 1, 1.33, 1.5, 2])
RATIOS = np.array([1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4])  # w / h
CASES_PER_POINT = RATIOS.size * AREAS.size * RATIOS.size
PAPER_POINTS = 5000

_CHUNK = 25  # points in a task: few enough to stop within a second, enough to be worth one


class Run(NamedTuple):
    loss: str
    deviations: int = 0


class Course(NamedTuple):
    """What a run leaves.

    totals  (200,) the error summed over all cases, after each iteration
    marks   (points, 5) the error summed over the cases of an anchor point, after the iterations MARKS
    turned  how many cases had w ≤ 0 or h ≤ 0 at some time
    """

    totals: Array
    marks: Array
    turned: int

    def scaled(self) -> Array:
        """The totals (200,) brought to the 1,715,000 cases of the paper."""
        return self.totals * (PAPER_POINTS / len(self.marks))

    def at(self, iteration: int) -> Array:
        """The error of each anchor point (points,) after an iteration out of MARKS, brought to the paper's 5000 points.

        The mean is the scaled total.
        """
        column: Array = self.marks[:, MARKS.index(iteration)] * PAPER_POINTS
        return column


def form_run(loss: str, form: str) -> Run:
    """A loss in the true or the published form. Of EIoU, SIoU and smooth L1 there is no script: they stay true."""
    return Run(loss, SCRIPT.get(loss, 0) if form == "published" else 0)


def ablation_runs() -> list[Run]:
    """Of each loss that the script bends in more than one way: true, one deviation alone, all but one, all."""
    runs = []
    for loss in ("giou", "diou", "ciou"):
        bits = deviations_of(loss)
        runs += [Run(loss), *(Run(loss, bit) for bit in bits)]
        runs += [*(Run(loss, SCRIPT[loss] & ~bit) for bit in bits), Run(loss, SCRIPT[loss])]
    return list(dict.fromkeys(runs))


def deviations_of(loss: str) -> list[int]:
    """The script's deviations for a loss, one bit each."""
    return [1 << i for i in range(SCRIPT[loss].bit_length()) if SCRIPT[loss] >> i & 1]


def draw_points(points: int, seed: int) -> Array:
    """Anchor points (points, 2), uniform in the disc."""
    random = np.random.default_rng(seed)
    radius = RADIUS * np.sqrt(random.random(points))
    angle = 2 * np.pi * random.random(points)
    return CENTRE + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def simulate(points: Array, runs: list[Run], watch: Callable[[int], None]) -> tuple[dict[Run, Course], bool]:
    """Walk all cases of `points` in each of `runs`. Returns the courses, and whether Ctrl-C stopped the work.

    After Ctrl-C the courses hold the points that were finished in every run, in the order given; none: no courses.
    The result does not depend on the number of cores. `watch(cases)` is called as they get done, from any thread.
    """
    stop = threading.Event()

    def work(part: Array) -> list[Course]:
        courses = []
        for run in runs:
            if stop.is_set():
                raise CancelledError
            errors = np.zeros((len(part), RATES.size))
            turned = _walk(LOSSES.index(run.loss), run.deviations, part, RATES, errors)
            courses.append(Course(errors.sum(0), errors[:, [k - 1 for k in MARKS]], turned))
            watch(len(part) * CASES_PER_POINT)
        return courses

    finished: list[list[Course]] = []
    stopped = False
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for task in [pool.submit(work, points[i : i + _CHUNK]) for i in range(0, len(points), _CHUNK)]:
            finished.append(task.result())
    except KeyboardInterrupt:
        stopped = True
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    courses = {run: _join([chunk[i] for chunk in finished]) for i, run in enumerate(runs) if finished}
    return courses, stopped


def totals(courses: dict[Run, Course], form: str) -> dict[str, list[float]]:
    """The scaled totals of every loss in a form, 200 numbers each."""
    return {loss: courses[form_run(loss, form)].scaled().tolist() for loss in LOSSES}


def disjoint_share(points: Array) -> float:
    """The share of all cases whose anchor does not touch its target."""
    W, H, w, h = _sides()
    dx, dy = np.abs(points - CENTRE).T
    return float(np.mean([np.mean((dx >= x) | (dy >= y)) for x, y in zip((W + w) / 2, (H + h) / 2, strict=True)]))


def start_error(points: Array) -> float:
    """The total error before the first iteration, brought to the 1,715,000 cases of the paper."""
    W, H, w, h = _sides()
    apart = np.abs(points - CENTRE).sum(1).mean() * CASES_PER_POINT
    return float(apart + np.abs(w - W).sum() + np.abs(h - H).sum()) * PAPER_POINTS


def _sides() -> tuple[Array, Array, Array, Array]:
    """Width and height of the target and of the anchor, of each case of a point."""
    ratio, area, own = (a.ravel() for a in np.meshgrid(RATIOS, AREAS, RATIOS, indexing="ij"))
    return np.sqrt(ratio), 1 / np.sqrt(ratio), np.sqrt(area * own), np.sqrt(area / own)


def _join(parts: list[Course]) -> Course:
    return Course(
        np.sum([part.totals for part in parts], axis=0),
        np.concatenate([part.marks for part in parts]),
        sum(part.turned for part in parts),
    )


@kernel(error_model="numpy")
def descent(loss, deviations, x, y, w, h, W, H):  # type: ignore[no-untyped-def]
    """Minus the gradient by (cx, cy, w, h) of one case, and its IoU. The target is W × H at CENTRE."""
    left, right, top, bottom = x - w / 2, x + w / 2, y - h / 2, y + h / 2
    goal_left, goal_right, goal_top, goal_bottom = CENTRE - W / 2, CENTRE + W / 2, CENTRE - H / 2, CENTRE + H / 2
    iw = min(right, goal_right) - max(left, goal_left)
    ih = min(bottom, goal_bottom) - max(top, goal_top)
    overlap = iw > 0 and ih > 0
    inter = di_left = di_right = di_top = di_bottom = 0.0
    if overlap or deviations & UNCLAMPED:
        inter = iw * ih
        di_left = -ih if left > goal_left else 0.0
        di_right = ih if right < goal_right else 0.0
        di_top = -iw if top > goal_top else 0.0
        di_bottom = iw if bottom < goal_bottom else 0.0
    union = w * h + W * H - inter
    du_left, du_right, du_top, du_bottom = -h - di_left, h - di_right, -w - di_top, w - di_bottom
    iou = inter / union if overlap else 0.0
    if loss == SMOOTH_L1:
        return _clip(CENTRE - x), _clip(CENTRE - y), _clip(W - w), _clip(H - h), iou

    # what the four edges gain, by IoU or GIoU
    e_left = e_right = e_top = e_bottom = 0.0
    if overlap:
        e_left = (union * di_left - inter * du_left) / union**2
        e_right = (union * di_right - inter * du_right) / union**2
        e_top = (union * di_top - inter * du_top) / union**2
        e_bottom = (union * di_bottom - inter * du_bottom) / union**2
    out_left, out_right = 1.0 * (left < goal_left), 1.0 * (right > goal_right)
    out_top, out_bottom = 1.0 * (top < goal_top), 1.0 * (bottom > goal_bottom)
    cw = max(right, goal_right) - min(left, goal_left)
    ch = max(bottom, goal_bottom) - min(top, goal_top)
    if loss == GIOU:
        hull = cw * ch
        e_left += (hull * du_left + union * out_left * ch) / hull**2
        e_right += (hull * du_right - union * out_right * ch) / hull**2
        e_top += (hull * du_top + union * out_top * cw) / hull**2
        e_bottom += (hull * du_bottom - union * out_bottom * cw) / hull**2
    half = 1.0 if deviations & DOUBLE_STEP else 0.5
    sx, sy, sw, sh = e_left + e_right, e_top + e_bottom, half * (e_right - e_left), half * (e_bottom - e_top)
    if loss in (IOU, GIOU):
        return sx, sy, sw, sh, iou

    dx, dy = x - CENTRE, y - CENTRE
    dcw_x, dcw_w = out_right - out_left, (out_right + out_left) / 2
    dch_y, dch_h = out_bottom - out_top, (out_bottom + out_top) / 2
    if loss == SIOU:
        far = dx * dx + dy * dy
        angle = da_x = da_y = 0.0
        if far > 0:
            ax, ay = abs(dx), abs(dy)
            angle = 2 * ax * ay / far
            turn = 2 * (dy * dy - dx * dx) / far**2
            da_x, da_y = math.copysign(ay, dx) * turn, -math.copysign(ax, dy) * turn
        g = 2 - angle
        rx, ry = (dx / cw) ** 2, (dy / ch) ** 2
        ex, ey = math.exp(-g * rx), math.exp(-g * ry)
        pull = ex * rx + ey * ry
        sx -= 0.5 * (ex * g * (2 * dx / cw**2 - 2 * rx / cw * dcw_x) - pull * da_x)
        sy -= 0.5 * (ey * g * (2 * dy / ch**2 - 2 * ry / ch * dch_y) - pull * da_y)
        sw += 0.5 * ex * g * 2 * rx / cw * dcw_w
        sh += 0.5 * ey * g * 2 * ry / ch * dch_h
        sw -= 0.5 * _shape_slope(w, W)
        sh -= 0.5 * _shape_slope(h, H)
        return sx, sy, sw, sh, iou

    far = dx * dx + dy * dy
    diagonal = cw * cw + ch * ch
    both = 1.0 if deviations & BOTH_SIDES else 0.0
    sign = -1.0 if deviations & CENTRE_SIGN else 1.0
    cover_w = -1.0 if deviations & COVER_SIGN and dcw_w == 1 else 1.0
    cover_h = -1.0 if deviations & COVER_SIGN and dch_h == 1 else 1.0
    grow = 2 * far / diagonal**2
    sx += -2 * dx / diagonal + sign * grow * (cw + both * ch) * dcw_x
    sy += -2 * dy / diagonal + sign * grow * (ch + both * cw) * dch_y
    sw += grow * (cover_w * cw + both * ch) * dcw_w
    sh += grow * (cover_h * ch + both * cw) * dch_h
    if loss == CIOU:
        turn = math.atan(W / H) - math.atan(w / h)
        v = 4 / math.pi**2 * turn**2
        alpha = v / (1 - iou + v) if v > 0 else 0.0
        slope = alpha * 8 / math.pi**2 * turn
        if not deviations & NO_ASPECT_NORM:
            slope /= w * w + h * h
        sw += slope * h
        sh -= slope * w
    if loss == EIOU:
        rw, rh = (w - W) / cw, (h - H) / ch
        sx += 2 * rw * rw / cw * dcw_x
        sy += 2 * rh * rh / ch * dch_y
        sw -= 2 * rw / cw - 2 * rw * rw / cw * dcw_w
        sh -= 2 * rh / ch - 2 * rh * rh / ch * dch_h
    return sx, sy, sw, sh, iou


@kernel(error_model="numpy")
def _shape_slope(w, W):  # type: ignore[no-untyped-def]
    """Derivative of SIoU's (1 − e^−ω)⁴, ω = |w − W| / max(w, W)."""
    omega = abs(w - W) / max(w, W)
    d = W / w**2 if w > W else -1 / W
    e = math.exp(-omega)
    return 4 * (1 - e) ** 3 * e * d


@kernel(error_model="numpy")
def _clip(d):  # type: ignore[no-untyped-def]
    """Derivative of smooth L1 with beta = 1."""
    return max(-1.0, min(1.0, d))


@kernel(error_model="numpy", nogil=True)
def _walk(loss, deviations, points, rates, errors):  # type: ignore[no-untyped-def]
    """Adds the error of every case to `errors` (points, iterations); returns how many cases lost a side."""
    turned = 0
    for p in range(points.shape[0]):
        for target in range(RATIOS.size):
            W, H = math.sqrt(RATIOS[target]), 1 / math.sqrt(RATIOS[target])
            for area in AREAS:
                for ratio in RATIOS:
                    x, y = points[p, 0], points[p, 1]
                    w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
                    lost = False
                    for k in range(rates.size):
                        sx, sy, sw, sh, iou = descent(loss, deviations, x, y, w, h, W, H)
                        rate = rates[k] * (2 - iou)
                        x += rate * sx
                        y += rate * sy
                        w += rate * sw
                        h += rate * sh
                        errors[p, k] += abs(x - CENTRE) + abs(y - CENTRE) + abs(w - W) + abs(h - H)
                        lost = lost or w <= 0 or h <= 0
                    turned += lost
    return turned
