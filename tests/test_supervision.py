"""Deep supervision: heads by hand against the wrapper, and targets that reach each resolution untouched."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import pytest
import torch
from torch.nn import functional as F

import lossmith as ls
from lossmith.losses.dense import Dense
from lossmith.supervision import DeepSupervision, sampled

SPACES = [((12,), (6,), (5,)), ((8, 12), (4, 6), (3, 2)), ((8, 4, 6), (4, 4, 3), (2, 1, 1))]
LOSS = ls.DiceLoss(ignore_index=255) + 0.5 * ls.FocalLoss(ignore_index=255)


def heads_of(space, channels=3, **kwargs):
    return [torch.randn(2, channels, *s, **kwargs) for s in space]


def at_centres(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Element by element, in fractions: the pixel that holds the centre of the new pixel."""
    lead = x.ndim - len(size)
    out = x.new_zeros(*x.shape[:lead], *size)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, len(size)).tolist():
        old = tuple(
            math.floor((i + Fraction(1, 2)) * m / n) for i, n, m in zip(place, size, x.shape[lead:], strict=True)
        )
        out[(..., *place)] = x[(..., *old)]
    return out


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("form", ["labels", "channel axis", "uint8", "soft"])
def test_the_loss_is_the_mean_of_its_heads(space, form):
    outputs = heads_of(space)
    target = torch.randint(0, 3, (2, *space[0]))
    loss = LOSS
    if form == "labels":
        target[:, 0] = 255
    if form == "channel axis":
        target = target[:, None]
    if form == "uint8":
        target = target.to(torch.uint8)
    if form == "soft":
        target = torch.randn(2, 3, *space[0]).softmax(1)
        loss = ls.DiceLoss(task="multiclass") + ls.FocalLoss(task="multiclass")
    expected = sum(
        weight * loss(z, at_centres(target, z.shape[2:]))
        for weight, z in zip((4 / 7, 2 / 7, 1 / 7), outputs, strict=True)
    )
    torch.testing.assert_close(DeepSupervision(loss)(outputs, target), expected)
    torch.testing.assert_close(DeepSupervision(loss, weights=[8, 4, 2])(tuple(outputs), target), expected)


@pytest.mark.parametrize("given", [(3, 0, 1), [6.0, 0.0, 2.0], torch.tensor([0.75, 0, 0.25])])
def test_weights_are_ratios_and_a_head_of_weight_0_is_not_computed(given):
    outputs = heads_of(SPACES[1], requires_grad=True)
    target = torch.randint(0, 3, (2, 8, 12))
    broken = [outputs[0], torch.full((2, 5, 4, 6), math.nan, requires_grad=True), outputs[2]]
    value = DeepSupervision(LOSS, given)(broken, target)
    expected = 0.75 * LOSS(outputs[0], target) + 0.25 * LOSS(outputs[2], at_centres(target, (3, 2)))
    torch.testing.assert_close(value, expected)
    value.backward()
    assert broken[1].grad is None
    assert outputs[0].grad.any()
    assert outputs[2].grad.any()
    assert set(DeepSupervision(LOSS, given).parts(broken, target)) == {
        "head0.dice",
        "head0.focal",
        "head2.dice",
        "head2.focal",
    }


def test_one_head_is_the_loss_itself():
    (z, *_), target = heads_of(SPACES[1]), torch.randint(0, 3, (2, 8, 12))
    torch.testing.assert_close(DeepSupervision(LOSS)([z], target), LOSS(z, target))


@pytest.mark.parametrize("old", range(1, 14))
def test_sampling_is_exact_and_torchs_nearest_exact(old):
    x = torch.arange(2 * old).reshape(2, old)
    for new in range(1, 17):
        found = sampled(x, torch.Size([new]))
        assert torch.equal(found, at_centres(x, (new,)))
        if old % new == 0 or new % old == 0:  # elsewhere torch's float arithmetic may fall off an exact centre
            assert torch.equal(found, F.interpolate(x[:, None].double(), (new,), mode="nearest-exact")[:, 0].long())


@pytest.mark.parametrize(
    "kind", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64, torch.bool], ids=str
)
def test_labels_of_any_type_stay_what_they_are(kind):
    x = torch.randint(0, 2, (2, 6, 8)).to(kind)
    before = x.clone()
    assert sampled(x, torch.Size([3, 4])).dtype == kind
    assert torch.equal(sampled(x, torch.Size([3, 4])), x[:, 1::2, 1::2])
    assert torch.equal(x, before)
    assert sampled(x, torch.Size([6, 8])) is x


