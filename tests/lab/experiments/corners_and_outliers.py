"""An L2 that no outlier rules."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "l2": {**data["l2"], "best": 0.2}}
