"""Losses meet the tools that people configure, build and differentiate them with, and the tensors these hand out."""

from __future__ import annotations

import enum
import fractions
import inspect
import math
import os
import subprocess
import sys
import textwrap
from typing import Any, Literal, get_args, get_origin

import jsonargparse
import numpy as np
import pandas
import pytest
import torch
from monai.data import MetaTensor
from omegaconf import OmegaConf
from torch import Tensor

import lossmith as ls
from lossmith.bounds import Bounds, Classes, ClassPairs, Spacing
from problems import PAIRS, arguments, by_pair, kernels_serve, labels_of, logits_of

CATALOGUE = ls.catalogue()
every_row = pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)


def lists_of(row: Any) -> dict[str, Any]:
    """The settings of a loss that are lists, with values."""
    some: dict[str, Any] = {}
    for name, hint in row.cls.hints.items():
        options = (hint, *get_args(hint))
        if ClassPairs in options:
            some[name] = [[0.0, 1.0, 0.5], [1.0, 0.0, 0.25], [0.5, 0.25, 0.0]]
        elif Bounds in options:
            some[name] = [0.25, 4.0]
        elif Classes in options:
            some[name] = [0, 2]
        elif Spacing in options:
            some[name] = [1.0, 0.5]
        elif Tensor in options or any(Tensor in get_args(option) for option in options):
            some[name] = [0.5, 0.25, 1.0]
    return some


# ---- constructors ---------------------------------------------------------------------------------------------------


@every_row
def test_the_signature_is_the_settings(row):
    """What Jupyter, editors, Hydra and LightningCLI read."""
    signature = inspect.signature(row.cls)
    assert list(signature.parameters) == list(row.cls.keywords)
    assert signature == inspect.signature(row.cls.__init__).replace(
        parameters=list(inspect.signature(row.cls.__init__).parameters.values())[1:]
    )
    for name, parameter in signature.parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert repr(parameter.default) == repr(row.cls.keywords[name])
        assert parameter.annotation is not parameter.empty
        assert "Interval" not in str(parameter.annotation)
    assert (
        get_origin(signature.parameters["reduction"].annotation) is Literal if "reduction" in row.cls.fields else True
    )
    row.cls(**{name: parameter.default for name, parameter in signature.parameters.items()})


@every_row
def test_jsonargparse_builds_it(row):
    """As LightningCLI does, from a file or the command line, with numbers, words and lists."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=ls.Loss)
    given = lists_of(row) | ({"ignore_index": 255} if "ignore_index" in row.cls.fields else {})
    read = parser.parse_object({"loss": {"class_path": f"lossmith.{row.cls.__name__}", "init_args": given}})
    assert repr(parser.instantiate(read).loss) == repr(row.cls(**given))
    with pytest.raises(jsonargparse.ArgumentError, match="smoth"):
        parser.parse_object({"loss": {"class_path": f"lossmith.{row.cls.__name__}", "init_args": {"smoth": 1.0}}})


def test_jsonargparse_reads_a_command_line():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=ls.Loss)
    line = ["--loss=lossmith.FocalLoss", "--loss.gamma=3", "--loss.alpha=[0.25,0.75]", "--loss.ignore_index=255"]
    loss = parser.instantiate(parser.parse_args(line)).loss
    assert repr(loss) == "FocalLoss(gamma=3.0, alpha=[0.25, 0.75], ignore_index=255)"


@every_row
def test_lists_out_of_a_configuration(row):
    """OmegaConf's lists, which Hydra hands over as they are."""
    given = lists_of(row)
    node = OmegaConf.create(given)
    assert repr(row.cls(**{name: node[name] for name in given})) == repr(row.cls(**given))


@every_row
def test_lists_are_whatever_holds_numbers(row):
    for name, values in lists_of(row).items():
        expected = repr(row.cls(**{name: values}))
        array = np.array(values)
        backwards = np.array(values[::-1])[::-1]  # which torch refuses: its steps are negative
        tensor = torch.tensor(values, requires_grad=isinstance(values[0], float))
        others = [tuple(values), array, backwards, tensor]
        if isinstance(values[0], int):
            others += [
                pandas.Series(values),
                tensor.to(torch.uint8),
                array.astype(np.int16),
                [np.int8(x) for x in values],
            ]
        else:
            others += [array.astype(np.float32), tensor.bfloat16(), tensor.double()]
        if isinstance(values[0], float):
            others += [pandas.Series(values), [np.float64(x) for x in values], [fractions.Fraction(x) for x in values]]
        for other in others:
            assert repr(row.cls(**{name: other})) == expected, (name, type(other), other)


