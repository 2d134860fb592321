"""The advice in the lab's errors: which test follows each, where the source gives one, files to provoke them with."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from PIL import Image

Array = np.ndarray[Any, Any]
Said = Callable[..., str]
ADVICE: dict[str, Callable[..., None]] = {}  # as it stands in the source, {} for what is put in


def follows(*advice: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def entered(test: Callable[..., None]) -> Callable[..., None]:
        ADVICE.update(dict.fromkeys(advice, test))
        return test

    return entered


class Reached(Exception):
    """The work would begin now: nothing was wrong."""


def reached(*_: Any, **__: Any) -> Any:
    raise Reached


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))


def save(path: Path, array: Array) -> None:
    """A file in the place of all others of its stem; the suffix says which kind."""
    for other in path.parent.glob(f"{path.name.split('.')[0]}.*"):
        other.unlink()
    if ".nii" in path.name:
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix in (".png", ".bmp"):
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# What follows is one clause; `--option …:` at the beginning says what the error is about.
SUBJECT = re.compile(r'^--[^:]*?("\{\}"|\{\})?( \([^)]*\))?: |^\{\}(, line \{\})?: ')
CLAUSES = re.compile(r"; |(?<=[?]) (?=[A-Z])|\. (?=[A-Z{])")
IMPERATIVE = re.compile(
    r"^(expected|set)\b|\b(add|choose|correct|delete|drop|give|ignore|install|keep|mark|mend|move|must|name|needs?|needed|remove|"
    r"replace|resample|save|show|takes?|threshold|use|write|as in|did you mean|for example|not one of|"
    r"labels (are|start)|numpy|scipy)\b|(?<=.)--[a-z]|\(unused|\blossmith lab\b",
    re.IGNORECASE,
)


def literal(node: ast.AST) -> str | None:
    """A string as it stands in the source, {} for what is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def literals(node: ast.AST) -> Iterator[str]:
    found = literal(node)
    if found is not None:
        yield found
    inner = node.values if isinstance(node, ast.JoinedStr) else ast.iter_child_nodes(node)
    for child in inner:
        if found is None or isinstance(child, ast.FormattedValue):
            yield from literals(child)


def makers(name: str, scopes: list[ast.AST]) -> Iterator[ast.AST]:
    """What a name in an error gets its text from: what is assigned to it, or what a function of that name returns."""
    for scope in scopes:
        for node in ast.walk(scope) if isinstance(scope, ast.FunctionDef) else ast.iter_child_nodes(scope):
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                yield node.value
            elif isinstance(node, ast.FunctionDef) and node.name == name:
                yield from (n for n in ast.walk(node) if isinstance(n, ast.Return))


def _fault(node: ast.AST) -> bool:
    """Whether a fault is made here, to be raised elsewhere."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fault"


def advice_in(source: str) -> set[str]:
    """The clauses in the errors of a module that tell the user to do something."""
    tree = ast.parse(source)
    texts: set[str] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        waiting = [node for node in ast.walk(function) if isinstance(node, ast.Raise) or _fault(node)]
        seen: set[str] = set()
        while waiting:
            part = waiting.pop()
            texts |= set(literals(part))
            for name in {node.id for node in ast.walk(part) if isinstance(node, ast.Name)} - seen:
                seen.add(name)
                waiting += makers(name, [function, tree])
    clauses = {clause for text in texts for clause in CLAUSES.split(SUBJECT.sub("", text))}
    return {clause for clause in clauses if " " in clause and IMPERATIVE.search(clause)}
