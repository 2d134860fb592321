"""Which engine answers: the user's choice in threads and tasks, and "auto", which always has an answer."""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import lossmith as ls
from lossmith.engine import choice
from lossmith.engine.choice import chosen
from lossmith.engine.numba import boxes, order, softmax
from problems import labels_of, logits_of

LOSS = ls.parse("dice + ce")
Z, Y = logits_of(2, 3, 8, 8).float(), labels_of(3, 2, 8, 8, ignore=False)
BOXES = (
    torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 4.0, 3.0]]),
    torch.tensor([[0.0, 0.5, 2.0, 2.0], [2.0, 1.0, 5.0, 4.0]]),
)


def gradient(loss, first, *more):
    first = first.detach().clone().requires_grad_()
    value = loss(first, *more)
    value.backward()
    return value.detach(), first.grad


def test_use_engine_is_a_setter_and_a_context():
    assert chosen() == "auto"
    with ls.use_engine("plain"):
        assert chosen() == "plain"
        with ls.use_engine("fused"):
            assert chosen() == "fused"
        assert chosen() == "plain"
    assert chosen() == "auto"
    ls.use_engine("plain")
    assert chosen() == "plain"
    ls.use_engine("auto")
    with pytest.raises(ZeroDivisionError), ls.use_engine("plain"):
        raise ZeroDivisionError
    assert chosen() == "auto"


def test_blocks_that_overlap_in_threads_leave_nothing_behind():
    """Each thread has its own; whoever leaves last must not put back what another one chose."""
    both, first_left = threading.Barrier(2), threading.Event()
    seen = {}

    def first():
        with ls.use_engine("plain"):
            both.wait(10)
            seen["first"] = chosen()
        first_left.set()

    def second():
        with ls.use_engine("fused"):
            both.wait(10)
            first_left.wait(10)
            seen["second"] = chosen()
        seen["after"] = chosen()

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == {"first": "plain", "second": "fused", "after": "auto"}
    assert chosen() == "auto"


def test_a_block_that_begins_is_no_call_to_other_threads():
    """Between its call and its block, `use_engine` could be either: the other threads wait until that can be told."""
    seen, kept = [], ls.use_engine("fused")
    threading_run(lambda: seen.append(chosen()))
    assert seen == ["auto"]
    time.sleep(1.2 * choice._MOMENT)
    threading_run(lambda: seen.append(chosen()))
    assert seen == ["auto", "fused"]
    with kept:
        threading_run(lambda: seen.append(chosen()))
    assert seen == ["auto", "fused", "auto"]
    assert chosen() == "auto"


def test_one_choice_may_be_entered_by_several_threads():
    kept, both, seen = ls.use_engine("plain"), threading.Barrier(2), []

    def enter():
        with kept:
            both.wait(10)
            seen.append(chosen())
            both.wait(10)

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == ["plain", "plain"]
    with copy.deepcopy(kept):
        assert chosen() == "plain"
    assert chosen() == "auto"


def test_a_block_holds_for_its_thread_and_a_call_for_the_process():
    seen = []
    with ls.use_engine("plain"):
        threading_run(lambda: seen.append(chosen()))
    ls.use_engine("plain")
    threading_run(lambda: seen.append(chosen()))
    with ls.use_engine("auto"):
        seen.append(chosen())
    ls.use_engine("auto")
    threading_run(lambda: seen.append(chosen()))
    assert seen == ["auto", "plain", "auto", "auto"]


def threading_run(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)


def test_a_block_holds_for_its_task():
    async def one(name, before, after):
        with ls.use_engine(name):
            before.set()
            await after.wait()
            return chosen()

    async def both():
        a, b = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(one("plain", a, b), one("fused", b, a))

    assert asyncio.run(both()) == ["plain", "fused"]
    assert chosen() == "auto"


