"""The figures: plain data, drawn for the page and as files; what is measured for them; when a curve still rises."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lossmith as ls
from lossmith.cli import main
from lossmith.lab.page import charts
from lossmith.lab.page.examples import tables
from lossmith.lab.page.figures import markup
from lossmith.lab.page.more import to_know_more
from lossmith.lab.page.panels import Chart, Mark, Panel, Series, colours
from lossmith.lab.page.stills import still
from lossmith.lab.run.owners import owners, parts
from lossmith.lab.run.race import Race, in_words
from lossmith.lab.say.bootstrap import by_image, over_images
from lossmith.lab.say.decision import RACE, Look, decide
from lossmith.lab.say.metrics import METRICS
from lossmith.lab.say.ranking import LossRanking, rank
from lossmith.lab.say.rising import last_rise

HOSTILE = "<b>a</b> $x$ %{y}"
SCORES = {"dice": [0.8, 0.82], HOSTILE: [0.7, 0.74], "idle": [0.1, 0.1]}


def trial(loss: str, seed: int, score: float) -> dict[str, Any]:
    shares = {"class": [0.75, 0.25], "class_pixels": [0.9, 0.1], "ease": [0.1, 0.2, 0.3, 0.4]}
    shares["ease_pixels"] = [0.0, 0.1, 0.2, 0.7]
    return {
        "loss": loss,
        "seed": seed,
        "lr": 0.003,
        "metrics": dict.fromkeys(METRICS, score),
        "diverged": None,
        "validation": {"step": [5, 10], "score": [score - 0.1, score], "images": ["a"]},
        "training": {"step": [5, 10], "loss": [1.0, 0.5]},
        "gradient": [{"step": step, **shares, "parts": {"dice": 0.3, "ce": 0.2}} for step in (1, 5)],
        "ms_per_step": 20.0,
        "ms_in_loss": 5.0,
    }


TRIALS = [trial(loss, seed, score) for loss, scores in SCORES.items() for seed, score in enumerate(scores)]


def ranking() -> LossRanking:
    table = {loss: dict(enumerate(scores)) for loss, scores in SCORES.items()}
    return rank(TRIALS, list(SCORES), decide(table, list(SCORES), (Look(2, 1.0),), 0.1))


def every_chart() -> dict[str, Chart]:
    colour = colours(list(SCORES))
    tried = {x: {"used": 0.003, "tried": [{"lr": r, "score": r * 100} for r in (0.001, 0.003)]} for x in SCORES}
    drawn = {
        "standings": charts.standings(ranking(), {"nothing": 0.0, "everything": 0.65}, colour),
        "seeds": charts.seeds(ranking(), TRIALS, colour),
        "rates": charts.rates(tried, "Dice", colour),
        "validation": charts.validation(TRIALS, "Dice", colour),
        "training": charts.training(TRIALS, colour),
        "owners": charts.owners(TRIALS, ["ground", HOSTILE], colour),
        "ease": charts.ease(TRIALS, colour),
        "parts": charts.parts(TRIALS, colour),
        "cost": charts.cost(TRIALS, colour),
    }
    assert None not in drawn.values()
    return {name: chart for name, chart in drawn.items() if chart}


@pytest.mark.parametrize("name", every_chart())
def test_a_chart_is_drawn_on_the_page_and_as_files(name: str) -> None:
    chart = every_chart()[name]
    page = markup(chart)
    assert page.count("Plotly.newPlot(") == len(chart.panels)
    assert "<b>a</b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert r"\u003cb" not in page
    svg = still(chart, "svg").decode()
    assert svg.startswith("<?xml")
    assert "<b>" not in re.sub("<!--.*?-->", "", svg, flags=re.DOTALL)
    assert svg == still(chart, "svg").decode()
    svg = re.sub("<!--.*?-->", "", svg, flags=re.DOTALL)
    for panel in chart.panels:
        for text in (panel.title, *panel.rows, *chart.legend):
            assert text.replace("<", "&lt;").replace(">", "&gt;") in svg


def test_a_still_is_a_picture() -> None:
    chart = Chart([Panel([Series([0.0, 1.0], [0.0, 1.0], "#ff0000", width=8)], title="t", marks=[Mark("y", 0.5, "m")])])
    picture = np.asarray(Image.open(io.BytesIO(still(chart, "png"))).convert("RGB")).astype(int)
    assert picture.shape[0] > 300
    assert (picture[0, 0] == 255).all()  # white, for papers
    assert ((picture[..., 0] > 200) & (picture[..., 1] < 60)).sum() > 500


def test_the_standings_show_the_bounds_of_the_decision() -> None:
    result = ranking()
    chart = every_chart()["standings"]
    (panel,) = chart.panels
    leader, second, idle = panel.series
    standing, use = result.decision.of(HOSTILE), result.decision.of("dice")
    assert standing is not None
    assert use is not None
    assert standing.low is not None
    assert standing.high is not None
    assert use.score is not None
    assert second.low == [pytest.approx(use.score + standing.low)]
    assert second.high == [pytest.approx(use.score + standing.high)]
    assert leader.symbol == "circle"
    assert idle.symbol == "ring"
    assert [mark.text for mark in panel.marks] == ["", "finds everything"]  # nothing, 0, is far outside


def test_the_chosen_rate_is_marked() -> None:
    (panel,) = every_chart()["rates"].panels
    rings = [series for series in panel.series if series.symbol == "ring"]
    assert [list(ring.x) for ring in rings] == [[0.003]] * 3


def test_old_trials_without_a_gradient_are_no_fault() -> None:
    old = [{key: value for key, value in t.items() if key != "gradient"} for t in TRIALS]
    assert charts.owners(old, ["a"], colours(list(SCORES))) is None
    assert charts.parts(old, colours(list(SCORES))) is None


def test_who_owns_the_gradient_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0, 4.0, 0.0]], [[0.0, 3.0, 0.0, 0.0]]]).transpose(0, 1).requires_grad_()
    label = torch.tensor([[0, 1, 0, 255]])  # p: ½, 0.95, 0.98, ignored
    gradient = torch.tensor([[[3.0, 0.5, 0.25, 1.0], [3.0, 0.5, 0.75, 1.0]]])
    shares = owners(logits, gradient, label, 255)
    assert shares["class"] == pytest.approx([7 / 10, 1 / 10])  # the ignored pixel has the rest
    assert shares["class_pixels"] == pytest.approx([2 / 3, 1 / 3])
    assert shares["ease"] == pytest.approx([0, 6 / 10, 0, 2 / 10])
    assert shares["ease_pixels"] == pytest.approx([0, 1 / 3, 0, 2 / 3])
    assert owners(logits, torch.zeros_like(gradient), label, 255) == {}
    assert owners(logits, gradient, torch.full_like(label, 255), 255) == {}


def test_a_binary_task_has_two_classes() -> None:
    logits, label = torch.tensor([[[3.0, -3.0, 0.1]]]), torch.tensor([[1, 1, 0]])
    shares = owners(logits, torch.tensor([[[1.0, 2.0, 1.0]]]), label, -100)
    assert shares["class"] == [0.25, 0.75]
    assert shares["ease"] == [0.5, 0.25, 0.0, 0.25]


def test_parts_of_a_sum_add_up_to_it() -> None:
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 8, 8))
    loss = ls.parse("dice + 0.5*ce")
    assert sum(parts(loss, logits, label).values()) == pytest.approx(float(loss(logits, label)))
    assert parts(ls.parse("dice"), logits, label) == {}
    assert parts(torch.nn.MSELoss(), logits, label) == {}


@pytest.mark.parametrize(
    ("rises", "expected"),
    [
        ([0.1, 0.1], 0.1),
        ([0.01, 0.01], None),
        ([0.3, -0.1], None),
        ([-0.1, -0.1], None),
        ([0.05], 0.05),
        ([0.03], None),
    ],
)
def test_a_curve_rises_if_it_does_so_by_more_than_it_scatters(rises: list[float], expected: float | None) -> None:
    trials = [{"validation": {"score": [0.2, 0.5, 0.5 + rise]}} for rise in rises]
    found = last_rise(trials)
    assert found == (None if expected is None else pytest.approx(expected))


def test_what_one_checkpoint_says_of_rising() -> None:
    assert last_rise([{"validation": {"score": [0.5]}}]) is None
    assert last_rise([]) is None


def counts(dice: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of images with 100 pixels of one class of which so many are found, and as many false alarms as misses."""
    hit = 100 * dice
    return np.stack([hit, 100 - hit, 100 - hit], -1)[:, None]


