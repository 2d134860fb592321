"""In which order losses stand and what is said of them, from made-up trials."""

from typing import Any

import pytest

from lossmith.lab.say.decision import Look, decide
from lossmith.lab.say.metrics import METRICS, SEGMENTATION
from lossmith.lab.say.ranking import LossRanking, rank


def trial(loss: str, seed: int, dice: float | None, hd95: float = 5.0) -> dict[str, Any]:
    metrics = {**dict.fromkeys(METRICS, dice), "hd95": hd95, "invented": 0.0, "missed": 0.0, "calibration_error": None}
    diverged = None if dice is not None else {"step": 7, "what": "loss"}
    return {"loss": loss, "seed": seed, "metrics": None if diverged else metrics, "diverged": diverged}


def trials(**dice: list[float | None]) -> list[dict[str, Any]]:
    return [trial(loss, seed, value) for loss, values in dice.items() for seed, value in enumerate(values)]


def ranked(made: list[dict[str, Any]], losses: list[str], seeds: int) -> LossRanking:
    scores: dict[str, dict[int, float]] = {loss: {} for loss in losses}
    for t in made:
        scores[t["loss"]][t["seed"]] = t["metrics"]["dice"] if t["metrics"] else 0.0
    looks = (Look(seeds, 1.0),) if seeds > 1 else ()
    return rank(made, losses, decide(scores, losses, looks), SEGMENTATION, lambda more: f" ({more} min)")


def test_the_demos_three_seeds() -> None:
    made = trials(ce=[0.729, 0.629, 0.793], dice=[0.884, 0.874, 0.898])
    result = ranked(made, ["ce", "dice"], 3)
    assert [row.loss for row in result.rows] == ["dice", "ce"]
    difference = result.rows[1].difference
    assert difference is not None
    assert difference.verdict == "worse"
    assert difference.low < difference.mean < difference.high < 0
    assert result.headline.startswith("Use “dice” (Dice 0.886). With 95 % confidence nothing you tried is better.")
    assert "“ce” is worse by" in result.headline


@pytest.mark.parametrize("seeds", [2, 3, 12])
def test_identical_trials(seeds: int) -> None:
    same: list[float | None] = [0.9, 0.4, 0.7] * 4
    result = ranked(trials(a=same[:seeds], b=same[:seeds]), ["a", "b"], seeds)
    difference = result.rows[1].difference
    assert difference is not None
    assert difference.mean == 0
    assert difference.low < 0 < difference.high
    assert difference.verdict != "worse"


def test_pairing_sees_what_means_hide() -> None:
    a, b = [0.9, 0.6, 0.5, 0.8, 0.3, 0.7], [0.75, 0.36, 0.27, 0.6, 0.14, 0.46]
    assert ranked(trials(a=a, b=b), ["a", "b"], 6).decision.named("worse") == ["b"]
    assert ranked(trials(a=a, b=b[::-1]), ["a", "b"], 6).decision.named("worse") == []


def test_as_good() -> None:
    result = ranked(trials(a=[0.95] * 12, b=[0.951] * 12), ["a", "b"], 12)
    assert result.decision.named("as good") == ["a"]
    assert "“a” is as good (within ±" in result.headline


def test_undecided_and_what_would_tell() -> None:
    result = ranked(trials(a=[0.80, 0.80], b=[0.72, 0.75]), ["a", "b"], 2)
    (standing,) = [s for s in result.decision.standings if s.loss == "b"]
    assert standing.verdict == "undecided"
    assert f"“b”: undecided; {standing.more} more seeds ({standing.more} min) would tell." in result.headline


def test_worst_by_another_metric_is_said() -> None:
    made = [trial("a", s, 0.9, hd95=150.0 + s) for s in range(3)] + [trial("b", s, 0.6, hd95=7.0 + s) for s in range(3)]
    result = ranked(made, ["a", "b"], 3)
    assert "Mind that “a” is worst of all by Hausdorff 95 % (px) (151.0)." in result.headline


def test_one_seed_cannot_tell() -> None:
    result = ranked(trials(a=[0.9], b=[0.1]), ["a", "b"], 1)
    difference = result.rows[1].difference
    assert difference is not None
    assert difference.low is None
    assert difference.high is None
    assert "cannot tell a difference from chance" in result.headline


def test_who_has_learnt_nothing_is_never_named_to_be_used() -> None:
    scores = {"idle": {0: 0.576, 1: 0.576}, "dice": {0: 0.126, 1: 0.13}}
    decision = decide(scores, ["idle", "dice"], trivial=0.576)
    assert decision.use is None
    decision = decide({"idle": {0: 0.01, 1: 0.02}, "dice": {0: 0.126, 1: 0.13}}, ["idle", "dice"], trivial=0.02)
    assert decision.use == "dice"
    assert decision.named("learnt nothing") == ["idle"]
    assert decision.settled


def test_a_training_that_failed_counts_as_one_that_found_nothing() -> None:
    result = ranked(trials(a=[0.7, 0.7, 0.7], b=[0.9, 0.9, None]), ["a", "b"], 3)
    assert result.decision.use == "a"
    assert result.decision.named("worse") == []
    assert "“b” diverged in 1 of 3 seeds." in result.headline


def test_all_diverged() -> None:
    result = ranked(trials(a=[None, None], b=[None, None]), ["a", "b"], 2)
    assert result.reference is None
    assert result.rows[0].status == "diverged at step 7"
    assert result.headline == "Every loss diverged."


def test_only_seeds_that_all_have_count() -> None:
    result = ranked(trials(a=[0.9, 0.9, 0.9], b=[0.8]), ["a", "b", "c"], 1)
    assert result.seeds == [0]
    assert result.rows[2].status == "not run yet"


def test_nothing_yet() -> None:
    assert ranked([], ["a"], 1).headline == "No seed is finished yet for all losses."
