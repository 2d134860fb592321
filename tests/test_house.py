"""Faults that were found by reading the code, each of which was there: none may come back."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import lossmith as ls
from lossmith.engine.contract import Order
from problems import IGNORE, arguments, labels_of, logits_of, shares_of


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do: operation, dtype and shape of its first tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[str, torch.dtype, tuple[int, ...]]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        first = next((x for x in args if isinstance(x, Tensor)), None)
        if first is not None:
            self.seen[func.overloadpacket.__name__, first.dtype, tuple(first.shape)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("lovasz(bins=16) + entropy", labels_of(3, 2, 8, 8, ignore=False)),
        ("lovasz(bins=16) + ohem", torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()),
    ],
)
def test_order_is_answered_by_kernels_whatever_other_terms_want(text, target, answered):
    logits = logits_of(2, 1 if target.is_floating_point() else 3, 8, 8).float()
    ls.parse(text)(logits, target)
    assert ("numba", Order) in answered  # the other term may push the sums to torch, not the order


def test_the_target_is_transformed_once(monkeypatch):
    """The maps of a boundary and of a Hausdorff loss are the same."""
    import edt

    seen = []
    original = edt.edt
    monkeypatch.setattr(edt, "edt", lambda *given, **more: seen.append(given) or original(*given, **more))
    logits, labels = logits_of(2, 3, 8, 8).float(), labels_of(3, 2, 8, 8, ignore=False)
    ls.parse("boundary")(logits, labels)
    once = len(seen)
    assert once > 0
    seen.clear()
    ls.parse("boundary + hausdorff(one_sided=true)")(logits, labels)
    assert len(seen) == once


SILENT = {
    "order, sorted": ("lovasz(exact=true)", labels_of(3, 2, 8, 8)),
    "order, soft labels": ("lovasz(bins=16, task='multiclass')", shares_of(2, 3, 8, 8)),
    "field": ("active_contour", labels_of(3, 2, 8, 8)),
    "field, largest near": ("boundary_f1", labels_of(3, 2, 8, 8)),
    "field of all pixels": ("nonadjacency(forbidden=[[0, 0, 1], [0, 0, 0], [1, 0, 0]])", labels_of(3, 2, 8, 8)),
}


@pytest.mark.parametrize("kind", SILENT)
def test_who_insists_on_kernels_gets_them_or_an_error(kind):
    """Nothing here has kernels today; a family that gets them leaves the list."""
    text, target = SILENT[kind]
    with ls.use_engine("fused"), pytest.raises(RuntimeError, match="cannot serve this call"):
        ls.parse(text, **IGNORE)(logits_of(2, 3, 8, 8).float(), target)


def test_a_refusal_speaks_of_what_was_asked():
    """Entropy has no label smoothing."""
    with ls.use_engine("fused"), pytest.raises(RuntimeError, match="cannot serve this call") as error:
        ls.EntropyLoss()(logits_of(2, 3, 4).float(), labels_of(3, 2, 4, ignore=False))
    assert "smoothing" not in str(error.value)


def test_half_precision_is_not_copied_to_learn_a_dtype():
    """A sum over a map works by the piece: the logits as a whole stay as narrow as they are."""
    logits, labels = logits_of(1, 3, 300, 300).bfloat16(), labels_of(3, 1, 300, 300, ignore=False)
    with ls.use_engine("plain"), Operations() as operations:
        ls.BoundaryLoss()(logits, labels, distance=torch.zeros(1, 3, 300, 300))
    copies = [key for key in operations.seen if key[:2] == ("_to_copy", torch.bfloat16)]
    assert not [shape for _, _, shape in copies if math.prod(shape) == logits.numel()]


def test_the_background_is_chosen_once():
    """What `classes` and `include_background` say must not differ, nor a class be named twice."""
    with pytest.raises(ValueError, match="names the background, class 0, and include_background=False leaves it out"):
        ls.DiceLoss(classes=(0, 1), include_background=False)
    with pytest.raises(ValueError, match="classes"):
        ls.DiceLoss(classes=(1, 1))


def test_values_of_pixels_of_the_unified_focal_loss_are_those_of_its_mean():
    _, pixels = ls.UnifiedFocalLoss().terms[0]
    logits, labels = logits_of(2, 3, 4, 5), labels_of(3, 2, 4, 5, ignore=False)
    each = type(pixels)(reduction="none")(logits, labels)
    torch.testing.assert_close(each.mean(), type(pixels)()(logits, labels))


def test_the_detector_looks_for_its_positives_once():
    """How much a point counts is its highest score: one maximum over the classes."""
    row = next(row for row in ls.catalogue() if row.name == "gfl")
    build, inputs, given = arguments(row, row.family)
    loss = build()
    with Operations() as operations:
        loss(*inputs, **given)
    assert operations.seen["amax", inputs[0].dtype, tuple(inputs[0].shape)] == 1


def test_no_file_of_tests_keeps_what_can_be_read_once():
    """The mutants run other files' tests again in their process: whoever comes second would find nothing."""
    for name, module in [pair for pair in sys.modules.items() if pair[0].startswith("test_")]:
        for key, value in vars(module).items():
            parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            assert not any(isinstance(part, Iterator) for part in parts), f"{name}.{key}"
