"""The published course as the true one; the same with a CIoU like DIoU's, with a GIoU that ends at its target, and with
a DIoU that is behind it once."""

from typing import Any

OPPOSITE = "confirmed"


def contradict(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "runs": {**data["runs"], "true": data["runs"]["published"]}}


def _published_with(data: dict[str, Any], **losses: Any) -> dict[str, Any]:
    return {**data, "runs": {**data["runs"], "true": {**data["runs"]["published"], **losses}}}


def even_ciou(data: dict[str, Any]) -> dict[str, Any]:
    return _published_with(data, ciou=data["runs"]["published"]["diou"])


def giou_arrives(data: dict[str, Any]) -> dict[str, Any]:
    giou = data["runs"]["published"]["giou"]
    return _published_with(data, giou={**giou, "totals": [*giou["totals"][:-1], 0.001]})


def diou_behind_once(data: dict[str, Any]) -> dict[str, Any]:
    published, true = (data["runs"][form]["diou"] for form in ("published", "true"))
    far = [error + 10 for error in true["at"]["160"]]
    return _published_with(data, diou={**published, "at": {**published["at"], "160": far}})


ALSO = [
    (even_ciou, "confirmed"),
    (giou_arrives, "confirmed with a correction"),
    (diou_behind_once, "confirmed with a correction"),
]
