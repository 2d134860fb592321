"""A loss that costs more in the middle of the picture; one for every pair; one that sees further than a neighbour."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    first, *rest = data["values"]
    return {**data, "values": [2 * first, *rest]}


def every_pair(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "pairs": dict.fromkeys(data["pairs"], data["values"][0])}


def further(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "apart": data["values"][0]}


ALSO = [(every_pair, "refuted"), (further, "refuted")]
