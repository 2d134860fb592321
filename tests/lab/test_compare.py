"""Trials from end to end on the discs: fairness, resuming, divergence, Ctrl-C, and what the ranking then says."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data, read_pixels
from lossmith.lab.kind import ParsedLoss
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.page import report
from lossmith.lab.run import comparison, race, records
from lossmith.lab.run.crops import Crops
from lossmith.lab.run.snapshot import Snapshot
from lossmith.lab.run.watch import Watcher
from lossmith.lab.say.decision import Decision
from lossmith.lab.say.metrics import METRICS
from lossmith.lab.settings import Planned, RunSettings
from lossmith.loss import Loss

Trials = list[dict[str, Any]]


def run(data: Data, losses: list[str], seeds: int, settings: RunSettings, out: Path) -> Trials:
    trials, stopped = comparison.Comparison(PIXELS, data, settings).run(losses, out, seeds)
    assert not stopped
    return trials


class Told(Watcher):
    """Remembers the lines, and the losses of the trials."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.finished_trials: list[str] = []

    def said(self, line: str) -> None:
        self.lines.append(line)

    def finished(self, trial: Planned, record: dict[str, Any]) -> None:
        self.finished_trials.append(trial.loss)


def remake(out: Path, **other: Any) -> None:
    """The one trial of a folder, whole, with something else in it."""
    (trial,) = records.read_trials(out)
    (out / "trials" / f"{trial.pop('hash')}.json").unlink()
    records.save({**trial, **other}, {}, out)


def decide(data: Data, settings: RunSettings, trials: Trials) -> Decision:
    losses = list(dict.fromkeys(t["loss"] for t in trials))
    return comparison.Comparison(PIXELS, data, settings).race(losses, 3).decision(trials)


