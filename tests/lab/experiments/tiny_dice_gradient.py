"""A squared Dice as steady as Dice; one that is large by the probability alone; a Dice like the squared one."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "tiny": {**data["tiny"], "squared Dice": data["tiny"]["Dice"]}}


def by_the_probability_alone(data: dict[str, Any]) -> dict[str, Any]:
    tiny = data["tiny"]
    return {**data, "tiny": {**tiny, "squared Dice": {**tiny["squared Dice"], "z": tiny["Dice"]["z"]}}}


def like_the_squared(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "tiny": {**data["tiny"], "Dice": data["tiny"]["squared Dice"]}}


ALSO = [(by_the_probability_alone, "refuted"), (like_the_squared, "confirmed")]
