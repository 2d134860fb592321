"""A Dice whose gradient falls with the distance; a penalty that is flat outside; a boundary loss by another weight."""

from typing import Any

OPPOSITE = "refuted"


def _with(data: dict[str, Any], side: str, name: str, values: list[float]) -> dict[str, Any]:
    return {**data, "gradient": {**data["gradient"], side: {**data["gradient"][side], name: values}}}


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return _with(data, "inside", "dice", [1 / d for d in data["distance"]["inside"]])


def flat(data: dict[str, Any]) -> dict[str, Any]:
    return _with(data, "outside", "distance_penalty", [1.0] * len(data["distance"]["outside"]))


def uneven(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "uneven": 0.1}


ALSO = [(flat, "refuted"), (uneven, "refuted")]
