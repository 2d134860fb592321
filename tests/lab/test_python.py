"""A comparison from Python: networks, data sets, metrics, optimizers and losses of the user's own."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from advice import follows
from monai.data import Dataset as MonaiDataset
from monai.data import MetaTensor
from monai.transforms import Compose, RandFlipd
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from lossmith import lab
from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.run import checkpoint
from lossmith.lab.run.given import GivenCrops, Source
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned, RunSettings

Sample = tuple[Any, Any]


class Discs(Dataset[Sample]):
    """Discs on noise, flipped at random; `change` makes of each pair what it likes."""

    def __init__(
        self, count: int, change: Callable[[Tensor, Tensor], Any] = lambda image, label: (image, label)
    ) -> None:
        self.count, self.change = count, change

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if index >= self.count:
            raise IndexError
        random = np.random.default_rng(index)
        rows, columns = np.mgrid[:16, :16]
        y, x = random.integers(4, 12, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 16
        image = random.normal(0, 0.3, (1, 16, 16)) + disc
        if np.random.rand() < 0.5:  # noqa: NPY002  as data sets of others do
            image, disc = image[:, ::-1].copy(), disc[::-1].copy()
        return self.change(torch.tensor(image).float(), torch.tensor(disc).long())


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 2, 3, padding=1))


def whole() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def one_label(image: Tensor, label: Tensor) -> Sample:
    return image, int(image.sum() > 40)


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`lab.compare` with what most tests want, in silence."""

    def run(**asked: Any) -> dict[str, Any]:
        usual = {"model": small, "train": Discs(6), "val": Discs(3), "seeds": 1, "steps": 2, "batch": 2}
        losses = asked.pop("losses", ["ce"])
        asked = {**usual, "out": tmp_path / "out", "device": "cpu", "watcher": lab.Watcher(), **asked}
        return dict(lab.compare(losses, **{k: v for k, v in asked.items() if v is not ...}))

    return run


def numbers(results: dict[str, Any]) -> list[Any]:
    kept = ("loss", "seed", "training", "metrics", "weights_checksum", "crops_checksum", "validation")
    return sorted(json.dumps({k: t[k] for k in kept}, sort_keys=True) for t in results["trials"])


def test_what_needs_no_lab_imports_none() -> None:
    code = "import sys, lossmith; a = {m for m in sys.modules if m.startswith('lossmith.lab')}; import lossmith.lab; "
    code += "print(a, 'monai' in sys.modules, 'lossmith.lab.python' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() False False"


def test_a_network_and_data_of_ones_own(compared: Any, tmp_path: Path) -> None:
    results = compared(losses=["ce", "dice"], seeds=2, train=DataLoader(Discs(6), batch_size=3, shuffle=True))
    assert results["finished"] == 4
    assert results["settings"]["batch"] == 3
    assert re.fullmatch(r"small \(from Python, first weights [0-9a-f]{16}\)", results["settings"]["model"])
    assert results["classes"] == ["background", "class 1"]
    assert set(results["trials"][0]["images"]) == {"0", "1", "2"}
    starts = {(t["seed"], t["weights_checksum"], t["crops_checksum"]) for t in results["trials"]}
    assert len(starts) == 2  # of a seed the same for both losses
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("small (from Python", "batches of the data set that was given", "images as the data set gives them"):
        assert words in page, words
    assert "lab.compare" in results["command"]
    assert "lossmith compare Discs" not in page  # nor where the page says what more would cost


def test_trials_do_not_depend_on_how_many_run_at_once(compared: Any, tmp_path: Path) -> None:
    """The data set flips at random and the network drops at random, all from the same random states."""
    cores = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(numbers(compared(losses=["ce", "dice"], seeds=2, steps=4, out=tmp_path / f"{len(found)}")))
    finally:
        torch.set_num_threads(cores)
    assert found[0] == found[1]


