"""Class weights against the papers' examples, and counting from everything that holds labels."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import lossmith as ls
from lossmith.weighting import (
    ClassCounts,
    count_classes,
    effective_number,
    enet,
    inverse_frequency,
    median_frequency,
)

COUNTS = [900, 90, 10]
TABLE = [[80, 20, 0], [70, 30, 0], [60, 30, 10]]
EXAMPLES = [
    (inverse_frequency(COUNTS), [1.11111111111, 11.1111111111, 100]),
    (inverse_frequency(COUNTS, normalise=True), [0.029702970297, 0.29702970297, 2.67326732673]),
    (inverse_frequency([*COUNTS, 0], normalise=True), [4 * w / 1010 for w in (10, 100, 900, 0)]),
    (inverse_frequency(COUNTS, power=0.5), [1.05409255339, 3.33333333333, 10]),
    (inverse_frequency(COUNTS, power=0.0), [1, 1, 1]),
    (enet(COUNTS), [1.53297775619, 9.58221400115, 33.8308701357]),
    (enet(COUNTS, c=1.5), [1 / math.log(2.4), 1 / math.log(1.59), 1 / math.log(1.51)]),
    (median_frequency(TABLE), [0.380952380952, 1, 2.66666666667]),
    (median_frequency([[80, 20], [100, 0]]), [0.55 / 0.9, 0.55 / 0.2]),  # the median of two is their mean
    (effective_number([1000, 100, 10]), [0.0421603980443, 0.280000144617, 2.67783945734]),
    (effective_number([1000, 100, 10, 0]), [4 / 3 * w for w in (0.0421603980443, 0.280000144617, 2.67783945734, 0)]),
    (effective_number([1000, 100, 10], beta=0.0), [1, 1, 1]),
    # E = n to 1e-8 at this β: a form that subtracts from 1 would be wrong in the eighth digit
    (effective_number([10, 30], beta=1 - 1e-9), [1.5, 0.5]),
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(example):
    weight, expected = example
    assert weight.dtype == torch.float64
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=0)


def test_effective_number_keeps_its_digits():
    small, large = effective_number([10, 1000], beta=1 - 1e-12).tolist()
    exact = [(1 - 1e-12 * (n - 1) / 2) * n for n in (10, 1000)]  # E to second order
    assert small / large == pytest.approx(exact[1] / exact[0], rel=1e-12)


FUNCTIONS = {
    "inverse": inverse_frequency,
    "normalised": lambda counts: inverse_frequency(counts, normalise=True),
    "median": median_frequency,
    "effective": effective_number,
    "enet": enet,
}
tables = st.lists(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), min_size=1, max_size=5).filter(
    lambda table: any(map(any, table))
)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(table=tables)
def test_properties(name, table):
    weights_of, counts = FUNCTIONS[name], torch.tensor(table)
    weight = weights_of(counts)
    present = counts.sum(0) > 0
    assert weight.isfinite().all()
    assert ((weight > 0) == present).all()
    # a class that never occurs changes nothing but the sum, where that is C; an image without a pixel changes nothing
    scaled = name in ("normalised", "effective")
    more = weights_of(torch.nn.functional.pad(counts, (1, 0)))[1:]
    torch.testing.assert_close(more, weight * (5 / 4 if scaled else 1))
    torch.testing.assert_close(weights_of(torch.nn.functional.pad(counts, (0, 0, 0, 1))), weight)
    # the order of the classes is theirs alone
    torch.testing.assert_close(weights_of(counts.flip(1)), weight.flip(0))
    if scaled:
        assert weight.sum().item() == pytest.approx(4)
    if name != "median":
        torch.testing.assert_close(weights_of(counts.sum(0)), weight)
        ranked = weight[present][counts.sum(0)[present].argsort()]
        assert (ranked.diff() <= 1e-12).all()  # rarer never weighs less


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_form_of_counts_and_every_loss_takes_them(name):
    labels = torch.tensor([[0, 0, 1, 255], [2, 0, 0, 0]])
    counted = count_classes(labels, 4, ignore_index=255)
    table = torch.tensor([[2, 1, 0, 0], [3, 0, 1, 0]])
    weight = FUNCTIONS[name](counted)
    for same in (table, table.numpy(), table.tolist(), table.to(torch.uint8), table.float()):
        torch.testing.assert_close(FUNCTIONS[name](same), weight)
    for loss in (ls.CrossEntropyLoss(class_weight=weight), ls.DiceLoss(class_weight=weight)):
        assert loss(torch.randn(2, 4, 4), labels.clamp(max=3)).isfinite()
        assert torch.equal(loss.class_weight, weight)
    assert ls.FocalLoss(alpha=weight).alpha.tolist() == weight.tolist()


class Pairs(Dataset):
    """As users write them: no iterator, and no IndexError at the end."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        assert index < len(self), "read past the end"
        return torch.zeros(3, 4), self.labels[index], "name"


class Stream(IterableDataset):
    def __init__(self, labels):
        self.labels = labels

    def __iter__(self):
        return iter(self.labels)


LABELS = torch.tensor([[[0, 0, 1, 9], [0, 0, 1, 1]], [[2, 0, 9, 9], [9, 9, 9, 9]], [[9] * 4] * 2, [[0] * 4] * 2])
SOURCES = {  # each made anew: an iterator can be read once, and the mutants run these tests again
    "tensor": lambda: LABELS,
    "array": lambda: LABELS.numpy(),
    "list of tensors": lambda: list(LABELS),
    "generator of arrays": lambda: (x.numpy().astype(np.uint8) for x in LABELS),
    "with a channel axis": lambda: [x[None] for x in LABELS],
    "pairs": lambda: [(torch.zeros(3, 2, 4), x) for x in LABELS],
    "dataset": lambda: Pairs(LABELS),
    "tensor dataset": lambda: TensorDataset(torch.zeros(4, 1), LABELS),
    "iterable dataset": lambda: Stream(LABELS),
    "loader": lambda: DataLoader(TensorDataset(torch.zeros(4, 1), LABELS), batch_size=3, shuffle=True),
    "loader of labels": lambda: DataLoader(list(LABELS), batch_size=2),
    "loader with a sampler": lambda: DataLoader(Pairs(LABELS), batch_sampler=[[0, 1, 2], [3]]),
    "loader without batches": lambda: DataLoader(Pairs(LABELS), batch_size=None),
}


