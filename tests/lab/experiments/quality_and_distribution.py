"""A distribution whose mass stays where it was; a decode that misses one target; a QFL that is smallest elsewhere."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "bins": [[1 / 6] * 6, *data["bins"][1:]]}


def misses(data: dict[str, Any]) -> dict[str, Any]:
    *others, last = data["decoded"]
    return {**data, "decoded": [*others, [*last[:-1], 4.2]]}


def elsewhere(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "qfl": {**data["qfl"], "0.3": data["qfl"]["0.1"]}}


ALSO = [(misses, "refuted"), (elsewhere, "refuted")]
