"""Training that leaves the contour as cross-entropy does, on one seed; and no conflict."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    _, *rest = data["length"]["region weight 1"]
    return {**data, "length": {**data["length"], "region weight 1": [data["length"]["ce"][0], *rest]}}


def agree(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "opposed": {**data["opposed"], "soft": [0.1, 0.1]}}


ALSO = [(agree, "refuted")]