def test_large_labels_make_no_round_trip_through_float():
    x = torch.tensor([[2**53 + 1, 2**62 + 3]])
    assert sampled(x, torch.Size([1])).tolist() == [[2**62 + 3]]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_weights_per_pixel_go_with_the_target_and_per_sample_stay(space):
    outputs, target = heads_of(space), torch.randint(0, 3, (2, *space[0]))
    supervised, shares = DeepSupervision(LOSS), (4 / 7, 2 / 7, 1 / 7)
    for weight in (torch.rand(2, *space[0]), torch.rand(2, 1, *space[0]), torch.rand(2, *space[0]) > 0.5):
        expected = sum(
            share * LOSS(z, at_centres(target, z.shape[2:]), weight=at_centres(weight, z.shape[2:]))
            for share, z in zip(shares, outputs, strict=True)
        )
        torch.testing.assert_close(supervised(outputs, target, weight=weight), expected)
    weight = torch.tensor([1.0, 3.0])
    expected = sum(
        share * LOSS(z, at_centres(target, z.shape[2:]), weight=weight)
        for share, z in zip(shares, outputs, strict=True)
    )
    torch.testing.assert_close(supervised(outputs, target, weight=weight), expected)


@pytest.mark.parametrize("space", [*SPACES, ((3,), (2,), (1,))], ids=str)
def test_what_was_annotated_belongs_to_the_image(space, engine):
    """(N, C) looks like a map with one axis, above all where C is its length."""
    outputs, target = heads_of(space), torch.randint(0, 2, (2, *space[0]))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = sum(
        share * LOSS(z, at_centres(target, z.shape[2:]), label_mask=mask)
        for share, z in zip((4 / 7, 2 / 7, 1 / 7), outputs, strict=True)
    )
    torch.testing.assert_close(DeepSupervision(LOSS)(outputs, target, label_mask=mask), expected)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_target_for_each_head(space, kind):
    """As nnU-Net's loader gives them; here they differ from what sampling would give."""
    outputs, shares = heads_of(space), (4 / 7, 2 / 7, 1 / 7)
    targets = [torch.randint(0, 3, (2, *size)) for size in space]
    supervised = DeepSupervision(LOSS)

    def by_hand(weights):
        each = zip(shares, outputs, targets, weights, strict=True)
        return sum(share * LOSS(z, y, weight=weight) for share, z, y, weight in each)

    torch.testing.assert_close(supervised(outputs, kind(targets)), by_hand([None] * 3))
    whole = torch.rand(2, *space[0])
    sampled = [at_centres(whole, size) for size in space]
    torch.testing.assert_close(supervised(outputs, kind(targets), weight=whole), by_hand(sampled))
    own = [torch.rand(2, *size) for size in space]
    torch.testing.assert_close(supervised(outputs, kind(targets), weight=kind(own)), by_hand(own))
    samples = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(supervised(outputs, kind(targets), weight=samples), by_hand([samples] * 3))
    mask = [torch.tensor([[True, k > 0, True], [True, True, True]]) for k in range(3)]
    expected = sum(
        share * LOSS(z, y, label_mask=m) for share, z, y, m in zip(shares, outputs, targets, mask, strict=True)
    )
    torch.testing.assert_close(supervised(outputs, kind(targets), label_mask=kind(mask)), expected)


def test_the_target_of_a_head_of_weight_0_is_not_looked_at():
    outputs = heads_of(SPACES[1])
    target = torch.randint(0, 3, (2, 8, 12))
    value = DeepSupervision(LOSS, (1, 0, 0))(outputs, [target, None, "?"])
    torch.testing.assert_close(value, LOSS(outputs[0], target))
    assert list(DeepSupervision(LOSS, (1, 0, 0)).parts(outputs, [target, None, None])) == ["head0.dice", "head0.focal"]


class SeenCalls(Dense):
    """A loss that takes a map and keeps what it was called with."""

    takes = frozenset({"weight", "distance", "mode"})

    def __init__(self, **given):
        super().__init__(**given)
        self.calls = []

    def forward(self, *inputs, **call):
        self.calls.append((inputs, call))
        return inputs[0].mean()