def test_numbers_are_whatever_is_one():
    for two in (
        2,
        2.0,
        np.float32(2),
        np.int64(2),
        torch.tensor(2.0),
        torch.tensor(2),
        np.array(2.0),
        fractions.Fraction(2),
    ):
        assert ls.FocalLoss(gamma=two).gamma == 2
    for yes in (True, np.bool_(True), torch.tensor(True)):
        assert ls.DiceLoss(squared=yes).squared is True
    for one in (1, np.int8(1), torch.tensor(1)):
        assert ls.DiceLoss(ignore_index=one).ignore_index == 1
        with pytest.raises(TypeError, match="must be True or False"):
            ls.DiceLoss(squared=one)
    assert ls.DiceLoss(classes=range(1, 3)).classes == (1, 2)
    assert ls.CrossEntropyLoss(class_weight=range(1, 3)).settings()["class_weight"] == [1.0, 2.0]
    for wrong in ({0: 1.0, 1: 2.0}, {1.0, 2.0}, (x for x in (1.0, 2.0)), "12", b"12", ["1", "2"], [[1.0], [2.0, 3.0]]):
        with pytest.raises(
            (TypeError, ValueError), match="class_weight must be a list of finite numbers >= 0"
        ) as error:
            ls.CrossEntropyLoss(class_weight=wrong)
        assert "\n" not in str(error.value)


def test_errors_of_long_values_are_one_short_line():
    for wrong in (np.full((3, 300), -1.0), torch.full((2000,), -1.0)):
        with pytest.raises(ValueError, match="class_weight must be") as error:
            ls.CrossEntropyLoss(class_weight=wrong)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 250


@every_row
def test_a_positional_argument_gets_one_line(row):
    with pytest.raises(
        TypeError, match=rf"{row.cls.__name__} takes its settings by name \(.*\), got \[1.0, 2.0\]$"
    ) as error:
        row.cls([1.0, 2.0])
    for name in row.cls.fields:
        assert name in str(error.value)
    with pytest.raises(TypeError, match="by name"):
        row.cls(2.0, reduction="mean")


@every_row
def test_a_class_counts_once(row):
    for name in {"classes", "rare"} & row.cls.fields.keys():
        with pytest.raises(ValueError, match=f"{name} must be a list of integers, each once"):
            row.cls(**{name: [1, 1, 2]})


# ---- losses of one's own --------------------------------------------------------------------------------------------


def test_constructors_of_ones_own_are_called():
    """Each class has a constructor, for its signature; in line all get their turn, and keep their own arguments."""

    class Named(ls.DiceLoss):
        def __init__(self, *, label: str = "mine", **settings: Any) -> None:
            super().__init__(**settings)
            self.label = label

    class Marked(ls.DiceLoss):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.mark = 1

    class Plain(ls.DiceLoss):
        pass

    class Both(Plain, Marked):
        pass

    class Further(Named):
        extra: float = 2.0

    class First(ls.DiceLoss):
        def __init__(self, label: str) -> None:
            super().__init__(smooth=3.0)
            self.label = label

    assert Named().label == "mine"
    assert Further(label="yours", extra=3, smooth=0.5).label == "yours"
    assert Both(smooth=0.5).mark == 1
    assert First("a").smooth == 3.0
    assert list(inspect.signature(Named).parameters)[:1] == ["label"]
    assert list(inspect.signature(Further).parameters)[:2] == ["label", "extra"]
    assert list(inspect.signature(Both).parameters) == list(ls.DiceLoss.keywords)
    assert list(inspect.signature(First).parameters) == ["label"]
    logits, labels = logits_of(2, 3, 4), labels_of(3, 2, 4, ignore=False)
    for loss in (Named(), Both(), Further()):
        torch.testing.assert_close(loss(logits, labels), ls.DiceLoss()(logits, labels))


def test_buffers_of_ones_own_move_as_they_would():
    class Own(ls.CrossEntropyLoss):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.register_buffer("mine", torch.ones(2, dtype=torch.float32))
            self.register_buffer("later", None)

    loss = Own(class_weight=[1.0, 2.0]).half()
    assert loss.mine.dtype == torch.float16
    assert loss.class_weight.dtype == torch.float64
    loss = ls.CrossEntropyLoss(class_weight=[1.0, 2.0])
    loss.class_weight = None
    loss.half()


