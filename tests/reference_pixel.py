"""Slow references of the losses that price each pixel by the probability of its label, and of the information family.

u = −ln p_k throughout. A soft target costs the mean of its hard labels, Σ_k r_k f(u_k).
"""

from __future__ import annotations

import math

import numpy as np

from reference_rows import event, expected, pixel_loss, rows, times


def surprise(row) -> float:
    """Cross-entropy of one row, Σ_k r_k u_k."""
    return expected(row, [1.0] * len(row.r), lambda k: event(row.z, k)[0])


def refuse_class_weight(call):
    if call.get("class_weight") is not None:
        raise TypeError("this loss has its own prices and takes no class_weight")


def ce(logits, target, *, label_smoothing=0.0, pos_weight=None, **call):
    """Cross-entropy, Σ_k r_k cw_k u_k, u_k = −ln p_k (Shannon 1948); smoothing of Szegedy et al. 2016.

    A smoothed label t costs (1 − ε) cw_t u_t + ε/L Σ_k cw_k u_k over the L labels (L = 2 for a sigmoid, which is
    y(1 − ε) + ε/2); what it adds to the denominator is cw_t still.

    pos_weight p multiplies what "yes" costs: p y (−ln σ) + (1 − y)(−ln(1 − σ)), for a sigmoid. Not in the denominator.
    """

    def price(row, cw):
        u = [event(row.z, k)[0] for k in range(len(row.z))]
        cost = [times(c, u_k) for c, u_k in zip(cw, u, strict=True)]
        if pos_weight is not None:
            no, yes = cost
            cost = [no, times(float(pos_weight[row.channel] if np.ndim(pos_weight) else pos_weight), yes)]
        spread = math.fsum(cost) / len(cost) if label_smoothing else 0.0
        return math.fsum(
            times(r, (1.0 - label_smoothing) * c + label_smoothing * spread) for r, c in zip(row.r, cost, strict=True)
        )

    return pixel_loss(logits, target, price, **call)


def focal(logits, target, *, gamma=2.0, alpha=None, **call):
    """Focal loss, Σ_k r_k cw_k α_k (1 − p_k)^γ u_k (Lin et al. 2017, eq. 5). α stays out of the denominator.

    α: (C,) for multiclass; otherwise a number, α for "yes" and 1 − α for "no".
    """

    def price(row, cw):
        factors = [1.0] * len(row.z)
        if alpha is not None:
            factors = [float(a) for a in alpha] if call["task"] == "multiclass" else [1.0 - alpha, float(alpha)]
        costs = []
        for k, r in enumerate(row.r):
            u, _, miss = event(row.z, k)
            costs.append(times(r * cw[k] * factors[k], miss**gamma * u))
        return math.fsum(costs)

    return pixel_loss(logits, target, price, **call)


def wce(logits, target, *, weight_from="prediction", clamp=(1e-3, 1e3), task, weight=None, ignore_index=-100, **call):
    """Weighted cross-entropy, −(1/N) Σ_n [w r ln p + (1 − r) ln(1 − p)], w = (N − P)/P (Sudre et al. 2017).

    P = Σ p over the valid pixels of an image and one class (weight_from="target": R = Σ r instead), N their number,
    each pixel times its weight. Several exclusive classes: label c costs w_c u_c. No w depends on the weight of images.
    """
    refuse_class_weight(call)
    sums: dict[tuple[int, int, int], list[tuple[float, float]]] = {}  # (image, channel, label): w·(1 − share), w·share
    for row in rows(logits, target, task, weight, ignore_index):
        for k, r in enumerate(row.r):
            _, p, not_p = event(row.z, k)
            share, rest = (p, not_p) if weight_from == "prediction" else (r, 1.0 - r)
            sums.setdefault((row.image, row.channel, k), []).append((row.pixel * rest, row.pixel * share))

    low, high = clamp
    factors = {}
    for (image, channel, k), parts in sums.items():
        rest, share = (math.fsum(column) for column in zip(*parts, strict=True))
        positive = task == "multiclass" or k == 1
        factors[image, channel, k] = min(max(rest / share if share else math.inf, low), high) if positive else 1.0

    def price(row, cw):
        w = [factors[row.image, row.channel, k] for k in range(len(row.r))]
        return expected(row, w, lambda k: event(row.z, k)[0])

    return pixel_loss(logits, target, price, task=task, weight=weight, ignore_index=ignore_index, **call)


def ohem(logits, target, *, thresh=0.7, min_kept=100_000, **call):
    """Cross-entropy over the hard examples (Shrivastava et al. 2016, as used for segmentation).

    Kept: p < thresh, that is u > −ln thresh, and in any case the `min_kept` largest u of the batch.
    """
    limit = -math.log(thresh) if thresh > 0.0 else math.inf
    return hardest(logits, target, lambda count: min_kept, limit, **call)


