"""The two engines: which one runs, that they agree however the work is cut, and that their arithmetic holds."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import threading

import pytest
import torch

import lossmith as ls
from lossmith.engine import curves
from lossmith.engine.contract import Pass
from problems import IGNORED, arguments, by_pair, labels_of, logits_of

LOSS = ls.parse("dice(squared=true) + ce + focal(gamma=0.7) + tversky", ignore_index=IGNORED)


def gradient(loss, logits, labels, **call):
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(logits, labels, **call)
    value.backward()
    return value.detach(), logits.grad


def agree(a, b, tolerance=2e-6):
    for one, other in zip(a, b, strict=True):
        scale = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one.double(), other.double(), rtol=2e-5, atol=tolerance * scale)


REFUSED = [
    (LOSS, logits_of(2, 3, 4), labels_of(3, 2, 4), "torch.float64"),
    (
        ls.CrossEntropyLoss(task="multiclass"),
        torch.zeros(2, 3, 4),
        torch.full((2, 3, 4), 1 / 3, requires_grad=True),
        "gradient",
    ),
    (
        ls.CrossEntropyLoss(reduction="none", label_smoothing=0.1),
        torch.zeros(2, 3, 4),
        labels_of(3, 2, 4, ignore=False),
        "every label",
    ),
    (
        ls.CrossEntropyLoss(task="multiclass", reduction="none"),
        torch.zeros(2, 3, 4),
        torch.full((2, 3, 4), 1 / 3),
        "soft targets",
    ),
]


@pytest.mark.parametrize(("loss", "logits", "target", "reason"), REFUSED)
def test_fused_says_why_it_cannot(loss, logits, target, reason):
    with ls.use_engine("fused"), pytest.raises(RuntimeError, match="cannot serve this call") as error:
        loss(logits, target)
    assert reason in str(error.value)
    assert loss(logits, target).isfinite().all()  # "auto" falls back


def test_fused_refuses_functional_transforms():
    with ls.use_engine("fused"), pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.grad(lambda z: LOSS(z, labels_of(3, 2, 4)))(torch.zeros(2, 3, 4))


def test_auto_takes_the_kernels(answered):
    LOSS(logits_of(2, 3, 4).float(), labels_of(3, 2, 4))
    assert answered == [("numba", Pass)]
    LOSS(logits_of(2, 3, 4), labels_of(3, 2, 4))
    assert answered == [("numba", Pass), ("plain", Pass)]


@by_pair
def test_fused_is_answered_by_kernels_or_refused(row, task, answered):
    """Every family: an explicit choice is never served by anybody else."""
    build, inputs, call = arguments(row, task)
    with ls.use_engine("fused"):
        try:
            build()(*inputs, **call)
        except RuntimeError as error:
            refusal = str(error)
            must = row.name in {"ce", "focal", "dice", "jaccard", "giou", "dice_ce"}
            if must or "use_engine('fused') cannot serve this call: " not in refusal:
                raise
            return
    assert {name for name, _ in answered} == {"numba"}


def test_an_engine_can_be_named(answered):
    logits, labels = logits_of(2, 3, 4).float(), labels_of(3, 2, 4)
    for name in ("numba", "plain"):
        with ls.use_engine(name):
            LOSS(logits, labels)
    assert answered == [("numba", Pass), ("plain", Pass)]
    with ls.use_engine("numba"), pytest.raises(RuntimeError, match=r"use_engine\('numba'\) cannot serve this call"):
        ls.BoundaryF1Loss(ignore_index=IGNORED)(logits, labels)


SIZES = [1, 7, 63, 64, 65, 255, 256, 257, 1000, 70_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3, 17, 150])
def test_engines_agree_at_every_size(size, channels):
    """Around the edges of a block, and past the size at which threads share the work."""
    if size * channels > 1e6:
        size = 7000
    logits, labels = logits_of(2, channels, size).float(), labels_of(max(channels, 2), 2, size)
    labels[0, : size // 2] = labels[0, 0]  # a run of one label
    with ls.use_engine("plain"):
        expected = gradient(LOSS, logits.double(), labels)
    agree(gradient(LOSS, logits, labels), expected)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_engines_agree_on_soft_targets(task):
    logits = logits_of(2, 5, 700).float()
    target = logits_of(2, 5, 700, seed=3).softmax(1) if task == "multiclass" else logits_of(2, 5, 700, seed=3).sigmoid()
    target[0, 2, :300] = IGNORED
    loss = ls.parse("dice(squared=true) + ce(label_smoothing=0.1) + focal", task=task, ignore_index=IGNORED)
    with ls.use_engine("plain"):
        expected = gradient(loss, logits.double(), target)
    agree(gradient(loss, logits, target), expected)
    agree(gradient(loss, logits, target.float()), expected)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_nan_in_a_soft_target_is_seen(task, engine):
    """Targets are held within [0, 1] on their way in; a NaN is not."""
    logits = logits_of(2, 1 if task == "binary" else 3, 700).float()
    target = logits_of(*logits.shape, seed=3).sigmoid()
    target[1, 0, 300] = torch.nan
    loss = ls.parse("dice(squared=true) + ce + lovasz", task=task)
    assert all(part.isnan() for part in loss.parts(logits, target).values())
    assert loss(logits[:1], target[:1]).isfinite()


def test_number_of_threads_changes_nothing():
    logits, labels = logits_of(3, 4, 200, 200).float(), labels_of(4, 3, 200, 200)
    expected = gradient(LOSS, logits, labels)
    before = torch.get_num_threads()
    try:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            for one, other in zip(gradient(LOSS, logits, labels), expected, strict=True):
                assert torch.equal(one, other)
    finally:
        torch.set_num_threads(before)


def test_callers_may_be_threads():
    """Several threads that each hand work to the pool."""
    logits, labels = logits_of(2, 4, 200, 200).float(), labels_of(4, 2, 200, 200)
    expected, found = LOSS(logits, labels), []
    workers = [threading.Thread(target=lambda: found.append(LOSS(logits, labels))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(value, expected) for value in found)
    assert len(found) == 4


def _in_child(logits, labels, results):
    torch.set_num_threads(2)
    results.put(float(LOSS(logits, labels)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_it_works_after_fork():
    """DataLoader workers and torch.multiprocessing fork a process whose threads are gone."""
    logits, labels = logits_of(2, 4, 200, 200).float(), labels_of(4, 2, 200, 200)
    expected = float(LOSS(logits, labels))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_child, args=(logits, labels, results))
    child.start()
    try:
        assert results.get(timeout=60) == expected
    finally:
        child.join(10)
        child.kill()


def test_import_brings_torch_and_numpy_only():
    code = (
        "import sys, lossmith; "
        "heavy = {'numba', 'scipy', 'monai', 'typer', 'rich', 'plotly', 'lightning_fabric', 'edt', 'PIL', 'tifffile', "
        "'matplotlib', 'jinja2'}; "
        "print(sorted(heavy & {m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", curves.KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("x", [0.0, 0.3, 0.5, 0.7, 1.7, 2.0])
def test_slope_of_a_curve_is_that_of_autograd(kind, x):
    if x == 0 and kind is not curves.Focal:
        pytest.skip("only an exponent of focal loss may be 0")
    curve = kind(x)
    u = torch.tensor([0.0, 1e-35, 1e-8, 0.3, 0.7001, 2.0, 300.0], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(curve(u).sum(), u)
    slope = curve.slope(u)
    assert torch.allclose(slope.detach(), expected, rtol=1e-9, atol=1e-14)
    assert not slope.requires_grad or torch.autograd.grad(slope.sum(), u)[0].isfinite().all()  # of a second derivative


def test_nothing_of_the_logits_size_is_kept():
    """Between forward and backward the fused engine holds the logits, the labels and a few sums."""
    logits, labels = logits_of(2, 8, 64, 64).float().requires_grad_(), labels_of(8, 2, 64, 64)
    held = []

    def pack(tensor):
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        LOSS(logits, labels)
    large = [t for t in held if t.numel() >= logits.numel() and t.data_ptr() != logits.data_ptr()]
    assert not large


WIDE = """
from numba import njit, types
from lossmith.engine.numba.arithmetic import FAST, dot

