"""The examples run, and what they say of themselves holds."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lossmith as ls
from problems import labels_of, logits_of

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _as_a_script_finds_them(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def example(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("schedule", ["increase", "rebalance"])
def test_boundary_schedule(schedule, capsys):
    """It learns to find the discs, and the weight of the boundary term grows by 0.01 an epoch."""
    scores = example("boundary_schedule").train(schedule, epochs=20)
    assert scores[-1] > 0.8
    assert capsys.readouterr().out.count("boundary") == 2


def test_boundary_schedules_are_the_papers():
    for schedule, weights in {"increase": (1.0, 0.05), "rebalance": (0.95, 0.05)}.items():
        loss = example("boundary_schedule").losses()[schedule]
        for _ in range(4):
            loss.step()
        assert [weight if isinstance(weight, float) else round(weight.value, 9) for weight, _ in loss.terms] == [
            *weights
        ]


def test_rare_and_empty(tmp_path):
    """0.1 % of the pixels, in half of the images, in both parts of the split."""
    example("rare_and_empty").make(tmp_path / "rare")
    masks = np.stack([np.array(Image.open(file)) for file in sorted((tmp_path / "rare/masks").iterdir())])
    assert masks.mean() == pytest.approx(0.001, rel=0.1)
    for part in (masks[:64], masks[64:]):
        assert part.any(axis=(1, 2)).mean() == 0.5


def test_the_tutorial_of_monai_with_one_line_changed(capsys):
    """Back to the import that it had: the same loss at every step."""
    pytest.importorskip("monai")
    source, line = (EXAMPLES / "monai_tutorial.py").read_text(), "from lossmith.compat import monai as losses\n"
    assert line in source
    histories = []
    for one in (line, "from monai import losses\n"):
        space: dict[str, Any] = {"__name__": "example"}
        exec(source.replace(line, one), space)
        histories.append(space["train"](epochs=3))
    ours, theirs = histories
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours[-1] < 0.8 * ours[0]
    assert capsys.readouterr().out.count("epoch") == 6


def test_ddp(capsys):
    """Two processes train as one does, on whatever images; those of the example are fetched."""
    images, labels = logits_of(6, 1, 32, 32), labels_of(2, 6, 32, 32)
    assert example("ddp").main([(images, labels)] * 3) < 1e-9
    assert "largest difference" in capsys.readouterr().out


def test_plain_loop(capsys):
    """It learns, and prints terms that add up."""
    assert example("plain_loop").train(epochs=8)[-1] > 0.6
    line = capsys.readouterr().out.splitlines()[0]
    loss, terms = line.partition("loss ")[2].partition(";")[0].split(" = ")
    assert float(loss) == pytest.approx(sum(float(term.split()[1]) for term in terms.split(" + ")), abs=2e-4)


def test_accumulation():
    compare = example("accumulation").compare
    exact, mean = compare("dice(per_image=false)")
    assert exact < 1e-4
    assert mean > 0.01
    assert compare("dice")[1] < 1e-4  # a mean over images


def test_tensorboard_log(tmp_path):
    """What TensorBoard reads: a term grows with its weight, and the terms add up."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    example("tensorboard_log").train(str(tmp_path), epochs=3)
    events = EventAccumulator(str(tmp_path)).Reload()
    curves = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert set(curves) == {"loss", "term/ce", "term/lovasz", "weight/lovasz"}
    assert curves["weight/lovasz"] == [0.0, 0.25, 0.5]
    assert curves["term/lovasz"][0] == 0
    assert curves["loss"] == pytest.approx(
        [a + b for a, b in zip(curves["term/ce"], curves["term/lovasz"], strict=True)]
    )
    text = events.Tensors("loss/text_summary")[0].tensor_proto.string_val[0].decode()
    assert repr(ls.parse(text.strip("`"))) == text.strip("`")


def test_hydra_config():
    one, several = example("hydra_config").losses(["loss.gamma=3", "void=7"])
    assert repr(one) == repr(ls.FocalLoss(gamma=3, class_weight=[1, 5], ignore_index=7))
    assert repr(several) == repr(ls.parse("dice(per_image=false) + 0.5*focal(gamma=3)", ignore_index=7))


@pytest.fixture
def loss_of(monkeypatch):
    """The loss that LightningCLI builds of some words."""

    def build(*words: str) -> ls.Loss:
        monkeypatch.setattr(sys, "argv", ["lightning_cli.py", *words])
        return example("lightning_cli").loss_of_command_line()

    return build