def topk(logits, target, *, percent=10.0, **call):
    """Cross-entropy over the largest `percent` % of the batch, rounded down, at least one (Wu et al. 2016)."""
    return hardest(logits, target, lambda count: max(1, math.floor(percent * count / 100.0)), math.inf, **call)


def hardest(logits, target, number, limit, *, task, weight=None, ignore_index=-100, **call):
    """Rows are ranked by u, class weights aside, equals in the order of the map. Weights are a mask."""
    mask = None if weight is None else np.asarray(weight) > 0
    ranked = [(surprise(row), row.at) for row in rows(logits, target, task, mask, ignore_index)]
    # A NaN is kept, so that it is seen.
    ranked.sort(key=lambda pair: (-math.inf if math.isnan(pair[0]) else -pair[0], pair[1]))
    kept = {at for rank, (u, at) in enumerate(ranked) if rank < number(len(ranked)) or not u <= limit}

    def price(row, cw):
        return expected(row, cw, lambda k: event(row.z, k)[0])

    call |= {"task": task, "weight": mask, "ignore_index": ignore_index}
    return pixel_loss(logits, target, price, keep=lambda row: row.at in kept, **call)


def power_ce(logits, target, *, exponent=0.3, frequencies=None, task, weight=None, ignore_index=-100, **call):
    """w_l u^γ, w_l = (Σ_k f_k / f_l)^½, divided by the number of pixels (Wong et al. 2018, eq. 3).

    f are the frequencies of the labels; without them those of the batch, each pixel times its weights. Binary and
    multilabel: of "no" and "yes", counted per channel. A label of frequency 0 has price 0.
    """
    refuse_class_weight(call)
    labels = np.shape(logits)[1] if task == "multiclass" else 2
    counts: dict[int, list[list[float]]] = {}
    for row in rows(logits, target, task, weight, ignore_index):
        for k, r in enumerate(row.r):
            counts.setdefault(row.channel, [[] for _ in range(labels)])[k].append(row.sample * row.pixel * r)
    prices = {}
    for channel, parts in counts.items():
        f = [math.fsum(part) for part in parts] if frequencies is None else [float(value) for value in frequencies]
        prices[channel] = [math.sqrt(math.fsum(f) / f_l) if f_l else 0.0 for f_l in f]

    def price(row, cw):
        return expected(row, prices[row.channel], lambda k: event(row.z, k)[0] ** exponent)

    return pixel_loss(logits, target, price, task=task, weight=weight, ignore_index=ignore_index, **call)


def conservative(logits, target, *, lam=5.0, base=math.e, form="abs", **call):
    """λ (1 + log_a p)² |log_a(−log_a p)| (Zhu et al. 2018, our reading), the signed form without the bars.

    With κ = ln a: log_a p = −u/κ, so λ (1 − u/κ)² ln(u/κ)/κ. u counts as 1e-30 at least.
    """
    kappa = math.log(base)

    def cost(row, k):
        u = event(row.z, k)[0]
        v = (1e-30 if u < 1e-30 else u) / kappa
        second = math.log(v) / kappa
        return lam * (1.0 - v) ** 2 * (abs(second) if form == "abs" else second)

    return pixel_loss(logits, target, lambda row, cw: expected(row, cw, lambda k: cost(row, k)), **call)


def quadratic(logits, target, *, half=True, **call):
    """½ mean_k (p_k − r_k)² over the labels (Brier 1950; Nielsen 2015, chapter 3); half=False without the ½.

    Of two labels both miss by 1 − p_t, so that a sigmoid costs ½ (1 − p_t)².
    """

    def cost(row, t):
        gaps = [event(row.z, k)[2 if k == t else 1] for k in range(len(row.z))]
        return (0.5 if half else 1.0) * math.fsum(gap * gap for gap in gaps) / len(gaps)

    return pixel_loss(logits, target, lambda row, cw: expected(row, cw, lambda t: cost(row, t)), **call)


def kl(logits, target, **call):
    """Σ_k r_k ln(r_k / p_k) = Σ_k r_k (ln r_k + u_k), a label without a chance adding 0 (Kullback & Leibler 1951)."""
    refuse_class_weight(call)

    def price(row, cw):
        return expected(row, cw, lambda k: math.log(row.r[k]) + event(row.z, k)[0] if row.r[k] > 0.0 else 0.0)

    return pixel_loss(logits, target, price, **call)


def entropy(logits, target=None, **call):
    """−Σ_k p_k ln p_k over the labels (Shannon 1948). A target says which pixels are ignored, no more."""
    refuse_class_weight(call)
    if target is None:
        images, _, *space = np.shape(logits)
        target = np.zeros((images, *space), dtype=int)

    def price(row, cw):
        return math.fsum(times(p, u) for u, p, _ in (event(row.z, k) for k in range(len(row.z))))

    return pixel_loss(logits, target, price, **call)