def test_an_interrupted_trial_ends_as_if_it_had_not_been(
    compared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flips and dropout go on as they would have, from the checkpoint."""

    class Interrupting(Watcher):
        def __init__(self, after: int) -> None:
            self.after, self.steps = after, list[int]()

        def step(self, trial: Planned, step: int, value: float) -> None:
            self.steps.append(step)
            if step == self.after:
                raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    whole = compared(steps=6, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        compared(steps=6, watcher=Interrupting(4))
    resumed = Interrupting(99)
    assert numbers(compared(steps=6, watcher=resumed)) == numbers(whole)
    assert resumed.steps[0] > 1


def test_a_trial_goes_on_where_it_was(compared: Any, tmp_path: Path) -> None:
    compared()
    before = (tmp_path / "out" / "trials").stat().st_mtime_ns
    assert compared()["finished"] == 1
    assert (tmp_path / "out" / "trials").stat().st_mtime_ns == before
    for change in (
        {"train": Discs(6, lambda image, label: (image + 1, label))},
        {"model": lambda: nn.Conv2d(1, 2, 1)},
        {"optimizer": torch.optim.SGD},
        {"name": "others"},
    ):
        with pytest.raises(UserError, match="choose another --out"):
            compared(**change)
    named = {"name": "discs", "out": tmp_path / "named"}
    compared(**named)
    assert compared(**named, train=Discs(6, lambda image, label: (image + 1, label)))["finished"] == 1  # as promised


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_images_with_a_label_each(compared: Any, task: str) -> None:
    model = whole if task == "multiclass" else lambda: nn.Sequential(*list(whole())[:-1], nn.Linear(4, 1))
    results = compared(model=model, train=Discs(6, one_label), val=Discs(4, one_label), task=task)
    assert results["kind"] == "classification"
    assert results["ranked_by"] == "f1"


def test_samples_as_monai_gives_them(compared: Any) -> None:
    def dicts(image: Tensor, label: Tensor) -> Any:
        return {"scan": MetaTensor(image), "seg": MetaTensor(label[None].float())}

    items = [Discs(6, dicts)[i] for i in range(6)]
    flip = Compose([RandFlipd(["scan", "seg"], prob=0.5, spatial_axis=0)])
    data = MonaiDataset(items, flip)
    results = compared(train=data, val=Discs(2, dicts), keys=("scan", "seg"))
    assert results["finished"] == 1
    source = Source(data, "train", ("scan", "seg"), "multiclass", -100)
    draws = [source.batch([0, 1, 2, 3, 4, 5], seed, 0)[0] for seed in (0, 0, 1, 2)]
    assert torch.equal(draws[0], draws[1])  # MONAI's transforms have random states of their own
    assert not torch.equal(draws[0], draws[2]) or not torch.equal(draws[0], draws[3])


def test_a_loader_keeps_its_order_batches_and_workers() -> None:
    settings = RunSettings("", "", "multiclass", 7, 0, 2, 1e-3, -100, "cpu")
    sampler = WeightedRandomSampler([0, 0, 0, 1, 1, 0], 4)
    loaders = [DataLoader(Discs(6), batch_size=2, sampler=sampler, num_workers=n) for n in (0, 1)]
    plans = [GivenCrops(Source(x, "train", ("image", "label"), "multiclass", -100), settings, 5) for x in loaders]
    assert plans[0].checksum == plans[1].checksum
    assert {row for rows in plans[0]._plan for row in rows} <= {3, 4}
    for step in (0, 1, 2, 5):  # by worker processes too what is drawn follows from the seed; 5: as after a crash
        for a, b in zip(*(plan.batch(step) for plan in plans), strict=True):
            assert torch.equal(a, b)


def test_metrics_of_ones_own_rank(compared: Any, tmp_path: Path) -> None:
    class Hits:
        """As torchmetrics has them."""

        def reset(self) -> None:
            self.right = self.all = 0

        def update(self, prediction: Tensor, label: Tensor) -> None:
            assert prediction.shape == (1, 2, 16, 16)
            assert label.shape == (1, 16, 16)
            self.right += int((prediction.argmax(1) == label).sum())
            self.all += label.numel()

        def compute(self) -> Tensor:
            return torch.tensor(self.right / self.all)

    def right(prediction: Tensor, label: Tensor) -> Tensor:
        return (prediction.argmax(1) == label).float().mean()

    results = compared(metrics={"hits": Hits(), "right": right}, val=Discs(3))
    trial = results["trials"][0]
    assert results["ranked_by"] == "hits"
    assert trial["metrics"]["hits"] == pytest.approx(trial["metrics"]["right"])
    assert {"dice", "hd95"} < trial["metrics"].keys()
    share = float(np.mean([Discs(3)[i][1].float().mean() for i in range(3)]))
    assert results["trivial"] == pytest.approx({"nothing": 1 - share, "everything": share})
    assert "By hits, as it was given." in (tmp_path / "out" / "report.html").read_text()

    def wrong(prediction: Tensor, label: Tensor) -> Tensor:
        return 50 * (prediction.argmax(1) != label).float().mean()

    results = compared(metrics=[lab.Metric(wrong, 0, 50, lower_is_better=True)], out=tmp_path / "error")
    metrics = results["trials"][0]["metrics"]
    assert results["trials"][0]["metrics"][results["ranked_by"]] == pytest.approx(1 - metrics["wrong"] / 50)
    assert "Score (wrong from 50 to 0)" in (tmp_path / "error" / "report.html").read_text()
    assert "wrong ↓" in (tmp_path / "error" / "report.html").read_text()


def test_the_optimizer_gets_clipped_gradients(compared: Any, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            (group,) = self.param_groups
            norm = nn.utils.get_total_norm([p.grad for p in group["params"]]).item()
            seen.append((group["lr"], norm))
            return super().step(closure)

    results = compared(optimizer=lambda parameters, lr: Spy(parameters, lr, momentum=0.9), clip=1e-3, lr=0.5)
    assert results["settings"]["optimizer"] == "Spy(momentum=0.9)"
    assert seen[0][0] == 0.5
    assert [norm for _, norm in seen] == pytest.approx([1e-3, 1e-3], rel=1e-2)
    assert results["trials"][0]["gradient_norm_at_start"] > 1e-3
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Spy(momentum=0.9), learning rate 0.5" in page
    assert "gradients clipped to a norm of 0.001" in page


def test_losses_of_ones_own(compared: Any, tmp_path: Path) -> None:
    results = compared(losses={"torch's": nn.CrossEntropyLoss()}, steps=4)
    again = compared(losses=["ce"], steps=4, out=tmp_path / "again")
    assert results["trials"][0]["loss"] == "torch's"
    mine, theirs = (r["trials"][0]["training"]["loss"] for r in (results, again))
    assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_folder_with_a_network_of_ones_own(
    compared: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = compared(data=folder, train=..., val=..., crop=32, model=small, keep="all")
    assert results["trials"][0]["weights"].startswith("weights/ce-")
    assert results["settings"]["crop"] == 32
    assert results["images"]["train"] == 6
    assert main(["report", str(tmp_path / "out")]) == 2
    assert "its network is from Python; lab.compare, called as before, renders it" in capsys.readouterr().err


class Shared:
    def __init__(self) -> None:
        self.network = small()

    def __call__(self) -> nn.Module:
        return self.network


def unseeded() -> nn.Module:
    network, generator = small(), torch.Generator()
    generator.seed()  # a new one each time
    torch.nn.init.normal_(network[0].weight, generator=generator)
    return network


class Endless(IterableDataset[Sample]):
    def __iter__(self) -> Iterator[Sample]:
        yield Discs(1)[0]


def changed(change: Callable[[Tensor, Tensor], Any]) -> dict[str, Any]:
    return {"train": Discs(4, change)}


class Growing(Discs):
    """Each image is taller than the one before."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image.repeat(1, 1 + index, 1), label.repeat(1 + index, 1)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": Shared()}, "model: gives the same weights to every trial"),
    ({"model": unseeded}, "model: builds other weights at each call"),
    ({"model": lambda: nn.Conv2d(1, 2, 3)}, "model: gives (2, 2, 14, 14) for images (2, 1, 16, 16), but these labels"),
    ({"model": lambda: nn.Conv2d(1, 1, 1)}, "model: gives (2, 1, 16, 16), one channel; give task='binary'"),
    ({"model": lambda: nn.Conv2d(3, 2, 1)}, "model: fails on images (2, 1, 16, 16) (RuntimeError"),
    ({"model": lambda: nn.ReLU()}, "model: has no weights to train"),
    ({"model": lambda: 3}, "model: gives a int, not a torch.nn.Module"),
    ({"model": None}, "classes: the lab's own network has to know them; give classes=[...], background first"),
    ({"train": Endless()}, "train: a Endless has no items"),
    ({"train": DataLoader(Discs(4), batch_size=None)}, "train: a DataLoader without batches; give it a batch_size"),
    ({"train": DataLoader(Discs(4), 8, drop_last=True)}, "its loader gives no batch; drop drop_last"),
    ({"train": []}, "train: is empty"),
    ({"train": Growing(4)}, "make no batch (stack expects each tensor to be equal size"),
    ({"seeds": 0}, "seeds: must be 1 or more, not 0"),
    ({"train": ...}, "train, val: give both, or data=FOLDER"),
    ({"folds": 2}, "folds, group_by: belong to data in a folder; drop them"),
    ({"data": "bacteria"}, "data and train: give either a folder, or data sets"),
    (changed(lambda i, y: (i, y.float() / 2)), "train: labels are torch.float32 with fractions"),
    (changed(lambda i, y: (i, y[:8])), "train: labels (8, 16) do not fit images (1, 16, 16)"),
    (changed(lambda i, y: ((255 * i).byte(), y)), "train: images are torch.uint8; give floats"),
    (changed(lambda i, y: (i, y, 1)), "train: gives 3 things; it must give (image, label)"),
    (changed(lambda i, y: ("a.png", y)), "train: the image is a str; it must be a tensor"),
    (changed(lambda i, y: {"image": i, "mask": y}), "no 'label' among image, mask; name both with keys="),
    (changed(lambda i, y: (i, 4 * y)), "holds the label 4, but there are 2 classes (0 to 1); give classes=[...], or"),
    ({"optimizer": lambda p, lr: torch.optim.SGD(p, 1.0)}, "optimizer: has another rate than it is called with"),
    ({"optimizer": lambda p, lr: 3}, "optimizer: gives a int; it must give a torch.optim.Optimizer"),
    ({"losses": [nn.CrossEntropyLoss()]}, "give it a name, losses={'name': loss}"),
    ({"losses": {"mine": 3}}, "loss 'mine': a int is no loss; give a text or a torch.nn.Module"),
    ({"losses": {"mine": nn.MSELoss()}}, "loss 'mine': cannot be trained with"),
    ({"metrics": {"m": lambda p, y: "much"}}, "metric 'm': gives a str, not a number"),
    ({"metrics": {"m": lambda p, y: p}}, "metric 'm': gives a Tensor of shape (1, 2, 16, 16), not a number"),
    ({"metrics": {"m": lambda p, y: 3.0}}, "metric 'm': gives 3, outside of 0 to 1; give its range, Metric("),
    ({"metrics": {"m": lambda p, y: p @ y}}, "metric 'm': fails on prediction and label (1, 2, 16, 16)"),
    ({"metrics": {"m": 3}}, "metric 'm': a int cannot be called"),
    ({"metrics": {"m": lab.Metric(max, 0, float("inf"))}}, "metric 'm': its range is 0 to inf; give two finite"),
]


