"""A generalised Dice in which all sizes count the same, by all measures and by all but one."""

from typing import Any

OPPOSITE = "confirmed"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {measure: {**parts, "gdl": [0.5] * len(parts["gdl"])} for measure, parts in data.items()}


def but_one(data: dict[str, Any]) -> dict[str, Any]:
    last = list(data)[-1]
    return {**contradict(data), last: data[last]}


ALSO = [(but_one, "confirmed with a correction")]
