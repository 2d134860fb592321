"""How a kernel is run: on several threads, with scratch of their own, and compiled where its failures can be told."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels import compiling

_COMPILING = compiling("numba", ("numba", "llvmlite"))


def launch(
    kernel: Callable[..., None],
    units: int,
    threads: int,
    scratch: Callable[[], tuple[Any, ...]],
    arguments: tuple[Any, ...],
) -> None:
    """kernel(start, stop, *scratch, *arguments) for all units. Who does which makes no difference to the result."""
    if threads < 2:
        with _COMPILING:
            kernel(0, units, *scratch(), *arguments)
        return
    with _COMPILING:  # here: in a thread it could deadlock on the import lock
        kernel(0, 0, *scratch(), *arguments)
    edges = np.linspace(0, units, min(units, 8 * threads) + 1).astype(int).tolist()
    spans = iter(list(itertools.pairwise(edges)))  # a list's iterator may be shared by threads

    def drain() -> None:
        mine = scratch()
        for start, stop in spans:
            kernel(start, stop, *mine, *arguments)

    others = [_pool().submit(drain) for _ in range(threads - 1)]
    drain()
    for other in others:
        if not other.cancel():  # one that has not begun has nothing left to do
            other.result()


def fresh(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for the kernels to write to: on the CPU and of this type, whatever the process has for a default.

    torch aligns it to whole cache lines, NumPy would not.
    """
    return torch.empty(shape, dtype=dtype, device="cpu")


def huge_pages(fresh: Tensor) -> None:
    """Lets Linux back a large new tensor by 2 MB pages: touching it page by page costs as much as the arithmetic."""
    size, page = fresh.numel() * fresh.element_size(), mmap.PAGESIZE
    if size >= 1 << 22 and hasattr(mmap, "MADV_HUGEPAGE") and (madvise := _madvise()) is not None:
        start = -(-fresh.data_ptr() // page) * page
        madvise(start, (fresh.data_ptr() + size - start) // page * page, mmap.MADV_HUGEPAGE)  # a wish: it may fail


@functools.cache
def _madvise() -> Any:
    try:
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):
        return None
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return madvise


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lossmith")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process inherits the pool but not its threads
