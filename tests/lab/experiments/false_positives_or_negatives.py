"""A combo whose beta changes nothing; one whose best bias stays; and one that acts as the document says."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    combo = data["costs"]["combo"]
    return {**data, "costs": {**data["costs"], "combo": dict.fromkeys(combo, combo["0.5"])}}


def stays(data: dict[str, Any]) -> dict[str, Any]:
    tversky = data["errors"]["tversky"]
    return {**data, "errors": {**data["errors"], "tversky": dict.fromkeys(tversky, tversky["0.5"])}}


def as_the_document_says(data: dict[str, Any]) -> dict[str, Any]:
    def turned(by: dict[str, Any]) -> dict[str, Any]:
        return {"combo": dict(zip(by["combo"], reversed(by["combo"].values()), strict=True)), "tversky": by["tversky"]}

    return {of: turned(by) for of, by in data.items()}


ALSO = [(stays, "refuted"), (as_the_document_says, "confirmed")]
