"""Networks by name, what trains them, settings from a file, weights that stay, and what they say of other images."""

import csv
import json
import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from advice import Said, follows
from balls import make_labelled, make_volumes
from discs import make_folder
from PIL import Image

from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.run.model import build, from_text
from lossmith.lab.run.records import read_predictions, read_trials
from lossmith.lab.run.trial import _average, run_trial
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned, RunSettings

SMALL = "monai:SegResNet(init_filters=8, blocks_down=[1, 1], blocks_up=[1], dropout_prob=0.1)"
MODULE = """
from torch import nn

def make(in_channels, out_channels, width=4):
    first = nn.Conv2d(in_channels, width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, out_channels, 1))

def everything(**given):
    assert set(given) == {"in_channels", "out_channels", "spatial_dims"}
    return make(given["in_channels"], given["out_channels"])

def number(out_channels):
    return 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, as a user has it."""
    (tmp_path / "mynets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("mynets", None)
    return "mynets"


def test_what_the_text_of_a_model_means(module: str) -> None:
    for text, width in ((f"{module}:make", 4), (f"{module}:make(width=7)", 7), (f"{module}:everything", 4)):
        network: Any = build(from_text(text), text, 2, 3, 2)
        assert (network[0].in_channels, network[0].out_channels, network[2].out_channels) == (2, width, 3), text
    assert build(from_text(SMALL), SMALL, 1, 2, 3)(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 2, 8, 8, 8)


@follows(
    "write MODULE:NAME or MODULE:NAME(setting=value), for example monai:SegResNet(init_filters=16)",
    "is no name of a model",
    "it has no name",
    "did you mean {}?",
    "gives {} for images {}, but these labels need {}",
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("monai:SegResNet(init_filters=open('x'))", "malformed node or string"),
        ("monai:__import__('os').getcwd()", "is no name of a model; write MODULE:NAME"),
        ("monai:SegResNet(**{})", "** means nothing here; write"),
        ("SegResNet", "write MODULE:NAME or MODULE:NAME(setting=value), for example monai:SegResNet(init_filters=16)"),
        ("monai:" + "(" * 5000, "write MODULE:NAME"),
        (":make", "cannot be imported (it has no name)"),
        ("nowhere.at.all:make", "the module nowhere.at.all cannot be imported (No module named 'nowhere')"),
        ("monai:SegResnet", "monai has no SegResnet; did you mean 'SegResNet'?"),
        ("monai:SegResNet(init_filter=8)", "cannot be built with in_channels=1, out_channels=2, spatial_dims=2 ("),
        ("mynets:number", "gives a int, not a torch.nn.Module"),
        ("monai:DenseNet121", "gives (2, 2) for images (2, 1, 32, 32), but these labels need (2, 2, 32, 32)"),
    ],
)
def test_models_that_do_not_fit(text: str, words: str, module: str, folder: Path, said: Said) -> None:
    line = said("compare", folder, "--crop", 32, "--batch", 2, "--model", text)
    assert line.startswith(f"--model {text}: ")
    assert words in line


def test_the_model_that_errors_recommend(discs: Path, said: Said) -> None:
    assert said("compare", discs, "--crop", 32, "--batch", 2, "--model", "monai:SegResNet(init_filters=16)") == ""