def test_a_choice_may_be_entered_again_and_calls_do_not_pile_up():
    kept = ls.use_engine("plain")
    for _ in range(2):
        with kept, kept:
            assert chosen() == "plain"
    assert chosen() == "auto"
    for _ in range(50):
        ls.use_engine("auto")
    assert len(choice._calls) <= 2


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_fused_insists_under_compile_too():
    compiled = torch.compile(ls.DiceLoss(), backend="eager", fullgraph=True)
    expected = ls.DiceLoss()(Z, Y)
    torch.testing.assert_close(compiled(Z, Y), expected)
    with ls.use_engine("fused"), pytest.raises(Exception, match="cannot be traced"):
        compiled(Z, Y)
    torch.testing.assert_close(compiled(Z, Y), expected)
    torch._dynamo.reset()


# ---- "auto" always answers ------------------------------------------------------------------------------------------


@pytest.fixture
def anew(monkeypatch):
    """What fails in a test is over after it."""
    monkeypatch.setattr(choice, "_failures", {})
    choice.warn.cache_clear()
    yield
    choice.warn.cache_clear()


def broken(*args, **kwargs):
    raise OSError("no space left on device\nand more lines")


FAILURES = [
    (ls.DiceCELoss(), (Z, Y), softmax, "sums", "gradient"),
    (ls.LovaszSoftmaxLoss(bins=8), (Z, Y), order, "softmax_histogram", "softmax_charge"),
    (ls.GIoULoss(), BOXES, boxes, "fields", "gradient"),
]


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize(("loss", "inputs", "owner", "forward", "backward"), FAILURES)
def test_kernels_that_fail_give_way_to_torch(anew, monkeypatch, loss, inputs, owner, forward, backward, when):
    """With one warning that says why, to the same value and gradient; "fused" raises with that reason."""
    expected = gradient(loss, *inputs)
    monkeypatch.setattr(owner, forward if when == "forward" else backward, broken)
    with (
        ls.use_engine("fused"),
        pytest.raises(RuntimeError, match=r"cannot serve this call: the kernels failed.*no space"),
    ):
        gradient(loss, *inputs)
    with pytest.warns(
        RuntimeWarning, match=r"without its fast CPU kernels: the kernels failed \(OSError: no space"
    ) as seen:
        found = gradient(loss, *inputs)
    assert len(seen) == 1
    assert "more lines" not in str(seen[0].message)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    monkeypatch.undo()
    monkeypatch.setattr(choice, "_failures", {"numba": "the kernels failed (OSError: no space left on device)"})
    gradient(loss, *inputs)  # no second warning, which would be an error here
    with ls.use_engine("fused"), pytest.raises(RuntimeError, match="no space left"):
        loss(*inputs)


class Alarm(Exception):
    """What a time limit raises in the middle of whatever runs."""


def test_what_is_no_failure_of_the_kernels_is_nobody_elses(anew, monkeypatch):
    """An alarm, a hook of autograd, checkpointing, which ends its recomputation by raising: all get through."""

    def alarm(*args):
        raise Alarm

    for error in (alarm, lambda *args: (_ for _ in ()).throw(TimeoutError)):
        monkeypatch.setattr(softmax, "sums", error)
        with pytest.raises((Alarm, TimeoutError)):
            LOSS(Z, Y)
    monkeypatch.undo()
    with pytest.raises(Alarm), torch.autograd.graph.saved_tensors_hooks(alarm, lambda x: x):
        LOSS(Z.clone().requires_grad_(), Y)
    for text in ("ce(reduction='sum')", "dice", "focal(reduction='sum')", "lovasz(bins=8)"):
        loss, leaf = ls.parse(text), Z.clone().requires_grad_()
        checkpoint(lambda z, f=loss: f(z, Y), leaf, use_reentrant=False).backward()
        torch.testing.assert_close(leaf.grad, gradient(loss, Z, Y)[1])
    assert choice._failures == {}