def test_a_tensor_without_axes_is_a_number_where_numbers_are_taken():
    one = torch.tensor(1.0)
    for make in (
        lambda: ls.CrossEntropyLoss(class_weight=one),
        lambda: ls.DiceLoss(class_weight=one),
        lambda: ls.PowerCrossEntropyLoss(frequencies=one),
        lambda: ls.NonAdjacencyLoss(forbidden=one),
    ):
        with pytest.raises(TypeError, match="must be a list of finite numbers >= 0 or None, got tensor"):
            make()
    assert ls.CrossEntropyLoss(pos_weight=one).pos_weight == 1.0


class Reduction(enum.StrEnum):
    SUM = "sum"


def test_words_are_words():
    for word in (Reduction.SUM, np.str_("sum")):
        loss = ls.DiceLoss(reduction=word)
        assert ls.parse(repr(loss)).reduction == "sum"
    with pytest.raises(ValueError, match="class_weight cannot be read: Missing"):
        ls.CrossEntropyLoss(class_weight=OmegaConf.create({"w": [1.0, "???"]}).w)


# ---- devices --------------------------------------------------------------------------------------------------------


@every_row
def test_settings_survive_the_meta_device(row):
    """A model that is built there and materialised: its buffers are filled from a checkpoint, and ours are in none."""
    given = lists_of(row)
    with torch.device("meta"):
        loss = row.cls(**given)
    for module in (loss, torch.nn.Sequential(loss)):
        module.to("meta").to_empty(device="cpu")
        for name, buffer in loss.named_buffers():
            assert buffer.tolist() == row.cls(**given).get_buffer(name).tolist()
        module.half()
        assert all(buffer.dtype == torch.float64 for buffer in loss.buffers())
    for name, values in given.items():
        with pytest.raises(ValueError, match=f"{name} cannot be read: .*meta device.*give a list") as error:
            row.cls(**{name: torch.tensor(values, device="meta")})
        assert "\n" not in str(error.value)


# ---- tensors of other classes ---------------------------------------------------------------------------------------


class Annotated(Tensor):
    """Stands for torchvision's tv_tensors: a tensor with metadata, of which some operations make another."""

    format: Any = None


class Format:
    def __init__(self, value: str) -> None:
        self.value = value


def boxes_in(fmt: str, values: Tensor) -> Tensor:
    """Stands for tv_tensors.BoundingBoxes, whose format is a member of an enumeration."""
    boxes = values.as_subclass(Annotated)
    boxes.format = Format(fmt.upper())
    return boxes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MONAI about itself
@by_pair
@pytest.mark.parametrize("wrap", [lambda x: x.as_subclass(Annotated), MetaTensor], ids=["subclass", "MetaTensor"])
@pytest.mark.one_in(3)
def test_metadata_changes_nothing(row, task, wrap):
    """The kernels serve as before, and the gradient arrives where it belongs."""
    build, inputs, given = arguments(row, task)
    with ls.use_engine("fused" if kernels_serve(row.name, task) else "auto"):
        first = inputs[0].clone().requires_grad_()
        expected = build()(first, *inputs[1:], **given)
        expected.backward()
        leaf = inputs[0].clone().requires_grad_()
        others = [wrap(x.clone()) for x in inputs[1:]]
        value = build()(wrap(leaf), *others, **{key: wrap(x.clone()) for key, x in given.items()})
        value.backward()
    assert type(value) is Tensor
    assert torch.equal(value, expected)
    assert torch.equal(leaf.grad, first.grad)


@pytest.mark.parametrize("text", ["giou", "giou + l1", "ciou(fmt='cxcywh')", "gfl"])
def test_boxes_that_say_what_they_are(text):
    loss = ls.parse(text)
    fmt = "cxcywh" if "cxcywh" in text else "xyxy"
    if text == "gfl":
        row = next(row for row in CATALOGUE if row.name == "gfl")
        inputs = list(arguments(row, "distribution")[1])
    else:
        inputs = [torch.rand(3, 4) + 1, torch.rand(3, 4) + 1]
    boxes = inputs[-1]
    value = loss(*inputs[:-1], boxes_in(fmt, boxes))
    assert torch.equal(value, loss(*inputs))
    with pytest.raises(
        ValueError, match=rf"Annotated in the format 'xywh', but the loss takes fmt='{fmt}'.*fmt='xywh'"
    ):
        loss(*inputs[:-1], boxes_in("xywh", boxes))


