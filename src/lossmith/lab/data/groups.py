"""What belongs together, as the slices of one patient do: groups of images, which stay whole when some are held back.

A column of split.csv says them, `group`, `patient` or `case`, or `--group-by` does: with the name of another column, or
with a regular expression, whose first group (or all it matches) is the group of an image's stem. Names that look like
patients are pointed out; nothing follows from them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from lossmith.lab import UserError
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.tables import columns_of, read_column

_COLUMNS = ("group", "patient", "case")
_LEAST = 2  # images of a group on average, or names look like nothing


def read_groups(
    folder: Path, stems: list[str], faults: list[Fault], unread: Collection[str] = (), group_by: str | None = None
) -> dict[str, str]:
    """The group of each image by stem, {} if nobody says. An image without one in its row is a group of its own."""
    table = folder / "split.csv"
    columns = columns_of(table)
    column = next((name for name in ([group_by] if group_by else _COLUMNS) if name in columns), None)
    if column:
        said_once: list[Fault] = [] if "split" in columns else faults  # rows are wrong for the split, too
        found = read_column(table, column, stems, lambda _: "", said_once, unread)
        return {stem: found.get(stem) or stem for stem in stems}
    if group_by:
        return _matched(folder, stems, group_by, faults)
    guess = guess_groups(stems)
    if guess:
        pattern, stem, group = guess
        what = f"{stem!r} looks like a part of {group!r}, and images of one group may be on both sides"
        faults.append(Fault(folder / "images", what, f"if they belong together: --group-by '{pattern}'", fatal=False))
    return {}


def _matched(folder: Path, stems: list[str], group_by: str, faults: list[Fault]) -> dict[str, str]:
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(
            f"--group-by {group_by}: neither a column of split.csv nor a regular expression ({error}); "
            "give one of them, for example '^[^_]+' for what stands before the first _"
        ) from error
    found = {stem: pattern.search(stem) for stem in stems}
    lost = [stem for stem, match in found.items() if not match]
    if lost:
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        what = f"--group-by {group_by} is no column of split.csv, and as a pattern finds nothing in {lost[0]!r}"
        faults.append(Fault(folder / "images", f"{what}{more}", "it must match every name without its suffix"))
    return {stem: (match[1] if pattern.groups else None) or match[0] for stem, match in found.items() if match}


def guess_groups(stems: list[str]) -> tuple[str, str, str] | None:
    """What finds groups in names such as `p03_slice012` or `p03/012`, a name, and its group; None if nothing does."""
    for sign in "/_-":
        for pattern, parted in ((f"^(.+){sign}", str.rpartition), (f"^([^{sign}]+){sign}", str.partition)):
            parts = [parted(stem, sign) for stem in stems]
            groups = {group for group, _, _ in parts}
            numbered = all(group and part[-1:].isdigit() for group, _, part in parts)
            named = sign == "/" or all(group[-1:].isdigit() for group in groups)
            if numbered and named and 2 <= len(groups) <= len(stems) / _LEAST:
                return pattern, stems[0], parts[0][0]
    return None