@follows(
    "give a function that builds a new network at each call",
    "gives {} for images {}, but these labels need {}",
    "give task='binary', or one channel for each class",
    "give classes=[...], background first",
    "give a torch.utils.data.Dataset with them",
    "give it a batch_size",
    "seeds: must be 1 or more, not {}",
    "crop or pad images to one size, or give a DataLoader with a collate_fn",
    "drop drop_last, or take a smaller batch",
    "train, val: give both, or data=FOLDER",
    "drop them, train and val say who is held back",
    "data and train: give either a folder, or data sets to train on and to judge by",
    "labels are {} with fractions",
    "they must be class numbers",
    "they must be {}, or {} with one label for each image",
    "give floats, as the network takes them",
    "it must give (image, label), or a dict with keys=",
    "it must be a tensor",
    "name both with keys=(image, label)",
    "give classes=[...], or ignore_index={}",
    "pass that on, as in SGD(parameters, lr)",
    "it must give a torch.optim.Optimizer",
    "loss {}: give it a name, losses={'name': loss}",
    "give a text or a torch.nn.Module",
    "give a function (prediction, label) → number",
    "it must give one for each image",
    "give its range, Metric(function, low=0, high=100), and lower_is_better=True for an error",
    "give two finite numbers, Metric(function, low=0, high=100)",
)
@pytest.mark.parametrize(("asked", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_what_does_not_fit_gets_one_line(asked: dict[str, Any], words: str, compared: Any) -> None:
    """The other tests here do what these advise."""
    with pytest.raises(UserError) as error:
        compared(**asked)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@follows("add __len__, for only then can every loss see the same images")
def test_a_data_set_without_a_length(compared: Any) -> None:
    class Bare:
        def __getitem__(self, index: int) -> Any:
            return Discs(4)[index]

    class Measured(Bare):
        def __len__(self) -> int:
            return 4

    with pytest.raises(UserError, match="add __len__"):
        compared(train=Bare())
    assert compared(train=Measured())["finished"] == 1


@follows("it must give one tensor of logits (N, C, *S)")
def test_a_network_with_several_heads(compared: Any) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()

        def forward(self, image: Tensor) -> Any:
            return [self.body(image)]

    with pytest.raises(UserError, match=r"model: gives a list; it must give one tensor of logits \(N, C, \*S\)"):
        compared(model=Heads)


@follows("drop model=, optimizer= and metrics=")
def test_boxes_take_no_parts(compared: Any, boxes: Path) -> None:
    with pytest.raises(UserError, match="drop model=, optimizer= and metrics="):
        compared(data=boxes, train=..., val=..., losses=["focal + giou"])


def test_a_data_set_that_no_seed_fixes_is_named(compared: Any, tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(Watcher):
        def said(self, line: str) -> None:
            said.append(line)

    own = np.random.default_rng()
    compared(train=Discs(4, lambda image, label: (image + own.normal(), label)), watcher=Listening())
    assert any("draws other images from one seed each time" in line for line in said)
    said.clear()
    compared(watcher=Listening(), out=tmp_path / "steady")
    assert said == []


def test_other_metrics_go_elsewhere(compared: Any, tmp_path: Path) -> None:
    compared(metrics={"a": lambda prediction, label: 0.5})
    with pytest.raises(UserError, match="holds trials that 'b' has not measured; choose another --out"):
        compared(metrics={"b": lambda prediction, label: 0.5})
    compared(metrics={"b": lambda prediction, label: 0.5}, out=tmp_path / "elsewhere")
