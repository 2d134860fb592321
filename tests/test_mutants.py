"""The suite can fail: formulas broken on purpose turn it red.

The breakages are made from the syntax tree of everything that decides a value: every method of every loss on logits,
parts of recipes and families included, and the functions they share. Operators are swapped, terms dropped, numbers
nudged, comparisons and masks turned, fields exchanged. A breakage that no check notices must stand in `SURVIVORS` with
the reason why it is no breakage.

The checks are the suite's own tests, the quick ones first, and only those of the losses that use what is broken. A
check that fails counts only if it passes on the unbroken code.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import pytest
import torch

import golden
import lossmith as ls
import test_algebra
import test_catalogue
import test_distance
import test_errors
import test_identities
import test_lovasz
import test_partial_labels
import test_spatial
from lossmith import adjacency, batch, distance, engine, loss, recipes, region, structure, validation, weighted
from lossmith.engine import field, mapped, ranking
from problems import ROWS

pytestmark = pytest.mark.slow

SURVIVORS: dict[str, str] = {
    "Batch.mass: torch.float64 if self.problem.logits.dtype == torch.float64 else torch.float32 -> torch.float64"
    " (line 8, column 12)": "more digits, at the price of memory",
    "Batch.valid: None if self._all_count else self.labels[1] -> self.labels[1] (line 4, column 11)": "a shortcut",
    "Batch.predicted_distance: p > 0.5 -> p <= 0.5 (line 10, column 53)": "turns the sign; only |d| is used",
    "BoundaryF1Loss.class_losses: losses + 0 * batch.stats.n[:, kept] -> losses - 0 * batch.stats.n[:, kept]"
    " (line 7, column 11)": "0 or NaN, whatever its sign",
    "BoundaryF1Loss.class_losses: 1 -> 2 (line 3, column 22)": "a ring is a difference: constants cancel",
    "ClassLoss._by_class: 0 -> 1 (line 12, column 66)": "under multilabel the weights of no and yes are the same",
    "Curve.__call__: u if self.straight else power(-torch.expm1(-u), self.x) * u"
    " -> power(-torch.expm1(-u), self.x) * u (line 7, column 11)": "a shortcut: x ** 0 · u is u",
    "ConservativeLoss.curve: self._absolute if self.form == 'abs' else None -> None"
    " (line 2, column 11)": "the same value, pixel by pixel",
    "DistanceMapPenaltyLoss.penalty: 0.0 -> 1.0 (line 12, column 54)": "a side where all d are 0, which are masked",
    "DistanceMapPenaltyLoss.penalty: 1.0 -> 2.0 (line 16, column 72)": "stands in for a depth of 0, which is flat",
    "DistanceMapPenaltyLoss.penalty: 1.0 if self.norm == 'boundary' else 0.0 -> 1.0"
    " (line 18, column 28)": "with norm='max' only sides without distances are flat, which are masked",
    "DistanceMapPenaltyLoss.penalty: 0.0 -> 1.0 (line 18, column 64)": "the same",
    "EntropyLoss.pixels: 700.0 -> 701.0 (line 2, column 66)": "e^-700 is 0 beside anything",
    "ForegroundCrossEntropy.price: price if batch.exclusive else price.expand(batch.n_classes, 2) -> price"
    " (line 4, column 11)": "broadcasting expands it as well",
    "CrossEntropyLoss.price: -1 -> 1 (line 10, column 52)": "of what has one axis, the new last one is the second",
    "FocalLoss.price: -1 -> 1 (line 14, column 43)": "the same",
    "Loss.reduce: denominator.to(total) if isinstance(denominator, Tensor) else total.new_full((), denominator)"
    " -> total.new_full((), denominator) (line 14, column 16)": "the same number; an accelerator would be waited for",
    "GeneralizedDiceLoss.formula: 1.0 -> 2.0 (line 5, column 73)": "stands in for a size of 0 in a branch not taken",
    "GeneralizedDiceLoss.formula: 1.0 -> 2.0 (line 6, column 30)": "scales all weights, which cancels in the ratio",
    "KLDivergenceLoss.of_event: 0.0 -> 1.0 (line 5, column 91)": "is multiplied by its chance, 0",
    "KLDivergenceLoss.of_event: 1.0 -> 2.0 (line 5, column 79)": "stands in for a chance of 0 in a branch not taken",
    "NonAdjacencyLoss.value: 1 -> 2 (line 8, column 51)": "where there are no taps, 0 is divided",
    "PowerCrossEntropyLoss.price: counts if batch.exclusive else counts.expand(batch.n_classes, 2) -> counts"
    " (line 10, column 17)": "broadcasting expands it as well",
    "PowerCrossEntropyLoss.price: 1.0 -> 2.0 (line 12, column 86)": "stands in for a count of 0 in a branch not taken",
    "WeightedCrossEntropyLoss.wants: self.weight_from == 'prediction' -> self.weight_from != 'prediction'"
    " (line 2, column 16)": "without the sums the sizes come from the probabilities: slower, and the same",
    "WeightedCrossEntropyLoss.price: s.fp -> s.fn (line 5, column 9)": "the engine gives both or none",
    "WeightedCrossEntropyLoss.price: s.fn -> s.fp (line 5, column 30)": "the engine gives both or none",
    "WeightedCrossEntropyLoss.price: 1.0 -> 2.0 (line 11, column 65)": "stands in for a size of 0",
    "adjacency.forbidden_pairs: 1 -> 2 (line 20, column 42)": "a wider table, whose margin is cut off",
    "adjacency.forbidden_pairs: n_labels + 1 -> n_labels (line 22, column 54)": "the last count is cut off anyway",
    "adjacency.forbidden_pairs: 1 -> 2 (line 22, column 65)": "the last counts are cut off anyway",
    "adjacency._pairs: step > (0,) * labels.ndim -> step <= (0,) * labels.ndim"
    " (line 5, column 11)": "the other side finds the same pairs, turned round",
    "adjacency._pairs: (0,) * labels.ndim -> (0,) (line 5, column 18)": "finds pairs of both sides, once more",
    "adjacency._pairs: 0 -> 1 (line 7, column 39)": "its partner is empty, and so are both",
    "adjacency._pairs: 0 -> 1 (line 7, column 72)": "its partner is empty, and so are both",
    "adjacency._pairs: True -> False (line 8, column 59)": "the lengths are the same",
    "adjacency._pairs: True -> False (line 10, column 78)": "the lengths are the same",
    "field.labels_and_valid: 0 -> 1 (line 23, column 38)": "nobody reads the label of an ignored pixel",
    "mapped._errors: 0.0 -> 1.0 (line 7, column 84)": "any number does: what does not count has no price",
    "mapped._gradient: target.unsqueeze(1) if target.ndim < z.ndim else likeliest(p) -> likeliest(p)"
    " (line 18, column 24)": "what is shifted by does not matter where nothing cancels; finding it takes longer",
    "field.probabilities: 0.0 -> 1.0 (line 4, column 103)": "any number does: what does not count has no mass",
    "field.whole: 1 -> 2 (line 5, column 38)": "a mask of the logits' own shape does as well",
    "ranking.jaccard: 1.0 -> 2.0 (line 9, column 36)": "without foreground another formula replaces it",
    "ranking.jaccard: 1.0 -> 2.0 (line 15, column 60)": "a charge that is multiplied by a weight of 0",
    "ranking.scale_of: 0.0 -> 1.0 (line 3, column 80)": "where the largest error is as good as none",
    "ranking.scale_of: 1.0 -> 2.0 (line 3, column 74)": "stands in for no error in a branch not taken",
    "ranking.ranked: True -> False (line 12, column 62)": "another order of equal errors: the value is the same",
    "ranking.ranked: True -> False (line 14, column 88)": "the lengths are the same",
    "ranking.ranked: 0.0 -> 1.0 (line 17, column 28)": "the loss is NaN, whatever its span",
    "ranking.ranked: 0 -> 1 (line 17, column 91)": "only the shape is used",
    "ranking.ranked: 2 -> 3 (line 19, column 45)": "there is no level between: it tells numbers from NaN",
    "ranking._errors: 0.0 -> 1.0 (line 24, column 35)": "any number does: its weight is 0",
    "validation.merged: 0.0 -> 1.0 (line 23, column 43)": "any number does: such pixels are ignored",
    "validation.merged: 1 -> 2 (line 33, column 53)": "more stays as it is where a value is an error, or NaN, anyway",
    "weighted.largest: True -> False (line 8, column 53)": "sorting so few is stable anyway",
    "weighted._beside: 0 -> 1 (line 5, column 50)": "only the shape of a slice",
    "weighted.near_another: torch.int8 if n_labels < 128 else torch.int32 -> torch.int32"
    " (line 6, column 22)": "larger than it must be",
    "weighted.near_another: 128 -> 129 (line 6, column 47)": "128 stands for no label, and wraps to another such",
    "weighted.near_another: 1 -> 2 (line 7, column 73)": "anything below 0 stands for no label",
    "weighted.near_another: 1 -> 2 (line 10, column 61)": "the same",
    "weighted.largest: 1.0 -> 2.0 (line 6, column 83)": "anything below 0 comes last",
    "engine.power: 1 -> 2 (line 3, column 36)": "a shortcut: the other branch gives the same for exponents from 1 on",
}

# Of these no value comes: construction, names, and what is shared with `shared`.
ASIDE = {"__init__", "__init_subclass__", "from_labels", "terms", "shared", "_who"}

# Functions that several losses share, with the losses that the checks try.
SHARED: list[tuple[Any, str, str]] = [
    (region, "missed", "dice jaccard"),
    (loss, "ratio", "dice ss boundary_f1 ce"),
    (loss, "_by_group", "dice"),
    (loss.Loss, "reduce", "ce dice"),
    (engine, "power", "focal_tversky focal"),
    (engine.Curve, "__call__", "focal unified_focal power_ce conservative"),
    (batch.Sums, "tp", "dice"),
    (batch.Sums, "squared_error", "dice"),
    (batch.Sums, "both", "gdl log_dice"),
    (batch.Sums, "pooled", "dice"),
    (batch.Batch, "label_weight", "ce"),
    (batch.Batch, "spread", "ce"),
    (batch.Batch, "every", "ce"),
    (batch.Batch, "_competing", "ce quadratic"),
    (batch.Batch, "shared_out", "ce quadratic"),
    (batch.Batch, "mass", "boundary active_contour"),
    (batch.Batch, "over_map", "boundary hausdorff"),
    (batch.Batch, "valid", "boundary active_contour"),
    (batch.Batch, "_all_count", "boundary hausdorff boundary_ce"),
    (batch.Batch, "over_pixels", "active_contour"),
    (batch.Batch, "masks", "boundary boundary_f1"),
    (batch.Batch, "predicted_distance", "hausdorff"),
    (batch.Batch, "of_images", "ce dice conservative"),
    (batch.Batch, "natural", "conservative"),
    (batch.Batch, "label_price", "ce dice"),
    (batch.Batch, "at_labels", "focal wce power_ce ce"),
    (batch.Batch, "information", "kl"),
    (validation, "merged", "dice ce"),
    (weighted, "largest", "topk ohem"),
    (recipes, "is_rare", "unified_focal"),
    (distance, "zero_ring", "boundary"),
    (distance, "_signed", "boundary hausdorff"),
    (structure, "_corner", "active_contour"),
    (structure, "largest_near", "boundary_f1"),
    (weighted, "near_another", "boundary_ce"),
    (weighted, "_beside", "boundary_ce"),
    (structure, "_along_axes", "boundary_f1 nonadjacency"),
    (adjacency, "forbidden_pairs", ""),
    (adjacency, "_pairs", ""),
    (mapped, "mapped", "boundary hausdorff"),
    (mapped, "_errors", "boundary hausdorff"),
    (mapped, "_gradient", "boundary hausdorff"),
    (field, "probabilities", "active_contour boundary_f1"),
    (field, "whole", "nonadjacency"),
    (field, "labels_and_valid", "boundary hausdorff boundary_f1 boundary_ce nonadjacency"),
    (ranking, "jaccard", "lovasz lovasz_hinge"),
    (ranking, "weigh", "lovasz lovasz_hinge"),
    (ranking, "scale_of", "lovasz lovasz_hinge"),
    (ranking, "ranked", "lovasz lovasz_hinge"),
    (ranking, "_errors", "lovasz lovasz_hinge"),
    (ranking, "_before", "lovasz"),
]


def families(cls: type) -> Iterator[type]:
    """The class and all that are made of it."""
    yield cls
    for child in cls.__subclasses__():
        yield from families(child)


# Of large families, members that differ in what they use of it.
FAMILIES = {
    "ClassLoss": "dice gdl boundary_f1 lovasz unified_focal",
    "PixelLoss": "ce focal power_ce conservative quadratic",
    "RegionLoss": "dice jaccard log_dice unified_focal",
}

# What is tested apart from the catalogue, by the module of what is broken.
FIELDS: list[Callable[..., None]] = [
    test_spatial.test_forbidden_pairs_are_counted_right,
    test_spatial.test_labels_of_independent_channels_are_masks,
    test_spatial.test_one_channel_has_two_labels,
    test_spatial.test_labels_come_in_one_after_the_other,
    test_spatial.test_labels_that_cannot_be_counted,
    test_spatial.test_weights_of_images,
    test_spatial.test_classes_that_were_not_annotated_are_predicted_still,
    test_spatial.test_nonadjacency_is_finite,
    test_spatial.test_windows_one_axis_at_a_time_are_boxes,
    test_spatial.test_boundary_f1_leaves_out_classes_without_a_boundary,
    test_spatial.test_ignoring_a_margin_is_cropping,
    test_spatial.test_narrow_labels_may_be_ignored,
]
MAPS: list[Callable[..., None]] = [
    test_distance.test_zero_ring_has_no_stray_sign,
    test_distance.test_digits_on_request,
    test_distance.test_an_ignored_pixel_is_at_0,
    test_distance.test_what_lies_under_an_ignored_pixel_does_not_matter,
    test_spatial.test_a_class_without_a_boundary_has_no_map,
    test_spatial.test_spacing_is_a_unit,
]
RANKS: list[Callable[..., None]] = [
    test_lovasz.test_jaccard_adds_up,
    test_lovasz.test_it_is_exact_on_the_levels,
    test_lovasz.test_charges_are_the_mean_of_the_two_orders,
    test_lovasz.test_nan_is_seen_in_valid_pixels_only,
    test_lovasz.test_nan_weight_and_target_are_seen,
    test_lovasz.test_targets_out_of_range_become_nan_where_looking_would_cost,
    test_lovasz.test_gradient_follows_sorting,
    test_lovasz.test_charges_are_a_subgradient,
    test_lovasz.test_rounding_moves_the_value_by_half_a_bin_at_most,
    test_lovasz.test_a_weight_is_a_number_of_pixels,
    test_lovasz.test_weights_are_worth_many_digits,
    test_lovasz.test_impossible_classes_cost_nothing,
]
LABELS: list[Callable[..., None]] = [
    test_identities.test_divergence_of_ignored_samples,
    test_identities.test_background_follows_from_the_foreground,
    test_identities.test_power_has_a_finite_slope_at_0,
    test_identities.test_alpha_per_channel_is_alpha_of_each_channel,
    test_algebra.test_parts,
    test_algebra.test_parts_per_class_of_images_that_lack_a_class,
    test_algebra.test_denominator_goes_to_the_terms_that_divide,
    test_identities.test_frequencies_of_no_and_yes,
    test_identities.test_values_of_classes_are_weighted_means_over_images,
    test_identities.test_class_weights_of_annotated_classes,
    test_identities.test_two_sides_of_one_channel_are_skipped_like_classes,
    test_partial_labels.test_masks_differ_from_image_to_image,
    test_partial_labels.test_a_channel_that_nobody_annotated_is_left_out,
]
TESTS: dict[str, list[Callable[..., None]]] = {
    "pixel": [test_identities.test_cross_entropy_is_torch, *LABELS],
    "adjacency": FIELDS,
    "structure": FIELDS,
    "boundary": MAPS,
    "distance": MAPS,
    "weighted": [
        test_identities.test_the_hardest_are_no_more_than_asked_for,
        test_spatial.test_the_distance_penalty_has_no_unit,
    ],
    "ranking": RANKS,
    "lovasz": RANKS,
    "field": FIELDS,
    "mapped": [
        test_identities.test_residuals_are_differences,
        test_identities.test_gradients_over_a_map_keep_their_digits_near_perfection,
        test_identities.test_weights_and_soft_targets_have_gradients,
        *MAPS,
    ],
    "batch": LABELS + MAPS + FIELDS,
    "validation": [test for name, test in vars(test_partial_labels).items() if name.startswith("test_")],
}

SWAPS: dict[type, list[type]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
}
TURNS: dict[type, type] = {
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
EXCHANGES = {"fp": "fn", "fn": "fp", "fp2": "fn2", "fn2": "fp2", "t": "n", "n": "t", "tt": "t", "tp": "p", "p": "tp"}


@dataclass(frozen=True)
class Mutant:
    """A function with one node replaced."""

    owner: Any
    name: str
    what: str
    tree: ast.FunctionDef

    def __str__(self) -> str:
        return f"{short(self.owner)}.{self.name}: {self.what}"


def short(owner: Any) -> str:
    return owner.__name__.rpartition(".")[2]


def accessed(value: Any) -> Any:
    """The function behind a property; a function as it is."""
    return getattr(value, "fget", getattr(value, "func", value))


def mutants(owner: Any, name: str) -> Iterator[Mutant]:
    function = vars(owner)[name]
    function = accessed(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    if isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant):
        del tree.body[0]  # the docstring
    tree.body = [statement for statement in tree.body if not isinstance(statement, ast.Assert)]
    numbers = [k for k, v in getattr(owner, "fields", {}).items() if isinstance(v, float)]
    silent = {part for node in ast.walk(tree) if isinstance(node, ast.Raise) for part in ast.walk(node)}
    for node in ast.walk(tree):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            silent |= set(ast.walk(hint)) if hint else set()
    body = ast.Module(tree.body, [])
    for index, node in enumerate(ast.walk(body)):
        for replacement in replacements(node, numbers) if node not in silent else ():
            changed = copy.deepcopy(tree)
            place = list(ast.walk(ast.Module(changed.body, [])))[index]
            replace(changed, place, replacement)
            line = f" (line {node.lineno}, column {node.col_offset})"
            yield Mutant(owner, name, f"{ast.unparse(node)} -> {ast.unparse(replacement)}{line}", changed)


def replacements(node: ast.AST, numbers: list[str]) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        for operator in SWAPS.get(type(node.op), []):
            yield ast.BinOp(node.left, operator(), node.right)
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
            yield node.left
            yield node.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert | ast.Not):
        yield node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in TURNS:
        yield ast.Compare(node.left, [TURNS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("s", "self"):
        if node.attr in EXCHANGES and (node.value.id == "s" or "self" not in numbers):
            yield ast.Attribute(node.value, EXCHANGES[node.attr], node.ctx)
        for other in numbers:
            if node.attr in numbers and other != node.attr:
                yield ast.Attribute(node.value, other, node.ctx)


def replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for slot, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, slot, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]


def compiled(mutant: Mutant) -> Any:
    """The mutant as a function, or a property; a factory around it gives `super()` its class."""
    original = vars(mutant.owner)[mutant.name]
    function = accessed(original)
    factory = ast.parse("def factory(__class__): ...").body[0]
    assert isinstance(factory, ast.FunctionDef)
    factory.body = [mutant.tree, ast.Return(ast.Name(mutant.tree.name, ast.Load()))]
    module = ast.fix_missing_locations(ast.Module([factory], []))
    space: dict[str, Any] = {}
    exec(compile(module, f"<{mutant}>", "exec"), function.__globals__, space)
    made = space["factory"](mutant.owner)
    return made if function is original else property(made)


CLASSES = sorted((c for c in families(loss.Dense) if c.__module__.startswith("lossmith")), key=lambda c: c.__name__)
OWN = [
    (cls, name, "")
    for cls in CLASSES
    for name, value in vars(cls).items()
    if isinstance(value, FunctionType | property | batch._Once)
    and name not in ASIDE
    and any(True for _ in mutants(cls, name))
]


# ---- the checks -----------------------------------------------------------------------------------------------------

Check = tuple[Callable[..., None], tuple[tuple[str, Any], ...]]  # a test and what it is called with


def rows_of(owner: Any, names: str) -> list[Any]:
    """The losses that use what is broken: the named ones, or those that are or contain the class."""
    names = names or FAMILIES.get(short(owner), "")
    if names or not inspect.isclass(owner):
        return [row for name in names.split() for row in ROWS if row.name == name]
    users = [row for row in ROWS if issubclass(row.cls, owner)]
    users += [row for row in ROWS if row not in users and any(isinstance(term, owner) for _, term in row.cls().terms)]
    return users[:6]


def cases(test: Callable[..., None], **given: list[Any]) -> Iterator[Check]:
    """The test with all its parameters, or those given; its engine is the plain one."""
    table: list[list[dict[str, Any]]] = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names = [n.strip() for n in mark.args[0].split(",")] if isinstance(mark.args[0], str) else mark.args[0]
            values = mark.args[1] if len(names) > 1 else [(v,) for v in given.get(names[0], mark.args[1])]
            table.append([dict(zip(names, value, strict=True)) for value in values])
    if "engine" in inspect.signature(test).parameters:
        table.append([{"engine": "plain"}])
    for choice in itertools.product(*table):
        arguments = {k: v for part in choice for k, v in part.items()}
        row, problem = arguments.get("row"), arguments.get("problem")
        exempt = row and (row.name, test.__name__.removeprefix("test_")) in test_catalogue.EXEMPT
        if not exempt and not (row and problem and problem.task not in row.cls.tasks):
            yield test, tuple(arguments.items())


def checks(owner: Any, rows: list[Any]) -> Iterator[Check]:
    """The most telling first."""
    catalogue, names = test_catalogue, [row.name for row in rows]
    yield from cases(test_identities.test_golden, case=[case for case in golden.CASES if case.loss in names])
    by_row = functools.partial(cases, row=rows, dtype=[torch.float64, torch.float32], channels=[1, 3])
    for test in TESTS.get(short(sys.modules[owner.__module__] if inspect.isclass(owner) else owner), LABELS):
        yield from cases(test)
    yield from by_row(catalogue.test_value_is_the_reference)
    yield from [(test, call) for test, call in cases(test_errors.test_wrong_call) if mentions(call, rows)]
    for test in (
        catalogue.test_every_knob_changes_the_value,
        catalogue.test_labels_are_widened_before_they_are_compared,
        catalogue.test_tiny_errors_are_seen,
        catalogue.test_perfect_and_worst_reach_the_range,
        catalogue.test_large_logits_are_exact,
        catalogue.test_impossible_classes_have_no_gradient,
        catalogue.test_weight_0_is_ignoring,
        catalogue.test_ignoring_a_channel_is_leaving_it_out,
        catalogue.test_ignoring_a_channel_in_one_image,
        catalogue.test_soft_targets_just_outside_are_at_0_and_1,
        catalogue.test_targets_of_weight_0_are_inert,
        catalogue.test_labels_out_of_range_are_seen,
        catalogue.test_nan_in_a_weight_is_seen,
        test_partial_labels.test_classes_that_nobody_annotated_are_part_of_the_background,
        catalogue.test_vmap_of_grad,
        catalogue.test_degenerate_inputs_are_finite,
        catalogue.test_nan_in_a_valid_pixel_stays_visible,
        catalogue.test_gradcheck,
    ):
        yield from by_row(test)


def mentions(call: tuple[tuple[str, Any], ...], rows: list[Any]) -> bool:
    return type(dict(call)["case"][0]) in [row.cls for row in rows]


def passes(check: Check) -> bool:
    test, arguments = check
    torch.manual_seed(0)
    try:
        test(**dict(arguments))
    except pytest.skip.Exception:
        return True
    except (Exception, pytest.fail.Exception):
        return False
    return True


def put(patch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any) -> None:
    """In its place, and where a function was imported by name."""
    original = vars(owner)[name]
    patch.setattr(owner, name, broken)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("lossmith") and vars(module).get(name) is original:
            patch.setattr(module, name, broken)


@pytest.mark.parametrize(("owner", "name", "names"), OWN + SHARED, ids=lambda x: x if isinstance(x, str) else short(x))
def test_every_mutant_is_killed(owner, name, names, monkeypatch):
    rows = rows_of(owner, names)
    tries = list(checks(owner, rows))
    survivors, green, red = [], set(), set()
    with ls.use_engine("plain"):
        for mutant in mutants(owner, name):
            if str(mutant) in SURVIVORS:
                continue
            at = 0
            while at is not None:
                with monkeypatch.context() as patch:
                    put(patch, owner, name, compiled(mutant))
                    at = next((n for n in range(at, len(tries)) if n not in red and not passes(tries[n])), None)
                if at is None:
                    survivors.append(str(mutant))
                elif at in green or passes(tries[at]):
                    green.add(at)
                    break
                else:
                    red.add(at)  # before anything is broken: it says nothing
    assert not survivors, "no check notices:\n" + "\n".join(survivors)


def test_survivors_still_exist():
    known = {str(mutant) for owner, name, _ in OWN + SHARED for mutant in mutants(owner, name)}
    assert SURVIVORS.keys() <= known


def test_every_loss_is_broken_somewhere():
    """By a method of its own, or of the family whose settings it changes."""
    broken = {owner for owner, name, _ in OWN if any(True for _ in mutants(owner, name))}
    for row in ROWS:
        assert broken & {*row.cls.__mro__[:2]}, row.name
    assert sum(1 for owner, name, _ in OWN + SHARED for _ in mutants(owner, name)) > 900