def test_maps_go_with_the_target_and_other_keywords_as_they_are():
    loss = SeenCalls()
    outputs, target = heads_of(SPACES[1]), torch.randint(0, 3, (2, 8, 12))
    maps = ls.distance.signed_distance_map(target, 3)
    DeepSupervision(loss)(outputs, target, distance=maps, mode="x")
    for z, ((logits, labels), call) in zip(outputs, loss.calls, strict=True):
        assert logits is z
        assert torch.equal(labels, at_centres(target, z.shape[2:]))
        assert torch.equal(call["distance"], at_centres(maps, z.shape[2:]))
        assert call["mode"] == "x"
        inside = F.one_hot(labels, 3).movedim(-1, 1) > 0
        assert torch.equal(call["distance"] < 0, inside)  # map and labels are read at the same pixels


def test_a_loss_without_a_target():
    loss = SeenCalls()
    DeepSupervision(loss)(heads_of(SPACES[1]))
    assert [len(inputs) for inputs, _ in loss.calls] == [1, 1, 1]


def test_parts_add_up():
    outputs, target = heads_of(SPACES[1], requires_grad=True), torch.randint(0, 3, (2, 8, 12))
    supervised = DeepSupervision(LOSS)
    parts = supervised.parts(outputs, target, weight=torch.rand(2, 8, 12).round() + 1)
    assert list(parts) == [f"head{h}.{name}" for h in range(3) for name in ("dice", "focal")]
    assert not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(sum(supervised.parts(outputs, target).values()), supervised(outputs, target).detach())
    assert supervised.parts(outputs, target, per_class=True)["head1.dice"].shape == (3,)


def test_nothing_valid_is_0_with_a_graph():
    outputs = heads_of(SPACES[1], requires_grad=True)
    value = DeepSupervision(LOSS)(outputs, torch.full((2, 8, 12), 255))
    value.backward()
    assert value.item() == 0
    assert not any(z.grad.any() for z in outputs)


def test_labels_that_vanish_on_the_way_down_are_no_error():
    target = torch.full((2, 8, 12), 255)
    target[:, 0, 0] = 1
    outputs = heads_of(SPACES[1], requires_grad=True)
    value = DeepSupervision(LOSS)(outputs, target)
    torch.testing.assert_close(value, 4 / 7 * LOSS(outputs[0], target))


def test_classification_heads():
    outputs, target = [torch.randn(4, 3), torch.randn(4, 3)], torch.tensor([0, 1, 2, 1])
    weight = torch.rand(4)
    loss = ls.CrossEntropyLoss()
    expected = (2 * loss(outputs[0], target, weight=weight) + loss(outputs[1], target, weight=weight)) / 3
    torch.testing.assert_close(DeepSupervision(loss)(outputs, target, weight=weight), expected)


def test_schedules_step_and_live_in_the_state():
    a = ls.ramp(0.0, 0.5, 1.0)
    supervised = DeepSupervision((1 - a) * ls.DiceLoss() + a * ls.FocalLoss())
    start = copy.deepcopy(supervised)
    supervised.step()
    assert a.value == 0.5
    start.load_state_dict(supervised.state_dict())
    outputs, target = heads_of(SPACES[1]), torch.randint(0, 3, (2, 8, 12))
    assert start(outputs, target) == supervised(outputs, target)


def test_settings_follow_the_module():
    supervised = DeepSupervision(ls.CrossEntropyLoss(class_weight=[1, 2, 3])).half()
    assert supervised.loss.class_weight.dtype == torch.float64
    value = supervised(heads_of(SPACES[1], dtype=torch.float64), torch.randint(0, 3, (2, 8, 12)))
    assert value.dtype == torch.float64


def test_repr_is_python():
    for weights in ("", ", weights=[1.0, 0.0, 0.5]"):
        text = f"DeepSupervision(DiceLoss(smooth=0.5) + 2.0 * FocalLoss(){weights})"
        assert repr(eval(text, vars(ls))) == text


