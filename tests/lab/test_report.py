"""The report: complete, self-contained, and readable whatever the trials came to."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from discs import make_folder

from lossmith.lab.data.labelled import Data, read_pixels
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.page import examples, report
from lossmith.lab.run import comparison
from lossmith.lab.settings import RunSettings


def make(data: Data, losses: list[str], seeds: int, settings: RunSettings, out: Path, missing: int = 0) -> str:
    """The page of a finished comparison; `missing` more seeds are asked for but not run."""
    whole = comparison.Comparison(PIXELS, data, settings)
    trials, _ = whole.run(losses, out, seeds)
    report.write_report(whole, trials, losses, out, seeds + missing)
    return (out / "report.html").read_text()


def body(page: str) -> str:
    """The page without its scripts and pictures."""
    return re.sub(r"<script.*?</script>|data:image/png;base64,[^\"]*", "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    data = read_pixels(folder, "discs", "multiclass", -100)
    small = RunSettings("discs", data.fingerprint, "multiclass", 4, 32, 2, 1e-2, -100, "cpu", (4, 4, 4, 4, 4, 4))
    return make(data, ["ce", "1.0*ce", "dice"], 3, small, tmp_path_factory.mktemp("report"))


def test_has_every_section_and_plot(page: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", body(page))
    assert headings == [
        "Ranking",
        "Learning rates",
        "All metrics",
        "Per image",
        "Learning",
        "Who owns the gradient",
        "Predictions",
        "The losses themselves",
        "Time",
        "Trials",
        "Settings",
    ]
    assert page.count("Plotly.newPlot(") >= 10
    assert page.count('<img src="data:image/png;base64,') == 3 * 3


def test_the_first_screen_says_what_to_use_how_sure_and_what_more_would_cost(page: str) -> None:
    text = body(page)
    first = text[: text.index("<h2>")]
    for words in ("Use “", "nothing you tried is better", "To know more", "Has learnt nothing", "finds everything"):
        assert words in first, words
    assert re.search(r'<span class="use">Use “.*?” \(Dice 0\.\d+\)\.</span>', first)
    assert "Plotly" not in first  # the figure stands there, its script is cut out


def test_paper_and_small_screens_have_their_styles(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    dark, printed = style.index("prefers-color-scheme: dark"), style.index("@media print")
    assert "color-scheme: light;" in style[printed:]  # comes after, and so wins over, a dark screen
    assert "--page: #ffffff" in style[printed:]
    assert dark < printed
    assert "@media (max-width: 520px)" in style
    assert "beforeprint" in page


def test_loads_nothing_from_elsewhere(page: str) -> None:
    text = body(page)
    assert "http" not in text
    assert "<link" not in text
    assert "url(" not in text
    assert not re.findall(r"<script[^>]*\ssrc=", page)
    ours = page[page.rindex("<script>") :]
    assert not re.findall(r"fetch|XMLHttp|import\b|http", ours)


def test_says_what_it_rests_on(page: str) -> None:
    text = body(page)
    for words in (
        "Undecided",
        "hold together with 95 % confidence",
        "torch",
        "CrossEntropyLoss(",
        "lossmith compare discs",
    ):
        assert words in text, words
    assert "Unfinished" not in text


def test_results_json_holds_the_same(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    make(data, ["ce", "dice"], 3, settings, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["finished"] == results["planned"] == 6
    assert {row["loss"] for row in results["ranking"]} == {"ce", "dice"}
    assert results["seeds"] == [0, 1, 2]
    page = (tmp_path / "report.html").read_text()
    for sentence in re.split(r"(?<=[.]) (?=[“A-Z])", results["headline"]):
        assert sentence in page


def test_results_json_has_what_the_page_shows(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    make(data, ["ce", "dice + ce"], 2, settings, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["asked"] == {"losses": ["ce", "dice + ce"], "seeds": 2, "budget": None, "keep": None}
    assert results["rising"].keys() == {"ce", "dice + ce"}
    assert results["more"].keys() == {"text", "minutes", "command"}
    recorded = {t["loss"]: t["gradient"] for t in results["trials"]}
    assert [point["step"] for point in recorded["ce"]] == [1, 2, 3, 4]
    assert set(recorded["dice + ce"][0]["parts"]) == {"dice", "ce"}
    assert recorded["ce"][0]["parts"] == {}
    assert sum(recorded["ce"][0]["class"]) == pytest.approx(1)
    for trial in results["trials"]:
        assert "gradient" not in trial["validation"]


def test_an_interval_over_patients_stands_beside_the_one_over_seeds(tmp_path: Path, settings: RunSettings) -> None:
    folder = make_folder(tmp_path / "patients", images=12)
    rows = [f"disc{i},{'validation' if i < 6 else 'train'},<p{i // 2}>" for i in range(12)]
    (folder / "split.csv").write_text("\n".join(["stem,split,group", *rows]) + "\n")
    read = read_pixels(folder, "patients", "multiclass", -100)
    longer = replace(settings, data="patients", fingerprint=read.fingerprint, steps=30, batch=4)
    text = body(make(read, ["dice", "dice + ce"], 2, longer, tmp_path / "out"))
    over = json.loads((tmp_path / "out" / "results.json").read_text())["over_images"]
    (loss,) = over.keys() - {"what"}
    assert over["what"] == "patients"
    assert over[loss]["low"] <= over[loss]["high"]
    assert "95 % over patients" in text
    assert "images of a patient together" in text
    assert re.findall(r"<h2>Per .*?</h2>", text) == ["<h2>Per patient</h2>", "<h2>Per image</h2>"]
    patients = text[text.index("<h2>Per patient") : text.index("<h2>Per image")]
    assert {f"&lt;p{i}&gt;" for i in range(3)} == set(re.findall(r"<td>(.*?)</td>", patients))


def test_every_loss_is_parsed_once(
    data: Data, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To train with it and to draw it: parsing counts what the labels hold, and tries the loss."""
    real, parsed = PIXELS.parse, []
    monkeypatch.setattr(PIXELS, "parse", lambda text, *rest: parsed.append(text) or real(text, *rest))
    page = make(data, ["ce", "dice + nonadjacency"], 2, settings, tmp_path)
    assert parsed == ["ce", "dice + nonadjacency"]
    assert "The losses themselves" in page


