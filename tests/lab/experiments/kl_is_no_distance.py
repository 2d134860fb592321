"""A distance: the direct way is never the longer one. And a KL that is negative, symmetric, or not CE − H."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "direct": 0.2, "via": 0.3, "longer": 0.0}


def negative(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "smallest": -0.01}


def symmetric(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "apart": 0.0}


def not_the_difference(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "off": 0.1}


ALSO = [(negative, "refuted"), (symmetric, "refuted"), (not_the_difference, "refuted")]
