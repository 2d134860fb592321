"""Box, distribution and regression formulas broken on purpose, as in `test_mutants.py`: the suite has to notice."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import golden_boxes as golden
import lossmith as ls
import test_boxes
import test_distribution
import test_regression
from lossmith import box, distribution, gfl, pair
from lossmith.engine import boxes as overlaps
from lossmith.engine import scores
from test_mutants import compiled, mutants

pytestmark = pytest.mark.slow

SURVIVORS: dict[str, str] = {
    "IoULoss.reads: ('lack',) if self.form == 'linear' else ('lack', 'iou') -> ('lack', 'iou') (line 2, column 11)": (
        "to read more than needed costs time only"
    ),
    "EIoULoss.reads: ['iou'] if self.focal > 0 else [] -> ['iou'] (line 2, column 52)": "the same",
    "boxes.over: 1.0 -> 2.0 (line 4, column 62)": "stands in for a denominator of 0 in a branch not taken",
    "boxes._angle: 1.0 -> 2.0 (line 4, column 70)": "atan(0 / h) is 0 for every h",
    "scores.answers: 0.0 -> 1.0 (line 4, column 53)": "is multiplied by a chance of 0",
    "scores.answers: 0.0 -> 1.0 (line 4, column 99)": "the same",
    "distribution._share: 0.0 -> 1.0 (line 3, column 54)": "the same",
    "DistributionFocalLoss.amount: 0.0 -> 1.0 (line 4, column 60)": "the bin of a target that is NaN, as is the loss",
    "DistributionFocalLoss.amount: top - 1 -> top + 1 (line 4, column 40)": "bin n + 1 has a chance of 0, and the plain"
    " engine holds it within the bins",
    "DistributionFocalLoss.amount: top - 1 -> top (line 4, column 40)": "the same",
    "GeneralizedFocalLoss.open: 0.0 -> 1.0 (line 13, column 75)": "the edges of points that weigh nothing",
    "GeneralizedFocalLoss.open: 0.0 -> 1.0 (line 14, column 66)": "the boxes of points that weigh nothing",
    "GeneralizedFocalLoss._positive: positive if weight is None else positive & (weight != 0) -> positive &"
    " (weight != 0) (line 4, column 11)": "None is not 0 either",
    "GeneralizedFocalLoss._trust: torch.float64 if logits.dtype == torch.float64 else torch.float32 -> torch.float64"
    " (line 3, column 30)": "wider is slower, not wrong",
    "GeneralizedFocalLoss._trust: 80.0 -> 81.0 (line 4, column 42)": "any logit whose score float32 can tell from 0",
    "distribution._dense: torch.float64 if logits.dtype == torch.float64 else torch.float32 -> torch.float64"
    " (line 25, column 11)": "the same",
    "distribution._dense: dense if can_look(labels) else dense.masked_fill(outside.unsqueeze(-1), torch.nan) ->"
    " dense.masked_fill(outside.unsqueeze(-1), torch.nan) (line 28, column 11)": "nothing is outside where one looks",
}

METHODS = ("formula", "amount", "reads")
FAMILIES = ("box", "distribution", "regression")
OWN = [(row.cls, name) for row in ls.catalogue() if row.family in FAMILIES for name in METHODS if name in vars(row.cls)]
FIELDS = ("over", "_axis", "_missed", "_lack", "_iou", "_spare", "_drift", "_turn", "_angle", "_detour", "_shape")
SHARED: list[tuple[Any, str]] = [
    *((overlaps, name) for name in FIELDS),
    (scores, "answers"),
    (scores, "mean_bin"),
    (distribution, "_share"),
    (distribution, "_dense"),
    (distribution, "generalized_focal"),
    (pair, "corners"),
    (pair.Elements, "weighed"),
    (box, "encode_distances"),
    (box, "decode_distances"),
    (gfl.GeneralizedFocalLoss, "normalisers"),
    (gfl.GeneralizedFocalLoss, "_positive"),
    (gfl.GeneralizedFocalLoss, "_trust"),
    (gfl.GeneralizedFocalLoss, "open"),
]


def box_checks() -> Iterator[Callable[[], None]]:
    for text in golden.BOXES:
        yield lambda t=text: test_boxes.test_golden_values(t, "plain")
    yield lambda: test_boxes.test_golden_gradients("plain")
    yield test_boxes.test_golden_focal_eiou_and_pairwise
    yield test_boxes.test_distances
    yield lambda: test_boxes.test_boxes_and_coordinates_in_one_sum("plain")
    for row in test_boxes.ROWS:
        for check in (test_boxes.test_identical_boxes_cost_nothing, test_boxes.test_degenerate_boxes_are_finite):
            yield lambda r=row, c=check: c(r, torch.float32, "plain")
        for fmt in ("xywh", "cxcywh"):
            yield lambda r=row, f=fmt: test_boxes.test_formats(r, f, "plain")
        for check in (
            test_boxes.test_small_errors_keep_their_digits,
            test_boxes.test_nan_stays_visible,
            test_boxes.test_weight_2_is_repeating_the_box,
            test_boxes.test_value_is_the_reference,
            test_boxes.test_gradient_is_the_slope_of_the_reference,
        ):
            yield lambda r=row, c=check: c(r, "plain")
    yield test_boxes.test_ciou_holds_alpha_constant
    yield lambda: test_boxes.test_the_angle_of_a_box_without_width_has_a_slope("plain")


def distribution_checks() -> Iterator[Callable[[], None]]:
    tests = test_distribution
    yield tests.test_golden_scores
    yield lambda: tests.test_golden_edges("plain")
    yield tests.test_integral_decodes
    yield tests.test_unified_form
    yield lambda: tests.test_the_whole_detector_is_the_sum_by_hand("plain")
    yield lambda: tests.test_normalisers_make_any_split_the_whole("plain")
    yield lambda: tests.test_the_detector_is_the_sum_with_slots("plain")
    yield lambda: tests.test_background_and_ignored_points(torch.float32, "plain")
    for dtype in (torch.float64, torch.float32):
        yield lambda d=dtype: tests.test_a_positive_whose_scores_vanish_still_counts(d, "plain")
    yield lambda: tests.test_an_ignored_point_of_the_detector_may_have_any_label("plain")
    yield lambda: tests.test_box_loss_of_the_detector("plain")
    yield tests.test_scores_do_not_train_boxes_nor_boxes_scores
    yield tests.test_tiny_errors_of_scores_are_seen
    yield lambda: tests.test_edges_are_the_reference("plain")
    yield lambda: tests.test_edges_beyond_the_bins_are_clamped("plain")
    yield lambda: tests.test_extreme_edges(torch.float32, "plain")
    for row in tests.HEADS:
        for check in (tests.test_value_is_the_reference, tests.test_labels_and_qualities, tests.test_weights):
            yield lambda r=row, c=check: c(r)
        for dtype in (torch.float64, torch.float32):
            yield lambda r=row, d=dtype: tests.test_extreme_scores_are_finite(r, d)
        for kind in (torch.int64, torch.uint8):
            yield lambda r=row, k=kind: tests.test_an_ignored_point_may_have_any_label(r, k)
        yield lambda r=row: tests.test_torch_transforms(r)
    for case in tests.ERRORS:
        yield lambda c=case: tests.test_wrong_call(c)


def regression_checks() -> Iterator[Callable[[], None]]:
    for case in golden.RESIDUALS:
        yield lambda c=case: test_regression.test_golden(c)
    yield test_regression.test_no_parabola_is_l1
    for row in test_regression.ROWS:
        yield lambda r=row: test_regression.test_value_is_the_reference(r, (5, 4))
        yield lambda r=row: test_regression.test_weights(r)


CHECKS = {"box": box_checks, "distribution": distribution_checks, "regression": regression_checks}


def checks(owner: Any) -> Iterator[Callable[[], None]]:
    """Those of the loss's family; where a function is shared, those of all."""
    family = getattr(owner, "family", None)
    for name in [family] if family else {overlaps: ["box"], scores: ["distribution"]}.get(owner, FAMILIES):
        yield from CHECKS[name]()


