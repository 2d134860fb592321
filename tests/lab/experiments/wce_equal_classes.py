"""Predictions that make equal classes, as the labels do: by both readings of the formula, and by one of them."""

from typing import Any

OPPOSITE = "confirmed"


def _equal(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**data, "settles": {**data["settles"], **dict.fromkeys(names, data["settles"]["wce, weight from labels"])}}


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return _equal(data, "wce, weight held constant", "wce, weight differentiated")


def by_one(data: dict[str, Any]) -> dict[str, Any]:
    return _equal(data, "wce, weight differentiated")


ALSO = [(by_one, "confirmed with a correction")]
