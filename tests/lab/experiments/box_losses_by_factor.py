"""An IoU that sees the centre; a DIoU of boxes apart that grows with them."""

from typing import Any

OPPOSITE = "refuted"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    seeing = {**data["values"]["iou_box"], "centre (inside)": [0.2, 0.4]}
    return {**data, "values": {**data["values"], "iou_box": seeing}}


def growing(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "scaled": {**data["scaled"], "diou": {**data["scaled"]["diou"], "apart": [1.2, 12.0]}}}


ALSO = [(growing, OPPOSITE)]
