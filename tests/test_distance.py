"""Signed distance maps against a brute-force search over all pairs of pixels, with both packages that can make them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import lossmith as ls
from lossmith.distance import signed_distance_map, signed_distances, zero_ring

BACKENDS = ["edt", "scipy"]


@contextmanager
def using(backend: str) -> Iterator[None]:
    """Without `edt` in the second case; in the first, scipy's transform must not be called."""
    if backend == "scipy":
        with mock.patch.dict(sys.modules, {"edt": None}):
            yield
    else:
        with mock.patch("scipy.ndimage.distance_transform_edt", side_effect=AssertionError("scipy was called")):
            yield


def brute_force(mask: np.ndarray, valid: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """One map, (*S), from the definition."""
    points = np.argwhere(np.ones(mask.shape, bool)) * np.array(spacing)
    pairs = np.sqrt(((points[:, None] - points[None]) ** 2).sum(2))
    inside, outside = (mask & valid).ravel(), (~mask & valid).ravel()
    out = np.zeros(mask.size)
    if inside.any() and outside.any():
        out[outside] = pairs[outside][:, inside].min(1)
        out[inside] = -pairs[inside][:, outside].min(1)
    return out.reshape(mask.shape)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, tuple[float, ...]]:
    """Labels (2, *S) of 1 to 4 classes, some of them ignored (-100), and a spacing."""
    space = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    classes = draw(st.integers(1, 4))
    spacing = tuple(draw(st.lists(st.floats(0.1, 10), min_size=len(space), max_size=len(space))))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = rng.integers(0, max(classes, 2), (2, *space))
    labels[rng.random(labels.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = -100
    return labels, classes, spacing


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=60)
@given(problem=problems())
def test_every_map_is_the_brute_force_map(backend, problem):
    labels, classes, spacing = problem
    with using(backend):
        maps = signed_distance_map(torch.from_numpy(labels), classes, spacing)
    assert maps.dtype == torch.float32
    assert maps.shape == (2, classes, *labels.shape[1:])
    for image in range(2):
        for channel in range(classes):
            k = 1 if classes == 1 else channel
            expected = brute_force(labels[image] == k, labels[image] != -100, spacing)
            np.testing.assert_allclose(maps[image, channel].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("kept", [np.s_[2:], np.s_[:-2], np.s_[1:4]])
def test_ignoring_a_margin_is_cropping_it(backend, axis, kept):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 5, 6, 7))
    window = tuple(kept if a == axis else np.s_[:] for a in range(4))
    hidden = np.full_like(labels, 255)
    hidden[window] = labels[window]
    with using(backend):
        whole = signed_distance_map(hidden, 3, (1.0, 0.5, 2.0), ignore_index=255)
        part = signed_distance_map(labels[window], 3, (1.0, 0.5, 2.0), ignore_index=255)
    window = (window[0], slice(None), *window[1:])
    torch.testing.assert_close(whole[window], part)
    assert not whole[torch.from_numpy(np.broadcast_to(hidden[:, None] == 255, whole.shape).copy())].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_under_an_ignored_pixel_does_not_matter(backend):
    mask, valid = torch.rand(2, 3, 6, 7) > 0.5, torch.rand(2, 3, 6, 7) > 0.4
    with using(backend):
        expected = signed_distances(mask, valid)
        assert torch.equal(signed_distances(torch.where(valid, mask, ~mask), valid), expected)
        shared = signed_distances(mask, valid[:, :1])
        assert torch.equal(shared, signed_distances(mask, valid[:, :1].expand_as(mask)))
    assert not torch.equal(shared, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_boundary_no_map(backend):
    """scipy's transform of a mask without a single hole measures to a pixel that does not exist."""
    labels = torch.zeros(3, 3, 3, dtype=torch.long)
    labels[1, 0] = 9
    labels[2] = 9
    with using(backend):
        assert not signed_distance_map(labels, 2, ignore_index=9).any()
        assert signed_distance_map(torch.zeros(0, 3, 3, dtype=torch.long), 2).shape == (0, 2, 3, 3)
        assert signed_distance_map(torch.zeros(1, 0, 3, dtype=torch.long), 2).shape == (1, 2, 0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_block_of_three_by_three(backend):
    block = torch.zeros(1, 5, 5, dtype=torch.long)
    block[:, 1:4, 1:4] = 1
    root = 2**0.5
    outside = [[root, 1, 1, 1, root], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [root, 1, 1, 1, root]]
    inside = [[0] * 5, [0, 1, 1, 1, 0], [0, 1, 2, 1, 0], [0, 1, 1, 1, 0], [0] * 5]
    symmetric = torch.tensor(outside) - torch.tensor(inside)
    with using(backend):
        maps = signed_distance_map(block, 2)
    torch.testing.assert_close(maps[0, 1], symmetric)
    torch.testing.assert_close(maps[0, 0], -symmetric)
    torch.testing.assert_close(signed_distance_map(block, 1)[0, 0], symmetric)
    shifted = zero_ring(maps[0, 1])
    torch.testing.assert_close(shifted, torch.tensor(outside) - (torch.tensor(inside) - 1).clamp(min=0))
    p = torch.where(block[0] > 0, 0.8, 0.1).index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(0.7))
    assert (shifted * p).mean().item() == pytest.approx(0.0725685424949, abs=1e-7)
    assert (symmetric * p).mean().item() == pytest.approx(-0.215431457505, abs=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_ring_has_no_stray_sign(backend):
    """The inner ring lies one spacing inside, up to a rounding that must not lift it above 0."""
    spacing = (0.36, 1.78)  # edt's 0.36 comes out one bit too small here
    with using(backend):
        maps = signed_distance_map(torch.randint(0, 3, (4, 9, 9)), 3, spacing)
    shifted = zero_ring(maps, spacing)
    assert torch.equal(shifted[maps >= 0], maps[maps >= 0])
    torch.testing.assert_close(shifted[maps < 0], (maps[maps < 0] + 0.36), atol=1e-6, rtol=0)
    assert (shifted[maps < 0] <= 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spacing", [(0.1,), (0.37, 5.1), (5.1, 0.37), (1e-6, 1e-6), (1e6, 1e6)])
def test_long_distances_keep_their_digits(backend, spacing):
    """A transform that adds up steps of 0.1 in float32 is wrong in the third digit after a million of them."""
    axes = len(spacing)
    labels = torch.zeros(1, *((1_000_000,) if axes == 1 else (300, 700)), dtype=torch.uint8)
    labels[(0, *[3] * axes)] = 1
    with using(backend):
        distance = signed_distance_map(labels, 1, spacing)[0, 0].double()
    grids = torch.meshgrid(*(torch.arange(s).double() - 3 for s in labels.shape[1:]), indexing="ij")
    expected = sum((g * h) ** 2 for g, h in zip(grids, spacing, strict=True)).sqrt()
    expected[(3,) * axes] = -min(spacing)
    torch.testing.assert_close(distance, expected, rtol=3e-7, atol=0)


def test_the_strides_of_a_mask_do_not_cost_digits():
    """edt walks along the memory of its input: the steps that add up must be those of the axis that it walks along."""
    mask = torch.zeros(1, 1, 700, 300, dtype=torch.bool)
    mask[..., 3, 3] = True
    valid, spacing = torch.ones_like(mask), (0.37, 5.1)
    expected = signed_distances(mask, valid, spacing)
    strided = signed_distances(mask.mT.contiguous().mT, valid.mT.contiguous().mT, spacing)
    torch.testing.assert_close(strided, expected, rtol=3e-7, atol=0)


def test_an_ignored_pixel_is_at_0():
    assert signed_distance_map(torch.tensor([[0, 0, 255, 1]]), 1, ignore_index=255).tolist() == [[[3, 2, 0, -2]]]


def test_digits_on_request():
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    mask[..., 0, 0] = True
    exact, rounded = signed_distances(mask, double=True), signed_distances(mask)
    assert exact[0, 0, 1, 1].item() == math.sqrt(2)
    assert (exact.dtype, rounded.dtype) == (torch.float64, torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_axes_and_strides(backend):
    labels, spacing = np.random.default_rng(0).integers(0, 2, (2, 4, 5, 6)), (0.5, 1.0, 3.0)
    with using(backend):
        expected = signed_distance_map(labels, 2, spacing)
        turned = signed_distance_map(labels.transpose(0, 3, 1, 2), 2, (3.0, 0.5, 1.0))
        torch.testing.assert_close(turned, expected.permute(0, 1, 4, 2, 3))
        torch.testing.assert_close(signed_distance_map(labels[:, ::-1], 2, spacing), expected.flip(2))
        torch.testing.assert_close(signed_distance_map(torch.from_numpy(labels).mT, 2, (0.5, 3.0, 1.0)), expected.mT)
        flat = signed_distance_map(labels[:, :, :1, :1], 2, spacing)[..., 0, 0]
        torch.testing.assert_close(flat, signed_distance_map(labels[:, :, 0, 0], 2, (0.5,)))


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", ">i2", "i4", "u8", "?"])
def test_any_integer_and_nothing_written(kind):
    labels = np.array([[0, 1, 1, 0, 0]]).astype(kind)
    labels.flags.writeable = False
    expected = [[[1.0, -1.0, -1.0, 1.0, 2.0]]]
    assert signed_distance_map(labels, 1).tolist() == expected
    if kind != ">i2":
        tensor = torch.from_numpy(labels.copy())
        assert signed_distance_map(tensor, 1).tolist() == expected
        assert torch.equal(tensor, torch.from_numpy(labels.copy()))


def test_a_narrow_label_is_not_the_ignore_index():
    """156 as int8 is -100."""
    labels = torch.full((1, 4), 156, dtype=torch.uint8)
    with pytest.raises(ValueError, match="hold 156"):
        signed_distance_map(labels, 3)


def test_maps_of_a_dataset_stack_to_the_maps_of_the_batch():
    labels = torch.randint(0, 3, (4, 6, 7))
    samples = [(label, signed_distance_map(label, 3, batched=False)) for label in labels]
    (batch, maps), *_ = DataLoader(samples, batch_size=4)
    assert samples[0][1].shape == (3, 6, 7)
    assert torch.equal(maps, signed_distance_map(batch, 3))


def test_threads_change_nothing():
    mask = torch.rand(1, 1, 12, 30, 30) > 0.01
    expected = signed_distances(mask)
    torch.set_num_threads(2)
    try:
        assert torch.equal(signed_distances(mask), expected)
    finally:
        torch.set_num_threads(1)


def test_vmap():
    mask, valid = torch.rand(3, 2, 2, 5, 4) > 0.5, torch.rand(2, 1, 5, 4) > 0.3
    each = torch.stack([signed_distances(m, valid) for m in mask])
    assert torch.equal(torch.vmap(signed_distances, in_dims=(0, None))(mask, valid), each)
    assert torch.equal(torch.vmap(signed_distances, in_dims=(2, None))(mask.movedim(0, 2), valid), each)


def test_no_gradient_flows_through_a_map():
    logits = torch.randn(2, 3, 5, 4, requires_grad=True)
    maps = signed_distances(logits > 0)
    assert not maps.requires_grad
    (logits.sigmoid() * maps).sum().backward()
    torch.testing.assert_close(logits.grad, maps * logits.sigmoid() * (1 - logits.sigmoid()))


@pytest.mark.slow
def test_compiles_without_a_break():
    mask = torch.rand(2, 3, 5, 4) > 0.5
    compiled = torch.compile(lambda m: 2 * signed_distances(m, spacing=(0.5, 2.0)), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(mask), 2 * signed_distances(mask, spacing=(0.5, 2.0)))


Y = torch.zeros(2, 4, 5, dtype=torch.long)
M = torch.zeros(2, 3, 4, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: signed_distance_map(Y.float(), 3), TypeError, ["must be integers", "float32", "labels.long()"]),
        (lambda: signed_distance_map(Y + 255, 3), ValueError, ["hold 255", "0 to 2", "is 255 an ignore_index?"]),
        (lambda: signed_distance_map(Y - 1, 3), ValueError, ["hold -1", "0 to 2", "ignore_index is -100"]),
        (lambda: signed_distance_map(Y + 2, 1), ValueError, ["hold 2", "num_classes=1", "0 to 1"]),
        (lambda: signed_distance_map(Y, 0), ValueError, ["num_classes must be at least 1, got 0"]),
        (
            lambda: signed_distance_map(Y[0, 0], 3),
            ValueError,
            ["(N, *S)", "one sample (*S) with batched=False", "(5,)"],
        ),
        (lambda: signed_distance_map(Y[:, None, None], 3), ValueError, ["one to three axes", "(2, 1, 1, 4, 5)"]),
        (lambda: signed_distance_map(Y[:, None], 3, batched=False), ValueError, ["one to three axes", "(2, 1, 4, 5)"]),
        (lambda: signed_distance_map(Y, 3, (1.0,)), ValueError, ["spacing needs 2 positive", "(0.5, 0.5)", "(1.0,)"]),
        (lambda: signed_distance_map(Y, 3, 0.5), ValueError, ["spacing needs 2 positive numbers, one per axis", "0.5"]),
        (lambda: signed_distance_map(Y, 3, (1.0, 0.0)), ValueError, ["signed_distance_map", "got (1.0, 0.0)"]),
        (lambda: signed_distance_map(Y, 3, (1.0, float("nan"))), ValueError, ["positive"]),
        (lambda: signed_distance_map(Y, 3, (1.0, float("inf"))), ValueError, ["positive"]),
        (lambda: signed_distance_map(Y[:, 0], 3, ()), ValueError, ["spacing needs 1 positive", "as (0.5,)"]),
        (lambda: signed_distances(Y), TypeError, ["signed_distances: mask must be bool, got torch.int64"]),
        (lambda: signed_distances(M, Y), TypeError, ["valid must be bool"]),
        (lambda: signed_distances(M[0, 0]), ValueError, ["(N, C, *S)", "(4, 5)"]),
        (lambda: signed_distances(M[0, 0, 0]), ValueError, ["(N, C, *S)", "(5,)"]),
        (lambda: signed_distances(M, M[:, :2]), ValueError, ["(2, 3, 4, 5) or (2, 1, 4, 5)", "got (2, 2, 4, 5)"]),
        (lambda: signed_distances(M, spacing=(1.0,)), ValueError, ["signed_distances: spacing needs 2"]),
    ],
)
def test_errors(call, kind, words):
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value)


def test_public_name():
    assert ls.distance.signed_distance_map is signed_distance_map