def test_one_loss_one_seed(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    text = body(make(data, ["dice"], 1, replace(settings, steps=40, batch=4), tmp_path))
    assert "nothing to compare it with" in text
    assert "fewer than two seeds" in text


def test_unfinished(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    assert "Unfinished: 2 of 4 trials" in body(make(data, ["ce", "dice"], 1, settings, tmp_path, missing=1))


def test_nothing_finished(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    report.write_report(comparison.Comparison(PIXELS, data, settings), [], ["ce"], tmp_path, 1)
    assert "No seed is finished yet" in (tmp_path / "report.html").read_text()


def test_all_diverged(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    text = body(make(data, ["1e38*ce + 1e38*ce + 1e38*ce + 1e38*ce + 1e38*ce"], 2, settings, tmp_path))
    assert "Every loss diverged." in text
    assert "diverged at step 1" in text


def test_three_classes(tmp_path: Path, settings: RunSettings) -> None:
    folder = make_folder(tmp_path / "three")
    (folder / "classes.txt").write_text("ground\ndisc\n<ring>\n")
    data = read_pixels(folder, "three", "multiclass", -100)
    for sample in (*data.train, *data.validation):
        sample.label[:8] = 2
    text = body(make(data, ["ce", "dice"], 1, replace(settings, data="three"), tmp_path / "out"))
    assert "Per class" in text
    assert "&lt;ring&gt;" in text


def test_ignored_pixels(folder: Path, settings: RunSettings, tmp_path: Path) -> None:
    data = read_pixels(folder, "discs", "multiclass", 255)
    for sample in (*data.train, *data.validation):
        sample.label[:, :10] = 255
    make(data, ["dice + ce"], 1, replace(settings, ignore_index=255), tmp_path)


def test_median_image() -> None:
    stems = ["a", "b", "c"]
    data: Any = type("Data", (), {"train": [], "validation": [type("Sample", (), {"stem": s}) for s in stems]})
    trials = [
        {"images": {"a": {"dice_per_image": [0.9]}, "b": {"dice_per_image": [0.1]}, "c": {"dice_per_image": [0.5]}}}
    ]
    assert examples.median_image(trials, data).stem == "c"
