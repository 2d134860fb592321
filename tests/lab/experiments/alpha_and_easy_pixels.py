"""An alpha that weakens what is easy, and one that balances nothing."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "alpha": {k: {**r, "easy": float(k)} for k, r in data["alpha"].items()}}


def balances_nothing(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "alpha": {k: {**r, "classes": 1.0} for k, r in data["alpha"].items()}}


ALSO = [(balances_nothing, "refuted")]
