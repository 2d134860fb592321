"""A kind of data is one file: one that lies in the folder of kinds is read, trained with, judged and reported on."""

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import make_folder

from lossmith.cli import main
from lossmith.lab import kinds
from lossmith.lab.kinds import all_kinds, kind_of

COUNTING = '''
"""Images with a number each, in counts.csv."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from lossmith.lab import UserError
from lossmith.lab.data.faults import Fault, raise_first
from lossmith.lab.data.files import read_image
from lossmith.lab.data.index import list_part
from lossmith.lab.data.tables import read_column, read_split
from lossmith.lab.kind import Kind
from lossmith.lab.say.metrics import MetricSet


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))

    def forward(self, image):
        return self.body(image)[:, 0]


class Steps:
    checksum = "none"

    def __init__(self, samples, settings, seed):
        self.samples, self.batch_size, self.seed = samples, settings.batch, seed

    def batch(self, step):
        chosen = np.random.default_rng((self.seed, step)).integers(len(self.samples), size=self.batch_size)
        images = np.stack([self.samples[i].image for i in chosen])
        return torch.from_numpy(images), torch.tensor([self.samples[i].count for i in chosen])


class Counting(Kind):
    name = "counting"
    metrics = MetricSet({"closeness": "Closeness", "error": "Mean error"}, "closeness", lower_is_better={"error"})
    template = '{% extends "compare.html" %}{% block watched %}numbers{% endblock %}'

    def recognises(self, folder):
        return (folder / "counts.csv").is_file()

    def _index(self, folder):
        faults = []
        images = list_part(folder, "images", faults) or {}
        problem = lambda text: "" if text.isdecimal() else "no number"
        counts = read_column(folder / "counts.csv", "count", list(images), problem, faults)
        return images, counts, read_split(folder, list(images), faults), faults

    def faults(self, folder, asked):
        return self._index(folder)[3]

    def read(self, folder, asked, watch=None):
        images, counts, split, faults = self._index(folder)
        raise_first(faults)
        samples = {s: SimpleNamespace(stem=s, image=read_image(p), count=float(counts[s])) for s, p in images.items()}
        parts = {part: [x for s, x in samples.items() if split[s] == part] for part in ("train", "validation")}
        return SimpleNamespace(**parts, classes=[], source="", fingerprint="0")

    def sizes(self, data):
        return 0, 4, (4,)

    def network(self, data, settings):
        return Flat()

    def crops(self, data, settings, seed):
        return Steps(data.train, settings, seed)

    def trivial(self, data):
        return {"nothing": 0.0, "everything": 0.0}

    def judge(self, model, loss, data, settings):
        with torch.inference_mode():
            found = model(torch.from_numpy(np.stack([s.image for s in data.validation]))).numpy()
        error = float(np.abs(found - [s.count for s in data.validation]).mean())
        return {"metrics": {"closeness": 1 / (1 + error), "error": error}, "per_class": None}, {"found": found}


KIND = Counting()
'''


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images with counts.csv; the kind is one file more where the kinds are looked for."""
    more = tmp_path / "kinds"
    more.mkdir()
    (more / "counting.py").write_text(textwrap.dedent(COUNTING))
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(more)])
    folder = make_folder(tmp_path / "counted", images=4, size=32)
    for path in (folder / "masks").iterdir():
        path.unlink()
    (folder / "masks").rmdir()
    (folder / "counts.csv").write_text("stem,count\n" + "".join(f"disc{i},{i}\n" for i in range(4)))
    return folder


def test_the_kinds_that_there_are(folder: Path, tmp_path: Path) -> None:
    assert {module: kind.name for module, kind in all_kinds().items()} == {
        "boxes": "detection",
        "images": "classification",
        "pixels": "segmentation",
    }
    assert kind_of(folder).name == "segmentation"
    assert kind_of(tmp_path).name == "segmentation"  # which says what is missing
    for table, name in (("labels.csv", "classification"), ("boxes.csv", "detection")):
        (tmp_path / table).touch()
        assert kind_of(tmp_path).name == name


def test_a_new_kind_is_one_file(counting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["compare", str(counting), "--loss", "l1", "--loss", "huber", "--seeds", "1", "--steps", "2"]
    command += ["--device", "cpu", "--out", str(out)]
    assert main([*command, "--json"]) == 0
    results: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (results["kind"], results["finished"], results["ranked_by"]) == ("counting", 2, "closeness")
    assert len({t["weights_checksum"] for t in results["trials"]}) == 1
    assert all(np.isfinite(t["training"]["loss"]).all() for t in results["trials"])
    assert main(command) == 0  # resumes
    page = (out / "report.html").read_text()
    for words in ("Closeness during training on numbers.", "Mean error ↓", "<h2>Trials</h2>", "HuberLoss("):
        assert words in page, words
    (counting / "counts.csv").write_text("stem,count\ndisc0,none\n")
    assert main(command) == 2
    assert "counts.csv, line 2: 'none' is no number" in capsys.readouterr().err
