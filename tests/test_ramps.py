"""Ramps in training: their place is a tensor that is compiled, saved, averaged, moved and loaded like any other."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import lossmith as ls
from lossmith.schedule import Ramp, number
from problems import logits_of

Z = logits_of(2, 3, 4, 5).float()
Y = torch.arange(40).reshape(2, 4, 5) % 3
DICE, CE = ls.DiceLoss(), ls.CrossEntropyLoss()


def rebalance(start=0.0, step=0.25, stop=1.0) -> ls.Loss:
    a = ls.ramp(start, step, stop)
    return (1 - a) * ls.DiceLoss() + a * ls.CrossEntropyLoss()


def expected(place: float) -> torch.Tensor:
    return (1 - place) * DICE(Z, Y) + place * CE(Z, Y)


class Model(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.head, self.loss = nn.Conv2d(1, 3, 1), loss


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_one_compilation_lasts_for_all_epochs():
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    loss = rebalance(0.01, 0.03, 0.5)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for epoch in range(25):
        torch.testing.assert_close(compiled(Z, Y), expected(min(0.01 + 0.03 * epoch, 0.5)), rtol=1e-6, atol=0)
        loss.step()
    assert len(compilations) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ramp_weighs_as_the_number_it_stands_at(dtype):
    """To the last digit, also where 1 - a is small; and the value keeps its type."""
    z = Z.to(dtype)
    loss = rebalance(0.0, 0.01, 1.0)
    for epoch in range(99):
        at = 0.01 * epoch
        assert torch.equal(loss(z, Y), ((1 - at) * DICE + at * CE)(z, Y))
        loss.step()


def test_a_step_between_forward_and_backward_changes_neither():
    a, z = ls.ramp(0.25, 0.25, 1.0), Z.clone().requires_grad_()
    loss = a * ls.CrossEntropyLoss()
    value = loss(z, Y)
    loss.step()
    (gradient,) = torch.autograd.grad(value, z)
    (whole,) = torch.autograd.grad(CE(z, Y), z)
    torch.testing.assert_close(gradient, 0.25 * whole)


@pytest.mark.parametrize("state", [torch.no_grad, torch.inference_mode])
def test_a_loss_made_and_stepped_in_any_mode_trains(state):
    with state():
        loss = rebalance()
        loss.step()
    loss.step()
    z = Z.clone().requires_grad_()
    value = loss(z, Y)
    value.backward()
    torch.testing.assert_close(value.detach(), expected(0.5))
    assert z.grad.any()


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_ramp_is_made_on_the_cpu_in_float32(device):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device(device):
            a = ls.ramp(0.0, 0.25, 1.0)
    finally:
        torch.set_default_dtype(before)
    assert (a.ramp.epoch.device.type, a.ramp.epoch.dtype, a.value) == ("cpu", torch.float32, 0.0)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
def test_the_place_survives_casts(change):
    model = Model(rebalance(0.0, 0.0001, 1.0))
    for _ in range(2049):  # which half precision cannot hold
        model.loss.step()
    getattr(model, change)()
    assert model.loss.ramp.epoch.dtype == torch.float32
    assert model.loss.ramp.value == pytest.approx(0.2049)
    model.loss.step()
    assert model.loss.ramp.value == pytest.approx(0.205)


def test_the_place_survives_to_empty_and_begins_anew_after_meta():
    model = Model(rebalance())
    model.loss.step()
    model.to_empty(device="cpu")
    assert model.loss.ramp.value == 0.25
    model.to("meta")
    assert model.loss.ramp.epoch.device.type == "meta"
    model.loss.step()
    assert model.loss(Z.to("meta"), Y.to("meta")).device.type == "meta"
    with torch.inference_mode():
        model.to_empty(device="cpu")
    assert model.loss.ramp.value == 0.0
    model.loss.step()
    assert model.loss.ramp.value == 0.25


def test_the_state_is_one_tensor_for_each_ramp():
    a, b = ls.ramp(0.0, 0.1, 1.0), ls.ramp(1.0, -0.1, 0.0)
    loss = a * ls.DiceLoss() + b * ls.CrossEntropyLoss() + (1 - a) * ls.FocalLoss()
    loss.step()
    assert {name: (x.dtype, tuple(x.shape), x.item()) for name, x in loss.state_dict().items()} == {
        "ramp.epoch": (torch.float32, (), 1.0),
        "ramp_2.epoch": (torch.float32, (), 1.0),
    }


def test_safetensors_saves_it(tmp_path):
    model, fresh = Model(rebalance()), Model(rebalance())
    model.loss.step()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert fresh.loss.ramp.value == 0.25


def test_a_checkpoint_in_half_precision_does_not_stop_a_ramp():
    model = Model(rebalance(0.0, 0.001, 1.0))
    state = {name: x.bfloat16() for name, x in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    for _ in range(300):  # where bfloat16 stays at 256
        model.loss.step()
    assert model.loss.ramp.value == pytest.approx(0.3)


def test_an_average_over_the_state_is_taken():
    model = Model(rebalance())
    average = copy.deepcopy(model)
    for _ in range(2):
        model.loss.step()
    for mean, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        mean.mul_(0.5).add_(now, alpha=0.5)
    assert average.loss.ramp.value == 0.25
    torch.testing.assert_close(average.loss(Z, Y), expected(0.25))


def test_a_checkpoint_from_before_the_ramp_loads_and_says_so():
    model = Model(rebalance())
    model.loss.step()
    with pytest.warns(UserWarning, match=r"no 'loss\.ramp\.epoch'.*begins at its start") as notes:
        model.load_state_dict(Model(ls.DiceLoss()).state_dict())
    assert len(notes) == 1
    assert model.loss.ramp.value == 0.0
    model.loss.step()
    assert model.loss.ramp.value == 0.25


@pytest.mark.parametrize("loss", [ls.DiceLoss, ls.DiceCELoss, lambda: ls.DiceLoss() + ls.CrossEntropyLoss()])
def test_a_checkpoint_with_a_ramp_loads_where_there_is_none_and_says_so(loss):
    trained, model = Model(rebalance()), Model(loss())
    with pytest.warns(UserWarning, match=r"'loss\.ramp\.epoch'.*has no such ramp") as notes:
        model.load_state_dict(trained.state_dict())
    assert len(notes) == 1
    assert torch.equal(model.head.weight, trained.head.weight)


def test_another_stray_key_is_still_refused():
    state = Model(rebalance()).state_dict()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        Model(rebalance()).load_state_dict(state | {"loss.rump.epoch": torch.zeros(())})


def test_a_checkpoint_that_fits_loads_without_a_word():
    supervised = ls.DeepSupervision(rebalance())
    supervised.step()
    fresh = ls.DeepSupervision(rebalance())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh.load_state_dict(supervised.state_dict())
    assert fresh.loss.ramp.value == 0.25


def test_what_a_ramp_is_made_of():
    a = ls.ramp(np.float32(0.5), torch.tensor(0.25), np.array(2))
    assert repr(a) == "ramp(start=0.5, step=0.25, stop=2.0)"
    assert repr(ls.ramp(1, 0, 1)) == "ramp(start=1.0, step=0.0, stop=1.0)"
    for start, step, stop in ((0, -0.1, 1), (1, 0.1, 0), (0, 0, 1), (torch.tensor(0), -1, np.array(1))):
        with pytest.raises(ValueError, match=f"start={float(start):g}, step={step:g}, stop={float(stop):g}.*never"):
            ls.ramp(start, step, stop)
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=f"finite numbers, got {wrong}"):
            ls.ramp(0, wrong, 1)
    for wrong in ("1", None, 1j, [1]):
        with pytest.raises(TypeError, match="a ramp is made of numbers"):
            Ramp(0, wrong, 1)


def test_arithmetic_of_a_schedule_is_that_of_numbers():
    for start, step, stop in ((0.25, 0.5, 2.0), (2.0, -0.5, 0.25), (1.5, 0.0, 1.5)):
        for written in (
            *(lambda a: a, lambda a: -a, lambda a: a + 3, lambda a: 3 + a, lambda a: a - 3, lambda a: 3 - a),
            *(lambda a: 5 * a, lambda a: a * 5, lambda a: 2 * (7 - a) + 1, lambda a: -(2 * a + 3), lambda a: a + 1 + 2),
            *(lambda a: (a - 1) - 2, lambda a: 1 - (2 - a)),
        ):
            schedule = written(ls.ramp(start, step, stop))
            assert schedule.ends() == (written(start), written(stop))
            for epoch in range(6):
                at = start + step * epoch
                at = min(at, stop) if step >= 0 else max(at, stop)
                assert schedule.ramp.value == at
                assert schedule.value == written(at)
                assert schedule.beside(Z.double()).item() == written(at)
                schedule.ramp.step()
    for wrong in (lambda a: a + "1", lambda a: a - "1", lambda a: "1" - a, lambda a: a * "1", lambda a: a + None):
        with pytest.raises(TypeError, match=r"unsupported operand|can only concatenate|can't multiply"):
            wrong(ls.ramp(0, 1, 2))

    class Other:
        def __radd__(self, schedule):
            return "asked"

        __rsub__ = __rmul__ = __radd__

    a = ls.ramp(0, 1, 2)
    assert a + Other() == a - Other() == a * Other() == "asked"


def test_integers_past_all_floats_are_infinite():
    assert number(10**400) == math.inf
    assert number(-(10**400)) == -math.inf