Z = [torch.zeros(2, 3, 8, 12), torch.zeros(2, 3, 4, 6)]
Y = torch.zeros(2, 8, 12, dtype=torch.long)
DEEP = DeepSupervision(ls.DiceLoss())


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: DeepSupervision(torch.nn.L1Loss()), TypeError, ["must be a loss of this library", "L1Loss"]),
        (lambda: DeepSupervision(ls.DiceLoss(reduction="none")), ValueError, ["DiceLoss", "reduction='none'"]),
        (lambda: DeepSupervision(ls.DiceLoss(), [1, -1]), ValueError, ["numbers >= 0", "[1, -1]"]),
        (lambda: DeepSupervision(ls.DiceLoss(), [0, 0]), ValueError, ["not all 0", "[0, 0]"]),
        (lambda: DeepSupervision(ls.DiceLoss(), []), ValueError, ["one per head", "[]"]),
        (lambda: DeepSupervision(ls.DiceLoss(), [1, math.nan]), ValueError, ["numbers >= 0"]),
        (lambda: DeepSupervision(ls.DiceLoss(), [1e308, 1e308]), ValueError, ["finite sum", "[1e+308, 1e+308]"]),
        (lambda: DeepSupervision(ls.DiceLoss(), [1, math.inf]), ValueError, ["numbers >= 0", "inf"]),
        (lambda: DeepSupervision(ls.DiceLoss(), 0.5), TypeError, ["list of numbers", "0.5"]),
        (lambda: DeepSupervision(ls.DiceLoss(), "12"), TypeError, ["list of numbers", "'12'"]),
        (lambda: DeepSupervision(ls.DiceLoss(), [1, None]), TypeError, ["list of numbers", "[1, None]"]),
        (
            lambda: DEEP(torch.stack([Z[0], Z[0]], 1), Y),
            TypeError,
            ["one tensor (2, 2, 3, 8, 12)", "outputs.unbind(1)"],
        ),
        (lambda: DEEP("ab", Y), TypeError, ["a list of logits (N, C, *S)"]),
        (lambda: DEEP([Z[0], None], Y), TypeError, ["a list of logits (N, C, *S)"]),
        (lambda: DEEP([], Y), ValueError, ["there are no outputs"]),
        (lambda: DEEP([Z[0], Z[1][0]], Y), ValueError, ["same number of axes", "(3, 4, 6)"]),
        (lambda: DEEP(Z[::-1], Y), ValueError, ["finest first", "(2, 3, 8, 12) after (2, 3, 4, 6)"]),
        (lambda: DeepSupervision(ls.DiceLoss(), [1, 1, 1])(Z, Y), ValueError, ["3 weights", "as many outputs, got 2"]),
        (
            lambda: DEEP(Z, Y, weight=torch.ones(2, 4, 6)),
            ValueError,
            ["weight (2, 4, 6)", "target (2, 8, 12)", "last 2"],
        ),
        (lambda: DeepSupervision(ls.FocalLoss())(Z, Y, denominator=3.0), TypeError, ["no denominator"]),
        (lambda: DEEP(Z, Y, mask=torch.ones(2)), TypeError, ["takes no 'mask'", "weight"]),
        (lambda: DEEP(Z, Y[0]), ValueError, ["DiceLoss", "need labels (2, 8, 12)"]),
        (lambda: DEEP(Z, torch.zeros(16, 24).long()), ValueError, ["need labels (2, 8, 12)", "got a target (16, 24)"]),
        (lambda: DEEP(Z, Y + 0.5), TypeError, ["DiceLoss", "0.5", "no label"]),
        (lambda: DEEP(Z), TypeError, ["DiceLoss", "the target must be a tensor"]),
        (lambda: DEEP(Z, [1, 1]), TypeError, ["DiceLoss", "the target must be a tensor, got int"]),
        (lambda: DEEP(Z, [Y]), ValueError, ["2 outputs need as many targets, got 1"]),
        (lambda: DEEP(Z, []), ValueError, ["2 outputs need as many targets, got 0"]),
        (lambda: DEEP(Z, [Y, Y]), ValueError, ["DiceLoss", "need labels (2, 4, 6)", "(2, 8, 12)"]),
        (
            lambda: DEEP(Z, [Y, Y[:, ::2, ::2]], weight=[torch.ones(2, 8, 12)]),
            ValueError,
            ["2 outputs need as many of weight, got 1"],
        ),
        (
            lambda: DEEP(Z, [Y, Y[:, ::2, ::2]], weight=torch.ones(2, 4, 6)),
            ValueError,
            ["weight (2, 4, 6)", "target (2, 8, 12)", "last 2"],
        ),
        (lambda: DEEP(Z, Y, weight=[torch.ones(2, 8, 12)] * 2), TypeError, ["weight must be a real tensor", "list"]),
    ],
)
def test_errors(call, kind, words):
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_compiles_without_a_break():
    outputs, target = heads_of(SPACES[1], requires_grad=True), torch.randint(0, 3, (2, 8, 12))
    supervised = DeepSupervision(LOSS, weights=(1, 0, 1))
    torch._dynamo.reset()
    compiled = torch.compile(supervised, fullgraph=True, backend="aot_eager")
    value, expected = compiled(outputs, target), supervised(outputs, target)
    torch.testing.assert_close(value, expected)
    used = (outputs[0], outputs[2])
    torch.testing.assert_close(torch.autograd.grad(value, used), torch.autograd.grad(expected, used))