def test_table_of_boxes_that_say_what_they_are():
    boxes = torch.tensor([[1.0, 1.0, 2.0, 2.0]])
    assert ls.box.pairwise_iou(boxes_in("xywh", boxes), boxes, fmt="xywh") == 1
    with pytest.raises(ValueError, match="format 'xywh'"):
        ls.box.pairwise_iou(boxes_in("xywh", boxes), boxes)


TWO_PROCESSES = """
    import os, sys, torch, torch.distributed as dist, lossmith as ls
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
    sys.path.insert(0, {tests!r})
    from problems import labels_of, logits_of
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    z, y = logits_of(4, 3, 6, 7), labels_of(3, 4, 6, 7, ignore=False)
    for text in ("ce", "dice(per_image=false)", "lovasz", "dice + 0.5*boundary", "topk"):
        loss = ls.parse(text)
        whole = z.clone().requires_grad_()
        expected = loss(whole, y)
        expected.backward()
        for place in (Replicate(), Shard(0), Shard(1)):
            labels = distribute_tensor(y, mesh, [place if place != Shard(1) else Replicate()])
            logits = distribute_tensor(z, mesh, [place]).requires_grad_()
            value = loss(logits, labels)
            assert isinstance(value, DTensor) and torch.equal(value.full_tensor(), expected.detach()), (text, place)
            (value + value.detach() * 0).backward()
            assert isinstance(logits.grad, DTensor) and logits.grad.placements == (place,)
            torch.testing.assert_close(logits.grad.full_tensor(), whole.grad, rtol=1e-12, atol=1e-15)
    dist.destroy_process_group()
    print("same")
"""


@pytest.mark.slow
def test_dtensors_replicated_and_sharded(tmp_path):
    """Value and gradient of the whole batch, on two processes, in torch's own kind of tensor."""
    code = textwrap.dedent(TWO_PROCESSES).format(tests=os.path.dirname(__file__))
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", code, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for run in runs:
        out, err = run.communicate(timeout=240)
        assert out.strip() == "same", err


# ---- other derivatives ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by torch, of torch
@by_pair
def test_derivatives_carried_forward(row, task):
    """A jvp is the gradient times the direction: by torch.func, and by dual numbers, which "auto" serves in torch."""
    build, inputs, given = arguments(row, task)
    loss, first = build(), inputs[0].double()
    others = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs[1:]]
    direction = logits_of(*first.shape, seed=7)
    leaf = first.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, *others, **given), leaf)
    expected = (gradient * direction).sum()
    value, found = torch.func.jvp(lambda z: loss(z, *others, **given), (first,), (direction,))
    torch.testing.assert_close(value, loss(first, *others, **given))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(first.float(), direction.float())
        tangent = torch.autograd.forward_ad.unpack_dual(loss(dual, *inputs[1:], **given)).tangent
    torch.testing.assert_close(tangent.double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by torch, of torch
@pytest.mark.parametrize(
    ("row", "task"), [pair for pair in PAIRS if pair[1] != "soft labels"], ids=lambda x: getattr(x, "name", x)
)
def test_hessians(row, task):
    """Forward over reverse is reverse over reverse; on a few elements, the others held."""
    build, inputs, given = arguments(row, task)
    loss, first = build(), inputs[0].double()
    others = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs[1:]]
    few = first.flatten()[:5].clone()

    def of_few(z: Tensor) -> Tensor:
        return loss(torch.cat([z, first.flatten()[5:]]).reshape(first.shape), *others, **given)

    leaf = few.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of_few(leaf), leaf, create_graph=True)
    rows = [torch.autograd.grad(g, leaf, retain_graph=True, allow_unused=True)[0] for g in gradient]
    expected = torch.stack([torch.zeros_like(few) if row is None else row for row in rows])
    torch.testing.assert_close(torch.func.hessian(of_few)(few), expected, rtol=1e-7, atol=1e-11)
    torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(of_few))(few), expected, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("text", ["ce", "dice", "lovasz(bins=8)", "boundary(shifted=true)", "focal + tversky"])
def test_logits_changed_in_place_before_backward(text, engine):
    """Whoever reads them anew in the backward raises torch's error; torch's cross-entropy keeps a copy of its softmax,
    and so does what is made of torch's operations alone. Never a wrong gradient."""
    logits, labels = logits_of(2, 3, 8, 8).float().requires_grad_(), labels_of(3, 2, 8, 8, ignore=False)
    (expected,) = torch.autograd.grad(ls.parse(text)(logits, labels), logits)
    value = ls.parse(text)(logits, labels)
    with torch.no_grad():
        logits.mul_(2)
    if text.startswith("lovasz") and engine == "plain":
        value.backward()
        assert torch.equal(logits.grad, expected)
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


