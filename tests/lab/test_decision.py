"""How often a statement of the lab is wrong, where the truth is known; and what it says of a few plain tables."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from lossmith.lab.run.race import RATES_SEED, Race
from lossmith.lab.say.decision import MARGIN, RACE, Decision, Look, decide
from lossmith.lab.settings import RunSettings

REPEATS = 400
Array = np.ndarray[Any, Any]


def wrong_statements(decision: Decision, truth: dict[str, float]) -> list[str]:
    """The statements that are false where the true means are known."""
    if decision.use is None:
        return ["nothing was learnt"]
    wrong = []
    if decision.regret is not None and max(truth.values()) - truth[decision.use] > decision.regret + 1e-9:
        wrong.append("regret")
    for s in decision.standings:
        difference = truth[s.loss] - truth[decision.use]
        if s.verdict == "worse" and difference >= 0:
            wrong.append(f"{s.loss} is not worse")
        if s.verdict == "as good" and abs(difference) > MARGIN:
            wrong.append(f"{s.loss} is not as good")
    return wrong


def simulate(means: list[float], noise: float, looks: tuple[Look, ...], fails: float = 0.0) -> tuple[float, float]:
    """The share of runs with a wrong statement, and the mean of what is lost by using the loss that is named."""
    random = np.random.default_rng(0)
    wrong, lost = 0, 0.0
    for _ in range(REPEATS):
        shuffled = random.permutation(means)
        truth = {f"loss {i}": m for i, m in enumerate(shuffled)}
        shape = (len(means), looks[-1].seeds)
        spread = noise * np.exp(random.normal(0, 0.4, (len(means), 1)))  # losses differ in how steady they are
        drawn = expit(logit(shuffled)[:, None] + random.normal(0, 0.2, shape[1]) + spread * random.normal(size=shape))
        drawn[random.random(shape) < fails] = 0.0
        scores = {loss: dict(enumerate(row)) for loss, row in zip(truth, drawn.tolist(), strict=True)}
        decision = decide(scores, list(truth), looks)
        wrong += bool(wrong_statements(decision, truth))
        lost += max(truth.values()) - truth[decision.use or ""]
    return wrong / REPEATS, lost / REPEATS


SHORT_RACE, FIXED = RACE[:4], (Look(3, 1.0),)
TRUTHS = {
    "two equal": [0.8] * 2,
    "six equal": [0.8] * 6,
    "one best": [0.85] + [0.75] * 5,
    "as in the demo": [0.884, 0.871, 0.835, 0.742],
}


@pytest.mark.parametrize("looks", [SHORT_RACE, FIXED], ids=["race", "three seeds"])
@pytest.mark.parametrize("noise", [0.16, 0.32], ids=["usual noise", "twice the noise"])
@pytest.mark.parametrize("truth", TRUTHS)
def test_at_most_one_run_in_twenty_says_something_wrong(truth: str, noise: float, looks: tuple[Look, ...]) -> None:
    wrong, _ = simulate(TRUTHS[truth], noise, looks)
    assert wrong <= 0.05


@pytest.mark.parametrize("truth", ["two equal", "six equal"])
def test_so_too_where_one_training_in_ten_fails(truth: str) -> None:
    wrong, _ = simulate(TRUTHS[truth], 0.16, SHORT_RACE, fails=0.1)
    assert wrong <= 0.05


def test_the_loss_that_is_named_is_a_good_one() -> None:
    _, lost = simulate(TRUTHS["as in the demo"], 0.16, SHORT_RACE)
    assert lost < 0.005


def trial(loss: str, seed: int, lr: float, dice: float) -> dict[str, Any]:
    return {"loss": loss, "seed": seed, "lr": lr, "metrics": {"dice": dice}}


def test_rates_are_compared_where_all_losses_have_tried_them() -> None:
    settings = RunSettings("x", "", "multiclass", 9, 32, 2, 0.01, -100, "cpu", rates=(0.5, 1.0, 2.0))
    race = Race(["a", "b"], settings, "dice", 0.0, None)
    assert [(x.loss, x.lr) for x in race.choosing([])][:2] == [("a", 0.01), ("b", 0.01)]
    trials = [trial(x, RATES_SEED, 0.01, 0.5) for x in "ab"] + [trial("a", RATES_SEED, 0.02, 0.9)]
    assert race.rates(trials) == {"a": 0.01, "b": 0.01}  # b might have gained as much
    trials.append(trial("b", RATES_SEED, 0.02, 0.4))
    assert race.rates(trials) == {"a": 0.02, "b": 0.01}
    left, _ = race.next(trials)
    assert {x.lr for x in left} == {0.005}
    hurried, _ = race.next(trials, hurry=True)
    assert {(x.loss, x.seed, x.lr) for x in hurried} == {("a", s, 0.02) for s in (0, 1)} | {
        ("b", s, 0.01) for s in (0, 1)
    }
    begun = [*trials, trial("a", 0, 0.02, 0.8)]  # with a larger budget later the race goes on as it began
    assert {x.seed for x in race.next(begun)[0]} == {0, 1}
    more = Race(["a", "b", "c"], settings, "dice", 0.0, None)  # a loss that is added tries the same rates first
    begun.append(trial("b", 0, 0.01, 0.8))
    assert [(x.loss, x.lr) for x in more.next(begun)[0]] == [("c", 0.01), ("c", 0.02)]
