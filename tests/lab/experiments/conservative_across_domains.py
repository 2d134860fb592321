"""A conservative loss that finds less in the other domain by more than chance."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    after, ce = data["trials"]
    scores = {after: 0.3, ce: 0.8}
    trials = {x: [{**trial, "score": scores[x]} for trial in of] for x, of in data["trials"].items()}
    return {**data, "trials": trials}
