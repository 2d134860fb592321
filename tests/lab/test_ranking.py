"""What is said about differences, from made-up trials."""

import math
from typing import Any

import pytest

from lossmith.lab.say.metrics import METRICS
from lossmith.lab.say.ranking import NO_DIFFERENCE, rank


def trial(loss: str, seed: int, dice: float | None, hd95: float = 5.0) -> dict[str, Any]:
    metrics = {**dict.fromkeys(METRICS, dice), "hd95": hd95, "calibration_error": None}
    diverged = None if dice is not None else {"step": 7, "what": "loss"}
    return {"loss": loss, "seed": seed, "metrics": None if diverged else metrics, "diverged": diverged}


def trials(**dice: list[float | None]) -> list[dict[str, Any]]:
    return [trial(loss, seed, value) for loss, values in dice.items() for seed, value in enumerate(values)]


def test_interval_by_hand() -> None:
    result = rank(trials(a=[0.9, 0.8, 0.7], b=[0.8, 0.6, 0.4]), ["b", "a"])
    assert [row.loss for row in result.rows] == ["a", "b"]
    difference = result.rows[1].difference["dice"]
    assert difference is not None
    half = 4.302653 * 0.1 / math.sqrt(3)  # t of 97.5 % with 2 degrees of freedom
    assert difference.mean == pytest.approx(-0.2)
    assert (difference.low, difference.high) == pytest.approx((-0.2 - half, -0.2 + half))
    assert difference.verdict == NO_DIFFERENCE


def test_a_planted_difference_is_seen() -> None:
    result = rank(trials(good=[0.90, 0.91, 0.89], bad=[0.50, 0.52, 0.48]), ["bad", "good"])
    difference = result.rows[1].difference["dice"]
    assert difference is not None
    assert difference.verdict == "worse"
    assert difference.high is not None
    assert difference.high < 0
    assert "lower: “bad” by 0.400" in result.headline
    assert NO_DIFFERENCE not in result.headline


def test_pairing_sees_what_means_hide() -> None:
    result = rank(trials(a=[0.9, 0.5, 0.1], b=[0.88, 0.48, 0.079]), ["a", "b"])
    difference = result.rows[1].difference["dice"]
    assert difference is not None
    assert difference.verdict == "worse"


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_identical_trials(seeds: int) -> None:
    same: list[float | None] = [0.9, 0.4, 0.7][:seeds]
    result = rank(trials(a=same, b=same), ["a", "b"])
    difference = result.rows[1].difference["dice"]
    assert difference is not None
    assert difference.mean == 0
    assert difference.verdict == NO_DIFFERENCE


def test_lower_distance_is_better() -> None:
    made = [trial("a", s, 0.9, hd95=10.0 + s) for s in range(3)] + [trial("b", s, 0.8, hd95=2.0 + s) for s in range(3)]
    difference = rank(made, ["a", "b"]).rows[1].difference["hd95"]
    assert difference is not None
    assert difference.verdict == "better"


def test_two_seeds_have_no_interval_and_the_headline_says_so() -> None:
    result = rank(trials(a=[0.9, 0.9], b=[0.1, 0.1]), ["a", "b"])
    difference = result.rows[1].difference["dice"]
    assert difference is not None
    assert difference.low is None
    assert difference.high is None
    assert "cannot tell a difference from chance" in result.headline


def test_a_diverged_loss_is_not_ranked_however_good_its_other_seeds() -> None:
    result = rank(trials(a=[0.5, 0.5, 0.5], b=[0.9, 0.9, None]), ["a", "b"])
    assert [row.loss for row in result.rows] == ["a", "b"]
    assert result.rows[1].status == "diverged at step 7 (1 of 3 seeds)"
    assert result.rows[1].difference["dice"] is None
    assert "“b” diverged" in result.headline


def test_all_diverged() -> None:
    result = rank(trials(a=[None, None], b=[None, None]), ["a", "b"])
    assert result.reference is None
    assert result.headline == "Every loss diverged."


def test_only_seeds_that_all_have_count() -> None:
    result = rank(trials(a=[0.9, 0.9, 0.9], b=[0.8]), ["a", "b", "c"])
    assert result.seeds == [0]
    assert result.rows[2].status == "not run yet"


def test_nothing_yet() -> None:
    assert rank([], ["a"]).headline == "No trial has finished yet."
