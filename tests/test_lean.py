"""A call is lean: few operations, each of which is a kernel launch on an accelerator, and nothing worked out twice."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lossmith as ls
from problems import labels_of, logits_of

VIEWS = {"view", "expand", "unsqueeze", "squeeze", "select", "slice", "detach", "transpose", "alias", "unbind", "t"}
NUMBERS = {"scalar_tensor", "_local_scalar_dense", "lift_fresh"}  # a number that is wrapped, or looked at


class Operations(TorchDispatchMode):
    """Those that compute something."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in VIEWS | NUMBERS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("text", "most"), [("ce", 25), ("dice", 50), ("dice + ce", 60), ("dice_ce", 60)])
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (128, 10)])
def test_operations_of_the_plain_engine(text, most, shape):
    """Forward and backward. MONAI's DiceCELoss takes 52, torch's cross-entropy 6."""
    logits = logits_of(*shape).float().requires_grad_()
    labels = labels_of(shape[1], shape[0], *shape[2:], ignore=False)
    loss = ls.parse(text)
    with ls.use_engine("plain"), Operations() as done:
        loss(logits, labels).backward()
    assert len(done.names) <= most, done.names


@pytest.mark.parametrize(("text", "most"), [("ce", 30), ("dice + ce", 60), ("dice + ce + focal + tversky", 110)])
def test_launches_of_the_triton_engine(text, most, monkeypatch):
    """What is done inside its operators counts, and so do their kernels."""
    from lossmith.engine.triton import operators

    class Inside(Operations):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            inside = {"pass_sums": operators._sums, "pass_gradient": operators._gradient}
            name = func.overloadpacket.__name__
            if name not in inside:
                return super().__torch_dispatch__(func, types, args, kwargs)
            with self:
                return inside[name](*args, **(kwargs or {}))

    kernels = []
    monkeypatch.setattr(operators, "launch", lambda kernel, *given, **told: kernels.append(kernel))
    logits = logits_of(2, 3, 8, 8).float().requires_grad_()
    with ls.use_engine("triton"), Inside() as done:
        ls.parse(text)(logits, labels_of(3, 2, 8, 8, ignore=False)).backward()
    launched = [name for name in done.names if not name.startswith(("empty", "new_empty", "_version"))]
    assert len(kernels) == 2
    assert len(launched) + len(kernels) <= most, launched


def test_a_setting_that_is_assigned_holds_from_the_next_call():
    """What is known before a call is kept from call to call, but no longer than it is true."""
    logits, labels = logits_of(2, 3, 50).float(), labels_of(3, 2, 50, ignore=False)
    loss = ls.parse("ce + 0.5*focal(gamma=2)")
    loss(logits, labels)
    loss.losses[1].gamma = 0.5
    expected = ls.parse("ce + 0.5*focal(gamma=0.5)")(logits, labels)
    torch.testing.assert_close(loss(logits, labels), expected)
    twin = copy.deepcopy(loss)
    twin.losses[1].gamma = 3.0
    torch.testing.assert_close(loss(logits, labels), expected)
    torch.testing.assert_close(twin(logits, labels), ls.parse("ce + 0.5*focal(gamma=3)")(logits, labels))
    loss.losses[0].ignore_index = loss.losses[1].ignore_index = 1
    expected = ls.parse("ce + 0.5*focal(gamma=0.5)", ignore_index=1)(logits, labels)
    torch.testing.assert_close(loss(logits, labels), expected)


def test_labels_and_maps_are_made_once(monkeypatch):
    """Whatever the number of terms that look at them."""
    from lossmith.engine import problem as reading
    from lossmith.inputs import batch

    counts = {"read": 0, "distances": 0}
    for module, name, kind in ((reading, "read", "read"), (batch, "signed_distances", "distances")):
        original = getattr(module, name)

        def counted(*args, original=original, kind=kind, **more):
            counts[kind] += 1
            return original(*args, **more)

        monkeypatch.setattr(module, name, counted)
    logits, labels = logits_of(2, 3, 9, 9), labels_of(3, 2, 9, 9)
    ls.parse("dice + ce + boundary + hausdorff(one_sided=true) + lovasz + boundary_f1", ignore_index=255)(
        logits, labels
    )
    assert counts == {"read": 1, "distances": 1}
