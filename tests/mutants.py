"""Formulas broken on purpose: what can be broken, how, and which checks reach it. Used by `test_mutants.py`.

Nothing here knows where a function stands or what it is called: functions are found in the modules of the package, a
breakage is named by the text that it changes, and which losses and which tests are concerned is seen by running them.
"""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import itertools
import pkgutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
import torch

import lossmith as ls

# ---- what is broken -------------------------------------------------------------------------------------------------

# Of these modules no value comes, or it comes from kernels, which are held against the plain engine instead.
APART = {
    *("cli", "lab", "names", "papers", "explanation", "check", "compat", "settings", "call", "choice", "tensors"),
    "processes",  # these are broken in test_processes.py, in processes
    *("numba", "triton", "kernels", "box_kernels", "kernel_cache", "cpu", "ranking_cpu"),
}
# Of these functions neither: they say what a loss is called or made of, or call kernels.
ASIDE = {"__init_subclass__", "__repr__", "_who", "from_labels", "terms", "shared", "_refuses", "_Fields", "_run"}


@dataclass(frozen=True)
class Target:
    """A function, by the class that it is a method of, if any. Only functions of the same name need their module."""

    owner: type | None
    function: FunctionType

    def __str__(self) -> str:
        name = self.function.__name__
        if self.owner:
            return f"{self.owner.__name__}.{name}"
        return f"{self.function.__module__.rpartition('.')[2]}.{name}" if namesakes()[name] > 1 else name


def modules() -> Iterator[ModuleType]:
    """The modules that decide a value."""
    for found in pkgutil.walk_packages(ls.__path__, f"{ls.__name__}."):
        if not APART & set(found.name.split(".")):
            yield importlib.import_module(found.name)


def underlying(value: Any) -> Any:
    """The function behind a property, a static method, a decorator; anything else as it is."""
    if isinstance(value, type | ModuleType):
        return value
    inner = next((getattr(value, name) for name in ("fget", "func") if getattr(value, name, None)), value)
    return inspect.unwrap(inner) if callable(inner) else inner


@functools.cache
def targets() -> list[Target]:
    """Every function and method that is written in these modules."""
    found = []
    for module in [ls, *modules()]:
        for value in list(vars(module).values()):
            if inspect.isclass(value) and value.__module__ == module.__name__:
                found += [Target(value, underlying(member)) for member in vars(value).values()]
            else:
                found.append(Target(None, underlying(value)))
    here = {module.__name__: module.__file__ for module in modules()}
    return [
        target
        for target in dict.fromkeys(t for t in found if isinstance(t.function, FunctionType))
        if here.get(target.function.__module__) == target.function.__code__.co_filename  # not made by a decorator
        and not ASIDE & set(target.function.__qualname__.split("."))
        and mutants(target)
    ]


@functools.cache
def namesakes() -> Counter[str]:
    return Counter(target.function.__name__ for target in targets() if not target.owner)


# ---- how it is broken -----------------------------------------------------------------------------------------------

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
    """A function with one node replaced. It is named by the texts of the old and the new, and, where the function has
    several such, by which of them it is, from the top."""

    target: Target
    what: str
    at: int  # of the nodes of its body
    replacement: ast.expr

    def __str__(self) -> str:
        return f"{self.target}: {self.what}"


@functools.cache
def mutants(target: Target) -> list[Mutant]:
    tree = written(target)
    numbers = [k for k, v in getattr(target.owner, "fields", {}).items() if isinstance(v, float)]
    silent = set(unspoken(tree))
    spoken = [(at, node) for at, node in enumerate(nodes(tree)) if node not in silent and isinstance(node, ast.expr)]
    found, seen = [], Counter[str]()
    for at, node in sorted(spoken, key=lambda pair: (pair[1].lineno, pair[1].col_offset)):
        for replacement in replacements(node, numbers):
            if ast.unparse(replacement) == ast.unparse(node):  # 1e30 + 1 is 1e30
                continue
            what = f"{ast.unparse(node)} -> {ast.unparse(replacement)}"
            seen[what] += 1
            found.append(Mutant(target, what if seen[what] == 1 else f"{what} #{seen[what]}", at, replacement))
    return found


