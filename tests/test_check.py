"""`ls.check`: a loss that breaks a promise goes red at that promise, with the smallest input; ours keep all of them."""

from __future__ import annotations

import functools
import json
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossmith as ls
from lossmith.check.properties import PROPERTIES
from lossmith.check.smallest import literal
from lossmith.cli import main
from problems import ROWS, logits_of, make
from test_docs import script

NAMES = [known.name for known in PROPERTIES]
FAST = [known.name for known in PROPERTIES if not known.slow]


# ---- ours ------------------------------------------------------------------------------------------------------------

UNSUPERVISED = ("all_ignored", "ignored_inert", "ignoring_is_deleting", "relabelling")
NOT_OURS: dict[str, tuple[str, ...]] = {  # as in test_catalogue.py, with the reasons
    "nonadjacency": UNSUPERVISED,
    "ohem": ("weight_2_is_repeating",),
    "topk": ("weight_2_is_repeating",),
    "wce": ("gradcheck", "double_backward"),
    "border_ce": ("relabelling",),
    "unified_focal": ("relabelling",),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.one_in(2)
def test_ours_hold(row):
    task = "multiclass" if "multiclass" in row.cls.tasks else "multilabel"
    with ls.use_engine("plain"):
        report = ls.check(make(row, logits_of(2, 3, 6, 5), task=task), task=task, only=FAST)
    assert tuple(result.name for result in report.failed) == NOT_OURS.get(row.name, ()), str(report)
    assert not [result for result in report.results if result.verdict == "not asked"]


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_sums_hold(task):
    loss = ls.parse("dice + 0.5*focal", task=task)
    with ls.use_engine("plain"):
        report = ls.check(loss, task=task, only=FAST, size=(4,))
    assert report.holds, str(report)
    not_asked = [result.name for result in report.results if result.verdict == "not asked"]
    assert not_asked == (["relabelling"] if task == "binary" else [])


def test_one_label_a_sample():
    with ls.use_engine("plain"):
        assert ls.check(ls.CrossEntropyLoss(), size=(), only=FAST).holds


# ---- broken on purpose: cross-entropy, but for one thing -------------------------------------------------------------


class Right(nn.Module):
    """Keeps everything."""

    ignore_index = 255

    def pixels(self, z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y, ignore_index=255, reduction="none")

    def forward(self, z: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        valid = y != 255
        z = torch.where(valid.unsqueeze(1), z, 0.0)
        z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        w = valid.to(z.dtype)
        if weight is not None:
            w = w * weight.to(z.dtype).view(-1, *[1] * (y.ndim - 1))
        return (w * self.pixels(z, y)).sum() / w.sum().clamp(min=1e-30)


class Random(Right):
    def forward(self, z, y, weight=None):
        return super().forward(z, y, weight) * (1 + 0.1 * random.Random().random())


class InPlace(Right):
    def forward(self, z, y, weight=None):
        value = super().forward(z, y.clone(), weight)
        y.clamp_(max=0)
        return value


class Strided(Right):
    def forward(self, z, y, weight=None):
        return super().forward(z, y, weight) if z.is_contiguous() else 2 * super().forward(z, y, weight)


class Unpicklable(Right):
    def __init__(self):
        super().__init__()
        self.act = lambda x: x


class Narrow(Right):
    def forward(self, z, y, weight=None):
        value = super().forward(z, y, weight)
        return value if z.dtype in (torch.float32, torch.float64) else value + (z.sum() * 0 + 65504) * 2 - 131008


class Overflows(Right):
    def pixels(self, z, y):
        return torch.log(z.exp().sum(1)) - z.gather(1, y.clamp(max=z.shape[1] - 1).unsqueeze(1)).squeeze(1)


class Empty(Right):
    def forward(self, z, y, weight=None):
        value = super().forward(z, y, weight)
        return value + 0 * (value / (y > 0).sum()) if y.numel() and bool((y != 255).any()) else value


class NoSamples(Right):
    def forward(self, z, y, weight=None):
        return super().forward(z, y, weight) if len(z) else z.sum() / 0.0


class Blind(Right):
    def forward(self, z, y, weight=None):
        return super().forward(z.nan_to_num(), y, weight)


class AllIgnored(Right):
    def forward(self, z, y, weight=None):
        value = super().forward(z, y, weight)
        return value / (y != 255).any() if y.numel() else value


class Leaks(Right):
    def forward(self, z, y, weight=None):
        hidden = ((y == 255) & (y != 255).any()).unsqueeze(1)
        return super().forward(z, y, weight) + (torch.where(hidden, z, 0.0).square().sum() if z.numel() else 0.0)


class Counts(Right):
    def forward(self, z, y, weight=None):
        share = (y != 255).double().mean() if y.numel() else 1.0
        return super().forward(z, y, weight) * share


class NoBackground(Right):
    def forward(self, z, y, weight=None):
        return super().forward(z, torch.where(y == 0, 255, y), weight)


class WeightTwice(Right):
    def forward(self, z, y, weight=None):
        return super().forward(z, y, None if weight is None else weight.square())


class WrongGradient(Right):
    def pixels(self, z, y):
        found = super().pixels(z, y)
        return found.detach() + 2 * (found - found.detach())


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(z):
        return z.square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, up):
        return 2 * ctx.saved_tensors[0].detach() * up

    @staticmethod
    def vmap(info, in_dims, z):
        return OnceOnly.apply(z), in_dims[0]


class FirstOrder(Right):
    def pixels(self, z, y):
        return OnceOnly.apply(super().pixels(z, y).detach() * 0 + z[:, 0]) + super().pixels(z, y) * 0


class Looks(Right):
    def forward(self, z, y, weight=None):
        return super().forward(z, y, weight) * (1.0 if float(z.detach().nansum()) > -1e9 else 2.0)


BROKEN: list[tuple[type[Right], str, int]] = [  # the property, and how many logits are enough to show it
    (Random, "repeatable", 2),
    (InPlace, "inputs_unchanged", 2),
    (Strided, "non_contiguous", 2),
    (Unpicklable, "pickling", 2),
    (Narrow, "half_precision", 2),
    (Overflows, "large_logits", 2),
    (Empty, "empty", 2),
    (NoSamples, "no_samples", 0),
    (Blind, "nan_visible", 2),
    (AllIgnored, "all_ignored", 2),
    (Leaks, "ignored_inert", 4),
    (Counts, "ignoring_is_deleting", 4),
    (NoBackground, "relabelling", 2),
    (WeightTwice, "weight_2_is_repeating", 4),
    (WrongGradient, "gradcheck", 2),
    (FirstOrder, "double_backward", 2),
    (Looks, "vmap", 2),
]


def test_every_property_has_a_loss_that_breaks_it():
    assert [name for _, name, _ in BROKEN] == FAST


def test_the_loss_that_they_break_holds():
    assert ls.check(Right(), weight="weight", only=FAST).holds


@pytest.mark.parametrize(("cls", "name", "enough"), BROKEN, ids=[name for _, name, _ in BROKEN])
def test_a_broken_loss_is_seen_on_the_smallest_input(cls, name, enough):
    loss = cls()
    result = ls.check(loss, weight="weight", only=[name])[name]
    assert result.verdict == "fails"
    assert result.seen
    *given, code = result.example.splitlines()
    space = {"torch": torch, "loss": loss, "pickle": __import__("pickle")}
    for line in given:
        exec(line, space)
    assert space["z"].numel() <= enough
    if result.seen.startswith("raises"):
        with pytest.raises(Exception):  # noqa: B017, PT011  whatever it is, it is what was seen
            exec(code, space)
    else:
        exec(code, space)


def test_what_compiles():
    class Breaks(Right):
        def forward(self, z, y, weight=None):
            torch._dynamo.graph_break()
            return super().forward(z, y, weight)

    assert ls.check(Right(), only=["compiles"]).holds
    assert ls.check(Breaks(), only=["compiles"])["compiles"].verdict == "fails"
    assert ls.check(Right(), only=None, size=(2,))["compiles"].seen == "it takes seconds: slow=True"


# ---- forms of target, what cannot be asked ---------------------------------------------------------------------------


def channel(z: Tensor, y: Tensor) -> Tensor:
    assert y.ndim == z.ndim
    return F.cross_entropy(z, y.squeeze(1))


def one_hot(z: Tensor, r: Tensor) -> Tensor:
    assert r.is_floating_point()
    assert r.shape == z.shape
    return F.cross_entropy(z, r)


@pytest.mark.parametrize(
    ("loss", "task", "form"),
    [
        (F.cross_entropy, "multiclass", "labels"),
        (channel, "multiclass", "channel"),
        (one_hot, "multiclass", "one-hot"),
        (F.binary_cross_entropy_with_logits, "binary", "real"),
        (F.binary_cross_entropy_with_logits, "multilabel", "real"),
        (ls.DiceLoss(task="multilabel"), "multilabel", "map"),
    ],
)
def test_the_form_of_the_target_is_found(loss, task, form):
    assert ls.check(loss, task=task, only=["repeatable"]).target == form


def test_what_cannot_be_asked_is_no_fault():
    report = ls.check(one_hot, only=["all_ignored", "weight_2_is_repeating", "pickling", "repeatable"])
    assert report.holds
    assert [result.name for result in report.results if result.verdict == "not asked"] == [
        *("pickling", "all_ignored", "weight_2_is_repeating")
    ]
    assert all(result.seen for result in report.results if result.verdict == "not asked")


def test_a_function_is_told_what_is_ignored():
    def loss(z, y, **given):
        assert given == {"ignore_index": 7}
        return F.cross_entropy(z, y, **given)

    report = ls.check(loss, ignore_index=7, only=["ignoring_is_deleting", "all_ignored"])
    assert report["ignoring_is_deleting"].verdict == "holds"
    assert report["all_ignored"].example.endswith("loss(z, y, ignore_index=7)")


def test_a_report_is_text_a_table_and_a_dict():
    report = ls.check(F.cross_entropy, only=["all_ignored", "repeatable", "pickling"])
    assert not report.holds
    assert json.loads(json.dumps(report.to_dict()))["properties"][2]["verdict"] == "fails"
    assert "1 hold, 1 fail, 1 not asked" in str(report)
    assert "<td>fails</td><td>all_ignored</td>" in report._repr_html_()


@pytest.mark.parametrize(
    "x",
    [
        *(torch.zeros(0, 2, dtype=torch.int64), torch.full((3, 4), 0.1, dtype=torch.float64), torch.tensor([True])),
        *(
            torch.arange(6.0).view(2, 3) / 7,
            torch.arange(-2, 2).view(2, 2).half() / 3,
            torch.tensor([[torch.nan, -torch.inf]]).bfloat16(),
        ),
    ],
    ids=str,
)
def test_tensors_are_written_exactly(x):
    again = eval(literal(x), {"torch": torch})
    torch.testing.assert_close(again, x, rtol=0, atol=0, equal_nan=True)


# ---- hostile callables -----------------------------------------------------------------------------------------------


def needs_more(z, y, other):
    return z.sum()


def raises(z, y):
    raise ZeroDivisionError("first\nsecond")


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (3, {}, r"called as loss\(logits, target\), and int cannot be called"),
        (nn.CrossEntropyLoss, {}, r"CrossEntropyLoss is a class; build it: check\(CrossEntropyLoss\(\.\.\.\)\)"),
        (
            raises,
            {},
            r"raises cannot be called with logits \(2, 3, 6, 5\) .* \(ZeroDivisionError: first\)",
        ),
        (needs_more, {}, "needs_more cannot be called .*missing 1 required positional argument: 'other'"),
        (lambda z, y: 1.0, {}, "returns float, not a tensor"),
        (functools.partial(F.cross_entropy, reduction="none"), {}, r"returns values \(2, 6, 5\).*build it with a mean"),
        (lambda z, y: z.detach().sum(), {}, "gives a value that has no gradient"),
        (Right(), {"task": "binar"}, "task must be one of multiclass, binary, multilabel, got 'binar'"),
        (Right(), {"target": "map"}, "the target of a multiclass task is one of labels, channel, one-hot, got 'map'"),
        (Right(), {"only": ["vmop"]}, "no property is called 'vmop'; did you mean 'vmap'"),
        (Right(), {"ignore_index": 7}, "was built with ignore_index=255; build it with 7"),
    ],
)
def test_one_clear_line(loss, options, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        ls.check(loss, **options)
    assert "\n" not in str(error.value)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_builds_somebody_elses_loss(capsys):
    words = "check torch.nn:CrossEntropyLoss label_smoothing=0.1 ignore_index=7 --only all_ignored --json"
    assert main(words.split()) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == "CrossEntropyLoss()"
    assert "7" in found["properties"][0]["example"]


def test_the_command_reads_ours(capsys):
    assert main(["check", "dice + ce", "ignore_index=255", "--only", "all_ignored", "--only", "empty"]) == 0
    assert "2 hold, 0 fail" in capsys.readouterr().out


def test_the_command_calls_functions_with_settings(capsys):
    words = "check torch.nn.functional:cross_entropy reduction=sum --only repeatable --size none"
    assert main(words.split()) == 0
    assert "cross_entropy(reduction='sum')" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere:Loss", "nowhere:Loss: cannot be imported (ModuleNotFoundError"),
        ("torch.nn:Nothing", "cannot be imported (AttributeError"),
        ("torch.nn:CrossEntropyLoss gamma=2", "torch.nn:CrossEntropyLoss: cannot be built (TypeError"),
        ("torch.nn:CrossEntropyLoss 3", "3: settings of the loss are name=value"),
        ("dise", "dise: no loss is called 'dise'"),
        ("ce --size 3,x", "ce: invalid literal"),
    ],
)
def test_the_command_in_one_line(words, message, capsys):
    assert main(["check", *words.split()]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_of_peers_is_current():
    """Some rows of it; `python docs/peers.py` writes all, and names every loss."""
    with script("peers") as peers, ls.use_engine("plain"):
        page = peers.PAGE.read_text(encoding="utf-8")
        assert "not installed" not in page
        assert "| ? |" not in page
        assert all(f"`{rival.theirs}`" in page for rival in peers.rivals.known() if rival.task in peers.TASKS)
        rows = peers.ours([row for row in ls.catalogue() if row.name in ("ce", "dice", "wce")])
        rows += peers.theirs([rival for rival in peers.rivals.known() if rival.library == "torch"][:2])
        rows += peers.theirs([rival for rival in peers.rivals.known() if rival.library == "MONAI"][:2])
        for line in [*peers.table(rows), *peers.faults(rows)]:
            assert line in page.splitlines()
