"""A focal loss that gives nothing back; one that gives all to the positives and nothing to the hard negatives."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "shares": dict.fromkeys(data["shares"], data["shares"]["0"])}


def nothing_to_the_hard(data: dict[str, Any]) -> dict[str, Any]:
    easy, hard, positives = data["shares"]["2"]
    return {**data, "shares": {**data["shares"], "2": [easy, 0.0, hard + positives]}}


ALSO = [(nothing_to_the_hard, OPPOSITE)]