def killed(owner: Any) -> bool:
    for check in checks(owner):
        torch.manual_seed(0)
        try:
            check()
        except (Exception, pytest.fail.Exception):
            return True
    return False


@functools.cache
def sound(owner: Any) -> bool:
    return not killed(owner)


@pytest.mark.parametrize(("owner", "name"), OWN + SHARED, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_every_mutant_is_killed(owner, name, monkeypatch):
    survivors = []
    with ls.use_engine("plain"):
        assert sound(owner), "the suite is red before anything is broken"
        for mutant in mutants(owner, name):
            if str(mutant) in SURVIVORS:
                continue
            broken, original = compiled(mutant), vars(owner)[name]
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, broken)
                for module in list(sys.modules.values()):  # where a function was imported by name
                    if getattr(module, "__name__", "").startswith("lossmith") and vars(module).get(name) is original:
                        patch.setattr(module, name, broken)
                for field, formula in overlaps._FORMULAS.items():
                    if formula is original:
                        patch.setitem(overlaps._FORMULAS, field, broken)
                if not killed(owner):
                    survivors.append(str(mutant))
    assert not survivors, "no check notices:\n" + "\n".join(survivors)


def test_survivors_still_exist():
    known = {str(mutant) for owner, name in OWN + SHARED for mutant in mutants(owner, name)}
    assert SURVIVORS.keys() <= known


def test_there_are_enough_mutants():
    assert sum(1 for owner, name in OWN + SHARED for _ in mutants(owner, name)) > 150
