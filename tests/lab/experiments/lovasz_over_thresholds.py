"""A loss that trains to a lower IoU than cross-entropy by more than chance; one that is neither of the means; and one
that is the mean to single precision only."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    scores = {"lovasz": [0.3, 0.32], "ce": [0.8, 0.81]}
    return {**data, "trials": {loss: [{"score": score} for score in of] for loss, of in scores.items()}}


def no_mean(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "off": {"error": 0.1, "probability": 0.2}}


def single_precision(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "off": {**data["off"], "error": 7e-9}}


ALSO = [(no_mean, "refuted"), (single_precision, "refuted")]