def test_two_losses_two_seeds(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    trials = run(data, ["ce", "dice + ce"], 2, settings, tmp_path)
    assert {(t["loss"], t["seed"]) for t in trials} == {(x, s) for x in ("ce", "dice + ce") for s in (0, 1)}
    for t in trials:
        assert set(t["metrics"]) == set(t["per_class"]) == set(METRICS)
        assert 0 <= t["metrics"]["dice"] <= 1
        assert set(t["images"]) == {"disc0", "disc1"}
        assert t["training"]["step"] == [1, 2, 3, 4]
        assert t["validation"]["step"][-1] == 4
        assert t["gradient_norm_at_start"] > 0
        assert 0 < t["ms_in_loss"] < t["ms_per_step"]
        predicted = records.read_predictions(tmp_path, t)
        assert predicted["disc0"].shape == (48, 48)


def test_losses_of_a_seed_share_weights_and_crops(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    trials = run(data, ["ce", "dice"], 2, settings, tmp_path)
    starts = {(t["loss"], t["seed"]): (t["weights_checksum"], t["crops_checksum"]) for t in trials}
    assert starts["ce", 0] == starts["dice", 0]
    assert starts["ce", 1] == starts["dice", 1]
    assert len({weights for weights, _ in starts.values()}) == 2
    assert len({crops for _, crops in starts.values()}) == 2


def test_a_trial_can_be_repeated_exactly(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    first, second = (run(data, ["dice + ce"], 1, settings, tmp_path / name)[0] for name in "ab")
    for part in ("training", "metrics", "weights_checksum", "crops_checksum"):
        assert first[part] == second[part]


def test_ce_against_itself_shows_no_difference(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    trials = run(data, ["ce", "1.0*ce"], 3, settings, tmp_path)
    decision = decide(data, settings, trials)
    assert decision.use == "ce"
    assert decision.named("worse") == []
    same = decision.of("1.0*ce")
    assert same is not None
    assert -same.low == pytest.approx(same.high, abs=0.1)


def test_a_planted_difference_is_seen(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    settings = replace(settings, steps=40, batch=4)
    backwards = "-1*dice"  # learns to miss
    trials = run(data, [backwards, "dice + ce"], 3, settings, tmp_path)
    decision = decide(data, settings, trials)
    assert decision.use == "dice + ce"
    assert decision.named("learnt nothing") == [backwards]


def test_a_second_run_skips_what_is_finished(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    run(data, ["ce"], 1, settings, tmp_path)
    files = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "trials").iterdir()}
    seen: list[Planned] = []

    class Sees(Watcher):
        def step(self, trial: Planned, step: int, value: float) -> None:
            seen.append(trial)

    trials, _ = comparison.Comparison(PIXELS, data, settings).run(["ce", "dice"], tmp_path, 1, watcher=Sees())
    assert {trial.loss for trial in seen} == {"dice"}
    assert len(trials) == 2
    assert files.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "trials").iterdir()}.items()


@pytest.mark.parametrize(("name", "value"), [("steps", 5), ("crop", 48), ("lr", 0.5)])
def test_other_settings_are_refused(data: Data, settings: RunSettings, tmp_path: Path, name: str, value: Any) -> None:
    run(data, ["ce"], 1, settings, tmp_path)
    with pytest.raises(UserError, match=f"holds trials with {name} = .*choose another --out"):
        run(data, ["ce"], 1, replace(settings, **{name: value}), tmp_path)


def test_a_text_that_means_something_else_now_is_refused(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    run(data, ["ce"], 1, settings, tmp_path)
    remake(tmp_path, meaning="OldCrossEntropyLoss()")
    with pytest.raises(UserError, match='holds trials of "ce" as OldCrossEntropyLoss'):
        run(data, ["ce"], 1, settings, tmp_path)


def test_a_damaged_trial_is_named_and_runs_again(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    run(data, ["ce", "dice"], 1, settings, tmp_path)
    for path in (tmp_path / "trials").iterdir():
        before = path.read_bytes()
        path.write_bytes(before[:-20])
        seen = Told()
        whole = comparison.Comparison(PIXELS, data, settings)
        trials, _ = whole.run(["ce", "dice"], tmp_path, 1, watcher=seen)
        (line,) = seen.lines
        assert line.startswith(f"{path}: damaged (")
        assert seen.finished_trials == [json.loads(before)["loss"]]
        assert {t["loss"] for t in trials} == {"ce", "dice"}
        assert json.loads(path.read_bytes())["metrics"] == json.loads(before)["metrics"]


def test_data_that_change_under_way(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    """What was training is not kept; with the data as they were, the work goes on; with others it is refused."""
    (tmp_path / "data").mkdir()
    image = tmp_path / "data" / "a.png"
    image.write_text("before")
    snapshot, out = Snapshot([tmp_path / "data"], tmp_path / "out"), tmp_path / "out"

    class Changes(Told):
        def step(self, trial: Planned, step: int, value: float) -> None:
            if (trial.seed, step) == (1, 3):
                image.write_text("under way")

    seen = Changes()
    with pytest.raises(UserError, match=r"a\.png: changed since the comparison began") as caught:
        comparison.Comparison(PIXELS, data, settings, snapshot).run(["ce"], out, 3, watcher=seen)
    assert "\n" not in str(caught.value)
    assert [t["seed"] for t in records.read_trials(out)] == [0]
    with pytest.raises(UserError, match=r"the data have changed since its trials were made .*; choose another --out"):
        run(data, ["ce"], 2, replace(settings, fingerprint="other"), out)
    assert len(run(data, ["ce"], 2, settings, out)) == 2


def test_a_full_disk_loses_nothing_that_is_finished(
    data: Data, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(handle: int) -> None:
        if len(list((tmp_path / "trials").glob("*.json"))) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as limited:
        limited.setattr(os, "fsync", full)
        with pytest.raises(
            UserError, match=r"cannot be written .No space left on device.; what was written before is kept"
        ):
            run(data, ["ce", "dice"], 2, settings, tmp_path)
    kept = {p: p.read_bytes() for p in (tmp_path / "trials").iterdir()}
    assert len(kept) == 2
    assert len(run(data, ["ce", "dice"], 2, settings, tmp_path)) == 4
    assert {p: p.read_bytes() for p in kept} == kept


def test_trial_files_are_strict_json_without_leftovers(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    run(data, ["ce"], 1, settings, tmp_path)
    (path,) = (tmp_path / "trials").iterdir()
    trial = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert trial["settings"]["steps"] == 4
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"} == {".json", ".npz"}


def test_write_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(tmp_path / "a", "old")

    def fail(*paths: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        records.write(tmp_path / "a", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_a_loss_that_overflows_is_a_result(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    (trial,) = run(data, ["1e38*ce + 1e38*ce + 1e38*ce + 1e38*ce + 1e38*ce"], 1, settings, tmp_path)
    assert trial["diverged"]["step"] == 1
    assert trial["metrics"] is None
    assert records.read_predictions(tmp_path, trial) == {}


def test_a_loss_that_turns_nan_later_is_a_result(
    data: Data, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(Loss):
        calls = 0

        def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return logits.mean() * (float("nan") if self.calls > 2 else 1.0)

    monkeypatch.setattr(PIXELS, "parse", lambda *_: ParsedLoss(Breaks()))
    (trial,) = run(data, ["breaks"], 1, settings, tmp_path)
    assert trial["diverged"] == {"step": 3, "what": "loss"}
    assert trial["training"]["step"] == [1, 2]


def test_ctrl_c_keeps_what_is_finished(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    finished: list[tuple[str, int]] = []

    class Interrupts(Watcher):
        def finished(self, trial: Planned, record: dict[str, Any]) -> None:
            finished.append((trial.loss, trial.seed))

        def step(self, trial: Planned, step: int, value: float) -> None:
            if trial.seed == 1:
                raise KeyboardInterrupt

    trials, stopped = comparison.Comparison(PIXELS, data, settings).run(
        ["ce", "dice"], tmp_path, 2, watcher=Interrupts()
    )
    assert stopped
    assert {(t["loss"], t["seed"]) for t in trials} == set(finished)
    assert all(seed == 0 for _, seed in finished)
    assert len(run(data, ["ce", "dice"], 2, settings, tmp_path)) == 4


def test_threads_are_given_back(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run(data, ["ce"], 1, settings, tmp_path)
    assert torch.get_num_threads() == before


def test_binary(folder: Path, settings: RunSettings, tmp_path: Path) -> None:
    data = read_pixels(folder, "discs", "binary", -100)
    (trial,) = run(data, ["bce"], 1, replace(settings, task="binary"), tmp_path)
    assert 0 <= trial["metrics"]["dice"] <= 1


def test_schedules_advance_through_a_run(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    ramp = "ramp(start=0, step=1, stop=1000)*ce"
    moving, still = run(data, [ramp, "0*ce"], 1, settings, tmp_path)
    moving, still = sorted((moving, still), key=lambda t: -max(t["training"]["loss"]))
    assert moving["loss"] == ramp
    assert moving["training"]["loss"][0] == 0  # no epoch has passed in the first step
    assert moving["training"]["loss"][-1] > 0
    assert max(still["training"]["loss"]) == 0


def test_an_epoch_is_a_hundredth_of_a_run_however_short(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    steep, whole = run(data, ["ramp(start=0, step=0.01, stop=0.5)*ce", "0.5*ce"], 1, settings, tmp_path)
    steep, whole = sorted((steep, whole), key=lambda t: t["loss"] == "0.5*ce")
    assert steep["training"]["loss"][0] == 0
    # Epoch 25 of 100 stands before step 2 of 4, epoch 50 before step 3; the weights differ by the first steps alone.
    assert steep["training"]["loss"][1] == pytest.approx(whole["training"]["loss"][0] / 2, rel=0.3)


def test_two_ramps_move_one_loss_to_another(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    text = "(1 - ramp(start=0, step=0.01, stop=1))*gdl + ramp(start=0, step=0.01, stop=1)*boundary"
    moving, gdl = run(data, [text, "gdl"], 1, settings, tmp_path)
    moving, gdl = sorted((moving, gdl), key=lambda t: t["loss"] == "gdl")
    assert moving["training"]["loss"][0] == gdl["training"]["loss"][0]
    assert moving["training"]["loss"][3] != gdl["training"]["loss"][3]


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("nice", "multiclass", "no loss is called 'nice'; did you mean 'dice'"),
        ("dice(smoth=1)", "multiclass", "smooth"),
        ("ce(class_weight=[1, 2, 3])", "multiclass", "class_weight"),
        ('ce(reduction="none")', "multiclass", "drop reduction="),
        ("ce(class_weight=[1, 2, 3])", "binary", "class_weight"),
        ("kl", "multiclass", "kl needs a target of probabilities; with labels it is ce"),
        ("dice + 0.1*kl", "binary", "kl needs a target of probabilities; with labels it is ce"),
        ("entropy", "multiclass", "entropy reads no labels and learns nothing alone; add it to another: ce + 0.1*"),
        ("nonadjacency", "multiclass", "nonadjacency reads no labels"),
        ("dice2", "multiclass", "dice2 takes a yes or no at each pixel: use --task binary"),
        ("ce + lovasz_hinge", "multiclass", "lovasz_hinge takes a yes or no at each pixel: use --task binary"),
        ("giou", "multiclass", "giou needs pairs of boxes (lossmith lab box-regression compares such losses)"),
        ("gfl", "multiclass", "gfl needs the outputs of a detector; this data has labelled pixels"),
        ("qfl", "binary", "qfl needs the outputs of a detector; this data has labelled pixels"),
        ("ce + huber", "multiclass", "huber needs numbers to predict; this data has labelled pixels"),
        ("ce + nonadjacency + nonadjacency(window=5)", "multiclass", "different windows"),
    ],
)
def test_a_loss_that_cannot_be_used_gets_one_line(
    data: Data, settings: RunSettings, text: str, task: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        PIXELS.parse(text, replace(settings, task=task), data)
    assert str(caught.value).startswith(f'--loss "{text}" ({task} task): ')
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unwritable_folder(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        run(data, ["ce"], 1, settings, tmp_path / "file" / "out")


def test_crops_show_image_and_label_alike(data: Data, settings: RunSettings) -> None:
    for step in range(settings.steps):
        image, label = Crops(data.train, settings, seed=3).batch(step)
        assert image.shape == (2, 1, 32, 32)
        assert label.shape == (2, 32, 32)
        assert label.dtype == torch.int64
        # The discs are brighter than all noise: after every crop and flip they still lie under their labels.
        assert torch.equal(image[:, 0] > 1, label == 1)


def test_images_smaller_than_the_crop_are_padded_with_nothing_to_learn(data: Data, settings: RunSettings) -> None:
    image, label = Crops(data.train, replace(settings, crop=64), seed=0).batch(0)
    assert image.shape == (2, 1, 64, 64)
    assert int((label == -100).sum()) == 2 * (64 * 64 - 48 * 48)


def test_checksum_of_crops_follows_the_seed(data: Data, settings: RunSettings) -> None:
    sums = [Crops(data.train, settings, seed).checksum for seed in (0, 0, 1)]
    assert sums[0] == sums[1] != sums[2]
    assert np.array_equal(Crops(data.train, settings, 0).plan, Crops(data.train, settings, 0).plan)


def test_each_image_is_held_back_once_in_folds(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    folded = replace(settings, folds=3)
    whole = comparison.Comparison(PIXELS, data, folded)
    trials, _ = whole.run(["ce"], tmp_path, 3)
    judged = [stem for trial in trials for stem in trial["images"]]
    assert sorted(judged) == sorted(s.stem for s in data.train + data.validation)
    results = report.write_report(whole, trials, ["ce"], tmp_path, 3)
    assert "--folds 3" in results["command"]


def test_rates_are_chosen_on_a_seed_of_their_own(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    whole = comparison.Comparison(PIXELS, data, replace(settings, steps=20))
    trials, _ = whole.run(["ce", "dice"], tmp_path, 1, choose_rates=True)
    chose = [t for t in trials if t["seed"] == race.RATES_SEED]
    assert sorted((t["loss"], round(t["lr"], 5)) for t in chose) == [
        (loss, round(1e-2 * rate, 5)) for loss in ("ce", "dice") for rate in (1 / 3, 1, 3)
    ]
    rates = whole.race(["ce", "dice"], 1).rates(trials)
    for trial in (t for t in trials if t["seed"] == 0):
        assert trial["lr"] == rates[trial["loss"]]
        best = max(t["metrics"]["dice"] for t in chose if t["loss"] == trial["loss"])
        assert best == next(t["metrics"]["dice"] for t in chose if (t["loss"], t["lr"]) == (trial["loss"], trial["lr"]))
    results = report.write_report(whole, trials, ["ce", "dice"], tmp_path, 1)
    assert results["rates"]["ce"]["used"] == rates["ce"]
    assert len(results["rates"]["ce"]["tried"]) == 3
    assert "--lr auto" in results["command"]


def test_a_race_stops_when_it_is_decided(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    quick = replace(settings, steps=40, batch=4)
    whole = comparison.Comparison(PIXELS, data, quick)
    trials, _ = whole.run(["dice", "-1*dice"], tmp_path, budget=1000.0)
    assert {t["seed"] for t in trials} == {0, 1}
    assert whole.race(["dice", "-1*dice"], None).decision(trials).settled


def test_a_budget_that_is_spent_ends_the_race(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    trials, stopped = comparison.Comparison(PIXELS, data, settings).run(["ce", "dice"], tmp_path, budget=1e-9)
    assert len(trials) <= 1
    assert not stopped


def test_rates_leave_room_for_an_answer(
    data: Data, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials turn out to be slower than was thought: what is left of the budget goes to the race."""
    said: list[str] = []
    watcher = Watcher()
    watcher.said = said.append  # type: ignore[method-assign]
    monkeypatch.setattr(comparison, "estimate", lambda *_, **__: 0.01)
    monkeypatch.setattr(comparison, "_median", lambda times: 20.0 if times else 0.0)
    whole = comparison.Comparison(PIXELS, data, settings)
    trials, _ = whole.run(["ce", "dice"], tmp_path, budget=100.0, choose_rates=True, watcher=watcher)
    assert "no more learning rates are tried: --budget has to hold two seeds of each loss too" in said
    assert {(t["loss"], t["seed"]) for t in trials if t["seed"] < 2} == {(x, s) for x in ("ce", "dice") for s in (0, 1)}
    assert len({t["lr"] for t in trials if t["seed"] == race.RATES_SEED}) < 3
