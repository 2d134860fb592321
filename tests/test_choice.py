"""Which engine answers: the user's choice in threads and tasks, and "auto", which always has an answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import lossmith as ls
from lossmith.engine import boxes, choice, cpu, ranking_cpu
from lossmith.engine.choice import chosen
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
    assert len(choice._process) <= 2


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
    monkeypatch.setattr(choice, "_failure", None)
    choice._warn.cache_clear()
    yield
    choice._warn.cache_clear()


def broken(*args, **kwargs):
    raise OSError("no space left on device\nand more lines")


FAILURES = [
    (ls.DiceCELoss(), (Z, Y), cpu._Job, "run"),
    (ls.LovaszSoftmaxLoss(bins=8), (Z, Y), ranking_cpu._RankingJob, "run"),
    (ls.GIoULoss(), BOXES, boxes, "_run"),
]


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize(("loss", "inputs", "owner", "name"), FAILURES)
def test_kernels_that_fail_give_way_to_torch(anew, monkeypatch, loss, inputs, owner, name, when):
    """With one warning that says why, to the same value and gradient; "fused" raises with that reason."""
    expected = gradient(loss, *inputs)

    def answer():
        first = inputs[0].detach().clone().requires_grad_()
        if when == "forward":
            monkeypatch.setattr(owner, name, broken)
        value = loss(first, *inputs[1:])
        monkeypatch.setattr(owner, name, broken)
        value.backward()
        return value.detach(), first.grad

    original = getattr(owner, name)
    with (
        ls.use_engine("fused"),
        pytest.raises(RuntimeError, match=r"cannot serve this call: the kernels failed.*no space"),
    ):
        answer()
    monkeypatch.setattr(owner, name, original)
    with pytest.warns(
        RuntimeWarning, match=r"without its fast CPU kernels: the kernels failed \(OSError: no space"
    ) as seen:
        found = answer()
    assert len(seen) == 1
    assert "more lines" not in str(seen[0].message)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    monkeypatch.setattr(owner, name, original)
    gradient(loss, *inputs)  # no second warning, which would be an error here
    with ls.use_engine("fused"), pytest.raises(RuntimeError, match="no space left"):
        loss(*inputs)


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
        "import lossmith.engine.choice as e; e.find_spec = lambda n: None if n == 'numba' else found(n)\n"
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
