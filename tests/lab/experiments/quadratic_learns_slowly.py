"""A quadratic cost that learns as cross-entropy does."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "quadratic": data["ce"]}
