"""`ls.accumulate`: micro-batches make the loss and the gradients of the batch, whatever the loss and the network."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lossmith as ls
from problems import labels_of, logits_of, with_rows
from splits import cuts, drawn, near, parts_of, ranks_over_the_batch

IMAGES, LABELS = logits_of(6, 1, 8, 8, seed=5), labels_of(3, 6, 8, 8)
LOSS = "dice(per_image=false, ignore_index=255) + ce(ignore_index=255)"
CUTS = [(0, 1), (1, 4), (4, 6)]
BATCHES = [(IMAGES[a:b], LABELS[a:b]) for a, b in CUTS]


def network(*between: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *between, nn.Tanh(), nn.Conv2d(4, 3, 1)).double()


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(near(a, b) for a, b in zip(found, expected, strict=True))


@with_rows()
def test_micro_batches_are_the_batch(row):
    """Of every loss, whose logits are all that is trained; those that rank pixels over the batch say so."""
    draw, tried = random.Random(zlib.crc32(row.name.encode())), 0
    while tried < 6:
        whole = drawn(row, draw)
        loss, logits = whole.loss(), whole.inputs[0]
        parts = parts_of(whole, cuts(draw, len(logits), 3))
        trained = [part.inputs[0].clone().requires_grad_() for part in parts]
        batches = list(zip(trained, parts, strict=True))

        def forward(pair: Any) -> tuple[Any, ...]:
            return pair[0], pair[1].inputs[1], pair[1].keywords

        tried += 1
        if loss.reduction == "none" or ranks_over_the_batch(loss):
            with pytest.raises(ValueError, match="has to see all pixels of the batch at once"):
                ls.accumulate(loss, forward, batches)
            continue
        value, gradient = whole.made()
        assert near(ls.accumulate(loss, forward, batches), value), whole
        assert near(torch.cat([z.grad for z in trained]), gradient), whole


@pytest.mark.parametrize(
    "layers", [[], [nn.Dropout(0.4)], [nn.Dropout2d(0.4), nn.Dropout(0.2)]], ids=["plain", "dropout", "twice"]
)
def test_dropout_drops_the_same(layers):
    model, loss = network(*layers), ls.parse(LOSS)
    torch.manual_seed(3)
    whole = loss(torch.cat([model(images) for images, _ in BATCHES]), LABELS)
    whole.backward()
    expected, after = gradients(model), torch.rand(())
    model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    value = ls.accumulate(loss, lambda pair: (model(pair[0]), pair[1]), BATCHES, model=model)
    assert near(value, whole.detach())
    assert not value.requires_grad
    assert same(gradients(model), expected)
    assert torch.equal(torch.rand(()), after)  # the random numbers go on as if there had been one pass


def test_gradients_are_added_to_what_is_there():
    model = network()
    for times in (1, 2):
        ls.accumulate(ls.parse(LOSS), lambda pair: (model(pair[0]), pair[1]), BATCHES)
        found = [x.clone() for x in gradients(model)]
        if times == 1:
            once = found
    assert same(found, [2 * x for x in once])


def test_running_statistics_move_once():
    model, other = network(nn.BatchNorm2d(4)), network(nn.BatchNorm2d(4))
    ls.accumulate(ls.parse(LOSS), lambda pair: (model(pair[0]), pair[1]), BATCHES, model=model)
    for images, _ in BATCHES:
        other(images)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_scaled_gradients():
    model = network()
    ls.accumulate(ls.parse(LOSS), lambda pair: (model(pair[0]), pair[1]), BATCHES)
    expected = [8 * x for x in gradients(model)]
    model.zero_grad(set_to_none=True)
    calls: list[float] = []

    def backward(x: Tensor) -> None:
        calls.append(float(x.detach()))
        (8 * x).backward()

    ls.accumulate(ls.parse(LOSS), lambda pair: (model(pair[0]), pair[1]), BATCHES, backward=backward)
    assert len(calls) == len(BATCHES)
    assert same(gradients(model), expected)


def test_a_wrapped_network_synchronises_once():
    """As DistributedDataParallel does, which keeps its gradients to itself in a block of `no_sync`."""
    seen: list[str] = []

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, images: Tensor) -> Tensor:
            seen.append("forward" if torch.is_grad_enabled() else "look")
            return self.net(images)

        @contextmanager
        def no_sync(self) -> Iterator[None]:
            seen.append("apart")
            yield
            seen.append("done")

    model = Wrapped()
    ls.accumulate(ls.parse(LOSS), lambda pair: (model(pair[0]), pair[1]), BATCHES, model=model)
    assert seen == ["look"] * 3 + ["apart", "forward", "done"] * 2 + ["forward"]


def test_several_heads_and_ramps():
    loss = ls.DeepSupervision(ls.parse("gdl(per_image=false) + ramp(start=0.1, step=0.1, stop=1)*boundary"))
    loss.step()
    z, y = logits_of(4, 2, 8, 8).requires_grad_(), labels_of(2, 4, 8, 8, ignore=False)
    whole = loss([z, z[..., ::2, ::2]], y)
    whole.backward()
    expected, z.grad = z.grad, None

    def forward(part: slice) -> tuple[Any, ...]:
        return [z[part], z[part][..., ::2, ::2]], y[part]

    assert near(ls.accumulate(loss, forward, [slice(0, 3), slice(3, 4)]), whole.detach())
    assert near(z.grad, expected)


def test_keywords_of_a_call():
    z, weight = (
        logits_of(6, 3, 8, 8).requires_grad_(),
        torch.tensor([1, 0, 2, 0.5, 1, 3.0]).double(),
    )
    whole = ls.parse(LOSS)(z, LABELS, weight=weight)
    whole.backward()
    expected, z.grad = z.grad, None

    def forward(part: slice) -> tuple[Any, ...]:
        return z[part], LABELS[part], {"weight": weight[part]}

    assert near(ls.accumulate(ls.parse(LOSS), forward, [slice(0, 2), slice(2, 6)]), whole.detach())
    assert near(z.grad, expected)


def test_inputs_by_name():
    boxes, target = torch.rand(6, 4).cumsum(1).double().requires_grad_(), torch.rand(6, 4).cumsum(1).double()
    scores, quality = logits_of(6, 3).requires_grad_(), torch.rand(6, 3).double()
    loss = ls.parse("qfl + 2*giou")
    whole = loss(score=(scores, quality), box=(boxes, target))
    whole.backward()
    expected = [scores.grad, boxes.grad]
    scores.grad = boxes.grad = None

    def forward(part: slice) -> dict[str, Any]:
        return {"score": (scores[part], quality[part]), "box": (boxes[part], target[part])}

    assert near(ls.accumulate(loss, forward, [slice(0, 0), slice(0, 2), slice(2, 6)]), whole.detach())
    assert same([scores.grad, boxes.grad], expected)


def test_only_logits():
    z = logits_of(4, 3, 5).requires_grad_()
    whole = ls.EntropyLoss()(z)
    whole.backward()
    expected, z.grad = z.grad, None
    assert near(ls.accumulate(ls.EntropyLoss(), lambda part: z[part], [slice(0, 1), slice(1, 4)]), whole.detach())
    assert near(z.grad, expected)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="there are no micro-batches of DiceLoss"):
        ls.accumulate(ls.DiceLoss(), lambda x: x, [])
    with pytest.raises(ValueError, match="micro-batches are of images"):
        ls.accumulate(ls.DiceLoss(group="world", split="space"), lambda x: x, BATCHES)


def test_nothing_of_the_first_pass_is_kept():
    """Every micro-batch's activations are gone before the next one's are made."""
    alive: list[int] = []
    now = [0]

    class Counts(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            now[0] += int(torch.is_grad_enabled() or x.requires_grad)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> Tensor:
            alive.append(now[0])
            now[0] -= 1
            return upstream

    z = logits_of(6, 3, 8, 8).requires_grad_()

    def forward(pair: Any) -> tuple[Tensor, Tensor]:
        part, labels = pair
        return Counts.apply(part * 1.0) if torch.is_grad_enabled() else part, labels

    batches = [(z[a:b], LABELS[a:b]) for a, b in CUTS]
    ls.accumulate(ls.parse(LOSS), forward, batches)
    assert alive == [1, 1, 1]
