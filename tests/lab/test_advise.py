"""Every rule of the advice, walked through: made numbers make it speak, its losses train, its command runs."""

import shlex
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import typer

import lossmith as ls
from lossmith.lab.commands import app
from lossmith.lab.data.labelled import Data
from lossmith.lab.data.samples import Sample
from lossmith.lab.kinds import all_kinds
from lossmith.lab.say.advice import ALWAYS, RULES, Rule
from lossmith.lab.say.suggestions import MOST_LOSSES, suggest
from lossmith.lab.settings import Asked

Facts = dict[str, Any]


def region(label: int, share: float, **other: Any) -> Facts:
    """A class in a fingerprint, of an everyday kind."""
    objects = {"number": 40, "per_image": 2.0, "smallest": 300, "median": 900, "largest": 4000, "small": 0.0}
    return {
        "label": label,
        "name": f"class {label}",
        "pixels": int(share * 1e6),
        "share": share,
        "empty_share": 0.0,
        "boundary_share": 0.1,
        "crops_without": 0.1,
        "objects": {**objects, "small_means": 64},
        "threshold": {"dice": 0.5},
        **other,
    }


def made(kind: str, **other: Any) -> Facts:
    """A fingerprint for which the mildest advice holds."""
    facts: Facts = {"data": "my data", "kind": kind, "task": "multiclass", "cost": None}
    if kind == "detection":
        boxes = {"positive_share": 0.1, "small": 0.1, "elongated": 0.1, "side": {"p50": 60.0}}
        return {**facts, "boxes": {**boxes, **other}}
    classes = [region(0, 0.7), region(1, 0.3)]
    return {**facts, "classes": classes, "foreground": region(-1, 0.3), **other}


# By kind and name of the rule: a fingerprint that it is for, and what of it is just not enough.
CASES: dict[tuple[str, str], tuple[Facts, Facts]] = {
    ("segmentation", "empty images"): (
        made("segmentation", foreground=region(-1, 0.3, empty_share=0.2)),
        made("segmentation", foreground=region(-1, 0.3, empty_share=0.19)),
    ),
    ("segmentation", "rare class"): (
        made("segmentation", classes=[region(0, 0.951), region(1, 0.049)]),
        made("segmentation", classes=[region(0, 0.95), region(1, 0.05)]),
    ),
    ("segmentation", "thin"): (
        made("segmentation", classes=[region(0, 0.7), region(1, 0.3, boundary_share=0.4)]),
        made("segmentation", classes=[region(0, 0.7), region(1, 0.3, boundary_share=0.39)]),
    ),
    ("segmentation", "many objects"): (
        made("segmentation", foreground=region(-1, 0.3, objects={"per_image": 20, "small": 0.0, "small_means": 64})),
        made("segmentation", foreground=region(-1, 0.3, objects={"per_image": 19, "small": 0.0, "small_means": 64})),
    ),
    ("segmentation", "small objects"): (
        made("segmentation", foreground=region(-1, 0.3, objects={"per_image": 2, "small": 0.5, "small_means": 64})),
        made("segmentation", foreground=region(-1, 0.3, objects={"per_image": 2, "small": 0.4, "small_means": 64})),
    ),
    ("segmentation", "uneven classes"): (
        made("segmentation", classes=[region(0, 0.1), region(1, 0.8), region(2, 0.08)]),
        made("segmentation", classes=[region(0, 0.1), region(1, 0.79), region(2, 0.08)]),
    ),
    ("segmentation", "empty crops"): (
        made("segmentation", foreground=region(-1, 0.3, crops_without=0.5)),
        made("segmentation", foreground=region(-1, 0.3, crops_without=0.49)),
    ),
    ("segmentation", "nothing unusual"): (
        made("segmentation"),
        made("segmentation", foreground=region(-1, 0.3, empty_share=0.01)),
    ),
    ("segmentation", "little unusual"): (
        made("segmentation", foreground=region(-1, 0.3, empty_share=0.01)),
        made("segmentation"),
    ),
    ("segmentation", "one threshold"): (
        made("segmentation", foreground=region(-1, 0.3, threshold={"dice": 0.9})),
        made("segmentation", foreground=region(-1, 0.3, threshold={"dice": 0.89})),
    ),
    ("classification", "rare class"): (
        made("classification", classes=[region(0, 0.91), region(1, 0.09)]),
        made("classification", classes=[region(0, 0.9), region(1, 0.1)]),
    ),
    ("classification", "balanced classes"): (
        made("classification", classes=[region(0, 0.9), region(1, 0.1)]),
        made("classification", classes=[region(0, 0.91), region(1, 0.09)]),
    ),
    ("detection", "few points"): (made("detection", positive_share=0.049), made("detection", positive_share=0.05)),
    ("detection", "elongated boxes"): (made("detection", elongated=0.3), made("detection", elongated=0.29)),
    ("detection", "small boxes"): (made("detection", small=0.3), made("detection", small=0.29)),
    ("detection", "boxes"): (made("detection", positive_share=0.05), made("detection", positive_share=0.049)),
}


def of(facts: Facts, rule: Rule) -> Facts | None:
    return next((s for s in suggest(facts) if s["rule"] == rule.name), None)


def named(rule: Rule) -> str:
    return f"{rule.kind}, {rule.name}"