numbers = types.float32[::1]
theirs = njit(error_model="numpy", fastmath=FAST["fastmath"])(dot.py_func)
for function in (dot, theirs):
    function.compile((numbers, numbers, types.int64))
    print("zmm" in "".join(function.inspect_asm().values()))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX-512 is of x86")
def test_kernels_have_512_bits_where_llvm_prefers_256():
    """As compiled for a Cascade Lake, whatever runs here; the user's own Numba code is left as it was."""
    features = "+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+avx2,+fma,+avx,+sse4.2,+prefer-256-bit"
    known = {**os.environ, "NUMBA_CPU_NAME": "cascadelake", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", WIDE], env=known, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("text", ["dice + ce", "ce(reduction='none')", "lovasz(bins=4)", "boundary", "giou"])
def test_many_gradients_at_once(text):
    """Autograd may look at several upstream gradients as at one, which kernels cannot."""
    torch.manual_seed(0)
    if text == "giou":
        logits, target = (torch.rand(2, 4).cumsum(1) for _ in range(2))
    else:
        logits, target = logits_of(2, 3, 9, 9).float(), labels_of(3, 2, 9, 9, ignore=False)
    logits.requires_grad_()
    loss = ls.parse(text)
    value = loss(logits, target) * torch.tensor([1.0, 2.0]) if text != "ce(reduction='none')" else loss(logits, target)
    value = value.flatten()[:2]
    (both,) = torch.autograd.grad(value, logits, torch.eye(2), is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in value]
    torch.testing.assert_close(both, torch.stack(each), rtol=1e-4, atol=1e-7)