@pytest.mark.parametrize("together", [True, False])
def test_an_interval_over_images(together: bool) -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0.5, 0.9, 40)
    made = {"dice": [counts(base)] * 2, HOSTILE: [counts(base - 0.1 + random.normal(0, 0.02, 40))] * 2}
    units = [str(i) for i in range(40)]
    found = over_images(ranking(), made, units, together, "images")
    assert found["what"] == "images"
    low, high = found[HOSTILE]["low"], found[HOSTILE]["high"]
    assert -0.12 < low < -0.1 < high < -0.08
    assert high - low == pytest.approx(2 * 1.96 * 0.02 / 40**0.5, rel=0.35)
    same = over_images(ranking(), made | {HOSTILE: made["dice"]}, units, together, "images")
    assert same[HOSTILE] == {"low": 0, "high": 0}


def test_images_of_a_patient_are_drawn_together() -> None:
    """What is the same in all slices of a patient counts once: the interval is as wide as over patients."""
    random = np.random.default_rng(1)
    shift = random.normal(0, 0.05, 8).repeat(10)
    base = np.full(80, 0.7)
    made = {"dice": [counts(base)], HOSTILE: [counts(base + shift)]}
    patients = [str(i // 10) for i in range(80)]
    over = [over_images(ranking(), made, units, True, "") for units in (patients, [str(i) for i in range(80)])]
    wide, narrow = (each[HOSTILE]["high"] - each[HOSTILE]["low"] for each in over)
    assert wide > 2 * narrow


def test_no_interval_over_one_image_or_for_one_loss() -> None:
    made = {"dice": [counts(np.array([0.5]))], HOSTILE: [counts(np.array([0.4]))]}
    assert over_images(ranking(), made, ["a"], True, "images") == {}
    assert over_images(ranking(), {"dice": made["dice"] * 2}, ["a"], True, "images") == {}


# ------------------------------------------------------------------------------------------- what more would cost


Scores = dict[str, list[float]]


def more(scores: Scores, seeds: int | None, looks: tuple[Look, ...], missing: int = 0) -> dict[str, Any]:
    """What is said of more, where a trial takes a minute and two run at once."""
    table = {loss: dict(enumerate(values)) for loss, values in scores.items()}
    decision = decide(table, list(scores), looks, 0.05)
    settings: Any = None
    race = Race(list(scores), settings, "dice", 0.05, seeds)
    trials = [{"seconds": 60.0, "machine": {"trials_at_once": 2}} for values in scores.values() for _ in values]
    return to_know_more(race, decision, trials, missing, lambda **changed: f"again {changed}")


def test_seeds_that_would_tell() -> None:
    scores = {"dice": [0.8, 0.82], "ce": [0.75, 0.77]}
    said = more(scores, 2, (Look(2, 1.0),))
    needed = int(said["text"].split()[0])
    assert re.fullmatch(r"\d+ more seeds? would tell for “ce” if it stays as it looks\.", said["text"])
    assert said["minutes"] == needed  # of two losses, two at once
    assert said["command"] == f"again {{'seeds': {2 + needed}}}"


def test_a_race_goes_on_to_its_next_look_with_a_budget() -> None:
    said = more({"dice": [0.8, 0.82], "ce": [0.7, 0.72]}, None, (Look(2, 0.3),), missing=2)
    needed = int(said["text"].split()[0])
    look = next(look.seeds for look in RACE if look.seeds >= 2 + needed)
    assert said["minutes"] == look - 2
    assert re.fullmatch(r"again \{'budget': '\d+m'\}", said["command"])
    assert int(re.findall(r"\d+", said["command"])[0]) > said["minutes"]


@pytest.mark.parametrize(
    ("scores", "seeds", "missing", "text", "minutes", "command"),
    [
        ({"dice": [0.8, 0.8], "ce": [0.1, 0.1]}, 2, 0, "Nothing is left to decide", None, None),
        ({"dice": [0.8], "ce": [0.7]}, 1, 0, "One seed cannot tell", 2, "again {'seeds': 3}"),
        ({"dice": [0.8, 0.8], "ce": [0.7]}, 2, 1, "The run is not finished", 0.5, "again {}"),
        ({"dice": [0.01, 0.02], "ce": [0.0, 0.0]}, 2, 0, "Nothing was learnt", 6, "again {'steps': 3}"),
        ({"dice": [0.8, 0.8]}, 2, 0, "There is only one loss", None, None),
        ({"dice": [0.8, 0.3], "ce": [0.3, 0.8]}, 2, 0, "“ce”: so alike, or so uneven", None, None),
    ],
)
def test_what_is_open(
    scores: Scores, seeds: int, missing: int, text: str, minutes: float | None, command: str | None
) -> None:
    looks = () if min(map(len, scores.values())) < 2 else (Look(2, 1.0),)
    said = more(scores, seeds, looks, missing)
    assert said["text"].startswith(text)
    assert (said["minutes"], said["command"]) == (minutes, command)


@pytest.mark.parametrize(("minutes", "words"), [(0.5, "30 s"), (1.2, "1 min"), (89, "89 min"), (120, "2.0 hours")])
def test_minutes_in_words(minutes: float, words: str) -> None:
    assert in_words(minutes) == words


def test_what_the_seeds_found_by_image() -> None:
    one, two = [[5, 1, 0]], [[3, 0, 2]]
    stems, same = by_image({"dice": [{"a": one, "b": two}, {"b": one, "a": two}], "ce": []})
    assert stems == ["a", "b"]
    assert [array.tolist() for array in same["dice"]] == [[one, two], [two, one]]
    assert same.keys() == {"dice"}
    stems, folds = by_image({"dice": [{"a": one}, {"b": two}, {"a": two}]})
    assert (stems, [array.tolist() for array in folds["dice"]]) == (["a", "b"], [[[[8, 1, 2]], two]])
    assert by_image({"dice": [{"a": one}, {"b": two}], "ce": [{"a": one}]})[1].keys() == {"dice"}
    assert by_image({"dice": [{"a": one}, {}]}) == ([], {})


def test_the_hardest_image_stands_first_and_an_empty_one_last() -> None:
    data: Any = type("Data", (), {"groups": {"easy": "p", "hard": "p", "empty": "q"}})
    seeds = [[[[9, 1, 1]], [[2, 8, 8]], [[0, 0, 0]]], [[[7, 3, 3]], [[0, 5, 5]], [[0, 0, 0]]]]
    counted = {"dice": [np.array(seed) for seed in seeds]}
    patients, images = tables(data, ["easy", "hard", "empty"], counted)
    assert [(row["name"], row["scores"]["dice"]) for row in images["rows"]] == [
        ("hard", pytest.approx(0.1)),
        ("easy", pytest.approx(0.8)),
        ("empty", None),
    ]
    assert patients["rows"][0] == {"name": "p", "scores": {"dice": pytest.approx((22 / 40 + 14 / 30) / 2)}}
    assert tables(data, [], {}) == []


def test_figures_of_an_experiment_beside_its_page(tmp_path: Path) -> None:
    page = tmp_path / "weights.html"
    assert main(["lab", "wce-equal-classes", "--fast", "--figures", "svg", "--out", str(page)]) == 0
    (figure,) = (tmp_path / "weights-figures").iterdir()
    assert figure.name == "rest_and_weights.svg"
    assert "<svg" in figure.read_text(encoding="utf-8")
    assert page.is_file()