old_jsonargparse = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of it


@old_jsonargparse
def test_lightning_cli(loss_of):
    """The default's ignored label stays where another loss has one too; what a loss has not is refused."""
    assert repr(loss_of()) == repr(ls.DiceCELoss(ignore_index=255))
    words = ["--model.loss=lossmith.FocalLoss", "--model.loss.gamma=3"]
    assert repr(loss_of(*words)) == repr(ls.FocalLoss(gamma=3.0, ignore_index=255))
    with pytest.raises(SystemExit):
        loss_of(*words, "--model.loss.gama=3")


@old_jsonargparse
def test_lightning_cli_reads_the_file_that_it_shows(tmp_path, loss_of):
    shown = example("lightning_cli").__doc__.split("\n\n")[2]
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(shown))
    assert repr(loss_of("--config", str(tmp_path / "mine.yaml"))) == repr(ls.FocalLoss(gamma=3.0, ignore_index=255))


@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")  # of torch's, to Lightning
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning")
def test_lightning_loop(capsys, tmp_path, monkeypatch):
    """The terms are in Lightning's own metrics and add up; the ramp has moved once an epoch."""
    monkeypatch.chdir(tmp_path)
    trainer = example("lightning_loop").train(epochs=2)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/loss"] == pytest.approx(metrics["val/ce"] + metrics["val/dice"])
    assert trainer.lightning_module.loss.terms[1][0].value == pytest.approx(0.75)
    assert capsys.readouterr().out.count("val/dice") == 2


def test_mmengine_registry():
    """The head's ignored label reaches every term."""
    module = example("mmengine_registry")
    config = {"type": "Lossmith", "loss": "dice + 0.5*focal", "class_weight": [1.0, 2.0, 3.0]}
    head = module.DecodeHead([config], ignore_index=7)
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 1, 8, 8))
    labels[:, :, :4] = 7
    found = head.loss_by_feat(logits, labels)
    ours = ls.parse("dice + 0.5*focal", ignore_index=7, class_weight=[1.0, 2.0, 3.0])(logits, labels[:, 0])
    assert {name: float(x) for name, x in found.items()} == {"loss_lossmith": pytest.approx(float(ours))}


def test_nnunet_trainer():
    """The heads weigh 2/3, 1/3 and nothing; the label to be ignored counts nowhere."""
    module = example("nnunet_trainer")
    outputs = [torch.randn(2, 3, size, size) for size in (16, 8, 4)]
    targets = [torch.randint(0, 4, (2, 1, size, size)) for size in (16, 8, 4)]
    single = ls.parse("dice(smooth=1e-5, per_image=false, include_background=false) + focal", ignore_index=3)
    heads = [float(single(z, y)) for z, y in zip(outputs, targets, strict=True)]
    value = float(module.nnUNetTrainerDiceFocal()._build_loss()(outputs, targets))
    assert value == pytest.approx(2 / 3 * heads[0] + 1 / 3 * heads[1], rel=1e-5)


def test_hf_trainer():
    """However the step is cut into micro-batches, loss and gradient are the whole's."""
    module = example("hf_trainer")
    torch.manual_seed(0)
    images, labels = torch.randn(8, 1, 32, 32), torch.randint(2, (8, 32, 32))
    labels[:2, 4:] = -100
    trainer, found = module.Trainer(module.Net(), module.compute_loss), []
    for sizes in ([8], [2, 6], [3, 1, 4]):
        trainer.model.zero_grad()
        pairs = zip(images.split(sizes), labels.split(sizes), strict=True)
        value = trainer.step([{"pixel_values": x, "labels": y} for x, y in pairs])
        found.append(torch.cat([value.view(1), *(x.grad.flatten() for x in trainer.model.parameters())]))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_monai_sliding_window():
    history = example("monai_sliding_window").train(epochs=3)
    assert history[-1] < history[0]


def test_detection_head():
    assert example("detection_head").train(steps=40) > 0.5


def test_recipes_are_short():
    """Sixty lines of code at most, under whatever is said above. `ddp.py`, which starts processes, is longer."""
    for path in EXAMPLES.glob("*.py"):
        code = path.read_text().split('"""', 2)[2]
        lines = [line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert len(lines) <= 60 or path.stem == "ddp", f"{path.name}: {len(lines)} lines"