def test_a_network_whose_code_has_changed(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    discs = make_folder(tmp_path / "mine", images=4, size=32)
    words = ["compare", str(discs), "--loss", "ce", "--seeds", "1", "--steps", "1", "--crop", "32", "--batch", "2"]
    words += ["--model", f"{module}:make", "--device", "cpu", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    (tmp_path / "mynets.py").write_text(MODULE.replace("width=4", "width=5"))
    assert main([*words, str(tmp_path / "out")]) == 0  # read once in a process, as Python does
    capsys.readouterr()
    sys.modules.pop(module)
    assert main([*words, str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("with other first weights; choose another --out\n")
    assert main([*words, str(tmp_path / "another")]) == 0


@follows("drop --model")
def test_boxes_have_a_network(boxes: Path, said: Said) -> None:
    assert said("compare", boxes, "--model", SMALL).endswith("which train their own detector; drop --model")


@follows("use --precision bf16", "must be a positive number")
def test_options_of_training(discs: Path, said: Said) -> None:
    assert said("compare", discs, "--precision", "fp16").endswith("a CPU does not train with it; use --precision bf16")
    assert said("compare", discs, "--precision", "bf16") == ""
    for norm in ("0", "-1", "nan", "inf"):
        assert said("compare", discs, "--clip", norm).endswith("must be a positive number")
    assert said("compare", discs, "--clip", 1e-9) == ""


def test_precision_changes_training_and_nothing_else(data: Data, settings: RunSettings) -> None:
    trial = Planned("ce", 0, 1e-3)
    loss = PIXELS.parse("ce", settings, data).loss
    exact, mixed = (
        run_trial(PIXELS, loss, trial, data, replace(settings, precision=p), Watcher()).record for p in ("fp32", "bf16")
    )
    assert exact["weights_checksum"] == mixed["weights_checksum"]
    a, b = exact["training"]["loss"], mixed["training"]["loss"]
    assert a != b
    assert a == pytest.approx(b, rel=0.05)


def test_whole_numbers_are_not_averaged() -> None:
    index, value = torch.arange(100), torch.ones(100)
    for _ in range(50):
        _average(0.9)([index], [torch.arange(100)], 1)
        _average(0.9)([value], [torch.zeros(100)], 1)
    assert torch.equal(index, torch.arange(100))
    assert value[0].item() == pytest.approx(0.9**50)


# ------------------------------------------------------------------------------------------------- a file of settings


def test_a_file_says_what_the_command_line_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    discs = make_folder(tmp_path / "mine", images=4, size=32)
    file = tmp_path / "settings.yaml"
    lines = f"data: {discs}\nloss:\n- ce\n- dice + ce\nseeds: 1\nsteps: 1\ncrop: 32\nbatch: 2\nignore-index: -5\n"
    file.write_text(f"{lines}device: cpu\nlr: 1e-4\nmodel: '{SMALL}'\nkeep: best\nout: {tmp_path / 'a'}\n")
    assert main(["compare", "--settings", str(file), "--steps", "2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    found = results["settings"]
    assert (found["steps"], found["crop"], found["ignore_index"], found["lr"]) == (2, 32, -5, 1e-4)
    assert found["model"] == SMALL
    assert {row["loss"] for row in results["ranking"]} == {"ce", "dice + ce"}
    assert SMALL in (tmp_path / "a" / "report.html").read_text()
    assert "--keep best" in results["command"]
    again = shlex.split(results["command"])[1:]
    assert main([*again, "--json"]) == 0  # the page's command needs no file, and resumes
    repeated = json.loads(capsys.readouterr().out)
    assert [t["hash"] for t in repeated["trials"]] == [t["hash"] for t in results["trials"]]


@follows(
    "must hold settings, one a line, for example steps: 200",
    "{} must be texts, one a line, for example - dice + ce",
    "give it one",
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepps: 3", "no setting is called 'stepps'; did you mean 'steps'?"),
        ("json: true", "no setting is called 'json'"),
        ("settings: other.yaml", "no setting is called 'settings'"),
        ("- steps", "must hold settings, one a line, for example steps: 200"),
        ("steps: [1, 2]", "steps has several values; give it one"),
        ("loss: [1, 2]", "loss must be texts, one a line, for example - dice + ce"),
        ("steps: !!python/object/apply:os.getcwd []", "cannot be read (could not determine a constructor"),
        ("steps: {", "cannot be read ("),
        ("x: " + "[" * 1200, "cannot be read ("),
        ("steps: " + "9" * 200_000, "is no file of settings, it has 200007 bytes"),
    ],
)
def test_files_that_are_no_settings(text: str, words: str, folder: Path, tmp_path: Path, said: Said) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    line = said("compare", folder, "--settings", file)
    assert line.startswith(f"--settings {file}: ")
    assert words in line


def test_the_settings_that_errors_recommend(discs: Path, tmp_path: Path, said: Said) -> None:
    (tmp_path / "settings.yaml").write_text("steps: 200\nloss:\n- dice + ce\n")
    assert said("compare", discs, "--settings", tmp_path / "settings.yaml") == ""
    assert "cannot be read (No such file" in said("compare", discs, "--settings", tmp_path / "none.yaml")


# ------------------------------------------------------------------------------------- weights, and what they answer


@follows(
    "run lossmith compare --keep best --out {} first",
    "compare with --keep best, in a new --out where it is finished",
    "the comparison found no loss to use",
    "name one with --loss",
    "give images like those it was trained on",
)
def test_what_was_kept_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    discs = make_folder(tmp_path / "mine", images=4, size=32)
    out, to = tmp_path / "trained", tmp_path / "masks"
    words = ["compare", discs, "--loss", "ce", "--loss", "dice", "--seeds", 2, "--steps", 3, "--crop", 32, "--batch", 2]
    words += ["--model", SMALL, "--device", "cpu"]

    def predict(*more: object) -> str:
        assert main(["predict", *map(str, (out, discs / "images", "--to", to, *more))]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "run lossmith compare --keep best --out" in predict()
    assert main([*map(str, words), "--out", str(out)]) == 0
    capsys.readouterr()
    assert "no weights of " in predict("--loss", "ce")
    assert main([*map(str, words), "--keep", "best", "--out", str(out / "kept")]) == 0
    out = out / "kept"
    assert len(list((out / "weights").iterdir())) == 2  # one of each loss
    results = json.loads((out / "results.json").read_text())
    trials = {t["weights"]: t for t in read_trials(out) if (out / t["weights"]).is_file()}
    assert {t["loss"] for t in trials.values()} == {"ce", "dice"}
    for trial in trials.values():
        rivals = [t["metrics"]["dice"] or 0 for t in results["trials"] if t["loss"] == trial["loss"]]
        assert (trial["metrics"]["dice"] or 0) == max(rivals)
        assert all(torch.is_tensor(v) for v in torch.load(out / trial["weights"], weights_only=True).values())
    for trial in trials.values():
        loss = trial["loss"]
        assert main(["predict", *map(str, (out, discs / "images", "--to", to, "--loss", loss, "--device", "cpu"))]) == 0
        judged = read_predictions(out, trial)
        assert judged
        for stem, labels in judged.items():
            assert np.array_equal(np.asarray(Image.open(to / f"{stem}.png")), labels)
        assert len(list(to.iterdir())) == 4
    capsys.readouterr()
    for path in (discs / "images").iterdir():
        Image.open(path).convert("RGB").save(path)
    assert "give images like those it was trained on" in predict("--loss", "ce")
    results["decision"]["use"] = None
    (out / "results.json").write_text(json.dumps(results))
    assert predict().endswith("the comparison found no loss to use; name one with --loss")


def test_volumes_keep_their_place_and_whole_images_get_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--loss", "ce", "--seeds", "1", "--steps", "1", "--batch", "2", "--device", "cpu", "--keep", "all"]
    volumes = make_volumes(tmp_path / "volumes", (20, 32, 20))
    model = "monai:SegResNet(init_filters=4, blocks_down=[1, 1], blocks_up=[1], norm='INSTANCE')"
    assert main(["compare", str(volumes), *small, "--crop", "32", "--model", model, "--out", str(tmp_path / "a")]) == 0
    some = next((volumes / "images").iterdir())
    nibabel.save(nibabel.Nifti1Image(nibabel.load(some).get_fdata().astype(np.float32), np.diag([2, 3, 4, 1])), some)
    words = ["predict", tmp_path / "a", volumes / "images", "--to", tmp_path / "to", "--loss", "ce"]
    assert main([str(word) for word in words]) == 0
    answer = nibabel.load(tmp_path / "to" / f"{some.name.split('.')[0]}.nii.gz")
    assert answer.shape == (20, 32, 20)
    assert np.diag(answer.affine).tolist() == [2, 3, 4, 1]

    images = make_labelled(tmp_path / "labelled", images=8, size=16)
    assert main(["compare", str(images), *small, "--out", str(tmp_path / "b")]) == 0
    words = ["predict", tmp_path / "b", images / "images", "--to", tmp_path / "c", "--loss", "ce"]
    assert main([str(word) for word in words]) == 0
    with (tmp_path / "c" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        shares = [float(v) for name, v in row.items() if name.startswith("p(")]
        assert math.isclose(sum(shares), 1, abs_tol=1e-4)
        assert int(row["label"]) == int(np.argmax(shares))


def test_a_network_from_python_predicts_in_python(discs: Path, tmp_path: Path) -> None:
    from lossmith.lab.run.answers import winner

    (tmp_path / "results.json").write_text(
        json.dumps(
            {
                "settings": {"model": "make (from Python, first weights 0)"},
                "decision": {"use": "ce"},
                "kind": "segmentation",
                "ranked_by": "dice",
                "trials": [{"loss": "ce", "metrics": {"dice": 1.0}, "weights": "weights/a.pt"}],
            }
        )
    )
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pt").touch()
    with pytest.raises(UserError, match=r"its network was given in Python; build it there and load .*a\.pt"):
        winner(tmp_path, None, "cpu")
