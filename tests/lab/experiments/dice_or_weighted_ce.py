"""A weighted cross-entropy that is better by more than chance."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    scores = {"dice": [0.5, 0.52], 'ce(class_weight="inverse")': [0.9, 0.91]}
    return {**data, "trials": {loss: [{"score": score} for score in of] for loss, of in scores.items()}}


def clearly(data: dict[str, Any]) -> dict[str, Any]:
    scores = {"dice": [0.9, 0.91], 'ce(class_weight="inverse")': [0.5, 0.52]}
    return {**data, "trials": {loss: [{"score": score} for score in of] for loss, of in scores.items()}}


ALSO = [(clearly, "confirmed")]