@pytest.mark.parametrize("source", SOURCES)
def test_counting(source):
    counts = count_classes(SOURCES[source](), 4, ignore_index=9)
    assert counts.pixels.tolist() == [13, 3, 1, 0]
    assert counts.images == 4
    assert counts.pixels_where_present.tolist() == [17, 7, 2, 0]


def test_nothing_to_count():
    """A generator that somebody has read already is the usual reason."""
    spent = iter(LABELS)
    count_classes(spent, 4, ignore_index=9)
    for data in (spent, [], LABELS[:0]):
        with pytest.raises(ValueError, match=r"count_classes: data holds no image; .* can be read only once"):
            count_classes(data, 4, ignore_index=9)


def test_labels_of_whole_images():
    """Classification: an image is one pixel."""
    for labels in (torch.tensor([0, 2, 2, -100]), np.array([0, 2, 2, -100])):
        counts = count_classes(labels, 3)
        assert (counts.pixels.tolist(), counts.images) == ([1, 0, 2], 4)
    batches = DataLoader(TensorDataset(torch.zeros(4), torch.tensor([0, 2, 2, -100])), batch_size=3)
    assert count_classes(batches, 3).pixels.tolist() == [1, 0, 2]


def test_binary_masks_and_narrow_types():
    assert count_classes([np.array([True, False, True])], 2).pixels.tolist() == [1, 2]
    with pytest.raises(ValueError, match="holds 156"):  # which is -100 as an int8
        count_classes([np.array([156], np.uint8)], 2)
    assert count_classes([np.array([-100, 1], np.int8)], 2).pixels.tolist() == [0, 1]


def test_one_item_at_a_time():
    """Nothing of an item is left when the one after the next is asked for."""
    seen: list[weakref.ref[np.ndarray]] = []

    def stream() -> Iterator[np.ndarray]:
        for _ in range(50):
            assert all(item() is None for item in seen[:-1])
            item = np.zeros(10, np.uint8)
            seen.append(weakref.ref(item))
            yield item

    assert count_classes(stream(), 2).pixels.tolist() == [500, 0]


def test_an_interrupt_passes():
    def stream() -> Iterator[torch.Tensor]:
        yield torch.zeros(3, dtype=torch.long)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_classes(stream(), 2)


IMAGE = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (
            lambda: count_classes([IMAGE, IMAGE.index_fill(1, torch.tensor(2), 255)], 4),
            ValueError,
            [
                "image 1 holds 255 at (0, 2)",
                "num_classes=4",
                "0 to 3",
                "ignore_index is -100",
                "is 255 an ignore_index?",
            ],
        ),
        (
            lambda: count_classes(DataLoader([IMAGE, IMAGE, IMAGE - 1], batch_size=2), 4),
            ValueError,
            ["image 2 holds -1 at (0, 0)"],
        ),
        (lambda: count_classes([IMAGE], 1), ValueError, ["num_classes must be at least 2", "got 1"]),
        (lambda: count_classes([IMAGE, IMAGE.float()], 2), TypeError, ["item 1", "integer labels", "float32"]),
        (lambda: count_classes([{"label": IMAGE}], 2), TypeError, ["item 0", "got a dict", "sample['label']"]),
        (lambda: count_classes([(IMAGE, "file.png")], 2), TypeError, ["got a str", "(image, target)"]),
        (lambda: count_classes(DataLoader([IMAGE.float()]), 2), TypeError, ["batch 0", "float32"]),
        (
            lambda: median_frequency([900, 90, 10]),
            TypeError,
            ["3 totals per class", "count_classes(...)", "(images, C)"],
        ),
        (lambda: inverse_frequency([0, 0]), ValueError, ["inverse_frequency: no class has a pixel"]),
        (lambda: median_frequency([[0, 0]]), ValueError, ["median_frequency: no class has a pixel"]),
        (lambda: enet([]), ValueError, ["enet: counts must be (C,) or a table", "(0,)"]),
        (lambda: enet([[[1]]]), ValueError, ["(1, 1, 1)"]),
        (lambda: enet([1, -1]), ValueError, ["finite and >= 0", "-1"]),
        (lambda: enet([1, math.nan]), ValueError, ["finite and >= 0"]),
        (lambda: enet(["a"]), TypeError, ["numbers per class", "['a']"]),
        (lambda: enet([1], c=0.9), ValueError, ["c must be", ">= 1", "0.9"]),
        (lambda: effective_number([1], beta=1.0), ValueError, ["beta must lie in [0, 1), got 1.0"]),
        (lambda: effective_number([1], beta=-0.1), ValueError, ["beta must lie in [0, 1)"]),
        (lambda: inverse_frequency([1], power=-1), ValueError, ["power", ">= 0", "-1"]),
        (lambda: inverse_frequency([1], power=math.nan), ValueError, ["power"]),
    ],
)
def test_errors(call, kind, words):
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value)


def test_public_names():
    assert ls.weighting.count_classes([IMAGE], 2).images == 1
    assert isinstance(ls.weighting.count_classes([IMAGE], 2), ClassCounts)
