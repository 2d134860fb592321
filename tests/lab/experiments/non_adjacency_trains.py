"""A term that brings forbidden contacts about, on images with labels and on others."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    *terms, ce = data["trials"]
    worse = {"score": 0.5, "forbidden": 900}
    change = {**dict.fromkeys(terms, worse), ce: {"score": 0.95, "forbidden": 90}}
    trials = {x: [{**trial, **change[x]} for trial in of] for x, of in data["trials"].items()}
    return {**data, "trials": trials}