def test_every_rule_has_its_case() -> None:
    assert [(rule.kind, rule.name) for rule in RULES] == list(CASES)


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_a_rule_speaks_from_its_threshold_on(rule: Rule) -> None:
    enough, not_enough = CASES[rule.kind, rule.name]
    said = of(enough, rule)
    assert said is not None
    assert of(not_enough, rule) is None
    assert rule.fires(said["value"])
    assert said["limit"] == rule.threshold
    assert said["threshold"] == rule.limit()
    assert rule.says or said["threshold"].startswith(f"{rule.sign} ")
    assert said["measured"]
    assert said["source"]
    assert said["cost"]


def outline(kind: str, dimensions: int) -> Data:
    """As much data as a loss is parsed for."""
    space = (32,) * dimensions
    labels = [np.array(k, np.int32) if kind == "classification" else np.full(space, k, np.int32) for k in range(2)]
    image = np.zeros((1, *space), np.float32)
    samples = [Sample(str(k), image, label, pixels={k: label.size}) for k, label in enumerate(labels)]
    return Data("made", samples, samples, ["background", "thing"], -100, "", "")


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_its_losses_train_on_that_kind_of_data(rule: Rule) -> None:
    kind = next(kind for kind in all_kinds().values() if kind.name == rule.kind)
    facts, _ = CASES[rule.kind, rule.name]
    for task in ("multiclass", "binary") if rule.kind != "detection" else ("multiclass",):
        for dimensions in (2, 3) if rule.kind == "segmentation" else (2,):
            data = outline(rule.kind, dimensions)
            settings = kind.settings(data, Asked(data="made", task=task))
            for suggestion in suggest({**facts, "task": task}):
                assert suggestion["losses"][: len(ALWAYS[rule.kind])] == list(ALWAYS[rule.kind])
                assert len(suggestion["losses"]) <= MOST_LOSSES
                for text in suggestion["losses"]:
                    kind.parse(text, settings, data)
                    ls.parse(text.replace('="effective"', "=[1, 2]").replace('="inverse"', "=[1, 2]"))


def options_of(command: str) -> set[str]:
    """The options that a command of lossmith has."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {option for parameter in commands[command].params for option in parameter.opts}


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_its_command_is_one(rule: Rule) -> None:
    facts, _ = CASES[rule.kind, rule.name]
    for suggestion in suggest(facts, ("--ignore-index", "255")):
        words = shlex.split(suggestion["command"])
        assert words[:3] == ["lossmith", "compare", "my data"]
        assert [b for a, b in pairwise(words) if a == "--loss"] == suggestion["losses"]
        assert {word for word in words if word.startswith("--")} <= options_of("compare")
        assert words[-4:] == ["--ignore-index", "255", "--out", "my data-compare"]


def test_at_most_five_and_the_first_command_tries_what_all_name() -> None:
    objects = {"per_image": 30, "small": 0.9, "small_means": 64}
    worst = region(-1, 0.01, empty_share=0.5, crops_without=0.9, objects=objects, threshold={"dice": 0.95})
    classes = [region(0, 0.98), region(1, 0.02), region(2, 0.0001, boundary_share=0.8)]
    found = suggest(made("segmentation", foreground=worst, classes=classes))
    assert len(found) == 5
    assert found[0]["losses"] == ["ce", "dice", "dice + ce", "tversky", "lovasz", "focal"]
    for each in found[1:]:
        more = set(each["losses"]) - set(found[0]["losses"])
        assert (f"+{5 * len(more)} trials" if more else "nothing beside the first command") in each["cost"]
    assert len({each["rule"] for each in found}) == 5


def test_the_budget_decides_how_many_are_tried() -> None:
    facts, _ = CASES["segmentation", "rare class"]

    def tried(seconds: float) -> Facts:
        found: Facts = suggest({**facts, "cost": {"seconds_per_trial": seconds, "at_once": 2}})[0]
        return found

    assert len(tried(10)["losses"]) == 5
    assert len(tried(65)["losses"]) == 4
    assert tried(1000)["losses"] == ["ce", "dice", "dice + ce", "tversky"]
    assert "about 1.7e+02 minutes" not in tried(1000)["cost"]
    assert "about 167 minutes" in tried(1000)["cost"]
    assert "25 trials for three rates and two seeds of each, about 2 minutes" in tried(10)["cost"]


def test_the_budget_is_enough_for_an_answer() -> None:
    """Where three rates and two seeds of each loss take longer than is usual, the command asks for as much."""
    facts, _ = CASES["segmentation", "rare class"]
    for seconds, minutes in ((10, 12), (65, 12), (600, 100), (3600, 600)):
        found = suggest({**facts, "cost": {"seconds_per_trial": seconds, "at_once": 2}})
        assert f"--budget {minutes}m " in found[0]["command"]
        for each in found:
            words = shlex.split(each["command"])
            needed = 5 * len(each["losses"]) * seconds / 2 / 60
            assert int(words[words.index("--budget") + 1].removesuffix("m")) >= needed


def test_do_not_bother_is_advice() -> None:
    (said,) = suggest(made("segmentation"))
    assert "the default compound dice + ce, and do not bother" in said["reason"]
    assert said["losses"] == ["ce", "dice", "dice + ce"]


def test_nothing_is_suggested_where_nothing_is_labelled() -> None:
    assert suggest(made("segmentation", classes=[region(0, 1.0)])) == []
    assert suggest({**made("detection"), "boxes": {"positive_share": 0.0, "side": None}}) == []


def test_claims_say_where_they_come_from() -> None:
    for rule in RULES:
        assert any(word in rule.source for word in ("measured", "lossmith lab")), rule.name