def written(target: Target) -> ast.FunctionDef:
    """The source of a function, without its docstring."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(target.function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    if isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant):
        del tree.body[0]
    return tree


def nodes(tree: ast.FunctionDef) -> list[ast.AST]:
    """All that stand in its body, always in the same order."""
    return list(ast.walk(ast.Module(tree.body, [])))


def unspoken(tree: ast.FunctionDef) -> Iterator[ast.AST]:
    """Nodes that no value comes from: messages and what is worked out for them, assertions, types."""
    for node in ast.walk(tree):
        hints = [getattr(node, name, None) for name in ("annotation", "returns")]
        parts = [hint for hint in hints if hint]
        for block in (getattr(node, name, None) for name in ("body", "orelse")):
            if isinstance(block, list) and block and isinstance(block[-1], ast.Raise):
                parts += block
        parts += [node] if isinstance(node, ast.Raise | ast.Assert) else []
        for part in parts:
            yield from ast.walk(part)


def replacements(node: ast.AST, numbers: list[str]) -> Iterator[ast.expr]:
    """`numbers` are settings of the loss, which may be mistaken for each other."""
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
        if node.attr in EXCHANGES and node.attr not in numbers:
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


def compiled(mutant: Mutant) -> CodeType:
    """What the function shall do instead: put in its place, it is broken for everyone who holds it."""
    function = mutant.target.function
    names = function.__code__.co_freevars  # `super()` knows its class by one
    tree = written(mutant.target)
    replace(tree, nodes(tree)[mutant.at], mutant.replacement)
    tree.body += [ast.Expr(ast.Name(name, ast.Load())) for name in names]  # or one that is not used would be dropped
    tree.name = "broken"  # by its own name it calls what everybody calls, not a variable of the factory
    factory = ast.parse(f"def factory({', '.join(names)}): ...").body[0]
    assert isinstance(factory, ast.FunctionDef)
    factory.body = [tree, ast.Return(ast.Name(tree.name, ast.Load()))]
    module = ast.fix_missing_locations(ast.Module([factory], []))
    space: dict[str, Any] = {}
    exec(compile(module, f"<{mutant}>", "exec"), function.__globals__, space)
    made: CodeType = space["factory"](*names).__code__
    return made


# ---- which checks reach it ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Check:
    """A test and what it is called with."""

    test: Callable[..., None]
    given: dict[str, Any]

    def passes(self) -> bool:
        torch.manual_seed(0)
        try:
            with pytest.MonkeyPatch.context() as patch:
                needs = "monkeypatch" in inspect.signature(self.test).parameters
                self.test(**self.given, **({"monkeypatch": patch} if needs else {}))
        except pytest.skip.Exception:
            return True
        except (Exception, pytest.fail.Exception):
            return False
        return True

    @functools.cached_property
    def through(self) -> set[CodeType]:
        """What it reaches; nothing if it fails before anything is broken, as then it says nothing."""
        passed, through = reached(self.passes)
        return through if passed else set()


def cases(test: Callable[..., None], **given: list[Any]) -> Iterator[Check]:
    """The test with all its parameters, or those given; its engine is the plain one. None if it needs more."""
    table: list[list[dict[str, Any]]] = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name in ("slow", "skip", "xfail"):
            return
        if mark.name == "parametrize":
            names = [n.strip() for n in mark.args[0].split(",")] if isinstance(mark.args[0], str) else mark.args[0]
            table.append([])
            for value in mark.args[1]:
                values = getattr(value, "values", value) if hasattr(value, "marks") else value
                values = values if len(names) > 1 or hasattr(value, "marks") else (values,)
                if len(names) > 1 or values[0] in given.get(names[0], [values[0]]):
                    table[-1].append(dict(zip(names, values, strict=True)))
    wanted = inspect.signature(test).parameters.keys() - {"monkeypatch"}
    if "engine" in wanted:
        table.append([{"engine": "plain"}])
    for choice in itertools.product(*table):
        arguments = {k: v for part in choice for k, v in part.items()}
        if arguments.keys() == wanted:
            yield Check(test, arguments)


def examples() -> Iterator[Check]:
    """Those of the documentation."""

    def runs(example: doctest.DocTest) -> None:
        outcome = doctest.DocTestRunner(verbose=False).run(example, out=lambda _: None, clear_globs=False)
        assert not outcome.failed

    for module in modules():
        for example in doctest.DocTestFinder().find(module):
            yield Check(runs, {"example": example})


def reached(run: Callable[[], Any]) -> tuple[Any, set[CodeType]]:
    """What it returns, and all code that it ran through."""
    through = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            through.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        return run(), through
    finally:
        sys.setprofile(before)
