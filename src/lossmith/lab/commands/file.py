"""`--settings FILE.yaml`: what stands there is as if it had been given on the command line, which has the last word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lossmith.lab import UserError

_LARGEST = 100_000  # bytes
_ONLY_ON_THE_LINE = ("settings", "help", "json")


def read_settings(context: typer.Context, path: Path | None) -> Path | None:
    """A callback of the option: the file's values become the defaults of the command's other options."""
    if path is not None:
        several = {str(option.name): bool(getattr(option, "multiple", False)) for option in context.command.params}
        context.default_map = _values(path, {n: many for n, many in several.items() if n not in _ONLY_ON_THE_LINE})
    return path


def _values(path: Path, known: dict[str, bool]) -> dict[str, Any]:
    """The settings of a file by the names of the options. `known` says which take several values."""
    import yaml  # type: ignore[import-untyped]

    from lossmith.settings import nearest

    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"--settings {path}: is no file of settings, it has {path.stat().st_size} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        said = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise UserError(f"--settings {path}: cannot be read ({said})") from error
    if not isinstance(content, dict):
        raise UserError(f"--settings {path}: must hold settings, one a line, for example steps: 200")
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UserError(f"--settings {path}: no setting is called {key!r}; {nearest(name, known)}")
        many = value if isinstance(value, list) else [value]
        if known[name] and not all(isinstance(each, str) for each in many):
            raise UserError(f"--settings {path}: {key} must be texts, one a line, for example - dice + ce")
        if isinstance(value, dict) or (isinstance(value, list) and not known[name]):
            raise UserError(f"--settings {path}: {key} has several values; give it one")
        if value is not None:
            values[name] = many if known[name] else str(value)
    return values
