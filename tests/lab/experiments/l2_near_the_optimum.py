"""L1 and L2 change places; an L2 that is near at the last step alone."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {rate: {**of, "l1": of["l2"], "l2": of["l1"]} for rate, of in data.items()}


def at_last(data: dict[str, Any]) -> dict[str, Any]:
    return {rate: {**of, "l2": [*of["l1"][:-1], 0.0]} for rate, of in data.items()}


ALSO = [(at_last, OPPOSITE)]
