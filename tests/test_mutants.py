"""The suite can fail: formulas broken on purpose turn it red.

The breakages are made from the syntax tree of everything that decides a value: every function and method of the
library but names, settings, the lab and the kernels. Operators are swapped, terms dropped, numbers nudged, comparisons
and masks turned, fields exchanged. A breakage that no check notices must stand in `SURVIVORS` with the reason why it is
no breakage.

The checks are the suite's own tests, those that reach what is broken, the quick ones first. A check that fails counts
only if it passes on the unbroken code.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
import zlib
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import pytest
import torch

import lossmith as ls
import test_accumulation
import test_advice
import test_algebra
import test_border
import test_boxes
import test_catalogue
import test_distance
import test_distribution
import test_divergence
import test_engine
import test_errors
import test_identities
import test_lean
import test_lovasz
import test_parse
import test_partial_labels
import test_plain
import test_ramps
import test_regression
import test_spatial
import test_splits
import test_states
import test_supervision
import test_tools
import test_weighting
from mutants import Check, Target, cases, compiled, examples, mutants, reached, targets
from problems import PAIRS, PROBLEMS, ROWS, arguments, build, nudges, shared_settings
from survivors import LATER, SURVIVORS

pytestmark = pytest.mark.slow

# Where a loss may choose, those that differ most in what they use come first.
TELLING = [
    *("dice", "ce", "gdl", "ss", "focal", "conservative", "boundary_f1", "lovasz", "unified_focal"),
    *("power_ce", "wce", "boundary", "quadratic", "kl", "topk"),
]
LOSSES = 8  # as many are tried on what more of them use

# Tests that are not of all losses.
FILES = [
    *(test_identities, test_algebra, test_partial_labels, test_spatial, test_distance, test_lovasz, test_divergence),
    *(
        test_boxes,
        test_distribution,
        test_regression,
        test_supervision,
        test_ramps,
        test_weighting,
        test_parse,
        test_border,
        test_plain,
        test_accumulation,
        test_splits,
    ),
]
ALONE = [  # the tests of other files that are about formulas or what goes into them
    test_engine.test_slope_of_a_curve_is_that_of_autograd,
    test_lean.test_a_setting_that_is_assigned_holds_from_the_next_call,
    test_states.test_half_logits_under_autocast,
    test_states.test_without_gradients,
    test_tools.test_whole_floats_are_labels,
    test_tools.test_floats_that_are_not_whole_are_no_labels,
    test_tools.test_floats_that_are_not_whole_make_the_loss_nan_where_looking_would_cost,
    test_tools.test_whole_floats_of_many_classes_are_labels_and_minus_100_is_ignored,
    test_tools.test_derivatives_carried_forward,
]
LONG = {  # or about the kernels
    *("test_fused_is_plain", "test_second_derivative_is_that_of_fixed_charges", "test_any_boxes_are_finite"),
    *("test_number_of_threads_changes_nothing", "test_engines_agree_at_every_size", "test_properties"),
    *("test_any_shape_gives_a_finite_value_and_gradient", "test_any_number_of_boxes"),
    *("test_every_field_has_its_gradient_in_the_kernels", "test_one_compilation_lasts_for_all_epochs"),
    *("test_classes_that_nobody_annotated_are_part_of_the_background", "test_micro_batches_are_the_batch"),
}
WHOLE = [
    *(test_identities.test_golden, test_advice.test_advice_is_right),
    *(test for name, test in vars(test_errors).items() if name.startswith("test_")),
    *(test for file in FILES for name, test in vars(file).items() if name in ("test_errors", "test_wrong_call")),
]
ONE_IN = 16  # mutants is tried in `make test`, by name, so that the same run everywhere
CASES = 30  # of another test with more parameters than these some are tried
CATALOGUE = [
    test_catalogue.test_value_is_the_reference,
    test_catalogue.test_every_knob_changes_the_value,
    test_catalogue.test_labels_are_widened_before_they_are_compared,
    test_catalogue.test_tiny_errors_are_seen,
    test_catalogue.test_perfect_and_worst_reach_the_range,
    test_catalogue.test_large_logits_are_exact,
    test_catalogue.test_impossible_classes_have_no_gradient,
    test_catalogue.test_weight_0_is_ignoring,
    test_catalogue.test_ignoring_a_channel_is_leaving_it_out,
    test_catalogue.test_ignoring_a_channel_in_one_image,
    test_catalogue.test_soft_targets_just_outside_are_at_0_and_1,
    test_catalogue.test_targets_of_weight_0_are_inert,
    test_catalogue.test_labels_out_of_range_are_seen,
    test_catalogue.test_nan_in_a_weight_is_seen,
    test_partial_labels.test_classes_that_nobody_annotated_are_part_of_the_background,
    test_catalogue.test_shared_settings_change_the_value,
    test_catalogue.test_half_precision_is_rounding,
    test_catalogue.test_vmap_of_grad,
    test_catalogue.test_degenerate_inputs_are_finite,
    test_catalogue.test_nan_in_a_valid_pixel_stays_visible,
    test_catalogue.test_gradcheck,
    test_catalogue.test_double_backward,
]


@functools.cache
def apart() -> list[Check]:
    """The checks that are not of all losses, the quick ones first."""
    tests = [*ALONE, *(test for file in FILES for name, test in vars(file).items() if name.startswith("test_"))]
    taken = [*examples(), *(check for test in WHOLE for check in cases(test))]
    for test in tests:
        if test.__name__ in LONG or test in WHOLE:
            continue
        some = list(cases(test, kernels=[test_lovasz.by_numba]))  # those for GPUs are interpreted, which is slow
        taken += some[:: math.ceil(len(some) / CASES) or 1]
    return sorted(taken, key=seconds)


def seconds(check: Check) -> float:
    """How long it takes to see what it reaches."""
    begin = time.process_time()
    _ = check.through
    return time.process_time() - begin


@functools.cache
def of_loss(test: Callable[..., None], name: str) -> list[Check]:
    """The checks of a test of all losses that are about this one."""
    row = next(row for row in ROWS if row.name == name)
    if (name, test.__name__.removeprefix("test_")) in test_catalogue.EXEMPT:
        return []
    found = []
    for check in cases(test, row=[row], dtype=[torch.float64, torch.float32], channels=[1, 3]):
        problem = check.given.get("problem")
        found += [check] if problem is None or problem.task in row.cls.tasks else []
    return found


@functools.cache
def users() -> dict[str, set[CodeType]]:
    """What each loss reaches, by name."""
    found: dict[str, set[CodeType]] = {}

    def run(loss: ls.Loss, inputs: tuple[torch.Tensor, ...], given: dict[str, Any]) -> None:
        first, *rest = inputs
        loss(first.clone().requires_grad_(), *rest, **given).sum().backward()

    for row, task in PAIRS:
        make, inputs, given = arguments(row, task)
        found.setdefault(row.name, set()).update(reached(lambda m=make, i=inputs, g=given: run(m(), i, g))[1])
    for row in ROWS:
        for problem in PROBLEMS:
            if problem.task in row.cls.tasks:
                inputs = problem.logits, problem.target
                found[row.name] |= reached(lambda r=row, p=problem, i=inputs: run(build(r, p), i, {}))[1]
                last = problem
        knobs = nudges(row.cls, last.task, last.logits.shape[1], last.axes)
        for more in [*shared_settings(last, row.cls), *knobs]:
            found[row.name] |= reached(lambda r=row, p=last, i=inputs, m=more: run(build(r, p, **m), i, {}))[1]
    return found


def rows_of(target: Target) -> list[Any]:
    """Losses on logits that use it."""
    rows = [row for row in ROWS if target.function.__code__ in users()[row.name]]
    order = [*TELLING, *(row.name for row in rows)]
    return sorted(rows, key=lambda row: order.index(row.name))[:LOSSES]


def checks(target: Target) -> Iterator[Check]:
    """Those that reach it."""
    rows = rows_of(target)
    catalogue = (check for test in CATALOGUE for row in rows for check in of_loss(test, row.name))
    code = target.function.__code__
    return (check for check in itertools.chain(apart(), catalogue) if code in check.through)


@pytest.mark.parametrize("target", [target for target in targets() if str(target) not in LATER], ids=str)
def test_every_mutant_is_killed(target, pytestconfig):
    survivors, tried = [], []
    one_in = 1 if pytestconfig.getoption("--thorough") else ONE_IN
    original = target.function.__code__
    with ls.use_engine("plain"):
        left = checks(target)
        for mutant in mutants(target):
            if str(mutant) in SURVIVORS or zlib.crc32(str(mutant).encode()) % one_in:
                continue
            broken = compiled(mutant)
            at = 0
            while at < len(tried) or (check := next(left, None)):
                if at == len(tried):
                    tried.append(check)
                target.function.__code__ = broken
                try:
                    noticed = not tried[at].passes()
                finally:
                    target.function.__code__ = original
                if noticed:
                    tried.insert(0, tried.pop(at))  # what noticed one will notice the next
                    break
                at += 1
            else:
                survivors.append(str(mutant))
    assert not survivors, "no check notices:\n" + "\n".join(survivors)


def test_survivors_still_exist():
    """Each names one breakage."""
    known = [str(mutant) for target in targets() for mutant in mutants(target)]
    for survivor in SURVIVORS:
        assert known.count(survivor) == 1, survivor


def test_every_loss_is_broken_somewhere():
    """By a method of its own, or of the family whose settings it changes."""
    broken = {target.owner for target in targets()}
    for row in ls.catalogue():
        if row.name != "l1":  # the residual as it is, which `residuals` and `ElementLoss` are broken for
            assert broken & {*row.cls.__mro__[:2]}, row.name
    assert sum(len(mutants(target)) for target in targets()) > 3000