def test_pos_weight_is_torchs():
    """Per channel, one for all, with a mean over all elements; soft targets too."""
    for channels, target in ((3, labels_of(2, 4, 3, 5, 6, ignore=False)), (1, logits_of(4, 1, 5, 6, seed=2).sigmoid())):
        logits = logits_of(4, channels, 5, 6)
        for weight in ([1.0, 5.0, 20.0][-channels:], 7.0):
            given = torch.as_tensor(weight, dtype=torch.float64)
            theirs = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, target.double(), pos_weight=given.reshape(-1, 1, 1)
            )
            task = "multilabel" if channels > 1 else "binary"
            for value in (weight, given, *([given.reshape(-1, 1, 1)] if given.ndim else [])):
                loss = ls.CrossEntropyLoss(task=task, pos_weight=value)
                torch.testing.assert_close(loss(logits, target), theirs)
                each = ls.CrossEntropyLoss(task=task, pos_weight=value, reduction="none")(logits, target)
                torch.testing.assert_close(each.mean(), theirs)
    smooth = ls.CrossEntropyLoss(task="multilabel", pos_weight=3.0, label_smoothing=0.2)
    soft = ls.CrossEntropyLoss(task="multilabel", pos_weight=3.0)
    yes = labels_of(2, 4, 3, 5, 6, ignore=False)
    logits = logits_of(4, 3, 5, 6)
    torch.testing.assert_close(smooth(logits, yes), soft(logits, yes * 0.8 + 0.1))
    assert math.isfinite(soft(logits, yes))


# ---- labels that a pipeline made floating point ---------------------------------------------------------------------


@pytest.mark.parametrize("axis", [False, True], ids=["(N, *S)", "(N, 1, *S)"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wrap", [lambda x: x, MetaTensor], ids=["Tensor", "MetaTensor"])
def test_whole_floats_are_labels(engine, axis, dtype, wrap):
    """With several classes a target of this shape can be nothing else; ignored pixels stay ignored."""
    logits, labels = logits_of(2, 4, 5, 6).float().requires_grad_(), labels_of(4, 2, 5, 6)
    loss = ls.parse("dice + ce + boundary + lovasz", ignore_index=255)
    given = wrap(labels.to(dtype).unsqueeze(1) if axis else labels.to(dtype))
    value, expected = loss(wrap(logits), given), loss(logits, labels)
    assert type(value) is Tensor
    assert torch.equal(value, expected)
    rest = ls.parse("dice + ce", task="multilabel", ignore_index=255)  # one against the rest
    assert torch.equal(rest(logits, given), rest(logits, labels))


def test_floats_that_are_not_whole_are_no_labels():
    logits, labels = logits_of(2, 4, 5).float(), labels_of(4, 2, 5, ignore=False).float()
    for value in (0.5, float("nan"), float("inf")):
        labels[0, 1] = value
        with pytest.raises(TypeError, match=f"whole numbers, got {value:g}, which is no label"):
            ls.CrossEntropyLoss()(logits, labels)


def test_floats_that_are_not_whole_make_the_loss_nan_where_looking_would_cost():
    """Under a transform, as on an accelerator, no value is looked at."""
    logits, labels = logits_of(3, 4, 5), labels_of(4, 3, 5, ignore=False).double()
    labels[1, 2], labels[2, 2] = 0.5, float("nan")
    for ignored in (-100, 5, 6):  # 5 or 6 is what would stand for no label otherwise
        for task in ("multiclass", "multilabel"):  # where a label 4 is none of the channels
            loss = ls.parse("dice + ce", ignore_index=ignored, task=task)
            values = torch.func.vmap(lambda z, y, loss=loss: loss(z[None], y[None]))(logits, labels)
            assert values.isnan().tolist() == [False, True, True]


def test_whole_floats_of_many_classes_are_labels_and_minus_100_is_ignored():
    logits, labels = logits_of(2, 300, 7).float(), labels_of(300, 2, 7, ignore=False)
    labels[0, :2], labels[0, 2:4], labels[1, 0] = -100, 299, 200
    loss = ls.CrossEntropyLoss()
    assert loss(logits, labels.double()) == loss(logits, labels)
    looked = torch.func.vmap(lambda z, y: loss(z[None], y[None]))
    assert torch.equal(looked(logits, labels.double()), looked(logits, labels))
