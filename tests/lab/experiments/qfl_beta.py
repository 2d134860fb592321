"""A β of 1 that is better than 2 by more than chance."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    scores = {loss: 0.6 if "beta=1" in loss else 0.2 for loss in data["trials"]}
    trials = {x: [{**trial, "score": scores[x]} for trial in of] for x, of in data["trials"].items()}
    return {**data, "trials": trials}
