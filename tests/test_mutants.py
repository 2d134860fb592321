"""The suite can fail: formulas broken on purpose turn it red.

The breakages are made from the syntax tree of everything that decides a value: each loss's own methods and the few
functions they share. Operators are swapped, terms dropped, numbers nudged, comparisons turned, fields exchanged. A
breakage that no check notices must stand in `SURVIVORS` with the reason why it is no breakage.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import golden
import lossmith as ls
import test_algebra
import test_catalogue
import test_errors
import test_identities
from lossmith import batch, engine, loss, region
from problems import PROBLEMS, ROWS

pytestmark = pytest.mark.slow

SURVIVORS: dict[str, str] = {
    "Curve.__call__: u if self.gamma == 0 else power(-torch.expm1(-u), self.gamma) * u"
    " -> power(-torch.expm1(-u), self.gamma) * u (line 2, column 11)": "a shortcut: x ** 0 · u is u",
    "GeneralizedDiceLoss.formula: 1.0 -> 2.0 (line 5, column 73)": "stands in for a size of 0 in a branch not taken",
    "GeneralizedDiceLoss.formula: 1.0 -> 2.0 (line 6, column 30)": "scales all weights, which cancels in the ratio",
    "RegionLoss._by_class: 0 -> 1 (line 11, column 66)": "under multilabel the weights of no and yes are the same",
    "engine.power: 1 -> 2 (line 3, column 36)": "a shortcut: the other branch gives the same for exponents from 1 on",
}

METHODS = ("formula", "curve", "price", "wants", "label_sums", "pixels")
SHARED: list[tuple[Any, str]] = [
    (region, "missed"),
    (loss, "ratio"),
    (engine, "power"),
    (engine.Curve, "__call__"),
    (batch.Sums, "tp"),
    (batch.Sums, "squared_error"),
    (batch.Sums, "both"),
    (batch.Sums, "pooled"),
    (batch.Batch, "label_weight"),
    (batch.Batch, "at_labels"),
    (loss.Loss, "reduce"),
    (region.RegionLoss, "_by_class"),
    (region.RegionLoss, "_included"),
]
OWN = [(row.cls, name) for row in ROWS for name in METHODS if name in vars(row.cls)]

SWAPS: dict[type, list[type]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
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
        return f"{self.owner.__name__.rpartition('.')[2]}.{self.name}: {self.what}"


def mutants(owner: Any, name: str) -> Iterator[Mutant]:
    function = vars(owner)[name]
    function = function.fget if isinstance(function, property) else function
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    if isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant):
        del tree.body[0]  # the docstring
    tree.body = [statement for statement in tree.body if not isinstance(statement, ast.Assert)]
    numbers = [k for k, v in getattr(owner, "fields", {}).items() if isinstance(v, float)]
    body = ast.Module(tree.body, [])
    for index, node in enumerate(ast.walk(body)):
        for replacement in replacements(node, numbers):
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
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
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
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]


def compiled(mutant: Mutant) -> Any:
    """The mutant as a function, or a property; a factory around it gives `super()` its class."""
    original = vars(mutant.owner)[mutant.name]
    function = original.fget if isinstance(original, property) else original
    factory = ast.parse("def factory(__class__): ...").body[0]
    assert isinstance(factory, ast.FunctionDef)
    factory.body = [mutant.tree, ast.Return(ast.Name(mutant.tree.name, ast.Load()))]
    module = ast.fix_missing_locations(ast.Module([factory], []))
    space: dict[str, Any] = {}
    exec(compile(module, f"<{mutant}>", "exec"), function.__globals__, space)
    made = space["factory"](mutant.owner)
    return property(made) if isinstance(original, property) else made


def checks(rows: list[Any]) -> Iterator[Callable[[], None]]:
    """The suite's own tests, the most telling first."""
    catalogue, identities = test_catalogue, test_identities
    for row in rows:
        for problem in PROBLEMS:
            yield lambda r=row, p=problem: catalogue.test_value_is_the_reference(r, p, "plain")
    yield lambda: identities.test_background_follows_from_the_foreground()
    yield lambda: identities.test_alpha_per_channel_is_alpha_of_each_channel("plain")
    for exponent in (0.0, 0.3, 1.0, 1.5):
        yield lambda e=exponent: identities.test_power_has_a_finite_slope_at_0(e)
    for case in test_errors.CALLS:
        yield lambda c=case: test_errors.test_wrong_call(c, "plain")
    for case in golden.CASES:
        if case.loss in {row.name for row in rows}:
            yield lambda c=case: identities.test_golden(c)
    for row in rows:
        yield lambda r=row: catalogue.test_every_knob_changes_the_value(r, "plain")
        yield lambda r=row: catalogue.test_tiny_errors_are_seen(r, "plain")
        for channels in (1, 2, 4):
            yield lambda r=row, c=channels: catalogue.test_perfect_and_worst_reach_the_range(r, c, "plain")
        for channels in (1, 3):
            for dtype in (torch.float64, torch.float32):
                yield lambda r=row, c=channels, d=dtype: catalogue.test_degenerate_inputs_are_finite(r, d, c, "plain")
                yield lambda r=row, c=channels, d=dtype: catalogue.test_large_logits_are_exact(r, d, c, "plain")
        yield lambda r=row: catalogue.test_impossible_classes_have_no_gradient(r, torch.float32, "plain")
        for problem in catalogue.hard:
            yield lambda r=row, p=problem: catalogue.test_nan_in_a_valid_pixel_stays_visible(
                r, p, torch.float32, "plain"
            )
        for problem in PROBLEMS:
            yield lambda r=row, p=problem: catalogue.test_gradcheck(r, p)
    yield lambda: test_algebra.test_parts("plain")
    yield lambda: test_algebra.test_denominator_goes_to_the_terms_that_divide("plain")
    for weighted in (False, True):
        yield lambda w=weighted: identities.test_cross_entropy_is_torch("none", 0.1, w, "plain")


def killed(rows: list[Any]) -> bool:
    for check in checks(rows):
        try:
            check()
        except (Exception, pytest.fail.Exception):
            return True
    return False


@pytest.mark.parametrize(("owner", "name"), OWN + SHARED, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_every_mutant_is_killed(owner, name, monkeypatch):
    rows = [row for row in ROWS if row.cls is owner] or ROWS
    survivors = []
    with ls.use_engine("plain"):
        assert not killed(rows[:1]), "the suite is red before anything is broken"
        for mutant in mutants(owner, name):
            if str(mutant) in SURVIVORS:
                continue
            broken, original = compiled(mutant), vars(owner)[name]
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, broken)
                for module in list(sys.modules.values()):  # where a function was imported by name
                    if getattr(module, "__name__", "").startswith("lossmith") and vars(module).get(name) is original:
                        patch.setattr(module, name, broken)
                if not killed(rows):
                    survivors.append(str(mutant))
    assert not survivors, "no check notices:\n" + "\n".join(survivors)


def test_survivors_still_exist():
    known = {str(mutant) for owner, name in OWN + SHARED for mutant in mutants(owner, name)}
    assert SURVIVORS.keys() <= known


def test_there_are_enough_mutants():
    assert sum(1 for owner, name in OWN + SHARED for _ in mutants(owner, name)) > 150
