"""A cross-entropy that is ahead from the start by more than chance, and level in the end."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    courses = {"dice": [0.05, 0.3, 0.5, 0.8, 0.9], "ce": [0.9, 0.9, 0.9, 0.9, 0.9]}
    steps = [4, 8, 12, 16, 20]
    return {
        **data,
        "trials": {
            loss: [{"score": of[-1], "steps": steps, "on_the_way": 2, "course": of}] * 2 for loss, of in courses.items()
        },
    }
