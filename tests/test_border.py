"""The border weight of U-Net: the map of gaps between objects, and the cross-entropy that it weighs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import lossmith as ls
from lossmith.distance import _colours, gap_map, gaps
from problems import IGNORED, labels_of, logits_of

Z = logits_of(2, 3, 7, 9)


def objects_in(shape, count, rng):
    objects = np.zeros(shape, np.int64)
    for number in range(1, count + 1):
        corner = [rng.integers(0, size) for size in shape]
        objects[tuple(slice(at, at + rng.integers(1, 3)) for at in corner)] = number
    return objects


def by_hand(objects, valid, spacing):
    """The distance to every pixel of every object."""
    places = np.indices(objects.shape).reshape(objects.ndim, -1).T * np.array(spacing)
    near = []
    for number in np.unique(objects[valid & (objects > 0)]):
        own = places[((objects == number) & valid).ravel()]
        near.append(np.sqrt(((places[:, None] - own[None]) ** 2).sum(-1)).min(1))
    total = np.sort(np.stack(near), 0)[:2].sum(0) if len(near) > 1 else np.full(len(places), np.inf)
    return np.where(valid.ravel(), total, np.inf).reshape(objects.shape)


@pytest.mark.parametrize("seed", range(40))
def test_gaps_are_the_two_smallest_distances(seed):
    """Among all objects, though only a few distance transforms are made."""
    rng = np.random.default_rng(seed)
    shape = [(30,), (12, 12), (7, 19), (5, 6, 7)][seed % 4]
    objects = objects_in(shape, rng.integers(1, 14), rng)
    valid = rng.random(shape) > 0.1 * (seed % 3 == 0)
    spacing = rng.choice([1.0, 0.5, 2.5], len(shape)).tolist() if seed % 2 else None
    marked = np.where(valid, objects, -1)
    found = gap_map(marked, spacing, ignore_index=-1, batched=False)
    np.testing.assert_allclose(found, by_hand(objects, valid, spacing or [1.0] * len(shape)), rtol=1e-6)


def test_objects_that_touch_are_told_apart_by_their_numbers():
    instances = torch.tensor([[[1, 1, 2, 2, 0, 0]]])
    assert gap_map(instances).tolist() == [[[2.0, 1.0, 1.0, 2.0, 4.0, 6.0]]]
    one = torch.ones_like(instances, dtype=torch.bool)
    assert gaps((instances > 0).long(), one).isinf().all()  # a single component
    assert gaps(instances, one).tolist() == gap_map(instances).tolist()  # two classes are two objects


def test_it_is_the_formula_of_the_paper(engine):
    """E = Σ (w_c + w0 exp(−(d1 + d2)² / 2σ²)) u, whatever map is given."""
    labels, gap = labels_of(3, 2, 7, 9, ignore=False), 10 * torch.rand(2, 7, 9, dtype=torch.float64)
    u = torch.nn.functional.cross_entropy(Z, labels, reduction="none")
    w = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    border = 4.0 * torch.exp(-(gap**2) / (2 * 3.0**2))
    loss = ls.BorderCrossEntropyLoss(w0=4.0, sigma=3.0, class_weight=w, reduction="sum")
    torch.testing.assert_close(loss(Z, labels, gap=gap), ((w[labels] + border) * u).sum())
    mean = ls.BorderCrossEntropyLoss(w0=4.0, sigma=3.0, class_weight=w)
    torch.testing.assert_close(
        mean(Z, labels, gap=gap.unsqueeze(1)), ((w[labels] + border) * u).sum() / w[labels].sum()
    )
    assert ls.BorderCrossEntropyLoss(w0=0.0)(Z, labels) == pytest.approx(float(ls.CrossEntropyLoss()(Z, labels)))


def test_made_inside_it_is_the_map_of_the_components(engine):
    target = torch.zeros(1, 5, 5, dtype=torch.long)
    target[0, 1, 1], target[0, 3, 3], target[0, 3, 4] = 1, 1, 1
    instances = torch.zeros_like(target)
    instances[0, 1, 1], instances[0, 3, 3], instances[0, 3, 4] = 5, 9, 9
    logits, loss = logits_of(1, 1, 5, 5), ls.BorderCrossEntropyLoss(sigma=2.0, spacing=(1.0, 0.5))
    given = loss(logits, target, gap=gap_map(instances, spacing=(1.0, 0.5)).double())
    torch.testing.assert_close(loss(logits, target), given, rtol=1e-6, atol=0)


def test_objects_of_channels_are_their_own():
    masks = torch.zeros(1, 2, 9, dtype=torch.long)
    masks[0, 0, [0, 2]] = 1
    masks[0, 1, 4] = 1
    loss = ls.BorderCrossEntropyLoss(task="multilabel", reduction="none")
    border = loss(torch.zeros(1, 2, 9), masks) / math.log(2)
    assert (border[0, 0] > 1).all()
    assert (border[0, 1] == 1).all()  # one object: no gap


def test_a_batch_is_its_samples_and_an_array_a_tensor():
    rng = np.random.default_rng(0)
    for shape in [(9,), (5, 6), (4, 5, 3)]:
        objects = np.stack([objects_in(shape, 4, rng) for _ in range(2)])
        found = gap_map(torch.from_numpy(objects))
        assert torch.equal(gap_map(objects), found)
        assert torch.equal(torch.stack([gap_map(one, batched=False) for one in objects]), found)


def test_where_every_pixel_is_an_object():
    assert gap_map(torch.tensor([[1, 1, 2, 2]])).tolist() == [[2.0, 1.0, 1.0, 2.0]]


def test_an_ignored_number_is_no_object():
    found = gap_map(torch.tensor([[1, 9, 0, 2]]), ignore_index=9)
    assert found.tolist() == gap_map(torch.tensor([[1, -1, 0, 2]]), ignore_index=-1).tolist()


@pytest.mark.parametrize("labels", [[[0, 0, 0]], [[0, 1, 0]], [[1, 0, 1]], [[]]])
def test_digits_on_request(labels):
    labels = torch.tensor(labels, dtype=torch.long)
    for double, dtype in ((False, torch.float32), (True, torch.float64)):
        assert gaps(labels, torch.ones_like(labels, dtype=torch.bool), double=double).dtype == dtype


def test_colours_are_told_apart_up_to_two_pixels_away():
    assert _colours(np.array([1, 3, 2]), 4).tolist() == [0, 0, 1, 2]
    assert _colours(np.array([2, 3, 1]), 4).tolist() == [0, 0, 1, 2]
    assert _colours(np.array([1, 3, 3, 2]), 4).tolist() == [0, 0, 0, 1]
    assert _colours(np.array([2, 3, 3, 1]), 4).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: gap_map(torch.zeros(1, 4)), TypeError, ["objects must be integers", "float32"]),
        (lambda: gap_map(torch.tensor([[1, -3]])), ValueError, ["numbered from 1", "-3"]),
        (lambda: gap_map(torch.zeros(4, dtype=torch.long)), ValueError, ["(N, *S)", "batched=False"]),
        (lambda: gap_map(torch.zeros(1, 2, 2, 2, 2, dtype=torch.long)), ValueError, ["(N, *S)", "one to three axes"]),
        (
            lambda: gap_map(torch.zeros(2, 2, 2, 2, dtype=torch.long), batched=False),
            ValueError,
            ["one sample (*S)", "one to three axes"],
        ),
        (lambda: gap_map(torch.zeros(1, 4, dtype=torch.long), spacing=(1, 1)), ValueError, ["1 positive number"]),
        (
            lambda: ls.BorderCrossEntropyLoss()(Z, labels_of(3, 2, 7, 9), gap=torch.zeros(2, 3, 3)),
            ValueError,
            ["gap must be (2, 7, 9)", "gap_map(objects)"],
        ),
        (
            lambda: ls.BorderCrossEntropyLoss()(Z, labels_of(3, 2, 7, 9, ignore=False), gap=torch.zeros(2, 3, 7, 9)),
            ValueError,
            ["gap must be (2, 7, 9)", "gap_map(objects)"],
        ),
    ],
)
def test_errors(call, kind, words):
    with pytest.raises(kind) as error:
        call()
    assert all(word in str(error.value) for word in words), error.value


def test_a_hook_that_is_overridden_is_used():
    """Nothing else has to be said."""

    class Nothing(ls.CrossEntropyLoss, part="nothing"):
        def scale(self, batch, class_weight):
            return torch.zeros_like(batch.events[0].u)

    assert Nothing()(Z, labels_of(3, 2, 7, 9, ignore=False)) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_it_compiles_in_one_piece():
    labels = labels_of(3, 2, 7, 9)
    loss = ls.BorderCrossEntropyLoss(ignore_index=IGNORED)
    with ls.use_engine("plain"):
        expected = loss(Z, labels)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(Z, labels), expected)