@pytest.mark.parametrize(
    "strange", [lambda z: torch.complex(z, -z).conj().imag, lambda z: torch._efficientzerotensor(z.shape)]
)
def test_views_that_memory_does_not_hold(anew, strange):
    """For this call only, and in torch."""
    z = strange(Z)
    torch.testing.assert_close(LOSS(z, Y), LOSS(z.clone(), Y))
    assert choice._failures == {}
    with ls.use_engine("fused"):
        LOSS(Z, Y)
        with pytest.raises(RuntimeError, match="memory, which does not hold"):
            LOSS(z, Y)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("text", ["dice", "dice + ce", "focal", "lovasz"])
def test_torch_jit_trace_records_the_plain_engine(anew, text):
    """For other values than those it was traced with, ignored pixels among them."""
    loss = ls.parse(text)
    with pytest.warns(RuntimeWarning, match=r"torch\.jit\.trace cannot record the kernels"):
        traced = torch.jit.trace(loss, (Z, Y))
    for other in (Y, (Y + 1) % 3, Y.masked_fill(Y == 1, -100)):
        torch.testing.assert_close(traced(Z.flip(0), other), loss(Z.flip(0), other))
    with ls.use_engine("fused"), pytest.raises(RuntimeError, match=r"torch\.jit\.trace cannot"):
        torch.jit.trace(loss, (Z, Y))


def test_fake_tensors(anew):
    """They have shapes and no values: memory estimators and exporters run a training step with them."""
    with FakeTensorMode():
        z, y = torch.randn(2, 3, 8, 8, requires_grad=True), torch.zeros(2, 8, 8, dtype=torch.long)
        with pytest.warns(RuntimeWarning, match="not FakeTensor"):
            LOSS(z, y).backward()
    assert z.grad.shape == z.shape


def test_without_numba_it_says_so_once_and_runs():
    code = (
        "import sys, warnings; sys.modules['numba'] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        "import lossmith.engine.numba.available as e; e.find_spec = lambda n: None if n == 'numba' else found(n)\n"
        "import torch, lossmith as ls\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2): ls.DiceLoss()(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long))\n"
        "print([str(w.message) for w in seen])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['lossmith runs without its fast CPU kernels: pip install numba']"


def test_a_numba_that_cannot_be_imported():
    code = (
        "import sys, warnings, types\n"
        "import importlib.abc, importlib.machinery\n"
        "class Broken(importlib.abc.Loader):\n"
        "    def create_module(self, spec): raise ImportError('Numba needs NumPy 1.26 or less')\n"
        "    def exec_module(self, module): pass\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return importlib.machinery.ModuleSpec(name, Broken()) if name == 'numba' else None\n"
        "sys.meta_path.insert(0, Finder())\n"
        "import torch, lossmith as ls\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    z, y = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)\n"
        "    for _ in range(2): print(ls.DiceLoss()(z, y).item())\n"
        "print(len(seen), seen[0].message)\n"
        "try:\n"
        "    with ls.use_engine('fused'): ls.DiceLoss()(z, y)\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, warning, refusal = done.stdout.splitlines()
    assert first == second
    reason = "numba cannot be used (ImportError: Numba needs NumPy 1.26 or less)"
    assert warning == f"1 lossmith runs without its fast CPU kernels: {reason}"
    assert "cannot serve this call: numba cannot be used (ImportError" in refusal


def test_kernels_that_are_not_compiled_are_not_used():
    code = (
        "import torch, lossmith as ls\n"
        "z, y = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)\n"
        "print(ls.DiceLoss()(z, y).item(), ls.CrossEntropyLoss()(z, y).item())\n"
        "ls.use_engine('fused')\n"
        "try: ls.DiceLoss()(z, y)\n"
        "except RuntimeError as error: print(error)\n"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    values, refusal = done.stdout.splitlines()
    z, y = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)
    assert [float(x) for x in values.split()] == pytest.approx(
        [ls.DiceLoss()(z, y).item(), ls.CrossEntropyLoss()(z, y).item()]
    )
    assert "NUMBA_DISABLE_JIT is set" in refusal
    assert done.stderr.count("NUMBA_DISABLE_JIT is set") == 1
