"""A loss that turns back somewhere else; one that turns twice; and a transcription that turns back by itself."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "turns": dict.fromkeys(data["turns"], 0.5)}


def twice(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "slope": {base: [of[0], 1.0, -1.0, *of[3:]] for base, of in data["slope"].items()}}


def as_transcribed(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "transcribed": data["slope"]}


ALSO = [(twice, "refuted"), (as_transcribed, "confirmed")]
